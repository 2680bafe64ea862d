//! What the simulation found, each in a few lines.

use std::sync::atomic::Ordering;

use domain::{opportunity, slot_of};
use jiff::{SignedDuration, Timestamp};

use super::*;

/// Little stays in memory, and everything is stored at once.
fn forgetful() -> ShardConfig {
    ShardConfig {
        cached_streams_max: 1,
        cached_commands_max: 1,
        save_at: 1,
        save_every: Duration::from_millis(1),
        retry_pause: Duration::from_millis(1),
        command_timeout: Duration::from_secs(10),
        ..ShardConfig::default()
    }
}

impl Running {
    async fn all_is_stored(&self) {
        while self.handle.status().unsaved > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn the_answer_to_a_bundle_names_its_streams_in_the_same_order_when_it_comes_again() {
    let mut world = World::new().await;
    let shard = world.start();
    shard.insist(&request(id(1), "a", register("a"))).await.unwrap();
    let customer = stream("a");
    let deal = StreamRef {
        kind: StreamKind::Opportunity,
        id: slot_of(customer.id).apply(derived_id(&["deal"])),
    };
    let open = opportunity::Command::Open {
        customer: domain::Id::new(customer.id),
        name: "deal".into(),
        pipeline: None,
        stage: None,
        amount: None,
        close_date: "2026-06-30".parse().unwrap(),
        owner: "mei".into(),
        source: None,
    };
    let step = |stream, command| Step {
        stream,
        action: Action::Decide(command),
        expected_version: None,
    };
    // The first step is already so: the deal has the first event.
    let steps = vec![
        step(customer, register("a").into()),
        step(deal, open.into()),
        step(customer, owner("mei").into()),
    ];
    let first = shard.insist(&bundle(id(2), steps.clone())).await.unwrap();
    shard.end().await;
    let shard = world.start();
    assert_eq!(shard.insist(&bundle(id(2), steps)).await.unwrap(), first);
    shard.end().await;
}

#[tokio::test]
async fn a_take_over_replays_more_streams_than_the_cache_holds() {
    let mut world = World::new().await;
    let shard = world.start();
    for n in 0..20 {
        let name = format!("c{n}");
        shard.insist(&request(id(n), &name, register(&name))).await.unwrap();
    }
    shard.end().await;
    world.states = Arc::new(MemoryStates::default());
    let shard = world.start_with(forgetful());
    assert_eq!(
        shard
            .insist(&request(id(99), "c0", owner("mei")))
            .await
            .unwrap()
            .streams[0]
            .1,
        2
    );
    shard.end().await;
}

#[tokio::test]
async fn states_that_were_deleted_under_a_running_shard_come_back_from_the_log() {
    let states = Arc::new(MemoryStates::default());
    let mut world = World::new().await;
    world.states = Arc::clone(&states) as Arc<dyn StateStore>;
    let shard = world.start_with(forgetful());
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        shard
            .insist(&request(id(n as u64), name, register(name)))
            .await
            .unwrap();
        shard.all_is_stored().await;
    }
    states.clear();
    // Not found is not "never begun".
    let ack = shard.insist(&request(id(9), "a", owner("mei"))).await.unwrap();
    assert_eq!(ack.streams[0].1, 2);
    shard.end().await;
    assert_eq!(world.audit().await.faults, Vec::<String>::new());
}

#[tokio::test]
async fn a_command_id_is_not_forgotten_before_it_is_stored() {
    let mut world = World::new().await;
    let shard = world.start_with(ShardConfig {
        save_at: 1_000,
        save_every: Duration::from_secs(3_600),
        ..forgetful()
    });
    let first = shard.insist(&request(id(1), "a", register("a"))).await.unwrap();
    for n in 2..5 {
        let owner = owner(&format!("owner {n}"));
        shard.insist(&request(id(n), "a", owner)).await.unwrap();
    }
    assert_eq!(shard.insist(&request(id(1), "a", register("a"))).await.unwrap(), first);
    shard.end().await;
    assert_eq!(world.audit().await.faults, Vec::<String>::new());
}

#[tokio::test]
async fn command_ids_that_were_looked_up_together_are_all_known() {
    let mut world = World::new().await;
    let shard = world.start_with(forgetful());
    let requests: Vec<_> = (1..9)
        .map(|n| request(id(n), &format!("c{n}"), register("a")))
        .collect();
    let mut first = Vec::new();
    for request in &requests {
        first.push(shard.insist(request).await.unwrap());
        shard.all_is_stored().await;
    }
    let again = futures::future::join_all(requests.iter().map(|request| shard.insist(request))).await;
    let again: Vec<_> = again.into_iter().map(Result::unwrap).collect();
    assert_eq!(again, first);
    shard.end().await;
}

/// The claim stands behind the watermark that it has stored itself, and is not seen by the next attempt.
#[tokio::test]
async fn a_node_does_not_yield_to_its_own_claim() {
    let states = Arc::new(Moody::default());
    let mut world = World::new().await;
    world.states = Arc::clone(&states) as Arc<dyn StateStore>;
    let shard = world.start_with(ShardConfig {
        save_every: Duration::from_secs(3_600),
        save_at: 1_000,
        ..forgetful()
    });
    shard.insist(&request(id(1), "a", register("a"))).await.unwrap();
    // The shard is taken over anew, and the answer to what the replay stores is lost.
    states.loses_an_answer.store(true, Ordering::SeqCst);
    world.log.inject(0, Fault::LoseAppend);
    let within = Duration::from_secs(10);
    let request = request(id(2), "a", owner("mei"));
    let answered = tokio::time::timeout(within, shard.insist(&request)).await;
    assert_eq!(answered.expect("it is served again").unwrap().streams[0].1, 2);
    assert!(!states.loses_an_answer.load(Ordering::SeqCst), "an answer was lost");
    shard.end().await;
}

#[tokio::test]
async fn a_command_that_is_known_is_answered_when_no_new_one_can_be_decided() {
    let mut world = World::new().await;
    let shard = world.start_with(ShardConfig {
        unsaved_max: 1,
        save_at: 1_000,
        save_every: Duration::from_secs(3_600),
        ..forgetful()
    });
    let first = shard.insist(&request(id(1), "a", register("a"))).await.unwrap();
    let behind = shard.execute(request(id(2), "a", owner("mei")), Lane::People).await;
    assert!(matches!(behind, Err(Failure::NotAccepted(_))), "{behind:?}");
    let again = shard.execute(request(id(1), "a", register("a")), Lane::People).await;
    assert_eq!(again, Ok(first));
    shard.end().await;
}

#[tokio::test]
async fn a_paused_owner_does_not_refuse_from_what_it_remembers() {
    let mut world = World::new().await;
    let first = world.start();
    let nobody = first.execute(request(id(1), "a", owner("mei")), Lane::People).await;
    assert!(matches!(nobody, Err(Failure::Rejected(_))), "{nobody:?}");
    let second = world.start();
    second.insist(&request(id(2), "a", register("a"))).await.unwrap();
    let stale = first.execute(request(id(3), "a", owner("mei")), Lane::People).await;
    assert!(
        matches!(stale, Err(Failure::OutcomeUnknown(_) | Failure::Elsewhere(_))),
        "{stale:?}"
    );
    first.end().await;
    second.end().await;
}

/// The answer to an append that was sent before the question proves nothing about the time of the question.
#[tokio::test(start_paused = true)]
async fn an_append_on_its_way_is_no_proof_that_the_shard_is_still_ours() {
    let mut world = World::new().await;
    let first = world.start();
    first.insist(&request(id(1), "a", register("a"))).await.unwrap();
    world.log.inject(0, Fault::SlowAck(Duration::from_secs(5)));
    let to_mei = request(id(2), "a", owner("mei"));
    let (on_its_way, ()) = futures::join!(first.insist(&to_mei), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let second = world.start();
        second.insist(&request(id(3), "a", owner("wei"))).await.unwrap();
        // Somebody knows by now that it is wei's.
        let stale = first.execute(request(id(4), "a", owner("mei")), Lane::People).await;
        assert!(
            matches!(stale, Err(Failure::OutcomeUnknown(_) | Failure::Elsewhere(_))),
            "{stale:?}"
        );
        second.end().await;
    });
    assert_eq!(on_its_way.unwrap().streams[0].1, 2);
    first.end().await;
}

/// A clock that stands still.
struct Stopped(Timestamp);

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// Recorded at a time before its id was made, the command would be taken for a new one after the next take-over.
#[tokio::test]
async fn a_node_whose_clock_is_behind_does_not_record_under_ids_from_its_future() {
    let made_at = Timestamp::from_second(1_772_000_000).unwrap();
    let young = uuid::Builder::from_unix_timestamp_millis(1_772_000_000_000, &[7; 10]).into_uuid();
    let mut world = World::new().await;
    world.clock = Arc::new(Stopped(made_at - SignedDuration::from_mins(10)));
    let shard = world.start();
    let refused = shard.execute(request(young, "a", register("a")), Lane::People).await;
    assert!(matches!(refused, Err(Failure::NotAccepted(_))), "{refused:?}");
    shard.end().await;
    world.clock = Arc::new(Stopped(made_at - SignedDuration::from_mins(4)));
    let shard = world.start();
    shard.insist(&request(young, "a", register("a"))).await.unwrap();
    shard.end().await;
}
