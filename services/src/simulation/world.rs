//! What everything in a simulated world shares: its luck, its weather, its virtual time, what is true in it, and the trace of it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::luck::Luck;
use super::truth::Truth;
use super::weather::Weather;

/// When each world begins.
const BEGINNING: Timestamp = Timestamp::constant(1_772_000_000, 0);

pub struct World {
    pub luck: Luck,
    pub weather: Weather,
    pub truth: Mutex<Truth>,
    began: Instant,
    /// Faults have stopped.
    calm: AtomicBool,
    /// The age in milliseconds until which the stores of states and of rows are away.
    pub states_away: Away,
    pub rows_away: Away,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    trace: Mutex<Trace>,
    violation: Mutex<Option<String>>,
    violated: Notify,
    /// Rings when something is slow: trouble seldom comes alone.
    pub trouble: Notify,
}

/// What happened, as a hash, and in words for those who ask.
struct Trace {
    hash: u64,
    aloud: bool,
}

/// A store that is away for some time.
#[derive(Default)]
pub struct Away {
    until_ms: AtomicU64,
}

impl Away {
    pub fn go(&self, world: &World, for_ms: u64) {
        let until_ms = world.age().as_millis() as u64 + for_ms;
        self.until_ms.store(until_ms, Ordering::Relaxed);
    }

    /// Is it away now: for some time, or for this one call?
    pub fn is_it(&self, world: &World, what: &'static str, per_mille: u64) -> bool {
        let for_some_time =
            !world.is_calm() && (world.age().as_millis() as u64) < self.until_ms.load(Ordering::Relaxed);
        for_some_time || world.strikes(what, per_mille)
    }
}

impl World {
    pub fn new(luck: Luck, weather: Weather, aloud: bool) -> World {
        let truth = Truth::new(weather.shards, &weather.groups);
        World {
            luck,
            weather,
            truth: Mutex::new(truth),
            began: Instant::now(),
            calm: AtomicBool::new(false),
            states_away: Away::default(),
            rows_away: Away::default(),
            counts: Mutex::default(),
            trace: Mutex::new(Trace {
                hash: 0xcbf2_9ce4_8422_2325,
                aloud,
            }),
            violation: Mutex::default(),
            violated: Notify::new(),
            trouble: Notify::new(),
        }
    }

    /// The true time: clocks may differ from it.
    pub fn time(&self) -> Timestamp {
        BEGINNING + SignedDuration::try_from(self.age()).expect("a world is young")
    }

    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Something that belongs to the trace: the same seed gives the same trace, to the letter.
    pub fn note(&self, what: impl Display) {
        let line = format!("{:>9.3} s  {what}", self.age().as_secs_f64());
        let mut trace = self.trace.lock().expect("no panic under the lock");
        for byte in line.bytes() {
            trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if trace.aloud {
            eprintln!("{line}");
        }
    }

    pub fn trace_hash(&self) -> u64 {
        self.trace.lock().expect("no panic under the lock").hash
    }

    pub fn count(&self, what: &'static str) {
        *self
            .counts
            .lock()
            .expect("no panic under the lock")
            .entry(what)
            .or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().expect("no panic under the lock").clone()
    }

    /// Does this fault strike now? It is counted if so.
    pub fn strikes(&self, what: &'static str, per_mille: u64) -> bool {
        let strikes = !self.is_calm() && self.luck.chance(per_mille);
        if strikes {
            self.count(what);
        }
        strikes
    }

    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub fn calm_down(&self) {
        self.note("faults stop");
        self.calm.store(true, Ordering::Relaxed);
    }

    /// What a message over the network or a disk needs.
    pub async fn latency(&self) {
        let latency_ms = self.luck.below(self.weather.latency_ms_max + 1);
        if latency_ms == 0 {
            tokio::task::yield_now().await;
        } else {
            self.sleep(latency_ms).await;
        }
    }

    pub async fn sleep(&self, duration_ms: u64) {
        tokio::time::sleep(Duration::from_millis(duration_ms)).await;
    }

    /// A promise was looked at; the first broken one ends the world.
    pub fn check(&self, promise: Result<(), String>) {
        let Err(broken) = promise else { return };
        self.note(format_args!("VIOLATION: {broken}"));
        self.violation
            .lock()
            .expect("no panic under the lock")
            .get_or_insert(broken);
        self.violated.notify_one();
    }

    pub fn violation(&self) -> Option<String> {
        self.violation.lock().expect("no panic under the lock").clone()
    }

    pub async fn violated(&self) {
        self.violated.notified().await;
    }
}
