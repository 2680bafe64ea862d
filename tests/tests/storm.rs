//! Everything goes wrong at once, again and again: nodes, the broker and PostgreSQL are killed, stopped and paused at random, under clients
//! that retry with the same id at any node. When it is over, all is well again without help.
//!
//! `CRM_STORM_SECONDS=3600 scripts/test --test storm` goes on for longer than the minute of every run, and with longer pauses;
//! `CRM_STORM_SEED` repeats the choices of a run, though not its timing. `CRM_STORM_FREEZES=100` freezes the broker so often in a row.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use infra::log::kafka::KafkaLog;
use serde_json::Value;
use tests::traffic::{Traffic, every_ack_stands_in_the_log_once, read_models_equal_the_fold, run_well};
use tests::{Broker, Crm, Dice, Server};

const NODES: usize = 3;
const CLIENTS: u64 = 16;
const SHARDS: &str = "8";
const SERVE: &[&str] = &["serve", "--session-timeout", "1", "--command-timeout", "10"];
const SECONDS_DEFAULT: u64 = 60;
const FREEZES_DEFAULT: u64 = 3;
/// How long a broker stands still, in milliseconds: longer than its controller waits for it, and shorter than a client does.
const FREEZE_MS: (usize, usize) = (2_200, 5_000);
/// When the last fault is over, all is well so soon.
const WHOLE_MAX: Duration = Duration::from_secs(20);
/// A start on a busy machine.
const START_MAX: Duration = Duration::from_secs(120);

/// Three processes, and all that they stand on.
struct Installation {
    broker: Broker,
    postgres: Server,
    nodes: Vec<Crm>,
    log_url: String,
    topic: String,
    _dirs: [tempfile::TempDir; 2],
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    NodeKilled,
    NodeStopped,
    NodePaused,
    BrokerPaused,
    BrokerKilled,
    PostgresPaused,
    PostgresKilled,
}

const FAULTS: [Fault; 7] = [
    Fault::NodeKilled,
    Fault::NodeStopped,
    Fault::NodePaused,
    Fault::BrokerPaused,
    Fault::BrokerKilled,
    Fault::PostgresPaused,
    Fault::PostgresKilled,
];

impl Installation {
    async fn start(topic: &str) -> Installation {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let broker = Broker::start(dirs[0].path());
        let postgres = Server::start(dirs[1].path());
        let mut installation = Installation {
            log_url: format!("kafka://{}/{topic}", broker.address()),
            broker,
            postgres,
            nodes: vec![],
            topic: topic.to_owned(),
            _dirs: dirs,
        };
        installation.with_env(|env| run_well(&["init", "--shards", SHARDS], env));
        for _ in 0..NODES {
            let node = installation.with_env(|env| Crm::start(SERVE, env));
            installation.nodes.push(node);
        }
        installation.until_whole("the start").await;
        installation
    }

    fn with_env<T>(&self, work: impl FnOnce(&[(&str, &str)]) -> T) -> T {
        work(&[("CRM_LOG", &self.log_url), ("CRM_VIEWS", &self.postgres.url())])
    }

    fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url("")).collect()
    }

    /// Does it, as long as it lasts, and undoes it.
    async fn suffer(&mut self, fault: Fault, at: usize, lasts: Duration, traffic: &Traffic) {
        match fault {
            Fault::NodeKilled => self.nodes[at].kill(),
            Fault::NodeStopped => assert_eq!(self.nodes[at].terminate(), 0, "{}", self.nodes[at].log_text()),
            Fault::NodePaused => self.nodes[at].pause(),
            Fault::BrokerPaused => self.broker.pause(),
            Fault::BrokerKilled => self.broker.kill(),
            Fault::PostgresPaused => self.postgres.pause(),
            Fault::PostgresKilled => self.postgres.kill(),
        }
        tokio::time::sleep(lasts).await;
        match fault {
            Fault::NodeKilled | Fault::NodeStopped => self.start_again(at, traffic).await,
            Fault::NodePaused => self.nodes[at].resume(),
            Fault::BrokerPaused => self.broker.resume(),
            Fault::BrokerKilled => self.broker.restart(),
            Fault::PostgresPaused => self.postgres.resume(),
            Fault::PostgresKilled => self.postgres.restart(),
        }
    }

    /// Until it is ready; one that ends because it finds no log, or no store, is started again, as an init system does.
    async fn start_again(&mut self, at: usize, traffic: &Traffic) {
        self.nodes[at] = self.with_env(|env| Crm::start_unready(SERVE, env));
        traffic.go_to(self.urls());
        let deadline = Instant::now() + START_MAX;
        while !self.nodes[at].is_ready() {
            if self.nodes[at].ended().is_some() {
                self.nodes[at] = self.with_env(|env| Crm::start_unready(SERVE, env));
                traffic.go_to(self.urls());
            }
            assert!(
                Instant::now() < deadline,
                "it does not start: {}",
                self.nodes[at].log_text()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Until every node says that all is well, and each shard is served by one of them. How long it took.
    async fn until_whole(&self, after: &str) -> Duration {
        let begun = Instant::now();
        loop {
            let wrong = self.what_is_wrong().await;
            if wrong.is_empty() {
                return begun.elapsed();
            }
            assert!(
                begun.elapsed() < START_MAX,
                "{after}, after {:?}: {wrong:?}",
                begun.elapsed()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn what_is_wrong(&self) -> Vec<String> {
        let mut wrong = vec![];
        let mut owners: BTreeMap<u64, usize> = BTreeMap::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(status) = status_of(node).await else {
                wrong.push(format!("node {at} does not answer"));
                continue;
            };
            if status["ok"] != true {
                wrong.push(format!("node {at}: {}", status["trouble"]));
            }
            for shard in status["shards"].as_array().unwrap() {
                *owners.entry(shard["shard"].as_u64().unwrap()).or_default() += usize::from(shard["owned"] == true);
            }
        }
        let orphans = owners.iter().filter(|(_, owners)| **owners != 1);
        wrong.extend(orphans.map(|(shard, owners)| format!("shard {shard} has {owners} owners")));
        wrong
    }

    /// Until no read model lags.
    async fn until_folded(&self) {
        let deadline = Instant::now() + START_MAX;
        loop {
            let status = status_of(&self.nodes[0]).await.unwrap_or_default();
            let groups = status["read_models"].as_array().cloned().unwrap_or_default();
            if groups.len() == 4 && groups.iter().all(|group| group["lag"] == 0) {
                return;
            }
            assert!(Instant::now() < deadline, "the lag does not drain: {status}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn end(mut self, traffic: Traffic) {
        let told = traffic.end().await;
        self.until_folded().await;
        let log = KafkaLog::new(&self.broker.address(), &self.topic, BTreeMap::new());
        every_ack_stands_in_the_log_once(&log, &told).await;
        for node in &mut self.nodes {
            assert_eq!(node.terminate(), 0, "a node ends well: {}", node.log_text());
            let said = node.log_text();
            assert!(
                !said.contains("PartitionEOF") && !said.contains("Partition EOF"),
                "{said}"
            );
        }
        self.with_env(read_models_equal_the_fold);
    }
}

async fn status_of(node: &Crm) -> Option<Value> {
    let http = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    http.get(node.url("/api/status")).send().await.ok()?.json().await.ok()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a whole number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_all_is_well_without_help() {
    let seconds = setting("CRM_STORM_SECONDS", SECONDS_DEFAULT);
    let seed = setting("CRM_STORM_SEED", u64::from(std::process::id()));
    // A pause takes a sixth of the storm at most, so that there is time for others.
    let pause_max = (seconds / 6).clamp(3, 60) as usize;
    let mut dice = Dice::seeded(seed);
    let mut installation = Installation::start("crm.storm").await;
    let traffic = Traffic::start("storm", CLIENTS, installation.urls());
    traffic.more_acks(200, "the start").await;
    let started = Instant::now();
    let mut suffered: BTreeMap<String, usize> = BTreeMap::new();
    while started.elapsed() < Duration::from_secs(seconds) {
        let fault = FAULTS[dice.below(FAULTS.len())];
        let lasts = match fault {
            Fault::BrokerPaused | Fault::PostgresPaused => 2_000 + dice.below(1_000 * (pause_max - 2)),
            _ => dice.below(3_000),
        };
        println!("{:?}: {fault:?} for {lasts} ms", started.elapsed());
        let lasts = Duration::from_millis(lasts as u64);
        installation.suffer(fault, dice.below(NODES), lasts, &traffic).await;
        *suffered.entry(format!("{fault:?}")).or_default() += 1;
        // The next one comes before all is well again, more often than not.
        tokio::time::sleep(Duration::from_millis(dice.below(4_000) as u64)).await;
    }
    let over = Instant::now();
    installation.until_whole(&format!("seed {seed}: the storm")).await;
    traffic.more_acks(100, "the storm").await;
    let whole = over.elapsed();
    println!(
        "a storm of {seconds} s (seed {seed}), {suffered:?}; all was well after {whole:?}: {}",
        traffic.counts()
    );
    assert!(whole < WHOLE_MAX, "all was well only after {whole:?} (seed {seed})");
    installation.end(traffic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_freezes_again_and_again_leaves_no_node_stuck() {
    let freezes = setting("CRM_STORM_FREEZES", FREEZES_DEFAULT);
    let seed = setting("CRM_STORM_SEED", u64::from(std::process::id()));
    let mut dice = Dice::seeded(seed);
    let mut installation = Installation::start("crm.freezes").await;
    let traffic = Traffic::start("freezes", CLIENTS, installation.urls());
    traffic.more_acks(200, "the start").await;
    let mut longest = Duration::ZERO;
    for freeze in 0..freezes {
        let lasts = FREEZE_MS.0 + dice.below(FREEZE_MS.1 - FREEZE_MS.0);
        let lasts = Duration::from_millis(lasts as u64);
        installation.suffer(Fault::BrokerPaused, 0, lasts, &traffic).await;
        let took = installation.until_whole(&format!("seed {seed}: freeze {freeze}")).await;
        traffic.more_acks(100, &format!("freeze {freeze}")).await;
        println!("freeze {freeze} for {lasts:?}: all was well after {took:?}");
        longest = longest.max(took);
    }
    let logs: String = installation.nodes.iter().map(Crm::log_text).collect();
    let anew: Vec<&str> = logs.lines().filter(|line| line.contains("takes its seat")).collect();
    println!(
        "{freezes} freezes (seed {seed}), after the longest all was well in {longest:?}; seats taken anew: {anew:#?}; {}",
        traffic.counts()
    );
    installation.end(traffic).await;
}
