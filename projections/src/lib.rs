//! What the CRM shows: one file per read model.
//!
//! A read model is a value ([`ReadModel`]): a name, a version, tables, a pure function from an event to rows, and a pure plan for
//! its query. Nothing here does I/O, is async, reads a clock or throws dice. The engine in `services` runs it, and the
//! stores in `infra` make schema, loads and upserts from the table declarations.

mod kernel;

pub mod customers;

pub use kernel::*;

/// Every read model there is.
pub static READ_MODELS: &[&ReadModel] = &[&customers::MODEL];
