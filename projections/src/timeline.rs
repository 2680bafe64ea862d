//! Everything that happened, in readable sentences: the 360° view of a customer, the audit trail, the past as it was.

mod sales;
mod sentence;
mod service;
mod shop;

use domain::{Calendar, Fact, Personal, link, purchase};
use jiff::Timestamp;
use uuid::Uuid;

use self::sentence::Sentence;
use crate::{Event, Group, List, Op, ReadModel, Row, Rows, Value, table};

table! {
    /// One row per event.
    journal TimelineEntry "timeline" {
        /// `None` = it belongs to nobody (yet): a lead, a sale without a card.
        set customer: Option<Uuid>,
        /// `opportunity/0192…`
        set stream: String,
        set stream_kind: String,
        /// What another system calls the stream, on the event that began it under that key.
        set external_key: Option<String>,
        /// The stream's version after the event.
        set version: i64,
        /// The event's name: `stage-changed`.
        set event: String,
        set effective_at: Timestamp,
        meta recorded_at: Timestamp,
        set actor: String,
        set event_id: String,
        set causation: Option<String>,
        set correlation: Option<String>,
        set summary_en: Personal<String>,
        set summary_zh: Personal<String>,
    }
}

pub static MODEL: ReadModel = ReadModel {
    name: "timeline",
    about: "Everything that happened, newest first, in English and Chinese sentences; of one customer with customer=…",
    group: Group::Journal,
    version: 1,
    streams: &[],
    tables: &[TimelineEntry::TABLE],
    project,
    plan: |question| {
        let mut plan = List::newest_first::<TimelineEntry>("effective_at").plan(question)?;
        if let Some(as_of) = question.as_of {
            let select = plan.selects.remove(0);
            plan.selects
                .push(select.filter("effective_at", Op::Le, Value::Time(as_of)));
        }
        Ok(plan)
    },
};

fn project(event: &Event, rows: &mut Rows) {
    let Sentence { en, zh } = sentence(&event.fact, &event.calendar);
    let (event_type, _) = event.fact.encode();
    rows.append(TimelineEntry {
        customer: customer(event),
        stream: event.stream.to_string(),
        stream_kind: event.stream.kind.name().to_owned(),
        external_key: event.external_key.as_ref().map(ToString::to_string),
        version: i64::try_from(event.version).expect("a stream's few events"),
        event: event_type.event,
        effective_at: event.effective_at,
        recorded_at: event.recorded_at,
        actor: event.actor.to_string(),
        event_id: event.event_id.clone(),
        causation: event.causation.clone(),
        correlation: event.correlation.clone(),
        summary_en: Personal::new(en),
        summary_zh: Personal::new(zh),
    });
}

/// Whose timeline the event stands in: the one it was recorded for, else the one it is about.
fn customer(event: &Event) -> Option<Uuid> {
    let about = match &event.fact {
        Fact::Customer(_) => Some(event.stream.id),
        Fact::Link(link::Event::Linked { customer, .. } | link::Event::Unlinked { customer }) => Some(customer.uuid()),
        Fact::Purchase(
            purchase::Event::Recorded { customer, .. }
            | purchase::Event::Voided { customer, .. }
            | purchase::Event::Corrected { customer, .. },
        ) => customer.map(|customer| customer.uuid()),
        Fact::Purchase(purchase::Event::CustomerAttached { to, .. }) => Some(to.uuid()),
        Fact::Lead(_)
        | Fact::Opportunity(_)
        | Fact::Interaction(_)
        | Fact::Case(_)
        | Fact::Equipment(_)
        | Fact::Inspection(_)
        | Fact::Job(_)
        | Fact::Loyalty(_) => None,
    };
    event.customer.or(about)
}

fn sentence(fact: &Fact, calendar: &Calendar) -> Sentence {
    match fact {
        Fact::Customer(event) => sales::customer(event),
        Fact::Link(event) => sales::link(event),
        Fact::Lead(event) => sales::lead(event),
        Fact::Opportunity(event) => sales::opportunity(event),
        Fact::Interaction(event) => sales::interaction(event),
        Fact::Case(event) => service::case(event),
        Fact::Equipment(event) => service::equipment(event, calendar),
        Fact::Inspection(event) => service::inspection(event),
        Fact::Job(event) => service::job(event, calendar),
        Fact::Purchase(event) => shop::purchase(event),
        Fact::Loyalty(event) => shop::loyalty(event),
    }
}

#[cfg(test)]
mod specs {
    use domain::customer::{Customer, Kind};
    use domain::{Currency, Id, Money, StreamRef, customer, inspection, loyalty};
    use jiff::civil::date;

    use super::*;
    use crate::Question;
    use crate::deals::specs::{amount_set, deal, lost, noon, opened, stage_changed, twd, won};
    use crate::spec::{World, id, question};

    fn told(fact: impl Into<Fact>) -> (String, String) {
        let Sentence { en, zh } = sentence(&fact.into(), &Calendar::taipei());
        (en, zh)
    }

    fn both(en: &str, zh: &str) -> (String, String) {
        (en.to_owned(), zh.to_owned())
    }

    #[test]
    fn a_deal_is_told_with_its_amounts_and_stages() {
        assert_eq!(
            told(opened(Some(twd(120_000_000)))),
            both(
                "Deal 五軸加工機 2 台 was opened in prospecting, owner mei, to close on 2026-06-30, TWD 1,200,000.00",
                "開立商機「五軸加工機 2 台」，階段「開發」，負責人 mei，預計 2026-06-30 結案，金額 TWD 1,200,000.00"
            )
        );
        assert_eq!(
            told(stage_changed("prospecting", "proposal")),
            both(
                "Deal moved from prospecting to proposal",
                "商機階段由「開發」改為「提案」"
            )
        );
        assert_eq!(
            told(won(twd(5_000))),
            both("Deal won for TWD 50.00", "商機成交，金額 TWD 50.00")
        );
        assert_eq!(told(lost("price")), both("Deal lost: price", "商機失敗：price"));
        assert_eq!(
            told(amount_set(Money::new(1_000, Currency::JPY))),
            both("Deal amount set to JPY 1,000", "商機金額設為 JPY 1,000")
        );
    }

    #[test]
    fn service_and_points_are_told() {
        let finished = inspection::Event::Finished {
            equipment: Id::new(id("lathe")),
            due: date(2026, 3, 2),
            checklist: "monthly".into(),
            outcome: inspection::Outcome::Failed,
            failed: vec!["oil".into(), "belt".into()],
            readings: 5,
        };
        assert_eq!(
            told(finished),
            both(
                "Inspection monthly failed: oil, belt",
                "檢驗「monthly」不合格：oil、belt"
            )
        );
        let earned = loyalty::Event::Earned {
            points: 1_200,
            source: "receipt 7".into(),
            expires_on: None,
            debt_paid: 0,
            balance: 2_000,
        };
        assert_eq!(
            told(earned),
            both(
                "Earned 1,200 points from receipt 7, balance 2,000",
                "獲得 1,200 點，來源 receipt 7，餘額 2,000 點"
            )
        );
    }

    #[test]
    fn a_customers_timeline_is_newest_first_in_the_order_of_what_was_true() {
        let mut world = World::new(&[&MODEL]);
        let customer = Id::<Customer>::new(id("customer"));
        let registered = customer::Event::Registered {
            kind: Kind::Organisation,
            name: "大同機械".into(),
            country: None,
            locale: None,
            external: vec![],
        };
        world.record_at(StreamRef::of(customer), None, registered, noon(1), noon(1));
        let own = Some(customer.uuid());
        world.record_at(deal("a"), own, opened(None), noon(2), noon(2));
        world.record_at(
            deal("a"),
            own,
            stage_changed("prospecting", "proposal"),
            noon(5),
            noon(5),
        );
        world.record_at(deal("a"), own, amount_set(twd(100)), noon(3), noon(6));
        world.record_at(deal("b"), Some(id("other")), opened(None), noon(4), noon(4));

        let events = |question: Question| {
            let rows = world.ask(&MODEL, question).rows;
            rows.into_iter()
                .map(|row| TimelineEntry::from_values(row).event)
                .collect::<Vec<_>>()
        };
        let of_customer = || question(&[&format!("customer={}", customer.uuid())]);
        assert_eq!(
            events(of_customer()),
            ["stage-changed", "amount-set", "opened", "registered"]
        );
        let as_of = Question {
            as_of: Some(noon(3)),
            ..of_customer()
        };
        assert_eq!(events(as_of), ["amount-set", "opened", "registered"]);
        let as_known = Question {
            known_until: Some(world.known_at(noon(5))),
            ..of_customer()
        };
        assert_eq!(events(as_known), ["stage-changed", "opened", "registered"]);
        assert_eq!(events(question(&["stream_kind=customer"])), ["registered"]);
    }

    #[test]
    fn an_entry_says_who_did_it_and_where_it_stands_in_its_stream() {
        let mut world = World::new(&[&MODEL]);
        world.record_at(deal("a"), None, opened(None), noon(2), noon(3));
        let entry = world.rows::<TimelineEntry>().remove(0);
        assert_eq!(entry.stream, format!("opportunity/{}", id("a")));
        assert_eq!((entry.version, entry.actor.as_str()), (1, "user:mei"));
        assert_eq!((entry.effective_at, entry.recorded_at), (noon(2), noon(3)));
        assert_eq!(entry.customer, None);
    }
}
