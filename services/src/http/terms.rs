//! What goes with a command besides its body: headers and the effective time.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use domain::{Actor, IDEMPOTENCY_KEY_MAX, command_id_from_key};
use jiff::Timestamp;
use uuid::Uuid;

use super::problem::Problem;
use crate::commands::Terms;
use crate::shard::{Lane, TRACE_ID_CHARACTERS_MAX, Who, is_trace_id, is_traceparent};

/// Who it was, when nobody says: the API is for this machine only until access control is configured.
const DEFAULT_ACTOR: &str = "user:local";

/// # Errors
/// 400 that names the header or parameter at fault.
pub fn terms(headers: &HeaderMap, parameters: &[(String, String)]) -> Result<Terms, Problem> {
    let who = Who {
        actor: actor(headers, "X-Actor")?
            .or_else(|| Actor::parse(DEFAULT_ACTOR))
            .expect("the default is an actor"),
        on_behalf_of: actor(headers, "X-On-Behalf-Of")?,
        causation: trace_id(headers, "X-Causation-Id")?,
        correlation: trace_id(headers, "X-Correlation-Id")?,
        traceparent: traceparent(headers),
    };
    let (effective_at, upsert) = read(parameters)?;
    Ok(Terms {
        command_id: command_id(headers)?,
        effective_at,
        who,
        lane: lane(headers)?,
        strict: is_strict(headers),
        upsert,
    })
}

/// What a stream must be for a command to be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// At this version: `If-Match: "3"`.
    Version(u64),
    /// Begun: `If-Match: *`.
    Begun,
}

/// What `If-Match` asks for.
///
/// # Errors
/// 400 when it is no version.
pub fn expected(headers: &HeaderMap) -> Result<Option<Expected>, Problem> {
    let Some(given) = one(headers, header::IF_MATCH.as_str())? else {
        return Ok(None);
    };
    if given == "*" {
        return Ok(Some(Expected::Begun));
    }
    let digits = unquoted(given);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(version) if is_number => Ok(Some(Expected::Version(version))),
        _ => Err(Problem::malformed(
            "If-Match",
            format!("{given:?} is no version; write If-Match: \"3\", or * for a stream that is begun"),
        )),
    }
}

/// Whether the sender has this version already: `If-None-Match: "3"`, a list of them, or `*`. One that cannot be read is another one.
pub fn is_known(headers: &HeaderMap, version: u64) -> bool {
    let given = headers.get_all(header::IF_NONE_MATCH).iter();
    let tags = given
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','));
    let ours = format!("\"{version}\"");
    tags.map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == ours)
}

/// A time with any offset. A plus that a URL turned into a space is read as one: nothing else can be meant.
///
/// # Errors
/// 400 when there is no such time.
pub fn time(parameter: &str, text: &str) -> Result<Timestamp, Problem> {
    let read = text.parse::<Timestamp>().or_else(|error| match text.rsplit_once(' ') {
        Some((time, offset)) => format!("{time}+{offset}").parse().map_err(|_| error),
        None => Err(error),
    });
    read.map_err(|error| {
        Problem::malformed(
            parameter,
            format!("{text:?} is no time such as 2026-03-01T09:00:00+08:00: {error}"),
        )
    })
}

/// Imports say so, and wait behind people.
fn lane(headers: &HeaderMap) -> Result<Lane, Problem> {
    match one(headers, "X-Lane")? {
        None | Some("people") => Ok(Lane::People),
        Some("imports") => Ok(Lane::Imports),
        Some(other) => Err(Problem::malformed(
            "X-Lane",
            format!("there is no lane {other:?}; there are: people, imports"),
        )),
    }
}

/// `Prefer: handling=strict` (RFC 7240). Preferences that are not known are passed over, as the standard asks.
fn is_strict(headers: &HeaderMap) -> bool {
    let given = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = given.flat_map(|text| text.split([',', ';']));
    preferences.any(|preference| match preference.split_once('=') {
        Some((name, value)) => {
            name.trim().eq_ignore_ascii_case("handling") && unquoted(value.trim()).eq_ignore_ascii_case("strict")
        }
        None => false,
    })
}

/// What was made of the preferences of a command.
pub fn applied_preference(is_strict: bool) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_static("preference-applied");
    is_strict.then_some((name, HeaderValue::from_static("handling=strict")))
}

/// The effective time, and whether what is begun is updated.
fn read(parameters: &[(String, String)]) -> Result<(Option<Timestamp>, bool), Problem> {
    let (mut effective_at, mut upsert) = (None, None);
    for (name, value) in parameters {
        let is_second = match name.as_str() {
            "effective_at" => effective_at.replace(time("effective_at", value)?).is_some(),
            "upsert" => upsert.replace(boolean("upsert", value)?).is_some(),
            _ => {
                let what = format!("there is no parameter {name:?}; there are: effective_at, upsert");
                return Err(Problem::malformed(name, what));
            }
        };
        if is_second {
            return Err(Problem::malformed(name, "it is given twice"));
        }
    }
    Ok((effective_at, upsert.unwrap_or_default()))
}

fn boolean(parameter: &str, text: &str) -> Result<bool, Problem> {
    text.parse()
        .map_err(|_| Problem::malformed(parameter, format!("{text:?} is neither true nor false")))
}

fn command_id(headers: &HeaderMap) -> Result<Option<Uuid>, Problem> {
    let Some(given) = one(headers, "Idempotency-Key")? else {
        return Ok(None);
    };
    // Quotes around a key are no part of it, unless it is none without them.
    let id = command_id_from_key(unquoted(given)).or_else(|| command_id_from_key(given));
    id.map(Some).ok_or_else(|| {
        Problem::malformed(
            "Idempotency-Key",
            format!("it must have 1 to {IDEMPOTENCY_KEY_MAX} visible characters; make one for each command, and keep it for retries"),
        )
    })
}

fn actor(headers: &HeaderMap, name: &'static str) -> Result<Option<Actor>, Problem> {
    let Some(given) = one(headers, name)? else {
        return Ok(None);
    };
    let actor = Actor::parse(given).ok_or_else(|| {
        Problem::malformed(
            name,
            "it is no actor; write user:<id>, system:<id>, integration:<id>, customer:<id> or agent:<id>, the id without spaces and @",
        )
    })?;
    Ok(Some(actor))
}

fn trace_id(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, Problem> {
    let Some(given) = one(headers, name)? else {
        return Ok(None);
    };
    match is_trace_id(given) {
        true => Ok(Some(given.to_owned())),
        false => Err(Problem::malformed(
            name,
            format!("it must have 1 to {TRACE_ID_CHARACTERS_MAX} visible ASCII characters"),
        )),
    }
}

/// W3C trace context. One that cannot be read is left out, as the standard asks: a proxy's mistake must not stop a sale.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    is_traceparent(text).then(|| text.to_owned())
}

/// The id of the trace that a request belongs to.
pub fn trace_of(headers: &HeaderMap) -> Option<String> {
    let traceparent = traceparent(headers)?;
    traceparent.split('-').nth(1).map(str::to_owned)
}

/// The one value of a header.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::malformed(name, format!("the header {name} is given twice")));
    }
    let text = value.to_str().map_err(|_| {
        Problem::malformed(
            name,
            format!("the header {name} has other characters than visible ASCII"),
        )
    })?;
    Ok(Some(text.trim()))
}

fn unquoted(text: &str) -> &str {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.unwrap_or(text)
}
