//! Where the servers are that `scripts/bench` started, and fresh topics, databases and folders in them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use tokio_postgres::NoTls;

use crate::meters::Meters;

/// What `scripts/bench` tells by the environment.
#[derive(Debug, Clone)]
pub struct Places {
    /// `host:port` of Kafka, and the process of its broker.
    pub kafka: String,
    pub kafka_pid: u32,
    /// URL of PostgreSQL, and the process at the root of its cluster.
    pub postgres: String,
    pub postgres_pid: u32,
    /// For files: logs, probes.
    pub folder: PathBuf,
    /// The programs `crm`, and those of the peers.
    pub crm: PathBuf,
    pub peers: PathBuf,
    /// Jars of peer P3, and the class path of peer P4.
    pub debezium: PathBuf,
    pub axon: String,
    /// The commit that is measured.
    pub commit: String,
}

impl Places {
    /// # Errors
    /// When `scripts/bench` did not say where something is.
    pub fn from_environment() -> anyhow::Result<Places> {
        let text = |name: &str| {
            std::env::var(name).with_context(|| format!("{name} is not set; this program is run by scripts/bench"))
        };
        Ok(Places {
            kafka: text("BENCH_KAFKA")?,
            kafka_pid: text("BENCH_KAFKA_PID")?.parse()?,
            postgres: text("BENCH_POSTGRES")?,
            postgres_pid: text("BENCH_POSTGRES_PID")?.parse()?,
            folder: PathBuf::from(text("BENCH_FOLDER")?),
            crm: PathBuf::from(text("BENCH_CRM")?),
            peers: PathBuf::from(text("BENCH_PEERS")?),
            debezium: PathBuf::from(text("BENCH_DEBEZIUM")?),
            axon: text("BENCH_AXON")?,
            commit: text("BENCH_COMMIT")?,
        })
    }

    /// This process with its clients, the broker, and all processes of PostgreSQL.
    pub fn meters(&self) -> Meters {
        Meters::of_this_process("bench")
            .and("kafka", self.kafka_pid)
            .and("postgres", self.postgres_pid)
    }

    /// The URL of a log in a topic of its own.
    pub fn topic(&self, name: &str) -> String {
        format!("kafka://{}/{}", self.kafka, unique(name))
    }

    /// A folder of its own.
    pub fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(unique(name));
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The URL of a database of its own.
    pub async fn database(&self, name: &str) -> anyhow::Result<String> {
        let name = unique(name).replace(['.', '-'], "_");
        self.admin(&format!("CREATE DATABASE {name}")).await?;
        let (server, _) = self.postgres.rsplit_once('/').context("the URL names a database")?;
        Ok(format!("{server}/{name}"))
    }

    /// Removes a database that `database` made, whoever is still connected.
    pub async fn drop_database(&self, url: &str) -> anyhow::Result<()> {
        let (_, name) = url.rsplit_once('/').context("the URL names a database")?;
        self.admin(&format!("DROP DATABASE {name} WITH (FORCE)")).await
    }

    /// Writes what is dirty, so that one round's writing does not fall into the next.
    pub async fn checkpoint(&self) -> anyhow::Result<()> {
        self.admin("CHECKPOINT").await
    }

    async fn admin(&self, statement: &str) -> anyhow::Result<()> {
        let client = connect(&self.postgres).await?;
        client.batch_execute(statement).await?;
        Ok(())
    }
}

/// A connection to PostgreSQL, driven in the background.
pub async fn connect(url: &str) -> anyhow::Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("a connection to PostgreSQL ended: {error}");
        }
    });
    Ok(client)
}

fn unique(name: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!(
        "{name}.{}.{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    )
}
