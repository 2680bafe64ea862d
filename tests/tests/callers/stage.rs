//! A server, and honest clients who ask it for this and that without rest.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::traffic::run_well;
use tests::{Crm, Database, shared_kafka, unique_topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Honest clients at a time.
const HONEST: usize = 3;
/// A moment between two requests of one of them.
const PAUSE: Duration = Duration::from_millis(20);
/// Bounded: a request that gets no answer in this time fails the test.
const ANSWER_MAX: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(120);
/// Ready for so long, a server stays so.
const SETTLED: Duration = Duration::from_secs(5);

/// A server on data of its own.
pub struct Stage {
    pub crm: Crm,
    env: Vec<(&'static str, String)>,
    // What the server stands on, until it has ended: fields are dropped in order.
    _folder: tempfile::TempDir,
    _database: Option<Database>,
}

impl Stage {
    pub fn on_sqlite() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().display());
        let env = vec![("CRM_LOG", url.clone()), ("CRM_VIEWS", url)];
        Stage::start(env, folder, None)
    }

    pub fn on_kafka_and_postgresql() -> Stage {
        let database = Database::create();
        let log = format!("kafka://{}/{}", shared_kafka(), unique_topic("callers"));
        let env = vec![("CRM_LOG", log), ("CRM_VIEWS", database.url().to_owned())];
        let borrowed: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        run_well(&["init", "--shards", "3"], &borrowed);
        Stage::start(env, tempfile::tempdir().unwrap(), Some(database))
    }

    fn start(env: Vec<(&'static str, String)>, folder: tempfile::TempDir, database: Option<Database>) -> Stage {
        let borrowed: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let crm = Crm::start(&["serve"], &borrowed);
        // A process that has not heard yet which shards are its own is ready as well. Then it takes them over.
        let begun = Instant::now();
        let mut ready_since = Instant::now();
        while ready_since.elapsed() < SETTLED {
            assert!(begun.elapsed() < PATIENCE, "it does not stay ready");
            if !crm.is_ready() {
                ready_since = Instant::now();
            }
            std::thread::sleep(PAUSE);
        }
        Stage {
            crm,
            env,
            _folder: folder,
            _database: database,
        }
    }

    /// Imports these lines.
    pub fn import(&self, lines: &str) {
        let file = self._folder.path().join("import.jsonl");
        std::fs::write(&file, lines).unwrap();
        let env: Vec<(&str, &str)> = self.env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let url = self.crm.url("");
        run_well(&["import", file.to_str().unwrap(), "--server", &url], &env);
    }

    /// The resident memory of the server, in MiB.
    pub async fn memory_mib(&self) -> u64 {
        let text = self.metrics().await;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        let bytes: f64 = line.expect("the server knows its memory").parse().unwrap();
        bytes as u64 / 1024 / 1024
    }

    pub async fn metrics(&self) -> String {
        let answer = reqwest::get(self.crm.url("/metrics")).await.unwrap();
        answer.error_for_status().unwrap().text().await.unwrap()
    }

    /// A connection on which this was sent.
    pub async fn sent(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = TcpStream::connect(self.crm.address()).await.unwrap();
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
        self.crm.address()
    }
}

/// The status that comes on a connection; 0 when it ends without one.
pub async fn status(stream: &mut TcpStream, within: Duration) -> u16 {
    let mut head = [0; "HTTP/1.1 200".len()];
    let read = tokio::time::timeout(within, stream.read_exact(&mut head)).await;
    let read = read.unwrap_or_else(|_| panic!("no answer within {within:?}"));
    let text = String::from_utf8_lossy(&head);
    read.map_or(0, |_| text[9..].parse().expect("a status"))
}

/// Clients who send commands, ask questions and look after the health, each on a connection that it keeps and on new ones.
pub struct Honest {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    answers: Mutex<Answers>,
}

#[derive(Default)]
struct Answers {
    /// What was asked → how long each answer took.
    good: BTreeMap<&'static str, Vec<Duration>>,
    bad: Vec<String>,
}

impl Honest {
    pub fn beside(stage: &Stage) -> Honest {
        let shared = Arc::new(Shared::default());
        let clients = (0..HONEST).map(|number| tokio::spawn(ask(number, stage.crm.url(""), Arc::clone(&shared))));
        Honest {
            clients: clients.collect(),
            shared,
        }
    }

    /// Waits until each kind of request was answered so often again.
    pub async fn are_served(&self, times: usize) {
        let least = |shared: &Shared| {
            let answers = shared.answers.lock().unwrap();
            assert_eq!(answers.bad, Vec::<String>::new());
            let counts = ASKED.iter().map(|kind| answers.good.get(kind).map_or(0, Vec::len));
            counts.min().unwrap_or(0)
        };
        let (begun, before) = (Instant::now(), least(&self.shared));
        while least(&self.shared) < before + times {
            assert!(
                begun.elapsed() < PATIENCE,
                "{} of {times} were served",
                least(&self.shared) - before
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Every answer was a good one. How long they took is printed, and decides nothing.
    pub async fn end(self, during: &str) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        let mut answers = self.shared.answers.lock().unwrap();
        assert_eq!(answers.bad, Vec::<String>::new(), "{during}");
        for (kind, took) in &mut answers.good {
            took.sort_unstable();
            let p99 = took[(took.len() - 1) * 99 / 100];
            println!("{during}: {} × {kind} answered, 99 % within {p99:?}", took.len());
        }
    }
}

const ASKED: [&str; 5] = ["command", "question", "status", "health", "health on a new connection"];

async fn ask(number: usize, url: String, shared: Arc<Shared>) {
    let client = reqwest::Client::builder().timeout(ANSWER_MAX);
    let kept = client.build().unwrap();
    let mut turn = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        let kind = ASKED[turn % ASKED.len()];
        let begun = Instant::now();
        let request = match kind {
            "command" => {
                let name = format!("honest {number} {turn}");
                let command: Value = json!({"type": "register", "kind": "person", "name": name});
                kept.post(format!("{url}/api/customer")).json(&command)
            }
            "question" => kept.get(format!("{url}/api/leads?limit=5")),
            "status" => kept.get(format!("{url}/api")),
            "health" => kept.get(format!("{url}/health/ready")),
            _ => reqwest::Client::new()
                .get(format!("{url}/health/live"))
                .timeout(ANSWER_MAX),
        };
        let answered = match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => {
                let status = answer.status();
                Err(format!("{status} {}", answer.text().await.unwrap_or_default()))
            }
            Err(error) => Err(format!("{error:?}")),
        };
        {
            let mut answers = shared.answers.lock().unwrap();
            match answered {
                Ok(()) => answers.good.entry(kind).or_default().push(begun.elapsed()),
                Err(why) => answers.bad.push(format!("{kind} after {:?}: {why}", begun.elapsed())),
            }
        }
        turn += 1;
        tokio::time::sleep(PAUSE).await;
    }
}
