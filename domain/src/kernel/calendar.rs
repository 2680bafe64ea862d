//! The company's calendar: which day it is at a time, in the time zone that its log was created with.

use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Days of business, as they are in one time zone, wherever the program runs. Cheap to clone.
///
/// There is none by default: it comes with what is worked on, as `calendar` of a [`Moment`](crate::Moment), of an event
/// ([`Recorded`](crate::Recorded)) and of a question to a read model. All three have it from the log.
///
/// Each time lies in one day, and days follow one another without a gap: a day lasts from its first moment to the first
/// moment of the next one. Where clocks are put forward or back it has 23 or 25 hours, may begin at one o'clock, or
/// have no time at all, where a country went over the date line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar(TimeZone);

/// The time zone of a log that names none.
const TIME_ZONE_DEFAULT: &str = "Asia/Taipei";

/// The program has no time zone of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no time zone {name:?}; it has a name such as Europe/Berlin{}", did_you_mean(.similar))]
pub struct UnknownTimeZone {
    name: String,
    similar: Vec<String>,
}

impl Calendar {
    /// The calendar of a time zone by its IANA name, `Europe/Berlin`, in whatever letters.
    ///
    /// # Errors
    /// [`UnknownTimeZone`], with names that look like it.
    pub fn of(time_zone: &str) -> Result<Calendar, UnknownTimeZone> {
        // Those that the program brings along, and not the machine's: figures must not depend on where they are made.
        let found = TimeZoneDatabase::bundled().get(time_zone);
        let named = found
            .ok()
            .filter(|zone| zone.iana_name().is_some() && !zone.is_unknown());
        named.map(Calendar).ok_or_else(|| UnknownTimeZone {
            name: time_zone.chars().take(80).collect(),
            similar: similar(time_zone),
        })
    }

    /// The calendar of a log that names no time zone: as long as that could not be chosen, every log had this one.
    pub fn taipei() -> Calendar {
        Calendar::of(TIME_ZONE_DEFAULT).expect("it is among those that the program brings along")
    }

    /// The name of its time zone, `Europe/Berlin`.
    pub fn time_zone(&self) -> &str {
        self.0.iana_name().expect("a calendar has a time zone with a name")
    }

    /// What the clocks show at this time.
    pub fn local(&self, at: Timestamp) -> DateTime {
        self.0.to_datetime(at)
    }

    /// The day of business at this time.
    pub fn day(&self, at: Timestamp) -> Date {
        let day = self.local(at).date();
        // Clocks that are put back over midnight show the day before again. The day that has begun goes on.
        match day.tomorrow() {
            Ok(next) if self.day_start(next) <= at => next,
            _ => day,
        }
    }

    /// The first moment of a day: midnight, or when the clocks left that out, the moment after.
    pub fn day_start(&self, day: Date) -> Timestamp {
        self.time(day.at(0, 0, 0, 0))
    }

    /// When the clocks show this for the first time; what they leave out, they show after it.
    pub fn time(&self, local: DateTime) -> Timestamp {
        let time = self.0.to_ambiguous_timestamp(local).compatible();
        // Only the first and the last day of all have hours of which there is no timestamp.
        time.unwrap_or(if local.year() > 0 {
            Timestamp::MAX
        } else {
            Timestamp::MIN
        })
    }

    /// The last moment of a day that is told apart.
    pub fn day_end(&self, day: Date) -> Timestamp {
        match day.tomorrow() {
            Ok(next) => self.day_start(next) - SignedDuration::from_micros(1),
            // The last day of all has no next one.
            Err(_) => Timestamp::MAX,
        }
    }
}

/// Reads the name of a time zone, for settings.
impl FromStr for Calendar {
    type Err = UnknownTimeZone;

    fn from_str(time_zone: &str) -> Result<Calendar, UnknownTimeZone> {
        Calendar::of(time_zone)
    }
}

/// The name of its time zone.
impl Serialize for Calendar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.time_zone())
    }
}

impl<'de> Deserialize<'de> for Calendar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Calendar, D::Error> {
        Calendar::of(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

fn did_you_mean(similar: &[String]) -> String {
    match similar {
        [] => String::new(),
        names => format!("; is it {}?", names.join(" or ")),
    }
}

/// The names whose last part is most like the last part of `name`.
fn similar(name: &str) -> Vec<String> {
    let city = |name: &str| {
        let last = name.rsplit('/').next().unwrap_or_default();
        last.trim().replace(' ', "_").to_ascii_lowercase()
    };
    let wanted = city(name);
    // Longer ones are no slip of the keyboard.
    if !(3..=40).contains(&wanted.chars().count()) {
        return vec![];
    }
    let known = TimeZoneDatabase::bundled();
    let known: Vec<String> = known.available().map(|name| name.to_string()).collect();
    let mut near: Vec<(usize, String)> = known
        .into_iter()
        .map(|name| (slips(&wanted, &city(&name)), name))
        .filter(|(slips, _)| *slips <= wanted.len() / 3)
        .collect();
    near.sort();
    near.truncate(3);
    near.into_iter().map(|(_, name)| name).collect()
}

/// How many letters must be changed, left out or put in to make one word of the other.
fn slips(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut line: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.chars().enumerate() {
        let mut before = std::mem::replace(&mut line[0], row + 1);
        for (column, own) in other.iter().enumerate() {
            let changed = before + usize::from(*own != letter);
            before = line[column + 1];
            line[column + 1] = changed.min(before + 1).min(line[column] + 1);
        }
    }
    line[other.len()]
}

#[cfg(test)]
mod specs {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    fn calendar(time_zone: &str) -> Calendar {
        Calendar::of(time_zone).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_time_is_of_another_day_in_another_time_zone() {
        for (time_zone, text, day) in [
            ("Asia/Taipei", "2026-03-01T15:59:59Z", date(2026, 3, 1)),
            ("Asia/Taipei", "2026-03-01T16:00:00Z", date(2026, 3, 2)),
            ("Europe/Berlin", "2026-03-01T22:59:59Z", date(2026, 3, 1)),
            ("Europe/Berlin", "2026-03-01T23:00:00Z", date(2026, 3, 2)),
            // In summer the day begins an hour earlier.
            ("Europe/Berlin", "2026-07-01T21:59:59Z", date(2026, 7, 1)),
            ("Europe/Berlin", "2026-07-01T22:00:00Z", date(2026, 7, 2)),
            ("America/Los_Angeles", "2026-03-02T07:59:59Z", date(2026, 3, 1)),
            ("America/Los_Angeles", "2026-03-02T08:00:00Z", date(2026, 3, 2)),
            ("Asia/Kathmandu", "2026-03-01T18:14:59Z", date(2026, 3, 1)),
            ("Asia/Kathmandu", "2026-03-01T18:15:00Z", date(2026, 3, 2)),
            ("Pacific/Kiritimati", "2026-03-01T10:00:00Z", date(2026, 3, 2)),
            ("Pacific/Pago_Pago", "2026-03-02T10:59:59Z", date(2026, 3, 1)),
            ("UTC", "2026-03-02T00:00:00Z", date(2026, 3, 2)),
            // Rules go on for ever.
            ("Europe/Berlin", "2199-07-01T22:00:00Z", date(2199, 7, 2)),
            ("Europe/Berlin", "1900-01-01T00:00:00Z", date(1900, 1, 1)),
        ] {
            assert_eq!(calendar(time_zone).day(at(text)), day, "{time_zone} at {text}");
        }
    }

    #[test]
    fn a_day_lasts_as_long_as_its_clocks_say() {
        for (time_zone, day, start, hours) in [
            ("Asia/Taipei", date(2026, 3, 29), "2026-03-28T16:00:00Z", 24),
            ("Europe/Berlin", date(2026, 3, 28), "2026-03-27T23:00:00Z", 24),
            ("Europe/Berlin", date(2026, 3, 29), "2026-03-28T23:00:00Z", 23),
            ("Europe/Berlin", date(2026, 10, 25), "2026-10-24T22:00:00Z", 25),
            ("America/New_York", date(2026, 3, 8), "2026-03-08T05:00:00Z", 23),
            ("America/New_York", date(2026, 11, 1), "2026-11-01T04:00:00Z", 25),
            // Midnight is left out: the day begins at one.
            ("Africa/Cairo", date(2025, 4, 25), "2025-04-24T22:00:00Z", 23),
            // Midnight comes twice: the first one counts.
            ("America/Havana", date(2025, 11, 2), "2025-11-02T04:00:00Z", 25),
            // Put back over midnight, and forward over a whole day.
            ("America/St_Johns", date(2005, 10, 29), "2005-10-29T02:30:00Z", 24),
            ("America/St_Johns", date(2005, 10, 30), "2005-10-30T02:30:00Z", 25),
            ("Pacific/Apia", date(2011, 12, 30), "2011-12-30T10:00:00Z", 0),
        ] {
            let calendar = calendar(time_zone);
            let next = calendar.day_start(day.tomorrow().unwrap());
            let found = calendar.day_start(day);
            assert_eq!(found, at(start), "{time_zone}, {day}");
            assert_eq!(next.duration_since(found).as_hours(), hours, "{time_zone}, {day}");
            assert_eq!(calendar.day_end(day), next - SignedDuration::from_micros(1));
        }
        assert_eq!(calendar("Europe/Berlin").day_start(Date::MIN), Timestamp::MIN);
    }

    #[test]
    fn clocks_that_are_put_back_over_midnight_begin_no_day_twice() {
        let calendar = calendar("America/St_Johns");
        let again = at("2005-10-30T02:31:00Z");
        assert_eq!(calendar.local(again).to_string(), "2005-10-29T23:01:00");
        assert_eq!(calendar.day(again), date(2005, 10, 30));
    }

    #[test]
    fn a_time_zone_has_a_name_that_the_program_knows() {
        assert_eq!(calendar("europe/berlin").time_zone(), "Europe/Berlin");
        assert_eq!(calendar("utc").time_zone(), "UTC");
        assert_eq!(Calendar::taipei().time_zone(), "Asia/Taipei");
        for unknown in [
            "",
            "Berlin",
            "+08:00",
            "CET-1CEST",
            "Etc/Unknown",
            "../etc/passwd",
            "Europe/Berlin ",
        ] {
            assert!(Calendar::of(unknown).is_err(), "{unknown}");
        }
        let told = |name: &str| Calendar::of(name).unwrap_err().to_string();
        assert_eq!(
            told("Berlin"),
            "there is no time zone \"Berlin\"; it has a name such as Europe/Berlin; is it Europe/Berlin?"
        );
        assert!(
            told("Europe/Belin").ends_with("is it Europe/Berlin?"),
            "{}",
            told("Europe/Belin")
        );
        assert!(told("america/new york").contains("America/New_York"));
        assert!(told("Atlantis/Poseidonis").ends_with("such as Europe/Berlin"));
        assert!(told(&"x".repeat(1_000)).len() < 200);
    }

    #[test]
    fn it_is_the_same_on_a_machine_without_time_zones() {
        // Neither TZ nor the files of the system are looked at: all of them are in the program.
        let known = TimeZoneDatabase::bundled();
        assert!(known.available().count() > 400);
        for name in known.available() {
            assert!(Calendar::of(name.as_str()).is_ok(), "{name}");
        }
    }

    fn any_calendar() -> impl Strategy<Value = Calendar> {
        let names: Vec<String> = TimeZoneDatabase::bundled()
            .available()
            .map(|name| name.to_string())
            .collect();
        proptest::sample::select(names).prop_map(|name| calendar(&name))
    }

    proptest! {
        /// In every zone there is: a time lies in its day, and days follow one another.
        #[test]
        fn a_time_lies_in_its_day(calendar in any_calendar(), second in -2_208_988_800_i64..7_289_568_000) {
            let at = Timestamp::from_second(second).unwrap();
            let day = calendar.day(at);
            let (start, next) = (calendar.day_start(day), calendar.day_start(day.tomorrow().unwrap()));
            prop_assert!(start <= at && at < next, "{} has {day} from {start} to {next}, not at {at}", calendar.time_zone());
            prop_assert_eq!(calendar.day(start), day);
            prop_assert!(calendar.day(start - SignedDuration::from_micros(1)) < day);
            prop_assert_eq!(calendar.day_end(day), next - SignedDuration::from_micros(1));
        }
    }
}
