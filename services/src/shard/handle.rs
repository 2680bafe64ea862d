//! Where commands for a shard go in: its two queues, its limits and how it is doing.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use domain::StreamRef;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::admission::{Admission, Admitted};
use super::request::{Ack, Failure, Message, Open, Peeked, Request, Ticket};
use crate::why::{Why, told};

/// How a shard is doing, for `crm status` and `/health/ready`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ShardStatus {
    pub shard: u16,
    /// Is this process to serve it? If not, it sends commands to the one that does.
    pub assigned: bool,
    /// Do we own it now?
    pub owned: bool,
    pub epoch: u64,
    /// The offset that our next record will have.
    pub next: u64,
    pub cached_streams: usize,
    pub cached_commands: usize,
    pub unsaved: usize,
    /// Has the state store told, since the take-over, all that it has? From then on what is new is not looked up.
    pub knows_what_is_stored: bool,
    /// Why it is not served, if so.
    #[serde(serialize_with = "told")]
    pub trouble: Option<Why>,
    /// How often work on the shard panicked since the start of the process; after each time the shard was taken over anew.
    pub panics: u64,
    /// Commands at which it panicked again and again. They are refused from then on, until the process is started again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failing_commands: Vec<Uuid>,
}

/// Where commands for a shard go in.
#[derive(Clone)]
pub struct ShardHandle {
    pub(super) people: mpsc::Sender<Message>,
    pub(super) imports: mpsc::Sender<Message>,
    pub(super) admission: Arc<Admission>,
    pub(super) status: Arc<RwLock<ShardStatus>>,
    pub(super) command_timeout: Duration,
}

/// Which queue a command waits in: imports stand behind people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lane {
    People,
    Imports,
}

impl ShardHandle {
    /// Sends a request to the shard of this process and waits for its answer, `within` this time at most.
    ///
    /// # Errors
    /// [`Failure`]: rejected, in conflict, not known to be applied, or [`Failure::Elsewhere`] when another process serves the shard.
    pub async fn execute(&self, request: Arc<Request>, lane: Lane, within: Duration) -> Result<Ack, Failure> {
        let deadline = Instant::now() + within;
        let (reply, answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::default());
        let message = Message::Execute(Open {
            request,
            reply,
            ticket: Arc::clone(&ticket),
        });
        let _admitted = match lane {
            Lane::People => Some(self.enqueue(message)?),
            Lane::Imports => match timeout_at(deadline, self.imports.send(message)).await {
                Ok(Ok(())) => None,
                Ok(Err(_)) => return Err(stopping()),
                Err(_) => return Err(Failure::NotInTime(self.trouble("too many imports are waiting"))),
            },
        };
        match timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) if ticket.cancel() => Err(ended()),
            Ok(Err(_)) => Err(Failure::OutcomeUnknown(
                "the work on it ended before its end: the program failed, or the server is stopping".into(),
            )),
            Err(_) if ticket.cancel() => Err(Failure::NotInTime(self.trouble("the log did not take it in time"))),
            Err(_) => Err(Failure::OutcomeUnknown(
                self.trouble("the log did not confirm it in time"),
            )),
        }
    }

    /// The present state of a stream and its version, as the shard of this process has it.
    ///
    /// # Errors
    /// [`Failure::NotAccepted`] when too many wait, [`Failure::NotInTime`] when no answer came `within` this time, [`Failure::Elsewhere`]
    /// when another process serves the shard.
    pub async fn peek(&self, stream: StreamRef, within: Duration) -> Result<Peeked, Failure> {
        let (reply, answer) = oneshot::channel();
        let _admitted = self.enqueue(Message::Peek { stream, reply })?;
        match tokio::time::timeout(within, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ended()),
            Err(_) => Err(Failure::NotInTime(self.trouble("the shard did not answer in time"))),
        }
    }

    /// Too many are answered at once: waiting would only make more of those who come wait.
    fn enqueue(&self, message: Message) -> Result<Admitted, Failure> {
        let too_many = || Failure::NotAccepted("too many commands are waiting".into());
        let admitted = self.admission.enter().ok_or_else(too_many)?;
        match self.people.try_send(message) {
            Ok(()) => Ok(admitted),
            Err(TrySendError::Full(_)) => Err(too_many()),
            Err(TrySendError::Closed(_)) => Err(stopping()),
        }
    }

    /// How many messages wait in a queue.
    pub fn waiting(&self, lane: Lane) -> usize {
        let queue = match lane {
            Lane::People => &self.people,
            Lane::Imports => &self.imports,
        };
        queue.max_capacity() - queue.capacity()
    }

    /// Is this process to serve the shard?
    pub fn is_assigned(&self) -> bool {
        self.status.read().expect("no panic under the lock").assigned
    }

    /// How long a command may take.
    pub fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    pub fn status(&self) -> ShardStatus {
        self.status.read().expect("no panic under the lock").clone()
    }

    fn trouble(&self, otherwise: &str) -> Why {
        self.status().trouble.unwrap_or_else(|| otherwise.into())
    }
}

/// Nothing was applied: it was not begun when the work on the shard ended.
fn ended() -> Failure {
    Failure::Elsewhere(
        "the work on the shard ended before it was begun: the program failed, or the server is stopping".into(),
    )
}

/// Nothing was applied here, and nothing will be. Another process may serve the shard by now.
fn stopping() -> Failure {
    Failure::Elsewhere("the server is stopping".into())
}
