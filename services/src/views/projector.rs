//! The projector: reads one shard for one generation of a group, folds batches, and commits rows with their checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use domain::UnreadableEvent;
use projections::{Event, Group, Rows, TableChange};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::feed::{BATCH_RECORDS_MAX, Chunk, FeedError, Feeds, LazyEvent, Subscription, judge_all};
use super::{Generation, ReadStore, ViewError};
use crate::bugs::{self, Bug};
use crate::log::{Checkpoint, LogError};
use crate::shard::{TakeOverError, find_quarantine, fingerprint_at, read_creation, resume, step_over};

/// How long a step waits for something to come.
const WAIT: Duration = Duration::from_millis(500);
/// How long the store may not hear of records that the group has no use for. A transaction for each would cost as much as if it had.
const SKIPPING_FOR: Duration = Duration::from_millis(100);
/// How long the store may not hear of anything while a worker catches up to where the log ended when it began: what changes twice meanwhile is
/// written once.
const CATCHING_UP_FOR: Duration = Duration::from_secs(2);
/// Rows that a generation may hold back meanwhile, and bytes of them as well as of the events that they came from, over
/// all its shards. A receipt may come to rows that take ten times what it takes.
pub const CATCHING_UP_ROWS_MAX: usize = 200_000;
pub const CATCHING_UP_BYTES_MAX: usize = 128 << 20;
/// Pause after the store or the log could not be reached.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long a rebuild waits for a store or a log that cannot be reached.
pub const REBUILD_OUTAGE_MAX: Duration = Duration::from_secs(60);

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
    pub feeds: Arc<Feeds>,
    pub store: Arc<dyn ReadStore>,
    pub generation: Generation,
    pub shard: u16,
    pub progress: Arc<RwLock<Progress>>,
    /// Rings after each commit.
    pub committed: watch::Sender<u64>,
    words: Arc<Mutex<Words>>,
}

/// What an operator has said of events that these read models cannot hold.
#[derive(Default)]
struct Words {
    /// Offsets of those to step over.
    over: BTreeSet<u64>,
    /// Of those that stopped the worker: the fingerprint, and from where on the word is looked for the next time.
    stopped_at: BTreeMap<u64, (u64, u64)>,
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] ViewError),
    #[error(transparent)]
    Log(Arc<TakeOverError>),
    #[error("it fell behind those who read along, and reads again")]
    FellBehind,
    #[error("generation {0} was dropped")]
    Dropped(i64),
    #[error("shard {shard}, offset {offset}: {why}")]
    Poison { shard: u16, offset: u64, why: String },
}

impl Trouble {
    /// Whether the same step may succeed after a while.
    fn passes(&self) -> bool {
        match self {
            Trouble::Store(error) => matches!(error, ViewError::Moved | ViewError::Unavailable(_)),
            Trouble::Log(error) => matches!(**error, TakeOverError::Log(LogError::Unavailable(_))),
            Trouble::FellBehind => true,
            Trouble::Dropped(_) | Trouble::Poison { .. } => false,
        }
    }
}

impl From<TakeOverError> for Trouble {
    fn from(error: TakeOverError) -> Trouble {
        Trouble::Log(Arc::new(error))
    }
}

impl From<FeedError> for Trouble {
    fn from(error: FeedError) -> Trouble {
        match error {
            FeedError::Log(error) => Trouble::Log(error),
            FeedError::FellBehind => Trouble::FellBehind,
        }
    }
}

/// Where a worker stands: its place in the shard, the checkpoint that the store has, and what came since.
struct Standing {
    feed: Subscription,
    stored: Option<Checkpoint>,
    /// Up to where it has read: between two commits, and any record.
    read: Option<Checkpoint>,
    next: u64,
    /// Where the log ended when the worker began.
    end: u64,
    folded: Folded,
    /// Since when there are records behind `stored`.
    behind_since: Option<Instant>,
}

/// What records came to.
struct Folded {
    rows: Rows,
    events: u64,
    bytes: usize,
    unknown: u64,
}

impl Folded {
    fn nothing(shards: u16) -> Folded {
        Folded {
            rows: Rows::new(shards),
            events: 0,
            bytes: 0,
            unknown: 0,
        }
    }
}

impl Standing {
    /// How long the store may not hear of what was read.
    fn patience(&self) -> Duration {
        if self.next < self.end {
            CATCHING_UP_FOR
        } else if self.folded.events == 0 && self.folded.unknown == 0 {
            SKIPPING_FOR
        } else {
            Duration::ZERO
        }
    }
}

impl Projector {
    pub fn new(feeds: Arc<Feeds>, store: Arc<dyn ReadStore>, generation: Generation, shard: u16) -> Projector {
        let progress = Progress {
            group: generation.group.name().to_owned(),
            generation: generation.number,
            shard,
            ..Progress::default()
        };
        Projector {
            feeds,
            store,
            generation,
            shard,
            progress: Arc::new(RwLock::new(progress)),
            committed: watch::channel(0).0,
            words: Arc::default(),
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
                step = self.step(&mut standing) => step,
            };
            let Err(trouble) = step else {
                // Nothing waits to be stored: whatever was wrong has passed, also where somebody else has stored it.
                if standing.as_ref().is_some_and(|at| at.behind_since.is_none()) {
                    self.forget_trouble();
                }
                continue;
            };
            standing = None;
            match trouble {
                Trouble::FellBehind => continue,
                // After the next look at the generations nobody folds it any more.
                Trouble::Dropped(_) => self.forget_trouble(),
                Trouble::Poison { shard, offset, why } => match self.may_step_over(offset).await {
                    Ok(true) => continue,
                    Ok(false) => self.note(&Trouble::Poison { shard, offset, why }).await,
                    Err(error) => self.note(&error.into()).await,
                },
                Trouble::Store(_) | Trouble::Log(_) => self.note(&trouble).await,
            }
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
        // Somebody else's from here on.
        self.forget_trouble();
    }

    /// Folds everything up to the present end of the shard: for rebuilds and tests.
    ///
    /// # Errors
    /// What stopped it, as a sentence.
    pub async fn catch_up(&self, mut report: impl FnMut(u64, u64)) -> Result<(), String> {
        let (mut standing, mut since) = (None, Instant::now());
        let end = self
            .feeds
            .log()
            .end(self.shard)
            .await
            .map_err(|error| error.to_string())?;
        loop {
            let next = self.next();
            report(next.min(end), end);
            if next >= end {
                return Ok(());
            }
            match self.step(&mut standing).await {
                Ok(()) => {}
                Err(Trouble::Store(ViewError::Moved) | Trouble::FellBehind) => standing = None,
                Err(Trouble::Poison { offset, .. })
                    if self.may_step_over(offset).await.map_err(|error| error.to_string())? =>
                {
                    standing = None;
                }
                Err(trouble) => {
                    self.note(&trouble).await;
                    if !trouble.passes() || since.elapsed() >= REBUILD_OUTAGE_MAX {
                        return Err(trouble.to_string());
                    }
                    standing = None;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
            if self.next() > next {
                since = Instant::now();
            }
        }
    }

    /// Has an operator said to step over the event at this offset, which these read models cannot hold? Those that can hold it keep it.
    async fn may_step_over(&self, offset: u64) -> Result<bool, TakeOverError> {
        let log = self.feeds.log().as_ref();
        let known = self.words().stopped_at.get(&offset).copied();
        let (fingerprint, mut next) = match known {
            Some(known) => known,
            None => (fingerprint_at(log, self.shard, offset).await?, offset + 1),
        };
        let found = find_quarantine(log, self.shard, offset, fingerprint, &mut next).await?;
        let mut words = self.words();
        if found {
            tracing::warn!(shard = self.shard, offset, "steps over an event: an operator said so");
            words.stopped_at.remove(&offset);
            words.over.insert(offset);
        } else {
            words.stopped_at.insert(offset, (fingerprint, next));
        }
        Ok(found)
    }

    fn words(&self) -> std::sync::MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> u64 {
        self.progress.read().expect("no panic under the lock").next
    }

    /// Some records: read, fold; and commit, unless that can wait.
    async fn step(&self, standing: &mut Option<Standing>) -> Result<(), Trouble> {
        let refusal = match self.read_some(standing).await {
            Err(Trouble::Store(refusal @ (ViewError::Moved | ViewError::Refused(_)))) => refusal,
            step => return step,
        };
        // What was read went with the batch.
        *standing = None;
        if self.is_dropped().await {
            return Err(Trouble::Dropped(self.generation.number));
        }
        match refusal {
            ViewError::Refused(_) => self.find_refused().await,
            moved => Err(moved.into()),
        }
    }

    /// A store that has dropped the tables refuses whatever is asked of them. `false` also when it does not say.
    async fn is_dropped(&self) -> bool {
        let known = self.store.generations(self.generation.group).await;
        known.is_ok_and(|known| {
            known
                .iter()
                .all(|generation| generation.number != self.generation.number)
        })
    }

    async fn read_some(&self, standing: &mut Option<Standing>) -> Result<(), Trouble> {
        let at = match standing {
            Some(at) => at,
            None => standing.insert(self.stand().await?),
        };
        let wait = at.behind_since.map_or(WAIT, |since| {
            (since + at.patience()).saturating_duration_since(Instant::now())
        });
        match at.feed.next(wait).await {
            Ok(chunks) => self.read(at, &chunks).await?,
            Err(FeedError::FellBehind) => return Err(Trouble::FellBehind),
            Err(trouble) => {
                // What stands before a record that stops us is still committed.
                self.commit(at).await?;
                return Err(trouble.into());
            }
        }
        if self.may_wait(at) {
            return Ok(());
        }
        self.commit(at).await
    }

    /// The store refuses rows and does not say of which event: each commit goes by itself, up to the one that is refused. It is named by
    /// its first event.
    async fn find_refused(&self) -> Result<(), Trouble> {
        let mut at = self.stand().await?;
        let log = self.feeds.log().as_ref();
        let calendar = self.feeds.calendar(self.shard).await?;
        let (mut judge, mut reader) = resume(log, self.shard, at.stored.as_ref()).await?;
        while judge.next() < at.end {
            let records = reader.next(1, WAIT).await.map_err(TakeOverError::from)?;
            if records.is_empty() {
                return Ok(());
            }
            let (chunk, trouble) = judge_all(log, &calendar, self.shard, &mut judge, records).await;
            if let Some(chunk) = chunk {
                self.fold_wanted(&mut at, &chunk.events, chunk.since).await?;
                at.read = chunk.checkpoint;
                let (group, events) = (self.generation.group, chunk.events.iter());
                let first = events
                    .filter(|event| group.wants(event.kind()))
                    .map(LazyEvent::offset)
                    .next();
                match (self.commit(&mut at).await, first) {
                    (Err(Trouble::Store(ViewError::Refused(why))), Some(offset)) => {
                        let why = format!("the read store refuses what the event comes to: {why}");
                        return Err(Trouble::Poison {
                            shard: self.shard,
                            offset,
                            why,
                        });
                    }
                    (committed, _) => committed?,
                }
            }
            trouble.map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// Folds chunks. What stands before a poison event is committed, so that the checkpoint stands right before it.
    async fn read(&self, at: &mut Standing, chunks: &[Arc<Chunk>]) -> Result<(), Trouble> {
        let Some(last) = chunks.last() else { return Ok(()) };
        let settled = at.feed.settled();
        let events = chunks.iter().flat_map(|chunk| &chunk.events);
        let folded = self.fold_wanted(at, events, settled).await;
        if let Err(Trouble::Poison { offset, .. }) = folded {
            self.commit_before(at, offset).await?;
        }
        folded?;
        let bytes = chunks.iter().map(|chunk| chunk.bytes_of(self.generation.group));
        at.folded.bytes += bytes.sum::<usize>();
        at.feed.take(last);
        at.read.clone_from(&last.checkpoint);
        at.next = last.next;
        Ok(())
    }

    /// May the store hear later of what was read?
    fn may_wait(&self, at: &mut Standing) -> bool {
        if at.read == at.stored {
            return true;
        }
        let shards = usize::from(self.generation.shards);
        let (rows_max, bytes_max) = (CATCHING_UP_ROWS_MAX / shards, CATCHING_UP_BYTES_MAX / shards);
        let patience = at.patience();
        let behind_for = at.behind_since.get_or_insert_with(Instant::now).elapsed();
        let rows = &at.folded.rows;
        let has_room = rows.changed() < rows_max && rows.bytes().max(at.folded.bytes) < bytes_max;
        behind_for < patience && has_room
    }

    /// Reads again from where the store is, and commits what stands before the commit that `offset` is part of.
    async fn commit_before(&self, at: &mut Standing, offset: u64) -> Result<(), Trouble> {
        at.folded = Folded::nothing(self.generation.shards);
        at.read.clone_from(&at.stored);
        let log = self.feeds.log().as_ref();
        let calendar = self.feeds.calendar(self.shard).await?;
        let (mut judge, mut reader) = resume(log, self.shard, at.stored.as_ref()).await?;
        while judge.next() < offset {
            let mut records = reader
                .next(BATCH_RECORDS_MAX, WAIT)
                .await
                .map_err(TakeOverError::from)?;
            if records.is_empty() {
                let why = format!("shard {} gave no records in {WAIT:?}", self.shard);
                return Err(TakeOverError::Log(LogError::Unavailable(why)).into());
            }
            records.retain(|(standing, _)| *standing < offset);
            let (chunk, trouble) = judge_all(log, &calendar, self.shard, &mut judge, records).await;
            if let Some(chunk) = chunk {
                self.fold_wanted(at, &chunk.events, chunk.since).await?;
                at.read = chunk.checkpoint;
            }
            trouble.map_or(Ok(()), Err)?;
        }
        self.commit(at).await
    }

    async fn stand(&self) -> Result<Standing, Trouble> {
        let stored = self.store.checkpoint(&self.generation, self.shard).await?;
        let feed = self.feeds.subscribe(self.shard, stored.as_ref()).await?;
        let log = self.feeds.log().as_ref();
        if let Some(stored) = &stored {
            let created = read_creation(log, self.shard).await?;
            if created.log_id != stored.log_id {
                let (stored, found) = (stored.log_id, created.log_id);
                let what =
                    format!("these read models belong to log {stored}, not to {found}; delete them, they come back");
                return Err(TakeOverError::Log(LogError::WrongSettings(what)).into());
            }
        }
        let end = log.end(self.shard).await.map_err(TakeOverError::from)?;
        self.progress.write().expect("no panic under the lock").next = feed.settled();
        Ok(Standing {
            next: feed.settled(),
            feed,
            read: stored.clone(),
            stored,
            end,
            folded: Folded::nothing(self.generation.shards),
            behind_since: None,
        })
    }

    /// Folds the events that the group wants, but for those before `settled`, which it has.
    async fn fold_wanted<'a>(
        &self,
        at: &mut Standing,
        events: impl IntoIterator<Item = &'a LazyEvent, IntoIter: Send> + Send,
        settled: u64,
    ) -> Result<(), Trouble> {
        let group = self.generation.group;
        let (mut wanted, mut unknown) = (vec![], 0);
        for event in events {
            let is_over = self.words().over.contains(&event.offset());
            if event.offset() < settled || is_over || !group.wants(event.kind()) {
                continue;
            }
            match event.decode() {
                Ok(decoded) => wanted.push(decoded),
                Err(UnreadableEvent::UnknownType(_)) => unknown += 1,
                Err(error) => {
                    return Err(Trouble::Poison {
                        shard: self.shard,
                        offset: event.offset(),
                        why: error.to_string(),
                    });
                }
            }
        }
        self.fold(&wanted, at).await?;
        at.folded.unknown += unknown;
        Ok(())
    }

    async fn commit(&self, at: &mut Standing) -> Result<(), Trouble> {
        at.behind_since = None;
        let folded = std::mem::replace(&mut at.folded, Folded::nothing(self.generation.shards));
        let Some(next) = at.read.clone().filter(|read| Some(read) != at.stored.as_ref()) else {
            return Ok(());
        };
        self.save(at.stored.as_ref(), &next, &folded.rows.into_changes())
            .await?;
        let mut progress = self.progress.write().expect("no panic under the lock");
        progress.next = next.next;
        progress.events += folded.events;
        progress.unknown += folded.unknown;
        drop(progress);
        self.committed.send_replace(next.next);
        at.stored = Some(next);
        metrics::counter!("crm_events_projected_total", "group" => self.generation.group.name())
            .increment(folded.events);
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

    /// Folds the events on top of what is there: again from there, with the rows that were missing, until none is.
    async fn fold(&self, events: &[&Event], at: &mut Standing) -> Result<(), Trouble> {
        loop {
            self.project(events, &mut at.folded.rows)?;
            let missing = at.folded.rows.missing();
            if missing.is_empty() {
                at.folded.rows.keep();
                at.folded.events += events.len() as u64;
                return Ok(());
            }
            at.folded.rows.retry();
            for (table, keys) in missing {
                let found = self
                    .store
                    .load(&self.generation, self.shard, at.stored.as_ref(), table, &keys)
                    .await?;
                for key in keys {
                    at.folded.rows.know(table, key, None);
                }
                for row in found {
                    at.folded.rows.know(table, row[..table.key_len()].to_vec(), Some(row));
                }
            }
        }
    }

    /// Folds the events into rows. A panic or a broken rule in a projection is a poison event, not the end of the process.
    fn project(&self, events: &[&Event], rows: &mut Rows) -> Result<(), Trouble> {
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

    /// It panicked outside of a fold, and begins anew after a pause.
    pub async fn note_panic(&self) {
        let why = "the program failed at work on the read models; its log says where";
        self.progress.write().expect("no panic under the lock").trouble = Some(why.into());
        tracing::error!(
            group = self.generation.group.name(),
            shard = self.shard,
            "a projection worker panicked"
        );
        tokio::time::sleep(RETRY_PAUSE).await;
    }

    fn forget_trouble(&self) {
        self.progress.write().expect("no panic under the lock").trouble = None;
    }

    /// Notes what went wrong: for this process, and for lasting trouble in the store.
    async fn note(&self, trouble: &Trouble) {
        let why = match trouble {
            Trouble::Poison { offset, .. } => match self.words().stopped_at.get(offset) {
                Some((fingerprint, _)) => {
                    let command = step_over(self.shard, *offset, *fingerprint);
                    format!("{trouble}; an operator can step over it with: {command}")
                }
                None => trouble.to_string(),
            },
            _ => trouble.to_string(),
        };
        let is_news = {
            let mut progress = self.progress.write().expect("no panic under the lock");
            progress.trouble.replace(why.clone()).as_ref() != Some(&why)
        };
        let passes = trouble.passes();
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

#[cfg(test)]
mod specs;
