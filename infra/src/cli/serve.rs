//! `crm serve`

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use projections::Group;
use services::http::{Answers, ApiParts, Hosts, router};
use services::shard::ShardConfig;
use services::watch::{UNREAD_FOR_DEFAULT, Watch};
use tokio::net::TcpListener;

use super::status::UNREAD_SECONDS;
use crate::config::{SESSION_TIMEOUT, Settings, Use};
use crate::runtime::{Parts, stop_asked};
use crate::server;
use crate::telemetry::process_metrics;

/// The longest that a command may be allowed to take, in seconds. Its client has given up long before.
const COMMAND_SECONDS_MAX: u64 = 600;
/// How long requests that are under way may take at shutdown.
const DRAIN: Duration = Duration::from_secs(20);

/// Serve commands and queries over HTTP: shards, projections and API in one process
///
/// Serves until Ctrl-C or SIGTERM; then it answers what it has accepted, saves, and ends.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address for HTTP; loopback only, until access control is configured
    #[arg(long, env = "CRM_LISTEN")]
    pub listen: Option<String>,
    /// Do not run projection workers here (then run `crm project`)
    #[arg(long)]
    pub no_projections: bool,
    /// How long a command may take, in seconds, before it is answered 503
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=COMMAND_SECONDS_MAX))]
    pub command_timeout: u64,
    /// Seconds that a shard may be without an owner, or a record unread by a read model, before the status calls it trouble
    #[arg(long, value_name = "SECONDS", default_value_t = UNREAD_FOR_DEFAULT.as_secs(), value_parser = clap::value_parser!(u64).range(UNREAD_SECONDS))]
    pub unread_max: u64,
    /// Where other processes on the same Kafka log reach this one [default: the address it listens on]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// A name by which browsers and programs reach this server, such as crm.example.com or crm.example.com:8443; may be given several
    /// times. Loopback names, the address it listens on and the advertised one are allowed always
    #[arg(
        long = "allowed-host",
        env = "CRM_ALLOWED_HOSTS",
        value_name = "HOST",
        value_delimiter = ','
    )]
    pub allowed_hosts: Vec<String>,
    #[command(flatten)]
    pub sharing: Sharing,
}

/// How shards are shared among processes on one Kafka log.
#[derive(Debug, Clone, Default, Args)]
pub struct Sharing {
    /// Seconds without a sign of life after which a process's shards move to others; the broker sets the least (6 by default)
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(SESSION_TIMEOUT))]
    pub session_timeout: Option<u64>,
}

impl Sharing {
    /// The settings with what the flags say.
    pub fn apply(&self, settings: &Settings) -> Settings {
        let mut settings = settings.clone();
        if let Some(seconds) = self.session_timeout {
            settings.session_timeout = Duration::from_secs(seconds);
        }
        settings
    }
}

impl Serve {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let log = settings.open_log(Use::Write)?;
        let parts = Parts::open(settings, log).await?;
        self.serve(settings, parts).await
    }

    /// Serves with parts that are open already.
    pub async fn serve(self, settings: &Settings, parts: Parts) -> anyhow::Result<ExitCode> {
        let listen = self.listen.clone().unwrap_or_else(|| settings.listen.clone());
        let listener = TcpListener::bind(&listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            anyhow::bail!("{address} is open to others, and there is no access control yet: listen on 127.0.0.1");
        }
        let hosts = self.hosts(settings, address)?;
        let metrics = crate::telemetry::start_metrics()?;
        let config = ShardConfig {
            command_timeout: Duration::from_secs(self.command_timeout),
            ..ShardConfig::default()
        };
        let groups = if self.no_projections {
            vec![]
        } else {
            Group::ALL.to_vec()
        };
        let settings = &self.sharing.apply(settings);
        let here = self.advertise.clone().unwrap_or_else(|| address.to_string());
        let mut projecting = parts.share_workers(settings, groups).await?;
        let mut writer = parts.share_writer(settings, &here, config).await?;
        let seats = [writer.seat(), projecting.seat()].into_iter().flatten();
        let watch = Watch::new(Duration::from_secs(self.unread_max)).with_seats(seats.collect());
        let (log, views) = (Arc::clone(&parts.log), Arc::clone(&parts.stores.views));
        let upkeep = [
            tokio::spawn(watch.clone().run(writer.commands.clone(), log, views, parts.stopped())),
            tokio::spawn(forget_old_commands(Arc::clone(&parts.stores.states), parts.stopped())),
            tokio::spawn(crate::telemetry::count_measurements(metrics.clone(), parts.stopped())),
        ];
        let leaving = tokio::sync::watch::channel(false).0;
        let api = router(ApiParts {
            commands: writer.commands.clone(),
            queries: parts.queries(),
            store: Arc::clone(&parts.stores.views),
            log: Arc::clone(&parts.log),
            workers: projecting.workers.clone(),
            instance: settings.instance.clone(),
            peers: writer.peers.clone(),
            watch,
            metrics: Arc::new(move || metrics.render() + &process_metrics()),
            hosts,
            answers: Answers::default(),
            stopping: leaving.subscribe(),
        });
        tracing::info!(
            "serving on http://{address}/, log {}, views {}",
            parts.log.address(),
            parts.stores.views.address()
        );
        let (closing, closed) = tokio::sync::watch::channel(false);
        let server = tokio::spawn(server::serve(listener, api, server::connections_allowed(), closed));
        stop_asked().await?;
        tracing::info!("stopping: answering what was accepted");
        leaving.send_replace(true);
        // While shards move, whoever still asks here is served: by the next owner.
        writer.leave().await;
        projecting.leave().await;
        closing.send_replace(true);
        // Connections that stay open with nothing under way must not hold up the end.
        match tokio::time::timeout(DRAIN, server).await {
            Ok(served) => served?,
            Err(_) => tracing::warn!("some requests were still under way after {DRAIN:?}"),
        }
        parts.stop();
        writer.ended().await;
        projecting.ended().await?;
        for task in upkeep {
            task.await?;
        }
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}

impl Serve {
    /// The names by which this server may be reached.
    fn hosts(&self, settings: &Settings, address: SocketAddr) -> anyhow::Result<Hosts> {
        let given = match self.allowed_hosts.is_empty() {
            true => &settings.allowed_hosts,
            false => &self.allowed_hosts,
        };
        let mut names = self.advertise.iter().chain(given);
        let hosts = names.try_fold(Hosts::of(address), |hosts, name| hosts.and(name));
        hosts.map_err(anyhow::Error::msg)
    }
}

/// Client-made command ids are remembered for 31 days: one more than they are accepted.
async fn forget_old_commands(
    states: Arc<dyn services::states::StateStore>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    use services::clock::{Clock, SystemClock};
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(3_600)) => {}
            _ = stop.changed() => return,
        }
        // A clock far ahead must not make it forget what is still accepted.
        let now = SystemClock.now();
        let now = match states.time().await {
            Ok(time) => time.map_or(now, |time| time.min(now)),
            Err(error) => {
                tracing::warn!("old command ids could not be forgotten: {error}");
                continue;
            }
        };
        let before = now - jiff::SignedDuration::from_hours(24 * 31);
        match states.forget_commands(before).await {
            Ok(forgotten) => tracing::info!(forgotten, "forgot old command ids"),
            Err(error) => tracing::warn!("old command ids could not be forgotten: {error}"),
        }
    }
}
