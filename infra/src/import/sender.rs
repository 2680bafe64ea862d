//! Who takes the commands: the shards of this process, or a server that owns them.

use domain::Position;
use serde_json::json;
use services::commands::{CommandFailure, Commands, Reference, Terms};
use services::shard::{Failure, Lane, Who};

use crate::sources::ImportLine;

/// Where commands go; cheap to clone.
#[derive(Clone)]
pub enum Sender {
    /// To the shards of this process.
    Local { commands: Commands, strict: bool },
    /// To a running `crm serve`.
    Server {
        http: reqwest::Client,
        url: String,
        strict: bool,
    },
}

/// What an acked command came to.
pub struct Taken {
    pub events: u32,
    /// Of the stream, after it; 0 when nothing is known of it.
    pub version: u64,
    pub position: Position,
}

impl Taken {
    /// Was it applied before the log ended there, in an earlier run?
    pub fn is_of_before(&self, ends: &[u64]) -> bool {
        let end = ends.get(usize::from(self.position.shard));
        self.events > 0 && end.is_some_and(|end| self.position.offset < *end)
    }
}

impl Sender {
    /// Sends one line and waits until it is durable.
    ///
    /// # Errors
    /// [`CommandFailure`], from wherever it was decided.
    pub async fn send(&self, line: &ImportLine) -> Result<Taken, CommandFailure> {
        match self {
            Sender::Local { commands, strict } => {
                let mut who = Who::new(line.actor.clone());
                who.correlation = line.correlation.clone();
                let (command_id, effective_at) = (Some(line.command_id), line.effective_at);
                let terms = Terms {
                    command_id,
                    effective_at,
                    who,
                    lane: Lane::Imports,
                    strict: *strict,
                    upsert: line.upsert,
                };
                let accepted = commands.send(line.incoming.clone(), terms).await?;
                Ok(Taken {
                    events: accepted.ack.events,
                    version: accepted.ack.streams.first().map_or(0, |(_, version)| *version),
                    position: accepted.ack.position,
                })
            }
            Sender::Server { http, url, strict } => send_to_server(http, url, *strict, line).await,
        }
    }
}

async fn send_to_server(
    http: &reqwest::Client,
    url: &str,
    strict: bool,
    line: &ImportLine,
) -> Result<Taken, CommandFailure> {
    let unknown = |why: String| CommandFailure::Shard(Failure::OutcomeUnknown(why.into()));
    let incoming = &line.incoming;
    let mut item = json!({"stream": incoming.stream.name(), "command": incoming.command});
    if let Some(id) = &incoming.id {
        item["id"] = reference(id);
    }
    if let Some(customer) = &incoming.customer {
        item["customer"] = reference(customer);
    }
    if let Some(version) = incoming.expected_version {
        item["expected_version"] = version.into();
    }
    let mut request = http
        .post(format!("{url}/api/bundle"))
        .header("Idempotency-Key", line.command_id.to_string())
        .header("X-Actor", line.actor.as_str())
        .header("X-Lane", "imports")
        .header("Content-Type", "application/json")
        .body(json!({"commands": [item]}).to_string());
    if let Some(correlation) = &line.correlation {
        request = request.header("X-Correlation-Id", correlation);
    }
    if strict {
        request = request.header("Prefer", "handling=strict");
    }
    if line.upsert {
        request = request.query(&[("upsert", "true")]);
    }
    if let Some(effective_at) = line.effective_at {
        request = request.query(&[("effective_at", effective_at.to_string())]);
    }
    let response = request
        .send()
        .await
        .map_err(|error| unknown(error.without_url().to_string()))?;
    let status = response.status().as_u16();
    let body: serde_json::Value = response
        .json()
        .await
        .map_err(|error| unknown(error.without_url().to_string()))?;
    if status < 300 {
        let position = body["position"].as_str().and_then(Position::parse);
        let position = position.ok_or_else(|| unknown("the server's answer has no position".into()))?;
        return Ok(Taken {
            events: body["events"].as_u64().unwrap_or(0) as u32,
            version: body["streams"][0]["version"].as_u64().unwrap_or(0),
            position,
        });
    }
    let detail = body["detail"].as_str().unwrap_or("no reason was given").to_owned();
    let is_reused = body["type"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("command-id-reused"));
    Err(match status {
        400 | 404 | 413 | 415 => {
            let at = body["at"].as_str().unwrap_or(".").to_owned();
            CommandFailure::Malformed { at, message: detail }
        }
        // It was not decided: the body did not come in time, or too many wait.
        408 | 429 | 503 | 507 => CommandFailure::Shard(Failure::NotAccepted(detail.into())),
        500.. => unknown(detail),
        _ if is_reused => CommandFailure::Shard(Failure::IdReused(line.command_id)),
        _ => CommandFailure::Shard(Failure::Rejected(detail)),
    })
}

fn reference(reference: &Reference) -> serde_json::Value {
    match reference {
        Reference::Id(id) => id.to_string().into(),
        Reference::Key { source, key } => json!({"key": [source, key]}),
    }
}
