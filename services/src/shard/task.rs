//! The task that owns a shard: takes it over, serves it until it is lost, and again.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::admission::Admission;
use super::assignment::{Assignment, Wanted};
use super::config::ShardParts;
use super::handle::{ShardHandle, ShardStatus};
use super::request::{Failure, Message};
use super::serving::{End, Serving};
use super::takeover::{Claimant, Owned, TakeOverError};
use crate::bugs::{self, Bug};
use crate::why::Why;

/// A command at which work on the shard has panicked so often is not begun again.
pub const PANICS_MAX: u32 = 3;
/// Commands whose panics are counted at one time. More of them cannot be told from a program that fails everywhere.
pub const PANICKED_MAX: usize = 100;

/// Starts the task of a shard. It claims the shard as long as `assignment` says that it is to be served here, and ends after `stop` turns
/// true, when what it had accepted is answered and saved.
pub fn spawn(
    shard: u16,
    parts: ShardParts,
    assignment: watch::Receiver<Assignment>,
    stop: watch::Receiver<bool>,
) -> (ShardHandle, JoinHandle<()>) {
    let (people, people_queue) = mpsc::channel(parts.config.queue_max);
    let (imports, imports_queue) = mpsc::channel(parts.config.queue_max);
    let status = Arc::new(RwLock::new(ShardStatus {
        shard,
        assigned: *assignment.borrow() != Assignment::Elsewhere,
        ..ShardStatus::default()
    }));
    let command_timeout = parts.config.command_timeout;
    let admission = Admission::new(&parts.config);
    let handle = ShardHandle {
        people,
        imports,
        admission: Arc::clone(&admission),
        status: Arc::clone(&status),
        command_timeout,
    };
    let task = Task {
        shard,
        parts,
        people: people_queue,
        imports: imports_queue,
        waiting: VecDeque::new(),
        admission,
        status,
        wanted: Wanted::new(assignment, stop),
        owned_epoch: None,
        panicked: BTreeMap::new(),
        clock_seen: None,
    };
    (handle, tokio::spawn(task.run()))
}

pub struct Task {
    shard: u16,
    parts: ShardParts,
    people: mpsc::Receiver<Message>,
    imports: mpsc::Receiver<Message>,
    /// What comes before the queues: requests of a failed append, to be decided anew, and those that an append had no room for.
    waiting: VecDeque<Message>,
    admission: Arc<Admission>,
    status: Arc<RwLock<ShardStatus>>,
    pub wanted: Wanted,
    /// The last epoch in which this process owned the shard. A later one of another process makes it yield, once.
    owned_epoch: Option<u64>,
    /// How often work on the shard panicked at a command.
    panicked: BTreeMap<Uuid, u32>,
    /// What the clock showed when the shard was first taken over, and when that was.
    clock_seen: Option<(Timestamp, Instant)>,
}

impl Task {
    async fn run(mut self) {
        while !self.wanted.is_stopping() {
            if !self.wanted.is_here() {
                self.stand_aside("another process serves the shard", None).await;
                continue;
            }
            self.update_status(|status| status.assigned = true);
            let taken = AssertUnwindSafe(self.take_over()).catch_unwind().await;
            match taken.unwrap_or_else(|_| Err(self.count_panic(TakeOverError::Panicked))) {
                Ok(owned) => self.serve(owned).await,
                Err(error @ TakeOverError::Yielded { .. }) => {
                    tracing::warn!(shard = self.shard, "yields: {error}");
                    self.set_trouble(error.to_string().into());
                    // Only who is surely assigned claims it back, and not at once: the other may be about to learn better.
                    let until = match self.wanted.assignment() {
                        Assignment::Here => Some(Instant::now() + self.jittered(self.parts.config.contest_pause)),
                        Assignment::HereUnlessClaimed | Assignment::Elsewhere => None,
                    };
                    self.stand_aside(&error.to_string(), until).await;
                    self.owned_epoch = None;
                }
                Err(TakeOverError::Withdrawn) => {}
                Err(error) => {
                    tracing::warn!(shard = self.shard, "cannot take over: {error}");
                    self.set_trouble(error.why());
                    self.pause().await;
                }
            }
        }
        self.update_status(|status| status.owned = false);
    }

    async fn take_over(&mut self) -> Result<Owned, TakeOverError> {
        let parts = &self.parts;
        let claimant = Claimant {
            shard: self.shard,
            log: parts.log.as_ref(),
            states: parts.states.as_ref(),
            clock: parts.clock.as_ref(),
            node: &parts.node,
            address: &parts.address,
            source: &parts.source,
            config: &parts.config,
            wanted: &self.wanted,
            owned_epoch: &mut self.owned_epoch,
            clock_seen: &mut self.clock_seen,
        };
        claimant.take_over().await
    }

    /// Waits before the next attempt.
    async fn pause(&mut self) {
        let pause = self.jittered(self.parts.config.retry_pause);
        tokio::select! {
            biased;
            () = self.wanted.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// One to two times `pause`, another for each node and shard, so that two claimants do not stay in step.
    fn jittered(&self, pause: Duration) -> Duration {
        let eighths = (u32::from(self.shard) + self.parts.node.bytes().map(u32::from).sum::<u32>()) % 8;
        pause * (8 + eighths) / 8
    }

    /// Another process serves the shard: tell so to all who ask, until the assignment changes or the time has come. Who does not know when
    /// it will claim the shard back sends its commands to that one.
    async fn stand_aside(&mut self, why: &str, until: Option<Instant>) {
        let is_here = self.wanted.is_here();
        self.update_status(|status| {
            status.assigned = is_here && until.is_some();
            if !is_here {
                status.trouble = None;
            }
        });
        // What was begun here may stand in the log, or may be about to. Its sender asks the owner, with the same id.
        for message in std::mem::take(&mut self.waiting) {
            let failure = match &message {
                Message::Execute(_) => Failure::OutcomeUnknown(why.into()),
                Message::Peek { .. } => Failure::Elsewhere(why.into()),
            };
            message.refuse(failure);
        }
        let mut wanted = self.wanted.clone();
        let time = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(time);
        loop {
            tokio::select! {
                biased;
                () = wanted.changed() => break,
                () = &mut time => break,
                message = self.next() => match message {
                    Some(message) => message.refuse(Failure::Elsewhere(why.into())),
                    None => break,
                },
            }
        }
        self.wanted = wanted;
    }

    async fn serve(&mut self, owned: Owned) {
        let epoch = owned.epoch;
        self.clock_seen.get_or_insert((self.parts.clock.now(), Instant::now()));
        tracing::info!(shard = self.shard, epoch, "took over the shard");
        metrics::counter!("crm_takeovers_total").increment(1);
        self.update_status(|status| {
            status.owned = true;
            status.epoch = owned.epoch;
            status.next = owned.next;
            status.knows_what_is_stored = false;
            status.trouble = None;
        });
        let mut serving = Serving::new(self.shard, self.parts.clone(), Arc::clone(&self.admission), owned);
        serving.refused = self.failing_commands();
        let ran = AssertUnwindSafe(serving.run(self)).catch_unwind().await;
        // What was in memory may be wrong; it goes with `serving`. The command in hand has lost its sender, who is told that the outcome is
        // unknown, and asks again.
        let end = ran.unwrap_or_else(|_| {
            let why = self.panicked_at(serving.in_hand);
            self.count_panic(End::Unsettled(why))
        });
        // Whatever was not settled is decided anew, oldest first.
        let mut open = serving.open_requests();
        if bugs::has(Bug::SettledBeforeClaim) {
            let why = || Failure::NotAccepted("the append failed".into());
            open.drain(..).for_each(|message| message.refuse(why()));
        }
        self.put_back(open.into_iter());
        self.update_status(|status| status.owned = false);
        match end {
            End::Released => tracing::info!(shard = self.shard, epoch, "released the shard"),
            End::Unsettled(why) => {
                tracing::warn!(shard = self.shard, epoch, "takes over anew: {why}");
                self.set_trouble(Why::hiding("the shard is taken over anew", why));
            }
        }
    }

    fn count_panic<T>(&self, then: T) -> T {
        metrics::counter!("crm_panics_total", "part" => "shard").increment(1);
        let failing = self.failing_commands();
        self.update_status(|status| {
            status.panics += 1;
            status.failing_commands = failing;
        });
        then
    }

    /// Counts against the command that was being decided, and says so.
    fn panicked_at(&mut self, command: Option<Uuid>) -> String {
        let Some(id) = command else {
            return "the program failed at work on the shard; its log says where".to_owned();
        };
        if self.panicked.len() < PANICKED_MAX || self.panicked.contains_key(&id) {
            *self.panicked.entry(id).or_default() += 1;
        }
        tracing::error!(shard = self.shard, command = %id, "panicked at a command");
        format!("the program failed at command {id}; its log says where")
    }

    fn failing_commands(&self) -> Vec<Uuid> {
        let failing = self.panicked.iter().filter(|(_, panics)| **panics >= PANICS_MAX);
        failing.map(|(id, _)| *id).collect()
    }

    fn set_trouble(&self, why: Why) {
        self.update_status(|status| status.trouble = Some(why));
    }

    pub fn update_status(&self, change: impl FnOnce(&mut ShardStatus)) {
        change(&mut self.status.write().expect("no panic under the lock"));
    }

    /// The next message: what waits before the queues first, then people, then imports. `None` when all senders are gone.
    pub async fn next(&mut self) -> Option<Message> {
        if let Some(message) = self.try_next() {
            return Some(message);
        }
        tokio::select! {
            biased;
            message = self.people.recv() => message,
            Some(message) = self.imports.recv() => Some(message),
        }
    }

    /// These are the next, in this order.
    pub fn put_back(&mut self, messages: impl DoubleEndedIterator<Item = Message>) {
        for message in messages.rev() {
            self.waiting.push_front(message);
        }
    }

    pub fn try_next(&mut self) -> Option<Message> {
        let first = self.waiting.pop_front();
        first
            .or_else(|| self.people.try_recv().ok())
            .or_else(|| self.imports.try_recv().ok())
    }
}
