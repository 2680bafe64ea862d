//! When a projector writes, and how much at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use projections::{Key, Select, Table, Value};

use super::*;
use crate::views::feed::specs::World;
use crate::views::{GenerationStatus, Snapshot};

/// A store that keeps checkpoints, and how many rows came with each.
#[derive(Default)]
struct Counting {
    commits: Mutex<Vec<(Checkpoint, usize)>>,
    /// Another worker is a moment faster, always.
    is_overtaken: AtomicBool,
    is_away: AtomicBool,
    /// The generation and all that was in it is gone.
    is_dropped: AtomicBool,
    /// The stops that were noted.
    stops: AtomicU64,
    /// What the event at this offset comes to is refused.
    refused: Mutex<Option<u64>>,
    /// How long a commit takes, in milliseconds.
    takes_ms: AtomicU64,
}

impl Counting {
    fn commits(&self) -> Vec<usize> {
        self.commits.lock().unwrap().iter().map(|(_, rows)| *rows).collect()
    }
}

#[async_trait]
impl ReadStore for Counting {
    fn address(&self) -> String {
        "counting:".into()
    }

    async fn generations(&self, _: Group) -> Result<Vec<Generation>, ViewError> {
        match self.is_dropped.load(Ordering::SeqCst) {
            true => Ok(vec![]),
            false => Ok(vec![journal(1)]),
        }
    }

    async fn create(&self, _: Group, _: u16) -> Result<Generation, ViewError> {
        Err(ViewError::Refused("there is one already".into()))
    }

    async fn make_indexes(&self, _: &Generation) -> Result<(), ViewError> {
        Ok(())
    }

    async fn promote(&self, _: &Generation) -> Result<(), ViewError> {
        Ok(())
    }

    async fn checkpoint(&self, _: &Generation, _: u16) -> Result<Option<Checkpoint>, ViewError> {
        Ok(self
            .commits
            .lock()
            .unwrap()
            .last()
            .map(|(checkpoint, _)| checkpoint.clone()))
    }

    async fn load(
        &self,
        _: &Generation,
        _: u16,
        _: Option<&Checkpoint>,
        _: &'static Table,
        _: &[Key],
    ) -> Result<Vec<Vec<Value>>, ViewError> {
        Ok(vec![])
    }

    async fn commit(
        &self,
        _: &Generation,
        _: u16,
        _: Option<&Checkpoint>,
        next: &Checkpoint,
        changes: &[TableChange],
    ) -> Result<(), ViewError> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(ViewError::Unavailable("it is away".into()));
        }
        if self.is_dropped.load(Ordering::SeqCst) {
            return Err(ViewError::Refused("there is no such table".into()));
        }
        tokio::time::sleep(Duration::from_millis(self.takes_ms.load(Ordering::SeqCst))).await;
        let rows = changes.iter().map(|change| change.appends.len()).sum();
        let refused = *self.refused.lock().unwrap();
        let mut appends = changes.iter().flat_map(|change| &change.appends);
        if appends.any(|(offset, _, _)| Some(*offset) == refused) {
            return Err(ViewError::Refused("there is no place for it".into()));
        }
        self.commits.lock().unwrap().push((next.clone(), rows));
        match self.is_overtaken.load(Ordering::SeqCst) {
            true => Err(ViewError::Moved),
            false => Ok(()),
        }
    }

    async fn note_stop(&self, _: &Generation, _: u16, _: &str) -> Result<(), ViewError> {
        self.stops.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn blocked(&self, _: &Generation) -> Result<Option<String>, ViewError> {
        Ok(None)
    }

    async fn stops(&self, _: &Generation) -> Result<Vec<(u16, String)>, ViewError> {
        Ok(vec![])
    }

    async fn query(&self, _: &Generation, _: &[Select]) -> Result<Snapshot, ViewError> {
        Err(ViewError::Refused("it keeps no rows".into()))
    }
}

fn journal(shards: u16) -> Generation {
    Generation {
        group: Group::Journal,
        number: 1,
        definition: Group::Journal.definition().into(),
        status: GenerationStatus::Live,
        shards,
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_way_is_written_in_large_batches_within_their_bound_and_news_at_once() {
    let mut world = World::new().await;
    world.record(60_000);
    let store = Arc::new(Counting::default());
    // Of so many shards each may hold back twenty thousand rows.
    let generation = journal((CATCHING_UP_ROWS_MAX / 20_000) as u16);
    let projector = Projector::new(Arc::clone(&world.feeds), Arc::clone(&store) as _, generation, 0);
    let mut committed = projector.committed.subscribe();
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(projector.run(stopped));
    committed.wait_for(|next| *next == 60_002).await.unwrap();
    let commits = store.commits();
    assert_eq!(commits.iter().sum::<usize>(), 60_000);
    assert!(commits.len() <= 4, "{commits:?}");
    // What is read at a time comes on top of what may be held back.
    assert!(
        commits.iter().all(|rows| *rows < 20_000 + BATCH_RECORDS_MAX),
        "{commits:?}"
    );

    for next in 60_003..60_006 {
        let before = Instant::now();
        world.record(1);
        committed.wait_for(|committed| *committed == next).await.unwrap();
        assert!(before.elapsed() < CATCHING_UP_FOR / 10, "the way is over");
    }
    stop.send_replace(true);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn large_events_are_written_sooner() {
    let mut world = World::new().await;
    let store = Arc::new(Counting::default());
    let generation = journal(64);
    // Some of a read are more than a shard may hold back.
    let large = format!("{{\"note\":\"{}\"}}", "x".repeat(CATCHING_UP_BYTES_MAX / 64 / 1_000));
    world.record_with(3 * BATCH_RECORDS_MAX as u64, &large);
    let projector = Projector::new(Arc::clone(&world.feeds), Arc::clone(&store) as _, generation, 0);
    projector.catch_up(|_, _| ()).await.unwrap();
    assert_eq!(
        store.commits(),
        [BATCH_RECORDS_MAX - 2, BATCH_RECORDS_MAX, BATCH_RECORDS_MAX, 2]
    );
}

/// The timeline has a name in two sentences: its rows take twice what the events take.
#[tokio::test(start_paused = true)]
async fn wide_rows_are_written_sooner() {
    let mut world = World::new().await;
    let store = Arc::new(Counting::default());
    // The rows of a read are more than a shard may hold back, their events half of it.
    let name = "x".repeat(CATCHING_UP_BYTES_MAX / 8 / BATCH_RECORDS_MAX / 2);
    world.record_named(3 * BATCH_RECORDS_MAX as u64, &name);
    let projector = Projector::new(Arc::clone(&world.feeds), Arc::clone(&store) as _, journal(8), 0);
    projector.catch_up(|_, _| ()).await.unwrap();
    assert_eq!(
        store.commits(),
        [BATCH_RECORDS_MAX - 2, BATCH_RECORDS_MAX, BATCH_RECORDS_MAX, 2]
    );
}

/// A store that needs ten times as long as the next event takes to come gets ten at a time: the lag does not grow.
#[tokio::test(start_paused = true)]
async fn what_comes_while_the_store_writes_is_written_together() {
    let mut world = World::new().await;
    let store = Arc::new(Counting::default());
    store.takes_ms.store(10, Ordering::SeqCst);
    let projector = Projector::new(Arc::clone(&world.feeds), Arc::clone(&store) as _, journal(1), 0);
    let mut committed = projector.committed.subscribe();
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(projector.run(stopped));
    for _ in 0..1_000 {
        world.record(1);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (last_came, last) = (Instant::now(), 1_002);
    committed.wait_for(|next| *next == last).await.unwrap();
    assert!(
        last_came.elapsed() <= Duration::from_millis(30),
        "{:?}",
        last_came.elapsed()
    );
    let commits = store.commits();
    assert_eq!(commits.iter().sum::<usize>(), 1_000);
    assert!((90..=110).contains(&commits.len()), "{} commits", commits.len());
    stop.send_replace(true);
    running.await.unwrap();
}

/// What a worker had to say against its last batch is over when somebody else has stored it, and is nobody's business when the shard is.
#[tokio::test(start_paused = true)]
async fn trouble_that_has_passed_is_not_told_any_more() {
    let mut world = World::new().await;
    let store = Arc::new(Counting::default());
    let projector = Projector::new(Arc::clone(&world.feeds), Arc::clone(&store) as _, journal(1), 0);
    let progress = Arc::clone(&projector.progress);
    let trouble = || progress.read().unwrap().trouble.clone();
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(projector.run(stopped));
    let a_while = || tokio::time::sleep(RETRY_PAUSE / 2);
    store.is_overtaken.store(true, Ordering::SeqCst);
    world.record(3);
    a_while().await;
    assert!(trouble().unwrap().contains("another worker"));
    tokio::time::sleep(2 * RETRY_PAUSE + WAIT).await;
    assert_eq!((trouble(), store.commits().len()), (None, 1));

    store.is_away.store(true, Ordering::SeqCst);
    world.record(3);
    for _ in 0..10 {
        a_while().await;
        assert!(trouble().unwrap().contains("it is away"));
    }
    stop.send_replace(true);
    running.await.unwrap();
    assert_eq!(trouble(), None);
}

/// A rebuild drops the generation before the last. A worker that still folds it is ended at the next look, and no trouble is
/// told. A rebuild whose own generation is dropped is told.
#[tokio::test(start_paused = true)]
async fn a_generation_that_was_dropped_is_no_trouble() {
    let mut world = World::new().await;
    let store = Arc::new(Counting::default());
    let projector = Projector::new(Arc::clone(&world.feeds), Arc::clone(&store) as _, journal(1), 0);
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(projector.clone().run(stopped));
    world.record(3);
    tokio::time::sleep(RETRY_PAUSE).await;
    store.is_dropped.store(true, Ordering::SeqCst);
    world.record(3);
    for _ in 0..10 {
        tokio::time::sleep(RETRY_PAUSE).await;
        assert_eq!(projector.progress.read().unwrap().trouble, None);
    }
    assert_eq!((store.stops.load(Ordering::SeqCst), store.commits()), (0, vec![3]));
    stop.send_replace(true);
    running.await.unwrap();
    let built = projector.catch_up(|_, _| ()).await;
    assert_eq!(built, Err("generation 1 was dropped".to_owned()));
}

/// A worker of the journal in a world with so many events, on a store that refuses what the event at `refused` comes to.
async fn worker_that_stops(world: &mut World, refused: u64) -> (Arc<Counting>, Projector) {
    world.record(6);
    let store = Arc::new(Counting {
        refused: Mutex::new(Some(refused)),
        ..Counting::default()
    });
    let projector = Projector::new(Arc::clone(&world.feeds), Arc::clone(&store) as _, journal(1), 0);
    (store, projector)
}

#[tokio::test(start_paused = true)]
async fn the_event_that_a_store_refuses_is_named_with_the_command_that_steps_over_it() {
    let mut world = World::new().await;
    let (store, projector) = worker_that_stops(&mut world, 4).await;
    let why = projector.catch_up(|_, _| {}).await.unwrap_err();
    assert!(why.starts_with("shard 0, offset 4: the read store refuses"), "{why}");
    let hash = fingerprint_at(world.feeds.log().as_ref(), 0, 4).await.unwrap();
    let noted = projector.progress.read().unwrap().trouble.clone().unwrap();
    assert!(
        noted.contains(&format!("crm log quarantine 0:4 --hash {hash:016x}")),
        "{noted}"
    );
    // What stands before it is stored.
    assert_eq!(store.commits.lock().unwrap().last().unwrap().0.next, 4);
}

#[tokio::test(start_paused = true)]
async fn read_models_step_over_an_event_of_ours_when_an_operator_says_so() {
    let mut world = World::new().await;
    let (store, projector) = worker_that_stops(&mut world, 4).await;
    projector.catch_up(|_, _| {}).await.unwrap_err();
    let mut committed = projector.committed.subscribe();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(projector.clone().run(stopped));
    let hash = fingerprint_at(world.feeds.log().as_ref(), 0, 4).await.unwrap();
    world.quarantine(4, hash + 1).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(*committed.borrow(), 4, "the word is of another record");
    world.quarantine(4, hash).await;
    committed.wait_for(|next| *next == 10).await.unwrap();
    assert_eq!(store.commits().iter().sum::<usize>(), 5, "all events but that one");
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_waits_for_a_store_that_is_away_and_gives_up_in_the_end() {
    let mut world = World::new().await;
    world.record(10);
    let store = Arc::new(Counting::default());
    store.is_away.store(true, Ordering::SeqCst);
    let projector = Projector::new(Arc::clone(&world.feeds), Arc::clone(&store) as _, journal(1), 0);
    let begun = Instant::now();
    let back = async {
        tokio::time::sleep(REBUILD_OUTAGE_MAX / 2).await;
        store.is_away.store(false, Ordering::SeqCst);
    };
    let first = projector.clone();
    let (built, ()) = tokio::join!(first.catch_up(|_, _| ()), back);
    assert_eq!(built, Ok(()));
    assert!(begun.elapsed() < REBUILD_OUTAGE_MAX);
    assert_eq!(store.commits().iter().sum::<usize>(), 10);

    world.record(10);
    store.is_away.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let given_up = projector.catch_up(|_, _| ()).await.unwrap_err();
    assert!(given_up.contains("it is away"), "{given_up}");
    assert!(begun.elapsed() >= REBUILD_OUTAGE_MAX);
}
