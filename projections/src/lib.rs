//! What the CRM shows: one file per read model.
//!
//! A read model is a value ([`ReadModel`]): a name, a version, tables, a pure function from an event to rows, and a pure plan for
//! its query. Nothing here does I/O, is async, reads a clock or throws dice. The engine in `services` runs it, and the
//! stores in `infra` make schema, loads and upserts from the table declarations.

#[cfg(test)]
mod agree;
mod kernel;
#[cfg(test)]
mod present;
#[cfg(test)]
mod zones;

pub mod backlog;
pub mod case_intervals;
pub mod cases;
pub mod cohort_retention;
pub mod customers;
pub mod dangling;
pub mod deals;
pub mod equipment;
pub mod equipment_history;
pub mod external_keys;
pub mod forecast;
pub mod inspections;
pub mod jobs;
pub mod leads;
pub mod loyalty_balance;
pub mod loyalty_liability;
pub mod pipeline;
pub mod pipeline_daily;
pub mod pipeline_flow;
pub mod purchases;
pub mod rfm;
pub mod sales_by_month;
pub mod stage_visits;
pub mod timeline;
pub mod win_loss;
pub mod win_rate;

pub use kernel::*;

/// Every read model there is.
pub static READ_MODELS: &[&ReadModel] = &[
    &customers::MODEL,
    &external_keys::MODEL,
    &leads::MODEL,
    &pipeline::MODEL,
    &pipeline_daily::MODEL,
    &pipeline_flow::MODEL,
    &stage_visits::MODEL,
    &forecast::MODEL,
    &win_loss::MODEL,
    &win_rate::MODEL,
    &cases::MODEL,
    &case_intervals::MODEL,
    &backlog::MODEL,
    &equipment::MODEL,
    &equipment_history::MODEL,
    &inspections::MODEL,
    &jobs::MODEL,
    &timeline::MODEL,
    &dangling::MODEL,
    &purchases::MODEL,
    &purchases::RETURNS_TO_CHECK,
    &sales_by_month::MODEL,
    &sales_by_month::BY_PRODUCT,
    &rfm::MODEL,
    &cohort_retention::MODEL,
    &loyalty_balance::MODEL,
    &loyalty_liability::MODEL,
];
