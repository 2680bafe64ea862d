//! The log in a SQLite file, `<folder>/log.db`: the embedded default, durable on one disk.
//!
//! One process writes, behind a lock file; any may read. In it one thread owns the writing connection: it takes the appends
//! of all shards from a queue and commits whatever is there as one transaction, hence one fsync. No timer is involved: while
//! one fsync runs, the next group gathers.
//!
//! Unlike Kafka it knows who owns a shard: an append with an old epoch is [`AppendError::Fenced`] and not written.
//!
//! What a crash left is looked at before SQLite tidies it up: the write-ahead file by itself ([`wal`]), and the log's ends beside what had
//! been acked ([`acked`]). No ack leaves when the files were deleted or replaced under the process that writes them ([`Identity`]).

use std::fs::{File, TryLockError};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use services::log::{AppendError, EventLog, LogError, LogReader, LogWriter, Record};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::acked::{self, Acked};
use super::row::{admit, decode_headers, encode_headers};
use super::{refuse_oversized, wal};
use crate::files::{self, Identity};

const FILE: &str = "log.db";
const WAL_FILE: &str = "log.db-wal";
const LOCK_FILE: &str = "log.lock";
/// How long another process may have the lock that only looks whether anybody writes.
const LOOKING: Duration = Duration::from_millis(200);
/// Of the tables below. Another one is refused, never guessed at.
const FORMAT: i64 = 1;
/// Appends that wait for the writer thread. Each shard has one on its way, so that only a misuse fills it.
const QUEUE_APPENDS_MAX: usize = 1024;
/// Appends in one transaction: a limit on how long the first of them waits for the last.
const GROUP_APPENDS_MAX: usize = 256;
/// Bytes that a reader hands out at once, so that a batch of large records does not fill the memory.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How often a reader in another process than the writer's looks for new records.
const POLL: Duration = Duration::from_millis(50);
/// How often the files are looked at while nothing is written.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How long a connection waits while another one recovers or resets the file.
const BUSY_MAX: Duration = Duration::from_secs(10);
/// How long the write-ahead file waits for its readers before it is left as it is.
const READERS_WAIT: Duration = Duration::from_millis(100);
/// What the write-ahead file is cut down to after a long reader let it grow.
const WAL_BYTES_MAX: i64 = 64 * 1024 * 1024;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS meta (
        name TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS shards (
        shard INTEGER PRIMARY KEY,
        epoch INTEGER NOT NULL,
        next_offset INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS records (
        shard INTEGER NOT NULL,
        log_offset INTEGER NOT NULL,
        key BLOB NOT NULL,
        headers BLOB NOT NULL,
        value BLOB,
        checksum INTEGER NOT NULL,
        PRIMARY KEY (shard, log_offset)
    ) STRICT, WITHOUT ROWID;";

/// The log in one folder.
pub struct SqliteLog {
    folder: PathBuf,
    access: Access,
    opened: Mutex<Option<Arc<Opened>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Write,
    Read,
}

impl SqliteLog {
    /// The log in `folder`, to read and write. Nothing is touched before [`create`](EventLog::create) or
    /// [`open`](EventLog::open); from then on no other process can write, until this value and its writers are dropped.
    pub fn new(folder: &Path) -> SqliteLog {
        SqliteLog::with_access(folder, Access::Write)
    }

    /// The log in `folder`, to read only, also while another process writes. It has no writers.
    pub fn read_only(folder: &Path) -> SqliteLog {
        SqliteLog::with_access(folder, Access::Read)
    }

    fn with_access(folder: &Path, access: Access) -> SqliteLog {
        SqliteLog {
            folder: folder.to_owned(),
            access,
            opened: Mutex::new(None),
        }
    }

    async fn opened(&self) -> Result<Arc<Opened>, LogError> {
        let mut slot = self.opened.lock().await;
        if let Some(opened) = &*slot {
            return Ok(opened.clone());
        }
        let (folder, access) = (self.folder.clone(), self.access);
        let opened = blocking(move || match access {
            Access::Write => Opened::to_write(&folder),
            Access::Read => Opened::to_read(&folder),
        });
        let opened = Arc::new(opened.await?);
        watch_files(&opened);
        Ok(slot.insert(opened).clone())
    }

    async fn opened_with(&self, shard: u16) -> Result<Arc<Opened>, LogError> {
        let opened = self.opened().await?;
        if shard < opened.shards {
            return Ok(opened);
        }
        let has = opened.shards;
        Err(LogError::WrongSettings(format!(
            "there is no shard {shard}: the log has {has}, counted from 0"
        )))
    }
}

#[async_trait]
impl EventLog for SqliteLog {
    fn address(&self) -> String {
        address(&self.folder)
    }

    async fn create(&self, shards: u16) -> Result<(), LogError> {
        if self.access == Access::Read {
            return Err(only_to_read(&self.folder));
        }
        if shards == 0 {
            return Err(LogError::WrongSettings("a log needs at least one shard".into()));
        }
        let mut slot = self.opened.lock().await;
        let opened = match &*slot {
            Some(opened) => opened.clone(),
            None => {
                let folder = self.folder.clone();
                let opened = blocking(move || Opened::by_creating(&folder, shards));
                let opened = Arc::new(opened.await?);
                watch_files(&opened);
                slot.insert(opened).clone()
            }
        };
        match opened.shards == shards {
            true => Ok(()),
            false => Err(LogError::WrongSettings(format!(
                "the log {} exists with {} shards, not {shards}; the number cannot be changed, only a copy can have another",
                self.address(),
                opened.shards
            ))),
        }
    }

    async fn open(&self) -> Result<u16, LogError> {
        Ok(self.opened().await?.shards)
    }

    async fn end(&self, shard: u16) -> Result<u64, LogError> {
        let opened = self.opened_with(shard).await?;
        if let Some(writing) = &opened.writing {
            writing.files.check()?;
            return Ok(*writing.ends[usize::from(shard)].borrow());
        }
        let folder = self.folder.clone();
        blocking(move || {
            let connection = connect(&folder, Access::Read)?;
            next_offset(&connection, shard).map_err(|error| unavailable(&folder, &error))
        })
        .await
    }

    async fn writer(&self, shard: u16) -> Result<Box<dyn LogWriter>, LogError> {
        let opened = self.opened_with(shard).await?;
        match &opened.writing {
            Some(writing) => {
                writing.files.check()?;
                Ok(Box::new(Writer { opened, shard }))
            }
            None => Err(only_to_read(&self.folder)),
        }
    }

    async fn reader(&self, shard: u16, from: u64) -> Result<Box<dyn LogReader>, LogError> {
        let end = self.end(shard).await?;
        if from > end {
            return Err(LogError::OutOfRange { shard, offset: from });
        }
        let opened = self.opened_with(shard).await?;
        let grown = opened
            .writing
            .as_ref()
            .map(|writing| writing.ends[usize::from(shard)].subscribe());
        Ok(Box::new(Reader {
            folder: self.folder.clone(),
            shard,
            next: from,
            connection: None,
            grown,
        }))
    }

    async fn check(&self) -> Result<(), LogError> {
        match &self.opened().await?.writing {
            Some(writing) => writing.files.check(),
            None => Ok(()),
        }
    }
}

/// The folder as it was found, and the means to write when that was asked for.
struct Opened {
    shards: u16,
    writing: Option<Writing>,
}

impl Opened {
    fn by_creating(folder: &Path, shards: u16) -> Result<Opened, LogError> {
        files::make_folder(folder).map_err(|error| unusable(folder, &error))?;
        let lock = lock(folder)?;
        // After a look for what was there before.
        refuse_lost_acks(folder)?;
        files::make_file(&folder.join(FILE)).map_err(|error| unusable(&folder.join(FILE), &error))?;
        let mut file = LogFile::open(folder)?;
        make_tables(&mut file.connection, shards).map_err(|error| unavailable(folder, &error))?;
        Opened::with_lock(folder, file, lock)
    }

    fn to_write(folder: &Path) -> Result<Opened, LogError> {
        if !folder.join(FILE).exists() {
            return Err(LogError::NotCreated(address(folder)));
        }
        let lock = lock(folder)?;
        Opened::with_lock(folder, LogFile::open(folder)?, lock)
    }

    fn with_lock(folder: &Path, file: LogFile, lock: File) -> Result<Opened, LogError> {
        let shards = number_of_shards(&file.connection, folder)?;
        let ends = (0..shards)
            .map(|shard| checked_end(&file.connection, folder, shard))
            .collect::<Result<Vec<u64>, LogError>>()?;
        let acked = Acked::open(folder).map_err(|error| unusable(&folder.join(acked::FILE), &error))?;
        files::keep_private(folder);
        Ok(Opened {
            shards,
            writing: Some(Writing::start(file, ends, acked, lock)),
        })
    }

    fn to_read(folder: &Path) -> Result<Opened, LogError> {
        if !folder.join(FILE).exists() {
            return Err(LogError::NotCreated(address(folder)));
        }
        if !is_written(folder) {
            refuse_damaged_wal(folder, Access::Read)?;
        }
        refuse_lost_acks(folder)?;
        let connection = connect(folder, Access::Read)?;
        Ok(Opened {
            shards: number_of_shards(&connection, folder)?,
            writing: None,
        })
    }
}

/// The files of a log that this process writes.
struct Files {
    folder: PathBuf,
    identity: Identity,
    /// It was said that they are gone.
    is_said: AtomicBool,
}

impl Files {
    /// Asked while the database is open.
    fn of(folder: &Path) -> Result<Arc<Files>, LogError> {
        let mut paths = files::database_files(&folder.join(FILE)).to_vec();
        // Without its lock another process could write.
        paths.push(folder.join(LOCK_FILE));
        Ok(Arc::new(Files {
            folder: folder.to_owned(),
            identity: Identity::of(paths).map_err(|error| unusable(folder, &error))?,
            is_said: AtomicBool::new(false),
        }))
    }

    /// Do they still stand where they are found again?
    fn check(&self) -> Result<(), LogError> {
        let Err(what) = self.identity.check() else {
            self.is_said.store(false, Ordering::Relaxed);
            return Ok(());
        };
        let why = format!(
            "{what}; nothing more is acked, for it would be lost. Stop the program, put the folder {} back as it was, from the latest \
             copy if it is gone, and start the program again",
            self.folder.display()
        );
        if !self.is_said.swap(true, Ordering::Relaxed) {
            tracing::error!("{why}");
        }
        Err(LogError::Unavailable(why))
    }
}

/// Looks at the files also while nothing is written, until the log is closed.
fn watch_files(opened: &Arc<Opened>) {
    let opened: Weak<Opened> = Arc::downgrade(opened);
    tokio::spawn(async move {
        loop {
            sleep(WATCH_EVERY).await;
            let files = opened
                .upgrade()
                .and_then(|opened| Some(Arc::clone(&opened.writing.as_ref()?.files)));
            let Some(files) = files else { return };
            // It says itself what it finds.
            files.check().unwrap_or_default();
        }
    });
}

/// The writer thread and the way to it.
struct Writing {
    /// Where each shard ends, durably. Readers wait on it.
    ends: Arc<[watch::Sender<u64>]>,
    appends: Option<mpsc::Sender<Append>>,
    thread: Option<JoinHandle<()>>,
    files: Arc<Files>,
    /// Held to the end; the kernel frees it when the process dies.
    _lock: File,
}

struct Append {
    shard: u16,
    records: Vec<Record>,
    answer: oneshot::Sender<Result<Vec<u64>, AppendError>>,
}

impl Writing {
    fn start(file: LogFile, ends: Vec<u64>, acked: Acked, lock: File) -> Writing {
        let ends: Arc<[_]> = ends.into_iter().map(watch::Sender::new).collect();
        let (appends, queue) = mpsc::channel(QUEUE_APPENDS_MAX);
        let known_ends = ends.clone();
        let files = Arc::clone(&file.files);
        let thread = std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || write_all(file, queue, &known_ends, acked))
            .expect("the system has room for a thread");
        Writing {
            ends,
            appends: Some(appends),
            thread: Some(thread),
            files,
            _lock: lock,
        }
    }
}

impl Drop for Writing {
    /// Waits for the transaction in flight, so that the folder is free when this is over.
    fn drop(&mut self) {
        self.appends = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's writer thread had panicked");
        }
    }
}

struct Writer {
    opened: Arc<Opened>,
    shard: u16,
}

#[async_trait]
impl LogWriter for Writer {
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError> {
        if records.is_empty() {
            return Ok(vec![]);
        }
        refuse_oversized(&records)?;
        let (answer, outcome) = oneshot::channel();
        let append = Append {
            shard: self.shard,
            records,
            answer,
        };
        let appends = self
            .opened
            .writing
            .as_ref()
            .and_then(|writing| writing.appends.as_ref());
        let ended = || AppendError::Refused("the log's writer thread has ended".into());
        appends.ok_or_else(ended)?.send(append).await.map_err(|_| ended())?;
        let lost = |_| Err(AppendError::Unknown("the log's writer thread has ended".into()));
        outcome.await.unwrap_or_else(lost)
    }
}

/// The writer thread: until nobody can append any more.
fn write_all(mut file: LogFile, mut queue: mpsc::Receiver<Append>, ends: &[watch::Sender<u64>], mut acked: Acked) {
    let mut records: u64 = ends.iter().map(|end| *end.borrow()).sum();
    let mut noted = 0;
    while let Some(group) = next_group(&mut queue) {
        let outcomes = file.write_group(&group);
        records += outcomes
            .iter()
            .flatten()
            .map(|offsets| offsets.end - offsets.start)
            .sum::<u64>();
        if records > noted {
            acked.note(records);
            noted = records;
        }
        for (append, outcome) in group.into_iter().zip(outcomes) {
            let answer = outcome.map(|offsets| {
                ends[usize::from(append.shard)].send_replace(offsets.end);
                offsets.collect()
            });
            // Whoever asked may have given up: the records stand, and its next take-over finds them.
            let _nobody_listens = append.answer.send(answer);
        }
    }
}

/// The appends of the next transaction; `None` when nobody can append any more.
fn next_group(queue: &mut mpsc::Receiver<Append>) -> Option<Vec<Append>> {
    let mut group = vec![queue.blocking_recv()?];
    while group.len() < GROUP_APPENDS_MAX
        && let Ok(append) = queue.try_recv()
    {
        group.push(append);
    }
    Some(group)
}

/// The file as its one writer has it.
struct LogFile {
    connection: Connection,
    files: Arc<Files>,
    /// What a transaction wrote that failed, or that a crash cut off, may still stand in the write-ahead file.
    has_remains: bool,
}

impl LogFile {
    /// After a look at what a crash may have left.
    fn open(folder: &Path) -> Result<LogFile, LogError> {
        refuse_damaged_wal(folder, Access::Write)?;
        refuse_lost_acks(folder)?;
        let connection = connect(folder, Access::Write)?;
        let is_empty = empty_wal(&connection);
        if let Err(error) = &is_empty {
            // It can be read all the same; the first append tries again.
            tracing::warn!("{}: {error}", folder.join(WAL_FILE).display());
        }
        Ok(LogFile {
            connection,
            files: Files::of(folder)?,
            has_remains: !is_empty.unwrap_or(false),
        })
    }

    /// Writes the appends in one transaction and says what each came to.
    fn write_group(&mut self, group: &[Append]) -> Vec<Result<Range<u64>, AppendError>> {
        if self.has_remains {
            // Behind what is written now they would look like what was durable and got lost.
            match empty_wal(&self.connection) {
                Ok(is_empty) => self.has_remains = !is_empty,
                Err(error) => return none_of(group, AppendError::Refused, &error),
            }
        }
        let written = write_uncommitted(&mut self.connection, group);
        let outcome = written.map(|(transaction, outcomes)| (transaction.commit(), outcomes));
        match outcome {
            Ok((Ok(()), outcomes)) => match self.files.check() {
                Ok(()) => outcomes
                    .into_iter()
                    .map(|offsets| offsets.ok_or(AppendError::Fenced))
                    .collect(),
                // Written, and not to be found again.
                Err(why) => none_of(group, AppendError::Unknown, &why),
            },
            Ok((Err(error), _)) if error.sqlite_error_code() != Some(ErrorCode::DiskFull) => {
                // Say, the fsync failed: rolled back for us, but all of it may stand in the file and come back after a power
                // cut. It is certain again when the file is emptied, before the next transaction.
                self.has_remains = true;
                none_of(group, AppendError::Unknown, &error)
            }
            // A group that found no room on its way to the file has no valid end there.
            Ok((Err(error), _)) | Err(error) => {
                self.has_remains = true;
                none_of(group, AppendError::Refused, &error)
            }
        }
    }
}

fn none_of(
    group: &[Append],
    outcome: fn(String) -> AppendError,
    error: &dyn std::error::Error,
) -> Vec<Result<Range<u64>, AppendError>> {
    group.iter().map(|_| Err(outcome(error.to_string()))).collect()
}

/// Moves what the write-ahead file has into the database and cuts it off. `false` when a reader still needs it, after a short wait.
fn empty_wal(connection: &Connection) -> rusqlite::Result<bool> {
    connection.busy_timeout(READERS_WAIT)?;
    let is_empty = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        Ok(row.get::<_, i64>(0)? == 0)
    });
    connection.busy_timeout(BUSY_MAX)?;
    is_empty
}

fn write_uncommitted<'c>(
    connection: &'c mut Connection,
    group: &[Append],
) -> rusqlite::Result<(Transaction<'c>, Vec<Option<Range<u64>>>)> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut outcomes = Vec::with_capacity(group.len());
    for append in group {
        outcomes.push(write(&transaction, append)?);
    }
    Ok((transaction, outcomes))
}

/// The offsets of the records, or `None` and nothing written when the shard has another owner.
fn write(connection: &Connection, append: &Append) -> rusqlite::Result<Option<Range<u64>>> {
    let shard = append.shard;
    let (epoch, first): (i64, i64) = connection
        .prepare_cached("SELECT epoch, next_offset FROM shards WHERE shard = ?1")?
        .query_row([shard], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some(epoch) = admit(epoch.cast_unsigned(), &append.records) else {
        return Ok(None);
    };
    let first = first.cast_unsigned();
    let end = first + append.records.len() as u64;
    let mut insert = connection.prepare_cached(
        "INSERT INTO records (shard, log_offset, key, headers, value, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (offset, record) in (first..end).zip(&append.records) {
        insert.execute(params![
            shard,
            offset.cast_signed(),
            record.key,
            encode_headers(&record.headers),
            record.value,
            checksum(shard, offset, record),
        ])?;
    }
    connection
        .prepare_cached("UPDATE shards SET epoch = ?2, next_offset = ?3 WHERE shard = ?1")?
        .execute(params![shard, epoch.cast_signed(), end.cast_signed()])?;
    Ok(Some(first..end))
}

struct Reader {
    folder: PathBuf,
    shard: u16,
    next: u64,
    /// `None` before the first read and after one that was given up half-way.
    connection: Option<Connection>,
    /// The shard's end, when this process writes it.
    grown: Option<watch::Receiver<u64>>,
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self, records_max: usize, wait: Duration) -> Result<Vec<(u64, Record)>, LogError> {
        if records_max == 0 {
            return Ok(vec![]);
        }
        let deadline = Instant::now() + wait;
        loop {
            let batch = self.ready(records_max).await?;
            if !batch.is_empty() || Instant::now() >= deadline {
                return Ok(batch);
            }
            self.wait_for_more(deadline).await?;
        }
    }
}

impl Reader {
    async fn ready(&mut self, records_max: usize) -> Result<Vec<(u64, Record)>, LogError> {
        let at_end = self.grown.as_ref().is_some_and(|end| *end.borrow() <= self.next);
        if at_end {
            return Ok(vec![]);
        }
        let (connection, folder) = (self.connection.take(), self.folder.clone());
        let (shard, from) = (self.shard, self.next);
        let (connection, batch) = blocking(move || {
            let connection = connection.map_or_else(|| connect(&folder, Access::Read), Ok)?;
            let batch = read(&connection, &folder, shard, from, records_max)?;
            Ok((connection, batch))
        })
        .await?;
        self.connection = Some(connection);
        self.next += batch.len() as u64;
        Ok(batch)
    }

    async fn wait_for_more(&mut self, deadline: Instant) -> Result<(), LogError> {
        let Some(end) = &mut self.grown else {
            sleep(POLL.min(deadline - Instant::now())).await;
            return Ok(());
        };
        let next = self.next;
        match timeout_at(deadline, end.wait_for(|end| *end > next)).await {
            Ok(Err(_)) => Err(LogError::Unavailable("the log was closed".into())),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }
}

/// The records from `from` on as one snapshot shows them: contiguous, unharmed, and none missing at the end.
fn read(
    connection: &Connection,
    folder: &Path,
    shard: u16,
    from: u64,
    records_max: usize,
) -> Result<Vec<(u64, Record)>, LogError> {
    let mut batch = vec![];
    match read_until_harm(connection, shard, from, records_max, &mut batch) {
        Ok(None) => Ok(batch),
        // What came before is whole. The harm is reported when the reader stands right in front of it.
        _ if !batch.is_empty() => Ok(batch),
        Ok(Some(why)) => Err(LogError::Damaged {
            shard,
            offset: from,
            why,
        }),
        Err(error) if is_damage(&error) => Err(LogError::Damaged {
            shard,
            offset: from,
            why: error.to_string(),
        }),
        Err(error) => Err(unavailable(folder, &error)),
    }
}

/// Adds records to `batch` and says why it stopped, if not for the end or the limits.
fn read_until_harm(
    connection: &Connection,
    shard: u16,
    from: u64,
    records_max: usize,
    batch: &mut Vec<(u64, Record)>,
) -> rusqlite::Result<Option<String>> {
    let snapshot = connection.unchecked_transaction()?;
    let end = next_offset(&snapshot, shard)?;
    let mut select = snapshot.prepare_cached(
        "SELECT log_offset, key, headers, value, checksum FROM records
         WHERE shard = ?1 AND log_offset >= ?2 ORDER BY log_offset LIMIT ?3",
    )?;
    let limit = i64::try_from(records_max).unwrap_or(i64::MAX);
    let mut rows = select.query(params![shard, from.cast_signed(), limit])?;
    let (mut next, mut bytes) = (from, 0);
    while bytes < BATCH_BYTES_MAX
        && let Some(row) = rows.next()?
    {
        let offset = row.get::<_, i64>(0)?.cast_unsigned();
        if offset != next {
            return Ok(Some(format!("it is missing, and the next record is {offset}")));
        }
        if offset >= end {
            return Ok(Some(format!("it is there, but the shard should end before {end}")));
        }
        let Some(headers) = decode_headers(row.get_ref(2)?.as_blob()?) else {
            return Ok(Some("its headers cannot be read".into()));
        };
        let record = Record {
            key: row.get(1)?,
            headers,
            value: row.get(3)?,
        };
        if checksum(shard, offset, &record) != row.get::<_, i64>(4)? {
            return Ok(Some("its checksum differs".into()));
        }
        bytes += record.size();
        next += 1;
        batch.push((offset, record));
    }
    let is_missing = batch.is_empty() && from < end;
    Ok(is_missing.then(|| format!("it is missing, but the shard should end before {end}")))
}

/// Over the record and its place, so that neither a changed byte nor a row in another's place goes unseen.
fn checksum(shard: u16, offset: u64, record: &Record) -> i64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let place = (offset << 16 | u64::from(shard)).wrapping_mul(GOLDEN);
    (record.fingerprint() ^ place).cast_signed()
}

fn lock(folder: &Path) -> Result<File, LogError> {
    let path = folder.join(LOCK_FILE);
    let file = files::open_file(&path).map_err(|error| unusable(&path, &error))?;
    let deadline = std::time::Instant::now() + LOOKING;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if std::time::Instant::now() < deadline => {
                std::thread::sleep(LOOKING / 10);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(LogError::Unavailable(format!(
                    "the folder {} is in use by another process that writes this log; stop that one first",
                    folder.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(&path, &error)),
        }
    }
}

/// Does a process write this log just now?
fn is_written(folder: &Path) -> bool {
    let file = File::open(folder.join(LOCK_FILE));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Asked while nobody writes.
fn refuse_damaged_wal(folder: &Path, access: Access) -> Result<(), LogError> {
    let path = folder.join(FILE);
    match wal::damage_in(&folder.join(WAL_FILE)) {
        Ok(None) => Ok(()),
        // Somebody began to write while it was read.
        Ok(Some(_)) if access == Access::Read && is_written(folder) => Ok(()),
        Ok(Some(why)) => Err(LogError::WrongSettings(format!(
            "{} is damaged: {why}; restore the folder from a copy",
            path.display()
        ))),
        Err(error) => Err(unusable(&path, &error)),
    }
}

/// Tidies nothing up, so that what is left can be looked at.
fn refuse_lost_acks(folder: &Path) -> Result<(), LogError> {
    let (path, note) = (folder.join(FILE), folder.join(acked::FILE));
    // First, for a writer may be at work: what it notes is in the log already.
    let noted = acked::noted_in(folder).map_err(|error| unusable(&note, &error))?;
    let Some(noted) = noted else { return Ok(()) };
    let records = match path.exists() {
        true => records_in(&connect(folder, Access::Read)?).map_err(|error| unavailable(folder, &error))?,
        false => 0,
    };
    if records >= noted {
        return Ok(());
    }
    Err(LogError::WrongSettings(format!(
        "{} had acked {noted} records and has {records}: it is damaged, or an older copy; restore the folder from the latest one. \
         If all that came later is meant to be gone, remove {}",
        path.display(),
        note.display()
    )))
}

/// Of all shards. None in a file whose creation was cut short.
fn records_in(connection: &Connection) -> rusqlite::Result<u64> {
    if !connection.table_exists(None, "shards")? {
        return Ok(0);
    }
    let records: Option<i64> = connection.query_row("SELECT sum(next_offset) FROM shards", [], |row| row.get(0))?;
    Ok(records.unwrap_or(0).cast_unsigned())
}

fn connect(folder: &Path, access: Access) -> Result<Connection, LogError> {
    let connect = || -> rusqlite::Result<Connection> {
        let connection = match access {
            Access::Write => {
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
                Connection::open_with_flags(folder.join(FILE), flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?
            }
            Access::Read => files::open_to_read(&folder.join(FILE))?,
        };
        connection.busy_timeout(BUSY_MAX)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        if access == Access::Write {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
        }
        Ok(connection)
    };
    connect().map_err(|error| unavailable(folder, &error))
}

fn make_tables(connection: &mut Connection, shards: u16) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLES)?;
    let is_new = meta(&transaction, "format")?.is_none();
    if is_new {
        let mut insert = transaction.prepare("INSERT INTO meta (name, value) VALUES (?1, ?2)")?;
        insert.execute(params!["format", FORMAT])?;
        insert.execute(params!["shards", shards])?;
        let mut insert = transaction.prepare("INSERT INTO shards (shard, epoch, next_offset) VALUES (?1, 0, 0)")?;
        for shard in 0..shards {
            insert.execute([shard])?;
        }
    }
    transaction.commit()
}

fn number_of_shards(connection: &Connection, folder: &Path) -> Result<u16, LogError> {
    let read = || -> rusqlite::Result<(i64, i64, i64)> {
        let rows = connection.query_row("SELECT count(*) FROM shards", [], |row| row.get(0))?;
        let number = |name| -> rusqlite::Result<i64> { Ok(meta(connection, name)?.unwrap_or(-1)) };
        Ok((number("format")?, number("shards")?, rows))
    };
    let failed = |error: rusqlite::Error| unavailable(folder, &error);
    if !connection.table_exists(None, "meta").map_err(failed)? {
        // Its creation was cut short.
        return Err(LogError::NotCreated(address(folder)));
    }
    let wrong = |what: String| LogError::WrongSettings(format!("{} {what}", folder.join(FILE).display()));
    match read().map_err(failed)? {
        (FORMAT, shards, rows) if shards == rows => {
            u16::try_from(shards).map_err(|_| wrong(format!("has {shards} shards: too many")))
        }
        (FORMAT, shards, rows) => Err(wrong(format!(
            "is damaged: it should have {shards} shards and has {rows}; restore it from a copy"
        ))),
        (format, ..) => Err(wrong(format!(
            "has format {format}, and this version of the program knows only {FORMAT}; use the version that wrote it"
        ))),
    }
}

fn meta(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
        .optional()
}

/// The shard's end as noted, which must be where its records end.
fn checked_end(connection: &Connection, folder: &Path, shard: u16) -> Result<u64, LogError> {
    let read = || -> rusqlite::Result<(u64, u64)> {
        let last: Option<i64> =
            connection.query_row("SELECT max(log_offset) FROM records WHERE shard = ?1", [shard], |row| {
                row.get(0)
            })?;
        let end = last.map_or(0, |last| last.cast_unsigned() + 1);
        Ok((next_offset(connection, shard)?, end))
    };
    match read() {
        Ok((noted, end)) if noted == end => Ok(end),
        Ok((noted, end)) => Err(LogError::Damaged {
            shard,
            offset: noted.min(end),
            why: format!("the shard should end before {noted}, and its records end before {end}"),
        }),
        Err(error) => Err(unavailable(folder, &error)),
    }
}

/// Where the shard ends, as noted in the transaction that wrote its last record.
fn next_offset(connection: &Connection, shard: u16) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT next_offset FROM shards WHERE shard = ?1")?
        .query_row([shard], |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))
}

fn address(folder: &Path) -> String {
    format!("sqlite:{}", folder.display())
}

fn only_to_read(folder: &Path) -> LogError {
    LogError::Unavailable(format!("{} was opened to read only", address(folder)))
}

fn unusable(path: &Path, error: &std::io::Error) -> LogError {
    LogError::Unavailable(format!("{}: {error}", path.display()))
}

fn unavailable(folder: &Path, error: &rusqlite::Error) -> LogError {
    LogError::Unavailable(format!("{}: {error}", folder.join(FILE).display()))
}

/// The file says what it cannot say, in contrast to a file that cannot be asked.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        }
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::Utf8Error(..)
        | rusqlite::Error::QueryReturnedNoRows => true,
        _ => false,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    let unfinished = |error: tokio::task::JoinError| Err(LogError::Unavailable(error.to_string()));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(unfinished)
}

#[cfg(test)]
mod specs {
    use super::*;

    fn append(shard: u16, records: Vec<Record>) -> Append {
        let (answer, _) = oneshot::channel();
        Append { shard, records, answer }
    }

    fn record(epoch: u64, kind: &str, bytes: usize) -> Record {
        Record {
            key: b"key".to_vec(),
            headers: vec![
                ("ce_type".into(), kind.into()),
                ("ce_epoch".into(), epoch.to_string().into_bytes()),
            ],
            value: Some(vec![7; bytes]),
        }
    }

    fn claim(epoch: u64) -> Record {
        record(epoch, "crm.log.shard-claimed.v1", 10)
    }

    fn event(epoch: u64, bytes: usize) -> Record {
        record(epoch, "crm.customer.closed.v1", bytes)
    }

    fn log(folder: &Path) -> LogFile {
        let mut connection = connect(folder, Access::Write).unwrap();
        make_tables(&mut connection, 2).unwrap();
        drop(lock(folder).unwrap());
        LogFile {
            connection,
            files: Files::of(folder).unwrap(),
            has_remains: false,
        }
    }

    #[test]
    fn a_fenced_append_leaves_the_others_of_its_group_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path());
        let outcomes = log.write_group(&[
            append(0, vec![claim(1), event(1, 5)]),
            append(0, vec![event(2, 5)]),
            append(0, vec![event(1, 5), claim(3)]),
            append(0, vec![claim(2), event(2, 5)]),
            append(0, vec![event(1, 5)]),
            append(1, vec![event(0, 5)]),
            append(1, vec![claim(1)]),
        ]);
        let written: Vec<Option<Range<u64>>> = outcomes.into_iter().map(Result::ok).collect();
        assert_eq!(written, [Some(0..2), None, None, Some(2..4), None, None, Some(0..1)]);
    }

    #[test]
    fn a_full_disk_refuses_everything_and_works_again_when_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path());
        let set_room = |log: &LogFile, pages: i64| {
            log.connection.pragma_update(None, "max_page_count", pages).unwrap();
        };
        set_room(&log, 50);
        let group = [append(0, vec![claim(1)]), append(1, vec![claim(1), event(1, 500_000)])];
        for outcome in log.write_group(&group) {
            assert!(matches!(outcome, Err(AppendError::Refused(_))), "{outcome:?}");
        }
        assert_eq!(next_offset(&log.connection, 0).unwrap(), 0);

        set_room(&log, 5_000);
        let outcomes: Vec<_> = log.write_group(&group).into_iter().map(Result::unwrap).collect();
        assert_eq!(outcomes, [0..1, 0..2]);
        let records = read(&log.connection, folder.path(), 1, 0, 10).unwrap();
        assert_eq!(records, [(0, claim(1)), (1, event(1, 500_000))]);
    }

    #[test]
    fn a_transaction_takes_no_more_than_its_appends() {
        let (appends, mut queue) = mpsc::channel(QUEUE_APPENDS_MAX);
        for _ in 0..2 * GROUP_APPENDS_MAX + 7 {
            appends.try_send(append(0, vec![event(1, 5)])).unwrap();
        }
        drop(appends);
        let groups: Vec<usize> = std::iter::from_fn(|| next_group(&mut queue).map(|group| group.len())).collect();
        assert_eq!(groups, [GROUP_APPENDS_MAX, GROUP_APPENDS_MAX, 7]);
    }

    #[tokio::test]
    async fn so_many_appends_wait_while_the_file_is_busy_and_then_all_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = log(folder.path());
        let other = connect(folder.path(), Access::Write).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let lock = lock(folder.path()).unwrap();
        let acked = Acked::open(folder.path()).unwrap();
        let writing = Writing::start(file, vec![0, 0], acked, lock);
        let appends = writing.appends.clone().unwrap();
        let mut answers = vec![];
        loop {
            let (answer, outcome) = oneshot::channel();
            let records = vec![if answers.is_empty() { claim(1) } else { event(1, 5) }];
            let shard = 0;
            match appends.try_send(Append { shard, records, answer }) {
                Ok(()) => answers.push(outcome),
                // The thread has had the time to take its group.
                Err(_) if answers.len() > QUEUE_APPENDS_MAX => break,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        let waiting = answers.len();
        assert!(waiting <= QUEUE_APPENDS_MAX + GROUP_APPENDS_MAX, "{waiting} wait");
        other.execute_batch("COMMIT").unwrap();
        for (place, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.await.unwrap().unwrap(), [place as u64]);
        }
        drop(appends);
    }

    #[test]
    fn a_write_ahead_file_that_a_reader_let_grow_is_cut_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path());
        let wal_bytes = || std::fs::metadata(folder.path().join(WAL_FILE)).unwrap().len();
        log.write_group(&[append(0, vec![claim(1)])]);
        let mut write = |times: usize| {
            for _ in 0..times {
                let outcomes = log.write_group(&[append(0, vec![event(1, 1_000_000)])]);
                assert!(outcomes[0].is_ok(), "{outcomes:?}");
            }
        };
        let reader = connect(folder.path(), Access::Read).unwrap();
        reader.execute_batch("BEGIN").unwrap();
        next_offset(&reader, 0).unwrap();
        write(70);
        assert!(wal_bytes() > WAL_BYTES_MAX.cast_unsigned(), "{}", wal_bytes());
        reader.execute_batch("COMMIT").unwrap();
        write(10);
        assert!(wal_bytes() <= WAL_BYTES_MAX.cast_unsigned(), "{}", wal_bytes());
    }

    #[test]
    fn what_a_failed_transaction_left_is_cleared_before_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path());
        log.write_group(&[append(0, vec![claim(1)])]);
        log.has_remains = true;
        log.write_group(&[append(0, vec![event(1, 5)])]);
        assert!(!log.has_remains);
        // One transaction: its frames, and none from before.
        let bytes = std::fs::metadata(folder.path().join(WAL_FILE)).unwrap().len();
        assert!(bytes < 32 + 5 * (24 + 4_096), "{bytes}");
    }
}
