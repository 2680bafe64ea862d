//! Clients that insist, and what they were told: the load under every fault, and the questions afterwards.
//!
//! Each command changes something, so each ack means one event. A client sends a command again, with the same id, until it knows the
//! outcome; to which server is luck. In the end every ack must stand in the log exactly once, nothing may have been applied that nobody
//! was told, and the read models must equal the fold of the log.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use domain::{Position, StreamKind, StreamRef, command_id_within, derived_id};
use serde_json::{Value, json};
use services::log::{Audit, EventLog, audit};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::Crm;

/// How long more acks may take to come.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longer than a server takes to answer 503.
const ANSWER_MAX: Duration = Duration::from_secs(35);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Clients at work.
pub struct Traffic {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<HashMap<Uuid, Told>>>,
}

/// What a client sends next: the traffic's name, the client, and how many it has sent before.
pub type Work = fn(&str, u64, u64) -> Order;

/// A command that changes something.
pub struct Order {
    pub stream: StreamRef,
    pub body: Value,
    /// Its customer is registered by another client, perhaps later.
    pub may_be_early: bool,
}

struct Shared {
    name: String,
    work: Work,
    /// Where commands may go.
    urls: RwLock<Vec<String>>,
    turn: AtomicUsize,
    acks: AtomicU64,
    broken: AtomicU64,
    refused: AtomicU64,
    no_room: AtomicU64,
    longest_ms: AtomicU64,
    stop: AtomicBool,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub kind: StreamKind,
    pub position: Position,
    pub events: u64,
    pub version: u64,
}

/// What the clients have lived through.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    pub acks: u64,
    /// Connections that broke or could not be made.
    pub broken: u64,
    /// Answers 503 and 507.
    pub refused: u64,
    /// Answers 507 alone: the log said for sure that it wrote nothing.
    pub no_room: u64,
    /// The longest time from the first attempt to the ack.
    pub longest: Duration,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            to,
            "{} acks, {} answers 503 or 507, {} broken connections, the longest wait {:?}",
            self.acks, self.refused, self.broken, self.longest
        )
    }
}

impl Told {
    /// What an answer 200 or 201 says.
    pub fn of(ack: &Value) -> Told {
        Told {
            kind: StreamKind::parse(ack["stream"].as_str().expect("a stream")).expect("a stream"),
            position: Position::parse(ack["position"].as_str().expect("a position")).expect("a position"),
            events: ack["events"].as_u64().expect("a count"),
            version: ack["version"].as_u64().expect("a version"),
        }
    }
}

impl Traffic {
    /// Starts so many clients with customers. `name` keeps their streams apart from those of other traffic on the same log.
    pub fn start(name: &str, clients: u64, urls: Vec<String>) -> Traffic {
        Traffic::of(customers, name, clients, urls)
    }

    /// The same with other work.
    pub fn of(work: Work, name: &str, clients: u64, urls: Vec<String>) -> Traffic {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            work,
            urls: RwLock::new(urls),
            turn: AtomicUsize::new(0),
            acks: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            no_room: AtomicU64::new(0),
            longest_ms: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let clients = (0..clients).map(|client| tokio::spawn(run_client(client, Arc::clone(&shared))));
        Traffic {
            clients: clients.collect(),
            shared,
        }
    }

    /// Sends clients to these servers from now on, in turns.
    pub fn go_to(&self, urls: Vec<String>) {
        *self.shared.urls.write().expect("no panic under the lock") = urls;
    }

    pub fn counts(&self) -> Counts {
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Counts {
            acks: count(&self.shared.acks),
            broken: count(&self.shared.broken),
            refused: count(&self.shared.refused),
            no_room: count(&self.shared.no_room),
            longest: Duration::from_millis(count(&self.shared.longest_ms)),
        }
    }

    /// Waits for so many more acks; a test fails here when the servers do not come back by themselves.
    pub async fn more_acks(&self, more: u64, after: &str) {
        let goal = self.counts().acks + more;
        let deadline = Instant::now() + PATIENCE;
        while self.counts().acks < goal {
            let acks = self.counts().acks;
            assert!(Instant::now() < deadline, "after {after} the acks stopped at {acks}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lets every client end when it knows the outcome of its last command.
    pub async fn end(self) -> HashMap<Uuid, Told> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut told = HashMap::new();
        for client in self.clients {
            told.extend(client.await.expect("a client ends well"));
        }
        told
    }
}

impl Shared {
    fn url(&self) -> String {
        let urls = self.urls.read().expect("no panic under the lock");
        urls[self.turn.fetch_add(1, Ordering::Relaxed) % urls.len()].clone()
    }
}

/// Five customers of the client's own, and one that all clients share.
pub fn customers(name: &str, client: u64, n: u64) -> Order {
    let register = |name: String| json!({"type": "register", "kind": "person", "name": name});
    let assign = |owner: String| json!({"type": "assign-owner", "owner": owner});
    let (customer, body) = match n {
        0..5 => (format!("{client}-{n}"), register(format!("c{n}"))),
        5 if client == 0 => ("shared".into(), register("all".into())),
        _ if n % 10 == 9 => ("shared".into(), assign(format!("{client}-{n}"))),
        _ => (format!("{client}-{}", n % 5), assign(format!("o{n}"))),
    };
    Order {
        may_be_early: customer == "shared" && body["type"] == "assign-owner",
        stream: StreamRef {
            kind: StreamKind::Customer,
            id: derived_id(&["traffic", name, &customer]),
        },
        body,
    }
}

async fn run_client(client: u64, shared: Arc<Shared>) -> HashMap<Uuid, Told> {
    let http = reqwest::Client::builder()
        .timeout(ANSWER_MAX)
        .build()
        .expect("a client");
    let mut told = HashMap::new();
    for n in 0_u64.. {
        if shared.stop.load(Ordering::SeqCst) {
            break;
        }
        let order = (shared.work)(&shared.name, client, n);
        #[allow(
            clippy::disallowed_methods,
            reason = "a client's command id, as every client draws it"
        )]
        let command = Uuid::now_v7();
        let started = Instant::now();
        if let Some(ack) = insist(&http, &shared, command, &order).await {
            told.insert(command_id_within(command, order.stream), ack);
            let took = started.elapsed().as_millis() as u64;
            shared.longest_ms.fetch_max(took, Ordering::SeqCst);
            shared.acks.fetch_add(1, Ordering::SeqCst);
        }
    }
    told
}

/// Sends a command until its outcome is known; `None` = rejected, which it may only be when its customer is perhaps not registered yet.
async fn insist(http: &reqwest::Client, shared: &Shared, command: Uuid, order: &Order) -> Option<Told> {
    loop {
        let sent = http
            .post(format!("{}/api/{}", shared.url(), order.stream))
            .header("Idempotency-Key", command.to_string())
            .header("Content-Type", "application/json")
            .body(order.body.to_string())
            .send()
            .await;
        let answer = match sent {
            Ok(answer) => {
                let status = answer.status().as_u16();
                answer.json::<Value>().await.map(|body| (status, body))
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok((200 | 201, ack)) => return Some(Told::of(&ack)),
            Ok((422, _)) if order.may_be_early => return None,
            Ok((503, _)) => shared.refused.fetch_add(1, Ordering::SeqCst),
            Ok((507, _)) => {
                shared.no_room.fetch_add(1, Ordering::SeqCst);
                shared.refused.fetch_add(1, Ordering::SeqCst)
            }
            Ok((status, other)) => panic!("{status}: {other}"),
            Err(_) => shared.broken.fetch_add(1, Ordering::SeqCst),
        };
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Every ack stands in the log exactly once, where and as it was told, and nothing was applied that nobody was told. What the log holds.
pub async fn every_ack_stands_in_the_log_once(log: &dyn EventLog, told: &HashMap<Uuid, Told>) -> Audit {
    let shards = log.open().await.expect("the log opens");
    let mut applied: HashMap<Uuid, Told> = HashMap::new();
    let mut total = Audit::default();
    for shard in 0..shards {
        let found = audit(log, shard, |commit| {
            let last = commit.events.last().expect("a commit has events");
            let ack = Told {
                kind: last.stream.kind,
                position: last.position,
                events: u64::from(last.commit_size),
                version: last.sequence,
            };
            let before = applied.insert(last.command_id, ack);
            assert_eq!(before, None, "command {} stands twice", last.command_id);
        });
        let found = found.await.expect("the log can be read");
        assert_eq!(found.faults, Vec::<String>::new(), "shard {shard}");
        total.events += found.events;
        total.claims += found.claims;
        total.void += found.void;
    }
    let (events, claims, void) = (total.events, total.claims, total.void);
    println!("the log: {events} events, {claims} claims, {void} void records");
    // Each command changes something: "already so" would be as wrong as another place.
    let differs = |(command, ack): &(&Uuid, &Told)| applied.get(*command) != Some(ack);
    let lost: Vec<_> = told.iter().filter(differs).take(5).collect();
    assert!(
        lost.is_empty(),
        "acks that do not stand in the log as they were told: {lost:?}"
    );
    let untold = applied.keys().filter(|command| !told.contains_key(*command)).count();
    assert_eq!(
        untold, 0,
        "clients insist until they are told; so nothing was applied that nobody was told"
    );
    total
}

/// Waits until the node says that no read model lags.
pub async fn until_lag_drains(node: &Crm) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status: Value = match reqwest::get(node.url("/api/status")).await {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(_) => Value::Null,
        };
        let groups = status["read_models"].as_array().cloned().unwrap_or_default();
        if status["ok"] == true && groups.len() == 4 && groups.iter().all(|group| group["lag"] == 0) {
            return;
        }
        assert!(Instant::now() < deadline, "the lag does not drain: {status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The tables that were kept through all of it have the checksums of tables that are folded anew.
pub fn read_models_equal_the_fold(env: &[(&str, &str)]) {
    run_well(&["project", "--once"], env);
    let kept = checksums(env);
    run_well(&["rebuild"], env);
    let folded = checksums(env);
    assert_eq!(kept, folded);
    assert!(kept.len() >= 20);
}

/// Read model, checksum, rows.
pub fn checksums(env: &[(&str, &str)]) -> Vec<(String, String, u64)> {
    // Not asked whether all is well: no process may serve the shards any more.
    let said = Crm::run(&["status", "--unread-max", "0", "--checksums", "--json"], env);
    let status: Value = serde_json::from_slice(&said.stdout).unwrap_or_else(|error| {
        panic!(
            "the status is no JSON: {error}: {}",
            String::from_utf8_lossy(&said.stderr)
        )
    });
    let rows = status["checksums"].as_array().expect("a list").iter();
    rows.map(|row| {
        let text = |name: &str| row[name].as_str().expect("a text").to_owned();
        (
            text("read_model"),
            text("checksum"),
            row["rows"].as_u64().expect("a count"),
        )
    })
    .collect()
}

/// Runs `crm` to its end, which must be a good one; what it wrote to standard output.
pub fn run_well(args: &[&str], env: &[(&str, &str)]) -> String {
    let output = Crm::run(args, env);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "crm {args:?}: {errors}");
    String::from_utf8(output.stdout).expect("the output is UTF-8")
}
