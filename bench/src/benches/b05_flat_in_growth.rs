//! B5: the rate of commands on a log with ten million events beside one that began empty, or has few.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use services::shard::ShardConfig;

use super::Bench;
use crate::history::{self, Kind};
use crate::ours::Ours;
use crate::sender::{Sender, Sending};
use crate::session::{Class, Contender, Session};
use crate::target::{Bound, Figure, Target};

pub struct FlatInGrowth;

const SHARDS: u16 = 8;
const NEW: &str = "64 clients, new streams";
const OLD: &str = "64 clients, old streams";
const EMPTY: &str = "from empty";
const FEW: &str = "after few events";
const FULL: &str = "after the history";
/// Few events, and the states that a shard may then keep in memory: a thirtieth of those that commands go to.
const FEW_EVENTS: u64 = 400_000;
const FEW_STATES: usize = 80;

#[async_trait]
impl Bench for FlatInGrowth {
    fn id(&self) -> &'static str {
        "B5"
    }

    fn title(&self) -> &'static str {
        "Flat in growth"
    }

    fn how(&self) -> &'static str {
        "64 closed-loop clients, all on Kafka with 8 shards, states in PostgreSQL. New streams: they record receipts, whose streams have \
         random ids; one core runs on a log with a long history, the other began on an empty log. Old streams: they correct interactions \
         at random that the history has; a shard may keep 80 states in memory, so that nearly every command has to load its own, with the \
         long history beside one of 400,000 events. Each core first reads which streams and commands are stored, as it does once after a \
         take-over."
    }

    fn targets(&self) -> Vec<Target> {
        let target = |cell: &str, against| Target {
            cell: cell.into(),
            ours: FULL,
            against,
            figure: Figure::Rate,
            bound: Bound::AtLeast(0.9),
        };
        vec![target(NEW, EMPTY), target(OLD, FEW)]
    }

    async fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        let events = session.extent.events();
        let (log, _) = history::shared(&session.places, SHARDS, Kind::Mixed, events).await?;
        session.note("events of the history", events);
        let views = session.places.database("b5_full").await?;
        let begun = Instant::now();
        let full = Ours::start(&log, &views, SHARDS, ShardConfig::default()).await?;
        session.note("seconds until all states were rebuilt", begun.elapsed().as_secs());
        let empty = (
            session.places.topic("b5.empty"),
            session.places.database("b5_empty").await?,
        );
        let empty = Ours::start(&empty.0, &empty.1, SHARDS, ShardConfig::default()).await?;
        let begins = |_| Sending::Receipts;
        side_by_side(session, NEW, [(EMPTY, empty, 0), (FULL, full, 0)], begins).await?;

        let few_events = FEW_EVENTS.min(events / 4);
        let (few_log, _) = history::shared(&session.places, SHARDS, Kind::Mixed, few_events).await?;
        let few_views = session.places.database("b5_few").await?;
        // First with room, so that the states are rebuilt in one go.
        let few = Ours::start(&few_log, &few_views, SHARDS, ShardConfig::default()).await?;
        few.stop().await;
        let forgetful = ShardConfig {
            cached_streams_max: FEW_STATES,
            ..ShardConfig::default()
        };
        let few = Ours::start(&few_log, &few_views, SHARDS, forgetful.clone()).await?;
        let full = Ours::start(&log, &views, SHARDS, forgetful).await?;
        let streams = |events| Kind::Mixed.interactions(events);
        let corrects = |streams| Sending::OldCorrections { streams };
        let contenders = [(FEW, few, streams(few_events)), (FULL, full, streams(events))];
        side_by_side(session, OLD, contenders, corrects).await
    }
}

/// Measures two cores, each with so many streams to send to, and stops them.
async fn side_by_side(
    session: &mut Session,
    cell: &str,
    cores: [(&'static str, Ours, u64); 2],
    sending: fn(u64) -> Sending,
) -> anyhow::Result<()> {
    let mut running = vec![];
    let mut contenders: Vec<Box<dyn Contender>> = vec![];
    for (name, ours, streams) in cores {
        let begun = Instant::now();
        ours.wait_until_settled().await?;
        session.note(
            &format!("seconds until all that is stored was listed, {cell}, {name}"),
            begun.elapsed().as_secs(),
        );
        ours.count_from_here().await?;
        let ours = Arc::new(ours);
        let mut sender = Sender::new(&ours, sending(streams), Class::D0).named(name);
        sender.prepare().await?;
        contenders.push(Box::new(sender));
        running.push(ours);
    }
    let load = session.extent.load(64);
    session.cell(cell, load, &mut contenders).await?;
    session.check(&mut contenders).await?;
    drop(contenders);
    for ours in running {
        if let Ok(ours) = Arc::try_unwrap(ours) {
            ours.stop().await;
        }
    }
    Ok(())
}
