//! What reading along promises: everybody gets every event once and in order, wherever they come in, and the log is read once.

use domain::{Actor, EventType, Position, StreamRef, derived_id};
use jiff::Timestamp;

use super::*;
use crate::log::{Claim, Counted};

pub(in crate::views) struct World {
    log: Counted,
    pub feeds: Arc<Feeds>,
    events: u64,
}

impl World {
    pub async fn new() -> World {
        let log = Counted::default();
        crate::log::create(&log.inner, &crate::log::NewLog::of(1), &crate::clock::SystemClock)
            .await
            .unwrap();
        let claim = Claim {
            epoch: 1,
            nonce: derived_id(&["nonce"]),
            node: "node".into(),
            address: String::new(),
        };
        log.inner.push(0, claim.to_record("/crm/spec", Timestamp::UNIX_EPOCH));
        World {
            feeds: Feeds::new(Arc::new(log.clone())),
            log,
            events: 0,
        }
    }

    /// Events come, each a commit of its own.
    pub fn record(&mut self, events: u64) {
        self.record_with(events, "{}");
    }

    pub fn record_with(&mut self, events: u64, body: &str) {
        for _ in 0..events {
            self.events += 1;
            let mut stored = event(self.events);
            stored.body = body.into();
            self.log.inner.push(0, stored.to_record("/crm/spec", 1, self.events));
        }
    }

    /// Registrations, of one customer with this name.
    pub fn record_named(&mut self, events: u64, name: &str) {
        for _ in 0..events {
            self.events += 1;
            let mut stored = event(self.events);
            stored.event_type.event = "registered".into();
            stored.body = format!(r#"{{"kind":"person","name":"{name}"}}"#).into_bytes();
            self.log.inner.push(0, stored.to_record("/crm/spec", 1, self.events));
        }
    }

    /// An operator says to step over the record at this offset.
    pub async fn quarantine(&self, offset: u64, fingerprint: u64) {
        let word = crate::log::Quarantine {
            offset,
            fingerprint,
            reason: "a spec".into(),
        };
        let id = derived_id(&["quarantine", &fingerprint.to_string()]);
        self.log.inner.push(0, word.to_record(id, Timestamp::UNIX_EPOCH));
    }

    /// Reads until nothing more comes.
    async fn read_on(&self, at: &mut Subscription) -> Vec<u64> {
        let mut seen = vec![];
        loop {
            let more = self.read_once(at).await;
            if more.is_empty() {
                return seen;
            }
            seen.extend(more);
        }
    }

    /// Reads what is there.
    async fn read_once(&self, at: &mut Subscription) -> Vec<u64> {
        let chunks = at.next(Duration::from_millis(5)).await.unwrap();
        let events = chunks.iter().flat_map(|chunk| &chunk.events);
        let seen = events.map(LazyEvent::offset).filter(|offset| *offset >= at.settled());
        let seen = seen.collect();
        if let Some(last) = chunks.last() {
            at.take(last);
        }
        seen
    }

    /// The checkpoint behind which the next record stands at `next`.
    fn checkpoint(&self, next: u64) -> Checkpoint {
        let mut judge = Judge::from_start(0);
        for (offset, record) in self.log.inner.records(0).into_iter().take(next as usize).enumerate() {
            judge.judge(offset as u64, record).unwrap();
        }
        judge.checkpoint().unwrap()
    }

    async fn subscribe(&self, next: u64) -> Subscription {
        self.feeds.subscribe(0, Some(&self.checkpoint(next))).await.unwrap()
    }
}

/// Events begin at offset 2, after the creation and the claim.
fn event(n: u64) -> StoredEvent {
    let customer = derived_id(&["customer"]);
    StoredEvent {
        command_id: derived_id(&["command", &n.to_string()]),
        index: 0,
        commit_size: 1,
        event_type: EventType {
            stream: "customer".into(),
            event: "closed".into(),
            version: 1,
        },
        stream: StreamRef {
            kind: StreamKind::Customer,
            id: customer,
        },
        sequence: n,
        time: Timestamp::UNIX_EPOCH,
        effective_at: None,
        actor: Actor::parse("system:spec").unwrap(),
        on_behalf_of: None,
        causation: None,
        correlation: None,
        traceparent: None,
        customer: Some(customer),
        external_key: None,
        command_hash: "0123456789abcdef".into(),
        body: b"{}".to_vec(),
        position: Position { shard: 0, offset: 0 },
    }
}

#[tokio::test(start_paused = true)]
async fn four_who_begin_together_read_the_log_once() {
    let mut world = World::new().await;
    world.record(20_000);
    let mut all = vec![];
    for _ in 0..4 {
        all.push(world.feeds.subscribe(0, None).await.unwrap());
    }
    let expected: Vec<u64> = (2..20_002).collect();
    let mut seen = vec![vec![]; 4];
    // Each takes what is there in turn.
    while seen.iter().any(|seen| seen.len() < expected.len()) {
        for (at, seen) in all.iter_mut().zip(&mut seen) {
            for chunk in at.next(Duration::from_millis(5)).await.unwrap() {
                seen.extend(chunk.events.iter().map(LazyEvent::offset));
                at.take(&chunk);
            }
        }
    }
    assert!(seen.iter().all(|seen| *seen == expected));
    // And the first record once before: it says which days the log counts in.
    assert_eq!(world.log.records_read(), 20_003);
}

#[tokio::test(start_paused = true)]
async fn who_comes_from_anywhere_gets_everything_once_and_reads_along_in_the_end() {
    let mut world = World::new().await;
    world.record(3_000);
    let mut readers = vec![];
    let mut luck = 7_u64;
    for round in 0..40 {
        luck = luck
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let end = world.events + 2;
        let from = match round % 4 {
            0 => end,
            1 => end - (luck >> 33) % 20,
            _ => 2 + (luck >> 33) % (end - 2),
        };
        readers.push((from, world.subscribe(from).await, vec![]));
        world.record((luck >> 40) % 50);
        for (_, at, seen) in &mut readers {
            // Not everybody reads every time.
            if (luck >> 20) & 1 == 0 || seen.is_empty() {
                seen.extend(world.read_on(at).await);
            }
            luck = luck.rotate_left(1);
        }
    }
    for (_, at, seen) in &mut readers {
        seen.extend(world.read_on(at).await);
    }
    let before = world.log.records_read();
    world.record(10);
    for (from, at, seen) in &mut readers {
        seen.extend(world.read_on(at).await);
        assert_eq!(*seen, (*from..world.events + 2).collect::<Vec<u64>>(), "from {from}");
    }
    assert_eq!(world.log.records_read(), before + 10, "one reader is left");
}

#[tokio::test(start_paused = true)]
async fn who_stands_still_holds_nobody_up_for_long_and_no_memory() {
    let mut world = World::new().await;
    world.record(50_000);
    let mut slow = world.feeds.subscribe(0, None).await.unwrap();
    let mut quick = world.feeds.subscribe(0, None).await.unwrap();
    let mut seen = 0;
    while seen < 50_000 {
        let chunks = quick.next(Duration::from_secs(60)).await.unwrap();
        assert!(!chunks.is_empty(), "nothing came in a minute, after {seen} events");
        for chunk in chunks {
            seen += chunk.events.len();
            quick.take(&chunk);
        }
        let state = quick.feed.shared.lock();
        assert!(state.last() - state.first() <= REMEMBERED_RECORDS_MAX);
    }
    let behind = slow.next(Duration::from_millis(5)).await;
    assert!(
        matches!(behind, Err(FeedError::FellBehind)),
        "it is told that something is missing"
    );
    // What all have taken is forgotten, a moment later.
    drop(slow);
    tokio::time::sleep(REMEMBERED_FOR * 2).await;
    world.record(1);
    assert_eq!(world.read_on(&mut quick).await, vec![50_002]);
    assert_eq!(quick.feed.shared.lock().chunks.len(), 1);
}

/// Records come one by one while somebody is busy: he gets them together, and not more at a time than a read brings.
#[tokio::test(start_paused = true)]
async fn who_was_busy_gets_at_once_what_came_meanwhile() {
    let mut world = World::new().await;
    let mut busy = world.feeds.subscribe(0, None).await.unwrap();
    let mut seen = world.read_on(&mut busy).await;
    for come in [10, BATCH_RECORDS_MAX + 1] {
        for _ in 0..come {
            world.record(1);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let chunks = busy.feed.shared.lock().chunks.len();
        assert!(chunks >= come, "{chunks} reads");
        let more = world.read_once(&mut busy).await;
        assert_eq!(more.len(), come.min(BATCH_RECORDS_MAX));
        seen.extend(more);
    }
    seen.extend(world.read_on(&mut busy).await);
    assert_eq!(seen, (2..world.events + 2).collect::<Vec<u64>>());
}

#[tokio::test(start_paused = true)]
async fn large_events_fill_a_feed_sooner() {
    let mut world = World::new().await;
    let large = format!("\"{}\"", "x".repeat(REMEMBERED_BYTES_MAX / 16));
    let slow = world.feeds.subscribe(0, None).await.unwrap();
    let remembered = || {
        slow.feed
            .shared
            .lock()
            .chunks
            .iter()
            .map(|chunk| chunk.bytes)
            .sum::<usize>()
    };
    for _ in 0..40 {
        world.record_with(1, &large);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The sixteenth makes it too much: the reader waits.
    assert_eq!(remembered() / large.len(), 16);
    tokio::time::sleep(SLOWEST_FOR * 2).await;
    assert!(
        remembered() <= REMEMBERED_BYTES_MAX + 40 * large.len(),
        "one read comes on top"
    );
}

#[tokio::test(start_paused = true)]
async fn what_stands_before_a_foreign_record_comes_before_the_error() {
    let mut world = World::new().await;
    world.record(5);
    let foreign = Record {
        key: vec![],
        headers: vec![],
        value: None,
    };
    world.log.inner.push(0, foreign);
    world.record(5);
    let mut all = [world.subscribe(2).await, world.subscribe(4).await];
    for at in &mut all {
        let from = at.settled();
        assert_eq!(world.read_once(at).await, (from..7).collect::<Vec<u64>>());
        let stopped = at.next(Duration::from_secs(1)).await;
        assert!(matches!(stopped, Err(FeedError::Log(error)) if matches!(*error, TakeOverError::Foreign(_))));
    }
    assert!(
        world.feeds.subscribe(0, Some(&world.checkpoint(7))).await.is_ok(),
        "it is tried again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reader_ends_with_the_last_who_reads_along() {
    let mut world = World::new().await;
    world.record(10);
    let at = world.feeds.subscribe(0, None).await.unwrap();
    drop(at);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = world.log.records_read();
    world.record(10);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.log.records_read(), before);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_hears_nothing_while_the_log_goes_on_is_replaced() {
    let mut world = World::new().await;
    world.record(1);
    let mut at = world.subscribe(2).await;
    assert_eq!(world.read_once(&mut at).await, [2]);
    world.log.deafen();
    world.record(3);
    let told = at.next(Duration::from_secs(60)).await;
    assert!(
        matches!(&told, Err(FeedError::Log(why)) if why.to_string().contains("hears nothing at offset 3, and the log ends at 6")),
        "it says so"
    );
    let mut anew = world.subscribe(at.settled()).await;
    assert_eq!(world.read_on(&mut anew).await, [3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_with_nothing_to_hear_is_left_alone() {
    let mut world = World::new().await;
    world.record(1);
    let mut at = world.subscribe(2).await;
    assert_eq!(world.read_once(&mut at).await, [2]);
    assert!(
        at.next(Duration::from_secs(60))
            .await
            .is_ok_and(|chunks| chunks.is_empty())
    );
    world.record(1);
    assert_eq!(world.read_once(&mut at).await, [3]);
}

#[tokio::test(start_paused = true)]
async fn who_reads_along_hears_of_a_reader_that_panicked() {
    let mut world = World::new().await;
    world.record(1);
    let mut at = world.subscribe(2).await;
    assert_eq!(world.read_once(&mut at).await, [2]);
    world.log.panic_once();
    world.record(1);
    let told = at.next(Duration::from_secs(60)).await;
    assert!(matches!(&told, Err(FeedError::Log(why)) if why.to_string().contains("panicked")));
    let mut anew = world.subscribe(at.settled()).await;
    assert_eq!(world.read_on(&mut anew).await, [3]);
}
