//! What goes with a command besides its body: headers and the effective time.

use axum::http::{HeaderMap, header};
use domain::Actor;
use jiff::Timestamp;
use uuid::Uuid;

use super::problem::Problem;
use crate::commands::Terms;
use crate::shard::{Lane, Who};

/// Who it was, when nobody says: the API is for this machine only until access control is configured.
const DEFAULT_ACTOR: &str = "user:local";
/// Bytes of a correlation or causation id.
const TRACE_ID_MAX: usize = 200;

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
    Ok(Terms {
        command_id: command_id(headers)?,
        effective_at: effective_at(parameters)?,
        who,
        lane: lane(headers)?,
    })
}

/// The version in `If-Match: "3"`.
///
/// # Errors
/// 400 when it is none.
pub fn expected_version(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(given) = one(headers, header::IF_MATCH.as_str())? else {
        return Ok(None);
    };
    let digits = unquoted(given);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(version) if is_number => Ok(Some(version)),
        _ => Err(Problem::malformed(
            "If-Match",
            format!("{given:?} is no version; write If-Match: \"3\""),
        )),
    }
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

fn effective_at(parameters: &[(String, String)]) -> Result<Option<Timestamp>, Problem> {
    let mut effective_at = None;
    for (name, value) in parameters {
        if name != "effective_at" {
            return Err(Problem::malformed(
                name,
                format!("there is no parameter {name:?}; there is: effective_at"),
            ));
        }
        if effective_at.is_some() {
            return Err(Problem::malformed("effective_at", "it is given twice"));
        }
        effective_at = Some(time("effective_at", value)?);
    }
    Ok(effective_at)
}

fn command_id(headers: &HeaderMap) -> Result<Option<Uuid>, Problem> {
    let Some(given) = one(headers, "Idempotency-Key")? else {
        return Ok(None);
    };
    let id = Uuid::parse_str(unquoted(given));
    id.map(Some).map_err(|_| {
        Problem::malformed(
            "Idempotency-Key",
            format!("{given:?} is no UUID; make one of version 7 for each command, and keep it for retries"),
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
    let fits = (1..=TRACE_ID_MAX).contains(&given.len()) && given.bytes().all(|byte| byte.is_ascii_graphic());
    match fits {
        true => Ok(Some(given.to_owned())),
        false => Err(Problem::malformed(
            name,
            format!("it has 1 to {TRACE_ID_MAX} visible ASCII characters"),
        )),
    }
}

/// W3C trace context. One that cannot be read is left out, as the standard asks: a proxy's mistake must not stop a sale.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    (lengths == [2, 32, 16, 2] && parts.into_iter().all(is_hex)).then(|| text.to_owned())
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
