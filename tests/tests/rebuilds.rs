//! `crm rebuild`, again and again, beside nodes that fold the same tables and clients that send commands all the while: each rebuild goes
//! through, nobody notices, and the rows are those of tables that nobody rebuilt.
//!
//! `CRM_REBUILDS=30 scripts/test --test rebuilds` goes on for longer than the six of every run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use domain::purchase::purchase_id;
use domain::{StreamKind, StreamRef, derived_id};
use infra::log::kafka::KafkaLog;
use jiff::civil::{Date, date};
use serde_json::{Value, json};
use tests::traffic::{
    Order, Told, Traffic, checksums, customers, every_ack_stands_in_the_log_once, run_well, until_lag_drains,
};
use tests::{Crm, Database, shared_kafka, unique_topic};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// A rebuild and a node fold the same generation, so that one of them makes its keys while the other writes.
const NODES: usize = 2;
/// They write to the same tables at the same time.
const SHARDS: usize = 4;
const CLIENTS: u64 = 3;
const REBUILDS_DEFAULT: u64 = 6;
/// After so many rebuilds the read models are rolled back, and the next one begins from there.
const ROLLBACK_EVERY: u64 = 3;
/// Acks before the first rebuild: a history that takes longer to fold than a node takes to join in, which is a second.
const HISTORY: u64 = 1_500;
/// Between two rebuilds.
const ACKS_BETWEEN: u64 = 100;
/// A machine that is busy with other things is no reason to move shards.
const SERVE: &[&str] = &["serve", "--session-timeout", "10"];
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What a node says that is not ready for want of time.
const LATE: &str = "the read store did not answer in time";
const BUSINESS_DAY: Date = date(2026, 6, 30);

/// What a shop with a sales team has to say: receipts, all of one month and product, deals that are won, customers. Their sums are in tables
/// that are built without keys.
fn shop(name: &str, client: u64, n: u64) -> Order {
    let turn = n / 4;
    match n % 4 {
        0 => customers(name, client, turn),
        1 => deal(name, client, turn),
        _ => receipt(client, n),
    }
}

fn receipt(client: u64, n: u64) -> Order {
    let number = format!("{client}-{n}");
    let id = purchase_id("till", Some("taipei"), None, BUSINESS_DAY, &number).uuid();
    let body = json!({
        "type": "record", "kind": "sale", "source": "till", "store": "taipei", "receipt": number,
        "business_date": BUSINESS_DAY, "currency": "TWD",
        "lines": [{"sku": "TEA", "quantity": "1", "unit_price": "10"}],
    });
    of(StreamKind::Purchase, id, body)
}

/// Opened in one turn, won in the next.
fn deal(name: &str, client: u64, turn: u64) -> Order {
    let number = turn / 2;
    let id = derived_id(&["deal", name, &format!("{client}-{number}")]);
    let body = match turn % 2 {
        0 => json!({
            "type": "open", "customer": customers(name, client, number % 5).stream.id, "name": "茶", "owner": "mei",
            "amount": {"minor": 1_000, "currency": "TWD"}, "close_date": BUSINESS_DAY,
        }),
        _ => json!({"type": "win"}),
    };
    of(StreamKind::Opportunity, id, body)
}

fn of(kind: StreamKind, id: Uuid, body: Value) -> Order {
    Order {
        stream: StreamRef { kind, id },
        body,
        may_be_early: false,
    }
}

/// Asks a node all the while whether it is ready, and keeps what it says.
struct Watch {
    over: Arc<AtomicBool>,
    seen: JoinHandle<Seen>,
}

#[derive(Debug, Default, PartialEq)]
struct Seen {
    looks: u64,
    /// The store took longer to answer than the node waits: so it may be on a machine that has too much to do.
    late: u64,
    not_ready: Vec<String>,
}

impl Watch {
    fn over(node: &Crm) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        let (is_over, url) = (Arc::clone(&over), node.url("/health/ready"));
        let seen = tokio::spawn(async move {
            let mut seen = Seen::default();
            while !is_over.load(Ordering::SeqCst) {
                seen.looks += 1;
                match reqwest::get(&url).await {
                    Ok(answer) if answer.status().is_success() => {}
                    Ok(answer) => match answer.text().await {
                        Ok(said) if said.contains(&format!("\"reasons\":[\"{LATE}\"]")) => seen.late += 1,
                        Ok(said) => seen.not_ready.push(said),
                        Err(error) => seen.not_ready.push(error.to_string()),
                    },
                    Err(error) => seen.not_ready.push(error.to_string()),
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            seen
        });
        Watch { over, seen }
    }

    async fn end(self) -> Seen {
        self.over.store(true, Ordering::SeqCst);
        self.seen.await.expect("the watch ends well")
    }
}

/// Each node has shards of its own, and each shard has a node.
async fn until_all_is_served(nodes: &[Crm]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut owned = vec![];
        for node in nodes {
            let answer = reqwest::get(node.url("/api/status")).await.unwrap();
            let status: Value = answer.json().await.unwrap();
            let shards = status["shards"].as_array().unwrap().iter();
            owned.push(shards.filter(|shard| shard["owned"] == true).count());
        }
        if owned.iter().sum::<usize>() == SHARDS && !owned.contains(&0) {
            return;
        }
        assert!(Instant::now() < deadline, "the nodes own {owned:?} shards");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Runs `crm` to its end on a thread of its own, which must be a good one without an error on the way. How long it took.
async fn runs_well(args: &'static [&'static str], env: &[(&str, &str)], which: &str) -> Duration {
    let env: Vec<(String, String)> = env
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    let begun = Instant::now();
    let run = tokio::task::spawn_blocking(move || {
        let env: Vec<(&str, &str)> = env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        Crm::run(args, &env)
    });
    let output = run.await.expect("crm runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{which}, crm {args:?}: {said}");
    assert_eq!(errors(&said), Vec::<&str>::new(), "{which}, crm {args:?}");
    begun.elapsed()
}

fn errors(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("ERROR")).collect()
}

/// The generation of each group that answers questions.
fn live(env: &[(&str, &str)]) -> Vec<i64> {
    let said = Crm::run(&["status", "--json"], env).stdout;
    let status: Value = serde_json::from_slice(&said).expect("the status is JSON");
    let groups = status["groups"].as_array().expect("a list").iter();
    groups
        .map(|group| group["generation"].as_i64().expect("one is live"))
        .collect()
}

/// Every acked receipt has its row once, and is counted once.
fn every_receipt_is_there_once(told: &HashMap<Uuid, Told>, env: &[(&str, &str)]) {
    let acks = |kind: StreamKind| told.values().filter(|ack| ack.kind == kind).count();
    let receipts = acks(StreamKind::Purchase);
    let rows = run_well(&["query", "purchases", "--format", "csv", "--columns", "purchase"], env);
    let rows: Vec<&str> = rows.lines().skip(1).collect();
    let different: HashSet<&str> = rows.iter().copied().collect();
    assert_eq!((rows.len(), different.len()), (receipts, receipts));
    let said = run_well(&["query", "sales_by_month", "--format", "json"], env);
    let months: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(months[0]["receipts"], receipts, "{months}");
    let (deals, customers) = (acks(StreamKind::Opportunity), acks(StreamKind::Customer));
    println!("{receipts} receipts, {deals} commands of deals and {customers} of customers are in the read models once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebuilds_beside_running_nodes_go_through_and_come_to_the_same_rows() {
    let rebuilds = std::env::var("CRM_REBUILDS").map_or(REBUILDS_DEFAULT, |count| count.parse().expect("a number"));
    let (kafka, topic) = (shared_kafka(), unique_topic("rebuilds"));
    let log_url = format!("kafka://{kafka}/{topic}");
    let views = Database::create();
    let env = [("CRM_LOG", log_url.as_str()), ("CRM_VIEWS", views.url())];
    run_well(&["init", "--shards", &SHARDS.to_string()], &env);
    let mut nodes: Vec<Crm> = (0..NODES).map(|_| Crm::start(SERVE, &env)).collect();
    until_all_is_served(&nodes).await;
    let watches: Vec<Watch> = nodes.iter().map(Watch::over).collect();
    let traffic = Traffic::of(
        shop,
        "rebuilds",
        CLIENTS,
        nodes.iter().map(|node| node.url("")).collect(),
    );
    traffic.more_acks(HISTORY, "the start").await;

    // A first start may find that a topic was made a moment ago.
    let before: Vec<usize> = nodes.iter().map(|node| node.log_text().len()).collect();
    let mut rolled_back = vec![];
    for rebuild in 1..=rebuilds {
        let acks = traffic.counts().acks;
        let took = runs_well(&["rebuild"], &env, &format!("rebuild {rebuild}")).await;
        let acks = traffic.counts().acks - acks;
        println!("rebuild {rebuild} took {took:.1?}, and {acks} commands were acked beside it");
        if rebuild % ROLLBACK_EVERY == 0 {
            let which = format!("the rollback after rebuild {rebuild}");
            runs_well(&["rebuild", "--rollback"], &env, &which).await;
            rolled_back.push((which, live(&env)));
        }
        traffic.more_acks(ACKS_BETWEEN, &format!("rebuild {rebuild}")).await;
        if let Some((which, was_live)) = rolled_back.last().filter(|_| rebuild % ROLLBACK_EVERY == 0) {
            assert_eq!(live(&env), *was_live, "{which} stands");
        }
    }

    let counts = traffic.counts();
    let told = traffic.end().await;
    for node in &nodes {
        until_lag_drains(node).await;
    }
    println!(
        "{rebuilds} rebuilds and {} rollbacks beside {NODES} nodes: {counts}",
        rolled_back.len()
    );
    for watch in watches {
        let seen = watch.end().await;
        println!(
            "a node was asked {} times whether it is ready, and could not say {} times",
            seen.looks, seen.late
        );
        assert_eq!(seen.not_ready, Vec::<String>::new(), "it was ready all the while");
    }
    for (node, from) in nodes.iter().zip(before) {
        assert_eq!(errors(&node.log_text()[from..]), Vec::<&str>::new());
    }

    let log = KafkaLog::new(&kafka, &topic, BTreeMap::new());
    every_ack_stands_in_the_log_once(&log, &told).await;
    let elsewhere = Database::create();
    let env_elsewhere = [("CRM_LOG", log_url.as_str()), ("CRM_VIEWS", elsewhere.url())];
    run_well(&["project", "--once"], &env_elsewhere);
    let folded = checksums(&env_elsewhere);
    assert_eq!(checksums(&env), folded);
    every_receipt_is_there_once(&told, &env);
    // The generation before, which the nodes have gone on folding.
    runs_well(&["rebuild", "--rollback"], &env, "the last rollback").await;
    assert_eq!(checksums(&env), folded);

    for node in &mut nodes {
        assert_eq!(node.terminate(), 0, "a node ends well: {}", node.log_text());
    }
}
