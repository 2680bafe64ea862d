//! Processes die: `crm serve`, the broker and PostgreSQL are killed, writers are paused while others take over, under clients that
//! retry with the same id. Then: every acked command stands in the log exactly once, nothing was applied twice, and the read models
//! equal the fold of the log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use infra::log::kafka::KafkaLog;
use infra::log::postgres::PostgresLog;
use tests::traffic::{
    Traffic, every_ack_stands_in_the_log_once, read_models_equal_the_fold, run_well, until_lag_drains,
};
use tests::{Broker, Crm, Server};

const CLIENTS: u64 = 64;
const SERVER_KILLS: usize = 25;
const BROKER_KILLS: usize = 5;
const POSTGRES_KILLS: usize = 5;
const PAUSES: usize = 5;
/// Acks between two faults at least.
const ACKS_BETWEEN: u64 = 1_000;
/// The same with the log in PostgreSQL, in small.
const LOG_CLIENTS: u64 = 16;
const LOG_KILLS: usize = 8;
const LOG_PAUSES: usize = 1;
const LOG_ACKS_BETWEEN: u64 = 300;
const TOPIC: &str = "crm.faults";
/// A server that is killed is missed soon.
const SERVE: &[&str] = &["serve", "--session-timeout", "1"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acked_command_is_lost_or_applied_twice_whatever_dies() {
    let (broker_dir, postgres_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut broker = Broker::start(broker_dir.path());
    let mut postgres = Server::start(postgres_dir.path());
    let log_url = format!("kafka://{}/{TOPIC}", broker.address());
    let views_url = postgres.url();
    let env = [("CRM_LOG", log_url.as_str()), ("CRM_VIEWS", views_url.as_str())];
    run_well(&["init", "--shards", "4"], &env);

    let mut server = Crm::start(SERVE, &env);
    let traffic = Traffic::start("faults", CLIENTS, vec![server.url("")]);
    let started = Instant::now();

    traffic.more_acks(ACKS_BETWEEN, "the start").await;
    for n in 0..SERVER_KILLS {
        server.kill();
        server = Crm::start(SERVE, &env);
        traffic.go_to(vec![server.url("")]);
        traffic
            .more_acks(ACKS_BETWEEN, &format!("kill {n} of the server"))
            .await;
    }
    for n in 0..BROKER_KILLS {
        broker.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        broker.restart();
        traffic
            .more_acks(ACKS_BETWEEN, &format!("kill {n} of the broker"))
            .await;
    }
    for n in 0..POSTGRES_KILLS {
        postgres.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        postgres.restart();
        traffic
            .more_acks(ACKS_BETWEEN, &format!("kill {n} of PostgreSQL"))
            .await;
    }
    for n in 0..PAUSES {
        // A paused writer wakes up after another has taken over: what it still acks must stand.
        server.pause();
        let other = Crm::start(SERVE, &env);
        traffic.go_to(vec![other.url("")]);
        traffic
            .more_acks(ACKS_BETWEEN, &format!("pause {n}, while the first is paused"))
            .await;
        traffic.go_to(vec![server.url(""), other.url("")]);
        server.resume();
        traffic
            .more_acks(ACKS_BETWEEN, &format!("pause {n}, after the first woke up"))
            .await;
        traffic.go_to(vec![other.url("")]);
        server.kill();
        server = other;
    }
    let counts = traffic.counts();
    let told = traffic.end().await;
    until_lag_drains(&server).await;
    println!(
        "{SERVER_KILLS} kills of the server, {BROKER_KILLS} of the broker, {POSTGRES_KILLS} of PostgreSQL and {PAUSES} paused writers, \
         in {:?}: {counts}",
        started.elapsed()
    );
    assert!(told.len() as u64 >= ACKS_BETWEEN * (SERVER_KILLS + BROKER_KILLS + POSTGRES_KILLS + 2 * PAUSES) as u64);
    assert_eq!(
        server.terminate(),
        0,
        "the server ends well when it is asked to: {}",
        server.log_text()
    );
    let log = KafkaLog::new(&broker.address(), TOPIC, BTreeMap::new());
    every_ack_stands_in_the_log_once(&log, &told).await;
    read_models_equal_the_fold(&env);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acked_command_is_lost_or_applied_twice_when_the_log_in_postgresql_dies() {
    let folder = tempfile::tempdir().unwrap();
    let mut postgres = Server::start(folder.path());
    let url = postgres.url();
    let env = [("CRM_LOG", url.as_str()), ("CRM_VIEWS", url.as_str())];
    run_well(&["init", "--shards", "4"], &env);
    let mut server = Crm::start(&["serve"], &env);
    let traffic = Traffic::start("postgres", LOG_CLIENTS, vec![server.url("")]);
    let started = Instant::now();

    traffic.more_acks(LOG_ACKS_BETWEEN, "the start").await;
    for n in 0..LOG_KILLS {
        postgres.kill();
        postgres.restart();
        let after = format!("kill {n} of PostgreSQL");
        traffic.more_acks(LOG_ACKS_BETWEEN, &after).await;
    }
    for n in 0..LOG_PAUSES {
        server.pause();
        let other = Crm::start(&["serve"], &env);
        traffic.go_to(vec![other.url("")]);
        let after = format!("pause {n}, while the first is paused");
        traffic.more_acks(LOG_ACKS_BETWEEN, &after).await;
        traffic.go_to(vec![server.url(""), other.url("")]);
        server.resume();
        let after = format!("pause {n}, after the first woke up");
        traffic.more_acks(LOG_ACKS_BETWEEN, &after).await;
        traffic.go_to(vec![other.url("")]);
        server.kill();
        server = other;
    }
    let counts = traffic.counts();
    let told = traffic.end().await;
    until_lag_drains(&server).await;
    println!(
        "{LOG_KILLS} kills of PostgreSQL and {LOG_PAUSES} paused writer, in {:?}: {counts}",
        started.elapsed()
    );
    assert!(told.len() as u64 >= LOG_ACKS_BETWEEN * (LOG_KILLS + 2 * LOG_PAUSES) as u64);
    assert_eq!(counts.no_room, 0, "who dies has not said that nothing was written");
    assert_eq!(server.terminate(), 0, "{}", server.log_text());

    let log = PostgresLog::new(&url).unwrap();
    let found = every_ack_stands_in_the_log_once(&log, &told).await;
    assert_eq!(
        found.void, 0,
        "PostgreSQL knows the owner: what would be void is not written"
    );
    read_models_equal_the_fold(&env);
}
