//! What a shard works with: its log, its store, its clock, and its limits.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::log::EventLog;
use crate::states::StateStore;

/// What a shard's task works with.
#[derive(Clone)]
pub struct ShardParts {
    pub log: Arc<dyn EventLog>,
    pub states: Arc<dyn StateStore>,
    pub clock: Arc<dyn Clock>,
    /// Names this process; a later claim by another one means that this one is not the owner any more.
    pub node: String,
    /// Where this process answers commands, for other processes to send theirs to.
    pub address: String,
    /// `/crm/<instance>`, the CloudEvents source.
    pub source: String,
    pub config: ShardConfig,
}

/// The limits of a shard; each with its reason.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Commands that wait, in each of the two lanes. More of people's are answered 503 at once. A burst, or a short stall,
    /// may fill it.
    pub queue_max: usize,
    /// So many requests of people may always be accepted and not answered, `queue_max` allowing.
    pub steady_min: usize,
    /// More than `steady_min` may be accepted for longer than a burst, when at the pace of the shard they are answered
    /// within this time, or within that of three quick appends. Under overload an accepted command waits about so long.
    pub steady_wait: Duration,
    /// How long there may be more of them than that, before new ones are answered 503 at once. A stall that ends in this
    /// time refuses nobody for whom there is room in the queue.
    pub burst: Duration,
    /// Records of one append: what a shard decides in a few milliseconds, also when the others of the process want the
    /// same cores.
    pub batch_records_max: usize,
    /// Bytes of one append.
    pub batch_bytes_max: usize,
    /// States in memory that could be loaded again. Changed ones come on top, up to `unsaved_max`.
    pub cached_streams_max: usize,
    /// Streams, or command ids, of one page when, after a take-over, the state store is asked which ones it has; one at least.
    pub inventory_page_max: usize,
    /// Command ids in memory.
    pub cached_commands_max: usize,
    /// Changed states and command ids that wait for the state store; beyond it commands are answered 503.
    pub unsaved_max: usize,
    /// How many of them make a save due before its time.
    pub save_at: usize,
    /// How often states are saved when little happens.
    pub save_every: Duration,
    /// How long a command may take, queue included.
    pub command_timeout: Duration,
    /// Pause between two attempts to take over.
    pub retry_pause: Duration,
    /// Pause before a shard that another process claimed is claimed back by the one that is assigned to it.
    pub contest_pause: Duration,
}

impl Default for ShardConfig {
    fn default() -> ShardConfig {
        ShardConfig {
            queue_max: 512,
            steady_min: 64,
            steady_wait: Duration::from_millis(30),
            burst: Duration::from_secs(2),
            batch_records_max: 128,
            batch_bytes_max: 4 * 1024 * 1024,
            cached_streams_max: 100_000,
            inventory_page_max: 10_000,
            cached_commands_max: 100_000,
            unsaved_max: 100_000,
            save_at: 5_000,
            save_every: Duration::from_secs(1),
            command_timeout: Duration::from_secs(30),
            retry_pause: Duration::from_millis(200),
            contest_pause: Duration::from_secs(1),
        }
    }
}
