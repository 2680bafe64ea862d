//! Who the customers are, one row each.

use domain::{Fact, Personal, StreamKind, customer};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Event, Group, List, ReadModel, Row, Rows, table};

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

pub static MODEL: ReadModel = ReadModel {
    name: "customers",
    about: "Every customer with its owner, grade and primary contact points",
    group: Group::Sales,
    version: 1,
    streams: &[StreamKind::Customer],
    tables: &[CustomerRow::TABLE],
    project,
    plan: |question| {
        question.present_only()?;
        List::of::<CustomerRow>().plan(question)
    },
};

fn project(event: &Event, rows: &mut Rows) {
    let Fact::Customer(fact) = &event.fact else { return };
    if let customer::Event::Registered {
        kind,
        name,
        country,
        locale,
        ..
    } = fact
    {
        rows.put(CustomerRow {
            customer: event.stream.id,
            name: name.clone(),
            kind: kind_name(*kind).to_owned(),
            status: "active".to_owned(),
            country: country.clone(),
            locale: locale.clone(),
            owner: None,
            grade: None,
            email: None,
            phone: None,
            line: None,
            address: None,
            registered_at: event.effective_at,
            changed_at: event.effective_at,
        });
        return;
    }
    rows.update(event.stream.id, |row: &mut CustomerRow| {
        row.changed_at = event.effective_at;
        match fact {
            customer::Event::Registered { .. } => {}
            customer::Event::Renamed { to, .. } => row.name = to.clone(),
            customer::Event::ContactPointSet { kind, value, primary } => {
                let point = match kind {
                    customer::ContactKind::Email => &mut row.email,
                    customer::ContactKind::Phone => &mut row.phone,
                    customer::ContactKind::Line => &mut row.line,
                    customer::ContactKind::Address => &mut row.address,
                };
                if *primary || point.is_none() {
                    *point = Some(value.clone());
                }
            }
            customer::Event::OwnerAssigned { to, .. } => row.owner = Some(to.clone()),
            customer::Event::GradeSet { to, .. } => row.grade = Some(to.clone()),
            customer::Event::Closed => row.status = "closed".to_owned(),
            customer::Event::Reopened => row.status = "active".to_owned(),
        }
    });
}

fn kind_name(kind: customer::Kind) -> &'static str {
    match kind {
        customer::Kind::Organisation => "organisation",
        customer::Kind::Person => "person",
    }
}
