//! A state store: its transactions are whole or not at all and wait for one another, but it may be away, answer late, lose the answer,
//! or be wiped.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use domain::StreamRef;
use jiff::Timestamp;
use uuid::Uuid;

use super::process::Process;
use super::row::DbRow;
use super::world::World;
use crate::states::{Held, Loaded, SavedCommand, SavedState, StateError, StateStore, Watermark, is_by_client, page};

/// What stands in the database.
pub struct StateDatabase {
    world: Arc<World>,
    shards: Vec<Arc<DbRow<StoredShard>>>,
}

#[derive(Default)]
pub struct StoredShard {
    owner: Option<(u64, String)>,
    pub watermark: Option<Watermark>,
    pub states: BTreeMap<StreamRef, SavedState>,
    pub commands: BTreeMap<Uuid, SavedCommand>,
    /// What a crash may take back: the saves since the last claim, which alone is on disk when it is answered.
    recent: Vec<Before>,
}

/// What a save replaced.
struct Before {
    watermark: Option<Watermark>,
    states: Vec<(StreamRef, Option<SavedState>)>,
    commands: Vec<(Uuid, Option<SavedCommand>)>,
}

/// Saves that a crash takes back at most.
const TAKEN_BACK: usize = 8;

impl StoredShard {
    fn keep_for_a_crash(&mut self, states: &[SavedState], commands: &[SavedCommand]) {
        let before = |stream: &StreamRef| (*stream, self.states.get(stream).cloned());
        let answer_before = |id: &Uuid| (*id, self.commands.get(id).cloned());
        let before = Before {
            watermark: self.watermark.clone(),
            states: states.iter().map(|state| before(&state.stream)).collect(),
            commands: commands.iter().map(|command| answer_before(&command.id)).collect(),
        };
        self.recent.push(before);
        if self.recent.len() > TAKEN_BACK {
            self.recent.remove(0);
        }
    }

    fn take_back(&mut self) {
        let Some(before) = self.recent.pop() else { return };
        self.watermark = before.watermark;
        for (stream, state) in before.states {
            match state {
                Some(state) => drop(self.states.insert(stream, state)),
                None => drop(self.states.remove(&stream)),
            }
        }
        for (id, command) in before.commands {
            match command {
                Some(command) => drop(self.commands.insert(id, command)),
                None => drop(self.commands.remove(&id)),
            }
        }
    }

    fn check(&self, held: Held) -> Result<(), StateError> {
        let next = self.watermark.as_ref().map(|watermark| watermark.checkpoint.next);
        held.check(self.owner.as_ref().map(|(epoch, _)| *epoch), next)
    }
}

/// The store as one process has it.
#[derive(Clone)]
pub struct SimStates {
    pub database: Arc<StateDatabase>,
    pub process: Arc<Process>,
}

impl StateDatabase {
    pub fn new(world: Arc<World>) -> Arc<StateDatabase> {
        let shards = (0..world.weather.shards).map(|_| Arc::default()).collect();
        Arc::new(StateDatabase { world, shards })
    }

    /// An operator deletes it: it comes back by replay.
    pub async fn wipe(&self) {
        for shard in &self.shards {
            let _turn = shard.lock().await;
            shard.write(|stored| *stored = StoredShard::default());
        }
        self.world.note("the stored states were deleted");
    }

    /// The database crashes, and comes back without the last saves of some shards.
    pub async fn crash(&self) {
        for (number, shard) in self.shards.iter().enumerate() {
            let _turn = shard.lock().await;
            let taken = shard.write(|stored| {
                let taken = self.world.luck.below(stored.recent.len() as u64 + 1);
                (0..taken).for_each(|_| stored.take_back());
                taken
            });
            self.world
                .note(format_args!("{number}: a crash took {taken} saves back"));
        }
    }

    pub fn look<T>(&self, shard: u16, look: impl FnOnce(&StoredShard) -> T) -> T {
        self.shards[usize::from(shard)].read(look)
    }
}

impl SimStates {
    /// One transaction on a shard's rows.
    async fn transact<T: Send + 'static>(
        &self,
        shard: u16,
        work: impl FnOnce(&mut StoredShard, &World) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let away = || Err(StateError::Unavailable("the simulated store is away".into()));
        let (process, world) = (Arc::clone(&self.process), Arc::clone(&self.process.world));
        let rates = &world.weather.rates;
        process.pass().await;
        world.latency().await;
        if world.states_away.is_it(&world, "states: away", rates.states_down) {
            return away();
        }
        let late = world.strikes("states: committed late", rates.states_late);
        let row = Arc::clone(&self.database.shards[usize::from(shard)]);
        let turn = row.lock().await;
        let own_world = Arc::clone(&world);
        let transaction = async move {
            match late {
                true => own_world.sleep(own_world.luck.magnitude(10, 2_000)).await,
                false => own_world.latency().await,
            }
            let result = row.write(|stored| work(stored, &own_world));
            drop(turn);
            result
        };
        if late {
            // The client gives up; the server does not hear of it.
            tokio::spawn(async move { transaction.await.map(|_| ()) });
            world.sleep(world.luck.magnitude(5, 500)).await;
            process.pass().await;
            return away();
        }
        let result = transaction.await;
        if world.strikes("states: ack lost", rates.states_ack_lost) {
            process.pass().await;
            return away();
        }
        world.latency().await;
        process.pass().await;
        result
    }

    /// Reads what was committed last, whoever writes at the time.
    async fn read<T>(&self, shard: u16, look: impl FnOnce(&StoredShard) -> T) -> Result<T, StateError> {
        let world = &self.process.world;
        self.process.pass().await;
        world.latency().await;
        if world
            .states_away
            .is_it(world, "states: away", world.weather.rates.states_down)
        {
            return Err(StateError::Unavailable("the simulated store is away".into()));
        }
        let found = self.database.look(shard, look);
        match world.strikes("states: slow read", world.weather.rates.states_slow) {
            true => world.sleep(world.luck.magnitude(10, 2_000)).await,
            false => world.latency().await,
        }
        self.process.pass().await;
        Ok(found)
    }
}

#[async_trait]
impl StateStore for SimStates {
    async fn watermark(&self, shard: u16, _: Uuid) -> Result<Option<Watermark>, StateError> {
        self.read(shard, |stored| stored.watermark.clone()).await
    }

    async fn owner(&self, shard: u16, _: Uuid) -> Result<Option<String>, StateError> {
        self.read(shard, |stored| {
            stored.owner.as_ref().map(|(_, address)| address.clone())
        })
        .await
    }

    async fn claim(&self, shard: u16, _: Uuid, epoch: u64, address: &str) -> Result<Option<Watermark>, StateError> {
        let address = address.to_owned();
        self.transact(shard, move |stored, _| {
            if stored.owner.as_ref().is_some_and(|(owner, _)| *owner > epoch) {
                return Err(StateError::Fenced);
            }
            stored.owner = Some((epoch, address));
            stored.recent.clear();
            Ok(stored.watermark.clone())
        })
        .await
    }

    async fn load(
        &self,
        shard: u16,
        held: Held,
        streams: &[StreamRef],
        commands: &[Uuid],
    ) -> Result<Loaded, StateError> {
        let found = self.read(shard, |stored| {
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
        });
        found.await?
    }

    async fn streams(
        &self,
        shard: u16,
        held: Held,
        after: Option<StreamRef>,
        max: usize,
    ) -> Result<Vec<StreamRef>, StateError> {
        let found = self.read(shard, |stored| {
            stored.check(held)?;
            Ok(page(stored.states.keys(), after, max))
        });
        found.await?
    }

    async fn derived_commands(
        &self,
        shard: u16,
        held: Held,
        after: Option<Uuid>,
        max: usize,
    ) -> Result<Vec<Uuid>, StateError> {
        let found = self.read(shard, |stored| {
            stored.check(held)?;
            let derived = stored.commands.keys().filter(|id| !is_by_client(**id));
            Ok(page(derived, after, max))
        });
        found.await?
    }

    async fn save(
        &self,
        held: Held,
        watermark: &Watermark,
        states: &[SavedState],
        commands: &[SavedCommand],
    ) -> Result<(), StateError> {
        let (watermark, states, commands) = (watermark.clone(), states.to_vec(), commands.to_vec());
        self.transact(watermark.shard, move |stored, world| {
            stored.check(held)?;
            let shard = watermark.shard;
            world.note(format_args!(
                "{shard}: saved {} states and {} commands up to {}",
                states.len(),
                commands.len(),
                watermark.checkpoint.next
            ));
            stored.keep_for_a_crash(&states, &commands);
            stored.watermark = Some(watermark);
            stored
                .states
                .extend(states.into_iter().map(|state| (state.stream, state)));
            stored
                .commands
                .extend(commands.into_iter().map(|command| (command.id, command)));
            world.count("saves");
            let truth = world.truth.lock().expect("no panic under the lock");
            let promise = truth.check_stored(shard, stored);
            drop(truth);
            world.check(promise);
            Ok(())
        })
        .await
    }

    async fn forget_commands(&self, _: Timestamp) -> Result<u64, StateError> {
        Ok(0)
    }
}
