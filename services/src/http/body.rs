//! Bodies: read up to a limit, and read as JSON so strictly that nothing is guessed.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use serde_json::Value;

use super::problem::{Kind, Problem};
use crate::strict_json::{self, Unreadable};

/// Bytes of a command: more than any event may have.
pub const COMMAND_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a bundle: what a commit may have.
pub const BUNDLE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// So much of a body that is too large is read and thrown away, so that its sender gets to read why: one who is cut off
/// while sending sees a broken connection.
pub const DRAIN_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The JSON in a body.
///
/// # Errors
/// 415 when it is not said to be JSON, 413 when it is too large, 400 when it is no JSON.
pub async fn json(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Value, Problem> {
    must_be_json(headers)?;
    parse(&read(body, bytes_max).await?)
}

/// A page of another site can make a browser send any body here, but not one that is said to be JSON. So this is asked for, even of
/// those who send none of the header.
fn must_be_json(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.map(|given| given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    match essence.as_deref() {
        Some("application/json") => Ok(()),
        Some(other) if other.starts_with("application/") && other.ends_with("+json") => Ok(()),
        Some(other) => Err(Problem::new(
            Kind::WrongContentType,
            format!("the body is sent as {other:?}; send JSON with the header Content-Type: application/json"),
        )),
        None => Err(Problem::new(
            Kind::WrongContentType,
            "send JSON with the header Content-Type: application/json",
        )),
    }
}

async fn read(body: Body, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    let mut parts = body.into_data_stream();
    let mut bytes: Vec<u8> = Vec::new();
    let mut length = 0;
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| Problem::malformed(".", "the body ended before its end"))?;
        length += part.len();
        if length > DRAIN_BYTES_MAX {
            break;
        }
        if length <= bytes_max {
            bytes.extend_from_slice(&part);
        }
    }
    match length > bytes_max {
        true => Err(Problem::new(
            Kind::TooLarge,
            format!("the body is too large: {bytes_max} bytes at most"),
        )),
        false => Ok(bytes),
    }
}

/// Reads JSON without guessing.
///
/// # Errors
/// 400 with the path at fault.
pub fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    if bytes.is_empty() {
        return Err(Problem::malformed(".", "the body is empty; it must be a JSON object"));
    }
    strict_json::parse(bytes).map_err(|unreadable| match unreadable {
        Unreadable::NotUtf8 { from } => Problem::malformed(".", format!("the body is not UTF-8, from byte {from} on")),
        Unreadable::NoJson { at, why } => {
            Problem::malformed(&at, format!("the body is no JSON that can be read: {why}"))
        }
        Unreadable::More { why } => {
            Problem::malformed(".", format!("there is more in the body than one JSON value: {why}"))
        }
    })
}
