//! "Update or create": a beginning that meets a stream which is begun changes what differs, by the events of the commands that there are,
//! or is refused by the name of the field.

use std::any::Any;
use std::collections::BTreeSet;

use domain::{AnyCommand, AnyState, Calendar, Companions, Fact, Moment, StreamKind, StreamRef, derived_id};
use jiff::Timestamp;
use serde_json::{Value, json};

const MONDAY: &str = "2026-03-02T09:00:00+08:00";
const TUESDAY: &str = "2026-03-03T09:00:00+08:00";
const FRIDAY: &str = "2026-03-06T09:00:00+08:00";

/// A stream as a shard has it.
#[derive(Clone)]
struct Thing {
    kind: StreamKind,
    state: AnyState,
    is_begun: bool,
}

/// All in other slots. Whatever is asked for was declared by the command that was sent: only that is in a shard's memory.
struct Declared(Vec<StreamRef>);

impl Companions for Declared {
    fn find(&self, stream: StreamRef) -> Option<&dyn Any> {
        assert!(self.0.contains(&stream), "{stream} was not declared");
        None
    }
}

impl Thing {
    fn new(kind: StreamKind) -> Thing {
        Thing {
            kind,
            state: AnyState::initial(kind),
            is_begun: false,
        }
    }

    fn begun(kind: StreamKind, command: &Value) -> Thing {
        let mut thing = Thing::new(kind);
        assert_eq!(thing.upsert(command).map(|events| events.len()), Ok(1), "{command}");
        thing
    }

    fn upsert(&mut self, command: &Value) -> Result<Vec<String>, String> {
        self.at(FRIDAY, true, command)
    }

    fn send(&mut self, command: &Value) {
        let sent = self.at(FRIDAY, false, command);
        assert!(sent.is_ok(), "{command}: {sent:?}");
    }

    /// All or nothing: the names of the events.
    fn at(&mut self, effective_at: &str, upsert: bool, command: &Value) -> Result<Vec<String>, String> {
        let command =
            AnyCommand::from_json(self.kind, command.clone()).unwrap_or_else(|error| panic!("{command}: {error:?}"));
        let (now, effective_at): (Timestamp, Timestamp) = (FRIDAY.parse().unwrap(), effective_at.parse().unwrap());
        let (declared, calendar) = (Declared(command.companions()), Calendar::taipei());
        let at = Moment::new(derived_id(&["thing"]), now, effective_at, &calendar, &declared);
        let commands = match upsert && self.is_begun {
            true => self.state.upsert(command, &at),
            false => vec![command],
        };
        let (mut after, mut names) = (self.state.clone(), Vec::new());
        for command in commands {
            let facts: Vec<Fact> = after.decide(command, &at).map_err(|refused| refused.to_string())?;
            for fact in facts {
                names.push(fact.encode().0.event);
                after = after.evolve(&fact, effective_at);
            }
        }
        self.is_begun |= !names.is_empty();
        self.state = after;
        Ok(names)
    }

    /// What the state says of a field of the beginning, if it says it by that name.
    fn says(&self, field: &str) -> Option<Value> {
        let state: Value = serde_json::from_slice(&self.state.to_json()).unwrap();
        let parts = [&state, &state["current"], &state["purchase"]];
        parts.iter().find_map(|part| part.get(field).cloned())
    }
}

/// What becomes of another value of a field.
enum Then {
    Event(&'static str),
    Events(&'static [&'static str]),
    /// By a sentence that names it.
    Refused,
}

use Then::{Event, Events, Refused};

struct Table {
    kind: StreamKind,
    begins: Value,
    /// Each field, other values for it and for those that have to change along, and what comes of that.
    changes: Vec<(&'static str, Value, Then)>,
}

fn id(name: &str) -> String {
    derived_id(&[name]).to_string()
}

fn tables() -> Vec<Table> {
    let (chen, lin) = (id("chen"), id("lin"));
    let line = |sku: &str, quantity: i64| json!([{"sku": sku, "quantity": quantity, "unit_price": "100"}]);
    let cash = |amount: i64, kind: &str| json!([{"type": kind, "amount_minor": amount}]);
    vec![
        Table {
            kind: StreamKind::Customer,
            begins: json!({"type": "register", "kind": "person", "name": "Chen", "country": "TW", "locale": "zh-TW",
                           "external": [{"source": "shop", "key": "1"}]}),
            changes: vec![
                ("kind", json!({"kind": "organisation"}), Refused),
                ("name", json!({"name": "Chen & Co."}), Event("renamed")),
                ("country", json!({"country": "JP"}), Refused),
                ("locale", json!({"locale": "en"}), Refused),
                (
                    "external",
                    json!({"external": [{"source": "shop", "key": "2"}]}),
                    Refused,
                ),
            ],
        },
        Table {
            kind: StreamKind::Lead,
            begins: json!({"type": "capture", "source": "fair", "name": "Chen", "company": "Chen & Co.", "campaign": "timtos",
                           "contact_points": [{"kind": "phone", "value": "02"}]}),
            changes: vec![
                ("source", json!({"source": "web"}), Refused),
                ("name", json!({"name": "Lin"}), Refused),
                ("company", json!({"company": "Lin & Co."}), Refused),
                (
                    "contact_points",
                    json!({"contact_points": [{"kind": "phone", "value": "03"}]}),
                    Refused,
                ),
                ("campaign", json!({"campaign": "other"}), Refused),
            ],
        },
        Table {
            kind: StreamKind::Opportunity,
            begins: json!({"type": "open", "customer": chen, "name": "lathe", "pipeline": "default", "stage": "prospecting",
                           "amount": {"minor": 100, "currency": "TWD"}, "close_date": "2026-06-30", "owner": "mei", "source": "fair"}),
            changes: vec![
                ("customer", json!({"customer": lin}), Event("customer-changed")),
                ("name", json!({"name": "lathes"}), Event("renamed")),
                ("pipeline", json!({"pipeline": "other"}), Refused),
                ("stage", json!({"stage": "proposal"}), Event("stage-changed")),
                (
                    "amount",
                    json!({"amount": {"minor": 200, "currency": "USD"}}),
                    Event("amount-set"),
                ),
                (
                    "close_date",
                    json!({"close_date": "2026-07-31"}),
                    Event("close-date-set"),
                ),
                ("owner", json!({"owner": "jun"}), Event("owner-assigned")),
                ("source", json!({"source": "web"}), Refused),
            ],
        },
        Table {
            kind: StreamKind::Interaction,
            begins: json!({"type": "record", "customer": chen, "channel": "email", "direction": "in", "subject": "noise",
                           "body": "please", "provider_id": "<1@mail>", "about": [id("deal")]}),
            changes: vec![
                ("customer", json!({"customer": lin}), Refused),
                ("channel", json!({"channel": "phone"}), Event("corrected")),
                ("direction", json!({"direction": "out"}), Event("corrected")),
                ("subject", json!({"subject": "quiet"}), Event("corrected")),
                ("body", json!({"body": "thanks"}), Event("corrected")),
                ("provider_id", json!({"provider_id": "<2@mail>"}), Refused),
                ("about", json!({"about": [id("case")]}), Event("corrected")),
            ],
        },
        Table {
            kind: StreamKind::Case,
            begins: json!({"type": "open", "customer": chen, "subject": "leaks", "kind": "incident", "priority": "high",
                           "channel": "phone", "about": [id("press")]}),
            changes: vec![
                ("customer", json!({"customer": lin}), Refused),
                ("subject", json!({"subject": "drips"}), Refused),
                ("kind", json!({"kind": "complaint"}), Refused),
                // Until it has a category.
                ("priority", json!({"priority": "low"}), Refused),
                ("channel", json!({"channel": "email"}), Refused),
                ("about", json!({"about": [id("lathe")]}), Refused),
            ],
        },
        Table {
            kind: StreamKind::Equipment,
            begins: json!({"type": "install", "customer": chen, "maker": "M", "serial": "1", "model": "X", "site": "Taipei",
                           "warranty_until": "2027-12-31"}),
            changes: vec![
                ("customer", json!({"customer": lin}), Event("owner-transferred")),
                ("maker", json!({"maker": "N"}), Refused),
                ("serial", json!({"serial": "2"}), Refused),
                ("model", json!({"model": "Y"}), Refused),
                ("site", json!({"site": "Tainan"}), Event("moved")),
                ("warranty_until", json!({"warranty_until": "2028-12-31"}), Refused),
            ],
        },
        Table {
            kind: StreamKind::Inspection,
            begins: json!({"type": "schedule", "equipment": id("press"), "due": "2026-04-01", "checklist": "yearly"}),
            changes: vec![
                ("equipment", json!({"equipment": id("lathe")}), Refused),
                ("due", json!({"due": "2026-05-01"}), Refused),
                ("checklist", json!({"checklist": "monthly"}), Refused),
            ],
        },
        Table {
            kind: StreamKind::Job,
            begins: json!({"type": "create", "customer": chen, "equipment": id("press"), "origin": "case/1", "summary": "repair"}),
            changes: vec![
                ("customer", json!({"customer": lin}), Refused),
                ("equipment", json!({"equipment": id("lathe")}), Refused),
                ("origin", json!({"origin": "case/2"}), Refused),
                ("summary", json!({"summary": "repairs"}), Refused),
            ],
        },
        Table {
            kind: StreamKind::Purchase,
            begins: json!({"type": "record", "kind": "sale", "source": "pos", "store": "taipei", "till": "1", "receipt": "R-1",
                           "business_date": "2026-03-01", "currency": "TWD", "lines": line("tea", 1), "tax_minor": 500,
                           "tenders": cash(10_000, "cash"), "customer": chen, "of": null}),
            changes: vec![
                (
                    "kind",
                    json!({"kind": "return", "lines": line("tea", -1), "tax_minor": -500, "tenders": cash(-10_000, "cash")}),
                    Event("corrected"),
                ),
                ("source", json!({"source": "web"}), Refused),
                ("store", json!({"store": "tainan"}), Event("corrected")),
                ("till", json!({"till": "2"}), Event("corrected")),
                ("receipt", json!({"receipt": "R-2"}), Refused),
                (
                    "business_date",
                    json!({"business_date": "2026-03-02"}),
                    Event("corrected"),
                ),
                ("currency", json!({"currency": "USD"}), Event("corrected")),
                ("lines", json!({"lines": line("cup", 1)}), Event("corrected")),
                ("tax_minor", json!({"tax_minor": 600}), Event("corrected")),
                ("tenders", json!({"tenders": cash(10_000, "card")}), Event("corrected")),
                ("customer", json!({"customer": lin}), Event("customer-attached")),
                ("of", json!({"of": "R-0"}), Event("corrected")),
            ],
        },
        Table {
            kind: StreamKind::Loyalty,
            begins: json!({"type": "enrol", "customer": chen, "program": "gold"}),
            changes: vec![
                ("customer", json!({"customer": lin}), Refused),
                ("program", json!({"program": "silver"}), Refused),
            ],
        },
        Table {
            kind: StreamKind::Link,
            begins: json!({"type": "link", "source": "erp", "key": "1", "customer": chen}),
            changes: vec![
                // Its id is that of source and key.
                ("source", json!({}), Events(&[])),
                ("key", json!({}), Events(&[])),
                ("customer", json!({"customer": lin}), Events(&["unlinked", "linked"])),
            ],
        },
    ]
}

fn with(command: &Value, changes: &Value) -> Value {
    let mut command = command.clone();
    command
        .as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    command
}

#[test]
fn another_value_of_a_field_gives_the_event_that_changes_it_or_a_refusal_that_names_it() {
    for Table { kind, begins, changes } in tables() {
        for (field, change, then) in &changes {
            let (mut thing, changed) = (Thing::begun(kind, &begins), with(&begins, change));
            let outcome = thing.upsert(&changed);
            let expected = match then {
                Event(name) => vec![*name],
                Events(names) => names.to_vec(),
                Refused => {
                    let refusal = outcome.unwrap_err();
                    let word = field.split('_').next().unwrap();
                    assert!(refusal.contains(word), "{kind:?} {field}: {refusal}");
                    continue;
                }
            };
            assert_eq!(
                outcome,
                Ok(expected.iter().map(|name| (*name).to_owned()).collect()),
                "{kind:?} {field}"
            );
            assert_eq!(
                thing.says(field),
                Thing::begun(kind, &changed).says(field),
                "{kind:?} {field}"
            );
        }
    }
}

/// A field that is not in the table would be one of which nobody has said what becomes.
#[test]
fn every_field_of_every_beginning_is_in_the_table() {
    let tables = tables();
    assert_eq!(
        tables.iter().map(|table| table.kind).collect::<Vec<_>>(),
        StreamKind::ALL
    );
    for Table { kind, begins, changes } in tables {
        assert_eq!(begins["type"], kind.begins());
        let fields = AnyCommand::from_json(kind, begins).unwrap().to_json();
        let fields: BTreeSet<String> = fields
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "type")
            .cloned()
            .collect();
        let told: BTreeSet<String> = changes.iter().map(|(field, ..)| (*field).to_owned()).collect();
        assert_eq!(told, fields, "{kind:?}");
    }
}

/// Whatever changes, and however much of it at once: then the stream says it, and the same again changes nothing.
#[test]
fn the_same_twice_gives_nothing_the_second_time() {
    for Table { kind, begins, changes } in tables() {
        let changes: Vec<_> = changes
            .into_iter()
            .filter(|(.., then)| !matches!(then, Refused))
            .collect();
        for chosen in 0..1_u32 << changes.len() {
            let chosen = changes
                .iter()
                .enumerate()
                .filter(|(n, _)| chosen >> n & 1 == 1)
                .map(|(_, change)| change);
            // What has to change along comes last.
            let mut chosen: Vec<_> = chosen.collect();
            chosen.sort_by_key(|(_, change, _)| change.as_object().unwrap().len());
            let changed = chosen
                .iter()
                .fold(begins.clone(), |command, (_, change, _)| with(&command, change));
            let mut thing = Thing::begun(kind, &begins);
            let first = thing
                .upsert(&changed)
                .unwrap_or_else(|refusal| panic!("{changed}: {refusal}"));
            assert_eq!(first.is_empty(), changed == begins, "{changed}");
            assert_eq!(thing.upsert(&changed), Ok(vec![]), "{changed}");
            let fresh = Thing::begun(kind, &changed);
            for (field, ..) in chosen {
                assert_eq!(thing.says(field), fresh.says(field), "{field} of {changed}");
            }
        }
    }
}

/// Except in a receipt, which is replaced whole.
#[test]
fn an_optional_field_that_is_left_out_stays_as_it_is() {
    for Table { kind, begins, .. } in tables() {
        for field in begins.as_object().unwrap().keys().filter(|key| *key != "type") {
            let mut command = begins.clone();
            command.as_object_mut().unwrap().remove(field);
            let is_optional = AnyCommand::from_json(kind, command.clone()).is_ok();
            if !is_optional || (kind == StreamKind::Purchase && field != "customer") {
                continue;
            }
            let mut thing = Thing::begun(kind, &begins);
            let before = thing.says(field);
            assert_eq!(thing.upsert(&command), Ok(vec![]), "{kind:?} without {field}");
            assert_eq!(thing.says(field), before, "{kind:?} without {field}");
        }
    }
}

fn deal(amount: i64) -> Value {
    json!({"type": "open", "customer": id("chen"), "name": "lathe", "amount": {"minor": amount, "currency": "TWD"},
           "close_date": "2026-06-30", "owner": "mei"})
}

#[test]
fn what_was_changed_meanwhile_is_changed_back_to_what_the_sender_says() {
    let mut thing = Thing::begun(StreamKind::Opportunity, &deal(100));
    thing.send(&json!({"type": "assign-owner", "owner": "jun"}));
    thing.send(&json!({"type": "change-stage", "to": "proposal"}));
    assert_eq!(thing.upsert(&deal(100)), Ok(vec!["owner-assigned".to_owned()]));
    // The stage was left out.
    assert_eq!(thing.says("stage"), Some(json!("proposal")));
}

#[test]
fn a_late_upsert_changes_what_was_so_at_its_own_time() {
    let amount_of = |thing: &Thing| thing.says("amount").unwrap()["minor"].clone();
    let mut thing = Thing::new(StreamKind::Opportunity);
    thing.at(MONDAY, false, &deal(100)).unwrap();
    thing
        .at(
            FRIDAY,
            false,
            &json!({"type": "set-amount", "amount": {"minor": 300, "currency": "TWD"}}),
        )
        .unwrap();
    for events in [vec!["amount-set".to_owned()], vec![]] {
        assert_eq!(thing.at(TUESDAY, true, &deal(200)), Ok(events));
        assert_eq!(amount_of(&thing), 300);
    }
    // As it was before, which it was not on Friday.
    assert_eq!(thing.at(MONDAY, true, &deal(100)), Ok(vec![]));
    assert_eq!(thing.at(FRIDAY, true, &deal(100)), Ok(vec!["amount-set".to_owned()]));
    assert_eq!(amount_of(&thing), 100);
}

#[test]
fn what_has_ended_is_as_it_is_and_says_so_when_it_should_change() {
    let mut won = Thing::begun(StreamKind::Opportunity, &deal(100));
    won.send(&json!({"type": "win"}));
    assert_eq!(won.upsert(&deal(100)), Ok(vec![]));
    assert_eq!(won.upsert(&deal(200)), Err("opportunity is already won".to_owned()));

    let register = |name: &str| json!({"type": "register", "kind": "person", "name": name});
    let mut closed = Thing::begun(StreamKind::Customer, &register("Chen"));
    closed.send(&json!({"type": "close"}));
    assert_eq!(closed.upsert(&register("Chen")), Ok(vec![]));
    assert!(closed.upsert(&register("Lin")).unwrap_err().contains("is closed"));

    let receipt = |sku: &str| {
        json!({"type": "record", "kind": "sale", "source": "pos", "receipt": "R-1", "business_date": "2026-03-01", "currency": "TWD",
               "lines": [{"sku": sku, "quantity": 1, "unit_price": "100"}]})
    };
    let mut sale = Thing::begun(StreamKind::Purchase, &receipt("tea"));
    assert_eq!(sale.upsert(&receipt("cup")), Ok(vec!["corrected".to_owned()]));
    assert!(sale.upsert(&receipt("tea")).unwrap_err().contains("earlier version"));
    sale.send(&json!({"type": "void", "reason": "training"}));
    assert!(sale.upsert(&receipt("cup")).unwrap_err().contains("was voided"));
}

#[test]
fn the_priority_of_a_case_changes_once_it_is_classified() {
    let open = |priority: &str| json!({"type": "open", "customer": id("chen"), "subject": "leaks", "kind": "incident", "priority": priority, "channel": "phone"});
    let mut case = Thing::begun(StreamKind::Case, &open("high"));
    assert!(case.upsert(&open("low")).unwrap_err().contains("priority"));
    case.send(&json!({"type": "classify", "category": "hydraulics"}));
    for events in [vec!["classified".to_owned()], vec![]] {
        assert_eq!(case.upsert(&open("low")), Ok(events));
        assert_eq!(
            (case.says("priority"), case.says("category")),
            (Some(json!("low")), Some(json!("hydraulics")))
        );
    }
}

#[test]
fn a_machine_that_was_transferred_says_which_field_cannot_be_changed() {
    let install = |customer: &str, model: &str| json!({"type": "install", "customer": id(customer), "maker": "M", "serial": "1", "model": model, "site": "Taipei"});
    let mut machine = Thing::begun(StreamKind::Equipment, &install("chen", "X"));
    assert_eq!(
        machine.upsert(&install("lin", "X")),
        Ok(vec!["owner-transferred".to_owned()])
    );
    assert!(
        machine
            .upsert(&install("lin", "Y"))
            .unwrap_err()
            .contains("other data: model")
    );
    machine.send(&json!({"type": "retire"}));
    assert!(machine.upsert(&install("lin", "X")).unwrap_err().contains("is retired"));
}

#[test]
fn a_command_that_begins_nothing_means_itself() {
    let mut thing = Thing::begun(StreamKind::Opportunity, &deal(100));
    let set = json!({"type": "set-amount", "amount": {"minor": 300, "currency": "TWD"}});
    assert_eq!(thing.upsert(&set), Ok(vec!["amount-set".to_owned()]));
}
