//! The port of a log: P shards, each an append-only sequence of records with offsets 0, 1, 2 … without gaps.

use std::time::Duration;

use async_trait::async_trait;

/// One record as it is stored: key, headers, value. What it means is in [`Envelope`](super::Envelope).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    pub key: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
    /// `None` is a Kafka tombstone, which is never one of ours.
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_slice())
    }

    /// FNV-1a over key, headers and value: tells whether this is still the record that stood here before. Not a
    /// defence against somebody who forges records.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Fnv::default();
        hash.part(&self.key);
        for (name, value) in &self.headers {
            hash.part(name.as_bytes());
            hash.part(value);
        }
        match &self.value {
            Some(value) => hash.part(value),
            None => hash.part(b"\0no value"),
        }
        hash.0
    }

    /// Bytes it takes, roughly: for batch limits.
    pub fn size(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len() + 2)
            .sum();
        self.key.len() + headers + self.value.as_ref().map_or(0, Vec::len) + 16
    }
}

struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn part(&mut self, bytes: &[u8]) {
        for byte in (bytes.len() as u32).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// A log of shards. One per process and log.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Where it is, for people: `kafka://…`, without secrets.
    fn address(&self) -> String;

    /// Creates the storage of so many shards with the right settings; nothing when it exists. Writes no record.
    ///
    /// # Errors
    /// [`LogError::WrongSettings`] when it exists with another number of shards or wrong settings.
    async fn create(&self, shards: u16) -> Result<(), LogError>;

    /// The number of shards, after checking that settings are right.
    ///
    /// # Errors
    /// [`LogError::NotCreated`], [`LogError::WrongSettings`], [`LogError::Unavailable`].
    async fn open(&self) -> Result<u16, LogError>;

    /// The offset that the next record will have.
    async fn end(&self, shard: u16) -> Result<u64, LogError>;

    /// A new writer: a producer of its own, so that what an older one still has on its way cannot mix with it.
    async fn writer(&self, shard: u16) -> Result<Box<dyn LogWriter>, LogError>;

    /// A reader from `from` on.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] when the log ends before `from`; readers may also say so on their first `next`.
    async fn reader(&self, shard: u16, from: u64) -> Result<Box<dyn LogReader>, LogError>;

    /// Is what was opened still there? Cheap, for probes: a process with nothing to do would not learn otherwise that somebody deleted its
    /// log. A log that cannot tell without a long look says yes.
    ///
    /// # Errors
    /// [`LogError`], in a sentence that says what to do.
    async fn check(&self) -> Result<(), LogError> {
        Ok(())
    }
}

/// Appends to one shard.
#[async_trait]
pub trait LogWriter: Send {
    /// Appends `records` in order and answers the offset of each, when all are durable as this log promises.
    /// The caller checks that the offsets are contiguous with what it expects. After an error the writer is not used again.
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError>;
}

/// Reads one shard.
#[async_trait]
pub trait LogReader: Send {
    /// The next records with their offsets, in order, at most `records_max`. Waits for the first one, `wait` at most; empty =
    /// none came.
    async fn next(&mut self, records_max: usize, wait: Duration) -> Result<Vec<(u64, Record)>, LogError>;
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log {0} does not exist yet; create it with `crm init`")]
    NotCreated(String),
    #[error("{0}")]
    WrongSettings(String),
    #[error("shard {shard} has no offset {offset}: the log lost its tail, or is another one")]
    OutOfRange { shard: u16, offset: u64 },
    #[error("shard {shard} is damaged at offset {offset}: {why}")]
    Damaged { shard: u16, offset: u64, why: String },
    #[error("the log cannot be reached: {0}")]
    Unavailable(String),
}

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Somebody else claimed the shard; nothing was written. (Databases can tell; Kafka cannot, and its readers see void records.)
    #[error("another writer claimed the shard")]
    Fenced,
    /// Nothing was written, and nothing will be: no room, a record too large.
    #[error("the log refused the records: {0}")]
    Refused(String),
    /// All, some, or none of it may stand in the log, now or later.
    #[error("the outcome of the append is unknown: {0}")]
    Unknown(String),
}
