//! The processes of a world: nodes with their shards and their door, folders with their projection workers, the network between them, and
//! the coordinator's words.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use domain::{Calendar, StreamRef};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::log::{Brokers, SimLog, log_id};
use super::process::Process;
use super::rows::{RowDatabase, SimRows};
use super::states::{SimStates, StateDatabase};
use super::world::World;
use crate::clock::Clock;
use crate::commands::Commands;
use crate::log::EventLog;
use crate::routing::{Owners, Peers, Routing};
use crate::shard::{Ack, Assignment, Failure, Lane, Peeked, Request, ShardParts, spawn};
use crate::views::{Workers, rebuild};

/// How long a process that is stopped may take to finish what it had accepted.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

pub struct Cluster {
    pub world: Arc<World>,
    pub brokers: Arc<Brokers>,
    pub states: Arc<StateDatabase>,
    pub rows: Arc<RowDatabase>,
    nodes: Vec<Mutex<Option<Arc<Node>>>>,
    /// And room for one that comes when faults have stopped, if the others leave something out.
    folders: Vec<Mutex<Option<Arc<Folder>>>>,
    starts: Mutex<u64>,
}

/// A process that serves shards.
pub struct Node {
    pub process: Arc<Process>,
    pub door: Commands,
    words: Vec<watch::Sender<Assignment>>,
    /// One for each shard, for a channel with several who wait wakes them in an order of its own.
    stops: Vec<watch::Sender<bool>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// A process with projection workers.
pub struct Folder {
    pub process: Arc<Process>,
    log: Arc<dyn EventLog>,
    rows: Arc<SimRows>,
    /// Does it fold this shard of this group? As long as it lives: workers that wait for one word wake in an order of their own.
    folds: Vec<bool>,
    _stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Cluster {
    pub fn new(world: Arc<World>) -> Arc<Cluster> {
        let weather = &world.weather;
        let cluster = Arc::new(Cluster {
            brokers: Brokers::new(Arc::clone(&world)),
            states: StateDatabase::new(Arc::clone(&world)),
            rows: RowDatabase::new(Arc::clone(&world)),
            nodes: (0..weather.nodes).map(|_| Mutex::default()).collect(),
            folders: (0..=weather.folders).map(|_| Mutex::default()).collect(),
            starts: Mutex::new(0),
            world,
        });
        (0..cluster.nodes.len()).for_each(|number| cluster.start_node(number));
        (0..cluster.folders()).for_each(|number| cluster.start_folder(number));
        cluster.reassign();
        cluster
    }

    pub fn node(&self, number: usize) -> Option<Arc<Node>> {
        self.nodes[number].lock().expect("no panic under the lock").clone()
    }

    pub fn folder(&self, number: usize) -> Option<Arc<Folder>> {
        self.folders[number].lock().expect("no panic under the lock").clone()
    }

    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    pub fn folders(&self) -> usize {
        self.world.weather.folders
    }

    /// Each process has a name of its own, also when it is the next one of the same machine.
    fn process(&self, kind: &str, number: usize) -> Arc<Process> {
        let mut starts = self.starts.lock().expect("no panic under the lock");
        *starts += 1;
        let name = format!("{kind}-{number}.{starts}");
        self.world.note(format_args!("{name} starts"));
        Arc::new(Process::new(Arc::clone(&self.world), name))
    }

    /// Starts a node, if it does not run.
    pub fn start_node(self: &Arc<Cluster>, number: usize) {
        let mut at = self.nodes[number].lock().expect("no panic under the lock");
        if at.is_some() {
            return;
        }
        let process = self.process("node", number);
        let log: Arc<dyn EventLog> = Arc::new(SimLog {
            brokers: Arc::clone(&self.brokers),
            process: Arc::clone(&process),
        });
        let states = Arc::new(SimStates {
            database: Arc::clone(&self.states),
            process: Arc::clone(&process),
        });
        let clock: Arc<dyn Clock> = Arc::clone(&process) as Arc<dyn Clock>;
        let address = address(number);
        let (mut handles, mut tasks, mut words, mut stops) = (vec![], vec![], vec![], vec![]);
        for shard in 0..self.world.weather.shards {
            let parts = ShardParts {
                log: Arc::clone(&log),
                states: Arc::clone(&states) as _,
                clock: Arc::clone(&clock),
                node: process.name.clone(),
                address: address.clone(),
                source: "/crm/simulated".into(),
                config: self.world.weather.config.clone(),
            };
            let word = watch::channel(self.first_word()).0;
            let (stop, stopped) = watch::channel(false);
            let (handle, task) = spawn(shard, parts, word.subscribe(), stopped);
            handles.push(handle);
            tasks.push(task);
            words.push(word);
            stops.push(stop);
        }
        let network = Network {
            cluster: Arc::downgrade(self),
            from: Arc::clone(&process),
        };
        let owners = Owners {
            log,
            log_id: log_id(),
            states,
            own_address: address,
        };
        let routing = Routing::among(handles, Arc::new(network), owners);
        *at = Some(Arc::new(Node {
            door: Commands::new(routing, clock, Calendar::taipei()),
            process,
            words,
            stops,
            tasks: Mutex::new(tasks),
        }));
    }

    fn first_word(&self) -> Assignment {
        match self.world.weather.coordinator {
            false => Assignment::HereUnlessClaimed,
            true => *self.world.luck.pick(&[
                Assignment::Elsewhere,
                Assignment::Elsewhere,
                Assignment::HereUnlessClaimed,
                Assignment::Here,
            ]),
        }
    }

    pub fn start_folder(&self, number: usize) {
        let mut at = self.folders[number].lock().expect("no panic under the lock");
        if at.is_some() {
            return;
        }
        let process = self.process("folder", number);
        let log: Arc<dyn EventLog> = Arc::new(SimLog {
            brokers: Arc::clone(&self.brokers),
            process: Arc::clone(&process),
        });
        let rows = Arc::new(SimRows {
            database: Arc::clone(&self.rows),
            process: Arc::clone(&process),
        });
        let (stop, stopped) = watch::channel(false);
        let weather = &self.world.weather;
        let (mut share, mut folds) = (BTreeMap::new(), vec![]);
        for group in &weather.groups {
            let heard = (0..weather.shards).map(|_| {
                let word = self.word_to_folder(number);
                folds.push(word == Assignment::Here);
                watch::channel(word).1
            });
            share.insert(*group, heard.collect());
        }
        let workers = Workers::new(Arc::clone(&log), Arc::clone(&rows) as _, weather.shards, share);
        *at = Some(Arc::new(Folder {
            process,
            log,
            rows,
            folds,
            _stop: stop,
            task: tokio::spawn(workers.run(stopped)),
        }));
    }

    /// As often as not several fold the same. The one that comes last folds everything.
    fn word_to_folder(&self, number: usize) -> Assignment {
        match number == self.folders() {
            true => Assignment::Here,
            false => *self
                .world
                .luck
                .pick(&[Assignment::Here, Assignment::Here, Assignment::Elsewhere]),
        }
    }

    /// Is every shard of every group folded by somebody?
    fn all_is_folded(&self) -> bool {
        let living: Vec<_> = (0..self.folders()).filter_map(|number| self.folder(number)).collect();
        let places = self.world.weather.groups.len() * usize::from(self.world.weather.shards);
        (0..places).all(|place| living.iter().any(|folder| folder.folds[place]))
    }

    /// A node loses all that it had in memory.
    pub fn crash_node(&self, number: usize) {
        let node = self.nodes[number].lock().expect("no panic under the lock").take();
        let Some(node) = node else { return };
        self.world.note(format_args!("{} crashes", node.process.name));
        node.process.die();
        for task in node.tasks.lock().expect("no panic under the lock").drain(..) {
            self.check_alive(&node.process.name, &task);
            task.abort();
        }
    }

    pub fn crash_folder(&self, number: usize) {
        let folder = self.folders[number].lock().expect("no panic under the lock").take();
        let Some(folder) = folder else { return };
        self.world.note(format_args!("{} crashes", folder.process.name));
        folder.process.die();
        self.check_alive(&folder.process.name, &folder.task);
        folder.task.abort();
    }

    /// A task that ends before anybody ends it has panicked.
    fn check_alive(&self, name: &str, task: &JoinHandle<()>) {
        if task.is_finished() {
            self.world.check(Err(format!("a task of {name} ended by itself")));
        }
    }

    /// Stops a node as an operator does, and waits until it is gone.
    pub async fn stop_node(&self, number: usize) {
        let node = self.nodes[number].lock().expect("no panic under the lock").take();
        let Some(node) = node else { return };
        let name = &node.process.name;
        self.world.note(format_args!("{name} is stopped"));
        let mut tasks = std::mem::take(&mut *node.tasks.lock().expect("no panic under the lock"));
        tasks.iter().for_each(|task| self.check_alive(name, task));
        for stop in &node.stops {
            stop.send_replace(true);
        }
        let ends = async {
            for task in &mut tasks {
                if let Err(error) = task.await {
                    self.world.check(Err(format!("a task of {name} ended badly: {error}")));
                }
            }
        };
        let ended = tokio::time::timeout(STOPS_WITHIN, ends).await.is_ok();
        self.world.note(format_args!("{name} has stopped: {ended}"));
        if !ended && self.world.is_calm() {
            self.world.check(Err(format!(
                "{name} did not stop within {STOPS_WITHIN:?}, though nothing is wrong any more"
            )));
        }
        node.process.die();
        tasks.iter().for_each(JoinHandle::abort);
    }

    /// The coordinator changes its mind. Now and then two nodes believe that a shard is theirs, or none does.
    pub fn reassign(&self) {
        if !self.world.weather.coordinator {
            return;
        }
        let luck = &self.world.luck;
        for shard in 0..usize::from(self.world.weather.shards) {
            let chosen = luck.below(self.nodes.len() as u64) as usize;
            for number in 0..self.nodes.len() {
                let word = match number == chosen {
                    true => *luck.pick(&[Assignment::Here, Assignment::Here, Assignment::HereUnlessClaimed]),
                    false => *luck.pick(&[Assignment::Elsewhere, Assignment::Elsewhere, Assignment::Here]),
                };
                self.say(number, shard, word);
            }
        }
    }

    fn say(&self, number: usize, shard: usize, word: Assignment) {
        let Some(node) = self.node(number) else { return };
        self.world.note(format_args!(
            "{} hears about shard {shard}: {word:?}",
            node.process.name
        ));
        node.words[shard].send_if_modified(|was| std::mem::replace(was, word) != word);
    }

    /// All is well: every process runs, with the right time, and each shard is one node's. Nothing that runs is started again, and nobody is
    /// woken who hears nothing new: it must go on without help.
    pub fn mend(self: &Arc<Cluster>) {
        for number in 0..self.nodes.len() {
            self.start_node(number);
            let node = self.node(number).expect("it was just started");
            node.process.resume();
            node.process.set_clock(0);
        }
        for number in 0..self.folders() {
            self.start_folder(number);
            self.folder(number).expect("it was just started").process.resume();
        }
        if !self.all_is_folded() {
            self.start_folder(self.folders());
        }
        for shard in 0..usize::from(self.world.weather.shards) {
            let chosen = self.world.luck.below(self.nodes.len() as u64) as usize;
            for number in 0..self.nodes.len() {
                let word = match number == chosen {
                    true => Assignment::Here,
                    false => Assignment::Elsewhere,
                };
                self.say(number, shard, word);
            }
        }
    }

    /// Builds new read models beside the live ones, from one of the folders.
    pub async fn rebuild(&self, number: usize) {
        let Some(folder) = self.folder(number) else { return };
        let weather = &self.world.weather;
        let group = *self.world.luck.pick(&weather.groups);
        let groups = [group];
        let built = rebuild(
            Arc::clone(&folder.log),
            Arc::clone(&folder.rows) as _,
            &groups,
            weather.shards,
            |_, _, _, _| {},
        );
        let built = built.await;
        self.world.note(format_args!(
            "{} rebuilt {}: {}",
            folder.process.name,
            group.name(),
            built.is_ok()
        ));
        self.world.count(match built {
            Ok(_) => "rebuilds",
            Err(_) => "rebuilds that failed",
        });
    }

    pub fn all_tasks_run(&self) {
        for number in 0..self.nodes.len() {
            if let Some(node) = self.node(number) {
                let tasks = node.tasks.lock().expect("no panic under the lock");
                tasks.iter().for_each(|task| self.check_alive(&node.process.name, task));
            }
        }
    }
}

fn address(number: usize) -> String {
    format!("node-{number}")
}

/// The network as one node has it.
struct Network {
    cluster: Weak<Cluster>,
    from: Arc<Process>,
}

impl Network {
    async fn send(&self) {
        let world = &self.from.world;
        self.from.pass().await;
        if world.strikes("network: slow", world.weather.rates.network_slow) {
            world.sleep(world.luck.magnitude(5, 3_000)).await;
        }
        world.latency().await;
    }

    /// Reaches the node that answers at an address now.
    async fn reach(&self, address: &str) -> Option<Arc<Node>> {
        self.send().await;
        let cluster = self.cluster.upgrade()?;
        let number = (0..cluster.nodes()).find(|number| self::address(*number) == address)?;
        cluster.node(number)
    }
}

fn elsewhere() -> Failure {
    Failure::Elsewhere("another process serves the shard".into())
}

#[async_trait]
impl Peers for Network {
    async fn serves(&self, address: &str, shard: u16, _: Duration) -> bool {
        let node = self.reach(address).await;
        node.is_some_and(|node| node.door.shards()[usize::from(shard)].status().owned)
    }

    async fn execute(
        &self,
        address: &str,
        shard: u16,
        request: &Request,
        lane: Lane,
        within: Duration,
    ) -> Result<Ack, Failure> {
        let world = Arc::clone(&self.from.world);
        let unknown = || Failure::OutcomeUnknown("the other node did not answer".into());
        let Some(node) = self.reach(address).await else {
            return Err(Failure::Elsewhere("nobody listens there".into()));
        };
        world.count("commands forwarded");
        let request = Arc::new(request.clone());
        let work = async move {
            node.process.pass().await;
            let handle = &node.door.shards()[usize::from(shard)];
            let within = within.min(handle.command_timeout());
            let outcome = handle.execute(request, lane, within).await;
            node.process.pass().await;
            outcome
        };
        // The other process goes on with it when this one has given up.
        let outcome = tokio::time::timeout(within, tokio::spawn(work)).await;
        if world.strikes("network: answer lost", world.weather.rates.network_lost) {
            return Err(unknown());
        }
        self.send().await;
        match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(unknown()),
        }
    }

    async fn peek(&self, address: &str, shard: u16, stream: StreamRef, within: Duration) -> Result<Peeked, Failure> {
        let Some(node) = self.reach(address).await else {
            return Err(elsewhere());
        };
        let look = async {
            node.process.pass().await;
            let handle = &node.door.shards()[usize::from(shard)];
            let outcome = handle.peek(stream, within).await;
            node.process.pass().await;
            outcome
        };
        let outcome = tokio::time::timeout(within, look).await;
        self.send().await;
        outcome.unwrap_or_else(|_| Err(elsewhere()))
    }
}

/// Every stream there is in a shard is shown by whoever serves it, as the log has it.
pub async fn look_at_all(cluster: &Cluster, number: usize) {
    let Some(node) = cluster.node(number) else { return };
    for shard in 0..cluster.world.weather.shards {
        let streams: Vec<StreamRef> = {
            let truth = cluster.world.truth.lock().expect("no panic under the lock");
            truth.streams(shard).map(|(stream, _)| *stream).collect()
        };
        for stream in streams {
            let shown = node.door.peek(stream).await;
            let truth = cluster.world.truth.lock().expect("no panic under the lock");
            let (_, story) = truth
                .streams(shard)
                .find(|(known, _)| **known == stream)
                .expect("it is there");
            let (state, version) = story.last();
            let promise = match shown {
                Ok((shown, at)) if (shown.as_ref(), at) == (state.as_ref(), version) => Ok(()),
                Ok((_, at)) => Err(format!(
                    "{shard}: {stream} is at version {version}, and its owner shows version {at} or another state"
                )),
                Err(failure) => Err(format!(
                    "{shard}: {stream} cannot be looked at, though nothing is wrong: {failure}"
                )),
            };
            drop(truth);
            cluster.world.check(promise);
        }
    }
}
