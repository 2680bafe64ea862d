//! Which streams a command names: keys of other systems become ids.

use std::collections::HashMap;

use domain::{AnyState, Id, StreamKind, StreamRef, customer, link};
use serde_json::Value;
use uuid::Uuid;

use super::{CommandFailure, Commands, Reference, malformed};
use crate::shard::{Failure, Step};

/// A key of another system.
pub(super) type OutsideKey = (String, String);

/// What the keys of customers in a command mean.
#[derive(Debug, Default)]
pub(super) struct Meanings {
    /// Whatever the links say now, these mean what they meant before.
    pub(super) fixed: HashMap<OutsideKey, Uuid>,
    /// What they meant, or may have meant, before they were linked as they are now.
    pub(super) before: Vec<(OutsideKey, Uuid)>,
}

impl Commands {
    /// What an outside name of a stream means: a key of a customer that was linked means that customer, else the id that is
    /// derived from the key.
    ///
    /// # Errors
    /// [`Failure::NotAccepted`] when the link cannot be read.
    pub async fn resolve(&self, kind: StreamKind, reference: &Reference) -> Result<Uuid, Failure> {
        self.meaning(kind, reference, &mut Meanings::default()).await
    }

    /// The same, and notes what else it may have meant.
    pub(super) async fn meaning(
        &self,
        kind: StreamKind,
        reference: &Reference,
        meanings: &mut Meanings,
    ) -> Result<Uuid, Failure> {
        let derived = reference.id_by_name(kind);
        let Some((source, key)) = reference.may_be_linked(kind) else {
            return Ok(derived);
        };
        let outside = (source.to_owned(), key.to_owned());
        if let Some(fixed) = meanings.fixed.get(&outside) {
            return Ok(*fixed);
        }
        let link = self.link(source, key).await?.0;
        let now = link.customer.map_or(derived, |customer| customer.uuid());
        let mut before: Vec<Uuid> = link.former.iter().rev().map(|former| former.uuid()).collect();
        before.push(derived);
        before.retain(|other| *other != now);
        meanings
            .before
            .extend(before.into_iter().map(|other| (outside.clone(), other)));
        Ok(now)
    }

    /// The link of a key, and its version.
    pub(super) async fn link(&self, source: &str, key: &str) -> Result<(link::State, u64), Failure> {
        let (state, version) = self.peek(StreamRef::of(link::link_id(source, key))).await?;
        match state.as_ref() {
            AnyState::Link(link) => Ok((link.clone(), version)),
            _ => unreachable!("a shard answers the state of the stream's own type"),
        }
    }

    /// How a customer is now.
    pub(super) async fn customer_status(&self, customer: Id<customer::Customer>) -> Result<customer::Status, Failure> {
        let (state, _) = self.peek(StreamRef::of(customer)).await?;
        match state.as_ref() {
            AnyState::Customer(customer) => Ok(customer.status),
            _ => unreachable!("a shard answers the state of the stream's own type"),
        }
    }

    /// Puts ids in the place of `{"key": …}` and `{"item": n}`.
    pub(super) async fn resolve_fields(
        &self,
        json: &mut Value,
        earlier: &[Step],
        meanings: &mut Meanings,
    ) -> Result<(), CommandFailure> {
        let Value::Object(fields) = json else { return Ok(()) };
        for (name, value) in fields.iter_mut() {
            match value {
                Value::Object(_) => self.resolve_value(name, value, earlier, meanings).await?,
                Value::Array(list) if name == "about" => {
                    for item in list {
                        self.resolve_value(name, item, earlier, meanings).await?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn resolve_value(
        &self,
        name: &str,
        value: &mut Value,
        earlier: &[Step],
        meanings: &mut Meanings,
    ) -> Result<(), CommandFailure> {
        let Value::Object(object) = &*value else { return Ok(()) };
        if let (Some(index), 1) = (object.get("item").and_then(Value::as_u64), object.len()) {
            let step = usize::try_from(index).ok().and_then(|index| earlier.get(index));
            let step =
                step.ok_or_else(|| malformed(name, format!("there is no earlier item {index} in the bundle")))?;
            *value = step.stream.id.to_string().into();
            return Ok(());
        }
        if !object.contains_key("key") || object.keys().any(|field| field != "key" && field != "stream") {
            return Ok(());
        }
        let named = match name {
            "customer" | "to" => Some(StreamKind::Customer),
            _ => StreamKind::parse(name),
        };
        let given = match object.get("stream").map(|stream| stream.as_str().unwrap_or_default()) {
            None => None,
            Some(stream) => Some(
                StreamKind::parse(stream).ok_or_else(|| malformed(name, format!("there is no stream {stream:?}")))?,
            ),
        };
        let kind = match (named, given) {
            (Some(named), Some(given)) if named != given => {
                return Err(malformed(
                    name,
                    format!("this is a {}, and no {}", named.name(), given.name()),
                ));
            }
            (Some(kind), _) | (None, Some(kind)) => kind,
            (None, None) => {
                let what = "say which stream the key is of: {\"stream\": …, \"key\": […]}";
                return Err(malformed(name, what));
            }
        };
        let key = serde_json::json!({"key": object.get("key")});
        let reference = Reference::from_json(&key, name)?;
        *value = self.meaning(kind, &reference, meanings).await?.to_string().into();
        Ok(())
    }
}
