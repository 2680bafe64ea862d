//! A sentence in both languages, and how figures and words are written in them.

use domain::interaction::Channel;
use domain::{Calendar, Currency, Money};
use jiff::Timestamp;

/// What happened, in English and in Chinese as it is written in Taiwan.
#[derive(Debug, Clone, PartialEq)]
pub struct Sentence {
    pub en: String,
    pub zh: String,
}

pub fn say(en: impl Into<String>, zh: impl Into<String>) -> Sentence {
    Sentence {
        en: en.into(),
        zh: zh.into(),
    }
}

impl Sentence {
    /// With something more, if it is known: ` (why)` and `（why）`.
    pub fn because(self, reason: Option<&str>) -> Sentence {
        match reason {
            None => self,
            Some(reason) => say(format!("{} ({reason})", self.en), format!("{}（{reason}）", self.zh)),
        }
    }

    /// With one more part, if there is one: `, part` and `，part`.
    pub fn and(self, more: Option<Sentence>) -> Sentence {
        match more {
            None => self,
            Some(more) => say(format!("{}, {}", self.en, more.en), format!("{}，{}", self.zh, more.zh)),
        }
    }
}

/// `TWD 1,200,000.00`
pub fn money(money: Money) -> String {
    let digits = money.to_decimal().to_string();
    let (whole, cents) = match digits.split_once('.') {
        Some((whole, cents)) => (whole, format!(".{cents}")),
        None => (digits.as_str(), String::new()),
    };
    let whole: i64 = whole.parse().unwrap_or(0);
    // Less than one unit below zero has no whole part to bear the sign.
    let sign = if whole == 0 && money.minor < 0 { "-" } else { "" };
    format!("{} {sign}{}{cents}", money.currency, number(whole))
}

/// [`money`] of minor units.
pub fn amount(minor: i64, currency: Currency) -> String {
    money(Money::new(minor, currency))
}

/// `1,200,000`
pub fn number(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Basis points as percent: `50%`, `12.5%`.
pub fn percent(basis_points: u16) -> String {
    let (whole, rest) = (basis_points / 100, basis_points % 100);
    let text = format!("{whole}.{rest:02}");
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `2026-03-02 09:00`, by the company's clocks.
pub fn time(at: Timestamp, calendar: &Calendar) -> String {
    let local = calendar.local(at);
    format!("{} {:02}:{:02}", local.date(), local.hour(), local.minute())
}

/// `1 point`, `2 points`.
pub fn count(number_of: i64, one: &str) -> String {
    let ending = if number_of.abs() == 1 { "" } else { "s" };
    format!("{} {one}{ending}", number(number_of))
}

pub fn channel(channel: Channel) -> Sentence {
    match channel {
        Channel::Phone => say("by phone", "電話"),
        Channel::Email => say("by e-mail", "電子郵件"),
        Channel::Line => say("on LINE", "LINE"),
        Channel::Web => say("on the website", "網站"),
        Channel::Face => say("in person", "面談"),
        Channel::Fax => say("by fax", "傳真"),
        Channel::Letter => say("by letter", "信函"),
        Channel::Store => say("in a store", "門市"),
        Channel::Other => say("by other means", "其他管道"),
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn amounts_have_separators_and_the_decimals_of_their_currency() {
        assert_eq!(amount(120_000_000, Currency::TWD), "TWD 1,200,000.00");
        assert_eq!(amount(-5, Currency::TWD), "TWD -0.05");
        assert_eq!(amount(-123_456, Currency::TWD), "TWD -1,234.56");
        assert_eq!(amount(999, Currency::JPY), "JPY 999");
        assert_eq!(amount(1_000, Currency::JPY), "JPY 1,000");
    }

    #[test]
    fn percents_are_short() {
        assert_eq!(percent(5_000), "50%");
        assert_eq!(percent(1_250), "12.5%");
        assert_eq!(percent(5), "0.05%");
        assert_eq!(percent(0), "0%");
    }

    #[test]
    fn times_are_those_of_the_companys_clocks() {
        let at = "2026-03-29T01:05:00Z".parse().unwrap();
        for (time_zone, shown) in [
            ("Asia/Taipei", "2026-03-29 09:05"),
            ("Europe/Berlin", "2026-03-29 03:05"),
            ("America/Los_Angeles", "2026-03-28 18:05"),
        ] {
            assert_eq!(time(at, &Calendar::of(time_zone).unwrap()), shown);
        }
    }
}
