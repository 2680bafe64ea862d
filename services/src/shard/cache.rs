//! What a shard has in memory: states and command ids. A cache over the state store, never a second truth.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use domain::{AnyState, StreamRef};
use jiff::{SignedDuration, Timestamp};
use lru::LruCache;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::request::{Action, Request};
use crate::states::{SavedCommand, SavedState};

/// How far a client's clock may be ahead: a younger id is refused at the door.
pub const CLOCK_SKEW_MAX: SignedDuration = SignedDuration::from_mins(5);

/// A state with its version; cheap to clone.
#[derive(Debug, Clone)]
pub struct Cached {
    pub version: u64,
    pub state: Arc<AnyState>,
}

/// The states of a shard's streams as far as they are in memory, speculative ones included.
pub struct States {
    /// Changed and not yet stored; never evicted.
    hot: HashMap<StreamRef, Cached>,
    /// As stored, or never begun.
    clean: LruCache<StreamRef, Cached>,
}

impl States {
    pub fn new(clean_max: usize) -> States {
        States {
            hot: HashMap::new(),
            clean: LruCache::new(at_least_one(clean_max)),
        }
    }

    pub fn shrink_to(&mut self, clean_max: usize) {
        self.clean.resize(at_least_one(clean_max));
    }

    pub fn get(&mut self, stream: StreamRef) -> Option<Cached> {
        self.hot.get(&stream).or_else(|| self.clean.get(&stream)).cloned()
    }

    pub fn contains(&self, stream: StreamRef) -> bool {
        self.hot.contains_key(&stream) || self.clean.contains(&stream)
    }

    /// A state as the store has it.
    pub fn loaded(&mut self, stream: StreamRef, cached: Cached) {
        if !self.hot.contains_key(&stream) {
            self.clean.put(stream, cached);
        }
    }

    pub fn changed(&mut self, stream: StreamRef, cached: Cached) {
        self.clean.pop(&stream);
        self.hot.insert(stream, cached);
    }

    /// The store has this version now.
    pub fn stored(&mut self, stream: StreamRef, version: u64) {
        if self.hot.get(&stream).is_some_and(|cached| cached.version == version) {
            let cached = self.hot.remove(&stream).expect("it was just seen");
            self.clean.put(stream, cached);
        }
    }

    pub fn len(&self) -> usize {
        self.hot.len() + self.clean.len()
    }
}

fn at_least_one(max: usize) -> NonZeroUsize {
    NonZeroUsize::new(max).unwrap_or(NonZeroUsize::MIN)
}

/// The command ids that this shard has seen, as far as they are in memory.
pub struct CommandIds {
    /// Not yet stored; never evicted.
    hot: HashMap<Uuid, SavedCommand>,
    /// As stored.
    known: HashMap<Uuid, SavedCommand>,
    order: VecDeque<Uuid>,
    known_max: usize,
    /// Every command that was recorded after this time is in memory.
    complete_since: Timestamp,
}

impl CommandIds {
    pub fn new(known_max: usize, complete_since: Timestamp) -> CommandIds {
        CommandIds {
            hot: HashMap::new(),
            known: HashMap::new(),
            order: VecDeque::new(),
            known_max,
            complete_since,
        }
    }

    pub fn get(&self, id: Uuid) -> Option<&SavedCommand> {
        self.hot.get(&id).or_else(|| self.known.get(&id))
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Must the store be asked before this id counts as new? Not for a client-made id that is younger than what is complete
    /// in memory: it cannot have been recorded before it was made.
    pub fn needs_look_up(&self, id: Uuid) -> bool {
        if self.get(id).is_some() {
            return false;
        }
        if self.complete_since == Timestamp::MIN {
            return false;
        }
        // What was recorded by then went through the same question: see `is_ahead`.
        !is_ahead(id, self.complete_since)
    }

    /// It is in the log, and not yet in the store.
    pub fn remember(&mut self, command: SavedCommand) {
        self.hot.insert(command.id, command);
    }

    /// The store has it now.
    pub fn stored(&mut self, id: Uuid) {
        if let Some(command) = self.hot.remove(&id) {
            self.loaded(command);
        }
    }

    /// A command as the store has it. It stays until the next [`trim`](CommandIds::trim), however many there are.
    pub fn loaded(&mut self, command: SavedCommand) {
        let id = command.id;
        if self.known.insert(id, command).is_none() {
            self.order.push_back(id);
        }
    }

    /// Lets the oldest go that are too many.
    pub fn trim(&mut self) {
        while self.order.len() > self.known_max {
            let oldest = self.order.pop_front().expect("it is not empty");
            if let Some(command) = self.known.remove(&oldest) {
                self.complete_since = self.complete_since.max(command.at);
            }
        }
    }
}

/// Was this id made by a clock so far ahead of `now` that a command must not be recorded under it at that time? After a take-over it would
/// be taken for a new one.
pub fn is_ahead(id: Uuid, now: Timestamp) -> bool {
    made_at(id).is_some_and(|made_at| made_at - CLOCK_SKEW_MAX > now)
}

/// When a version 7 id was made; `None` for other versions.
pub fn made_at(id: Uuid) -> Option<Timestamp> {
    if id.get_version_num() != 7 {
        return None;
    }
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
}

/// Sixteen hex digits of a request's content: streams, commands and effective time, but not who sent it or when.
pub fn hash_of(request: &Request) -> String {
    let mut hasher = Hashing(Sha256::new());
    for step in &request.steps {
        hasher.0.update(step.stream.to_string());
        match &step.action {
            Action::Decide(command) => command.write_canonical(&mut hasher).expect("a command is plain data"),
            Action::Record(facts) => facts.iter().for_each(|fact| hasher.0.update(fact.encode().1)),
        }
    }
    if let Some(effective_at) = request.effective_at {
        hasher.0.update(effective_at.to_string());
    }
    domain::hex(&hasher.0.finalize()[..8])
}

/// Hashes what is written to it.
struct Hashing(Sha256);

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The stored form of a changed state.
pub fn saved(stream: StreamRef, cached: &Cached) -> SavedState {
    SavedState {
        stream,
        version: cached.version,
        state: Arc::clone(&cached.state),
    }
}
