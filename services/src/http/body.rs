//! Bodies: read up to a limit, and read as JSON so strictly that nothing is guessed.

use std::fmt;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::problem::{Kind, Problem};

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

/// Reads JSON without guessing: a field that is given twice is an error, for nobody knows which one was meant.
///
/// # Errors
/// 400 with the path at fault.
pub fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    if bytes.is_empty() {
        return Err(Problem::malformed(".", "the body is empty; it must be a JSON object"));
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        let at = error.valid_up_to();
        return Err(Problem::malformed(
            ".",
            format!("the body is not UTF-8, from byte {at} on"),
        ));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let value = match Strict::deserialize(tracked) {
        Ok(Strict(value)) => value,
        Err(error) => {
            let path = track.path().to_string();
            let at = if path == "?" { "." } else { &path };
            return Err(Problem::malformed(
                at,
                format!("the body is no JSON that can be read: {error}"),
            ));
        }
    };
    json.end()
        .map_err(|error| Problem::malformed(".", format!("there is more in the body than one JSON value: {error}")))?;
    Ok(value)
}

/// Any JSON in which no object has a field twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        Field { is_second: false }.deserialize(deserializer).map(Strict)
    }
}

/// The value of a field. The second one of a name fails here, where the path is the field's.
struct Field {
    is_second: bool,
}

impl<'de> DeserializeSeed<'de> for Field {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.is_second {
            return Err(de::Error::custom("the field is given twice"));
        }
        deserializer.deserialize_any(AnyJson)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("the number is not finite"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Field { is_second: false })? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let is_second = object.contains_key(&name);
            let value = fields.next_value_seed(Field { is_second })?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}
