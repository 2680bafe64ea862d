//! The composition root: which parts a process is made of, and in which order they start and stop.

use std::sync::Arc;

use projections::Group;
use services::clock::{Clock, SystemClock};
use services::commands::Commands;
use services::log::{EventLog, Opened, create, open};
use services::shard::{ShardConfig, ShardParts, spawn};
use services::views::{Queries, Workers};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::config::{SHARDS_DEFAULT, Settings, Stores};

/// A process that owns the shards: commands go in, events go to the log.
pub struct Writer {
    pub commands: Commands,
    tasks: Vec<JoinHandle<()>>,
}

/// What `start` is given.
pub struct Parts {
    pub log: Arc<dyn EventLog>,
    pub stores: Stores,
    pub opened: Opened,
    pub clock: Arc<dyn Clock>,
    stop: watch::Sender<bool>,
}

impl Parts {
    /// Opens log and stores. An embedded log is created when it is not there yet.
    ///
    /// # Errors
    /// When one of them is not there, not in order, or cannot be reached.
    pub async fn open(settings: &Settings, log: Arc<dyn EventLog>) -> anyhow::Result<Parts> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let opened = match settings.creates_log() {
            true => match log.open().await {
                Ok(shards) => create(log.as_ref(), shards, clock.as_ref()).await?,
                Err(services::log::LogError::NotCreated(_)) => {
                    create(log.as_ref(), SHARDS_DEFAULT, clock.as_ref()).await?
                }
                Err(error) => return Err(error.into()),
            },
            false => open(log.as_ref()).await?,
        };
        Parts::with(settings, log, opened, clock).await
    }

    /// Opens log and stores to look only; nothing is created.
    ///
    /// # Errors
    /// When one of them is not there, not in order, or cannot be reached.
    pub async fn open_to_read(settings: &Settings, log: Arc<dyn EventLog>) -> anyhow::Result<Parts> {
        let opened = open(log.as_ref()).await?;
        Parts::with(settings, log, opened, Arc::new(SystemClock)).await
    }

    async fn with(
        settings: &Settings,
        log: Arc<dyn EventLog>,
        opened: Opened,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Parts> {
        let stores = settings.open_stores().await?;
        Ok(Parts {
            log,
            stores,
            opened,
            clock,
            stop: watch::channel(false).0,
        })
    }

    /// The same parts, for another run after `stop`.
    pub fn reopened(self) -> Parts {
        Parts {
            stop: watch::channel(false).0,
            ..self
        }
    }

    pub fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Takes over every shard. `address` is where this process answers commands.
    pub fn start_writer(&self, settings: &Settings, address: &str, config: ShardConfig) -> Writer {
        #[allow(clippy::disallowed_methods, reason = "a process is told apart from others by luck")]
        let node = Uuid::now_v7().to_string();
        let mut handles = Vec::new();
        let mut tasks = Vec::new();
        for shard in 0..self.opened.shards {
            let parts = ShardParts {
                log: Arc::clone(&self.log),
                states: Arc::clone(&self.stores.states),
                clock: Arc::clone(&self.clock),
                node: node.clone(),
                address: address.to_owned(),
                source: format!("/crm/{}", settings.instance),
                config: config.clone(),
            };
            let (handle, task) = spawn(shard, parts, self.stopped());
            handles.push(handle);
            tasks.push(task);
        }
        Writer {
            commands: Commands::new(handles, Arc::clone(&self.clock)),
            tasks,
        }
    }

    /// Starts projection workers for these groups.
    pub fn start_workers(&self, groups: Vec<Group>) -> (Workers, JoinHandle<()>) {
        let (log, views) = (Arc::clone(&self.log), Arc::clone(&self.stores.views));
        let workers = Workers::new(log, views, self.opened.shards, groups);
        let task = tokio::spawn(workers.clone().run(self.stopped()));
        (workers, task)
    }

    pub fn queries(&self) -> Queries {
        Queries::new(Arc::clone(&self.stores.views), Arc::clone(&self.clock))
    }
}

impl Writer {
    /// Waits until what was accepted is answered and saved; `Parts::stop` comes first.
    pub async fn ended(self) {
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!("a shard ended badly: {error}");
            }
        }
    }
}

/// The first of: Ctrl-C, SIGTERM.
///
/// # Errors
/// When signals cannot be listened to.
pub async fn stop_asked() -> std::io::Result<()> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        asked = tokio::signal::ctrl_c() => asked,
        _ = terminated.recv() => Ok(()),
    }
}
