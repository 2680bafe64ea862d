//! The promises of a shard, and a log that breaks as logs do.

mod admission;
mod begun;
mod clocks;
mod findings;
pub mod gate;
mod limits;
mod look_up;
mod panics;
mod restart;
mod stale_owner;
mod upsert;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{Actor, Id, StreamKind, StreamRef, customer, derived_id, opportunity};
use tokio::sync::watch;
use uuid::Uuid;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::log::{Audit, EventLog, Fault, MemoryLog, NewLog, audit, create};
use crate::states::{MemoryStates, StateStore};

struct World {
    log: MemoryLog,
    states: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    node: u32,
}

struct Running {
    handle: ShardHandle,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl World {
    async fn new() -> World {
        World::with(Arc::new(MemoryStates::default())).await
    }

    async fn with(states: Arc<dyn StateStore>) -> World {
        let log = MemoryLog::new();
        create(&log, &NewLog::of(1), &SystemClock).await.unwrap();
        World {
            log,
            states,
            clock: Arc::new(SystemClock),
            node: 0,
        }
    }

    fn start(&mut self) -> Running {
        self.start_with(patient())
    }

    fn start_with(&mut self, config: ShardConfig) -> Running {
        self.start_on(Arc::new(self.log.clone()), config)
    }

    /// A node that sees the log through this one.
    fn start_on(&mut self, log: Arc<dyn EventLog>, config: ShardConfig) -> Running {
        self.node += 1;
        let parts = ShardParts {
            log,
            states: Arc::clone(&self.states),
            clock: Arc::clone(&self.clock),
            node: format!("node-{}", self.node),
            address: "127.0.0.1:0".into(),
            source: "/crm/spec".into(),
            config,
        };
        let (stop, stopped) = watch::channel(false);
        let (handle, task) = spawn(0, parts, Assignment::alone(), stopped);
        Running { handle, stop, task }
    }

    async fn audit(&self) -> Audit {
        audit(&self.log, 0, |_| {}).await.unwrap()
    }
}

fn patient() -> ShardConfig {
    ShardConfig {
        command_timeout: Duration::from_secs(10),
        ..ShardConfig::default()
    }
}

impl Running {
    async fn execute(&self, request: Request, lane: Lane) -> Result<Ack, Failure> {
        let within = self.handle.command_timeout();
        self.handle.execute(Arc::new(request), lane, within).await
    }

    async fn peek(&self, stream: StreamRef) -> Result<Peeked, Failure> {
        self.handle.peek(stream, self.handle.command_timeout()).await
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }

    /// Sends, and sends again with the same id as a client does, until the outcome is known.
    async fn insist(&self, request: &Request) -> Result<Ack, Failure> {
        loop {
            match self.execute(request.clone(), Lane::People).await {
                Err(
                    Failure::NotAccepted(_) | Failure::NotInTime(_) | Failure::OutcomeUnknown(_) | Failure::NoRoom(_),
                ) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                outcome => return outcome,
            }
        }
    }
}

fn stream(name: &str) -> StreamRef {
    StreamRef {
        kind: StreamKind::Customer,
        id: derived_id(&["customer", name]),
    }
}

fn request(id: Uuid, name: &str, command: customer::Command) -> Request {
    let step = Step {
        stream: stream(name),
        action: Action::Decide(command.into()),
        expected_version: None,
    };
    bundle(id, vec![step])
}

pub fn bundle(id: Uuid, steps: Vec<Step>) -> Request {
    let who = Who::new(Actor::parse("user:mei").unwrap());
    let mut request = Request {
        command_id: id,
        given: id,
        hash: String::new(),
        steps,
        external_keys: vec![],
        effective_at: None,
        upsert: false,
        who,
    };
    request.hash = hash_of(&request);
    request
}

pub fn register(name: &str) -> customer::Command {
    customer::Command::Register {
        kind: customer::Kind::Person,
        name: name.into(),
        country: None,
        locale: None,
        external: vec![],
    }
}

pub fn owner(owner: &str) -> customer::Command {
    customer::Command::AssignOwner { owner: owner.into() }
}

fn id(n: u64) -> Uuid {
    derived_id(&["command", &n.to_string()])
}

/// As a client makes them, which are looked up by other rules than derived ones.
fn fresh() -> Uuid {
    #[allow(clippy::disallowed_methods, reason = "a client's command id")]
    Uuid::now_v7()
}

#[tokio::test]
async fn the_same_command_twice_has_one_effect_and_one_answer() {
    let mut world = World::new().await;
    let shard = world.start();
    let first = shard.insist(&request(id(1), "a", register("a"))).await.unwrap();
    let again = shard.insist(&request(id(1), "a", register("a"))).await.unwrap();
    assert_eq!(first, again);
    assert_eq!((first.events, first.streams[0].1), (1, 1));
    let other = shard.insist(&request(id(1), "a", register("b"))).await;
    assert_eq!(other, Err(Failure::IdReused(id(1))));
    shard.end().await;

    // After a restart, with the states and without them.
    for lose_states in [false, true] {
        if lose_states {
            world.states = Arc::new(MemoryStates::default());
        }
        let shard = world.start();
        assert_eq!(shard.insist(&request(id(1), "a", register("a"))).await.unwrap(), first);
        shard.end().await;
    }
    assert_eq!(world.audit().await.events, 1);
}

#[tokio::test]
async fn a_version_that_moved_on_is_a_conflict() {
    let mut world = World::new().await;
    let shard = world.start();
    shard.insist(&request(id(1), "a", register("a"))).await.unwrap();
    let mut late = request(id(2), "a", owner("mei"));
    late.steps[0].expected_version = Some(0);
    let conflict = Failure::Conflict {
        stream: stream("a").to_string(),
        expected: 0,
        current: 1,
    };
    assert_eq!(shard.insist(&late).await, Err(conflict));
    late.steps[0].expected_version = Some(1);
    assert_eq!(shard.insist(&late).await.unwrap().streams[0].1, 2);
    shard.end().await;
}

#[tokio::test]
async fn already_so_writes_no_event_but_proves_ownership_by_a_barrier() {
    let mut world = World::new().await;
    let shard = world.start();
    shard.insist(&request(id(1), "a", register("a"))).await.unwrap();
    let before = world.log.records(0).len();
    let ack = shard.insist(&request(id(2), "a", register("a"))).await.unwrap();
    assert_eq!(ack.events, 0);
    assert_eq!(world.log.records(0).len(), before + 1);
    assert_eq!(world.audit().await.events, 1);
    shard.end().await;
}

#[tokio::test]
async fn a_bundle_is_all_or_nothing() {
    let mut world = World::new().await;
    let shard = world.start();
    let step = |command: customer::Command| Step {
        stream: stream("a"),
        action: Action::Decide(command.into()),
        expected_version: None,
    };
    let bad = bundle(id(1), vec![step(register("a")), step(owner(" "))]);
    assert!(matches!(shard.insist(&bad).await, Err(Failure::Rejected(_))));
    assert_eq!(world.audit().await.events, 0);
    let good = bundle(id(2), vec![step(register("a")), step(owner("mei"))]);
    let ack = shard.insist(&good).await.unwrap();
    assert_eq!((ack.events, ack.streams[0].1), (2, 2));
    assert_eq!(world.audit().await.commits, 1);
    shard.end().await;
}

#[tokio::test]
async fn a_paused_owner_yields_and_acks_nothing_more() {
    let mut world = World::new().await;
    let first = world.start();
    first.insist(&request(id(1), "a", register("a"))).await.unwrap();
    let second = world.start();
    second.insist(&request(id(2), "a", owner("mei"))).await.unwrap();
    // The first one knows nothing of it, writes, and finds its record void.
    let outcome = first.execute(request(id(3), "a", owner("wei")), Lane::People).await;
    assert!(matches!(outcome, Err(Failure::OutcomeUnknown(_))), "{outcome:?}");
    // Nor does it say "already so" from what it remembers.
    let outcome = first.execute(request(id(4), "a", register("a")), Lane::People).await;
    assert!(matches!(outcome, Err(Failure::Elsewhere(_))), "{outcome:?}");
    second.insist(&request(id(5), "a", owner("lin"))).await.unwrap();
    let found = world.audit().await;
    assert_eq!((found.events, found.faults), (3, vec![]));
    assert!(found.void >= 1);
    first.end().await;
    second.end().await;
}

/// Clients that retry, a log that loses acks, appends and halves of batches, and a store of states that is lost now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_log_does_every_acked_command_stands_in_it_exactly_once() {
    const CLIENTS: u64 = 16;
    const COMMANDS: u64 = 200;
    let mut world = World::new().await;
    let mut acked: HashMap<Uuid, Ack> = HashMap::new();
    for round in 0..6_u64 {
        let shard = Arc::new(world.start_with(ShardConfig {
            cached_streams_max: 64,
            cached_commands_max: 50,
            save_at: 20,
            save_every: Duration::from_millis(5),
            retry_pause: Duration::from_millis(1),
            command_timeout: Duration::from_secs(10),
            ..ShardConfig::default()
        }));
        let faults = [
            Fault::LoseAck,
            Fault::Drop(0),
            Fault::LoseAppend,
            Fault::Tear(1),
            Fault::Drop(2),
            Fault::Refuse,
        ];
        let chaos = {
            let log = world.log.clone();
            tokio::spawn(async move {
                for n in 0..24_usize {
                    log.inject(0, faults[(n + round as usize) % faults.len()]);
                    tokio::time::sleep(Duration::from_millis(8)).await;
                }
            })
        };
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let shard = Arc::clone(&shard);
                tokio::spawn(async move {
                    let mut acks = Vec::new();
                    for n in 0..COMMANDS {
                        let number = (round * CLIENTS + client) * COMMANDS + n;
                        let name = format!("c{}", (client * 7 + n) % 40);
                        let command = if n == 0 {
                            register(&name)
                        } else {
                            owner(&format!("o{number}"))
                        };
                        let request = request(id(number), &name, command);
                        match shard.insist(&request).await {
                            Ok(ack) => acks.push((request.command_id, ack)),
                            Err(Failure::Rejected(_)) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    acks
                })
            })
            .collect();
        for client in clients {
            acked.extend(client.await.unwrap());
        }
        chaos.await.unwrap();
        Arc::into_inner(shard).unwrap().end().await;
        if round == 2 {
            world.states = Arc::new(MemoryStates::default());
        }
    }
    // For sure, however the batches fell: a hole in a commit.
    let shard = world.start();
    let begun = request(id(100_000), "z", register("z"));
    acked.insert(begun.command_id, shard.insist(&begun).await.unwrap());
    world.log.inject(0, Fault::Drop(0));
    let steps = ["mei", "lin"].map(|name| Step {
        stream: stream("z"),
        action: Action::Decide(owner(name).into()),
        expected_version: None,
    });
    let torn = bundle(id(100_001), steps.into());
    acked.insert(torn.command_id, shard.insist(&torn).await.unwrap());
    shard.end().await;
    let mut applied: HashMap<Uuid, (u64, u32)> = HashMap::new();
    let found = audit(&world.log, 0, |commit| {
        let last = commit.events.last().unwrap();
        applied.insert(last.command_id, (last.position.offset, last.commit_size));
    })
    .await
    .unwrap();
    assert_eq!(found.faults, Vec::<String>::new());
    let mut wrote = 0;
    for (command, ack) in &acked {
        match applied.get(command) {
            Some(place) => {
                assert_eq!(*place, (ack.position.offset, ack.events), "{command}");
                wrote += 1;
            }
            None => assert_eq!(ack.events, 0, "{command} was acked with events and is not in the log"),
        }
    }
    assert_eq!(wrote, applied.len(), "every applied command was acked in the end");
    assert!(wrote > 1_000, "{wrote} commands wrote");
    assert!(
        found.claims > 30,
        "the faults took the shard away {} times",
        found.claims
    );
    assert!(found.void > 0);
}

#[tokio::test]
async fn with_the_state_store_down_streams_in_memory_and_new_ones_go_on() {
    let states = Arc::new(Moody::default());
    let mut world = World::with(states.clone()).await;
    let shard = world.start();
    shard.insist(&request(id(1), "a", register("a"))).await.unwrap();
    shard.insist(&request(id(2), "b", register("b"))).await.unwrap();
    shard.end().await;
    let shard = world.start();
    shard.insist(&request(id(3), "a", owner("lin"))).await.unwrap();
    // Until it knows all that are stored.
    tokio::time::sleep(Duration::from_secs(3)).await;
    states.down.store(true, std::sync::atomic::Ordering::SeqCst);
    shard
        .execute(request(id(4), "a", owner("mei")), Lane::People)
        .await
        .unwrap();
    let new = shard.execute(request(id(5), "c", register("c")), Lane::People).await;
    assert_eq!(new.unwrap().streams[0].1, 1);
    let unknown = shard.execute(request(id(6), "b", owner("mei")), Lane::People).await;
    assert!(matches!(unknown, Err(Failure::NotAccepted(_))), "{unknown:?}");
    states.down.store(false, std::sync::atomic::Ordering::SeqCst);
    shard.insist(&request(id(7), "b", owner("mei"))).await.unwrap();
    shard.end().await;
    assert_eq!(world.audit().await.events, 6);
}

/// After the lost ack the shard is taken over, and the command's companion is not in memory any more.
#[tokio::test]
async fn a_command_that_was_applied_is_acked_though_its_companions_cannot_be_looked_up() {
    let states = Arc::new(Moody::default());
    let mut world = World::with(states.clone()).await;
    let shard = world.start();
    shard.insist(&request(id(1), "a", register("a"))).await.unwrap();
    // Stored, so that a take-over does not read it again.
    shard.end().await;
    let shard = world.start();
    shard.peek(stream("a")).await.unwrap();
    let opportunity = StreamRef {
        kind: StreamKind::Opportunity,
        id: stream("a").id,
    };
    states.customers_down.store(true, std::sync::atomic::Ordering::SeqCst);
    world.log.inject(0, Fault::LoseAck);
    let open = opportunity::Command::Open {
        customer: Id::new(stream("a").id),
        name: "chairs".into(),
        pipeline: None,
        stage: None,
        amount: None,
        close_date: "2026-03-01".parse().unwrap(),
        owner: "mei".into(),
        source: None,
    };
    let step = Step {
        stream: opportunity,
        action: Action::Decide(open.into()),
        expected_version: None,
    };
    let ack = shard.execute(bundle(id(2), vec![step]), Lane::People).await.unwrap();
    assert_eq!((ack.events, ack.streams), (1, vec![(opportunity.to_string(), 1)]));
    shard.end().await;
    assert_eq!(world.audit().await.claims, 3);
}

/// Another process may have the shard by then.
#[tokio::test(start_paused = true)]
async fn a_take_over_that_is_not_wanted_any_more_claims_nothing() {
    let states = Arc::new(Moody::default());
    let mut world = World::with(states.clone()).await;
    states
        .hangs_at_take_over
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let shard = world.start();
    tokio::time::sleep(Duration::from_millis(50)).await;
    shard.stop.send_replace(true);
    states
        .hangs_at_take_over
        .store(false, std::sync::atomic::Ordering::SeqCst);
    shard.task.await.unwrap();
    assert_eq!(world.audit().await.claims, 0);
}

/// A state store that can be down, or as far as customers are asked for.
#[derive(Default)]
struct Moody {
    inner: MemoryStates,
    down: std::sync::atomic::AtomicBool,
    customers_down: std::sync::atomic::AtomicBool,
    /// The next save is stored, and its answer lost.
    loses_an_answer: std::sync::atomic::AtomicBool,
    lists_nothing: std::sync::atomic::AtomicBool,
    /// Look-ups have no end.
    hangs: std::sync::atomic::AtomicBool,
    /// Nor has the first question of a take-over.
    hangs_at_take_over: std::sync::atomic::AtomicBool,
    /// When there is one, what was looked up takes a permit each time before it is told.
    tells: std::sync::OnceLock<tokio::sync::Semaphore>,
    /// Streams and command ids that were looked up.
    looked_up: std::sync::atomic::AtomicUsize,
    /// States and command ids of the largest save.
    most_saved: std::sync::atomic::AtomicUsize,
}

impl Moody {
    fn up(&self) -> Result<(), crate::states::StateError> {
        match self.down.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(crate::states::StateError::Unavailable("it is down".into())),
            false => Ok(()),
        }
    }
}

impl Moody {
    fn listing(&self) -> Result<(), crate::states::StateError> {
        self.up()?;
        match self.lists_nothing.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(crate::states::StateError::Unavailable("nothing is listed".into())),
            false => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl StateStore for Moody {
    async fn watermark(
        &self,
        shard: u16,
        log_id: Uuid,
    ) -> Result<Option<crate::states::Watermark>, crate::states::StateError> {
        self.up()?;
        while self.hangs_at_take_over.load(std::sync::atomic::Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.inner.watermark(shard, log_id).await
    }

    async fn owner(&self, shard: u16, log_id: Uuid) -> Result<Option<String>, crate::states::StateError> {
        self.up()?;
        self.inner.owner(shard, log_id).await
    }

    async fn claim(
        &self,
        shard: u16,
        log_id: Uuid,
        epoch: u64,
        address: &str,
    ) -> Result<Option<crate::states::Watermark>, crate::states::StateError> {
        self.up()?;
        self.inner.claim(shard, log_id, epoch, address).await
    }

    async fn load(
        &self,
        shard: u16,
        held: crate::states::Held,
        streams: &[StreamRef],
        commands: &[Uuid],
    ) -> Result<crate::states::Loaded, crate::states::StateError> {
        self.up()?;
        while self.hangs.load(std::sync::atomic::Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.looked_up
            .fetch_add(streams.len() + commands.len(), std::sync::atomic::Ordering::SeqCst);
        let asks_for_customers = streams.iter().any(|stream| stream.kind == StreamKind::Customer);
        if asks_for_customers && self.customers_down.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(crate::states::StateError::Unavailable("customers are down".into()));
        }
        let found = self.inner.load(shard, held, streams, commands).await;
        if let Some(tells) = self.tells.get() {
            tells.acquire().await.unwrap().forget();
        }
        found
    }

    async fn streams(
        &self,
        shard: u16,
        held: crate::states::Held,
        after: Option<StreamRef>,
        max: usize,
    ) -> Result<Vec<StreamRef>, crate::states::StateError> {
        self.listing()?;
        self.inner.streams(shard, held, after, max).await
    }

    async fn derived_commands(
        &self,
        shard: u16,
        held: crate::states::Held,
        after: Option<Uuid>,
        max: usize,
    ) -> Result<Vec<Uuid>, crate::states::StateError> {
        self.listing()?;
        self.inner.derived_commands(shard, held, after, max).await
    }

    async fn save(
        &self,
        held: crate::states::Held,
        watermark: &crate::states::Watermark,
        states: &[crate::states::SavedState],
        commands: &[crate::states::SavedCommand],
    ) -> Result<(), crate::states::StateError> {
        self.up()?;
        self.most_saved
            .fetch_max(states.len() + commands.len(), std::sync::atomic::Ordering::SeqCst);
        self.inner.save(held, watermark, states, commands).await?;
        match self.loses_an_answer.swap(false, std::sync::atomic::Ordering::SeqCst) {
            true => Err(crate::states::StateError::Unavailable("the answer was lost".into())),
            false => Ok(()),
        }
    }

    async fn forget_commands(&self, before: jiff::Timestamp) -> Result<u64, crate::states::StateError> {
        self.up()?;
        self.inner.forget_commands(before).await
    }
}

#[tokio::test]
async fn a_log_that_lost_its_tail_is_not_served() {
    let mut world = World::new().await;
    let shard = world.start();
    for n in 0..5 {
        shard
            .insist(&request(id(n), &format!("c{n}"), register("a")))
            .await
            .unwrap();
    }
    shard.end().await;
    world.log.truncate(0, 4);
    let shard = world.start_with(ShardConfig {
        command_timeout: Duration::from_millis(300),
        ..ShardConfig::default()
    });
    let outcome = shard.execute(request(id(9), "z", register("z")), Lane::People).await;
    assert!(
        matches!(&outcome, Err(Failure::NotInTime(why)) if why.contains("lost its tail")),
        "{outcome:?}"
    );
    shard.end().await;
}

#[tokio::test]
async fn a_peek_answers_the_state_as_it_was_last_confirmed() {
    let mut world = World::new().await;
    let shard = world.start();
    shard.insist(&request(id(1), "a", register("a"))).await.unwrap();
    let (state, version) = shard.peek(stream("a")).await.unwrap();
    assert_eq!((state.kind(), version), (StreamKind::Customer, 1));
    assert_eq!(shard.peek(stream("b")).await.unwrap().1, 0);
    shard.end().await;
    assert_eq!(world.log.end(0).await.unwrap(), 3);
}
