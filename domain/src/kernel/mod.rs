//! What every stream stands on: ids that route themselves and what they are made of, money, personal data, and the shape of a stream.

mod calendar;
mod day;
mod decimal;
mod history;
mod id;
mod identity;
mod money;
mod personal;
mod recorded;
pub mod spec;
mod stream;
mod streams;
mod text;
mod timed;
mod wire;

pub use calendar::{Calendar, UnknownTimeZone};
pub use day::{BadDay, DAY_MAX, DAY_MIN, at_the_door, parse_day, time_within};
pub use decimal::exact_decimal;
pub use history::{Card, Differing, History, STEPS_MAX, Step, in_sequence, same_beginning};
pub use id::{Id, SLOTS, Slot, derived_id, derived_in, hex, slot_of};
pub use identity::{
    ExternalKey, IDEMPOTENCY_KEY_MAX, Identity, command_id_from_key, command_id_within, id_beside, id_from_command,
    id_from_key, id_from_parts,
};
pub use money::{Currency, MINOR_MAX, Money, MoneyError};
pub use personal::Personal;
pub use recorded::{Actor, Position, Recorded};
pub use stream::{Companion, Companions, Home, Moment, Stream, StreamRef, UPSERT_REASON};
pub use text::{
    BadText, TEXT_BYTES_MAX, is_blank, key_pattern, normalise_texts, normalised, text_schema, tidy_key, tidy_texts,
};
pub use timed::{SAYINGS_MAX, Saying, Timed};
pub use wire::{
    CommandError, EventType, UnreadableEvent, command_from_json, command_to_json, decode_event, encode_event, variants,
};
