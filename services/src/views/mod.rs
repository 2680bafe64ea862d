//! Read models: the port of their store, and the projector that keeps them.

mod port;
mod projector;
mod queries;
mod workers;

pub use port::{Generation, GenerationStatus, ReadStore, Snapshot, ViewError};
pub use projector::{BATCH_RECORDS_MAX, Progress, Projector, generation_for};
pub use queries::{Answered, Ask, AskError, Queries};
pub use workers::{Workers, rebuild};
