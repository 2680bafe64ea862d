//! B5: the rate of commands on a log with ten million events beside an empty one.

use std::sync::Arc;

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
const CELL: &str = "64 clients, new streams";

#[async_trait]
impl Bench for FlatInGrowth {
    fn id(&self) -> &'static str {
        "B5"
    }

    fn title(&self) -> &'static str {
        "Flat in growth"
    }

    fn how(&self) -> &'static str {
        "64 closed-loop clients record receipts, whose streams have random ids. One core runs on \
         a log with a long history, all of its states in PostgreSQL; the other began on an empty log. Both on Kafka, 8 shards."
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target {
            cell: CELL.into(),
            ours: "after the history",
            against: "from empty",
            figure: Figure::Rate,
            bound: Bound::AtLeast(0.9),
        }]
    }

    async fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        let events = session.extent.events();
        let (log, _) = history::shared(&session.places, SHARDS, Kind::Mixed, events).await?;
        session.note("events of the history", events);
        let places = session.places.clone();
        let begun = std::time::Instant::now();
        let full = Ours::start(&log, &places.database("b5_full").await?, SHARDS, ShardConfig::default()).await?;
        session.note("seconds until all states were rebuilt", begun.elapsed().as_secs());
        let empty = Ours::start(
            &places.topic("b5.empty"),
            &places.database("b5_empty").await?,
            SHARDS,
            ShardConfig::default(),
        )
        .await?;
        let (full, empty) = (Arc::new(full), Arc::new(empty));
        full.count_from_here().await?;
        let mut contenders: Vec<Box<dyn Contender>> = vec![
            Box::new(Sender::new(&empty, Sending::Receipts, Class::D0).named("from empty")),
            Box::new(Sender::new(&full, Sending::Receipts, Class::D0).named("after the history")),
        ];
        let load = session.extent.load(64);
        session.cell(CELL, load, &mut contenders).await?;
        session.check(&mut contenders).await?;
        drop(contenders);
        for ours in [full, empty] {
            if let Ok(ours) = Arc::try_unwrap(ours) {
                ours.stop().await;
            }
        }
        Ok(())
    }
}
