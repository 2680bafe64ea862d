//! Days and times as commands may name them. Which day it is at a time is the [`Calendar`](crate::Calendar)'s to say.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::Offset;

/// The first day that a command may name. What lies before it is a slip of the keyboard, such as a year of two digits.
pub const DAY_MIN: Date = date(1900, 1, 1);
/// The last one. What lies behind it is no plan but a stand-in for "never".
pub const DAY_MAX: Date = date(2200, 12, 31);

/// What is wrong with a day or a time that a command names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDay {
    #[error("{0:?} is no day; a day is written YYYY-MM-DD, without a time")]
    Form(Quoted),
    #[error("{0} is no day of the calendar")]
    Unknown(Quoted),
    #[error("{0} lies outside of {DAY_MIN} to {DAY_MAX}: is the year written with four digits?")]
    Outside(Quoted),
}

/// The beginning of what was sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    /// More than a day or a time has.
    const CHARS: usize = 40;

    fn of(text: &str) -> Quoted {
        Quoted(text.chars().take(Quoted::CHARS).collect())
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads `2026-03-02` and nothing else. A day with a time and an offset is another day in another time zone.
///
/// # Errors
/// [`BadDay`].
pub fn parse_day(text: &str) -> Result<Date, BadDay> {
    let is_day = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    // A year before the year 1, or behind 9999, has a sign.
    if !is_day && text.starts_with(['-', '+']) && text.parse::<Date>().is_ok() {
        return Err(BadDay::Outside(Quoted::of(text)));
    }
    if !is_day {
        return Err(BadDay::Form(Quoted::of(text)));
    }
    let day: Date = text.parse().map_err(|_| BadDay::Unknown(Quoted::of(text)))?;
    match (DAY_MIN..=DAY_MAX).contains(&day) {
        true => Ok(day),
        false => Err(BadDay::Outside(Quoted::of(text))),
    }
}

/// Lies the time within the days that a command may name? Those of UTC: a slip of the keyboard is one in every time zone.
///
/// # Errors
/// [`BadDay::Outside`].
pub fn time_within(at: Timestamp) -> Result<Timestamp, BadDay> {
    match (DAY_MIN..=DAY_MAX).contains(&Offset::UTC.to_datetime(at).date()) {
        true => Ok(at),
        false => Err(BadDay::Outside(Quoted::of(&at.to_string()))),
    }
}

/// How serde reads the days and times of commands: `#[serde(deserialize_with = "at_the_door::day")]`. Events are read as they were
/// written, whatever they say.
pub mod at_the_door {
    use jiff::Timestamp;
    use jiff::civil::Date;
    use schemars::{Schema, SchemaGenerator, json_schema};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer};

    use super::{parse_day, time_within};

    /// # Errors
    /// When it is no day, or lies outside of what a command may name.
    pub fn day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_day(&text).map_err(Error::custom)
    }

    /// For a field with `default`.
    ///
    /// # Errors
    /// Those of [`day`].
    pub fn day_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Date>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| parse_day(&text).map_err(Error::custom)).transpose()
    }

    /// # Errors
    /// When it is no time, or lies outside of what a command may name.
    pub fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let at = Timestamp::deserialize(deserializer)?;
        time_within(at).map_err(Error::custom)
    }

    const PATTERN: &str = "^(19[0-9]{2}|2[01][0-9]{2}|2200)-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$";

    /// A time with seconds and an offset, of the same years.
    const TIME_PATTERN: &str = "^(19[0-9]{2}|2[01][0-9]{2}|2200)-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])\
        T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

    pub fn time_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "pattern": TIME_PATTERN, "examples": ["2026-03-01T09:00:00+08:00"]})
    }

    pub fn day_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date", "pattern": PATTERN, "examples": ["2026-03-01"]})
    }

    pub fn day_if_any_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "null"], "format": "date", "pattern": PATTERN, "examples": ["2026-03-01"]})
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn a_day_is_written_in_one_way_and_within_three_centuries() {
        for (text, day) in [
            ("1900-01-01", DAY_MIN),
            ("2024-02-29", date(2024, 2, 29)),
            ("2200-12-31", DAY_MAX),
        ] {
            assert_eq!(parse_day(text), Ok(day));
        }
        let form = |text: &str| BadDay::Form(Quoted::of(text));
        for text in [
            "2026-10-31T17:30:00+00:00",
            "2026-10-31T17:30:00Z",
            "2026-10-31 17:30",
            "2026-10-31[Asia/Taipei]",
            "20261031",
            "10-12-01",
            "2026-1-01",
            " 2026-10-31",
            "２０２６-10-31",
            "",
        ] {
            assert_eq!(parse_day(text), Err(form(text)));
        }
        for text in ["2026-02-30", "2026-13-01", "2025-02-29"] {
            assert_eq!(parse_day(text), Err(BadDay::Unknown(Quoted::of(text))));
        }
        for text in ["0010-12-01", "1899-12-31", "2201-01-01", "9999-12-31", "-004800-01-01"] {
            assert_eq!(parse_day(text), Err(BadDay::Outside(Quoted::of(text))));
        }
        assert_eq!(
            form("2026-10-31T17:30:00Z").to_string(),
            "\"2026-10-31T17:30:00Z\" is no day; a day is written YYYY-MM-DD, without a time"
        );
    }

    #[test]
    fn every_day_and_time_of_a_command_is_read_so() {
        fn check(path: &str, schema: &serde_json::Value) {
            if schema["format"] == "date" || schema["format"] == "date-time" {
                assert!(
                    schema["pattern"].is_string(),
                    "{path} is read by something else than at_the_door"
                );
            }
            let parts: Vec<(String, &serde_json::Value)> = match schema {
                serde_json::Value::Object(fields) => fields.iter().map(|(name, it)| (name.clone(), it)).collect(),
                serde_json::Value::Array(list) => list.iter().map(|it| (String::new(), it)).collect(),
                _ => vec![],
            };
            for (name, part) in parts {
                check(&format!("{path}/{name}"), part);
            }
        }
        for kind in crate::StreamKind::ALL {
            let mut generator = schemars::SchemaGenerator::default();
            let schema = kind.command_schema(&mut generator);
            check(kind.name(), schema.as_value());
            for (name, part) in generator.take_definitions(true) {
                check(&format!("{}/{name}", kind.name()), &part);
            }
        }
        let schedule = |start: &str| {
            crate::command_from_json::<crate::job::Command>(serde_json::json!({
                "type": "schedule", "start": start, "end": "2026-03-02T09:00:00Z", "technician": "lin",
            }))
        };
        assert!(schedule("2026-03-02T08:00:00Z").is_ok());
        assert_eq!(schedule("0026-03-02T08:00:00Z").unwrap_err().at, "start");
    }

    #[test]
    fn an_event_is_read_whatever_its_day() {
        let kind = crate::EventType::parse("crm.opportunity.close-date-set.v1").unwrap();
        let body = br#"{"from":"0010-12-01","to":"2026-10-31T17:30:00+00:00"}"#;
        let expected = crate::opportunity::Event::CloseDateSet {
            from: date(10, 12, 1),
            to: date(2026, 10, 31),
        };
        assert_eq!(crate::Fact::decode(&kind, body).unwrap(), expected.into());
    }

    #[test]
    fn a_time_lies_within_the_days_that_a_command_may_name() {
        let at = |text: &str| time_within(text.parse().unwrap()).is_ok();
        assert!(at("1900-01-01T00:00:00Z"));
        assert!(!at("1899-12-31T23:59:59Z"));
        assert!(at("2200-12-31T23:59:59Z"));
        assert!(!at("2201-01-01T00:00:00Z"));
    }
}
