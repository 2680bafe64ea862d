//! What a client may be told: each answer against what was true between the question and the answer.

use std::any::Any;
use std::collections::HashMap;

use domain::{AnyState, Calendar, Companions, Moment, StreamRef};
use jiff::SignedDuration;
use uuid::Uuid;

use super::orders::Order;
use super::truth::{Applied, Truth};
use super::world::World;
use crate::commands::{Accepted, CommandFailure};
use crate::shard::Failure;

/// What was true when a client asked.
pub struct Question {
    /// Everything that stands before it had been told to somebody.
    told: u64,
    applied: Option<Applied>,
}

/// What an answer means for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Acked or refused for good.
    Final,
    /// To be asked again, with the same id.
    Again,
}

type Answer = Result<Accepted, CommandFailure>;

/// A client begins an attempt.
pub fn ask(world: &World, order: &Order) -> Question {
    let mut truth = world.truth.lock().expect("no panic under the lock");
    let asked = truth.asked.entry(order.command_id).or_default();
    asked.open += 1;
    asked.surely_not = false;
    Question {
        told: truth.told(order.shard),
        applied: truth.applied(order.shard, order.command_id).cloned(),
    }
}

/// An attempt has ended; `None` = no answer came.
pub fn hear(world: &World, order: &Order, question: &Question, answer: Option<&Answer>) -> Outcome {
    let mut truth = world.truth.lock().expect("no panic under the lock");
    let promise = check(&truth, world, order, question, answer);
    let (kind, says_not) = kind(answer);
    world.count(kind);
    let id = order.command_id;
    let asked = truth.asked.get_mut(&id).expect("it was asked");
    asked.open -= 1;
    asked.unknown |= !says_not;
    asked.surely_not = asked.open == 0 && !asked.unknown;
    let surely_not = asked.surely_not;
    let applied = truth.applied(order.shard, id).map(|applied| applied.offset);
    let promise = promise.and(match applied {
        Some(offset) if surely_not => Err(format!(
            "{}: its client was told that command {id} surely was not applied ({kind}), and it stands at {offset}",
            order.shard
        )),
        _ => Ok(()),
    });
    if let Some(Ok(accepted)) = answer {
        truth.tell(order.shard, accepted.ack.position.offset);
    }
    drop(truth);
    world.note(format_args!("{}: command {id}: {}", order.shard, words(answer)));
    world.check(promise);
    match answer {
        Some(Ok(_)) => Outcome::Final,
        Some(Err(CommandFailure::Shard(
            Failure::Rejected(_) | Failure::Conflict { .. } | Failure::IdReused(_) | Failure::TooLarge(_),
        ))) => Outcome::Final,
        Some(Err(_)) | None => Outcome::Again,
    }
}

/// What it is counted as, and whether it says that this attempt surely applied nothing.
fn kind(answer: Option<&Answer>) -> (&'static str, bool) {
    match answer {
        None => ("no answer", false),
        Some(Ok(accepted)) if accepted.ack.events == 0 => ("acked: already so", true),
        Some(Ok(_)) => ("acked", false),
        Some(Err(CommandFailure::Malformed { .. })) => ("refused at the door", true),
        Some(Err(CommandFailure::Shard(failure))) => match failure {
            Failure::Rejected(_) => ("rejected", true),
            Failure::Conflict { .. } => ("in conflict", true),
            Failure::IdReused(_) => ("id reused", false),
            Failure::TooLarge(_) => ("too large", true),
            Failure::NotAccepted(_) | Failure::NotInTime(_) | Failure::Elsewhere(_) => ("not accepted", true),
            Failure::OutcomeUnknown(_) => ("outcome unknown", false),
            Failure::NoRoom(_) => ("no room", true),
        },
    }
}

fn words(answer: Option<&Answer>) -> String {
    match answer {
        None => "no answer came".into(),
        Some(Ok(accepted)) => format!("acked at {}, {} events", accepted.ack.position, accepted.ack.events),
        Some(Err(failure)) => failure.to_string(),
    }
}

fn check(
    truth: &Truth,
    world: &World,
    order: &Order,
    question: &Question,
    answer: Option<&Answer>,
) -> Result<(), String> {
    let (id, shard) = (order.command_id, order.shard);
    let Some(answer) = answer else { return Ok(()) };
    match answer {
        Ok(accepted) if accepted.ack.events > 0 => check_ack(truth, order, accepted),
        Ok(accepted) => {
            if question.applied.is_some() {
                return Err(format!(
                    "{shard}: command {id} wrote, and was answered \"already so\" when it came again"
                ));
            }
            check_already_so(truth, world, order, question, accepted)
        }
        Err(CommandFailure::Malformed { at, .. }) if at == "Idempotency-Key" => Ok(()),
        Err(CommandFailure::Malformed { at, message }) => Err(format!("a command was malformed at {at}: {message}")),
        Err(CommandFailure::Shard(failure)) => match failure {
            Failure::Rejected(_) | Failure::Conflict { .. } | Failure::TooLarge(_) if question.applied.is_some() => {
                Err(format!(
                    "{shard}: command {id} stood in the log, and was refused when it came again: {failure}"
                ))
            }
            Failure::Rejected(sentence) => check_rejection(truth, world, order, question, sentence),
            Failure::Conflict { current, .. } => {
                let versions = versions(truth, shard, order.steps[0].stream, question.told, truth.end(shard));
                match versions.contains(current) {
                    true => Ok(()),
                    false => Err(format!(
                        "{shard}: command {id} was told that {} is at version {current}, which it was not at any time since \
                         it asked: {versions:?}",
                        order.steps[0].stream
                    )),
                }
            }
            Failure::IdReused(_) => Err(format!(
                "{shard}: command {id} was told that its id was used with another content"
            )),
            Failure::TooLarge(_)
            | Failure::NotAccepted(_)
            | Failure::NotInTime(_)
            | Failure::Elsewhere(_)
            | Failure::OutcomeUnknown(_)
            | Failure::NoRoom(_) => Ok(()),
        },
    }
}

/// An ack tells what stands in the log.
fn check_ack(truth: &Truth, order: &Order, accepted: &Accepted) -> Result<(), String> {
    let (id, shard) = (order.command_id, order.shard);
    let Some(applied) = truth.applied(shard, id) else {
        return Err(format!(
            "{}: command {id} was acked and does not count in the log",
            accepted.ack.position
        ));
    };
    let streams: Vec<(String, u64)> = applied
        .streams
        .iter()
        .map(|(stream, version)| (stream.to_string(), *version))
        .collect();
    let ack = &accepted.ack;
    if (ack.position.shard, ack.position.offset, ack.events) != (shard, applied.offset, applied.events)
        || ack.streams != streams
    {
        return Err(format!(
            "command {id} was acked at {} with {} events, and stands at {shard}:{} with {} events, or with other versions",
            ack.position, ack.events, applied.offset, applied.events
        ));
    }
    Ok(())
}

/// "Already so" was so at some time between the question and the answer, and the position covers it.
fn check_already_so(
    truth: &Truth,
    world: &World,
    order: &Order,
    question: &Question,
    accepted: &Accepted,
) -> Result<(), String> {
    let (id, shard) = (order.command_id, order.shard);
    let next = accepted.ack.position.offset + 1;
    if next < question.told {
        return Err(format!(
            "{shard}: command {id} was answered \"already so\" as of {next}, and somebody had been told of {} before it asked",
            question.told
        ));
    }
    for (text, version) in &accepted.ack.streams {
        let stream = StreamRef::parse(text).ok_or_else(|| format!("an ack names the stream {text:?}"))?;
        let versions = versions(truth, shard, stream, question.told, next);
        if !versions.contains(version) {
            return Err(format!(
                "{shard}: command {id} was answered \"already so\" at version {version} of {stream}, which had the versions \
                 {versions:?} between question and answer"
            ));
        }
    }
    let [wish] = order.steps.as_slice() else { return Ok(()) };
    let is_so = decisions(truth, world, order, question.told, next).any(|decided| decided == Ok(0));
    match is_so {
        true => Ok(()),
        false => Err(format!(
            "{shard}: command {id} was answered \"already so\", and never was so on {}",
            wish.stream
        )),
    }
}

/// A refusal was right at some time between the question and the answer.
fn check_rejection(
    truth: &Truth,
    world: &World,
    order: &Order,
    question: &Question,
    sentence: &str,
) -> Result<(), String> {
    let (id, shard) = (order.command_id, order.shard);
    if order.steps.len() > 1 {
        return Ok(());
    }
    let end = truth.end(shard);
    let is_so = decisions(truth, world, order, question.told, end).any(|decided| decided == Err(sentence.to_owned()));
    match is_so {
        true => Ok(()),
        false => Err(format!(
            "{shard}: command {id} was refused ({sentence}), and nothing between question and answer gave a reason to"
        )),
    }
}

fn versions(truth: &Truth, shard: u16, stream: StreamRef, from: u64, to: u64) -> std::ops::RangeInclusive<u64> {
    truth.version(shard, stream, from)..=truth.version(shard, stream, to)
}

/// What the single command of an order comes to (how many events, or a rejection) in each state that it could have met.
fn decisions<'a>(
    truth: &'a Truth,
    world: &'a World,
    order: &'a Order,
    from: u64,
    to: u64,
) -> impl Iterator<Item = Result<usize, String>> + 'a {
    let (shard, wish) = (order.shard, &order.steps[0]);
    let command = wish.parsed();
    let companions = command.companions();
    let companion = companions.first().copied().unwrap_or(wish.stream);
    let own = versions(truth, shard, wish.stream, from, to);
    // The shard's clock may be wrong, and it never goes back: no event lies ahead of the time at which a command is decided.
    let now = world.time() + SignedDuration::from_millis(world.weather.clock_jump_ms_max.cast_signed());
    own.flat_map(move |own| versions(truth, shard, companion, from, to).map(move |other| (own, other)))
        .map(move |(own, other)| {
            let state = truth.state(shard, wish.stream, own).expect("it had that version");
            let beside = truth.state(shard, companion, other).expect("it had that version");
            let calendar = Calendar::taipei();
            let known = Beside(HashMap::from([(companion, beside)]));
            let at = Moment::new(wish.stream.id, now, now, &calendar, &known);
            let decided = state.decide(command.clone(), &at);
            decided
                .map(|facts| facts.len())
                .map_err(|rejection| rejection.to_string())
        })
}

struct Beside(HashMap<StreamRef, std::sync::Arc<AnyState>>);

impl Companions for Beside {
    fn find(&self, stream: StreamRef) -> Option<&dyn Any> {
        self.0.get(&stream).map(|state| state.as_any())
    }
}

/// A state that a client was shown was one of the stream's.
pub fn check_peek(world: &World, shard: u16, stream: StreamRef, state: &AnyState, version: u64) {
    let truth = world.truth.lock().expect("no panic under the lock");
    let promise = match truth.state(shard, stream, version).as_deref() == Some(state) {
        true => Ok(()),
        false => Err(format!(
            "{shard}: {stream} was shown in a state that it did not have at version {version}"
        )),
    };
    drop(truth);
    world.check(promise);
}

/// A client sends another content under an id that it knows was applied.
pub fn hear_reuse(world: &World, order: &Order, id: Uuid, answer: Option<&Answer>) {
    let promise = match answer {
        None
        | Some(Err(CommandFailure::Shard(
            Failure::IdReused(_) | Failure::NotAccepted(_) | Failure::OutcomeUnknown(_) | Failure::NoRoom(_),
        ))) => Ok(()),
        Some(Err(CommandFailure::Malformed { at, .. })) if at == "Idempotency-Key" => Ok(()),
        Some(answer) => Err(format!(
            "{}: command {id} came again with another content, and the answer was {answer:?}",
            order.shard
        )),
    };
    world.count("another content under a known id");
    world.check(promise);
}
