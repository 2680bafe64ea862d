//! The task that owns a shard: takes it over, serves it until it is lost, and again.

use std::collections::VecDeque;
use std::sync::{Arc, RwLock};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::handle::{ShardConfig, ShardHandle, ShardStatus};
use super::request::{Failure, Message};
use super::serving::{End, Serving, refuse};
use super::takeover::{Claimant, Owned, TakeOverError};
use crate::clock::Clock;
use crate::log::EventLog;
use crate::states::StateStore;

/// What a shard's task works with.
#[derive(Clone)]
pub struct ShardParts {
    pub log: Arc<dyn EventLog>,
    pub states: Arc<dyn StateStore>,
    pub clock: Arc<dyn Clock>,
    /// Names this process; a claim by another one makes this one yield.
    pub node: String,
    /// Where this process answers commands.
    pub address: String,
    /// `/crm/<instance>`, the CloudEvents source.
    pub source: String,
    pub config: ShardConfig,
}

/// Starts the task of a shard. It ends after `stop` turns true, when what it had accepted is answered and saved.
pub fn spawn(shard: u16, parts: ShardParts, stop: watch::Receiver<bool>) -> (ShardHandle, JoinHandle<()>) {
    let (people, people_queue) = mpsc::channel(parts.config.queue_max);
    let (imports, imports_queue) = mpsc::channel(parts.config.queue_max);
    let status = Arc::new(RwLock::new(ShardStatus {
        shard,
        ..ShardStatus::default()
    }));
    let command_timeout = parts.config.command_timeout;
    let handle = ShardHandle {
        people,
        imports,
        status: Arc::clone(&status),
        command_timeout,
    };
    let task = Task {
        shard,
        parts,
        people: people_queue,
        imports: imports_queue,
        reopened: VecDeque::new(),
        status,
        stop,
        owned_epoch: None,
    };
    (handle, tokio::spawn(task.run()))
}

pub struct Task {
    shard: u16,
    parts: ShardParts,
    people: mpsc::Receiver<Message>,
    imports: mpsc::Receiver<Message>,
    /// Requests of a failed append, to be decided anew before any others.
    reopened: VecDeque<Message>,
    status: Arc<RwLock<ShardStatus>>,
    pub stop: watch::Receiver<bool>,
    /// The last epoch in which this process owned the shard.
    owned_epoch: Option<u64>,
}

impl Task {
    async fn run(mut self) {
        while !*self.stop.borrow() {
            match self.take_over().await {
                Ok(owned) => {
                    let epoch = owned.epoch;
                    self.owned_epoch = Some(epoch);
                    tracing::info!(shard = self.shard, epoch, "took over the shard");
                    metrics::counter!("crm_takeovers_total").increment(1);
                    match self.serve(owned).await {
                        End::Stopped => break,
                        End::Unsettled(why) => {
                            tracing::warn!(shard = self.shard, epoch, "takes over anew: {why}");
                            self.set_trouble(why);
                        }
                    }
                }
                Err(error @ TakeOverError::Yielded { .. }) => {
                    tracing::warn!(shard = self.shard, "yields: {error}");
                    self.set_trouble(error.to_string());
                    self.stand_by(&error.to_string()).await;
                }
                Err(error) => {
                    tracing::warn!(shard = self.shard, "cannot take over: {error}");
                    self.set_trouble(error.to_string());
                    self.pause().await;
                }
            }
        }
        self.update_status(|status| status.owned = false);
    }

    async fn take_over(&self) -> Result<Owned, TakeOverError> {
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
            owned_epoch: self.owned_epoch,
        };
        claimant.take_over().await
    }

    /// Waits before the next attempt, with jitter so that two claimants do not stay in step.
    async fn pause(&mut self) {
        let eighths = (u32::from(self.shard) + self.parts.node.bytes().map(u32::from).sum::<u32>()) % 8;
        let pause = self.parts.config.retry_pause * (8 + eighths) / 8;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = self.stop.changed() => {}
        }
    }

    /// Another process owns the shard: refuse what comes, until this one is stopped. Claiming it back would only start a
    /// fight; who serves which shard is the operator's to say.
    async fn stand_by(&mut self, why: &str) {
        let mut stop = self.stop.clone();
        while !*stop.borrow() {
            tokio::select! {
                message = self.next() => match message {
                    Some(Message::Execute(open)) => refuse(open, Failure::NotAccepted(why.to_owned())),
                    Some(Message::Peek { reply, .. }) => {
                        reply.send(Err(Failure::NotAccepted(why.to_owned()))).unwrap_or_default();
                    }
                    None => return,
                },
                _ = stop.changed() => {}
            }
        }
    }

    async fn serve(&mut self, owned: Owned) -> End {
        self.update_status(|status| {
            status.owned = true;
            status.epoch = owned.epoch;
            status.next = owned.next;
            status.trouble = None;
        });
        let mut serving = Serving::new(self.shard, self.parts.clone(), owned);
        let end = serving.run(self).await;
        // Whatever was not settled is decided anew, oldest first.
        for open in serving.open_requests() {
            self.reopened.push_back(open);
        }
        self.update_status(|status| status.owned = false);
        end
    }

    fn set_trouble(&self, why: String) {
        self.update_status(|status| status.trouble = Some(why));
    }

    pub fn update_status(&self, change: impl FnOnce(&mut ShardStatus)) {
        change(&mut self.status.write().expect("no panic under the lock"));
    }

    /// The next message: reopened ones first, then people, then imports. `None` when all senders are gone.
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

    pub fn try_next(&mut self) -> Option<Message> {
        let waiting = self.reopened.pop_front();
        waiting
            .or_else(|| self.people.try_recv().ok())
            .or_else(|| self.imports.try_recv().ok())
    }
}
