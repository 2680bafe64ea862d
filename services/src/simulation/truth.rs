//! What is true: which records count, said a second time and without the code under test; the states and rows that follow from them; and
//! what clients were told. Every promise is looked at when it could be broken, not only at the end.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use domain::{AnyState, Calendar, Position, StreamKind, StreamRef};
use jiff::Timestamp;
use projections::{Group, Key, Rows, Table};
use uuid::Uuid;

use super::states::StoredShard;
use super::tables::Tables;
use crate::log::{Checkpoint, Envelope, Meaning, Record, StoredEvent};

pub struct Truth {
    shards: Vec<Shard>,
    pub asked: HashMap<Uuid, Asked>,
}

/// A command as its clients know it.
#[derive(Debug, Default, Clone)]
pub struct Asked {
    /// Attempts that have no answer yet.
    pub open: u32,
    /// An attempt ended without saying what became of it.
    pub unknown: bool,
    /// Whoever asked was told, each time, that nothing was applied.
    pub surely_not: bool,
}

/// A commit that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Of its last event.
    pub offset: u64,
    pub events: u32,
    pub hash: String,
    pub streams: Vec<(StreamRef, u64)>,
    pub at: Timestamp,
}

struct Shard {
    number: u16,
    next: u64,
    epoch: u64,
    n: u64,
    open: Vec<StoredEvent>,
    /// After which offsets a reader may stand, with what it then has seen.
    boundaries: HashMap<u64, Boundary>,
    last_time: Timestamp,
    streams: BTreeMap<StreamRef, Story>,
    commands: BTreeMap<Uuid, Applied>,
    folds: BTreeMap<Group, Fold>,
    /// The next offset after the last position that a client was told.
    told: u64,
}

#[derive(PartialEq)]
struct Boundary {
    epoch: u64,
    n: u64,
    fingerprint: u64,
    last_time: Timestamp,
}

/// A stream's versions: `states[v]` is its state at version v, which stands from offset `ends[v - 1]` on.
pub struct Story {
    pub states: Vec<Arc<AnyState>>,
    ends: Vec<u64>,
}

/// The rows that follow from the log, and what their digest was at each point of it.
struct Fold {
    tables: Tables,
    digests: BTreeMap<u64, u64>,
}

/// What a record came to.
#[derive(Debug)]
pub enum Seen {
    Created,
    Claimed {
        epoch: u64,
        node: String,
    },
    Barrier {
        epoch: u64,
        n: u64,
    },
    Part {
        epoch: u64,
        n: u64,
    },
    Commit {
        epoch: u64,
        n: u64,
        command: Uuid,
        events: u32,
    },
    Void {
        epoch: u64,
        n: u64,
    },
}

impl Seen {
    pub fn kind(&self) -> &'static str {
        match self {
            Seen::Created => "shards",
            Seen::Claimed { .. } => "claims",
            Seen::Barrier { .. } => "barriers",
            Seen::Part { .. } => "parts of commits",
            Seen::Commit { .. } => "commits",
            Seen::Void { .. } => "void records",
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Created => write!(f, "created"),
            Seen::Claimed { epoch, node } => write!(f, "claimed by {node} in epoch {epoch}"),
            Seen::Barrier { epoch, n } => write!(f, "barrier {epoch}.{n}"),
            Seen::Part { epoch, n } => write!(f, "part of a commit {epoch}.{n}"),
            Seen::Commit {
                epoch,
                n,
                command,
                events,
            } => write!(f, "commit {epoch}.{n} of {command}, {events} events"),
            Seen::Void { epoch, n } => write!(f, "void {epoch}.{n}"),
        }
    }
}

impl Truth {
    pub fn new(shards: u16, groups: &[Group]) -> Truth {
        let fold = || Fold {
            tables: Tables::default(),
            digests: BTreeMap::from([(0, 0)]),
        };
        let shard = |number| Shard {
            number,
            next: 0,
            epoch: 0,
            n: 0,
            open: vec![],
            boundaries: HashMap::new(),
            last_time: Timestamp::MIN,
            streams: BTreeMap::new(),
            commands: BTreeMap::new(),
            folds: groups.iter().map(|group| (*group, fold())).collect(),
            told: 0,
        };
        Truth {
            shards: (0..shards).map(shard).collect(),
            asked: HashMap::new(),
        }
    }

    fn shard(&self, shard: u16) -> &Shard {
        &self.shards[usize::from(shard)]
    }

    /// A record has landed.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn observe(&mut self, shard: u16, offset: u64, record: &Record) -> Result<Seen, String> {
        let shards = self.shards.len() as u16;
        let at = &mut self.shards[usize::from(shard)];
        let seen = at.judge(offset, record)?;
        let Seen::Commit { command, .. } = seen else {
            at.mark(record);
            return Ok(seen);
        };
        let events = std::mem::take(&mut at.open);
        at.apply(&events, shards)?;
        at.mark(record);
        match self.asked.get(&command) {
            None => Err(format!("{shard}:{offset}: nobody ever sent command {command}")),
            Some(asked) if asked.surely_not => Err(format!(
                "{shard}:{offset}: command {command} was applied after its client was told that it surely was not"
            )),
            Some(_) => Ok(seen),
        }
    }

    pub fn applied(&self, shard: u16, command: Uuid) -> Option<&Applied> {
        self.shard(shard).commands.get(&command)
    }

    /// The next offset after the last position that any client was told.
    pub fn told(&self, shard: u16) -> u64 {
        self.shard(shard).told
    }

    /// A client was told that what stands at `offset` is durable.
    pub fn tell(&mut self, shard: u16, offset: u64) {
        let told = &mut self.shards[usize::from(shard)].told;
        *told = (*told).max(offset + 1);
    }

    pub fn end(&self, shard: u16) -> u64 {
        self.shard(shard).next
    }

    pub fn streams(&self, shard: u16) -> impl Iterator<Item = (&StreamRef, &Story)> {
        self.shard(shard).streams.iter()
    }

    /// The version that the log up to `next` gives the stream.
    pub fn version(&self, shard: u16, stream: StreamRef, next: u64) -> u64 {
        let story = self.shard(shard).streams.get(&stream);
        story.map_or(0, |story| story.version(next))
    }

    /// The state of a stream at a version; `None` when it never had it.
    pub fn state(&self, shard: u16, stream: StreamRef, version: u64) -> Option<Arc<AnyState>> {
        match self.shard(shard).streams.get(&stream) {
            Some(story) => story.states.get(version as usize).cloned(),
            None if version == 0 => Some(Arc::new(AnyState::initial(stream.kind))),
            None => None,
        }
    }

    /// What a transaction of the state store leaves is the fold of the log up to its watermark, or of more of it.
    ///
    /// # Errors
    /// Where it is not.
    pub fn check_stored(&self, number: u16, stored: &StoredShard) -> Result<(), String> {
        let shard = self.shard(number);
        let Some(watermark) = &stored.watermark else {
            return Ok(());
        };
        let next = watermark.checkpoint.next;
        let boundary = shard.check_checkpoint("the watermark", &watermark.checkpoint)?;
        if watermark.last_time < boundary.last_time {
            return Err(format!(
                "shard {number}: the watermark at {next} lost the time of the last event"
            ));
        }
        for (stream, row) in &stored.states {
            if self.state(number, *stream, row.version).as_deref() != Some(&row.state) {
                let version = row.version;
                return Err(format!(
                    "shard {number}: the stored state of {stream} is not what it was at version {version}"
                ));
            }
        }
        for (stream, story) in &shard.streams {
            let (due, found) = (
                story.version(next),
                stored.states.get(stream).map_or(0, |row| row.version),
            );
            if found < due {
                return Err(format!(
                    "shard {number}: the watermark stands at {next}, where {stream} has version {due}, and version {found} is stored"
                ));
            }
        }
        for (id, command) in &stored.commands {
            let told = Applied {
                offset: command.offset,
                events: command.events,
                hash: command.hash.clone(),
                streams: command.streams.clone(),
                at: command.at,
            };
            if shard.commands.get(id) != Some(&told) {
                return Err(format!(
                    "shard {number}: the stored answer to command {id} is not what the log says"
                ));
            }
        }
        let missing = shard
            .commands
            .iter()
            .find(|(id, applied)| applied.offset < next && !stored.commands.contains_key(*id));
        match missing {
            Some((id, applied)) => {
                let offset = applied.offset;
                Err(format!(
                    "shard {number}: the watermark stands at {next}, and command {id} at {offset} is not stored"
                ))
            }
            None => Ok(()),
        }
    }

    /// A shard that was given up in good order has all of its states stored.
    ///
    /// # Errors
    /// What is missing.
    pub fn check_all_stored(&self, number: u16, stored: &StoredShard) -> Result<(), String> {
        self.check_stored(number, stored)?;
        for (stream, story) in &self.shard(number).streams {
            let (due, found) = (story.last().1, stored.states.get(stream).map_or(0, |row| row.version));
            if found != due {
                return Err(format!(
                    "shard {number}: {stream} is at version {due}, and after its owner had stopped version {found} is stored"
                ));
            }
        }
        let missing = self
            .shard(number)
            .commands
            .keys()
            .find(|id| !stored.commands.contains_key(*id));
        match missing {
            Some(id) => Err(format!(
                "shard {number}: command {id} is not stored after the owner of its shard had stopped"
            )),
            None => Ok(()),
        }
    }

    /// The rows of a shard of a generation are the fold of the log up to their checkpoint.
    ///
    /// # Errors
    /// Where they are not.
    pub fn check_rows(
        &self,
        group: Group,
        number: u16,
        checkpoint: Option<&Checkpoint>,
        tables: &Tables,
    ) -> Result<(), String> {
        let shard = self.shard(number);
        let fold = &shard.folds[&group];
        let next = checkpoint.map_or(0, |checkpoint| checkpoint.next);
        if let Some(checkpoint) = checkpoint {
            shard.check_checkpoint("the checkpoint", checkpoint)?;
        }
        let (_, digest) = fold
            .digests
            .range(..=next)
            .next_back()
            .expect("there is one for the start");
        if tables.digest() == *digest {
            return Ok(());
        }
        let differing = match *digest == fold.tables.digest() {
            true => fold.tables.difference(tables),
            false => "some rows".to_owned(),
        };
        Err(format!(
            "shard {number}: the rows of {} at checkpoint {next} are not the fold of the log up to it: {differing}",
            group.name()
        ))
    }
}

impl Story {
    fn new(kind: StreamKind) -> Story {
        Story {
            states: vec![Arc::new(AnyState::initial(kind))],
            ends: vec![],
        }
    }

    fn version(&self, next: u64) -> u64 {
        self.ends.partition_point(|end| *end <= next) as u64
    }

    pub fn last(&self) -> (&Arc<AnyState>, u64) {
        (
            self.states.last().expect("there is the initial one"),
            self.ends.len() as u64,
        )
    }
}

impl Shard {
    /// The rule: a record counts if it is the next one of the epoch in force; a claim of the next epoch ends the one before, and cuts a
    /// commit that is not whole.
    fn judge(&mut self, offset: u64, record: &Record) -> Result<Seen, String> {
        let number = self.number;
        let envelope =
            Envelope::parse(record, Position { shard: number, offset }).map_err(|foreign| foreign.to_string())?;
        let (epoch, n) = (envelope.epoch, envelope.n);
        let counts = epoch > 0 && epoch == self.epoch && n == self.n + 1;
        let seen = match envelope.meaning {
            Meaning::Created(_) => Seen::Created,
            Meaning::Claim(claim) if claim.epoch == self.epoch + 1 => {
                self.epoch = claim.epoch;
                self.n = 0;
                self.open.clear();
                Seen::Claimed {
                    epoch: claim.epoch,
                    node: claim.node,
                }
            }
            _ if !counts => Seen::Void { epoch, n },
            Meaning::Barrier => Seen::Barrier { epoch, n },
            Meaning::Event(event) => {
                let (command, events) = (event.command_id, event.commit_size);
                self.open.push(*event);
                match self.open.len() == events as usize {
                    true => Seen::Commit {
                        epoch,
                        n,
                        command,
                        events,
                    },
                    false => Seen::Part { epoch, n },
                }
            }
            Meaning::Claim(_) | Meaning::Quarantine(_) => Seen::Void { epoch, n },
        };
        if matches!(seen, Seen::Barrier { .. } | Seen::Part { .. } | Seen::Commit { .. }) {
            self.n += 1;
        }
        self.next = offset + 1;
        Ok(seen)
    }

    /// Notes that readers may stand here, if they may.
    fn mark(&mut self, record: &Record) {
        if self.open.is_empty() {
            let boundary = Boundary {
                epoch: self.epoch,
                n: self.n,
                fingerprint: record.fingerprint(),
                last_time: self.last_time,
            };
            self.boundaries.insert(self.next, boundary);
        }
    }

    fn apply(&mut self, events: &[StoredEvent], shards: u16) -> Result<(), String> {
        let last = events.last().expect("a commit has events");
        let (command, offset) = (last.command_id, last.position.offset);
        let at = format!("{}:{offset}", self.number);
        let mut streams: Vec<(StreamRef, u64)> = Vec::new();
        for (index, event) in events.iter().enumerate() {
            if (event.command_id, event.index as usize) != (command, index) {
                return Err(format!(
                    "{at}: the commit of {command} has an event of another command in it"
                ));
            }
            if event.time < self.last_time {
                return Err(format!("{at}: the recorded time goes back"));
            }
            self.last_time = event.time;
            let story = self
                .streams
                .entry(event.stream)
                .or_insert_with(|| Story::new(event.stream.kind));
            let due = story.ends.len() as u64 + 1;
            if event.sequence != due {
                return Err(format!(
                    "{at}: {} has version {} where {due} was due",
                    event.stream, event.sequence
                ));
            }
            let recorded = event
                .decode(&Calendar::taipei())
                .map_err(|error| format!("{at}: {error}"))?;
            let state = AnyState::clone(story.last().0).evolve(&recorded.fact, recorded.effective_at);
            story.states.push(Arc::new(state));
            story.ends.push(self.next);
            match streams.iter_mut().find(|(stream, _)| *stream == event.stream) {
                Some((_, version)) => *version = event.sequence,
                None => streams.push((event.stream, event.sequence)),
            }
            for (group, fold) in &mut self.folds {
                fold.apply(*group, &recorded, shards)?;
            }
        }
        for fold in self.folds.values_mut() {
            fold.digests.insert(self.next, fold.tables.digest());
        }
        let applied = Applied {
            offset,
            events: last.commit_size,
            hash: last.command_hash.clone(),
            streams,
            at: last.time,
        };
        match self.commands.insert(command, applied) {
            Some(first) => Err(format!(
                "{at}: command {command} was applied before, at {}",
                first.offset
            )),
            None => Ok(()),
        }
    }

    fn check_checkpoint(&self, what: &str, checkpoint: &Checkpoint) -> Result<&Boundary, String> {
        let (number, next) = (self.number, checkpoint.next);
        let Some(boundary) = self.boundaries.get(&next) else {
            return Err(format!(
                "shard {number}: {what} {next} does not stand between two commits"
            ));
        };
        let found = (checkpoint.epoch, checkpoint.n, checkpoint.fingerprint);
        if found == (boundary.epoch, boundary.n, boundary.fingerprint) {
            return Ok(boundary);
        }
        Err(format!(
            "shard {number}: {what} {next} says epoch {}, number {}, where the log has epoch {}, number {}",
            checkpoint.epoch, checkpoint.n, boundary.epoch, boundary.n
        ))
    }
}

impl Fold {
    fn apply(&mut self, group: Group, event: &projections::Event, shards: u16) -> Result<(), String> {
        if !group.wants(event.stream.kind) {
            return Ok(());
        }
        let mut known: Vec<(&'static Table, Key)> = Vec::new();
        loop {
            let mut rows = Rows::new(shards);
            for (table, key) in &known {
                rows.know(table, key.clone(), self.tables.get(table, key).cloned());
            }
            rows.at(event.position);
            for model in group.models() {
                if model.streams.is_empty() || model.streams.contains(&event.stream.kind) {
                    (model.project)(event, &mut rows);
                }
            }
            if let Some(rule) = rows.violation() {
                return Err(rule.to_owned());
            }
            let missing = rows.missing();
            if missing.is_empty() {
                self.tables.apply(&rows.into_changes());
                return Ok(());
            }
            for (table, keys) in missing {
                known.extend(keys.into_iter().map(|key| (table, key)));
            }
        }
    }
}
