//! The log: the port that backends implement, the form of a record, and the protocol that says which records count.

mod audit;
#[cfg(test)]
mod counted;
mod create;
mod envelope;
mod judge;
mod memory;
mod owner;
mod port;

pub use audit::{Audit, audit};
#[cfg(test)]
pub use counted::Counted;
pub use create::{NewLog, Opened, create, open};
pub use envelope::{Claim, Envelope, Foreign, LogCreated, Meaning, Quarantine, StoredEvent};
pub use judge::{Checkpoint, Commit, Judge, Judgement};
pub use memory::{Fault, MemoryLog};
pub use owner::last_claim;
pub use port::{AppendError, EventLog, LogError, LogReader, LogWriter, Record};
