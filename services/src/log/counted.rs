//! For specs: a log in memory that counts what is read from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::{EventLog, LogError, LogReader, LogWriter, MemoryLog, Record};

/// Counts the records that are read from it; clones are the same log and count together.
#[derive(Clone, Default)]
pub struct Counted {
    pub inner: MemoryLog,
    read: Arc<AtomicU64>,
    largest: Arc<AtomicU64>,
    readers: Arc<AtomicU64>,
    /// Readers with a lower number hear nothing any more.
    deaf: Arc<AtomicU64>,
    panics: Arc<AtomicU64>,
}

impl Counted {
    pub fn before(inner: MemoryLog) -> Counted {
        Counted {
            inner,
            ..Counted::default()
        }
    }

    pub fn records_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The readers that there are hear nothing from now on, and do not know it.
    pub fn deafen(&self) {
        self.deaf.store(self.readers.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The next read is a panic.
    pub fn panic_once(&self) {
        self.panics.store(1, Ordering::Relaxed);
    }

    /// Of one read.
    pub fn most_records_at_once(&self) -> u64 {
        self.largest.load(Ordering::Relaxed)
    }
}

struct CountedReader {
    reader: Box<dyn LogReader>,
    log: Counted,
    number: u64,
}

#[async_trait]
impl EventLog for Counted {
    fn address(&self) -> String {
        self.inner.address()
    }

    async fn create(&self, shards: u16) -> Result<(), LogError> {
        self.inner.create(shards).await
    }

    async fn open(&self) -> Result<u16, LogError> {
        self.inner.open().await
    }

    async fn end(&self, shard: u16) -> Result<u64, LogError> {
        self.inner.end(shard).await
    }

    async fn writer(&self, shard: u16) -> Result<Box<dyn LogWriter>, LogError> {
        self.inner.writer(shard).await
    }

    async fn reader(&self, shard: u16, from: u64) -> Result<Box<dyn LogReader>, LogError> {
        Ok(Box::new(CountedReader {
            reader: self.inner.reader(shard, from).await?,
            log: self.clone(),
            number: self.readers.fetch_add(1, Ordering::Relaxed),
        }))
    }
}

#[async_trait]
impl LogReader for CountedReader {
    async fn next(&mut self, records_max: usize, wait: Duration) -> Result<Vec<(u64, Record)>, LogError> {
        let records = self.reader.next(records_max, wait).await?;
        assert_eq!(self.log.panics.swap(0, Ordering::Relaxed), 0, "a panic was asked for");
        if self.number < self.log.deaf.load(Ordering::Relaxed) {
            return Ok(vec![]);
        }
        let count = records.len() as u64;
        self.log.read.fetch_add(count, Ordering::Relaxed);
        self.log.largest.fetch_max(count, Ordering::Relaxed);
        Ok(records)
    }
}
