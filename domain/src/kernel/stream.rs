//! The shape of a stream: what a file in this crate implements, and what it is given to decide.

use std::any::Any;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{Calendar, Id, Slot, slot_of};
use crate::StreamKind;

/// The reason that events have which need one and come of an [`upsert`](Stream::upsert): its sender gives none.
pub const UPSERT_REASON: &str = "update or create";

/// A stream type (an aggregate): events, commands, and two pure functions.
pub trait Stream: Sized + 'static {
    /// The stream's name outside: in URLs, event types and subjects.
    const NAME: &'static str;
    const KIND: StreamKind;
    /// The name of the command that begins a stream.
    const BEGINS: &'static str;
    type State: Default
        + Clone
        + PartialEq
        + fmt::Debug
        + Serialize
        + DeserializeOwned
        + JsonSchema
        + Send
        + Sync
        + 'static;
    type Command: Clone + fmt::Debug + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;
    type Event: Clone + PartialEq + fmt::Debug + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;
    type Rejection: std::error::Error + PartialEq + Send + Sync + 'static;

    /// Where a stream lives that this command begins, when the sender gave no id.
    fn home(_command: &Self::Command) -> Home {
        Home::Anywhere
    }

    /// The streams whose states `decide` needs to look at, read-only. Only those in the stream's own slot can be had.
    fn companions(_command: &Self::Command) -> Vec<StreamRef> {
        Vec::new()
    }

    /// Where an earlier version of the program recorded what the command begins, if that was another stream of the same
    /// slot. It is among the companions.
    fn former(_command: &Self::Command) -> Option<Uuid> {
        None
    }

    /// What happens because of `command`. The same intent twice gives no event the second time.
    ///
    /// # Errors
    /// The stream's rejection, a sentence fit to be shown.
    fn decide(
        state: &Self::State,
        command: Self::Command,
        at: &Moment<'_>,
    ) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// The commands that are decided in place of `command`, in order, when the stream is begun and the sender says
    /// "update or create" (upsert). A command that does not begin the stream stands for itself.
    ///
    /// A beginning stands for the commands that change the fields in which it differs from the stream at the command's
    /// own time. Before them comes the beginning itself, with these fields as they were at first, so that `decide` refuses
    /// the other fields that differ, by name. An optional field that is left out stays as it is. What `decide` looks at
    /// for these commands is among the companions of `command`.
    fn upsert(_state: &Self::State, command: Self::Command, _at: &Moment<'_>) -> Vec<Self::Command> {
        vec![command]
    }

    /// The state after `event`, which is true in the world since `at` (its effective time). It happened, so there is
    /// nothing to validate. An event may be recorded late: `at` can lie before that of an event that came earlier.
    fn evolve(state: Self::State, event: &Self::Event, at: Timestamp) -> Self::State;

    /// The customer that this stream's events belong to, once it is known.
    fn customer(_state: &Self::State) -> Option<Uuid> {
        None
    }

    /// The version in which events of this name are written.
    fn event_version(_event: &str) -> u16 {
        1
    }
}

/// Which stream: its type and its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamRef {
    pub kind: StreamKind,
    pub id: Uuid,
}

impl StreamRef {
    pub fn of<S: Stream>(id: Id<S>) -> StreamRef {
        StreamRef {
            kind: S::KIND,
            id: id.uuid(),
        }
    }

    pub fn slot(self) -> Slot {
        slot_of(self.id)
    }

    /// Reads `opportunity/0192…`; `None` when the text does not have the form.
    pub fn parse(text: &str) -> Option<StreamRef> {
        let (kind, id) = text.split_once('/')?;
        Some(StreamRef {
            kind: StreamKind::parse(kind)?,
            id: Uuid::parse_str(id).ok()?,
        })
    }
}

/// `opportunity/0192…`
impl fmt::Display for StreamRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.name(), self.id)
    }
}

/// Where a stream lives that is begun without an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// In a slot of its own.
    Anywhere,
    /// In the slot of this stream: the customer it belongs to, the equipment it is about.
    With(Uuid),
    /// Its identity is its key, and this is the id of that key.
    Exactly(Uuid),
}

/// What `decide` may know besides the state and the command.
pub struct Moment<'a> {
    /// The stream's own id.
    pub id: Uuid,
    /// When the event will be recorded.
    pub now: Timestamp,
    /// When it is true in the world; `now` unless the command says another time.
    pub effective_at: Timestamp,
    /// Which day it is at a time.
    pub calendar: &'a Calendar,
    companions: &'a dyn Companions,
}

impl<'a> Moment<'a> {
    pub fn new(
        id: Uuid,
        now: Timestamp,
        effective_at: Timestamp,
        calendar: &'a Calendar,
        companions: &'a dyn Companions,
    ) -> Moment<'a> {
        Moment {
            id,
            now,
            effective_at,
            calendar,
            companions,
        }
    }

    /// The state of a companion stream that `companions` declared.
    pub fn state_of<S: Stream>(&self, id: Id<S>) -> Companion<'a, S::State> {
        match self
            .companions
            .find(StreamRef::of(id))
            .and_then(<dyn Any>::downcast_ref)
        {
            Some(state) => Companion::Known(state),
            None => Companion::Elsewhere,
        }
    }
}

/// The state of another stream, as far as it can be known exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Companion<'a, T> {
    /// In the same slot. A stream that was never begun has its default state.
    Known(&'a T),
    /// In another slot, whose order is not ours: a reference that cannot be checked here.
    Elsewhere,
}

/// Finds companion states; implemented by the shard and by specs.
pub trait Companions {
    /// The stream's state (as its `Stream::State`), or `None` when it lives in another slot.
    fn find(&self, stream: StreamRef) -> Option<&dyn Any>;
}
