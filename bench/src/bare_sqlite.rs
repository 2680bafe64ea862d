//! The bare limits on SQLite: the rows that the log would insert, one transaction a command or one a group.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use async_trait::async_trait;
use rusqlite::{Connection, params};
use services::log::Record;
use tokio::sync::{mpsc, oneshot};

use crate::load::{Load, Measured, closed_loop};
use crate::meters::Meters;
use crate::session::{Class, Contender};

/// Rows of one transaction at most: as many as the log allows.
const GROUP_MAX: usize = 2_000;
const QUEUE_MAX: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transactions {
    OnePerCommand,
    OnePerGroup,
}

/// A thread with the connection; clients send it rows and wait until theirs is durable.
pub struct BareInsert {
    transactions: Transactions,
    rows: mpsc::Sender<(u64, oneshot::Sender<()>)>,
    reader: Connection,
    next: Arc<AtomicU64>,
    acked: Arc<AtomicU64>,
}

impl BareInsert {
    /// In `folder`, with the journal and the fsyncs of the log.
    pub fn new(folder: &Path, transactions: Transactions, records: Vec<Record>) -> anyhow::Result<BareInsert> {
        let path = folder.join("rows.db");
        let mut connection = Connection::open(&path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE records (shard INTEGER NOT NULL, log_offset INTEGER NOT NULL, key BLOB NOT NULL,
             headers BLOB NOT NULL, value BLOB, checksum INTEGER NOT NULL, PRIMARY KEY (shard, log_offset)) STRICT, WITHOUT ROWID",
        )?;
        let rows: Vec<Row> = records.into_iter().map(Row::of).collect();
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        std::thread::Builder::new().name("bare-insert".into()).spawn(move || {
            if let Err(error) = insert_all(&mut connection, queue, &rows, transactions) {
                tracing::error!("the bare insert ended: {error}");
            }
        })?;
        Ok(BareInsert {
            transactions,
            rows: sender,
            reader: Connection::open(path)?,
            next: Arc::default(),
            acked: Arc::default(),
        })
    }
}

/// A record as the log's row has it; encoded before the clock starts.
struct Row {
    key: Vec<u8>,
    headers: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Row {
    fn of(record: Record) -> Row {
        let mut headers = Vec::new();
        for (name, value) in &record.headers {
            for part in [name.as_bytes(), value] {
                headers.extend((part.len() as u32).to_le_bytes());
                headers.extend(part);
            }
        }
        Row {
            key: record.key,
            headers,
            value: record.value,
        }
    }
}

fn insert_all(
    connection: &mut Connection,
    mut queue: mpsc::Receiver<(u64, oneshot::Sender<()>)>,
    rows: &[Row],
    transactions: Transactions,
) -> rusqlite::Result<()> {
    let group_max = match transactions {
        Transactions::OnePerCommand => 1,
        Transactions::OnePerGroup => GROUP_MAX,
    };
    while let Some(first) = queue.blocking_recv() {
        let mut group = vec![first];
        while group.len() < group_max
            && let Ok(more) = queue.try_recv()
        {
            group.push(more);
        }
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO records (shard, log_offset, key, headers, value, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for (n, _) in &group {
                let row = &rows[*n as usize % rows.len()];
                let offset = n.cast_signed();
                insert.execute(params![offset % 8, offset / 8, row.key, row.headers, row.value, offset])?;
            }
        }
        transaction.commit()?;
        for (_, durable) in group {
            // The client may be gone: the run is over.
            durable.send(()).unwrap_or_default();
        }
    }
    Ok(())
}

#[async_trait]
impl Contender for BareInsert {
    fn name(&self) -> String {
        match self.transactions {
            Transactions::OnePerCommand => "one transaction per command",
            Transactions::OnePerGroup => "bare group insert",
        }
        .into()
    }

    fn class(&self) -> Class {
        Class::D1
    }

    async fn run(&mut self, load: Load, meters: &Meters) -> anyhow::Result<Measured> {
        let (rows, next, acked) = (self.rows.clone(), Arc::clone(&self.next), Arc::clone(&self.acked));
        closed_loop(load, meters, move |_| {
            let (rows, acked) = (rows.clone(), Arc::clone(&acked));
            let n = next.fetch_add(1, Ordering::Relaxed);
            async move {
                let (durable, wait) = oneshot::channel();
                rows.send((n, durable))
                    .await
                    .context("the inserting thread has ended")?;
                wait.await.context("the inserting thread has ended")?;
                acked.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        })
        .await
    }

    async fn check(&mut self) -> anyhow::Result<()> {
        let acked = self.acked.load(Ordering::Relaxed).cast_signed();
        let stored: i64 = self
            .reader
            .query_row("SELECT count(*) FROM records", [], |row| row.get(0))?;
        match acked == stored {
            true => Ok(()),
            false => bail!("{acked} rows were acked, the table has {stored}"),
        }
    }
}
