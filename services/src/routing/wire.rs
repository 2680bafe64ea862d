//! What one process asks of another that serves a shard, as JSON over HTTP between nodes of one installation.

use std::sync::Arc;

use domain::{AnyCommand, AnyState, ExternalKey, StreamKind, StreamRef};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::shard::{Ack, Action, Failure, Lane, Peeked, Request, Step, Who, hash_of};

/// A request that another process is to decide, for its shard.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    command_id: Uuid,
    given: Uuid,
    hash: String,
    steps: Vec<OrderStep>,
    #[serde(default)]
    external_keys: Vec<(Uuid, ExternalKey)>,
    effective_at: Option<Timestamp>,
    /// A version that does not know the field reads a request of another hash, and refuses it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    upsert: bool,
    who: Who,
    lane: Lane,
    /// How long the sender waits.
    pub within_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderStep {
    stream: String,
    command: Value,
    expected_version: Option<u64>,
}

/// A question for a stream's state.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    pub stream: String,
    pub within_ms: u64,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Done(Ack),
    State { version: u64, state: Value },
    Failed(Failure),
}

/// Another version of the program wrote it, or none.
#[derive(Debug, thiserror::Error)]
#[error("the message of the other process cannot be read (another version?): {0}")]
pub struct Unreadable(String);

impl Order {
    /// `None` when the request brings facts: what another process decides is commands.
    pub fn of(request: &Request, lane: Lane, within_ms: u64) -> Option<Order> {
        let steps = request.steps.iter().map(|step| match &step.action {
            Action::Decide(command) => Some(OrderStep {
                stream: step.stream.to_string(),
                command: command.to_json(),
                expected_version: step.expected_version,
            }),
            Action::Record(_) => None,
        });
        Some(Order {
            command_id: request.command_id,
            given: request.given,
            hash: request.hash.clone(),
            steps: steps.collect::<Option<_>>()?,
            external_keys: request.external_keys.clone(),
            effective_at: request.effective_at,
            upsert: request.upsert,
            who: request.who.clone(),
            lane,
            within_ms,
        })
    }

    /// # Errors
    /// [`Unreadable`].
    pub fn read(self) -> Result<(Arc<Request>, Lane), Unreadable> {
        let steps: Result<Vec<Step>, Unreadable> = self.steps.into_iter().map(OrderStep::read).collect();
        let steps = steps?;
        if steps.is_empty() {
            return Err(Unreadable("a request without a step".into()));
        }
        let mut request = Request {
            command_id: self.command_id,
            given: self.given,
            hash: String::new(),
            steps,
            external_keys: self.external_keys,
            effective_at: self.effective_at,
            upsert: self.upsert,
            who: self.who,
        };
        // Of what came, not of what the sender says that it is.
        request.hash = hash_of(&request);
        if request.hash != self.hash {
            return Err(Unreadable("a hash of another content".into()));
        }
        Ok((Arc::new(request), self.lane))
    }
}

impl OrderStep {
    fn read(self) -> Result<Step, Unreadable> {
        let stream = stream(&self.stream)?;
        let command = AnyCommand::from_json(stream.kind, self.command);
        let action = Action::Decide(command.map_err(|error| Unreadable(format!("a command, at {}", error.at)))?);
        Ok(Step {
            stream,
            action,
            expected_version: self.expected_version,
        })
    }
}

impl Asked {
    /// # Errors
    /// [`Unreadable`].
    pub fn stream(&self) -> Result<StreamRef, Unreadable> {
        stream(&self.stream)
    }
}

impl Answer {
    pub fn of_command(outcome: Result<Ack, Failure>) -> Answer {
        outcome.map_or_else(Answer::Failed, Answer::Done)
    }

    pub fn of_peek(outcome: Result<Peeked, Failure>) -> Answer {
        match outcome {
            Ok((state, version)) => Answer::State {
                version,
                state: serde_json::from_slice(&state.to_json()).expect("a state is JSON"),
            },
            Err(failure) => Answer::Failed(failure),
        }
    }

    /// # Errors
    /// The other's failure; [`Failure::OutcomeUnknown`] when the answer makes no sense.
    pub fn command(self) -> Result<Ack, Failure> {
        match self {
            Answer::Done(ack) => Ok(ack),
            Answer::Failed(failure) => Err(failure),
            Answer::State { .. } => Err(Failure::OutcomeUnknown("a state came in place of an answer".into())),
        }
    }

    /// # Errors
    /// The other's failure; [`Failure::NotAccepted`] when the answer makes no sense.
    pub fn peeked(self, kind: StreamKind) -> Result<Peeked, Failure> {
        match self {
            Answer::State { version, state } => {
                let state = AnyState::from_json(kind, state.to_string().as_bytes());
                let state = state.map_err(|_| Failure::NotAccepted("the state that came cannot be read".into()))?;
                Ok((Arc::new(state), version))
            }
            Answer::Failed(failure) => Err(failure),
            Answer::Done(_) => Err(Failure::NotAccepted("an ack came in place of a state".into())),
        }
    }
}

fn stream(text: &str) -> Result<StreamRef, Unreadable> {
    StreamRef::parse(text).ok_or_else(|| Unreadable("a stream's name".into()))
}
