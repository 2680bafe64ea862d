//! A whole installation in one thread and in virtual time: nodes, their shards and doors, projection workers, clients. The code under test
//! is the production code; the log, the stores, the network, the clocks and the coordinator are simulated, and all that goes wrong with
//! them comes from one seed. The same seed is the same world, to the letter.
//!
//! While the world goes on, every promise is looked at when it could be broken ([`truth`], [`answers`]). Then faults stop, and everything
//! must make progress. `scripts/simulate --help` runs worlds by the thousand; [`crate::bugs`] shows that they find what is wrong.

mod answers;
mod chaos;
mod clients;
mod cluster;
mod log;
mod luck;
mod orders;
mod process;
mod row;
mod rows;
mod specs;
mod states;
mod tables;
mod truth;
mod weather;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::Cluster;
use luck::Luck;
use weather::Weather;
use world::World;

use crate::bugs::{self, Bug};

/// Faults go on so long at most: a client that waits for a world that is too broken waits for the calm.
const STORM_LASTS: Duration = Duration::from_secs(40);
/// When faults have stopped, clients have their answers within this time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);
/// And projectors have caught up.
const ROWS_WITHIN: Duration = Duration::from_secs(60);

/// What came of a world.
#[derive(Debug, Clone)]
pub struct Run {
    pub seed: u64,
    /// The promise that was broken, in a sentence.
    pub violation: Option<String>,
    /// Of all that happened.
    pub trace_hash: u64,
    pub counts: BTreeMap<&'static str, u64>,
    pub age: Duration,
}

/// Runs the world of a seed, with a deliberate bug or none; `aloud` tells on standard error what happens in it.
pub fn run(seed: u64, bug: Option<Bug>, aloud: bool) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    bugs::with(bug, || runtime.block_on(live(seed, aloud)))
}

async fn live(seed: u64, aloud: bool) -> Run {
    let luck = Luck::new(seed);
    let weather = Weather::of(&luck);
    let world = Arc::new(World::new(luck, weather, aloud));
    world.note(format_args!("seed {seed}: {:?}", world.weather));
    let whole = async {
        let cluster = Cluster::new(Arc::clone(&world));
        storm(&cluster).await;
        calm(&cluster).await;
    };
    tokio::select! {
        biased;
        () = world.violated() => {}
        () = whole => {}
    }
    Run {
        seed,
        violation: world.violation(),
        trace_hash: world.trace_hash(),
        counts: world.counts(),
        age: world.age(),
    }
}

/// Clients work while everything goes wrong, until they are done or the time is over.
async fn storm(cluster: &Arc<Cluster>) {
    let clients = cluster.world.weather.clients;
    let mut at_work: Vec<_> = (0..clients)
        .map(|number| tokio::spawn(clients::client(Arc::clone(cluster), number)))
        .collect();
    tokio::spawn(chaos::chaos(Arc::clone(cluster)));
    let done = wait_for_all(&mut at_work);
    if tokio::time::timeout(STORM_LASTS, done).await.is_ok() {
        cluster.world.calm_down();
        return;
    }
    cluster.world.calm_down();
    cluster.mend();
    let done = wait_for_all(&mut at_work);
    if tokio::time::timeout(ANSWERS_WITHIN, done).await.is_err() {
        cluster.world.check(Err(format!(
            "a client has no answer {ANSWERS_WITHIN:?} after everything was mended"
        )));
    }
}

async fn wait_for_all(tasks: &mut Vec<tokio::task::JoinHandle<()>>) {
    while let Some(task) = tasks.last_mut() {
        task.await.expect("a client does not panic");
        tasks.pop();
    }
}

/// Nothing goes wrong any more: everything makes progress, and what is stored at the end is what it must be.
async fn calm(cluster: &Arc<Cluster>) {
    let world = &cluster.world;
    // Whatever was on its way when the faults stopped has landed by then.
    world.sleep(10_000).await;
    cluster.mend();
    world.sleep(2_000).await;
    cluster.all_tasks_run();
    for number in 0..world.weather.shards {
        let order = orders::probe(world, number);
        let answered = clients::insist(cluster, &order, u64::MAX);
        if tokio::time::timeout(ANSWERS_WITHIN, answered).await.is_err() {
            let why = format!("shard {number} answers nobody {ANSWERS_WITHIN:?} after everything was mended");
            return world.check(Err(why));
        }
    }
    // By then each owner has saved that, or has learned that its stored states were deleted and read the log again.
    world.sleep(5_000).await;
    cluster::look_at_all(cluster, 0).await;
    if tokio::time::timeout(ROWS_WITHIN, rows_catch_up(cluster)).await.is_err() {
        world.check(Err(format!(
            "read models have not caught up {ROWS_WITHIN:?} after everything was mended: {:?}",
            cluster.rows.checkpoints()
        )));
    }
    for number in 0..cluster.nodes() {
        cluster.stop_node(number).await;
    }
    for shard in 0..world.weather.shards {
        let truth = world.truth.lock().expect("no panic under the lock");
        let promise = cluster
            .states
            .look(shard, |stored| truth.check_all_stored(shard, stored));
        drop(truth);
        world.check(promise);
    }
}

async fn rows_catch_up(cluster: &Cluster) {
    let world = &cluster.world;
    loop {
        let checkpoints = cluster.rows.checkpoints();
        let all_begun = checkpoints.len() >= world.weather.groups.len() * usize::from(world.weather.shards);
        let caught_up = checkpoints
            .iter()
            .all(|(_, _, shard, next)| *next == cluster.brokers.end(*shard));
        if all_begun && caught_up {
            return;
        }
        world.sleep(100).await;
    }
}
