//! A server on data of its own, and what can be done to both.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::traffic::run_well;
use tests::{Crm, Database, shared_kafka, unique_topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::honest::ANSWER_MAX;

const POLL: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(60);
/// Of the log on Kafka.
pub const SHARDS: u16 = 3;
/// What the processes of the log on Kafka share.
pub const SECRET: &str = "the-secret-of-the-callers";

/// A server on data of its own.
pub struct Stage {
    crm: Option<Crm>,
    env: Vec<(&'static str, String)>,
    // What the server stands on, until it has ended: fields are dropped in order.
    folder: tempfile::TempDir,
    database: Option<Database>,
}

impl Stage {
    pub async fn on_sqlite() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("data").display());
        let env = vec![("CRM_LOG", url.clone()), ("CRM_VIEWS", url)];
        Stage::start(env, folder, None).await
    }

    pub async fn on_kafka_and_postgresql() -> Stage {
        let database = Database::create();
        let log = format!("kafka://{}/{}", shared_kafka(), unique_topic("callers"));
        let env = vec![
            ("CRM_LOG", log),
            ("CRM_VIEWS", database.url().to_owned()),
            ("CRM_PEER_SECRET", SECRET.to_owned()),
        ];
        run_well(&["init", "--shards", &SHARDS.to_string()], &borrowed(&env));
        Stage::start(env, tempfile::tempdir().unwrap(), Some(database)).await
    }

    async fn start(env: Vec<(&'static str, String)>, folder: tempfile::TempDir, database: Option<Database>) -> Stage {
        let mut stage = Stage {
            crm: None,
            env,
            folder,
            database,
        };
        stage.serve(&[]).await;
        stage
    }

    /// Starts the server, with these variables too, and waits until it has every shard: a process that has not heard
    /// yet which are its own is ready as well.
    pub async fn serve(&mut self, more: &[(&str, String)]) {
        let mut env = self.env();
        env.extend(more.iter().map(|(name, value)| (*name, value.as_str())));
        let crm = Crm::start(&["serve", "--command-timeout", "15"], &env);
        self.crm = Some(crm);
        let begun = Instant::now();
        loop {
            let (_, status) = self.get("/api/status").await;
            let status: Value = serde_json::from_str(&status).unwrap();
            let shards = status["shards"].as_array().expect("a list");
            if shards.iter().all(|shard| shard["owned"] == true) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not have its shards: {status}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends the server, which must end well.
    pub fn end(&mut self) {
        let mut crm = self.crm.take().expect("it serves");
        assert_eq!(crm.terminate(), 0);
    }

    pub fn crm(&self) -> &Crm {
        self.crm.as_ref().expect("it serves")
    }

    pub fn crm_mut(&mut self) -> &mut Crm {
        self.crm.as_mut().expect("it serves")
    }

    /// The settings of the server, for other commands.
    pub fn env(&self) -> Vec<(&str, &str)> {
        borrowed(&self.env)
    }

    /// The same with another log, which is made here, or which is nowhere if it has no shards.
    pub fn env_with_another_log(&self, name: &str, shards: u16) -> Vec<(&'static str, String)> {
        let log = match self.database {
            Some(_) => format!("kafka://{}/{}", shared_kafka(), unique_topic(name)),
            None => format!("sqlite:{}", self.folder.path().join(name).display()),
        };
        let mut env = self.env.clone();
        env[0].1 = log;
        if shards > 0 {
            run_well(&["init", "--shards", &shards.to_string()], &[("CRM_LOG", &env[0].1)]);
        }
        env
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Imports these lines.
    pub fn import(&self, lines: &str) {
        let file = self.folder.path().join("import.jsonl");
        std::fs::write(&file, lines).unwrap();
        let url = self.crm().url("");
        run_well(&["import", file.to_str().unwrap(), "--server", &url], &self.env());
    }

    /// Replaces a text in every stored state of a kind of stream. The server must have ended, and saved them.
    pub async fn replace_in_states(&self, kind: &str, from: &str, to: &str) -> u64 {
        match &self.database {
            Some(database) => {
                let (client, connection) = tokio_postgres::connect(database.url(), tokio_postgres::NoTls)
                    .await
                    .unwrap();
                tokio::spawn(connection);
                let tables = "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables WHERE table_name LIKE 'states\\_%'";
                let table: String = client.query_one(tables, &[]).await.unwrap().get(0);
                let update = format!(
                    "UPDATE {table} SET state = replace(state, $1, $2) WHERE kind = $3 AND strpos(state, $1) > 0"
                );
                client.execute(&update, &[&from, &to, &kind]).await.unwrap()
            }
            None => {
                let file = rusqlite::Connection::open(self.folder.path().join("data/views.db")).unwrap();
                let tables =
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'states\\_%' ESCAPE '\\'";
                let table: String = file.query_row(tables, [], |row| row.get(0)).unwrap();
                let update = format!(
                    "UPDATE {table} SET state = replace(state, ?1, ?2) WHERE kind = ?3 AND instr(state, ?1) > 0"
                );
                file.execute(&update, [from, to, kind]).unwrap() as u64
            }
        }
    }

    /// The resident memory of the server, in MiB.
    pub async fn memory_mib(&self) -> u64 {
        self.metric("process_resident_memory_bytes ").await as u64 / 1024 / 1024
    }

    /// The measurement whose line begins so; 0 when there is none yet.
    pub async fn metric(&self, begins: &str) -> f64 {
        let answer = reqwest::get(self.crm().url("/metrics")).await.unwrap();
        let text = answer.error_for_status().unwrap().text().await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(begins));
        value.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// Status and text of the answer to a command, or to a question in a body.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> (u16, String) {
        let mut asked = reqwest::Client::new()
            .post(self.crm().url(path))
            .json(body)
            .timeout(ANSWER_MAX);
        for (name, value) in headers {
            asked = asked.header(*name, *value);
        }
        let answer = asked.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Status and text of what is there.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let asked = reqwest::Client::new().get(self.crm().url(path)).timeout(ANSWER_MAX);
        let answer = asked.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// A connection on which this was sent.
    pub async fn sent(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = TcpStream::connect(self.crm().address()).await.unwrap();
        // The server may have ended it already.
        stream.write_all(bytes.as_ref()).await.unwrap_or_default();
        stream
    }

    /// The status of what is answered to these bytes.
    pub async fn status_of(&self, bytes: impl AsRef<[u8]>) -> u16 {
        let mut stream = self.sent(bytes).await;
        status(&mut stream, ANSWER_MAX).await
    }

    /// A host's name for requests.
    pub fn host(&self) -> String {
        self.crm().address()
    }

    /// Do processes share this log?
    pub fn is_shared(&self) -> bool {
        self.database.is_some()
    }
}

fn borrowed<'a>(env: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    env.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// The status that comes on a connection; 0 when it ends without one.
pub async fn status(stream: &mut TcpStream, within: Duration) -> u16 {
    let mut head = [0; "HTTP/1.1 200".len()];
    let read = tokio::time::timeout(within, stream.read_exact(&mut head)).await;
    let read = read.unwrap_or_else(|_| panic!("no answer within {within:?}"));
    let text = String::from_utf8_lossy(&head);
    read.map_or(0, |_| text[9..].parse().expect("a status"))
}
