//! What an event does to the life of its stream: the cards before and after it, by the domain's own fold.
//!
//! A read model of what was true when keeps the steps of each stream in a row of its own, and shows the cards that they come
//! to. The state that commands meet comes from the same fold, so that the two cannot disagree.

use domain::{Card, History};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Event;

/// An event of a stream and since when it is true.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step<E> {
    pub version: u64,
    pub at: Timestamp,
    pub event: E,
}

/// What one event did to a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Advance<C> {
    /// The cards before and after the event: since when, and how the thing stood.
    pub old: Vec<(Timestamp, C)>,
    pub new: Vec<(Timestamp, C)>,
}

impl<C: Card> Advance<C> {
    /// Adds the event to the steps of its stream. Every read model that shows the stream does so: the first one adds the
    /// event, and the others find it there and do it again.
    pub fn of(event: &Event, fact: &C::Event, steps: &mut Vec<Step<C::Event>>) -> Advance<C> {
        steps.retain(|step| step.version < event.version);
        let mut life = life::<C>(steps);
        let old = life.cards();
        let at = life.enter(fact, event.effective_at);
        let new = life.cards();
        if new.len() > old.len() {
            steps.push(Step {
                version: event.version,
                at,
                event: C::remembered(fact),
            });
        }
        Advance { old, new }
    }

    /// The thing as it stands by all that is known.
    pub fn card(&self) -> &C {
        &self.new.last().expect("the event gave a card").1
    }
}

/// The life of which these are the steps, all of them remembered.
pub fn life<C: Card>(steps: &[Step<C::Event>]) -> History<C> {
    let mut life = History::<C>::default();
    for step in steps {
        life.enter(&step.event, step.at);
    }
    life
}
