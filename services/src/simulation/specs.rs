//! Worlds by the thousand, and the proof that they find what is wrong.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Run, run};
use crate::bugs::Bug;

/// Worlds of one run of the tests.
const SEEDS: u64 = 2_000;

/// What is done after a world in which a promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterViolation {
    Stop,
    GoOn,
}

/// Runs worlds on all cores; answers what happened in them, and those in which a promise was broken, in the order of their seeds.
fn run_all(
    seeds: std::ops::Range<u64>,
    bug: Option<Bug>,
    then: AfterViolation,
    each: &(dyn Fn(&Run) + Sync),
) -> (Total, Vec<Run>) {
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Total::default());
    let broken: Mutex<Vec<Run>> = Mutex::default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let run = run(seed, bug, false);
            each(&run);
            total.lock().unwrap().add(&run);
            if run.violation.is_some() {
                broken.lock().unwrap().push(run);
                if then == AfterViolation::Stop {
                    next.store(seeds.end, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let mut total = total.into_inner().unwrap();
    total.took = began.elapsed();
    let mut broken = broken.into_inner().unwrap();
    broken.sort_by_key(|run| run.seed);
    (total, broken)
}

#[derive(Debug, Default)]
struct Total {
    seeds: u64,
    virtual_time: Duration,
    took: Duration,
    counts: BTreeMap<&'static str, u64>,
}

impl Total {
    fn add(&mut self, run: &Run) {
        self.seeds += 1;
        self.virtual_time += run.age;
        for (what, count) in &run.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }

    fn print(&self) {
        let seconds = self.took.as_secs_f64();
        println!(
            "{} worlds, {:.1} h of virtual time, in {seconds:.1} s: {:.1} worlds a second",
            self.seeds,
            self.virtual_time.as_secs_f64() / 3_600.0,
            self.seeds as f64 / seconds
        );
        for (what, count) in &self.counts {
            println!("{count:>10}  {what}");
        }
    }
}

fn describe(run: &Run, bug: Option<Bug>) -> String {
    let (seed, violation) = (run.seed, run.violation.as_deref().unwrap_or("nothing"));
    let bug = bug.map(|bug| format!("SIMULATE_BUG={bug:?} ")).unwrap_or_default();
    format!("seed {seed}: {violation}\nreplay it with: {bug}scripts/simulate --from {seed} --seeds 1 --trace")
}

/// What must happen somewhere, or the promises were kept for want of danger.
const DANGERS: &[&str] = &[
    "another content under a known id",
    "append: ack lost",
    "append: ack slow",
    "append: landed twice",
    "append: late",
    "append: lost",
    "append: one record dropped",
    "append: refused",
    "append: split",
    "append: torn",
    "batches of a projector that was overtaken",
    "log: slow read",
    "log: unreachable",
    "network: answer lost",
    "network: sent twice",
    "network: slow",
    "projectors killed in a batch",
    "rebuilds",
    "rebuilds that failed",
    "rows: ack lost",
    "rows: away",
    "rows: committed late",
    "rows: slow",
    "states: ack lost",
    "states: away",
    "states: committed late",
    "states: slow read",
    "strike: clock jump",
    "strike: crash",
    "strike: database crash",
    "strike: pause",
    "strike: reassign",
    "strike: restart",
    "strike: rows away",
    "strike: rows wiped",
    "strike: states away",
    "strike: states wiped",
];

#[test]
fn whatever_goes_wrong_every_promise_is_kept() {
    let (total, broken) = run_all(1..1 + SEEDS, None, AfterViolation::Stop, &|_| {});
    if let Some(run) = broken.first() {
        panic!("{}", describe(run, None));
    }
    total.print();
    for danger in DANGERS {
        assert!(total.counts.contains_key(danger), "in no world: {danger}");
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 1..20 {
        let (first, second) = (run(seed, None, false), run(seed, None, false));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
    }
}

/// Up to the broken promise, and in the same words.
#[test]
fn a_world_that_fails_fails_again_in_the_same_way() {
    for bug in [Bug::AckBeforeAppend, Bug::NoEpochCheck, Bug::CheckpointBeforeRows] {
        let (_, broken) = run_all(1..100, Some(bug), AfterViolation::Stop, &|_| {});
        let first = broken.first().expect("it is found soon");
        let again = run(first.seed, Some(bug), false);
        assert_eq!(again.violation, first.violation);
        assert_eq!(again.trace_hash, first.trace_hash);
    }
}

/// Hash maps are seeded anew in each process, and addresses differ: none of it may show.
#[test]
fn the_same_seed_is_the_same_world_in_another_process() {
    for seed in [1, 7, 42] {
        let program = std::env::current_exe().unwrap();
        let other = std::process::Command::new(program)
            .args(["--ignored", "--exact", "simulation::specs::simulate", "--nocapture"])
            .env("SIMULATE_FROM", seed.to_string())
            .env("SIMULATE_TRACE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8(other.stdout).unwrap();
        let here = format!("trace hash {:016x}", run(seed, None, false).trace_hash);
        assert!(said.contains(&here), "seed {seed}: {here} here, and there: {said}");
    }
}

/// Each with the number of worlds within which it must be found: about ten times what it took when this was written.
const BUGS: &[(Bug, u64)] = &[
    (Bug::AckBeforeAppend, 100),
    (Bug::NoEpochCheck, 1_000),
    (Bug::NoNumberCheck, 1_000),
    (Bug::HalfCommitCounts, 100),
    (Bug::NoContiguityCheck, 100),
    (Bug::ClaimNotReadBack, 1_000),
    (Bug::IdsLostAtTakeOver, 1_000),
    (Bug::NewBeforeAllAreKnown, 1_000),
    (Bug::ChangedNotBegun, 1_000),
    (Bug::RememberedNotRecorded, 2_000),
    (Bug::TwinLookedUp, 6_000),
    (Bug::EventsAppliedTwice, 1_000),
    (Bug::StatesOutliveFailedAppend, 1_000),
    (Bug::SettledBeforeClaim, 1_000),
    (Bug::NoBarrier, 1_000),
    (Bug::ProofFromTheAppendBefore, 2_000),
    (Bug::RefusalFromSpeculation, 1_000),
    (Bug::TimeGoesBack, 100),
    (Bug::WatermarkAheadOfStates, 100),
    (Bug::CheckpointBeforeRows, 100),
    (Bug::RowsBeforeCheckpoint, 100),
    (Bug::NoCompareAndSet, 1_000),
];

#[test]
fn every_deliberate_bug_is_found() {
    let mut missed = Vec::new();
    println!("| rule taken out | worlds | what was noticed |\n|---|---|---|");
    for (bug, worlds_max) in BUGS {
        let (_, broken) = run_all(1..1 + worlds_max, Some(*bug), AfterViolation::Stop, &|_| {});
        match broken.first() {
            Some(run) => println!(
                "| {bug:?} | {} | {} |",
                run.seed,
                run.violation.as_deref().unwrap_or_default()
            ),
            None => missed.push(*bug),
        }
    }
    assert_eq!(missed, [], "these were not found");
}

/// For `scripts/simulate`, which says what to run in the environment.
#[test]
#[ignore = "run by scripts/simulate"]
fn simulate() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let (from, seeds) = (number("SIMULATE_FROM", 1), number("SIMULATE_SEEDS", 100));
    let bug = std::env::var("SIMULATE_BUG").ok().map(|name| {
        let known = BUGS.iter().map(|(bug, _)| *bug).find(|bug| format!("{bug:?}") == name);
        known.unwrap_or_else(|| panic!("there is no bug {name}; there are {BUGS:?}"))
    });
    if std::env::var_os("SIMULATE_TRACE").is_some() {
        let run = run(from, bug, true);
        println!("trace hash {:016x}", run.trace_hash);
        match run.violation {
            None => println!(
                "every promise was kept in {:.1} s of virtual time",
                run.age.as_secs_f64()
            ),
            Some(_) => panic!("{}", describe(&run, bug)),
        }
        return;
    }
    let then = match std::env::var_os("SIMULATE_KEEP_GOING") {
        Some(_) => AfterViolation::GoOn,
        None => AfterViolation::Stop,
    };
    let done = AtomicU64::new(0);
    let began = Instant::now();
    let progress = |_: &Run| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(100) || done == seeds {
            let rate = done as f64 / began.elapsed().as_secs_f64();
            eprintln!("{done} of {seeds} worlds, {rate:.1} a second");
        }
    };
    let (total, broken) = run_all(from..from + seeds, bug, then, &progress);
    total.print();
    for run in &broken {
        println!("{}", describe(run, bug));
    }
    assert!(broken.is_empty(), "a promise was broken in {} worlds", broken.len());
}
