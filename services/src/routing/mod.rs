//! Finds the process that serves a shard: this one, or the owner at the address that its claim gave.
//!
//! A command is sent again, with the same id, until its outcome is known or its time is up: while a shard moves from one process to
//! another, its senders wait a little and are not refused.

mod secret;
#[cfg(test)]
mod specs;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::StreamRef;
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::log::{EventLog, last_claim};
use crate::shard::{Ack, Failure, Lane, Peeked, Request, ShardHandle};
use crate::states::StateStore;
use crate::why::Why;

pub use secret::{PeerSecret, SECRET_CHARACTERS_MAX, SECRET_CHARACTERS_MIN, SECRET_HEADER};
pub use wire::{Answer, Asked, Order, Unreadable};

/// Pause before the owner is looked for again.
const PAUSE: Duration = Duration::from_millis(25);
/// An owner that was looked up so short a while ago is not looked up again.
const FRESH: Duration = Duration::from_millis(20);

/// How long one attempt at another process may take: it may be paused, and another may have taken its place. Imports wait in long
/// queues, and lose their place in them with each attempt.
fn attempt_max(lane: Lane) -> Duration {
    match lane {
        Lane::People => Duration::from_secs(2),
        Lane::Imports => Duration::from_secs(10),
    }
}

/// How to reach other processes that serve shards of the same log.
#[async_trait]
pub trait Peers: Send + Sync {
    /// Has the process at `address` decide the request, if it serves the shard.
    ///
    /// # Errors
    /// Those of [`ShardHandle::execute`] there; [`Failure::Elsewhere`] also when it surely was not reached, and
    /// [`Failure::OutcomeUnknown`] when its answer did not come.
    async fn execute(
        &self,
        address: &str,
        shard: u16,
        request: &Request,
        lane: Lane,
        within: Duration,
    ) -> Result<Ack, Failure>;

    /// Asks the process at `address` for the state of a stream.
    ///
    /// # Errors
    /// Those of [`ShardHandle::peek`] there; [`Failure::Elsewhere`] also when no answer came.
    async fn peek(&self, address: &str, shard: u16, stream: StreamRef, within: Duration) -> Result<Peeked, Failure>;

    /// Does the process at `address` serve the shard now? No answer is a no.
    async fn serves(&self, address: &str, shard: u16, within: Duration) -> bool;
}

/// What is known of the owners of shards.
pub struct Owners {
    pub log: Arc<dyn EventLog>,
    pub log_id: Uuid,
    pub states: Arc<dyn StateStore>,
    /// Where this process answers: never asked over the network.
    pub own_address: String,
}

/// The way to every shard; cheap to clone.
#[derive(Clone)]
pub struct Routing {
    inner: Arc<Inner>,
}

struct Inner {
    shards: Vec<ShardHandle>,
    remote: Option<Remote>,
}

struct Remote {
    peers: Arc<dyn Peers>,
    owners: Owners,
    /// Per shard.
    known: Vec<Mutex<Option<Known>>>,
}

/// The owner's address, if there was one, and when it was looked up.
type Known = (Option<String>, Instant);

/// One attempt at a shard.
enum Way<'a> {
    Here,
    To(&'a Remote, String),
    Nowhere,
}

/// The time there is for an answer, and what the attempts so far may have done.
struct Patience<'a> {
    routing: &'a Routing,
    shard: u16,
    deadline: Instant,
    unknown: Option<Why>,
}

impl Routing {
    /// Every shard is served by this process, or by nobody. One handle per shard, in order.
    pub fn alone(shards: Vec<ShardHandle>) -> Routing {
        let inner = Arc::new(Inner { shards, remote: None });
        Routing { inner }
    }

    /// Shards are spread over processes.
    pub fn among(shards: Vec<ShardHandle>, peers: Arc<dyn Peers>, owners: Owners) -> Routing {
        let known = shards.iter().map(|_| Mutex::default()).collect();
        let remote = Some(Remote { peers, owners, known });
        let inner = Arc::new(Inner { shards, remote });
        Routing { inner }
    }

    /// This process's handle of each shard.
    pub fn shards(&self) -> &[ShardHandle] {
        &self.inner.shards
    }

    /// Sends a request to whoever serves the shard and waits for its answer.
    ///
    /// # Errors
    /// [`Failure`]: rejected, in conflict, or not known to be applied.
    pub async fn execute(&self, shard: u16, request: Request, lane: Lane) -> Result<Ack, Failure> {
        let request = Arc::new(request);
        let mut patience = self.patience(shard);
        loop {
            let left = patience.left();
            let outcome = match self.way(shard).await {
                Way::Here => self.handle(shard).execute(Arc::clone(&request), lane, left).await,
                // Facts are taken only where they were decided; a process takes none from another.
                Way::To(..) if request.has_facts() => return Err(not_here(shard)),
                Way::To(remote, address) => {
                    let within = left.min(attempt_max(lane));
                    remote.peers.execute(&address, shard, &request, lane, within).await
                }
                Way::Nowhere => Err(nobody(shard)),
            };
            if let Some(outcome) = patience.settle(outcome).await {
                return outcome;
            }
        }
    }

    /// The present state of a stream and its version, as the shard's owner has it.
    ///
    /// # Errors
    /// [`Failure::NotAccepted`] when the owner cannot answer.
    pub async fn peek(&self, shard: u16, stream: StreamRef) -> Result<Peeked, Failure> {
        let mut patience = self.patience(shard);
        loop {
            let left = patience.left();
            let outcome = match self.way(shard).await {
                Way::Here => self.handle(shard).peek(stream, left).await,
                Way::To(remote, address) => {
                    let within = left.min(attempt_max(Lane::People));
                    remote.peers.peek(&address, shard, stream, within).await
                }
                Way::Nowhere => Err(nobody(shard)),
            };
            if let Some(outcome) = patience.settle(outcome).await {
                return outcome;
            }
        }
    }

    /// Does some process serve the shard now? One that does not answer does not.
    pub async fn is_served(&self, shard: u16) -> bool {
        if self.handle(shard).status().owned {
            return true;
        }
        let Some(remote) = &self.inner.remote else { return false };
        match remote.look_up(shard).await {
            Some(address) => remote.peers.serves(&address, shard, attempt_max(Lane::People)).await,
            None => false,
        }
    }

    fn handle(&self, shard: u16) -> &ShardHandle {
        &self.inner.shards[usize::from(shard)]
    }

    fn patience(&self, shard: u16) -> Patience<'_> {
        Patience {
            routing: self,
            shard,
            deadline: Instant::now() + self.handle(shard).command_timeout(),
            unknown: None,
        }
    }

    async fn way(&self, shard: u16) -> Way<'_> {
        match &self.inner.remote {
            Some(remote) if !self.handle(shard).is_assigned() => match remote.owner(shard).await {
                Some(address) => Way::To(remote, address),
                None => Way::Nowhere,
            },
            _ => Way::Here,
        }
    }
}

impl Patience<'_> {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The outcome, if it is to be told. `None` after a little while, and a look for another owner, when the next attempt may know more.
    async fn settle<T>(&mut self, outcome: Result<T, Failure>) -> Option<Result<T, Failure>> {
        let why = match (outcome, &self.unknown) {
            (Err(Failure::Elsewhere(why) | Failure::NotInTime(why)), _) => why,
            (Err(Failure::OutcomeUnknown(why)), _) => {
                self.unknown = Some(why.clone());
                why
            }
            (Err(Failure::NotAccepted(_)), Some(why)) => return Some(Err(Failure::OutcomeUnknown(why.clone()))),
            (outcome, _) => return Some(outcome),
        };
        match &self.routing.inner.remote {
            Some(remote) if Instant::now() + PAUSE < self.deadline => {
                tokio::time::sleep(PAUSE).await;
                remote.forget(self.shard).await;
                None
            }
            _ => Some(Err(match self.unknown.take() {
                Some(why) => Failure::OutcomeUnknown(why),
                None => Failure::NotAccepted(why),
            })),
        }
    }
}

fn not_here(shard: u16) -> Failure {
    let what = format!(
        "events that were decided already are taken by the process that serves shard {shard}, and this one does not"
    );
    Failure::NotAccepted(what.into())
}

fn nobody(shard: u16) -> Failure {
    Failure::Elsewhere(format!("no process is known to serve shard {shard}").into())
}

impl Remote {
    /// The address of the shard's owner, as its last claim gave it. Many who ask at once look it up once.
    async fn owner(&self, shard: u16) -> Option<String> {
        let mut known = self.known[usize::from(shard)].lock().await;
        if let Some((owner, _)) = known.as_ref() {
            return owner.clone();
        }
        let owner = self.look_up(shard).await;
        *known = Some((owner.clone(), Instant::now()));
        owner
    }

    async fn forget(&self, shard: u16) {
        let mut known = self.known[usize::from(shard)].lock().await;
        if known.as_ref().is_some_and(|(_, at)| at.elapsed() >= FRESH) {
            *known = None;
        }
    }

    async fn look_up(&self, shard: u16) -> Option<String> {
        let Owners {
            log,
            log_id,
            states,
            own_address,
        } = &self.owners;
        let stored = match states.owner(shard, *log_id).await {
            Ok(owner) => owner,
            Err(error) => {
                tracing::debug!(shard, "the store does not tell the shard's owner: {error}");
                None
            }
        };
        let address = match stored {
            Some(address) => Some(address),
            None => match last_claim(log.as_ref(), shard).await {
                Ok(claim) => claim.map(|claim| claim.address),
                Err(error) => {
                    tracing::debug!(shard, "the log does not tell the shard's owner: {error}");
                    None
                }
            },
        };
        address.filter(|address| !address.is_empty() && address != own_address)
    }
}
