//! Two processes over one log: shards move between them under clients that ask either.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use domain::{AnyCommand, Fact, StreamKind, customer, derived_id};
use serde_json::Value;
use tokio::sync::watch;

use super::*;
use crate::clock::SystemClock;
use crate::log::{MemoryLog, NewLog, audit, create};
use crate::shard::specs::gate::{Gate, Hold};
use crate::shard::specs::{bundle, owner, register};
use crate::shard::{Action, Assignment, ShardConfig, ShardParts, Step, hash_of, spawn};
use crate::states::MemoryStates;

const SHARDS: u16 = 2;

/// The processes by address; what is asked of another goes through the wire's JSON.
#[derive(Default, Clone)]
struct Neighbours(Arc<std::sync::Mutex<HashMap<String, Vec<ShardHandle>>>>);

impl Neighbours {
    fn handle(&self, address: &str, shard: u16) -> Option<ShardHandle> {
        let known = self.0.lock().unwrap();
        known.get(address).map(|shards| shards[usize::from(shard)].clone())
    }
}

#[async_trait]
impl Peers for Neighbours {
    async fn serves(&self, address: &str, shard: u16, _: Duration) -> bool {
        self.handle(address, shard).is_some_and(|handle| handle.status().owned)
    }

    async fn execute(
        &self,
        address: &str,
        shard: u16,
        request: &Request,
        lane: Lane,
        within: Duration,
    ) -> Result<Ack, Failure> {
        let handle = self.handle(address, shard).ok_or(Failure::Elsewhere("gone".into()))?;
        let sent = serde_json::to_string(&Order::of(request, lane, within.as_millis() as u64).unwrap()).unwrap();
        let (request, lane) = serde_json::from_str::<Order>(&sent).unwrap().read().unwrap();
        let answer = Answer::of_command(handle.execute(request, lane, within).await);
        let sent = serde_json::to_string(&answer).unwrap();
        serde_json::from_str::<Answer>(&sent).unwrap().command()
    }

    async fn peek(&self, address: &str, shard: u16, stream: StreamRef, within: Duration) -> Result<Peeked, Failure> {
        let handle = self.handle(address, shard).ok_or(Failure::Elsewhere("gone".into()))?;
        let answer = Answer::of_peek(handle.peek(stream, within).await);
        let sent = serde_json::to_string(&answer).unwrap();
        serde_json::from_str::<Answer>(&sent).unwrap().peeked(stream.kind)
    }
}

struct Node {
    routing: Routing,
    words: Vec<watch::Sender<Assignment>>,
    _stop: watch::Sender<bool>,
}

struct World {
    log: MemoryLog,
    log_id: Uuid,
    gate: Gate,
    nodes: Vec<Node>,
}

impl World {
    /// Two processes; nothing is assigned yet.
    async fn new() -> World {
        let log = MemoryLog::new();
        let gate = Gate::before(log.clone());
        let opened = create(&log, &NewLog::of(SHARDS), &SystemClock).await.unwrap();
        let states = Arc::new(MemoryStates::default());
        let neighbours = Neighbours::default();
        let nodes = ["a:1", "b:1"].map(|address| {
            let (stop, stopped) = watch::channel(false);
            let parts = ShardParts {
                log: Arc::new(gate.clone()),
                states: states.clone(),
                clock: Arc::new(SystemClock),
                node: address.into(),
                address: address.into(),
                source: "/crm/spec".into(),
                config: ShardConfig {
                    command_timeout: Duration::from_secs(20),
                    contest_pause: Duration::from_millis(20),
                    retry_pause: Duration::from_millis(2),
                    ..ShardConfig::default()
                },
            };
            let (words, heard): (Vec<_>, Vec<_>) = (0..SHARDS).map(|_| watch::channel(Assignment::Elsewhere)).unzip();
            let handles: Vec<ShardHandle> = (0..SHARDS)
                .zip(heard)
                .map(|(shard, word)| spawn(shard, parts.clone(), word, stopped.clone()).0)
                .collect();
            neighbours.0.lock().unwrap().insert(address.into(), handles.clone());
            let owners = Owners {
                log: Arc::new(log.clone()),
                log_id: opened.log_id,
                states: states.clone(),
                own_address: address.into(),
            };
            Node {
                routing: Routing::among(handles, Arc::new(neighbours.clone()), owners),
                words,
                _stop: stop,
            }
        });
        World {
            log,
            log_id: opened.log_id,
            gate,
            nodes: nodes.into(),
        }
    }

    /// The coordinator gives the shard to this node alone.
    fn assign(&self, shard: u16, to: usize) {
        for (index, node) in self.nodes.iter().enumerate() {
            let word = match index == to {
                true => Assignment::Here,
                false => Assignment::Elsewhere,
            };
            node.words[usize::from(shard)].send_replace(word);
        }
    }
}

fn request(id: Uuid, stream: StreamRef, command: impl Into<AnyCommand>) -> Request {
    let step = Step {
        stream,
        action: Action::Decide(command.into()),
        expected_version: None,
    };
    bundle(id, vec![step])
}

/// A customer on this shard.
fn stream(shard: u16) -> StreamRef {
    let ids = (0..).map(|n: u32| derived_id(&["routing", &n.to_string()]));
    let mut streams = ids.map(|id| StreamRef {
        kind: StreamKind::Customer,
        id,
    });
    streams.find(|stream| stream.slot().shard(SHARDS) == shard).unwrap()
}

#[tokio::test]
async fn any_node_answers_a_command_and_a_question_for_any_shard() {
    let world = World::new().await;
    world.assign(0, 0);
    world.assign(1, 1);
    for shard in 0..SHARDS {
        for (index, node) in world.nodes.iter().enumerate() {
            let name = format!("{shard}-{index}");
            let command = match index {
                0 => register(&name),
                _ => owner(&name),
            };
            let id = derived_id(&["command", &name]);
            let ack = node
                .routing
                .execute(shard, request(id, stream(shard), command), Lane::People)
                .await;
            assert_eq!(ack.unwrap().streams[0].1, index as u64 + 1);
            let (_, version) = node.routing.peek(shard, stream(shard)).await.unwrap();
            assert_eq!(version, index as u64 + 1);
        }
    }
}

#[tokio::test]
async fn a_command_waits_for_a_shard_that_nobody_serves_yet() {
    let world = World::new().await;
    let routing = world.nodes[0].routing.clone();
    let id = derived_id(&["waits"]);
    let sent = tokio::spawn(async move {
        routing
            .execute(0, request(id, stream(0), register("w")), Lane::People)
            .await
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!sent.is_finished());
    world.assign(0, 1);
    assert_eq!(sent.await.unwrap().unwrap().events, 1);
}

/// The owner's take-over takes longer than one attempt at another process may, and longer than one append.
#[tokio::test(start_paused = true)]
async fn a_command_and_a_question_wait_for_an_owner_that_is_not_ready() {
    let world = World::new().await;
    world.assign(0, 1);
    let there = &world.nodes[1].routing;
    let first = request(derived_id(&["first"]), stream(0), register("w"));
    there.execute(0, first, Lane::People).await.unwrap();
    world.nodes[1].words[0].send_replace(Assignment::Elsewhere);
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.gate.hold(Hold::BeforeWriting);
    world.assign(0, 1);

    let here = world.nodes[0].routing.clone();
    let asking = tokio::spawn(async move { here.peek(0, stream(0)).await });
    let here = world.nodes[0].routing.clone();
    let lanes = [Lane::People, Lane::Imports];
    let sent = lanes.map(|lane| {
        let here = here.clone();
        let name = format!("{lane:?}");
        let command = request(derived_id(&["waits", &name]), stream(0), owner(&name));
        tokio::spawn(async move { here.execute(0, command, lane).await })
    });
    tokio::time::sleep(Duration::from_secs(13)).await;
    assert!(!asking.is_finished() && sent.iter().all(|sent| !sent.is_finished()));
    world.gate.open_up();
    for sent in sent {
        assert_eq!(sent.await.unwrap().unwrap().events, 1);
    }
    assert!(asking.await.unwrap().unwrap().1 >= 1);
    assert_eq!(audit(&world.log, 0, |_| {}).await.unwrap().events, 3);
}

/// The shard goes to and fro until it was claimed often enough, however slow the machine; sometimes both nodes believe that it is theirs.
/// Nobody is refused, nothing is lost or done twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_moves_refuses_and_loses_and_doubles_nothing() {
    const CLIENTS: u64 = 8;
    const CLAIMS: u64 = 20;
    const ACKS: usize = 100;
    let world = World::new().await;
    world.assign(0, 0);
    let acked = Arc::new(AtomicUsize::new(0));
    let first = world.nodes[0].routing.clone();
    first
        .execute(
            0,
            request(derived_id(&["first"]), stream(0), register("x")),
            Lane::People,
        )
        .await
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let nodes: Vec<Routing> = world.nodes.iter().map(|node| node.routing.clone()).collect();
            let (stop, acked) = (Arc::clone(&stop), Arc::clone(&acked));
            tokio::spawn(async move {
                let mut acks = Vec::new();
                for n in 0_u64.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let name = format!("{client}-{n}");
                    let id = derived_id(&["moves", &name]);
                    let node = &nodes[((client + n) % 2) as usize];
                    let sent = node.execute(0, request(id, stream(0), owner(&name)), Lane::People);
                    acks.push((id, sent.await.expect("it waits, and is not refused")));
                    acked.fetch_add(1, Ordering::SeqCst);
                }
                acks
            })
        })
        .collect();
    for round in 0_usize.. {
        let last = last_claim(&world.log, 0).await.unwrap().unwrap();
        if last.epoch >= CLAIMS && acked.load(Ordering::SeqCst) >= ACKS {
            break;
        }
        match round % 4 {
            3 => {
                world.nodes[0].words[0].send_replace(Assignment::Here);
                world.nodes[1].words[0].send_replace(Assignment::Here);
            }
            _ => world.assign(0, round % 2),
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    world.assign(0, 1);
    stop.store(true, Ordering::SeqCst);
    let mut told = HashMap::new();
    for client in clients {
        told.extend(client.await.unwrap());
    }
    let mut stands = HashMap::new();
    let found = audit(&world.log, 0, |commit| {
        let last = commit.events.last().unwrap();
        assert_eq!(stands.insert(last.command_id, last.position), None);
    });
    let found = found.await.unwrap();
    assert_eq!(found.faults, Vec::<String>::new());
    assert!(found.claims >= CLAIMS, "{} claims", found.claims);
    assert!(told.len() >= ACKS, "{} acks", told.len());
    assert_eq!(stands.len(), told.len() + 1);
    for (id, ack) in told {
        assert_eq!(stands.get(&id), Some(&ack.position));
    }
}

/// A process that is reached and never answers; when it was asked, and how long each time.
#[derive(Default, Clone)]
struct Silent(Arc<std::sync::Mutex<Vec<(tokio::time::Instant, Duration)>>>);

impl Silent {
    async fn wait(&self, within: Duration) {
        self.0.lock().unwrap().push((tokio::time::Instant::now(), within));
        tokio::time::sleep(within).await;
    }
}

#[async_trait]
impl Peers for Silent {
    async fn serves(&self, _: &str, _: u16, _: Duration) -> bool {
        false
    }

    async fn execute(&self, _: &str, _: u16, _: &Request, _: Lane, within: Duration) -> Result<Ack, Failure> {
        self.wait(within).await;
        Err(Failure::OutcomeUnknown("no answer".into()))
    }

    async fn peek(&self, _: &str, _: u16, _: StreamRef, within: Duration) -> Result<Peeked, Failure> {
        self.wait(within).await;
        Err(Failure::Elsewhere("no answer".into()))
    }
}

/// An address that only the last claim in the log tells: the store does not know it.
#[tokio::test(start_paused = true)]
async fn an_owner_that_does_not_answer_is_asked_again_after_a_while_until_the_time_is_up() {
    let world = World::new().await;
    world.assign(0, 1);
    let there = &world.nodes[1].routing;
    let first = request(derived_id(&["first"]), stream(0), register("w"));
    there.execute(0, first, Lane::People).await.unwrap();

    let silent = Silent::default();
    let owners = Owners {
        log: Arc::new(world.log.clone()),
        log_id: world.log_id,
        states: Arc::new(MemoryStates::default()),
        own_address: "a:1".into(),
    };
    let handles = world.nodes[0].routing.shards().to_vec();
    let routing = Routing::among(handles, Arc::new(silent.clone()), owners);
    for (lane, attempt, attempts) in [(Lane::People, 2, 10), (Lane::Imports, 10, 2)] {
        let begun = tokio::time::Instant::now();
        let name = format!("{lane:?}");
        let command = request(derived_id(&["silent", &name]), stream(0), owner(&name));
        let outcome = routing.execute(0, command, lane).await;
        assert!(matches!(outcome, Err(Failure::OutcomeUnknown(_))), "{outcome:?}");
        assert_eq!(begun.elapsed().as_secs(), 20);
        let asked = std::mem::take(&mut *silent.0.lock().unwrap());
        assert_eq!(asked.len(), attempts, "{asked:?}");
        assert!(asked.iter().all(|(_, within)| *within <= Duration::from_secs(attempt)));
    }
}

#[test]
fn every_command_survives_the_way_to_another_process() {
    for kind in StreamKind::ALL {
        let Some(text) = crate::http::example_of(kind.name()) else {
            panic!("no example of {}", kind.name());
        };
        let mut json: Value = serde_json::from_str(text).unwrap();
        if json["customer"].is_object() {
            json["customer"] = derived_id(&["customer"]).to_string().into();
        }
        let command = AnyCommand::from_json(*kind, json).unwrap();
        let stream = StreamRef {
            kind: *kind,
            id: derived_id(&["stream"]),
        };
        let sent = request(derived_id(&["command"]), stream, command);
        let text = serde_json::to_string(&Order::of(&sent, Lane::Imports, 7)).unwrap();
        let (read, lane) = serde_json::from_str::<Order>(&text).unwrap().read().unwrap();
        assert_eq!(lane, Lane::Imports);
        assert_eq!(read.steps[0].stream, stream);
        assert_eq!((hash_of(&read), &read.hash), (hash_of(&sent), &sent.hash));
    }
}

#[tokio::test]
async fn an_update_is_one_at_whatever_process_it_arrives_and_is_read_by_no_version_that_does_not_know_it() {
    let world = World::new().await;
    world.assign(0, 0);
    let update = |n: u32, name: &str| {
        request(derived_id(&["update", &n.to_string()]), stream(0), register(name)).upserting(true)
    };
    for (n, name) in ["a", "b"].into_iter().enumerate() {
        let ack = world.nodes[1]
            .routing
            .execute(0, update(n as u32, name), Lane::People)
            .await;
        assert_eq!(ack.map(|ack| (ack.events, ack.streams[0].1)), Ok((1, n as u64 + 1)));
    }
    let order = serde_json::to_value(Order::of(&update(1, "b"), Lane::People, 7)).unwrap();
    let read = |order: &Value| serde_json::from_value::<Order>(order.clone()).unwrap().read();
    assert!(read(&order).unwrap().0.upsert);
    let mut older = order.clone();
    older.as_object_mut().unwrap().remove("upsert");
    assert!(read(&older).unwrap_err().to_string().contains("another content"));
    // What an older version sends says nothing of it.
    let plain = serde_json::to_value(Order::of(
        &request(derived_id(&["plain"]), stream(0), register("a")),
        Lane::People,
        7,
    ))
    .unwrap();
    assert!(plain.get("upsert").is_none());
    assert!(!read(&plain).unwrap().0.upsert);
}

#[tokio::test]
async fn facts_are_taken_by_the_process_that_serves_the_shard_and_sent_to_no_other() {
    let world = World::new().await;
    world.assign(0, 0);
    let routing = |node: usize| world.nodes[node].routing.clone();
    let first = request(derived_id(&["first"]), stream(0), register("w"));
    routing(1).execute(0, first, Lane::People).await.unwrap();
    let mut facts = request(derived_id(&["facts"]), stream(0), owner("mei"));
    facts.steps[0].action = Action::Record(vec![Fact::from(customer::Event::OwnerAssigned {
        from: None,
        to: "mei".into(),
    })]);
    facts.steps[0].expected_version = Some(1);
    assert!(Order::of(&facts, Lane::People, 7).is_none());
    let refused = routing(1).execute(0, facts.clone(), Lane::People).await;
    assert!(
        matches!(&refused, Err(Failure::NotAccepted(why)) if why.contains("taken by the process that serves shard 0")),
        "{refused:?}"
    );
    assert_eq!(routing(0).execute(0, facts, Lane::People).await.unwrap().events, 1);
}
