//! A log that a spec holds up: before an append is written, or before its word comes back.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::log::{AppendError, EventLog, LogError, LogReader, LogWriter, MemoryLog, Record};

/// Where appends are held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nothing is written yet.
    BeforeWriting,
    /// It stands in the log, and the writer does not know.
    BeforeTheAnswer,
}

/// A way to a memory log with a gate on it; clones are the same gate. It notes the size of each append.
#[derive(Clone, Default)]
pub struct Gate {
    pub log: MemoryLog,
    held: watch::Sender<Option<Hold>>,
    appends: Arc<Mutex<Vec<(usize, usize)>>>,
}

struct GateWriter {
    gate: Gate,
    writer: Box<dyn LogWriter>,
}

impl Gate {
    pub fn before(log: MemoryLog) -> Gate {
        Gate { log, ..Gate::default() }
    }

    pub fn hold(&self, hold: Hold) {
        self.held.send_replace(Some(hold));
    }

    pub fn open_up(&self) {
        self.held.send_replace(None);
    }

    /// Records and bytes of each append since it was last asked.
    pub fn take_appends(&self) -> Vec<(usize, usize)> {
        std::mem::take(&mut self.appends.lock().unwrap())
    }

    async fn pass(&self, hold: Hold) {
        let mut held = self.held.subscribe();
        held.wait_for(|held| *held != Some(hold)).await.unwrap();
    }
}

#[async_trait]
impl LogWriter for GateWriter {
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError> {
        self.gate.pass(Hold::BeforeWriting).await;
        let bytes = records.iter().map(Record::size).sum();
        self.gate.appends.lock().unwrap().push((records.len(), bytes));
        let offsets = self.writer.append(records).await;
        self.gate.pass(Hold::BeforeTheAnswer).await;
        offsets
    }
}

#[async_trait]
impl EventLog for Gate {
    fn address(&self) -> String {
        self.log.address()
    }

    async fn create(&self, shards: u16) -> Result<(), LogError> {
        self.log.create(shards).await
    }

    async fn open(&self) -> Result<u16, LogError> {
        self.log.open().await
    }

    async fn end(&self, shard: u16) -> Result<u64, LogError> {
        self.log.end(shard).await
    }

    async fn writer(&self, shard: u16) -> Result<Box<dyn LogWriter>, LogError> {
        let writer = self.log.writer(shard).await?;
        let gate = self.clone();
        Ok(Box::new(GateWriter { gate, writer }))
    }

    async fn reader(&self, shard: u16, from: u64) -> Result<Box<dyn LogReader>, LogError> {
        self.log.reader(shard, from).await
    }
}
