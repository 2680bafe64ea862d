//! Specs of the API: requests and responses over real shards on a log in memory.

mod bad_input;
mod causes;
mod commands;
mod description;
mod door;
mod identity;
mod limits;
mod peers;
mod queries;
mod references;
mod upsert;
mod world;
