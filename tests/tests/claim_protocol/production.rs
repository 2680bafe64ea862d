//! Is it our protocol? The model's logs become records of the program, byte for byte as its writers make them, and the program's judge
//! must say of each record what the model's judge says.
//!
//! The logs come from random walks through a large world in which all rules are kept, and through those in which one is broken, for they
//! hold what no proper writer sends. All are judged by all rules.

use std::collections::{BTreeMap, HashSet};

use domain::{Actor, EventType, Position, StreamKind, StreamRef, derived_id};
use jiff::Timestamp;
use services::log::{Claim, Envelope, Judge, Judgement as Said, LogCreated, Record as Stored, StoredEvent};
use stateright::Model;
use tests::Dice;
use uuid::Uuid;

use crate::log::{Event, Judgement, Offset, Record, Truth};
use crate::rules::{Rule, Rules};
use crate::world::Shard;

const WALKS: usize = 20_000;
const WALKS_PER_BROKEN_RULE: usize = 5_000;
const STEPS_MAX: usize = 60;
const SOURCE: &str = "/crm/model";

#[test]
fn the_judge_of_the_program_agrees() {
    // Too large to be walked through, and just right to get lost in.
    let commands = [crate::SET_1, crate::MOVE_IN_TWO_EVENTS, crate::SET_0];
    let wild = crate::world(3, &commands, 3, 6, 2);
    let mut dice = Dice::seeded(1);
    let mut logs: HashSet<Vec<Record>> = HashSet::new();
    for _ in 0..WALKS {
        logs.insert(walk(&wild, &mut dice));
    }
    for rule in Rule::ALL {
        let broken = Shard {
            rules: Rules::without(rule),
            ..wild.clone()
        };
        for _ in 0..WALKS_PER_BROKEN_RULE {
            logs.insert(walk(&broken, &mut dice));
        }
    }
    let mut judged: BTreeMap<Judgement, usize> = BTreeMap::new();
    for log in &logs {
        for judgement in compare(log) {
            *judged.entry(judgement).or_default() += 1;
        }
    }
    println!(
        "{} logs, {} records: {judged:?}",
        logs.len(),
        judged.values().sum::<usize>()
    );
    assert!(logs.len() > 5_000);
    assert_eq!(judged.len(), 6, "each judgement occurs");
}

/// Steps at random until none is left, and what then stands in the log.
fn walk(shard: &Shard, dice: &mut Dice) -> Vec<Record> {
    let mut world = shard.init_states().remove(0);
    for _ in 0..STEPS_MAX {
        let mut steps = vec![];
        shard.actions(&world, &mut steps);
        if steps.is_empty() {
            break;
        }
        let step = steps[dice.below(steps.len())];
        world = shard.next_state(&world, step).unwrap_or(world);
    }
    world.log.records().to_vec()
}

/// Asks both judges about each record; and the program's also from its last checkpoint, as a reader does that was restarted.
fn compare(log: &[Record]) -> Vec<Judgement> {
    let created = LogCreated {
        log_id: id("log", 0),
        shards: 1,
        slots: 4_096,
        calendar: domain::Calendar::taipei(),
    };
    let mut stored = vec![created.to_record(now())];
    let mut judge = Judge::from_start(0);
    assert_eq!(judge.judge(0, stored[0].clone()), Ok(Said::Created(created)));
    let mut truth = Truth::default();
    for (at, record) in log.iter().enumerate() {
        stored.push(to_record(record, at as Offset));
        truth.read(record, Rules::ALL);
        let expected = truth.judgements[at];
        let offset = at as u64 + 1;
        let mut resumed = resume(&judge, &stored);
        let said = judge.judge(offset, stored[at + 1].clone());
        assert_eq!(
            resumed.judge(offset, stored[at + 1].clone()),
            said,
            "resumed before offset {at} of {log:?}"
        );
        let agrees = match (expected, &said) {
            (Judgement::Claimed, Ok(Said::Claimed(claim))) => claim.nonce == id("claim", at as u8),
            (Judgement::Commit, Ok(Said::Commit(commit))) => is_commit_of(record, &commit.events),
            (Judgement::Part, Ok(Said::Part)) => true,
            (Judgement::Barrier, Ok(Said::Barrier)) => true,
            (Judgement::Void, Ok(Said::Void)) => true,
            (Judgement::Foreign, Err(_)) => true,
            _ => false,
        };
        assert!(
            agrees,
            "offset {at} of {log:?}: {expected:?}, but the program says {said:?}"
        );
        if said.is_err() {
            break;
        }
        assert_eq!((judge.epoch(), judge.n()), (u64::from(truth.epoch), u64::from(truth.n)));
    }
    truth.judgements
}

/// A judge that begins where the other one last stood between two commits, and has read on to where that one is now.
fn resume(judge: &Judge, stored: &[Stored]) -> Judge {
    let checkpoint = judge.checkpoint().expect("the first record was read");
    let mut resumed = Judge::resume(0, &checkpoint);
    for offset in checkpoint.next..judge.next() {
        resumed
            .judge(offset, stored[offset as usize].clone())
            .expect("it was read before");
    }
    resumed
}

fn is_commit_of(record: &Record, events: &[StoredEvent]) -> bool {
    let Record::Event(last) = record else {
        return false;
    };
    let indexes: Vec<u32> = events.iter().map(|event| event.index).collect();
    let are_of_command = events
        .iter()
        .all(|event| event.command_id == id("command", last.command));
    are_of_command && indexes == Vec::from_iter(0..u32::from(last.size))
}

fn to_record(record: &Record, at: Offset) -> Stored {
    match *record {
        Record::Claim { epoch } => {
            let claim = Claim {
                epoch: u64::from(epoch),
                nonce: id("claim", at),
                node: format!("node-{at}"),
                address: "127.0.0.1:0".into(),
            };
            claim.to_record(SOURCE, now())
        }
        Record::Barrier { epoch, n } => {
            Envelope::barrier_record(id("barrier", at), SOURCE, now(), u64::from(epoch), u64::from(n))
        }
        Record::Event(event) => to_event(&event).to_record(SOURCE, u64::from(event.epoch), u64::from(event.n)),
    }
}

fn to_event(event: &Event) -> StoredEvent {
    let customer = id("customer", 0);
    StoredEvent {
        command_id: id("command", event.command),
        index: u32::from(event.index),
        commit_size: u32::from(event.size),
        event_type: EventType {
            stream: "customer".into(),
            event: "closed".into(),
            version: 1,
        },
        stream: StreamRef {
            kind: StreamKind::Customer,
            id: customer,
        },
        sequence: u64::from(event.sequence),
        time: now(),
        effective_at: None,
        actor: Actor::parse("system:model").expect("it is one"),
        on_behalf_of: None,
        causation: None,
        correlation: None,
        traceparent: None,
        customer: Some(customer),
        external_key: None,
        command_hash: "0123456789abcdef".into(),
        body: b"{}".to_vec(),
        position: Position { shard: 0, offset: 0 },
    }
}

fn id(kind: &str, n: u8) -> Uuid {
    derived_id(&[kind, &n.to_string()])
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}
