//! Several processes share one log: any of them answers any command, whoever dies or sleeps, and whoever comes or goes.
//!
//! `CRM_NODES_SECONDS=600 scripts/test --test nodes` goes on for longer than the minute of every run; `CRM_NODES_SEED` repeats the
//! choices of a run, though not its timing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use infra::log::kafka::KafkaLog;
use serde_json::Value;
use services::log::{EventLog, audit};
use tests::proxy::{Line, Proxy};
use tests::traffic::{
    Traffic, every_ack_stands_in_the_log_once, read_models_equal_the_fold, run_well, until_lag_drains,
};
use tests::{Broker, Crm, Database, Dice, free_port};

const NODES: usize = 3;
const CLIENTS: u64 = 24;
const SECONDS_DEFAULT: u64 = 60;
const SERVE: &[&str] = &["serve", "--session-timeout", "1"];
const SHARDS: &str = "6";
const PROJECTORS: usize = 3;
const PROJECT: &[&str] = &["project", "--session-timeout", "1"];
/// How often one of them is killed or paused.
const PROJECTOR_FAULTS: usize = 12;
/// Shards of the four groups of read models.
const FOLDED: usize = 4 * 6;
/// Of connections between the nodes.
const CUTS: usize = 15;
/// A shard that moves makes its commands wait for no longer. Of it one second is the session of a node, and as long may pass until the
/// others hear of its end.
const MOVE_MAX: Duration = Duration::from_secs(15);

/// Three processes on one broker.
struct Cluster {
    broker: Broker,
    topic: String,
    log_url: String,
    views: Database,
    nodes: Vec<Crm>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    fn start(topic: &str) -> Cluster {
        let mut cluster = Cluster::without_nodes(topic);
        cluster.nodes = (0..NODES).map(|_| Crm::start(SERVE, &cluster.env())).collect();
        cluster
    }

    fn without_nodes(topic: &str) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path());
        let log_url = format!("kafka://{}/{topic}", broker.address());
        let views = Database::create();
        let cluster = Cluster {
            broker,
            topic: topic.to_owned(),
            log_url,
            views,
            nodes: vec![],
            _dir: dir,
        };
        run_well(&["init", "--shards", SHARDS], &cluster.env());
        cluster
    }

    fn env(&self) -> [(&str, &str); 2] {
        [("CRM_LOG", &self.log_url), ("CRM_VIEWS", self.views.url())]
    }

    fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url("")).collect()
    }

    fn log(&self) -> KafkaLog {
        KafkaLog::new(&self.broker.address(), &self.topic, BTreeMap::new())
    }

    /// How many shards each node says it owns.
    async fn owned(&self) -> Vec<usize> {
        let owned = |status: &Value| {
            let shards = status["shards"].as_array().unwrap();
            shards.iter().filter(|shard| shard["owned"] == true).count()
        };
        self.statuses().await.iter().map(owned).collect()
    }

    /// What each node says of itself.
    async fn statuses(&self) -> Vec<Value> {
        let mut statuses = Vec::new();
        for node in &self.nodes {
            let answer = reqwest::get(node.url("/api/status")).await.unwrap();
            statuses.push(answer.json().await.unwrap());
        }
        statuses
    }

    /// Node, group, shard → events that it has folded.
    async fn folded(&self) -> BTreeMap<(usize, String, u64), u64> {
        let mut folded = BTreeMap::new();
        for (at, status) in self.statuses().await.into_iter().enumerate() {
            for group in status["read_models"].as_array().unwrap() {
                for shard in group["shards"].as_array().unwrap() {
                    let place = (at, group["group"].to_string(), shard["shard"].as_u64().unwrap());
                    folded.insert(place, shard["events"].as_u64().unwrap_or(0));
                }
            }
        }
        folded
    }

    /// How often a shard was claimed.
    async fn claims(&self) -> u64 {
        let log = self.log();
        let mut claims = 0;
        for shard in 0..log.open().await.unwrap() {
            claims += audit(&log, shard, |_| {}).await.unwrap().claims;
        }
        claims
    }

    /// Every node has as many of the six shards as the others, sooner or later.
    async fn until_spread(&self, when: &str) {
        let shards: usize = SHARDS.parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let owned = self.owned().await;
            if owned.iter().all(|owned| *owned == shards / self.nodes.len()) {
                return;
            }
            assert!(Instant::now() < deadline, "{when} the nodes own {owned:?} shards");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a whole number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_lose_and_double_nothing_while_they_are_killed_and_paused() {
    let seconds = setting("CRM_NODES_SECONDS", SECONDS_DEFAULT);
    let seed = setting("CRM_NODES_SEED", u64::from(std::process::id()));
    let mut dice = Dice::seeded(seed);
    let mut cluster = Cluster::start("crm.nodes");
    cluster.until_spread("after the start").await;
    let traffic = Traffic::start("nodes", CLIENTS, cluster.urls());
    traffic.more_acks(200, "the start").await;
    let claims_before = cluster.claims().await;
    let (started, mut kills, mut pauses) = (Instant::now(), 0, 0);
    while started.elapsed() < Duration::from_secs(seconds) || kills == 0 || pauses == 0 {
        let at = dice.below(NODES);
        if dice.below(2) == 0 {
            kills += 1;
            cluster.nodes[at].kill();
            tokio::time::sleep(Duration::from_millis(dice.below(3_000) as u64)).await;
            cluster.nodes[at] = Crm::start(SERVE, &cluster.env());
            traffic.go_to(cluster.urls());
        } else {
            pauses += 1;
            cluster.nodes[at].pause();
            tokio::time::sleep(Duration::from_millis(dice.below(4_000) as u64)).await;
            cluster.nodes[at].resume();
        }
        traffic
            .more_acks(50, &format!("seed {seed}: kill {kills}, pause {pauses}"))
            .await;
    }
    // Left alone they share the work again.
    cluster.until_spread("when nothing goes wrong any more").await;
    traffic.more_acks(200, "the end of all faults").await;
    // What a dead node had is served, and folded, by the others: nobody starts it again.
    let mut dead = cluster.nodes.remove(dice.below(NODES));
    traffic.go_to(cluster.urls());
    dead.kill();
    cluster.until_spread("after a death").await;
    traffic.more_acks(200, "a death").await;
    let counts = traffic.counts();
    let told = traffic.end().await;
    for node in &cluster.nodes {
        until_lag_drains(node).await;
    }
    println!(
        "{NODES} nodes under {kills} kills and {pauses} pauses in {:?} (seed {seed}): {counts}",
        started.elapsed()
    );
    let found = every_ack_stands_in_the_log_once(&cluster.log(), &told).await;
    // It had two shards, and each came to a new owner.
    assert!(
        found.claims >= claims_before + 2,
        "{} claims, {claims_before} before",
        found.claims
    );
    for node in &mut cluster.nodes {
        assert_eq!(node.terminate(), 0, "a node ends well: {}", node.log_text());
    }
    read_models_equal_the_fold(&cluster.env());
}

/// Two commands of three go to the owner through a node that is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network_between_nodes_loses_and_doubles_nothing() {
    let mut cluster = Cluster::without_nodes("crm.between");
    let mut proxies = vec![];
    for _ in 0..NODES {
        let port = free_port();
        let advertised = format!("127.0.0.1:{port}");
        let arguments = [SERVE, &["--advertise", &advertised]].concat();
        let node = Crm::start(&arguments, &cluster.env());
        proxies.push(Proxy::start_on(port, &node.address()).await);
        cluster.nodes.push(node);
    }
    cluster.until_spread("after the start").await;
    let traffic = Traffic::start("between", CLIENTS, cluster.urls());
    traffic.more_acks(300, "the start").await;
    for proxy in &proxies {
        proxy.set(Line::Slow(Duration::from_millis(40)));
        traffic.more_acks(200, "the way to a node became slow").await;
        proxy.set(Line::Good);
    }
    for cut in 0..CUTS {
        let proxy = &proxies[cut % NODES];
        proxy.cut(500 + 3_571 * (cut as i64 % 5) + 97 * cut as i64).await;
        traffic.more_acks(100, &format!("cut {cut}")).await;
    }
    for proxy in &proxies {
        proxy.set(Line::HalfOpen);
        tokio::time::sleep(Duration::from_secs(5)).await;
        proxy.set(Line::Good);
        traffic.more_acks(200, "the way to a node swallowed everything").await;
    }
    let counts = traffic.counts();
    let told = traffic.end().await;
    println!("{NODES} nodes over {CUTS} cuts between them: {counts}");
    every_ack_stands_in_the_log_once(&cluster.log(), &told).await;
    for node in &mut cluster.nodes {
        assert_eq!(node.terminate(), 0, "a node ends well: {}", node.log_text());
    }
    read_models_equal_the_fold(&cluster.env());
}

/// It is down for longer than one attempt at another node takes. Commands wait, wherever they were sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_started_again_makes_commands_wait_on_every_node() {
    let mut cluster = Cluster::without_nodes("crm.broker");
    // However long the broker takes to start on a busy machine.
    let patient = [SERVE, &["--command-timeout", "90"]].concat();
    cluster.nodes = (0..NODES).map(|_| Crm::start(&patient, &cluster.env())).collect();
    cluster.until_spread("after the start").await;
    let traffic = Traffic::start("broker", CLIENTS, cluster.urls());
    traffic.more_acks(300, "the start").await;
    cluster.broker.kill();
    tokio::time::sleep(Duration::from_secs(4)).await;
    cluster.broker.restart();
    traffic.more_acks(300, "the restart of the broker").await;
    let counts = traffic.counts();
    let told = traffic.end().await;
    println!("a restart of the broker: {counts}");
    assert_eq!(counts.refused, 0, "who waits for the broker is not refused");
    every_ack_stands_in_the_log_once(&cluster.log(), &told).await;
    for node in &cluster.nodes {
        until_lag_drains(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_refuses_no_command() {
    let mut cluster = Cluster::start("crm.rolling");
    cluster.until_spread("after the start").await;
    let traffic = Traffic::start("rolling", CLIENTS, cluster.urls());
    traffic.more_acks(300, "the start").await;
    for at in 0..NODES {
        // As a load balancer does: the node gets nothing new from here on, and is stopped.
        let others = (0..NODES).filter(|other| *other != at);
        traffic.go_to(others.map(|other| cluster.nodes[other].url("")).collect());
        assert_eq!(cluster.nodes[at].terminate(), 0, "{}", cluster.nodes[at].log_text());
        traffic.more_acks(200, &format!("the end of node {at}")).await;
        cluster.nodes[at] = Crm::start(SERVE, &cluster.env());
        traffic.go_to(cluster.urls());
        cluster.until_spread(&format!("after the restart of node {at}")).await;
        traffic.more_acks(200, &format!("the restart of node {at}")).await;
    }
    let counts = traffic.counts();
    let told = traffic.end().await;
    println!("a rolling restart: {counts}");
    assert_eq!(
        (counts.refused, counts.broken),
        (0, 0),
        "a shard that moves makes its commands wait, and refuses none"
    );
    assert!(counts.longest < MOVE_MAX, "a command waited for {:?}", counts.longest);
    every_ack_stands_in_the_log_once(&cluster.log(), &told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_the_folding_of_events_into_read_models() {
    let cluster = Cluster::start("crm.folding");
    cluster.until_spread("after the start").await;
    let traffic = Traffic::start("folding", CLIENTS, cluster.urls());
    // While the nodes find each other a shard may still change hands.
    traffic.more_acks(500, "the start").await;
    run_well(&["project", "--once"], &cluster.env());
    let before = cluster.folded().await;
    traffic.more_acks(500, "some more").await;
    let told = traffic.end().await;
    run_well(&["project", "--once"], &cluster.env());
    let mut folded_by: BTreeMap<(String, u64), Vec<usize>> = BTreeMap::new();
    for ((at, group, shard), events) in cluster.folded().await {
        if events > before.get(&(at, group.clone(), shard)).copied().unwrap_or(0) {
            folded_by.entry((group, shard)).or_default().push(at);
        }
    }
    let shared = folded_by.values().filter(|nodes| nodes.len() > 1).count();
    assert_eq!(shared, 0, "each shard of a group was folded by one node: {folded_by:?}");
    let mut nodes: Vec<usize> = folded_by.into_values().flatten().collect();
    nodes.sort_unstable();
    nodes.dedup();
    assert_eq!(nodes, [0, 1, 2], "every node had its share");
    assert!(told.len() >= 1_000);
}

/// Processes that only fold. Where one dies or sleeps the others go on, and one that wakes beside its successor folds nothing twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projectors_share_the_shards_and_take_over_from_each_other() {
    let seed = setting("CRM_NODES_SEED", u64::from(std::process::id()));
    let mut dice = Dice::seeded(seed);
    let mut cluster = Cluster::without_nodes("crm.projectors");
    let mut projectors: Vec<Crm> = (0..PROJECTORS)
        .map(|_| Crm::start_worker(PROJECT, &cluster.env()))
        .collect();
    // It is ready when there are read models, and these are the projectors'.
    cluster.nodes = vec![Crm::start(&[SERVE, &["--no-projections"]].concat(), &cluster.env())];
    until_shared(&projectors, "after the start").await;
    let traffic = Traffic::start("projectors", CLIENTS, cluster.urls());
    let (mut kills, mut pauses) = (0, 0);
    for _ in 0..PROJECTOR_FAULTS {
        traffic.more_acks(100, "the start").await;
        let at = dice.below(PROJECTORS);
        if kills <= pauses {
            kills += 1;
            projectors[at].kill();
            tokio::time::sleep(Duration::from_millis(dice.below(2_000) as u64)).await;
            projectors[at] = Crm::start_worker(PROJECT, &cluster.env());
        } else {
            pauses += 1;
            projectors[at].pause();
            // Longer than the session, most of them: its shards are another's when it wakes.
            tokio::time::sleep(Duration::from_millis(dice.below(4_000) as u64)).await;
            projectors[at].resume();
        }
    }
    until_shared(&projectors, "when nothing goes wrong any more").await;
    let mut dead = projectors.remove(dice.below(PROJECTORS));
    dead.kill();
    until_shared(&projectors, "after a death").await;
    traffic.more_acks(200, "a death").await;
    let counts = traffic.counts();
    let told = traffic.end().await;
    until_all_is_folded(&cluster.env()).await;
    println!("{PROJECTORS} projectors under {kills} kills and {pauses} pauses (seed {seed}): {counts}");
    for projector in &mut projectors {
        assert_eq!(projector.terminate(), 0, "it ends well: {}", projector.log_text());
    }
    every_ack_stands_in_the_log_once(&cluster.log(), &told).await;
    read_models_equal_the_fold(&cluster.env());
}

/// Every shard of every group is folded by one of them, and each has some.
async fn until_shared(projectors: &[Crm], when: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let had: Vec<BTreeSet<String>> = projectors.iter().map(assigned).collect();
        let counts: Vec<usize> = had.iter().map(BTreeSet::len).collect();
        let all: BTreeSet<String> = had.into_iter().flatten().collect();
        if all.len() == FOLDED && counts.iter().sum::<usize>() == FOLDED && !counts.contains(&0) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{when} the projectors have {counts:?} shards, {} different ones",
            all.len()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The shards that the group has given to this projector, by its log.
fn assigned(projector: &Crm) -> BTreeSet<String> {
    let places = |line: &str, name: &str| -> Option<BTreeSet<String>> {
        let (_, rest) = line.split_once(name)?;
        let (places, _) = rest.split_once(']')?;
        let each = places.split(')').map(|place| place.trim_matches([',', ' ', '(']));
        Some(each.filter(|place| !place.is_empty()).map(str::to_owned).collect())
    };
    projector.log_text().lines().fold(BTreeSet::new(), |had, line| {
        if let Some(assigned) = places(line, " assigned=[") {
            return assigned;
        }
        match places(line, " revoked=[") {
            Some(revoked) => &had - &revoked,
            None => had,
        }
    })
}

/// Waits until no group lags, as `crm status` says.
async fn until_all_is_folded(env: &[(&str, &str)]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let said = Crm::run(&["status", "--unread-max", "1", "--json"], env).stdout;
        let status: Value = serde_json::from_slice(&said).unwrap();
        let groups = status["groups"].as_array().unwrap();
        if groups.len() == 4 && groups.iter().all(|group| group["lag"] == 0) {
            return;
        }
        assert!(Instant::now() < deadline, "the lag does not drain: {status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
