//! B7: the projector beside the bare upsert of its rows, and beside one transaction per event.

use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use projections::Group;

use super::Bench;
use crate::bare_upsert::Transactions;
use crate::debezium::Debezium;
use crate::history::{self, Kind};
use crate::ours;
use crate::projecting::{BareUpsert, OurProjector, Source, counts, recorded};
use crate::session::{Contender, Session};
use crate::target::{Bound, Figure, Target};

pub struct ProjectorRate;

const SHARDS: u16 = 8;
/// Events of a history, and of those how many go one by one: enough for seconds.
const EVENTS: u64 = 400_000;
const EVENTS_SHORT: u64 = 40_000;
const ONE_BY_ONE: u64 = 16_000;
const ONE_BY_ONE_SHORT: u64 = 1_600;

/// Tasks that the peer is tried with. With one per partition it stood still here, its consumers waiting for each other.
const TASKS: [u32; 3] = [1, 2, 4];

const BARE: &str = "bare upsert";
const NAIVE: &str = "one transaction per event";

const ANALYTICS: &str = "analytics: receipts of a shop";
const CUSTOMERS: &str = "sales: customers, one table";

#[async_trait]
impl Bench for ProjectorRate {
    fn id(&self) -> &'static str {
        "B7"
    }

    fn title(&self) -> &'static str {
        "The projector"
    }

    fn how(&self) -> &'static str {
        "A history on Kafka (8 shards) is folded from its first record to its end into an empty PostgreSQL database, all shards side by side. \
         `bare upsert` writes the very rows that the projector wrote, in the same transactions over as many connections, as prepared UNNEST \
         statements whose arrays are made before the clock starts: no log, no JSON, no fold, no look-ups. `one transaction per event` is the \
         same for the transactions of a projector that takes one event at a time: an upsert a row and the offset. \
         `synchronous_commit=off` everywhere. Rows are counted after each run. P3 is Debezium's JDBC sink 3.5 in a Kafka Connect worker 4.2 on the same topic: upserts by UNNEST, batches of 5,000, reduction buffer on; it fills the columns that it can from the event (`kind`, `name`, `country`, `locale` of our fourteen), and its clock starts when a quarter of the rows is there."
    }

    fn targets(&self) -> Vec<Target> {
        let mut targets = vec![];
        for cell in [ANALYTICS, CUSTOMERS] {
            let target = |against, figure, bound| Target {
                cell: cell.into(),
                ours: "ours",
                against,
                figure,
                bound,
            };
            targets.push(target(BARE, Figure::Rate, Bound::AtLeast(0.85)));
            targets.push(target(NAIVE, Figure::Rate, Bound::AtLeast(8.0)));
            targets.push(target(BARE, Figure::Cpu, Bound::Shown));
        }
        targets.push(Target {
            cell: CUSTOMERS.into(),
            ours: "ours",
            against: "P3 Debezium JDBC sink",
            figure: Figure::Rate,
            bound: Bound::AtLeast(5.0),
        });
        targets
    }

    async fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        cell(session, ANALYTICS, Group::Analytics, Kind::Mixed).await?;
        cell(session, CUSTOMERS, Group::Sales, Kind::Customers).await
    }
}

async fn cell(session: &mut Session, name: &str, group: Group, kind: Kind) -> anyhow::Result<()> {
    let events = session.extent.pick(EVENTS, EVENTS_SHORT);
    let views = session.places.database("b7").await?;
    let url = session.places.topic("b7");
    let (_, log) = ours::create_log(&url, &views, SHARDS).await?;
    history::write(&log, SHARDS, kind, events).await?;
    let source = Source {
        url,
        log,
        shards: SHARDS,
        group,
        events,
    };
    let peer_source = source.clone();
    let places = session.places.clone();
    let (folded, commits) = recorded(&places, &source, None).await?;
    let expected = counts(&folded, &commits).await?;
    session.note(&format!("{name}: transactions"), commits.len());
    let mut contenders: Vec<Box<dyn Contender>> = vec![
        Box::new(BareUpsert {
            name: BARE,
            places: places.clone(),
            transactions: Arc::new(Transactions::of(&commits)),
            source: source.clone(),
            events,
            expected: expected.clone(),
        }),
        Box::new(OurProjector {
            places: places.clone(),
            source: source.clone(),
            expected,
        }),
    ];
    if !session.extent.for_floor {
        contenders.push(Box::new(one_by_one(session, &source).await?));
    }
    if kind == Kind::Customers && !session.extent.for_floor {
        contenders.push(Box::new(debezium(session, &peer_source, events).await?));
    }
    let load = session.extent.load(1);
    session.cell(name, load, &mut contenders).await?;
    session.check(&mut contenders).await
}

/// The transactions of a projector that takes one event at a time.
async fn one_by_one(session: &Session, source: &Source) -> anyhow::Result<BareUpsert> {
    let events = session.extent.pick(ONE_BY_ONE, ONE_BY_ONE_SHORT);
    let (folded, commits) = recorded(&session.places, source, Some(events / u64::from(SHARDS))).await?;
    Ok(BareUpsert {
        name: NAIVE,
        places: session.places.clone(),
        transactions: Arc::new(Transactions::of(&commits)),
        source: source.clone(),
        events: events - u64::from(SHARDS) * 2,
        expected: counts(&folded, &commits).await?,
    })
}

/// The peer with the number of tasks that was fastest in a trial before.
async fn debezium(session: &mut Session, source: &Source, events: u64) -> anyhow::Result<Debezium> {
    let (_, topic) = source.url.rsplit_once('/').context("the URL names a topic")?;
    let mut peer = Debezium {
        places: session.places.clone(),
        jars: session.places.debezium.clone(),
        topic: topic.to_owned(),
        events,
        tasks: 1,
        last: history::last_customers(source.shards, events),
    };
    let (meters, load) = (session.places.meters(), session.extent.load(1));
    let mut best = (0.0, 1);
    for tasks in session.extent.pick(TASKS.to_vec(), vec![2]) {
        peer.tasks = tasks;
        let measured = peer.run(load, &meters).await?;
        let rate = measured.ops as f64 / measured.usage.seconds;
        eprintln!("   P3 with {tasks} tasks: {rate:.0}/s");
        if rate > best.0 {
            best = (rate, tasks);
        }
    }
    peer.tasks = best.1;
    session.note("tasks of P3", best.1);
    Ok(peer)
}
