//! Every read model there is: a question without `as_of` and the same question with `as_of` = now have the same answer.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};

use domain::{AnyCommand, AnyState, Calendar, Companions, Moment, StreamKind, StreamRef};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value as Json, json};

use crate::spec::{World, id, moment};
use crate::{Answer, LIMIT_MAX, Question, READ_MODELS, ReadModel, Value};

/// When the tale begins; each thing in it is entered an hour after the one before.
const FIRST: &str = "2026-03-30T00:00:00Z";

/// One thing after the other, through the domain's own decisions.
struct Tale {
    world: World,
    calendar: Calendar,
    states: HashMap<StreamRef, AnyState>,
    now: Timestamp,
}

/// Only what lives in the stream's own slot can be known, and nothing does.
struct Elsewhere;

impl Companions for Elsewhere {
    fn find(&self, _: StreamRef) -> Option<&dyn Any> {
        None
    }
}

impl Tale {
    fn begin(time_zone: &str) -> Tale {
        let calendar = Calendar::of(time_zone).unwrap();
        Tale {
            world: World::new(READ_MODELS).in_zone(&calendar),
            calendar,
            states: HashMap::new(),
            now: moment(FIRST),
        }
    }

    /// Somebody enters now what is so since some hours.
    fn enter(&mut self, kind: StreamKind, name: &str, hours_ago: i64, command: Json) {
        self.now += SignedDuration::from_hours(1);
        let id = match kind {
            // Whose keys they are is told in the slot of the key.
            StreamKind::Link => domain::link::link_id("erp", name).uuid(),
            _ => id(name),
        };
        let stream = StreamRef { kind, id };
        let effective_at = self.now - SignedDuration::from_hours(hours_ago);
        let at = Moment::new(stream.id, self.now, effective_at, &self.calendar, &Elsewhere);
        let state = self.states.remove(&stream).unwrap_or_else(|| AnyState::initial(kind));
        let told = command.to_string();
        let command = AnyCommand::from_json(kind, command).unwrap_or_else(|error| panic!("{told}: {error}"));
        let facts = state
            .decide(command, &at)
            .unwrap_or_else(|error| panic!("{told}: {error}"));
        assert!(!facts.is_empty(), "{told} changes nothing");
        let state = facts.iter().fold(state, |state, fact| state.evolve(fact, effective_at));
        for fact in facts {
            self.world
                .record_at(stream, state.customer(), fact, effective_at, self.now);
        }
        self.states.insert(stream, state);
        self.the_present_is_as_of_now();
    }

    fn ask(&self, model: &'static ReadModel, as_of: Option<Timestamp>) -> Answer {
        let question = Question {
            as_of,
            now: Some(self.now),
            limit: Some(LIMIT_MAX),
            ..Question::new(self.calendar.clone())
        };
        self.world.ask(model, question)
    }

    fn the_present_is_as_of_now(&self) {
        for model in READ_MODELS.iter().copied().filter(|model| model.is_dated()) {
            let (present, dated) = (self.ask(model, None), self.ask(model, Some(self.now)));
            let present = match model.name {
                // Of now it shows each deal, of a time what was open by stage and currency.
                "pipeline" => open_by_stage(&present),
                _ => present.rows,
            };
            let dated: Vec<Vec<Value>> = match model.name {
                "pipeline" => dated.rows.into_iter().map(|row| row[..4].to_vec()).collect(),
                _ => dated.rows,
            };
            let zone = self.calendar.time_zone();
            assert_eq!(
                present, dated,
                "{} at {} in {zone}: now, and as of now",
                model.name, self.now
            );
        }
    }
}

/// Stage, currency, deals and amount.
fn open_by_stage(cards: &Answer) -> Vec<Vec<Value>> {
    let at = |name: &str| cards.columns.iter().position(|column| *column == name).unwrap();
    let (status, stage, currency, amount) = (at("status"), at("stage"), at("currency"), at("amount_minor"));
    let mut sums: BTreeMap<(usize, Value, Value), (i64, i64)> = BTreeMap::new();
    for card in cards.rows.iter().filter(|card| card[status].as_text() == "open") {
        let rank = domain::pipeline::stage_order(card[stage].as_text()).unwrap();
        let sum = sums
            .entry((rank, card[stage].clone(), card[currency].clone()))
            .or_default();
        sum.0 += 1;
        sum.1 += if card[amount] == Value::Null {
            0
        } else {
            card[amount].as_int()
        };
    }
    let row = |((_, stage, currency), (deals, amount))| vec![stage, currency, Value::Int(deals), Value::Int(amount)];
    sums.into_iter().map(row).collect()
}

#[test]
fn every_read_model_answers_of_now_what_it_answers_as_of_now() {
    for time_zone in ["Asia/Taipei", "Europe/Berlin", "America/Los_Angeles"] {
        let mut tale = Tale::begin(time_zone);
        tell(&mut tale);
        // Every read model is asked: a new one needs events here.
        for model in READ_MODELS {
            assert!(
                !tale.ask(model, None).rows.is_empty(),
                "the tale has nothing for {}",
                model.name
            );
        }
        // A day later everybody is a day older, and nothing is different otherwise.
        for _ in 0..3 {
            tale.now += SignedDuration::from_hours(17);
            tale.the_present_is_as_of_now();
        }
    }
}

fn tell(tale: &mut Tale) {
    use StreamKind::{
        Case, Customer, Equipment, Inspection, Interaction, Job, Lead, Link, Loyalty, Opportunity, Purchase,
    };
    let (mei, machine) = (id("mei"), id("machine"));
    let twd = |minor: i64| json!({"minor": minor, "currency": "TWD"});
    tale.enter(
        Customer,
        "mei",
        0,
        json!({"type": "register", "kind": "person", "name": "Mei"}),
    );
    tale.enter(
        Link,
        "C-1",
        0,
        json!({"type": "link", "source": "erp", "key": "C-1", "customer": mei}),
    );
    tale.enter(
        Lead,
        "lead",
        0,
        json!({"type": "capture", "source": "fair", "name": "Ming"}),
    );
    tale.enter(
        Lead,
        "lead",
        0,
        json!({"type": "log-attempt", "channel": "phone", "outcome": "no answer"}),
    );
    let call = json!({"type": "record", "customer": mei, "channel": "phone", "direction": "in", "subject": "when?"});
    tale.enter(Interaction, "call", 3, call);

    for (deal, amount) in [
        ("won", Some(1_000)),
        ("lost", Some(300)),
        ("open", Some(70)),
        ("without an amount", None),
    ] {
        let open = json!({"type": "open", "customer": mei, "name": deal, "close_date": "2026-04-30", "owner": "mei",
            "amount": amount.map(twd)});
        tale.enter(Opportunity, deal, 2, open);
        tale.enter(Opportunity, deal, 0, json!({"type": "change-stage", "to": "proposal"}));
    }
    // What is entered late has its place, and what is entered at once as well.
    tale.enter(Opportunity, "open", 1, json!({"type": "set-amount", "amount": twd(80)}));
    tale.enter(Opportunity, "won", 0, json!({"type": "win", "amount": twd(1_200)}));
    tale.enter(Opportunity, "lost", 5, json!({"type": "lose", "reason": "price"}));
    tale.enter(
        Opportunity,
        "lost",
        0,
        json!({"type": "reopen", "reason": "they called"}),
    );
    tale.enter(Opportunity, "lost", 0, json!({"type": "lose", "reason": "price"}));

    for case in ["closed", "open case"] {
        let open = json!({"type": "open", "customer": mei, "subject": "noise", "kind": "incident", "priority": "high",
            "channel": "phone"});
        tale.enter(Case, case, 1, open);
        tale.enter(
            Case,
            case,
            0,
            json!({"type": "reply", "author": "agent", "public": true}),
        );
    }
    tale.enter(Case, "open case", 0, json!({"type": "set-pending", "on": "customer"}));
    tale.enter(Case, "closed", 4, json!({"type": "resolve", "code": "fixed"}));
    tale.enter(Case, "closed", 0, json!({"type": "close"}));

    let install = json!({"type": "install", "customer": mei, "maker": "M", "serial": "1", "model": "X", "site": "S"});
    tale.enter(Equipment, "machine", 0, install);
    tale.enter(
        Equipment,
        "machine",
        2,
        json!({"type": "report-down", "symptom": "smoke"}),
    );
    tale.enter(Equipment, "machine", 0, json!({"type": "restore"}));
    let schedule = json!({"type": "schedule", "equipment": machine, "due": "2026-04-01", "checklist": "safety"});
    tale.enter(Inspection, "inspection", 0, schedule);
    tale.enter(
        Job,
        "job",
        0,
        json!({"type": "create", "customer": mei, "equipment": machine, "summary": "repair"}),
    );

    tale.enter(
        Loyalty,
        "account",
        0,
        json!({"type": "enrol", "customer": mei, "program": "points"}),
    );
    let earn = json!({"type": "earn", "points": 10, "source": "R1", "expires_on": "2026-04-01"});
    tale.enter(Loyalty, "account", 0, earn);

    // Receipts of yesterday, of today and of tomorrow, for a till may be in a time zone where it is: at the end of a month, too.
    let mut receipts = 0;
    let mut receipt = |tale: &mut Tale, days: i64, kind: &str, quantity: i64| {
        receipts += 1;
        let day = tale.calendar.day(tale.now + SignedDuration::from_hours(1 + 24 * days));
        let name = format!("receipt {receipts}");
        let record = json!({"type": "record", "kind": kind, "source": "pos", "receipt": name, "business_date": day.to_string(),
            "currency": "TWD", "lines": [{"sku": "A", "quantity": quantity, "unit_price": "1"}], "customer": mei});
        tale.enter(Purchase, &name, 0, record);
        name
    };
    for days in [-40, -1, 0, 1] {
        receipt(tale, days, "sale", 1);
    }
    receipt(tale, 1, "return", -1);
    // Of a sale that nobody has seen.
    let back = json!({"type": "record", "kind": "return", "source": "pos", "receipt": "back", "business_date": "2026-03-31",
        "currency": "TWD", "lines": [{"sku": "A", "quantity": -1, "unit_price": "1"}], "of": "unknown"});
    tale.enter(Purchase, "back", 0, back);
    let wrong = receipt(tale, 1, "sale", 3);
    tale.enter(Purchase, &wrong, 0, json!({"type": "void", "reason": "a slip"}));
    let moved = receipt(tale, 1, "sale", 5);
    tale.enter(
        Purchase,
        &moved,
        0,
        json!({"type": "attach-customer", "customer": id("wei")}),
    );
}
