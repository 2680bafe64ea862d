//! What a request would come to, without doing it.

use std::collections::BTreeSet;

use domain::{Calendar, StreamRef};
use jiff::Timestamp;

use super::batch::{Batch, Elsewhere, Prepared, Surroundings, decide};
use super::cache::{Cached, CommandIds, States};
use super::request::{Action, Failure, Peeked, Request};

/// The streams that a request is decided on: those of its steps, and their companions in the same slot.
pub fn streams_of(request: &Request) -> Vec<StreamRef> {
    let mut streams = Vec::new();
    for step in &request.steps {
        streams.push(step.stream);
        if let Action::Decide(command) = &step.action {
            let companions = command.companions().into_iter();
            streams.extend(companions.filter(|other| other.slot() == step.stream.slot()));
        }
    }
    streams
}

/// The streams of other slots that a request refers to. The shard cannot look at them.
pub fn elsewhere_of(request: &Request) -> BTreeSet<StreamRef> {
    let steps = request.steps.iter();
    let referred_to = steps.flat_map(|step| match &step.action {
        Action::Decide(command) => command
            .companions()
            .into_iter()
            .filter(|other| other.slot() != step.stream.slot())
            .collect(),
        Action::Record(_) => vec![],
    });
    referred_to.collect()
}

/// Decides `request` on the states of [`streams_of`] it, as the shard would if it had not met it before, and if it knew what is
/// `elsewhere`: how many events it would write.
///
/// # Errors
/// The refusal.
pub fn rehearse(
    request: &Request,
    states: impl IntoIterator<Item = (StreamRef, Peeked)>,
    elsewhere: &Elsewhere,
    now: Timestamp,
    calendar: &Calendar,
) -> Result<usize, Failure> {
    let mut known = States::new(0);
    for (stream, (state, version)) in states {
        known.loaded(stream, Cached { version, state });
    }
    let (ids, batch) = (CommandIds::new(0, now), Batch::default());
    let around = Surroundings {
        elsewhere,
        calendar,
        now,
        shard: 0,
    };
    let decision = decide(request, &mut known, &ids, &batch, around);
    match decision.prepared {
        Prepared::Failed(failure) => Err(failure),
        Prepared::Wrote { .. } | Prepared::Already { .. } | Prepared::Known(_) => Ok(decision.events.len()),
    }
}
