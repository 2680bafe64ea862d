//! The storage backends, configuration, telemetry, and the program `crm`.

pub mod cli;
pub mod config;
pub mod demo;
pub(crate) mod files;
pub mod import;
mod lines;
pub mod log;
pub mod membership;
pub mod peers;
pub(crate) mod postgres;
pub mod runtime;
pub mod secrets;
pub mod server;
pub mod sources;
pub mod states;
pub mod telemetry;
pub mod views;
