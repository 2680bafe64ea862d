//! What is bounded in a shard, and what happens at the bound.

use std::sync::atomic::Ordering;

use domain::Fact;

use super::gate::{Gate, Hold};
use super::*;
use crate::shard::batch::{COMMIT_BYTES_MAX, COMMIT_EVENTS_MAX, EVENT_BYTES_MAX};

struct Bounded {
    gate: Gate,
    states: Arc<Moody>,
    shard: Arc<Running>,
}

impl Bounded {
    async fn start(config: ShardConfig) -> Bounded {
        let states = Arc::new(Moody::default());
        let mut world = World::with(states.clone()).await;
        let gate = Gate::before(world.log.clone());
        let shard = Arc::new(world.start_on(Arc::new(gate.clone()), config));
        shard.insist(&request(id(0), "first", register("first"))).await.unwrap();
        gate.take_appends();
        Bounded { gate, states, shard }
    }

    /// Sends without waiting for the answer.
    fn send(&self, n: u64, lane: Lane) -> tokio::task::JoinHandle<Result<Ack, Failure>> {
        let shard = Arc::clone(&self.shard);
        let name = format!("s{n}");
        tokio::spawn(async move { shard.execute(request(id(n), &name, register(&name)), lane).await })
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_people_at_once_and_lets_imports_wait() {
    let config = ShardConfig {
        queue_max: 8,
        batch_records_max: 4,
        ..patient()
    };
    let world = Bounded::start(config).await;
    world.gate.hold(Hold::BeforeWriting);
    let mut accepted = Vec::new();
    let refused = loop {
        let sent = world.send(1 + accepted.len() as u64, Lane::People);
        let before = tokio::time::Instant::now();
        tokio::time::sleep(Duration::from_millis(1)).await;
        if sent.is_finished() {
            assert_eq!(before.elapsed(), Duration::from_millis(1), "at once");
            break sent.await.unwrap();
        }
        accepted.push(sent);
    };
    assert_eq!(
        refused,
        Err(Failure::NotAccepted("too many commands are waiting".into()))
    );
    // The queue, one batch on its way, one that is decided, and what was taken along with it.
    assert!(
        (8..=8 + 3 * 4).contains(&accepted.len()),
        "{} were accepted",
        accepted.len()
    );
    let imports: Vec<_> = (100..122).map(|n| world.send(n, Lane::Imports)).collect();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(
        imports.iter().all(|import| !import.is_finished()),
        "imports wait for room"
    );
    world.gate.open_up();
    for sent in accepted.into_iter().chain(imports) {
        sent.await.unwrap().unwrap();
    }
}

/// Sends 95 commands at once; records and bytes of the appends that they came to.
async fn appends_of_95_commands(config: ShardConfig) -> Vec<(usize, usize)> {
    let world = Bounded::start(config).await;
    world.gate.hold(Hold::BeforeWriting);
    let sent: Vec<_> = (1..=95).map(|n| world.send(n, Lane::People)).collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    world.gate.open_up();
    for sent in sent {
        sent.await.unwrap().unwrap();
    }
    let appends = world.gate.take_appends();
    assert_eq!(appends.iter().map(|(records, _)| records).sum::<usize>(), 95);
    appends
}

#[tokio::test(start_paused = true)]
async fn an_append_takes_no_more_than_its_records_and_bytes() {
    let appends = appends_of_95_commands(ShardConfig {
        batch_records_max: 10,
        ..patient()
    });
    let appends = appends.await;
    assert!(appends.iter().all(|(records, _)| *records <= 10), "{appends:?}");

    let appends = appends_of_95_commands(ShardConfig {
        batch_bytes_max: 8_000,
        ..patient()
    });
    let appends = appends.await;
    // One command more than fits, and what the records' headers take beyond the estimate.
    assert!(
        appends.iter().all(|(_, bytes)| *bytes <= 8_000 + 2 * 1_000),
        "{appends:?}"
    );
    assert!(appends.len() > 4, "{appends:?}");
}

#[tokio::test]
async fn a_commit_of_too_many_or_too_large_events_is_refused() {
    let world = Bounded::start(patient()).await;
    let event = |to: String| -> Fact { customer::Event::OwnerAssigned { from: None, to }.into() };
    let record = |facts: Vec<Fact>| {
        let step = Step {
            stream: stream("first"),
            action: Action::Record(facts),
            expected_version: None,
        };
        bundle(fresh(), vec![step])
    };
    let many = record((0..=COMMIT_EVENTS_MAX).map(|n| event(n.to_string())).collect());
    let large = record(vec![event("o".repeat(EVENT_BYTES_MAX))]);
    let heavy = record((0..6).map(|_| event("o".repeat(COMMIT_BYTES_MAX / 5))).collect());
    for request in [many, large, heavy] {
        let outcome = world.shard.insist(&request).await;
        assert!(matches!(outcome, Err(Failure::TooLarge(_))), "{outcome:?}");
    }
    assert_eq!(audit(&world.gate, 0, |_| {}).await.unwrap().events, 1);
}

#[tokio::test(start_paused = true)]
async fn states_and_command_ids_in_memory_stay_within_their_bounds() {
    let config = ShardConfig {
        cached_streams_max: 10,
        cached_commands_max: 20,
        save_every: Duration::from_millis(10),
        ..patient()
    };
    let world = Bounded::start(config).await;
    for n in 1..=200 {
        world.send(n, Lane::People).await.unwrap().unwrap();
        if n % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let status = world.shard.handle.status();
            assert!(
                status.cached_streams <= 10,
                "{} states are in memory",
                status.cached_streams
            );
            assert!(
                status.cached_commands <= 20,
                "{} ids are in memory",
                status.cached_commands
            );
            assert_eq!(status.unsaved, 0);
        }
    }
    // What left the memory is not forgotten.
    let again = world.shard.insist(&request(id(1), "s1", register("s1"))).await.unwrap();
    assert_eq!(again.events, 1);
    assert_eq!(audit(&world.gate, 0, |_| {}).await.unwrap().events, 201);
}

#[tokio::test(start_paused = true)]
async fn with_too_much_unsaved_commands_are_refused_until_the_store_is_back() {
    let config = ShardConfig {
        unsaved_max: 20,
        ..patient()
    };
    let world = Bounded::start(config).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.states.down.store(true, Ordering::SeqCst);
    let mut acked = 0;
    let refused = loop {
        let command = request(fresh(), "first", owner(&format!("o{acked}")));
        match world.shard.execute(command, Lane::People).await {
            Ok(_) => acked += 1,
            Err(failure) => break failure,
        }
    };
    assert_eq!(refused, Failure::NotAccepted("the state store is behind".into()));
    assert!((18..=22).contains(&acked), "{acked} commands went on");
    world.states.down.store(false, Ordering::SeqCst);
    world
        .shard
        .insist(&request(fresh(), "first", owner("back")))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_command_that_takes_too_long_is_answered_with_what_is_known_of_it() {
    let config = ShardConfig {
        batch_records_max: 1,
        command_timeout: Duration::from_secs(5),
        ..patient()
    };
    let world = Bounded::start(config).await;
    world.gate.hold(Hold::BeforeWriting);
    let sent: Vec<_> = (1..=5).map(|n| world.send(n, Lane::People)).collect();
    let started = tokio::time::Instant::now();
    let mut outcomes = Vec::new();
    for sent in sent {
        outcomes.push(sent.await.unwrap());
    }
    assert!(started.elapsed() <= Duration::from_secs(6));
    assert!(
        matches!(outcomes[0], Err(Failure::OutcomeUnknown(_))),
        "on its way: {outcomes:?}"
    );
    assert!(
        matches!(outcomes[4], Err(Failure::NotInTime(_))),
        "never begun: {outcomes:?}"
    );
    world.gate.open_up();
    // Who was told "not accepted" was not applied behind its back.
    world
        .shard
        .insist(&request(fresh(), "first", owner("after")))
        .await
        .unwrap();
    let mut applied = Vec::new();
    let found = audit(&world.gate, 0, |commit| applied.push(commit.events[0].command_id));
    found.await.unwrap();
    assert!(applied.contains(&id(1)) && !applied.contains(&id(5)), "{applied:?}");
}
