//! Who comes in, and who is refused: a burst and a stall refuse nobody, what stays full does.

use super::gate::{Gate, Hold};
use super::*;
use crate::shard::admission::{Admission, Admitted};

const BURST: Duration = Duration::from_secs(2);

/// Ten always, more if answered within 50 ms, anything for two seconds.
fn config() -> ShardConfig {
    ShardConfig {
        steady_min: 10,
        steady_wait: Duration::from_millis(50),
        burst: BURST,
        ..patient()
    }
}

fn enter(admission: &Arc<Admission>, count: usize) -> Vec<Admitted> {
    (0..count).map_while(|_| admission.enter()).collect()
}

/// So many eighths of a burst pass, and somebody comes in each.
async fn pass(admission: &Arc<Admission>, eighths: usize) {
    for _ in 0..eighths {
        tokio::time::sleep(BURST / 8).await;
        drop(admission.enter());
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_comes_in_and_what_stays_does_not() {
    let admission = Admission::new(&config());
    let mut open = enter(&admission, 40);
    assert_eq!(open.len(), 40, "a burst");
    pass(&admission, 7).await;
    open.extend(Some(admission.enter().expect("it is one still")));
    pass(&admission, 1).await;
    assert!(admission.enter().is_none(), "it is none any more");
    open.truncate(9);
    open.push(admission.enter().expect("ten may stay"));
    assert!(admission.enter().is_none(), "and no eleventh");
}

#[tokio::test(start_paused = true)]
async fn under_lasting_overload_there_is_no_second_burst_until_it_is_over() {
    let admission = Admission::new(&config());
    let mut open = enter(&admission, 20);
    pass(&admission, 8).await;
    for _ in 0..20 {
        assert!(admission.enter().is_none());
        // A whole append is answered, and as many come.
        open.clear();
        open.extend(enter(&admission, 20));
        assert_eq!(open.len(), 10);
        tokio::time::sleep(BURST / 8).await;
    }
    tokio::time::sleep(BURST / 4).await;
    open.extend(enter(&admission, 20));
    assert_eq!(open.len(), 30, "nobody was refused for a while");
}

#[tokio::test(start_paused = true)]
async fn what_comes_and_goes_is_no_overload() {
    let admission = Admission::new(&config());
    for _ in 0..40 {
        assert_eq!(enter(&admission, 40).len(), 40, "all are answered at once");
        tokio::time::sleep(BURST / 8).await;
    }
}

/// How many may stay when more come for longer than a burst.
async fn steady(admission: &Arc<Admission>) -> usize {
    let open = enter(admission, 5_000);
    pass(admission, 8).await;
    drop(open);
    enter(admission, 5_000).len()
}

#[tokio::test(start_paused = true)]
async fn a_quick_shard_keeps_more_than_a_slow_one() {
    let took = Duration::from_millis(10);
    for (answers, expected) in [(100, 500), (2, 10), (0, 10)] {
        let admission = Admission::new(&config());
        (0..100).for_each(|_| admission.paced(answers, took, true));
        assert_eq!(steady(&admission).await, expected, "{answers} in {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn small_appends_between_large_ones_do_not_slow_the_pace() {
    let admission = Admission::new(&config());
    for _ in 0..100 {
        admission.paced(1, Duration::from_millis(2), true);
        admission.paced(159, Duration::from_millis(2), true);
    }
    let stay = steady(&admission).await;
    assert!(
        (1_800..=2_200).contains(&stay),
        "{stay}, when 2,000 are answered in 50 ms"
    );
}

#[tokio::test(start_paused = true)]
async fn with_a_slow_log_what_stays_fills_the_appends() {
    let admission = Admission::new(&config());
    let took = Duration::from_millis(100);
    for answers in [5, 7, 10, 15, 20] {
        (0..100).for_each(|_| admission.paced(answers, took, true));
        let stay = steady(&admission).await;
        assert!(
            (3 * answers - 1..=3 * answers + 1).contains(&stay),
            "{stay} for {answers} an append"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_seldom_has_much_to_do_is_not_taken_for_slow() {
    let admission = Admission::new(&config());
    let took = Duration::from_millis(10);
    admission.paced(100, took, true);
    (0..100).for_each(|_| admission.paced(1, took, false));
    assert_eq!(steady(&admission).await, 500);
}

#[tokio::test(start_paused = true)]
async fn a_shard_learns_its_pace_from_the_log() {
    let gate = Gate::default();
    create(&gate, &NewLog::of(1), &SystemClock).await.unwrap();
    let config = ShardConfig {
        steady_wait: Duration::from_millis(5),
        ..config()
    };
    let shard = Arc::new(World::new().await.start_on(Arc::new(gate.clone()), config));
    shard
        .insist(&request(Uuid::from_u128(1), "first", register("first")))
        .await
        .unwrap();
    let send = |n: u128| {
        let (shard, name) = (Arc::clone(&shard), format!("s{n}"));
        let request = request(Uuid::from_u128(n), &name, register(&name));
        tokio::spawn(async move { shard.execute(request, Lane::People).await })
    };
    // This log answers at once: many may wait for it, however long.
    gate.hold(Hold::BeforeWriting);
    let mut sent: Vec<_> = (100..140).map(send).collect();
    for n in 140..150 {
        tokio::time::sleep(BURST / 8).await;
        sent.push(send(n));
    }
    gate.open_up();
    for sent in sent {
        sent.await.unwrap().unwrap();
    }
    // It took more than a burst: now it is a slow one, and few may wait for longer.
    gate.hold(Hold::BeforeWriting);
    let mut sent: Vec<_> = (200..240).map(send).collect();
    for n in 240..247 {
        tokio::time::sleep(BURST / 8).await;
        sent.push(send(n));
    }
    tokio::time::sleep(BURST / 8).await;
    let refused = send(250).await.unwrap();
    assert_eq!(
        refused,
        Err(Failure::NotAccepted("too many commands are waiting".into()))
    );
    gate.open_up();
    for sent in sent {
        sent.await.unwrap().unwrap();
    }
    send(251).await.unwrap().unwrap();
}
