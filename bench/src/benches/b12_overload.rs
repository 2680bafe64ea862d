//! B12: three times the load that it can take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use services::shard::{Failure, Lane, Request, ShardConfig};
use uuid::Uuid;

use super::Bench;
use crate::load::{Load, Measured, Outcome, closed_loop, open_loop};
use crate::meters::Meters;
use crate::ours::{self, Ours};
use crate::session::{Class, Contender, Session};
use crate::target::{Bound, Figure, Target};

pub struct Overload;

const SHARDS: u16 = 8;
/// With one of these numbers of closed-loop clients the peak is found in a trial.
const CLIENTS: [usize; 3] = [128, 256, 512];
/// Longer than a burst.
const WARM_UP: Duration = Duration::from_secs(3);
/// Acks in a second for which requests are made beforehand, more than the peak is.
const PEAK_MAX: f64 = 40_000.0;
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
        "`peak` is what closed-loop clients get, as many of 128, 256 and 512 as got the most in a trial before. Then, in the same round, receipts \
         are offered at three times that rate, or at three times the goodput of the round before if that was more, whatever becomes of them; when a shard has had more than it answers soon for longer than a burst, who comes is refused at once. The rate is of acks \
         (goodput); latencies are those of the accepted, from when they were due. Both send requests that were made beforehand, for clients are elsewhere. Log on Kafka, \
         8 shards; the generator shares the process and the cores. The first three seconds, which a burst is part of, do not count."
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
        let (last_peak, stock) = (Arc::<AtomicU64>::default(), Arc::<Stock>::default());
        let mut peak = Peak {
            ours: Arc::clone(&ours),
            stock: Arc::clone(&stock),
            last: Arc::clone(&last_peak),
        };
        let load_of = |session: &Session, clients| Load {
            warm_up: WARM_UP,
            ..session.extent.load(clients)
        };
        let mut most = (0, 0);
        for clients in CLIENTS {
            peak.run(load_of(session, clients), &session.places.meters()).await?;
            most = most.max((last_peak.load(Ordering::Relaxed), clients));
        }
        let (_, clients) = most;
        session.note("clients at the peak", clients);
        let overload = Offered {
            ours: Arc::clone(&ours),
            stock,
            last_peak,
            last_goodput: 0.0,
        };
        let mut contenders: Vec<Box<dyn Contender>> = vec![Box::new(peak), Box::new(overload)];
        let load = load_of(session, clients);
        session.cell_in_order(CELL, load, &mut contenders).await?;
        ours.check().await
    }
}

/// Requests that are made before they are sent: the clients of a core are elsewhere, and what they do takes none of its time.
#[derive(Default)]
struct Stock {
    next: AtomicU64,
    made: Mutex<Vec<Request>>,
}

impl Stock {
    fn fill(&self, count: usize) {
        let mut made = self.made.lock().expect("no panic under the lock");
        while made.len() < count {
            made.push(self.make());
        }
    }

    fn make(&self) -> Request {
        let (stream, command) = ours::receipt("o", self.next.fetch_add(1, Ordering::Relaxed));
        ours::request(stream, command)
    }

    /// One with an id of now, as a client has that did not wait; made on the spot when the stock is used up.
    fn take(&self) -> Request {
        let made = self.made.lock().expect("no panic under the lock").pop();
        let mut request = made.unwrap_or_else(|| self.make());
        request.command_id = Uuid::now_v7();
        request.given = request.command_id;
        request
    }
}

struct Peak {
    ours: Arc<Ours>,
    stock: Arc<Stock>,
    last: Arc<AtomicU64>,
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
        self.stock.fill(in_stock(load, PEAK_MAX));
        let (commands, acked, stock) = (
            self.ours.commands(),
            Arc::clone(&self.ours.acked),
            Arc::clone(&self.stock),
        );
        let measured = closed_loop(load, meters, move |_| {
            let (commands, acked, request) = (commands.clone(), Arc::clone(&acked), stock.take());
            async move {
                commands.execute(request, Lane::People).await?;
                acked.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        })
        .await?;
        let rate = measured.ops as f64 / measured.usage.seconds;
        self.last.store(rate as u64, Ordering::Relaxed);
        Ok(measured)
    }
}

fn in_stock(load: Load, rate: f64) -> usize {
    ((load.warm_up + load.measure).as_secs_f64() * rate) as usize
}

struct Offered {
    ours: Arc<Ours>,
    stock: Arc<Stock>,
    last_peak: Arc<AtomicU64>,
    /// Acks a second of the round before.
    last_goodput: f64,
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
        let rate = self.last_goodput.max(self.last_peak.load(Ordering::Relaxed) as f64) * 3.0;
        self.stock.fill(in_stock(load, rate));
        let (commands, acked, stock) = (
            self.ours.commands(),
            Arc::clone(&self.ours.acked),
            Arc::clone(&self.stock),
        );
        // Threads of their own, or commands would wait behind thousands that are about to be refused.
        let elsewhere = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let meters = meters.clone();
        let offered = elsewhere.spawn(async move {
            open_loop(load, rate, &meters, move |_| {
                let (commands, acked, request) = (commands.clone(), Arc::clone(&acked), stock.take());
                async move {
                    match commands.execute(request, Lane::People).await {
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
        let measured = measured??;
        self.last_goodput = measured.ops as f64 / measured.usage.seconds;
        Ok(measured)
    }
}
