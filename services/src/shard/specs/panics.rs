//! A panic at a command costs the shard a take-over, and nobody else an answer.

use super::*;
use crate::bugs::{self, Bug};
use crate::shard::{PANICKED_MAX, PANICS_MAX};

/// On this thread alone, with a program that panics at commands of `system:panic`.
fn with_panics(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    bugs::with(Some(Bug::PanicsAtCommand), || runtime.block_on(work));
}

fn poison() -> Request {
    let mut request = request(derived_id(&["poison"]), "p", register("p"));
    request.who.actor = Actor::parse("system:panic").unwrap();
    request
}

#[test]
fn after_a_panic_the_shard_is_taken_over_anew_and_serves_on() {
    with_panics(async {
        let mut world = World::new().await;
        let running = world.start();
        running
            .insist(&request(derived_id(&["before"]), "a", register("b")))
            .await
            .unwrap();
        let told = running.execute(poison(), Lane::People).await;
        assert!(matches!(told, Err(Failure::OutcomeUnknown(_))), "{told:?}");
        running
            .insist(&request(derived_id(&["after"]), "a", owner("a")))
            .await
            .unwrap();
        let status = running.handle.status();
        assert_eq!((status.epoch, status.panics), (2, 1));
        assert_eq!(status.failing_commands, Vec::<Uuid>::new());
        running.end().await;
        assert_eq!(world.audit().await.commits, 2);
    });
}

#[test]
fn who_waits_beside_a_command_that_panics_is_answered() {
    with_panics(async {
        let mut world = World::new().await;
        let running = Arc::new(world.start());
        running
            .insist(&request(derived_id(&["first"]), "a", register("f")))
            .await
            .unwrap();
        let sent = (0..20).map(|n| {
            let running = Arc::clone(&running);
            let request = if n == 10 {
                poison()
            } else {
                request(derived_id(&["beside", &n.to_string()]), "a", owner(&format!("o{n}")))
            };
            async move { running.execute(request, Lane::People).await }
        });
        let (told, peeked) = futures::future::join(futures::future::join_all(sent), running.peek(stream("a"))).await;
        // Those before it, those behind it in the same batch of messages, and who only asked.
        for (n, told) in told.iter().enumerate() {
            match (n, told) {
                (10, Err(Failure::OutcomeUnknown(_))) => {}
                (10, other) => panic!("{other:?}"),
                (_, told) => assert!(told.is_ok(), "{n}: {told:?}"),
            }
        }
        assert!(peeked.is_ok(), "{peeked:?}");
        assert_eq!(running.handle.status().panics, 1);
    });
}

#[test]
fn a_command_that_panics_again_and_again_is_refused_and_named() {
    with_panics(async {
        let mut world = World::new().await;
        let running = world.start();
        for _ in 0..PANICS_MAX {
            let told = running.execute(poison(), Lane::People).await;
            assert!(matches!(told, Err(Failure::OutcomeUnknown(_))), "{told:?}");
        }
        let told = running.execute(poison(), Lane::People).await;
        assert!(
            matches!(&told, Err(Failure::NotAccepted(why)) if why.contains("fails at this command")),
            "{told:?}"
        );
        let status = running.handle.status();
        assert_eq!(status.failing_commands, [poison().command_id]);
        assert_eq!(status.panics, u64::from(PANICS_MAX));
        running
            .insist(&request(derived_id(&["another"]), "a", register("a")))
            .await
            .unwrap();
        running.end().await;
    });
}

#[test]
fn the_panics_of_so_many_commands_are_counted_and_no_more() {
    with_panics(async {
        let mut world = World::new().await;
        let running = world.start();
        let nth = |n: usize| {
            let mut request = poison();
            request.command_id = id(n as u64);
            request
        };
        for n in 0..PANICKED_MAX {
            running.execute(nth(n), Lane::People).await.unwrap_err();
        }
        for _ in 0..=PANICS_MAX {
            let told = running.execute(nth(PANICKED_MAX), Lane::People).await;
            assert!(matches!(told, Err(Failure::OutcomeUnknown(_))), "{told:?}");
        }
        assert_eq!(running.handle.status().failing_commands, Vec::<Uuid>::new());
        running.end().await;
    });
}
