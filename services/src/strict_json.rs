//! JSON, read so strictly that nothing is guessed: a field that is given twice is an error, for nobody knows which one was meant.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why bytes are no JSON that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("not UTF-8, from byte {from} on")]
    NotUtf8 { from: usize },
    /// `at` is the path at fault, `.` for the whole.
    #[error("{at}: {why}")]
    NoJson { at: String, why: String },
    #[error("there is more than one JSON value: {why}")]
    More { why: String },
}

/// Up to here every integer is a number of its own, in either sign.
const EXACT_TO: f64 = 9_007_199_254_740_991.0;

/// The one JSON value that the bytes are.
///
/// # Errors
/// [`Unreadable`].
pub fn parse(bytes: &[u8]) -> Result<Value, Unreadable> {
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(Unreadable::NotUtf8 {
            from: error.valid_up_to(),
        });
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let value = match Strict::deserialize(tracked) {
        Ok(Strict(value)) => value,
        Err(error) => {
            let path = track.path().to_string();
            return Err(Unreadable::NoJson {
                at: if path == "?" { ".".to_owned() } else { path },
                why: error.to_string(),
            });
        }
    };
    json.end()
        .map_err(|error| Unreadable::More { why: error.to_string() })?;
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
        // JSON has one kind of number: 10.0 is 10. Beyond this bound digits may have been lost.
        if value.fract() == 0.0 && value.abs() <= EXACT_TO {
            return Ok((value as i64).into());
        }
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
