//! An owner that does not know yet that another one has taken over. Its memory is stale; nobody may be answered from it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{Actor, StreamKind, StreamRef, customer, derived_id};
use services::clock::SystemClock;
use services::log::{AppendError, EventLog, LogError, LogReader, LogWriter, MemoryLog, Record, create};
use services::shard::{
    Ack, Action, Assignment, Failure, Lane, Request, ShardConfig, ShardHandle, ShardParts, Step, Who, hash_of, spawn,
};
use services::states::MemoryStates;
use tokio::sync::watch;
use uuid::Uuid;

const WITHIN: Duration = Duration::from_secs(10);

/// The model's way of eleven steps: the append on which the answer rests was sent, and stood, before the other one's claim.
#[tokio::test]
async fn already_so_does_not_rest_on_an_append_that_was_sent_before_the_question() {
    let world = World::new().await;
    let (hold, held) = watch::channel(false);
    let first = world.start("first", Some(held));
    ask(&first, request(1, register(), None)).await.unwrap();

    // The first one's append stands in the log, and the broker's word of it is slow.
    hold.send_replace(true);
    let end = world.log.end(0).await.unwrap();
    let slow = tokio::spawn({
        let first = first.clone();
        async move { ask(&first, request(2, owner("mei"), None)).await }
    });
    while world.log.end(0).await.unwrap() == end {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let second = world.start("second", None);
    assert_eq!(
        ask(&second, request(3, owner("wei"), None)).await.unwrap().streams[0].1,
        3
    );

    // The owner is wei: acked before this question is asked.
    let late = tokio::spawn({
        let first = first.clone();
        async move { ask(&first, request(4, owner("mei"), None)).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    hold.send_replace(false);
    assert_eq!(slow.await.unwrap().unwrap().streams[0].1, 2);
    let told = late.await.unwrap();
    assert!(told.is_err(), "it was told that the owner is mei already: {told:?}");
}

/// The model's way of nine steps: a command that stands in the log is refused when it is sent again.
#[tokio::test]
async fn a_command_that_another_owner_has_applied_is_not_refused_when_it_comes_again() {
    let world = World::new().await;
    let first = world.start("first", None);
    ask(&first, request(1, register(), None)).await.unwrap();
    let second = world.start("second", None);
    ask(&second, request(2, owner("mei"), None)).await.unwrap();
    let applied = ask(&second, request(3, owner("wei"), Some(2))).await.unwrap();

    let again = ask(&first, request(3, owner("wei"), Some(2))).await;
    let is_right = match &again {
        Ok(ack) => *ack == applied,
        Err(failure) => matches!(
            failure,
            Failure::Elsewhere(_) | Failure::OutcomeUnknown(_) | Failure::NotAccepted(_)
        ),
    };
    assert!(is_right, "it was applied, and now it was told: {again:?}");
}

struct World {
    log: MemoryLog,
    states: Arc<MemoryStates>,
    _stop: watch::Sender<bool>,
}

impl World {
    async fn new() -> World {
        let log = MemoryLog::new();
        create(&log, 1, &SystemClock).await.unwrap();
        World {
            log,
            states: Arc::new(MemoryStates::default()),
            _stop: watch::channel(false).0,
        }
    }

    fn start(&self, node: &str, held: Option<watch::Receiver<bool>>) -> ShardHandle {
        let log = self.log.clone();
        let parts = ShardParts {
            log: match held {
                Some(held) => Arc::new(SlowLog { log, held }),
                None => Arc::new(log),
            },
            states: self.states.clone(),
            clock: Arc::new(SystemClock),
            node: node.into(),
            address: "127.0.0.1:0".into(),
            source: "/crm/spec".into(),
            config: ShardConfig::default(),
        };
        spawn(0, parts, Assignment::alone(), self._stop.subscribe()).0
    }
}

async fn ask(shard: &ShardHandle, request: Request) -> Result<Ack, Failure> {
    shard.execute(Arc::new(request), Lane::People, WITHIN).await
}

fn request(id: u64, command: customer::Command, expected_version: Option<u64>) -> Request {
    let stream = StreamRef {
        kind: StreamKind::Customer,
        id: derived_id(&["customer"]),
    };
    let mut request = Request {
        command_id: command_id(id),
        hash: String::new(),
        steps: vec![Step {
            stream,
            action: Action::Decide(command.into()),
            expected_version,
        }],
        effective_at: None,
        who: Who::new(Actor::parse("user:mei").unwrap()),
    };
    request.hash = hash_of(&request);
    request
}

fn command_id(n: u64) -> Uuid {
    derived_id(&["command", &n.to_string()])
}

fn register() -> customer::Command {
    customer::Command::Register {
        kind: customer::Kind::Person,
        name: "a".into(),
        country: None,
        locale: None,
        external: vec![],
    }
}

fn owner(owner: &str) -> customer::Command {
    customer::Command::AssignOwner { owner: owner.into() }
}

/// A log whose word of an append can be held back.
struct SlowLog {
    log: MemoryLog,
    held: watch::Receiver<bool>,
}

#[async_trait]
impl EventLog for SlowLog {
    fn address(&self) -> String {
        self.log.address()
    }

    async fn create(&self, shards: u16) -> Result<(), LogError> {
        self.log.create(shards).await
    }

    async fn open(&self) -> Result<u16, LogError> {
        self.log.open().await
    }

    async fn end(&self, shard: u16) -> Result<u64, LogError> {
        self.log.end(shard).await
    }

    async fn writer(&self, shard: u16) -> Result<Box<dyn LogWriter>, LogError> {
        let (writer, held) = (self.log.writer(shard).await?, self.held.clone());
        Ok(Box::new(SlowWriter { writer, held }))
    }

    async fn reader(&self, shard: u16, from: u64) -> Result<Box<dyn LogReader>, LogError> {
        self.log.reader(shard, from).await
    }
}

struct SlowWriter {
    writer: Box<dyn LogWriter>,
    held: watch::Receiver<bool>,
}

#[async_trait]
impl LogWriter for SlowWriter {
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError> {
        let offsets = self.writer.append(records).await;
        self.held
            .wait_for(|held| !held)
            .await
            .expect("the test holds the other end");
        offsets
    }
}
