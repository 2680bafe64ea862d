//! The machines at customers' sites, one row each, with how often they fail and how long they are down.

use domain::{Fact, Personal, StreamKind, equipment, inspection, slot_of};
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Advance, BadQuestion, Column, ColumnType, Event, Group, List, Plan, Question, ReadModel, Row, Rows, Step, Value,
    days_between, table, word,
};

table! {
    entity EquipmentRow "equipment" {
        key equipment: Uuid,
        set maker: String,
        set serial: String,
        set model: String,
        set site: Personal<String>,
        set customer: Uuid,
        set status: String,
        set warranty_until: Option<Date>,
        /// The earliest due day of an inspection that is scheduled and not finished, or that a plan has next after the last one
        /// that was finished. It may be past: then it is overdue.
        set next_inspection_due: Option<Date>,
        set plans: Vec<InspectionPlan>,
        /// Due days of inspections that are scheduled and not finished.
        set open_dues: Vec<Date>,
        set failures: i64,
        /// Breakdowns that ended with a restore.
        set repairs: i64,
        /// How long those took.
        set down_seconds: i64,
        /// Since when it is down, or was when it was retired.
        set down_since: Option<Timestamp>,
        set symptom: Option<String>,
        set installed_at: Timestamp,
        set retired_at: Option<Timestamp>,
        set changed_at: Timestamp,
    }
}

table! {
    /// What the rows are made of, and when each event of the machine itself was true.
    entity EquipmentLife "equipment_lives" {
        key equipment: Uuid,
        set steps: Vec<Step<equipment::Event>>,
    }
}

/// What `event` does to its machine, and since when it is true. `None` = the machine's history is not loaded yet.
pub fn advance(
    event: &Event,
    fact: &equipment::Event,
    rows: &mut Rows,
) -> Option<(Advance<equipment::Card>, Timestamp)> {
    let equipment = event.stream.id;
    let mut steps = match fact {
        equipment::Event::Installed { .. } => vec![],
        _ => rows.get::<EquipmentLife>(equipment)?.steps,
    };
    let advance = Advance::of(event, fact, &mut steps);
    let at = steps.last().map_or(event.effective_at, |step| step.at);
    rows.put(EquipmentLife { equipment, steps });
    Some((advance, at))
}

/// Inspect by this checklist every so many days.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InspectionPlan {
    pub checklist: String,
    pub every_days: u32,
    pub first_due: Date,
    /// The latest due day whose inspection was finished.
    pub done: Option<Date>,
}

pub static MODEL: ReadModel = ReadModel {
    name: "equipment",
    about: "Every machine with its owner, site, status and next inspection, its mean time between failures and to repair",
    group: Group::Service,
    version: 2,
    streams: &[StreamKind::Equipment, StreamKind::Inspection],
    tables: &[EquipmentRow::TABLE, EquipmentLife::TABLE],
    project,
    plan,
};

fn project(event: &Event, rows: &mut Rows) {
    match &event.fact {
        Fact::Equipment(fact) => project_equipment(event, fact, rows),
        Fact::Inspection(fact) => project_inspection(event, fact, rows),
        _ => {}
    }
}

fn project_equipment(event: &Event, fact: &equipment::Event, rows: &mut Rows) {
    let Some((advance, at)) = advance(event, fact, rows) else {
        return;
    };
    if let equipment::Event::Installed {
        customer,
        maker,
        serial,
        model,
        site,
        warranty_until,
    } = fact
    {
        rows.put(EquipmentRow {
            equipment: event.stream.id,
            maker: maker.clone(),
            serial: serial.clone(),
            model: model.clone(),
            site: site.clone(),
            customer: customer.uuid(),
            status: word(equipment::Status::InService),
            warranty_until: *warranty_until,
            next_inspection_due: None,
            plans: vec![],
            open_dues: vec![],
            failures: 0,
            repairs: 0,
            down_seconds: 0,
            down_since: None,
            symptom: None,
            installed_at: at,
            retired_at: None,
            changed_at: at,
        });
        return;
    }
    rows.update(event.stream.id, |row: &mut EquipmentRow| {
        row.changed_at = row.changed_at.max(at);
        row.show(advance.card());
    });
}

fn project_inspection(event: &Event, fact: &inspection::Event, rows: &mut Rows) {
    let (inspection::Event::Scheduled { equipment, due, .. }
    | inspection::Event::Started { equipment, due, .. }
    | inspection::Event::Finished { equipment, due, .. }
    | inspection::Event::Voided { equipment, due, .. }) = fact
    else {
        return;
    };
    // An inspection lives with its equipment. One that was begun elsewhere by hand has no order with it, and is left out.
    if slot_of(equipment.uuid()) != slot_of(event.stream.id) {
        return;
    }
    rows.update(equipment.uuid(), |row: &mut EquipmentRow| {
        match fact {
            inspection::Event::Scheduled { .. } => row.open_dues.push(*due),
            inspection::Event::Started { .. } | inspection::Event::ReadingRecorded { .. } => {}
            inspection::Event::Finished { checklist, .. } => {
                row.no_longer_open(*due);
                if let Some(plan) = row.plan_of(checklist) {
                    plan.done = plan.done.max(Some(*due));
                }
            }
            inspection::Event::Voided {
                checklist,
                status_before,
                ..
            } => match status_before {
                inspection::Status::Finished => {
                    // It does not count after all: its day is due again.
                    if let Some(plan) = row.plan_of(checklist).filter(|plan| plan.done == Some(*due)) {
                        plan.done = due.yesterday().ok();
                    }
                }
                inspection::Status::Scheduled | inspection::Status::Started => row.no_longer_open(*due),
                inspection::Status::NotScheduled | inspection::Status::Voided => {}
            },
        }
        row.look_ahead();
    });
}

impl EquipmentRow {
    fn show(&mut self, card: &equipment::Card) {
        self.site = card.site.clone();
        self.customer = card.customer.map_or(self.customer, domain::Id::uuid);
        self.status = word(card.status);
        self.failures = card.failures.into();
        self.repairs = card.repairs.into();
        self.down_seconds = card.down_seconds;
        self.down_since = card.breakdown.as_ref().map(|breakdown| breakdown.since);
        self.symptom = card.breakdown.as_ref().map(|breakdown| breakdown.symptom.clone());
        self.retired_at = card.retired_at;
        self.plans.retain(|known| card.plans.contains_key(&known.checklist));
        for (checklist, plan) in &card.plans {
            let done = self.plan_of(checklist).and_then(|known| known.done);
            self.plans.retain(|known| known.checklist != *checklist);
            self.plans.push(InspectionPlan {
                checklist: checklist.clone(),
                every_days: plan.every_days,
                first_due: plan.first_due,
                done,
            });
        }
        self.look_ahead();
    }

    fn plan_of(&mut self, checklist: &str) -> Option<&mut InspectionPlan> {
        self.plans.iter_mut().find(|plan| plan.checklist == checklist)
    }

    fn no_longer_open(&mut self, due: Date) {
        if let Some(at) = self.open_dues.iter().position(|open| *open == due) {
            self.open_dues.remove(at);
        }
    }

    fn look_ahead(&mut self) {
        if self.retired_at.is_some() {
            self.next_inspection_due = None;
            return;
        }
        let planned = self.plans.iter().filter_map(InspectionPlan::next_due);
        self.next_inspection_due = self.open_dues.iter().copied().chain(planned).min();
    }
}

impl InspectionPlan {
    /// The first due day of the plan after the last one that was done; `None` when the calendar ends before.
    fn next_due(&self) -> Option<Date> {
        let Some(done) = self.done.filter(|done| *done >= self.first_due) else {
            return Some(self.first_due);
        };
        let every_days = i64::from(self.every_days.max(1));
        let periods = days_between(self.first_due, done) / every_days + 1;
        self.first_due.checked_add((periods * every_days).days()).ok()
    }
}

fn plan(question: &Question) -> Result<Plan, BadQuestion> {
    question.present_only()?;
    let now = question.now;
    let plan = List::of::<EquipmentRow>().plan(question)?;
    let figures = ["in_service_seconds", "mtbf_seconds", "mttr_seconds"];
    let figures = figures.map(|name| Column::shown(name, ColumnType::Int).or_null());
    let columns = plan.columns.iter().copied().chain(figures).collect();
    let plan = plan.then(move |rows| {
        for row in rows {
            let machine = EquipmentRow::from_values(row.clone());
            row.extend(reliability(&machine, now));
        }
    });
    Ok(plan.showing(columns))
}

/// The time it was in service; that per failure (MTBF); the time down per repair (MTTR).
fn reliability(machine: &EquipmentRow, now: Option<Timestamp>) -> [Value; 3] {
    let per = |seconds: i64, count: i64| {
        if count > 0 {
            Value::Int(seconds / count)
        } else {
            Value::Null
        }
    };
    let mttr = per(machine.down_seconds, machine.repairs);
    let Some(until) = machine.down_since.or(machine.retired_at).or(now) else {
        return [Value::Null, Value::Null, mttr];
    };
    let in_service = (until.as_second() - machine.installed_at.as_second() - machine.down_seconds).max(0);
    [Value::Int(in_service), per(in_service, machine.failures), mttr]
}

#[cfg(test)]
mod specs {
    use domain::{Id, StreamRef};
    use jiff::civil::date;

    use super::*;
    use crate::spec::{World, id, moment, question};

    fn machine() -> Id<equipment::Equipment> {
        Id::new(id("machine"))
    }

    fn installed() -> equipment::Event {
        equipment::Event::Installed {
            customer: Id::new(id("a")),
            maker: "永進機械".into(),
            serial: "MV-2024-0017".into(),
            model: "MV154A".into(),
            site: "台中市西屯區".into(),
            warranty_until: Some(date(2027, 12, 31)),
        }
    }

    fn planned() -> equipment::Event {
        equipment::Event::InspectionsPlanned {
            checklist: "quarterly".into(),
            every_days: 90,
            first_due: date(2026, 4, 1),
            replaces: None,
        }
    }

    fn record(world: &mut World, fact: equipment::Event, at: &str) {
        world.record(StreamRef::of(machine()), None, fact, at, at);
    }

    /// What happened to the inspection that was due on this day.
    fn inspect(world: &mut World, due: Date, fact: impl Fn(Id<equipment::Equipment>) -> inspection::Event) {
        let stream = StreamRef::of(inspection::inspection_id(machine(), "quarterly", due));
        world.record(
            stream,
            None,
            fact(machine()),
            "2026-04-01T09:00:00+08:00",
            "2026-04-01T09:00:00+08:00",
        );
    }

    fn scheduled(due: Date) -> impl Fn(Id<equipment::Equipment>) -> inspection::Event {
        move |equipment| inspection::Event::Scheduled {
            equipment,
            customer: None,
            due,
            checklist: "quarterly".into(),
        }
    }

    fn finished(due: Date) -> impl Fn(Id<equipment::Equipment>) -> inspection::Event {
        move |equipment| inspection::Event::Finished {
            equipment,
            due,
            checklist: "quarterly".into(),
            outcome: inspection::Outcome::Passed,
            failed: vec![],
            readings: 1,
        }
    }

    fn voided(due: Date, status_before: inspection::Status) -> impl Fn(Id<equipment::Equipment>) -> inspection::Event {
        move |equipment| inspection::Event::Voided {
            equipment,
            due,
            checklist: "quarterly".into(),
            status_before,
            reason: "wrong machine".into(),
        }
    }

    fn next_due(world: &World) -> Option<Date> {
        world.rows::<EquipmentRow>()[0].next_inspection_due
    }

    #[test]
    fn a_machine_shows_who_owns_it_where_it_stands_and_how_it_is() {
        let mut world = World::new(&[&MODEL]);
        record(&mut world, installed(), "2026-01-01T00:00:00+08:00");
        let moved = equipment::Event::Moved {
            from: "台中市西屯區".into(),
            to: "彰化市".into(),
        };
        record(&mut world, moved, "2026-01-02T00:00:00+08:00");
        let sold = equipment::Event::OwnerTransferred {
            from: Id::new(id("a")),
            to: Id::new(id("b")),
            reason: "sold".into(),
        };
        record(&mut world, sold, "2026-01-03T00:00:00+08:00");
        let row = world.rows::<EquipmentRow>().remove(0);
        assert_eq!((row.customer, row.site), (id("b"), "彰化市".into()));
        assert_eq!((row.status.as_str(), row.model.as_str()), ("in-service", "MV154A"));
        assert_eq!(row.changed_at, moment("2026-01-03T00:00:00+08:00"));
    }

    #[test]
    fn mean_times_between_failures_and_to_repair() {
        let mut world = World::new(&[&MODEL]);
        record(&mut world, installed(), "2026-01-01T00:00:00+08:00");
        for (down, up) in [
            ("2026-01-02T00:00:00+08:00", "2026-01-02T02:00:00+08:00"),
            ("2026-01-03T00:00:00+08:00", "2026-01-03T04:00:00+08:00"),
        ] {
            let broke = equipment::Event::Down {
                symptom: "主軸異音".into(),
                at: moment(down),
            };
            record(&mut world, broke, down);
            let down_since = moment(down);
            record(&mut world, equipment::Event::Restored { down_since }, up);
        }
        let mut question = question(&[]);
        question.now = Some(moment("2026-01-05T00:00:00+08:00"));
        let answer = world.ask(&MODEL, question);
        let hours = |column: &str| {
            let at = answer.columns.iter().position(|name| *name == column).unwrap();
            answer.rows[0][at].as_int() / 3_600
        };
        assert_eq!(
            (
                hours("in_service_seconds"),
                hours("mtbf_seconds"),
                hours("mttr_seconds")
            ),
            (4 * 24 - 6, (4 * 24 - 6) / 2, 3)
        );
    }

    #[test]
    fn the_next_inspection_is_the_first_of_the_plan_that_was_not_done() {
        let mut world = World::new(&[&MODEL]);
        record(&mut world, installed(), "2026-01-01T00:00:00+08:00");
        assert_eq!(next_due(&world), None);
        record(&mut world, planned(), "2026-01-01T00:00:00+08:00");
        assert_eq!(next_due(&world), Some(date(2026, 4, 1)));
        let due = date(2026, 4, 1);
        inspect(&mut world, due, scheduled(due));
        assert_eq!(next_due(&world), Some(due));
        inspect(&mut world, due, finished(due));
        assert_eq!(next_due(&world), Some(date(2026, 6, 30)));
        inspect(&mut world, due, voided(due, inspection::Status::Finished));
        assert_eq!(next_due(&world), Some(due));
    }

    #[test]
    fn an_inspection_out_of_plan_is_due_until_it_is_finished_or_void() {
        let mut world = World::new(&[&MODEL]);
        record(&mut world, installed(), "2026-01-01T00:00:00+08:00");
        record(&mut world, planned(), "2026-01-01T00:00:00+08:00");
        let due = date(2026, 3, 1);
        inspect(&mut world, due, scheduled(due));
        assert_eq!(next_due(&world), Some(due));
        inspect(&mut world, due, voided(due, inspection::Status::Scheduled));
        assert_eq!(next_due(&world), Some(date(2026, 4, 1)));
    }

    #[test]
    fn a_retired_machine_is_not_inspected_any_more() {
        let mut world = World::new(&[&MODEL]);
        record(&mut world, installed(), "2026-01-01T00:00:00+08:00");
        record(&mut world, planned(), "2026-01-01T00:00:00+08:00");
        let retired = equipment::Event::Retired {
            status_before: equipment::Status::InService,
        };
        record(&mut world, retired, "2026-02-01T00:00:00+08:00");
        assert_eq!(next_due(&world), None);
    }

    #[test]
    fn an_inspection_that_lives_elsewhere_does_not_touch_the_machine() {
        let mut world = World::new(&[&MODEL]);
        record(&mut world, installed(), "2026-01-01T00:00:00+08:00");
        let elsewhere = StreamRef::of::<inspection::Inspection>(Id::new(id("elsewhere")));
        let at = "2026-01-01T00:00:00+08:00";
        world.record(elsewhere, None, scheduled(date(2026, 3, 1))(machine()), at, at);
        assert_eq!(next_due(&world), None);
    }
}
