//! An event as it stands in the log: what happened, to which stream, when, by whom, and where it is stored.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Calendar, ExternalKey, StreamRef};

/// Where a record stands: its shard (= Kafka partition) and offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub shard: u16,
    pub offset: u64,
}

/// `3:1207`, shard and offset.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.shard, self.offset)
    }
}

impl Position {
    /// The regular expression of what [`parse`](Self::parse) reads: no log has so many shards or records.
    pub const PATTERN: &str = "[0-9]{1,4}:[0-9]{1,18}";

    /// Reads `3:1207`; `None` when the text does not have the form.
    pub fn parse(text: &str) -> Option<Position> {
        let (shard, offset) = text.split_once(':')?;
        let are_digits = |part: &str, most: usize| {
            (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !are_digits(shard, 4) || !are_digits(offset, 18) {
            return None;
        }
        Some(Position {
            shard: shard.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

/// Who did it: `user:mei`, `system:demo`, `integration:erp`, `customer:…`, `agent:…`. Opaque; never a name or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Actor(String);

impl TryFrom<String> for Actor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Actor, Self::Error> {
        Actor::parse(&text).ok_or("it is no actor")
    }
}

impl From<Actor> for String {
    fn from(actor: Actor) -> String {
        actor.0
    }
}

impl Actor {
    const KINDS: [&'static str; 5] = ["user", "system", "integration", "customer", "agent"];

    /// `None` when it is not `<kind>:<opaque id>` with a known kind and 1 to 100 visible ASCII characters.
    pub fn parse(text: &str) -> Option<Actor> {
        let (kind, id) = text.split_once(':')?;
        let fits = (1..=100).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic() && b != b'@');
        (Actor::KINDS.contains(&kind) && fits).then(|| Actor(text.to_owned()))
    }

    /// `system:<name>`, for what the program does by itself.
    pub fn system(name: &'static str) -> Actor {
        Actor(format!("system:{name}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An event and all that is known of it. `F` is the event itself, usually [`Fact`](crate::Fact).
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded<F> {
    pub stream: StreamRef,
    /// The stream's version after this event: 1, 2, 3 … without gaps.
    pub version: u64,
    pub fact: F,
    /// The customer that the event belongs to, if any.
    pub customer: Option<Uuid>,
    /// What another system calls the stream, on the event that begins it, when its sender named it so.
    pub external_key: Option<ExternalKey>,
    /// When it was written: the writer's clock, never going back within a shard.
    pub recorded_at: Timestamp,
    /// When it was true in the world; `recorded_at` unless the command said another time.
    pub effective_at: Timestamp,
    pub actor: Actor,
    /// `<command id>.<i>`.
    pub event_id: String,
    pub causation: Option<String>,
    pub correlation: Option<String>,
    pub position: Position,
    /// That of the log it stands in: which day it is at a time.
    pub calendar: Calendar,
}
