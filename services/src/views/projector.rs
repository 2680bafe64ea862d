//! The projector: reads one shard for one generation of a group, folds batches, and commits rows with their checkpoint.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use domain::UnreadableEvent;
use projections::{Event, Group, Rows, TableChange};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Generation, ReadStore, ViewError};
use crate::bugs::{self, Bug};
use crate::log::{Checkpoint, EventLog, Foreign, Judge, Judgement, LogError, StoredEvent};
use crate::shard::{TakeOverError, judge_or_step_over, resume};

/// Records per batch at most: a big lag makes big batches, and memory stays bounded.
pub const BATCH_RECORDS_MAX: usize = 5_000;
/// How long a batch waits for its first record.
const WAIT: Duration = Duration::from_millis(500);
/// How long the store may not hear of records that the group has no use for. A transaction for each would cost as much as if it had.
const SKIPPING_FOR: Duration = Duration::from_millis(100);
/// Pause after the store or the log could not be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How far a worker has come, for status and metrics.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Progress {
    pub group: String,
    pub generation: i64,
    pub shard: u16,
    /// The next offset to be read.
    pub next: u64,
    /// Events that were folded since the start of the process.
    pub events: u64,
    /// Events of types that this version of the program does not know, skipped and counted.
    pub unknown: u64,
    /// Why it stands still, if so.
    pub trouble: Option<String>,
}

/// One worker: a shard of a generation.
#[derive(Clone)]
pub struct Projector {
    pub log: Arc<dyn EventLog>,
    pub store: Arc<dyn ReadStore>,
    pub generation: Generation,
    pub shard: u16,
    pub progress: Arc<RwLock<Progress>>,
    /// Rings after each commit.
    pub committed: watch::Sender<u64>,
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] ViewError),
    #[error(transparent)]
    Log(#[from] TakeOverError),
    #[error("shard {shard}, offset {offset}: {why}")]
    Poison { shard: u16, offset: u64, why: String },
}

/// Where a worker stands: its judge, its reader, the checkpoint that the store has.
struct Standing {
    judge: Judge,
    reader: Box<dyn crate::log::LogReader>,
    stored: Option<Checkpoint>,
    /// Since when there are records behind `stored` that the group has no use for.
    skipping_since: Option<Instant>,
}

/// What a batch of records came to.
#[derive(Default)]
struct Batch {
    events: Vec<Event>,
    unknown: u64,
}

impl Batch {
    /// Is there nothing in it that somebody waits for?
    fn may_wait(&self) -> bool {
        self.events.is_empty() && self.unknown == 0
    }
}

impl Standing {
    /// May the store hear later that nothing came?
    fn may_wait(&mut self, skipping_for: Duration) -> bool {
        if self.judge.checkpoint() == self.stored.as_ref() {
            return true;
        }
        self.skipping_since.get_or_insert_with(Instant::now).elapsed() < skipping_for
    }
}

impl Projector {
    pub fn new(log: Arc<dyn EventLog>, store: Arc<dyn ReadStore>, generation: Generation, shard: u16) -> Projector {
        let progress = Progress {
            group: generation.group.name().to_owned(),
            generation: generation.number,
            shard,
            ..Progress::default()
        };
        Projector {
            log,
            store,
            generation,
            shard,
            progress: Arc::new(RwLock::new(progress)),
            committed: watch::channel(0).0,
        }
    }

    /// Runs until `stop` turns true. What can pass (a store that is down) is tried again; a poison event or a foreign record
    /// stops the worker, is noted in the store, and looked at again now and then: an operator may have mended it.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut standing = None;
        while !*stop.borrow() {
            let step = tokio::select! {
                biased;
                _ = stop.changed() => break,
                step = self.step(&mut standing, SKIPPING_FOR) => step,
            };
            let Err(trouble) = step else { continue };
            standing = None;
            self.note(&trouble).await;
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    /// Folds everything up to the present end of the shard: for rebuilds and tests.
    ///
    /// # Errors
    /// What stopped it, as a sentence.
    pub async fn catch_up(&self, mut report: impl FnMut(u64, u64)) -> Result<(), String> {
        let mut standing = None;
        let end = self.log.end(self.shard).await.map_err(|error| error.to_string())?;
        loop {
            let next = self.next();
            report(next.min(end), end);
            if next >= end {
                return Ok(());
            }
            match self.step(&mut standing, Duration::ZERO).await {
                Ok(()) => {}
                Err(Trouble::Store(ViewError::Moved)) => standing = None,
                Err(trouble) => {
                    self.note(&trouble).await;
                    return Err(trouble.to_string());
                }
            }
        }
    }

    fn next(&self) -> u64 {
        self.progress.read().expect("no panic under the lock").next
    }

    /// One batch: read, judge, fold, commit. The store hears within `skipping_for` of records that the group has no use for.
    async fn step(&self, standing: &mut Option<Standing>, skipping_for: Duration) -> Result<(), Trouble> {
        let at = match standing {
            Some(at) => at,
            None => standing.insert(self.stand().await?),
        };
        let wait = at.skipping_since.map_or(WAIT, |since| {
            (since + skipping_for).saturating_duration_since(Instant::now())
        });
        let records = at
            .reader
            .next(BATCH_RECORDS_MAX, wait)
            .await
            .map_err(TakeOverError::from)?;
        let mut batch = Batch::default();
        let mut poison = None;
        for (offset, record) in &records {
            // What stands before a record that stops us is still committed.
            let read = match judge_or_step_over(self.log.as_ref(), &mut at.judge, self.shard, *offset, record).await {
                Ok(Some(Judgement::Commit(commit))) => self.decode(&commit.events, &mut batch),
                Ok(_) => Ok(()),
                Err(error) => Err(error.into()),
            };
            if let Err(trouble) = read {
                poison = Some(trouble);
                break;
            }
        }
        let done = match poison {
            None if batch.may_wait() && at.may_wait(skipping_for) => return Ok(()),
            None => self.commit(at, at.judge.checkpoint().cloned(), &batch).await,
            Some(trouble) => Err(trouble),
        };
        if let Err(Trouble::Poison { offset, .. } | Trouble::Log(TakeOverError::Foreign(Foreign { offset, .. }))) =
            &done
        {
            // What stands before the bad record still counts, so that the checkpoint stands right before it.
            self.commit_before(at, *offset).await?;
        }
        done
    }

    /// Reads again from where the store is, and commits what stands before `offset`.
    async fn commit_before(&self, at: &mut Standing, offset: u64) -> Result<(), Trouble> {
        let (mut judge, mut reader) = resume(self.log.as_ref(), self.shard, at.stored.as_ref()).await?;
        let mut batch = Batch::default();
        let mut next = at.stored.clone();
        'read: while judge.next() < offset {
            let records = reader
                .next(BATCH_RECORDS_MAX, WAIT)
                .await
                .map_err(TakeOverError::from)?;
            if records.is_empty() {
                let why = format!("shard {} gave no records in {WAIT:?}", self.shard);
                return Err(TakeOverError::Log(LogError::Unavailable(why)).into());
            }
            for (standing, record) in records.iter().take_while(|(standing, _)| *standing < offset) {
                if let Some(Judgement::Commit(commit)) =
                    judge_or_step_over(self.log.as_ref(), &mut judge, self.shard, *standing, record).await?
                {
                    if commit.events.iter().any(|event| event.position.offset >= offset) {
                        break 'read;
                    }
                    self.decode(&commit.events, &mut batch)?;
                }
                next = judge.checkpoint().cloned();
            }
        }
        self.commit(at, next, &batch).await
    }

    async fn stand(&self) -> Result<Standing, Trouble> {
        let stored = self.store.checkpoint(&self.generation, self.shard).await?;
        let (judge, reader) = resume(self.log.as_ref(), self.shard, stored.as_ref()).await?;
        if let Some(stored) = &stored {
            let created = crate::shard::read_creation(self.log.as_ref(), self.shard).await?;
            if created.log_id != stored.log_id {
                let (stored, found) = (stored.log_id, created.log_id);
                let what =
                    format!("these read models belong to log {stored}, not to {found}; delete them, they come back");
                return Err(TakeOverError::Log(LogError::WrongSettings(what)).into());
            }
        }
        self.progress.write().expect("no panic under the lock").next = judge.next();
        Ok(Standing {
            judge,
            reader,
            stored,
            skipping_since: None,
        })
    }

    /// Decodes the events that the group wants.
    fn decode(&self, events: &[StoredEvent], batch: &mut Batch) -> Result<(), Trouble> {
        for event in events {
            if !self.generation.group.wants(event.stream.kind) {
                continue;
            }
            match event.decode() {
                Ok(decoded) => batch.events.push(decoded),
                Err(UnreadableEvent::UnknownType(_)) => batch.unknown += 1,
                Err(error) => {
                    let (shard, offset) = (self.shard, event.position.offset);
                    return Err(Trouble::Poison {
                        shard,
                        offset,
                        why: error.to_string(),
                    });
                }
            }
        }
        Ok(())
    }

    async fn commit(&self, at: &mut Standing, next: Option<Checkpoint>, batch: &Batch) -> Result<(), Trouble> {
        at.skipping_since = None;
        let Some(next) = next.filter(|next| Some(next) != at.stored.as_ref()) else {
            return Ok(());
        };
        let rows = self.fold(&batch.events, at.stored.as_ref()).await?;
        self.save(at.stored.as_ref(), &next, &rows.into_changes()).await?;
        let mut progress = self.progress.write().expect("no panic under the lock");
        progress.next = next.next;
        progress.events += batch.events.len() as u64;
        progress.unknown += batch.unknown;
        progress.trouble = None;
        drop(progress);
        at.stored = Some(next.clone());
        self.committed.send_replace(next.next);
        metrics::counter!("crm_events_projected_total", "group" => self.generation.group.name())
            .increment(batch.events.len() as u64);
        Ok(())
    }

    /// One transaction, which finds out whether another worker has moved the checkpoint.
    async fn save(
        &self,
        expected: Option<&Checkpoint>,
        next: &Checkpoint,
        changes: &[TableChange],
    ) -> Result<(), ViewError> {
        let (store, generation, shard) = (&self.store, &self.generation, self.shard);
        if bugs::has(Bug::NoCompareAndSet) {
            let present = store.checkpoint(generation, shard).await?;
            return store.commit(generation, shard, present.as_ref(), next, changes).await;
        }
        if bugs::has(Bug::CheckpointBeforeRows) {
            store.commit(generation, shard, expected, next, &[]).await?;
            return store.commit(generation, shard, Some(next), next, changes).await;
        }
        if let (Some(present), true) = (expected, bugs::has(Bug::RowsBeforeCheckpoint)) {
            store.commit(generation, shard, expected, present, changes).await?;
            return store.commit(generation, shard, expected, next, &[]).await;
        }
        store.commit(generation, shard, expected, next, changes).await
    }

    /// Runs the fold until no row is missing any more: each time from clean rows, with all that was loaded so far.
    async fn fold(&self, events: &[Event], from: Option<&Checkpoint>) -> Result<Rows, Trouble> {
        let mut loaded: HashMap<(&'static str, projections::Key), Option<Vec<projections::Value>>> = HashMap::new();
        let mut tables: HashMap<&'static str, &'static projections::Table> = HashMap::new();
        loop {
            let mut rows = Rows::new(self.generation.shards);
            for ((table, key), values) in &loaded {
                rows.know(tables[table], key.clone(), values.clone());
            }
            self.project(events, &mut rows)?;
            let missing = rows.missing();
            if missing.is_empty() {
                return Ok(rows);
            }
            for (table, keys) in missing {
                tables.insert(table.name, table);
                let found = self
                    .store
                    .load(&self.generation, self.shard, from, table, &keys)
                    .await?;
                for key in keys {
                    loaded.insert((table.name, key), None);
                }
                for values in found {
                    let key = values[..table.key_len()].to_vec();
                    loaded.insert((table.name, key), Some(values));
                }
            }
        }
    }

    /// Folds the events into rows. A panic or a broken rule in a projection is a poison event, not the end of the process.
    fn project(&self, events: &[Event], rows: &mut Rows) -> Result<(), Trouble> {
        let models: Vec<_> = self.generation.group.models().collect();
        for event in events {
            rows.at(event.position);
            for model in &models {
                if !model.streams.is_empty() && !model.streams.contains(&event.stream.kind) {
                    continue;
                }
                let folded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (model.project)(event, rows)));
                let why = match (folded, rows.violation()) {
                    (Err(_), _) => Some(format!(
                        "read model {} cannot fold event {}",
                        model.name, event.event_id
                    )),
                    (Ok(()), Some(rule)) => Some(rule.to_owned()),
                    (Ok(()), None) => None,
                };
                if let Some(why) = why {
                    return Err(Trouble::Poison {
                        shard: self.shard,
                        offset: event.position.offset,
                        why,
                    });
                }
            }
        }
        Ok(())
    }

    /// Notes what went wrong: for this process, and for lasting trouble in the store.
    async fn note(&self, trouble: &Trouble) {
        let why = trouble.to_string();
        let is_news = {
            let mut progress = self.progress.write().expect("no panic under the lock");
            progress.trouble.replace(why.clone()).as_ref() != Some(&why)
        };
        let passes = matches!(
            trouble,
            Trouble::Store(ViewError::Moved | ViewError::Unavailable(_))
                | Trouble::Log(TakeOverError::Log(LogError::Unavailable(_)))
        );
        if is_news {
            let group = self.generation.group.name();
            match passes {
                true => tracing::warn!(group, shard = self.shard, "projection waits: {why}"),
                false => tracing::error!(group, shard = self.shard, "projection stopped: {why}"),
            }
        }
        if is_news
            && !passes
            && let Err(error) = self.store.note_stop(&self.generation, self.shard, &why).await
        {
            tracing::warn!(shard = self.shard, "the stop could not be noted: {error}");
        }
    }
}

/// The generation that this version of the program folds: the live one if its definition is ours, else one being built.
///
/// # Errors
/// The store cannot be reached, or a newer program's generation is live and an older one must not rebuild.
pub async fn generation_for(store: &dyn ReadStore, group: Group, shards: u16) -> Result<Generation, ViewError> {
    let definition = group.definition();
    let known = store.generations(group).await?;
    match known
        .into_iter()
        .rev()
        .find(|generation| generation.definition == definition)
    {
        Some(generation) => Ok(generation),
        None => store.create(group, shards).await,
    }
}
