//! B7: the projector beside the bare upsert of its rows, and beside one transaction per event.

use std::sync::Arc;

use async_trait::async_trait;
use projections::Group;

use super::Bench;
use crate::bare_upsert::Transactions;
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
         `synchronous_commit=off` everywhere. Rows are counted after each run."
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
    let places = session.places.clone();
    let (folded, commits) = recorded(&places, &source, None).await?;
    let expected = counts(&folded, &commits).await?;
    session.note(&format!("{name}: transactions"), commits.len());
    let one_by_one = session.extent.pick(ONE_BY_ONE, ONE_BY_ONE_SHORT);
    let (naive_folded, naive) = recorded(&places, &source, Some(one_by_one / u64::from(SHARDS))).await?;
    let naive_expected = counts(&naive_folded, &naive).await?;
    let naive_events: u64 = one_by_one - u64::from(SHARDS) * 2;
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
        Box::new(BareUpsert {
            name: NAIVE,
            places,
            transactions: Arc::new(Transactions::of(&naive)),
            source,
            events: naive_events,
            expected: naive_expected,
        }),
    ];
    let load = session.extent.load(1);
    session.cell(name, load, &mut contenders).await?;
    session.check(&mut contenders).await
}
