//! What a peer's process and the benchmarks say to each other: JSON lines on standard input and output.
//!
//! `{"run": {"clients": 64, "warm_up_ms": 1000, "measure_ms": 4000, …}}` is answered with `"started"` when the warm-up is over and with
//! `{"done": …}` at the end; `{"count": {}}` with `{"stored": n}`.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

#[derive(Debug, Clone, Deserialize)]
pub struct Run {
    pub clients: usize,
    warm_up_ms: u64,
    measure_ms: u64,
    /// Whatever else the peer wants to know.
    #[serde(flatten)]
    pub settings: serde_json::Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Run(Run),
    Count {},
}

/// Answers the benchmarks until they close standard input. `prepare` makes the operation of a run, `count` says how many events
/// are stored.
///
/// # Errors
/// Whatever goes wrong: a benchmark has no failures.
pub async fn serve<Prepare, Op, Done, Count, Counted>(mut prepare: Prepare, count: Count) -> anyhow::Result<()>
where
    Prepare: AsyncFnMut(Run) -> anyhow::Result<Op>,
    Op: Fn() -> Done + Clone + Send + Sync + 'static,
    Done: Future<Output = anyhow::Result<()>> + Send,
    Count: Fn() -> Counted,
    Counted: Future<Output = anyhow::Result<u64>>,
{
    say(&json!("ready"));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            Word::Run(run) => {
                let operation = prepare(run.clone()).await?;
                let done = closed_loop(&run, operation).await?;
                say(&done);
            }
            Word::Count {} => say(&json!({"stored": count().await?})),
        }
    }
    Ok(())
}

fn say(word: &Value) {
    println!("{word}");
}

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

async fn closed_loop<Op, Done>(run: &Run, operation: Op) -> anyhow::Result<Value>
where
    Op: Fn() -> Done + Clone + Send + Sync + 'static,
    Done: Future<Output = anyhow::Result<()>> + Send,
{
    let phase = Arc::new(AtomicU8::new(WARMING));
    let acked = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..run.clients)
        .map(|_| {
            let (phase, acked, operation) = (Arc::clone(&phase), Arc::clone(&acked), operation.clone());
            tokio::spawn(async move {
                let mut latencies = histogram();
                while phase.load(Ordering::Relaxed) != OVER {
                    let started = Instant::now();
                    let outcome = operation().await;
                    if outcome.is_err() {
                        phase.store(OVER, Ordering::Relaxed);
                        outcome?;
                    }
                    acked.fetch_add(1, Ordering::Relaxed);
                    if phase.load(Ordering::Relaxed) == MEASURING {
                        let us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                        latencies.saturating_record(us.max(1));
                    }
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(run.warm_up_ms)).await;
    phase.store(MEASURING, Ordering::Relaxed);
    say(&json!("started"));
    tokio::time::sleep(Duration::from_millis(run.measure_ms)).await;
    phase.store(OVER, Ordering::Relaxed);
    let mut latencies = histogram();
    for client in clients {
        latencies.add(client.await??)?;
    }
    let counts: Vec<(u64, u64)> = latencies
        .iter_recorded()
        .map(|value| (value.value_iterated_to(), value.count_at_value()))
        .collect();
    Ok(json!({"done": {
        "ops": latencies.len(),
        "acked": acked.load(Ordering::Relaxed),
        "latencies": counts,
    }}))
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000, 3).expect("the bounds are right")
}
