//! The log in a PostgreSQL database, for those without Kafka: the schema `crm_log`, in a database of its own or beside the
//! read models.
//!
//! An append is one statement outside of any transaction block, hence one round trip: it moves the shard's end if the epoch
//! is still the writer's, inserts the records, and is committed and flushed before the server says that it is ready. The
//! row of the shard is locked meanwhile, so that appends to a shard come one after the other and offsets have no gaps, in
//! the order of commits too: who sees an offset sees all before it. PostgreSQL shares flushes between shards by itself.
//!
//! Readers of this process are woken by its writers. For what others write, one question for all shards is asked every few
//! milliseconds while somebody waits. NOTIFY would spare that, but commits that notify wait for each other in the whole
//! server, flush and all: appends of several shards could not share one any more.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::tokio_postgres::error::{Severity, SqlState};
use deadpool_postgres::tokio_postgres::types::ToSql;
use deadpool_postgres::tokio_postgres::{Client, Config, Error, NoTls, Row, Statement};
use deadpool_postgres::{Object, Pool, PoolError};
use services::log::{AppendError, EventLog, LogError, LogReader, LogWriter, Record};
use tokio::sync::{Mutex, OnceCell, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::refuse_oversized;
use super::row::{decode_headers, encode_headers, epochs};
use crate::postgres::{self, Probe};

/// Of the tables below. Another one is refused, never guessed at.
const FORMAT: i32 = 1;
/// Connections for reading, used for moments. Each writer has one more, of its own.
pub const CONNECTIONS_MAX: usize = 8;
/// How long an append waits for its answer, and anything else for its.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How often waiting readers look for what other processes wrote.
const POLL: Duration = Duration::from_millis(20);
/// Bytes after which a batch ends, so that one of large records does not fill the memory.
const BATCH_BYTES_MAX: i64 = 2 * 1024 * 1024;

/// What every connection asks of the server; it cannot be overruled by the URL. The isolation is what lets an append wait
/// for another one and then look at the epoch again. The statements have one good plan each, which must not depend on how
/// many rows the server believes a young table to have. A batch fits into the memory of its sum.
const SESSION: &str = "-c synchronous_commit=on -c default_transaction_isolation=read\\ committed \
     -c statement_timeout=10000 -c idle_in_transaction_session_timeout=10000 \
     -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_bitmapscan=off \
     -c max_parallel_workers_per_gather=0 -c work_mem=16MB -c jit=off \
     -c client_min_messages=warning";

/// One at a time, over all processes.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('crm log'), 0)";
const TABLES: &str = "
    CREATE SCHEMA IF NOT EXISTS crm_log;
    CREATE TABLE IF NOT EXISTS crm_log.meta (
        name text PRIMARY KEY,
        value int NOT NULL
    );
    CREATE TABLE IF NOT EXISTS crm_log.shards (
        shard int PRIMARY KEY,
        epoch bigint NOT NULL,
        next_offset bigint NOT NULL
    );
    CREATE TABLE IF NOT EXISTS crm_log.records (
        log_offset bigint NOT NULL,
        checksum bigint NOT NULL,
        shard int NOT NULL,
        key bytea NOT NULL,
        headers bytea NOT NULL,
        value bytea,
        PRIMARY KEY (shard, log_offset)
    )";
const META: &str = "SELECT name, value FROM crm_log.meta";
const ADD_META: &str = "INSERT INTO crm_log.meta (name, value) VALUES ($1, $2)";
const ADD_SHARDS: &str = "INSERT INTO crm_log.shards (shard, epoch, next_offset)
    SELECT shard, 0, 0 FROM generate_series(0, $1 - 1) shard";
const SETTINGS: &str = "SELECT current_setting('fsync'), current_setting('full_page_writes'),
    current_setting('synchronous_commit'), current_setting('transaction_read_only')";
const ENDS: &str = "SELECT shard, next_offset FROM crm_log.shards ORDER BY shard";
const END: &str = "SELECT next_offset FROM crm_log.shards WHERE shard = $1";
/// Where the shard ends as noted, and where its records end.
const BOTH_ENDS: &str = "SELECT next_offset, coalesce(
        (SELECT log_offset + 1 FROM crm_log.records WHERE shard = $1 ORDER BY log_offset DESC LIMIT 1), 0)
    FROM crm_log.shards WHERE shard = $1";
/// Shard, epoch needed, epoch left (both null: any), and the columns of the records. No row = another epoch is in force.
const APPEND: &str = "
    WITH owned AS (
        UPDATE crm_log.shards
        SET next_offset = next_offset + cardinality($4::bytea[]), epoch = coalesce($3::bigint, epoch)
        WHERE shard = $1 AND epoch = coalesce($2::bigint, epoch)
        RETURNING next_offset - cardinality($4::bytea[]) AS first_offset
    ), written AS (
        INSERT INTO crm_log.records (log_offset, checksum, shard, key, headers, value)
        SELECT first_offset + i - 1, fingerprint # ((first_offset + i - 1) << 16 | $1::int), $1, key, headers, value
        FROM owned, unnest($4::bytea[], $5::bytea[], $6::bytea[], $7::bigint[])
            WITH ORDINALITY AS given (key, headers, value, fingerprint, i)
    )
    SELECT first_offset FROM owned";
/// Shard, offset, records, bytes. First a row with the shard's end, then the records: one statement, hence one snapshot.
const READ: &str = "
    SELECT next_offset, NULL::bigint, NULL::bigint, NULL::bytea, NULL::bytea, NULL::bytea
    FROM crm_log.shards WHERE shard = $1
    UNION ALL
    SELECT NULL, log_offset, checksum, key, headers, value
    FROM (
        SELECT *, sum(octet_length(headers) + coalesce(octet_length(value), 0))
            OVER (ORDER BY log_offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
        FROM (
            SELECT log_offset, checksum, key, headers, value FROM crm_log.records
            WHERE shard = $1 AND log_offset >= $2 ORDER BY log_offset LIMIT $3
        ) AS few
    ) AS batch
    WHERE coalesce(bytes_before, 0) < $4";

/// The log in one database.
pub struct PostgresLog(Arc<Inner>);

struct Inner {
    config: Config,
    address: String,
    pool: Pool,
    /// What is known of each shard's end; readers wait on it. Set when the log was opened.
    ends: OnceCell<Vec<watch::Sender<u64>>>,
    /// When somebody last looked for what other processes wrote.
    looked: Mutex<Option<Instant>>,
}

impl PostgresLog {
    /// The log in the database of `postgres://user:password@host:port/database`. Nothing is connected yet.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(url: &str) -> Result<PostgresLog, LogError> {
        let mut config = postgres::configure(url).map_err(LogError::WrongSettings)?;
        let options = match config.get_options() {
            None => SESSION.to_owned(),
            Some(own) => format!("{own} {SESSION}"),
        };
        config.options(options);
        Ok(PostgresLog(Arc::new(Inner {
            address: postgres::address(&config),
            pool: postgres::pool(config.clone(), CONNECTIONS_MAX, Probe::Never),
            config,
            ends: OnceCell::new(),
            looked: Mutex::new(None),
        })))
    }
}

#[async_trait]
impl EventLog for PostgresLog {
    fn address(&self) -> String {
        self.0.address.clone()
    }

    async fn create(&self, shards: u16) -> Result<(), LogError> {
        if shards == 0 {
            return Err(LogError::WrongSettings("a log needs at least one shard".into()));
        }
        let found = match self.0.open().await {
            Err(LogError::NotCreated(_)) => {
                self.0.make_tables(shards).await?;
                self.0.open().await?
            }
            found => found?,
        };
        match found == shards {
            true => Ok(()),
            false => Err(LogError::WrongSettings(format!(
                "the log {} exists with {found} shards, not {shards}; the number cannot be changed, only a copy can have another",
                self.0.address
            ))),
        }
    }

    async fn open(&self) -> Result<u16, LogError> {
        self.0.open().await
    }

    async fn end(&self, shard: u16) -> Result<u64, LogError> {
        self.0.known_end(shard).await?;
        let rows = self.0.rows(END, &[&i32::from(shard)]).await;
        let rows = rows.map_err(|failed| self.0.error(failed))?;
        match rows.first() {
            Some(row) => Ok(self.0.cell::<i64>(row, 0)?.cast_unsigned()),
            None => Err(self.0.no_shard(shard)),
        }
    }

    async fn writer(&self, shard: u16) -> Result<Box<dyn LogWriter>, LogError> {
        self.0.known_end(shard).await?;
        let connected = timeout(ANSWER_MAX, Writer::connect(&self.0, shard));
        let silent = |_| Err(self.0.error(Failed::silent()));
        Ok(Box::new(connected.await.unwrap_or_else(silent)?))
    }

    async fn reader(&self, shard: u16, from: u64) -> Result<Box<dyn LogReader>, LogError> {
        if from > self.end(shard).await? {
            return Err(LogError::OutOfRange { shard, offset: from });
        }
        let end = self.0.known_end(shard).await?.subscribe();
        Ok(Box::new(Reader {
            log: Arc::clone(&self.0),
            shard,
            next: from,
            end,
        }))
    }

    async fn check(&self) -> Result<(), LogError> {
        self.end(0).await.map(drop)
    }
}

impl Inner {
    /// In one transaction, so that what was made half was not made; nothing when somebody was faster.
    async fn make_tables(&self, shards: u16) -> Result<(), LogError> {
        let made = async {
            let mut client = self.pool.get().await?;
            let transaction = client.transaction().await?;
            transaction.batch_execute(LOCK).await?;
            transaction.batch_execute(TABLES).await?;
            if transaction.query(META, &[]).await?.is_empty() {
                transaction.execute(ADD_META, &[&"format", &FORMAT]).await?;
                transaction.execute(ADD_META, &[&"shards", &i32::from(shards)]).await?;
                transaction.execute(ADD_SHARDS, &[&i32::from(shards)]).await?;
            }
            Ok(transaction.commit().await?)
        };
        let made = timeout(ANSWER_MAX, made).await;
        made.unwrap_or_else(|_| Err(Failed::silent()))
            .map_err(|failed| self.error(failed))
    }

    async fn open(&self) -> Result<u16, LogError> {
        let meta = self.rows(META, &[]).await.map_err(|failed| self.error(failed))?;
        let (mut format, mut shards) = (None, None);
        for row in &meta {
            match self.cell::<String>(row, 0)?.as_str() {
                "format" => format = Some(self.cell::<i32>(row, 1)?),
                "shards" => shards = Some(self.cell::<i32>(row, 1)?),
                _ => {}
            }
        }
        let wrong = |what: String| LogError::WrongSettings(format!("the log {} {what}", self.address));
        if format != Some(FORMAT) {
            let format = format.map_or("none".to_owned(), |format| format.to_string());
            return Err(wrong(format!(
                "has format {format}, and this version of the program knows only {FORMAT}; use the version that wrote it"
            )));
        }
        let rows = self.rows(ENDS, &[]).await.map_err(|failed| self.error(failed))?;
        let shards = shards.and_then(|shards| u16::try_from(shards).ok());
        let Some(shards) = shards.filter(|shards| usize::from(*shards) == rows.len()) else {
            return Err(wrong(format!(
                "is damaged: its shards are not {shards:?} but {}; restore it from a copy",
                rows.len()
            )));
        };
        let settings = self.rows(SETTINGS, &[]).await.map_err(|failed| self.error(failed))?;
        self.check_server(&settings)?;
        let unknown = || async { (0..shards).map(|_| watch::Sender::new(0)).collect() };
        let known = self.ends.get_or_init(unknown).await;
        match known.len() == usize::from(shards) {
            true => Ok(shards),
            false => Err(wrong(
                "is another one than before: it has another number of shards".into(),
            )),
        }
    }

    /// May what it commits be called durable?
    fn check_server(&self, settings: &[Row]) -> Result<(), LogError> {
        let row = settings.first().ok_or_else(|| self.error(Failed::silent()))?;
        let setting = |i| self.cell::<String>(row, i);
        if setting(0)? != "on" {
            return Err(LogError::WrongSettings(format!(
                "the server of {} would lose events in a power cut: it has fsync=off. Set fsync=on in postgresql.conf and \
                 have it read that again (SELECT pg_reload_conf())",
                self.address
            )));
        }
        if setting(1)? != "on" {
            // On a file system that never tears a page, that is right.
            tracing::warn!(
                "the server of {} has full_page_writes=off: on most file systems a power cut can damage the log",
                self.address
            );
        }
        Ok(())
    }

    async fn known_end(&self, shard: u16) -> Result<&watch::Sender<u64>, LogError> {
        if self.ends.get().is_none() {
            self.open().await?;
        }
        let known = self.ends.get().and_then(|ends| ends.get(usize::from(shard)));
        known.ok_or_else(|| self.no_shard(shard))
    }

    fn no_shard(&self, shard: u16) -> LogError {
        let has = self.ends.get().map_or(0, Vec::len);
        LogError::WrongSettings(format!("there is no shard {shard}: the log has {has}, counted from 0"))
    }

    /// Wakes the readers of the shard, if that is news.
    fn publish(&self, shard: u16, end: u64) {
        if let Some(known) = self.ends.get().and_then(|ends| ends.get(usize::from(shard))) {
            known.send_if_modified(|known| {
                let is_news = *known < end;
                *known = end.max(*known);
                is_news
            });
        }
    }

    /// Asks where all shards end, unless somebody did just now or is about it.
    async fn look_for_more(&self) -> Result<(), LogError> {
        let Ok(mut looked) = self.looked.try_lock() else {
            return Ok(());
        };
        if looked.is_some_and(|at| at.elapsed() < POLL) {
            return Ok(());
        }
        let rows = self.rows(ENDS, &[]).await;
        *looked = Some(Instant::now());
        for row in &rows.map_err(|failed| self.error(failed))? {
            let shard = self.cell::<i32>(row, 0)?;
            let end = self.cell::<i64>(row, 1)?.cast_unsigned();
            self.publish(shard as u16, end);
        }
        Ok(())
    }

    /// Asks something, on a connection that is given back, or away when it may be broken.
    async fn rows(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Failed> {
        let client = self.pool.get().await?;
        let answer = async {
            let statement = client.prepare_cached(statement).await?;
            Ok(client.query(&statement, parameters).await?)
        };
        let answer = timeout(ANSWER_MAX, answer)
            .await
            .unwrap_or_else(|_| Err(Failed::silent()));
        if let Err(Failed { code: None, .. }) = answer {
            drop(Object::take(client));
        }
        answer
    }

    fn cell<'r, T: deadpool_postgres::tokio_postgres::types::FromSql<'r>>(
        &self,
        row: &'r Row,
        i: usize,
    ) -> Result<T, LogError> {
        row.try_get(i).map_err(|error| self.error(error.into()))
    }

    fn error(&self, failed: Failed) -> LogError {
        let why = format!("{}: {}", self.address, failed.words);
        let Some(code) = &failed.code else {
            return LogError::Unavailable(why);
        };
        let not_created = [&SqlState::UNDEFINED_TABLE, &SqlState::INVALID_SCHEMA_NAME];
        if not_created.contains(&code) {
            return match self.ends.get() {
                None => LogError::NotCreated(self.address.clone()),
                Some(_) => LogError::Unavailable(format!(
                    "the tables of the log {} are gone: the schema crm_log was dropped or renamed while the program used it; nothing \
                     more is acked. Stop the program, restore the schema from the latest copy, and start the program again",
                    self.address
                )),
            };
        }
        let to_be_mended_first = [
            &SqlState::INVALID_CATALOG_NAME,
            &SqlState::INVALID_PASSWORD,
            &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            &SqlState::INSUFFICIENT_PRIVILEGE,
            &SqlState::READ_ONLY_SQL_TRANSACTION,
        ];
        match to_be_mended_first.contains(&code) {
            true => LogError::WrongSettings(why),
            false => LogError::Unavailable(why),
        }
    }
}

/// Why the server did not answer a question.
struct Failed {
    /// The server's own; `None` = the connection may be broken.
    code: Option<SqlState>,
    words: String,
}

impl Failed {
    fn silent() -> Failed {
        Failed {
            code: None,
            words: format!("no answer within {} s", ANSWER_MAX.as_secs()),
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed {
            code: error.code().cloned(),
            words: postgres::words(&error),
        }
    }
}

impl From<PoolError> for Failed {
    fn from(error: PoolError) -> Failed {
        match error {
            PoolError::Backend(error) => error.into(),
            other => Failed {
                code: None,
                words: other.to_string(),
            },
        }
    }
}

/// One connection, for one claim.
struct Writer {
    log: Arc<Inner>,
    shard: u16,
    client: Client,
    connection: JoinHandle<()>,
    append: Statement,
    /// Something sent has no known outcome, so nothing more is sent.
    is_spent: bool,
}

impl Writer {
    async fn connect(log: &Arc<Inner>, shard: u16) -> Result<Writer, LogError> {
        let error = |error: Error| log.error(error.into());
        let (client, connection) = log.config.connect(NoTls).await.map_err(error)?;
        let connection = tokio::spawn(async move {
            // Whoever waits for an answer is told.
            if let Err(error) = connection.await {
                tracing::debug!("a log writer's connection ended: {error}");
            }
        });
        let append = client.prepare(APPEND).await;
        let writer = Writer {
            log: Arc::clone(log),
            shard,
            client,
            connection,
            append: append.map_err(error)?,
            is_spent: false,
        };
        writer.check().await?;
        Ok(writer)
    }

    /// That the server may be written to, and that the shard ends where it should.
    async fn check(&self) -> Result<(), LogError> {
        let (log, shard) = (&self.log, self.shard);
        let error = |error: Error| log.error(error.into());
        let settings = self.client.query(SETTINGS, &[]).await.map_err(error)?;
        log.check_server(&settings)?;
        for row in &settings {
            let (commit, read_only): (String, String) = (log.cell(row, 2)?, log.cell(row, 3)?);
            if read_only != "off" {
                let why = format!("{} is read-only: a standby, or set so by hand", log.address);
                return Err(LogError::WrongSettings(why));
            }
            if commit != "on" {
                let why = format!(
                    "{} commits with synchronous_commit={commit}, whatever we ask for: something between us and the \
                     server drops the settings of the connection",
                    log.address
                );
                return Err(LogError::WrongSettings(why));
            }
        }
        let ends = self.client.query_opt(BOTH_ENDS, &[&i32::from(shard)]).await;
        let row = ends.map_err(error)?.ok_or_else(|| log.no_shard(shard))?;
        let noted = log.cell::<i64>(&row, 0)?.cast_unsigned();
        let end = log.cell::<i64>(&row, 1)?.cast_unsigned();
        match noted == end {
            true => Ok(()),
            false => Err(LogError::Damaged {
                shard,
                offset: noted.min(end),
                why: format!("the shard should end before {noted}, and its records end before {end}"),
            }),
        }
    }
}

#[async_trait]
impl LogWriter for Writer {
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError> {
        if self.is_spent {
            let why = "an earlier append of this writer has no known outcome; nothing more was sent";
            return Err(AppendError::Unknown(why.into()));
        }
        if records.is_empty() {
            return Ok(vec![]);
        }
        refuse_oversized(&records)?;
        let epochs = epochs(&records)?;
        let needed = epochs.map(|epochs| epochs.needed.cast_signed());
        let left = epochs.map(|epochs| epochs.left.cast_signed());
        let keys: Vec<&[u8]> = records.iter().map(|record| &*record.key).collect();
        let headers: Vec<Vec<u8>> = records.iter().map(|record| encode_headers(&record.headers)).collect();
        let values: Vec<Option<&[u8]>> = records.iter().map(|record| record.value.as_deref()).collect();
        let fingerprints: Vec<i64> = records.iter().map(|it| it.fingerprint().cast_signed()).collect();
        let shard = i32::from(self.shard);
        let parameters: [&(dyn ToSql + Sync); 7] = [&shard, &needed, &left, &keys, &headers, &values, &fingerprints];

        // Also when the caller gives up waiting.
        self.is_spent = true;
        // The answer is there when the server is ready for another question: after the commit, not after the row.
        let answer = timeout(ANSWER_MAX, self.client.query_opt(&self.append, &parameters)).await;
        let outcome = match answer {
            Ok(Ok(Some(row))) => row.try_get::<_, i64>(0).map_err(|error| outcome_of(&error)),
            Ok(Ok(None)) => Err(AppendError::Fenced),
            Ok(Err(error)) => Err(outcome_of(&error)),
            Err(_) => Err(AppendError::Unknown(Failed::silent().words)),
        };
        self.is_spent = matches!(outcome, Err(AppendError::Unknown(_)));
        let first = outcome?.cast_unsigned();
        let end = first + records.len() as u64;
        self.log.publish(self.shard, end);
        Ok((first..end).collect())
    }
}

impl Drop for Writer {
    /// Closes the connection at once, also when the server is silent.
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What an error leaves of an append. The server says ERROR only of a transaction that it undid, and of no other: it would
/// rather stop than fail so after a commit. Told to stop, or lost on the way, it may have committed before.
fn outcome_of(error: &Error) -> AppendError {
    let words = postgres::words(error);
    let no_room = |code: &SqlState| ["53", "54"].iter().any(|class| code.code().starts_with(class));
    match error.as_db_error() {
        Some(refusal) if refusal.parsed_severity() == Some(Severity::Error) && no_room(refusal.code()) => {
            AppendError::Refused(words)
        }
        // Nothing was written in most of these cases either; but the next take-over finds out, and tries again.
        _ => AppendError::Unknown(words),
    }
}

struct Reader {
    log: Arc<Inner>,
    shard: u16,
    next: u64,
    /// The shard's end, as far as it is known.
    end: watch::Receiver<u64>,
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self, records_max: usize, wait: Duration) -> Result<Vec<(u64, Record)>, LogError> {
        if records_max == 0 {
            return Ok(vec![]);
        }
        let deadline = Instant::now() + wait;
        loop {
            let known = *self.end.borrow();
            let batch = self.ready(records_max).await?;
            if !batch.is_empty() || !self.grows(known, deadline).await? {
                return Ok(batch);
            }
        }
    }
}

impl Reader {
    /// Waits until more than the end `known` is known; `false` when it was not by the deadline.
    async fn grows(&mut self, known: u64, deadline: Instant) -> Result<bool, LogError> {
        let next = self.next;
        loop {
            let until = deadline.min(Instant::now() + POLL);
            let more = self.end.wait_for(|end| *end > next && *end != known);
            // We hold the other side of the channel ourselves, so that it does not close.
            if timeout_at(until, more).await.is_ok() {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            self.log.look_for_more().await?;
        }
    }

    /// The records from `next` on as one snapshot shows them: contiguous, unharmed, and none missing at the end.
    async fn ready(&mut self, records_max: usize) -> Result<Vec<(u64, Record)>, LogError> {
        let (shard, from) = (self.shard, self.next);
        let damaged = |why: String| LogError::Damaged {
            shard,
            offset: from,
            why,
        };
        let limit = i64::try_from(records_max).unwrap_or(i64::MAX);
        let parameters: [&(dyn ToSql + Sync); 4] = [&i32::from(shard), &from.cast_signed(), &limit, &BATCH_BYTES_MAX];
        let rows = match self.log.rows(READ, &parameters).await {
            Ok(rows) => rows,
            Err(Failed {
                code: Some(code),
                words,
            }) if is_damage(&code) => return Err(damaged(words)),
            Err(failed) => return Err(self.log.error(failed)),
        };
        let end = rows.first().map(|row| self.log.cell::<Option<i64>>(row, 0));
        let Some(end) = end.transpose()?.flatten().map(i64::cast_unsigned) else {
            return Err(damaged("the row of its shard is missing".into()));
        };
        if from > end {
            return Err(LogError::OutOfRange { shard, offset: from });
        }
        let mut batch = Vec::with_capacity(rows.len());
        let harm = self.take(&rows[1..], end, &mut batch)?;
        match harm {
            // What came before is whole. The harm is reported when the reader stands right in front of it.
            _ if !batch.is_empty() => {}
            Some(why) => return Err(damaged(why)),
            None if from < end => {
                let why = format!("it is missing, but the shard should end before {end}");
                return Err(damaged(why));
            }
            None => {}
        }
        self.next += batch.len() as u64;
        Ok(batch)
    }

    /// Adds records to `batch` and says why it stopped, if not at the last row.
    fn take(&self, rows: &[Row], end: u64, batch: &mut Vec<(u64, Record)>) -> Result<Option<String>, LogError> {
        for row in rows {
            let offset = self.log.cell::<i64>(row, 1)?.cast_unsigned();
            let next = self.next + batch.len() as u64;
            if offset != next {
                return Ok(Some(format!("it is missing, and the next record is {offset}")));
            }
            if offset >= end {
                return Ok(Some(format!("it is there, but the shard should end before {end}")));
            }
            let Some(headers) = decode_headers(self.log.cell(row, 4)?) else {
                return Ok(Some("its headers cannot be read".into()));
            };
            let record = Record {
                key: self.log.cell(row, 3)?,
                headers,
                value: self.log.cell(row, 5)?,
            };
            // Over the record and its place, as the append notes it.
            let place = offset << 16 | u64::from(self.shard);
            if (record.fingerprint() ^ place).cast_signed() != self.log.cell::<i64>(row, 2)? {
                return Ok(Some("its checksum differs".into()));
            }
            batch.push((offset, record));
        }
        Ok(None)
    }
}

/// A page or an index that the server itself finds wrong.
fn is_damage(code: &SqlState) -> bool {
    [&SqlState::DATA_CORRUPTED, &SqlState::INDEX_CORRUPTED].contains(&code)
}
