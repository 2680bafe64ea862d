//! Money: integer minor units and an ISO 4217 currency. No floats, and no sum across currencies.

use std::borrow::Cow;
use std::fmt;

use rust_decimal::{Decimal, RoundingStrategy};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The active national currencies of ISO 4217 that have two decimals.
const TWO_DECIMALS: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD \
    CDF CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR \
    ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN \
    NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC \
    SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VES WST XCD YER ZAR ZMW ZWG";
const NO_DECIMALS: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF";
const THREE_DECIMALS: &str = "BHD IQD JOD KWD LYD OMR TND";

/// An ISO 4217 currency code, such as `TWD`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    pub const TWD: Currency = Currency(*b"TWD");
    pub const USD: Currency = Currency(*b"USD");
    pub const JPY: Currency = Currency(*b"JPY");
    pub const GBP: Currency = Currency(*b"GBP");

    /// # Errors
    /// [`MoneyError::UnknownCurrency`] when `code` is no active ISO 4217 code in capitals.
    pub fn parse(code: &str) -> Result<Currency, MoneyError> {
        let known = code.len() == 3
            && [TWO_DECIMALS, NO_DECIMALS, THREE_DECIMALS]
                .iter()
                .any(|list| list.split_whitespace().any(|c| c == code));
        match <[u8; 3]>::try_from(code.as_bytes()) {
            Ok(bytes) if known => Ok(Currency(bytes)),
            _ => Err(MoneyError::UnknownCurrency(code.chars().take(12).collect())),
        }
    }

    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a currency code is ASCII")
    }

    /// How many decimals the minor unit has: 2 for TWD (as ISO says), 0 for JPY.
    pub fn exponent(&self) -> u32 {
        match self.code() {
            code if NO_DECIMALS.contains(code) => 0,
            code if THREE_DECIMALS.contains(code) => 3,
            _ => 2,
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;

    fn try_from(code: String) -> Result<Currency, MoneyError> {
        Currency::parse(&code)
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.code().to_owned()
    }
}

impl JsonSchema for Currency {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Currency".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let lists = [TWO_DECIMALS, NO_DECIMALS, THREE_DECIMALS];
        let mut codes: Vec<&str> = lists.iter().flat_map(|list| list.split_whitespace()).collect();
        codes.sort_unstable();
        json_schema!({"type": "string", "enum": codes, "description": "ISO 4217 code", "examples": ["TWD"]})
    }
}

/// An amount in the currency's minor units: TWD 12.50 is 1,250.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Unchecked", deny_unknown_fields)]
pub struct Money {
    /// Minor units (cents), signed.
    pub minor: i64,
    pub currency: Currency,
}

/// Minor units of one amount at most, either sign: ten trillion in a currency with two decimals. Thousands of the largest still sum
/// in 64 bits.
pub const MINOR_MAX: i64 = 1_000_000_000_000_000;

/// An amount as it comes in.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Money")]
struct Unchecked {
    /// Minor units (cents), signed; at most 10^15.
    minor: i64,
    currency: Currency,
}

impl TryFrom<Unchecked> for Money {
    type Error = MoneyError;

    fn try_from(Unchecked { minor, currency }: Unchecked) -> Result<Money, MoneyError> {
        match minor.unsigned_abs() > MINOR_MAX.unsigned_abs() {
            true => Err(MoneyError::TooLarge),
            false => Ok(Money { minor, currency }),
        }
    }
}

impl Money {
    pub const fn new(minor: i64, currency: Currency) -> Money {
        Money { minor, currency }
    }

    /// `amount` rounded half-even to the currency's minor unit.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`] when it does not fit 64 bits.
    pub fn from_decimal(amount: Decimal, currency: Currency) -> Result<Money, MoneyError> {
        let minor = amount
            .checked_mul(Decimal::from(10_i64.pow(currency.exponent())))
            .ok_or(MoneyError::TooLarge)?
            .round_dp_with_strategy(0, RoundingStrategy::MidpointNearestEven);
        let minor = i64::try_from(minor).map_err(|_| MoneyError::TooLarge)?;
        Money::try_from(Unchecked { minor, currency })
    }

    pub fn to_decimal(self) -> Decimal {
        Decimal::new(self.minor, self.currency.exponent())
    }
}

/// `TWD 12.50`
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.currency, self.to_decimal())
    }
}

/// What is wrong with an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("{0:?} is not an ISO 4217 currency code such as TWD")]
    UnknownCurrency(String),
    #[error("an amount is at most {MINOR_MAX} minor units")]
    TooLarge,
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn a_half_rounds_to_the_even_cent() {
        let minor = |text: &str, currency| Money::from_decimal(text.parse().unwrap(), currency).unwrap().minor;
        assert_eq!(minor("2.125", Currency::TWD), 212);
        assert_eq!(minor("2.135", Currency::TWD), 214);
        assert_eq!(minor("-2.125", Currency::TWD), -212);
        assert_eq!(minor("100.5", Currency::JPY), 100);
    }

    #[test]
    fn an_unknown_currency_is_named_in_the_error() {
        let error = serde_json::from_str::<Money>(r#"{"minor": 1, "currency": "NTD"}"#).unwrap_err();
        assert!(
            error.to_string().contains("\"NTD\" is not an ISO 4217 currency code"),
            "{error}"
        );
    }

    #[test]
    fn an_amount_that_would_break_sums_is_refused() {
        let read = |minor: i64| serde_json::from_str::<Money>(&format!(r#"{{"minor": {minor}, "currency": "TWD"}}"#));
        assert!(read(-MINOR_MAX).is_ok());
        assert!(read(MINOR_MAX + 1).unwrap_err().to_string().contains("at most"));
        assert!(read(i64::MIN).is_err());
    }

    #[test]
    fn money_prints_its_decimals() {
        assert_eq!(Money::new(1250, Currency::TWD).to_string(), "TWD 12.50");
        assert_eq!(Money::new(1250, Currency::JPY).to_string(), "JPY 1250");
    }
}
