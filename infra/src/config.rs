//! Settings: flags over environment over `crm.toml` over defaults.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use domain::Calendar;
use serde::Deserialize;
use services::log::{EventLog, MemoryLog, NewLog};
use services::routing::PeerSecret;
use services::states::StateStore;
use services::views::ReadStore;

use crate::log::kafka::KafkaLog;
use crate::log::postgres::PostgresLog;
use crate::log::sqlite::SqliteLog;
use crate::postgres;
use crate::secrets::{Url, read_secret};
use crate::views::{PostgresViews, SqliteViews};

/// Shards of a log that is created without another word.
pub const SHARDS_DEFAULT: u16 = 8;
/// The shortest that a broker allows by default.
const SESSION_TIMEOUT_DEFAULT: u64 = 6;
/// What a session's time-out can be, in seconds.
pub const SESSION_TIMEOUT: RangeInclusive<u64> = 1..=300;
const DATA_DEFAULT: &str = "sqlite:data";

/// Where the log and the read models are. Every command takes these.
#[derive(Clone, Default, Args)]
pub struct Places {
    /// The log, the only truth: sqlite:<folder>, kafka://host:9092[,host:9092]/<topic>, postgres://user:password@host/database, or
    /// memory:
    #[arg(long, env = "CRM_LOG", global = true, value_name = "URL", hide_env_values = true)]
    pub log: Option<String>,
    /// The read models, which can be rebuilt: sqlite:<folder> or postgres://user:password@host/database
    #[arg(long, env = "CRM_VIEWS", global = true, value_name = "URL", hide_env_values = true)]
    pub views: Option<String>,
    /// A file with the password for the log in PostgreSQL, so that it stands neither in the URL nor in the list of processes
    #[arg(long, env = "CRM_LOG_PASSWORD_FILE", global = true, value_name = "FILE")]
    pub log_password_file: Option<PathBuf>,
    /// The same for the read models. PGPASSWORD and PGPASSFILE work as well
    #[arg(long, env = "CRM_VIEWS_PASSWORD_FILE", global = true, value_name = "FILE")]
    pub views_password_file: Option<PathBuf>,
    /// The time zone whose days the log counts in, such as Europe/Berlin; it is fixed when the log is created [default:
    /// that of the log; of a new one Asia/Taipei]
    #[arg(long, env = "CRM_TIME_ZONE", global = true, value_name = "NAME")]
    pub time_zone: Option<Calendar>,
    /// Settings file; `crm.toml` in the working folder is read when it is there
    #[arg(long, env = "CRM_CONFIG", global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What `crm.toml` may say.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    log: Option<String>,
    views: Option<String>,
    /// Files with the passwords for them.
    log_password_file: Option<PathBuf>,
    views_password_file: Option<PathBuf>,
    /// The time zone of a log that is created; of one that exists, what it must be.
    time_zone: Option<Calendar>,
    /// The name of this installation in `ce_source`.
    instance: Option<String>,
    listen: Option<String>,
    /// Names by which the server is reached, besides its address.
    #[serde(default)]
    allowed_hosts: Vec<String>,
    /// Brokers that should hold each record; used by `crm init`.
    replication: Option<i32>,
    /// Seconds without a sign of life after which a process's shards move to others.
    session_timeout: Option<u64>,
    /// A file with the secret that the processes of one Kafka log share.
    peer_secret_file: Option<PathBuf>,
    /// Further librdkafka settings, such as `security.protocol`. One whose name ends in `_file`, such as `sasl.password_file`, names a file
    /// with the value.
    #[serde(default)]
    kafka: BTreeMap<String, String>,
}

/// All settings, decided.
#[derive(Clone)]
pub struct Settings {
    pub log: Url,
    pub views: Url,
    /// What the log is created with, and what it must have; `None` = what it has, and Taipei's for a new one.
    pub calendar: Option<Calendar>,
    pub instance: String,
    pub listen: String,
    pub allowed_hosts: Vec<String>,
    pub replication: i32,
    /// How long a process may be silent before the group gives its shards to others.
    pub session_timeout: Duration,
    /// What the processes of one Kafka log share, so that nobody else gives orders to their shards; `None` = one that they keep in the store
    /// of the read models.
    pub peer_secret: Option<PeerSecret>,
    kafka: BTreeMap<String, String>,
}

/// How a process uses the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Write,
    /// Beside a process that writes.
    Read,
}

/// The read models and the write-behind states, in one store.
#[derive(Clone)]
pub struct Stores {
    pub views: Arc<dyn ReadStore>,
    pub states: Arc<dyn StateStore>,
}

impl Places {
    /// # Errors
    /// A settings file that cannot be read, or that says something unknown.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let file = self.file()?;
        let log_password_file = self.log_password_file.clone().or(file.log_password_file);
        let views_password_file = self.views_password_file.clone().or(file.views_password_file);
        Ok(Settings {
            log: place(&self.log, file.log).with_password_from(log_password_file.as_deref())?,
            views: place(&self.views, file.views).with_password_from(views_password_file.as_deref())?,
            calendar: self.time_zone.clone().or(file.time_zone),
            instance: file.instance.unwrap_or_else(|| "crm".to_owned()),
            listen: file.listen.unwrap_or_else(|| "127.0.0.1:7070".to_owned()),
            allowed_hosts: file.allowed_hosts,
            replication: file.replication.unwrap_or(1),
            peer_secret: peer_secret(file.peer_secret_file.as_deref())?,
            session_timeout: session_timeout(file.session_timeout)?,
            kafka: with_files_read(file.kafka)?,
        })
    }

    fn file(&self) -> anyhow::Result<File> {
        let path = self.config.clone().unwrap_or_else(|| PathBuf::from("crm.toml"));
        if self.config.is_none() && !path.exists() {
            return Ok(File::default());
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).map_err(|error| not_right(&path, &text, &error))
    }
}

fn place(said: &Option<String>, in_file: Option<String>) -> Url {
    Url::new(said.clone().or(in_file).unwrap_or_else(|| DATA_DEFAULT.to_owned()))
}

/// The parser's own error shows the line, in which a password may stand.
fn session_timeout(given: Option<u64>) -> anyhow::Result<Duration> {
    let seconds = given.unwrap_or(SESSION_TIMEOUT_DEFAULT);
    let (least, most) = (SESSION_TIMEOUT.start(), SESSION_TIMEOUT.end());
    anyhow::ensure!(
        SESSION_TIMEOUT.contains(&seconds),
        "session_timeout is {seconds}; it is {least} to {most} seconds"
    );
    Ok(Duration::from_secs(seconds))
}

fn not_right(path: &Path, text: &str, error: &toml::de::Error) -> anyhow::Error {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..at).unwrap_or_default();
    let number = before.matches('\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let may_be_secret = ["password", "secret", "://", "key", "token"]
        .iter()
        .any(|word| line.contains(word));
    let path = path.display();
    match may_be_secret {
        true => anyhow::anyhow!("{path}, line {number}: invalid setting"),
        false => anyhow::anyhow!("{path}, line {number}: invalid setting: {}", error.message()),
    }
}

/// The settings of librdkafka, with those in it that stand in files.
fn with_files_read(settings: BTreeMap<String, String>) -> anyhow::Result<BTreeMap<String, String>> {
    let read = |(name, value): (String, String)| match name.strip_suffix("_file") {
        Some(name) => Ok((name.to_owned(), read_secret(Path::new(&value))?)),
        None => Ok((name, value)),
    };
    settings.into_iter().map(read).collect()
}

impl Settings {
    /// # Errors
    /// A URL that names no log.
    pub fn open_log(&self, using: Use) -> anyhow::Result<Arc<dyn EventLog>> {
        if let Some(folder) = self.log.strip_prefix("sqlite:") {
            let folder = folder_of(folder)?;
            return Ok(match using {
                Use::Write => Arc::new(SqliteLog::new(&folder)),
                Use::Read => Arc::new(SqliteLog::read_only(&folder)),
            });
        }
        if let Some(log) = self.kafka_log()? {
            return Ok(Arc::new(log));
        }
        if postgres::is_url(self.log.secret()) {
            return Ok(Arc::new(PostgresLog::new(self.log.secret())?));
        }
        if self.log.secret() == "memory:" {
            return Ok(Arc::new(MemoryLog::new()));
        }
        bail!(
            "the log is neither sqlite:<folder>, kafka://host:9092/<topic>, postgres://user@host/database nor memory:"
        )
    }

    /// The log as a Kafka topic, if it is one.
    ///
    /// # Errors
    /// A URL without a topic.
    pub fn kafka_log(&self) -> anyhow::Result<Option<KafkaLog>> {
        let Some(rest) = self.log.strip_prefix("kafka://") else {
            return Ok(None);
        };
        if rest.contains('@') {
            bail!(
                "a Kafka URL has no user and no password; write them as \"sasl.username\" and \"sasl.password\" (or \
                 \"sasl.password_file\") under [kafka] in crm.toml"
            );
        }
        let is_name = |topic: &str| {
            topic
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
        };
        let named = rest
            .split_once('/')
            .filter(|(brokers, topic)| !brokers.is_empty() && !topic.is_empty());
        let Some((brokers, topic)) = named.filter(|(_, topic)| is_name(topic)) else {
            bail!("the URL of the log names no topic; write kafka://host:9092/crm.events");
        };
        let log = KafkaLog::new(brokers, topic, self.kafka.clone());
        Ok(Some(log.with_replication(self.replication)))
    }

    /// What the log is, or is to be.
    pub fn new_log(&self, shards: u16) -> NewLog {
        NewLog {
            shards,
            calendar: self.calendar.clone(),
        }
    }

    /// Is the log made by whoever first opens it? One in files or in a database is; a Kafka topic is made by `crm init` only.
    pub fn creates_log(&self) -> bool {
        self.log.strip_prefix("kafka://").is_none()
    }

    /// Where the log is, for people.
    pub fn log_address(&self) -> String {
        self.log.to_string()
    }

    /// For commands that change what is there, and should not begin something new in a mistyped place.
    ///
    /// # Errors
    /// When the read models are to be in a folder that does not exist.
    pub fn refuse_new_folder(&self) -> anyhow::Result<()> {
        match self.views.strip_prefix("sqlite:") {
            Some(folder) if !Path::new(folder).is_dir() => bail!("there is no folder {folder}"),
            Some(_) | None => Ok(()),
        }
    }

    /// # Errors
    /// A URL that names no store, or one that cannot be reached.
    pub async fn open_stores(&self) -> anyhow::Result<Stores> {
        if let Some(folder) = self.views.strip_prefix("sqlite:") {
            let store = Arc::new(SqliteViews::open(folder_of(folder)?).await?);
            return Ok(Stores {
                views: store.clone(),
                states: store,
            });
        }
        if postgres::is_url(self.views.secret()) {
            let store = Arc::new(PostgresViews::connect(self.views.secret()).await?);
            return Ok(Stores {
                views: store.clone(),
                states: store,
            });
        }
        Err(no_store())
    }

    /// The same for those who only look: nothing is made, and the right to read is enough.
    ///
    /// # Errors
    /// A URL that names no store, one that cannot be reached, or one without read models.
    pub async fn open_stores_to_read(&self) -> anyhow::Result<Stores> {
        if let Some(folder) = self.views.strip_prefix("sqlite:") {
            let store = Arc::new(SqliteViews::open_to_read(folder_of(folder)?).await?);
            return Ok(Stores {
                views: store.clone(),
                states: store,
            });
        }
        if postgres::is_url(self.views.secret()) {
            let store = Arc::new(PostgresViews::connect_to_read(self.views.secret()).await?);
            return Ok(Stores {
                views: store.clone(),
                states: store,
            });
        }
        Err(no_store())
    }
}

fn no_store() -> anyhow::Error {
    anyhow::anyhow!("the views are neither sqlite:<folder> nor postgres://user@host/database")
}

/// From the environment, or from a file that it names, or the settings name.
fn peer_secret(file: Option<&Path>) -> anyhow::Result<Option<PeerSecret>> {
    let text = match (
        std::env::var("CRM_PEER_SECRET"),
        std::env::var_os("CRM_PEER_SECRET_FILE"),
    ) {
        (Ok(secret), _) => secret,
        (Err(_), named) => {
            let Some(path) = named.map(PathBuf::from).or_else(|| file.map(Path::to_owned)) else {
                return Ok(None);
            };
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?
        }
    };
    let secret = PeerSecret::new(text.trim());
    Ok(Some(secret.context(
        "the secret of the processes has 16 to 255 visible ASCII characters",
    )?))
}

fn folder_of(text: &str) -> anyhow::Result<PathBuf> {
    if text.is_empty() {
        bail!("sqlite: needs a folder, such as sqlite:data");
    }
    Ok(PathBuf::from(text))
}
