//! A log like Kafka's: it does not know who owns a shard, and what was sent may land late, twice, in parts, or not at all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use domain::{Calendar, derived_id};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::process::Process;
use super::world::World;
use crate::log::{AppendError, EventLog, LogCreated, LogError, LogReader, LogWriter, Record};

/// What the brokers hold.
pub struct Brokers {
    world: Arc<World>,
    shards: Vec<Shard>,
}

struct Shard {
    records: Mutex<Vec<Record>>,
    /// Rings when one more has landed.
    grown: Notify,
}

/// The log as one process has it.
#[derive(Clone)]
pub struct SimLog {
    pub brokers: Arc<Brokers>,
    pub process: Arc<Process>,
}

pub fn log_id() -> Uuid {
    derived_id(&["simulated log"])
}

impl Brokers {
    /// A log that was just created.
    pub fn new(world: Arc<World>) -> Arc<Brokers> {
        let shards = world.weather.shards;
        let shard = || Shard {
            records: Mutex::default(),
            grown: Notify::new(),
        };
        let brokers = Arc::new(Brokers {
            shards: (0..shards).map(|_| shard()).collect(),
            world,
        });
        let created = LogCreated {
            log_id: log_id(),
            shards,
            slots: domain::SLOTS,
            calendar: Calendar::taipei(),
        };
        for shard in 0..shards {
            brokers.land(shard, created.to_record(brokers.world.time()));
        }
        brokers
    }

    pub fn end(&self, shard: u16) -> u64 {
        let records = self.shards[usize::from(shard)].records.lock();
        records.expect("no panic under the lock").len() as u64
    }

    /// A record takes the next offset.
    fn land(&self, shard: u16, record: Record) -> u64 {
        let at = &self.shards[usize::from(shard)];
        let mut records = at.records.lock().expect("no panic under the lock");
        let offset = records.len() as u64;
        let seen = self
            .world
            .truth
            .lock()
            .expect("no panic under the lock")
            .observe(shard, offset, &record);
        records.push(record);
        drop(records);
        at.grown.notify_waiters();
        match seen {
            Ok(seen) => {
                self.world.count(seen.kind());
                self.world.note(format_args!("{shard}:{offset} {seen}"));
            }
            Err(broken) => self.world.check(Err(broken)),
        }
        offset
    }
}

impl Shard {
    /// The records from `next` on, some of them at most.
    fn from(&self, next: u64, some: usize) -> Vec<(u64, Record)> {
        let records = self.records.lock().expect("no panic under the lock");
        let from = records.iter().enumerate().skip(next as usize);
        from.take(some)
            .map(|(offset, record)| (offset as u64, record.clone()))
            .collect()
    }
}

/// What becomes of an append: parts that land after a while each, and what the writer hears.
struct Fate {
    parts: Vec<(u64, Vec<Record>)>,
    hears: Hears,
}

enum Hears {
    /// The offsets of the first copy, so long after all have landed.
    OffsetsAfter(u64),
    /// That nobody knows, so long after it was sent.
    UnknownAfter(u64),
}

impl SimLog {
    fn fate(&self, records: Vec<Record>) -> Fate {
        let world = &self.process.world;
        let (luck, rates) = (&world.luck, &world.weather.rates);
        let soon = luck.below(world.weather.latency_ms_max + 1);
        let waits = luck.magnitude(5, 800);
        let count = records.len() as u64;
        if world.strikes("append: ack lost", rates.append_ack_lost) {
            return Fate {
                parts: vec![(soon, records)],
                hears: Hears::UnknownAfter(waits),
            };
        }
        if world.strikes("append: lost", rates.append_lost) {
            return Fate {
                parts: vec![],
                hears: Hears::UnknownAfter(waits),
            };
        }
        if world.strikes("append: late", rates.append_late) {
            return Fate {
                parts: vec![(luck.magnitude(10, 8_000), records)],
                hears: Hears::UnknownAfter(waits),
            };
        }
        if world.strikes("append: torn", rates.append_torn) {
            let mut first = records;
            let rest = first.split_off(luck.below(count) as usize);
            // The rest is lost, or comes after all.
            let parts = match luck.chance(500) {
                true => vec![(soon, first)],
                false => vec![(soon, first), (luck.magnitude(10, 8_000), rest)],
            };
            return Fate {
                parts,
                hears: Hears::UnknownAfter(waits),
            };
        }
        if world.strikes("append: one record dropped", rates.append_dropped_one) {
            let mut rest = records;
            rest.remove(luck.below(count) as usize);
            return Fate {
                parts: vec![(soon, rest)],
                hears: Hears::UnknownAfter(waits),
            };
        }
        if world.strikes("append: landed twice", rates.append_twice) {
            return Fate {
                parts: vec![(soon, records.clone()), (luck.magnitude(1, 2_000), records)],
                hears: match luck.chance(500) {
                    true => Hears::UnknownAfter(waits),
                    false => Hears::OffsetsAfter(0),
                },
            };
        }
        if count > 1 && world.strikes("append: split", rates.append_split) {
            let mut first = records;
            let rest = first.split_off(luck.between(1, count - 1) as usize);
            return Fate {
                parts: vec![(soon, first), (luck.magnitude(1, 300), rest)],
                hears: Hears::OffsetsAfter(0),
            };
        }
        let slow = world.strikes("append: ack slow", rates.append_ack_slow);
        if slow {
            world.trouble.notify_one();
        }
        Fate {
            parts: vec![(soon, records)],
            hears: Hears::OffsetsAfter(if slow { luck.magnitude(5, 3_000) } else { 0 }),
        }
    }
}

/// Lets the parts land, one after the other. What was sent goes on whatever becomes of its sender.
async fn land(log: SimLog, shard: u16, parts: Vec<(u64, Vec<Record>)>, landed: oneshot::Sender<Vec<u64>>) {
    let mut offsets = Vec::new();
    let lost_with_sender = log.process.world.luck.chance(500);
    for (after_ms, records) in parts {
        log.process.world.sleep(after_ms).await;
        // It may have been in the sender's own memory still.
        if lost_with_sender && log.process.is_dead() {
            return;
        }
        offsets.extend(records.into_iter().map(|record| log.brokers.land(shard, record)));
    }
    // The sender may have given up waiting.
    landed.send(offsets).unwrap_or_default();
}

#[async_trait]
impl EventLog for SimLog {
    fn address(&self) -> String {
        "simulated:".into()
    }

    async fn create(&self, _: u16) -> Result<(), LogError> {
        Ok(())
    }

    async fn open(&self) -> Result<u16, LogError> {
        Ok(self.process.world.weather.shards)
    }

    async fn end(&self, shard: u16) -> Result<u64, LogError> {
        self.call().await?;
        let end = self.brokers.end(shard);
        self.process.world.latency().await;
        self.process.pass().await;
        Ok(end)
    }

    async fn writer(&self, shard: u16) -> Result<Box<dyn LogWriter>, LogError> {
        self.call().await?;
        Ok(Box::new(Writer {
            log: self.clone(),
            shard,
        }))
    }

    async fn reader(&self, shard: u16, from: u64) -> Result<Box<dyn LogReader>, LogError> {
        self.process.pass().await;
        if from > self.brokers.end(shard) {
            return Err(LogError::OutOfRange { shard, offset: from });
        }
        Ok(Box::new(Reader {
            log: self.clone(),
            shard,
            next: from,
        }))
    }
}

impl SimLog {
    async fn call(&self) -> Result<(), LogError> {
        let world = &self.process.world;
        self.process.pass().await;
        world.latency().await;
        match world.strikes("log: unreachable", world.weather.rates.read_failed) {
            true => Err(LogError::Unavailable("the simulated log is away".into())),
            false => Ok(()),
        }
    }
}

struct Writer {
    log: SimLog,
    shard: u16,
}

#[async_trait]
impl LogWriter for Writer {
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError> {
        let process = &self.log.process;
        let world = &process.world;
        process.pass().await;
        if world.strikes("append: refused", world.weather.rates.append_refused) {
            world.latency().await;
            process.pass().await;
            return Err(AppendError::Refused("the simulated log has no room".into()));
        }
        let count = records.len();
        let fate = self.log.fate(records);
        let (answer, landed) = oneshot::channel();
        tokio::spawn(land(self.log.clone(), self.shard, fate.parts, answer));
        let result = match fate.hears {
            Hears::UnknownAfter(after_ms) => {
                world.sleep(after_ms).await;
                Err(AppendError::Unknown("the simulated log did not answer".into()))
            }
            Hears::OffsetsAfter(after_ms) => {
                let Ok(mut offsets) = landed.await else {
                    // What was sent died with its sender.
                    return std::future::pending().await;
                };
                world.sleep(after_ms).await;
                offsets.truncate(count);
                Ok(offsets)
            }
        };
        world.latency().await;
        process.pass().await;
        result
    }
}

struct Reader {
    log: SimLog,
    shard: u16,
    next: u64,
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self, records_max: usize, wait: Duration) -> Result<Vec<(u64, Record)>, LogError> {
        let world = Arc::clone(&self.log.process.world);
        let deadline = Instant::now() + wait;
        self.log.call().await?;
        let shard = &self.log.brokers.shards[usize::from(self.shard)];
        let some = records_max.min(world.luck.between(1, world.weather.read_max) as usize);
        let batch = loop {
            let grown = shard.grown.notified();
            let batch = shard.from(self.next, some);
            if !batch.is_empty() || tokio::time::timeout_at(deadline, grown).await.is_err() {
                break batch;
            }
        };
        if world.strikes("log: slow read", world.weather.rates.read_slow) {
            world.sleep(world.luck.magnitude(5, 500)).await;
        }
        self.log.process.pass().await;
        self.next += batch.len() as u64;
        Ok(batch)
    }
}
