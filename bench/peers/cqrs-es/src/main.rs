//! Peer P1: cqrs-es 0.5 with postgres-es 0.5. The aggregate decides with the domain's own rules, and its events are the domain's.
//!
//! `cqrs-es-peer <URL> [replay]`. Settings of a run: `pool`, the size of the connection pool. With `replay` an operation is the replay of the
//! events of one stream into a view, as `QueryReplay` does it; the streams are those that runs before it wrote.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent, EventEnvelope, View};
use domain::purchase::{self, Purchase, purchase_id};
use domain::{Calendar, Companions, Moment, Stream, StreamRef};
use jiff::Timestamp;
use postgres_es::{PostgresCqrs, PostgresEventRepository, PostgresViewRepository, postgres_cqrs};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Pool, Postgres};

#[path = "../../../src/workload.rs"]
#[allow(dead_code, reason = "the peer sends receipts only")]
mod workload;

/// Columns and keys as the library's own script makes them, without the tables that only views and snapshots need.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS events (
        aggregate_type text NOT NULL, aggregate_id text NOT NULL, sequence bigint CHECK (sequence >= 0) NOT NULL,
        event_type text NOT NULL, event_version text NOT NULL, payload json NOT NULL, metadata json NOT NULL,
        PRIMARY KEY (aggregate_type, aggregate_id, sequence));
    CREATE TABLE IF NOT EXISTS purchase_view (
        view_id text NOT NULL, version bigint CHECK (version >= 0) NOT NULL, payload json NOT NULL, PRIMARY KEY (view_id));";

/// The domain's purchase as the framework wants an aggregate.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Receipt(purchase::State);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Event(purchase::Event);

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self.0 {
            purchase::Event::Recorded { .. } => "recorded",
            purchase::Event::CustomerAttached { .. } => "customer-attached",
            purchase::Event::Voided { .. } => "voided",
            purchase::Event::Corrected { .. } => "corrected",
        }
        .into()
    }

    fn event_version(&self) -> String {
        "1".into()
    }
}

struct Nobody;

impl Companions for Nobody {
    fn find(&self, _: StreamRef) -> Option<&dyn std::any::Any> {
        None
    }
}

impl Aggregate for Receipt {
    const TYPE: &'static str = "purchase";
    type Command = purchase::Command;
    type Event = Event;
    type Error = purchase::Rejection;
    type Services = ();

    async fn handle(&mut self, command: Self::Command, (): &(), sink: &EventSink<Self>) -> Result<(), Self::Error> {
        let id = match Purchase::home(&command) {
            domain::Home::Exactly(id) => id,
            _ => unreachable!("the peer sends receipts only"),
        };
        let now = Timestamp::now();
        let decided = Purchase::decide(
            &self.0,
            command,
            &Moment::new(id, now, now, &Calendar::taipei(), &Nobody),
        )?;
        for event in decided {
            sink.write(Event(event), self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        self.0 = Purchase::evolve(std::mem::take(&mut self.0), &event.0, Timestamp::UNIX_EPOCH);
    }
}

/// What a replay builds: what our read model of receipts shows of one.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Shown {
    total_minor: i64,
    lines: usize,
    store: Option<String>,
}

impl View<Receipt> for Shown {
    fn update(&mut self, event: &EventEnvelope<Receipt>) {
        if let purchase::Event::Recorded {
            total_minor,
            lines,
            store,
            ..
        } = &event.payload.0
        {
            self.total_minor = *total_minor;
            self.lines = lines.len();
            self.store = store.clone();
        }
    }
}

type ShownQuery = cqrs_es::persist::GenericQuery<PostgresViewRepository<Shown, Receipt>, Shown, Receipt>;
type Replay = cqrs_es::persist::QueryReplay<PostgresEventRepository, ShownQuery, Receipt>;

/// The framework over pools of several sizes, made when they are first asked for.
struct Frameworks {
    url: String,
    pools: HashMap<u32, (Pool<Postgres>, Arc<PostgresCqrs<Receipt>>)>,
}

impl Frameworks {
    async fn of(&mut self, size: u32) -> anyhow::Result<(Pool<Postgres>, Arc<PostgresCqrs<Receipt>>)> {
        if !self.pools.contains_key(&size) {
            let pool = PgPoolOptions::new()
                .max_connections(size)
                .min_connections(size)
                .acquire_timeout(std::time::Duration::from_secs(60))
                .connect(&self.url)
                .await?;
            let framework = Arc::new(postgres_cqrs::<Receipt>(pool.clone(), vec![], ()));
            self.pools.insert(size, (pool, framework));
        }
        Ok(self.pools[&size].clone())
    }
}

fn stream_of(n: u64) -> String {
    let command = workload::receipt("p1", n, None);
    let purchase::Command::Record {
        source,
        store,
        till,
        receipt,
        business_date,
        ..
    } = command
    else {
        unreachable!("a receipt is recorded")
    };
    purchase_id(&source, store.as_deref(), till.as_deref(), business_date, &receipt).to_string()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context("usage: cqrs-es-peer <URL> [replay]")?;
    let replays = arguments.next().as_deref() == Some("replay");
    let pool: Pool<Postgres> = PgPoolOptions::new().max_connections(1).connect(&url).await?;
    sqlx::raw_sql(TABLES).execute(&pool).await?;
    let mut frameworks = Frameworks {
        url,
        pools: HashMap::new(),
    };
    let next = Arc::new(AtomicU64::new(1));
    let replayed = Arc::new(AtomicU64::new(1));
    let written = Arc::clone(&next);
    let count_pool = pool.clone();
    let count = move || {
        let pool = count_pool.clone();
        async move {
            let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM events").fetch_one(&pool).await?;
            anyhow::Ok(count.cast_unsigned())
        }
    };
    let prepare = async |run: protocol::Run| {
        let size = run.settings.get("pool").and_then(|size| size.as_u64()).unwrap_or(16) as u32;
        let is_replay = replays && run.settings.get("replay").and_then(|is| is.as_bool()).unwrap_or(false);
        let (pool, framework) = frameworks.of(size).await?;
        let (next, replayed, written) = (Arc::clone(&next), Arc::clone(&replayed), Arc::clone(&written));
        let views = Arc::new(PostgresViewRepository::<Shown, Receipt>::new(
            "purchase_view",
            pool.clone(),
        ));
        Ok(move || {
            let (framework, pool, views) = (Arc::clone(&framework), pool.clone(), Arc::clone(&views));
            let (next, replayed, written) = (Arc::clone(&next), Arc::clone(&replayed), Arc::clone(&written));
            async move {
                if is_replay {
                    // Round and round over those that were surely written.
                    let known = written.load(Ordering::Relaxed) / 2;
                    anyhow::ensure!(known > 0, "there are no streams to replay");
                    let n = 1 + replayed.fetch_add(1, Ordering::Relaxed) % known;
                    let replay: Replay = Replay::new(PostgresEventRepository::new(pool), ShownQuery::new(views));
                    return Ok(replay.replay(&stream_of(n)).await?);
                }
                let n = next.fetch_add(1, Ordering::Relaxed);
                Ok(framework
                    .execute(&stream_of(n), workload::receipt("p1", n, None))
                    .await?)
            }
        })
    };
    protocol::serve(prepare, count).await
}
