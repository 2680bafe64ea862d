//! How many cases were open at a time, by state, priority and age: as it was known then, and as it is known now.

use domain::StreamKind;
use domain::case::{Card, Priority, Status};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::case_intervals::{self, CaseHistory};
use crate::{
    BadQuestion, Column, ColumnType, Event, Expr, Group, Op, Page, Plan, Question, ReadModel, Row, Rows, Select, Value,
    restate, table, word,
};

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

pub static MODEL: ReadModel = ReadModel {
    name: "backlog",
    about: "Cases open at a time by state, priority and age in days, as known then (known_at) or now",
    group: Group::Service,
    version: 2,
    streams: &[StreamKind::Case],
    tables: &[CaseHistory::TABLE, BacklogChange::TABLE],
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
    let Some((case_id, advance)) = case_intervals::advance(event, rows) else {
        return;
    };
    let opened_at = advance.card().opened_at;
    for change in restate(&counted(&advance.old), &counted(&advance.new)) {
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
}

/// The case over time: how it counts from each step on, or that it does not.
fn counted(cards: &[(Timestamp, Card)]) -> Vec<(Timestamp, Option<Counted>)> {
    let count = |card: &Card| Counted {
        state: card.status,
        priority: card.priority,
    };
    let is_open = |card: &Card| !card.status.has_ended();
    let steps = cards.iter();
    steps
        .map(|(at, card)| (*at, is_open(card).then(|| count(card))))
        .collect()
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

    use domain::{AnyState, Calendar, Companions, Fact, Id, Moment, Stream, StreamRef, case, interaction::Channel};
    use proptest::prelude::*;

    use super::*;
    use crate::cases;
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

    /// Some cases' lives through the domain's own decisions: per entry which case, how many hours after the previous entry
    /// it was recorded, how many hours before that it was true, and what was wanted.
    fn lives() -> impl Strategy<Value = Vec<(usize, i64, i64, case::Command)>> {
        use case::Command;
        let priority = || proptest::sample::select(PRIORITIES.to_vec());
        let command = prop_oneof![
            3 => priority().prop_map(|priority| Command::Open {
                customer: Id::new(id("a")),
                subject: "主軸異音".into(),
                kind: case::Kind::Incident,
                priority,
                channel: Channel::Phone,
                about: vec![],
            }),
            2 => priority().prop_map(|priority| Command::Classify {
                category: "spindle".into(),
                priority: Some(priority),
                reason: Some("line is down".into()),
            }),
            1 => Just(Command::Assign { agent: Some("mei".into()), group: None }),
            2 => any::<bool>().prop_map(|public| Command::Reply { author: case::Author::Agent, public, text: None }),
            2 => Just(Command::SetPending { on: case::PendingOn::Customer }),
            1 => Just(Command::SetPending { on: case::PendingOn::ThirdParty }),
            2 => Just(Command::Resume),
            1 => Just(Command::Escalate { reason: "no answer".into() }),
            3 => Just(Command::Resolve { code: "repaired".into(), note: None }),
            2 => Just(Command::Reopen { reason: "noise is back".into() }),
            2 => Just(Command::Close),
        ];
        let late = prop_oneof![3 => Just(0_i64), 2 => 0_i64..40];
        proptest::collection::vec((0_usize..3, 0_i64..12, late, command), 1..40)
    }

    /// The cases at `t`, found again from their events by a fold of its own: those true by then, in their order.
    fn naive_card(events: &[&Event], t: Timestamp) -> Card {
        use domain::Card as _;
        let turns = |fact: &case::Event| {
            use case::Event::{Closed, Opened, Reopened, Resolved};
            matches!(fact, Opened { .. } | Resolved { .. } | Reopened { .. } | Closed { .. })
        };
        let mut timed: Vec<(Timestamp, &case::Event)> = Vec::new();
        for event in events {
            let Fact::Case(fact) = &event.fact else {
                panic!("an event of a case")
            };
            let cause = timed.iter().rfind(|(_, earlier)| match fact {
                case::Event::Resumed { .. } => matches!(earlier, case::Event::Pending { .. }),
                _ => turns(fact) && turns(earlier),
            });
            let at = cause
                .into_iter()
                .chain(timed.first())
                .fold(event.effective_at, |at, (cause, _)| at.max(*cause));
            timed.push((at, fact));
        }
        timed.retain(|(at, _)| *at <= t);
        timed.sort_by_key(|(at, _)| *at);
        timed
            .iter()
            .fold(Card::default(), |card, (at, fact)| card.after(fact, *at))
    }

    proptest! {
        /// State, row, intervals and backlog say what the events say, now and of any time.
        #[test]
        fn state_and_read_models_of_cases_never_disagree(
            lives in lives(), as_of in 0_i64..520, known_at in 0_i64..520,
        ) {
            struct Nobody;
            impl Companions for Nobody {
                fn find(&self, _: StreamRef) -> Option<&dyn std::any::Any> {
                    None
                }
            }
            const CASES: [&str; 3] = ["a", "b", "c"];
            let mut world = World::new(&[&cases::MODEL, &case_intervals::MODEL, &MODEL]);
            let mut states = vec![case::State::default(); 3];
            let calendar = Calendar::taipei();
            let mut today = 60;
            for (who, pause, late, command) in lives {
                today += pause;
                let (recorded_at, effective_at) = (hour(today), hour(today - late));
                let at = Moment::new(stream(CASES[who]).id, recorded_at, effective_at, &calendar, &Nobody);
                let Ok(events) = case::Case::decide(&states[who], command, &at) else { continue };
                for event in events {
                    states[who] = case::Case::evolve(states[who].clone(), &event, effective_at);
                    let customer = AnyState::Case(states[who].clone()).customer();
                    world.record_at(stream(CASES[who]), customer, event, effective_at, recorded_at);
                }
            }
            let mut naive: BTreeMap<(String, String, String), i64> = BTreeMap::new();
            for (name, state) in CASES.into_iter().zip(&states) {
                let events = || world.log().iter().filter(|event| event.stream == stream(name));
                let all: Vec<&Event> = events().collect();
                prop_assert_eq!(state.at(hour(as_of)).into_owned(), naive_card(&all, hour(as_of)));

                let now = naive_card(&all, hour(10_000));
                prop_assert_eq!(&**state, &now);
                let row = world.rows::<cases::CaseRow>().into_iter().find(|row| row.case == stream(name).id);
                let Some(row) = row else {
                    prop_assert_eq!(now.status, Status::NotOpened);
                    continue;
                };
                prop_assert_eq!((row.status, row.priority), (word(now.status), word(now.priority)));
                prop_assert_eq!((row.resolved_at, row.closed_at), (now.resolved_at, now.closed_at));
                prop_assert_eq!((row.first_response_at, row.agent), (now.first_response_at, now.agent));

                let intervals = world.rows::<case_intervals::CaseInterval>();
                let intervals: Vec<_> = intervals.into_iter().filter(|row| row.case == stream(name).id).collect();
                let then = naive_card(&all, hour(as_of)).status;
                let is_in = |row: &&case_intervals::CaseInterval| {
                    row.from_at <= hour(as_of) && row.to_at.is_none_or(|to_at| hour(as_of) < to_at)
                };
                let state_then = intervals.iter().find(is_in).map_or_else(|| word(Status::NotOpened), |row| row.state.clone());
                prop_assert_eq!(state_then, word(then));
                let full = now.resolved_at.map(|at| at.as_second() - now.opened_at.as_second());
                prop_assert_eq!(intervals[0].full_resolution_seconds, full);

                let known: Vec<&Event> = events().filter(|event| event.recorded_at <= hour(known_at)).collect();
                let then = naive_card(&known, hour(as_of));
                if then.status != Status::NotOpened && !then.status.has_ended() {
                    let days = (hour(as_of).as_second() - then.opened_at.as_second()) / 86_400;
                    let age = AGES.iter().rfind(|(_, from, _)| days >= *from).unwrap().0;
                    *naive.entry((word(then.status), word(then.priority), age.to_owned())).or_default() += 1;
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
