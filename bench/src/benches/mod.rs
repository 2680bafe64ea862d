//! The benchmarks, one file each.

mod b01_kafka_acks;
mod b02_sqlite_acks;
mod b03_postgres_acks;
mod b04_flat_in_history;
mod b05_flat_in_growth;
mod b06_http;
mod b07_projector;
mod b08_rebuild;
mod b09_freshness;
mod b10_customer_page;
pub mod b11_memory;
mod b12_overload;
mod b13_take_over;
mod b14_umadb;

use async_trait::async_trait;

use crate::session::Session;
use crate::target::Target;

/// A benchmark: what it asks, what it should come to, and how it is made.
#[async_trait]
pub trait Bench: Sync {
    /// `B1`
    fn id(&self) -> &'static str;

    fn title(&self) -> &'static str;

    /// How it is measured: for the report.
    fn how(&self) -> &'static str;

    fn targets(&self) -> Vec<Target>;

    async fn run(&self, session: &mut Session) -> anyhow::Result<()>;
}

pub static ALL: &[&dyn Bench] = &[
    &b01_kafka_acks::KafkaAcks,
    &b02_sqlite_acks::SqliteAcks,
    &b03_postgres_acks::PostgresAcks,
    &b04_flat_in_history::FlatInHistory,
    &b05_flat_in_growth::FlatInGrowth,
    &b06_http::HttpCommands,
    &b07_projector::ProjectorRate,
    &b08_rebuild::Rebuild,
    &b09_freshness::Freshness,
    &b10_customer_page::CustomerPage,
    &b11_memory::Memory,
    &b12_overload::Overload,
    &b13_take_over::TakeOver,
    &b14_umadb::Umadb,
];
