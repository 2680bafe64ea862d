//! Who comes in. A queue that a short stall has filled drains by itself, and nobody has to be refused for it; one that stays full makes
//! everybody wait for nothing. (K. Nichols and V. Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012, tell them apart by time too.)

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::config::ShardConfig;

/// Appends that must be open for the log never to wait: one that is answered, one on its way, one that fills.
const APPENDS_OPEN: f64 = 3.0;

/// Counts the requests of people that a shard has accepted and not answered.
pub(super) struct Admission {
    open: AtomicUsize,
    state: Mutex<State>,
    steady_min: usize,
    steady_wait: Duration,
    burst: Duration,
}

struct State {
    /// Not known before the first answers.
    pace: Option<Pace>,
    fullness: Fullness,
}

/// How a shard answers while others wait, moving averages: of times and of numbers, for a mean of their ratios would be that of the small
/// appends.
struct Pace {
    seconds: f64,
    answers: f64,
    /// What answers took when they came quickly, of late. However few are let in, nobody waits for less.
    quick: f64,
}

/// Are there more than are answered soon?
#[derive(Clone, Copy)]
enum Fullness {
    No,
    /// Whoever has come since then has found it so.
    Since(Instant),
    /// It was so for longer than a burst. It is over when nobody has found it so for a while: after every append there is room for some.
    Lasting {
        last: Instant,
    },
}

/// One that came in, until it is dropped.
pub(super) struct Admitted(Arc<Admission>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    pub(super) fn new(config: &ShardConfig) -> Arc<Admission> {
        Arc::new(Admission {
            open: AtomicUsize::new(0),
            state: Mutex::new(State {
                pace: None,
                fullness: Fullness::No,
            }),
            steady_min: config.steady_min,
            steady_wait: config.steady_wait,
            burst: config.burst,
        })
    }

    /// `None`: there are too many, and have been for longer than a burst.
    pub(super) fn enter(self: &Arc<Admission>) -> Option<Admitted> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let admitted = Admitted(Arc::clone(self));
        let mut state = self.state.lock().expect("no panic under the lock");
        let is_full = open >= self.steady_min && open >= state.answered_within(self.steady_wait);
        state.fullness = state.fullness.when_one_comes(is_full, Instant::now(), self.burst);
        let is_refused = is_full && matches!(state.fullness, Fullness::Lasting { .. });
        (!is_refused).then_some(admitted)
    }

    /// So many answers took so long, look-ups, decisions and append together. When nobody waited for the next ones, the shard may be quicker
    /// than that, but is not slower.
    pub(super) fn paced(&self, answers: usize, took: Duration, others_wait: bool) {
        if answers == 0 {
            return;
        }
        let (answers, seconds) = (answers as f64, took.as_secs_f64());
        let mut state = self.state.lock().expect("no panic under the lock");
        let pace = state.pace.get_or_insert(Pace {
            seconds,
            answers,
            quick: seconds,
        });
        pace.quick = seconds.min(pace.quick * 17.0 / 16.0);
        if others_wait || seconds * pace.answers < pace.seconds * answers {
            pace.seconds += (seconds - pace.seconds) / 8.0;
            pace.answers += (answers - pace.answers) / 8.0;
        }
    }
}

impl State {
    /// As many as are answered in this time, or in that of a few quick appends.
    fn answered_within(&self, time: Duration) -> usize {
        self.pace.as_ref().map_or(0, |pace| {
            let seconds = time.as_secs_f64().max(APPENDS_OPEN * pace.quick);
            // A float that is too large for it becomes the largest.
            (seconds * pace.answers / pace.seconds) as usize
        })
    }
}

impl Fullness {
    fn when_one_comes(self, is_full: bool, now: Instant, burst: Duration) -> Fullness {
        match self {
            Fullness::Lasting { last } if now - last < burst / 4 => Fullness::Lasting {
                last: if is_full { now } else { last },
            },
            Fullness::Since(since) if is_full && now - since >= burst => Fullness::Lasting { last: now },
            Fullness::Since(since) if is_full => Fullness::Since(since),
            _ if is_full && burst.is_zero() => Fullness::Lasting { last: now },
            _ if is_full => Fullness::Since(now),
            _ => Fullness::No,
        }
    }
}
