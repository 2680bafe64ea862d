//! Work on a shard that we own: commands are decided, batches appended, answers released.

mod look_up;
mod saving;

use std::collections::HashMap;
use std::sync::Arc;

use domain::{Calendar, Position, StreamRef};
use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use look_up::Loading;
use saving::Saving;

use super::admission::Admission;
use super::batch::{Batch, Elsewhere, Prepared, Surroundings, decide, known_as_given, written};
use super::cache::{Cached, CommandIds, States, is_ahead};
use super::config::ShardParts;
use super::inventory::{Inventory, wait};
use super::request::{Ack, Failure, Message, Request};
use super::takeover::Owned;
use super::task::Task;
use crate::bugs::{self, Bug};
use crate::clock::CLOCK_AHEAD_MAX;
use crate::log::{AppendError, Checkpoint, Envelope, LogWriter, Record, StoredEvent};
use crate::states::{Held, SavedCommand, Watermark};
use crate::why::Why;

/// Why a shard is no longer served.
pub enum End {
    /// The process stops, or another one is to serve the shard: what was accepted is answered and saved.
    Released,
    /// An append failed or somebody else owns the states: the log decides what became of the open commands.
    Unsettled(String),
}

type Append = JoinHandle<(Box<dyn LogWriter>, Result<Vec<u64>, AppendError>)>;

/// A batch on its way to the log.
struct InFlight {
    append: Append,
    batch: Batch,
    /// Of its last record.
    fingerprint: u64,
    records: usize,
}

/// Work on a shard that we own.
pub struct Serving {
    shard: u16,
    parts: ShardParts,
    admission: Arc<Admission>,
    epoch: u64,
    /// Where the next record will stand, and its number in the epoch.
    next: u64,
    n: u64,
    writer: Option<Box<dyn LogWriter>>,
    calendar: Calendar,
    states: States,
    ids: CommandIds,
    /// Up to the last confirmed batch.
    watermark: Watermark,
    pending: Batch,
    in_flight: Option<InFlight>,
    /// Since the last answers, or, when nothing waited any more then, since the first message after them.
    busy_since: Option<Instant>,
    loading: Option<Loading>,
    /// Messages that wait for the next look-up.
    parked: Vec<Message>,
    stored_streams: Inventory<StreamRef>,
    stored_commands: Inventory<Uuid>,
    /// Confirmed and not yet handed to the store.
    unsaved_states: HashMap<StreamRef, Cached>,
    unsaved_commands: Vec<SavedCommand>,
    saving: Option<Saving>,
    /// What is known to be stored.
    held: Held,
    save_at: Instant,
    /// After a failed save not before this time, however much there is.
    save_not_before: Instant,
    /// The last save did not come about.
    save_failed: bool,
    last_time: Timestamp,
    /// What the clock showed when it was last looked at, and when that was.
    clock_seen: (Timestamp, Instant),
    /// Why it is not believed any more.
    clock_trouble: Option<String>,
    /// The command that is being decided, should that be a panic.
    pub in_hand: Option<Uuid>,
    /// Commands at which that has happened again and again.
    pub refused: Vec<Uuid>,
}

impl Serving {
    pub(super) fn new(shard: u16, parts: ShardParts, admission: Arc<Admission>, owned: Owned) -> Serving {
        Serving {
            shard,
            admission,
            epoch: owned.epoch,
            next: owned.next,
            n: 0,
            writer: Some(owned.writer),
            calendar: owned.calendar,
            states: owned.states,
            ids: owned.ids,
            last_time: owned.watermark.last_time,
            watermark: owned.watermark,
            held: owned.held,
            pending: Batch::default(),
            in_flight: None,
            busy_since: None,
            loading: None,
            stored_streams: Inventory::of_streams(parts.config.save_every),
            stored_commands: Inventory::of_derived_commands(parts.config.save_every),
            parked: Vec::new(),
            unsaved_states: HashMap::new(),
            unsaved_commands: Vec::new(),
            saving: None,
            save_at: Instant::now() + parts.config.save_every,
            save_not_before: Instant::now(),
            save_failed: false,
            clock_seen: (parts.clock.now(), Instant::now()),
            clock_trouble: None,
            in_hand: None,
            refused: Vec::new(),
            parts,
        }
    }

    pub async fn run(&mut self, task: &mut Task) -> End {
        let mut wanted = task.wanted.clone();
        let mut stopping = !wanted.is_here();
        loop {
            self.states.trim();
            self.ids.trim();
            if let Some(why) = self.clock_trouble.take() {
                return End::Unsettled(why);
            }
            self.start_look_up(task);
            if let Err(why) = self.start_append() {
                return End::Unsettled(why);
            }
            self.start_save();
            self.report(task);
            if stopping && self.is_idle() {
                return End::Released;
            }
            let (has_room, has_room_for_looked_up) = (self.has_room(), self.has_room_for_looked_up());
            tokio::select! {
                biased;
                appended = wait(self.in_flight.as_mut().map(|in_flight| &mut in_flight.append)) => {
                    if let Err(why) = self.settle(appended) {
                        return End::Unsettled(why);
                    }
                }
                saved = wait(self.saving.as_mut().map(|saving| &mut saving.save)) => {
                    if let Err(why) = self.saved(saved) {
                        return End::Unsettled(why);
                    }
                }
                loaded = wait(self.loading.as_mut().map(|loading| &mut loading.load)), if has_room_for_looked_up => {
                    if let Err(why) = self.loaded(loaded, task) {
                        return End::Unsettled(why);
                    }
                }
                page = self.stored_streams.next(&self.parts, self.shard, self.held), if !self.states.knows_all_that_began() => {
                    if let Err(why) = self.found_streams(page) {
                        return End::Unsettled(why);
                    }
                }
                page = self.stored_commands.next(&self.parts, self.shard, self.held), if self.states.knows_all_that_began() && !self.ids.knows_all_derived() => {
                    if let Err(why) = self.found_commands(page) {
                        return End::Unsettled(why);
                    }
                }
                // Before the messages: a busy shard must not put them off for ever.
                () = wanted.withdrawn(), if !stopping => {
                    stopping = true;
                    self.save_failed = false;
                }
                () = tokio::time::sleep_until(self.save_at) => self.save_due(),
                message = task.next(), if has_room && self.takes_messages() && !stopping => match message {
                    Some(message) => self.take(message, task),
                    None => stopping = true,
                },
            }
        }
    }

    /// May another command be decided before the next append?
    fn has_room(&self) -> bool {
        self.pending.records() < self.parts.config.batch_records_max
            && self.pending.bytes < self.parts.config.batch_bytes_max
    }

    /// Is there room for all that wait for the look-up under way? Else it is their turn as soon as what is pending is on its way, before
    /// whoever comes next: many others must not put them off for ever.
    fn has_room_for_looked_up(&self) -> bool {
        let messages = self.loading.as_ref().map_or(0, |loading| loading.messages.len());
        let has_room = self.has_room() && self.pending.records() + messages <= self.parts.config.batch_records_max;
        has_room || self.pending.is_empty()
    }

    /// Decides these in order; those that the next append has no room for wait on, before all others. They wait with
    /// the task until it is their turn: a panic at one of them takes none of the others along.
    fn answer_while_there_is_room(&mut self, messages: Vec<Message>, task: &mut Task) {
        let count = messages.len();
        task.put_back(messages.into_iter());
        for _ in 0..count {
            if !self.has_room() {
                return;
            }
            match task.try_next() {
                Some(message) => self.answer(message),
                None => return,
            }
        }
    }

    /// Decides one request; its answer leaves when the batch it rests on is durable.
    fn answer(&mut self, message: Message) {
        let open = match message {
            Message::Execute(open) => open,
            Message::Peek { stream, reply } => {
                let cached = self.states.get(stream).expect("a state is loaded before it is shown");
                // What it was told rests on the pending batch if that has events, else on the one in flight.
                let batch = match &mut self.in_flight {
                    Some(in_flight) if self.pending.records() == 0 => &mut in_flight.batch,
                    _ => &mut self.pending,
                };
                return batch.peeks.push((stream, reply, (cached.state, cached.version)));
            }
        };
        if open.reply.is_closed() || !open.ticket.start() {
            return;
        }
        if let Some(prepared) = self.known_in_flight(&open.request) {
            let in_flight = self.in_flight.as_mut().expect("it was just found there");
            in_flight.batch.answers.push((open, prepared));
            return;
        }
        let id = open.request.command_id;
        if self.refused.contains(&id) && !self.is_known(&open.request) {
            let why = "the program fails at this command, again and again; whoever runs it has been told";
            return open.answer(Err(Failure::NotAccepted(why.into())));
        }
        if self.unsaved() > self.parts.config.unsaved_max && !self.is_known(&open.request) {
            return open.answer(Err(Failure::NotAccepted("the state store is behind".into())));
        }
        if self.is_clock_far_ahead() {
            let why = "the clock of the machine that serves the shard was put ahead by more than a day";
            self.clock_trouble = Some(why.to_owned());
            return open.answer(Err(Failure::NotAccepted(why.into())));
        }
        let mut now = self.clock_seen.0.max(self.last_time);
        if bugs::has(Bug::TimeGoesBack) {
            now = self.parts.clock.now();
        }
        if is_ahead(id, now) && !self.is_known(&open.request) {
            let why = "its id was made after the time that this process takes for now";
            return open.answer(Err(Failure::NotAccepted(why.into())));
        }
        self.in_hand = Some(id);
        if bugs::has(Bug::PanicsAtCommand) && open.request.who.actor.to_string() == "system:panic" {
            panic!("a panic was asked for");
        }
        let decision = decide(
            &open.request,
            &mut self.states,
            &self.ids,
            &self.pending,
            Surroundings {
                elsewhere: &Elsewhere::default(),
                calendar: &self.calendar,
                now,
                shard: self.shard,
            },
        );
        self.in_hand = None;
        if let Prepared::Known(ack) = decision.prepared {
            // What it answers is durable already.
            return open.answer(Ok(ack));
        }
        if !decision.events.is_empty() {
            self.last_time = now;
            self.gather(&open.request, decision.events, decision.states, now);
        } else if let (Prepared::Failed(why), true) = (&decision.prepared, bugs::has(Bug::RefusalFromSpeculation)) {
            let why = why.clone();
            return open.answer(Err(why));
        } else if let (Some(in_flight), true) = (&mut self.in_flight, bugs::has(Bug::ProofFromTheAppendBefore)) {
            return in_flight.batch.answers.push((open, decision.prepared));
        }
        // What writes nothing may come from a memory that another owner has made stale. Only a record that is sent from now on proves that
        // it is not: what is on its way may have stood before the other one's claim. That goes for a refusal too: it may answer the retry of
        // a command that the other one has applied. So each waits for the pending batch, which has a barrier where it has no events.
        self.pending.answers.push((open, decision.prepared));
    }

    /// Looks at the clock. Was it put ahead since it was last looked at, by more than can be believed? Then a take-over compares it with
    /// another.
    fn is_clock_far_ahead(&mut self) -> bool {
        let (now, at) = (self.parts.clock.now(), Instant::now());
        let (seen, since) = self.clock_seen;
        if now > seen + at.duration_since(since) + CLOCK_AHEAD_MAX {
            return true;
        }
        self.clock_seen = (now, at);
        false
    }

    /// What a command wrote joins the pending batch.
    fn gather(&mut self, request: &Request, events: Vec<StoredEvent>, states: Vec<(StreamRef, Cached)>, at: Timestamp) {
        let command = SavedCommand {
            id: request.command_id,
            hash: request.hash.clone(),
            streams: written(&events),
            offset: 0,
            events: events.len() as u32,
            at,
        };
        self.pending.bytes += events.iter().map(|event| event.body.len() + 600).sum::<usize>();
        self.pending.events.extend(events);
        self.pending.commands.push((command, self.pending.events.len() - 1));
        for (stream, cached) in states {
            self.states.changed(stream, cached.clone());
            self.pending.states.insert(stream, cached);
        }
    }

    /// Was it applied? Then it has its answer, whatever cannot be looked up or saved: after a take-over it may be the request itself that
    /// wrote, and it must not hear that it was not accepted.
    ///
    /// That goes for one that is about to be written too: it must not be looked up, for it is written, and saved, and may be gone from memory
    /// again, before the store has answered that there is none.
    fn is_known(&self, request: &Request) -> bool {
        let id = request.command_id;
        let in_flight = self
            .in_flight
            .as_ref()
            .and_then(|in_flight| in_flight.batch.command(id));
        let is_being_written = self.pending.command(id).is_some() || in_flight.is_some();
        self.ids.get(id).is_some()
            || known_as_given(request, &self.ids).is_some()
            || (is_being_written && !bugs::has(Bug::TwinLookedUp))
    }

    /// The same command is on its way already: it gets the same answer.
    fn known_in_flight(&self, request: &Request) -> Option<Prepared> {
        let (command, last) = self.in_flight.as_ref()?.batch.command(request.command_id)?;
        Some(if command.hash == request.hash {
            let streams = super::batch::texts(&command.streams);
            Prepared::Wrote {
                streams,
                last: *last,
                events: command.events,
            }
        } else {
            Prepared::Failed(Failure::IdReused(request.given))
        })
    }

    /// Sends the pending batch on its way, if nothing else is.
    fn start_append(&mut self) -> Result<(), String> {
        if self.in_flight.is_some() || self.pending.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.pending);
        let mut records: Vec<Record> = Vec::with_capacity(batch.records());
        for event in &batch.events {
            self.n += 1;
            records.push(event.to_record(&self.parts.source, self.epoch, self.n));
        }
        if batch.needs_barrier() {
            self.n += 1;
            let id = domain::derived_id(&[
                "barrier",
                &self.parts.node,
                &self.epoch.to_string(),
                &self.n.to_string(),
            ]);
            let now = self.parts.clock.now().max(self.last_time);
            records.push(Envelope::barrier_record(
                id,
                &self.parts.source,
                now,
                self.epoch,
                self.n,
            ));
        }
        let Some(last) = records.last() else {
            // Only peeks: they rest on nothing new.
            self.release(batch, self.next);
            return Ok(());
        };
        let (fingerprint, count) = (last.fingerprint(), records.len());
        if bugs::has(Bug::AckBeforeAppend) {
            self.release(std::mem::take(&mut batch), self.next);
        }
        let mut writer = self.writer.take().ok_or("the writer was lost")?;
        let append = tokio::spawn(async move {
            let begun = Instant::now();
            let result = writer.append(records).await;
            metrics::histogram!("crm_append_seconds").record(begun.elapsed().as_secs_f64());
            (writer, result)
        });
        self.in_flight = Some(InFlight {
            append,
            batch,
            fingerprint,
            records: count,
        });
        Ok(())
    }

    /// The log has answered: contiguous offsets release the answers, anything else is for the log to decide.
    fn settle(&mut self, appended: (Box<dyn LogWriter>, Result<Vec<u64>, AppendError>)) -> Result<(), String> {
        let in_flight = self.in_flight.as_ref().expect("something was in flight");
        let (writer, result) = appended;
        let offsets = match result {
            Ok(offsets) => offsets,
            Err(AppendError::Refused(why)) => {
                let told = Why::hiding("the log has no room, or refuses the records", &why);
                // Nothing was written: the senders may know, but states and numbers are wrong now.
                let in_flight = self.in_flight.take().expect("it was just there");
                for (open, _) in in_flight.batch.answers {
                    open.answer(Err(Failure::NoRoom(told.clone())));
                }
                if bugs::has(Bug::StatesOutliveFailedAppend) {
                    self.n = self.watermark.checkpoint.n;
                    self.writer = Some(writer);
                    return Ok(());
                }
                return Err(format!("the log refused: {why}"));
            }
            Err(error) => return Err(error.to_string()),
        };
        let first = self.next;
        let contiguous = offsets.len() == in_flight.records
            && offsets
                .iter()
                .enumerate()
                .all(|(i, offset)| *offset == first + i as u64);
        if !contiguous && !bugs::has(Bug::NoContiguityCheck) {
            return Err("the offsets are not contiguous: somebody else wrote to the shard".into());
        }
        let in_flight = self.in_flight.take().expect("it was just there");
        self.writer = Some(writer);
        self.note_pace(in_flight.batch.answers.len());
        self.next = first + in_flight.records as u64;
        let n = self.watermark.checkpoint.n + in_flight.records as u64;
        let log_id = self.watermark.checkpoint.log_id;
        let fingerprint = in_flight.fingerprint;
        self.watermark.checkpoint = Checkpoint {
            log_id,
            next: self.next,
            epoch: self.epoch,
            n,
            fingerprint,
        };
        metrics::counter!("crm_events_appended_total").increment(in_flight.batch.events.len() as u64);
        self.release(in_flight.batch, first);
        Ok(())
    }

    /// So many are about to be answered.
    fn note_pace(&mut self, answers: usize) {
        let more_wait = !self.pending.is_empty() || !self.parked.is_empty() || self.loading.is_some();
        let next = more_wait.then(Instant::now);
        if let Some(since) = std::mem::replace(&mut self.busy_since, next) {
            self.admission.paced(answers, since.elapsed(), more_wait);
        }
    }

    /// The batch is durable from `first` on: remember, then answer.
    fn release(&mut self, batch: Batch, first: u64) {
        if let Some(event) = batch.events.last() {
            self.watermark.last_time = self.watermark.last_time.max(event.time);
        }
        for (mut command, last) in batch.commands {
            command.offset = first + last as u64;
            self.ids.remember(command.clone());
            self.unsaved_commands.push(command);
        }
        self.unsaved_states.extend(batch.states);
        let position = |offset| Position {
            shard: self.shard,
            offset,
        };
        let confirmed = position(self.next.saturating_sub(1));
        metrics::counter!("crm_commands_answered_total").increment(batch.answers.len() as u64);
        for (open, prepared) in batch.answers {
            let result = match prepared {
                Prepared::Wrote { streams, last, events } => Ok(Ack {
                    streams,
                    position: position(first + last as u64),
                    events,
                }),
                Prepared::Already { streams } => Ok(Ack {
                    streams,
                    position: confirmed,
                    events: 0,
                }),
                Prepared::Known(ack) => Ok(ack),
                Prepared::Failed(failure) => Err(failure),
            };
            open.answer(result);
        }
        for (_, asker, peeked) in batch.peeks {
            // The asker may have given up; nothing depends on it.
            asker.send(Ok(peeked)).unwrap_or_default();
        }
    }

    /// Nothing is under way. With the store down what is unsaved stays so: the log has it, and the next take-over reads it there.
    fn is_idle(&mut self) -> bool {
        if self.in_flight.is_some() || self.loading.is_some() || !self.parked.is_empty() || !self.pending.is_empty() {
            return false;
        }
        if !self.save_failed {
            self.begin_save();
        }
        self.saving.is_none()
    }

    fn report(&self, task: &Task) {
        task.update_status(|status| {
            status.next = self.next;
            status.cached_streams = self.states.len();
            status.cached_commands = self.ids.len();
            status.unsaved = self.unsaved();
            status.knows_what_is_stored = self.states.knows_all_that_began() && self.ids.knows_all_derived();
        });
    }

    /// The requests that are not answered yet, oldest first.
    pub fn open_requests(&mut self) -> Vec<Message> {
        let mut open = Vec::new();
        if let Some(in_flight) = self.in_flight.take() {
            // The writer must not send on while the log is asked what became of it.
            in_flight.append.abort();
            open.extend(reopen(in_flight.batch));
        }
        open.extend(reopen(std::mem::take(&mut self.pending)));
        if let Some(loading) = self.loading.take() {
            open.extend(loading.messages);
        }
        open.append(&mut self.parked);
        open
    }
}

fn reopen(batch: Batch) -> impl Iterator<Item = Message> {
    let peeks = batch.peeks.into_iter();
    let peeks = peeks.map(|(stream, reply, _)| Message::Peek { stream, reply });
    let commands = batch.answers.into_iter().map(|(open, _)| Message::Execute(open));
    commands.chain(peeks)
}
