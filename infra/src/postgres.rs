//! What the log and the stores in PostgreSQL share: the way to the server, and its errors in words.

use std::time::Duration;

use deadpool_postgres::tokio_postgres::config::Host;
use deadpool_postgres::tokio_postgres::{Config, Error, NoTls};
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, QueueMode, RecyclingMethod, Runtime};

use crate::secrets::postgres_password;

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long to wait for a free connection.
const TURN_MAX: Duration = Duration::from_secs(10);

/// Is it `postgres://…`?
pub(crate) fn is_url(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// What `postgres://user:password@host:port/database` says, with our limits.
///
/// # Errors
/// A sentence, without the URL: there may be a password in it.
pub(crate) fn configure(url: &str) -> Result<Config, String> {
    // The parser's own words may show a part of a password in which a letter means something in a URL.
    let no_url = || {
        "this is no PostgreSQL URL; write postgres://user:password@host:5432/database, and in user and password other letters than \
         A-Z, a-z and 0-9 as in %40 for @"
            .to_owned()
    };
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    if authority.matches('@').count() > 1 {
        return Err(no_url());
    }
    let mut config: Config = url.parse().map_err(|_| no_url())?;
    if config.get_password().is_none() {
        let (host, port) = (host(&config), port(&config));
        let (database, user) = (
            config.get_dbname().unwrap_or_default(),
            config.get_user().unwrap_or_default(),
        );
        if let Some(password) = postgres_password(&host, port, database, user) {
            config.password(password);
        }
    }
    config.connect_timeout(CONNECT_MAX);
    if config.get_application_name().is_none() {
        config.application_name("crm");
    }
    Ok(config)
}

/// Is the server asked whether a connection still works, before it is used again?
pub(crate) enum Probe {
    Never,
    /// When nobody used it for so long: one that was just used costs no round trip more.
    AfterIdle(Duration),
}

pub(crate) fn pool(config: Config, connections_max: usize, probe: Probe) -> Pool {
    // One that is known to be closed is never used again.
    let recycling_method = RecyclingMethod::Fast;
    let mut pool = Pool::builder(Manager::from_config(config, NoTls, ManagerConfig { recycling_method }));
    if let Probe::AfterIdle(idle) = probe {
        pool = pool.pre_recycle(Hook::async_fn(move |client, metrics| {
            Box::pin(async move {
                if metrics.last_used() < idle {
                    return Ok(());
                }
                match tokio::time::timeout(CONNECT_MAX, client.simple_query("")).await {
                    Ok(answer) => answer.map(drop).map_err(HookError::Backend),
                    Err(_) => Err(HookError::message("the server is silent")),
                }
            })
        }));
    }
    pool.max_size(connections_max)
        // The one that was used last: its server process has its plans, and the pages it asks for, at hand.
        .queue_mode(QueueMode::Lifo)
        .wait_timeout(Some(TURN_MAX))
        .create_timeout(Some(CONNECT_MAX))
        .recycle_timeout(Some(CONNECT_MAX))
        .runtime(Runtime::Tokio1)
        .build()
        .expect("a pool with a runtime")
}

/// `postgres://host:port/database`, without user and password.
pub(crate) fn address(config: &Config) -> String {
    let (host, port) = (host(config), port(config));
    format!("postgres://{host}:{port}/{}", config.get_dbname().unwrap_or_default())
}

fn host(config: &Config) -> String {
    match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    }
}

fn port(config: &Config) -> u16 {
    config.get_ports().first().copied().unwrap_or(5432)
}

/// Why, for people. Of the server's answer the message only: the detail may show values.
pub(crate) fn words(error: &Error) -> String {
    if let Some(refusal) = error.as_db_error() {
        return refusal.message().to_owned();
    }
    match std::error::Error::source(error) {
        None => error.to_string(),
        Some(cause) => format!("{error}: {cause}"),
    }
}
