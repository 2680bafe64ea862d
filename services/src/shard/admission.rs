//! Who comes in. A queue that a short stall has filled drains by itself, and nobody has to be refused for it; one that stays full makes
//! everybody wait for nothing. (K. Nichols and V. Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012, tell them apart by time too.)

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::handle::ShardConfig;

/// Appends that must be open for the log never to wait: one that is answered, one on its way, one that fills.
const APPENDS_OPEN: u64 = 3;

/// Counts the requests of people that a shard has accepted and not answered.
pub(super) struct Admission {
    open: AtomicUsize,
    /// Nanoseconds from one answer to the next while others wait, a moving average; 0 = not known yet.
    pace: AtomicU64,
    /// Nanoseconds that answers took when they came quickly, of late; 0 = not known yet. However few are let in, nobody waits for less.
    quick: AtomicU64,
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
            quick: AtomicU64::new(0),
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

    /// So many answers took so long, look-ups, decisions and append together. When nobody waited for the next ones, the shard may be quicker
    /// than that, but is not slower. Only the shard's task calls it.
    pub(super) fn paced(&self, answers: usize, took: Duration, others_wait: bool) {
        if answers == 0 {
            return;
        }
        let took = nanos(took).max(1);
        let sample = (took / answers as u64).max(1);
        let pace = match self.pace.load(Ordering::Relaxed) {
            0 => sample,
            pace if sample > pace && !others_wait => pace,
            pace => (pace - pace / 8 + sample / 8).max(1),
        };
        self.pace.store(pace, Ordering::Relaxed);
        let quick = match self.quick.load(Ordering::Relaxed) {
            0 => took,
            quick => took.min(quick + quick / 16 + 1),
        };
        self.quick.store(quick, Ordering::Relaxed);
    }

    fn steady_max(&self) -> usize {
        let wait = nanos(self.steady_wait).max(self.quick.load(Ordering::Relaxed).saturating_mul(APPENDS_OPEN));
        let soon = wait.checked_div(self.pace.load(Ordering::Relaxed)).unwrap_or(0);
        self.steady_min.max(soon as usize)
    }

    /// Has it been full for no longer than a burst? It is full until nobody has found it so for a quarter of one: under lasting overload
    /// somebody does after every append.
    fn is_burst(&self) -> bool {
        let now = Instant::now();
        let mut full = self.full.lock().expect("no panic under the lock");
        let since = match &*full {
            Some(full) if now - full.last < self.burst / 4 => full.since,
            _ => now,
        };
        *full = Some(Full { since, last: now });
        now - since < self.burst
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
