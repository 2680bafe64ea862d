//! The machine's clock is put back, or far ahead: neither stops commands for longer than it is wrong, nor marks the log.

use std::sync::Mutex;

use jiff::Timestamp;

use super::*;
use crate::clock::CorrectedClock;
use crate::clock::specs::WrongClock;
use crate::shard::id_made_at;

/// A world with the clock of a machine, and that clock as a process sees it.
async fn world() -> (World, Arc<WrongClock>) {
    let machine = Arc::new(WrongClock(Mutex::default(), Some(tokio::time::Instant::now())));
    let mut world = World::new().await;
    world.clock = Arc::new(CorrectedClock::new(Arc::clone(&machine) as _));
    (world, machine)
}

/// The latest recorded time.
async fn last_time(world: &World) -> Timestamp {
    let mut last = Timestamp::MIN;
    let read = audit(&world.log, 0, |commit| last = last.max(commit.events[0].time));
    read.await.unwrap();
    last
}

#[tokio::test(start_paused = true)]
async fn commands_without_an_id_go_on_when_the_clock_is_put_back() {
    let (mut world, machine) = world().await;
    let shard = world.start();
    let clock = Arc::clone(&world.clock);
    let without_id = |command| request(id_made_at(clock.now()), "a", command);
    shard.execute(without_id(register("a")), Lane::People).await.unwrap();
    machine.put(-600);
    for n in 0..3 {
        tokio::time::sleep(Duration::from_secs(200)).await;
        let told = shard.execute(without_id(owner(&format!("o{n}"))), Lane::People).await;
        assert_eq!(told.unwrap().events, 1);
    }
    shard.end().await;
    // Nor after a start on the machine whose clock is behind the log.
    world.clock = Arc::new(CorrectedClock::new(Arc::clone(&machine) as _));
    let (shard, clock) = (world.start(), Arc::clone(&world.clock));
    let late = request(id_made_at(clock.now()), "a", owner("last"));
    assert_eq!(shard.execute(late, Lane::People).await.unwrap().events, 1);
    shard.end().await;
    assert_eq!(world.audit().await.events, 5);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_put_far_ahead_writes_nothing_until_it_is_put_right() {
    let (mut world, machine) = world().await;
    let shard = world.start();
    shard.insist(&request(id(1), "a", register("a"))).await.unwrap();
    let before = last_time(&world).await;
    machine.put(2 * 86_400);
    let told = shard.execute(request(id(2), "a", owner("mei")), Lane::People).await;
    assert!(
        matches!(&told, Err(Failure::NotAccepted(why)) if why.contains("put ahead")),
        "{told:?}"
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    let status = shard.handle.status();
    assert!(!status.owned);
    let why = status.trouble.unwrap();
    assert!(why.contains("clock is 48 h ahead"), "{why}");
    assert_eq!(last_time(&world).await, before, "and nothing bears that time");
    machine.put(0);
    assert_eq!(
        shard.insist(&request(id(2), "a", owner("mei"))).await.unwrap().events,
        1
    );
    shard.end().await;
}
