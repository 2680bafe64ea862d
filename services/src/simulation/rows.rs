//! A read store: its transactions are whole or not at all and wait for one another, but it may be away, answer late, lose the answer,
//! or be wiped. After each commit its rows are compared with the fold of the log up to their checkpoint.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use projections::{Group, Key, Select, Table, TableChange, Value};

use super::process::Process;
use super::row::DbRow;
use super::tables::{Before, Tables};
use super::world::World;
use crate::log::Checkpoint;
use crate::views::{Generation, GenerationStatus, ReadStore, Snapshot, ViewError};

/// What stands in the database.
pub struct RowDatabase {
    world: Arc<World>,
    generations: Mutex<BTreeMap<(Group, i64), Stored>>,
    /// The number of the last generation that was begun. None is used again, also not after a wipe: a worker that still folds the old
    /// one would take the new one for it.
    last: AtomicI64,
}

struct Stored {
    generation: Generation,
    shards: Vec<Arc<DbRow<StoredShard>>>,
}

#[derive(Default)]
struct StoredShard {
    checkpoint: Option<Checkpoint>,
    tables: Tables,
    /// What a crash may take back.
    recent: Vec<(Option<Checkpoint>, Before)>,
}

/// Batches that a crash takes back at most.
const TAKEN_BACK: usize = 8;

/// The store as one process has it.
#[derive(Clone)]
pub struct SimRows {
    pub database: Arc<RowDatabase>,
    pub process: Arc<Process>,
}

impl RowDatabase {
    pub fn new(world: Arc<World>) -> Arc<RowDatabase> {
        Arc::new(RowDatabase {
            world,
            generations: Mutex::default(),
            last: AtomicI64::new(0),
        })
    }

    /// An operator deletes the views: they come back by replay.
    pub fn wipe(&self) {
        self.generations.lock().expect("no panic under the lock").clear();
        self.world.note("the views were deleted");
    }

    /// The database crashes, and comes back without the last batches of some shards.
    pub async fn crash(&self) {
        for (_, _, _, row) in self.shards() {
            let _turn = row.lock().await;
            row.write(|stored| {
                let taken = self.world.luck.below(stored.recent.len() as u64 + 1);
                for (checkpoint, before) in stored.recent.drain(stored.recent.len() - taken as usize..).rev() {
                    stored.checkpoint = checkpoint;
                    stored.tables.take_back(before);
                }
            });
        }
    }

    /// Every shard of every generation.
    fn shards(&self) -> Vec<(Group, i64, u16, Arc<DbRow<StoredShard>>)> {
        self.with(|known| {
            let mut found = Vec::new();
            for ((group, number), stored) in known {
                for (shard, row) in stored.shards.iter().enumerate() {
                    found.push((*group, *number, shard as u16, Arc::clone(row)));
                }
            }
            found
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<(Group, i64), Stored>) -> T) -> T {
        work(&mut self.generations.lock().expect("no panic under the lock"))
    }

    fn of(&self, group: Group) -> Vec<Generation> {
        self.with(|known| {
            let known = known.values().map(|stored| &stored.generation);
            known.filter(|known| known.group == group).cloned().collect()
        })
    }

    /// How far every shard of every generation has come.
    pub fn checkpoints(&self) -> Vec<(Group, i64, u16, u64)> {
        let mut found = Vec::new();
        for (group, number, shard, row) in self.shards() {
            let next = row.read(|stored| stored.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.next));
            found.push((group, number, shard, next));
        }
        found
    }
}

impl SimRows {
    async fn call(&self) -> Result<(), ViewError> {
        let world = &self.process.world;
        self.process.pass().await;
        match world.strikes("rows: slow", world.weather.rates.rows_slow) {
            true => world.sleep(world.luck.magnitude(5, 2_000)).await,
            false => world.latency().await,
        }
        match world
            .rows_away
            .is_it(world, "rows: away", world.weather.rates.rows_down)
        {
            true => Err(ViewError::Unavailable("the simulated store is away".into())),
            false => Ok(()),
        }
    }

    fn shard(&self, generation: &Generation, shard: u16) -> Result<Arc<DbRow<StoredShard>>, ViewError> {
        let key = (generation.group, generation.number);
        let found = self.database.with(|known| {
            known
                .get(&key)
                .map(|stored| Arc::clone(&stored.shards[usize::from(shard)]))
        });
        found.ok_or_else(|| ViewError::Refused("there is no such generation".into()))
    }
}

/// The definition of a group takes long to compute, and never changes.
fn definition(group: Group) -> String {
    static KNOWN: LazyLock<BTreeMap<Group, String>> = LazyLock::new(|| {
        Group::ALL
            .into_iter()
            .map(|group| (group, group.definition().to_owned()))
            .collect()
    });
    KNOWN[&group].clone()
}

/// The process whose transaction is not committed yet. Dropped then, it was killed in a batch.
struct InBatch(Option<Arc<Process>>);

impl Drop for InBatch {
    fn drop(&mut self) {
        if let Some(process) = self.0.take().filter(|process| process.is_dead()) {
            process.world.count("projectors killed in a batch");
        }
    }
}

#[async_trait]
impl ReadStore for SimRows {
    fn address(&self) -> String {
        "simulated:".into()
    }

    async fn generations(&self, group: Group) -> Result<Vec<Generation>, ViewError> {
        self.call().await?;
        Ok(self.database.of(group))
    }

    async fn create(&self, group: Group, shards: u16) -> Result<Generation, ViewError> {
        self.call().await?;
        let known = self.database.of(group);
        let number = self.database.last.fetch_add(1, Ordering::Relaxed) + 1;
        let has_live = known.iter().any(|known| known.status == GenerationStatus::Live);
        let status = match has_live {
            true => GenerationStatus::Building,
            false => GenerationStatus::Live,
        };
        let generation = Generation {
            group,
            number,
            definition: definition(group),
            status,
            shards,
        };
        self.database.with(|all| {
            all.retain(|(known, _), stored| *known != group || stored.generation.status != GenerationStatus::Building);
            let stored = Stored {
                generation: generation.clone(),
                shards: (0..shards).map(|_| Arc::default()).collect(),
            };
            all.insert((group, number), stored);
        });
        self.process
            .world
            .note(format_args!("{} generation {number} is begun", group.name()));
        Ok(generation)
    }

    async fn make_indexes(&self, _: &Generation) -> Result<(), ViewError> {
        self.call().await
    }

    async fn promote(&self, generation: &Generation) -> Result<(), ViewError> {
        self.call().await?;
        let promoted = self.database.with(|all| {
            let Some(stored) = all.get(&(generation.group, generation.number)) else {
                return false;
            };
            let status = stored.generation.status;
            if generation.status == GenerationStatus::Building && status != GenerationStatus::Building {
                return true;
            }
            all.retain(|(group, number), stored| {
                let is_other = *group != generation.group || *number == generation.number;
                is_other || stored.generation.status != GenerationStatus::Previous
            });
            for ((group, number), stored) in all.iter_mut() {
                let status = &mut stored.generation.status;
                match (*group == generation.group, *number == generation.number, *status) {
                    (true, true, _) => *status = GenerationStatus::Live,
                    (true, false, GenerationStatus::Live) => *status = GenerationStatus::Previous,
                    _ => {}
                }
            }
            true
        });
        match promoted {
            true => Ok(()),
            false => Err(ViewError::Refused("there is no such generation".into())),
        }
    }

    async fn checkpoint(&self, generation: &Generation, shard: u16) -> Result<Option<Checkpoint>, ViewError> {
        self.call().await?;
        let row = self.shard(generation, shard)?;
        let found = row.read(|stored| stored.checkpoint.clone());
        self.process.world.latency().await;
        self.process.pass().await;
        Ok(found)
    }

    async fn load(
        &self,
        generation: &Generation,
        shard: u16,
        expected: Option<&Checkpoint>,
        table: &'static Table,
        keys: &[Key],
    ) -> Result<Vec<Vec<Value>>, ViewError> {
        self.call().await?;
        let row = self.shard(generation, shard)?;
        let found = row.read(|stored| {
            let rows = keys.iter().filter_map(|key| stored.tables.get(table, key).cloned());
            (stored.checkpoint.as_ref() == expected).then(|| rows.collect())
        });
        self.process.pass().await;
        found.ok_or(ViewError::Moved)
    }

    async fn commit(
        &self,
        generation: &Generation,
        shard: u16,
        expected: Option<&Checkpoint>,
        next: &Checkpoint,
        changes: &[TableChange],
    ) -> Result<(), ViewError> {
        let away = || Err(ViewError::Unavailable("the simulated store is away".into()));
        self.call().await?;
        let world = Arc::clone(&self.process.world);
        let rates = &world.weather.rates;
        let late = world.strikes("rows: committed late", rates.rows_late);
        let mut batch = InBatch(Some(Arc::clone(&self.process)));
        let row = self.shard(generation, shard)?;
        let turn = row.lock().await;
        let (group, number) = (generation.group, generation.number);
        let (expected, next, changes) = (expected.cloned(), next.clone(), changes.to_vec());
        let own_world = Arc::clone(&world);
        let transaction = async move {
            match late {
                true => own_world.sleep(own_world.luck.magnitude(10, 2_000)).await,
                false => own_world.latency().await,
            }
            let result = row.write(|stored| {
                batch.0 = None;
                if stored.checkpoint != expected {
                    own_world.count("batches of a projector that was overtaken");
                    return Err(ViewError::Moved);
                }
                let to = next.next;
                let before = stored.tables.apply(&changes);
                stored.recent.push((stored.checkpoint.replace(next), before));
                if stored.recent.len() > TAKEN_BACK {
                    stored.recent.remove(0);
                }
                own_world.count("batches projected");
                own_world.note(format_args!("{shard}: {} {number} folded up to {to}", group.name()));
                let truth = own_world.truth.lock().expect("no panic under the lock");
                Ok(truth.check_rows(group, shard, stored.checkpoint.as_ref(), &stored.tables))
            });
            drop(turn);
            result.map(|promise| own_world.check(promise))
        };
        if late {
            tokio::spawn(async move { transaction.await.unwrap_or_default() });
            world.sleep(world.luck.magnitude(5, 500)).await;
            self.process.pass().await;
            return away();
        }
        let result = transaction.await;
        if world.strikes("rows: ack lost", rates.rows_ack_lost) {
            self.process.pass().await;
            return away();
        }
        world.latency().await;
        self.process.pass().await;
        result
    }

    async fn note_stop(&self, generation: &Generation, shard: u16, why: &str) -> Result<(), ViewError> {
        self.process
            .world
            .note(format_args!("{shard}: {} stopped: {why}", generation.group.name()));
        self.call().await
    }

    async fn blocked(&self, _: &Generation) -> Result<Option<String>, ViewError> {
        Ok(None)
    }

    async fn stops(&self, _: &Generation) -> Result<Vec<(u16, String)>, ViewError> {
        Ok(vec![])
    }

    async fn query(&self, _: &Generation, _: &[Select]) -> Result<Snapshot, ViewError> {
        Err(ViewError::Refused("nobody asks questions here".into()))
    }
}
