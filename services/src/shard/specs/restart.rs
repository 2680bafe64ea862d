//! A restart costs what was not stored yet, however long the history is.

use std::sync::atomic::Ordering;

use super::*;
use crate::log::Counted;
use crate::shard::takeover::{READ_RECORDS_MAX, SAVE_MAX};

/// The records that a new owner reads before its first ack, after a history of which all is stored but the last few commands, and a crash.
async fn read_after_a_crash(history: u64, unsaved: u64) -> u64 {
    let states = Arc::new(Moody::default());
    let mut world = World::with(states.clone()).await;
    let shard = world.start_with(ShardConfig {
        save_every: Duration::from_millis(10),
        ..patient()
    });
    let register_next = async |shard: &Running, n: u64| {
        let name = n.to_string();
        shard.insist(&request(id(n), &name, register(&name))).await.unwrap();
    };
    for n in 0..history {
        register_next(&shard, n).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    states.down.store(true, Ordering::SeqCst);
    for n in history..history + unsaved {
        register_next(&shard, n).await;
    }
    shard.task.abort();
    states.down.store(false, Ordering::SeqCst);

    let log = Counted::before(world.log.clone());
    let shard = world.start_on(Arc::new(log.clone()), patient());
    register_next(&shard, history + unsaved).await;
    shard.end().await;
    assert_eq!(world.audit().await.events, history + unsaved + 1);
    log.records_read()
}

#[tokio::test(start_paused = true)]
async fn a_restart_reads_what_was_not_stored_and_not_the_history() {
    let short = read_after_a_crash(100, 50).await;
    // Once before the claim, and once up to it.
    assert!(short <= 2 * 50 + 10, "{short}");
    assert_eq!(read_after_a_crash(10_000, 50).await, short);
}

#[tokio::test(start_paused = true)]
async fn what_a_take_over_gathers_is_saved_on_the_way() {
    let begin_a_hundred = |n: u64| {
        let begin = |step: u64| {
            let name = format!("{n}-{step}");
            Step {
                stream: stream(&name),
                action: Action::Decide(register(&name).into()),
                expected_version: None,
            }
        };
        bundle(id(n), (0..100).map(begin).collect())
    };
    let mut world = World::new().await;
    let shard = world.start();
    for n in 0..400 {
        shard.insist(&begin_a_hundred(n)).await.unwrap();
    }
    shard.end().await;

    // All states are lost: everything is gathered anew, and it is more than may be kept.
    let states = Arc::new(Moody::default());
    world.states = states.clone();
    let log = Counted::before(world.log.clone());
    let shard = world.start_on(Arc::new(log.clone()), patient());
    assert_eq!(shard.insist(&begin_a_hundred(0)).await.unwrap().events, 100);
    shard.end().await;
    assert_eq!(log.most_records_at_once(), READ_RECORDS_MAX as u64);
    let most = states.most_saved.load(Ordering::SeqCst);
    assert!((SAVE_MAX..SAVE_MAX + 2 * READ_RECORDS_MAX).contains(&most), "{most}");
    assert_eq!(world.audit().await.events, 40_000);
}
