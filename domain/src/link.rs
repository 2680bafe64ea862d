//! A key of another system that belongs to a customer here. Its stream is the reservation that keeps the key unique.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::customer::Customer;
use crate::{Home, Id, Moment, Stream, StreamKind, id_from_key};

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
    /// `{"key": [source, key]}` means `customer` from now on.
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
}

#[derive(Debug)]
pub struct Link;

/// The stream of a key.
pub fn link_id(source: &str, key: &str) -> Id<Link> {
    Id::new(id_from_key(Link::NAME, source, key))
}

impl Stream for Link {
    const NAME: &'static str = "link";
    const KIND: StreamKind = StreamKind::Link;
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

    fn decide(state: &State, command: Command, _: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
        match (command, state.customer) {
            (Command::Link { source, key, .. }, _) if source.is_empty() || key.is_empty() => Err(Rejection::Empty),
            (Command::Link { customer, .. }, Some(owner)) if owner == customer => Ok(vec![]),
            (Command::Link { source, key, .. }, Some(owner)) => Err(Rejection::Taken {
                source_name: source,
                key,
                customer: owner,
            }),
            (Command::Link { source, key, customer }, None) => Ok(vec![Event::Linked { source, key, customer }]),
            (Command::Unlink, None) => Ok(vec![]),
            (Command::Unlink, Some(customer)) => Ok(vec![Event::Unlinked { customer }]),
        }
    }

    fn evolve(mut state: State, event: &Event, _: Timestamp) -> State {
        match event {
            Event::Linked { customer, .. } => state.customer = Some(*customer),
            Event::Unlinked { .. } => state.customer = None,
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
    use crate::spec::{given, neighbour};

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
    fn the_same_intent_twice_gives_nothing_the_second_time() {
        given::<Link>([]).same_intent_twice(link("a"));
        given::<Link>([linked("a")]).same_intent_twice(Command::Unlink);
    }
}
