//! What a shard keeps on every log: one suite, bound to memory, SQLite, PostgreSQL and Kafka. The log's own contract is in `log_contract.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::{Actor, StreamKind, StreamRef, customer, derived_id};
use infra::log::kafka::KafkaLog;
use infra::log::postgres::PostgresLog;
use infra::log::sqlite::SqliteLog;
use services::clock::{Clock, SystemClock};
use services::log::{
    AppendError, EventLog, LogError, LogReader, LogWriter, MemoryLog, NewLog, Quarantine, Record, audit, create,
};
use services::shard::{
    Ack, Action, Assignment, Failure, Lane, Request, ShardConfig, ShardHandle, ShardParts, Step, Who, hash_of, spawn,
};
use services::states::{MemoryStates, StateStore};
use tests::{Database, shared_kafka, unique_topic};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Each of these functions runs on every log.
macro_rules! on_every_log {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(std::sync::Arc::new(super::MemoryLog::new())).await;
            })+
        }

        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let folder = tempfile::tempdir().unwrap();
                super::$name(std::sync::Arc::new(super::SqliteLog::new(folder.path()))).await;
            })+
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let database = super::Database::create();
                let log = super::PostgresLog::new(database.url()).unwrap();
                super::$name(std::sync::Arc::new(log)).await;
            })+
        }

        mod kafka {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let topic = super::unique_topic("shard");
                let log = super::KafkaLog::new(&super::shared_kafka(), &topic, super::BTreeMap::new());
                super::$name(std::sync::Arc::new(log)).await;
            })+
        }
    };
}

on_every_log! {
    a_take_over_sees_everything_that_was_acked,
    a_lost_ack_is_settled_as_applied_once,
    a_lost_append_is_settled_as_not_applied_and_decided_anew,
    a_record_that_is_not_ours_stops_the_shard_with_its_position_until_it_is_quarantined,
}

/// A log whose next append can go wrong.
struct Faulty {
    inner: Arc<dyn EventLog>,
    next: Arc<AtomicU8>,
}

const WELL: u8 = 0;
const LOSE_ACK: u8 = 1;
const LOSE_APPEND: u8 = 2;

struct FaultyWriter {
    inner: Box<dyn LogWriter>,
    next: Arc<AtomicU8>,
}

#[async_trait]
impl EventLog for Faulty {
    fn address(&self) -> String {
        self.inner.address()
    }

    async fn create(&self, shards: u16) -> Result<(), LogError> {
        self.inner.create(shards).await
    }

    async fn open(&self) -> Result<u16, LogError> {
        self.inner.open().await
    }

    async fn end(&self, shard: u16) -> Result<u64, LogError> {
        self.inner.end(shard).await
    }

    async fn writer(&self, shard: u16) -> Result<Box<dyn LogWriter>, LogError> {
        let inner = self.inner.writer(shard).await?;
        Ok(Box::new(FaultyWriter {
            inner,
            next: Arc::clone(&self.next),
        }))
    }

    async fn reader(&self, shard: u16, from: u64) -> Result<Box<dyn LogReader>, LogError> {
        self.inner.reader(shard, from).await
    }
}

#[async_trait]
impl LogWriter for FaultyWriter {
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError> {
        match self.next.swap(WELL, Ordering::SeqCst) {
            LOSE_APPEND => Err(AppendError::Unknown("it was lost on the way".into())),
            LOSE_ACK => {
                self.inner.append(records).await?;
                Err(AppendError::Unknown("the answer was lost".into()))
            }
            _ => self.inner.append(records).await,
        }
    }
}

struct Shard {
    handle: ShardHandle,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Shard {
    fn start(log: &Arc<dyn EventLog>, states: Arc<dyn StateStore>, node: &str) -> Shard {
        let parts = ShardParts {
            log: Arc::clone(log),
            states,
            clock: Arc::new(SystemClock),
            node: node.to_owned(),
            address: String::new(),
            source: "/crm/test".into(),
            config: ShardConfig {
                command_timeout: Duration::from_secs(20),
                ..ShardConfig::default()
            },
        };
        let (stop, stopped) = watch::channel(false);
        let (handle, task) = spawn(0, parts, Assignment::alone(), stopped);
        Shard { handle, stop, task }
    }

    async fn send(&self, n: u64, command: customer::Command) -> Result<Ack, Failure> {
        let within = self.handle.command_timeout();
        self.handle
            .execute(Arc::new(request(n, command)), Lane::People, within)
            .await
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

fn request(n: u64, command: customer::Command) -> Request {
    let stream = StreamRef {
        kind: StreamKind::Customer,
        id: derived_id(&["shard contract"]),
    };
    let step = Step {
        stream,
        action: Action::Decide(command.into()),
        expected_version: None,
    };
    let who = Who::new(Actor::system("test"));
    let command_id = derived_id(&["command", &n.to_string()]);
    let mut request = Request {
        command_id,
        given: command_id,
        hash: String::new(),
        steps: vec![step],
        external_keys: vec![],
        effective_at: None,
        upsert: false,
        who,
    };
    request.hash = hash_of(&request);
    request
}

fn register() -> customer::Command {
    customer::Command::Register {
        kind: customer::Kind::Person,
        name: "林小姐".into(),
        country: None,
        locale: None,
        external: vec![],
    }
}

fn owner(n: u64) -> customer::Command {
    customer::Command::AssignOwner { owner: format!("o{n}") }
}

fn no_states() -> Arc<dyn StateStore> {
    Arc::new(MemoryStates::default())
}

async fn events(log: &dyn EventLog) -> (u64, Vec<String>) {
    let found = audit(log, 0, |_| {}).await.unwrap();
    (found.events, found.faults)
}

async fn a_take_over_sees_everything_that_was_acked(log: Arc<dyn EventLog>) {
    create(log.as_ref(), &NewLog::of(1), &SystemClock).await.unwrap();
    let kept = no_states();
    let first = Shard::start(&log, Arc::clone(&kept), "first");
    let mut acks = vec![first.send(0, register()).await.unwrap()];
    for n in 1..50 {
        acks.push(first.send(n, owner(n)).await.unwrap());
    }
    assert_eq!(
        acks.iter().map(|ack| ack.streams[0].1).collect::<Vec<_>>(),
        (1..=50).collect::<Vec<_>>()
    );
    first.end().await;
    // With the stored states, and with none: the log alone knows every command id and every version.
    for (node, states) in [("second", kept), ("third", no_states())] {
        let next = Shard::start(&log, states, node);
        assert_eq!(next.send(0, register()).await.unwrap(), acks[0], "{node}");
        for n in 1..50 {
            assert_eq!(next.send(n, owner(n)).await.unwrap(), acks[n as usize], "{node}");
        }
        assert_eq!(
            next.send(0, owner(1)).await,
            Err(Failure::IdReused(derived_id(&["command", "0"])))
        );
        next.end().await;
    }
    assert_eq!(events(log.as_ref()).await, (50, vec![]));
}

async fn a_lost_ack_is_settled_as_applied_once(log: Arc<dyn EventLog>) {
    settled(log, LOSE_ACK).await;
}

async fn a_lost_append_is_settled_as_not_applied_and_decided_anew(log: Arc<dyn EventLog>) {
    settled(log, LOSE_APPEND).await;
}

/// The append of a command goes wrong; the log decides what became of it, and its sender gets one answer.
async fn settled(inner: Arc<dyn EventLog>, fault: u8) {
    let next = Arc::new(AtomicU8::new(WELL));
    let log: Arc<dyn EventLog> = Arc::new(Faulty {
        inner,
        next: Arc::clone(&next),
    });
    create(log.as_ref(), &NewLog::of(1), &SystemClock).await.unwrap();
    let shard = Shard::start(&log, no_states(), "node");
    shard.send(0, register()).await.unwrap();
    next.store(fault, Ordering::SeqCst);
    let ack = shard.send(1, owner(1)).await.unwrap();
    assert_eq!((ack.events, ack.streams[0].1), (1, 2));
    assert_eq!(shard.send(1, owner(1)).await.unwrap(), ack);
    assert_eq!(shard.send(2, owner(2)).await.unwrap().streams[0].1, 3);
    shard.end().await;
    let found = audit(log.as_ref(), 0, |_| {}).await.unwrap();
    assert_eq!(
        (found.events, found.claims, found.faults),
        (3, 2, vec![]),
        "one more take-over settled it"
    );
}

async fn a_record_that_is_not_ours_stops_the_shard_with_its_position_until_it_is_quarantined(log: Arc<dyn EventLog>) {
    create(log.as_ref(), &NewLog::of(1), &SystemClock).await.unwrap();
    let shard = Shard::start(&log, no_states(), "first");
    shard.send(0, register()).await.unwrap();
    shard.end().await;
    let foreign = Record {
        key: b"k".to_vec(),
        headers: vec![],
        value: Some(b"hello".to_vec()),
    };
    let stands = log
        .writer(0)
        .await
        .unwrap()
        .append(vec![foreign.clone()])
        .await
        .unwrap()[0];

    let error = audit(log.as_ref(), 0, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains(&format!("shard 0, offset {stands}")), "{error}");
    let second = Shard::start(&log, no_states(), "second");
    let waiting = tokio::time::timeout(Duration::from_secs(2), second.send(1, owner(1))).await;
    assert!(waiting.is_err(), "a shard with a foreign record answered {waiting:?}");
    assert!(
        second
            .handle
            .status()
            .trouble
            .unwrap()
            .contains(&format!("offset {stands}"))
    );

    let word = Quarantine {
        offset: stands,
        fingerprint: foreign.fingerprint(),
        reason: "a test wrote it".into(),
    };
    let record = word.to_record(Uuid::nil(), SystemClock.now());
    log.writer(0).await.unwrap().append(vec![record]).await.unwrap();
    assert_eq!(second.send(2, owner(2)).await.unwrap().streams[0].1, 2);
    second.end().await;
    assert_eq!(events(log.as_ref()).await, (2, vec![]));
}
