//! What is surely new, a stream or a command id, is known for such without the state store, and nothing else ever is.

use std::sync::atomic::Ordering;

use super::*;

/// Remembers next to nothing, and goes through the store in small pages.
pub(super) fn forgetful() -> ShardConfig {
    ShardConfig {
        cached_streams_max: 1,
        cached_commands_max: 1,
        save_at: 1,
        save_every: Duration::from_millis(10),
        inventory_page_max: 3,
        ..patient()
    }
}

struct Shop {
    world: World,
    states: Arc<Moody>,
    commands: u64,
}

impl Shop {
    async fn new() -> Shop {
        let states = Arc::new(Moody::default());
        Shop {
            world: World::with(states.clone()).await,
            states,
            commands: 0,
        }
    }

    /// The version of the stream after one more command, and how many streams were looked up for it.
    async fn command(&mut self, shard: &Running, name: &str, command: customer::Command) -> (u64, usize) {
        self.commands += 1;
        let before = self.states.looked_up.load(Ordering::SeqCst);
        let ack = shard.insist(&request(id(self.commands), name, command)).await.unwrap();
        // So that it is saved, and goes from memory with the next one.
        tokio::time::sleep(Duration::from_secs(1)).await;
        (ack.streams[0].1, self.states.looked_up.load(Ordering::SeqCst) - before)
    }

    async fn register(&mut self, shard: &Running, names: std::ops::Range<u32>) -> usize {
        let mut looked_up = 0;
        for name in names {
            let name = name.to_string();
            let (version, asked) = self.command(shard, &name, register(&name)).await;
            assert_eq!(version, 1, "{name}");
            looked_up += asked;
        }
        looked_up
    }

    async fn change(&mut self, shard: &Running, names: std::ops::Range<u32>, to: &str, version: u64) -> usize {
        let mut looked_up = 0;
        for name in names {
            let (now, asked) = self.command(shard, &name.to_string(), owner(to)).await;
            assert_eq!(now, version, "{name}");
            looked_up += asked;
        }
        looked_up
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_new_is_not_looked_up_and_what_left_the_memory_is() {
    let mut shop = Shop::new().await;
    let shard = shop.world.start_with(forgetful());
    assert_eq!(shop.register(&shard, 0..20).await, 0, "all of the log was read");
    assert_eq!(shop.change(&shard, 0..20, "mei", 2).await, 20);
    shard.end().await;

    let shard = shop.world.start_with(forgetful());
    // Seven pages, and the rests between them.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(shop.register(&shard, 20..40).await, 0);
    assert_eq!(shop.change(&shard, 0..20, "lin", 3).await, 20);
    assert_eq!(shop.change(&shard, 20..40, "lin", 2).await, 20);
    // All of their ids went from memory: those of this owner and of the one before.
    for n in 1..=shop.commands {
        let other = shard.insist(&request(id(n), "other", register("other"))).await;
        assert_eq!(other, Err(Failure::IdReused(id(n))));
    }
    shard.end().await;
}

#[tokio::test(start_paused = true)]
async fn as_long_as_the_store_does_not_tell_what_it_has_nothing_is_taken_for_new() {
    let mut shop = Shop::new().await;
    let shard = shop.world.start_with(forgetful());
    shop.register(&shard, 0..10).await;
    shard.end().await;

    shop.states.lists_nothing.store(true, Ordering::SeqCst);
    let shard = shop.world.start_with(forgetful());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!shard.handle.status().knows_what_is_stored);
    assert_eq!(shop.register(&shard, 10..20).await, 10 + 10, "streams and command ids");
    assert_eq!(shop.change(&shard, 0..10, "mei", 2).await, 10 + 10);

    shop.states.lists_nothing.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(shard.handle.status().knows_what_is_stored);
    assert_eq!(shop.register(&shard, 20..30).await, 0);
    assert_eq!(shop.change(&shard, 10..30, "mei", 2).await, 20);
    shard.end().await;
}

/// The tail that was not saved is in the log only, and then in no page of the store.
#[tokio::test(start_paused = true)]
async fn a_stream_of_the_replayed_tail_is_not_taken_for_new() {
    let mut shop = Shop::new().await;
    let shard = shop.world.start_with(forgetful());
    shop.register(&shard, 0..5).await;
    shop.states.down.store(true, Ordering::SeqCst);
    shop.register(&shard, 5..10).await;
    shard.end().await;

    shop.states.down.store(false, Ordering::SeqCst);
    let shard = shop.world.start_with(forgetful());
    tokio::time::sleep(Duration::from_secs(60)).await;
    shop.change(&shard, 0..10, "mei", 2).await;
    shard.end().await;
    let found = shop.world.audit().await;
    assert_eq!((found.events, found.faults), (20, vec![]));
}
