//! What the program stands on stops, slows down, lies, or goes: for a minute, on the wire, on the disk. Commands are durable or refused, and
//! when it is over everything comes back without help.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use infra::log::kafka::KafkaLog;
use infra::log::postgres::PostgresLog;
use infra::log::sqlite::SqliteLog;
use infra::membership::{Membership, Share, Work, words};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;
use services::log::EventLog;
use services::shard::Assignment;
use tests::proxy::{Line, Proxy};
use tests::traffic::{
    Told, Traffic, every_ack_stands_in_the_log_once, read_models_equal_the_fold, run_well, until_lag_drains,
};
use tests::{Broker, Crm, Database, FaultyDisk, Server, free_port};
use uuid::Uuid;

const CLIENTS: u64 = 16;
/// So that clients are told twice in a minute.
const IMPATIENT: &[&str] = &["serve", "--command-timeout", "20"];
/// How long a server stands still.
const STANDSTILL: Duration = Duration::from_secs(60);
const CUTS: u64 = 30;
/// A member that the group forgot has its shards again so soon: a session, and a few questions about the group. By
/// itself the client library waits for half a minute, and for five as it comes.
const SEAT_LOST_MAX: Duration = Duration::from_secs(20);
/// Streams that begin while the read store stands still.
const NEW_CUSTOMERS: u64 = 50;

fn report(what: &str, traffic: &Traffic) {
    println!("{what}: {}", traffic.counts());
}

/// The log stands still for a minute under clients. Nothing is acked in that time, and they are told; afterwards it goes on.
async fn the_log_stands_still(what: &str, traffic: &Traffic, mut stand_still: impl FnMut(bool)) {
    traffic.more_acks(500, "the start").await;
    stand_still(true);
    // What was on its way back may still arrive.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = traffic.counts();
    tokio::time::sleep(STANDSTILL).await;
    let after = traffic.counts();
    assert_eq!(
        before.acks, after.acks,
        "nothing can be durable while the log stands still"
    );
    assert!(after.refused > before.refused, "whoever waited too long was told so");
    stand_still(false);
    traffic.more_acks(500, "the log went on").await;
    report(what, traffic);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stands_still_for_a_minute_costs_time_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path());
    let views = Database::create();
    let log_url = format!("kafka://{}/crm.standstill", broker.address());
    let env = [("CRM_LOG", log_url.as_str()), ("CRM_VIEWS", views.url())];
    run_well(&["init", "--shards", "4"], &env);
    let node = Crm::start(IMPATIENT, &env);
    let traffic = Traffic::start("broker stands still", CLIENTS, vec![node.url("")]);
    the_log_stands_still("the broker stood still for a minute", &traffic, |is_still| {
        if is_still { broker.pause() } else { broker.resume() }
    })
    .await;
    let told = traffic.end().await;
    until_lag_drains(&node).await;
    let log = KafkaLog::new(&broker.address(), "crm.standstill", BTreeMap::new());
    every_ack_stands_in_the_log_once(&log, &told).await;
    read_models_equal_the_fold(&env);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_has_the_log_and_stands_still_for_a_minute_costs_time_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let url = server.url();
    let env = [("CRM_LOG", url.as_str()), ("CRM_VIEWS", url.as_str())];
    run_well(&["init", "--shards", "4"], &env);
    let node = Crm::start(IMPATIENT, &env);
    let traffic = Traffic::start("PostgreSQL stands still", CLIENTS, vec![node.url("")]);
    the_log_stands_still(
        "PostgreSQL, which has the log, stood still for a minute",
        &traffic,
        |is_still| {
            if is_still { server.pause() } else { server.resume() }
        },
    )
    .await;
    let told = traffic.end().await;
    until_lag_drains(&node).await;
    every_ack_stands_in_the_log_once(&PostgresLog::new(&url).unwrap(), &told).await;
    read_models_equal_the_fold(&env);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_store_that_stands_still_for_a_minute_stops_no_command_on_streams_in_memory() {
    let views = Database::create();
    let (proxy, views_url) = behind_a_proxy(&views).await;
    commands_go_on_without_the_read_store(
        "the way to the read store swallowed everything",
        &views_url,
        |is_still| {
            proxy.set(if is_still { Line::HalfOpen } else { Line::Good });
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_is_frozen_for_a_minute_stops_no_command_on_streams_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let views_url = server.url();
    commands_go_on_without_the_read_store("every process of PostgreSQL stood still", &views_url, |is_still| {
        if is_still { server.pause() } else { server.resume() }
    })
    .await;
}

/// A proxy in front of PostgreSQL, and the database's URL through it.
async fn behind_a_proxy(database: &Database) -> (Proxy, String) {
    let (credentials, place) = database.url().split_once('@').unwrap();
    let (server, name) = place.split_once('/').unwrap();
    let proxy = Proxy::start(server).await;
    let url = format!("{credentials}@{}/{name}", proxy.address());
    (proxy, url)
}

/// Registers so many new customers, each in one attempt; what was told of each command.
async fn register_new(node: &Crm, customers: u64) -> HashMap<Uuid, Told> {
    let http = reqwest::Client::new();
    let mut told = HashMap::new();
    for n in 0..customers {
        let id = domain::derived_id(&["new while the store is away", &n.to_string()]);
        #[allow(clippy::disallowed_methods, reason = "a client's command id")]
        let command = Uuid::now_v7();
        let sent = http
            .post(node.url(&format!("/api/customer/{id}")))
            .header("Idempotency-Key", command.to_string())
            .header("Content-Type", "application/json")
            .body(r#"{"type": "register", "kind": "person", "name": "n"}"#)
            .send();
        let answer = sent.await.unwrap();
        let (status, ack) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
        assert_eq!(status, 201, "{ack}");
        let recorded = ack["command_id"].as_str().expect("an id").parse().expect("an id");
        told.insert(recorded, Told::of(&ack));
    }
    told
}

async fn commands_go_on_without_the_read_store(what: &str, views_url: &str, mut stand_still: impl FnMut(bool)) {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let log_url = format!("kafka://{}/crm.store-gone", broker.address());
    let env = [("CRM_LOG", log_url.as_str()), ("CRM_VIEWS", views_url)];
    run_well(&["init", "--shards", "4"], &env);
    let node = Crm::start(&["serve"], &env);
    let traffic = Traffic::start("store stands still", 4, vec![node.url("")]);
    traffic.more_acks(1_000, "the start").await;

    stand_still(true);
    let before = traffic.counts();
    let begun = Instant::now();
    let told_of_new = register_new(&node, NEW_CUSTOMERS).await;
    tokio::time::sleep(STANDSTILL - begun.elapsed().min(STANDSTILL)).await;
    let after = traffic.counts();
    assert!(
        after.acks > before.acks + 500,
        "commands went on: {} acks in the minute",
        after.acks - before.acks
    );
    assert_eq!(after.refused, before.refused, "and none was refused");
    stand_still(false);

    traffic.more_acks(500, "the store came back").await;
    report(what, &traffic);
    let mut told = traffic.end().await;
    until_lag_drains(&node).await;
    let log = KafkaLog::new(&broker.address(), "crm.store-gone", BTreeMap::new());
    told.extend(told_of_new);
    every_ack_stands_in_the_log_once(&log, &told).await;
    read_models_equal_the_fold(&env);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_delays_cuts_and_swallows_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let (broker, target) = Broker::start_behind(dir.path(), port);
    let before_kafka = Proxy::start_on(port, &target).await;
    let views = Database::create();
    let (before_postgres, views_url) = behind_a_proxy(&views).await;
    let proxies = [&before_kafka, &before_postgres];
    let log_url = format!("kafka://{}/crm.network", before_kafka.address());
    let env = [("CRM_LOG", log_url.as_str()), ("CRM_VIEWS", views_url.as_str())];
    run_well(&["init", "--shards", "4"], &env);
    let node = Crm::start(&["serve"], &env);
    let traffic = Traffic::start("network", CLIENTS, vec![node.url("")]);
    traffic.more_acks(300, "the start").await;

    for proxy in proxies {
        proxy.set(Line::Slow(Duration::from_millis(40)));
        traffic.more_acks(300, "the network became slow").await;
        proxy.set(Line::Good);
    }
    for cut in 0..CUTS {
        let proxy = proxies[cut as usize % 2];
        // Somewhere in the middle of a request or an answer: no two at the same place.
        let after_bytes = 1_000 + 7_919 * i64::try_from(cut % 7).unwrap() + 331 * i64::try_from(cut).unwrap();
        proxy.cut(after_bytes).await;
        traffic.more_acks(100, &format!("cut {cut}")).await;
    }
    for proxy in proxies {
        proxy.set(Line::HalfOpen);
        tokio::time::sleep(Duration::from_secs(15)).await;
        proxy.set(Line::Good);
        traffic
            .more_acks(300, "the network swallowed everything for a while")
            .await;
    }
    let [kafka_cuts, postgres_cuts] = proxies.map(Proxy::cuts);
    report(
        &format!("a bad network, {kafka_cuts} cuts before Kafka and {postgres_cuts} before PostgreSQL"),
        &traffic,
    );
    let told = traffic.end().await;
    until_lag_drains(&node).await;
    let log = KafkaLog::new(&broker.address(), "crm.network", BTreeMap::new());
    every_ack_stands_in_the_log_once(&log, &told).await;
    read_models_equal_the_fold(&env);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_and_a_failing_fsync_refuse_commands_and_ack_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(dir.path());
    let place = format!("sqlite:{}", dir.path().display());
    let faulty = disk.env();
    let mut env = vec![("CRM_LOG", place.as_str()), ("CRM_VIEWS", place.as_str())];
    env.extend(faulty.iter().map(|(name, value)| (*name, value.as_str())));
    let mut node = Crm::start(&["serve"], &env);
    let traffic = Traffic::start("disk", CLIENTS, vec![node.url("")]);
    traffic.more_acks(300, "the start").await;
    for round in 0..3 {
        for fault in ["full", "fsync"] {
            let set = |on: bool| match fault {
                "full" => disk.set_full(on),
                _ => disk.set_fsync_fails(on),
            };
            set(true);
            tokio::time::sleep(Duration::from_millis(500)).await;
            let before = traffic.counts();
            tokio::time::sleep(Duration::from_secs(3)).await;
            let after = traffic.counts();
            assert_eq!(before.acks, after.acks, "round {round}, {fault}: nothing is durable");
            set(false);
            if let Some(code) = node.ended() {
                // It may give up, for a failed fsync leaves nothing to be sure of. It does not go on as if nothing was.
                assert_ne!(code, 0);
                node = Crm::start(&["serve"], &env);
                traffic.go_to(vec![node.url("")]);
            }
            traffic.more_acks(200, &format!("round {round}, {fault}")).await;
        }
    }
    report(
        "a disk that was full three times and failed to sync three times",
        &traffic,
    );
    // While an fsync fails the outcome is open, and they wait.
    assert!(
        traffic.counts().no_room > 0,
        "a full disk says that nothing was written"
    );
    // In the middle of it all.
    disk.set_full(true);
    tokio::time::sleep(Duration::from_millis(300)).await;
    node.kill();
    disk.set_full(false);
    let mut node = Crm::start(&["serve"], &env);
    traffic.go_to(vec![node.url("")]);
    traffic.more_acks(200, "the restart").await;
    let told = traffic.end().await;
    until_lag_drains(&node).await;
    assert_eq!(node.terminate(), 0, "{}", node.log_text());
    every_ack_stands_in_the_log_once(&SqliteLog::read_only(dir.path()), &told).await;
    run_well(&["log", "verify"], &env);
    read_models_equal_the_fold(&env);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_anew_under_a_running_node_is_refused() {
    const TOPIC: &str = "crm.anew";
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let views = Database::create();
    let log_url = format!("kafka://{}/{TOPIC}", broker.address());
    let env = [("CRM_LOG", log_url.as_str()), ("CRM_VIEWS", views.url())];
    run_well(&["init", "--shards", "2"], &env);
    let node = Crm::start(&["serve", "--command-timeout", "5"], &env);
    let traffic = Traffic::start("anew", 4, vec![node.url("")]);
    traffic.more_acks(200, "the start").await;

    let admin: AdminClient<DefaultClientContext> = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", broker.address())
        .create()
        .unwrap();
    let deleted = admin.delete_topics(&[TOPIC], &AdminOptions::new()).await.unwrap();
    deleted.into_iter().for_each(|topic| assert!(topic.is_ok()));
    let log = KafkaLog::new(&broker.address(), TOPIC, BTreeMap::new());
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = log.create(2).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    // Now it is empty, and clients go on sending. No command may be acked on it, by the running node nor by a new one.
    let before = traffic.counts();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let after = traffic.counts();
    assert_eq!(
        before.acks, after.acks,
        "nothing is acked on a topic that is another one"
    );
    assert!(after.refused > before.refused, "it is refused in so many words");
    report("a topic was made anew under the clients", &traffic);
    let status: Value = reqwest::get(node.url("/api/status"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(status["ok"], false, "{status}");
    drop(node);
    let mut anew = Crm::start_unready(&["serve"], &env);
    let code = anew.wait_for_end(Duration::from_secs(60));
    let said = anew.log_text();
    assert_eq!(code, 1, "it refuses to start: {said}");
    println!(
        "a topic that was made anew: {}",
        said.lines().last().unwrap_or_default()
    );
}

/// How the group is, by the broker's account.
fn group_state(client: &BaseConsumer, group: &str) -> String {
    let listed = match client.fetch_group_list(Some(group), Duration::from_secs(10)) {
        Ok(listed) => listed,
        Err(error) => return error.to_string(),
    };
    let found = listed.groups().iter().find(|found| found.name() == group);
    found.map_or_else(String::new, |found| found.state().to_owned())
}

async fn until_group_is(client: &BaseConsumer, group: &str, wanted: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let state = group_state(client, group);
        if state == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "the group is {state}, not {wanted}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_member_whose_answer_was_lost_takes_its_seat_anew() {
    const TOPIC: &str = "crm.seat";
    const GROUP: &str = "crm.seat.outages";
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let (broker, target) = Broker::start_behind(dir.path(), port);
    let proxy = Proxy::start_on(port, &target).await;
    let direct = KafkaLog::new(&broker.address(), TOPIC, BTreeMap::new());
    direct.create(2).await.unwrap();
    let members = format!("{TOPIC}.members");
    direct.create_topics(&[direct.new_topic(&members, 2)]).await.unwrap();
    // One that takes no notice of the group, so that it waits: it is assigned shards and never hears of it.
    let mut settings = direct.settings(&[
        ("group.id", GROUP),
        ("partition.assignment.strategy", "cooperative-sticky"),
    ]);
    let deaf: BaseConsumer = settings.set("max.poll.interval.ms", "120000").create().unwrap();
    deaf.subscribe(&[&members]).unwrap();
    let onlooker: BaseConsumer = direct.settings(&[]).create().unwrap();
    until_group_is(&onlooker, GROUP, "Stable").await;

    let log = KafkaLog::new(&proxy.address(), TOPIC, BTreeMap::new());
    let (words, told) = words(2);
    let shares = vec![Share {
        work: Work::Writing,
        words,
    }];
    let member = Membership::join(&log, "outages", Duration::from_secs(2), shares, |_| true).await;
    let member = member.unwrap();
    let unsettled = member.seat().unsettled;
    until_group_is(&onlooker, GROUP, "PreparingRebalance").await;
    // Now the group has something to say to the member, and that is lost on its way.
    tokio::time::sleep(Duration::from_secs(1)).await;
    proxy.set(Line::Unanswered);
    drop(deaf);
    until_group_is(&onlooker, GROUP, "Empty").await;
    proxy.set(Line::Good);
    let (forgotten, waited) = (Instant::now(), *unsettled.borrow());
    assert!(!waited.is_zero(), "the status says so meanwhile");
    let is_here = |word: &tokio::sync::watch::Receiver<Assignment>| *word.borrow() == Assignment::Here;
    while !told.iter().all(is_here) {
        assert!(forgotten.elapsed() < SEAT_LOST_MAX, "it waits for what nobody will say");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "a member that the group forgot had its shards after {:?}",
        forgotten.elapsed()
    );
    let deadline = Instant::now() + Duration::from_secs(10);
    while !unsettled.borrow().is_zero() {
        assert!(Instant::now() < deadline, "{:?}", *unsettled.borrow());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    member.leave().await;
}
