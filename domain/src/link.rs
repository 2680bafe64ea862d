//! A key of another system that belongs to a customer here. Its stream is the reservation that keeps the key unique.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::customer::{self, Customer};
use crate::{Companion, Home, Id, Moment, Stream, StreamKind, StreamRef, id_from_key, in_sequence};

/// So many owners that a key had before are remembered.
pub const FORMER_OWNERS_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Linked {
        source: String,
        key: String,
        customer: Id<Customer>,
    },
    Unlinked {
        customer: Id<Customer>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// `{"key": [source, key]}` means `customer` from now on. A customer that was registered under the key itself has it without a link.
    Link {
        source: String,
        key: String,
        customer: Id<Customer>,
    },
    Unlink,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("{source_name} key {key} already belongs to customer {customer}")]
    Taken {
        source_name: String,
        key: String,
        customer: Id<Customer>,
    },
    #[error("a key needs a source and a key")]
    Empty,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    pub customer: Option<Id<Customer>>,
    /// Since when it is linked.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// When it was last linked or unlinked: a key has one owner at a time, so that each step causes the next.
    #[serde(default)]
    pub changed_at: Option<Timestamp>,
    /// Whom it belonged to before, the last one at the end: the retry of a command from then still names the key.
    #[serde(default)]
    pub former: Vec<Id<Customer>>,
}

#[derive(Debug)]
pub struct Link;

/// The customer that a key means while it is linked to nobody: the customer that is registered under the key itself.
pub fn own_customer(source: &str, key: &str) -> Id<Customer> {
    Id::new(id_from_key(Customer::NAME, source, key))
}

/// The stream of a key. It lives in the slot of the key's own customer.
pub fn link_id(source: &str, key: &str) -> Id<Link> {
    Id::new(id_from_key(Link::NAME, source, key))
}

impl Stream for Link {
    const NAME: &'static str = "link";
    const KIND: StreamKind = StreamKind::Link;
    const BEGINS: &'static str = "link";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn home(command: &Command) -> Home {
        match command {
            Command::Link { source, key, .. } => Home::Exactly(link_id(source, key).uuid()),
            Command::Unlink => Home::Anywhere,
        }
    }

    fn companions(command: &Command) -> Vec<StreamRef> {
        match command {
            Command::Link { source, key, .. } => vec![StreamRef::of(own_customer(source, key))],
            Command::Unlink => vec![],
        }
    }

    fn decide(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
        match (command, state.customer) {
            (Command::Link { source, key, .. }, _) if source.is_empty() || key.is_empty() => Err(Rejection::Empty),
            (Command::Link { customer, .. }, Some(owner)) if owner == customer => Ok(vec![]),
            (Command::Link { source, key, .. }, Some(owner)) => Err(Rejection::Taken {
                source_name: source,
                key,
                customer: owner,
            }),
            (Command::Link { source, key, customer }, None) => {
                let own = own_customer(&source, &key);
                if own == customer {
                    return Ok(vec![]);
                }
                match at.state_of(own) {
                    Companion::Known(state) if state.status != customer::Status::NotRegistered => {
                        Err(Rejection::Taken {
                            source_name: source,
                            key,
                            customer: own,
                        })
                    }
                    Companion::Known(_) | Companion::Elsewhere => Ok(vec![Event::Linked { source, key, customer }]),
                }
            }
            (Command::Unlink, None) => Ok(vec![]),
            (Command::Unlink, Some(customer)) => Ok(vec![Event::Unlinked { customer }]),
        }
    }

    fn upsert(state: &State, command: Command, _: &Moment<'_>) -> Vec<Command> {
        match (&command, state.customer) {
            (Command::Link { customer, .. }, Some(owner)) if owner != *customer => vec![Command::Unlink, command],
            _ => vec![command],
        }
    }

    fn evolve(mut state: State, event: &Event, at: Timestamp) -> State {
        let at = state.changed_at.map_or(at, |last| in_sequence(last, at));
        state.changed_at = Some(at);
        match event {
            Event::Linked { customer, .. } => {
                state.former.retain(|former| former != customer);
                state.customer = Some(*customer);
                state.since = Some(at);
            }
            Event::Unlinked { customer } => {
                state.customer = None;
                state.since = None;
                state.former.push(*customer);
                if state.former.len() > FORMER_OWNERS_MAX {
                    state.former.remove(0);
                }
            }
        }
        state
    }

    fn customer(state: &State) -> Option<Uuid> {
        state.customer.map(Id::uuid)
    }
}

#[cfg(test)]
mod specs {
    use super::*;
    use crate::spec::{folded, given, neighbour};

    fn link(name: &str) -> Command {
        Command::Link {
            source: "erp".into(),
            key: "C-12".into(),
            customer: neighbour(name),
        }
    }

    fn linked(name: &str) -> Event {
        Event::Linked {
            source: "erp".into(),
            key: "C-12".into(),
            customer: neighbour(name),
        }
    }

    #[test]
    fn a_key_belongs_to_one_customer() {
        given::<Link>([linked("a")])
            .when(link("b"))
            .then_rejected(Rejection::Taken {
                source_name: "erp".into(),
                key: "C-12".into(),
                customer: neighbour("a"),
            });
        given::<Link>([
            linked("a"),
            Event::Unlinked {
                customer: neighbour("a"),
            },
        ])
        .when(link("b"))
        .then([linked("b")]);
    }

    #[test]
    fn a_key_of_a_customer_that_is_registered_under_it_is_taken() {
        let own = own_customer("erp", "C-12");
        let registered: customer::State = customer::Card {
            status: customer::Status::Active,
            ..Default::default()
        }
        .into();
        given::<Link>([])
            .under(link_id("erp", "C-12"))
            .with(own, registered)
            .when(link("b"))
            .then_rejected(Rejection::Taken {
                source_name: "erp".into(),
                key: "C-12".into(),
                customer: own,
            });
        // Nobody is registered there.
        given::<Link>([])
            .under(link_id("erp", "C-12"))
            .when(link("b"))
            .then([linked("b")]);
        // It needs no link to have its own key.
        let to_itself = || Command::Link {
            source: "erp".into(),
            key: "C-12".into(),
            customer: own,
        };
        given::<Link>([])
            .under(link_id("erp", "C-12"))
            .when(to_itself())
            .then_nothing();
        given::<Link>([linked("b")])
            .under(link_id("erp", "C-12"))
            .when(to_itself())
            .then_rejected(Rejection::Taken {
                source_name: "erp".into(),
                key: "C-12".into(),
                customer: neighbour("b"),
            });
    }

    #[test]
    fn so_many_former_owners_are_remembered() {
        let unlinked = |name: &str| Event::Unlinked {
            customer: neighbour(name),
        };
        let names: Vec<String> = (0..=FORMER_OWNERS_MAX).map(|n| n.to_string()).collect();
        let events: Vec<Event> = names.iter().flat_map(|name| [linked(name), unlinked(name)]).collect();
        let state = folded::<Link>(&events);
        let kept: Vec<Id<Customer>> = names[1..].iter().map(|name| neighbour(name)).collect();
        assert_eq!((state.customer, &state.former), (None, &kept));
        let again = Link::evolve(state, &linked("1"), crate::spec::moment("2026-03-02T09:00:00+08:00"));
        assert_eq!(
            (again.customer, again.former.as_slice()),
            (Some(neighbour("1")), &kept[1..])
        );
    }

    #[test]
    fn a_key_does_not_belong_to_two_customers_at_one_time() {
        let unlinked = Event::Unlinked {
            customer: neighbour("a"),
        };
        let since = |events: &[(&str, Event)]| {
            let states = events.iter();
            let state = states.fold(State::default(), |state, (at, event)| {
                Link::evolve(state, event, crate::spec::moment(at))
            });
            state.since.map(|since| since.to_string())
        };
        let (first, second) = ("2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z");
        let (fifth, ninth) = ("2026-03-05T00:00:00Z", "2026-03-09T00:00:00Z");
        // It is b's since a had it no more, and a had it at least until it was linked to a.
        let once = [(fifth, linked("a")), (ninth, unlinked.clone()), (first, linked("b"))];
        assert_eq!(since(&once).as_deref(), Some(ninth));
        let skewed = [(fifth, linked("a")), (first, unlinked), (second, linked("b"))];
        assert_eq!(since(&skewed).as_deref(), Some(fifth));
    }

    #[test]
    fn the_same_intent_twice_gives_nothing_the_second_time() {
        given::<Link>([]).same_intent_twice(link("a"));
        given::<Link>([linked("a")]).same_intent_twice(Command::Unlink);
    }
}
