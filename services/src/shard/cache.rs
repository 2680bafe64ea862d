//! What a shard has in memory: states and command ids. A cache over the state store, never a second truth.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use domain::{AnyState, StreamRef};
use jiff::{SignedDuration, Timestamp};
use lru::LruCache;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::request::{Action, Request};
use super::seen::Seen;
use crate::bugs::{self, Bug};
use crate::states::{SavedCommand, SavedState, is_by_client};

/// How far a client's clock may be ahead: a younger id is refused at the door.
pub const CLOCK_SKEW_MAX: SignedDuration = SignedDuration::from_mins(5);

/// A state with its version; cheap to clone.
#[derive(Debug, Clone)]
pub struct Cached {
    pub version: u64,
    pub state: Arc<AnyState>,
}

impl Cached {
    /// Of a stream that has not begun.
    pub fn initial(stream: StreamRef) -> Cached {
        Cached {
            version: 0,
            state: Arc::new(AnyState::initial(stream.kind)),
        }
    }
}

/// The states of a shard's streams as far as they are in memory, speculative ones included.
pub struct States {
    /// Changed and not yet stored; never evicted.
    hot: HashMap<StreamRef, Cached>,
    /// As stored, or never begun.
    clean: LruCache<StreamRef, Cached>,
    clean_max: usize,
    /// Messages whose look-up is under way rely on these.
    kept: HashSet<StreamRef>,
    /// Whatever was changed here, and, once it is complete, whatever is stored: a stream that is not in it has not begun.
    begun: Seen,
}

impl States {
    pub fn new(clean_max: usize) -> States {
        States {
            hot: HashMap::new(),
            clean: LruCache::unbounded(),
            clean_max,
            kept: HashSet::new(),
            begun: Seen::default(),
        }
    }

    /// These stay in memory, however many come, until others are named; of the rest as many as there is room for.
    pub fn keep(&mut self, streams: impl IntoIterator<Item = StreamRef>) {
        self.kept = streams.into_iter().collect();
    }

    /// Lets those go that are too many and were not asked for the longest. Until then whatever came stays.
    pub fn trim(&mut self) {
        while self.clean.len() > self.clean_max + self.kept.len() {
            let (stream, cached) = self.clean.pop_lru().expect("it is not empty");
            if self.kept.contains(&stream) {
                self.clean.put(stream, cached);
            }
        }
    }

    pub fn get(&mut self, stream: StreamRef) -> Option<Cached> {
        self.hot.get(&stream).or_else(|| self.clean.get(&stream)).cloned()
    }

    pub fn contains(&self, stream: StreamRef) -> bool {
        self.hot.contains_key(&stream) || self.clean.contains(&stream)
    }

    /// Is it known without the store? Then it is in memory until the next [`trim`](States::trim), also one that has surely not begun.
    pub fn is_known(&mut self, stream: StreamRef) -> bool {
        if self.hot.contains_key(&stream) || self.clean.get(&stream).is_some() {
            return true;
        }
        let is_new = self.begun.is_new(stream);
        if is_new {
            self.clean.put(stream, Cached::initial(stream));
        }
        is_new
    }

    /// Is a stream that has not begun known as such without the store?
    pub fn knows_all_that_began(&self) -> bool {
        self.begun.is_complete()
    }

    /// The store has these.
    pub fn have_begun(&mut self, streams: &[StreamRef]) {
        streams.iter().for_each(|stream| self.begun.add(stream));
    }

    /// The store has no other streams than those that were named or changed here.
    pub fn no_others_have_begun(&mut self) {
        self.begun.complete();
    }

    /// A state as the store has it.
    pub fn loaded(&mut self, stream: StreamRef, cached: Cached) {
        if !self.hot.contains_key(&stream) {
            self.clean.put(stream, cached);
        }
    }

    pub fn changed(&mut self, stream: StreamRef, cached: Cached) {
        self.clean.pop(&stream);
        if !bugs::has(Bug::ChangedNotBegun) {
            self.begun.add(stream);
        }
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

/// The command ids that this shard has seen, as far as they are in memory.
pub struct CommandIds {
    /// Not yet stored; never evicted.
    hot: HashMap<Uuid, SavedCommand>,
    /// As stored.
    known: HashMap<Uuid, SavedCommand>,
    order: VecDeque<Uuid>,
    known_max: usize,
    /// Of version 7 ids.
    gone: Gone,
    /// Every command with a version 7 id that was recorded after this time is in memory, or at least known to be gone from it.
    complete_since: Timestamp,
    /// Of all other ids: whatever was recorded here, and, once it is complete, whatever is stored.
    derived: Seen,
}

/// The version 7 ids that went out of memory last, by eight bytes each: with the time that an id carries it is enough to tell for sure,
/// without asking the store, that a client's id is new. A [`Seen`] may err, and would make one new command in some hundreds wait for a store
/// that may be away.
#[derive(Default)]
struct Gone {
    young: Ids,
    /// Those before the young ones.
    old: Ids,
}

#[derive(Default)]
struct Ids {
    ids: HashSet<u64>,
    /// When the last of them was recorded.
    until: Timestamp,
}

/// So many times what is in memory are known to be gone from it, young and old each.
const GONE_FACTOR: usize = 4;

impl Gone {
    /// Adds one, and forgets the old ones when there are enough young ones; then answers until when those that it forgot were recorded.
    fn add(&mut self, command: &SavedCommand, max: usize) -> Option<Timestamp> {
        self.young.ids.insert(Gone::short(command.id));
        self.young.until = self.young.until.max(command.at);
        if self.young.ids.len() < max {
            return None;
        }
        let forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        (!forgotten.ids.is_empty()).then_some(forgotten.until)
    }

    fn may_have(&self, id: Uuid) -> bool {
        let short = Gone::short(id);
        self.young.ids.contains(&short) || self.old.ids.contains(&short)
    }

    /// The half of an id that is random, or a hash.
    fn short(id: Uuid) -> u64 {
        id.as_u64_pair().1
    }
}

impl CommandIds {
    pub fn new(known_max: usize, complete_since: Timestamp) -> CommandIds {
        CommandIds {
            hot: HashMap::new(),
            known: HashMap::new(),
            order: VecDeque::new(),
            known_max,
            gone: Gone::default(),
            complete_since,
            derived: Seen::default(),
        }
    }

    pub fn get(&self, id: Uuid) -> Option<&SavedCommand> {
        self.hot.get(&id).or_else(|| self.known.get(&id))
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Must the store be asked before this id counts as new? Not for a client-made id that is younger than what is complete in memory: it
    /// cannot have been recorded before it was made. Nor for a derived one that has surely not been seen.
    pub fn needs_look_up(&self, id: Uuid) -> bool {
        if self.get(id).is_some() {
            return false;
        }
        if !is_by_client(id) {
            return !self.derived.is_new(id);
        }
        if self.gone.may_have(id) {
            return true;
        }
        // What was recorded by then went through the same question: see `is_ahead`.
        self.complete_since != Timestamp::MIN && !is_ahead(id, self.complete_since)
    }

    /// Is a new derived id known as such without the store?
    pub fn knows_all_derived(&self) -> bool {
        self.derived.is_complete()
    }

    /// The store has these.
    pub fn were_recorded(&mut self, ids: &[Uuid]) {
        let derived = ids.iter().filter(|id| !is_by_client(**id));
        derived.for_each(|id| self.derived.add(id));
    }

    /// The store has no other ids than those that were named or remembered here.
    pub fn no_others_were_recorded(&mut self) {
        self.derived.complete();
    }

    /// It is in the log, and not yet in the store.
    pub fn remember(&mut self, command: SavedCommand) {
        if !bugs::has(Bug::RememberedNotRecorded) {
            self.were_recorded(&[command.id]);
        }
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
            if let Some(command) = self.known.remove(&oldest).filter(|command| is_by_client(command.id))
                && let Some(forgotten) = self.gone.add(&command, self.known_max * GONE_FACTOR)
            {
                self.complete_since = self.complete_since.max(forgotten);
            }
        }
    }
}

/// Was this id made by a clock so far ahead of `now` that a command must not be recorded under it at that time? After a take-over it would
/// be taken for a new one.
pub fn is_ahead(id: Uuid, now: Timestamp) -> bool {
    made_at(id).is_some_and(|made_at| made_at - CLOCK_SKEW_MAX > now)
}

/// A new command id, as a client makes one whose clock shows `now`.
pub fn id_made_at(now: Timestamp) -> Uuid {
    let since = now.duration_since(Timestamp::UNIX_EPOCH);
    let seconds = u64::try_from(since.as_secs()).unwrap_or(0);
    let nanoseconds = u32::try_from(since.subsec_nanos()).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanoseconds))
}

/// When a version 7 id was made; `None` for other versions.
pub fn made_at(id: Uuid) -> Option<Timestamp> {
    if !is_by_client(id) {
        return None;
    }
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
}

/// Sixteen hex digits of a request's content as it was sent: streams, commands, effective time, and whether it updates what
/// is begun. Who sent it, when, and what the door adds to it do not count.
pub fn hash_of(request: &Request) -> String {
    let mut hasher = Hashing(Sha256::new());
    for step in request.steps.iter().filter(|step| !step.is_guard()) {
        hasher.0.update(step.stream.to_string());
        match &step.action {
            Action::Decide(command) => command.write_canonical(&mut hasher).expect("a command is plain data"),
            Action::Record(facts) => facts.iter().for_each(|fact| hasher.0.update(fact.encode().1)),
        }
    }
    if let Some(effective_at) = request.effective_at {
        hasher.0.update(effective_at.to_string());
    }
    if request.upsert {
        hasher.0.update("upsert");
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

#[cfg(test)]
mod specs {
    use super::*;

    fn stream(n: u32) -> StreamRef {
        StreamRef {
            kind: domain::StreamKind::Customer,
            id: domain::derived_id(&["stream", &n.to_string()]),
        }
    }

    /// Others that begin may make the filter take it for one that was seen, between the question and its use.
    #[test]
    fn a_stream_that_was_found_to_be_new_stays_known_while_others_begin() {
        let mut states = States::new(1_000);
        states.begun = Seen::within(0);
        states.no_others_have_begun();
        let new: Vec<StreamRef> = (0..1_000).map(stream).collect();
        assert!(new.iter().all(|stream| states.is_known(*stream)));
        for other in (1_000..100_000).map(stream) {
            states.changed(other, Cached::initial(other));
        }
        assert!(
            new.iter().any(|stream| !states.begun.is_new(*stream)),
            "the filter is overfull"
        );
        assert!(new.iter().all(|stream| states.get(*stream).is_some()));
    }

    fn command(n: u64) -> SavedCommand {
        let at = Timestamp::from_second(1_700_000_000 + n as i64).unwrap();
        let made = uuid::Timestamp::from_unix(uuid::NoContext, at.as_second().cast_unsigned(), 0);
        SavedCommand {
            id: Uuid::new_v7(made),
            hash: String::new(),
            streams: vec![],
            offset: n,
            events: 1,
            at,
        }
    }

    /// Ids of ten times what fits into memory: none that was recorded may pass for new, and a new one needs the store only when so many came
    /// within the time that clocks may differ that some are forgotten.
    #[test]
    fn an_id_that_left_the_memory_is_still_told_from_a_new_one() {
        let start = command(0).at;
        for (seconds_apart, new_ones_need_the_store) in [(100, false), (0, true)] {
            let mut ids = CommandIds::new(10, start);
            let recorded: Vec<SavedCommand> = (0..1_000).map(|n| command(1_000 + n * seconds_apart)).collect();
            for (n, command) in recorded.iter().enumerate() {
                ids.remember(command.clone());
                ids.stored(command.id);
                ids.trim();
                for earlier in &recorded[..=n] {
                    assert!(ids.get(earlier.id).is_some() || ids.needs_look_up(earlier.id), "{n}");
                }
            }
            let new = command(1_001 + 1_000 * seconds_apart);
            assert_eq!(ids.needs_look_up(new.id), new_ones_need_the_store);
        }
    }
}
