//! Projectors at work: a group folded from its log into a database of its own.

use std::sync::{Arc, Mutex};

use anyhow::Context;
use async_trait::async_trait;
use infra::config::Use;
use projections::{Group, Table};
use services::log::EventLog;
use services::views::{Feeds, Generation, Projector, ReadStore, generation_for};

use crate::bare_upsert::{self, Connection, Transactions};
use crate::load::{Load, Measured};
use crate::meters::Meters;
use crate::ours;
use crate::places::Places;
use crate::recording::{OneByOne, RecordedCommit, Recording};
use crate::session::{Class, Contender};

/// A log with a history, and what is folded from it.
#[derive(Clone)]
pub struct Source {
    pub url: String,
    pub log: Arc<dyn EventLog>,
    pub shards: u16,
    pub group: Group,
    pub events: u64,
}

/// Views in a database of their own.
pub struct Views {
    pub url: String,
    pub store: Arc<dyn ReadStore>,
    pub generation: Generation,
}

impl Views {
    pub async fn fresh(places: &Places, source: &Source) -> anyhow::Result<Views> {
        let url = places.database("views").await?;
        let store = ours::settings(&source.url, &url)?.open_stores().await?.views;
        let generation = generation_for(store.as_ref(), source.group, source.shards).await?;
        Ok(Views { url, store, generation })
    }
}

/// Folds all shards side by side, from the first record to the end.
pub async fn fold(feeds: &Arc<Feeds>, store: &Arc<dyn ReadStore>, generation: &Generation) -> anyhow::Result<()> {
    let folds = (0..generation.shards).map(|shard| {
        let projector = Projector::new(Arc::clone(feeds), Arc::clone(store), generation.clone(), shard);
        // A task each, as the workers of a process have.
        tokio::spawn(async move { projector.catch_up(|_, _| ()).await })
    });
    for folded in futures::future::join_all(folds).await {
        folded?.map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

/// What the projector commits on this source: in the batches that it makes itself, or one event at a time up to `per_shard_max` of each shard.
pub async fn recorded(
    places: &Places,
    source: &Source,
    per_shard_max: Option<u64>,
) -> anyhow::Result<(Views, Vec<RecordedCommit>)> {
    let views = Views::fresh(places, source).await?;
    let recording = Arc::new(Recording::over(Arc::clone(&views.store)));
    let store: Arc<dyn ReadStore> = recording.clone();
    let log: Arc<dyn EventLog> = match per_shard_max {
        None => Arc::clone(&source.log),
        Some(end_max) => Arc::new(OneByOne {
            log: Arc::clone(&source.log),
            end_max,
            told: Mutex::default(),
        }),
    };
    fold(&Feeds::new(log), &store, &views.generation).await?;
    let commits = recording.take();
    bare_upsert::only_upserts(&commits)?;
    Ok((views, commits))
}

/// Our projector.
pub struct OurProjector {
    pub places: Places,
    pub source: Source,
    /// Rows of each table when it is right.
    pub expected: Vec<(&'static str, i64)>,
}

#[async_trait]
impl Contender for OurProjector {
    fn name(&self) -> String {
        "ours".into()
    }

    fn class(&self) -> Class {
        Class::None
    }

    async fn run(&mut self, _: Load, meters: &Meters) -> anyhow::Result<Measured> {
        let views = Views::fresh(&self.places, &self.source).await?;
        // As a process that was just started: with a log of its own, so that nothing is connected yet.
        let log = ours::settings(&self.source.url, &views.url)?.open_log(Use::Read)?;
        self.places.checkpoint().await?;
        let start = meters.read()?;
        fold(&Feeds::new(Arc::clone(&log)), &views.store, &views.generation).await?;
        let usage = meters.since(&start)?;
        let schema = schema(&views);
        for (table, expected) in &self.expected {
            let rows = bare_upsert::count(&views.url, &format!("{schema}.{}", bare_upsert::quoted(table))).await?;
            anyhow::ensure!(rows == *expected, "{table} has {rows} rows in place of {expected}");
        }
        drop(log);
        self.places.drop_database(&views.url).await?;
        Ok(Measured::job(self.source.events, usage))
    }
}

/// The same rows written and nothing else.
pub struct BareUpsert {
    pub name: &'static str,
    pub places: Places,
    pub transactions: Arc<Vec<Transactions>>,
    /// What the core would fold: it makes the tables that are copied.
    pub source: Source,
    pub events: u64,
    pub expected: Vec<(&'static str, i64)>,
}

impl BareUpsert {
    pub fn tables(&self) -> Vec<&'static Table> {
        let mut tables: Vec<&'static Table> = self.transactions.iter().flat_map(Transactions::tables).collect();
        tables.sort_by_key(|table| table.name);
        tables.dedup_by_key(|table| table.name);
        tables
    }
}

#[async_trait]
impl Contender for BareUpsert {
    fn name(&self) -> String {
        self.name.into()
    }

    fn class(&self) -> Class {
        Class::None
    }

    async fn run(&mut self, _: Load, meters: &Meters) -> anyhow::Result<Measured> {
        let tables = self.tables();
        let views = Views::fresh(&self.places, &self.source).await?;
        let (url, schema) = (views.url.clone(), schema(&views));
        let copies: Vec<_> = tables
            .iter()
            .map(|table| (*table, format!("{schema}.{}", bare_upsert::quoted(table.name))))
            .collect();
        bare_upsert::create(&url, &copies).await?;
        let mut connections = Vec::new();
        for _ in self.transactions.iter() {
            connections.push(Connection::open(&url, &tables).await?);
        }
        self.places.checkpoint().await?;
        let start = meters.read()?;
        let writes = connections.into_iter().enumerate().map(|(i, mut connection)| {
            let transactions = Arc::clone(&self.transactions);
            tokio::spawn(async move { transactions[i].write(&mut connection).await })
        });
        for written in futures::future::join_all(writes).await {
            written??;
        }
        let usage = meters.since(&start)?;
        for (table, expected) in &self.expected {
            let rows = bare_upsert::count(&url, &format!("public.{}", bare_upsert::quoted(table))).await?;
            anyhow::ensure!(rows == *expected, "{table} has {rows} rows in place of {expected}");
        }
        self.places.drop_database(&url).await?;
        Ok(Measured::job(self.events, usage))
    }
}

/// Rows of each table that the projector wrote.
pub async fn counts(views: &Views, commits: &[RecordedCommit]) -> anyhow::Result<Vec<(&'static str, i64)>> {
    let mut tables: Vec<&'static str> = commits
        .iter()
        .flat_map(|commit| commit.changes.iter().map(|change| change.table.name))
        .collect();
    tables.sort_unstable();
    tables.dedup();
    let schema = schema(views);
    let mut counts = Vec::new();
    for table in tables {
        let rows = bare_upsert::count(&views.url, &format!("{schema}.{}", bare_upsert::quoted(table))).await;
        counts.push((table, rows.with_context(|| format!("the table {table}"))?));
    }
    Ok(counts)
}

pub fn schema(views: &Views) -> String {
    format!("crm_{}_g{}", views.generation.group.name(), views.generation.number)
}
