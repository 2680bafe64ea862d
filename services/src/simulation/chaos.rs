//! What strikes whole processes and stores, as long as faults go on.

use std::sync::Arc;

use super::cluster::Cluster;
use super::weather::Strikes;

#[derive(Debug, Clone, Copy)]
enum Strike {
    Pause,
    Crash,
    Restart,
    ClockJump,
    Reassign,
    StatesWiped,
    RowsWiped,
    DatabaseCrash,
    StatesAway,
    RowsAway,
    Rebuild,
}

pub async fn chaos(cluster: Arc<Cluster>) {
    let world = Arc::clone(&cluster.world);
    let strikes = weighted(&world.weather.strikes);
    loop {
        let pause_ms = world.luck.magnitude(10, 2 * world.weather.strikes.every_ms);
        let seen = tokio::select! {
            biased;
            () = world.trouble.notified() => true,
            () = world.sleep(pause_ms) => false,
        };
        if world.is_calm() {
            return;
        }
        // Who looks after the shards may take what is slow for dead.
        if seen {
            world.sleep(world.luck.magnitude(1, 100)).await;
            if world.is_calm() {
                return;
            }
            cluster.reassign();
            continue;
        }
        if !strikes.is_empty() {
            strike(&cluster, *world.luck.pick(&strikes)).await;
        }
    }
}

/// Each kind as often as its weight says.
fn weighted(strikes: &Strikes) -> Vec<Strike> {
    let weights = [
        (Strike::Pause, strikes.pause),
        (Strike::Crash, strikes.crash),
        (Strike::Restart, strikes.restart),
        (Strike::ClockJump, strikes.clock_jump),
        (Strike::Reassign, strikes.reassign),
        (Strike::StatesWiped, strikes.states_wiped),
        (Strike::RowsWiped, strikes.rows_wiped),
        (Strike::DatabaseCrash, strikes.database_crash),
        (Strike::StatesAway, strikes.states_away),
        (Strike::RowsAway, strikes.rows_away),
        (Strike::Rebuild, strikes.rebuild),
    ];
    let each = weights
        .iter()
        .flat_map(|(kind, weight)| (0..*weight).map(move |_| *kind));
    each.collect()
}

async fn strike(cluster: &Arc<Cluster>, kind: Strike) {
    let world = &cluster.world;
    let luck = &world.luck;
    let number = luck.below(cluster.nodes() as u64) as usize;
    let folder = luck.below(cluster.folders() as u64) as usize;
    let at_a_folder = luck.chance(300);
    match kind {
        Strike::Pause => {
            world.count("strike: pause");
            let process = match at_a_folder {
                true => cluster.folder(folder).map(|folder| Arc::clone(&folder.process)),
                false => cluster.node(number).map(|node| Arc::clone(&node.process)),
            };
            let Some(process) = process else { return };
            let pause_ms = luck.magnitude(10, world.weather.pause_ms_max);
            world.note(format_args!("{} is paused for {pause_ms} ms", process.name));
            process.pause();
            tokio::spawn(async move {
                process.world.sleep(pause_ms).await;
                process.resume();
            });
        }
        Strike::Crash => {
            world.count("strike: crash");
            match at_a_folder {
                true => cluster.crash_folder(folder),
                false => cluster.crash_node(number),
            }
            come_back(cluster, number, folder);
        }
        Strike::Restart => {
            world.count("strike: restart");
            let own = Arc::clone(cluster);
            tokio::spawn(async move {
                own.stop_node(number).await;
                come_back(&own, number, folder);
            });
        }
        Strike::ClockJump => {
            world.count("strike: clock jump");
            let Some(node) = cluster.node(number) else { return };
            let jump_ms = luck.below(2 * world.weather.clock_jump_ms_max).cast_signed();
            let skew_ms = jump_ms - world.weather.clock_jump_ms_max.cast_signed();
            world.note(format_args!(
                "the clock of {} goes {skew_ms} ms wrong",
                node.process.name
            ));
            node.process.set_clock(skew_ms);
        }
        Strike::Reassign => {
            world.count("strike: reassign");
            cluster.reassign();
        }
        Strike::StatesWiped => {
            world.count("strike: states wiped");
            cluster.states.wipe().await;
        }
        Strike::RowsWiped => {
            world.count("strike: rows wiped");
            cluster.rows.wipe();
        }
        Strike::DatabaseCrash => {
            world.count("strike: database crash");
            cluster.states.crash().await;
            cluster.rows.crash().await;
        }
        Strike::StatesAway => {
            world.count("strike: states away");
            world.states_away.go(world, luck.magnitude(500, 20_000));
        }
        Strike::RowsAway => {
            world.count("strike: rows away");
            world.rows_away.go(world, luck.magnitude(500, 20_000));
        }
        Strike::Rebuild => {
            let own = Arc::clone(cluster);
            tokio::spawn(async move { own.rebuild(folder).await });
        }
    }
}

/// After a while whatever is down starts again.
fn come_back(cluster: &Arc<Cluster>, number: usize, folder: usize) {
    let own = Arc::clone(cluster);
    tokio::spawn(async move {
        own.world.sleep(own.world.luck.magnitude(1, 3_000)).await;
        own.start_node(number);
        own.start_folder(folder);
    });
}
