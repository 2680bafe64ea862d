//! Questions that wait until a read model has come to a position: so many, and the one that has waited for longest makes room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

/// Questions that wait for a position at most. Half of all questions, so that those that need not wait always find a place.
pub const WAITING_MAX: usize = super::queries::QUESTIONS_MAX / 2;

/// All that wait; cheap to clone.
#[derive(Clone, Default)]
pub struct Waiting(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    next: u64,
    /// The first one has waited for longest.
    all: BTreeMap<u64, Arc<Notify>>,
}

/// One that waits, until it is dropped.
pub struct Waiter {
    number: u64,
    ends: Arc<Notify>,
    of: Waiting,
}

impl Waiting {
    /// One more waits. When there are too many, the one that has waited for longest ends.
    pub fn enter(&self) -> Waiter {
        let mut inner = self.0.lock().expect("no panic under the lock");
        if inner.all.len() >= WAITING_MAX
            && let Some((_, longest)) = inner.all.pop_first()
        {
            longest.notify_one();
        }
        let (number, ends) = (inner.next, Arc::new(Notify::new()));
        inner.next += 1;
        inner.all.insert(number, Arc::clone(&ends));
        let of = self.clone();
        Waiter { number, ends, of }
    }
}

impl Waiter {
    /// Comes when this one has waited for long enough, because others want to wait.
    pub async fn ends(&self) {
        self.ends.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut inner = self.of.0.lock().expect("no panic under the lock");
        inner.all.remove(&self.number);
    }
}
