//! How long each case was in which state, and how long its customer waited for an answer and for a solution.
//!
//! Calendar time, in effective order: a late entry stands where it belongs in time, and the case's intervals are made anew.

use domain::case::{Card, Status};
use domain::{Fact, StreamKind, case};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Advance, Event, Group, List, ReadModel, Row, Rows, Step, Value, table, word};

table! {
    /// A case's intervals follow each other without gaps from its opening on. The last one has no end.
    ///
    /// The measures are those of the whole case and stand on each of its rows: `n=1` gives every case once.
    entity CaseInterval "case_intervals" {
        key case: Uuid,
        /// 1, 2, 3 … in order of time.
        key n: i64,
        set state: String,
        set from_at: Timestamp,
        set to_at: Option<Timestamp>,
        /// Of the last interval none; the answer counts it up to now, unless the case is closed.
        set seconds: Option<i64>,
        set opened_at: Timestamp,
        /// Opened until the first public reply by a person. If the case was resolved and reopened before anybody replied, from
        /// the last such reopening on: a bot's answer that did not help starts the clock anew.
        set first_response_seconds: Option<i64>,
        /// Opened until it was first resolved.
        set first_resolution_seconds: Option<i64>,
        /// Opened until it was last resolved; none while it is not.
        set full_resolution_seconds: Option<i64>,
        /// Waiting for the customer, in intervals that have ended.
        set pending_customer_seconds: i64,
        /// Waiting for somebody else, in intervals that have ended.
        set pending_third_seconds: i64,
    }
}

table! {
    /// What the read models of cases are made of: the events that change something, in the order they were recorded.
    entity CaseHistory "case_histories" {
        key case: Uuid,
        set steps: Vec<Step<case::Event>>,
    }
}

/// What `event` does to its case. `None` = it is not an event of a case, or the case's history is not loaded yet.
pub fn advance(event: &Event, rows: &mut Rows) -> Option<(Uuid, Advance<Card>)> {
    let Fact::Case(fact) = &event.fact else { return None };
    let case = event.stream.id;
    let mut steps = match fact {
        case::Event::Opened { .. } => vec![],
        _ => rows.get::<CaseHistory>(case)?.steps,
    };
    let advance = Advance::of(event, fact, &mut steps);
    rows.put(CaseHistory { case, steps });
    Some((case, advance))
}

pub static MODEL: ReadModel = ReadModel {
    name: "case_intervals",
    about: "The time each case spent in each state, with its first response and resolution times; n=1 gives each case once",
    group: Group::Service,
    version: 2,
    streams: &[StreamKind::Case],
    tables: &[CaseInterval::TABLE, CaseHistory::TABLE],
    project,
    plan: |question| {
        question.present_only()?;
        let now = question.now;
        let plan = List::of::<CaseInterval>().plan(question)?;
        Ok(plan.then(move |rows| {
            if let Some(now) = now {
                count_up_to(now, rows);
            }
        }))
    },
};

fn project(event: &Event, rows: &mut Rows) {
    let Some((case, advance)) = advance(event, rows) else {
        return;
    };
    let (before, after) = (intervals(case, &advance.old), intervals(case, &advance.new));
    for interval in &after {
        if !before.contains(interval) {
            rows.put(interval.clone());
        }
    }
    for gone in before.into_iter().skip(after.len()) {
        rows.remove::<CaseInterval>((gone.case, gone.n));
    }
}

fn intervals(case: Uuid, cards: &[(Timestamp, Card)]) -> Vec<CaseInterval> {
    let Some((_, card)) = cards.last() else {
        return vec![];
    };
    let visits = visits(cards);
    let since_opened = |at: Timestamp| seconds_between(card.opened_at, at);
    let seconds_in = |status: Status| {
        let ended = visits.windows(2).filter(|pair| pair[0].1 == status);
        ended.map(|pair| seconds_between(pair[0].0, pair[1].0)).sum()
    };
    let measures = CaseInterval {
        case,
        n: 0,
        state: String::new(),
        from_at: card.opened_at,
        to_at: None,
        seconds: None,
        opened_at: card.opened_at,
        first_response_seconds: card.first_response_at.map(|at| seconds_between(card.waiting_since, at)),
        first_resolution_seconds: card.first_resolved_at.map(since_opened),
        full_resolution_seconds: card.resolved_at.map(since_opened),
        pending_customer_seconds: seconds_in(Status::PendingCustomer),
        pending_third_seconds: seconds_in(Status::PendingThird),
    };
    let mut intervals = Vec::with_capacity(visits.len());
    for (n, (from_at, status)) in (1..).zip(&visits) {
        let to_at = visits.get(intervals.len() + 1).map(|(at, _)| *at);
        intervals.push(CaseInterval {
            n,
            state: word(status),
            from_at: *from_at,
            to_at,
            seconds: to_at.map(|to_at| seconds_between(*from_at, to_at)),
            ..measures.clone()
        });
    }
    intervals
}

/// When the status changed, and to what: of several at one time the last counts.
fn visits(cards: &[(Timestamp, Card)]) -> Vec<(Timestamp, Status)> {
    let mut visits: Vec<(Timestamp, Status)> = Vec::new();
    for (index, (at, card)) in cards.iter().enumerate() {
        let is_overtaken = cards.get(index + 1).is_some_and(|(next, _)| next == at);
        let is_same = visits.last().is_some_and(|(_, last)| *last == card.status);
        if !is_overtaken && !is_same {
            visits.push((*at, card.status));
        }
    }
    visits
}

/// In whole seconds of the clock, so that the intervals of a case add up to its lifetime.
fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_second() - from.as_second()
}

fn count_up_to(now: Timestamp, rows: &mut [Vec<Value>]) {
    for row in rows {
        let mut interval = CaseInterval::from_values(row.clone());
        let runs = interval.to_at.is_none() && interval.state != word(Status::Closed);
        if runs {
            interval.seconds = Some(seconds_between(interval.from_at, now).max(0));
            *row = interval.into_values();
        }
    }
}

#[cfg(test)]
mod specs {
    use domain::case::Author;
    use domain::{Id, StreamRef, interaction::Channel};
    use proptest::prelude::*;

    use super::*;
    use crate::spec::{World, id, moment, question};

    const START: &str = "2026-03-02T09:00:00+08:00";

    fn minute(n: i64) -> Timestamp {
        Timestamp::from_second(moment(START).as_second() + n * 60).unwrap()
    }

    fn stream() -> StreamRef {
        StreamRef::of::<case::Case>(Id::new(id("case")))
    }

    fn opened() -> case::Event {
        case::Event::Opened {
            customer: Id::new(id("a")),
            subject: "主軸異音".into(),
            kind: case::Kind::Incident,
            priority: case::Priority::High,
            channel: Channel::Phone,
            about: vec![],
        }
    }

    fn replied(author: Author) -> case::Event {
        case::Event::Replied {
            author,
            public: true,
            text: None,
            from: Status::Open,
        }
    }

    fn pending(on: case::PendingOn) -> case::Event {
        case::Event::Pending { on, from: Status::Open }
    }

    fn resumed() -> case::Event {
        case::Event::Resumed {
            from: Status::PendingCustomer,
        }
    }

    fn resolved(minutes: i64) -> case::Event {
        case::Event::Resolved {
            code: "repaired".into(),
            note: None,
            agent: None,
            group: None,
            from: Status::Open,
            at: minute(minutes),
        }
    }

    fn reopened() -> case::Event {
        case::Event::Reopened {
            reason: "noise is back".into(),
            from: Status::Resolved,
            ended_at: minute(0),
        }
    }

    fn closed(minutes: i64) -> case::Event {
        case::Event::Closed {
            code: "repaired".into(),
            from: Status::Resolved,
            at: minute(minutes),
        }
    }

    /// The case after these events, each true at so many minutes after the opening, recorded in this order.
    fn world(events: impl IntoIterator<Item = (i64, case::Event)>) -> World {
        let mut world = World::new(&[&MODEL]);
        for (n, (at, fact)) in events.into_iter().enumerate() {
            world.record_at(stream(), None, fact, minute(at), minute(100_000 + n as i64));
        }
        world
    }

    fn states(world: &World) -> Vec<(String, Option<i64>)> {
        let rows = world.rows::<CaseInterval>();
        rows.into_iter()
            .map(|row| (row.state, row.seconds.map(|seconds| seconds / 60)))
            .collect()
    }

    /// First response, first resolution, full resolution, in minutes.
    fn measures(world: &World) -> [Option<i64>; 3] {
        let row = world.rows::<CaseInterval>().remove(0);
        [
            row.first_response_seconds,
            row.first_resolution_seconds,
            row.full_resolution_seconds,
        ]
        .map(|seconds| seconds.map(|seconds| seconds / 60))
    }

    #[test]
    fn each_state_lasts_until_the_next() {
        let world = world([
            (0, opened()),
            (10, replied(Author::Agent)),
            (15, pending(case::PendingOn::Customer)),
            (45, resumed()),
            (60, resolved(60)),
            (100, closed(100)),
        ]);
        let expected = [
            ("new", Some(10)),
            ("open", Some(5)),
            ("pending-customer", Some(30)),
            ("open", Some(15)),
            ("resolved", Some(40)),
            ("closed", None),
        ];
        assert_eq!(states(&world), expected.map(|(state, m)| (state.to_owned(), m)));
        assert_eq!(measures(&world), [Some(10), Some(60), Some(60)]);
        assert_eq!(world.rows::<CaseInterval>()[0].pending_customer_seconds, 30 * 60);
    }

    #[test]
    fn an_answer_counts_from_the_reopening_when_only_a_bot_had_resolved_the_case() {
        let world = world([
            (0, opened()),
            (1, replied(Author::Bot)),
            (2, resolved(2)),
            (7_200, reopened()),
            (7_210, replied(Author::Agent)),
        ]);
        assert_eq!(measures(&world), [Some(10), Some(2), None]);
    }

    #[test]
    fn a_reopening_after_a_person_replied_extends_only_the_full_resolution() {
        let world = world([
            (0, opened()),
            (10, replied(Author::Agent)),
            (60, resolved(60)),
            (120, reopened()),
            (130, replied(Author::Agent)),
            (180, resolved(180)),
        ]);
        assert_eq!(measures(&world), [Some(10), Some(60), Some(180)]);
    }

    #[test]
    fn a_note_among_colleagues_is_no_response() {
        let note = case::Event::Replied {
            author: Author::Agent,
            public: false,
            text: None,
            from: Status::Open,
        };
        assert_eq!(measures(&world([(0, opened()), (5, note)])), [None, None, None]);
    }

    #[test]
    fn a_late_entry_stands_where_it_belongs_in_time() {
        let in_order = world([
            (0, opened()),
            (15, pending(case::PendingOn::ThirdParty)),
            (30, resumed()),
            (60, resolved(60)),
        ]);
        let late = world([
            (0, opened()),
            (60, resolved(60)),
            (15, pending(case::PendingOn::ThirdParty)),
            (30, resumed()),
        ]);
        assert_eq!(late.rows::<CaseInterval>(), in_order.rows::<CaseInterval>());
    }

    #[test]
    fn resolved_and_closed_in_one_instant_it_took_as_long_as_it_took() {
        let solved_and_closed = world([(0, opened()), (120, resolved(120)), (120, closed(120))]);
        assert_eq!(measures(&solved_and_closed), [None, Some(120), Some(120)]);
        let again = world([
            (0, opened()),
            (60, resolved(60)),
            (60, reopened()),
            (120, resolved(120)),
            (120, closed(120)),
        ]);
        assert_eq!(measures(&again), [None, Some(60), Some(120)]);
    }

    #[test]
    fn a_reopening_that_is_dated_before_the_resolve_follows_it() {
        let skewed = world([(0, opened()), (125, resolved(125)), (123, reopened())]);
        let expected = [("new", Some(125)), ("open", None)];
        assert_eq!(states(&skewed), expected.map(|(state, m)| (state.to_owned(), m)));
    }

    #[test]
    fn what_is_said_to_have_been_before_the_opening_counts_from_the_opening() {
        let world = world([(0, opened()), (-5, pending(case::PendingOn::Customer))]);
        assert_eq!(states(&world), vec![("pending-customer".to_owned(), None)]);
        assert_eq!(world.rows::<CaseInterval>()[0].from_at, minute(0));
    }

    #[test]
    fn a_running_interval_is_counted_up_to_now_and_a_closed_case_runs_no_more() {
        let ask = |world: &World| {
            let mut question = question(&["n=2"]);
            question.now = Some(minute(20));
            world.ask(&MODEL, question).rows.remove(0)[5].clone()
        };
        let waiting = world([(0, opened()), (15, pending(case::PendingOn::Customer))]);
        assert_eq!(ask(&waiting), Value::Int(300));
        let ended = world([(0, opened()), (15, closed(15))]);
        assert_eq!(ask(&ended), Value::Null);
    }

    /// Something that happens to a case, at a minute of its life.
    fn happening() -> impl Strategy<Value = (i64, case::Event)> {
        (1_i64..500, 0..7).prop_map(|(at, which)| {
            let fact = match which {
                0 => pending(case::PendingOn::Customer),
                1 => pending(case::PendingOn::ThirdParty),
                2 => resumed(),
                3 => resolved(at),
                4 => reopened(),
                5 => replied(Author::Agent),
                _ => replied(Author::Bot),
            };
            (at, fact)
        })
    }

    proptest! {
        #[test]
        fn the_intervals_of_a_case_add_up_to_its_lifetime(
            mut happenings in proptest::collection::vec(happening(), 0..12), seed in any::<prop::sample::Index>(),
        ) {
            // Any of them may have come in late; that it was closed is known last.
            let turn = seed.index(happenings.len() + 1);
            happenings.rotate_left(turn);
            happenings.push((600, closed(600)));
            happenings.insert(0, (0, opened()));
            let rows = world(happenings).rows::<CaseInterval>();
            let total: i64 = rows.iter().filter_map(|row| row.seconds).sum();
            prop_assert_eq!(total, 600 * 60);
            for pair in rows.windows(2) {
                prop_assert_eq!(pair[0].to_at, Some(pair[1].from_at));
            }
        }
    }
}
