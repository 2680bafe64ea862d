//! What kind of world a seed makes: how many of everything, and how often what goes wrong. Each kind of fault is absent from some worlds
//! and frequent in others, because a world with all of them at once hides what two of them do together.

use std::time::Duration;

use projections::Group;

use super::luck::Luck;
use crate::shard::ShardConfig;

/// How often, in thousandths of the calls that it can strike.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    pub append_ack_lost: u64,
    pub append_ack_slow: u64,
    pub append_lost: u64,
    pub append_late: u64,
    pub append_torn: u64,
    pub append_dropped_one: u64,
    pub append_twice: u64,
    pub append_split: u64,
    pub append_refused: u64,
    pub read_failed: u64,
    pub read_slow: u64,
    pub states_down: u64,
    pub states_ack_lost: u64,
    pub states_late: u64,
    /// What was found is told much later.
    pub states_slow: u64,
    pub rows_down: u64,
    pub rows_ack_lost: u64,
    pub rows_late: u64,
    pub rows_slow: u64,
    pub network_lost: u64,
    pub network_slow: u64,
    pub sent_twice: u64,
}

/// What strikes whole processes: one of them is drawn every `every_ms` or so, by weight.
#[derive(Debug, Clone, Default)]
pub struct Strikes {
    pub every_ms: u64,
    pub pause: u64,
    pub crash: u64,
    pub restart: u64,
    pub clock_jump: u64,
    pub reassign: u64,
    pub states_wiped: u64,
    pub rows_wiped: u64,
    pub database_crash: u64,
    /// A store is away for seconds.
    pub states_away: u64,
    pub rows_away: u64,
    pub rebuild: u64,
}

#[derive(Debug, Clone)]
pub struct Weather {
    pub shards: u16,
    pub nodes: usize,
    /// Processes with projection workers.
    pub folders: usize,
    pub groups: Vec<Group>,
    pub clients: u64,
    pub commands_per_client: u64,
    pub think_ms_max: u64,
    pub customers: u64,
    /// Is there a coordinator that assigns shards? If not, whoever starts claims, and yields to whoever claims later.
    pub coordinator: bool,
    pub clock_jump_ms_max: u64,
    pub latency_ms_max: u64,
    pub pause_ms_max: u64,
    /// Records of one read at most.
    pub read_max: u64,
    pub config: ShardConfig,
    pub rates: Rates,
    pub strikes: Strikes,
}

impl Weather {
    pub fn of(luck: &Luck) -> Weather {
        // In thousandths, how likely a kind of fault is absent: in some worlds only a few go wrong, and those undisturbed.
        let calm = *luck.pick(&[300, 550, 850]);
        // In some, whatever was written is soon stored and out of memory, and slowly looked up again by whoever comes next.
        let forgetful = luck.chance(200);
        let nodes = *luck.pick(&[1, 2, 2, 3, 3]);
        let shards = *luck.pick(&[1, 1, 2]);
        Weather {
            shards,
            nodes,
            folders: *luck.pick(&[1, 1, 2, 3]),
            groups: groups(luck),
            clients: luck.between(2, 8),
            commands_per_client: luck.between(8, 28),
            think_ms_max: if forgetful { 0 } else { *luck.pick(&[0, 5, 50, 400]) },
            customers: luck.between(1, 8),
            coordinator: nodes > 1 && luck.chance(800),
            clock_jump_ms_max: *luck.pick(&[100, 30_000, 200_000, 1_200_000]),
            latency_ms_max: *luck.pick(&[0, 1, 3, 20]),
            pause_ms_max: *luck.pick(&[300, 3_000, 15_000]),
            read_max: *luck.pick(&[1, 3, 20, 5_000]),
            config: config(luck, forgetful),
            rates: Rates {
                append_ack_lost: rate(luck, calm, 60),
                append_ack_slow: rate(luck, calm, 600),
                append_lost: rate(luck, calm, 40),
                append_late: rate(luck, calm, 60),
                append_torn: rate(luck, calm, 60),
                append_dropped_one: rate(luck, calm, 60),
                append_twice: rate(luck, calm, 40),
                append_split: rate(luck, calm, 200),
                append_refused: rate(luck, calm, 60),
                read_failed: rate(luck, calm, 30),
                read_slow: rate(luck, calm, 100),
                states_down: rate(luck, calm, 200),
                states_ack_lost: rate(luck, calm, 100),
                states_late: rate(luck, calm, 60),
                states_slow: if forgetful { 500 } else { rate(luck, calm, 300) },
                rows_down: rate(luck, calm, 100),
                rows_ack_lost: rate(luck, calm, 100),
                rows_late: rate(luck, calm, 60),
                rows_slow: rate(luck, calm, 200),
                network_lost: rate(luck, calm, 80),
                network_slow: rate(luck, calm, 80),
                sent_twice: if forgetful { 600 } else { rate(luck, calm, 300) },
            },
            strikes: Strikes {
                every_ms: luck.magnitude(50, 4_000),
                pause: weight(luck, calm),
                crash: weight(luck, calm),
                restart: weight(luck, calm),
                clock_jump: weight(luck, calm),
                reassign: weight(luck, calm),
                states_wiped: weight(luck, calm) / 3,
                rows_wiped: weight(luck, calm) / 3,
                database_crash: weight(luck, calm) / 2,
                states_away: weight(luck, calm) / 2,
                rows_away: weight(luck, calm) / 2,
                rebuild: weight(luck, calm) / 3,
            },
        }
    }
}

fn rate(luck: &Luck, calm: u64, max: u64) -> u64 {
    if luck.chance(calm) { 0 } else { luck.magnitude(1, max) }
}

fn weight(luck: &Luck, calm: u64) -> u64 {
    if luck.chance(calm) { 0 } else { luck.between(1, 10) }
}

/// One group most of the time: the engine is the same for all.
fn groups(luck: &Luck) -> Vec<Group> {
    let first = *luck.pick(&Group::ALL);
    let second = *luck.pick(&Group::ALL);
    match first != second && luck.chance(300) {
        true => vec![first, second],
        false => vec![first],
    }
}

fn config(luck: &Luck, forgetful: bool) -> ShardConfig {
    let any = ShardConfig {
        queue_max: *luck.pick(&[2, 64]),
        steady_min: *luck.pick(&[1, 64]),
        steady_wait: Duration::from_millis(*luck.pick(&[0, 50])),
        burst: Duration::from_millis(*luck.pick(&[0, 2_000])),
        batch_records_max: *luck.pick(&[1, 4, 2_000]),
        batch_bytes_max: *luck.pick(&[1_500, 4 * 1024 * 1024]),
        cached_streams_max: *luck.pick(&[1, 20, 100_000]),
        cached_commands_max: *luck.pick(&[1, 10, 100_000]),
        unsaved_max: *luck.pick(&[20, 100_000]),
        save_at: *luck.pick(&[1, 10, 5_000]),
        save_every: Duration::from_millis(*luck.pick(&[10, 200, 1_000])),
        command_timeout: Duration::from_millis(*luck.pick(&[500, 2_000, 10_000])),
        retry_pause: Duration::from_millis(*luck.pick(&[10, 200])),
        contest_pause: Duration::from_millis(*luck.pick(&[50, 1_000])),
        inventory_page_max: *luck.pick(&[1, 5, 10_000]),
    };
    match forgetful {
        true => ShardConfig {
            cached_streams_max: 1,
            cached_commands_max: 1,
            save_at: 1,
            save_every: Duration::from_millis(10),
            ..any
        },
        false => any,
    }
}
