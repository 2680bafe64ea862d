//! The door for commands: reads JSON, finds ids, routes to the shard, and waits for the ack.

use std::sync::Arc;

use domain::{
    AnyCommand, BadText, Home, Slot, StreamKind, StreamRef, customer, derived_id, derived_in, id_from_key, link,
    slot_of, tidy_key, time_within,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use crate::clock::{Clock, whole_microseconds};
use crate::routing::Routing;
use crate::shard::{
    Ack, Action, CLOCK_SKEW_MAX, Failure, Lane, Peeked, Request, ShardHandle, Step, Who, hash_of, is_trace_id,
    is_traceparent, made_at,
};

/// How long a client-made command id is remembered, and so accepted.
pub const COMMAND_ID_DAYS_MAX: i64 = 30;
/// Commands of one bundle at most.
pub const BUNDLE_MAX: usize = 100;
/// Keys in other systems that one registration reserves at most.
pub const EXTERNAL_KEYS_MAX: usize = 100;

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

/// What goes with a command, or a bundle of them.
#[derive(Debug, Clone)]
pub struct Terms {
    /// `None` = a new one: then a retry is another command.
    pub command_id: Option<Uuid>,
    pub effective_at: Option<Timestamp>,
    pub who: Who,
    pub lane: Lane,
}

/// Done: where, and under which command id.
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

    /// Reads `"0192…"` or `{"key": ["erp", "4711"]}`; `at` is where it stands, for the error.
    ///
    /// # Errors
    /// [`CommandFailure::Malformed`].
    pub fn from_json(json: &Value, at: &str) -> Result<Reference, CommandFailure> {
        let wrong = || malformed(at, "expected an id (UUID) or {\"key\": [\"<source>\", \"<key>\"]}");
        match json {
            Value::String(text) => Uuid::parse_str(text).map(Reference::Id).map_err(|_| wrong()),
            Value::Object(object) if object.contains_key("key") => {
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
}

impl Commands {
    pub fn new(routing: Routing, clock: Arc<dyn Clock>) -> Commands {
        Commands { routing, clock }
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
        let command_id = self.command_id(terms.command_id, now)?;
        let given = effective_at(terms.effective_at, now)?;
        // A clock that runs ahead says "now": what happened is never later than what is known.
        let effective_at = given.filter(|given| *given <= now);
        let is_bundle = bundle.len() > 1;
        let mut steps: Vec<Step> = Vec::new();
        for (index, incoming) in bundle.into_iter().enumerate() {
            let step = self
                .step(incoming, command_id, index, &steps)
                .await
                .map_err(|failure| match failure {
                    CommandFailure::Malformed { at, message } if is_bundle => {
                        malformed(&format!("[{index}].{at}"), message)
                    }
                    other => other,
                })?;
            steps.push(step);
        }
        let slot = steps[0].stream.slot();
        if steps.iter().any(|step| step.stream.slot() != slot) {
            return Err(malformed(".", "the streams of a bundle live in one slot; these do not"));
        }
        self.reserve_keys(&steps, command_id, effective_at, &terms).await?;
        let streams = steps.iter().map(|step| step.stream).collect();
        let mut request = Request {
            command_id,
            hash: String::new(),
            steps,
            effective_at: given,
            who: terms.who,
        };
        // Of what was sent: a retry says the same, when it is no longer ahead.
        request.hash = hash_of(&request);
        request.effective_at = effective_at;
        let ack = self.routing.execute(self.shard_of(slot), request, terms.lane).await?;
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

    /// Does some process serve the shard now?
    pub async fn is_served(&self, shard: u16) -> bool {
        self.routing.is_served(shard).await
    }

    /// Checks a request that another process sends for a shard of this one, as if it came through the door here: what is wrong in it must
    /// not get into the log, wherever it comes from. Its texts were checked when it was read.
    ///
    /// # Errors
    /// [`CommandFailure::Malformed`].
    pub fn check(&self, shard: u16, request: &Request) -> Result<(), CommandFailure> {
        let now = self.clock.now();
        self.command_id(Some(request.command_id), now)?;
        effective_at(request.effective_at, now)?;
        let slot = request.steps.first().map(|step| step.stream.slot());
        if request.steps.len() > BUNDLE_MAX || request.steps.iter().any(|step| Some(step.stream.slot()) != slot) {
            return Err(malformed(
                ".",
                format!("a bundle has 1 to {BUNDLE_MAX} commands on streams of one slot"),
            ));
        }
        for step in &request.steps {
            self.check_shard(shard, step.stream)?;
            match &step.action {
                Action::Decide(command) => check_slot(step.stream.id, command)?,
                Action::Record(_) => return Err(malformed(".", "commands are taken, and no facts")),
            }
        }
        let who = &request.who;
        let mut traces = [&who.causation, &who.correlation].into_iter().flatten();
        match traces.all(|id| is_trace_id(id)) && who.traceparent.as_deref().is_none_or(is_traceparent) {
            true => Ok(()),
            false => Err(malformed(
                "who",
                "a causation, a correlation or a trace context has no such form",
            )),
        }
    }

    /// Is it this shard that has the stream?
    ///
    /// # Errors
    /// [`CommandFailure::Malformed`] when it is another.
    pub fn check_shard(&self, shard: u16, stream: StreamRef) -> Result<(), CommandFailure> {
        match self.shard_of(stream.slot()) {
            own if own == shard => Ok(()),
            own => Err(malformed(
                "stream",
                format!("{stream} belongs to shard {own}, not to shard {shard}"),
            )),
        }
    }

    /// The state of a stream and its version.
    ///
    /// # Errors
    /// [`Failure::NotAccepted`] when its shard cannot answer.
    pub async fn peek(&self, stream: StreamRef) -> Result<Peeked, Failure> {
        self.routing.peek(self.shard_of(stream.slot()), stream).await
    }

    /// What an outside name of a stream means: a key of a customer that was linked means that customer, else the id that is
    /// derived from the key.
    ///
    /// # Errors
    /// [`Failure::NotAccepted`] when the link cannot be read.
    pub async fn resolve(&self, kind: StreamKind, reference: &Reference) -> Result<Uuid, Failure> {
        let (source, key) = match reference {
            Reference::Id(id) => return Ok(*id),
            Reference::Key { source, key } => (source, key),
        };
        if kind == StreamKind::Customer {
            let link = StreamRef::of(link::link_id(source, key));
            let (state, _) = self.peek(link).await?;
            if let domain::AnyState::Link(link::State {
                customer: Some(customer),
            }) = state.as_ref()
            {
                return Ok(customer.uuid());
            }
        }
        Ok(id_from_key(kind.name(), source, key))
    }

    fn shard_of(&self, slot: Slot) -> u16 {
        slot.shard(self.shards().len() as u16)
    }

    fn command_id(&self, given: Option<Uuid>, now: Timestamp) -> Result<Uuid, CommandFailure> {
        #[allow(
            clippy::disallowed_methods,
            reason = "the sender gave no id: this is the one place that draws it"
        )]
        let Some(id) = given else { return Ok(Uuid::now_v7()) };
        let refuse = |why: &str| Err(malformed("Idempotency-Key", why.to_owned()));
        match (id.get_version_num(), made_at(id)) {
            (8, _) => Ok(id),
            (7, Some(made_at)) if made_at > now + CLOCK_SKEW_MAX => refuse("the command id lies in the future"),
            (7, Some(made_at)) if made_at < now - SignedDuration::from_hours(24 * COMMAND_ID_DAYS_MAX) => {
                refuse("the command id is older than 30 days: whether it was applied is not remembered any more")
            }
            (7, Some(_)) => Ok(id),
            _ => refuse("a command id is a UUID of version 7 (or 8, derived)"),
        }
    }

    async fn step(
        &self,
        incoming: Incoming,
        command_id: Uuid,
        index: usize,
        earlier: &[Step],
    ) -> Result<Step, CommandFailure> {
        let kind = incoming.stream;
        let mut json = incoming.command;
        if let (Some(customer), Value::Object(fields)) = (&incoming.customer, &mut json)
            && !fields.contains_key("customer")
        {
            let id = self.resolve(StreamKind::Customer, customer).await?;
            fields.insert("customer".into(), id.to_string().into());
        }
        must_be_storable(&json, "")?;
        self.resolve_fields(&mut json, earlier).await?;
        let command = AnyCommand::from_json(kind, json).map_err(|error| CommandFailure::Malformed {
            at: error.at,
            message: error.message,
        })?;
        check_external_keys(&command)?;
        let id = match &incoming.id {
            Some(reference) => {
                let id = self.resolve(kind, reference).await?;
                check_slot(id, &command)?;
                id
            }
            None => begin(kind, &command, command_id, index, earlier),
        };
        let stream = StreamRef { kind, id };
        Ok(Step {
            stream,
            action: Action::Decide(command),
            expected_version: incoming.expected_version,
        })
    }

    /// Puts ids in the place of `{"key": …}` and `{"item": n}`.
    async fn resolve_fields(&self, json: &mut Value, earlier: &[Step]) -> Result<(), CommandFailure> {
        let Value::Object(fields) = json else { return Ok(()) };
        for (name, value) in fields.iter_mut() {
            match value {
                Value::Object(_) => self.resolve_value(name, value, earlier).await?,
                Value::Array(list) if name == "about" => {
                    for item in list {
                        self.resolve_value(name, item, earlier).await?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn resolve_value(&self, name: &str, value: &mut Value, earlier: &[Step]) -> Result<(), CommandFailure> {
        let Value::Object(object) = &*value else { return Ok(()) };
        if let (Some(index), 1) = (object.get("item").and_then(Value::as_u64), object.len()) {
            let step = usize::try_from(index).ok().and_then(|index| earlier.get(index));
            let step =
                step.ok_or_else(|| malformed(name, format!("there is no earlier item {index} in the bundle")))?;
            *value = step.stream.id.to_string().into();
            return Ok(());
        }
        if !object.contains_key("key") || object.keys().any(|field| field != "key" && field != "stream") {
            return Ok(());
        }
        let kind = match (object.get("stream").and_then(Value::as_str), name) {
            (Some(stream), _) => {
                StreamKind::parse(stream).ok_or_else(|| malformed(name, format!("there is no stream {stream:?}")))?
            }
            (None, "customer" | "to") => StreamKind::Customer,
            (None, _) => StreamKind::parse(name)
                .ok_or_else(|| malformed(name, "say which stream the key is of: {\"stream\": …, \"key\": […]}"))?,
        };
        let reference = Reference::from_json(value, name)?;
        *value = self.resolve(kind, &reference).await?.to_string().into();
        Ok(())
    }

    /// A customer's external keys are reserved before it is registered: a key belongs to one customer. A reservation that is left
    /// behind by a crash is completed by the retry.
    async fn reserve_keys(
        &self,
        steps: &[Step],
        command_id: Uuid,
        effective_at: Option<Timestamp>,
        terms: &Terms,
    ) -> Result<(), CommandFailure> {
        for step in steps {
            let Action::Decide(AnyCommand::Customer(customer::Command::Register { external, .. })) = &step.action
            else {
                continue;
            };
            for external in external {
                if id_from_key(StreamKind::Customer.name(), &external.source, &external.key) == step.stream.id {
                    continue;
                }
                let link = link::link_id(&external.source, &external.key);
                let command = link::Command::Link {
                    source: external.source.clone(),
                    key: external.key.clone(),
                    customer: domain::Id::new(step.stream.id),
                };
                let parts = [&command_id.to_string(), "link", &external.source, &external.key];
                let mut request = Request {
                    command_id: derived_id(&parts.map(|part| part as &str)),
                    hash: String::new(),
                    steps: vec![Step {
                        stream: StreamRef::of(link),
                        action: Action::Decide(command.into()),
                        expected_version: None,
                    }],
                    effective_at,
                    who: terms.who.clone(),
                };
                request.hash = hash_of(&request);
                self.execute(request, terms.lane).await?;
            }
        }
        Ok(())
    }
}

/// Each key is reserved by itself, so there are not many.
fn check_external_keys(command: &AnyCommand) -> Result<(), CommandFailure> {
    match command {
        AnyCommand::Customer(customer::Command::Register { external, .. }) if external.len() > EXTERNAL_KEYS_MAX => {
            let given = external.len();
            let what = format!("a customer is registered with at most {EXTERNAL_KEYS_MAX} external keys, not {given}");
            Err(malformed("external", what))
        }
        _ => Ok(()),
    }
}

/// The id of a stream that is begun without one. It is derived from the command id, so that a retry meets the same stream.
fn begin(kind: StreamKind, command: &AnyCommand, command_id: Uuid, index: usize, earlier: &[Step]) -> Uuid {
    let (command_id, index) = (command_id.to_string(), index.to_string());
    let parts = [kind.name(), &command_id, &index];
    match (command.home(), earlier.first()) {
        (Home::Exactly(id), _) => id,
        (Home::With(other), _) => derived_in(slot_of(other), &parts),
        (Home::Anywhere, Some(first)) => derived_in(first.stream.slot(), &parts),
        (Home::Anywhere, None) => derived_id(&parts),
    }
}

/// A stream that belongs to another lives in its slot, else what `decide` must check could not be looked at. Ids derived from outside
/// keys have a slot of their own.
fn check_slot(id: Uuid, command: &AnyCommand) -> Result<(), CommandFailure> {
    match command.home() {
        Home::With(other) if slot_of(other) != slot_of(id) && id.get_version_num() != 8 => Err(malformed(
            "id",
            "the id does not carry the slot of what it belongs to; leave it out, and one is made",
        )),
        _ => Ok(()),
    }
}

fn effective_at(given: Option<Timestamp>, now: Timestamp) -> Result<Option<Timestamp>, CommandFailure> {
    match given {
        Some(at) if at > now + CLOCK_SKEW_MAX => Err(malformed(
            "effective_at",
            format!("{at} lies in the future: what has not happened is no event; does the time have its right offset?"),
        )),
        Some(at) => match time_within(at) {
            Ok(at) => Ok(Some(whole_microseconds(at))),
            Err(bad) => Err(malformed("effective_at", bad.to_string())),
        },
        None => Ok(None),
    }
}

/// What a store cannot keep is refused at the door: once it is in the log, it stops a read model. PostgreSQL has no NUL in its texts,
/// and its days begin in 4713 BC.
pub(crate) fn must_be_storable(json: &Value, at: &str) -> Result<(), CommandFailure> {
    match json {
        Value::String(text) if text.contains('\0') => Err(malformed(at, "the NUL character cannot be stored")),
        Value::String(text) if text.starts_with('-') && is_day_or_time(text) => {
            Err(malformed(at, format!("{text} lies before the year 1")))
        }
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(index, item)| must_be_storable(item, &format!("{at}[{index}]")))
        }
        Value::Object(fields) => fields.iter().try_for_each(|(name, field)| match at {
            "" => must_be_storable(field, name),
            _ => must_be_storable(field, &format!("{at}.{name}")),
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn is_day_or_time(text: &str) -> bool {
    text.parse::<Timestamp>().is_ok() || text.parse::<jiff::civil::Date>().is_ok()
}
