//! The harness proves itself first: a broker and a PostgreSQL of a test's own start, die by kill -9 and come back with
//! their data. Every suite about crashes rests on that.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use tests::{Broker, Database, Server, shared_kafka, shared_postgres, unique_topic};
use tokio_postgres::{Client, NoTls};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_killed_broker_comes_back_with_its_records() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path());
    let address = broker.address();
    let topic = unique_topic("harness");
    create_topic(&address, &topic).await;
    write(&address, &topic, "before").await;

    broker.kill();
    assert!(!answers(&address, PATIENCE / 30), "a killed broker still answers");

    broker.restart();
    assert_eq!(broker.address(), address);
    write(&address, &topic, "after").await;
    assert_eq!(read(&address, &topic, 2), ["before", "after"]);
}

#[tokio::test]
async fn a_paused_broker_is_silent_and_a_resumed_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path());
    let address = broker.address();
    let topic = unique_topic("harness");
    create_topic(&address, &topic).await;

    broker.pause();
    assert!(!answers(&address, PATIENCE / 30), "a paused broker still answers");

    broker.resume();
    assert!(answers(&address, PATIENCE));
    write(&address, &topic, "after the pause").await;
    assert_eq!(read(&address, &topic, 1), ["after the pause"]);
}

#[tokio::test]
async fn a_broker_takes_up_the_folder_of_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let topic = unique_topic("harness");
    {
        let broker = Broker::start(folder.path());
        create_topic(&broker.address(), &topic).await;
        write(&broker.address(), &topic, "from the first").await;
    }

    let broker = Broker::start(folder.path());
    assert_eq!(read(&broker.address(), &topic, 1), ["from the first"]);
}

#[tokio::test]
async fn a_killed_postgres_comes_back_with_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let url = server.url();
    let client = connect(&url).await;
    client
        .batch_execute("CREATE TABLE note (text TEXT); INSERT INTO note VALUES ('before')")
        .await
        .unwrap();

    server.kill();
    assert!(
        tokio_postgres::connect(&url, NoTls).await.is_err(),
        "a killed server still takes connections"
    );

    server.restart();
    assert_eq!(server.url(), url);
    let client = connect(&url).await;
    client.batch_execute("INSERT INTO note VALUES ('after')").await.unwrap();
    assert_eq!(notes(&client).await, ["before", "after"]);
}

#[tokio::test]
async fn a_postgres_killed_at_work_comes_back_with_what_it_had_committed() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let client = connect(&server.url()).await;
    client
        .batch_execute("CREATE TABLE note (text TEXT); INSERT INTO note VALUES ('committed')")
        .await
        .unwrap();
    // A child that is busy does not look up when its postmaster dies: the restart has to wait for it.
    let busy = tokio::spawn(async move {
        let _ = client
            .batch_execute(
                "BEGIN; INSERT INTO note VALUES ('never committed'); SELECT count(*) FROM generate_series(1, 4000000)",
            )
            .await;
    });
    tokio::time::sleep(Duration::from_millis(300)).await;

    server.kill();
    server.restart();

    let client = connect(&server.url()).await;
    assert_eq!(notes(&client).await, ["committed"]);
    busy.await.unwrap();
}

#[tokio::test]
async fn a_paused_postgres_is_silent_on_old_and_new_connections_and_a_resumed_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let url = server.url();
    let client = connect(&url).await;

    server.pause();
    let mut old = Box::pin(client.batch_execute("SELECT 1"));
    assert!(tokio::time::timeout(PATIENCE / 30, &mut old).await.is_err());
    let new = tokio::time::timeout(PATIENCE / 30, tokio_postgres::connect(&url, NoTls));
    assert!(new.await.is_err(), "a paused server takes connections");

    server.resume();
    tokio::time::timeout(PATIENCE, old).await.unwrap().unwrap();
    connect(&url).await;
}

#[tokio::test]
async fn a_database_of_ones_own_is_empty_and_gone_afterwards() {
    let database = Database::create();
    let url = database.url().to_owned();
    let client = connect(&url).await;
    client.batch_execute("CREATE TABLE note (text TEXT)").await.unwrap();
    assert!(notes(&client).await.is_empty());

    drop(database); // although a client is still connected

    let error = tokio_postgres::connect(&url, NoTls)
        .await
        .err()
        .expect("the database is gone");
    assert_eq!(
        error.code(),
        Some(&tokio_postgres::error::SqlState::INVALID_CATALOG_NAME)
    );
    connect(&shared_postgres()).await;
}

#[tokio::test]
async fn the_shared_kafka_keeps_topics_of_the_same_name_apart() {
    let (one, other) = (unique_topic("harness"), unique_topic("harness"));
    create_topic(&shared_kafka(), &one).await;
    create_topic(&shared_kafka(), &other).await;
    write(&shared_kafka(), &one, "one").await;
    write(&shared_kafka(), &other, "other").await;
    assert_eq!(read(&shared_kafka(), &one, 1), ["one"]);
    assert_eq!(read(&shared_kafka(), &other, 1), ["other"]);
}

fn client(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "500");
    config
}

fn answers(address: &str, limit: Duration) -> bool {
    let consumer: BaseConsumer = client(address).create().unwrap();
    consumer.fetch_metadata(None, limit).is_ok()
}

async fn create_topic(address: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = client(address).create().unwrap();
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let results = admin.create_topics([&new], &options).await.unwrap();
    assert_eq!(results, [Ok(topic.to_owned())]);
}

async fn write(address: &str, topic: &str, text: &str) {
    let producer: FutureProducer = client(address).set("acks", "all").create().unwrap();
    let record: FutureRecord<(), str> = FutureRecord::to(topic).payload(text);
    producer.send(record, PATIENCE).await.unwrap();
}

/// The first `count` records of a topic with one partition.
fn read(address: &str, topic: &str, count: usize) -> Vec<String> {
    let consumer: BaseConsumer = client(address).set("group.id", "unused").create().unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&partitions).unwrap();

    let next = || {
        let record = consumer.poll(PATIENCE).expect("a record within the time").unwrap();
        String::from_utf8(record.payload().unwrap().to_vec()).unwrap()
    };
    (0..count).map(|_| next()).collect()
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn notes(client: &Client) -> Vec<String> {
    client
        .query("SELECT text FROM note", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}
