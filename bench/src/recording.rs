//! What a projector wrote: its commits, remembered by a read store that passes everything on; and a log that gives one record at a time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use projections::{Group, Key, Select, Table, TableChange, Value};
use services::log::{Checkpoint, EventLog, LogError, LogReader, LogWriter, Record};
use services::views::{Generation, ReadStore, Snapshot, ViewError};

/// One transaction of a projector.
#[derive(Clone)]
pub struct RecordedCommit {
    pub shard: u16,
    pub next: u64,
    pub changes: Vec<TableChange>,
}

/// A read store that remembers the commits it passes on.
pub struct Recording {
    store: Arc<dyn ReadStore>,
    commits: Mutex<Vec<RecordedCommit>>,
}

impl Recording {
    pub fn over(store: Arc<dyn ReadStore>) -> Recording {
        Recording {
            store,
            commits: Mutex::default(),
        }
    }

    /// The commits so far, in order.
    pub fn take(&self) -> Vec<RecordedCommit> {
        std::mem::take(&mut self.commits.lock().expect("no panic under the lock"))
    }
}

#[async_trait]
impl ReadStore for Recording {
    fn address(&self) -> String {
        self.store.address()
    }

    async fn generations(&self, group: Group) -> Result<Vec<Generation>, ViewError> {
        self.store.generations(group).await
    }

    async fn create(&self, group: Group, shards: u16) -> Result<Generation, ViewError> {
        self.store.create(group, shards).await
    }

    async fn make_indexes(&self, generation: &Generation) -> Result<(), ViewError> {
        self.store.make_indexes(generation).await
    }

    async fn promote(&self, generation: &Generation) -> Result<(), ViewError> {
        self.store.promote(generation).await
    }

    async fn checkpoint(&self, generation: &Generation, shard: u16) -> Result<Option<Checkpoint>, ViewError> {
        self.store.checkpoint(generation, shard).await
    }

    async fn load(
        &self,
        generation: &Generation,
        shard: u16,
        expected: Option<&Checkpoint>,
        table: &'static Table,
        keys: &[Key],
    ) -> Result<Vec<Vec<Value>>, ViewError> {
        self.store.load(generation, shard, expected, table, keys).await
    }

    async fn commit(
        &self,
        generation: &Generation,
        shard: u16,
        expected: Option<&Checkpoint>,
        next: &Checkpoint,
        changes: &[TableChange],
    ) -> Result<(), ViewError> {
        self.store.commit(generation, shard, expected, next, changes).await?;
        let commit = RecordedCommit {
            shard,
            next: next.next,
            changes: changes.to_vec(),
        };
        self.commits.lock().expect("no panic under the lock").push(commit);
        Ok(())
    }

    async fn note_stop(&self, generation: &Generation, shard: u16, why: &str) -> Result<(), ViewError> {
        self.store.note_stop(generation, shard, why).await
    }

    async fn blocked(&self, generation: &Generation) -> Result<Option<String>, ViewError> {
        self.store.blocked(generation).await
    }

    async fn stops(&self, generation: &Generation) -> Result<Vec<(u16, String)>, ViewError> {
        self.store.stops(generation).await
    }

    async fn query(&self, generation: &Generation, selects: &[Select]) -> Result<Snapshot, ViewError> {
        self.store.query(generation, selects).await
    }
}

/// A log whose readers give one record at a time, so that a projector commits each by itself; it ends early.
pub struct OneByOne {
    pub log: Arc<dyn EventLog>,
    /// Each shard ends here at the latest.
    pub end_max: u64,
    /// The shards whose end was told. Whoever asks again hears that nothing lies behind it: a projector then commits each event at once, as one does
    /// that has caught up.
    pub told: Mutex<BTreeSet<u16>>,
}

#[async_trait]
impl EventLog for OneByOne {
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
        let is_first = self.told.lock().expect("no panic under the lock").insert(shard);
        match is_first {
            true => Ok(self.log.end(shard).await?.min(self.end_max)),
            false => Ok(0),
        }
    }

    async fn writer(&self, shard: u16) -> Result<Box<dyn LogWriter>, LogError> {
        self.log.writer(shard).await
    }

    async fn reader(&self, shard: u16, from: u64) -> Result<Box<dyn LogReader>, LogError> {
        let reader = self.log.reader(shard, from).await?;
        Ok(Box::new(OneReader(reader)))
    }
}

struct OneReader(Box<dyn LogReader>);

#[async_trait]
impl LogReader for OneReader {
    async fn next(&mut self, _: usize, wait: Duration) -> Result<Vec<(u64, Record)>, LogError> {
        self.0.next(1, wait).await
    }
}
