//! What runs the domain: ports, the log protocol, the shard that decides, the projector that shows, and the HTTP API.
//!
//! No driver is known here: the backends of the ports are in `infra`, a memory log and store for specs are beside the ports.

mod bugs;
pub mod clock;
pub mod commands;
pub mod cqrs;
pub mod http;
pub mod log;
pub mod routing;
pub mod shard;
#[cfg(test)]
mod simulation;
pub mod states;
pub mod strict_json;
pub mod views;
pub mod watch;
pub mod why;
