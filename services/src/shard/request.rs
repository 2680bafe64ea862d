//! What is asked of a shard, and what it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use domain::{Actor, AnyCommand, AnyState, ExternalKey, Fact, Position, StreamRef, command_id_within, link};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::cache::hash_of;
use crate::why::Why;

/// A command, or several that are decided in order, all or nothing.
#[derive(Debug, Clone)]
pub struct Request {
    /// Under which it is recorded.
    pub command_id: Uuid,
    /// The id that its sender gave. Before an id was unique within a stream, commands were recorded under it.
    pub given: Uuid,
    /// Of the content, see [`hash_of`](super::hash_of).
    pub hash: String,
    pub steps: Vec<Step>,
    /// What its sender calls streams that it may begin. The same command by an id is the same command, so it is no part
    /// of the hash.
    pub external_keys: Vec<(Uuid, ExternalKey)>,
    /// As it was sent; see [`true_at`](Request::true_at).
    pub effective_at: Option<Timestamp>,
    /// A command that begins a stream updates one that is begun; see [`Stream::upsert`](domain::Stream::upsert).
    pub upsert: bool,
    pub who: Who,
}

impl Request {
    /// When it is true in the world. A clock that runs ahead says "now": what happened is never later than what is known.
    pub fn true_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.effective_at.filter(|effective_at| *effective_at <= now)
    }

    /// Does it bring events that somebody else decided?
    pub fn has_facts(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Record(_)))
    }

    /// A request under the id that its sender `given`: steps on streams of one slot, one at least.
    pub fn new(given: Uuid, steps: Vec<Step>, effective_at: Option<Timestamp>, who: Who) -> Request {
        let mut request = Request {
            command_id: command_id_within(given, steps[0].stream),
            given,
            hash: String::new(),
            steps,
            external_keys: vec![],
            effective_at,
            upsert: false,
            who,
        };
        request.hash = hash_of(&request);
        request
    }

    /// The same for a sender who says "update or create", which is another content.
    pub fn upserting(mut self, upsert: bool) -> Request {
        if upsert != self.upsert {
            self.upsert = upsert;
            self.hash = hash_of(&self);
        }
        self
    }
}

#[derive(Debug, Clone)]
pub struct Step {
    pub stream: StreamRef,
    pub action: Action,
    pub expected_version: Option<u64>,
}

impl Step {
    /// A link of a key to the customer that the key means anyhow: it writes nothing, and is refused when the key is another's. The door puts
    /// it before a registration.
    pub fn is_guard(&self) -> bool {
        match &self.action {
            Action::Decide(AnyCommand::Link(link::Command::Link { source, key, customer })) => {
                *customer == link::own_customer(source, key)
            }
            Action::Decide(_) | Action::Record(_) => false,
        }
    }
}

#[derive(Debug, Clone)]
pub enum Action {
    Decide(AnyCommand),
    /// Events that somebody else decided against `expected_version`: the cqrs-es adapter.
    Record(Vec<Fact>),
}

/// Who sends it, and what it belongs to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Who {
    pub actor: Actor,
    pub on_behalf_of: Option<Actor>,
    pub causation: Option<String>,
    pub correlation: Option<String>,
    pub traceparent: Option<String>,
}

impl Who {
    pub fn new(actor: Actor) -> Who {
        Who {
            actor,
            on_behalf_of: None,
            causation: None,
            correlation: None,
            traceparent: None,
        }
    }
}

/// Characters of a correlation or causation id.
pub const TRACE_ID_CHARACTERS_MAX: usize = 200;

/// Can this be a correlation or causation id: 1 to 200 visible ASCII characters?
pub fn is_trace_id(text: &str) -> bool {
    (1..=TRACE_ID_CHARACTERS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Is this a W3C trace context of today's version?
pub fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex = |part: &&str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [2, 32, 16, 2] && parts.iter().all(is_hex)
}

/// It is done, durable, and applied once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The streams it wrote to (or would have), with their versions after it.
    pub streams: Vec<(StreamRefText, u64)>,
    /// The last record that this answer rests on: ask a query for at least this.
    pub position: Position,
    /// How many events it wrote; 0 = it was so already.
    pub events: u32,
}

/// A stream reference as text: `opportunity/0192…`.
pub type StreamRefText = String;

/// Why a command was not acked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The stream's own no: a sentence that a sales person understands.
    #[error("{0}")]
    Rejected(String),
    #[error("{stream} is at version {current}, not {expected}; read it again and decide anew")]
    Conflict {
        stream: String,
        expected: u64,
        current: u64,
    },
    #[error("command id {0} was used before with another content")]
    IdReused(Uuid),
    #[error("the command is too large: {0}")]
    TooLarge(String),
    /// Surely nothing was applied.
    #[error("not accepted: {0}; try again")]
    NotAccepted(Why),
    /// Surely nothing was applied: the time of this attempt was up before the command was begun. Whoever has more time asks again.
    #[error("not accepted: {0}; try again")]
    NotInTime(Why),
    /// Surely nothing was applied here; the process that serves the shard is to be asked.
    #[error("not accepted: {0}; try again")]
    Elsewhere(Why),
    #[error("the outcome is unknown: {0}; try again with the same command id")]
    OutcomeUnknown(Why),
    /// Nothing was applied: the log has no room.
    #[error("nothing was stored: {0}")]
    NoRoom(Why),
}

impl Failure {
    /// What only the log says of it.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Failure::NotAccepted(why)
            | Failure::NotInTime(why)
            | Failure::Elsewhere(why)
            | Failure::OutcomeUnknown(why)
            | Failure::NoRoom(why) => why.cause(),
            Failure::Rejected(_) | Failure::Conflict { .. } | Failure::IdReused(_) | Failure::TooLarge(_) => None,
        }
    }
}

/// A stream's state and its version.
pub type Peeked = (Arc<AnyState>, u64);

/// A message to a shard's task.
#[derive(Debug)]
pub enum Message {
    Execute(Open),
    /// The state of a stream and its version.
    Peek {
        stream: StreamRef,
        reply: oneshot::Sender<Result<Peeked, Failure>>,
    },
}

impl Message {
    /// Answers that it came to nothing. The sender may be gone; nothing depends on it.
    pub fn refuse(self, failure: Failure) {
        match self {
            Message::Execute(open) => open.answer(Err(failure)),
            Message::Peek { reply, .. } => reply.send(Err(failure)).unwrap_or_default(),
        }
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Open {
    pub request: Arc<Request>,
    pub reply: oneshot::Sender<Result<Ack, Failure>>,
    pub ticket: Arc<Ticket>,
}

impl Open {
    /// Answers. The sender may be gone; it retries with the same id and gets the same answer.
    pub fn answer(self, result: Result<Ack, Failure>) {
        self.reply.send(result).unwrap_or_default();
    }
}

/// Whether work on a request has begun: decides which 503 its sender gets when time is up.
#[derive(Debug, Default)]
pub struct Ticket(AtomicU8);

const WAITING: u8 = 0;
const STARTED: u8 = 1;
const CANCELLED: u8 = 2;

impl Ticket {
    /// The shard begins; `false` when the sender has given up.
    pub fn start(&self) -> bool {
        match self
            .0
            .compare_exchange(WAITING, STARTED, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => true,
            Err(now) => now == STARTED,
        }
    }

    /// Has work begun?
    pub fn is_started(&self) -> bool {
        self.0.load(Ordering::Acquire) == STARTED
    }

    /// The sender gives up; `true` when surely nothing was or will be applied.
    pub fn cancel(&self) -> bool {
        self.0
            .compare_exchange(WAITING, CANCELLED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}
