//! What is refused before a shard is asked, whatever way it comes in.

use domain::{AnyCommand, ExternalKey, Home, StreamRef, customer, id_from_key, slot_of, tidy_key, time_within};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{BUNDLE_MAX, CommandFailure, Commands, malformed};
use crate::clock::whole_microseconds;
use crate::shard::{Action, CLOCK_SKEW_MAX, Request, id_made_at, is_trace_id, is_traceparent, made_at};

/// How long a client-made command id is remembered, and so accepted.
pub const COMMAND_ID_DAYS_MAX: i64 = 30;
/// Keys in other systems that one registration reserves at most.
pub const EXTERNAL_KEYS_MAX: usize = 100;

/// Where a command id stands in a request.
pub(super) const COMMAND_ID_AT: &str = "Idempotency-Key";

impl Commands {
    /// Checks a request that another process sends for a shard of this one, as if it came through the door here: what is wrong in it must
    /// not get into the log, wherever it comes from. Its texts were checked when it was read.
    ///
    /// # Errors
    /// [`CommandFailure::Malformed`], or [`CommandFailure::Shard`] when a shard that has to be asked does not answer.
    pub async fn check(&self, shard: u16, request: &Request) -> Result<(), CommandFailure> {
        let now = self.clock.now();
        command_id(Some(request.command_id), now)?;
        command_id(Some(request.given), now)?;
        effective_at(request.effective_at, now)?;
        let slot = request.steps.first().map(|step| step.stream.slot());
        let commands = request.steps.iter().filter(|step| !step.is_guard()).count();
        let is_too_long = commands > BUNDLE_MAX || request.steps.len() > 2 * BUNDLE_MAX;
        if is_too_long || request.steps.iter().any(|step| Some(step.stream.slot()) != slot) {
            return Err(malformed(
                ".",
                format!("a bundle has 1 to {BUNDLE_MAX} commands on streams of one slot"),
            ));
        }
        for step in &request.steps {
            self.check_shard(shard, step.stream)?;
            match &step.action {
                Action::Decide(command) => {
                    external_keys(command)?;
                    self.must_be_its_id(step.stream, command).await?;
                }
                Action::Record(_) => return Err(malformed(".", "only commands are accepted here, not events")),
            }
        }
        for (id, key) in &request.external_keys {
            let mut streams = request.steps.iter().map(|step| step.stream);
            let is_its_own = streams.any(|stream| stream.id == *id && is_key_of(stream, key));
            if !is_its_own || !key.is_opaque() || !is_tidy(key) {
                return Err(malformed("external_keys", "a key that its stream does not have"));
            }
        }
        let who = &request.who;
        let mut traces = [&who.causation, &who.correlation].into_iter().flatten();
        match traces.all(|id| is_trace_id(id)) && who.traceparent.as_deref().is_none_or(is_traceparent) {
            true => Ok(()),
            false => Err(malformed(
                "who",
                "a causation, a correlation or a trace context has no such form",
            )),
        }
    }

    /// Is it this shard that has the stream?
    ///
    /// # Errors
    /// [`CommandFailure::Malformed`] when it is another.
    pub fn check_shard(&self, shard: u16, stream: StreamRef) -> Result<(), CommandFailure> {
        match self.shard_of(stream.slot()) {
            own if own == shard => Ok(()),
            own => Err(malformed(
                "stream",
                format!("{stream} belongs to shard {own}, not to shard {shard}"),
            )),
        }
    }

    /// Is this the id of what the command begins? What has its identity in the command has one id, however it comes. A stream that was
    /// begun under another id, when that was taken, goes on there: its own state says whether it is the same.
    ///
    /// A stream that belongs to another lives in its slot, else what `decide` must check could not be looked at. Ids derived from outside
    /// keys have a slot of their own.
    pub(super) async fn must_be_its_id(&self, stream: StreamRef, command: &AnyCommand) -> Result<(), CommandFailure> {
        match command.home() {
            Home::Exactly(own) if own != stream.id && !self.has_begun(stream).await? => {
                let kind = stream.kind.name();
                let why = format!("the command identifies {kind} {own}; send it to that id, or leave the id out");
                Err(malformed("id", why))
            }
            Home::With(other)
                if slot_of(other) != stream.slot()
                    && stream.id.get_version_num() != 8
                    && !self.has_begun(stream).await? =>
            {
                Err(malformed(
                    "id",
                    "the id does not carry the slot of what it belongs to; leave it out, and one is made",
                ))
            }
            Home::Exactly(_) | Home::With(_) | Home::Anywhere => Ok(()),
        }
    }
}

/// Is the stream's id the one that the key gives?
pub(super) fn is_key_of(stream: StreamRef, key: &ExternalKey) -> bool {
    id_from_key(stream.kind.name(), &key.source, &key.key) == stream.id
}

fn is_tidy(key: &ExternalKey) -> bool {
    let is_tidy = |text: &String| tidy_key(text).as_ref() == Ok(text);
    is_tidy(&key.source) && is_tidy(&key.key)
}

/// Each key is reserved by itself, so there are not many.
pub(super) fn external_keys(command: &AnyCommand) -> Result<(), CommandFailure> {
    match command {
        AnyCommand::Customer(customer::Command::Register { external, .. }) if external.len() > EXTERNAL_KEYS_MAX => {
            let given = external.len();
            let what = format!("a customer is registered with at most {EXTERNAL_KEYS_MAX} external keys, not {given}");
            Err(malformed("external", what))
        }
        _ => Ok(()),
    }
}

pub(super) fn command_id(given: Option<Uuid>, now: Timestamp) -> Result<Uuid, CommandFailure> {
    let Some(id) = given else { return Ok(id_made_at(now)) };
    let refuse = |why: &str| Err(malformed(COMMAND_ID_AT, why.to_owned()));
    match (id.get_version_num(), made_at(id)) {
        (8, _) => Ok(id),
        (7, Some(made_at)) if made_at > now + CLOCK_SKEW_MAX => refuse("the command id lies in the future"),
        (7, Some(made_at)) if made_at < now - SignedDuration::from_hours(24 * COMMAND_ID_DAYS_MAX) => {
            refuse("the command id is older than 30 days: whether it was applied is not remembered any more")
        }
        (7, Some(_)) => Ok(id),
        _ => refuse("a command id is a UUID of version 7 (or 8, derived)"),
    }
}

pub(super) fn effective_at(given: Option<Timestamp>, now: Timestamp) -> Result<Option<Timestamp>, CommandFailure> {
    match given {
        Some(at) if at > now + CLOCK_SKEW_MAX => Err(malformed(
            "effective_at",
            format!("{at} lies in the future: what has not happened is no event; does the time have its right offset?"),
        )),
        Some(at) => match time_within(at) {
            Ok(at) => Ok(Some(whole_microseconds(at))),
            Err(bad) => Err(malformed("effective_at", bad.to_string())),
        },
        None => Ok(None),
    }
}
