//! Finished records and histories: what the shard would have written, made without it.

use std::any::Any;

use anyhow::Context;
use domain::{Actor, AnyCommand, AnyState, Calendar, Companions, Fact, Moment, Position, StreamRef, derived_id};
use jiff::Timestamp;
use services::log::{Record, StoredEvent};

use crate::ours;

/// Streams of other slots only: nothing to look at.
pub struct Nobody;

impl Companions for Nobody {
    fn find(&self, _: StreamRef) -> Option<&dyn Any> {
        None
    }
}

/// The event of a command on a stream that stands at `version` with `state`, as the shard stores it; and the state after it.
pub fn event(
    stream: StreamRef,
    command: AnyCommand,
    state: AnyState,
    version: u64,
    at: Timestamp,
) -> anyhow::Result<(StoredEvent, AnyState)> {
    let calendar = Calendar::taipei();
    let moment = Moment::new(stream.id, at, at, &calendar, &Nobody);
    let facts = state
        .decide(command, &moment)
        .map_err(|rejection| anyhow::anyhow!("{rejection}"))?;
    let fact: &Fact = facts.first().context("a command of a history has an event")?;
    let (event_type, body) = fact.encode();
    let after = state.evolve(fact, at);
    let sequence = version + 1;
    let command_id = derived_id(&["bench command", &stream.id.to_string(), &sequence.to_string()]);
    let event = StoredEvent {
        command_id,
        index: 0,
        commit_size: 1,
        event_type,
        stream,
        sequence,
        time: at,
        effective_at: None,
        actor: Actor::system("bench"),
        on_behalf_of: None,
        causation: None,
        correlation: None,
        traceparent: None,
        customer: match stream.kind {
            domain::StreamKind::Customer => Some(stream.id),
            _ => after.customer(),
        },
        external_key: None,
        command_hash: "0123456789abcdef".into(),
        body,
        position: Position { shard: 0, offset: 0 },
    };
    Ok((event, after))
}

/// So many records of receipts, as they stand in a log.
pub fn receipts(count: u64) -> anyhow::Result<Vec<Record>> {
    let record = |n| {
        let (stream, command) = ours::receipt("bare", n);
        let (event, _) = event(stream, command, AnyState::initial(stream.kind), 0, Timestamp::now())?;
        Ok(event.to_record("/crm/bench", 1, n + 1))
    };
    (0..count).map(record).collect()
}
