//! Who the customers are, one row each.

use domain::customer::{Card, ContactKind};
use domain::{Fact, History, Personal, StreamKind, customer};
use jiff::Timestamp;
use uuid::Uuid;

use crate::external_keys::ExternalKeyRow;
use crate::{Beside, Column, ColumnType, Event, Group, List, ReadModel, Row, Rows, table};

table! {
    entity CustomerRow "customers" {
        key customer: Uuid,
        set name: Personal<String>,
        set kind: String,
        set status: String,
        set country: Option<String>,
        set locale: Option<String>,
        set owner: Option<String>,
        set grade: Option<String>,
        set email: Option<Personal<String>>,
        set phone: Option<Personal<String>>,
        set line: Option<Personal<String>>,
        set address: Option<Personal<String>>,
        set registered_at: Timestamp,
        set changed_at: Timestamp,
    }
}

table! {
    /// What a late entry is put into.
    entity CustomerHistory "customer_history" {
        key customer: Uuid,
        set history: History<Card>,
    }
}

/// The keys of other systems that mean the customer: `["erp:C-12"]`.
const EXTERNAL_KEYS: Beside = Beside {
    column: Column::shown("external_keys", ColumnType::Json),
    table: ExternalKeyRow::TABLE,
    of: "customer",
    parts: &["source", "key"],
};

pub static MODEL: ReadModel = ReadModel {
    name: "customers",
    about: "Every customer with its owner, grade and primary contact points",
    group: Group::Sales,
    version: 2,
    streams: &[StreamKind::Customer],
    tables: &[CustomerRow::TABLE, CustomerHistory::TABLE],
    project,
    plan: |question| {
        question.present_only()?;
        Ok(List::of::<CustomerRow>().plan(question)?.with(EXTERNAL_KEYS))
    },
};

fn project(event: &Event, rows: &mut Rows) {
    let Fact::Customer(fact) = &event.fact else { return };
    let customer = event.stream.id;
    let history = match fact {
        customer::Event::Registered { .. } => History::default(),
        _ => match rows.get::<CustomerHistory>(customer) {
            Some(row) => row.history,
            None => return,
        },
    };
    let history = history.record(fact, event.effective_at);
    rows.put(row(customer, &history));
    rows.put(CustomerHistory { customer, history });
}

fn row(customer: Uuid, card: &Card) -> CustomerRow {
    let contact = |kind| card.contact_point(kind).cloned();
    CustomerRow {
        customer,
        name: card.name.clone(),
        kind: card.kind.map_or("", kind_name).to_owned(),
        status: card.status.name().to_owned(),
        country: card.country.clone(),
        locale: card.locale.clone(),
        owner: card.owner.clone(),
        grade: card.grade.clone(),
        email: contact(ContactKind::Email),
        phone: contact(ContactKind::Phone),
        line: contact(ContactKind::Line),
        address: contact(ContactKind::Address),
        registered_at: card.registered_at,
        changed_at: card.changed_at,
    }
}

fn kind_name(kind: customer::Kind) -> &'static str {
    match kind {
        customer::Kind::Organisation => "organisation",
        customer::Kind::Person => "person",
    }
}

#[cfg(test)]
mod specs {
    use domain::customer::{Customer, Kind};
    use domain::{Stream, StreamRef};
    use proptest::prelude::*;

    use super::*;
    use crate::spec::{World, id};

    fn day(n: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + n * 86_400).unwrap()
    }

    fn registered() -> customer::Event {
        customer::Event::Registered {
            kind: Kind::Organisation,
            name: "台灣精密機械".into(),
            country: Some("TW".into()),
            locale: None,
            external: vec![],
        }
    }

    fn owned_by(to: &str) -> customer::Event {
        customer::Event::OwnerAssigned {
            from: None,
            to: to.into(),
        }
    }

    fn email(value: &str, primary: bool) -> customer::Event {
        customer::Event::ContactPointSet {
            kind: ContactKind::Email,
            value: value.into(),
            primary,
        }
    }

    /// The customer to whom this happened, each event since its day, recorded in this order; and its state.
    fn customer(events: &[(i64, customer::Event)]) -> (CustomerRow, customer::State) {
        let mut world = World::new(&[&MODEL]);
        let mut state = customer::State::default();
        let stream = StreamRef::of::<Customer>(domain::Id::new(id("a")));
        for (n, (at, event)) in (0..).zip(events) {
            state = Customer::evolve(state, event, day(*at));
            world.record_at(stream, None, event.clone(), day(*at), day(1_000 + n));
        }
        (world.rows::<CustomerRow>().remove(0), state)
    }

    #[test]
    fn what_is_entered_late_is_so_only_until_the_next_change() {
        let (row, _) = customer(&[
            (1, registered()),
            (20, owned_by("mei")),
            (10, owned_by("lin")),
            (30, customer::Event::Closed),
            (25, customer::Event::Reopened),
        ]);
        assert_eq!(row.owner.as_deref(), Some("mei"));
        // It was reopened after it was closed, whatever the clock said.
        assert_eq!((row.status.as_str(), row.changed_at), ("active", day(30)));
        assert_eq!(row.registered_at, day(1));
    }

    #[test]
    fn the_primary_contact_point_is_shown_or_the_first_one() {
        let shown = |events: &[(i64, customer::Event)]| customer(events).0.email.map(Personal::into_inner);
        let first = [
            (1, registered()),
            (2, email("a@x.tw", false)),
            (3, email("b@x.tw", false)),
        ];
        assert_eq!(shown(&first).as_deref(), Some("a@x.tw"));
        let primary = [&first[..], &[(4, email("c@x.tw", true))]].concat();
        assert_eq!(shown(&primary).as_deref(), Some("c@x.tw"));
        // An older one is entered late.
        let late = [&primary[..], &[(3, email("d@x.tw", true))]].concat();
        assert_eq!(shown(&late).as_deref(), Some("c@x.tw"));
    }

    fn anything() -> impl Strategy<Value = customer::Event> {
        prop_oneof![
            "[a-c]".prop_map(|owner| owned_by(&owner)),
            ("[a-c]", any::<bool>()).prop_map(|(value, primary)| email(&value, primary)),
            "[A-C]".prop_map(|to| customer::Event::GradeSet {
                from: None,
                to,
                reason: None
            }),
            "[x-z]".prop_map(|to| customer::Event::Renamed {
                from: "".into(),
                to: to.into()
            }),
            Just(customer::Event::Closed),
            Just(customer::Event::Reopened),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn the_row_says_what_the_state_says(
            events in proptest::collection::vec((0..40_i64, anything()), 0..100),
        ) {
            let events = [vec![(0, registered())], events].concat();
            let (shown, state) = customer(&events);
            prop_assert_eq!(shown, row(id("a"), &state));
        }
    }
}
