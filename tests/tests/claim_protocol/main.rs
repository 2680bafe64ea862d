//! The claim protocol, model-checked: one shard, writers that pause and crash, a network that delays, tears and loses, clients that
//! retry elsewhere. The checker tries *every* order of steps within the bounds of a world, and holds each state against the promises.
//!
//! Three questions, one after the other:
//!
//! 1. Does the protocol keep its promises? [`whatever_happens_the_promises_are_kept`] walks through whole worlds. Lest they be kept for
//!    want of danger, each of the [sights](promises::SIGHTS) must be seen somewhere: acks, voids, holes, cut commits, paused owners.
//! 2. Is each rule needed? Every rule is left out once, and the checker must find the harm that it prevents, by the shortest way. A rule
//!    whose absence harms nobody would show that the model is too weak, or the rule idle.
//! 3. Is it *our* protocol? [`production::the_judge_of_the_program_agrees`] turns the model's logs into records of the program and asks
//!    its judge about each.
//!
//! The map: `log.rs` which records count, `writer.rs` what a writer knows and does, `world.rs` every step that can come next,
//! `promises.rs` what must always hold, `rules.rs` what can be left out.
//!
//! `CRM_MODEL_DEPTH=deep cargo test -p tests --test claim_protocol -- --nocapture` walks through larger worlds: 31 million states
//! instead of 1.8, minutes instead of seconds, 3.5 GB of memory.
//!
//! What is not here: the state store (a writer's cache is what the log says), bytes, several streams, and attempts that come twice: who
//! asks again takes the attempt before out of its queue, where a client's network or a node that forwards may leave it. (The simulation
//! has both.) Time is not here either, on purpose: any step may come at any time, so no promise leans on a clock.

mod log;
mod production;
mod promises;
mod rules;
mod world;
mod writer;

use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use promises::SIGHTS;
use rules::{Rule, Rules};
use world::Shard;
use writer::{Command, Intent};

const SET_1: Command = Command {
    intent: Intent::Set { to: 1 },
    events: 1,
};
const SET_1_IN_TWO_EVENTS: Command = Command { events: 2, ..SET_1 };
const SET_0: Command = Command {
    intent: Intent::Set { to: 0 },
    events: 1,
};
const MOVE_1_TO_2: Command = Command {
    intent: Intent::Move { from: 1, to: 2 },
    events: 1,
};
const MOVE_IN_TWO_EVENTS: Command = Command {
    events: 2,
    ..MOVE_1_TO_2
};

const THREADS: usize = 2;
/// So many states, and steps in a row, there are at least in the worlds of every run. Fewer would mean that they were not walked through.
const STATES_MIN: usize = 1_700_000;
const DEPTH_MIN: usize = 25;

/// Worlds that are walked through in every run: a few seconds each at most.
fn worlds() -> Vec<Shard> {
    vec![
        // Retries at both writers; the second command is refused unless the first stands. (With SET_0 in its place, "already so"
        // instead of "refused", the world has the same shape.)
        world(2, &[SET_1, MOVE_1_TO_2], 2, 3, 0),
        // Two clients want the same: the second is told that it is so already, unless the first came to nothing.
        world(2, &[SET_1, SET_1], 1, 3, 1),
        world(2, &[SET_1, SET_0], 1, 3, 1),
        // Holes within a commit and between two, and claims that cut them.
        world(2, &[SET_1, MOVE_IN_TWO_EVENTS], 1, 3, 1),
        world(2, &[SET_1_IN_TWO_EVENTS], 2, 3, 1),
        // One command, asked three times while the shard goes back and forth.
        world(2, &[SET_1], 3, 4, 1),
        // A third writer, so that claims of two others race while the first sleeps.
        world(3, &[SET_1, SET_0], 1, 3, 1),
        world(3, &[SET_1], 2, 4, 0),
        // Three commands in one append.
        world(2, &[SET_1, MOVE_IN_TWO_EVENTS, SET_0], 1, 2, 0),
    ]
}

/// Larger ones, for a quiet evening.
fn deep_worlds() -> Vec<Shard> {
    vec![
        world(2, &[SET_1, MOVE_1_TO_2], 2, 3, 1),
        world(2, &[SET_1, SET_1], 2, 3, 1),
        world(2, &[SET_1, MOVE_IN_TWO_EVENTS], 2, 3, 0),
        world(2, &[SET_1_IN_TWO_EVENTS], 2, 4, 1),
        world(2, &[SET_1], 3, 4, 2),
        world(3, &[SET_1, SET_0], 2, 3, 1),
        world(3, &[SET_1], 3, 4, 1),
        world(2, &[SET_1, MOVE_IN_TWO_EVENTS, SET_0], 1, 3, 0),
    ]
}

fn world(writers: usize, commands: &[Command], attempts_max: u8, claims_max: u8, crashes_max: u8) -> Shard {
    Shard {
        writers,
        commands: commands.to_vec(),
        attempts_max,
        claims_max,
        crashes_max,
        rules: Rules::ALL,
        sightings: None,
        only: None,
    }
}

#[test]
fn whatever_happens_the_promises_are_kept() {
    let is_deep = std::env::var("CRM_MODEL_DEPTH").is_ok_and(|depth| depth == "deep");
    let mut unseen: BTreeSet<&str> = SIGHTS.iter().map(|(name, _)| *name).collect();
    let (mut states, mut depth) = (0, 0);
    for shard in if is_deep { deep_worlds() } else { worlds() } {
        let started = Instant::now();
        let shard = shard.with_sightings();
        let checker = shard
            .checker()
            .threads(THREADS)
            .finish_when(HasDiscoveries::AnyFailures);
        let checker = checker.spawn_bfs().join();
        println!(
            "{}: {} states, {} steps, depth {}, {:.1} s",
            checker.model(),
            checker.unique_state_count(),
            checker.state_count(),
            checker.max_depth(),
            started.elapsed().as_secs_f32(),
        );
        states += checker.unique_state_count();
        depth = depth.max(checker.max_depth());
        for promise in promises::ALL {
            checker.assert_no_discovery(promise);
        }
        for (sight, _) in checker.discoveries() {
            unseen.remove(sight);
        }
    }
    println!("{states} states in all, to a depth of {depth}");
    assert!(states >= STATES_MIN && depth >= DEPTH_MIN);
    assert_eq!(
        unseen,
        BTreeSet::new(),
        "these were never seen: the worlds are too tame"
    );
}

#[test]
fn without_contiguous_offsets_a_paused_owner_acks_what_is_void() {
    harm(Rule::OffsetsAreContiguous, promises::ACKED_STANDS, &[SET_1]);
}

#[test]
fn without_the_epoch_filter_a_paused_owner_writes_into_a_later_epoch() {
    harm(Rule::OnlyTheEpochInForceCounts, promises::ONE_OWNER, &[SET_1]);
}

#[test]
fn without_numbers_a_hole_goes_unseen() {
    harm(
        Rule::RecordsAreNumbered,
        promises::DECIDED_ON_TRUTH,
        &[SET_1, MOVE_1_TO_2],
    );
}

#[test]
fn without_reading_back_two_claimants_of_one_epoch_both_ack() {
    harm(Rule::AClaimIsReadBack, promises::ACKED_STANDS, &[SET_1, SET_0]);
}

#[test]
fn settled_before_the_claim_a_command_is_applied_twice() {
    harm(
        Rule::OpenCommandsAreSettledAfterTheClaim,
        promises::APPLIED_ONCE,
        &[SET_1],
    );
}

#[test]
fn without_a_barrier_a_paused_owner_says_already_so_from_a_stale_cache() {
    harm(Rule::ANoOpWaitsForABarrier, promises::TRUE_WHEN_ASKED, &[SET_1, SET_0]);
}

/// Not only untrue, as a no-op would be: the refused command stands in the log, its first attempt wrote it.
#[test]
fn without_a_barrier_a_retry_is_refused_that_another_owner_has_applied() {
    harm(
        Rule::ARefusalWaitsForABarrier,
        promises::NO_MEANS_NO,
        &[SET_1, MOVE_1_TO_2],
    );
}

#[test]
fn a_barrier_that_was_sent_before_the_question_proves_nothing() {
    harm(
        Rule::ABarrierIsSentAfterTheQuestion,
        promises::TRUE_WHEN_ASKED,
        &[SET_1, SET_0],
    );
}

#[test]
fn who_stands_by_cannot_call_a_command_not_accepted_that_it_has_sent() {
    harm(Rule::StandingByLeavesTheOutcomeOpen, promises::NO_MEANS_NO, &[SET_1]);
}

#[test]
fn a_commit_that_no_claim_cuts_stops_every_reader() {
    harm(
        Rule::AClaimCutsTheOpenCommit,
        promises::NO_FOREIGN_RECORD,
        &[SET_1_IN_TWO_EVENTS],
    );
}

/// Leaves out one rule and asserts that the checker finds this promise broken, by a way that is as short as any; and that no way of that
/// length breaks it in the same world with all rules.
fn harm(rule: Rule, promise: &'static str, commands: &[Command]) {
    let mut states_before = 0;
    for depth in 2.. {
        let world_with = |rules| Shard {
            rules,
            only: Some(promise),
            ..world(2, commands, 2, 3, 1)
        };
        let check = |rules| world_with(rules).checker().target_max_depth(depth).spawn_bfs().join();
        let checker = check(Rules::without(rule));
        let states = checker.unique_state_count();
        if let Some(path) = checker.discovery(promise) {
            let way = path.into_vec();
            println!(
                "without {rule:?}, not {promise:?}: {} steps, {states} states",
                way.len() - 1
            );
            for (world, step) in &way {
                match step {
                    Some(step) => println!("    {}", world.tell_of(*step)),
                    None => println!("    and then the log is {:?}", world.log.records()),
                }
            }
            check(Rules::ALL).assert_no_discovery(promise);
            return;
        }
        assert_ne!(
            states, states_before,
            "without {rule:?} no way leads to a breach of {promise:?}"
        );
        states_before = states;
    }
}
