//! The values a column can hold, in every store alike.

use std::fmt;

use domain::{Card, Currency, History, Id, Personal};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    Uuid,
    Text,
    Int,
    Bool,
    Date,
    /// An instant, in microseconds.
    Time,
    Json,
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    Null,
    Uuid(Uuid),
    Text(String),
    Int(i64),
    Bool(bool),
    Date(Date),
    Time(Timestamp),
    /// JSON text with sorted keys and no white space, so that equal values are equal texts.
    Json(String),
}

/// Redacted: a cell may hold personal data.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Uuid(uuid) => write!(f, "{uuid}"),
            Value::Text(text) => write!(f, "<text of {} bytes>", text.len()),
            Value::Int(int) => write!(f, "{int}"),
            Value::Bool(bool) => write!(f, "{bool}"),
            Value::Date(date) => write!(f, "{date}"),
            Value::Time(time) => write!(f, "{time}"),
            Value::Json(text) => write!(f, "<json of {} bytes>", text.len()),
        }
    }
}

impl Value {
    /// Any plain data as canonical JSON.
    pub fn json(data: &impl Serialize) -> Value {
        let tree = serde_json::to_value(data).expect("plain data");
        Value::Json(tree.to_string())
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        let own = size_of::<Value>();
        match self {
            Value::Text(text) | Value::Json(text) => own + text.len(),
            Value::Null | Value::Uuid(_) | Value::Int(_) | Value::Bool(_) | Value::Date(_) | Value::Time(_) => own,
        }
    }

    /// As it stands in an answer's JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Int(int) => (*int).into(),
            Value::Bool(bool) => (*bool).into(),
            Value::Json(text) => serde_json::from_str(text).unwrap_or_else(|_| text.clone().into()),
            Value::Uuid(_) | Value::Text(_) | Value::Date(_) | Value::Time(_) => self.to_text().into(),
        }
    }

    /// As it stands in a table or CSV; null is empty.
    pub fn to_text(&self) -> String {
        match self {
            Value::Null => String::new(),
            Value::Uuid(uuid) => uuid.to_string(),
            Value::Text(text) | Value::Json(text) => text.clone(),
            Value::Int(int) => int.to_string(),
            Value::Bool(bool) => bool.to_string(),
            Value::Date(date) => date.to_string(),
            Value::Time(time) => time.to_string(),
        }
    }

    /// Reads a filter's text as a value of this type; `None` when it is none.
    pub fn parse(ty: ColumnType, text: &str) -> Option<Value> {
        Some(match ty {
            ColumnType::Uuid => Value::Uuid(Uuid::parse_str(text).ok()?),
            // PostgreSQL has no texts with it, so nothing is equal to one.
            ColumnType::Text if text.contains('\0') => return None,
            ColumnType::Text => Value::Text(text.to_owned()),
            ColumnType::Int => Value::Int(text.parse().ok()?),
            ColumnType::Bool => Value::Bool(text.parse().ok()?),
            ColumnType::Date => Value::Date(text.parse().ok()?),
            ColumnType::Time => Value::Time(text.parse().ok()?),
            ColumnType::Json => return None,
        })
    }

    pub fn as_int(&self) -> i64 {
        if let Value::Int(int) = self { *int } else { 0 }
    }

    pub fn as_text(&self) -> &str {
        if let Value::Text(text) | Value::Json(text) = self {
            text
        } else {
            ""
        }
    }
}

/// The word that a variant without fields has in JSON: `pending-customer`.
///
/// # Panics
/// When it is no such variant.
pub fn word(variant: impl Serialize) -> String {
    match serde_json::to_value(variant) {
        Ok(serde_json::Value::String(word)) => word,
        other => panic!("not a word: {other:?}"),
    }
}

/// A Rust type that fits a column.
pub trait ColumnValue: Sized {
    const TYPE: ColumnType;
    const NULLABLE: bool = false;
    /// Whether it is personal data.
    const PERSONAL: bool = false;

    fn into_value(self) -> Value;

    /// # Panics
    /// When the value is of another type: a store must give back what it was given.
    fn from_value(value: Value) -> Self;
}

macro_rules! column_value {
    ($($rust:ty, $variant:ident;)+) => {$(
        impl ColumnValue for $rust {
            const TYPE: ColumnType = ColumnType::$variant;

            fn into_value(self) -> Value {
                Value::$variant(self)
            }

            fn from_value(value: Value) -> Self {
                match value {
                    Value::$variant(inner) => inner,
                    other => panic!("expected {}, the store gave {other:?}", stringify!($variant)),
                }
            }
        }
    )+};
}

column_value! {
    Uuid, Uuid;
    String, Text;
    i64, Int;
    bool, Bool;
    Date, Date;
    Timestamp, Time;
}

impl<T: ColumnValue> ColumnValue for Option<T> {
    const TYPE: ColumnType = T::TYPE;
    const NULLABLE: bool = true;
    const PERSONAL: bool = T::PERSONAL;

    fn into_value(self) -> Value {
        self.map_or(Value::Null, T::into_value)
    }

    fn from_value(value: Value) -> Self {
        if value == Value::Null {
            None
        } else {
            Some(T::from_value(value))
        }
    }
}

impl ColumnValue for Personal<String> {
    const TYPE: ColumnType = ColumnType::Text;
    const PERSONAL: bool = true;

    fn into_value(self) -> Value {
        Value::Text(self.into_inner())
    }

    fn from_value(value: Value) -> Self {
        Personal::new(String::from_value(value))
    }
}

impl ColumnValue for Currency {
    const TYPE: ColumnType = ColumnType::Text;

    fn into_value(self) -> Value {
        Value::Text(self.code().to_owned())
    }

    fn from_value(value: Value) -> Self {
        Currency::parse(value.as_text()).expect("the store gives back the currency it was given")
    }
}

impl<S> ColumnValue for Id<S> {
    const TYPE: ColumnType = ColumnType::Uuid;

    fn into_value(self) -> Value {
        Value::Uuid(self.uuid())
    }

    fn from_value(value: Value) -> Self {
        Id::new(Uuid::from_value(value))
    }
}

/// A list, kept as JSON.
impl<T: Serialize + DeserializeOwned> ColumnValue for Vec<T> {
    const TYPE: ColumnType = ColumnType::Json;

    fn into_value(self) -> Value {
        Value::json(&self)
    }

    fn from_value(value: Value) -> Self {
        match value {
            Value::Json(text) => serde_json::from_str(&text).expect("the store gives back the JSON it was given"),
            other => panic!("expected Json, the store gave {other:?}"),
        }
    }
}

/// The history of a stream, for a read model that shows how the stream stands by all that is known.
impl<C: Card> ColumnValue for History<C> {
    const TYPE: ColumnType = ColumnType::Json;

    fn into_value(self) -> Value {
        Value::json(&self)
    }

    fn from_value(value: Value) -> Self {
        match value {
            Value::Json(text) => serde_json::from_str(&text).expect("the store gives back the JSON it was given"),
            other => panic!("expected Json, the store gave {other:?}"),
        }
    }
}

/// A row's key.
pub type Key = Vec<Value>;

pub trait IntoKey {
    fn into_key(self) -> Key;
}

impl IntoKey for Key {
    fn into_key(self) -> Key {
        self
    }
}

impl IntoKey for Uuid {
    fn into_key(self) -> Key {
        vec![Value::Uuid(self)]
    }
}

impl<A: ColumnValue, B: ColumnValue> IntoKey for (A, B) {
    fn into_key(self) -> Key {
        vec![self.0.into_value(), self.1.into_value()]
    }
}

impl<A: ColumnValue, B: ColumnValue, C: ColumnValue> IntoKey for (A, B, C) {
    fn into_key(self) -> Key {
        vec![self.0.into_value(), self.1.into_value(), self.2.into_value()]
    }
}
