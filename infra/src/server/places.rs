//! Places for connections: a newcomer takes the place of the connection that has kept the server waiting for longest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Standing;

/// A connection keeps its place for at least so long, whatever it does.
const SAFE: Duration = Duration::from_secs(1);

/// So many places; cheap to clone.
#[derive(Clone)]
pub struct Places(Arc<Inner>);

struct Inner {
    max: usize,
    safe: Duration,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    by: BTreeMap<u64, Arc<Standing>>,
}

/// A place; it is free again when this is dropped.
pub struct Place {
    number: u64,
    of: Weak<Inner>,
}

impl Places {
    pub fn new(max: usize) -> Places {
        Places::with(max, SAFE)
    }

    /// Places that nobody keeps for long.
    pub fn reserve(max: usize) -> Places {
        Places::with(max, Duration::ZERO)
    }

    fn with(max: usize, safe: Duration) -> Places {
        let taken = Mutex::default();
        Places(Arc::new(Inner { max, safe, taken }))
    }

    /// A place for a connection. When none is free, the place of the one that has waited for its client for longest.
    pub fn take(&self, standing: &Arc<Standing>) -> Option<Place> {
        let mut taken = self.0.taken.lock().expect("no panic under the lock");
        if taken.by.len() >= self.0.max && !taken.free_one(self.0.safe) {
            return None;
        }
        let number = taken.next;
        taken.next += 1;
        taken.by.insert(number, Arc::clone(standing));
        metrics::gauge!("crm_http_connections").increment(1.0);
        let of = Arc::downgrade(&self.0);
        Some(Place { number, of })
    }

    /// Ends the connection that has waited for its client for longest, if there is one.
    pub fn free_one(&self) {
        let mut taken = self.0.taken.lock().expect("no panic under the lock");
        taken.free_one(self.0.safe);
    }
}

impl Taken {
    fn free_one(&mut self, safe: Duration) -> bool {
        let before = Instant::now() - safe;
        let waits = self.by.iter().filter_map(|(number, standing)| {
            let (is_idle, since) = standing.waits_for_its_client()?;
            (since <= before).then_some((is_idle, since, *number))
        });
        // One in the middle of something goes before one that is idle and has been useful.
        let Some((_, _, number)) = waits.min() else {
            return false;
        };
        if let Some(standing) = self.by.remove(&number) {
            metrics::counter!("crm_http_connections_cut_total").increment(1);
            standing.end();
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("crm_http_connections").decrement(1.0);
        if let Some(of) = self.of.upgrade() {
            of.taken
                .lock()
                .expect("no panic under the lock")
                .by
                .remove(&self.number);
        }
    }
}
