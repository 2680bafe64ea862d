//! What one process asks of another that serves a shard, as JSON over HTTP between nodes of one installation.

use std::sync::Arc;

use domain::{AnyCommand, AnyState, EventType, Fact, StreamKind, StreamRef};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::shard::{Ack, Action, Failure, Lane, Peeked, Request, Step, Who};

/// A request that another process is to decide, for its shard.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    command_id: Uuid,
    hash: String,
    steps: Vec<OrderStep>,
    effective_at: Option<Timestamp>,
    who: Who,
    lane: Lane,
    /// How long the sender waits.
    pub within_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct OrderStep {
    stream: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<Value>,
    /// Event types with their bodies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    facts: Vec<(String, Value)>,
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
#[error("the process at the other end speaks another language: {0}")]
pub struct Unreadable(String);

impl Order {
    pub fn of(request: &Request, lane: Lane, within_ms: u64) -> Order {
        let steps = request.steps.iter().map(|step| {
            let (command, facts) = match &step.action {
                Action::Decide(command) => (Some(command.to_json()), vec![]),
                Action::Record(facts) => (None, facts.iter().map(fact_to_json).collect()),
            };
            OrderStep {
                stream: step.stream.to_string(),
                command,
                facts,
                expected_version: step.expected_version,
            }
        });
        Order {
            command_id: request.command_id,
            hash: request.hash.clone(),
            steps: steps.collect(),
            effective_at: request.effective_at,
            who: request.who.clone(),
            lane,
            within_ms,
        }
    }

    /// # Errors
    /// [`Unreadable`].
    pub fn read(self) -> Result<(Arc<Request>, Lane), Unreadable> {
        let steps: Result<Vec<Step>, Unreadable> = self.steps.into_iter().map(OrderStep::read).collect();
        let steps = steps?;
        if steps.is_empty() {
            return Err(Unreadable("a request without a step".into()));
        }
        let request = Request {
            command_id: self.command_id,
            hash: self.hash,
            steps,
            effective_at: self.effective_at,
            who: self.who,
        };
        Ok((Arc::new(request), self.lane))
    }
}

impl OrderStep {
    fn read(self) -> Result<Step, Unreadable> {
        let stream = stream(&self.stream)?;
        let action = match self.command {
            Some(command) => {
                let command = AnyCommand::from_json(stream.kind, command);
                Action::Decide(command.map_err(|error| Unreadable(format!("a command, at {}", error.at)))?)
            }
            None => {
                let facts: Result<Vec<Fact>, Unreadable> = self.facts.into_iter().map(fact_from_json).collect();
                Action::Record(facts?)
            }
        };
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

fn fact_to_json(fact: &Fact) -> (String, Value) {
    let (kind, body) = fact.encode();
    let body = serde_json::from_slice(&body).expect("an event's body is JSON");
    (kind.to_string(), body)
}

fn fact_from_json((kind, body): (String, Value)) -> Result<Fact, Unreadable> {
    let unreadable = || Unreadable("an event".into());
    let kind = EventType::parse(&kind).ok_or_else(unreadable)?;
    Fact::decode(&kind, body.to_string().as_bytes()).map_err(|_| unreadable())
}
