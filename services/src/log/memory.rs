//! A log in memory, for specs and simulations: the same port, with faults on demand. Like Kafka it does not know who owns a
//! shard: records of a paused writer land, and the judge finds them void.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{AppendError, EventLog, LogError, LogReader, LogWriter, Record};

/// What goes wrong with the next append of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Everything is written, the answer is lost.
    LoseAck,
    /// Everything is written, and the answer comes so much later.
    SlowAck(Duration),
    /// Nothing is written, and the writer does not know.
    LoseAppend,
    /// Only the first so many records are written.
    Tear(usize),
    /// The record with this number is lost, those after it are written.
    Drop(usize),
    /// Refused outright: no room.
    Refuse,
}

/// The log; clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryLog {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    shards: Mutex<Vec<Shard>>,
    grown: Notify,
}

#[derive(Debug, Default, Clone)]
struct Shard {
    records: Vec<Record>,
    faults: VecDeque<Fault>,
}

impl MemoryLog {
    pub fn new() -> MemoryLog {
        MemoryLog::default()
    }

    /// The next append to `shard` fails so. Several are taken in turn.
    pub fn inject(&self, shard: u16, fault: Fault) {
        self.inner.shards.lock().expect("no panic under the lock")[usize::from(shard)]
            .faults
            .push_back(fault);
    }

    /// All records of a shard.
    pub fn records(&self, shard: u16) -> Vec<Record> {
        self.inner.shards.lock().expect("no panic under the lock")[usize::from(shard)]
            .records
            .clone()
    }

    /// Puts a record at the end, whoever wrote it.
    pub fn push(&self, shard: u16, record: Record) {
        self.inner.shards.lock().expect("no panic under the lock")[usize::from(shard)]
            .records
            .push(record);
        self.inner.grown.notify_waiters();
    }

    /// Loses the last records of a shard, as a broker does that loses power.
    pub fn truncate(&self, shard: u16, len: usize) {
        self.inner.shards.lock().expect("no panic under the lock")[usize::from(shard)]
            .records
            .truncate(len);
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn address(&self) -> String {
        "memory:".into()
    }

    async fn create(&self, shards: u16) -> Result<(), LogError> {
        let mut known = self.inner.shards.lock().expect("no panic under the lock");
        if known.is_empty() {
            known.resize(usize::from(shards), Shard::default());
        }
        match known.len() == usize::from(shards) {
            true => Ok(()),
            false => Err(LogError::WrongSettings(format!(
                "the log has {} shards, not {shards}",
                known.len()
            ))),
        }
    }

    async fn open(&self) -> Result<u16, LogError> {
        match self.inner.shards.lock().expect("no panic under the lock").len() {
            0 => Err(LogError::NotCreated(self.address())),
            shards => Ok(shards as u16),
        }
    }

    async fn end(&self, shard: u16) -> Result<u64, LogError> {
        Ok(self.records(shard).len() as u64)
    }

    async fn writer(&self, shard: u16) -> Result<Box<dyn LogWriter>, LogError> {
        Ok(Box::new(Writer {
            log: self.clone(),
            shard,
        }))
    }

    async fn reader(&self, shard: u16, from: u64) -> Result<Box<dyn LogReader>, LogError> {
        if from > self.end(shard).await? {
            return Err(LogError::OutOfRange { shard, offset: from });
        }
        Ok(Box::new(Reader {
            log: self.clone(),
            shard,
            next: from,
        }))
    }
}

struct Writer {
    log: MemoryLog,
    shard: u16,
}

#[async_trait]
impl LogWriter for Writer {
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError> {
        tokio::task::yield_now().await;
        let (outcome, wait) = self.write(records);
        self.log.inner.grown.notify_waiters();
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
        outcome
    }
}

impl Writer {
    /// What the writer hears, and after how long if not at once.
    fn write(&self, records: Vec<Record>) -> (Result<Vec<u64>, AppendError>, Option<Duration>) {
        let mut shards = self.log.inner.shards.lock().expect("no panic under the lock");
        let shard = &mut shards[usize::from(self.shard)];
        let first = shard.records.len() as u64;
        let count = records.len();
        let fault = shard.faults.pop_front();
        let unknown = |what: &str| Err(AppendError::Unknown(what.into()));
        let outcome = match fault {
            Some(Fault::Refuse) => Err(AppendError::Refused("no room".into())),
            Some(Fault::LoseAppend) => unknown("time-out"),
            Some(Fault::Tear(kept)) => {
                shard.records.extend(records.into_iter().take(kept));
                unknown("time-out")
            }
            Some(Fault::Drop(lost)) => {
                let kept = records
                    .into_iter()
                    .enumerate()
                    .filter(|(i, _)| *i != lost)
                    .map(|(_, record)| record);
                shard.records.extend(kept);
                unknown("time-out")
            }
            Some(Fault::LoseAck) => {
                shard.records.extend(records);
                unknown("time-out")
            }
            None | Some(Fault::SlowAck(_)) => {
                shard.records.extend(records);
                Ok((first..first + count as u64).collect())
            }
        };
        let wait = match fault {
            Some(Fault::SlowAck(wait)) => Some(wait),
            _ => None,
        };
        (outcome, wait)
    }
}

struct Reader {
    log: MemoryLog,
    shard: u16,
    next: u64,
}

impl Reader {
    fn ready(&mut self, records_max: usize) -> Vec<(u64, Record)> {
        let shards = self.log.inner.shards.lock().expect("no panic under the lock");
        let records = &shards[usize::from(self.shard)].records;
        let from = (self.next as usize).min(records.len());
        let batch: Vec<_> = records[from..]
            .iter()
            .take(records_max)
            .enumerate()
            .map(|(i, r)| ((from + i) as u64, r.clone()))
            .collect();
        self.next = (from + batch.len()) as u64;
        batch
    }
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self, records_max: usize, wait: Duration) -> Result<Vec<(u64, Record)>, LogError> {
        let deadline = tokio::time::Instant::now() + wait;
        let log = self.log.clone();
        loop {
            let grown = log.inner.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            let batch = self.ready(records_max);
            // Another shard's growth wakes it too. A time-out is no error: nothing came.
            if !batch.is_empty() || tokio::time::timeout_at(deadline, grown).await.is_err() {
                return Ok(batch);
            }
        }
    }
}
