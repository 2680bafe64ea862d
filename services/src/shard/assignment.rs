//! Which process is to serve a shard: the word of a coordinator. Safety never depends on it, for the claims in the log decide; it only
//! keeps processes from claiming in turns.

use tokio::sync::watch;

/// The coordinator's word about one shard, for one process. It may change at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignment {
    /// Another process is to serve it: what was accepted is finished, the rest is sent there.
    Elsewhere,
    /// This one: it claims the shard, and claims it back when another did.
    Here,
    /// This one as far as anybody knows: it claims the shard, and yields to whoever claims it later. So it is without a coordinator, and
    /// while that one cannot be reached.
    HereUnlessClaimed,
}

impl Assignment {
    /// The word where there is no coordinator: one process serves every shard.
    pub fn alone() -> watch::Receiver<Assignment> {
        watch::channel(Assignment::HereUnlessClaimed).1
    }
}

/// Whether a shard is to be served here: the assignment, and whether the process is being stopped.
#[derive(Clone)]
pub struct Wanted {
    assignment: watch::Receiver<Assignment>,
    stop: watch::Receiver<bool>,
}

impl Wanted {
    pub fn new(assignment: watch::Receiver<Assignment>, stop: watch::Receiver<bool>) -> Wanted {
        Wanted { assignment, stop }
    }

    /// Also when nobody is left who could say so.
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    pub fn assignment(&self) -> Assignment {
        *self.assignment.borrow()
    }

    /// Is it to be served here, and goes on?
    pub fn is_here(&self) -> bool {
        !self.is_stopping() && self.assignment() != Assignment::Elsewhere
    }

    /// Waits until one of the two changes. A coordinator that is gone changes nothing any more.
    pub async fn changed(&mut self) {
        tokio::select! {
            biased;
            _ = self.stop.changed() => {}
            Ok(()) = self.assignment.changed() => {}
        }
    }

    /// Waits until it is not to be served here any more.
    pub async fn withdrawn(&mut self) {
        while self.is_here() {
            self.changed().await;
        }
    }
}
