//! What other systems call the customers: a key a row. A customer is shown with its keys in `customers`.

use domain::{ExternalKey, Fact, Id, StreamKind, customer, in_sequence, link};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Event, Group, List, ReadModel, Row, Rows, table};

table! {
    entity ExternalKeyRow "external_keys" {
        /// The key's own id, which is made of source and key.
        key link: Uuid,
        set source: String,
        set key: String,
        /// Whom the key means.
        set customer: Uuid,
        set since: Timestamp,
    }
}

table! {
    /// When a key was last unlinked: it has one owner at a time.
    entity KeyEnd "external_key_ends" {
        key link: Uuid,
        set at: Timestamp,
    }
}

pub static MODEL: ReadModel = ReadModel {
    name: "external_keys",
    about: "Every key of another system with the customer that it means",
    group: Group::Sales,
    version: 2,
    streams: &[StreamKind::Customer, StreamKind::Link],
    tables: &[ExternalKeyRow::TABLE, KeyEnd::TABLE],
    project,
    plan: |question| {
        question.present_only()?;
        List::of::<ExternalKeyRow>().plan(question)
    },
};

fn project(event: &Event, rows: &mut Rows) {
    match &event.fact {
        // A key under which a customer is registered means that customer without a link, and lives in the same slot.
        Fact::Customer(customer::Event::Registered { external, .. }) => {
            let customer = Id::new(event.stream.id);
            for key in external.iter().chain(&event.external_key) {
                if link::own_customer(&key.source, &key.key) == customer {
                    rows.put(row(key.clone(), customer.uuid(), event));
                }
            }
        }
        Fact::Link(link::Event::Linked { source, key, customer }) => {
            let (source, key) = (source.clone(), key.clone());
            let mut row = row(ExternalKey { source, key }, customer.uuid(), event);
            if let Some(end) = rows.get::<KeyEnd>(event.stream.id) {
                row.since = in_sequence(end.at, row.since);
            }
            rows.put(row);
        }
        Fact::Link(link::Event::Unlinked { .. }) => {
            let since = rows.get::<ExternalKeyRow>(event.stream.id).map(|row| row.since);
            rows.put(KeyEnd {
                link: event.stream.id,
                at: since.map_or(event.effective_at, |since| in_sequence(since, event.effective_at)),
            });
            rows.remove::<ExternalKeyRow>(event.stream.id);
        }
        _ => {}
    }
}

fn row(ExternalKey { source, key }: ExternalKey, customer: Uuid, event: &Event) -> ExternalKeyRow {
    ExternalKeyRow {
        link: link::link_id(&source, &key).uuid(),
        source,
        key,
        customer,
        since: event.effective_at,
    }
}

#[cfg(test)]
mod specs {
    use domain::StreamRef;
    use domain::customer::{Customer, Kind};
    use domain::link::{Link, link_id, own_customer};

    use super::*;
    use crate::customers;
    use crate::spec::{World, id, moment, question};

    const AT: &str = "2026-03-02T09:00:00+08:00";

    fn registered(external: Vec<ExternalKey>) -> customer::Event {
        customer::Event::Registered {
            kind: Kind::Organisation,
            name: "台灣精密機械".into(),
            country: None,
            locale: None,
            external,
        }
    }

    fn erp(key: &str) -> ExternalKey {
        ExternalKey {
            source: "erp".into(),
            key: key.into(),
        }
    }

    /// The keys that `customers` shows for a customer.
    fn shown(world: &World, customer: Id<Customer>) -> String {
        let answer = world.ask(&customers::MODEL, question(&[&format!("customer={customer}")]));
        let at = answer.columns.iter().position(|name| *name == "external_keys");
        answer.rows[0][at.expect("the column is there")].to_text()
    }

    #[test]
    fn a_customer_is_shown_with_every_key_that_means_it() {
        let mut world = World::new(&[&customers::MODEL, &MODEL]);
        let customer = Id::<Customer>::new(id("a"));
        let stream = StreamRef::of(customer);
        world.record(stream, Some(customer.uuid()), registered(vec![erp("C-2")]), AT, AT);
        assert_eq!(shown(&world, customer), "[]");
        let link = |key: &str| StreamRef::of::<Link>(link_id("erp", key));
        for key in ["C-2", "C-1"] {
            let (source, key) = ("erp".to_owned(), key.to_owned());
            let linked = link::Event::Linked {
                source,
                customer,
                key: key.clone(),
            };
            world.record(link(&key), Some(customer.uuid()), linked, AT, AT);
        }
        assert_eq!(shown(&world, customer), r#"["erp:C-1","erp:C-2"]"#);
        world.record(link("C-2"), None, link::Event::Unlinked { customer }, AT, AT);
        assert_eq!(shown(&world, customer), r#"["erp:C-1"]"#);
    }

    #[test]
    fn a_key_does_not_belong_to_two_customers_at_one_time() {
        let (first, fifth, ninth) = (
            "2026-03-01T09:00:00+08:00",
            "2026-03-05T09:00:00+08:00",
            "2026-03-09T09:00:00+08:00",
        );
        let since = |unlinked_at| {
            let mut world = World::new(&[&MODEL]);
            let stream = StreamRef::of::<Link>(link_id("erp", "C-1"));
            let mut state = link::State::default();
            let mut record = |fact: link::Event, at: &str| {
                state = <Link as domain::Stream>::evolve(std::mem::take(&mut state), &fact, moment(at));
                world.record(stream, None, fact, at, ninth);
            };
            let linked = |name| link::Event::Linked {
                source: "erp".into(),
                key: "C-1".into(),
                customer: Id::new(id(name)),
            };
            record(linked("a"), fifth);
            let customer = Id::new(id("a"));
            record(link::Event::Unlinked { customer }, unlinked_at);
            record(linked("b"), first);
            let since = world.rows::<ExternalKeyRow>()[0].since;
            assert_eq!(Some(since), state.since);
            since
        };
        assert_eq!(since(ninth), moment(ninth));
        assert_eq!(since(first), moment(fifth));
    }

    #[test]
    fn a_customer_that_was_registered_under_a_key_has_it_without_a_link() {
        let mut world = World::new(&[&customers::MODEL, &MODEL]);
        let (named, told) = (own_customer("erp", "C-3"), own_customer("erp", "C-4"));
        world.name_by_key(StreamRef::of(named), "erp", "C-3");
        world.record(StreamRef::of(named), Some(named.uuid()), registered(vec![]), AT, AT);
        let with_key = registered(vec![erp("C-4")]);
        world.record(StreamRef::of(told), Some(told.uuid()), with_key, AT, AT);
        assert_eq!(shown(&world, named), r#"["erp:C-3"]"#);
        assert_eq!(shown(&world, told), r#"["erp:C-4"]"#);
        let answer = world.ask(&MODEL, question(&["source=erp", "key=C-3"]));
        assert_eq!(answer.rows.len(), 1);
    }
}
