//! An update is decided where it is applied: on the state of that moment, once.

use super::*;

fn update(n: u64, name: &str) -> Request {
    request(id(n), "a", register(name)).upserting(true)
}

async fn name_of(shard: &Running) -> String {
    let (state, _) = shard.peek(stream("a")).await.unwrap();
    match state.as_ref() {
        domain::AnyState::Customer(customer) => customer.name.reveal().clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn updates_that_come_at_once_are_decided_one_after_another_and_each_id_once() {
    let mut world = World::new().await;
    let shard = world.start();
    // Each name but the first is sent twice under its id, and once more under another.
    let updates = (0..20).flat_map(|n| {
        [
            update(n, &format!("{n}")),
            update(n, &format!("{n}")),
            update(100 + n, &format!("{n}")),
        ]
    });
    let acks = futures::future::join_all(updates.map(|update| shard.execute(update, Lane::People))).await;
    let acks: Vec<Ack> = acks.into_iter().map(Result::unwrap).collect();
    for (n, same) in acks.chunks(3).enumerate() {
        assert_eq!((same[0].events, same[0].streams[0].1), (1, n as u64 + 1));
        assert_eq!(same[1], same[0]);
        assert_eq!((same[2].events, same[2].streams[0].1), (0, n as u64 + 1));
    }
    assert_eq!(name_of(&shard).await, "19");
    shard.end().await;
    assert_eq!(world.audit().await.events, 20);
}

#[tokio::test(start_paused = true)]
async fn an_update_before_a_crash_has_its_answer_after_it_and_no_second_effect() {
    let mut world = World::new().await;
    let shard = world.start();
    shard.execute(update(1, "a"), Lane::People).await.unwrap();
    let first = shard.execute(update(2, "b"), Lane::People).await.unwrap();
    shard.execute(update(3, "c"), Lane::People).await.unwrap();
    shard.task.abort();
    let shard = world.start();
    assert_eq!(shard.execute(update(2, "b"), Lane::People).await, Ok(first));
    // Without the word it is another command.
    let reused = shard.execute(request(id(2), "a", register("b")), Lane::People).await;
    assert_eq!(reused, Err(Failure::IdReused(id(2))));
    assert_eq!(name_of(&shard).await, "c");
    shard.end().await;
    assert_eq!(world.audit().await.events, 3);
}

#[tokio::test(start_paused = true)]
async fn an_update_whose_append_failed_is_decided_anew() {
    let mut world = World::new().await;
    let shard = world.start();
    shard.execute(update(1, "a"), Lane::People).await.unwrap();
    for fault in [Fault::LoseAppend, Fault::LoseAck] {
        world.log.inject(0, fault);
    }
    assert_eq!(shard.insist(&update(2, "b")).await.unwrap().events, 1);
    assert_eq!(name_of(&shard).await, "b");
    shard.end().await;
    assert_eq!(world.audit().await.events, 2);
}
