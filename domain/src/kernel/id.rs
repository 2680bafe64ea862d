//! Ids that route themselves: a UUID whose 12 bits behind the version nibble are its slot, and `shard = slot % shards`.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// How many slots there are; fixed for ever, whatever the number of shards.
pub const SLOTS: u16 = 4096;

/// Streams of one slot share one total order, and may be decided together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// Slot `n % 4096`.
    pub fn new(n: u16) -> Slot {
        Slot(n % SLOTS)
    }

    pub fn number(self) -> u16 {
        self.0
    }

    pub fn shard(self, shards: u16) -> u16 {
        self.0 % shards
    }

    /// `id` moved into this slot; every other bit stays.
    pub fn apply(self, id: Uuid) -> Uuid {
        let mut bytes = *id.as_bytes();
        bytes[6] = (bytes[6] & 0xf0) | (self.0 >> 8) as u8;
        bytes[7] = (self.0 & 0xff) as u8;
        Uuid::from_bytes(bytes)
    }
}

/// The slot that an id carries.
pub fn slot_of(id: Uuid) -> Slot {
    let bytes = id.as_bytes();
    Slot(u16::from(bytes[6] & 0x0f) << 8 | u16::from(bytes[7]))
}

/// The UUIDv8 that `parts` always give, with a slot of its own.
pub fn derived_id(parts: &[&str]) -> Uuid {
    let hash = digest(parts);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    Uuid::new_v8(bytes)
}

/// The UUIDv8 that `parts` always give, in the given slot.
pub fn derived_in(slot: Slot, parts: &[&str]) -> Uuid {
    slot.apply(derived_id(parts))
}

/// The bytes in hexadecimal, two small digits each.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().into()
}

/// The id of a stream of type `S`; `Id<Opportunity>` is not `Id<Case>`.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id<S> {
    uuid: Uuid,
    #[serde(skip)]
    stream: PhantomData<fn() -> S>,
}

impl<S> Id<S> {
    pub const fn new(uuid: Uuid) -> Id<S> {
        Id {
            uuid,
            stream: PhantomData,
        }
    }

    pub fn uuid(self) -> Uuid {
        self.uuid
    }

    pub fn slot(self) -> Slot {
        slot_of(self.uuid)
    }
}

impl<S> Clone for Id<S> {
    fn clone(&self) -> Id<S> {
        *self
    }
}

impl<S> Copy for Id<S> {}

impl<S> PartialEq for Id<S> {
    fn eq(&self, other: &Id<S>) -> bool {
        self.uuid == other.uuid
    }
}

impl<S> Eq for Id<S> {}

impl<S> PartialOrd for Id<S> {
    fn partial_cmp(&self, other: &Id<S>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<S> Ord for Id<S> {
    fn cmp(&self, other: &Id<S>) -> std::cmp::Ordering {
        self.uuid.cmp(&other.uuid)
    }
}

impl<S> Hash for Id<S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}

impl<S> fmt::Debug for Id<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.fmt(f)
    }
}

impl<S> fmt::Display for Id<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.fmt(f)
    }
}

impl<S> JsonSchema for Id<S> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Uuid::json_schema(generator)
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn an_id_routes_itself_whatever_the_number_of_shards() {
        let id = derived_in(Slot::new(4095), &["anything"]);
        assert_eq!(slot_of(id).number(), 4095);
        assert_eq!(slot_of(id).shard(8), 7);
        assert_eq!(id.get_version_num(), 8);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(derived_id(&["ab", "c"]), derived_id(&["a", "bc"]));
    }
}
