//! The job sheets: what is to be done at a customer, by whom and when, and what was done.

use domain::job::{self, Part};
use domain::{Fact, Personal, StreamKind, in_sequence};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Event, Group, List, ReadModel, Row, Rows, table, word};

table! {
    entity JobRow "jobs" {
        key job: Uuid,
        /// What another system calls it, such as `dispatch:4711`, if it was created under that key.
        set external_key: Option<String>,
        set customer: Uuid,
        set equipment: Option<Uuid>,
        /// What it came from: `case/<id>`, `inspection/<id>`.
        set origin: Option<String>,
        set summary: Personal<String>,
        set status: String,
        set technician: Option<String>,
        set planned_start: Option<Timestamp>,
        set planned_end: Option<Timestamp>,
        /// Why it is on hold, or was cancelled.
        set reason: Option<String>,
        set created_at: Timestamp,
        set dispatched_at: Option<Timestamp>,
        /// When work first began.
        set started_at: Option<Timestamp>,
        set completed_at: Option<Timestamp>,
        set resolution: Option<Personal<String>>,
        set parts: Vec<Part>,
        set labour_minutes: Option<i64>,
        set signed_off_at: Option<Timestamp>,
        set signed_off_by: Option<Personal<String>>,
        set closed_at: Option<Timestamp>,
        set changed_at: Timestamp,
    }
}

pub static MODEL: ReadModel = ReadModel {
    name: "jobs",
    about: "Every job with its appointment, technician, parts, labour and signature",
    group: Group::Service,
    version: 2,
    streams: &[StreamKind::Job],
    tables: &[JobRow::TABLE],
    project,
    plan: |question| {
        question.present_only()?;
        List::newest_first::<JobRow>("created_at").plan(question)
    },
};

fn project(event: &Event, rows: &mut Rows) {
    let Fact::Job(fact) = &event.fact else { return };
    let mut now = event.effective_at;
    if let job::Event::Created {
        customer,
        equipment,
        origin,
        summary,
    } = fact
    {
        rows.put(JobRow {
            job: event.stream.id,
            external_key: event.external_key.as_ref().map(ToString::to_string),
            customer: customer.uuid(),
            equipment: equipment.map(domain::Id::uuid),
            origin: origin.clone(),
            summary: summary.clone(),
            status: word(job::Status::New),
            technician: None,
            planned_start: None,
            planned_end: None,
            reason: None,
            created_at: now,
            dispatched_at: None,
            started_at: None,
            completed_at: None,
            resolution: None,
            parts: vec![],
            labour_minutes: None,
            signed_off_at: None,
            signed_off_by: None,
            closed_at: None,
            changed_at: now,
        });
        return;
    }
    rows.update(event.stream.id, |row: &mut JobRow| {
        now = in_sequence(row.changed_at, now);
        row.changed_at = now;
        let status = match fact {
            job::Event::Created { .. } => job::Status::New,
            job::Event::Scheduled {
                start, end, technician, ..
            } => {
                row.technician = Some(technician.clone());
                row.planned_start = Some(*start);
                row.planned_end = Some(*end);
                row.reason = None;
                job::Status::Scheduled
            }
            job::Event::Dispatched { technician, .. } => {
                row.technician = Some(technician.clone());
                row.dispatched_at = Some(now);
                job::Status::Dispatched
            }
            job::Event::Started { technician, .. } => {
                row.technician = Some(technician.clone());
                row.started_at = row.started_at.or(Some(now));
                row.reason = None;
                job::Status::InProgress
            }
            job::Event::Held { reason, .. } => {
                row.reason = Some(reason.clone());
                job::Status::OnHold
            }
            job::Event::Completed {
                technician,
                resolution,
                parts,
                labour_minutes,
                ..
            } => {
                row.technician = Some(technician.clone());
                row.resolution = Some(resolution.clone());
                row.parts = parts.clone();
                row.labour_minutes = Some((*labour_minutes).into());
                row.completed_at = Some(now);
                job::Status::Completed
            }
            job::Event::SignedOff { by, .. } => {
                row.signed_off_by = Some(by.clone());
                row.signed_off_at = Some(now);
                job::Status::SignedOff
            }
            job::Event::Closed { .. } => {
                row.closed_at = Some(now);
                job::Status::Closed
            }
            job::Event::Cancelled { reason, .. } => {
                row.reason = Some(reason.clone());
                job::Status::Cancelled
            }
        };
        row.status = word(status);
    });
}

#[cfg(test)]
mod specs {
    use domain::{Id, StreamRef};

    use super::*;
    use crate::spec::{World, id, moment, question};

    #[test]
    fn a_job_sheet_tells_the_work_from_the_call_to_the_signature() {
        let mut world = World::new(&[&MODEL]);
        let stream = StreamRef::of::<job::Job>(Id::new(id("job")));
        let technician = || "jun".to_owned();
        let (start, end) = (moment("2026-03-03T09:00:00+08:00"), moment("2026-03-03T11:00:00+08:00"));
        let facts = [
            job::Event::Created {
                customer: Id::new(id("a")),
                equipment: Some(Id::new(id("machine"))),
                origin: Some("case/1".into()),
                summary: "換軸承".into(),
            },
            job::Event::Scheduled {
                from: job::Status::New,
                equipment: None,
                start,
                end,
                technician: technician(),
                replaces: None,
            },
            job::Event::Started {
                from: job::Status::Scheduled,
                equipment: None,
                technician: technician(),
            },
            job::Event::Held {
                from: job::Status::InProgress,
                equipment: None,
                reason: "part missing".into(),
            },
            job::Event::Started {
                from: job::Status::OnHold,
                equipment: None,
                technician: technician(),
            },
            job::Event::Completed {
                from: job::Status::InProgress,
                equipment: None,
                technician: technician(),
                resolution: "已更換".into(),
                parts: vec![Part {
                    sku: "BRG-6204".into(),
                    quantity: 2,
                }],
                labour_minutes: 90,
            },
            job::Event::SignedOff {
                from: job::Status::Completed,
                equipment: None,
                by: "王小明".into(),
            },
        ];
        let minute = |n: i64| Timestamp::from_second(start.as_second() + 60 * n).unwrap();
        for (n, fact) in (0..).zip(facts) {
            world.record_at(stream, None, fact, minute(n), minute(n));
        }
        let expected = JobRow {
            job: id("job"),
            external_key: None,
            customer: id("a"),
            equipment: Some(id("machine")),
            origin: Some("case/1".into()),
            summary: "換軸承".into(),
            status: "signed-off".into(),
            technician: Some(technician()),
            planned_start: Some(start),
            planned_end: Some(end),
            reason: None,
            created_at: minute(0),
            dispatched_at: None,
            started_at: Some(minute(2)),
            completed_at: Some(minute(5)),
            resolution: Some("已更換".into()),
            parts: vec![Part {
                sku: "BRG-6204".into(),
                quantity: 2,
            }],
            labour_minutes: Some(90),
            signed_off_at: Some(minute(6)),
            signed_off_by: Some("王小明".into()),
            closed_at: None,
            changed_at: minute(6),
        };
        assert_eq!(world.rows::<JobRow>(), vec![expected]);
        assert_eq!(world.ask(&MODEL, question(&["technician=jun"])).rows.len(), 1);
    }
}
