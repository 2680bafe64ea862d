//! The projection workers of a process: one per group, generation and shard, started and ended as generations come and go.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use futures::FutureExt;
use projections::Group;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::projector::{REBUILD_OUTAGE_MAX, RETRY_PAUSE};
use super::{Feeds, Generation, GenerationStatus, Progress, Projector, ReadStore, ViewError, generation_for};
use crate::log::EventLog;
use crate::shard::{Assignment, Wanted};

/// How often the generations are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The workers of this process.
#[derive(Clone)]
pub struct Workers {
    feeds: Arc<Feeds>,
    store: Arc<dyn ReadStore>,
    shards: u16,
    /// The groups that this process folds; and of each, whether each shard is this process's to fold.
    words: BTreeMap<Group, Vec<watch::Receiver<Assignment>>>,
    progress: Arc<RwLock<BTreeMap<WorkerKey, Arc<RwLock<Progress>>>>>,
}

/// Group, generation, shard.
type WorkerKey = (Group, i64, u16);

struct Running {
    tasks: Vec<(watch::Sender<bool>, JoinHandle<()>)>,
    /// Those that it does without while it is built were made.
    has_indexes: bool,
}

impl Workers {
    /// One word per group and shard, in order.
    pub fn new(
        log: Arc<dyn EventLog>,
        store: Arc<dyn ReadStore>,
        shards: u16,
        words: BTreeMap<Group, Vec<watch::Receiver<Assignment>>>,
    ) -> Workers {
        Workers {
            feeds: Feeds::new(log),
            store,
            shards,
            words,
            progress: Arc::default(),
        }
    }

    /// How far each worker is.
    pub fn progress(&self) -> Vec<Progress> {
        let known = self.progress.read().expect("no panic under the lock");
        known
            .values()
            .map(|progress| progress.read().expect("no panic under the lock").clone())
            .collect()
    }

    /// Keeps workers for the live generation of each group, the previous one, and one that a changed definition asks for, until
    /// `stop` turns true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut running: BTreeMap<(Group, i64), Running> = BTreeMap::new();
        while !*stop.borrow() {
            for group in self.words.keys() {
                let looked = AssertUnwindSafe(self.look_at(*group, &mut running)).catch_unwind();
                match looked.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(group = group.name(), "read models wait for the store: {error}"),
                    Err(_) => {
                        count_panic();
                        tracing::error!(group = group.name(), "a look at the generations panicked");
                    }
                }
            }
            tokio::select! {
                biased;
                _ = stop.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        for worker in running.into_values() {
            end(worker).await;
        }
    }

    async fn look_at(&self, group: Group, running: &mut BTreeMap<(Group, i64), Running>) -> Result<(), ViewError> {
        let ours = generation_for(self.store.as_ref(), group, self.shards).await?;
        let definition = group.definition();
        let mut wanted: Vec<Generation> = self.store.generations(group).await?;
        wanted.retain(|generation| {
            let kept = matches!(generation.status, GenerationStatus::Live | GenerationStatus::Previous);
            generation.definition == definition && (kept || generation.number == ours.number)
        });
        let gone: Vec<_> = running
            .keys()
            .filter(|(known, number)| *known == group && !wanted.iter().any(|generation| generation.number == *number))
            .copied()
            .collect();
        for key in gone {
            if let Some(worker) = running.remove(&key) {
                end(worker).await;
            }
            self.progress
                .write()
                .expect("no panic under the lock")
                .retain(|(known, number, _), _| (*known, *number) != key);
        }
        for generation in wanted {
            let key = (group, generation.number);
            running.entry(key).or_insert_with(|| self.start(&generation));
        }
        match running.get_mut(&(group, ours.number)) {
            Some(worker) => self.promote_when_caught_up(&ours, worker).await,
            None => Ok(()),
        }
    }

    fn start(&self, generation: &Generation) -> Running {
        let tasks = (0..self.shards)
            .zip(&self.words[&generation.group])
            .map(|(shard, word)| {
                let projector = Projector::new(
                    Arc::clone(&self.feeds),
                    Arc::clone(&self.store),
                    generation.clone(),
                    shard,
                );
                let key = (generation.group, generation.number, shard);
                let progress = Arc::clone(&projector.progress);
                self.progress
                    .write()
                    .expect("no panic under the lock")
                    .insert(key, progress);
                let (stop, stopped) = watch::channel(false);
                let wanted = Wanted::new(word.clone(), stopped);
                (stop, tokio::spawn(fold_while_assigned(projector, wanted)))
            })
            .collect();
        Running {
            tasks,
            has_indexes: false,
        }
    }

    /// A generation that a changed definition asked for becomes live once it has read everything there is.
    async fn promote_when_caught_up(&self, ours: &Generation, worker: &mut Running) -> Result<(), ViewError> {
        if ours.status != GenerationStatus::Building || !self.is_caught_up(ours).await? {
            return Ok(());
        }
        if !worker.has_indexes {
            self.store.make_indexes(ours).await?;
            worker.has_indexes = true;
            // That may have taken long.
            if !self.is_caught_up(ours).await? {
                return Ok(());
            }
        }
        tracing::info!(
            group = ours.group.name(),
            generation = ours.number,
            "the rebuilt read models go live"
        );
        self.store.promote(ours).await
    }

    async fn is_caught_up(&self, generation: &Generation) -> Result<bool, ViewError> {
        for shard in 0..self.shards {
            let end = self
                .feeds
                .log()
                .end(shard)
                .await
                .map_err(|error| ViewError::Unavailable(error.to_string()))?;
            let stored = self.store.checkpoint(generation, shard).await?;
            if stored.map_or(0, |checkpoint| checkpoint.next) < end {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn count_panic() {
    metrics::counter!("crm_panics_total", "part" => "projector").increment(1);
}

/// Runs the projector as long as the shard is this process's to fold, and again when it comes back. One that panics begins anew where the
/// store is.
async fn fold_while_assigned(projector: Projector, mut wanted: Wanted) {
    while !wanted.is_stopping() {
        if !wanted.is_here() {
            wanted.changed().await;
            continue;
        }
        let (end, ended) = watch::channel(false);
        let fold = AssertUnwindSafe(projector.clone().run(ended)).catch_unwind();
        tokio::pin!(fold);
        tokio::select! {
            biased;
            () = wanted.withdrawn() => {
                end.send_replace(true);
                if fold.await.is_err() {
                    count_panic();
                }
            }
            folded = &mut fold => match folded {
                Ok(()) => return,
                Err(_) => {
                    count_panic();
                    projector.note_panic().await;
                }
            },
        }
    }
}

async fn end(worker: Running) {
    for (stop, _) in &worker.tasks {
        stop.send_replace(true);
    }
    for (_, task) in worker.tasks {
        if let Err(error) = task.await {
            tracing::error!("a projection worker ended badly: {error}");
        }
    }
}

/// Builds new generations of groups beside the live ones, by one pass over the log, and swaps them in. `report` hears (group, shard, read, end).
///
/// # Errors
/// What stopped it. Until the swaps, which come last and one after the other, every live generation is as it was.
pub async fn rebuild(
    log: Arc<dyn EventLog>,
    store: Arc<dyn ReadStore>,
    groups: &[Group],
    shards: u16,
    report: impl Fn(Group, u16, u64, u64) + Send + Sync + 'static,
) -> Result<Vec<Generation>, String> {
    let mut built = vec![];
    for group in groups {
        built.push(store.create(*group, shards).await.map_err(|error| error.to_string())?);
    }
    let (feeds, report) = (Feeds::new(log), Arc::new(report));
    catch_up(&feeds, &store, &built, &report).await?;
    let indexed = built
        .iter()
        .map(|generation| patiently(|| store.make_indexes(generation)));
    futures::future::try_join_all(indexed)
        .await
        .map_err(|error| error.to_string())?;
    // What came meanwhile.
    catch_up(&feeds, &store, &built, &report).await?;
    for generation in &built {
        let promoted = patiently(|| store.promote(generation)).await;
        promoted.map_err(|error| error.to_string())?;
    }
    Ok(built)
}

/// Does again what can be done twice, while the store cannot be reached: an outage of a moment must not cost hours of work.
async fn patiently<F: Future<Output = Result<(), ViewError>>>(step: impl Fn() -> F) -> Result<(), ViewError> {
    let begun = Instant::now();
    loop {
        match step().await {
            Err(ViewError::Unavailable(why)) if begun.elapsed() < REBUILD_OUTAGE_MAX => {
                tracing::warn!("the rebuild waits: {why}");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            done => return done,
        }
    }
}

/// All shards of all generations side by side, on all cores.
async fn catch_up(
    feeds: &Arc<Feeds>,
    store: &Arc<dyn ReadStore>,
    generations: &[Generation],
    report: &Arc<impl Fn(Group, u16, u64, u64) + Send + Sync + 'static>,
) -> Result<(), String> {
    let mut folds = JoinSet::new();
    for generation in generations {
        for shard in 0..generation.shards {
            let projector = Projector::new(Arc::clone(feeds), Arc::clone(store), generation.clone(), shard);
            let (group, report) = (generation.group, Arc::clone(report));
            folds.spawn(async move {
                let shown = |read, end| report(group, shard, read, end);
                projector.catch_up(shown).await
            });
        }
    }
    while let Some(folded) = folds.join_next().await {
        folded.map_err(|error| error.to_string())??;
    }
    Ok(())
}
