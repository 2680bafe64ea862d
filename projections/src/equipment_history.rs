//! What happened to each machine: when, by whom, who owned it then and where it stood.

use domain::{Fact, Personal, StreamKind, equipment, inspection, job, slot_of};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::equipment::{self as equipment_row, EquipmentLife};
use crate::{Event, Group, List, ReadModel, Row, Rows, enter, table, word};

table! {
    entity EquipmentHistoryRow "equipment_history" {
        key equipment: Uuid,
        /// 1, 2, 3 … in the order of recording.
        key n: i64,
        /// When it was true in the world.
        set at: Timestamp,
        /// `installed`, `down`, `inspection-finished`, `job-completed` …
        set what: String,
        /// The symptom, the reason, the new site, the checklist …
        set detail: Option<Personal<String>>,
        /// Who did it.
        set actor: String,
        /// The stream it happened to: the machine's own, an inspection's or a job's.
        set source: String,
        /// Who owned the machine at that time, as far as is known by now. None before it was installed.
        set owner: Option<Uuid>,
        /// Where it stood at that time.
        set site: Option<Personal<String>>,
    }
}

table! {
    /// The rows of a machine in order of time, and which of them moved it to another owner or site.
    entity EquipmentLedger "equipment_ledgers" {
        key equipment: Uuid,
        set entries: Vec<(Timestamp, Entry)>,
    }
}

/// A row of the history, and what it changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub n: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Personal<String>>,
    /// Was it retired? Then it goes nowhere any more.
    #[serde(default)]
    pub is_end: bool,
}

pub static MODEL: ReadModel = ReadModel {
    name: "equipment_history",
    about: "What happened to a machine, its inspections and jobs, with the owner and site it had then: equipment=<id>",
    group: Group::Service,
    version: 2,
    streams: &[StreamKind::Equipment, StreamKind::Inspection, StreamKind::Job],
    tables: &[EquipmentHistoryRow::TABLE, EquipmentLedger::TABLE, EquipmentLife::TABLE],
    project,
    plan: |question| {
        question.present_only()?;
        List::newest_first::<EquipmentHistoryRow>("at").plan(question)
    },
};

/// What an event says about a machine.
struct Happening {
    equipment: Uuid,
    what: &'static str,
    detail: Option<Personal<String>>,
    owner: Option<Uuid>,
    site: Option<Personal<String>>,
}

fn project(event: &Event, rows: &mut Rows) {
    let mut at = event.effective_at;
    let happening = match &event.fact {
        Fact::Equipment(fact) => {
            let Some((_, since)) = equipment_row::advance(event, fact, rows) else {
                return;
            };
            at = since;
            Some(of_equipment(event.stream.id, fact))
        }
        Fact::Inspection(fact) => of_inspection(fact),
        Fact::Job(fact) => of_job(fact),
        _ => None,
    };
    let Some(happening) = happening else { return };
    let Happening {
        equipment,
        what,
        detail,
        owner,
        site,
    } = happening;
    // Inspections and jobs live with their equipment. One that was begun elsewhere by hand has no order with it.
    if slot_of(equipment) != slot_of(event.stream.id) {
        return;
    }
    let old = rows.get::<EquipmentLedger>(equipment).unwrap_or(EquipmentLedger {
        equipment,
        entries: vec![],
    });
    let mut new = old.clone();
    let n = old.entries.len() as i64 + 1;
    let is_end = matches!(event.fact, Fact::Equipment(equipment::Event::Retired { .. }));
    enter(&mut new.entries, at, Entry { n, owner, site, is_end });
    rows.put(EquipmentHistoryRow {
        equipment,
        n,
        at,
        what: what.to_owned(),
        detail,
        actor: event.actor.as_str().to_owned(),
        source: event.stream.to_string(),
        owner: None,
        site: None,
    });
    let mut known = whereabouts(&old.entries);
    known.resize(old.entries.len() + 1, (None, None));
    for ((n, place), known) in (1..).zip(whereabouts(&new.entries)).zip(known) {
        if place != known {
            rows.update((equipment, n), |row: &mut EquipmentHistoryRow| {
                (row.owner, row.site) = place
            });
        }
    }
    rows.put(new);
}

type Place = (Option<Uuid>, Option<Personal<String>>);

/// Owner and site at each row of the history, by its number.
fn whereabouts(entries: &[(Timestamp, Entry)]) -> Vec<Place> {
    let mut places = vec![(None, None); entries.len()];
    let mut now: Place = (None, None);
    let mut is_retired = false;
    for (_, entry) in entries {
        is_retired |= entry.is_end;
        if !is_retired {
            now.0 = entry.owner.or(now.0);
            now.1 = entry.site.clone().or(now.1);
        }
        places[entry.n as usize - 1] = now.clone();
    }
    places
}

fn of_equipment(equipment: Uuid, fact: &equipment::Event) -> Happening {
    let (mut owner, mut site) = (None, None);
    let (what, detail) = match fact {
        equipment::Event::Installed {
            customer,
            model,
            site: at,
            ..
        } => {
            owner = Some(customer.uuid());
            site = Some(at.clone());
            ("installed", Some(Personal::new(model.clone())))
        }
        equipment::Event::Moved { to, .. } => {
            site = Some(to.clone());
            ("moved", Some(to.clone()))
        }
        equipment::Event::OwnerTransferred { to, reason, .. } => {
            owner = Some(to.uuid());
            ("owner-transferred", Some(Personal::new(reason.clone())))
        }
        equipment::Event::Down { symptom, .. } => ("down", Some(Personal::new(symptom.clone()))),
        equipment::Event::Restored { .. } => ("restored", None),
        equipment::Event::Retired { .. } => ("retired", None),
        equipment::Event::InspectionsPlanned {
            checklist, every_days, ..
        } => (
            "inspections-planned",
            Some(Personal::new(format!("{checklist}, {every_days} d"))),
        ),
    };
    Happening {
        equipment,
        what,
        detail,
        owner,
        site,
    }
}

fn of_inspection(fact: &inspection::Event) -> Option<Happening> {
    let (equipment, what, detail) = match fact {
        inspection::Event::Scheduled {
            equipment,
            due,
            checklist,
            ..
        } => (equipment, "inspection-scheduled", format!("{checklist}, {due}")),
        inspection::Event::Started {
            equipment, checklist, ..
        } => (equipment, "inspection-started", checklist.clone()),
        // The read model of inspections has them; here they would bury everything else.
        inspection::Event::ReadingRecorded { .. } => return None,
        inspection::Event::Finished {
            equipment,
            checklist,
            outcome,
            failed,
            ..
        } => {
            let mut detail = format!("{checklist}, {}", word(outcome));
            if !failed.is_empty() {
                detail = format!("{detail}: {}", failed.join(", "));
            }
            (equipment, "inspection-finished", detail)
        }
        inspection::Event::Voided { equipment, reason, .. } => (equipment, "inspection-voided", reason.clone()),
    };
    Some(Happening {
        equipment: equipment.uuid(),
        what,
        detail: Some(Personal::new(detail)),
        owner: None,
        site: None,
    })
}

fn of_job(fact: &job::Event) -> Option<Happening> {
    let text = |text: &String| Some(Personal::new(text.clone()));
    let (equipment, what, detail) = match fact {
        job::Event::Created { equipment, summary, .. } => (equipment, "job-created", Some(summary.clone())),
        job::Event::Scheduled {
            equipment, technician, ..
        } => (equipment, "job-scheduled", text(technician)),
        job::Event::Dispatched {
            equipment, technician, ..
        } => (equipment, "job-dispatched", text(technician)),
        job::Event::Started {
            equipment, technician, ..
        } => (equipment, "job-started", text(technician)),
        job::Event::Held { equipment, reason, .. } => (equipment, "job-held", text(reason)),
        job::Event::Completed {
            equipment, resolution, ..
        } => (equipment, "job-completed", Some(resolution.clone())),
        job::Event::SignedOff { equipment, by, .. } => (equipment, "job-signed-off", Some(by.clone())),
        job::Event::Closed { equipment, .. } => (equipment, "job-closed", None),
        job::Event::Cancelled { equipment, reason, .. } => (equipment, "job-cancelled", text(reason)),
    };
    Some(Happening {
        equipment: (*equipment)?.uuid(),
        what,
        detail,
        owner: None,
        site: None,
    })
}

#[cfg(test)]
mod specs {
    use domain::{Id, StreamRef, derived_in};

    use super::*;
    use crate::Value;
    use crate::spec::{World, id, moment, question};

    fn machine() -> StreamRef {
        StreamRef::of::<equipment::Equipment>(Id::new(id("machine")))
    }

    fn installed() -> equipment::Event {
        equipment::Event::Installed {
            customer: Id::new(id("a")),
            maker: "永進機械".into(),
            serial: "MV-2024-0017".into(),
            model: "MV154A".into(),
            site: "台中".into(),
            warranty_until: None,
        }
    }

    fn sold() -> equipment::Event {
        equipment::Event::OwnerTransferred {
            from: Id::new(id("a")),
            to: Id::new(id("b")),
            reason: "二手轉售".into(),
        }
    }

    fn moved() -> equipment::Event {
        equipment::Event::Moved {
            from: "台中".into(),
            to: "彰化".into(),
        }
    }

    fn job_created(equipment: Option<Id<equipment::Equipment>>) -> job::Event {
        job::Event::Created {
            customer: Id::new(id("a")),
            equipment,
            origin: None,
            summary: "換軸承".into(),
        }
    }

    fn day(n: i64) -> Timestamp {
        Timestamp::from_second(moment("2026-03-01T00:00:00+08:00").as_second() + n * 86_400).unwrap()
    }

    /// Each row as what, owner and site, in the order of recording.
    fn told(world: &World) -> Vec<(String, Option<Uuid>, Option<Personal<String>>)> {
        let rows = world.rows::<EquipmentHistoryRow>();
        rows.into_iter().map(|row| (row.what, row.owner, row.site)).collect()
    }

    #[test]
    fn the_history_tells_what_happened_and_who_had_the_machine_then() {
        let mut world = World::new(&[&MODEL]);
        world.record_at(machine(), None, installed(), day(0), day(0));
        world.record_at(machine(), None, moved(), day(1), day(1));
        world.record_at(machine(), None, sold(), day(2), day(2));
        let slot = slot_of(machine().id);
        let job = StreamRef::of::<job::Job>(Id::new(derived_in(slot, &["job"])));
        let created = job_created(Some(Id::new(machine().id)));
        world.record_at(job, None, created, day(3), day(3));
        let place = |what: &str, owner: &str, site: &str| (what.to_owned(), Some(id(owner)), Some(site.into()));
        let expected = vec![
            place("installed", "a", "台中"),
            place("moved", "a", "彰化"),
            place("owner-transferred", "b", "彰化"),
            place("job-created", "b", "彰化"),
        ];
        assert_eq!(told(&world), expected);

        let filter = format!("equipment={}", machine().id);
        let answer = world.ask(&MODEL, question(&[&filter, "what!=moved"]));
        let latest = &answer.rows[0];
        assert_eq!(
            (latest[3].clone(), latest[5].clone()),
            (Value::Text("job-created".into()), Value::Text("user:mei".into()))
        );
        assert_eq!(answer.rows.len(), 3);
    }

    #[test]
    fn a_transfer_that_is_recorded_late_restates_who_owned_the_machine_meanwhile() {
        let mut world = World::new(&[&MODEL]);
        let down = equipment::Event::Down {
            symptom: "主軸異音".into(),
            at: day(5),
        };
        world.record_at(machine(), None, installed(), day(0), day(0));
        world.record_at(machine(), None, down, day(5), day(5));
        world.record_at(machine(), None, sold(), day(3), day(10));
        let owners: Vec<_> = told(&world).into_iter().map(|(what, owner, _)| (what, owner)).collect();
        let expected = [("installed", "a"), ("down", "b"), ("owner-transferred", "b")];
        assert_eq!(owners, expected.map(|(what, owner)| (what.to_owned(), Some(id(owner)))));
    }

    #[test]
    fn a_job_elsewhere_or_without_a_machine_is_not_in_its_history() {
        let mut world = World::new(&[&MODEL]);
        world.record_at(machine(), None, installed(), day(0), day(0));
        let elsewhere = StreamRef::of::<job::Job>(Id::new(id("elsewhere")));
        world.record_at(
            elsewhere,
            None,
            job_created(Some(Id::new(machine().id))),
            day(1),
            day(1),
        );
        let other = StreamRef::of::<job::Job>(Id::new(id("other")));
        world.record_at(other, None, job_created(None), day(1), day(1));
        assert_eq!(told(&world).len(), 1);
    }
}
