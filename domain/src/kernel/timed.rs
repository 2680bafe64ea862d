//! What was said of a thing again and again, each saying since when: for the streams that need no whole history.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is said otherwise more often than this is two systems that disagree.
pub const SAYINGS_MAX: usize = 100;

/// Sayings in the order in which they are true: a late one takes its place by its time and holds until the next one. Of
/// several of one instant the last recorded one counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Timed<T>(Vec<Saying<T>>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Saying<T> {
    pub at: Timestamp,
    pub said: T,
}

impl<T> Default for Timed<T> {
    fn default() -> Timed<T> {
        Timed(Vec::new())
    }
}

impl<T> Timed<T> {
    pub fn enter(&mut self, said: T, at: Timestamp) {
        let place = self.0.partition_point(|known| known.at <= at);
        self.0.insert(place, Saying { at, said });
    }

    /// What holds at `t`.
    pub fn at(&self, t: Timestamp) -> Option<&T> {
        let next = self.0.partition_point(|known| known.at <= t);
        Some(&self.0[..next].last()?.said)
    }

    pub fn latest(&self) -> Option<&Saying<T>> {
        self.0.last()
    }

    pub fn is_full(&self) -> bool {
        self.0.len() >= SAYINGS_MAX
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn a_late_saying_holds_until_the_next_one_and_of_one_instant_the_last_counts() {
        let day = |n: i64| Timestamp::from_second(n * 86_400).unwrap();
        let mut timed = Timed::default();
        for (at, said) in [(20, "red"), (10, "blue"), (10, "green")] {
            timed.enter(said, day(at));
        }
        let said = [9, 10, 19, 20, 30].map(|t| timed.at(day(t)).copied());
        assert_eq!(said, [None, Some("green"), Some("green"), Some("red"), Some("red")]);
        assert_eq!(timed.latest().map(|saying| saying.at), Some(day(20)));
    }
}
