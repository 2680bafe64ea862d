//! What was true when: the events of a stream in the order in which they are true, and the card that they come to.
//!
//! An event may be recorded late. Then it takes its place among the others by its effective time. Of several events of
//! one instant the order of recording counts. No event is true before its cause, whatever its time says: clocks
//! differ, and people mistype. States and read models both use this file, so that they cannot disagree.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// So many events can be preceded by a late one. The events before them are settled: a state keeps only their card.
/// A late entry that is dated before the settled card is taken as true since the time of that card. States and read
/// models do so alike.
pub const STEPS_MAX: usize = 64;

/// A thing as it stood at one time, and what an event makes of it.
pub trait Card:
    Default + Clone + PartialEq + fmt::Debug + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static
{
    type Event: Clone + PartialEq + fmt::Debug + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;

    /// Is `earlier`, which was recorded before `event`, a cause of `event`? Then `event` is not true before it.
    /// The first event of a stream is a cause of all others, and need not be named here.
    fn is_cause(earlier: &Self::Event, event: &Self::Event) -> bool;

    /// The card after `event`, which is true since `at`. Events come in the order in which they are true, so an event
    /// may meet a card that it was not decided on.
    fn after(self, event: &Self::Event, at: Timestamp) -> Self;

    /// Does `event` change this card? One that does not, and that would not after any late event either, need not be
    /// remembered: the thousandth reply.
    fn is_changed_by(&self, _event: &Self::Event) -> bool {
        true
    }

    /// What is remembered of an event; a card may not need its long texts.
    fn remembered(event: &Self::Event) -> Self::Event {
        event.clone()
    }
}

/// An event, its number in the order of recording, and since when it is true.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step<E> {
    pub n: u64,
    pub at: Timestamp,
    pub event: E,
}

/// The life of a thing. It reads as its latest card: the one by all events that there are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(bound = "")]
pub struct History<C: Card> {
    #[serde(flatten)]
    latest: C,
    /// What is needed to enter a late event.
    #[serde(default)]
    history: Past<C>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(bound = "")]
struct Past<C: Card> {
    /// The event that began the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begun: Option<Step<C::Event>>,
    /// The card that the oldest events came to, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled: Option<Box<Settled<C>>>,
    /// All later ones, in the order in which they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<Step<C::Event>>,
    /// How many events there were.
    #[serde(default)]
    recorded: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(bound = "")]
struct Settled<C: Card> {
    at: Timestamp,
    card: C,
}

impl<C: Card> Default for History<C> {
    fn default() -> History<C> {
        C::default().into()
    }
}

impl<C: Card> Default for Past<C> {
    fn default() -> Past<C> {
        Past {
            begun: None,
            settled: None,
            steps: Vec::new(),
            recorded: 0,
        }
    }
}

/// A thing that stands so, and of which nothing else is known.
impl<C: Card> From<C> for History<C> {
    fn from(latest: C) -> History<C> {
        History {
            latest,
            history: Past::default(),
        }
    }
}

impl<C: Card> Deref for History<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.latest
    }
}

impl<C: Card> History<C> {
    /// The event that began the stream, as it was recorded.
    pub fn begun(&self) -> Option<&C::Event> {
        self.history.begun.as_ref().map(|step| &step.event)
    }

    /// The card at `t`. Before the stream was begun it is the card of a stream that was never begun.
    pub fn at(&self, t: Timestamp) -> Cow<'_, C> {
        let past = &self.history;
        let is_latest = past.steps.last().is_none_or(|step| step.at <= t);
        match &past.begun {
            Some(begun) if t < begun.at => Cow::Owned(C::default()),
            _ if is_latest => Cow::Borrowed(&self.latest),
            _ => Cow::Owned(past.fold(|at| at <= t)),
        }
    }

    /// `effective_at`, but not before the stream was begun and not before any event that is a cause.
    pub fn not_before_cause(&self, effective_at: Timestamp, is_cause: impl Fn(&C::Event) -> bool) -> Timestamp {
        let past = &self.history;
        // The last recorded one, for each cause is itself not before the causes that it had.
        let causes = past.steps.iter().filter(|step| is_cause(&step.event));
        let cause = causes.max_by_key(|step| step.n).map(|step| step.at);
        let first = past.begun.as_ref().map(|step| step.at);
        [first, past.settled_at(), cause]
            .into_iter()
            .flatten()
            .fold(effective_at, Timestamp::max)
    }

    /// `effective_at`, but not before the stream was begun.
    pub fn not_before_beginning(&self, effective_at: Timestamp) -> Timestamp {
        self.not_before_cause(effective_at, |_| false)
    }

    /// The card on which a command of this time is decided when it has no cause but the beginning.
    pub fn as_of(&self, effective_at: Timestamp) -> Cow<'_, C> {
        self.at(self.not_before_beginning(effective_at))
    }

    /// Records `event` and settles what is too old to be preceded by a late event.
    #[must_use]
    pub fn record(mut self, event: &C::Event, effective_at: Timestamp) -> History<C> {
        self.enter(event, effective_at);
        let past = &mut self.history;
        while past.steps.len() > STEPS_MAX {
            let card = past.settled_card();
            let oldest = past.steps.remove(0);
            past.settled = Some(Box::new(Settled {
                at: oldest.at,
                card: card.after(&oldest.event, oldest.at),
            }));
        }
        self
    }

    /// Records `event` and keeps every step, for a read model that shows them all. Gives the time since which it is true.
    pub fn enter(&mut self, event: &C::Event, effective_at: Timestamp) -> Timestamp {
        let at = self.not_before_cause(effective_at, |earlier| C::is_cause(earlier, event));
        let past = &mut self.history;
        past.recorded += 1;
        let step = Step {
            n: past.recorded,
            at,
            event: C::remembered(event),
        };
        if past.begun.is_none() {
            past.begun = Some(step);
            self.latest = std::mem::take(&mut self.latest).after(event, at);
            return at;
        }
        let place = past.steps.partition_point(|known| known.at <= at);
        let is_latest = place == past.steps.len();
        let changes = match is_latest {
            true => self.latest.is_changed_by(event),
            false => past.fold(|known| known <= at).is_changed_by(event),
        };
        if !changes {
            return at;
        }
        past.steps.insert(place, step);
        self.latest = if is_latest {
            std::mem::take(&mut self.latest).after(event, at)
        } else {
            past.fold(|_| true)
        };
        at
    }

    /// Every card and since when it is so, in order of time: one for each event that is not settled.
    pub fn cards(&self) -> Vec<(Timestamp, C)> {
        let past = &self.history;
        let Some(begun) = &past.begun else { return vec![] };
        let mut cards = Vec::with_capacity(past.steps.len() + 1);
        let first = past.settled.as_ref().map_or(begun.at, |settled| settled.at);
        cards.push((first, past.settled_card()));
        for step in &past.steps {
            let (_, card) = cards.last().expect("there is a first one");
            cards.push((step.at, card.clone().after(&step.event, step.at)));
        }
        cards
    }
}

impl<C: Card> Past<C> {
    fn settled_card(&self) -> C {
        match (&self.settled, &self.begun) {
            (Some(settled), _) => settled.card.clone(),
            (None, Some(begun)) => C::default().after(&begun.event, begun.at),
            (None, None) => C::default(),
        }
    }

    /// No entry goes before this time. A history that keeps every step says the same as one that settled the oldest.
    fn settled_at(&self) -> Option<Timestamp> {
        match &self.settled {
            Some(settled) => Some(settled.at),
            None => {
                let oldest = self.steps.len().checked_sub(STEPS_MAX + 1)?;
                Some(self.steps[oldest].at)
            }
        }
    }

    fn fold(&self, counts: impl Fn(Timestamp) -> bool) -> C {
        let steps = self.steps.iter().take_while(|step| counts(step.at));
        steps.fold(self.settled_card(), |card, step| card.after(&step.event, step.at))
    }
}

/// Since when an event is true in a stream whose every event is caused by the one before: a job, an inspection. Its order is
/// that of recording, and no step is before `last`, the time of the step before.
pub fn in_sequence(last: Timestamp, effective_at: Timestamp) -> Timestamp {
    effective_at.max(last)
}

/// The fields in which what is wanted differs from what there is, to be shown to people: `amount, owner`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing(pub Vec<String>);

impl Differing {
    pub fn has(&self, field: &str) -> bool {
        self.0.iter().any(|differing| differing == field)
    }
}

impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// Is a stream that was begun by `begun` begun again with the same data? `derived` are fields that no command has.
///
/// # Errors
/// The fields that differ.
pub fn same_beginning<E: Serialize>(begun: Option<&E>, again: &E, derived: &[&str]) -> Result<(), Differing> {
    let fields = |event: &E| {
        let mut json = serde_json::to_value(event).expect("an event is plain data");
        super::normalise_texts(&mut json);
        match json {
            serde_json::Value::Object(tagged) => tagged.into_iter().next().map(|(_, body)| body),
            _ => None,
        }
    };
    let (there, wanted) = (begun.and_then(fields), fields(again));
    let names = |event: &Option<serde_json::Value>| match event {
        Some(serde_json::Value::Object(body)) => body.keys().cloned().collect::<Vec<_>>(),
        _ => vec![],
    };
    let mut differing: Vec<String> = names(&there).into_iter().chain(names(&wanted)).collect();
    let field = |event: &Option<serde_json::Value>, name: &str| event.as_ref().and_then(|body| body.get(name)).cloned();
    differing.retain(|name| !derived.contains(&name.as_str()) && field(&there, name) != field(&wanted, name));
    differing.sort_unstable();
    differing.dedup();
    match differing.is_empty() {
        true => Ok(()),
        false => Err(Differing(differing)),
    }
}

#[cfg(test)]
mod specs {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
    struct Lamp {
        colour: String,
        is_on: bool,
        switched: u32,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
    enum Event {
        Made { colour: String },
        Painted { colour: String },
        SwitchedOn,
        SwitchedOff,
    }

    impl Card for Lamp {
        type Event = Event;

        fn is_cause(earlier: &Event, event: &Event) -> bool {
            let switches = |event: &Event| matches!(event, Event::SwitchedOn | Event::SwitchedOff);
            switches(earlier) && switches(event)
        }

        fn after(mut self, event: &Event, _: Timestamp) -> Lamp {
            match event {
                Event::Made { colour } | Event::Painted { colour } => self.colour = colour.clone(),
                Event::SwitchedOn => (self.is_on, self.switched) = (true, self.switched + 1),
                Event::SwitchedOff => (self.is_on, self.switched) = (false, self.switched + 1),
            }
            self
        }
    }

    fn day(n: i64) -> Timestamp {
        Timestamp::from_second(n * 86_400).unwrap()
    }

    fn painted(colour: &str) -> Event {
        Event::Painted { colour: colour.into() }
    }

    fn made() -> Event {
        Event::Made { colour: "grey".into() }
    }

    fn lamp(events: impl IntoIterator<Item = (i64, Event)>) -> History<Lamp> {
        events
            .into_iter()
            .fold(History::default(), |lamp, (at, event)| lamp.record(&event, day(at)))
    }

    #[test]
    fn a_late_event_changes_only_the_time_until_the_next_one() {
        let lamp = lamp([(1, made()), (20, painted("red")), (10, painted("blue"))]);
        let colours = [0, 1, 9, 10, 19, 20, 30].map(|t| lamp.at(day(t)).colour.clone());
        assert_eq!(colours, ["", "grey", "grey", "blue", "blue", "red", "red"]);
        assert_eq!(lamp.colour, "red");
    }

    #[test]
    fn of_one_instant_the_last_recorded_counts() {
        assert_eq!(
            lamp([(1, made()), (5, painted("red")), (5, painted("blue"))]).colour,
            "blue"
        );
    }

    #[test]
    fn nothing_is_true_before_its_cause() {
        let lamp = lamp([
            (3, made()),
            (1, painted("red")),
            (9, Event::SwitchedOn),
            (7, Event::SwitchedOff),
        ]);
        assert_eq!(lamp.at(day(2)).colour, "");
        assert_eq!(lamp.at(day(3)).colour, "red");
        assert_eq!((lamp.is_on, lamp.switched), (false, 2));
        assert!(!lamp.at(day(8)).is_on && !lamp.at(day(9)).is_on);
        assert_eq!(lamp.at(day(8)).switched, 0);
    }

    #[test]
    fn a_history_remembers_so_many_steps_and_goes_on() {
        let long = (0..=STEPS_MAX as i64 + 10).map(|n| (n, painted(&format!("{n}"))));
        let lamp = lamp([(0, made())].into_iter().chain(long));
        assert_eq!(lamp.history.steps.len(), STEPS_MAX);
        assert_eq!(lamp.begun(), Some(&made()));
        // What is dated before them is taken as true since the settled card.
        let late = lamp.clone().record(&painted("late"), day(3));
        assert_eq!(
            (late.at(day(10)).colour.as_str(), late.at(day(11)).colour.as_str()),
            ("late", "11")
        );
        assert_eq!(late.colour, lamp.colour);
    }

    #[test]
    fn a_history_survives_its_json_which_reads_as_its_card() {
        let lamp = lamp([(1, made()), (20, painted("red"))]);
        let json = serde_json::to_value(&lamp).unwrap();
        assert_eq!(json["colour"], "red");
        assert_eq!(serde_json::from_value::<History<Lamp>>(json).unwrap(), lamp);
    }

    #[test]
    fn what_differs_from_the_beginning_is_named() {
        let blue = Event::Made { colour: "blue".into() };
        assert_eq!(same_beginning(Some(&made()), &made(), &[]), Ok(()));
        assert_eq!(
            same_beginning(Some(&made()), &blue, &[]),
            Err(Differing(vec!["colour".into()]))
        );
        assert_eq!(same_beginning(Some(&made()), &blue, &["colour"]), Ok(()));
    }

    fn lives() -> impl Strategy<Value = Vec<(i64, Event)>> {
        let event = prop_oneof![
            3 => (0..9).prop_map(|n| painted(&format!("{n}"))),
            1 => Just(Event::SwitchedOn),
            1 => Just(Event::SwitchedOff),
        ];
        proptest::collection::vec((0_i64..30, event), 0..150)
    }

    proptest! {
        /// A bounded history and one that keeps every step never disagree about what the bounded one still knows.
        #[test]
        fn settling_the_oldest_steps_changes_nothing_that_is_shown(lives in lives(), t in 0_i64..40) {
            let (mut bounded, mut whole) = (lamp([(0, made())]), lamp([(0, made())]));
            for (at, event) in lives {
                bounded = bounded.record(&event, day(at));
                whole.enter(&event, day(at));
                prop_assert_eq!(&*bounded, &*whole);
            }
            if bounded.history.settled.as_ref().is_none_or(|settled| settled.at <= day(t)) {
                prop_assert_eq!(bounded.at(day(t)), whole.at(day(t)));
            }
            let cards = whole.cards();
            let last = cards.iter().rfind(|(at, _)| *at <= day(t)).map(|(_, card)| card.clone());
            prop_assert_eq!(whole.at(day(t)).into_owned(), last.unwrap_or_default());
        }
    }
}
