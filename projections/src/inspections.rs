//! Inspections of machines: what is due, what is overdue, what was found.

use domain::{Fact, StreamKind, in_sequence, inspection};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    BadQuestion, Column, ColumnType, Event, Group, List, Op, Operand, Plan, Question, ReadModel, Row, Rows, Value,
    Where, table, word,
};

table! {
    entity InspectionRow "inspections" {
        key inspection: Uuid,
        set equipment: Uuid,
        set customer: Option<Uuid>,
        set checklist: String,
        set due: Date,
        set status: String,
        /// `passed` or `failed`; none until it is finished.
        set outcome: Option<String>,
        set scheduled_at: Timestamp,
        set started_at: Option<Timestamp>,
        set finished_at: Option<Timestamp>,
        /// The last reading of each item by time, however late another one was entered.
        set readings: Vec<Reading>,
        /// The items whose last reading did not pass.
        set failed: Vec<String>,
        /// Was it finished by its due day? None until it is finished.
        set on_time: Option<bool>,
        set void_reason: Option<String>,
        set changed_at: Timestamp,
        /// Past this day it is overdue; the last day of the calendar once it is finished or void. Answers say `overdue` instead.
        set overdue_after: Date,
    }
}

/// What was read of an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    pub item: String,
    pub value: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    pub pass: bool,
    pub at: Timestamp,
}

pub static MODEL: ReadModel = ReadModel {
    name: "inspections",
    about: "Inspections with their readings and failed items; overdue=true gives those past their due day",
    group: Group::Service,
    version: 3,
    streams: &[StreamKind::Inspection],
    tables: &[InspectionRow::TABLE],
    project,
    plan,
};

/// The due day of what is never overdue: the last one that every store can hold.
const NEVER: Date = Date::constant(9999, 12, 31);

fn project(event: &Event, rows: &mut Rows) {
    let Fact::Inspection(fact) = &event.fact else { return };
    let mut at = event.effective_at;
    if let inspection::Event::Scheduled {
        equipment,
        customer,
        due,
        checklist,
    } = fact
    {
        rows.put(InspectionRow {
            inspection: event.stream.id,
            equipment: equipment.uuid(),
            customer: customer.map(domain::Id::uuid),
            checklist: checklist.clone(),
            due: *due,
            status: word(inspection::Status::Scheduled),
            outcome: None,
            scheduled_at: at,
            started_at: None,
            finished_at: None,
            readings: vec![],
            failed: vec![],
            on_time: None,
            void_reason: None,
            changed_at: at,
            overdue_after: *due,
        });
        return;
    }
    rows.update(event.stream.id, |row: &mut InspectionRow| {
        at = match fact {
            // Readings do not cause one another; they are true after the start.
            inspection::Event::ReadingRecorded { .. } => in_sequence(row.started_at.unwrap_or(row.scheduled_at), at),
            _ => in_sequence(row.changed_at, at),
        };
        row.changed_at = row.changed_at.max(at);
        match fact {
            inspection::Event::Scheduled { .. } => {}
            inspection::Event::Started { .. } => {
                row.status = word(inspection::Status::Started);
                row.started_at = Some(at);
            }
            inspection::Event::ReadingRecorded {
                item,
                value,
                unit,
                pass,
                ..
            } => {
                let reading = Reading {
                    item: item.clone(),
                    value: value.clone(),
                    unit: unit.clone(),
                    pass: *pass,
                    at,
                };
                match row.readings.iter_mut().find(|known| known.item == *item) {
                    Some(known) if at < known.at => {}
                    Some(known) => *known = reading,
                    None => row.readings.push(reading),
                }
            }
            inspection::Event::Finished {
                outcome, failed, due, ..
            } => {
                row.status = word(inspection::Status::Finished);
                row.outcome = Some(word(outcome));
                row.failed = failed.clone();
                row.finished_at = Some(at);
                row.on_time = Some(event.calendar.day(at) <= *due);
                row.overdue_after = NEVER;
            }
            inspection::Event::Voided { reason, .. } => {
                row.status = word(inspection::Status::Voided);
                row.void_reason = Some(reason.clone());
                row.overdue_after = NEVER;
            }
        }
    });
}

fn plan(question: &Question) -> Result<Plan, BadQuestion> {
    question.present_only()?;
    let today = question.calendar.day(question.time());
    let mut question = question.clone();
    for filter in &mut question.filters {
        if filter.column == "overdue" {
            *filter = overdue(filter, today)?;
        }
    }
    let plan = List::of::<InspectionRow>().plan(&question).map_err(in_our_words)?;
    let mut columns = plan.columns.clone();
    let at = columns.iter().position(|column| column.name == "overdue_after");
    let at = at.expect("the table has the column");
    columns[at] = Column::shown("overdue", ColumnType::Bool);
    let plan = plan.then(move |rows| {
        for row in rows {
            row[at] = Value::Bool(row[at] < Value::Date(today));
        }
    });
    Ok(plan.showing(columns))
}

/// The question knows nothing of the stored day.
fn in_our_words(error: BadQuestion) -> BadQuestion {
    match error {
        BadQuestion::Column { column, known } => BadQuestion::Column {
            column,
            known: known.replace("overdue_after", "overdue"),
        },
        other => other,
    }
}

/// `overdue=true` as a comparison of the stored day.
fn overdue(filter: &Where, today: Date) -> Result<Where, BadQuestion> {
    let values: Vec<&str> = filter.texts().collect();
    let op = match (filter.op, values.as_slice()) {
        (Op::Eq | Op::In, ["true"]) | (Op::Ne, ["false"]) => Op::Lt,
        (Op::Eq | Op::In, ["false"]) | (Op::Ne, ["true"]) => Op::Ge,
        _ => {
            return Err(BadQuestion::Value {
                column: filter.column.clone(),
                value: values.join(", "),
            });
        }
    };
    Ok(Where::new("overdue_after", op, [Operand::Text(today.to_string())]))
}

#[cfg(test)]
mod specs {
    use domain::{Id, StreamRef, equipment::Equipment};
    use jiff::civil::date;

    use super::*;
    use crate::spec::{World, id, moment, question};

    const DUE: Date = date(2026, 4, 1);

    fn machine() -> Id<Equipment> {
        Id::new(id("machine"))
    }

    fn scheduled() -> inspection::Event {
        inspection::Event::Scheduled {
            equipment: machine(),
            customer: Some(Id::new(id("a"))),
            due: DUE,
            checklist: "quarterly".into(),
        }
    }

    fn reading(item: &str, value: &str, pass: bool) -> inspection::Event {
        inspection::Event::ReadingRecorded {
            equipment: machine(),
            item: item.into(),
            value: value.into(),
            unit: None,
            pass,
            replaces: false,
        }
    }

    fn finished() -> inspection::Event {
        inspection::Event::Finished {
            equipment: machine(),
            due: DUE,
            checklist: "quarterly".into(),
            outcome: inspection::Outcome::Failed,
            failed: vec!["oil".into()],
            readings: 2,
        }
    }

    fn record(world: &mut World, name: &str, fact: inspection::Event, at: &str) {
        let stream = StreamRef::of::<inspection::Inspection>(Id::new(id(name)));
        world.record(stream, None, fact, at, at);
    }

    #[test]
    fn an_inspection_shows_its_last_readings_and_what_failed() {
        let mut world = World::new(&[&MODEL]);
        record(&mut world, "one", scheduled(), "2026-03-01T09:00:00+08:00");
        let started = inspection::Event::Started {
            equipment: machine(),
            due: DUE,
            checklist: "quarterly".into(),
        };
        record(&mut world, "one", started, "2026-04-01T09:00:00+08:00");
        record(
            &mut world,
            "one",
            reading("oil", "2", true),
            "2026-04-01T09:01:00+08:00",
        );
        record(
            &mut world,
            "one",
            reading("noise", "80", true),
            "2026-04-01T09:02:00+08:00",
        );
        record(
            &mut world,
            "one",
            reading("oil", "1", false),
            "2026-04-01T09:03:00+08:00",
        );
        record(&mut world, "one", finished(), "2026-04-01T23:59:00+08:00");
        let row = world.rows::<InspectionRow>().remove(0);
        let read = |item: &str, value: &str, pass, at: &str| Reading {
            item: item.into(),
            value: value.into(),
            unit: None,
            pass,
            at: moment(at),
        };
        let last = vec![
            read("oil", "1", false, "2026-04-01T09:03:00+08:00"),
            read("noise", "80", true, "2026-04-01T09:02:00+08:00"),
        ];
        assert_eq!(row.readings, last);
        assert_eq!(
            (row.status.as_str(), row.outcome.as_deref()),
            ("finished", Some("failed"))
        );
        assert_eq!((row.failed, row.on_time), (vec!["oil".to_owned()], Some(true)));
        assert_eq!(row.finished_at, Some(moment("2026-04-01T23:59:00+08:00")));
    }

    #[test]
    fn an_inspection_is_overdue_from_the_day_after_until_it_is_finished_or_void() {
        let mut world = World::new(&[&MODEL]);
        record(&mut world, "open", scheduled(), "2026-03-01T09:00:00+08:00");
        record(&mut world, "done", scheduled(), "2026-03-01T09:00:00+08:00");
        record(&mut world, "done", finished(), "2026-04-02T00:00:00+08:00");
        record(&mut world, "void", scheduled(), "2026-03-01T09:00:00+08:00");
        let voided = inspection::Event::Voided {
            equipment: machine(),
            due: DUE,
            checklist: "quarterly".into(),
            status_before: inspection::Status::Scheduled,
            reason: "wrong machine".into(),
        };
        record(&mut world, "void", voided, "2026-03-02T09:00:00+08:00");
        let ask = |filter: &str, now: &str| {
            let mut question = question(&[filter]);
            question.now = Some(moment(now));
            world.ask(&MODEL, question)
        };
        assert_eq!(ask("overdue=true", "2026-04-01T23:59:00+08:00").rows.len(), 0);
        let overdue = ask("overdue=true", "2026-04-02T00:00:00+08:00");
        assert_eq!(overdue.rows.len(), 1);
        assert_eq!(overdue.rows[0][0], Value::Uuid(id("open")));
        assert_eq!(
            (overdue.columns.last(), overdue.rows[0].last()),
            (Some(&"overdue"), Some(&Value::Bool(true)))
        );
        assert_eq!(ask("overdue=false", "2026-04-02T00:00:00+08:00").rows.len(), 2);
        assert_eq!(ask("on_time=false", "2026-04-02T00:00:00+08:00").rows.len(), 1);
    }

    #[test]
    fn overdue_is_true_or_false() {
        let world = World::new(&[&MODEL]);
        let refused = world.try_ask(&MODEL, question(&["overdue=soon"])).unwrap_err();
        assert_eq!(refused.to_string(), "\"soon\" does not fit the column \"overdue\"");
    }
}
