//! A large history, written into the log by its own writer with records as the shard makes them, in big batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, ensure};
use domain::{AnyCommand, AnyState, Home, StreamKind, StreamRef, slot_of};
use infra::config::Use;
use jiff::{SignedDuration, Timestamp};
use services::clock::{Clock, SystemClock};
use services::log::{Claim, EventLog, LogWriter, Record};
use tokio::sync::{Mutex, mpsc};
use uuid::Uuid;

use crate::places::Places;
use crate::{ours, stored, workload};

/// Names the streams of a history.
pub const RUN: &str = "h";
/// Records of one append.
const APPEND_RECORDS: usize = 10_000;
/// Batches that wait for a shard's writer.
const BATCHES_WAITING: usize = 2;

/// What a history is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Registered customers only, with three keys each: one read model, one table.
    Customers,
    /// One customer, then twelve receipts and seven events of an interaction with customers that are there already.
    Mixed,
    /// A customer and two receipts of theirs, again and again: three events for each customer.
    Pages,
}

impl Kind {
    /// Events that belong together, so that a history of any length has whole ones.
    fn stride(self) -> u64 {
        match self {
            Kind::Customers => 1,
            Kind::Mixed => 20,
            Kind::Pages => 3,
        }
    }

    /// Interactions in a history of so many events, the first ones of [`RUN`].
    pub fn interactions(self, events: u64) -> u64 {
        match self {
            Kind::Mixed => events / self.stride(),
            Kind::Customers | Kind::Pages => 0,
        }
    }

    /// The `n`th event's stream, its command, and the state and version that it is decided on.
    fn step(self, n: u64, at: Timestamp) -> anyhow::Result<(StreamRef, AnyCommand, AnyState, u64)> {
        let run = RUN;
        let (block, place) = (n / self.stride(), n % self.stride());
        let begins = |stream: StreamRef, command: AnyCommand| (stream, command, AnyState::initial(stream.kind), 0);
        Ok(match (self, place) {
            (Kind::Customers, _) => begins(ours::customer(run, n), workload::register(run, n, 3).into()),
            (Kind::Mixed | Kind::Pages, 0) => {
                begins(ours::customer(run, block), workload::register(run, block, 3).into())
            }
            (Kind::Mixed, 1..=12) | (Kind::Pages, _) => {
                let known = match self {
                    Kind::Pages => block,
                    _ => workload::scattered(n) % (block + 1),
                };
                let customer = workload::customer_id(run, known);
                let command = AnyCommand::from(workload::receipt(run, n, Some(customer)));
                let Home::Exactly(id) = command.home() else {
                    unreachable!("a receipt is its stream's identity")
                };
                let kind = StreamKind::Purchase;
                begins(StreamRef { kind, id }, command)
            }
            (Kind::Mixed, 13) => {
                let (stream, command) = workload::contact(run, block);
                begins(stream, command.into())
            }
            (Kind::Mixed, place) => {
                let version = place - 13;
                let (stream, first) = workload::contact(run, block);
                let mut state = stored::event(stream, first.into(), AnyState::initial(stream.kind), 0, at)?.1;
                if version > 1 {
                    state = stored::event(stream, workload::correction(n - 1).into(), state, 1, at)?.1;
                }
                if let AnyState::Interaction(state) = &mut state {
                    state.version = version;
                }
                (stream, workload::correction(n).into(), state, version)
            }
        })
    }
}

/// The log with this history, written once and used by all benchmarks of a run that ask for the same: its URL, and it opened.
pub async fn shared(
    places: &Places,
    shards: u16,
    kind: Kind,
    events: u64,
) -> anyhow::Result<(String, Arc<dyn EventLog>)> {
    static WRITTEN: Mutex<BTreeMap<(u16, Kind, u64), String>> = Mutex::const_new(BTreeMap::new());
    let mut written = WRITTEN.lock().await;
    // The views are not opened: any will do.
    let views = &places.postgres;
    if let Some(url) = written.get(&(shards, kind, events)) {
        return Ok((url.clone(), ours::settings(url, views)?.open_log(Use::Write)?));
    }
    let url = places.topic("history");
    let (_, log) = ours::create_log(&url, views, shards).await?;
    let begun = std::time::Instant::now();
    write(&log, shards, kind, events).await?;
    eprintln!(
        "   a history of {events} events was written in {} s",
        begun.elapsed().as_secs()
    );
    written.insert((shards, kind, events), url.clone());
    Ok((url, log))
}

/// Writes `events` events into a new log, claimed by nobody who lives. One thread makes them, a task a shard appends them.
///
/// # Errors
/// When the log is not empty but for its first records, or refuses.
pub async fn write(log: &Arc<dyn EventLog>, shards: u16, kind: Kind, events: u64) -> anyhow::Result<()> {
    let begun = SystemClock.now() - SignedDuration::from_hours(24);
    let mut writers = Vec::new();
    let mut queues = Vec::new();
    for shard in 0..shards {
        let (queue, batches) = mpsc::channel(BATCHES_WAITING);
        queues.push(queue);
        let log = Arc::clone(log);
        writers.push(tokio::spawn(async move {
            append_all(log.as_ref(), shard, batches, begun).await
        }));
    }
    let maker = tokio::task::spawn_blocking(move || make(kind, events, shards, begun, &queues));
    maker.await??;
    for writer in writers {
        writer.await??;
    }
    Ok(())
}

/// The customer of the last record in each shard of a history of [`Kind::Customers`].
pub fn last_customers(shards: u16, events: u64) -> Vec<Uuid> {
    let mut last: BTreeMap<u16, Uuid> = BTreeMap::new();
    for n in (0..events).rev() {
        let id = workload::customer_id(RUN, n).uuid();
        last.entry(slot_of(id).shard(shards)).or_insert(id);
        if last.len() == usize::from(shards) {
            break;
        }
    }
    last.into_values().collect()
}

fn make(
    kind: Kind,
    events: u64,
    shards: u16,
    begun: Timestamp,
    queues: &[mpsc::Sender<Vec<Record>>],
) -> anyhow::Result<()> {
    let mut batches: Vec<Vec<Record>> = queues.iter().map(|_| Vec::new()).collect();
    let mut numbers = vec![0_u64; queues.len()];
    for number in 0..events {
        let at = begun + SignedDuration::from_micros((number * 100).cast_signed());
        let (stream, command, state, version) = kind.step(number, at)?;
        let shard = usize::from(slot_of(stream.id).shard(shards));
        let (event, _) = stored::event(stream, command, state, version, at)?;
        numbers[shard] += 1;
        let batch = &mut batches[shard];
        batch.push(event.to_record("/crm/bench", 1, numbers[shard]));
        if batch.len() == APPEND_RECORDS {
            queues[shard]
                .blocking_send(std::mem::take(batch))
                .context("a writer has ended")?;
        }
    }
    for (queue, batch) in queues.iter().zip(batches) {
        queue.blocking_send(batch).context("a writer has ended")?;
    }
    Ok(())
}

async fn append_all(
    log: &dyn EventLog,
    shard: u16,
    mut batches: mpsc::Receiver<Vec<Record>>,
    begun: Timestamp,
) -> anyhow::Result<()> {
    ensure!(log.end(shard).await? == 1, "shard {shard} is not new");
    let mut writer = log.writer(shard).await?;
    let claim = Claim {
        epoch: 1,
        nonce: Uuid::now_v7(),
        node: "history".into(),
        address: "127.0.0.1:1".into(),
    };
    let mut next = 1;
    append(writer.as_mut(), vec![claim.to_record("/crm/bench", begun)], &mut next).await?;
    while let Some(records) = batches.recv().await {
        append(writer.as_mut(), records, &mut next).await?;
    }
    Ok(())
}

async fn append(writer: &mut dyn LogWriter, records: Vec<Record>, next: &mut u64) -> anyhow::Result<()> {
    let end = *next + records.len() as u64;
    let offsets = writer.append(records).await?;
    let contiguous = offsets.iter().copied().eq(*next..end);
    ensure!(
        contiguous,
        "the offsets are not those that were due: somebody else writes"
    );
    *next = end;
    Ok(())
}
