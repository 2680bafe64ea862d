//! State and read model never disagree: for random lives with late, skewed and same-instant entries.
//!
//! Deals have this property in `pipeline`, cases in `backlog`, customers in their own file.

use std::any::Any;

use domain::equipment::{self, Equipment};
use domain::inspection::{self, Inspection};
use domain::interaction::Channel;
use domain::job::{self, Job};
use domain::lead::{self, Lead};
use domain::{Calendar, Card, Companions, Fact, Id, Moment, Stream, StreamRef};
use jiff::civil::date;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

use crate::equipment::EquipmentRow;
use crate::equipment_history::{self, EquipmentHistoryRow};
use crate::inspections::{self, InspectionRow};
use crate::jobs::{self, JobRow};
use crate::leads::{self, LeadRow};
use crate::spec::{World, id, moment};
use crate::{ReadModel, word};

/// A wish: how many hours after the one before it was recorded, how many hours before that it was true, and what it was.
type Wish<C> = (i64, i64, C);

fn wishes<C: std::fmt::Debug + Clone>(command: impl Strategy<Value = C>) -> impl Strategy<Value = Vec<Wish<C>>> {
    let late = prop_oneof![3 => Just(0_i64), 2 => 0_i64..30];
    proptest::collection::vec((0_i64..8, late, command), 1..40)
}

fn hour(n: i64) -> Timestamp {
    moment("2026-03-02T09:00:00+08:00") + SignedDuration::from_hours(n)
}

/// What came of the wishes: the world, the state, and each event with the time that it was said to be true since.
struct Life<S: Stream> {
    world: World,
    state: S::State,
    events: Vec<(Timestamp, S::Event)>,
}

fn live<S: Stream>(models: &[&'static ReadModel], stream: StreamRef, wishes: Vec<Wish<S::Command>>) -> Life<S>
where
    S::Event: Into<Fact>,
{
    struct Elsewhere;
    impl Companions for Elsewhere {
        fn find(&self, _: StreamRef) -> Option<&dyn Any> {
            None
        }
    }
    let mut life = Life {
        world: World::new(models),
        state: S::State::default(),
        events: vec![],
    };
    let calendar = Calendar::taipei();
    let mut now = 40;
    for (pause, late, command) in wishes {
        now += pause;
        let (recorded_at, effective_at) = (hour(now), hour(now - late));
        let at = Moment::new(stream.id, recorded_at, effective_at, &calendar, &Elsewhere);
        let Ok(events) = S::decide(&life.state, command, &at) else {
            continue;
        };
        for event in events {
            life.state = S::evolve(life.state, &event, effective_at);
            life.events.push((effective_at, event.clone()));
            let customer = S::customer(&life.state);
            life.world.record_at(stream, customer, event, effective_at, recorded_at);
        }
    }
    life
}

/// The card at `t` by a fold of its own: those events that are true by then, in their order, none before the beginning, and
/// none that turns before the last one that did.
fn naive<C: Card>(events: &[(Timestamp, C::Event)], turns: fn(&C::Event) -> bool, t: Timestamp) -> C {
    let mut timed: Vec<(Timestamp, &C::Event)> = Vec::new();
    for (effective_at, event) in events {
        let turned = timed.iter().rfind(|(_, earlier)| turns(event) && turns(earlier));
        let causes = timed.first().into_iter().chain(turned);
        let at = causes.fold(*effective_at, |at, (cause, _)| at.max(*cause));
        timed.push((at, event));
    }
    timed.retain(|(at, _)| *at <= t);
    timed.sort_by_key(|(at, _)| *at);
    timed
        .iter()
        .fold(C::default(), |card, (at, event)| card.after(event, *at))
}

fn of<S: Stream>(id: Uuid) -> StreamRef {
    StreamRef::of::<S>(Id::new(id))
}

fn leads() -> impl Strategy<Value = lead::Command> {
    use lead::Command;
    prop_oneof![
        3 => Just(Command::Capture {
            source: "fair".into(),
            name: "王小明".into(),
            company: None,
            contact_points: vec![],
            campaign: None,
        }),
        2 => "[ab]".prop_map(|owner| Command::Assign { owner }),
        2 => Just(Command::LogAttempt { channel: Channel::Phone, outcome: "no answer".into() }),
        1 => Just(Command::Qualify),
        1 => Just(Command::Convert { customer: Id::new(id("a")), opportunity: None }),
        1 => Just(Command::Disqualify { reason: "no budget".into() }),
        2 => Just(Command::Recycle),
    ]
}

fn machines() -> impl Strategy<Value = equipment::Command> {
    use equipment::Command;
    prop_oneof![
        3 => Just(Command::Install {
            customer: Id::new(id("a")),
            maker: "永進機械".into(),
            serial: "1".into(),
            model: "MV154A".into(),
            site: "台中".into(),
            warranty_until: None,
        }),
        3 => "[ab]".prop_map(|site| Command::Move { site: site.into() }),
        2 => "[bc]".prop_map(|to| Command::TransferOwner { to: Id::new(id(&to)), reason: "sold".into() }),
        2 => Just(Command::ReportDown { symptom: "noise".into() }),
        2 => Just(Command::Restore),
        1 => (1_u32..9).prop_map(|every_days| Command::PlanInspections {
            checklist: "quarterly".into(),
            every_days,
            first_due: date(2026, 4, 1),
        }),
        1 => Just(Command::Retire),
    ]
}

fn jobs_wanted() -> impl Strategy<Value = job::Command> {
    use job::Command;
    prop_oneof![
        3 => Just(Command::Create {
            customer: Id::new(id("a")),
            equipment: None,
            origin: None,
            summary: "換軸承".into(),
        }),
        3 => "[ab]".prop_map(|technician| Command::Schedule { start: hour(1), end: hour(2), technician }),
        1 => Just(Command::Dispatch),
        3 => Just(Command::Start),
        1 => "[ab]".prop_map(|reason| Command::Hold { reason }),
        2 => Just(Command::Complete { resolution: "done".into(), parts: vec![], labour_minutes: 5 }),
        2 => Just(Command::SignOff { by: "林".into() }),
        1 => Just(Command::Close),
        1 => "[ab]".prop_map(|reason| Command::Cancel { reason }),
    ]
}

fn inspections_wanted() -> impl Strategy<Value = inspection::Command> {
    use inspection::Command;
    prop_oneof![
        3 => Just(Command::Schedule {
            equipment: Id::new(id("machine")),
            due: date(2026, 3, 4),
            checklist: "quarterly".into(),
        }),
        2 => Just(Command::Start),
        4 => ("[ab]", "[12]", any::<bool>()).prop_map(|(item, value, pass)| Command::RecordReading {
            item,
            value,
            unit: None,
            pass,
        }),
        1 => Just(Command::Finish),
        1 => "[ab]".prop_map(|reason| Command::Void { reason }),
    ]
}

proptest! {
    #[test]
    fn state_and_row_of_a_lead_never_disagree(wishes in wishes(leads()), t in 0_i64..300) {
        use lead::Event::{Captured, Converted, Disqualified, Recycled};
        let turns = |event: &lead::Event| {
            matches!(event, Captured { .. } | Converted { .. } | Disqualified { .. } | Recycled { .. })
        };
        let life = live::<Lead>(&[&leads::MODEL], of::<Lead>(id("lead")), wishes);
        prop_assert_eq!(life.state.at(hour(t)).into_owned(), naive::<lead::Card>(&life.events, turns, hour(t)));
        prop_assert_eq!(&*life.state, &naive::<lead::Card>(&life.events, turns, hour(10_000)));
        let state = life.state;
        for row in life.world.rows::<LeadRow>() {
            prop_assert_eq!((row.status, row.owner), (word(state.status), state.owner.clone()));
            prop_assert_eq!((row.attempts, row.first_outbound_attempt_at), (state.attempts.into(), state.first_attempt_at));
            prop_assert_eq!((row.customer, row.converted_at), (state.customer.map(Id::uuid), state.converted_at));
            prop_assert_eq!((row.captured_at, row.disqualified_reason), (state.captured_at, state.disqualified_reason.clone()));
        }
    }

    #[test]
    fn state_row_and_history_of_a_machine_never_disagree(wishes in wishes(machines()), t in 0_i64..300) {
        use equipment::Event::{Down, Installed, Restored, Retired};
        let turns = |event: &equipment::Event| {
            matches!(event, Installed { .. } | Down { .. } | Restored { .. } | Retired { .. })
        };
        let models: [&'static ReadModel; 2] = [&crate::equipment::MODEL, &equipment_history::MODEL];
        let life = live::<Equipment>(&models, of::<Equipment>(id("machine")), wishes);
        let then = naive::<equipment::Card>(&life.events, turns, hour(t));
        prop_assert_eq!(life.state.at(hour(t)).into_owned(), then.clone());
        let state = life.state;
        for row in life.world.rows::<EquipmentRow>() {
            prop_assert_eq!((row.status, &row.site), (word(state.status), &state.site));
            prop_assert_eq!(Some(row.customer), state.customer.map(Id::uuid));
            prop_assert_eq!((row.failures, row.repairs), (state.failures.into(), state.repairs.into()));
            prop_assert_eq!(row.down_seconds, state.down_seconds);
            prop_assert_eq!(row.down_since, state.breakdown.as_ref().map(|breakdown| breakdown.since));
            prop_assert_eq!((row.retired_at, row.installed_at), (state.retired_at, state.installed_at));
            prop_assert_eq!(row.plans.len(), state.plans.len());
        }
        let mut history = life.world.rows::<EquipmentHistoryRow>();
        history.retain(|row| row.at <= hour(t));
        if let Some(row) = history.into_iter().max_by_key(|row| (row.at, row.n)) {
            prop_assert_eq!((row.owner, row.site), (then.customer.map(Id::uuid), Some(then.site)));
        }
    }

    #[test]
    fn state_and_row_of_a_job_never_disagree_and_no_step_is_before_the_last(wishes in wishes(jobs_wanted())) {
        let life = live::<Job>(&[&jobs::MODEL], of::<Job>(id("job")), wishes);
        let state = life.state;
        for row in life.world.rows::<JobRow>() {
            prop_assert_eq!((row.status, row.changed_at), (word(state.status), state.changed_at));
            prop_assert_eq!(row.planned_start, state.appointment.as_ref().map(|appointment| appointment.start));
            prop_assert_eq!(row.labour_minutes, state.work.as_ref().map(|work| work.labour_minutes.into()));
            prop_assert_eq!(row.reason, state.cancel_reason.clone().or(state.hold_reason.clone()));
            let steps = [row.started_at, row.completed_at, row.signed_off_at, row.closed_at];
            prop_assert!([Some(row.created_at)].into_iter().chain(steps).flatten().is_sorted());
        }
    }

    #[test]
    fn state_and_row_of_an_inspection_never_disagree(wishes in wishes(inspections_wanted())) {
        let life = live::<Inspection>(&[&inspections::MODEL], of::<Inspection>(id("inspection")), wishes);
        let state = life.state;
        for row in life.world.rows::<InspectionRow>() {
            prop_assert_eq!((row.status, row.changed_at), (word(state.status), state.changed_at));
            prop_assert_eq!(row.void_reason, state.void_reason.clone());
            let mut readings: Vec<_> = row.readings.into_iter().map(|reading| (reading.item, reading.value, reading.pass)).collect();
            readings.sort();
            let known = state.readings.iter().map(|(item, readings)| {
                let last = &readings.latest().expect("an item that was read").said;
                (item.clone(), last.value.clone(), last.pass)
            });
            prop_assert_eq!(readings, known.collect::<Vec<_>>());
            prop_assert!([Some(row.scheduled_at), row.started_at, row.finished_at].into_iter().flatten().is_sorted());
        }
    }
}
