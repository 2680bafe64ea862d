//! An owner that does not know yet that another one has taken over. Its memory is stale; nobody may be answered from it.

use super::gate::{Gate, Hold};
use super::*;

/// The model's way of eleven steps: the append on which the answer rests was sent, and stood, before the other one's claim.
#[tokio::test]
async fn already_so_does_not_rest_on_an_append_that_was_sent_before_the_question() {
    let mut world = World::new().await;
    let gate = Gate::before(world.log.clone());
    let first = Arc::new(world.start_on(Arc::new(gate.clone()), patient()));
    first.insist(&request(id(1), "a", register("a"))).await.unwrap();

    // The first one's append stands in the log, and the broker's word of it is slow.
    gate.hold(Hold::BeforeTheAnswer);
    let end = world.log.end(0).await.unwrap();
    let ask_first = |n: u64, command: customer::Command| {
        let first = Arc::clone(&first);
        tokio::spawn(async move { first.execute(request(id(n), "a", command), Lane::People).await })
    };
    let slow = ask_first(2, owner("mei"));
    while world.log.end(0).await.unwrap() == end {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let second = world.start();
    let ack = second.execute(request(id(3), "a", owner("wei")), Lane::People).await;
    assert_eq!(ack.unwrap().streams[0].1, 3);

    // The owner is wei: acked before this question is asked.
    let late = ask_first(4, owner("mei"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    gate.open_up();
    assert_eq!(slow.await.unwrap().unwrap().streams[0].1, 2);
    let told = late.await.unwrap();
    assert!(told.is_err(), "it was told that the owner is mei already: {told:?}");
}

/// The model's way of nine steps: a command that stands in the log is refused when it is sent again.
#[tokio::test]
async fn a_command_that_another_owner_has_applied_is_not_refused_when_it_comes_again() {
    let mut world = World::new().await;
    let first = world.start();
    first.insist(&request(id(1), "a", register("a"))).await.unwrap();
    let second = world.start();
    second.insist(&request(id(2), "a", owner("mei"))).await.unwrap();
    let step = Step {
        stream: stream("a"),
        action: Action::Decide(owner("wei").into()),
        expected_version: Some(2),
    };
    let command = bundle(id(3), vec![step]);
    let applied = second.execute(command.clone(), Lane::People).await.unwrap();

    let again = first.execute(command, Lane::People).await;
    let is_right = match &again {
        Ok(ack) => *ack == applied,
        Err(failure) => matches!(
            failure,
            Failure::Elsewhere(_) | Failure::OutcomeUnknown(_) | Failure::NotAccepted(_) | Failure::NotInTime(_)
        ),
    };
    assert!(is_right, "it was applied, and now it was told: {again:?}");
}

/// It knows every stream that had begun when it took over, and not those that began since.
#[tokio::test]
async fn a_stream_that_began_under_another_owner_is_not_shown_as_new() {
    let mut world = World::new().await;
    let first = world.start();
    first.insist(&request(id(1), "a", register("a"))).await.unwrap();
    assert_eq!(first.peek(stream("b")).await.unwrap().1, 0);
    let second = world.start();
    second.insist(&request(id(2), "b", register("b"))).await.unwrap();
    second.insist(&request(id(3), "c", register("c"))).await.unwrap();
    let shown = first.peek(stream("c")).await;
    assert!(shown.is_err(), "it began, and is shown at version {}", shown.unwrap().1);
}
