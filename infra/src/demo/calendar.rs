//! The company's days: office hours and holidays. Times are those of Taipei, until they are written down.

use std::sync::LazyLock;

use domain::Calendar;
use jiff::civil::{Date, Weekday, date};
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::luck::Luck;

pub const FIRST_DAY: Date = date(2024, 11, 1);
pub const LAST_DAY: Date = date(2026, 10, 31);

static TAIPEI: LazyLock<Calendar> = LazyLock::new(Calendar::taipei);

/// Days off on a working day: first and last of each.
const HOLIDAYS: [(Date, Date); 17] = [
    (date(2025, 1, 1), date(2025, 1, 1)),
    (date(2025, 1, 27), date(2025, 1, 31)),
    (date(2025, 2, 28), date(2025, 2, 28)),
    (date(2025, 4, 3), date(2025, 4, 4)),
    (date(2025, 5, 30), date(2025, 5, 30)),
    (date(2025, 9, 29), date(2025, 9, 29)),
    (date(2025, 10, 6), date(2025, 10, 6)),
    (date(2025, 10, 10), date(2025, 10, 10)),
    (date(2025, 10, 24), date(2025, 10, 24)),
    (date(2026, 1, 1), date(2026, 1, 1)),
    (date(2026, 2, 16), date(2026, 2, 20)),
    (date(2026, 2, 27), date(2026, 2, 27)),
    (date(2026, 4, 3), date(2026, 4, 6)),
    (date(2026, 5, 1), date(2026, 5, 1)),
    (date(2026, 6, 19), date(2026, 6, 19)),
    (date(2026, 9, 25), date(2026, 9, 28)),
    (date(2026, 10, 9), date(2026, 10, 9)),
];

pub fn at(day: Date, hour: i8, minute: i8) -> Timestamp {
    TAIPEI.time(day.at(hour, minute, 0, 0))
}

pub fn day_of(at: Timestamp) -> Date {
    TAIPEI.day(at)
}

/// When clocks of this calendar show what Taipei's show at this time.
pub fn on_clocks_of(calendar: &Calendar, at: Timestamp) -> Timestamp {
    calendar.time(TAIPEI.local(at))
}

pub fn plus_days(day: Date, days: i64) -> Date {
    day.checked_add(days.days()).expect("a day of our days")
}

pub fn days_between(from: Date, to: Date) -> i64 {
    to.duration_since(from).as_hours() / 24
}

pub fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

/// The day itself if people work on it, else the next on which they do.
pub fn office_day(mut day: Date) -> Date {
    while !is_office_day(day) {
        day = plus_days(day, 1);
    }
    day
}

fn is_office_day(day: Date) -> bool {
    let is_holiday = HOLIDAYS.iter().any(|(first, last)| (*first..=*last).contains(&day));
    !is_holiday && !matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday)
}

/// Some time between nine and six.
pub fn office_time(day: Date, luck: &mut Luck) -> Timestamp {
    let minute = luck.between(0, 9 * 60 - 1);
    at(day, 9, 0) + minutes(minute) + SignedDuration::from_secs(luck.between(0, 59))
}

/// So many days later, when people work; on the same day within two hours.
pub fn later(from: Timestamp, days: i64, luck: &mut Luck) -> Timestamp {
    if days <= 0 {
        return from + minutes(luck.between(5, 120));
    }
    office_time(office_day(plus_days(day_of(from), days)), luck)
}
