//! Given events, when a command, then events: the sentences that specify a stream.

use std::any::Any;
use std::collections::HashMap;

use jiff::Timestamp;
use uuid::Uuid;

use crate::AnyState;

use super::{Calendar, Companions, Id, Moment, Stream, StreamRef, derived_id, slot_of};

/// When the specs decide, unless they say another time.
const NOW: &str = "2026-03-02T09:00:00+08:00";

/// A stream with a past.
pub struct Given<S: Stream> {
    id: Uuid,
    state: S::State,
    companions: HashMap<StreamRef, Box<dyn Any>>,
    now: Timestamp,
    effective_at: Option<Timestamp>,
    calendar: Calendar,
}

/// What a command came to.
#[must_use]
pub struct Outcome<S: Stream>(Result<Vec<S::Event>, S::Rejection>);

/// The companions that the spec gave, and the default state for those of the same slot that the command declares besides.
struct Known<'a> {
    id: Uuid,
    given: &'a HashMap<StreamRef, Box<dyn Any>>,
    declared: HashMap<StreamRef, AnyState>,
}

impl Companions for Known<'_> {
    fn find(&self, stream: StreamRef) -> Option<&dyn Any> {
        let declared = self.declared.get(&stream);
        let default = declared.expect("a companion is declared before it is asked for");
        match self.given.get(&stream) {
            Some(given) => Some(given.as_ref()),
            None if slot_of(stream.id) == slot_of(self.id) => Some(default.as_any()),
            None => None,
        }
    }
}

/// A stream to which `events` happened, all of them at the time at which the specs decide.
pub fn given<S: Stream>(events: impl IntoIterator<Item = S::Event>) -> Given<S> {
    given_at(events.into_iter().map(|event| (NOW, event)))
}

/// A stream to which events happened, in the order in which they were recorded, each with the time since which it is true.
pub fn given_at<S: Stream>(events: impl IntoIterator<Item = (&'static str, S::Event)>) -> Given<S> {
    let id = derived_id(&["spec"]);
    let state = events.into_iter().fold(S::State::default(), |state, (at, event)| {
        S::evolve(state, &event, moment(at))
    });
    Given {
        id,
        state,
        companions: HashMap::new(),
        now: moment(NOW),
        effective_at: None,
        calendar: Calendar::taipei(),
    }
}

/// The state after `events`, all of them true since the time at which the specs decide.
pub fn folded<'a, S: Stream>(events: impl IntoIterator<Item = &'a S::Event>) -> S::State {
    let at = moment(NOW);
    events
        .into_iter()
        .fold(S::State::default(), |state, event| S::evolve(state, event, at))
}

/// The id of another stream in the slot of the stream under specification.
pub fn neighbour<S: Stream>(name: &str) -> Id<S> {
    Id::new(slot_of(derived_id(&["spec"])).apply(derived_id(&[S::NAME, name])))
}

/// The id of another stream in another slot.
pub fn stranger<S: Stream>(name: &str) -> Id<S> {
    let other = super::Slot::new(slot_of(derived_id(&["spec"])).number() + 1);
    Id::new(other.apply(derived_id(&[S::NAME, name])))
}

/// Reads a time such as `2026-03-02T09:00:00+08:00`.
///
/// # Panics
/// When it is none.
pub fn moment(text: &str) -> Timestamp {
    text.parse().expect("a timestamp")
}

impl<S: Stream> Given<S> {
    /// Under this id.
    pub fn under(mut self, id: Id<S>) -> Given<S> {
        self.id = id.uuid();
        self
    }

    /// With a companion stream in this state.
    pub fn with<C: Stream>(mut self, id: Id<C>, state: C::State) -> Given<S> {
        self.companions.insert(StreamRef::of(id), Box::new(state));
        self
    }

    /// At this time.
    pub fn at(mut self, now: &str) -> Given<S> {
        self.now = moment(now);
        self
    }

    /// True in the world at this time.
    pub fn effective(mut self, effective_at: &str) -> Given<S> {
        self.effective_at = Some(moment(effective_at));
        self
    }

    /// In a company whose clocks are of this time zone, and not Taipei's.
    ///
    /// # Panics
    /// When there is no such time zone.
    pub fn in_zone(mut self, time_zone: &str) -> Given<S> {
        self.calendar = Calendar::of(time_zone).expect("a time zone");
        self
    }

    pub fn when(&self, command: S::Command) -> Outcome<S> {
        Outcome(self.decide(command))
    }

    /// Decides `command`, applies what it gave, and decides it again: the first time must give events, the second none.
    ///
    /// # Panics
    /// When it does not.
    pub fn same_intent_twice(mut self, command: S::Command) {
        let first = self.decide(command.clone()).expect("the first time is accepted");
        assert!(!first.is_empty(), "the first time gives events");
        let at = self.effective_at.unwrap_or(self.now);
        self.state = first
            .iter()
            .fold(self.state, |state, event| S::evolve(state, event, at));
        let second = self.decide(command).expect("the second time is accepted");
        assert_eq!(second, Vec::new(), "the second time gives nothing");
    }

    /// What the stream says to `command`, for a spec that goes on with it.
    ///
    /// # Errors
    /// The stream's rejection.
    pub fn decide(&self, command: S::Command) -> Result<Vec<S::Event>, S::Rejection> {
        let declared = S::companions(&command)
            .into_iter()
            .map(|stream| (stream, AnyState::initial(stream.kind)))
            .collect();
        let known = Known {
            id: self.id,
            given: &self.companions,
            declared,
        };
        let at = Moment::new(
            self.id,
            self.now,
            self.effective_at.unwrap_or(self.now),
            &self.calendar,
            &known,
        );
        S::decide(&self.state, command, &at)
    }
}

impl<S: Stream> Outcome<S> {
    /// # Panics
    /// When other events, or a rejection, came out.
    pub fn then(self, events: impl IntoIterator<Item = S::Event>) {
        assert_eq!(self.0, Ok(events.into_iter().collect()));
    }

    /// # Panics
    /// When events, or a rejection, came out.
    pub fn then_nothing(self) {
        assert_eq!(self.0, Ok(Vec::new()));
    }

    /// # Panics
    /// When it was accepted, or rejected otherwise.
    pub fn then_rejected(self, rejection: S::Rejection) {
        assert_eq!(self.0, Err(rejection));
    }
}
