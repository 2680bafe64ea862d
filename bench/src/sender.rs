//! Our side of the benchmarks on command acks: one contender per way a command goes in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use domain::{StreamKind, StreamRef};

use crate::history;
use crate::load::{Load, Measured, closed_loop};
use crate::meters::Meters;
use crate::ours::{self, Ours};
use crate::session::{Class, Contender};
use crate::workload;

/// What the clients send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// Receipts: typed commands, each begins a stream.
    Receipts,
    /// The same as JSON through the door.
    JsonReceipts,
    /// Corrections of so many interactions, whose states are in memory.
    Corrections { streams: u64 },
    /// Corrections of the interactions of a history, so many of them.
    OldCorrections { streams: u64 },
}

pub struct Sender {
    ours: Arc<Ours>,
    sending: Sending,
    class: Class,
    next: Arc<AtomicU64>,
    /// Those that corrections go to.
    known: Arc<Vec<StreamRef>>,
    name: String,
}

impl Sender {
    pub fn new(ours: &Arc<Ours>, sending: Sending, class: Class) -> Sender {
        Sender {
            ours: Arc::clone(ours),
            sending,
            class,
            next: Arc::new(AtomicU64::new(1)),
            known: Arc::default(),
            name: match sending {
                Sending::Receipts => "ours",
                Sending::JsonReceipts => "ours, as JSON",
                Sending::Corrections { .. } => "ours, known streams",
                Sending::OldCorrections { .. } => "ours, old streams",
            }
            .to_owned(),
        }
    }

    pub fn named(mut self, name: &str) -> Sender {
        self.name = name.to_owned();
        self
    }

    /// Names the streams of this contender.
    fn run_name(&self) -> &'static str {
        match self.sending {
            Sending::Receipts => "r",
            Sending::JsonReceipts => "j",
            Sending::Corrections { .. } => "c",
            Sending::OldCorrections { .. } => history::RUN,
        }
    }

    /// Begins the streams that the commands go to, where they are not there.
    pub async fn prepare(&mut self) -> anyhow::Result<()> {
        let run = self.run_name();
        let streams = match self.sending {
            Sending::Receipts | Sending::JsonReceipts => return Ok(()),
            Sending::OldCorrections { streams } => streams,
            Sending::Corrections { streams } => {
                self.ours.execute_all(ours::customers(run, streams), 64).await?;
                self.ours.execute_all(ours::contacts(run, streams), 64).await?;
                streams
            }
        };
        self.known = Arc::new((0..streams).map(|n| ours::interaction(run, n)).collect());
        Ok(())
    }
}

#[async_trait]
impl Contender for Sender {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn class(&self) -> Class {
        self.class
    }

    async fn run(&mut self, load: Load, meters: &Meters) -> anyhow::Result<Measured> {
        let (ours, next, sending, run) = (
            Arc::clone(&self.ours),
            Arc::clone(&self.next),
            self.sending,
            self.run_name(),
        );
        let commands = ours.commands();
        let acked = Arc::clone(&ours.acked);
        let known = Arc::clone(&self.known);
        closed_loop(load, meters, move |_| {
            let (commands, acked, known) = (commands.clone(), Arc::clone(&acked), Arc::clone(&known));
            let n = next.fetch_add(1, Ordering::Relaxed);
            async move {
                match sending {
                    Sending::Receipts => {
                        let (stream, command) = ours::receipt(run, n);
                        ours::execute(&commands, stream, command).await?;
                    }
                    Sending::JsonReceipts => {
                        let command = ours::receipt(run, n).1.to_json();
                        ours::send(&commands, StreamKind::Purchase, command).await?;
                    }
                    Sending::Corrections { streams } | Sending::OldCorrections { streams } => {
                        let stream = known[(workload::scattered(n) % streams) as usize];
                        ours::execute(&commands, stream, workload::correction(n).into()).await?;
                    }
                }
                acked.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        })
        .await
    }

    async fn check(&mut self) -> anyhow::Result<()> {
        self.ours.check().await
    }
}
