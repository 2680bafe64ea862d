//! The shard: one task that owns one partition of the log, decides commands in order, and acks what is durable.
//!
//! A command goes: admitted? → queue → known id? → states (cache, else one look-up per batch) → `decide` → the batch that is appended
//! next → offsets contiguous? → ack. While one batch is on its way the next one is being decided.

mod admission;
mod assignment;
mod batch;
mod cache;
mod config;
mod handle;
mod inventory;
mod rehearsal;
mod request;
mod seen;
mod serving;
#[cfg(test)]
pub mod specs;
mod takeover;
mod task;

pub use assignment::{Assignment, Wanted};
pub use batch::Elsewhere;
pub use cache::{CLOCK_SKEW_MAX, hash_of, id_made_at, made_at};
pub use config::{ShardConfig, ShardParts};
pub use handle::{Lane, ShardHandle, ShardStatus};
pub use rehearsal::{elsewhere_of, rehearse, streams_of};
pub use request::{
    Ack, Action, Failure, Message, Peeked, Request, Step, TRACE_ID_CHARACTERS_MAX, Who, is_trace_id, is_traceparent,
};
pub use takeover::{
    TakeOverError, find_quarantine, fingerprint_at, judge_or_step_over, read_creation, resume, step_over,
};
pub use task::{PANICKED_MAX, PANICS_MAX, spawn};
