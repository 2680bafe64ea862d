//! B10: everything of one customer beside `SELECT 1`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use async_trait::async_trait;
use infra::runtime::Parts;
use projections::{Group, ReadModel, Where};
use services::views::{Ask, Feeds, Queries};
use tokio_postgres::{Client, Statement};

use super::Bench;
use crate::history::{self, Kind};
use crate::load::{Load, Measured, closed_loop};
use crate::meters::Meters;
use crate::ours;
use crate::places;
use crate::projecting::{Source, Views, fold};
use crate::session::{Class, Contender, Session};
use crate::target::{Bound, Figure, Target};
use crate::workload;

pub struct CustomerPage;

const SHARDS: u16 = 8;
const CELL: &str = "one asker";
const MANY: &str = "of many customers";
const FEW: &str = "of few customers";
const SELECT_1: &str = "SELECT 1";
const CUSTOMERS: f64 = 1_000_000.0;
const CUSTOMERS_FEW: u64 = 10_000;

#[async_trait]
impl Bench for CustomerPage {
    fn id(&self) -> &'static str {
        "B10"
    }

    fn title(&self) -> &'static str {
        "A customer's page"
    }

    fn how(&self) -> &'static str {
        "One asker reads the whole timeline of customers in random order (three events each), as `GET /api/timeline?customer=…` does, \
         beside a prepared `SELECT 1` on a connection of its own. Read models in PostgreSQL."
    }

    fn targets(&self) -> Vec<Target> {
        let target = |against, bound| Target {
            cell: CELL.into(),
            ours: MANY,
            against,
            figure: Figure::P50,
            bound,
        };
        vec![target(SELECT_1, Bound::AtMost(2.5)), target(FEW, Bound::AtMost(1.3))]
    }

    async fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        let many = session.extent.pick((CUSTOMERS * session.extent.scale) as u64, 20_000);
        let few = session.extent.pick(CUSTOMERS_FEW, 200);
        session.note("customers", format!("{many} and {few}"));
        let client = places::connect(&session.places.postgres).await?;
        let statement = client.prepare("SELECT 1::bigint").await?;
        let mut contenders: Vec<Box<dyn Contender>> = vec![Box::new(SelectOne(Arc::new(client), statement))];
        for (name, customers) in [(FEW, few), (MANY, many)] {
            contenders.push(Box::new(pages(session, name, customers).await?));
        }
        let load = session.extent.load(1);
        session.cell(CELL, load, &mut contenders).await
    }
}

/// The journal of so many customers, folded and vacuumed.
async fn pages(session: &Session, name: &'static str, customers: u64) -> anyhow::Result<Pages> {
    let events = customers * 3;
    let (url, log) = history::shared(&session.places, SHARDS, Kind::Pages, events).await?;
    let source = Source {
        url,
        log,
        shards: SHARDS,
        group: Group::Journal,
        events,
    };
    let views = Views::fresh(&session.places, &source).await?;
    fold(&Feeds::new(Arc::clone(&source.log)), &views.store, &views.generation).await?;
    places::connect(&views.url)
        .await?
        .batch_execute("VACUUM ANALYZE")
        .await?;
    let settings = ours::settings(&source.url, &views.url)?;
    let parts = Parts::open_to_read(&settings, source.log).await?;
    Ok(Pages {
        name,
        customers,
        queries: parts.queries(),
        next: Arc::default(),
    })
}

struct Pages {
    name: &'static str,
    customers: u64,
    queries: Queries,
    next: Arc<AtomicU64>,
}

#[async_trait]
impl Contender for Pages {
    fn name(&self) -> String {
        self.name.into()
    }

    fn class(&self) -> Class {
        Class::None
    }

    async fn run(&mut self, load: Load, meters: &Meters) -> anyhow::Result<Measured> {
        let model = ReadModel::find("timeline").context("there is a timeline")?;
        let (queries, next, customers) = (self.queries.clone(), Arc::clone(&self.next), self.customers);
        closed_loop(load, meters, move |_| {
            let (queries, n) = (queries.clone(), next.fetch_add(1, Ordering::Relaxed));
            let customer = workload::customer_id("h", workload::scattered(n) % customers);
            async move {
                let mut question = queries.question();
                question.filters = vec![Where::parse(&format!("customer={customer}"))?];
                let answered = queries.ask(model, Ask::of(question)).await?;
                ensure!(
                    answered.answer.rows.len() == 3,
                    "a page has {} rows",
                    answered.answer.rows.len()
                );
                Ok(())
            }
        })
        .await
    }
}

struct SelectOne(Arc<Client>, Statement);

#[async_trait]
impl Contender for SelectOne {
    fn name(&self) -> String {
        SELECT_1.into()
    }

    fn class(&self) -> Class {
        Class::None
    }

    async fn run(&mut self, load: Load, meters: &Meters) -> anyhow::Result<Measured> {
        let (client, statement) = (Arc::clone(&self.0), self.1.clone());
        closed_loop(load, meters, move |_| {
            let (client, statement) = (Arc::clone(&client), statement.clone());
            async move {
                let row = client.query_one(&statement, &[]).await?;
                ensure!(row.get::<_, i64>(0) == 1, "one is not one");
                Ok(())
            }
        })
        .await
    }
}
