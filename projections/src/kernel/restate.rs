//! Restating the past: what a late entry changes in a history, as signed deltas with both times.
//!
//! A figure over time is a step function: from each step's time on it has that step's value. When an event is recorded that
//! was true earlier, the function changes in between. The difference between the old and the new function, written as
//! deltas that all bear the event's recorded time, keeps both answers: summing the deltas with `effective_at <= as_of` and
//! `recorded_at <= known_at` gives the value at `as_of` as it was known at `known_at`.

use jiff::Timestamp;

/// One signed term: from `at` on, `value` counts once more (`sign` 1) or once less (-1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<V> {
    pub at: Timestamp,
    pub value: V,
    pub sign: i64,
}

/// The value of a step function at `t`: that of the last step at or before it. Steps are sorted by time; of several at one
/// time the last counts.
pub fn step_at<V>(steps: &[(Timestamp, V)], t: Timestamp) -> Option<&V> {
    let after = steps.partition_point(|(at, _)| *at <= t);
    steps[..after].last().map(|(_, value)| value)
}

/// Enters a step where it belongs in time. Of several at one time the last entered stands last, and so counts.
pub fn enter<V>(steps: &mut Vec<(Timestamp, V)>, at: Timestamp, value: V) {
    let after = steps.partition_point(|(known, _)| *known <= at);
    steps.insert(after, (at, value));
}

/// The deltas that turn the step function `old` into `new`. `V` is what is counted, or `None` where nothing is.
pub fn restate<V: Clone + Eq>(old: &[(Timestamp, Option<V>)], new: &[(Timestamp, Option<V>)]) -> Vec<Change<V>> {
    let mut times: Vec<Timestamp> = old.iter().chain(new).map(|(at, _)| *at).collect();
    times.sort_unstable();
    times.dedup();
    let mut changes = Vec::new();
    // What the deltas so far add up to: minus the old value, plus the new one.
    let mut correction: (Option<V>, Option<V>) = (None, None);
    for at in times {
        let old_value = step_at(old, at).cloned().flatten();
        let new_value = step_at(new, at).cloned().flatten();
        let wanted = if old_value == new_value {
            (None, None)
        } else {
            (old_value, new_value)
        };
        if wanted == correction {
            continue;
        }
        let mut terms: Vec<(V, i64)> = Vec::new();
        let mut count = |value: &Option<V>, sign: i64| {
            let Some(value) = value else { return };
            match terms.iter_mut().find(|(known, _)| known == value) {
                Some((_, sum)) => *sum += sign,
                None => terms.push((value.clone(), sign)),
            }
        };
        count(&wanted.1, 1);
        count(&wanted.0, -1);
        count(&correction.1, -1);
        count(&correction.0, 1);
        for (value, sign) in terms.into_iter().filter(|(_, sign)| *sign != 0) {
            changes.push(Change { at, value, sign });
        }
        correction = wanted;
    }
    changes
}

#[cfg(test)]
mod specs {
    use proptest::prelude::*;

    use super::*;

    fn day(n: i64) -> Timestamp {
        Timestamp::from_second(n * 86_400).unwrap()
    }

    #[test]
    fn a_change_now_takes_back_the_old_value_and_adds_the_new() {
        let old = [(day(1), Some("proposal"))];
        let new = [(day(1), Some("proposal")), (day(5), Some("negotiation"))];
        let expected = vec![
            Change {
                at: day(5),
                value: "negotiation",
                sign: 1,
            },
            Change {
                at: day(5),
                value: "proposal",
                sign: -1,
            },
        ];
        assert_eq!(restate(&old, &new), expected);
    }

    #[test]
    fn a_late_entry_changes_only_the_days_between() {
        let old = [(day(1), Some(100)), (day(10), Some(200))];
        let new = [(day(1), Some(100)), (day(5), Some(150)), (day(10), Some(200))];
        let expected = vec![
            Change {
                at: day(5),
                value: 150,
                sign: 1,
            },
            Change {
                at: day(5),
                value: 100,
                sign: -1,
            },
            Change {
                at: day(10),
                value: 150,
                sign: -1,
            },
            Change {
                at: day(10),
                value: 100,
                sign: 1,
            },
        ];
        assert_eq!(restate(&old, &new), expected);
    }

    fn steps() -> impl Strategy<Value = Vec<(Timestamp, Option<u8>)>> {
        proptest::collection::vec((0_i64..20, proptest::option::of(0_u8..4)), 0..8).prop_map(|mut steps| {
            steps.sort_by_key(|(at, _)| *at);
            steps.into_iter().map(|(at, value)| (day(at), value)).collect()
        })
    }

    proptest! {
        #[test]
        fn the_old_function_plus_the_deltas_is_the_new_function(old in steps(), new in steps(), t in 0_i64..20) {
            let deltas = restate(&old, &new);
            for value in 0..4 {
                let is = |steps: &[_]| i64::from(step_at(steps, day(t)).cloned().flatten() == Some(value));
                let sum: i64 = deltas.iter().filter(|d| d.at <= day(t) && d.value == value).map(|d| d.sign).sum();
                prop_assert_eq!(is(&old) + sum, is(&new));
            }
        }
    }
}
