//! The core as a program is made of it: log, stores and shards from `infra::runtime`, and the ways commands go in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail};
use domain::{Actor, AnyCommand, Home, Id, StreamKind, StreamRef};
use infra::config::{Places as Urls, Settings, Use};
use infra::runtime::{Parts, Writer};
use services::clock::SystemClock;
use services::commands::{Commands, Incoming, Terms};
use services::log::{EventLog, NewLog};
use services::shard::{Action, Lane, Request, ShardConfig, ShardStatus, Step, Who};
use uuid::Uuid;

use crate::workload;

/// How long a shard may take until it is owned and knows what is stored.
const READY_WITHIN: Duration = Duration::from_secs(3_600);

/// A running writer.
pub struct Ours {
    pub parts: Parts,
    writer: Option<Writer>,
    /// Events that were acked, so that the log can be asked for them.
    pub acked: Arc<AtomicU64>,
    /// Records that were there when counting began.
    grown_from: OnceLock<u64>,
}

impl Ours {
    /// Creates the log with so many shards when it is not there, takes all of them over, and waits until it has.
    pub async fn start(log: &str, views: &str, shards: u16, config: ShardConfig) -> anyhow::Result<Ours> {
        let (settings, log) = create_log(log, views, shards).await?;
        let parts = Parts::open(&settings, log).await?;
        let writer = parts.start_writer(&settings, "127.0.0.1:1", config);
        let ours = Ours {
            parts,
            writer: Some(writer),
            acked: Arc::default(),
            grown_from: OnceLock::new(),
        };
        ours.wait_until_owned().await?;
        Ok(ours)
    }

    pub fn commands(&self) -> Commands {
        self.writer.as_ref().expect("it runs").commands.clone()
    }

    async fn wait_until_owned(&self) -> anyhow::Result<()> {
        let owned = self.wait_until(|shard| shard.owned);
        owned.await.context("the shards were not taken over")
    }

    /// A shard reads what the state store has after it was taken over, beside the work and without hurry: a minute on ten million events.
    /// Who measures how it works once it runs waits for the end of that.
    pub async fn wait_until_settled(&self) -> anyhow::Result<()> {
        let settled = self.wait_until(|shard| shard.owned && shard.knows_what_is_stored);
        settled.await.context("the shards did not learn what is stored")
    }

    async fn wait_until(&self, are: fn(&ShardStatus) -> bool) -> Result<(), tokio::time::error::Elapsed> {
        let commands = self.commands();
        let wait = async {
            while !commands.shards().iter().all(|shard| are(&shard.status())) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(READY_WITHIN, wait).await
    }

    /// Sends a command as a program does that links the core: typed, its id and hash made by the sender.
    pub async fn execute(&self, stream: StreamRef, command: AnyCommand) -> anyhow::Result<()> {
        execute(&self.commands(), stream, command).await?;
        self.acked.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Sends many at once, `at_once` on their way: for what a benchmark needs before it starts.
    pub async fn execute_all(
        &self,
        commands: impl Iterator<Item = (StreamRef, AnyCommand)>,
        at_once: usize,
    ) -> anyhow::Result<()> {
        use futures::StreamExt;
        let mut sent = futures::stream::iter(commands)
            .map(|(stream, command)| self.execute(stream, command))
            .buffer_unordered(at_once);
        while let Some(done) = sent.next().await {
            done?;
        }
        Ok(())
    }

    /// # Errors
    /// When the log does not hold exactly what was acked, or breaks a promise, as an auditor finds them; a log with a history that was there
    /// before is asked how much it has grown.
    pub async fn check(&self) -> anyhow::Result<()> {
        let acked = self.acked.load(Ordering::Relaxed);
        let stored = match self.grown_from.get() {
            Some(from) => self.records().await? - from,
            None => audited_events(self.parts.log.as_ref()).await?,
        };
        compare(acked, stored)
    }

    /// From here on `check` asks how much the log has grown, for it has a history.
    pub async fn count_from_here(&self) -> anyhow::Result<()> {
        let records = self.records().await?;
        match self.grown_from.set(records) {
            Ok(()) => Ok(()),
            Err(_) => bail!("it counts already"),
        }
    }

    async fn records(&self) -> anyhow::Result<u64> {
        let mut records = 0;
        for shard in 0..self.parts.opened.shards {
            records += self.parts.log.end(shard).await?;
        }
        Ok(records)
    }

    pub async fn stop(mut self) {
        self.parts.stop();
        if let Some(writer) = self.writer.take() {
            writer.ended().await;
        }
    }
}

/// The events of a log that keeps its promises.
pub async fn audited_events(log: &dyn EventLog) -> anyhow::Result<u64> {
    let mut events = 0;
    for shard in 0..log.open().await? {
        let found = services::log::audit(log, shard, |_| ()).await?;
        if let Some(fault) = found.faults.first() {
            bail!("the log breaks a promise: {fault}");
        }
        events += found.events;
    }
    Ok(events)
}

pub fn compare(acked: u64, stored: u64) -> anyhow::Result<()> {
    match acked == stored {
        true => Ok(()),
        false => bail!("{acked} events were acked, the log has {stored}"),
    }
}

/// A log to look into, while others write it.
pub fn log_to_read(log: &str, views: &str) -> anyhow::Result<Arc<dyn EventLog>> {
    settings(log, views)?.open_log(Use::Read)
}

/// The settings for these places, and the log, created with so many shards if it is not there.
pub async fn create_log(log: &str, views: &str, shards: u16) -> anyhow::Result<(Settings, Arc<dyn EventLog>)> {
    let settings = settings(log, views)?;
    let opened = settings.open_log(Use::Write)?;
    services::log::create(opened.as_ref(), &NewLog::of(shards), &SystemClock).await?;
    Ok((settings, opened))
}

pub fn settings(log: &str, views: &str) -> anyhow::Result<Settings> {
    let urls = Urls {
        log: Some(log.to_owned()),
        views: Some(views.to_owned()),
        config: None,
        time_zone: None,
        log_password_file: None,
        views_password_file: None,
    };
    urls.settings()
}

/// The request that the door makes of a typed command.
pub fn request(stream: StreamRef, command: AnyCommand) -> Request {
    let step = Step {
        stream,
        action: Action::Decide(command),
        expected_version: None,
    };
    Request::new(Uuid::now_v7(), vec![step], None, Who::new(Actor::system("bench")))
}

pub async fn execute(commands: &Commands, stream: StreamRef, command: AnyCommand) -> anyhow::Result<()> {
    let ack = commands.execute(request(stream, command), Lane::People).await?;
    match ack.events {
        1 => Ok(()),
        events => bail!("a command wrote {events} events in place of one"),
    }
}

/// Sends a command as it comes from outside: JSON, everything checked at the door.
pub async fn send(commands: &Commands, kind: StreamKind, command: serde_json::Value) -> anyhow::Result<()> {
    let incoming = Incoming {
        stream: kind,
        id: None,
        customer: None,
        command,
        expected_version: None,
    };
    let terms = Terms {
        command_id: None,
        effective_at: None,
        who: Who::new(Actor::system("bench")),
        lane: Lane::People,
        strict: false,
        upsert: false,
    };
    let accepted = commands.send(incoming, terms).await?;
    match accepted.ack.events {
        1 => Ok(()),
        events => bail!("a command wrote {events} events in place of one"),
    }
}

/// A receipt and the stream that it begins.
pub fn receipt(run: &str, n: u64) -> (StreamRef, AnyCommand) {
    let command = AnyCommand::from(workload::receipt(run, n, None));
    let Home::Exactly(id) = command.home() else {
        unreachable!("a receipt is its stream's identity")
    };
    (
        StreamRef {
            kind: StreamKind::Purchase,
            id,
        },
        command,
    )
}

/// What registers `count` customers.
pub fn customers(run: &str, count: u64) -> impl Iterator<Item = (StreamRef, AnyCommand)> {
    (0..count).map(|n| (customer(run, n), workload::register(run, n, 0).into()))
}

/// What records a contact with each of them.
pub fn contacts(run: &str, count: u64) -> impl Iterator<Item = (StreamRef, AnyCommand)> {
    (0..count).map(|n| {
        let (stream, command) = workload::contact(run, n);
        (stream, command.into())
    })
}

/// The id of an interaction that `interactions` began.
pub fn interaction(run: &str, n: u64) -> StreamRef {
    workload::contact(run, n).0
}

/// The stream of a customer.
pub fn customer(run: &str, n: u64) -> StreamRef {
    let id: Id<domain::customer::Customer> = workload::customer_id(run, n);
    StreamRef::of(id)
}
