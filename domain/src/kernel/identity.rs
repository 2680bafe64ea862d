//! Who a thing is: the one place that says where an id may come from.
//!
//! | comes from | is made by |
//! |---|---|
//! | a key of another system | [`id_from_key`] |
//! | several parts that only together are unique, such as store, till, day and receipt | [`id_from_parts`] |
//! | a provider's id of something that belongs to a customer | [`id_beside`] |
//! | the command that begins a stream without an id | [`id_from_command`] |
//! | a client's idempotency key | [`command_id_from_key`], [`command_id_within`] |
//!
//! Ids are stored in logs, so none of these functions may ever give another id for the same arguments.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use super::{Home, Slot, StreamRef, derived_id, derived_in, slot_of};

/// What another system calls a thing: an ERP customer number, a member card, the number of an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalKey {
    pub source: String,
    pub key: String,
}

impl ExternalKey {
    /// Whether it may stand in an envelope, in the open. Keys are not personal; one with an `@` is an address.
    pub fn is_opaque(&self) -> bool {
        !self.source.contains('@') && !self.key.contains('@')
    }
}

/// `erp:C-12`
impl fmt::Display for ExternalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.key)
    }
}

/// The id of a `stream` whose identity is a key of another system, such as a till's receipt number. Its slot comes from
/// (source, key) alone: a receipt may come first without and later with its customer, and must be the same stream.
pub fn id_from_key(stream: &str, source: &str, key: &str) -> Uuid {
    derived_in(slot_of_key(source, key), &[stream, source, key])
}

/// The slot of everything that `source` calls by this key.
fn slot_of_key(source: &str, key: &str) -> Slot {
    slot_of(derived_id(&["key", source, key]))
}

/// An identity, and the id that an earlier version of the program gave to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub id: Uuid,
    /// In the same slot. Another thing may have this id: its state tells.
    pub former: Option<Uuid>,
}

/// The id of a `stream` whose identity are several parts within a source. `key` is the parts joined to one text. While that text
/// `is_ambiguous`, for a part holds the separator, the parts are hashed apart, and the id of the joined text is the former one.
pub fn id_from_parts(stream: &str, source: &str, key: &str, is_ambiguous: bool, parts: &[&str]) -> Identity {
    let joined = id_from_key(stream, source, key);
    if !is_ambiguous {
        return Identity {
            id: joined,
            former: None,
        };
    }
    let mut all = vec![stream, source, "parts"];
    all.extend(parts);
    Identity {
        id: derived_in(slot_of_key(source, key), &all),
        former: Some(joined),
    }
}

/// The id of a `stream` that belongs to a customer and is called `key` by a provider, in the customer's slot. The customer is a part of
/// it: one mail to two customers is two interactions. The former id left the customer out.
pub fn id_beside(stream: &str, customer: Uuid, key: &[&str]) -> Identity {
    let slot = slot_of(customer);
    let customer = customer.to_string();
    let parts = |before: &[&str]| [before, key].concat().iter().map(|part| (*part).to_owned()).collect();
    let (own, former): (Vec<String>, Vec<String>) = (parts(&[stream, "of", &customer]), parts(&[stream]));
    let id = |parts: &[String]| derived_in(slot, &parts.iter().map(String::as_str).collect::<Vec<_>>());
    Identity {
        id: id(&own),
        former: Some(id(&former)),
    }
}

/// The id of a stream that is begun without one, by the command of this index in a bundle. It is derived from the command's id, so that a
/// retry meets the same stream. `beside` is the slot of the bundle's first stream.
pub fn id_from_command(stream: &str, command_id: Uuid, index: usize, home: Home, beside: Option<Slot>) -> Uuid {
    let (command_id, index) = (command_id.to_string(), index.to_string());
    let parts = [stream, &command_id, &index];
    match (home, beside) {
        (Home::Exactly(id), _) => id,
        (Home::With(other), _) => derived_in(slot_of(other), &parts),
        (Home::Anywhere, Some(slot)) => derived_in(slot, &parts),
        (Home::Anywhere, None) => derived_id(&parts),
    }
}

/// Characters of a client's idempotency key at most.
pub const IDEMPOTENCY_KEY_MAX: usize = 255;

/// The command id that a client's idempotency key means: a UUID of version 7 or 8 is one, and any other text is hashed to one of version 8.
/// `None` when it has not 1 to [`IDEMPOTENCY_KEY_MAX`] characters, all of them visible or spaces between such.
pub fn command_id_from_key(text: &str) -> Option<Uuid> {
    let is_visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    if text.trim() != text || !(1..=IDEMPOTENCY_KEY_MAX).contains(&text.len()) || !text.bytes().all(is_visible) {
        return None;
    }
    Some(match Uuid::parse_str(text) {
        Ok(id) if matches!(id.get_version_num(), 7 | 8) => id,
        // However it is written.
        Ok(id) => derived_id(&["idempotency key", &id.to_string()]),
        Err(_) => derived_id(&["idempotency key", text]),
    })
}

/// The id under which a command is recorded. What a client gives is unique within the stream that its command addresses: under one key
/// each stream has one effect, and the ids of events are unique in any case. A UUID of version 7 keeps its time, by which it is forgotten.
pub fn command_id_within(given: Uuid, stream: StreamRef) -> Uuid {
    let mut hasher = Sha256::new();
    hasher.update(b"command id within");
    hasher.update(given.as_bytes());
    hasher.update(stream.to_string());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize()[..16]);
    if given.get_version_num() != 7 {
        return Uuid::new_v8(bytes);
    }
    bytes[..6].copy_from_slice(&given.as_bytes()[..6]);
    Builder::from_bytes(bytes)
        .with_version(uuid::Version::SortRand)
        .into_uuid()
}

#[cfg(test)]
mod specs {
    use super::*;
    use crate::StreamKind;

    #[test]
    fn a_key_gives_one_id_per_stream_and_one_slot_for_all() {
        let purchase = id_from_key("purchase", "till", "536365");
        let case = id_from_key("case", "till", "536365");
        assert_ne!(purchase, case);
        assert_eq!(slot_of(purchase), slot_of(case));
        assert_eq!(purchase, id_from_key("purchase", "till", "536365"));
        // As it is stored in logs.
        assert_eq!(purchase.to_string(), "100316ae-7f0a-85ff-80f9-724985aa5cf8");
    }

    #[test]
    fn parts_that_hold_the_separator_are_hashed_apart_beside_the_former_id() {
        let plain = id_from_parts("purchase", "pos", "A/B", false, &["A", "B"]);
        assert_eq!(plain.id, id_from_key("purchase", "pos", "A/B"));
        assert_eq!(plain.former, None);
        let one = id_from_parts("purchase", "pos", "A/B/C", true, &["A/B", "C"]);
        let other = id_from_parts("purchase", "pos", "A/B/C", true, &["A", "B/C"]);
        assert_ne!(one.id, other.id);
        assert_eq!(one.former, Some(id_from_key("purchase", "pos", "A/B/C")));
        assert_eq!(slot_of(one.id), slot_of(one.former.unwrap()));
    }

    #[test]
    fn what_a_provider_calls_alike_is_apart_for_two_customers_of_one_slot() {
        let slot = Slot::new(7);
        let (a, b) = (derived_in(slot, &["a"]), derived_in(slot, &["b"]));
        let key = ["email", "<1@mail>"];
        let (of_a, of_b) = (id_beside("interaction", a, &key), id_beside("interaction", b, &key));
        assert_ne!(of_a.id, of_b.id);
        assert_eq!(of_a.former, of_b.former);
        assert_eq!(
            of_a.former,
            Some(derived_in(slot, &["interaction", "email", "<1@mail>"]))
        );
        assert_eq!((slot_of(of_a.id), slot_of(of_b.id)), (slot, slot));
    }

    #[test]
    fn any_visible_text_is_an_idempotency_key() {
        let v7 = "0195e3a0-1111-7222-9333-444455556666";
        assert_eq!(command_id_from_key(v7), Some(Uuid::parse_str(v7).unwrap()));
        let v4 = "7b8b7b4e-5f0e-4c8e-9d2a-0d6c0e5e7a11";
        let of_v4 = command_id_from_key(v4).unwrap();
        assert_eq!(of_v4.get_version_num(), 8);
        assert_eq!(command_id_from_key(&v4.to_uppercase()), Some(of_v4));
        assert_ne!(command_id_from_key("order 4711"), command_id_from_key("order 4712"));
        assert_eq!(command_id_from_key("order 4711"), command_id_from_key("order 4711"));
        let longest = "x".repeat(IDEMPOTENCY_KEY_MAX);
        assert!(command_id_from_key(&longest).is_some());
        for none in ["", " ", " x", "a\tb", "訂單", &(longest + "x")] {
            assert_eq!(command_id_from_key(none), None, "{none:?}");
        }
    }

    #[test]
    fn one_key_for_two_streams_is_two_command_ids_and_keeps_its_time() {
        let stream = |name: &str| StreamRef {
            kind: StreamKind::Case,
            id: derived_id(&[name]),
        };
        for key in ["0195e3a0-1111-7222-9333-444455556666", "order 4711"] {
            let given = command_id_from_key(key).unwrap();
            let (a, b) = (
                command_id_within(given, stream("a")),
                command_id_within(given, stream("b")),
            );
            assert_ne!(a, b);
            assert_eq!(a, command_id_within(given, stream("a")));
            assert_eq!(a.get_version_num(), given.get_version_num());
            assert_eq!(a.get_variant(), uuid::Variant::RFC4122);
            if given.get_version_num() == 7 {
                assert_eq!(a.get_timestamp(), given.get_timestamp());
            }
        }
    }
}
