//! A look-up holds up only who needs what it asks for.

use std::sync::atomic::Ordering;

use super::begun::forgetful;
use super::gate::{Gate, Hold};
use super::*;

/// Sends, and does not wait for the answer.
fn send(shard: &Arc<Running>, request: Request) -> tokio::task::JoinHandle<Result<Ack, Failure>> {
    let shard = Arc::clone(shard);
    tokio::spawn(async move { shard.execute(request, Lane::People).await })
}

/// A shard of another owner has stored one stream, `a`.
async fn a_is_stored(world: &mut World) {
    let shard = world.start();
    shard.insist(&request(id(0), "a", register("a"))).await.unwrap();
    shard.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_look_up_without_an_end_holds_up_only_who_needs_it() {
    let states = Arc::new(Moody::default());
    let mut world = World::with(states.clone()).await;
    let shard = world.start();
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        shard
            .insist(&request(id(n as u64), name, register(name)))
            .await
            .unwrap();
    }
    shard.end().await;
    let shard = Arc::new(world.start());
    shard.peek(stream("a")).await.unwrap();
    // Until it knows all that are stored.
    tokio::time::sleep(Duration::from_secs(10)).await;

    states.hangs.store(true, Ordering::SeqCst);
    let send = |n: u64, name: &str, to: &str| send(&shard, request(id(n), name, owner(to)));
    let mut held_up = vec![send(10, "b", "mei")];
    tokio::time::sleep(Duration::from_secs(1)).await;
    // One on what is being looked up, one on what would have to be.
    held_up.extend([send(11, "b", "lin"), send(12, "c", "mei")]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let started = tokio::time::Instant::now();
    assert_eq!(send(13, "a", "mei").await.unwrap().unwrap().streams[0].1, 2);
    let new = shard.execute(request(id(14), "d", register("d")), Lane::People).await;
    assert_eq!(new.unwrap().streams[0].1, 1);
    assert_eq!(shard.peek(stream("a")).await.unwrap().1, 2);
    assert!(started.elapsed() < Duration::from_secs(1));
    assert!(held_up.iter().all(|held_up| !held_up.is_finished()));

    states.hangs.store(false, Ordering::SeqCst);
    let mut versions = Vec::new();
    for held_up in held_up {
        versions.push(held_up.await.unwrap().unwrap().streams[0].1);
    }
    assert_eq!(versions, [2, 3, 2]);
}

/// Those that wait are bounded: then nobody is taken until the store answers, and what was taken is answered.
#[tokio::test(start_paused = true)]
async fn so_many_wait_for_a_look_up_and_no_more() {
    let states = Arc::new(Moody::default());
    let mut world = World::with(states.clone()).await;
    let config = || ShardConfig {
        batch_records_max: 10,
        queue_max: 5,
        ..patient()
    };
    let shard = world.start_with(config());
    for n in 0..40 {
        let name = n.to_string();
        shard.insist(&request(id(n), &name, register(&name))).await.unwrap();
    }
    shard.end().await;
    let shard = Arc::new(world.start_with(config()));
    shard.peek(stream("0")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;

    states.hangs.store(true, Ordering::SeqCst);
    let mut accepted = Vec::new();
    for n in 1..40 {
        let sent = send(&shard, request(id(100 + n), &n.to_string(), owner("mei")));
        tokio::time::sleep(Duration::from_millis(1)).await;
        if sent.is_finished() {
            let refused = sent.await.unwrap();
            assert_eq!(
                refused,
                Err(Failure::NotAccepted("too many commands are waiting".into()))
            );
            break;
        }
        accepted.push(sent);
    }
    // One is being looked up, ten wait for the next, five are in the queue.
    assert_eq!(accepted.len(), 1 + 10 + 5);
    states.hangs.store(false, Ordering::SeqCst);
    for accepted in accepted {
        accepted.await.unwrap().unwrap();
    }
}

/// While it is being looked up, a stream may be learned to be new. Who comes then waits too: what the look-up finds, nothing, would else be
/// taken for the state after the other's event.
#[tokio::test(start_paused = true)]
async fn what_is_being_looked_up_is_decided_by_what_is_found() {
    let states = Arc::new(Moody::default());
    let mut world = World::with(states.clone()).await;
    let shard = world.start();
    shard.insist(&request(id(1), "a", register("a"))).await.unwrap();
    shard.end().await;
    states.lists_nothing.store(true, Ordering::SeqCst);
    states.hangs.store(true, Ordering::SeqCst);
    let shard = Arc::new(world.start_with(ShardConfig {
        save_every: Duration::from_millis(10),
        ..patient()
    }));
    let send = |n: u64, command: customer::Command| send(&shard, request(id(n), "new", command));
    let first = send(2, register("new"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    states.lists_nothing.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        shard.insist(&request(id(3), "b", register("b"))).await.unwrap().streams[0].1,
        1,
        "it knows what is new by now"
    );
    let second = send(4, owner("mei"));
    // Long enough for it to be saved.
    tokio::time::sleep(Duration::from_secs(1)).await;
    states.hangs.store(false, Ordering::SeqCst);
    assert_eq!(first.await.unwrap().unwrap().streams[0].1, 1);
    assert_eq!(second.await.unwrap().unwrap().streams[0].1, 2);
}

/// A client's id is looked up after a take-over although its stream is in memory, where there is room for one. Others come while it is looked
/// up: the stream stays, and not one of the others more than there is room for.
#[tokio::test(start_paused = true)]
async fn what_a_look_up_relies_on_stays_in_memory_and_nothing_more() {
    let states = Arc::new(Moody::default());
    let mut world = World::with(states.clone()).await;
    a_is_stored(&mut world).await;
    let shard = Arc::new(world.start_with(forgetful()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    shard.peek(stream("a")).await.unwrap();

    let before = states.looked_up.load(Ordering::SeqCst);
    states.hangs.store(true, Ordering::SeqCst);
    let sent = send(&shard, request(fresh(), "a", owner("mei")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    for n in 1..=20 {
        let new = n.to_string();
        let registered = shard.execute(request(id(n), &new, register(&new)), Lane::People).await;
        assert_eq!(registered.unwrap().streams[0].1, 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(
            shard.handle.status().cached_streams <= 2,
            "one, and the one that is kept"
        );
    }
    states.hangs.store(false, Ordering::SeqCst);
    assert_eq!(sent.await.unwrap().unwrap().streams[0].1, 2);
    let asked = states.looked_up.load(Ordering::SeqCst) - before;
    assert_eq!(asked, 1, "the command id");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(shard.handle.status().cached_streams, 1);
}

/// It was known without the store that the id was new, and then it was used, and so many came after it that it was forgotten.
#[tokio::test(start_paused = true)]
async fn an_id_that_is_used_and_forgotten_during_a_look_up_is_looked_up_then() {
    let states = Arc::new(Moody::default());
    let mut world = World::with(states.clone()).await;
    let shard = Arc::new(world.start_with(forgetful()));
    for (n, name) in ["a", "b"].into_iter().enumerate() {
        let registered = request(id(n as u64), name, register(name));
        shard.insist(&registered).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    states.hangs.store(true, Ordering::SeqCst);
    let used = fresh();
    let send = |id: Uuid, name: &str, command: customer::Command| send(&shard, request(id, name, command));
    let held_up = send(used, "a", owner("mei"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    send(used, "new", register("new")).await.unwrap().unwrap();
    let mut others = 0;
    let waits = loop {
        let other = send(fresh(), &others.to_string(), register("other"));
        tokio::time::sleep(Duration::from_millis(100)).await;
        if !other.is_finished() {
            break other;
        }
        other.await.unwrap().unwrap();
        others += 1;
    };
    assert!(others > 1, "new ids need the store because old ones are forgotten");
    states.hangs.store(false, Ordering::SeqCst);
    waits.await.unwrap().unwrap();
    assert_eq!(held_up.await.unwrap(), Err(Failure::IdReused(used)));
}

/// A command is decided while its twin waits for the look-up that is on its way. Then it is written, stored, and goes from memory: what the
/// next look-up found before that, nothing, says nothing of the twin.
#[tokio::test(start_paused = true)]
async fn a_command_that_is_about_to_be_written_is_not_looked_up() {
    let states = Arc::new(Moody::default());
    let mut world = World::with(states.clone()).await;
    a_is_stored(&mut world).await;
    let shard = Arc::new(world.start_with(forgetful()));
    tokio::time::sleep(Duration::from_secs(10)).await;

    let tells = states.tells.get_or_init(|| tokio::sync::Semaphore::new(0));
    let send = |id: Uuid, name: &str| send(&shard, request(id, name, register(name)));
    let used = fresh();
    let first = send(used, "first");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let twins = [send(used, "first"), send(used, "other")];
    tokio::time::sleep(Duration::from_millis(100)).await;
    tells.add_permits(1);
    let first = first.await.unwrap().unwrap();
    for n in 1..=20 {
        send(id(n), &n.to_string()).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tells.add_permits(1_000);
    let [twin, other] = twins;
    assert_eq!(twin.await.unwrap().unwrap(), first);
    assert_eq!(other.await.unwrap(), Err(Failure::IdReused(used)));
}

/// There is always somebody for the room in the next append. Who waits for a look-up comes before all who came later.
#[tokio::test(start_paused = true)]
async fn what_was_looked_up_is_not_put_off_by_those_who_need_no_look_up() {
    let states = Arc::new(Moody::default());
    let mut world = World::with(states.clone()).await;
    a_is_stored(&mut world).await;
    let gate = Gate::before(world.log.clone());
    let config = ShardConfig {
        batch_records_max: 10,
        ..patient()
    };
    let shard = Arc::new(world.start_on(Arc::new(gate.clone()), config));
    tokio::time::sleep(Duration::from_secs(10)).await;
    shard.peek(stream("a")).await.unwrap();

    states.hangs.store(true, Ordering::SeqCst);
    let looked_up = send(&shard, request(fresh(), "a", owner("mei")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    gate.hold(Hold::BeforeWriting);
    let mut others = Vec::new();
    for n in 1..=200 {
        let name = n.to_string();
        others.push(send(&shard, request(id(n), &name, register(&name))));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    states.hangs.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = world.log.records(0).len() as u64;
    gate.open_up();
    let position = looked_up.await.unwrap().unwrap().position;
    let (in_flight, pending) = (10, 10);
    assert_eq!(position.offset, before + in_flight + pending);
    for other in others {
        other.await.unwrap().unwrap();
    }
}
