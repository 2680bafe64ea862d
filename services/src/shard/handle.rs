//! Where commands for a shard go in: its two queues, its limits and how it is doing.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use domain::{AnyState, StreamRef};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::request::{Ack, Failure, Message, Open, Request, Ticket};

/// The limits of a shard; each with its reason.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Commands that wait, in each of the two lanes; more are answered 503 at once.
    pub queue_max: usize,
    /// Records of one append: what fits in a few milliseconds.
    pub batch_records_max: usize,
    /// Bytes of one append.
    pub batch_bytes_max: usize,
    /// States in memory that could be loaded again. Changed ones come on top, up to `unsaved_max`.
    pub cached_streams_max: usize,
    /// Command ids in memory.
    pub cached_commands_max: usize,
    /// Changed states and command ids that wait for the state store; beyond it commands are answered 503.
    pub unsaved_max: usize,
    /// How many of them make a save due before its time.
    pub save_at: usize,
    /// How often states are saved when little happens.
    pub save_every: Duration,
    /// How long a command may take, queue included.
    pub command_timeout: Duration,
    /// Pause between two attempts to take over.
    pub retry_pause: Duration,
}

impl Default for ShardConfig {
    fn default() -> ShardConfig {
        ShardConfig {
            queue_max: 1_024,
            batch_records_max: 2_000,
            batch_bytes_max: 4 * 1024 * 1024,
            cached_streams_max: 100_000,
            cached_commands_max: 100_000,
            unsaved_max: 100_000,
            save_at: 5_000,
            save_every: Duration::from_secs(1),
            command_timeout: Duration::from_secs(30),
            retry_pause: Duration::from_millis(200),
        }
    }
}

/// How a shard is doing, for `crm status` and `/health/ready`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ShardStatus {
    pub shard: u16,
    /// Do we own it now?
    pub owned: bool,
    pub epoch: u64,
    /// The offset that our next record will have.
    pub next: u64,
    pub cached_streams: usize,
    pub unsaved: usize,
    /// Why it is not served, if so.
    pub trouble: Option<String>,
}

/// Where commands for a shard go in.
#[derive(Clone)]
pub struct ShardHandle {
    pub(super) people: mpsc::Sender<Message>,
    pub(super) imports: mpsc::Sender<Message>,
    pub(super) status: Arc<RwLock<ShardStatus>>,
    pub(super) command_timeout: Duration,
}

/// Which queue a command waits in: imports stand behind people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    People,
    Imports,
}

impl ShardHandle {
    /// Sends a request and waits for its answer, for the shard's command time-out at most.
    ///
    /// # Errors
    /// [`Failure`]: rejected, in conflict, or not known to be applied.
    pub async fn execute(&self, request: Request, lane: Lane) -> Result<Ack, Failure> {
        let (reply, answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::default());
        let message = Message::Execute(Open {
            request,
            reply,
            ticket: Arc::clone(&ticket),
        });
        let sent = match lane {
            Lane::People => self.people.try_send(message).is_ok(),
            Lane::Imports => self.imports.send(message).await.is_ok(),
        };
        if !sent {
            return Err(Failure::NotAccepted("too many commands are waiting".into()));
        }
        match tokio::time::timeout(self.command_timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) if ticket.cancel() => Err(Failure::NotAccepted("the server is stopping".into())),
            Ok(Err(_)) => Err(Failure::OutcomeUnknown("the server is stopping".into())),
            Err(_) if ticket.cancel() => Err(Failure::NotAccepted(self.trouble("the log did not take it in time"))),
            Err(_) => Err(Failure::OutcomeUnknown(
                self.trouble("the log did not confirm it in time"),
            )),
        }
    }

    /// The present state of a stream and its version, as the shard's owner has it.
    ///
    /// # Errors
    /// [`Failure::NotAccepted`] when the shard cannot answer.
    pub async fn peek(&self, stream: StreamRef) -> Result<(Arc<AnyState>, u64), Failure> {
        let (reply, answer) = oneshot::channel();
        if self.people.try_send(Message::Peek { stream, reply }).is_err() {
            return Err(Failure::NotAccepted("too many commands are waiting".into()));
        }
        match tokio::time::timeout(self.command_timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Failure::NotAccepted(self.trouble("the shard did not answer in time"))),
        }
    }

    pub fn status(&self) -> ShardStatus {
        self.status.read().expect("no panic under the lock").clone()
    }

    fn trouble(&self, otherwise: &str) -> String {
        self.status().trouble.unwrap_or_else(|| otherwise.to_owned())
    }
}
