//! `POST /api/<stream>`, `POST /api/<stream>/<id>` and `POST /api/bundle`.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::{StreamKind, StreamRef};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::body::{self, BUNDLE_BYTES_MAX, COMMAND_BYTES_MAX};
use super::problem::{Kind, Problem};
use super::terms::{Expected, applied_preference, expected, terms};
use super::{Api, reference, stream};
use crate::commands::{Accepted, Incoming, Reference};

type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// Done: the stream's version after it, and the position to ask a read model for at least.
#[derive(Serialize)]
struct Done {
    stream: &'static str,
    id: Uuid,
    version: u64,
    position: String,
    events: u32,
    command_id: Uuid,
}

#[derive(Serialize)]
struct BundleDone {
    streams: Vec<Touched>,
    position: String,
    events: u32,
    command_id: Uuid,
}

/// A stream that a bundle had a command for.
#[derive(Serialize)]
struct Touched {
    stream: &'static str,
    id: Uuid,
    /// Left out when nothing was written to it, for it was so already.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

/// Begins a stream. Its id is derived from the command, so that a retry meets the same stream.
pub async fn begin(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let kind = stream(&named(name)?)?;
    send(&api, kind, None, parameters, &headers, body).await
}

pub async fn command(
    State(api): State<Api>,
    path: Result<Path<(String, String)>, PathRejection>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (name, id) = named(path)?;
    let kind = stream(&name)?;
    send(&api, kind, Some(reference(&id)?), parameters, &headers, body).await
}

async fn send(
    api: &Api,
    stream: StreamKind,
    id: Option<Reference>,
    parameters: Parameters,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let terms = terms(headers, &pairs(parameters)?)?;
    let expected_version = match expected(headers)? {
        None => None,
        Some(Expected::Version(version)) => Some(version),
        Some(Expected::Begun) => {
            must_be_begun(api, stream, id.as_ref()).await?;
            None
        }
    };
    let command = body::json(headers, body, COMMAND_BYTES_MAX).await?;
    let incoming = Incoming {
        stream,
        id,
        customer: None,
        command,
        expected_version,
    };
    let applied = applied_preference(terms.strict);
    let accepted = api.commands.send(incoming, terms).await?;
    let stream = accepted.streams[0];
    let version = version_of(&accepted, stream).unwrap_or_default();
    let events = accepted.ack.events;
    let began = events > 0 && version == u64::from(events);
    let done = Done {
        stream: stream.kind.name(),
        id: stream.id,
        version,
        position: accepted.ack.position.to_string(),
        events,
        command_id: accepted.command_id,
    };
    let etag = (header::ETAG, format!("\"{version}\""));
    let mut response = match began {
        true => {
            let location = (header::LOCATION, format!("/api/{stream}"));
            (StatusCode::CREATED, headers_of([etag, location]), Json(done)).into_response()
        }
        false => (StatusCode::OK, headers_of([etag]), Json(done)).into_response(),
    };
    response.headers_mut().extend(applied);
    Ok(response)
}

/// A stream that is begun stays so: looking before the command is decided is enough.
async fn must_be_begun(api: &Api, kind: StreamKind, id: Option<&Reference>) -> Result<(), Problem> {
    let Some(reference) = id else {
        let what = "If-Match: * asks for a stream that is begun, and this command begins one";
        return Err(Problem::malformed("If-Match", what));
    };
    let id = api.commands.resolve(kind, reference).await?;
    let (_, version) = api.commands.peek(StreamRef { kind, id }).await?;
    match version {
        0 => Err(
            Problem::new(Kind::Conflict, format!("there is no {} {id} yet", kind.name())).with("current_version", 0),
        ),
        _ => Ok(()),
    }
}

/// Several commands on streams of one slot: decided in order, all or nothing.
pub async fn bundle(
    State(api): State<Api>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let terms = terms(&headers, &pairs(parameters)?)?;
    if expected(&headers)?.is_some() {
        let what = "a bundle has several streams; give each command its expected_version";
        return Err(Problem::malformed("If-Match", what));
    }
    let json = body::json(&headers, body, BUNDLE_BYTES_MAX).await?;
    let bundle = read_bundle(json)?;
    let is_one = bundle.len() == 1;
    let applied = applied_preference(terms.strict);
    let sent = api.commands.send_bundle(bundle, terms).await;
    let accepted = sent.map_err(|failure| Problem::from(failure).moved(|at| in_bundle(at, is_one)))?;
    let mut streams: Vec<Touched> = Vec::new();
    for stream in &accepted.streams {
        if streams
            .iter()
            .any(|known| known.id == stream.id && known.stream == stream.kind.name())
        {
            continue;
        }
        streams.push(Touched {
            stream: stream.kind.name(),
            id: stream.id,
            version: version_of(&accepted, *stream),
        });
    }
    let done = BundleDone {
        streams,
        position: accepted.ack.position.to_string(),
        events: accepted.ack.events,
        command_id: accepted.command_id,
    };
    let mut response = Json(done).into_response();
    response.headers_mut().extend(applied);
    Ok(response)
}

fn read_bundle(json: Value) -> Result<Vec<Incoming>, Problem> {
    let Value::Object(mut fields) = json else {
        return Err(Problem::malformed(".", "a bundle is a JSON object {\"commands\": […]}"));
    };
    let commands = match fields.remove("commands") {
        Some(Value::Array(commands)) => commands,
        Some(_) => return Err(Problem::malformed("commands", "the commands are a list")),
        None => return Err(Problem::malformed(".", "the bundle has no commands")),
    };
    no_more(fields, "", "commands")?;
    let items = commands.into_iter().enumerate();
    items
        .map(|(index, item)| read_item(item, &format!("commands[{index}]")))
        .collect()
}

fn read_item(json: Value, at: &str) -> Result<Incoming, Problem> {
    let wrong = |field: &str, what: &str| Problem::malformed(&format!("{at}.{field}"), what);
    let Value::Object(mut fields) = json else {
        let what = "an item of a bundle is an object {\"stream\": …, \"command\": {\"type\": …}}";
        return Err(Problem::malformed(at, what));
    };
    let kind = match fields.remove("stream") {
        Some(Value::String(name)) => stream(&name).map_err(|_| wrong("stream", &unknown_stream(&name)))?,
        Some(_) => return Err(wrong("stream", "the stream is a text")),
        None => return Err(Problem::malformed(at, "the item has no stream")),
    };
    let mut given = |field: &str| match fields.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(json) => Reference::from_json(&json, &format!("{at}.{field}")).map(Some),
    };
    let (id, customer) = (given("id")?, given("customer")?);
    let expected_version = match fields.remove("expected_version") {
        None | Some(Value::Null) => None,
        Some(version) => {
            let version = version.as_u64();
            Some(version.ok_or_else(|| wrong("expected_version", "a version is a whole number from 0 on"))?)
        }
    };
    let Some(command) = fields.remove("command") else {
        return Err(Problem::malformed(at, "the item has no command"));
    };
    no_more(fields, at, "stream, id, customer, command, expected_version")?;
    Ok(Incoming {
        stream: kind,
        id,
        customer,
        command,
        expected_version,
    })
}

fn no_more(fields: Map<String, Value>, at: &str, known: &str) -> Result<(), Problem> {
    let Some(field) = fields.keys().next() else {
        return Ok(());
    };
    let path = if at.is_empty() {
        field.clone()
    } else {
        format!("{at}.{field}")
    };
    Err(Problem::malformed(
        &path,
        format!("unknown field {field:?}, expected: {known}"),
    ))
}

/// Where in the bundle's body it stands what the door for commands found wrong.
fn in_bundle(at: &str, is_one: bool) -> String {
    let (index, rest) = match at.strip_prefix('[').and_then(|at| at.split_once("].")) {
        Some(found) => found,
        None if is_one && !matches!(at, "Idempotency-Key" | "effective_at") => ("0", at),
        None => return at.to_owned(),
    };
    match rest {
        "." | "" => format!("commands[{index}].command"),
        "id" => format!("commands[{index}].id"),
        field => format!("commands[{index}].command.{field}"),
    }
}

fn unknown_stream(name: &str) -> String {
    let names: Vec<&str> = StreamKind::ALL.iter().map(|kind| kind.name()).collect();
    format!("there is no stream {name:?}; there are: {}", names.join(", "))
}

fn version_of(accepted: &Accepted, stream: StreamRef) -> Option<u64> {
    let text = stream.to_string();
    let known = accepted.ack.streams.iter().find(|(known, _)| *known == text);
    known.map(|(_, version)| *version)
}

fn named<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Problem> {
    path.map(|Path(path)| path)
        .map_err(|_| Problem::malformed("path", "the path is not UTF-8 when decoded"))
}

fn pairs(parameters: Parameters) -> Result<Vec<(String, String)>, Problem> {
    parameters
        .map(|Query(pairs)| pairs)
        .map_err(|_| Problem::malformed("query", "the query parameters cannot be read"))
}

fn headers_of<const N: usize>(headers: [(HeaderName, String); N]) -> HeaderMap {
    let values = headers
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)));
    values.collect()
}
