//! B9: how long from the ack of a command until the read models show it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_trait::async_trait;
use domain::Position;
use hdrhistogram::Histogram;
use projections::{Group, ReadModel, Where};
use services::shard::{Lane, ShardConfig};
use services::views::{Ask, Queries};
use tokio_postgres::Client;
use uuid::Uuid;

use super::Bench;
use crate::load::{Load, Measured, Outcome, histogram, note, open_loop};
use crate::meters::Meters;
use crate::ours::{self, Ours};
use crate::places;
use crate::sender::{Sender, Sending};
use crate::session::{Class, Contender, Session};
use crate::target::{Bound, Figure, Target};

pub struct Freshness;

const SHARDS: u16 = 8;
const CELL: &str = "half load";
const SEEN: &str = "ours, seen by a poll";
const ASKED: &str = "ours, asked with at_least";
const COMMIT: &str = "PostgreSQL commit + 1 ms";
/// How often the checkpoints are looked at.
const POLL: Duration = Duration::from_millis(1);
/// How far the read models of receipts have come, per shard, and those that are furthest behind.
const OF_RECEIPTS: &str =
    "SELECT shard, min(next) FROM crm.read_checkpoints WHERE read_group IN ('analytics', 'journal') GROUP BY shard";
const ALL_GROUPS: &str = "SELECT shard, min(next) FROM crm.read_checkpoints GROUP BY shard";
/// Every so many acks one is asked for.
const ASK_EVERY: u64 = 50;

#[async_trait]
impl Bench for Freshness {
    fn id(&self) -> &'static str {
        "B9"
    }

    fn title(&self) -> &'static str {
        "Freshness"
    }

    fn how(&self) -> &'static str {
        "Receipts at half of the rate at which acks and all read models keep pace (found in a trial before), log on Kafka, 8 shards, read models \
         in PostgreSQL, all in one process. Latency is from the ack until the checkpoints of both groups that show receipts have passed it: \
         seen by a connection that looks every millisecond, or by asking `purchases` for the receipt with `at_least`, every 50th ack. Beside it, in the same rounds: \
         a durable PostgreSQL commit of one row, with nothing else going on, and a millisecond on top."
    }

    fn targets(&self) -> Vec<Target> {
        let target = |ours, bound| Target {
            cell: CELL.into(),
            ours,
            against: COMMIT,
            figure: Figure::P99ToP50,
            bound,
        };
        vec![target(SEEN, Bound::AtMost(4.0)), target(ASKED, Bound::Shown)]
    }

    async fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        let places = session.places.clone();
        let views = places.database("b9").await?;
        let ours = Arc::new(Ours::start(&places.topic("b9"), &views, SHARDS, ShardConfig::default()).await?);
        let working = ours.parts.start_workers(Group::ALL.to_vec());
        let watch = places::connect(&views).await?;
        let rate = sustained(session, &ours, &watch).await? / 2.0;
        session.note("receipts per second at half load", format!("{rate:.0}"));
        let commit = places::connect(&views).await?;
        commit.batch_execute("CREATE TABLE public.one (n bigint)").await?;
        let numbers = Arc::new(AtomicU64::new(1));
        let ours_in = |how| Visible {
            ours: Arc::clone(&ours),
            watch: views.clone(),
            rate,
            how,
            numbers: Arc::clone(&numbers),
        };
        let mut contenders: Vec<Box<dyn Contender>> = vec![
            Box::new(Commits(commit)),
            Box::new(ours_in(How::Polled)),
            Box::new(ours_in(How::Asked)),
        ];
        let load = session.extent.load(1);
        session.cell(CELL, load, &mut contenders).await?;
        session.check(&mut contenders).await?;
        drop(contenders);
        ours.check().await?;
        ours.parts.stop();
        working.ended().await?;
        Ok(())
    }
}

/// Commands a second that acks and read models keep up with: closed-loop clients, and the time until all of it is visible counts.
async fn sustained(session: &Session, ours: &Arc<Ours>, watch: &Client) -> anyhow::Result<f64> {
    let mut sender = Sender::new(ours, Sending::Receipts, Class::D0);
    let load = session.extent.load(64);
    let (before, started) = (ours.acked.load(Ordering::Relaxed), Instant::now());
    sender.run(load, &session.places.meters()).await?;
    let mut ends = vec![];
    for shard in 0..SHARDS {
        ends.push(ours.parts.log.end(shard).await?);
    }
    loop {
        let stands = stands(watch, ALL_GROUPS).await?;
        if ends.iter().zip(&stands).all(|(end, stands)| stands >= end) {
            break;
        }
        anyhow::ensure!(
            started.elapsed() < Duration::from_secs(300),
            "the read models do not catch up"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let sent = ours.acked.load(Ordering::Relaxed) - before;
    Ok(sent as f64 / started.elapsed().as_secs_f64())
}

/// Where the groups stand that `statement` asks for, per shard.
async fn stands(client: &Client, statement: &str) -> anyhow::Result<Vec<u64>> {
    let mut stands = vec![0; usize::from(SHARDS)];
    for row in client.query(statement, &[]).await? {
        stands[row.get::<_, i64>(0) as usize] = row.get::<_, i64>(1).cast_unsigned();
    }
    Ok(stands)
}

/// A durable commit, one after the other.
struct Commits(Client);

#[async_trait]
impl Contender for Commits {
    fn name(&self) -> String {
        COMMIT.into()
    }

    fn class(&self) -> Class {
        Class::None
    }

    async fn run(&mut self, load: Load, meters: &Meters) -> anyhow::Result<Measured> {
        let insert = self.0.prepare("INSERT INTO public.one VALUES (1)").await?;
        let (start, mut latencies) = (meters.read()?, histogram());
        let end = Instant::now() + load.measure;
        while Instant::now() < end {
            let started = Instant::now();
            self.0.execute(&insert, &[]).await?;
            note(&mut latencies, started.elapsed() + Duration::from_millis(1));
        }
        Ok(Measured {
            ops: latencies.len(),
            usage: meters.since(&start)?,
            latencies: Some(latencies),
            extra: vec![],
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Polled,
    Asked,
}

struct Visible {
    ours: Arc<Ours>,
    watch: String,
    rate: f64,
    how: How,
    numbers: Arc<AtomicU64>,
}

/// Acks that are not visible yet, per shard in order of their offsets.
type Waiting = Arc<Mutex<Vec<VecDeque<(u64, Instant)>>>>;

#[async_trait]
impl Contender for Visible {
    fn name(&self) -> String {
        match self.how {
            How::Polled => SEEN,
            How::Asked => ASKED,
        }
        .into()
    }

    fn class(&self) -> Class {
        Class::None
    }

    async fn run(&mut self, load: Load, meters: &Meters) -> anyhow::Result<Measured> {
        let commands = self.ours.commands();
        let acked = Arc::clone(&self.ours.acked);
        let numbers = Arc::clone(&self.numbers);
        let waiting: Waiting = Arc::new(Mutex::new(vec![VecDeque::new(); usize::from(SHARDS)]));
        let measured_from = Instant::now() + load.warm_up;
        let seen = Arc::new(Mutex::new(histogram()));
        let queries = self.ours.parts.queries();
        let poll = (self.how == How::Polled).then(|| {
            let (waiting, seen, url) = (Arc::clone(&waiting), Arc::clone(&seen), self.watch.clone());
            tokio::spawn(async move { watch_checkpoints(&url, &waiting, &seen, measured_from).await })
        });
        let asked = self.how == How::Asked;
        let latencies = Arc::clone(&seen);
        let mut measured = open_loop(load, self.rate, meters, move |number| {
            let (commands, acked, waiting) = (commands.clone(), Arc::clone(&acked), Arc::clone(&waiting));
            let (queries, seen) = (queries.clone(), Arc::clone(&seen));
            let n = numbers.fetch_add(1, Ordering::Relaxed);
            async move {
                let (stream, command) = ours::receipt("f", n);
                let ack = commands.execute(ours::request(stream, command), Lane::People).await?;
                let at = Instant::now();
                acked.fetch_add(1, Ordering::Relaxed);
                if !asked {
                    let place = ack.position;
                    waiting.lock().expect("no panic under the lock")[usize::from(place.shard)]
                        .push_back((place.offset, at));
                } else if number % ASK_EVERY == 0 {
                    ask(&queries, stream.id, ack.position).await?;
                    if at >= measured_from {
                        note(&mut seen.lock().expect("no panic under the lock"), at.elapsed());
                    }
                }
                Ok(Outcome::Accepted)
            }
        })
        .await?;
        if let Some(poll) = poll {
            tokio::time::sleep(Duration::from_millis(500)).await;
            poll.abort();
            if let Ok(outcome) = poll.await {
                outcome.context("watching the checkpoints")?;
            }
        }
        measured.latencies = Some(latencies.lock().expect("no panic under the lock").clone());
        Ok(measured)
    }
}

async fn ask(queries: &Queries, receipt: Uuid, position: Position) -> anyhow::Result<()> {
    let model = ReadModel::find("purchases").context("there is a read model of receipts")?;
    let mut ask = Ask::of(queries.question());
    ask.question.filters = vec![Where::parse(&format!("purchase={receipt}"))?];
    ask.at_least = vec![position];
    let answered = queries.ask(model, ask).await?;
    ensure!(
        answered.answer.rows.len() == 1,
        "the receipt at {position} is not shown"
    );
    Ok(())
}

/// Until it is aborted.
async fn watch_checkpoints(
    url: &str,
    waiting: &Waiting,
    seen: &Mutex<Histogram<u64>>,
    measured_from: Instant,
) -> anyhow::Result<()> {
    let client = places::connect(url).await?;
    loop {
        let stands = stands(&client, OF_RECEIPTS).await?;
        let now = Instant::now();
        {
            let mut waiting = waiting.lock().expect("no panic under the lock");
            let mut seen = seen.lock().expect("no panic under the lock");
            for (acks, stands) in waiting.iter_mut().zip(stands) {
                // Acks of one batch come in any order; the few that stand behind a later one wait for the next look.
                while acks.front().is_some_and(|(offset, _)| *offset < stands) {
                    if let Some((_, at)) = acks.pop_front()
                        && at >= measured_from
                    {
                        note(&mut seen, now - at);
                    }
                }
            }
        }
        tokio::time::sleep(POLL).await;
    }
}
