//! How many cases were open at a time, by state, priority and age: as it was known then, and as it is known now.

use domain::case::{Priority, Status};
use domain::{Fact, StreamKind, case};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    BadQuestion, Column, ColumnType, Event, Expr, Group, Op, Page, Plan, Question, ReadModel, Row, Rows, Select, Value,
    enter, restate, table, word,
};

table! {
    /// What the deltas are made of: how the case has stood, in order of time.
    entity BacklogCase "backlog_cases" {
        key case_id: Uuid,
        set steps: Vec<(Timestamp, Step)>,
    }
}

table! {
    /// From `effective_at` on, so many cases more or less.
    journal BacklogChange "backlog_changes" {
        set effective_at: Timestamp,
        meta recorded_at: Timestamp,
        set case_id: Uuid,
        set opened_at: Timestamp,
        set state: String,
        set priority: String,
        /// Signed.
        set cases: i64,
    }
}

/// What changed of a case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    Status(Status),
    Priority(Priority),
}

pub static MODEL: ReadModel = ReadModel {
    name: "backlog",
    about: "Cases open at a time by state, priority and age in days, as known then (known_at) or now",
    group: Group::Service,
    version: 1,
    streams: &[StreamKind::Case],
    tables: &[BacklogCase::TABLE, BacklogChange::TABLE],
    project,
    plan,
};

/// How an open case is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counted {
    state: Status,
    priority: Priority,
}

fn project(event: &Event, rows: &mut Rows) {
    let Fact::Case(fact) = &event.fact else { return };
    let case_id = event.stream.id;
    let mut new_steps: Vec<Step> = Vec::new();
    new_steps.extend(fact.transition().map(|(_, to)| Step::Status(to)));
    new_steps.extend(new_priority(fact).map(Step::Priority));
    if new_steps.is_empty() {
        return;
    }
    let old = match fact {
        case::Event::Opened { .. } => vec![],
        _ => match rows.get::<BacklogCase>(case_id) {
            Some(case) => case.steps,
            None => return,
        },
    };
    // Nothing happens to a case before it is opened.
    let opened_at = old.first().map_or(event.effective_at, |(at, _)| *at);
    let mut new = old.clone();
    for step in new_steps {
        enter(&mut new, event.effective_at.max(opened_at), step);
    }
    for change in restate(&counted(&old), &counted(&new)) {
        rows.append(BacklogChange {
            effective_at: change.at,
            recorded_at: event.recorded_at,
            case_id,
            opened_at,
            state: word(change.value.state),
            priority: word(change.value.priority),
            cases: change.sign,
        });
    }
    rows.put(BacklogCase { case_id, steps: new });
}

fn new_priority(fact: &case::Event) -> Option<Priority> {
    match fact {
        case::Event::Opened { priority, .. } => Some(*priority),
        case::Event::Classified {
            from_priority,
            priority,
            ..
        } => (from_priority != priority).then_some(*priority),
        case::Event::Assigned { .. }
        | case::Event::Replied { .. }
        | case::Event::Pending { .. }
        | case::Event::Resumed { .. }
        | case::Event::Escalated { .. }
        | case::Event::Resolved { .. }
        | case::Event::Reopened { .. }
        | case::Event::Closed { .. } => None,
    }
}

/// The case over time: how it counts from each step on, or that it does not.
fn counted(steps: &[(Timestamp, Step)]) -> Vec<(Timestamp, Option<Counted>)> {
    let mut now = Counted {
        state: Status::NotOpened,
        priority: Priority::default(),
    };
    let mut counted = Vec::with_capacity(steps.len());
    for (at, step) in steps {
        match step {
            Step::Status(status) => now.state = *status,
            Step::Priority(priority) => now.priority = *priority,
        }
        counted.push((*at, is_open(now.state).then_some(now)));
    }
    counted
}

fn is_open(status: Status) -> bool {
    match status {
        Status::New | Status::Open | Status::PendingCustomer | Status::PendingThird => true,
        Status::NotOpened | Status::Resolved | Status::Closed => false,
    }
}

const COLUMNS: &[Column] = &[
    Column::shown("state", ColumnType::Text),
    Column::shown("priority", ColumnType::Text),
    Column::shown("age_days", ColumnType::Text),
    Column::shown("cases", ColumnType::Int),
];

/// Days since the opening: at least the first, less than the second.
const AGES: [(&str, i64, Option<i64>); 5] = [
    ("0-1", 0, Some(1)),
    ("1-3", 1, Some(3)),
    ("3-7", 3, Some(7)),
    ("7-30", 7, Some(30)),
    ("30+", 30, None),
];

const STATES: [Status; 4] = [Status::New, Status::Open, Status::PendingCustomer, Status::PendingThird];
const PRIORITIES: [Priority; 4] = [Priority::Urgent, Priority::High, Priority::Normal, Priority::Low];

fn plan(question: &Question) -> Result<Plan, BadQuestion> {
    let page = Page::of(question, COLUMNS)?;
    let time = question.time();
    let days_ago = |days: i64| {
        let day_count = SignedDuration::from_hours(24 * days);
        Value::Time(time.checked_sub(day_count).unwrap_or(Timestamp::MIN))
    };
    // A select for each age, so that the store sums and hands out a few rows, however many cases there were.
    let mut selects = Vec::new();
    for (_, from_days, to_days) in AGES {
        let sums = [Expr::Column("state"), Expr::Column("priority"), Expr::Sum("cases")];
        let mut select = Select::of(BacklogChange::TABLE, sums);
        if from_days > 0 {
            select = select.filter("opened_at", Op::Le, days_ago(from_days));
        }
        if let Some(to_days) = to_days {
            select = select.filter("opened_at", Op::Gt, days_ago(to_days));
        }
        select = page.narrow(select, &["state", "priority"]);
        selects.push(question.dated(select, "effective_at"));
    }
    Ok(page.plan(selects, move |results| {
        let mut rows = Vec::new();
        for ((age, _, _), sums) in AGES.iter().zip(results) {
            for sum in sums.into_iter().filter(|sum| sum[2].as_int() != 0) {
                let [state, priority, cases] = <[Value; 3]>::try_from(sum).expect("three columns were selected");
                rows.push(vec![state, priority, Value::Text((*age).to_owned()), cases]);
            }
        }
        // Stable, so that the ages of one state and priority stay in order.
        rows.sort_by_key(|row| {
            let state = STATES.iter().position(|state| word(state) == row[0].as_text());
            let priority = PRIORITIES
                .iter()
                .position(|priority| word(priority) == row[1].as_text());
            (state, priority)
        });
        rows
    }))
}

#[cfg(test)]
mod specs {
    use std::collections::BTreeMap;

    use domain::{Id, StreamRef, interaction::Channel};
    use proptest::prelude::*;

    use super::*;
    use crate::spec::{World, id, moment, question};

    fn hour(n: i64) -> Timestamp {
        Timestamp::from_second(moment("2026-03-02T09:00:00+08:00").as_second() + n * 3_600).unwrap()
    }

    fn opened(priority: Priority) -> case::Event {
        case::Event::Opened {
            customer: Id::new(id("a")),
            subject: "主軸異音".into(),
            kind: case::Kind::Incident,
            priority,
            channel: Channel::Phone,
            about: vec![],
        }
    }

    fn became(status: Status, at: i64) -> case::Event {
        let from = Status::Open;
        match status {
            Status::PendingCustomer => case::Event::Pending {
                on: case::PendingOn::Customer,
                from,
            },
            Status::PendingThird => case::Event::Pending {
                on: case::PendingOn::ThirdParty,
                from,
            },
            Status::Resolved => case::Event::Resolved {
                code: "repaired".into(),
                note: None,
                agent: None,
                group: None,
                from,
                at: hour(at),
            },
            Status::Closed => case::Event::Closed {
                code: "repaired".into(),
                from,
                at: hour(at),
            },
            Status::NotOpened | Status::New | Status::Open => case::Event::Resumed { from },
        }
    }

    fn prioritised(priority: Priority) -> case::Event {
        case::Event::Classified {
            from_category: None,
            category: "spindle".into(),
            from_priority: Priority::default(),
            priority,
            reason: Some("line is down".into()),
        }
    }

    fn stream(name: &str) -> StreamRef {
        StreamRef::of::<case::Case>(Id::new(id(name)))
    }

    fn record(world: &mut World, case: &str, fact: case::Event, effective: i64, recorded: i64) {
        world.record_at(stream(case), None, fact, hour(effective), hour(recorded));
    }

    fn ask(world: &World, as_of: i64, known_at: Option<i64>) -> Vec<(String, String, String, i64)> {
        let mut question = question(&[]);
        question.as_of = Some(hour(as_of));
        question.known_until = known_at.map(|known_at| world.known_at(hour(known_at)));
        question.limit = Some(1_000);
        let rows = world.ask(&MODEL, question).rows;
        rows.iter()
            .map(|row| {
                let text = |n: usize| row[n].as_text().to_owned();
                (text(0), text(1), text(2), row[3].as_int())
            })
            .collect()
    }

    fn row(state: &str, priority: &str, age: &str, cases: i64) -> (String, String, String, i64) {
        (state.into(), priority.into(), age.into(), cases)
    }

    #[test]
    fn open_cases_are_counted_by_state_priority_and_age() {
        let mut world = World::new(&[&MODEL]);
        record(&mut world, "a", opened(Priority::High), 0, 0);
        record(&mut world, "b", opened(Priority::High), 1, 1);
        record(&mut world, "c", opened(Priority::Low), 50, 50);
        record(&mut world, "c", became(Status::PendingCustomer, 51), 51, 51);
        record(&mut world, "a", became(Status::Resolved, 60), 60, 60);
        let expected = vec![row("new", "high", "1-3", 2), row("pending-customer", "low", "0-1", 1)];
        assert_eq!(ask(&world, 55, None), expected);
        assert_eq!(
            ask(&world, 24 * 40, None),
            vec![row("new", "high", "30+", 1), row("pending-customer", "low", "30+", 1)]
        );
    }

    #[test]
    fn a_day_old_is_no_longer_less_than_a_day_old() {
        let mut world = World::new(&[&MODEL]);
        record(&mut world, "a", opened(Priority::High), 0, 0);
        assert_eq!(ask(&world, 23, None), vec![row("new", "high", "0-1", 1)]);
        assert_eq!(ask(&world, 24, None), vec![row("new", "high", "1-3", 1)]);
    }

    #[test]
    fn a_late_entry_restates_the_past_and_leaves_what_was_reported() {
        let mut world = World::new(&[&MODEL]);
        record(&mut world, "a", opened(Priority::High), 0, 0);
        record(&mut world, "a", became(Status::Resolved, 2), 2, 10);
        assert_eq!(ask(&world, 5, Some(9)), vec![row("new", "high", "0-1", 1)]);
        assert_eq!(ask(&world, 5, None), vec![]);
    }

    #[test]
    fn a_question_may_ask_for_some_of_them() {
        let mut world = World::new(&[&MODEL]);
        record(&mut world, "a", opened(Priority::High), 0, 0);
        record(&mut world, "b", opened(Priority::Low), 0, 0);
        let count = |filter: &str| {
            let mut question = question(&[filter]);
            question.now = Some(hour(100));
            world.ask(&MODEL, question).rows.len()
        };
        assert_eq!(
            (count("priority=low"), count("age_days=3-7"), count("age_days=30+")),
            (1, 2, 0)
        );
    }

    /// Entries about a few cases: which one, what, how many hours late.
    fn entries() -> impl Strategy<Value = Vec<(usize, u8, i64)>> {
        proptest::collection::vec((0_usize..4, 0_u8..10, 0_i64..200), 1..40)
    }

    fn fact(which: u8, at: i64) -> case::Event {
        match which {
            0 => became(Status::PendingCustomer, at),
            1 => became(Status::PendingThird, at),
            2 => became(Status::Open, at),
            3 | 4 => became(Status::Resolved, at),
            5 => became(Status::Closed, at),
            6 => prioritised(Priority::Urgent),
            7 => prioritised(Priority::Low),
            _ => prioritised(Priority::High),
        }
    }

    proptest! {
        #[test]
        fn the_backlog_of_any_time_known_at_any_time_equals_a_naive_count(
            entries in entries(), as_of in 0_i64..420, known_at in 0_i64..420,
        ) {
            const CASES: [&str; 4] = ["a", "b", "c", "d"];
            let mut world = World::new(&[&MODEL]);
            // What is known of each case by then, as (effective, what), in the order of recording.
            let mut known: BTreeMap<&str, Vec<(i64, case::Event)>> = BTreeMap::new();
            let openings = CASES.iter().zip([0, 1, 30, 70]);
            let mut log: Vec<(&str, case::Event, i64, i64)> =
                openings.map(|(case, at)| (*case, opened(Priority::Normal), at, at)).collect();
            for (n, (case, which, late)) in entries.into_iter().enumerate() {
                let recorded = 80 + n as i64 * 8;
                let effective = recorded - late;
                log.push((CASES[case], fact(which, effective), effective, recorded));
            }
            for (case, fact, effective, recorded) in log {
                record(&mut world, case, fact.clone(), effective, recorded);
                if recorded <= known_at {
                    known.entry(case).or_default().push((effective, fact));
                }
            }
            let mut naive: BTreeMap<(String, String, String), i64> = BTreeMap::new();
            for events in known.values() {
                let opened_at = events[0].0;
                let mut events: Vec<_> = events.iter().map(|(at, fact)| ((*at).max(opened_at), fact)).collect();
                events.sort_by_key(|(at, _)| *at);
                let (mut state, mut priority) = (Status::NotOpened, Priority::Normal);
                for (_, fact) in events.iter().filter(|(at, _)| *at <= as_of) {
                    state = fact.transition().map_or(state, |(_, to)| to);
                    priority = new_priority(fact).unwrap_or(priority);
                }
                if is_open(state) {
                    let days = (as_of - opened_at) / 24;
                    let age = AGES.iter().rfind(|(_, from, _)| days >= *from).unwrap().0;
                    *naive.entry((word(state), word(priority), age.to_owned())).or_default() += 1;
                }
            }
            let mut answer: Vec<_> = ask(&world, as_of, Some(known_at))
                .into_iter()
                .map(|(state, priority, age, cases)| ((state, priority, age), cases))
                .collect();
            answer.sort();
            prop_assert_eq!(answer, naive.into_iter().collect::<Vec<_>>());
        }
    }
}
