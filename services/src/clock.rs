//! Time as a port, so that specs and simulations bring their own.

use jiff::Timestamp;

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

/// `time` without what is finer than a microsecond.
pub fn whole_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).expect("a truncated timestamp is one")
}
