//! Processes die: `crm serve`, the broker and PostgreSQL are killed, writers are paused while others take over, under clients that
//! retry with the same id. Then: every acked command stands in the log exactly once, nothing was applied twice, and the read models
//! equal the fold of the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use domain::{Position, derived_id};
use infra::log::kafka::KafkaLog;
use serde_json::{Value, json};
use services::log::{Audit, EventLog, audit};
use tests::{Broker, Crm, Server};
use uuid::Uuid;

const CLIENTS: u64 = 64;
const SERVER_KILLS: usize = 25;
const BROKER_KILLS: usize = 5;
const POSTGRES_KILLS: usize = 5;
const PAUSES: usize = 5;
/// Acks between two faults at least.
const ACKS_BETWEEN: u64 = 1_000;
/// How long it may take until they have come.
const PATIENCE: Duration = Duration::from_secs(120);
const TOPIC: &str = "crm.faults";

/// What all clients share.
struct World {
    /// Where commands go now.
    url: RwLock<String>,
    acks: AtomicU64,
    /// Answers 503 and broken connections, after which a client tried again.
    retries: AtomicU64,
    stop: AtomicBool,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    position: Position,
    events: u64,
    version: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acked_command_is_lost_or_applied_twice_whatever_dies() {
    let (broker_dir, postgres_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut broker = Broker::start(broker_dir.path());
    let mut postgres = Server::start(postgres_dir.path());
    let log_url = format!("kafka://{}/{TOPIC}", broker.address());
    let views_url = postgres.url();
    let env = [("CRM_LOG", log_url.as_str()), ("CRM_VIEWS", views_url.as_str())];
    run_well(&["init", "--shards", "4"], &env);

    let mut server = Crm::start(&["serve"], &env);
    let world = Arc::new(World {
        url: RwLock::new(server.url("")),
        acks: AtomicU64::new(0),
        retries: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(run_client(client, Arc::clone(&world))))
        .collect();
    let started = Instant::now();

    more_acks(&world, "the start").await;
    for n in 0..SERVER_KILLS {
        server.kill();
        server = Crm::start(&["serve"], &env);
        world.go_to(&server);
        more_acks(&world, &format!("kill {n} of the server")).await;
    }
    for n in 0..BROKER_KILLS {
        broker.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        broker.restart();
        more_acks(&world, &format!("kill {n} of the broker")).await;
    }
    for n in 0..POSTGRES_KILLS {
        postgres.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        postgres.restart();
        more_acks(&world, &format!("kill {n} of PostgreSQL")).await;
    }
    for n in 0..PAUSES {
        // A paused writer wakes up after another has taken over: it must not ack a single command more.
        server.pause();
        let other = Crm::start(&["serve"], &env);
        let paused_url = world.go_to(&other);
        more_acks(&world, &format!("pause {n}, while the first is paused")).await;
        server.resume();
        refuses(&paused_url, n).await;
        more_acks(&world, &format!("pause {n}, after the first woke up")).await;
        server.kill();
        server = other;
    }
    world.stop.store(true, Ordering::SeqCst);
    let mut told: HashMap<Uuid, Told> = HashMap::new();
    for client in clients {
        told.extend(client.await.unwrap());
    }
    println!(
        "{} acks under {} kills of the server, {} of the broker, {} of PostgreSQL and {} paused writers, in {:?}; {} retries",
        told.len(),
        SERVER_KILLS,
        BROKER_KILLS,
        POSTGRES_KILLS,
        PAUSES,
        started.elapsed(),
        world.retries.load(Ordering::SeqCst),
    );
    assert!(told.len() as u64 >= ACKS_BETWEEN * (SERVER_KILLS + BROKER_KILLS + POSTGRES_KILLS + 2 * PAUSES) as u64);
    assert_eq!(
        server.terminate(),
        0,
        "the server ends well when it is asked to: {}",
        server.log_text()
    );

    every_ack_stands_in_the_log_once(&broker, &told).await;
    read_models_equal_the_fold(&env);
}

impl World {
    /// Sends clients to this server from now on; answers where they went before.
    fn go_to(&self, server: &Crm) -> String {
        std::mem::replace(&mut self.url.write().unwrap(), server.url(""))
    }
}

/// Owns five customers of its own and one that all clients share. Each command changes something, so each ack means one event.
async fn run_client(client: u64, world: Arc<World>) -> HashMap<Uuid, Told> {
    let http = reqwest::Client::builder()
        .timeout(Duration::from_secs(35))
        .build()
        .unwrap();
    let mut told = HashMap::new();
    for n in 0_u64.. {
        if world.stop.load(Ordering::SeqCst) {
            break;
        }
        let (name, body) = match n {
            0..5 => (
                format!("{client}-{n}"),
                json!({"type": "register", "kind": "person", "name": format!("c{n}")}),
            ),
            5 if client == 0 => (
                "shared".into(),
                json!({"type": "register", "kind": "person", "name": "all"}),
            ),
            _ if n % 10 == 9 => (
                "shared".into(),
                json!({"type": "assign-owner", "owner": format!("{client}-{n}")}),
            ),
            _ => (
                format!("{client}-{}", n % 5),
                json!({"type": "assign-owner", "owner": format!("o{n}")}),
            ),
        };
        let id = derived_id(&["faults", &name]);
        #[allow(clippy::disallowed_methods)]
        let command = Uuid::now_v7();
        if let Some(ack) = insist(&http, &world, command, id, &body).await {
            told.insert(command, ack);
            world.acks.fetch_add(1, Ordering::SeqCst);
        }
    }
    told
}

/// Sends a command until its outcome is known; `None` = rejected (the shared customer is not registered yet).
async fn insist(http: &reqwest::Client, world: &World, command: Uuid, id: Uuid, body: &Value) -> Option<Told> {
    loop {
        let url = format!("{}/api/customer/{id}", world.url.read().unwrap());
        let sent = http
            .post(url)
            .header("Idempotency-Key", command.to_string())
            .header("Content-Type", "application/json")
            .body(body.to_string())
            .send()
            .await;
        if let Ok(answer) = sent {
            let status = answer.status().as_u16();
            match (status, answer.json::<Value>().await) {
                (200 | 201, Ok(ack)) => {
                    return Some(Told {
                        position: Position::parse(ack["position"].as_str().unwrap()).unwrap(),
                        events: ack["events"].as_u64().unwrap(),
                        version: ack["version"].as_u64().unwrap(),
                    });
                }
                (422, Ok(_)) => return None,
                (503 | 507, _) | (_, Err(_)) => {}
                (status, Ok(other)) => panic!("{status}: {other}"),
            }
        }
        world.retries.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn more_acks(world: &World, after: &str) {
    let goal = world.acks.load(Ordering::SeqCst) + ACKS_BETWEEN;
    let deadline = Instant::now() + PATIENCE;
    while world.acks.load(Ordering::SeqCst) < goal {
        assert!(
            Instant::now() < deadline,
            "after {after} the acks stopped at {}",
            world.acks.load(Ordering::SeqCst)
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The writer that was paused answers no command with an ack, whatever it remembers.
async fn refuses(url: &str, n: usize) {
    let http = reqwest::Client::builder()
        .timeout(Duration::from_secs(35))
        .build()
        .unwrap();
    for (name, body) in [
        ("0-0", json!({"type": "register", "kind": "person", "name": "c0"})),
        ("0-1", json!({"type": "assign-owner", "owner": format!("zombie{n}")})),
    ] {
        let answer = http
            .post(format!("{url}/api/customer/{}", derived_id(&["faults", name])))
            .header("Content-Type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(
            answer.status().as_u16(),
            503,
            "a writer that lost its shards answered {}",
            answer.text().await.unwrap()
        );
    }
}

async fn every_ack_stands_in_the_log_once(broker: &Broker, told: &HashMap<Uuid, Told>) {
    let log = KafkaLog::new(&broker.address(), TOPIC, BTreeMap::new());
    let shards = log.open().await.unwrap();
    let mut applied: HashMap<Uuid, Told> = HashMap::new();
    let mut total = Audit::default();
    for shard in 0..shards {
        let found = audit(&log, shard, |commit| {
            let last = commit.events.last().unwrap();
            let (position, events) = (last.position, u64::from(last.commit_size));
            applied.insert(
                last.command_id,
                Told {
                    position,
                    events,
                    version: last.sequence,
                },
            );
        })
        .await
        .unwrap();
        assert_eq!(found.faults, Vec::<String>::new(), "shard {shard}");
        total.events += found.events;
        total.claims += found.claims;
        total.void += found.void;
    }
    println!(
        "the log: {} events, {} claims, {} void records",
        total.events, total.claims, total.void
    );
    let mut lost = Vec::new();
    for (command, ack) in told {
        if ack.events > 0 && applied.get(command) != Some(ack) {
            lost.push((command, ack, applied.get(command)));
        }
    }
    assert!(
        lost.is_empty(),
        "{} acks do not stand in the log as they were told: {:?}",
        lost.len(),
        &lost[..lost.len().min(5)]
    );
    let untold = applied.keys().filter(|command| !told.contains_key(*command)).count();
    assert_eq!(
        untold, 0,
        "clients insist until they are told; so nothing was applied that nobody was told"
    );
}

/// The tables that were kept through all of it have the checksums of tables that are folded anew.
fn read_models_equal_the_fold(env: &[(&str, &str)]) {
    run_well(&["project", "--once"], env);
    let kept = checksums(env);
    run_well(&["rebuild"], env);
    let folded = checksums(env);
    assert_eq!(kept, folded);
    assert!(kept.len() >= 20);
}

fn checksums(env: &[(&str, &str)]) -> Vec<(String, String, u64)> {
    let status: Value = serde_json::from_str(&run_well(&["status", "--checksums", "--json"], env)).unwrap();
    let rows = status["checksums"].as_array().unwrap().iter();
    rows.map(|row| {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        (text("read_model"), text("checksum"), row["rows"].as_u64().unwrap())
    })
    .collect()
}

fn run_well(args: &[&str], env: &[(&str, &str)]) -> String {
    let output = Crm::run(args, env);
    assert!(
        output.status.success(),
        "crm {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
