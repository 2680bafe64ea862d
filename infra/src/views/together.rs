//! Small commits that come while another one is under way go together, in one transaction. At a moderate load each of many workers (a shard of
//! a group) has a row or two to write at a time, and a transaction with its statements costs about the same for one of them as for all.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deadpool_postgres::{Client, Pool, Transaction};
use futures::future::join_all;
use projections::{Key, Value};
use services::log::Checkpoint;
use services::views::Generation;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::Failure;
use super::sql::{self, Stored};
use super::statements::{Changed, Write, arrays, bounded, connection, delete, put, settle, values_of};

/// Rows of a small commit, changed and removed.
pub const SMALL_ROWS_MAX: usize = 100;

/// The small commits of a store.
#[derive(Default)]
pub(super) struct Together {
    waiting: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
}

struct Waiting {
    part: Part,
    told: oneshot::Sender<Outcome>,
}

/// What became of a commit that went with others.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Written,
    /// One of them could not be written, so nothing was. Each is to be tried by itself, which shows whose it was.
    TryAlone,
    /// Nobody knows.
    Unavailable(String),
}

/// What one worker wants to have written.
pub(super) struct Part {
    /// Group, generation, shard: who writes several takes them in this order, so that two processes do not wait for each other.
    place: (&'static str, i64, u16),
    move_checkpoint: (&'static str, Vec<Value>),
    tables: Vec<Changes>,
}

struct Changes {
    stored: Arc<Stored>,
    rows: Vec<Vec<Value>>,
    removes: Vec<Key>,
}

impl Part {
    /// `None` for a commit that is not small, or goes to a table that is only appended to.
    pub fn small(
        generation: &Generation,
        shard: u16,
        expected: Option<&Checkpoint>,
        next: &Checkpoint,
        batch: &[Changed<'_>],
    ) -> Option<Part> {
        let rows = |changed: &Changed<'_>| changed.older.len() + changed.new.len() + changed.removes.len();
        let is_large = batch.iter().map(rows).sum::<usize>() > SMALL_ROWS_MAX;
        if is_large
            || batch
                .iter()
                .any(|changed| changed.stored.is_appended.load(Ordering::Relaxed))
        {
            return None;
        }
        let tables = batch.iter().map(|changed| Changes {
            stored: Arc::clone(&changed.stored),
            rows: changed
                .older
                .iter()
                .chain(&changed.new)
                .map(|row| row.iter().map(|cell| cell.as_ref().clone()).collect())
                .collect(),
            removes: changed.removes.to_vec(),
        });
        Some(Part {
            place: (generation.group.name(), generation.number, shard),
            move_checkpoint: sql::move_checkpoint(generation, shard, expected, next),
            tables: tables.collect(),
        })
    }
}

impl Together {
    /// Whoever has the turn writes for all that wait. A worker that is not waiting any more, because it was stopped, has written nothing, or all
    /// of it.
    pub async fn commit(&self, keyed: &Pool, part: Part) -> Outcome {
        let (told, mut outcome) = oneshot::channel();
        self.waiting().push(Waiting { part, told });
        let _turn = self.turn.lock().await;
        match outcome.try_recv() {
            Ok(outcome) => return outcome,
            Err(TryRecvError::Closed) => return Outcome::Unavailable("who wrote for all was stopped".into()),
            Err(TryRecvError::Empty) => {}
        }
        let mut all = std::mem::take(&mut *self.waiting());
        all.retain(|waiting| !waiting.told.is_closed());
        all.sort_unstable_by_key(|waiting| waiting.part.place);
        let (parts, told): (Vec<Part>, Vec<_>) = all.into_iter().map(|waiting| (waiting.part, waiting.told)).unzip();
        let outcome = write(keyed, parts).await;
        for told in told {
            // Who was stopped meanwhile does not hear of it.
            let _ = told.send(outcome.clone());
        }
        outcome
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write(keyed: &Pool, parts: Vec<Part>) -> Outcome {
    let written = async {
        let mut client = connection(keyed).await?;
        let written = bounded(in_one_transaction(&mut client, parts)).await;
        settle(client, written)
    };
    match written.await {
        Ok(true) => Outcome::Written,
        Ok(false) => Outcome::TryAlone,
        Err(Failure::Unavailable(why)) => Outcome::Unavailable(why),
        Err(_) => Outcome::TryAlone,
    }
}

async fn in_one_transaction(client: &mut Client, parts: Vec<Part>) -> Result<bool, Failure> {
    let transaction = client.transaction().await?;
    match write_parts(&transaction, parts).await {
        Ok(true) => {
            transaction.commit().await?;
            Ok(true)
        }
        Err(Failure::Unavailable(why)) => Err(Failure::Unavailable(why)),
        Ok(false) | Err(_) => {
            transaction.rollback().await?;
            Ok(false)
        }
    }
}

/// `false` when one of the checkpoints is another one.
async fn write_parts(transaction: &Transaction<'_>, parts: Vec<Part>) -> Result<bool, Failure> {
    let (mut places, mut first, mut next) = (Vec::new(), Vec::new(), Vec::new());
    let mut tables: BTreeMap<String, Changes> = BTreeMap::new();
    for part in parts {
        let (group, number, shard) = part.place;
        let shard = Value::Int(i64::from(shard));
        places.push(vec![Value::Text(group.to_owned()), Value::Int(number), shard]);
        match part.move_checkpoint {
            (sql::FIRST_CHECKPOINT, values) => first.push(values),
            (_, values) => next.push(values),
        }
        for changes in part.tables {
            let of_all = tables.entry(changes.stored.name.clone()).or_insert_with(|| Changes {
                stored: changes.stored,
                rows: vec![],
                removes: vec![],
            });
            of_all.rows.extend(changes.rows);
            of_all.removes.extend(changes.removes);
        }
    }
    let mut moves = Vec::new();
    for values in &first {
        moves.push(Write::new(transaction, sql::FIRST_CHECKPOINT, values_of(values)).await?);
    }
    if !next.is_empty() {
        let values = arrays(&next);
        moves.push(Write::new(transaction, sql::NEXT_CHECKPOINTS, values).await?);
    }
    let mut writes = vec![Write::new(transaction, sql::CLEAR_STOPS, arrays(&places)).await?];
    for changes in tables.values() {
        writes.extend(put(transaction, &changes.stored, &changes.rows).await?);
        writes.extend(delete(transaction, &changes.stored, &changes.removes).await?);
    }
    // All at once: one round trip.
    let moves = join_all(moves.into_iter().map(|write| write.run(transaction)));
    let writes = join_all(writes.into_iter().map(|write| write.run(transaction)));
    let (moved, written) = tokio::join!(biased; moves, writes);
    let mut all_moved = 0;
    for moved in moved {
        all_moved += moved?;
    }
    if all_moved != places.len() as u64 {
        return Ok(false);
    }
    for written in written {
        written?;
    }
    Ok(true)
}
