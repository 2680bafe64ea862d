//! The composition root: which parts a process is made of, and in which order they start and stop.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use domain::Calendar;
use projections::Group;
use services::clock::{Clock, CorrectedClock, SystemClock};
use services::commands::Commands;
use services::log::{EventLog, LogError, Opened, create, open};
use services::routing::{Owners, PeerSecret, Routing};
use services::shard::{Assignment, ShardConfig, ShardHandle, ShardParts, spawn};
use services::views::{Queries, ViewError, Workers, logs_of};
use services::watch::Seat;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::config::{SHARDS_DEFAULT, Settings, Stores, Use};
use crate::membership::{self, Membership, Share, Work};
use crate::peers::HttpPeers;

/// The threads that run everything. Twice as many as there are cores: each shard's producer has threads of its own, which push ours aside;
/// with one a core, 64 clients get a seventh less done, at more processor time each.
///
/// # Errors
/// When the system gives no threads.
pub fn threads() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2 * cores)
        .enable_all()
        .build()
}

/// A process that serves shards, all or some: commands go in, events go to the log.
pub struct Writer {
    pub commands: Commands,
    /// What other processes must know that send commands here; `None` where there are none.
    pub peers: Option<PeerSecret>,
    tasks: Vec<JoinHandle<()>>,
    membership: Option<Membership>,
}

/// The projection workers of a process.
pub struct Projecting {
    pub workers: Workers,
    task: JoinHandle<()>,
    membership: Option<Membership>,
}

/// Questions to read models beside whoever keeps them. It takes no right to write anywhere.
///
/// # Errors
/// When there are no read models, or they belong to another log than the one that the settings name.
pub async fn queries_to_read(settings: &Settings) -> anyhow::Result<Queries> {
    let views = settings.open_stores_to_read().await?.views;
    let queries = |calendar| Queries::new(Arc::clone(&views), Arc::new(SystemClock), calendar);
    let log = settings.open_log(Use::Read)?;
    match open(log.as_ref()).await {
        Ok(opened) => {
            opened.must_count_days_by(settings.calendar.as_ref(), log.as_ref())?;
            let queries = queries(opened.calendar).with_log(Arc::clone(&log));
            Ok(queries.of_log(opened.log_id))
        }
        Err(error) => {
            // Read models can be asked while their log is away. Days that they have counted stay; a day that is asked
            // for is one of these.
            let calendar = settings.calendar.clone().unwrap_or_else(Calendar::taipei);
            eprintln!(
                "crm: cannot verify that these read models belong to the log, and that its days are those of {}: {error}",
                calendar.time_zone()
            );
            Ok(queries(calendar))
        }
    }
}

/// Opens a log that must have the time zone of the settings, if they name one.
async fn open_as_set(settings: &Settings, log: &dyn EventLog) -> anyhow::Result<Opened> {
    let opened = open(log).await?;
    opened.must_count_days_by(settings.calendar.as_ref(), log)?;
    Ok(opened)
}

/// A log that is not there is not begun anew beside read models that came from one: it was deleted, or this is the wrong place.
///
/// # Errors
/// A sentence that says what to do.
pub async fn refuse_orphans(settings: &Settings, stores: &Stores) -> anyhow::Result<()> {
    let Some(log) = logs_of(stores.views.as_ref()).await?.into_iter().next() else {
        return Ok(());
    };
    anyhow::bail!(
        "there is no log at {}, but the read models at {} came from log {log}: the log was deleted or moved away, or this is the wrong \
         place. Put the log back, from the latest copy if it is gone. If a new and empty log is meant, delete these read models first",
        settings.log_address(),
        stores.views.address()
    )
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
    /// Opens log and stores. A log in files or in a database is created when it is not there yet.
    ///
    /// # Errors
    /// When one of them is not there, not in order, or cannot be reached.
    pub async fn open(settings: &Settings, log: Arc<dyn EventLog>) -> anyhow::Result<Parts> {
        let opened = match settings.creates_log() {
            true => match log.open().await {
                Ok(shards) => create(log.as_ref(), &settings.new_log(shards), &SystemClock).await?,
                Err(LogError::NotCreated(_)) => {
                    refuse_orphans(settings, &settings.open_stores().await?).await?;
                    create(log.as_ref(), &settings.new_log(SHARDS_DEFAULT), &SystemClock).await?
                }
                Err(error) => return Err(error.into()),
            },
            false => open_as_set(settings, log.as_ref()).await?,
        };
        Parts::with(log, opened, settings.open_stores().await?).await
    }

    /// Opens the log to read, and the stores to write: for those who keep read models.
    ///
    /// # Errors
    /// When one of them is not there, not in order, or cannot be reached.
    pub async fn open_to_project(settings: &Settings, log: Arc<dyn EventLog>) -> anyhow::Result<Parts> {
        let opened = open_as_set(settings, log.as_ref()).await?;
        Parts::with(log, opened, settings.open_stores().await?).await
    }

    /// Opens log and stores to look only; nothing is created or changed.
    ///
    /// # Errors
    /// When one of them is not there, not in order, or cannot be reached.
    pub async fn open_to_read(settings: &Settings, log: Arc<dyn EventLog>) -> anyhow::Result<Parts> {
        let opened = open_as_set(settings, log.as_ref()).await?;
        Parts::with(log, opened, settings.open_stores_to_read().await?).await
    }

    async fn with(log: Arc<dyn EventLog>, opened: Opened, stores: Stores) -> anyhow::Result<Parts> {
        let wanted = opened.log_id;
        let mut others = logs_of(stores.views.as_ref()).await?.into_iter();
        if let Some(stored) = others.find(|stored| *stored != wanted) {
            let address = stores.views.address();
            return Err(anyhow::Error::new(ViewError::OtherLog { stored, wanted }).context(address));
        }
        Ok(Parts {
            log,
            stores,
            opened,
            clock: machine_clock(),
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

    /// Serves every shard in this process. `address` is where it answers commands.
    pub fn start_writer(&self, settings: &Settings, address: &str, config: ShardConfig) -> Writer {
        let words = vec![Assignment::alone(); usize::from(self.opened.shards)];
        let (handles, tasks) = self.spawn_shards(settings, address, &config, words);
        Writer {
            commands: Commands::new(
                Routing::alone(handles),
                Arc::clone(&self.clock),
                self.opened.calendar.clone(),
            ),
            peers: None,
            tasks,
            membership: None,
        }
    }

    /// Serves the shards that the group of a Kafka log's writers assigns to this process, and sends commands for the others to where they
    /// are served; on any other log, every shard.
    ///
    /// # Errors
    /// When the group cannot be joined.
    pub async fn share_writer(
        &self,
        settings: &Settings,
        address: &str,
        config: ShardConfig,
    ) -> anyhow::Result<Writer> {
        let Some(log) = settings.kafka_log()? else {
            return Ok(self.start_writer(settings, address, config));
        };
        let (words, heard) = membership::words(self.opened.shards);
        let (handles, tasks) = self.spawn_shards(settings, address, &config, heard);
        let owners = Owners {
            log: Arc::clone(&self.log),
            log_id: self.opened.log_id,
            states: Arc::clone(&self.stores.states),
            own_address: address.to_owned(),
        };
        let secret = self.peer_secret(settings).await?;
        let routing = Routing::among(handles.clone(), Arc::new(HttpPeers::new(secret.clone())?), owners);
        let is_released = move |shard: u16| !handles[usize::from(shard)].status().owned;
        let share = Share {
            work: Work::Writing,
            words,
        };
        let membership = Membership::join(&log, "writers", settings.session_timeout, vec![share], is_released).await?;
        Ok(Writer {
            commands: Commands::new(routing, Arc::clone(&self.clock), self.opened.calendar.clone()),
            peers: Some(secret),
            tasks,
            membership: Some(membership),
        })
    }

    /// The secret that the settings give, else the one that the processes keep in the store that they share: the first one draws it.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn peer_secret(&self, settings: &Settings) -> anyhow::Result<PeerSecret> {
        if let Some(secret) = &settings.peer_secret {
            return Ok(secret.clone());
        }
        #[allow(clippy::disallowed_methods, reason = "a secret is luck, drawn once")]
        let luck: Vec<String> = (0..4).map(|_| Uuid::now_v7().to_string()).collect();
        let drawn = domain::hex(&Sha256::digest(luck.concat()));
        let kept = self.stores.states.peer_secret(&drawn).await?;
        PeerSecret::new(&kept).context("the secret that the processes keep in the store is none")
    }

    fn spawn_shards(
        &self,
        settings: &Settings,
        address: &str,
        config: &ShardConfig,
        words: Vec<watch::Receiver<Assignment>>,
    ) -> (Vec<ShardHandle>, Vec<JoinHandle<()>>) {
        #[allow(clippy::disallowed_methods, reason = "a process is told apart from others by luck")]
        let node = Uuid::now_v7().to_string();
        let spawned = words.into_iter().zip(0_u16..).map(|(word, shard)| {
            let parts = ShardParts {
                log: Arc::clone(&self.log),
                states: Arc::clone(&self.stores.states),
                clock: Arc::clone(&self.clock),
                node: node.clone(),
                address: address.to_owned(),
                source: format!("/crm/{}", settings.instance),
                config: config.clone(),
            };
            spawn(shard, parts, word, self.stopped())
        });
        spawned.unzip()
    }

    /// Starts projection workers for these groups of read models, on every shard.
    pub fn start_workers(&self, groups: Vec<Group>) -> Projecting {
        let all = vec![Assignment::alone(); usize::from(self.opened.shards)];
        self.spawn_workers(groups.into_iter().map(|group| (group, all.clone())).collect(), None)
    }

    /// Starts projection workers on the shards that the group of a Kafka log's projectors assigns to this process; on any other log, on
    /// every shard.
    ///
    /// # Errors
    /// When the group cannot be joined.
    pub async fn share_workers(&self, settings: &Settings, groups: Vec<Group>) -> anyhow::Result<Projecting> {
        let log = settings.kafka_log()?.filter(|_| !groups.is_empty());
        let Some(log) = log else {
            return Ok(self.start_workers(groups));
        };
        let (mut shares, mut heard) = (vec![], BTreeMap::new());
        for group in groups {
            let (words, hears) = membership::words(self.opened.shards);
            let work = Work::Projecting(group);
            shares.push(Share { work, words });
            heard.insert(group, hears);
        }
        // A worker that goes on for a moment beside another one changes nothing: the checkpoint moves once.
        let membership = Membership::join(&log, "projectors", settings.session_timeout, shares, |_| true).await?;
        Ok(self.spawn_workers(heard, Some(membership)))
    }

    fn spawn_workers(
        &self,
        words: BTreeMap<Group, Vec<watch::Receiver<Assignment>>>,
        membership: Option<Membership>,
    ) -> Projecting {
        let (log, views) = (Arc::clone(&self.log), Arc::clone(&self.stores.views));
        let workers = Workers::new(log, views, self.opened.shards, words);
        let task = tokio::spawn(workers.clone().run(self.stopped()));
        Projecting {
            workers,
            task,
            membership,
        }
    }

    pub fn queries(&self) -> Queries {
        let calendar = self.opened.calendar.clone();
        let queries = Queries::new(Arc::clone(&self.stores.views), Arc::clone(&self.clock), calendar);
        queries.with_log(Arc::clone(&self.log)).of_log(self.opened.log_id)
    }
}

impl Writer {
    /// Its seat in the group of writers, if there is one.
    pub fn seat(&self) -> Option<Seat> {
        self.membership.as_ref().map(Membership::seat)
    }

    /// Hands every shard over to other processes, if there are any. Commands that still come are sent to them.
    pub async fn leave(&mut self) {
        if let Some(membership) = self.membership.take() {
            membership.leave().await;
        }
    }

    /// Waits until what was accepted is answered and saved; `Parts::stop` comes first.
    pub async fn ended(self) {
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!("a shard ended badly: {error}");
            }
        }
    }
}

impl Projecting {
    /// Its seat in the group of projectors, if there is one.
    pub fn seat(&self) -> Option<Seat> {
        self.membership.as_ref().map(Membership::seat)
    }

    /// Gives the shards to other processes, if there are any.
    pub async fn leave(&mut self) {
        if let Some(membership) = self.membership.take() {
            membership.leave().await;
        }
    }

    /// Waits until the workers have ended; `Parts::stop` comes first.
    ///
    /// # Errors
    /// When they ended badly.
    pub async fn ended(self) -> anyhow::Result<()> {
        Ok(self.task.await?)
    }
}

/// The machine's, which does not go back while this process runs.
fn machine_clock() -> Arc<dyn Clock> {
    Arc::new(CorrectedClock::new(Arc::new(SystemClock)))
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
