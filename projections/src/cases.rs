//! What customers asked for and how far it is, one row each.

use domain::case::Card;
use domain::{Fact, Personal, StreamKind, case};
use jiff::Timestamp;
use uuid::Uuid;

use crate::case_intervals::{self, CaseHistory};
use crate::{Event, Group, List, ReadModel, Row, Rows, table, word};

table! {
    /// The case as it stands by all that is known, late entries in their place. How it stood at a time tell `case_intervals`
    /// and `backlog`.
    entity CaseRow "cases" {
        key case: Uuid,
        /// What another system calls it, such as `desk:INC0001`, if it was opened under that key.
        set external_key: Option<String>,
        set customer: Uuid,
        set subject: Personal<String>,
        set kind: String,
        set priority: String,
        set category: Option<String>,
        set status: String,
        set agent: Option<String>,
        set group: Option<String>,
        set channel: String,
        set about: Vec<Uuid>,
        set opened_at: Timestamp,
        /// The first public reply by a person.
        set first_response_at: Option<Timestamp>,
        set first_resolved_at: Option<Timestamp>,
        /// None while it is open again.
        set resolved_at: Option<Timestamp>,
        set closed_at: Option<Timestamp>,
        set code: Option<String>,
        /// Why it was escalated, until somebody else has it.
        set escalation: Option<String>,
        /// How often it was escalated at all: 0 = it stayed within what was promised.
        set escalations: i64,
        set reopens: i64,
        /// Public ones, by whoever.
        set replies: i64,
        /// The latest time at which something happened to it.
        set changed_at: Timestamp,
    }
}

pub static MODEL: ReadModel = ReadModel {
    name: "cases",
    about: "Every case with its status, who has it, and when it was answered and resolved",
    group: Group::Service,
    version: 2,
    streams: &[StreamKind::Case],
    tables: &[CaseRow::TABLE, CaseHistory::TABLE],
    project,
    plan: |question| {
        question.present_only()?;
        List::newest_first::<CaseRow>("opened_at").plan(question)
    },
};

fn project(event: &Event, rows: &mut Rows) {
    let Fact::Case(fact) = &event.fact else { return };
    let Some((case, advance)) = case_intervals::advance(event, rows) else {
        return;
    };
    let card = advance.card();
    match fact {
        case::Event::Opened {
            subject,
            kind,
            channel,
            about,
            ..
        } => {
            let mut row = CaseRow {
                case,
                external_key: event.external_key.as_ref().map(ToString::to_string),
                customer: card.customer.expect("it was opened for one").uuid(),
                subject: subject.clone(),
                kind: word(kind),
                priority: String::new(),
                category: None,
                status: String::new(),
                agent: None,
                group: None,
                channel: channel.name().to_owned(),
                about: about.clone(),
                opened_at: card.opened_at,
                first_response_at: None,
                first_resolved_at: None,
                resolved_at: None,
                closed_at: None,
                code: None,
                escalation: None,
                escalations: 0,
                reopens: 0,
                replies: 0,
                changed_at: card.opened_at,
            };
            row.show(card);
            rows.put(row);
        }
        _ => rows.update(case, |row: &mut CaseRow| {
            if let case::Event::Replied { public: true, .. } = fact {
                row.replies += 1;
            }
            row.changed_at = row.changed_at.max(event.effective_at);
            row.show(card);
        }),
    }
}

impl CaseRow {
    fn show(&mut self, card: &Card) {
        self.status = word(card.status);
        self.priority = word(card.priority);
        self.category = card.category.clone();
        self.agent = card.agent.clone();
        self.group = card.group.clone();
        self.first_response_at = card.first_response_at;
        self.first_resolved_at = card.first_resolved_at;
        self.resolved_at = card.resolved_at;
        self.closed_at = card.closed_at;
        self.code = Some(card.code.clone()).filter(|code| !code.is_empty());
        self.escalation = card.escalation.clone();
        self.escalations = card.escalations.into();
        self.reopens = card.reopens.into();
    }
}

#[cfg(test)]
mod specs {
    use domain::{Id, StreamRef, interaction::Channel};

    use super::*;
    use crate::Value;
    use crate::spec::{World, id, moment, question};

    fn opened(customer: &str) -> case::Event {
        case::Event::Opened {
            customer: Id::new(id(customer)),
            subject: "主軸異音".into(),
            kind: case::Kind::Incident,
            priority: case::Priority::High,
            channel: Channel::Phone,
            about: vec![id("machine")],
        }
    }

    fn replied(author: case::Author) -> case::Event {
        case::Event::Replied {
            author,
            public: true,
            text: None,
            from: case::Status::Open,
        }
    }

    fn resolved(at: &str) -> case::Event {
        case::Event::Resolved {
            code: "repaired".into(),
            note: None,
            agent: Some("mei".into()),
            group: None,
            from: case::Status::Open,
            at: moment(at),
        }
    }

    #[test]
    fn a_case_shows_how_far_it_is() {
        let mut world = World::new(&[&MODEL]);
        let stream = StreamRef::of::<case::Case>(Id::new(id("case")));
        world.name_by_key(stream, "desk", "INC0001");
        let mut record = |fact: case::Event, at: &str| {
            world.record(stream, None, fact, at, at);
        };
        record(opened("a"), "2026-03-02T09:00:00+08:00");
        record(replied(case::Author::Bot), "2026-03-02T09:01:00+08:00");
        record(replied(case::Author::Agent), "2026-03-02T09:20:00+08:00");
        record(
            case::Event::Assigned {
                from_agent: None,
                from_group: None,
                agent: Some("mei".into()),
                group: Some("hotline".into()),
                from: case::Status::New,
            },
            "2026-03-02T09:21:00+08:00",
        );
        let end = "2026-03-02T11:00:00+08:00";
        record(resolved(end), end);
        record(
            case::Event::Reopened {
                reason: "noise is back".into(),
                from: case::Status::Resolved,
                ended_at: moment(end),
            },
            "2026-03-03T09:00:00+08:00",
        );
        let rows = world.rows::<CaseRow>();
        let expected = CaseRow {
            case: id("case"),
            external_key: Some("desk:INC0001".into()),
            customer: id("a"),
            subject: "主軸異音".into(),
            kind: "incident".into(),
            priority: "high".into(),
            category: None,
            status: "open".into(),
            agent: Some("mei".into()),
            group: Some("hotline".into()),
            channel: "phone".into(),
            about: vec![id("machine")],
            opened_at: moment("2026-03-02T09:00:00+08:00"),
            first_response_at: Some(moment("2026-03-02T09:20:00+08:00")),
            first_resolved_at: Some(moment(end)),
            resolved_at: None,
            closed_at: None,
            code: None,
            escalation: None,
            escalations: 0,
            reopens: 1,
            replies: 2,
            changed_at: moment("2026-03-03T09:00:00+08:00"),
        };
        assert_eq!(rows, vec![expected]);
    }

    #[test]
    fn the_latest_cases_come_first() {
        let mut world = World::new(&[&MODEL]);
        for (name, at) in [
            ("old", "2026-03-01T09:00:00+08:00"),
            ("new", "2026-03-02T09:00:00+08:00"),
        ] {
            let stream = StreamRef::of::<case::Case>(Id::new(id(name)));
            world.record(stream, None, opened("a"), at, at);
        }
        let answer = world.ask(&MODEL, question(&["status=new"]));
        let cases: Vec<_> = answer.rows.iter().map(|row| row[0].clone()).collect();
        assert_eq!(cases, vec![Value::Uuid(id("new")), Value::Uuid(id("old"))]);
    }
}
