//! What a till or a shop took, receipt by receipt (消費紀錄; POS transaction, a sale or a return).

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::Date;
use rust_decimal::{Decimal, RoundingStrategy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::customer::{self, Customer};
use crate::{Currency, Home, Id, MINOR_MAX, Moment, Money, Stream, StreamKind, StreamRef, id_from_key};

/// More lines than this are no receipt but a file that lost its separators.
pub const LINES_MAX: usize = 10_000;

/// Amounts are signed as the customer pays: a return's are negative.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Recorded {
        kind: Kind,
        source: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        store: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        till: Option<String>,
        receipt: String,
        business_date: Date,
        currency: Currency,
        lines: Vec<Line>,
        /// The sum of the lines.
        total_minor: i64,
        /// How much of the total is tax.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tax_minor: Option<i64>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tenders: Vec<Tender>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        customer: Option<Id<Customer>>,
        /// The receipt of the sale that this return takes back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<String>,
    },
    /// It belongs to `to` now. It carries what moves from one customer's sums to the other's.
    CustomerAttached {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Id<Customer>>,
        to: Id<Customer>,
        kind: Kind,
        source: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        store: Option<String>,
        receipt: String,
        business_date: Date,
        currency: Currency,
        total_minor: i64,
    },
    /// It never happened. It carries what leaves the sums; the lines are those of `Recorded`.
    Voided {
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        customer: Option<Id<Customer>>,
        kind: Kind,
        source: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        store: Option<String>,
        receipt: String,
        business_date: Date,
        currency: Currency,
        total_minor: i64,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    pub sku: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(deserialize_with = "exact::text_or_integer")]
    pub quantity: Decimal,
    #[serde(deserialize_with = "exact::text")]
    pub unit_price: Decimal,
    /// `quantity` times `unit_price`, rounded half-even to the currency's minor unit.
    pub amount_minor: i64,
}

/// How it was paid: cash, a card, a voucher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tender {
    #[serde(rename = "type")]
    pub kind: String,
    pub amount_minor: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Sale,
    Return,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Take in a receipt. Tills resend receipts after a power cut, so source, store, till, day and receipt are the id.
    Record {
        kind: Kind,
        source: String,
        store: Option<String>,
        till: Option<String>,
        receipt: String,
        /// The day whose takings it belongs to; after midnight that may still be yesterday.
        business_date: Date,
        currency: Currency,
        lines: Vec<RungLine>,
        /// How much of the total is tax. The line amounts include it.
        tax_minor: Option<i64>,
        /// If any is given, they sum to the lines' total.
        #[serde(default)]
        tenders: Vec<Tender>,
        customer: Option<Id<Customer>>,
        /// The receipt of the sale that this return takes back.
        of: Option<String>,
    },
    /// It was this customer who bought, whoever it belonged to before.
    AttachCustomer { customer: Id<Customer> },
    /// It never happened: a training receipt, a slip of the till.
    Void { reason: String },
}

/// A line as the till rang it up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RungLine {
    pub sku: String,
    pub name: Option<String>,
    /// Negative in a return.
    #[serde(deserialize_with = "exact::text_or_integer")]
    #[schemars(schema_with = "exact::text_or_integer_schema")]
    pub quantity: Decimal,
    /// In major units, as text: `"2.55"`. Text only, because a bare 255 could be meant as minor units.
    #[serde(deserialize_with = "exact::text")]
    pub unit_price: Decimal,
    /// Checked when given: `quantity` times `unit_price`, rounded half-even to the currency's minor unit.
    pub amount_minor: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("there is no such purchase; record it first")]
    NotRecorded,
    #[error("this receipt is already recorded with other content, which stays; a correction is a receipt of its own")]
    AlreadyRecorded,
    #[error("this receipt is already recorded for customer {0}; use attach-customer to change that")]
    BelongsTo(Id<Customer>),
    #[error("this purchase is void")]
    Voided,
    #[error("the {0} is empty")]
    Empty(&'static str),
    #[error("a purchase has at least one line")]
    NoLines,
    #[error("a purchase has at most {LINES_MAX} lines, this one has {0}")]
    TooManyLines(usize),
    #[error("line {0}: the sku is empty")]
    SkuMissing(usize),
    #[error("line {0}: the quantity of a return is negative")]
    PositiveQuantityInReturn(usize),
    #[error("line {0}: the amount of a return is not positive")]
    PositiveAmountInReturn(usize),
    #[error("line {line}: the amount is {given_minor}, quantity times unit price gives {computed_minor} (minor units)")]
    WrongAmount {
        line: usize,
        given_minor: i64,
        computed_minor: i64,
    },
    #[error("line {0}: the amount is too large, or has too many decimals to be exact")]
    AmountTooLarge(usize),
    #[error("the total is too large")]
    TotalTooLarge,
    #[error("the tenders sum to {tendered_minor}, the lines to {total_minor} (minor units)")]
    TendersDiffer { tendered_minor: i64, total_minor: i64 },
    #[error("a reason is needed")]
    ReasonMissing,
    #[error(transparent)]
    Customer(#[from] customer::Unavailable),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// `None` until it is recorded.
    pub purchase: Option<Summary>,
    /// SHA-256 of what was recorded, the customer left out: the lines themselves are not kept here.
    pub fingerprint: String,
    pub customer: Option<Id<Customer>>,
    /// Whom it belonged to before: a till that resends still names them.
    pub former_customers: BTreeSet<Id<Customer>>,
    pub voided: bool,
}

/// What later events say again of the purchase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    pub kind: Kind,
    pub source: String,
    pub store: Option<String>,
    pub receipt: String,
    pub business_date: Date,
    pub currency: Currency,
    pub total_minor: i64,
}

#[derive(Debug)]
pub struct Purchase;

/// The stream of a receipt. A receipt number is unique in its source, or, when a store or a till is named, in that till's day.
pub fn purchase_id(
    source: &str,
    store: Option<&str>,
    till: Option<&str>,
    business_date: Date,
    receipt: &str,
) -> Id<Purchase> {
    let id = match (store, till) {
        (None, None) => id_from_key(Purchase::NAME, source, receipt),
        (store, till) => {
            let (store, till) = (store.unwrap_or_default(), till.unwrap_or_default());
            let key = format!("{store}/{till}/{business_date}/{receipt}");
            id_from_key(Purchase::NAME, source, &key)
        }
    };
    Id::new(id)
}

impl Stream for Purchase {
    const NAME: &'static str = "purchase";
    const KIND: StreamKind = StreamKind::Purchase;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn home(command: &Command) -> Home {
        match command {
            Command::Record {
                source,
                store,
                till,
                receipt,
                business_date,
                ..
            } => {
                let id = purchase_id(source, store.as_deref(), till.as_deref(), *business_date, receipt);
                Home::Exactly(id.uuid())
            }
            Command::AttachCustomer { .. } | Command::Void { .. } => Home::Anywhere,
        }
    }

    fn companions(command: &Command) -> Vec<StreamRef> {
        match command {
            Command::Record {
                customer: Some(customer),
                ..
            }
            | Command::AttachCustomer { customer } => customer::companion(*customer),
            Command::Record { customer: None, .. } | Command::Void { .. } => vec![],
        }
    }

    fn decide(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
        if let Command::Record { .. } = command {
            return record(state, command, at);
        }
        let purchase = state.purchase.as_ref().ok_or(Rejection::NotRecorded)?;
        match command {
            Command::Record { .. } => unreachable!("answered above"),
            Command::AttachCustomer { customer } => attach(state, purchase, customer, at),
            Command::Void { reason } if reason.trim().is_empty() => Err(Rejection::ReasonMissing),
            Command::Void { .. } if state.voided => Ok(vec![]),
            Command::Void { reason } => Ok(vec![Event::Voided {
                reason,
                customer: state.customer,
                kind: purchase.kind,
                source: purchase.source.clone(),
                store: purchase.store.clone(),
                receipt: purchase.receipt.clone(),
                business_date: purchase.business_date,
                currency: purchase.currency,
                total_minor: purchase.total_minor,
            }]),
        }
    }

    fn evolve(mut state: State, event: &Event, _: Timestamp) -> State {
        match event {
            Event::Recorded {
                kind,
                source,
                store,
                receipt,
                business_date,
                currency,
                total_minor,
                customer,
                ..
            } => {
                state.purchase = Some(Summary {
                    kind: *kind,
                    source: source.clone(),
                    store: store.clone(),
                    receipt: receipt.clone(),
                    business_date: *business_date,
                    currency: *currency,
                    total_minor: *total_minor,
                });
                state.fingerprint = fingerprint(event);
                state.customer = *customer;
            }
            Event::CustomerAttached { from, to, .. } => {
                state.former_customers.extend(from);
                state.customer = Some(*to);
            }
            Event::Voided { .. } => state.voided = true,
        }
        state
    }

    fn customer(state: &State) -> Option<Uuid> {
        customer::routing(&state.customer)
    }
}

fn record(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    let Command::Record { customer, .. } = command else {
        unreachable!("only record records");
    };
    let recorded = recorded(command)?;
    match &state.purchase {
        None => {
            if let Some(customer) = customer {
                customer::must_be_open(customer, at)?;
            }
            Ok(vec![recorded])
        }
        Some(_) if state.fingerprint != fingerprint(&recorded) => Err(Rejection::AlreadyRecorded),
        Some(purchase) => match (customer, state.customer) {
            (None, _) => Ok(vec![]),
            (Some(named), Some(known)) if named == known || state.former_customers.contains(&named) => Ok(vec![]),
            (Some(_), Some(known)) => Err(Rejection::BelongsTo(known)),
            (Some(named), None) => attach(state, purchase, named, at),
        },
    }
}

fn attach(state: &State, purchase: &Summary, customer: Id<Customer>, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    if state.voided {
        return Err(Rejection::Voided);
    }
    if state.customer == Some(customer) {
        return Ok(vec![]);
    }
    customer::must_be_open(customer, at)?;
    Ok(vec![Event::CustomerAttached {
        from: state.customer,
        to: customer,
        kind: purchase.kind,
        source: purchase.source.clone(),
        store: purchase.store.clone(),
        receipt: purchase.receipt.clone(),
        business_date: purchase.business_date,
        currency: purchase.currency,
        total_minor: purchase.total_minor,
    }])
}

/// The command as the event it becomes: amounts computed or checked, numbers in their shortest form.
fn recorded(command: Command) -> Result<Event, Rejection> {
    let Command::Record {
        kind,
        source,
        store,
        till,
        receipt,
        business_date,
        currency,
        lines,
        tax_minor,
        tenders,
        customer,
        of,
    } = command
    else {
        unreachable!("only record records");
    };
    if source.trim().is_empty() {
        return Err(Rejection::Empty("source"));
    }
    if receipt.trim().is_empty() {
        return Err(Rejection::Empty("receipt"));
    }
    if lines.is_empty() {
        return Err(Rejection::NoLines);
    }
    if lines.len() > LINES_MAX {
        return Err(Rejection::TooManyLines(lines.len()));
    }
    let mut checked = Vec::with_capacity(lines.len());
    for (index, line) in lines.into_iter().enumerate() {
        checked.push(check_line(index + 1, line, kind, currency)?);
    }
    let total_minor = sum(checked.iter().map(|line| line.amount_minor))?;
    if !tenders.is_empty() {
        check_tenders(&tenders, total_minor)?;
    }
    Ok(Event::Recorded {
        kind,
        source,
        store,
        till,
        receipt,
        business_date,
        currency,
        lines: checked,
        total_minor,
        tax_minor,
        tenders,
        customer,
        of,
    })
}

fn check_line(number: usize, line: RungLine, kind: Kind, currency: Currency) -> Result<Line, Rejection> {
    let RungLine {
        sku,
        name,
        quantity,
        unit_price,
        amount_minor: given,
    } = line;
    if sku.trim().is_empty() {
        return Err(Rejection::SkuMissing(number));
    }
    let computed = amount(quantity, unit_price, currency).ok_or(Rejection::AmountTooLarge(number))?;
    if kind == Kind::Return && quantity > Decimal::ZERO {
        return Err(Rejection::PositiveQuantityInReturn(number));
    }
    if kind == Kind::Return && computed > 0 {
        return Err(Rejection::PositiveAmountInReturn(number));
    }
    match given {
        Some(given) if given != computed => Err(Rejection::WrongAmount {
            line: number,
            given_minor: given,
            computed_minor: computed,
        }),
        Some(_) | None => Ok(Line {
            sku,
            name,
            quantity: quantity.normalize(),
            unit_price: unit_price.normalize(),
            amount_minor: computed,
        }),
    }
}

/// `quantity` times `unit_price` rounded half-even to the minor unit, once; `None` when it does not fit.
fn amount(quantity: Decimal, unit_price: Decimal, currency: Currency) -> Option<i64> {
    let (quantity, unit_price) = (quantity.normalize(), unit_price.normalize());
    let product = quantity.checked_mul(unit_price)?;
    // `Decimal` rounds a product of more than 28 digits; rounding that again could end on the wrong cent.
    let is_exact = product.is_zero() || product.scale() == quantity.scale() + unit_price.scale();
    if !is_exact {
        return None;
    }
    let rounded = product.round_dp_with_strategy(currency.exponent(), RoundingStrategy::MidpointNearestEven);
    Money::from_decimal(rounded, currency).ok().map(|money| money.minor)
}

fn check_tenders(tenders: &[Tender], total_minor: i64) -> Result<(), Rejection> {
    if tenders.iter().any(|tender| tender.kind.trim().is_empty()) {
        return Err(Rejection::Empty("type of a tender"));
    }
    let tendered_minor = sum(tenders.iter().map(|tender| tender.amount_minor))?;
    if tendered_minor != total_minor {
        return Err(Rejection::TendersDiffer {
            tendered_minor,
            total_minor,
        });
    }
    Ok(())
}

fn sum(amounts: impl Iterator<Item = i64>) -> Result<i64, Rejection> {
    let mut total: i64 = 0;
    for amount in amounts {
        total = total.checked_add(amount).ok_or(Rejection::TotalTooLarge)?;
    }
    if total.unsigned_abs() > MINOR_MAX.unsigned_abs() {
        return Err(Rejection::TotalTooLarge);
    }
    Ok(total)
}

/// SHA-256 in hex of a `Recorded` event without its customer. States are stored with it: when the event gets a field,
/// let it be skipped while empty, or receipts that come again look different.
fn fingerprint(recorded: &Event) -> String {
    let mut content = recorded.clone();
    if let Event::Recorded { customer, .. } = &mut content {
        *customer = None;
    }
    let json = serde_json::to_vec(&content).expect("an event is plain data");
    crate::hex(&Sha256::digest(json))
}

/// Decimals that come as text and lose nothing on the way; a JSON number with a fraction has lost it already.
mod exact {
    use std::fmt;

    use rust_decimal::Decimal;
    use schemars::{Schema, SchemaGenerator, json_schema};
    use serde::de::{Deserializer, Error, Visitor};

    struct Exact {
        integers: bool,
    }

    impl Visitor<'_> for Exact {
        type Value = Decimal;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(if self.integers {
                "an integer, or a decimal as text such as \"2.55\""
            } else {
                "a decimal as text such as \"2.55\""
            })
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Decimal, E> {
            Decimal::from_str_exact(text)
                .map_err(|_| E::custom(format!("{text:?} is no decimal of at most 28 digits such as \"2.55\"")))
        }

        fn visit_i64<E: Error>(self, integer: i64) -> Result<Decimal, E> {
            match self.integers {
                true => Ok(integer.into()),
                false => Err(E::invalid_type(serde::de::Unexpected::Signed(integer), &self)),
            }
        }

        fn visit_u64<E: Error>(self, integer: u64) -> Result<Decimal, E> {
            match self.integers {
                true => Ok(integer.into()),
                false => Err(E::invalid_type(serde::de::Unexpected::Unsigned(integer), &self)),
            }
        }
    }

    pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        deserializer.deserialize_any(Exact { integers: false })
    }

    pub fn text_or_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        deserializer.deserialize_any(Exact { integers: true })
    }

    pub fn text_or_integer_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "integer"], "examples": [3, "0.350"]})
    }
}

#[cfg(test)]
mod specs {
    use jiff::civil::date;
    use proptest::prelude::{prop_assert_eq, proptest};
    use serde_json::json;

    use super::*;
    use crate::spec::{given, neighbour, stranger};
    use crate::{command_from_json, decode_event, encode_event};

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn rung(sku: &str, quantity: &str, unit_price: &str) -> RungLine {
        RungLine {
            sku: sku.into(),
            name: None,
            quantity: decimal(quantity),
            unit_price: decimal(unit_price),
            amount_minor: None,
        }
    }

    fn sale(lines: Vec<RungLine>, customer: Option<Id<Customer>>) -> Command {
        receipt(Kind::Sale, lines, vec![], customer)
    }

    fn receipt(kind: Kind, lines: Vec<RungLine>, tenders: Vec<Tender>, customer: Option<Id<Customer>>) -> Command {
        Command::Record {
            kind,
            source: "online-retail".into(),
            store: None,
            till: None,
            receipt: "536365".into(),
            business_date: date(2010, 12, 1),
            currency: Currency::GBP,
            lines,
            tax_minor: None,
            tenders,
            customer,
            of: None,
        }
    }

    fn lanterns() -> Vec<RungLine> {
        vec![rung("71053", "6", "3.39"), rung("22752", "2", "7.650")]
    }

    fn recorded_for(customer: Option<Id<Customer>>) -> Event {
        let line = |sku: &str, quantity: i64, unit_price: &str, amount_minor| Line {
            sku: sku.into(),
            name: None,
            quantity: quantity.into(),
            unit_price: decimal(unit_price),
            amount_minor,
        };
        Event::Recorded {
            kind: Kind::Sale,
            source: "online-retail".into(),
            store: None,
            till: None,
            receipt: "536365".into(),
            business_date: date(2010, 12, 1),
            currency: Currency::GBP,
            lines: vec![line("71053", 6, "3.39", 2034), line("22752", 2, "7.65", 1530)],
            total_minor: 3564,
            tax_minor: None,
            tenders: vec![],
            customer,
            of: None,
        }
    }

    fn attached(from: Option<Id<Customer>>, to: Id<Customer>) -> Event {
        Event::CustomerAttached {
            from,
            to,
            kind: Kind::Sale,
            source: "online-retail".into(),
            store: None,
            receipt: "536365".into(),
            business_date: date(2010, 12, 1),
            currency: Currency::GBP,
            total_minor: 3564,
        }
    }

    fn voided(customer: Option<Id<Customer>>) -> Event {
        Event::Voided {
            reason: "training".into(),
            customer,
            kind: Kind::Sale,
            source: "online-retail".into(),
            store: None,
            receipt: "536365".into(),
            business_date: date(2010, 12, 1),
            currency: Currency::GBP,
            total_minor: 3564,
        }
    }

    fn void() -> Command {
        Command::Void {
            reason: "training".into(),
        }
    }

    fn active() -> customer::State {
        customer::State {
            status: customer::Status::Active,
            ..Default::default()
        }
    }

    #[test]
    fn a_receipt_is_recorded_with_its_amounts_and_total() {
        given::<Purchase>([])
            .when(sale(lanterns(), None))
            .then([recorded_for(None)]);
        given::<Purchase>([])
            .when(sale(lanterns(), Some(stranger("a"))))
            .then([recorded_for(Some(stranger("a")))]);
    }

    #[test]
    fn a_receipt_that_comes_again_is_the_same_receipt() {
        given::<Purchase>([recorded_for(None)])
            .when(sale(lanterns(), None))
            .then_nothing();
        given::<Purchase>([recorded_for(None), voided(None)])
            .when(sale(lanterns(), None))
            .then_nothing();
        given::<Purchase>([recorded_for(Some(stranger("a")))])
            .when(sale(lanterns(), None))
            .then_nothing();
    }

    #[test]
    fn how_a_number_is_written_makes_no_other_receipt() {
        let mut lines = vec![rung("71053", "6.0", "3.390"), rung("22752", "2", "7.65")];
        lines[0].amount_minor = Some(2034);
        given::<Purchase>([recorded_for(None)])
            .when(sale(lines, None))
            .then_nothing();
    }

    #[test]
    fn the_first_content_of_a_receipt_wins() {
        given::<Purchase>([recorded_for(None)])
            .when(sale(vec![rung("71053", "6", "3.39")], None))
            .then_rejected(Rejection::AlreadyRecorded);
    }

    #[test]
    fn a_receipt_that_comes_again_with_its_customer_gets_the_customer() {
        given::<Purchase>([recorded_for(None)])
            .when(sale(lanterns(), Some(stranger("a"))))
            .then([attached(None, stranger("a"))]);
    }

    #[test]
    fn a_till_that_resends_does_not_take_a_purchase_back_from_its_customer() {
        let (a, b) = (stranger("a"), stranger("b"));
        let moved = || given::<Purchase>([recorded_for(Some(a)), attached(Some(a), b)]);
        moved().when(sale(lanterns(), Some(a))).then_nothing();
        moved()
            .when(sale(lanterns(), Some(stranger("c"))))
            .then_rejected(Rejection::BelongsTo(b));
    }

    #[test]
    fn a_purchase_moves_from_one_customer_to_another() {
        let (a, b) = (stranger("a"), stranger("b"));
        given::<Purchase>([recorded_for(Some(a))])
            .when(Command::AttachCustomer { customer: b })
            .then([attached(Some(a), b)]);
    }

    #[test]
    fn a_customer_of_the_same_slot_must_exist_and_be_open() {
        let customer = neighbour("a");
        let missing = || Rejection::from(customer::Unavailable::NotRegistered(customer));
        given::<Purchase>([])
            .when(sale(lanterns(), Some(customer)))
            .then_rejected(missing());
        given::<Purchase>([recorded_for(None)])
            .when(Command::AttachCustomer { customer })
            .then_rejected(missing());
        given::<Purchase>([])
            .with(customer, active())
            .when(sale(lanterns(), Some(customer)))
            .then([recorded_for(Some(customer))]);
    }

    #[test]
    fn a_voided_purchase_says_what_leaves_the_sums_and_gets_no_customer() {
        let a = stranger("a");
        given::<Purchase>([recorded_for(Some(a))])
            .when(void())
            .then([voided(Some(a))]);
        given::<Purchase>([recorded_for(None), voided(None)])
            .when(Command::AttachCustomer { customer: a })
            .then_rejected(Rejection::Voided);
        given::<Purchase>([recorded_for(None), voided(None)])
            .when(sale(lanterns(), Some(a)))
            .then_rejected(Rejection::Voided);
        given::<Purchase>([recorded_for(None)])
            .when(Command::Void { reason: " ".into() })
            .then_rejected(Rejection::ReasonMissing);
    }

    #[test]
    fn nothing_happens_to_a_purchase_that_nobody_recorded() {
        given::<Purchase>([]).when(void()).then_rejected(Rejection::NotRecorded);
    }

    #[test]
    fn a_line_rounds_half_even_to_the_minor_unit() {
        let minor = |quantity, unit_price, currency| amount(decimal(quantity), decimal(unit_price), currency);
        assert_eq!(minor("0.5", "0.25", Currency::GBP), Some(12));
        assert_eq!(minor("0.5", "0.27", Currency::GBP), Some(14));
        assert_eq!(minor("-0.5", "0.25", Currency::GBP), Some(-12));
        assert_eq!(minor("54", "36.301724", Currency::USD), Some(196_029));
        assert_eq!(minor("3", "33.5", Currency::JPY), Some(100));
    }

    #[test]
    fn a_line_that_cannot_be_calculated_exactly_is_refused() {
        let digits = "1.2345678901234567890123";
        given::<Purchase>([])
            .when(sale(vec![rung("A", "1", "2"), rung("B", digits, digits)], None))
            .then_rejected(Rejection::AmountTooLarge(2));
        given::<Purchase>([])
            .when(sale(vec![rung("A", "1000000000000", "1000000000000")], None))
            .then_rejected(Rejection::AmountTooLarge(1));
        let large = || rung("A", "1", "9000000000000");
        given::<Purchase>([])
            .when(sale(vec![large(), large()], None))
            .then_rejected(Rejection::TotalTooLarge);
    }

    #[test]
    fn a_wrong_amount_is_named_with_its_line() {
        let mut lines = lanterns();
        lines[1].amount_minor = Some(1531);
        let rejection = Rejection::WrongAmount {
            line: 2,
            given_minor: 1531,
            computed_minor: 1530,
        };
        assert_eq!(
            rejection.to_string(),
            "line 2: the amount is 1531, quantity times unit price gives 1530 (minor units)"
        );
        given::<Purchase>([]).when(sale(lines, None)).then_rejected(rejection);
    }

    #[test]
    fn a_return_gives_back_and_takes_nothing() {
        let back = |quantity, unit_price| {
            receipt(
                Kind::Return,
                vec![rung("A", "-1", "2"), rung("B", quantity, unit_price)],
                vec![],
                None,
            )
        };
        given::<Purchase>([])
            .when(back("1", "2"))
            .then_rejected(Rejection::PositiveQuantityInReturn(2));
        given::<Purchase>([])
            .when(back("-1", "-2"))
            .then_rejected(Rejection::PositiveAmountInReturn(2));
        let events = given::<Purchase>([]).when(back("-2", "0"));
        let Event::Recorded { lines, .. } = recorded_for(None) else {
            panic!()
        };
        let line = |sku: &str, quantity: i64, unit_price: i64, amount_minor| Line {
            sku: sku.into(),
            quantity: quantity.into(),
            unit_price: unit_price.into(),
            amount_minor,
            ..lines[0].clone()
        };
        events.then([Event::Recorded {
            kind: Kind::Return,
            source: "online-retail".into(),
            store: None,
            till: None,
            receipt: "536365".into(),
            business_date: date(2010, 12, 1),
            currency: Currency::GBP,
            lines: vec![line("A", -1, 2, -200), line("B", -2, 0, 0)],
            total_minor: -200,
            tax_minor: None,
            tenders: vec![],
            customer: None,
            of: None,
        }]);
    }

    #[test]
    fn a_sale_may_have_discounts_and_adjustments() {
        let lines = vec![
            rung("A", "2", "10"),
            rung("DISCOUNT", "-1", "1.50"),
            rung("ADJUST", "-3", "0"),
        ];
        given::<Purchase>([]).same_intent_twice(sale(lines, None));
    }

    #[test]
    fn tenders_sum_to_the_lines() {
        let paid = |cash, card| {
            let tender = |kind: &str, amount_minor| Tender {
                kind: kind.into(),
                amount_minor,
            };
            receipt(
                Kind::Sale,
                lanterns(),
                vec![tender("cash", cash), tender("card", card)],
                None,
            )
        };
        given::<Purchase>([])
            .when(paid(2000, 1500))
            .then_rejected(Rejection::TendersDiffer {
                tendered_minor: 3500,
                total_minor: 3564,
            });
        given::<Purchase>([]).same_intent_twice(paid(2000, 1564));
    }

    #[test]
    fn a_receipt_has_a_source_a_number_lines_and_skus() {
        let refused = |command, rejection| given::<Purchase>([]).when(command).then_rejected(rejection);
        refused(sale(vec![], None), Rejection::NoLines);
        refused(
            sale(vec![rung("A", "1", "1"), rung(" ", "1", "1")], None),
            Rejection::SkuMissing(2),
        );
        let many = vec![rung("A", "1", "1"); LINES_MAX + 1];
        refused(sale(many, None), Rejection::TooManyLines(10_001));
        let Command::Record { lines, .. } = sale(lanterns(), None) else {
            panic!()
        };
        let numberless = Command::Record {
            kind: Kind::Sale,
            source: "online-retail".into(),
            store: None,
            till: None,
            receipt: " ".into(),
            business_date: date(2010, 12, 1),
            currency: Currency::GBP,
            lines,
            tax_minor: None,
            tenders: vec![],
            customer: None,
            of: None,
        };
        refused(numberless, Rejection::Empty("receipt"));
    }

    #[test]
    fn a_receipt_number_is_unique_in_its_source_or_in_the_day_of_its_till() {
        let day = date(2026, 3, 2);
        let bare = purchase_id("erp", None, None, day, "17");
        assert_eq!(bare.uuid(), id_from_key("purchase", "erp", "17"));
        assert_eq!(bare, purchase_id("erp", None, None, date(2026, 3, 3), "17"));
        let till = purchase_id("pos", Some("taipei-101"), Some("3"), day, "17");
        assert_eq!(
            till.uuid(),
            id_from_key("purchase", "pos", "taipei-101/3/2026-03-02/17")
        );
        assert_ne!(
            till,
            purchase_id("pos", Some("taipei-101"), Some("3"), date(2026, 3, 3), "17")
        );
    }

    #[test]
    fn quantities_are_integers_or_text_and_prices_are_text() {
        let command = |quantity: serde_json::Value, unit_price: serde_json::Value| {
            command_from_json::<Command>(json!({
                "type": "record", "kind": "sale", "source": "pos", "receipt": "1", "business_date": "2026-03-02",
                "currency": "TWD", "lines": [{"sku": "A", "quantity": quantity, "unit_price": unit_price}],
            }))
            .map(|_| ())
            .map_err(|error| error.to_string())
        };
        assert_eq!(command(json!(3), json!("2.55")), Ok(()));
        assert_eq!(command(json!("-0.350"), json!("2.55")), Ok(()));
        let error = command(json!(0.35), json!("2.55")).unwrap_err();
        assert!(error.starts_with("lines[0].quantity: "), "{error}");
        assert!(
            error.contains("expected an integer, or a decimal as text such as \"2.55\""),
            "{error}"
        );
        let error = command(json!(1), json!(255)).unwrap_err();
        assert!(error.contains("expected a decimal as text"), "{error}");
        let error = command(json!(1), json!("12,50")).unwrap_err();
        assert!(error.contains("\"12,50\" is no decimal"), "{error}");
    }

    #[test]
    fn a_stored_receipt_is_read_as_it_was_written() {
        let (kind, body) = encode_event::<Purchase>(&recorded_for(Some(stranger("a"))));
        assert_eq!(kind.to_string(), "crm.purchase.recorded.v1");
        assert_eq!(
            decode_event::<Purchase>(&kind, &body).unwrap(),
            recorded_for(Some(stranger("a")))
        );
        assert!(String::from_utf8(body).unwrap().contains(r#""unit_price":"3.39""#));
    }

    #[test]
    fn the_same_intent_twice_gives_nothing_the_second_time() {
        let customer = neighbour("a");
        given::<Purchase>([]).same_intent_twice(sale(lanterns(), None));
        given::<Purchase>([])
            .with(customer, active())
            .same_intent_twice(sale(lanterns(), Some(customer)));
        given::<Purchase>([recorded_for(None)]).same_intent_twice(sale(lanterns(), Some(stranger("a"))));
        given::<Purchase>([recorded_for(None)]).same_intent_twice(Command::AttachCustomer {
            customer: stranger("a"),
        });
        given::<Purchase>([recorded_for(None)]).same_intent_twice(void());
    }

    proptest! {
        #[test]
        fn an_amount_is_the_nearest_minor_unit_and_even_between_two(
            thousandths in -1_000_000_i64..1_000_000, price in -10_000_000_i64..10_000_000, price_decimals in 0_u32..6,
        ) {
            let computed = amount(Decimal::new(thousandths, 3), Decimal::new(price, price_decimals), Currency::GBP);
            let divisor = 10_i128.pow(3 + price_decimals);
            let hundredths = i128::from(thousandths) * i128::from(price) * 100;
            let (floor, rest) = (hundredths.div_euclid(divisor), hundredths.rem_euclid(divisor));
            let is_up = rest * 2 > divisor || (rest * 2 == divisor && floor % 2 != 0);
            prop_assert_eq!(computed.map(i128::from), Some(floor + i128::from(is_up)));
        }
    }
}
