//! A shard's records, read and judged once for all projectors of a process that stand at about the same place.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use domain::{Calendar, StreamKind, UnreadableEvent};
use futures::FutureExt;
use projections::{Event, Group};
use tokio::sync::{Notify, OnceCell};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::log::{Checkpoint, EventLog, Judge, Judgement, LogError, LogReader, Record, StoredEvent};
use crate::shard::{TakeOverError, judge_or_step_over, read_creation, resume};

/// Records per read at most: a big lag makes big batches, and memory stays bounded.
pub const BATCH_RECORDS_MAX: usize = 5_000;
/// Records, and bytes of events, that a feed remembers for those who are behind its reader; one read may come on top.
pub const REMEMBERED_RECORDS_MAX: u64 = 10_000;
pub const REMEMBERED_BYTES_MAX: usize = 16 << 20;
/// How long it remembers what all have taken, for those who come a little later.
const REMEMBERED_FOR: Duration = Duration::from_secs(1);
/// How long the reader waits for somebody who is so far behind. After that he reads by himself.
const SLOWEST_FOR: Duration = Duration::from_secs(10);
/// How long one read waits for records.
const WAIT: Duration = Duration::from_millis(500);
/// A reader that has brought nothing for so long is compared with the log's end. One that stays behind it until the next look is replaced.
const SILENT_FOR: Duration = Duration::from_secs(3);

/// The feeds of a process.
pub struct Feeds {
    log: Arc<dyn EventLog>,
    /// That of the log, once it was read.
    calendar: OnceCell<Calendar>,
    /// By shard; one feed for each place that somebody reads from.
    open: Mutex<BTreeMap<u16, Vec<Weak<Feed>>>>,
}

/// What some records came to.
pub struct Chunk {
    /// The point between two commits that it begins at, and the one after its last whole commit.
    pub since: u64,
    pub settled: u64,
    /// The same as `settled`.
    pub checkpoint: Option<Checkpoint>,
    /// The offset after its last record.
    pub next: u64,
    pub events: Vec<LazyEvent>,
    bytes: usize,
    read_at: Instant,
}

/// An event that is decoded once, when first somebody wants it.
pub struct LazyEvent {
    stored: StoredEvent,
    calendar: Calendar,
    decoded: OnceLock<Result<Event, UnreadableEvent>>,
}

/// A reader of a shard, and what it has read.
struct Feed {
    shared: Arc<Shared>,
    /// The task that reads; it ends with the feed.
    _reader: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Rings when there is a new chunk, or an end.
    read: Notify,
    /// Rings when somebody has taken a chunk, or left.
    taken: Notify,
}

#[derive(Default)]
struct State {
    /// Where the first chunk begins, or will.
    start: u64,
    chunks: VecDeque<Arc<Chunk>>,
    /// Why it does not go on.
    trouble: Option<Arc<TakeOverError>>,
    /// Up to where each subscriber has read.
    cursors: BTreeMap<u64, u64>,
    last_subscriber: u64,
}

/// Somebody who reads along.
pub struct Subscription {
    feeds: Arc<Feeds>,
    feed: Arc<Feed>,
    number: u64,
    shard: u16,
    /// Up to where it has read: always between two commits.
    settled: u64,
}

/// Why there is no next chunk.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error(transparent)]
    Log(Arc<TakeOverError>),
    #[error("what comes next is not remembered any more")]
    FellBehind,
}

impl Chunk {
    /// Bytes of the events that the group wants.
    pub fn bytes_of(&self, group: Group) -> usize {
        let wanted = self.events.iter().filter(|event| group.wants(event.kind()));
        wanted.map(LazyEvent::size).sum()
    }
}

impl LazyEvent {
    fn new(stored: StoredEvent, calendar: Calendar) -> LazyEvent {
        LazyEvent {
            stored,
            calendar,
            decoded: OnceLock::new(),
        }
    }

    pub fn kind(&self) -> StreamKind {
        self.stored.stream.kind
    }

    pub fn offset(&self) -> u64 {
        self.stored.position.offset
    }

    /// Bytes of its body.
    pub fn size(&self) -> usize {
        self.stored.body.len()
    }

    /// # Errors
    /// When this program cannot read it.
    pub fn decode(&self) -> Result<&Event, &UnreadableEvent> {
        self.decoded.get_or_init(|| self.stored.decode(&self.calendar)).as_ref()
    }
}

impl Feeds {
    pub fn new(log: Arc<dyn EventLog>) -> Arc<Feeds> {
        Arc::new(Feeds {
            log,
            calendar: OnceCell::new(),
            open: Mutex::default(),
        })
    }

    pub fn log(&self) -> &Arc<dyn EventLog> {
        &self.log
    }

    /// The log's, as each of its shards says.
    pub(super) async fn calendar(&self, shard: u16) -> Result<Calendar, TakeOverError> {
        let read = async || Ok(read_creation(self.log.as_ref(), shard).await?.calendar);
        self.calendar.get_or_try_init(read).await.cloned()
    }

    /// Reads a shard on from a checkpoint, `None` = from its first record: together with others if they are near.
    ///
    /// # Errors
    /// [`TakeOverError::LostTail`] when the record before the checkpoint is not the one that was read then.
    pub async fn subscribe(
        self: &Arc<Self>,
        shard: u16,
        from: Option<&Checkpoint>,
    ) -> Result<Subscription, TakeOverError> {
        let calendar = self.calendar(shard).await?;
        let (judge, reader) = resume(self.log.as_ref(), shard, from).await?;
        let settled = judge.settled();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let feeds = open.entry(shard).or_default();
        feeds.retain(|feed| feed.strong_count() > 0);
        let joined = feeds.iter().filter_map(Weak::upgrade).find_map(|feed| {
            let number = feed.shared.lock().join(settled)?;
            Some((feed, number))
        });
        let (feed, number) = match joined {
            Some(joined) => joined,
            None => {
                let shared = Arc::new(Shared::default());
                shared.lock().start = settled;
                let number = shared.lock().join(settled).expect("it begins here");
                let mut task = JoinSet::new();
                task.spawn(read(
                    Arc::clone(&self.log),
                    calendar,
                    shard,
                    judge,
                    reader,
                    Arc::clone(&shared),
                ));
                let feed = Arc::new(Feed { shared, _reader: task });
                feeds.push(Arc::downgrade(&feed));
                (feed, number)
            }
        };
        Ok(Subscription {
            feeds: Arc::clone(self),
            feed,
            number,
            shard,
            settled,
        })
    }

    /// Another feed of the shard, older than `own`, that can be joined at `settled`.
    fn join_older(&self, shard: u16, own: &Arc<Feed>, settled: u64) -> Option<(Arc<Feed>, u64)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = open.get(&shard)?.iter().filter_map(Weak::upgrade);
        let mut older = alive.take_while(|feed| !Arc::ptr_eq(feed, own));
        older.find_map(|feed| {
            let number = feed.shared.lock().join(settled)?;
            Some((feed, number))
        })
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Where the first chunk begins that is remembered, and where the last one ends.
    fn first(&self) -> u64 {
        self.chunks.front().map_or(self.start, |chunk| chunk.since)
    }

    fn last(&self) -> u64 {
        self.chunks.back().map_or(self.start, |chunk| chunk.settled)
    }

    /// A number for somebody who goes on from `settled`; `None` when this feed does not bring what comes there, or is
    /// not there yet.
    fn join(&mut self, settled: u64) -> Option<u64> {
        let is_remembered = (self.first()..=self.last()).contains(&settled);
        if !is_remembered || self.trouble.is_some() {
            return None;
        }
        self.last_subscriber += 1;
        self.cursors.insert(self.last_subscriber, settled);
        Some(self.last_subscriber)
    }

    fn slowest(&self) -> u64 {
        self.cursors.values().min().copied().unwrap_or(u64::MAX)
    }

    /// Is there so much that somebody has not taken yet that nothing more should be read?
    fn is_full(&self) -> bool {
        let slowest = self.slowest();
        let waiting = self.chunks.iter().filter(|chunk| chunk.settled > slowest);
        let records = self.last().saturating_sub(slowest);
        records + BATCH_RECORDS_MAX as u64 > REMEMBERED_RECORDS_MAX
            || waiting.map(|chunk| chunk.bytes).sum::<usize>() > REMEMBERED_BYTES_MAX
    }

    fn push(&mut self, chunk: Chunk) {
        let (now, slowest) = (chunk.read_at, self.slowest());
        // The newest comes on top.
        let mut bytes: usize = self.chunks.iter().map(|chunk| chunk.bytes).sum();
        self.chunks.push_back(Arc::new(chunk));
        while let Some(oldest) = self.chunks.front() {
            let is_taken = oldest.settled <= slowest && now.duration_since(oldest.read_at) > REMEMBERED_FOR;
            let is_too_much = self.last() - oldest.since > REMEMBERED_RECORDS_MAX || bytes > REMEMBERED_BYTES_MAX;
            // What came just now is never forgotten.
            if self.chunks.len() == 1 || !(is_taken || is_too_much) {
                break;
            }
            bytes -= oldest.bytes;
            self.start = oldest.settled;
            self.chunks.pop_front();
        }
    }
}

impl Subscription {
    /// The next chunks that bring something: all that are there, up to about [`BATCH_RECORDS_MAX`] records. None when none came within
    /// `wait`. Of their events those before [`settled`](Self::settled) are old ones.
    ///
    /// # Errors
    /// [`FeedError`]; everything before was given.
    pub async fn next(&mut self, wait: Duration) -> Result<Vec<Arc<Chunk>>, FeedError> {
        let deadline = Instant::now() + wait;
        loop {
            self.join_older();
            let shared = Arc::clone(&self.feed.shared);
            let mut read = std::pin::pin!(shared.read.notified());
            // From here on no bell is missed.
            read.as_mut().enable();
            let found = self.look(&shared.lock())?;
            if !found.is_empty() || tokio::time::timeout_at(deadline, read).await.is_err() {
                return Ok(found);
            }
        }
    }

    fn look(&self, state: &State) -> Result<Vec<Arc<Chunk>>, FeedError> {
        if state.first() > self.settled {
            return Err(FeedError::FellBehind);
        }
        let mut records = 0;
        let there = state.chunks.iter().filter(|chunk| chunk.settled > self.settled);
        let next = there.take_while(|chunk| {
            let is_first = records == 0;
            records += chunk.settled - chunk.since;
            is_first || records <= BATCH_RECORDS_MAX as u64
        });
        let next: Vec<Arc<Chunk>> = next.cloned().collect();
        match &state.trouble {
            Some(trouble) if next.is_empty() => Err(FeedError::Log(Arc::clone(trouble))),
            _ => Ok(next),
        }
    }

    /// Up to where it has read.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Everything up to this chunk was read.
    pub fn take(&mut self, chunk: &Chunk) {
        self.settled = chunk.settled;
        self.feed.shared.lock().cursors.insert(self.number, chunk.settled);
        self.feed.shared.taken.notify_one();
    }

    fn join_older(&mut self) {
        if let Some((feed, number)) = self.feeds.join_older(self.shard, &self.feed, self.settled) {
            self.leave();
            (self.feed, self.number) = (feed, number);
        }
    }

    fn leave(&self) {
        self.feed.shared.lock().cursors.remove(&self.number);
        self.feed.shared.taken.notify_one();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The reader of a feed: until it is dropped, or cannot go on. A panic in it is an end like any other: who reads along hears of it.
async fn read(
    log: Arc<dyn EventLog>,
    calendar: Calendar,
    shard: u16,
    judge: Judge,
    reader: Box<dyn LogReader>,
    shared: Arc<Shared>,
) {
    let reading = read_on(log, calendar, shard, judge, reader, &shared);
    if AssertUnwindSafe(reading).catch_unwind().await.is_err() {
        metrics::counter!("crm_panics_total", "part" => "reader").increment(1);
        let why = format!("the reader of shard {shard} panicked; it reads anew");
        shared.lock().trouble = Some(Arc::new(LogError::Unavailable(why).into()));
        shared.read.notify_waiters();
    }
}

async fn read_on(
    log: Arc<dyn EventLog>,
    calendar: Calendar,
    shard: u16,
    mut judge: Judge,
    mut reader: Box<dyn LogReader>,
    shared: &Shared,
) {
    let mut silence = Silence::since_now();
    loop {
        wait_for_the_slowest(shared).await;
        let (chunk, trouble) = match reader.next(BATCH_RECORDS_MAX, WAIT).await {
            Ok(records) if records.is_empty() => (None, silence.goes_on(log.as_ref(), shard, judge.next()).await),
            Ok(records) => {
                silence = Silence::since_now();
                judge_all(log.as_ref(), &calendar, shard, &mut judge, records).await
            }
            Err(error) => (None, Some(error.into())),
        };
        let ends = trouble.is_some();
        if chunk.is_some() || ends {
            let mut state = shared.lock();
            if let Some(chunk) = chunk {
                state.push(chunk);
            }
            state.trouble = trouble.map(Arc::new);
            drop(state);
            shared.read.notify_waiters();
        }
        if ends {
            return;
        }
    }
}

/// For how long nothing has come, and whether there was something.
struct Silence {
    looks_at: Instant,
    /// The log went on behind the reader already when it was looked at before.
    was_behind: bool,
}

impl Silence {
    fn since_now() -> Silence {
        Silence {
            looks_at: Instant::now() + SILENT_FOR,
            was_behind: false,
        }
    }

    /// Why the reader is to be replaced, if so: the log has more for it, and had when it was looked at before. A log that does not answer
    /// may have none.
    async fn goes_on(&mut self, log: &dyn EventLog, shard: u16, next: u64) -> Option<TakeOverError> {
        if Instant::now() < self.looks_at {
            return None;
        }
        let end = log.end(shard).await.unwrap_or(next);
        if end > next && self.was_behind {
            let why = format!("the reader of shard {shard} hears nothing at offset {next}, and the log ends at {end}");
            return Some(LogError::Unavailable(why).into());
        }
        self.was_behind = end > next;
        self.looks_at = Instant::now() + if self.was_behind { WAIT } else { SILENT_FOR };
        None
    }
}

async fn wait_for_the_slowest(shared: &Shared) {
    let deadline = Instant::now() + SLOWEST_FOR;
    loop {
        let mut taken = std::pin::pin!(shared.taken.notified());
        taken.as_mut().enable();
        if !shared.lock().is_full() {
            return;
        }
        if tokio::time::timeout_at(deadline, taken).await.is_err() {
            return;
        }
    }
}

/// What the records come to, and why the rest of them cannot be read; nothing when no commit came to its end.
pub(super) async fn judge_all(
    log: &dyn EventLog,
    calendar: &Calendar,
    shard: u16,
    judge: &mut Judge,
    records: Vec<(u64, Record)>,
) -> (Option<Chunk>, Option<TakeOverError>) {
    let since = judge.settled();
    let mut events = vec![];
    let mut trouble = None;
    for (offset, record) in records {
        match judge_or_step_over(log, judge, shard, offset, record).await {
            Ok(Some(Judgement::Commit(commit))) => {
                let lazy = |stored| LazyEvent::new(stored, calendar.clone());
                events.extend(commit.events.into_iter().map(lazy));
            }
            Ok(_) => {}
            Err(error) => {
                trouble = Some(error);
                break;
            }
        }
    }
    let chunk = (judge.settled() > since).then(|| Chunk {
        since,
        settled: judge.settled(),
        checkpoint: judge.checkpoint(),
        next: judge.next(),
        bytes: events.iter().map(LazyEvent::size).sum(),
        events,
        read_at: Instant::now(),
    });
    (chunk, trouble)
}

#[cfg(test)]
pub(super) mod specs;
