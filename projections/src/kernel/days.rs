//! Days counted and gathered into months. Which day it is at a time is the calendar's to say, which comes with the
//! event and the question.

use jiff::civil::Date;

/// The month of a day, `2026-03`: as text it sorts and compares by time.
pub fn month_of(day: Date) -> String {
    format!("{:04}-{:02}", day.year(), day.month())
}

/// From this day to that one; negative when that one is earlier. Days count, however many hours they have.
pub fn days_between(from: Date, to: Date) -> i64 {
    let hours = to.duration_since(from).as_hours();
    hours / 24
}

#[cfg(test)]
mod specs {
    use domain::Calendar;
    use jiff::civil::date;

    use super::*;

    #[test]
    fn days_are_counted_whatever_clocks_do_meanwhile() {
        assert_eq!(month_of(date(2026, 3, 2)), "2026-03");
        for (from, to, days) in [
            (date(2026, 2, 27), date(2026, 3, 2), 3),
            (date(2026, 3, 2), date(2026, 2, 27), -3),
            // Clocks are put forward, and back, in Berlin and in New York.
            (date(2026, 3, 28), date(2026, 3, 30), 2),
            (date(2026, 10, 24), date(2026, 10, 26), 2),
            (date(2026, 3, 7), date(2026, 11, 2), 240),
        ] {
            assert_eq!(days_between(from, to), days, "{from} to {to}");
            for time_zone in ["Europe/Berlin", "America/New_York", "Asia/Taipei"] {
                let calendar = Calendar::of(time_zone).unwrap();
                let [from, to] = [from, to].map(|day| calendar.day(calendar.day_start(day)));
                assert_eq!(days_between(from, to), days, "{from} to {to} in {time_zone}");
            }
        }
    }
}
