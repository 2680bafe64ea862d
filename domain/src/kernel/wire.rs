//! How events and commands look outside: an event is its type name and a body without a tag; a command is a JSON object
//! with a `type`. One serde derive (externally tagged enums) serves both.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IgnoredAny, IntoDeserializer, VariantAccess, Visitor,
};
use serde::{Deserialize, Serialize, forward_to_deserialize_any};
use serde_json::Value;

use super::{Stream, tidy_texts};

/// `crm.<stream>.<event>.v<version>`, the type of an event outside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventType {
    pub stream: String,
    /// The event's name in kebab-case: `stage-changed`.
    pub event: String,
    pub version: u16,
}

impl EventType {
    /// `None` when the text does not have the form.
    pub fn parse(text: &str) -> Option<EventType> {
        let mut parts = text.strip_prefix("crm.")?.split('.');
        let (stream, event, version) = (parts.next()?, parts.next()?, parts.next()?.strip_prefix('v')?);
        if parts.next().is_some() {
            return None;
        }
        Some(EventType {
            stream: stream.to_owned(),
            event: event.to_owned(),
            version: version.parse().ok()?,
        })
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "crm.{}.{}.v{}", self.stream, self.event, self.version)
    }
}

/// Why a stored event cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableEvent {
    #[error("event type {0} is unknown to this version of the program")]
    UnknownType(EventType),
    #[error("event type {0} has a version that this version of the program does not know")]
    UnknownVersion(EventType),
    #[error("the body of an event of type {0} is damaged")]
    Damaged(EventType, #[source] serde_json::Error),
}

/// The event's type and its JSON body, as they are stored.
pub fn encode_event<S: Stream>(event: &S::Event) -> (EventType, Vec<u8>) {
    let tagged = serde_json::to_vec(event).expect("an event is plain data");
    // An externally tagged enum is `{"<tag>":<body>}`, or `"<tag>"` when the variant has no fields.
    let after_quote = if tagged[0] == b'{' { 2 } else { 1 };
    let tag_end = after_quote
        + tagged[after_quote..]
            .iter()
            .position(|b| *b == b'"')
            .expect("a tag ends with a quote");
    let tag = String::from_utf8_lossy(&tagged[after_quote..tag_end]).into_owned();
    let body = if tagged[0] == b'{' {
        tagged[tag_end + 2..tagged.len() - 1].to_vec()
    } else {
        b"{}".to_vec()
    };
    let version = S::event_version(&tag);
    (
        EventType {
            stream: S::NAME.to_owned(),
            event: tag,
            version,
        },
        body,
    )
}

/// The event that `encode_event` stored.
///
/// # Errors
/// [`UnreadableEvent`]: an unknown type, an unknown version, or a body that does not fit its type.
pub fn decode_event<S: Stream>(kind: &EventType, body: &[u8]) -> Result<S::Event, UnreadableEvent> {
    if !variants::<S::Event>().contains(&kind.event.as_str()) {
        return Err(UnreadableEvent::UnknownType(kind.clone()));
    }
    if kind.version != S::event_version(&kind.event) {
        return Err(UnreadableEvent::UnknownVersion(kind.clone()));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let tagged = Tagged {
        tag: &kind.event,
        body: &mut json,
        strict: false,
    };
    S::Event::deserialize(tagged)
        .and_then(|event| json.end().map(|()| event))
        .map_err(|error| UnreadableEvent::Damaged(kind.clone(), error))
}

/// What is wrong with a command's JSON, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {message}")]
pub struct CommandError {
    /// The path of the field at fault, `amount.currency`, or `.` for the whole.
    pub at: String,
    pub message: String,
}

/// Read a command from `{"type": "change-stage", "to": "proposal"}`. Its texts are in the form in which they are stored.
///
/// # Errors
/// [`CommandError`] names the field at fault.
pub fn command_from_json<C: DeserializeOwned>(mut json: Value) -> Result<C, CommandError> {
    let whole = |message: &str| CommandError {
        at: ".".into(),
        message: message.into(),
    };
    tidy_texts(&mut json)?;
    let Value::Object(mut fields) = json else {
        return Err(whole("a command is a JSON object"));
    };
    let tag = match fields.remove("type") {
        Some(Value::String(tag)) => tag,
        Some(_) => {
            return Err(CommandError {
                at: "type".into(),
                message: "the type is a text".into(),
            });
        }
        None => return Err(whole("the command has no type")),
    };
    let known = variants::<C>();
    if !known.contains(&tag.as_str()) {
        let message = format!("unknown command {tag:?}, expected one of: {}", known.join(", "));
        return Err(CommandError {
            at: "type".into(),
            message,
        });
    }
    let tagged = Tagged {
        tag: &tag,
        body: Value::Object(fields),
        strict: true,
    };
    serde_path_to_error::deserialize(tagged).map_err(|error| {
        let path = error.path().to_string();
        let at = path.strip_prefix(&format!("{tag}.")).unwrap_or(&path);
        let at = if at.is_empty() || at == tag || at == "?" {
            "."
        } else {
            at
        };
        CommandError {
            at: at.to_owned(),
            message: error.into_inner().to_string(),
        }
    })
}

/// The names of an enum's variants as its derive knows them.
pub fn variants<E: DeserializeOwned>() -> &'static [&'static str] {
    struct Probe<'a>(&'a mut &'static [&'static str]);
    impl<'de> Deserializer<'de> for Probe<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("not an enum"))
        }

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _: &'static str,
            variants: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = variants;
            Err(serde::de::Error::custom("only the names were asked for"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map struct identifier ignored_any
        }
    }
    let mut names: &'static [&'static str] = &[];
    match E::deserialize(Probe(&mut names)) {
        Ok(_) => &[],
        Err(_) => names,
    }
}

/// An enum value whose tag and body come from two places.
struct Tagged<'a, D> {
    tag: &'a str,
    body: D,
    /// Are fields refused that a variant without fields does not have?
    strict: bool,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Tagged<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(serde::de::Error::custom("events and commands are enums"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_enum(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de, D: Deserializer<'de>> EnumAccess<'de> for Tagged<'_, D> {
    type Error = D::Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), D::Error> {
        Ok((seed.deserialize(self.tag.into_deserializer())?, self))
    }
}

impl<'de, D: Deserializer<'de>> VariantAccess<'de> for Tagged<'_, D> {
    type Error = D::Error;

    fn unit_variant(self) -> Result<(), D::Error> {
        let fields: BTreeMap<String, IgnoredAny> = BTreeMap::deserialize(self.body)?;
        match fields.keys().next() {
            Some(field) if self.strict => Err(serde::de::Error::custom(format!(
                "unknown field `{field}`, there are no fields"
            ))),
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, D::Error> {
        seed.deserialize(self.body)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.body.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.body.deserialize_struct("", fields, visitor)
    }
}

/// A command as the JSON that `command_from_json` reads.
pub fn command_to_json<C: Serialize>(command: &C) -> Value {
    let tagged = serde_json::to_value(command).expect("a command is plain data");
    let (tag, body) = match tagged {
        Value::String(tag) => (tag, Value::Object(Default::default())),
        Value::Object(one) => one.into_iter().next().expect("an enum has a tag"),
        _ => unreachable!("an enum is a tag, or an object with one"),
    };
    let mut object = serde_json::Map::new();
    object.insert("type".into(), Value::String(tag));
    if let Value::Object(fields) = body {
        object.extend(fields);
    }
    Value::Object(object)
}
