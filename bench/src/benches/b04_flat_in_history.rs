//! B4: a command on a stream with ten thousand events beside one on a stream with ten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use domain::StreamRef;
use services::shard::ShardConfig;

use super::Bench;
use crate::load::{Load, Measured, closed_loop};
use crate::meters::Meters;
use crate::ours::{self, Ours};
use crate::session::{Class, Contender, Session};
use crate::target::{Bound, Figure, Target};
use crate::workload;

pub struct FlatInHistory;

/// Streams of each length; the client goes through them in turn.
const STREAMS: u64 = 20;
const LONG: u64 = 10_000;
const LONG_SHORT: u64 = 500;
const BRIEF: u64 = 10;

const LONG_NAME: &str = "10,000 events";
const BRIEF_NAME: &str = "10 events";

#[async_trait]
impl Bench for FlatInHistory {
    fn id(&self) -> &'static str {
        "B4"
    }

    fn title(&self) -> &'static str {
        "Flat in the length of a stream"
    }

    fn how(&self) -> &'static str {
        "One client corrects 20 interactions in turn that have 10,000 events each, or 20 that have 10; log on Kafka, one shard, states in \
         PostgreSQL. Hot: the states are in memory. Evicted: the shard may keep one state and saves each at once, so that every command \
         has to load its state."
    }

    fn targets(&self) -> Vec<Target> {
        let target = |cell: &str| Target {
            cell: cell.into(),
            ours: LONG_NAME,
            against: BRIEF_NAME,
            figure: Figure::P50,
            bound: Bound::AtMost(1.2),
        };
        vec![target("hot"), target("evicted")]
    }

    async fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        let nothing_kept = ShardConfig {
            cached_streams_max: 1,
            save_at: 1,
            ..ShardConfig::default()
        };
        for (cell, config) in [("hot", ShardConfig::default()), ("evicted", nothing_kept)] {
            let places = &session.places;
            let (log, views) = (places.topic("b4"), places.database("b4").await?);
            let ours = Ours::start(&log, &views, 1, ShardConfig::default()).await?;
            for (run, length) in [("long", session.extent.pick(LONG, LONG_SHORT)), ("brief", BRIEF)] {
                ours.execute_all(ours::customers(run, STREAMS), 64).await?;
                ours.execute_all(ours::contacts(run, STREAMS), 64).await?;
                let streams: Vec<StreamRef> = (0..STREAMS).map(|n| ours::interaction(run, n)).collect();
                let mut corrections = Vec::new();
                for n in 1..length {
                    corrections.extend(streams.iter().map(|stream| (*stream, workload::correction(n).into())));
                }
                ours.execute_all(corrections.into_iter(), 256).await?;
            }
            ours.check().await?;
            ours.stop().await;
            // A process of its own, as it were: what is in memory is what its settings keep.
            let ours = Arc::new(Ours::start(&log, &views, 1, config).await?);
            ours.count_from_here().await?;
            let mut contenders: Vec<Box<dyn Contender>> = vec![
                Box::new(OneStreamAfterAnother::new(&ours, BRIEF_NAME, "brief")),
                Box::new(OneStreamAfterAnother::new(&ours, LONG_NAME, "long")),
            ];
            let load = session.extent.load(1);
            session.cell(cell, load, &mut contenders).await?;
            drop(contenders);
            ours.check().await?;
            if let Ok(ours) = Arc::try_unwrap(ours) {
                ours.stop().await;
            }
        }
        Ok(())
    }
}

struct OneStreamAfterAnother {
    ours: Arc<Ours>,
    name: &'static str,
    streams: Arc<Vec<StreamRef>>,
    next: Arc<AtomicU64>,
}

impl OneStreamAfterAnother {
    fn new(ours: &Arc<Ours>, name: &'static str, run: &str) -> OneStreamAfterAnother {
        OneStreamAfterAnother {
            ours: Arc::clone(ours),
            name,
            streams: Arc::new((0..STREAMS).map(|n| ours::interaction(run, n)).collect()),
            next: Arc::new(AtomicU64::new(1_000_000)),
        }
    }
}

#[async_trait]
impl Contender for OneStreamAfterAnother {
    fn name(&self) -> String {
        self.name.into()
    }

    fn class(&self) -> Class {
        Class::D0
    }

    async fn run(&mut self, load: Load, meters: &Meters) -> anyhow::Result<Measured> {
        let (ours, streams, next) = (
            Arc::clone(&self.ours),
            Arc::clone(&self.streams),
            Arc::clone(&self.next),
        );
        closed_loop(load, meters, move |_| {
            let (ours, n) = (Arc::clone(&ours), next.fetch_add(1, Ordering::Relaxed));
            let stream = streams[(n % STREAMS) as usize];
            async move { ours.execute(stream, workload::correction(n).into()).await }
        })
        .await
    }
}
