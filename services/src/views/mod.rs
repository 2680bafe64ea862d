//! Read models: the port of their store, and the projector that keeps them.

mod port;

pub use port::{Generation, GenerationStatus, ReadStore, Snapshot, ViewError};
