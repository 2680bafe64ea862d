//! The port of a read store: generations of tables, batches committed with their checkpoint, selects in one snapshot.

use std::collections::BTreeSet;

use async_trait::async_trait;
use projections::{Group, Key, Select, Table, TableChange, Value};
use uuid::Uuid;

use crate::log::Checkpoint;

/// One build of a group's tables. The public views (named like the tables) show the live one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    pub group: Group,
    /// 1, 2, 3 … per group.
    pub number: i64,
    /// `Group::definition()` when it was made.
    pub definition: String,
    pub status: GenerationStatus,
    pub shards: u16,
}

impl Generation {
    /// Whether it answers the questions of this version of the program.
    pub fn is_asked(&self) -> bool {
        self.status == GenerationStatus::Live && self.definition == self.group.definition()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationStatus {
    /// Being folded beside the live one.
    Building,
    /// What the views show.
    Live,
    /// Was live before; goes on being folded, for rollback.
    Previous,
}

/// What selects gave, and how far the tables were in the same snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Next offset of each shard that has been read at all, by shard.
    pub read_until: Vec<(u16, u64)>,
    /// One result per select: rows of values, in the order of the select's expressions.
    pub results: Vec<Vec<Vec<Value>>>,
}

/// Stores the tables of read models.
///
/// Physical tables: entity = its columns, primary key (key columns); rollup = its columns + hidden `shard`, primary key
/// (key columns, shard); journal = `shard`, `log_offset`, `row` + its columns, unique by (shard, log_offset, row).
#[async_trait]
pub trait ReadStore: Send + Sync {
    /// Where it is, for people, without secrets.
    fn address(&self) -> String;

    /// The generations of a group, oldest first. Empty on a new store.
    async fn generations(&self, group: Group) -> Result<Vec<Generation>, ViewError>;

    /// Makes empty tables for a new generation with the given definition. It is `Live` at once when the group has none,
    /// `Building` otherwise, and then without the indexes that only questions need. A `Building` one that was left over is dropped first. Two
    /// callers at once: one generation is made, both get it.
    async fn create(&self, group: Group, shards: u16) -> Result<Generation, ViewError>;

    /// Makes the indexes that `generation` does without while it is built, as far as they are not there: to be called before `promote`, once the
    /// tables are full. Takes as long as it takes; commits to these tables wait or fail meanwhile.
    async fn make_indexes(&self, generation: &Generation) -> Result<(), ViewError>;

    /// Swaps the public views to `generation` in one short transaction: it becomes `Live`, the live one `Previous`, and
    /// what was `Previous` is dropped. Promoting the `Previous` one is the rollback: the two change places. Nothing is done for
    /// who saw it `Building` when it has been live since.
    ///
    /// # Errors
    /// When it cannot go live now. Why a `Building` one cannot is noted: see [`blocked`](Self::blocked).
    async fn promote(&self, generation: &Generation) -> Result<(), ViewError>;

    /// How far this shard of the generation has come; `None` = nothing was read yet.
    async fn checkpoint(&self, generation: &Generation, shard: u16) -> Result<Option<Checkpoint>, ViewError>;

    /// The entity rows of this shard that exist under `keys`, all columns, as of the checkpoint `expected` or a later one.
    ///
    /// # Errors
    /// [`ViewError::Moved`] when the checkpoint is not `expected`. What was folded from rows of an older one would pass `commit`, once another
    /// worker has brought the checkpoint back to `expected`: a crash may take the last batches back, and somebody may delete them.
    async fn load(
        &self,
        generation: &Generation,
        shard: u16,
        expected: Option<&Checkpoint>,
        table: &'static Table,
        keys: &[Key],
    ) -> Result<Vec<Vec<Value>>, ViewError>;

    /// One transaction: the checkpoint first, by compare-and-set from `expected` to `next`; then each table's changes; and
    /// clears a noted stop of this shard.
    ///
    /// # Errors
    /// [`ViewError::Moved`] when the checkpoint is not `expected` any more: nothing was changed.
    async fn commit(
        &self,
        generation: &Generation,
        shard: u16,
        expected: Option<&Checkpoint>,
        next: &Checkpoint,
        changes: &[TableChange],
    ) -> Result<(), ViewError>;

    /// Notes that this shard of the generation stopped, and why, for `crm status` of any process.
    async fn note_stop(&self, generation: &Generation, shard: u16, why: &str) -> Result<(), ViewError>;

    /// The stops that are noted: (shard, why).
    async fn stops(&self, generation: &Generation) -> Result<Vec<(u16, String)>, ViewError>;

    /// Why the last attempt to make the indexes of a `Building` generation, or to promote it, failed; `None` = nothing is in its way.
    async fn blocked(&self, generation: &Generation) -> Result<Option<String>, ViewError>;

    /// Runs selects on one generation (its merged tables) in one snapshot.
    ///
    /// # Errors
    /// [`ViewError::TooLarge`] when the rows of one have more than its [`Select::bytes_max`].
    async fn query(&self, generation: &Generation, selects: &[Select]) -> Result<Snapshot, ViewError>;
}

#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    #[error("another worker moved the checkpoint; this batch was rolled back")]
    Moved,
    #[error("the read store refused: {0}")]
    Refused(String),
    #[error("the answer would be made of more than {} MiB; ask for fewer rows at a time, or for less with a filter", .0 / (1024 * 1024))]
    TooLarge(usize),
    #[error("the read store cannot be reached: {0}")]
    Unavailable(String),
    #[error(
        "the read models belong to log {stored}, and the log here is {wanted}: name the read models of this log, or delete these; they come \
         back from their log"
    )]
    OtherLog { stored: Uuid, wanted: Uuid },
}

/// The logs that the read models of a store came from: none in a new store, and more than one in none that is in order.
///
/// # Errors
/// When the store cannot be reached.
pub async fn logs_of(store: &dyn ReadStore) -> Result<BTreeSet<Uuid>, ViewError> {
    let mut logs = BTreeSet::new();
    for group in Group::ALL {
        for generation in store.generations(group).await? {
            for shard in 0..generation.shards {
                logs.extend(
                    store
                        .checkpoint(&generation, shard)
                        .await?
                        .map(|checkpoint| checkpoint.log_id),
                );
            }
        }
    }
    Ok(logs)
}
