//! Code written for `cqrs-es` runs here: any of our streams is a `cqrs_es::Aggregate`, and our log is a `cqrs_es::EventStore`.
//!
//! The crate's persist module, snapshots, `GenericQuery` and `QueryReplay` are not used: states come from the shard, read models from
//! the projector.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, AggregateContext, AggregateError, DomainEvent, EventEnvelope, EventStore};
use domain::{AnyState, Calendar, Companions, Fact, Moment, Stream, StreamRef, encode_event};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Clock;
use crate::commands::Commands;
use crate::log::{EventLog, audit};
use crate::shard::{Action, Failure, Lane, Request, Step, Who, hash_of};

/// A stream as an aggregate of `cqrs-es`: its state, to which events are applied.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Adapted<S: Stream>(pub S::State);

/// An event of a stream as `cqrs-es` wants it.
#[derive(Serialize, Deserialize)]
#[serde(bound = "", transparent)]
pub struct AdaptedEvent<S: Stream> {
    pub event: S::Event,
    /// Since when it is true in the world. Not part of its JSON, nor of what makes two events equal.
    #[serde(skip)]
    pub effective_at: Timestamp,
}

impl<S: Stream> AdaptedEvent<S> {
    pub fn new(event: S::Event, effective_at: Timestamp) -> AdaptedEvent<S> {
        AdaptedEvent { event, effective_at }
    }
}

/// What a decider needs from outside, as the aggregate's `Services`.
pub struct Surroundings {
    pub id: Uuid,
    pub clock: Arc<dyn Clock>,
    /// That of the log.
    pub calendar: Calendar,
    /// Where companion states come from; without it every other stream is elsewhere.
    pub commands: Option<Commands>,
}

impl<S: Stream> Default for Adapted<S> {
    fn default() -> Adapted<S> {
        Adapted(S::State::default())
    }
}

impl<S: Stream> fmt::Debug for Adapted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<S: Stream> Clone for AdaptedEvent<S> {
    fn clone(&self) -> AdaptedEvent<S> {
        AdaptedEvent::new(self.event.clone(), self.effective_at)
    }
}

impl<S: Stream> PartialEq for AdaptedEvent<S> {
    fn eq(&self, other: &AdaptedEvent<S>) -> bool {
        self.event == other.event
    }
}

impl<S: Stream> fmt::Debug for AdaptedEvent<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.event.fmt(f)
    }
}

impl<S: Stream> DomainEvent for AdaptedEvent<S> {
    fn event_type(&self) -> String {
        encode_event::<S>(&self.event).0.to_string()
    }

    fn event_version(&self) -> String {
        encode_event::<S>(&self.event).0.version.to_string()
    }
}

impl<S: Stream> Aggregate for Adapted<S> {
    const TYPE: &'static str = S::NAME;
    type Command = S::Command;
    type Event = AdaptedEvent<S>;
    type Error = S::Rejection;
    type Services = Surroundings;

    async fn handle(
        &mut self,
        command: S::Command,
        around: &Surroundings,
        sink: &EventSink<Self>,
    ) -> Result<(), S::Rejection> {
        let known = around.companions(&S::companions(&command)).await;
        let now = around.clock.now();
        let events = {
            let at = Moment::new(around.id, now, now, &around.calendar, &known);
            S::decide(&self.0, command, &at)?
        };
        for event in events {
            sink.write(AdaptedEvent::new(event, now), self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: AdaptedEvent<S>) {
        self.0 = S::evolve(std::mem::take(&mut self.0), &event.event, event.effective_at);
    }
}

/// Companion states that could be had.
struct Known(HashMap<StreamRef, Arc<AnyState>>);

impl Companions for Known {
    fn find(&self, stream: StreamRef) -> Option<&dyn Any> {
        self.0.get(&stream).map(|state| state.as_any())
    }
}

impl Surroundings {
    async fn companions(&self, wanted: &[StreamRef]) -> Known {
        let mut known = HashMap::new();
        if let Some(commands) = &self.commands {
            for stream in wanted.iter().filter(|stream| stream.slot() == domain::slot_of(self.id)) {
                // One that cannot be read now is as if it lived elsewhere; the shard that stores the events is the judge.
                if let Ok((state, _)) = commands.peek(*stream).await {
                    known.insert(*stream, state);
                }
            }
        }
        Known(known)
    }
}

/// Our log as the event store of a `CqrsFramework`. Aggregate ids are the UUIDs of streams.
pub struct LogStore {
    pub commands: Commands,
    pub log: Arc<dyn EventLog>,
    pub who: Who,
}

/// An aggregate with the version it was loaded at.
pub struct Loaded<S: Stream> {
    stream: StreamRef,
    aggregate: Adapted<S>,
    version: u64,
}

impl<S: Stream> AggregateContext<Adapted<S>> for Loaded<S> {
    fn aggregate(&mut self) -> &mut Adapted<S> {
        &mut self.aggregate
    }
}

type Error<S> = AggregateError<<S as Stream>::Rejection>;

impl<S: Stream> EventStore<Adapted<S>> for LogStore {
    type AC = Loaded<S>;

    /// All events of one stream, read from its shard's beginning: for audits and tests. Commands never need it.
    async fn load_events(&self, aggregate_id: &str) -> Result<Vec<EventEnvelope<Adapted<S>>>, Error<S>> {
        let stream = stream_of::<S>(aggregate_id)?;
        let shards = self.commands.shards().len() as u16;
        let mut stored = Vec::new();
        let read = audit(self.log.as_ref(), stream.slot().shard(shards), |commit| {
            stored.extend(commit.events.iter().filter(|event| event.stream == stream).cloned());
        });
        read.await
            .map_err(|error| AggregateError::DatabaseConnectionError(Box::new(error)))?;
        let mut events = Vec::new();
        for event in stored {
            let decoded = domain::decode_event::<S>(&event.event_type, &event.body);
            let payload = decoded.map_err(|error| AggregateError::DeserializationError(Box::new(error)))?;
            events.push(envelope(
                aggregate_id,
                event.sequence,
                AdaptedEvent::new(payload, event.true_since()),
                &event.event_id(),
                event.time,
            ));
        }
        Ok(events)
    }

    async fn load_aggregate(&self, aggregate_id: &str) -> Result<Loaded<S>, Error<S>> {
        let stream = stream_of::<S>(aggregate_id)?;
        let (state, version) = self.commands.peek(stream).await.map_err(unreachable_store)?;
        let state = state
            .as_any()
            .downcast_ref::<S::State>()
            .expect("a shard answers the state of the stream's own type");
        Ok(Loaded {
            stream,
            aggregate: Adapted(state.clone()),
            version,
        })
    }

    /// Appends the events if the stream is still at the version it was loaded at. `command_id` in the metadata makes a retry safe.
    async fn commit(
        &self,
        events: Vec<AdaptedEvent<S>>,
        context: Loaded<S>,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<Adapted<S>>>, Error<S>> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let command_id = match metadata.get("command_id") {
            Some(text) => Uuid::parse_str(text).map_err(|error| AggregateError::UnexpectedError(Box::new(error)))?,
            None => self.commands.new_command_id(),
        };
        let facts = events.iter().map(|event| to_fact::<S>(&event.event)).collect();
        let step = Step {
            stream: context.stream,
            action: Action::Record(facts),
            expected_version: Some(context.version),
        };
        let mut request = Request {
            command_id,
            given: command_id,
            hash: String::new(),
            steps: vec![step],
            external_keys: vec![],
            effective_at: None,
            upsert: false,
            who: self.who.clone(),
        };
        request.hash = hash_of(&request);
        self.commands
            .execute(request, Lane::People)
            .await
            .map_err(|failure| match failure {
                Failure::Conflict { .. } => AggregateError::AggregateConflict,
                other => unreachable_store(other),
            })?;
        let id = context.stream.id.to_string();
        let numbered = events.into_iter().enumerate().map(|(i, event)| EventEnvelope {
            aggregate_id: id.clone(),
            sequence: (context.version + 1) as usize + i,
            payload: event,
            metadata: metadata.clone(),
        });
        Ok(numbered.collect())
    }
}

fn stream_of<S: Stream>(aggregate_id: &str) -> Result<StreamRef, Error<S>> {
    let id = Uuid::parse_str(aggregate_id).map_err(|error| AggregateError::UnexpectedError(Box::new(error)))?;
    Ok(StreamRef { kind: S::KIND, id })
}

fn unreachable_store<R: std::error::Error>(failure: Failure) -> AggregateError<R> {
    AggregateError::DatabaseConnectionError(Box::new(failure))
}

/// The event as one of the sum type, by way of its stored form.
fn to_fact<S: Stream>(event: &S::Event) -> Fact {
    let (event_type, body) = encode_event::<S>(event);
    Fact::decode(&event_type, &body).expect("what was just encoded decodes")
}

fn envelope<S: Stream>(
    aggregate_id: &str,
    sequence: u64,
    payload: AdaptedEvent<S>,
    event_id: &str,
    time: Timestamp,
) -> EventEnvelope<Adapted<S>> {
    EventEnvelope {
        aggregate_id: aggregate_id.to_owned(),
        sequence: sequence as usize,
        payload,
        metadata: HashMap::from([
            ("event_id".to_owned(), event_id.to_owned()),
            ("time".to_owned(), time.to_string()),
        ]),
    }
}

#[cfg(test)]
mod specs {
    use cqrs_es::test::TestFramework;
    use domain::customer::{Command, Customer, Event, Kind, Rejection};

    use super::*;
    use crate::clock::SystemClock;

    fn around() -> Surroundings {
        Surroundings {
            id: domain::derived_id(&["spec"]),
            clock: Arc::new(SystemClock),
            calendar: Calendar::taipei(),
            commands: None,
        }
    }

    fn registered() -> Event {
        Event::Registered {
            kind: Kind::Person,
            name: "林小姐".into(),
            country: None,
            locale: None,
            external: vec![],
        }
    }

    #[test]
    fn a_stream_is_specified_with_the_test_framework_of_cqrs_es() {
        TestFramework::<Adapted<Customer>>::with(around())
            .given(vec![AdaptedEvent::new(registered(), Timestamp::UNIX_EPOCH)])
            .when(Command::Close)
            .then_expect_events(vec![AdaptedEvent::new(Event::Closed, Timestamp::UNIX_EPOCH)]);
        TestFramework::<Adapted<Customer>>::with(around())
            .given(vec![AdaptedEvent::new(registered(), Timestamp::UNIX_EPOCH)])
            .when(Command::AssignOwner { owner: " ".into() })
            .then_expect_error(Rejection::Empty("owner"));
    }
}
