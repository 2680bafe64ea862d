//! What the protocol promises, and what must happen at times lest the promises be empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use stateright::Property;

use crate::log::{Judgement, Record};
use crate::world::{Client, Shard, Told, World};
use crate::writer::Writer;

/// An acked command is among the commits that count, where the ack said, in every later log.
pub const ACKED_STANDS: &str = "an acked command stands where the ack said, for ever";
/// In one epoch only the writer counts whose claim began it, and nobody else takes himself for its owner.
pub const ONE_OWNER: &str = "an epoch has one owner";
/// No command has two commits that count.
pub const APPLIED_ONCE: &str = "no command is applied twice";
/// Refused or "already so": no commit of the command counts, then or later. "Not accepted": none counts that this attempt sent.
pub const NO_MEANS_NO: &str = "who was told that nothing was written finds nothing written";
/// "Already so" and a refusal were true of the log at some moment between question and answer. The moments are those of the log, in which
/// a command counts as soon as it stands: stricter than what clients can tell, to whom it may count as late as they hear of it.
pub const TRUE_WHEN_ASKED: &str = "an answer that writes nothing was true while it was asked for";
/// Each commit that counts was decided on exactly the state which the commits before it give.
pub const DECIDED_ON_TRUTH: &str = "every commit was decided on the state before it";
/// Nobody who keeps the protocol writes a record that stops the readers.
pub const NO_FOREIGN_RECORD: &str = "the protocol never stops its own readers";

/// All of them.
pub const ALL: [&str; 7] = [
    ACKED_STANDS,
    ONE_OWNER,
    APPLIED_ONCE,
    NO_MEANS_NO,
    TRUE_WHEN_ASKED,
    DECIDED_ON_TRUTH,
    NO_FOREIGN_RECORD,
];

pub fn always() -> Vec<Property<Shard>> {
    vec![
        Property::always(ACKED_STANDS, |_: &Shard, world: &World| {
            let truth = world.log.truth();
            world
                .clients
                .iter()
                .enumerate()
                .all(|(command, client)| match client.told {
                    Some(Told::Applied { at }) => truth.commit_of(command as u8).is_some_and(|commit| commit.at == at),
                    _ => true,
                })
        }),
        Property::always(ONE_OWNER, |_: &Shard, world: &World| {
            let truth = world.log.truth();
            let mut serving: Vec<u8> = vec![];
            for writer in &world.writers {
                if let Writer::Serving { epoch, .. } = writer {
                    serving.push(*epoch);
                }
            }
            serving.sort_unstable();
            let is_shared = serving.windows(2).any(|pair| pair[0] == pair[1]);
            !is_shared && truth.commits.iter().all(|commit| commit.owner == commit.writer)
        }),
        Property::always(APPLIED_ONCE, |_: &Shard, world: &World| {
            let commits = &world.log.truth().commits;
            let is_first = |(i, _): (usize, _)| commits[..i].iter().all(|other| other.command != commits[i].command);
            commits.iter().enumerate().all(is_first)
        }),
        Property::always(NO_MEANS_NO, |_: &Shard, world: &World| {
            let truth = world.log.truth();
            truth.commits.iter().all(|commit| {
                let client = &world.clients[usize::from(commit.command)];
                let was_told_no = matches!(client.told, Some(Told::Refused { .. } | Told::Already { .. }));
                let was_not_accepted = client.not_accepted & (1 << commit.attempt) != 0;
                !was_told_no && !was_not_accepted
            })
        }),
        Property::always(TRUE_WHEN_ASKED, |_: &Shard, world: &World| {
            let is_false = |client: &Client| {
                matches!(
                    client.told,
                    Some(Told::Already { was_so: false } | Told::Refused { was_so: false })
                )
            };
            !world.clients.iter().any(is_false)
        }),
        Property::always(DECIDED_ON_TRUTH, |_: &Shard, world: &World| {
            world.log.truth().commits.iter().all(|commit| commit.fits)
        }),
        Property::always(NO_FOREIGN_RECORD, |_: &Shard, world: &World| {
            !world.log.truth().is_stopped
        }),
    ]
}

/// What is seen, and how to tell.
pub type Sight = (&'static str, fn(&World) -> bool);

/// What must be seen somewhere, lest the promises be kept for want of danger.
pub const SIGHTS: [Sight; 12] = [
    ("a command is acked", |world| {
        world
            .clients
            .iter()
            .any(|client| matches!(client.told, Some(Told::Applied { .. })))
    }),
    ("all clients have an answer", |world| {
        world.clients.iter().all(|client| client.told.is_some())
    }),
    ("somebody is told: already so", |world| {
        world
            .clients
            .iter()
            .any(|client| matches!(client.told, Some(Told::Already { .. })))
    }),
    ("somebody is refused", |world| {
        world
            .clients
            .iter()
            .any(|client| matches!(client.told, Some(Told::Refused { .. })))
    }),
    ("a retry is answered by the commit of the first attempt", |world| {
        let truth = world.log.truth();
        world.clients.iter().enumerate().any(|(command, client)| {
            let first = truth.commit_of(command as u8).is_some_and(|commit| commit.attempt == 1);
            first && client.attempts == 2 && matches!(client.told, Some(Told::Applied { .. }))
        })
    }),
    ("a retry is applied, and what its first attempt sent is void", |world| {
        let truth = world.log.truth();
        truth.commits.iter().any(|commit| {
            let sent_before = |record: &Record| match record {
                Record::Event(event) => event.command == commit.command && event.ghost.attempt < commit.attempt,
                Record::Claim { .. } | Record::Barrier { .. } => false,
            };
            world.log.records().iter().any(sent_before)
        })
    }),
    ("a record lands after a later claim, and is void", |world| {
        let truth = world.log.truth();
        let epoch_at = |record: &Record| match record {
            Record::Event(event) => event.epoch,
            Record::Barrier { .. } | Record::Claim { .. } => u8::MAX,
        };
        let mut judged = world.log.records().iter().zip(&truth.judgements);
        judged.any(|(record, judgement)| *judgement == Judgement::Void && epoch_at(record) < truth.epoch)
    }),
    ("a claim comes too late and is void", |world| {
        let truth = world.log.truth();
        let mut judged = world.log.records().iter().zip(&truth.judgements);
        judged.any(|(record, judgement)| *judgement == Judgement::Void && matches!(record, Record::Claim { .. }))
    }),
    ("a record behind a hole is void in its own epoch", |world| {
        let truth = world.log.truth();
        let last = world.log.records().last().zip(truth.judgements.last());
        matches!(last, Some((Record::Event(event), Judgement::Void)) if event.epoch == truth.epoch)
    }),
    ("a claim cuts a commit of which a part stands", |world| {
        let judgements = &world.log.truth().judgements;
        judgements
            .windows(2)
            .any(|pair| pair == [Judgement::Part, Judgement::Claimed])
    }),
    ("a paused owner still serves while a later one has acked", |world| {
        let truth = world.log.truth();
        let has_acked = |commit: &crate::log::Commit| {
            commit.owner == truth.owner && world.clients[usize::from(commit.command)].told.is_some()
        };
        let is_stale = |writer: &Writer| matches!(writer, Writer::Serving { epoch, .. } if *epoch < truth.epoch);
        truth.commits.iter().any(has_acked) && world.writers.iter().any(is_stale)
    }),
    ("a writer that stands by says: not accepted", |world| {
        world.clients.iter().any(|client| client.not_accepted != 0)
    }),
];

/// Which sights were seen, as bits: each is looked for until it is found once, and then costs nothing more.
#[derive(Debug, Clone, Default)]
pub struct Sightings(Arc<AtomicU32>);

impl Sightings {
    fn is_first(&self, sight: usize, world: &World) -> bool {
        let bit = 1 << sight;
        self.0.load(Ordering::Relaxed) & bit == 0
            && SIGHTS[sight].1(world)
            && self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

/// The sights, as the checker wants them.
pub fn sometimes() -> [Property<Shard>; SIGHTS.len()] {
    fn sight<const N: usize>() -> Property<Shard> {
        Property::sometimes(SIGHTS[N].0, |shard, world| {
            shard
                .sightings
                .as_ref()
                .is_some_and(|sightings| sightings.is_first(N, world))
        })
    }
    [
        sight::<0>(),
        sight::<1>(),
        sight::<2>(),
        sight::<3>(),
        sight::<4>(),
        sight::<5>(),
        sight::<6>(),
        sight::<7>(),
        sight::<8>(),
        sight::<9>(),
        sight::<10>(),
        sight::<11>(),
    ]
}
