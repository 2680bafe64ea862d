//! Days of business: those of Taiwan, wherever the program runs. It has had no other offset since 1979.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;

pub use domain::business_date;

const TAIWAN: Offset = Offset::constant(8);

/// What the company's clock shows at this time.
pub fn business_time(at: Timestamp) -> DateTime {
    TAIWAN.to_datetime(at)
}

/// The midnight with which a day of business begins.
pub fn day_start(day: Date) -> Timestamp {
    let midnight = day.at(0, 0, 0, 0);
    // Only the very first day of the calendar begins before there is a timestamp.
    TAIWAN.to_timestamp(midnight).unwrap_or(Timestamp::MIN)
}

/// The month of a day, `2026-03`: as text it sorts and compares by time.
pub fn month_of(day: Date) -> String {
    format!("{:04}-{:02}", day.year(), day.month())
}

/// From this day to that one; negative when that one is earlier.
pub fn days_between(from: Date, to: Date) -> i64 {
    let hours = to.duration_since(from).as_hours();
    hours / 24
}

#[cfg(test)]
mod specs {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn a_day_begins_at_midnight_in_taiwan() {
        let start = day_start(date(2026, 3, 2));
        assert_eq!(start.to_string(), "2026-03-01T16:00:00Z");
        assert_eq!(business_date(start), date(2026, 3, 2));
        assert_eq!(
            business_date(start - jiff::SignedDuration::from_micros(1)),
            date(2026, 3, 1)
        );
        assert_eq!(month_of(date(2026, 3, 2)), "2026-03");
        assert_eq!(days_between(date(2026, 2, 27), date(2026, 3, 2)), 3);
    }
}
