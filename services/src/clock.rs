//! Time as a port, so that specs and simulations bring their own.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// A clock that is so far ahead of what it should show is not believed: what is written at its time could never be put right.
pub const CLOCK_AHEAD_MAX: SignedDuration = SignedDuration::from_hours(24);
/// A clock that is put back by no more than this is believed: clocks are set a little, all the time.
const PUT_BACK: SignedDuration = SignedDuration::from_secs(1);

pub trait Clock: Send + Sync {
    /// Now, in whole microseconds: what every store can keep.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        whole_microseconds(Timestamp::now())
    }
}

/// A clock that does not follow when the machine's is put back: it goes on from where it was, as fast as time passes. So nothing that the
/// process made, ids of commands among them, lies in its future.
///
/// One that is put far ahead is shown as it is, and not remembered: shards refuse it, and when it is put right all is as before.
pub struct CorrectedClock {
    machine: Arc<dyn Clock>,
    /// What it showed last, and when.
    shown: Mutex<Option<(Timestamp, Instant)>>,
}

impl CorrectedClock {
    pub fn new(machine: Arc<dyn Clock>) -> CorrectedClock {
        CorrectedClock {
            machine,
            shown: Mutex::default(),
        }
    }
}

impl Clock for CorrectedClock {
    fn now(&self) -> Timestamp {
        let (machine, at) = (self.machine.now(), Instant::now());
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let now = match *shown {
            None => machine,
            Some((time, since)) => {
                let due = whole_microseconds(time + at.duration_since(since));
                if machine > due + CLOCK_AHEAD_MAX {
                    return machine;
                }
                match machine + PUT_BACK < due {
                    true => due,
                    false => machine.max(time),
                }
            }
        };
        *shown = Some((now, at));
        now
    }
}

/// `time` without what is finer than a microsecond.
pub fn whole_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).expect("a truncated timestamp is one")
}

#[cfg(test)]
pub mod specs {
    use std::time::Duration;

    use super::*;

    /// A machine's clock that is wrong by so many seconds.
    #[derive(Default)]
    pub struct WrongClock(pub Mutex<i64>, pub Option<Instant>);

    impl WrongClock {
        pub fn put(&self, seconds: i64) {
            *self.0.lock().unwrap() = seconds;
        }
    }

    impl Clock for WrongClock {
        fn now(&self) -> Timestamp {
            let start: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
            let passed = self.1.map_or(Duration::ZERO, |since| since.elapsed());
            start + passed + SignedDuration::from_secs(*self.0.lock().unwrap())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_put_back_goes_on_from_where_it_was() {
        let machine = Arc::new(WrongClock(Mutex::default(), Some(Instant::now())));
        let clock = CorrectedClock::new(Arc::clone(&machine) as _);
        let start = clock.now();
        machine.put(-600);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(clock.now().duration_since(start), SignedDuration::from_secs(5));
        tokio::time::sleep(Duration::from_secs(595)).await;
        assert_eq!(clock.now().duration_since(start), SignedDuration::from_secs(600));
        machine.put(7);
        assert_eq!(clock.now(), machine.now(), "ahead it is followed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_put_far_ahead_leaves_no_mark() {
        let machine = Arc::new(WrongClock(Mutex::default(), Some(Instant::now())));
        let clock = CorrectedClock::new(Arc::clone(&machine) as _);
        let start = clock.now();
        machine.put(2 * 86_400);
        assert_eq!(clock.now(), machine.now());
        machine.put(0);
        assert_eq!(clock.now(), start);
    }
}
