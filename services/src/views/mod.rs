//! Read models: the port of their store, and the projector that keeps them.

mod feed;
mod keys;
mod port;
mod projector;
mod queries;
mod waiting;
mod workers;

pub use feed::{BATCH_RECORDS_MAX, Feeds, REMEMBERED_BYTES_MAX, REMEMBERED_RECORDS_MAX};
pub use keys::{Named, named_by_keys};
pub use port::{Generation, GenerationStatus, ReadStore, Snapshot, ViewError, logs_of};
pub use projector::{CATCHING_UP_BYTES_MAX, CATCHING_UP_ROWS_MAX, Progress, Projector, generation_for};
pub use queries::{
    Answered, Ask, AskError, CHECKSUM_ROWS_MAX, LARGE_QUESTIONS_MAX, QUESTIONS_MAX, Queries, ROWS_READ_MAX, Rest,
};
pub use waiting::WAITING_MAX;
pub use workers::{Workers, rebuild};
