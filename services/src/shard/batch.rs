//! Deciding: one request against the states in memory, and the batch that its events join.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use domain::{AnyState, Calendar, Companions, Fact, Moment, Position, StreamRef};
use jiff::Timestamp;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::cache::{Cached, CommandIds, States};
use super::request::{Ack, Action, Failure, Open, Peeked, Request};
use crate::bugs::{self, Bug};
use crate::log::StoredEvent;
use crate::states::SavedCommand;

/// Events of one command at most; a commit is never split.
pub const COMMIT_EVENTS_MAX: usize = 10_000;
/// Bytes of one command's events at most.
pub const COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one event's body at most: Kafka's default for a message, less room for headers.
pub const EVENT_BYTES_MAX: usize = 900 * 1024;

/// The state of a stream that somebody asks for, and what they are told when it is proven.
pub type AskedFor = (StreamRef, oneshot::Sender<Result<Peeked, Failure>>, Peeked);

/// What is appended in one go, and who waits for it.
#[derive(Default)]
pub struct Batch {
    pub events: Vec<StoredEvent>,
    pub bytes: usize,
    /// Answers that may leave once the batch is durable. Requests are kept, to be decided anew if it fails.
    pub answers: Vec<(Open, Prepared)>,
    pub peeks: Vec<AskedFor>,
    /// The states after this batch, and its commands with the index of their last event: for the write-behind.
    pub states: HashMap<StreamRef, Cached>,
    pub commands: Vec<(SavedCommand, usize)>,
}

/// An answer that waits for its batch.
#[derive(Debug, Clone)]
pub enum Prepared {
    /// Its last event is the one of this index in the batch.
    Wrote {
        streams: Vec<(String, u64)>,
        last: usize,
        events: u32,
    },
    /// Nothing was written.
    Already {
        streams: Vec<(String, u64)>,
    },
    /// The same command wrote before, durably.
    Known(Ack),
    Failed(Failure),
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.answers.is_empty() && self.peeks.is_empty()
    }

    /// Somebody waits for an answer from memory, and no event proves that the memory is not stale.
    pub fn needs_barrier(&self) -> bool {
        self.events.is_empty() && !self.answers.is_empty() && !bugs::has(Bug::NoBarrier)
    }

    /// The command of this id, and the index of its last event.
    pub fn command(&self, id: Uuid) -> Option<&(SavedCommand, usize)> {
        self.commands.iter().find(|(command, _)| command.id == id)
    }

    pub fn records(&self) -> usize {
        self.events.len() + usize::from(self.needs_barrier())
    }
}

/// What a request came to.
pub struct Decision {
    pub prepared: Prepared,
    pub events: Vec<StoredEvent>,
    /// The states after it; only those that changed.
    pub states: Vec<(StreamRef, Cached)>,
}

impl Decision {
    fn without_events(prepared: Prepared) -> Decision {
        Decision {
            prepared,
            events: vec![],
            states: vec![],
        }
    }
}

/// States of streams in other slots, as they were a moment ago. A shard has none: their order is not its own.
pub type Elsewhere = HashMap<StreamRef, Arc<AnyState>>;

/// The companions of one step: states in memory, the request's own earlier steps included.
struct Neighbours<'a> {
    own: StreamRef,
    declared: &'a HashMap<StreamRef, Arc<AnyState>>,
    elsewhere: &'a Elsewhere,
}

impl Companions for Neighbours<'_> {
    fn find(&self, stream: StreamRef) -> Option<&dyn Any> {
        if stream.slot() != self.own.slot() {
            return self.elsewhere.get(&stream).map(|state| state.as_any());
        }
        let state = self.declared.get(&stream);
        Some(state.expect("a companion is declared before it is asked for").as_any())
    }
}

/// What a decision rests on besides the shard's own states.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    pub elsewhere: &'a Elsewhere,
    pub calendar: &'a Calendar,
    pub now: Timestamp,
    pub shard: u16,
}

/// Decides `request`. All states it needs are in memory.
pub fn decide(
    request: &Request,
    states: &mut States,
    ids: &CommandIds,
    batch: &Batch,
    Surroundings {
        elsewhere,
        calendar,
        now,
        shard,
    }: Surroundings<'_>,
) -> Decision {
    if let Some(known) = known(request, ids, batch, shard) {
        return Decision::without_events(known);
    }
    let mut after: Vec<(StreamRef, Cached)> = Vec::new();
    let mut events: Vec<StoredEvent> = Vec::new();
    for step in &request.steps {
        let mut current = look_up(step.stream, &after, states);
        if let Some(expected) = step.expected_version.filter(|expected| *expected != current.version) {
            let conflict = Failure::Conflict {
                stream: step.stream.to_string(),
                expected,
                current: current.version,
            };
            return Decision::without_events(Prepared::Failed(conflict));
        }
        let true_at = request.true_at(now).unwrap_or(now);
        let mut take = |current: Cached, facts: &[Fact]| {
            facts.iter().fold(current, |current, fact| {
                let next = evolve(current, fact, true_at);
                events.push(stored(request, step.stream, fact, &next, now, shard));
                next
            })
        };
        match &step.action {
            Action::Record(facts) => current = take(current, facts),
            Action::Decide(command) => {
                let companions = command
                    .companions()
                    .into_iter()
                    .filter(|other| other.slot() == step.stream.slot());
                let declared = companions
                    .map(|other| (other, look_up(other, &after, states).state))
                    .collect();
                let neighbours = Neighbours {
                    own: step.stream,
                    declared: &declared,
                    elsewhere,
                };
                let at = Moment::new(step.stream.id, now, true_at, calendar, &neighbours);
                // The door's guard of a registration asks, and changes nothing.
                let updates = request.upsert && current.version > 0 && !step.is_guard();
                let commands = match updates {
                    true => current.state.upsert(command.clone(), &at),
                    false => vec![command.clone()],
                };
                for command in commands {
                    match current.state.decide(command, &at) {
                        Ok(facts) => current = take(current, &facts),
                        Err(rejection) => {
                            return Decision::without_events(Prepared::Failed(Failure::Rejected(
                                rejection.to_string(),
                            )));
                        }
                    }
                }
            }
        }
        match after.iter_mut().find(|(stream, _)| *stream == step.stream) {
            Some((_, cached)) => *cached = current,
            None => after.push((step.stream, current)),
        }
    }
    if let Err(failure) = check_size(&events) {
        return Decision::without_events(Prepared::Failed(failure));
    }
    let commit_size = events.len() as u32;
    for (index, event) in events.iter_mut().enumerate() {
        event.index = index as u32;
        event.commit_size = commit_size;
    }
    if events.is_empty() {
        let streams = after
            .iter()
            .map(|(stream, cached)| (stream.to_string(), cached.version))
            .collect();
        return Decision::without_events(Prepared::Already { streams });
    }
    // Only what was written to, in the order that the log tells when the same command comes again.
    after.retain(|(stream, _)| events.iter().any(|event| event.stream == *stream));
    let last = batch.events.len() + events.len() - 1;
    let prepared = Prepared::Wrote {
        streams: texts(&written(&events)),
        last,
        events: commit_size,
    };
    Decision {
        prepared,
        events,
        states: after,
    }
}

/// The command's id has been seen: its answer, or the refusal of another content.
fn known(request: &Request, ids: &CommandIds, batch: &Batch, shard: u16) -> Option<Prepared> {
    let reused = || Prepared::Failed(Failure::IdReused(request.given));
    if let Some((command, last)) = batch.command(request.command_id) {
        let streams = texts(&command.streams);
        let same = command.hash == request.hash;
        return Some(if same {
            Prepared::Wrote {
                streams,
                last: *last,
                events: command.events,
            }
        } else {
            reused()
        });
    }
    let command = match ids.get(request.command_id) {
        Some(command) if command.hash != request.hash => return Some(reused()),
        Some(command) => command,
        None => known_as_given(request, ids)?,
    };
    let position = Position {
        shard,
        offset: command.offset,
    };
    Some(Prepared::Known(Ack {
        streams: texts(&command.streams),
        position,
        events: command.events,
    }))
}

/// It was recorded under the id that its sender gave, when that was unique in a shard. Another content there is another command.
pub fn known_as_given<'a>(request: &Request, ids: &'a CommandIds) -> Option<&'a SavedCommand> {
    ids.get(request.given).filter(|command| command.hash == request.hash)
}

pub fn texts(streams: &[(StreamRef, u64)]) -> Vec<(String, u64)> {
    streams
        .iter()
        .map(|(stream, version)| (stream.to_string(), *version))
        .collect()
}

/// The streams that a command's events were written to, in order of their first event, with their versions after it. The answer to a
/// retry after a take-over is made of this too, so that it equals the first.
pub fn written(events: &[StoredEvent]) -> Vec<(StreamRef, u64)> {
    let mut streams: Vec<(StreamRef, u64)> = Vec::new();
    for event in events {
        match streams.iter_mut().find(|(stream, _)| *stream == event.stream) {
            Some((_, version)) => *version = event.sequence,
            None => streams.push((event.stream, event.sequence)),
        }
    }
    streams
}

fn look_up(stream: StreamRef, after: &[(StreamRef, Cached)], states: &mut States) -> Cached {
    let own = after
        .iter()
        .find(|(known, _)| *known == stream)
        .map(|(_, cached)| cached.clone());
    own.or_else(|| states.get(stream))
        .expect("the states of a request are loaded before it is decided")
}

/// The state after `fact`, which is true since `at`.
pub fn evolve(current: Cached, fact: &Fact, at: Timestamp) -> Cached {
    let state = Arc::try_unwrap(current.state).unwrap_or_else(|shared| AnyState::clone(&shared));
    Cached {
        version: current.version + 1,
        state: Arc::new(state.evolve(fact, at)),
    }
}

fn stored(
    request: &Request,
    stream: StreamRef,
    fact: &Fact,
    after: &Cached,
    now: Timestamp,
    shard: u16,
) -> StoredEvent {
    let (event_type, body) = fact.encode();
    let customer = match stream.kind {
        domain::StreamKind::Customer => Some(stream.id),
        _ => after.state.customer(),
    };
    let mut keys = request.external_keys.iter();
    let own = keys.find(|(id, _)| after.version == 1 && *id == stream.id);
    StoredEvent {
        command_id: request.command_id,
        index: 0,
        commit_size: 0,
        event_type,
        stream,
        sequence: after.version,
        time: now,
        effective_at: request.true_at(now),
        actor: request.who.actor.clone(),
        on_behalf_of: request.who.on_behalf_of.clone(),
        causation: request.who.causation.clone(),
        correlation: request.who.correlation.clone(),
        traceparent: request.who.traceparent.clone(),
        customer,
        external_key: own.map(|(_, key)| key.clone()),
        command_hash: request.hash.clone(),
        body,
        position: Position { shard, offset: 0 },
    }
}

fn check_size(events: &[StoredEvent]) -> Result<(), Failure> {
    if events.len() > COMMIT_EVENTS_MAX {
        return Err(Failure::TooLarge(format!(
            "{} events, {COMMIT_EVENTS_MAX} at most",
            events.len()
        )));
    }
    if let Some(event) = events.iter().find(|event| event.body.len() > EVENT_BYTES_MAX) {
        return Err(Failure::TooLarge(format!(
            "an event of {} bytes, {EVENT_BYTES_MAX} at most",
            event.body.len()
        )));
    }
    let bytes: usize = events.iter().map(|event| event.body.len()).sum();
    match bytes > COMMIT_BYTES_MAX {
        true => Err(Failure::TooLarge(format!("{bytes} bytes, {COMMIT_BYTES_MAX} at most"))),
        false => Ok(()),
    }
}
