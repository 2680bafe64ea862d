//! A restart reads what was not stored yet, however long the history is: real processes on a real broker and a real PostgreSQL.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use domain::derived_id;
use infra::log::kafka::KafkaLog;
use serde_json::{Value, json};
use services::log::{EventLog, audit};
use tests::traffic::{Traffic, run_well};
use tests::{Crm, Database, shared_kafka, unique_topic};

/// Events of the long history; `CRM_RESTART_EVENTS` says otherwise.
const LONG: u64 = 100_000;
/// The short one has so many times fewer.
const SHARE: u64 = 100;
const IMPORTED_AT_ONCE: usize = 100_000;
const SHARDS: u64 = 2;
const CLIENTS: u64 = 16;
/// Acks before the process is killed, and after it was started again.
const ACKS: u64 = 300;
/// What a take-over reads of a shard besides what was not stored: its own claim, each time that it looks.
const READ_ANYHOW: u64 = 5;
const OWNED_WITHIN: Duration = Duration::from_secs(60);
const SERVE: &[&str] = &["serve", "--no-projections", "--session-timeout", "1"];

/// What two starts on one log came to.
struct Restarts {
    after_a_stop: Start,
    after_a_kill: Start,
    /// Events that may not have been stored when the process was killed.
    not_stored_max: u64,
}

/// From the start of a process until it has all shards.
struct Start {
    records_read: u64,
    first_ack: Duration,
}

impl Start {
    async fn of(node: &Crm, begun: Instant, traffic: &Traffic) -> Start {
        traffic.more_acks(1, "the start of a process").await;
        let first_ack = begun.elapsed();
        until_all_is_owned(node).await;
        Start {
            records_read: counter(node, "crm_takeover_records_read_total").await,
            first_ack,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_reads_what_was_not_stored_however_long_the_history_is() {
    let long = std::env::var("CRM_RESTART_EVENTS").map_or(LONG, |events| events.parse().expect("a number of events"));
    for events in [long / SHARE, long] {
        let restarts = restart_after(events).await;
        let (stop, kill) = (&restarts.after_a_stop, &restarts.after_a_kill);
        println!(
            "{events} events: after a stop {} records were read and the first ack came after {:?}; after a kill {} and {:?}",
            stop.records_read, stop.first_ack, kill.records_read, kill.first_ack,
        );
        let anyhow = SHARDS * READ_ANYHOW;
        assert!((SHARDS..=anyhow).contains(&stop.records_read), "{}", stop.records_read);
        // Once before the claim, and once up to it.
        let most = anyhow + 2 * restarts.not_stored_max;
        assert!((SHARDS..=most).contains(&kill.records_read), "{}", kill.records_read);
    }
}

async fn restart_after(history: u64) -> Restarts {
    let views = Database::create();
    let (broker, topic) = (shared_kafka(), unique_topic("restart"));
    let log_url = format!("kafka://{broker}/{topic}");
    let env = [("CRM_LOG", log_url.as_str()), ("CRM_VIEWS", views.url())];
    run_well(&["init", "--shards", &SHARDS.to_string()], &env);
    // It ends well, and has stored all states then.
    import(history, &env);

    let (begun, mut node) = (Instant::now(), Crm::start_unready(SERVE, &env));
    let traffic = Traffic::start("restart", CLIENTS, vec![node.url("")]);
    let after_a_stop = Start::of(&node, begun, &traffic).await;
    traffic.more_acks(ACKS, "the start").await;
    node.kill();
    let not_stored_max = traffic.counts().acks + CLIENTS;

    let (begun, mut node) = (Instant::now(), Crm::start_unready(SERVE, &env));
    traffic.go_to(vec![node.url("")]);
    let after_a_kill = Start::of(&node, begun, &traffic).await;
    traffic.more_acks(ACKS, "the kill").await;
    let told = traffic.end().await;
    assert_eq!(node.terminate(), 0, "{}", node.log_text());

    let log = KafkaLog::new(&broker, &topic, BTreeMap::new());
    let mut events = 0;
    for shard in 0..log.open().await.unwrap() {
        let found = audit(&log, shard, |_| {}).await.unwrap();
        assert_eq!(found.faults, Vec::<String>::new(), "shard {shard}");
        events += found.events;
    }
    assert_eq!(events, history + told.values().map(|ack| ack.events).sum::<u64>());
    Restarts {
        after_a_stop,
        after_a_kill,
        not_stored_max,
    }
}

/// Registers so many customers.
fn import(customers: u64, env: &[(&str, &str)]) {
    let numbers: Vec<u64> = (0..customers).collect();
    for (part, numbers) in numbers.chunks(IMPORTED_AT_ONCE).enumerate() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for n in numbers {
            let id = derived_id(&["a history before a restart", &n.to_string()]);
            let command = json!({"type": "register", "kind": "person", "name": format!("c{n}")});
            let line = json!({"stream": "customer", "id": id, "command": command});
            writeln!(file, "{line}").unwrap();
        }
        let path = file.path().to_str().unwrap();
        run_well(&["import", path, "--name", &format!("part {part}")], env);
    }
}

async fn until_all_is_owned(node: &Crm) {
    let deadline = Instant::now() + OWNED_WITHIN;
    loop {
        let answer = reqwest::get(node.url("/api/status")).await.unwrap();
        let status: Value = answer.json().await.unwrap();
        if status["shards"]
            .as_array()
            .unwrap()
            .iter()
            .all(|shard| shard["owned"] == true)
        {
            return;
        }
        assert!(Instant::now() < deadline, "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a metric says.
async fn counter(node: &Crm, name: &str) -> u64 {
    let metrics = reqwest::get(node.url("/metrics")).await.unwrap().text().await.unwrap();
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .unwrap_or_else(|| panic!("no {name} in {metrics}"))
        .parse()
        .unwrap()
}
