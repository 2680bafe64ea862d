//! Taking over a shard: read to the end, claim it, read up to the own claim, then bring the stored states up to there.

use std::collections::HashMap;
use std::time::Duration;

use domain::{Calendar, Fact, StreamRef, UnreadableEvent};
use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use super::assignment::Wanted;
use super::batch::{evolve, written};
use super::cache::{Cached, CommandIds, States, saved};
use super::config::ShardConfig;
use crate::bugs::{self, Bug};
use crate::clock::{CLOCK_AHEAD_MAX, Clock};
use crate::log::{
    AppendError, Checkpoint, Claim, Commit, EventLog, Foreign, Judge, Judgement, LogCreated, LogError, LogReader,
    LogWriter, Meaning, Record,
};
use crate::states::{Held, SavedCommand, StateError, StateStore, Watermark};
use crate::why::Why;

/// Records per read while taking over.
pub const READ_RECORDS_MAX: usize = 5_000;
/// How long one read waits before the log counts as unreachable.
const READ_WAIT: Duration = Duration::from_secs(10);
/// States and ids that are kept while replaying before they are saved; what one read brings comes on top.
pub const SAVE_MAX: usize = 20_000;

#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{why}; an operator can step over it with: {command}", why = .0, command = step_over_foreign(.0))]
    Foreign(#[from] Foreign),
    #[error(transparent)]
    States(#[from] StateError),
    #[error("another node claimed the shard first")]
    Lost,
    #[error(
        "this machine's clock is {hours} h ahead of {of}: nothing is written at such a time. Set it right; if it is right, and the machine \
         was asleep, start the process again"
    )]
    ClockAhead { hours: i64, of: &'static str },
    #[error("the program failed while it took the shard over; its log says where")]
    Panicked,
    #[error("the shard is not to be served here any more")]
    Withdrawn,
    #[error("another node took the shard over in epoch {epoch}")]
    Yielded { epoch: u64 },
    #[error("the claim could not be appended: {0}")]
    Claim(#[from] AppendError),
    #[error("shard {shard}, offset {offset}: {why}; a newer version of the program wrote it")]
    Unreadable {
        shard: u16,
        offset: u64,
        why: UnreadableEvent,
    },
    #[error(
        "shard {shard}: the log lost its tail or is another one: the record before offset {next} is not the one that was read"
    )]
    LostTail { shard: u16, next: u64 },
    #[error("shard {shard}, offset {offset}: {stream} has version {found} where {expected} was due: the log has a gap")]
    Gap {
        shard: u16,
        offset: u64,
        stream: StreamRef,
        expected: u64,
        found: u64,
    },
}

impl TakeOverError {
    /// For the status, and for who waits for the shard.
    pub fn why(&self) -> Why {
        match self {
            TakeOverError::Log(error) => error.into(),
            TakeOverError::States(error) => error.into(),
            TakeOverError::Claim(error) => {
                Why::from(error).within(|why| format!("the claim could not be appended: {why}"))
            }
            own => own.to_string().into(),
        }
    }
}

/// A shard that is ours.
pub struct Owned {
    pub writer: Box<dyn LogWriter>,
    pub epoch: u64,
    /// Where the next record will stand.
    pub next: u64,
    pub states: States,
    pub ids: CommandIds,
    pub watermark: Watermark,
    /// What is stored of them.
    pub held: Held,
    /// That of the log.
    pub calendar: Calendar,
}

/// Who takes over what, from where.
pub struct Claimant<'a> {
    pub shard: u16,
    pub log: &'a dyn EventLog,
    pub states: &'a dyn StateStore,
    pub clock: &'a dyn Clock,
    pub node: &'a str,
    pub address: &'a str,
    pub source: &'a str,
    pub config: &'a ShardConfig,
    /// Is the shard still to be served here?
    pub wanted: &'a Wanted,
    /// The last epoch in which this node owned the shard: a later one of another node is not contested.
    pub owned_epoch: &'a mut Option<u64>,
    /// What the clock showed when the shard was first taken over, and when that was.
    pub clock_seen: &'a mut Option<(Timestamp, Instant)>,
}

/// The record with which the shard begins.
///
/// # Errors
/// [`LogError::NotCreated`] when the shard is empty.
pub async fn read_creation(log: &dyn EventLog, shard: u16) -> Result<LogCreated, TakeOverError> {
    if log.end(shard).await? == 0 {
        return Err(LogError::NotCreated(log.address()).into());
    }
    let mut reader = log.reader(shard, 0).await?;
    let batch = reader.next(1, READ_WAIT).await?;
    let (offset, record) = batch.first().ok_or_else(|| unreachable_log(log))?;
    let envelope = crate::log::Envelope::parse(record, domain::Position { shard, offset: *offset })?;
    match envelope.meaning {
        Meaning::Created(created) => Ok(created),
        _ => Err(LogError::WrongSettings(format!("{} does not begin with a creation record", log.address())).into()),
    }
}

/// The next records of a reader that is not at the end.
async fn next_records(log: &dyn EventLog, reader: &mut dyn LogReader) -> Result<Vec<(u64, Record)>, TakeOverError> {
    let records = reader.next(READ_RECORDS_MAX, READ_WAIT).await?;
    if records.is_empty() {
        return Err(unreachable_log(log).into());
    }
    metrics::counter!("crm_takeover_records_read_total").increment(records.len() as u64);
    Ok(records)
}

fn unreachable_log(log: &dyn EventLog) -> LogError {
    LogError::Unavailable(format!("{} gave no records in {READ_WAIT:?}", log.address()))
}

impl Claimant<'_> {
    /// Claims the shard. With it comes every state that was ever acked: in the store, or in memory.
    ///
    /// # Errors
    /// [`TakeOverError`]; nothing was claimed, or somebody else was faster.
    pub async fn take_over(self) -> Result<Owned, TakeOverError> {
        self.check_clock().await?;
        // The writer is made before the read: a producer whose older sends could still arrive is never reused.
        let mut writer = self.log.writer(self.shard).await?;
        let created = read_creation(self.log, self.shard).await?;
        let before = self.states.watermark(self.shard, created.log_id).await?;
        let mut judge = self
            .read_to_end(before.as_ref().map(|watermark| &watermark.checkpoint))
            .await?;

        // That may have taken long; a claim now would take the shard away from whoever has it by now.
        if !self.wanted.is_here() {
            return Err(TakeOverError::Withdrawn);
        }
        #[allow(clippy::disallowed_methods, reason = "a nonce is luck, and must never repeat")]
        let nonce = Uuid::now_v7();
        let epoch = judge.epoch() + 1;
        let claim = Claim {
            epoch,
            nonce,
            node: self.node.to_owned(),
            address: self.address.to_owned(),
        };
        let record = claim.to_record(self.source, self.clock.now());
        let offsets = writer.append(vec![record]).await?;
        if !bugs::has(Bug::ClaimNotReadBack) {
            self.read_up_to_claim(&mut judge, nonce, offsets[0]).await?;
        }
        // Also when what follows fails: the next attempt must not take this claim for somebody else's.
        *self.owned_epoch = Some(epoch);

        let mut stored = self
            .states
            .claim(self.shard, created.log_id, epoch, self.address)
            .await?;
        if bugs::has(Bug::EventsAppliedTwice) {
            stored = before;
        }
        let (states, ids, watermark, held) = self.replay(stored, epoch, offsets[0] + 1).await?;
        Ok(Owned {
            writer,
            epoch,
            next: offsets[0] + 1,
            states,
            ids,
            watermark,
            held,
            calendar: created.calendar,
        })
    }

    /// A clock far ahead would mark the shard for ever: its time never goes back. It is compared with the store's, if that has one, else
    /// with what it showed before and the time that has passed since. Without either it is believed: a log may rest for years.
    async fn check_clock(&self) -> Result<(), TakeOverError> {
        let now = self.clock.now();
        let (due, of) = match (self.states.time().await?, *self.clock_seen) {
            (Some(time), _) => (time, "the database's"),
            (None, Some((time, since))) => (
                time + since.elapsed(),
                "the time that has passed since it was looked at before",
            ),
            (None, None) => return Ok(()),
        };
        match now > due + CLOCK_AHEAD_MAX {
            true => Err(TakeOverError::ClockAhead {
                hours: now.duration_since(due).as_hours(),
                of,
            }),
            false => Ok(()),
        }
    }

    /// Judges up to the present end, to know the epoch in force.
    async fn read_to_end(&self, from: Option<&Checkpoint>) -> Result<Judge, TakeOverError> {
        let end = self.log.end(self.shard).await?;
        let (mut judge, mut reader) = self.resume(from).await?;
        let mut claimed_by_us = false;
        while judge.next() < end {
            for (offset, record) in next_records(self.log, &mut *reader).await? {
                let judgement = judge_or_step_over(self.log, &mut judge, self.shard, offset, record).await?;
                if let Some(Judgement::Claimed(claim)) = judgement {
                    claimed_by_us = claim.node == self.node;
                }
            }
        }
        match *self.owned_epoch {
            Some(owned) if judge.epoch() > owned && !claimed_by_us => {
                Err(TakeOverError::Yielded { epoch: judge.epoch() })
            }
            _ => Ok(judge),
        }
    }

    /// Reads on to the own claim and finds whether it is valid.
    async fn read_up_to_claim(&self, judge: &mut Judge, nonce: Uuid, offset: u64) -> Result<(), TakeOverError> {
        if judge.next() > offset {
            return Err(TakeOverError::Lost);
        }
        let mut reader = self.log.reader(self.shard, judge.next()).await?;
        loop {
            for (at, record) in next_records(self.log, &mut *reader).await? {
                let judgement = judge_or_step_over(self.log, judge, self.shard, at, record).await?;
                match judgement {
                    Some(Judgement::Claimed(claim)) if claim.nonce == nonce => return Ok(()),
                    _ if at >= offset => return Err(TakeOverError::Lost),
                    _ => {}
                }
            }
        }
    }

    /// Brings the stored states up to `end` (just after the own claim): whatever is newer than the watermark is evolved,
    /// and saved where it is too much for memory.
    async fn replay(
        &self,
        stored: Option<Watermark>,
        epoch: u64,
        end: u64,
    ) -> Result<(States, CommandIds, Watermark, Held), TakeOverError> {
        let mut held = Held {
            owner_epoch: epoch,
            next: stored.as_ref().map_or(0, |watermark| watermark.checkpoint.next),
        };
        let from = stored.as_ref().map(|watermark| &watermark.checkpoint);
        let mut last_time = stored.as_ref().map_or(Timestamp::MIN, |watermark| watermark.last_time);
        let mut states = States::new(self.config.cached_streams_max);
        let mut ids = CommandIds::new(self.config.cached_commands_max, last_time);
        if stored.is_none() {
            // All of the log is read now.
            states.no_others_have_begun();
            ids.no_others_were_recorded();
        }
        let (mut judge, mut reader) = self.resume(from).await?;
        let mut changed: HashMap<StreamRef, Cached> = HashMap::new();
        let mut commands: Vec<SavedCommand> = Vec::new();
        while judge.next() < end {
            let batch = next_records(self.log, &mut *reader).await?;
            let mut commits = Vec::new();
            for (offset, record) in batch.into_iter().take_while(|(offset, _)| *offset < end) {
                if let Some(Judgement::Commit(commit)) =
                    judge_or_step_over(self.log, &mut judge, self.shard, offset, record).await?
                {
                    commits.push(commit);
                }
            }
            self.load(&commits, held, &mut states).await?;
            for commit in &commits {
                last_time = last_time.max(commit.events[0].time);
                self.apply(commit, &mut states, &mut changed)?;
                let command = saved_command(commit);
                if !bugs::has(Bug::IdsLostAtTakeOver) {
                    ids.remember(command.clone());
                }
                commands.push(command);
            }
            let is_last = judge.next() >= end;
            if (is_last && !commands.is_empty()) || commands.len() + changed.len() > SAVE_MAX {
                let watermark = self.watermark(&judge, epoch, last_time);
                self.save(held, &watermark, &mut changed, &commands, &mut states)
                    .await?;
                commands.drain(..).for_each(|command| ids.stored(command.id));
                held.next = watermark.checkpoint.next;
            }
            states.trim();
            ids.trim();
        }
        let watermark = self.watermark(&judge, epoch, last_time);
        Ok((states, ids, watermark, held))
    }

    fn watermark(&self, judge: &Judge, owner_epoch: u64, last_time: Timestamp) -> Watermark {
        let checkpoint = judge.checkpoint().expect("at least one record was read");
        Watermark {
            shard: self.shard,
            owner_epoch,
            checkpoint,
            last_time,
        }
    }

    async fn save(
        &self,
        held: Held,
        watermark: &Watermark,
        changed: &mut HashMap<StreamRef, Cached>,
        commands: &[SavedCommand],
        states: &mut States,
    ) -> Result<(), TakeOverError> {
        let mut rows: Vec<_> = changed.iter().map(|(stream, cached)| saved(*stream, cached)).collect();
        rows.sort_unstable_by_key(|row| row.stream);
        self.states.save(held, watermark, &rows, commands).await?;
        for row in &rows {
            states.stored(row.stream, row.version);
        }
        changed.clear();
        Ok(())
    }

    async fn load(&self, commits: &[Commit], held: Held, states: &mut States) -> Result<(), TakeOverError> {
        let mut missing: Vec<StreamRef> = commits
            .iter()
            .flat_map(|commit| commit.events.iter().map(|event| event.stream))
            .filter(|stream| !states.is_known(*stream))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        let loaded = self.states.load(self.shard, held, &missing, &[]).await?;
        fill(&missing, loaded.states, states);
        Ok(())
    }

    fn apply(
        &self,
        commit: &Commit,
        states: &mut States,
        changed: &mut HashMap<StreamRef, Cached>,
    ) -> Result<(), TakeOverError> {
        for event in &commit.events {
            let (shard, offset, stream) = (self.shard, event.position.offset, event.stream);
            let current = match states.get(stream) {
                Some(current) => current,
                None => changed
                    .get(&stream)
                    .cloned()
                    .expect("a commit's states are loaded before it is applied"),
            };
            if event.sequence <= current.version && !bugs::has(Bug::EventsAppliedTwice) {
                continue;
            }
            if event.sequence != current.version + 1 && !bugs::has(Bug::EventsAppliedTwice) {
                let (expected, found) = (current.version + 1, event.sequence);
                return Err(TakeOverError::Gap {
                    shard,
                    offset,
                    stream,
                    expected,
                    found,
                });
            }
            let fact = Fact::decode(&event.event_type, &event.body).map_err(|why| TakeOverError::Unreadable {
                shard,
                offset,
                why,
            })?;
            let next = evolve(current, &fact, event.true_since());
            states.changed(stream, next.clone());
            changed.insert(stream, next);
        }
        Ok(())
    }

    /// A judge and a reader that stand where `from` says, after checking that the record before is still the same.
    async fn resume(&self, from: Option<&Checkpoint>) -> Result<(Judge, Box<dyn LogReader>), TakeOverError> {
        resume(self.log, self.shard, from).await
    }
}

/// A judge and a reader at a checkpoint, or at the shard's start.
///
/// # Errors
/// [`TakeOverError::LostTail`] when the record before the checkpoint is not the one that was read then.
pub async fn resume(
    log: &dyn EventLog,
    shard: u16,
    from: Option<&Checkpoint>,
) -> Result<(Judge, Box<dyn LogReader>), TakeOverError> {
    let Some(at) = from else {
        return Ok((Judge::from_start(shard), log.reader(shard, 0).await?));
    };
    let lost = || TakeOverError::LostTail { shard, next: at.next };
    if log.end(shard).await? < at.next {
        return Err(lost());
    }
    let mut reader = log.reader(shard, at.next - 1).await?;
    let batch = reader.next(1, READ_WAIT).await?;
    let (offset, record) = batch.first().ok_or_else(|| unreachable_log(log))?;
    if *offset != at.next - 1 || record.fingerprint() != at.fingerprint {
        return Err(lost());
    }
    Ok((Judge::resume(shard, at), reader))
}

/// Judges a record; one that is not ours is stepped over (`None`) when an operator has quarantined exactly it.
///
/// # Errors
/// [`TakeOverError::Foreign`] when nobody has.
pub async fn judge_or_step_over(
    log: &dyn EventLog,
    judge: &mut Judge,
    shard: u16,
    offset: u64,
    record: Record,
) -> Result<Option<Judgement>, TakeOverError> {
    match judge.judge(offset, record) {
        Ok(judgement) => Ok(Some(judgement)),
        Err(foreign) if is_quarantined(log, shard, &foreign).await? => {
            tracing::warn!(shard, offset, "stepped over a quarantined record: {}", foreign.why);
            judge.step_over(foreign.fingerprint);
            Ok(None)
        }
        Err(foreign) => Err(foreign.into()),
    }
}

/// The command with which an operator has read models step over a record.
pub fn step_over(shard: u16, offset: u64, fingerprint: u64) -> String {
    format!("crm log quarantine {shard}:{offset} --hash {fingerprint:016x} --reason <why>")
}

fn step_over_foreign(foreign: &Foreign) -> String {
    step_over(foreign.shard, foreign.offset, foreign.fingerprint)
}

/// The fingerprint of the record at this place.
///
/// # Errors
/// When it cannot be read.
pub async fn fingerprint_at(log: &dyn EventLog, shard: u16, offset: u64) -> Result<u64, TakeOverError> {
    let mut reader = log.reader(shard, offset).await?;
    let batch = reader.next(1, READ_WAIT).await?;
    let (_, record) = batch.first().ok_or_else(|| unreachable_log(log))?;
    Ok(record.fingerprint())
}

/// Has an operator said, further on in the shard, to step over this record?
async fn is_quarantined(log: &dyn EventLog, shard: u16, foreign: &Foreign) -> Result<bool, TakeOverError> {
    let mut next = foreign.offset + 1;
    find_quarantine(log, shard, foreign.offset, foreign.fingerprint, &mut next).await
}

/// Looks from `next` on for the word of an operator to step over a record. `next` is where the next look begins, if there is none yet.
///
/// # Errors
/// When the log cannot be read.
pub async fn find_quarantine(
    log: &dyn EventLog,
    shard: u16,
    quarantined: u64,
    fingerprint: u64,
    next: &mut u64,
) -> Result<bool, TakeOverError> {
    let end = log.end(shard).await?;
    if *next >= end {
        return Ok(false);
    }
    let mut reader = log.reader(shard, *next).await?;
    while *next < end {
        let batch = reader.next(READ_RECORDS_MAX, READ_WAIT).await?;
        if batch.is_empty() {
            return Err(unreachable_log(log).into());
        }
        for (offset, record) in &batch {
            *next = offset + 1;
            let Ok(envelope) = crate::log::Envelope::parse(record, domain::Position { shard, offset: *offset }) else {
                continue;
            };
            if let Meaning::Quarantine(word) = envelope.meaning
                && word.offset == quarantined
                && word.fingerprint == fingerprint
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Puts what was loaded into the cache, and the initial state for what was not found.
pub fn fill(asked: &[StreamRef], found: Vec<crate::states::SavedState>, states: &mut States) {
    for stream in asked {
        states.loaded(*stream, Cached::initial(*stream));
    }
    for row in found {
        states.loaded(
            row.stream,
            Cached {
                version: row.version,
                state: row.state,
            },
        );
    }
}

/// What a commit says of its command.
pub fn saved_command(commit: &Commit) -> SavedCommand {
    let last = commit.events.last().expect("a commit has events");
    SavedCommand {
        id: last.command_id,
        hash: last.command_hash.clone(),
        streams: written(&commit.events),
        offset: last.position.offset,
        events: last.commit_size,
        at: last.time,
    }
}
