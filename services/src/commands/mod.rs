//! The door for commands: reads JSON, finds ids, routes to the shard, and waits for the ack.
//!
//! Whatever way a command comes in, it goes through here: `meaning.rs` finds out which streams it names, `checks.rs`
//! says what is refused, `references.rs` looks at what they refer to, `registration.rs` reserves the keys of a
//! customer, and `again.rs` finds the answer that a command had before.

mod again;
mod checks;
mod meaning;
mod references;
mod registration;

use std::sync::Arc;

use domain::{AnyCommand, BadText, Calendar, ExternalKey, Home, Slot, StreamKind, StreamRef, TEXT_BYTES_MAX, tidy_key};
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

pub use self::checks::{COMMAND_ID_DAYS_MAX, EXTERNAL_KEYS_MAX};
use self::meaning::Meanings;
pub use self::references::REFERENCE_WAIT_MAX;
use crate::clock::Clock;
use crate::routing::Routing;
use crate::shard::{Ack, Action, Failure, Lane, Peeked, Request, ShardHandle, Step, Who, id_made_at, streams_of};

/// Commands of one bundle at most.
pub const BUNDLE_MAX: usize = 100;

/// A command as it comes from outside.
#[derive(Debug, Clone)]
pub struct Incoming {
    pub stream: StreamKind,
    /// `None` begins a stream whose id the command gives.
    pub id: Option<Reference>,
    /// Fills the command's `customer` when it has none.
    pub customer: Option<Reference>,
    /// `{"type": …}`; ids in it may be given as `{"key": [source, key]}`.
    pub command: Value,
    pub expected_version: Option<u64>,
}

/// How an outsider names a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    Id(Uuid),
    Key { source: String, key: String },
}

/// Why a text names no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReference {
    #[error("{0:?} is no id; write a UUID or key:<source>:<key>")]
    Form(String),
    #[error(transparent)]
    Text(#[from] BadText),
}

/// What goes with a command, or a bundle of them.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Unique within the stream of the first command. `None` = a new one: then a retry is another command.
    pub command_id: Option<Uuid>,
    pub effective_at: Option<Timestamp>,
    pub who: Who,
    pub lane: Lane,
    /// Refuse a reference to something that is not there (yet).
    pub strict: bool,
    /// Update or create: a command that begins a stream changes one that is begun to what it says.
    pub upsert: bool,
}

/// Done: where, and under which command id it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub command_id: Uuid,
    /// The stream that each command was for.
    pub streams: Vec<StreamRef>,
    pub ack: Ack,
}

/// Why a command was not acked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandFailure {
    /// The sender's mistake in form: `at` is the JSON path.
    #[error("{at}: {message}")]
    Malformed { at: String, message: String },
    #[error(transparent)]
    Shard(#[from] Failure),
}

fn malformed(at: &str, message: impl Into<String>) -> CommandFailure {
    CommandFailure::Malformed {
        at: at.to_owned(),
        message: message.into(),
    }
}

impl Reference {
    /// A key of another system, in the form in which keys are stored and compared.
    ///
    /// # Errors
    /// [`BadText`]: it has characters that no key has.
    pub fn key(source: &str, key: &str) -> Result<Reference, BadText> {
        Ok(Reference::Key {
            source: tidy_key(source)?,
            key: tidy_key(key)?,
        })
    }

    /// Reads `0192…` or `key:erp:4711`, as in URLs and filters: one text, with the bound of a text.
    ///
    /// # Errors
    /// [`BadReference`].
    pub fn parse(text: &str) -> Result<Reference, BadReference> {
        let wrong = || BadReference::Form(text.to_owned());
        if text.len() > TEXT_BYTES_MAX {
            return Err(BadText::TooLong(text.len(), TEXT_BYTES_MAX).into());
        }
        let Some(pair) = text.strip_prefix("key:") else {
            return Uuid::parse_str(text).map(Reference::Id).map_err(|_| wrong());
        };
        match pair.split_once(':') {
            Some((source, key)) if !source.is_empty() && !key.is_empty() => Ok(Reference::key(source, key)?),
            _ => Err(wrong()),
        }
    }

    /// The id of a stream of this kind, as far as its name alone says it.
    pub(crate) fn id_by_name(&self, kind: StreamKind) -> Uuid {
        match self {
            Reference::Id(id) => *id,
            Reference::Key { source, key } => domain::id_from_key(kind.name(), source, key),
        }
    }

    /// The source and the key, where a link may say that they mean another stream: a key of a customer.
    pub(crate) fn may_be_linked(&self, kind: StreamKind) -> Option<(&str, &str)> {
        match self {
            Reference::Key { source, key } if kind == StreamKind::Customer => Some((source, key)),
            Reference::Key { .. } | Reference::Id(_) => None,
        }
    }

    /// Reads `"0192…"` or `{"key": ["erp", "4711"]}`; `at` is where it stands, for the error.
    ///
    /// # Errors
    /// [`CommandFailure::Malformed`].
    pub fn from_json(json: &Value, at: &str) -> Result<Reference, CommandFailure> {
        let wrong = || malformed(at, "expected an id (UUID) or {\"key\": [\"<source>\", \"<key>\"]}");
        match json {
            Value::String(text) => Uuid::parse_str(text).map(Reference::Id).map_err(|_| wrong()),
            Value::Object(object) if object.len() == 1 => {
                let Some(Value::Array(pair)) = object.get("key") else {
                    return Err(wrong());
                };
                match pair.as_slice() {
                    [Value::String(source), Value::String(key)] if !source.is_empty() && !key.is_empty() => {
                        Reference::key(source, key).map_err(|bad| malformed(at, bad.to_string()))
                    }
                    _ => Err(wrong()),
                }
            }
            _ => Err(wrong()),
        }
    }
}

/// The door; cheap to clone.
#[derive(Clone)]
pub struct Commands {
    routing: Routing,
    clock: Arc<dyn Clock>,
    calendar: Calendar,
}

impl Commands {
    /// `calendar` is that of the log.
    pub fn new(routing: Routing, clock: Arc<dyn Clock>, calendar: Calendar) -> Commands {
        Commands {
            routing,
            clock,
            calendar,
        }
    }

    /// This process's handle of each shard.
    pub fn shards(&self) -> &[ShardHandle] {
        self.routing.shards()
    }

    /// Sends one command and waits until it is durable.
    ///
    /// # Errors
    /// [`CommandFailure`]; see [`Failure`] for what is known of the outcome.
    pub async fn send(&self, incoming: Incoming, terms: Terms) -> Result<Accepted, CommandFailure> {
        self.send_bundle(vec![incoming], terms).await
    }

    /// Sends several commands on streams of one slot: decided in order, all or nothing, one commit. `{"item": n}` in a command
    /// stands for the id of the bundle's n-th stream, from 0.
    ///
    /// # Errors
    /// [`CommandFailure`]; nothing was applied unless it says that the outcome is unknown.
    pub async fn send_bundle(&self, bundle: Vec<Incoming>, terms: Terms) -> Result<Accepted, CommandFailure> {
        if bundle.is_empty() || bundle.len() > BUNDLE_MAX {
            return Err(malformed(".", format!("a bundle has 1 to {BUNDLE_MAX} commands")));
        }
        let now = self.clock.now();
        let given = checks::command_id(terms.command_id, now)?;
        let effective_at = checks::effective_at(terms.effective_at, now)?;
        let mut meanings = Meanings::default();
        let request = self
            .request(&bundle, given, effective_at, &terms, &mut meanings)
            .await?;
        if terms.command_id.is_some()
            && let Some(accepted) = self
                .answered_while_a_key_meant_another(&bundle, given, effective_at, &terms, &meanings)
                .await?
        {
            return Ok(accepted);
        }
        let mut streams: Vec<StreamRef> = request.steps.iter().map(|step| step.stream).collect();
        let command_id = request.command_id;
        let former = former(&request);
        let ack = match self.check_references(&request, terms.strict, now).await {
            Ok(()) => self.register_and_execute(request, &bundle, terms.lane, now).await?,
            // Unless it was applied, and what it refers to is another by now.
            Err(refusal) => self.recall(request, terms.lane).await?.ok_or(refusal)?,
        };
        if let (0, Some(former)) = (ack.events, former)
            && self.has_begun(former).await?
        {
            streams[0] = former;
        }
        Ok(Accepted {
            command_id,
            streams,
            ack,
        })
    }

    /// Sends a request whose ids and hash are set already.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn execute(&self, request: Request, lane: Lane) -> Result<Ack, Failure> {
        let shard = self.shard_of(request.steps[0].stream.slot());
        self.routing.execute(shard, request, lane).await
    }

    /// The state of a stream and its version.
    ///
    /// # Errors
    /// [`Failure::NotAccepted`] when its shard cannot answer.
    pub async fn peek(&self, stream: StreamRef) -> Result<Peeked, Failure> {
        self.routing.peek(self.shard_of(stream.slot()), stream).await
    }

    /// The states that the request is decided on, as far as they are in its slot.
    async fn peek_all(&self, request: &Request) -> Result<Vec<(StreamRef, Peeked)>, Failure> {
        let mut states = Vec::new();
        for stream in streams_of(request) {
            states.push((stream, self.peek(stream).await?));
        }
        Ok(states)
    }

    /// An id for a command whose sender gives none.
    pub fn new_command_id(&self) -> Uuid {
        id_made_at(self.clock.now())
    }

    /// Does some process serve the shard now?
    pub async fn is_served(&self, shard: u16) -> bool {
        self.routing.is_served(shard).await
    }

    async fn has_begun(&self, stream: StreamRef) -> Result<bool, Failure> {
        Ok(self.peek(stream).await?.1 > 0)
    }

    fn shard_of(&self, slot: Slot) -> u16 {
        slot.shard(self.shards().len() as u16)
    }

    /// The bundle as a request, its keys read as `meanings` has them.
    async fn request(
        &self,
        bundle: &[Incoming],
        given: Uuid,
        effective_at: Option<Timestamp>,
        terms: &Terms,
        meanings: &mut Meanings,
    ) -> Result<Request, CommandFailure> {
        let is_bundle = bundle.len() > 1;
        let mut steps: Vec<Step> = Vec::new();
        for (index, incoming) in bundle.iter().enumerate() {
            let step = self.step(incoming.clone(), given, index, &steps, meanings).await;
            steps.push(step.map_err(|failure| match failure {
                CommandFailure::Malformed { at, message } if is_bundle => {
                    malformed(&format!("[{index}].{at}"), message)
                }
                other => other,
            })?);
        }
        let slot = steps[0].stream.slot();
        if steps.iter().any(|step| step.stream.slot() != slot) {
            return Err(malformed(".", "the streams of a bundle live in one slot; these do not"));
        }
        let named = bundle.iter().zip(&steps);
        let external_keys = named.filter_map(|(incoming, step)| external_key(incoming.id.as_ref()?, step));
        let external_keys = external_keys.collect();
        Ok(Request {
            external_keys,
            ..Request::new(given, steps, effective_at, terms.who.clone()).upserting(terms.upsert)
        })
    }

    async fn step(
        &self,
        incoming: Incoming,
        given: Uuid,
        index: usize,
        earlier: &[Step],
        meanings: &mut Meanings,
    ) -> Result<Step, CommandFailure> {
        let kind = incoming.stream;
        let mut json = incoming.command;
        if let (Some(customer), Value::Object(fields)) = (&incoming.customer, &mut json)
            && !fields.contains_key("customer")
        {
            let id = self.meaning(StreamKind::Customer, customer, meanings).await?;
            fields.insert("customer".into(), id.to_string().into());
        }
        self.resolve_fields(&mut json, earlier, meanings).await?;
        let command = AnyCommand::from_json(kind, json).map_err(|error| CommandFailure::Malformed {
            at: error.at,
            message: error.message,
        })?;
        checks::external_keys(&command)?;
        let id = match &incoming.id {
            Some(reference) => {
                let id = self.meaning(kind, reference, meanings).await?;
                self.must_be_its_id(StreamRef { kind, id }, &command).await?;
                id
            }
            None => {
                let beside = earlier.first().map(|first| first.stream.slot());
                domain::id_from_command(kind.name(), given, index, command.home(), beside)
            }
        };
        Ok(Step {
            stream: StreamRef { kind, id },
            action: Action::Decide(command),
            expected_version: incoming.expected_version,
        })
    }
}

/// The key that a stream has from its name. What has its identity in its events needs none, and an address stays out of the log.
fn external_key(name: &Reference, step: &Step) -> Option<(Uuid, ExternalKey)> {
    let Reference::Key { source, key } = name else {
        return None;
    };
    let (stream, key) = (
        step.stream,
        ExternalKey {
            source: source.clone(),
            key: key.clone(),
        },
    );
    let is_in_events = match &step.action {
        Action::Decide(command) => matches!(command.home(), Home::Exactly(_)),
        Action::Record(_) => false,
    };
    let is_its_own = checks::is_key_of(stream, &key);
    (is_its_own && !is_in_events && key.is_opaque()).then_some((stream.id, key))
}

/// The stream that has the thing of a single command, when it was recorded under an id of an earlier version of the program.
fn former(request: &Request) -> Option<StreamRef> {
    let [step] = request.steps.as_slice() else { return None };
    let Action::Decide(command) = &step.action else {
        return None;
    };
    let former = command.former().filter(|id| *id != step.stream.id)?;
    let kind = step.stream.kind;
    matches!(command.home(), Home::Exactly(_)).then_some(StreamRef { kind, id: former })
}
