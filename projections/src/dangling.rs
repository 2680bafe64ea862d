//! What streams refer to and nobody has begun: promises of another system, or mistakes.
//!
//! A receipt may come before its customer does, from another system or in another shard. It is taken, and its customer is
//! listed here until the customer is registered. What a case or an interaction is `about` may be a thing of any kind, of which
//! only the id is known: it is listed as `any` until some stream of that id begins.

use std::collections::BTreeSet;

use domain::{
    Fact, Id, Stream, StreamKind, case, equipment, inspection, interaction, job, lead, link, loyalty, opportunity,
    purchase,
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    BadQuestion, Column, ColumnType, Event, Group, List, Op, Plan, Question, ReadModel, Row, Rows, Value, table,
};

table! {
    /// Everything that a stream refers to, or that could be referred to. The two may live in different shards.
    rollup ReferenceRow "dangling_references" {
        /// `customer`, `equipment` or `opportunity`; `any` where a thing is referred to by its id alone.
        key kind: String,
        key id: Uuid,
        /// How many streams refer to it.
        sum streams: i64,
        /// 1 when it was begun.
        sum begun: i64,
        /// Since when something refers to it.
        min since: Option<Timestamp>,
        /// One of the streams that referred to it: `purchase/0192…`.
        max example: Option<String>,
    }
}

pub static MODEL: ReadModel = ReadModel {
    name: "dangling",
    about: "Customers, machines, deals and other things that something refers to and that are not there (yet): by how many streams, and since when",
    group: Group::Journal,
    version: 2,
    streams: &[],
    tables: &[ReferenceRow::TABLE],
    project,
    plan,
};

const COLUMNS: [Column; 5] = [
    Column::shown("kind", ColumnType::Text),
    Column::shown("id", ColumnType::Uuid),
    Column::shown("streams", ColumnType::Int),
    Column::shown("since", ColumnType::Time).or_null(),
    Column::shown("example", ColumnType::Text).or_null(),
];

fn plan(question: &Question) -> Result<Plan, BadQuestion> {
    question.present_only()?;
    let no_column = |column: &str| BadQuestion::Column {
        column: column.to_owned(),
        known: COLUMNS.map(|column| column.name).join(", "),
    };
    if question.filters.iter().any(|filter| filter.column == "begun") {
        return Err(no_column("begun"));
    }
    let plan = List::of::<ReferenceRow>().plan(question);
    let mut plan = plan.map_err(|bad| match bad {
        BadQuestion::Column { column, .. } => no_column(&column),
        other => other,
    })?;
    let begun = plan.columns.iter().position(|column| column.name == "begun");
    let begun = begun.expect("the table has the column");
    let selects = plan.selects.into_iter();
    let pending = selects.map(|select| {
        let select = select.filter("begun", Op::Eq, Value::Int(0));
        select.filter("streams", Op::Gt, Value::Int(0))
    });
    plan.selects = pending.collect();
    let plan = plan.then(move |rows| {
        for row in rows {
            row.remove(begun);
        }
    });
    Ok(plan.showing(COLUMNS.to_vec()))
}

/// The kind of what is referred to by its id alone.
const ANY: &str = "any";

fn project(event: &Event, rows: &mut Rows) {
    if event.version == 1 {
        for kind in names_of(event.stream.kind) {
            rows.add(ReferenceRow {
                kind: kind.to_owned(),
                id: event.stream.id,
                streams: 0,
                begun: 1,
                since: None,
                example: None,
            });
        }
    }
    for Reference { kind, id, streams } in references(&event.fact) {
        let is_new = streams > 0;
        rows.add(ReferenceRow {
            kind: kind.map_or(ANY, StreamKind::name).to_owned(),
            id,
            streams,
            begun: 0,
            since: is_new.then_some(event.effective_at),
            example: is_new.then(|| event.stream.to_string()),
        });
    }
}

/// The kinds under which a stream is referred to.
fn names_of(kind: StreamKind) -> impl Iterator<Item = &'static str> {
    let own = match kind {
        StreamKind::Customer | StreamKind::Equipment | StreamKind::Opportunity => Some(kind.name()),
        StreamKind::Lead
        | StreamKind::Interaction
        | StreamKind::Case
        | StreamKind::Inspection
        | StreamKind::Job
        | StreamKind::Purchase
        | StreamKind::Loyalty
        | StreamKind::Link => None,
    };
    own.into_iter().chain([ANY])
}

/// A stream that is referred to by one stream more (1) or less (-1).
struct Reference {
    /// Unknown where only an id is given.
    kind: Option<StreamKind>,
    id: Uuid,
    streams: i64,
}

fn to<S: Stream>(id: Id<S>) -> Option<Reference> {
    Some(Reference {
        kind: Some(S::KIND),
        id: id.uuid(),
        streams: 1,
    })
}

fn no_longer_to<S: Stream>(id: Id<S>) -> Option<Reference> {
    to(id).map(|reference| Reference {
        streams: -1,
        ..reference
    })
}

/// What an event refers to, or refers to no longer. Only what begins a stream, or changes its reference, counts.
fn references(fact: &Fact) -> impl Iterator<Item = Reference> {
    let [one, other] = match fact {
        Fact::Case(case::Event::Opened { customer, .. })
        | Fact::Interaction(interaction::Event::Recorded { customer, .. })
        | Fact::Loyalty(loyalty::Event::Enrolled { customer, .. })
        | Fact::Link(link::Event::Linked { customer, .. })
        | Fact::Equipment(equipment::Event::Installed { customer, .. })
        | Fact::Opportunity(opportunity::Event::Opened { customer, .. }) => [to(*customer), None],
        Fact::Link(link::Event::Unlinked { customer, .. }) => [no_longer_to(*customer), None],
        Fact::Equipment(equipment::Event::OwnerTransferred { from, to: now, .. })
        | Fact::Opportunity(opportunity::Event::CustomerChanged { from, to: now, .. }) => {
            [no_longer_to(*from), to(*now)]
        }
        Fact::Lead(lead::Event::Converted {
            customer, opportunity, ..
        }) => [to(*customer), opportunity.and_then(to)],
        Fact::Inspection(inspection::Event::Scheduled { equipment, .. }) => [to(*equipment), None],
        Fact::Job(job::Event::Created {
            customer, equipment, ..
        }) => [to(*customer), equipment.and_then(to)],
        Fact::Purchase(purchase::Event::Recorded { customer, .. }) => [customer.and_then(to), None],
        Fact::Purchase(purchase::Event::CustomerAttached { from, to: now, .. }) => {
            [from.and_then(no_longer_to), to(*now)]
        }
        Fact::Purchase(purchase::Event::Voided { customer, .. }) => [customer.and_then(no_longer_to), None],
        Fact::Purchase(purchase::Event::Corrected { customer, was, .. }) => {
            let before = was.as_ref().and_then(|was| was.customer);
            [before.and_then(no_longer_to), customer.and_then(to)]
        }
        Fact::Customer(_)
        | Fact::Lead(_)
        | Fact::Opportunity(_)
        | Fact::Interaction(_)
        | Fact::Case(_)
        | Fact::Equipment(_)
        | Fact::Inspection(_)
        | Fact::Job(_)
        | Fact::Loyalty(_) => [None, None],
    };
    one.into_iter().chain(other).chain(about(fact))
}

/// What an event says that a case or an interaction is about, or is about no longer.
fn about(fact: &Fact) -> Vec<Reference> {
    let none = Vec::new();
    let (before, now) = match fact {
        Fact::Case(case::Event::Opened { about, .. })
        | Fact::Interaction(interaction::Event::Recorded { about, .. }) => (&none, about),
        Fact::Interaction(interaction::Event::Corrected { from, fields, .. }) => match &fields.about {
            Some(now) => (from.about.as_ref().unwrap_or(&none), now),
            None => return vec![],
        },
        _ => return vec![],
    };
    let [before, now] = [before, now].map(|ids| ids.iter().copied().collect::<BTreeSet<Uuid>>());
    let reference = |streams: i64| {
        move |id: &Uuid| Reference {
            kind: None,
            id: *id,
            streams,
        }
    };
    let gone = before.difference(&now).map(reference(-1));
    gone.chain(now.difference(&before).map(reference(1))).collect()
}

#[cfg(test)]
mod specs {
    use domain::{Personal, StreamRef, customer, derived_id};
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
    use crate::purchases::specs::{attached, corrected, recorded, stream, voided};
    use crate::spec::{World, id, question};

    const AT: &str = "2026-03-02T09:00:00+08:00";

    fn registers(world: &mut World, name: &str) {
        let customer = StreamRef::of(Id::<customer::Customer>::new(id(name)));
        let registered = customer::Event::Registered {
            kind: customer::Kind::Organisation,
            name: domain::Personal::from(name),
            country: None,
            locale: None,
            external: vec![],
        };
        world.record(customer, Some(customer.id), registered, AT, AT);
    }

    /// Name of the customer (by its id) and how many streams refer to it.
    fn dangling(world: &World) -> Vec<(Uuid, i64)> {
        let answer = world.ask(&MODEL, question(&["kind=customer"]));
        let rows = answer.rows.into_iter();
        let mut found: Vec<_> = rows
            .map(|row| match &row[1] {
                Value::Uuid(id) => (*id, row[2].as_int()),
                other => panic!("{other:?} is no id"),
            })
            .collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn a_reference_is_listed_until_what_it_means_comes() {
        let mut world = World::new(&[&MODEL]);
        let day = date(2026, 3, 2);
        let sale = recorded("taipei", day, &[("tea", "1", 100)], Some("chen"));
        world.record(stream("1"), Some(id("chen")), sale.clone(), AT, AT);
        world.record(stream("2"), Some(id("chen")), sale, AT, AT);
        assert_eq!(dangling(&world), vec![(id("chen"), 2)]);
        let row = world.ask(&MODEL, question(&[])).rows.remove(0);
        assert_eq!(row[0], Value::Text("customer".into()));
        assert_eq!(row[3], Value::Time(crate::spec::moment(AT)));
        assert!(row[4].as_text().starts_with("purchase/"), "{:?}", row[4]);

        registers(&mut world, "chen");
        assert_eq!(dangling(&world), vec![]);
        // A customer who is registered first never dangles.
        registers(&mut world, "lin");
        let sale = recorded("taipei", day, &[("tea", "1", 100)], Some("lin"));
        world.record(stream("3"), Some(id("lin")), sale, AT, AT);
        assert_eq!(dangling(&world), vec![]);
    }

    #[test]
    fn machines_and_deals_dangle_as_customers_do() {
        let mut world = World::new(&[&MODEL]);
        let job = StreamRef::of(Id::<job::Job>::new(id("job")));
        let created = job::Event::Created {
            customer: Id::new(id("chen")),
            equipment: Some(Id::new(id("press"))),
            origin: None,
            summary: domain::Personal::from("leaks"),
        };
        world.record(job, Some(id("chen")), created, AT, AT);
        let lead = StreamRef::of(Id::<lead::Lead>::new(id("lead")));
        let converted = lead::Event::Converted {
            customer: Id::new(id("chen")),
            opportunity: Some(Id::new(id("deal"))),
            source: "web".into(),
            from: lead::Status::Qualified,
        };
        world.record(lead, Some(id("chen")), converted, AT, AT);
        let answer = world.ask(&MODEL, question(&[]));
        let mut found: Vec<_> = answer
            .rows
            .iter()
            .map(|row| (row[0].to_text(), row[2].as_int()))
            .collect();
        found.sort_unstable();
        assert_eq!(
            found,
            vec![
                ("customer".into(), 2),
                ("equipment".into(), 1),
                ("opportunity".into(), 1)
            ]
        );
    }

    fn interaction(about: &[&str]) -> interaction::Event {
        interaction::Event::Recorded {
            customer: Id::new(id("chen")),
            channel: interaction::Channel::Email,
            direction: interaction::Direction::In,
            subject: Personal::from("noise"),
            body: None,
            provider_id: None,
            about: about.iter().map(|name| id(name)).collect(),
        }
    }

    fn corrected_about(from: &[&str], to: &[&str]) -> interaction::Event {
        let about = |names: &[&str]| interaction::Fields {
            about: Some(names.iter().map(|name| id(name)).collect()),
            ..Default::default()
        };
        interaction::Event::Corrected {
            of: 1,
            from: about(from),
            fields: about(to),
            reason: "slip".into(),
        }
    }

    /// Things that are known by their ids alone, and how many streams refer to each.
    fn dangling_any(world: &World) -> Vec<(Uuid, i64)> {
        let rows = world.ask(&MODEL, question(&["kind=any"])).rows.into_iter();
        let mut found: Vec<_> = rows.map(|row| (row[1].clone(), row[2].as_int())).collect();
        found.sort_unstable();
        let uuid = |value: Value| match value {
            Value::Uuid(id) => id,
            other => panic!("{other:?} is no id"),
        };
        found.into_iter().map(|(id, streams)| (uuid(id), streams)).collect()
    }

    fn sorted(mut expected: Vec<(Uuid, i64)>) -> Vec<(Uuid, i64)> {
        expected.sort_unstable();
        expected
    }

    #[test]
    fn what_a_case_or_a_contact_is_about_is_listed_until_a_thing_of_any_kind_has_that_id() {
        let mut world = World::new(&[&MODEL]);
        let open = case::Event::Opened {
            customer: Id::new(id("chen")),
            subject: Personal::from("leaks"),
            kind: case::Kind::Incident,
            priority: case::Priority::High,
            channel: interaction::Channel::Phone,
            about: vec![id("press"), id("receipt"), id("press")],
        };
        let case = StreamRef::of(Id::<case::Case>::new(id("case")));
        world.record(case, Some(id("chen")), open, AT, AT);
        let mail = StreamRef::of(Id::<interaction::Interaction>::new(id("mail")));
        world.record(mail, Some(id("chen")), interaction(&["press", "case"]), AT, AT);
        assert_eq!(dangling_any(&world), sorted(vec![(id("press"), 2), (id("receipt"), 1)]));

        let receipt = StreamRef::of(Id::<purchase::Purchase>::new(id("receipt")));
        let sale = recorded("taipei", date(2026, 3, 2), &[("tea", "1", 100)], None);
        world.record(receipt, None, sale, AT, AT);
        assert_eq!(dangling_any(&world), vec![(id("press"), 2)]);
        let press = StreamRef::of(Id::<equipment::Equipment>::new(id("press")));
        let installed = equipment::Event::Installed {
            customer: Id::new(id("chen")),
            maker: "M".into(),
            serial: "1".into(),
            model: "X".into(),
            site: Personal::from("Taipei"),
            warranty_until: None,
        };
        world.record(press, Some(id("chen")), installed, AT, AT);
        assert_eq!(dangling_any(&world), vec![]);
    }

    #[test]
    fn a_contact_is_about_what_it_was_corrected_to() {
        let mut world = World::new(&[&MODEL]);
        let mail = StreamRef::of(Id::<interaction::Interaction>::new(id("mail")));
        world.record(mail, Some(id("chen")), interaction(&["press", "lathe"]), AT, AT);
        world.record(
            mail,
            Some(id("chen")),
            corrected_about(&["press", "lathe"], &["lathe", "deal"]),
            AT,
            AT,
        );
        assert_eq!(dangling_any(&world), sorted(vec![(id("lathe"), 1), (id("deal"), 1)]));
        world.record(mail, Some(id("chen")), corrected_about(&["lathe", "deal"], &[]), AT, AT);
        assert_eq!(dangling_any(&world), vec![]);
    }

    proptest! {
        /// However a receipt's customer changes, its customer of now is the one that it refers to; a void one refers to nobody.
        #[test]
        fn a_receipt_refers_to_the_customer_that_it_has(steps in proptest::collection::vec(0..5_u8, 0..8)) {
            let mut world = World::new(&[&MODEL]);
            let names = ["chen", "lin", "wu"];
            let day = date(2026, 3, 2);
            let sale = |customer: Option<&str>| recorded("taipei", day, &[("tea", "1", 100)], customer);
            let (mut customer, mut is_void) = (None, false);
            world.record(stream("1"), None, sale(None), AT, AT);
            for step in steps {
                let fact = match step {
                    0..3 if is_void => continue,
                    0..3 if customer == Some(names[usize::from(step)]) => continue,
                    0..3 => {
                        let to = names[usize::from(step)];
                        let fact = attached(&sale(customer), customer, to);
                        customer = Some(to);
                        fact
                    }
                    3 if is_void => continue,
                    3 => {
                        is_void = true;
                        voided(&sale(customer), customer)
                    }
                    _ => {
                        let mut fact = corrected(&sale(customer), customer, &sale(customer));
                        if let (true, purchase::Event::Corrected { was, .. }) = (is_void, &mut fact) {
                            *was = None;
                        }
                        is_void = false;
                        fact
                    }
                };
                world.record(stream("1"), customer.map(id), fact, AT, AT);
            }
            let expected: Vec<_> = customer.filter(|_| !is_void).map(|name| (id(name), 1)).into_iter().collect();
            prop_assert_eq!(dangling(&world), expected);
        }
    }

    #[test]
    fn the_same_id_of_two_kinds_is_two_things() {
        let mut world = World::new(&[&MODEL]);
        let inspection = StreamRef::of(Id::<inspection::Inspection>::new(derived_id(&["inspection"])));
        let scheduled = inspection::Event::Scheduled {
            equipment: Id::new(id("chen")),
            checklist: "monthly".into(),
            customer: None,
            due: date(2026, 3, 31),
        };
        world.record(inspection, None, scheduled, AT, AT);
        registers(&mut world, "chen");
        let answer = world.ask(&MODEL, question(&[]));
        assert_eq!(answer.rows.len(), 1);
        assert_eq!(answer.rows[0][0], Value::Text("equipment".into()));
    }
}
