//! B12: three times the load that it can take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use services::shard::{Failure, Lane, ShardConfig};
use tokio::sync::Mutex;

use super::Bench;
use crate::load::{Load, Measured, Outcome, open_loop};
use crate::meters::Meters;
use crate::ours::{self, Ours};
use crate::sender::{Sender, Sending};
use crate::session::{Class, Contender, Session};
use crate::target::{Bound, Figure, Target};

pub struct Overload;

const SHARDS: u16 = 8;
const CLIENTS: usize = 256;
const CELL: &str = "receipts on Kafka";
const PEAK: &str = "peak";
const OVERLOAD: &str = "three times the peak";

#[async_trait]
impl Bench for Overload {
    fn id(&self) -> &'static str {
        "B12"
    }

    fn title(&self) -> &'static str {
        "Overload"
    }

    fn how(&self) -> &'static str {
        "`peak` is what 256 closed-loop clients get. Then, in the same round, receipts are offered at three times that rate whatever becomes of \
         them; who finds the queue of its shard full is refused at once. The rate is of acks (goodput); latencies are those of the \
         accepted, from when they were due. Log on Kafka, 8 shards; the generator shares the process and the cores."
    }

    fn targets(&self) -> Vec<Target> {
        let target = |figure, bound| Target {
            cell: CELL.into(),
            ours: OVERLOAD,
            against: PEAK,
            figure,
            bound,
        };
        vec![
            target(Figure::Rate, Bound::AtLeast(0.9)),
            target(Figure::P99, Bound::AtMost(3.0)),
        ]
    }

    async fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        let places = &session.places;
        let views = places.database("b12").await?;
        let ours = Arc::new(Ours::start(&places.topic("b12"), &views, SHARDS, ShardConfig::default()).await?);
        let last_peak = Arc::new(Mutex::new(0.0));
        let peak = Peak {
            sender: Sender::new(&ours, Sending::Receipts, Class::D0),
            last: Arc::clone(&last_peak),
        };
        let overload = Offered {
            ours: Arc::clone(&ours),
            last_peak,
            next: Arc::default(),
        };
        let mut contenders: Vec<Box<dyn Contender>> = vec![Box::new(peak), Box::new(overload)];
        let load = session.extent.load(CLIENTS);
        session.cell_in_order(CELL, load, &mut contenders).await?;
        ours.check().await
    }
}

struct Peak {
    sender: Sender,
    last: Arc<Mutex<f64>>,
}

#[async_trait]
impl Contender for Peak {
    fn name(&self) -> String {
        PEAK.into()
    }

    fn class(&self) -> Class {
        Class::D0
    }

    async fn run(&mut self, load: Load, meters: &Meters) -> anyhow::Result<Measured> {
        let measured = self.sender.run(load, meters).await?;
        *self.last.lock().await = measured.ops as f64 / measured.usage.seconds;
        Ok(measured)
    }
}

struct Offered {
    ours: Arc<Ours>,
    last_peak: Arc<Mutex<f64>>,
    next: Arc<AtomicU64>,
}

#[async_trait]
impl Contender for Offered {
    fn name(&self) -> String {
        OVERLOAD.into()
    }

    fn class(&self) -> Class {
        Class::D0
    }

    async fn run(&mut self, load: Load, meters: &Meters) -> anyhow::Result<Measured> {
        let rate = *self.last_peak.lock().await * 3.0;
        let (commands, acked) = (self.ours.commands(), Arc::clone(&self.ours.acked));
        let next = Arc::clone(&self.next);
        // The clients are elsewhere: their work has threads of its own, or commands would wait behind thousands that are about to be refused.
        let elsewhere = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let meters = meters.clone();
        let offered = elsewhere.spawn(async move {
            open_loop(load, rate, &meters, move |_| {
                let (commands, acked) = (commands.clone(), Arc::clone(&acked));
                let n = next.fetch_add(1, Ordering::Relaxed);
                async move {
                    let (stream, command) = ours::receipt("o", n);
                    match commands.execute(ours::request(stream, command), Lane::People).await {
                        Ok(_) => {
                            acked.fetch_add(1, Ordering::Relaxed);
                            Ok(Outcome::Accepted)
                        }
                        Err(Failure::NotAccepted(_)) => Ok(Outcome::Refused),
                        Err(other) => Err(other.into()),
                    }
                }
            })
            .await
        });
        let measured = offered.await;
        elsewhere.shutdown_background();
        measured?
    }
}
