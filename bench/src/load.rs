//! Clients: closed-loop ones send the next operation when the last is acked; open-loop ones send at a rate whatever happens.

use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Semaphore;

use crate::meters::{Meters, Usage};

/// Latencies up to a minute, in microseconds, to three digits.
const LATENCY_MAX_US: u64 = 60_000_000;
/// Operations of an open loop on their way at most: beyond it the generator is the bottleneck, and says so.
const OPEN_MAX: usize = 200_000;

/// How long a run is, and who makes it.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub clients: usize,
    /// Not counted.
    pub warm_up: Duration,
    pub measure: Duration,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Operations that ended in time.
    pub ops: u64,
    pub usage: Usage,
    pub latencies: Option<Histogram<u64>>,
    /// Further figures, by name.
    pub extra: Vec<(&'static str, f64)>,
}

impl Measured {
    /// A job of so many operations that ran from its start to its end.
    pub fn job(ops: u64, usage: Usage) -> Measured {
        Measured {
            ops,
            usage,
            latencies: None,
            extra: vec![],
        }
    }

    pub fn with(mut self, name: &'static str, figure: f64) -> Measured {
        self.extra.push((name, figure));
        self
    }
}

pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_MAX_US, 3).expect("the bounds are right")
}

pub fn note(latencies: &mut Histogram<u64>, latency: Duration) {
    let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    latencies.saturating_record(us.max(1));
}

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// Runs `operation` from `load.clients` closed-loop clients. What ends while it is measured counts. The first error ends the run.
///
/// # Errors
/// An operation's: a benchmark has no failures.
pub async fn closed_loop<Op, Done>(load: Load, meters: &Meters, operation: Op) -> anyhow::Result<Measured>
where
    Op: Fn(usize) -> Done + Clone + Send + Sync + 'static,
    Done: Future<Output = anyhow::Result<()>> + Send,
{
    let phase = Arc::new(AtomicU8::new(WARMING));
    let clients: Vec<_> = (0..load.clients)
        .map(|client| {
            let (phase, operation) = (Arc::clone(&phase), operation.clone());
            tokio::spawn(async move {
                let mut latencies = histogram();
                while phase.load(Ordering::Relaxed) != OVER {
                    let started = Instant::now();
                    let outcome = operation(client).await;
                    if outcome.is_err() {
                        phase.store(OVER, Ordering::Relaxed);
                        outcome?;
                    }
                    if phase.load(Ordering::Relaxed) == MEASURING {
                        note(&mut latencies, started.elapsed());
                    }
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    tokio::time::sleep(load.warm_up).await;
    let start = meters.read()?;
    phase.store(MEASURING, Ordering::Relaxed);
    tokio::time::sleep(load.measure).await;
    phase.store(OVER, Ordering::Relaxed);
    let usage = meters.since(&start)?;
    let mut latencies = histogram();
    for client in clients {
        latencies.add(client.await??)?;
    }
    Ok(Measured {
        ops: latencies.len(),
        usage,
        latencies: Some(latencies),
        extra: vec![],
    })
}

/// What became of an operation that was offered.
pub enum Outcome {
    Accepted,
    /// Refused as overload should be: at once, with nothing applied.
    Refused,
}

/// Offers `operation` `rate` times a second, whatever becomes of them. The latency of one counts from when it was due, so that a
/// stall is not hidden; what ends while it is measured counts as done.
///
/// # Errors
/// An operation's, or more than [`OPEN_MAX`] of them on their way.
pub async fn open_loop<Op, Done>(load: Load, rate: f64, meters: &Meters, operation: Op) -> anyhow::Result<Measured>
where
    Op: Fn(u64) -> Done,
    Done: Future<Output = anyhow::Result<Outcome>> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(OPEN_MAX));
    let begun = Instant::now();
    let (measure_from, end) = (begun + load.warm_up, begun + load.warm_up + load.measure);
    let ended = Arc::new(Ended::of(measure_from..end));
    let mut start = None;
    let (mut offered, mut offered_measured) = (0_u64, 0_u64);
    loop {
        let now = Instant::now();
        if now >= end {
            break;
        }
        if now >= measure_from && start.is_none() {
            start = Some(meters.read()?);
        }
        let due = ((now - begun).as_secs_f64() * rate) as u64;
        while offered < due {
            let due_at = begun + Duration::from_secs_f64(offered as f64 / rate);
            let counts = due_at >= measure_from;
            offered_measured += u64::from(counts);
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                anyhow::bail!("more than {OPEN_MAX} operations are on their way");
            };
            let ended = Arc::clone(&ended);
            let mut operation = Box::pin(operation(offered));
            // Who is refused at once is not worth a task.
            match futures::poll!(&mut operation) {
                Poll::Ready(outcome) => ended.note(due_at, counts, outcome),
                Poll::Pending => drop(tokio::spawn(async move {
                    ended.note(due_at, counts, operation.await);
                    // Last, for whoever gets all permits back reads what was noted.
                    drop(permit);
                })),
            }
            offered += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let usage = meters.since(&start.expect("a run is longer than its warm-up"))?;
    // All permits back: all operations have ended.
    let _all = room.acquire_many(OPEN_MAX as u32).await?;
    if let Some(error) = ended.failed.lock().expect("no panic under the lock").take() {
        return Err(error);
    }
    let ended = ended.so_far.lock().expect("no panic under the lock").clone();
    Ok(Measured {
        ops: ended.in_time,
        usage,
        latencies: Some(ended.latencies),
        extra: vec![
            ("offered_per_s", offered_measured as f64 / load.measure.as_secs_f64()),
            ("refused", ended.refused as f64),
        ],
    })
}

/// What became of what was offered.
struct Ended {
    measured: Range<Instant>,
    so_far: Mutex<Outcomes>,
    failed: Mutex<Option<anyhow::Error>>,
}

#[derive(Clone)]
struct Outcomes {
    /// Accepted, and done while it was measured.
    in_time: u64,
    latencies: Histogram<u64>,
    refused: u64,
}

impl Ended {
    fn of(measured: Range<Instant>) -> Ended {
        let so_far = Outcomes {
            in_time: 0,
            latencies: histogram(),
            refused: 0,
        };
        Ended {
            measured,
            so_far: Mutex::new(so_far),
            failed: Mutex::default(),
        }
    }

    /// `counts`: was it due while it was measured?
    fn note(&self, due_at: Instant, counts: bool, outcome: anyhow::Result<Outcome>) {
        let now = Instant::now();
        let mut so_far = self.so_far.lock().expect("no panic under the lock");
        match outcome {
            Ok(Outcome::Accepted) => {
                so_far.in_time += u64::from(self.measured.contains(&now));
                if counts {
                    note(&mut so_far.latencies, now - due_at);
                }
            }
            Ok(Outcome::Refused) => so_far.refused += u64::from(counts),
            Err(error) => *self.failed.lock().expect("no panic under the lock") = Some(error),
        }
    }
}
