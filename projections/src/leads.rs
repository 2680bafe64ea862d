//! Who might become a customer, one row each, and how fast somebody reached out.

use domain::customer::ContactKind;
use domain::{Fact, Personal, StreamKind, lead};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Advance, Event, Group, List, ReadModel, Row, Rows, Step, table, word};

table! {
    entity LeadRow "leads" {
        key lead: Uuid,
        /// What another system calls it, such as `web:4711`, if it was captured under that key.
        set external_key: Option<String>,
        set name: Personal<String>,
        set company: Option<String>,
        set source: String,
        set campaign: Option<String>,
        set owner: Option<String>,
        set status: String,
        set email: Option<Personal<String>>,
        set phone: Option<Personal<String>>,
        set line: Option<Personal<String>>,
        set address: Option<Personal<String>>,
        set attempts: i64,
        set captured_at: Timestamp,
        set first_outbound_attempt_at: Option<Timestamp>,
        /// From captured to the first attempt, by the calendar; whole minutes.
        set response_minutes: Option<i64>,
        set disqualified_reason: Option<String>,
        set customer: Option<Uuid>,
        set opportunity: Option<Uuid>,
        set converted_at: Option<Timestamp>,
        set changed_at: Timestamp,
    }
}

table! {
    /// What the rows are made of.
    entity LeadHistory "lead_histories" {
        key lead: Uuid,
        set steps: Vec<Step<lead::Event>>,
    }
}

pub static MODEL: ReadModel = ReadModel {
    name: "leads",
    about: "Every lead with its owner, status and the time until somebody reached out",
    group: Group::Sales,
    version: 2,
    streams: &[StreamKind::Lead],
    tables: &[LeadRow::TABLE, LeadHistory::TABLE],
    project,
    plan: |question| {
        question.present_only()?;
        List::of::<LeadRow>().plan(question)
    },
};

fn project(event: &Event, rows: &mut Rows) {
    let Fact::Lead(fact) = &event.fact else { return };
    let lead = event.stream.id;
    let mut steps = match fact {
        lead::Event::Captured { .. } => vec![],
        _ => match rows.get::<LeadHistory>(lead) {
            Some(history) => history.steps,
            None => return,
        },
    };
    let advance = Advance::<lead::Card>::of(event, fact, &mut steps);
    rows.put(LeadHistory { lead, steps });
    if let lead::Event::Captured {
        source,
        name,
        company,
        contact_points,
        campaign,
    } = fact
    {
        let point = |kind: ContactKind| {
            let found = contact_points.iter().find(|point| point.kind == kind);
            found.map(|point| point.value.clone())
        };
        rows.put(LeadRow {
            lead,
            external_key: event.external_key.as_ref().map(ToString::to_string),
            name: name.clone(),
            company: company.clone(),
            source: source.clone(),
            campaign: campaign.clone(),
            owner: None,
            status: word(lead::Status::New),
            email: point(ContactKind::Email),
            phone: point(ContactKind::Phone),
            line: point(ContactKind::Line),
            address: point(ContactKind::Address),
            attempts: 0,
            captured_at: event.effective_at,
            first_outbound_attempt_at: None,
            response_minutes: None,
            disqualified_reason: None,
            customer: None,
            opportunity: None,
            converted_at: None,
            changed_at: event.effective_at,
        });
        return;
    }
    rows.update(lead, |row: &mut LeadRow| {
        row.changed_at = row.changed_at.max(event.effective_at);
        row.show(advance.card());
    });
}

impl LeadRow {
    fn show(&mut self, card: &lead::Card) {
        self.owner = card.owner.clone();
        self.status = word(card.status);
        self.attempts = card.attempts.into();
        self.first_outbound_attempt_at = card.first_attempt_at;
        self.response_minutes = card
            .first_attempt_at
            .map(|first| first.duration_since(card.captured_at).as_secs() / 60);
        self.disqualified_reason = card.disqualified_reason.clone();
        self.customer = card.customer.map(domain::Id::uuid);
        self.opportunity = card.opportunity.map(domain::Id::uuid);
        self.converted_at = card.converted_at;
    }
}

#[cfg(test)]
mod specs {
    use domain::interaction::Channel;
    use domain::{Id, StreamRef};

    use super::*;
    use crate::spec::{World, id, moment, question};

    fn captured() -> lead::Event {
        lead::Event::Captured {
            source: "fair".into(),
            name: "王小明".into(),
            company: Some("大同機械".into()),
            contact_points: vec![lead::ContactPoint {
                kind: ContactKind::Phone,
                value: "0912".into(),
            }],
            campaign: None,
        }
    }

    fn attempt() -> lead::Event {
        lead::Event::AttemptLogged {
            channel: Channel::Phone,
            outcome: "no answer".into(),
            from: lead::Status::New,
        }
    }

    fn world() -> (World, StreamRef) {
        let mut world = World::new(&[&MODEL]);
        let stream = StreamRef::of(Id::<lead::Lead>::new(id("lead")));
        let at = "2026-03-02T09:00:00+08:00";
        world.record(stream, None, captured(), at, at);
        (world, stream)
    }

    #[test]
    fn the_first_attempt_tells_the_response_time_even_when_it_is_logged_last() {
        let (mut world, stream) = world();
        let (noon, ten) = ("2026-03-02T12:00:00+08:00", "2026-03-02T10:15:30+08:00");
        world.record(stream, None, attempt(), noon, noon);
        assert_eq!(world.rows::<LeadRow>()[0].response_minutes, Some(180));
        world.record(stream, None, attempt(), ten, "2026-03-02T13:00:00+08:00");
        let row = &world.rows::<LeadRow>()[0];
        assert_eq!(row.attempts, 2);
        assert_eq!(row.first_outbound_attempt_at, Some(moment(ten)));
        assert_eq!(row.response_minutes, Some(75));
        assert_eq!(row.status, "working");
        assert_eq!(row.phone, Some("0912".into()));
    }

    #[test]
    fn a_converted_lead_names_its_customer() {
        let (mut world, stream) = world();
        let at = "2026-03-05T09:00:00+08:00";
        let converted = lead::Event::Converted {
            customer: Id::new(id("customer")),
            opportunity: None,
            source: "fair".into(),
            from: lead::Status::Qualified,
        };
        world.record(stream, Some(id("customer")), converted, at, at);
        let row = &world.rows::<LeadRow>()[0];
        assert_eq!(row.customer, Some(id("customer")));
        assert_eq!(row.converted_at, Some(moment(at)));
        assert_eq!(world.ask(&MODEL, question(&["status=converted"])).rows.len(), 1);
        assert_eq!(world.ask(&MODEL, question(&["status=new"])).rows.len(), 0);
    }

    #[test]
    fn a_recycled_lead_has_no_owner() {
        let (mut world, stream) = world();
        let at = "2026-03-05T09:00:00+08:00";
        let assigned = lead::Event::Assigned {
            from_owner: None,
            owner: "mei".into(),
            from: lead::Status::New,
        };
        world.record(stream, None, assigned, at, at);
        assert_eq!(world.rows::<LeadRow>()[0].owner.as_deref(), Some("mei"));
        let disqualified = lead::Event::Disqualified {
            reason: "no budget".into(),
            from: lead::Status::Assigned,
        };
        world.record(stream, None, disqualified, at, at);
        assert_eq!(
            world.rows::<LeadRow>()[0].disqualified_reason.as_deref(),
            Some("no budget")
        );
        let recycled = lead::Event::Recycled {
            from_owner: Some("mei".into()),
            from: lead::Status::Disqualified,
        };
        world.record(stream, None, recycled, at, at);
        let row = &world.rows::<LeadRow>()[0];
        assert_eq!((row.owner.as_deref(), row.status.as_str()), (None, "recycled"));
    }
}
