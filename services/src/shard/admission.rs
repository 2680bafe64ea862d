//! Who comes in. A queue that a stall has filled drains by itself, and nobody has to be refused for it; one that stays full makes
//! everybody wait for nothing. (K. Nichols and V. Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012, tell them apart by time too.)

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::handle::ShardConfig;

/// Counts the commands of people that a shard has accepted and not answered.
pub(super) struct Admission {
    open: AtomicUsize,
    /// Nanoseconds from one answer to the next while the log is at work, a moving average; 0 = not known yet.
    pace: AtomicU64,
    full: Mutex<Option<Full>>,
    steady_min: usize,
    steady_wait: Duration,
    burst: Duration,
}

/// There were more than are answered soon.
struct Full {
    since: Instant,
    last: Instant,
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
            pace: AtomicU64::new(0),
            full: Mutex::new(None),
            steady_min: config.steady_min,
            steady_wait: config.steady_wait,
            burst: config.burst,
        })
    }

    /// `None`: there are too many, and have been for longer than a burst.
    pub(super) fn enter(self: &Arc<Admission>) -> Option<Admitted> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let admitted = Admitted(Arc::clone(self));
        (open < self.steady_max() || self.is_burst()).then_some(admitted)
    }

    /// The log took `answers` commands in this time.
    pub(super) fn paced(&self, answers: usize, took: Duration) {
        if answers == 0 {
            return;
        }
        let sample = u64::try_from(took.as_nanos() / answers as u128)
            .unwrap_or(u64::MAX)
            .max(1);
        let pace = match self.pace.load(Ordering::Relaxed) {
            0 => sample,
            pace => pace - pace / 8 + sample / 8,
        };
        // Only the shard's task writes it.
        self.pace.store(pace.max(1), Ordering::Relaxed);
    }

    /// As many as are answered within `steady_wait`, `steady_min` in any case.
    fn steady_max(&self) -> usize {
        let pace = self.pace.load(Ordering::Relaxed);
        let soon = (self.steady_wait.as_nanos() as u64).checked_div(pace).unwrap_or(0);
        self.steady_min.max(soon as usize)
    }

    /// Has it been full for no longer than a burst? It is full until nobody has found it so for as long.
    fn is_burst(&self) -> bool {
        let now = Instant::now();
        let mut full = self.full.lock().expect("no panic under the lock");
        let since = match &*full {
            Some(full) if now - full.last < self.burst => full.since,
            _ => now,
        };
        *full = Some(Full { since, last: now });
        now - since < self.burst
    }
}
