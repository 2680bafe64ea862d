//! Honest clients beside an attack: every request of theirs is answered well, and about as soon as when all is quiet.
//!
//! How soon is measured in windows, each with answers of every kind, some before the attack and some during it. The
//! median window counts: a machine that is busy with something else for a moment spoils one window, and the others
//! stand. What is faster than [`QUICK`] is never too slow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::MutexGuard;

use crate::stage::Stage;

/// Honest clients at a time.
const CLIENTS: usize = 3;
/// A moment between two requests of one of them.
const PAUSE: Duration = Duration::from_millis(10);
/// Bounded: a request that gets no answer in this time fails the test.
pub const ANSWER_MAX: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(120);

const WINDOWS: usize = 5;
/// Answers of each kind in a window.
const ANSWERS: usize = 8;
/// An attack may make them so many times slower.
const SLOWER_MAX: u32 = 10;
const QUICK: Duration = Duration::from_millis(250);

/// What they ask for, in turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Command,
    Question,
    Status,
    Health,
    /// Before it, the next kind: on a connection that was open already.
    HealthOnNewConnection,
    Readiness,
}

pub const ALL: &[Kind] = &[
    Kind::Command,
    Kind::Question,
    Kind::Status,
    Kind::Health,
    Kind::HealthOnNewConnection,
    Kind::Readiness,
];
/// Of a server that is rightly not ready.
pub const ALL_BUT_READINESS: &[Kind] = &[
    Kind::Command,
    Kind::Question,
    Kind::Status,
    Kind::Health,
    Kind::HealthOnNewConnection,
];

/// Windows are measured by one test at a time: the attacks of another would spoil them.
static MEASURING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Clients who send commands, ask questions and look after the health. They have a thread of their own, so that an
/// attacker in this process does not keep them from asking.
pub struct Honest {
    shared: Arc<Shared>,
    clients: JoinHandle<()>,
    kinds: &'static [Kind],
    quiet: Duration,
    measuring: Option<MutexGuard<'static, ()>>,
    attacked: Vec<Duration>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    answers: Mutex<Answers>,
}

#[derive(Default)]
struct Answers {
    good: Vec<(usize, Duration)>,
    bad: Vec<String>,
}

/// How soon honest clients were answered: 99 of 100 of a window, in the median window.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub quiet: Duration,
    pub attacked: Duration,
}

impl Pace {
    pub fn is_fair(self) -> bool {
        self.attacked <= QUICK.max(self.quiet * SLOWER_MAX)
    }
}

impl Honest {
    /// They have been served for a while when this returns, and an attack may begin.
    pub async fn beside(stage: &Stage) -> Honest {
        Honest::asking(stage, ALL).await
    }

    pub async fn asking(stage: &Stage, kinds: &'static [Kind]) -> Honest {
        let measuring = MEASURING.lock().await;
        let shared = Arc::new(Shared::default());
        let (url, asked) = (stage.crm().url(""), Arc::clone(&shared));
        let clients = std::thread::spawn(move || run(url, kinds, asked));
        let mut honest = Honest {
            shared,
            clients,
            kinds,
            quiet: Duration::ZERO,
            measuring: Some(measuring),
            attacked: Vec::new(),
        };
        // Connections are made, and caches warm.
        honest.window().await;
        let windows = honest.windows().await;
        honest.quiet = median(windows);
        honest
    }

    /// How soon they were answered before the attack.
    pub fn quiet(&self) -> Duration {
        self.quiet
    }

    /// The attack is under way: waits until they were served for a while nevertheless.
    pub async fn are_served(&mut self) {
        if self.measuring.is_none() {
            self.measuring = Some(MEASURING.lock().await);
        }
        let windows = self.windows().await;
        self.attacked.extend(windows);
        // What comes now takes its time, and is no attack any more.
        self.measuring = None;
    }

    /// Makes the attack again and again, until they were served for a while nevertheless.
    pub async fn are_served_beside(&mut self, attack: impl AsyncFn()) {
        attack().await;
        let again = async {
            loop {
                attack().await;
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = self.are_served() => {}
            () = again => {}
        }
    }

    /// Every answer was a good one.
    pub async fn end(self, during: &str) -> Pace {
        self.shared.stop.store(true, Ordering::SeqCst);
        tokio::task::spawn_blocking(|| self.clients.join().unwrap())
            .await
            .unwrap();
        let answers = self.shared.answers.lock().unwrap();
        assert_eq!(answers.bad, Vec::<String>::new(), "{during}");
        for (number, kind) in self.kinds.iter().enumerate() {
            let mut took: Vec<Duration> = (answers.good.iter())
                .filter(|(asked, _)| *asked == number)
                .map(|(_, took)| *took)
                .collect();
            took.sort_unstable();
            let (half, last) = (took[took.len() / 2], took[took.len() - 1]);
            println!(
                "{during}: {} × {kind:?}, half within {half:.0?}, all within {last:.0?}",
                took.len()
            );
        }
        let pace = Pace {
            quiet: self.quiet,
            attacked: median(self.attacked),
        };
        println!(
            "{during}: 99 % within {:.0?}, within {:.0?} when quiet",
            pace.attacked, pace.quiet
        );
        pace
    }

    async fn windows(&self) -> Vec<Duration> {
        let mut windows = Vec::new();
        for _ in 0..WINDOWS {
            windows.push(self.window().await);
        }
        windows
    }

    /// Waits for so many answers of each kind more; 99 of 100 of all that come meanwhile take no longer than this.
    async fn window(&self) -> Duration {
        let begun = Instant::now();
        let first = self.shared.answers.lock().unwrap().good.len();
        loop {
            tokio::time::sleep(PAUSE).await;
            let answers = self.shared.answers.lock().unwrap();
            assert_eq!(answers.bad, Vec::<String>::new());
            let new = &answers.good[first..];
            let of_kind = |kind: usize| new.iter().filter(|(asked, _)| *asked == kind).count();
            if (0..self.kinds.len()).all(|kind| of_kind(kind) >= ANSWERS) {
                let mut took: Vec<Duration> = new.iter().map(|(_, took)| *took).collect();
                took.sort_unstable();
                return took[(took.len() - 1) * 99 / 100];
            }
            assert!(begun.elapsed() < PATIENCE, "they are not served: {} answers", new.len());
        }
    }
}

fn median(mut windows: Vec<Duration>) -> Duration {
    windows.sort_unstable();
    windows[windows.len() / 2]
}

fn run(url: String, kinds: &'static [Kind], shared: Arc<Shared>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let clients = (0..CLIENTS).map(|number| ask(number, &url, kinds, &shared));
    runtime.block_on(futures::future::join_all(clients));
}

async fn ask(number: usize, url: &str, kinds: &[Kind], shared: &Shared) {
    let client = || reqwest::Client::builder().timeout(ANSWER_MAX).build().unwrap();
    let kept = client();
    // Not all the same at the same time.
    for turn in number * 2.. {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let at = turn % kinds.len();
        let request = match kinds[at] {
            Kind::Command => {
                let command = json!({"type": "register", "kind": "person", "name": format!("honest {number} {turn}")});
                kept.post(format!("{url}/api/customer")).json(&command)
            }
            Kind::Question => kept.get(format!("{url}/api/leads?limit=5")),
            Kind::Status => kept.get(format!("{url}/api/status")),
            Kind::Health => kept.get(format!("{url}/health/live")),
            Kind::HealthOnNewConnection => client().get(format!("{url}/health/live")),
            Kind::Readiness => kept.get(format!("{url}/health/ready")),
        };
        let begun = Instant::now();
        let again = request.try_clone().expect("a request without a stream");
        let sent = match request.send().await {
            // As a load balancer does, it believes that when it hears it twice: on a busy machine a look at the store
            // may take long.
            Ok(answer) if kinds[at] == Kind::Readiness && !answer.status().is_success() => again.send().await,
            sent => sent,
        };
        let answered = match sent {
            Ok(answer) if answer.status().is_success() => {
                answer.bytes().await.map(|_| ()).map_err(|error| format!("{error:?}"))
            }
            Ok(answer) => {
                let status = answer.status();
                Err(format!("{status} {}", answer.text().await.unwrap_or_default()))
            }
            Err(error) => Err(format!("{error:?}")),
        };
        let took = begun.elapsed();
        {
            let mut answers = shared.answers.lock().unwrap();
            match answered {
                Ok(()) => answers.good.push((at, took)),
                Err(why) => answers.bad.push(format!("{:?} after {took:?}: {why}", kinds[at])),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
