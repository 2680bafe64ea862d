//! The port of the state store: a shard's cache of states and command ids, written behind the log and never a second truth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use domain::{AnyState, StreamRef};
use jiff::Timestamp;
use uuid::Uuid;

use crate::log::Checkpoint;

/// How far the stored states of a shard have come, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark {
    pub shard: u16,
    /// The epoch of the owner; a save of an older owner fails.
    pub owner_epoch: u64,
    pub checkpoint: Checkpoint,
    /// The latest recorded time, below which the shard's clock never goes again.
    pub last_time: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SavedState {
    pub stream: StreamRef,
    pub version: u64,
    pub state: Arc<AnyState>,
}

/// A command that wrote, and what was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedCommand {
    pub id: Uuid,
    /// Of the command's content.
    pub hash: String,
    /// The streams it wrote to, in order of their first event, with their versions after it.
    pub streams: Vec<(StreamRef, u64)>,
    /// The offset of its last event.
    pub offset: u64,
    /// How many events it wrote.
    pub events: u32,
    pub at: Timestamp,
}

/// What the owner of a shard's stored states knows of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub owner_epoch: u64,
    /// How far they have come at least: the next offset of a watermark that was stored; 0 = none is known.
    pub next: u64,
}

impl Held {
    /// Is it still so, with this owner and this watermark in the store?
    ///
    /// # Errors
    /// [`StateError::Fenced`], [`StateError::FellBack`].
    pub fn check(self, owner_epoch: Option<u64>, next: Option<u64>) -> Result<(), StateError> {
        let next = next.unwrap_or(0);
        match owner_epoch {
            Some(epoch) if epoch > self.owner_epoch => Err(StateError::Fenced),
            Some(epoch) if epoch == self.owner_epoch && next >= self.next => Ok(()),
            _ => Err(StateError::FellBack { known: self.next, next }),
        }
    }
}

/// What `load` found; what is not in it does not exist.
#[derive(Debug, Default)]
pub struct Loaded {
    pub states: Vec<SavedState>,
    pub commands: Vec<SavedCommand>,
}

/// Stores states and command ids per shard.
#[async_trait]
pub trait StateStore: Send + Sync {
    /// How far the stored states have come; `None` = nothing is stored.
    ///
    /// # Errors
    /// [`StateError::OtherLog`].
    async fn watermark(&self, shard: u16, log_id: Uuid) -> Result<Option<Watermark>, StateError>;

    /// The address at which the shard's last owner answers commands, as it gave it in [`claim`](Self::claim); `None` = nobody yet.
    async fn owner(&self, shard: u16, log_id: Uuid) -> Result<Option<String>, StateError>;

    /// Makes `epoch` the owner of the shard's stored states and answers how far they have come; `None` = nothing is stored.
    /// After it, no save of an older owner succeeds. `address` is where the owner answers commands.
    ///
    /// # Errors
    /// [`StateError::Fenced`] when a later epoch has been here; [`StateError::OtherLog`].
    async fn claim(&self, shard: u16, log_id: Uuid, epoch: u64, address: &str)
    -> Result<Option<Watermark>, StateError>;

    /// The states and command ids that are stored.
    ///
    /// # Errors
    /// [`StateError::Fenced`] when somebody else owns them by now. [`StateError::FellBack`] when less is stored than `held` says: what is
    /// not found then may exist all the same.
    async fn load(
        &self,
        shard: u16,
        held: Held,
        streams: &[StreamRef],
        commands: &[Uuid],
    ) -> Result<Loaded, StateError>;

    /// Streams of the shard whose states are stored: `max` of them at most, in an order of the store's own, from the first one after `after`
    /// on. An empty page = there are no more. A stream that is saved meanwhile may be among them or not.
    ///
    /// # Errors
    /// As `load`.
    async fn streams(
        &self,
        shard: u16,
        held: Held,
        after: Option<StreamRef>,
        max: usize,
    ) -> Result<Vec<StreamRef>, StateError>;

    /// The same of the derived command ids: those that are not of version 7.
    async fn derived_commands(
        &self,
        shard: u16,
        held: Held,
        after: Option<Uuid>,
        max: usize,
    ) -> Result<Vec<Uuid>, StateError>;

    /// The secret that the processes share which use this store, kept here because they all may write here already. The first one that asks
    /// stores `proposed`; all get the same one.
    ///
    /// # Errors
    /// [`StateError::Unavailable`], also when this store keeps none.
    async fn peer_secret(&self, proposed: &str) -> Result<String, StateError> {
        let _unused = proposed;
        Err(StateError::Unavailable("this store keeps no secrets".into()))
    }

    /// What time it is for the store, where its clock is not that of this machine's processes; `None` where it has none of its own.
    ///
    /// # Errors
    /// [`StateError::Unavailable`].
    async fn time(&self) -> Result<Option<Timestamp>, StateError> {
        Ok(None)
    }

    /// Saves states, command ids and the watermark in one transaction.
    ///
    /// # Errors
    /// As `load`; then nothing was saved. Stores may say [`StateError::Fenced`] for both.
    async fn save(
        &self,
        held: Held,
        watermark: &Watermark,
        states: &[SavedState],
        commands: &[SavedCommand],
    ) -> Result<(), StateError>;

    /// Forgets client-made (version 7) command ids recorded before `before`.
    async fn forget_commands(&self, before: Timestamp) -> Result<u64, StateError>;
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("another owner has claimed the shard's states")]
    Fenced,
    #[error(
        "the stored states belong to log {stored}, not to {wanted}; delete the views (they come back from the log)"
    )]
    OtherLog { stored: Uuid, wanted: Uuid },
    #[error(
        "the stored states went up to {known}, and now go up to {next}: they were deleted, or a crash took the last ones back"
    )]
    FellBack { known: u64, next: u64 },
    #[error("the state store cannot be reached: {0}")]
    Unavailable(String),
}

/// A state store in memory, for specs and simulations.
#[derive(Debug, Default)]
pub struct MemoryStates {
    shards: Mutex<HashMap<u16, MemoryShard>>,
}

#[derive(Debug, Default)]
struct MemoryShard {
    owner_epoch: u64,
    owner_address: Option<String>,
    watermark: Option<Watermark>,
    states: HashMap<StreamRef, SavedState>,
    commands: HashMap<Uuid, SavedCommand>,
}

impl MemoryShard {
    fn check(&self, held: Held) -> Result<(), StateError> {
        let next = self.watermark.as_ref().map(|watermark| watermark.checkpoint.next);
        held.check(Some(self.owner_epoch), next)
    }
}

impl MemoryStates {
    /// Loses everything, as when somebody deletes the views.
    pub fn clear(&self) {
        self.shards.lock().expect("no panic under the lock").clear();
    }

    fn with<T>(&self, shard: u16, work: impl FnOnce(&mut MemoryShard) -> T) -> T {
        work(
            self.shards
                .lock()
                .expect("no panic under the lock")
                .entry(shard)
                .or_default(),
        )
    }
}

#[async_trait]
impl StateStore for MemoryStates {
    async fn watermark(&self, shard: u16, _: Uuid) -> Result<Option<Watermark>, StateError> {
        Ok(self.with(shard, |stored| stored.watermark.clone()))
    }

    async fn owner(&self, shard: u16, _: Uuid) -> Result<Option<String>, StateError> {
        Ok(self.with(shard, |stored| stored.owner_address.clone()))
    }

    async fn claim(&self, shard: u16, _: Uuid, epoch: u64, address: &str) -> Result<Option<Watermark>, StateError> {
        self.with(shard, |stored| {
            if stored.owner_epoch > epoch {
                return Err(StateError::Fenced);
            }
            stored.owner_epoch = epoch;
            stored.owner_address = Some(address.to_owned());
            Ok(stored.watermark.clone())
        })
    }

    async fn load(
        &self,
        shard: u16,
        held: Held,
        streams: &[StreamRef],
        commands: &[Uuid],
    ) -> Result<Loaded, StateError> {
        self.with(shard, |stored| {
            stored.check(held)?;
            Ok(Loaded {
                states: streams
                    .iter()
                    .filter_map(|stream| stored.states.get(stream).cloned())
                    .collect(),
                commands: commands
                    .iter()
                    .filter_map(|id| stored.commands.get(id).cloned())
                    .collect(),
            })
        })
    }

    async fn streams(
        &self,
        shard: u16,
        held: Held,
        after: Option<StreamRef>,
        max: usize,
    ) -> Result<Vec<StreamRef>, StateError> {
        self.with(shard, |stored| {
            stored.check(held)?;
            Ok(page(stored.states.keys(), after, max))
        })
    }

    async fn derived_commands(
        &self,
        shard: u16,
        held: Held,
        after: Option<Uuid>,
        max: usize,
    ) -> Result<Vec<Uuid>, StateError> {
        self.with(shard, |stored| {
            stored.check(held)?;
            let derived = stored.commands.keys().filter(|id| !is_by_client(**id));
            Ok(page(derived, after, max))
        })
    }

    async fn save(
        &self,
        held: Held,
        watermark: &Watermark,
        states: &[SavedState],
        commands: &[SavedCommand],
    ) -> Result<(), StateError> {
        self.with(watermark.shard, |stored| {
            stored.check(held)?;
            stored.watermark = Some(watermark.clone());
            stored
                .states
                .extend(states.iter().map(|state| (state.stream, state.clone())));
            stored
                .commands
                .extend(commands.iter().map(|command| (command.id, command.clone())));
            Ok(())
        })
    }

    async fn forget_commands(&self, before: Timestamp) -> Result<u64, StateError> {
        let mut shards = self.shards.lock().expect("no panic under the lock");
        let mut forgotten = 0;
        for stored in shards.values_mut() {
            let known = stored.commands.len();
            stored
                .commands
                .retain(|id, command| !is_by_client(*id) || command.at >= before);
            forgotten += (known - stored.commands.len()) as u64;
        }
        Ok(forgotten)
    }
}

/// Does this command id carry the time at which a client made it (version 7), and may it be forgotten? All others are derived.
pub fn is_by_client(id: Uuid) -> bool {
    id.get_version_num() == 7
}

/// A page of what is stored.
pub(crate) fn page<'a, T: Copy + Ord + 'a>(
    stored: impl Iterator<Item = &'a T>,
    after: Option<T>,
    max: usize,
) -> Vec<T> {
    let mut listed: Vec<T> = stored.copied().filter(|item| Some(*item) > after).collect();
    listed.sort_unstable();
    listed.truncate(max);
    listed
}

/// Sixteen hex digits that change whenever a state type changes: states of another shape are never read, but built anew beside.
pub fn states_definition() -> String {
    let schemas: Vec<String> = domain::StreamKind::ALL
        .iter()
        .map(|kind| serde_json::to_string(&kind.state_schema()).expect("a schema is plain data"))
        .collect();
    let parts: Vec<&str> = schemas.iter().map(String::as_str).collect();
    domain::derived_id(&parts).simple().to_string()[..16].to_owned()
}
