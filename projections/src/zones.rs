//! The same events, told by companies in several time zones: they differ in days, and in nothing else.

use domain::{Calendar, inspection};
use domain::{Id, StreamRef, equipment::Equipment, inspection::Inspection};
use jiff::Timestamp;
use jiff::civil::{Date, date};

use crate::deals::specs::{deal, opened, twd, won};
use crate::purchases::specs::{recorded, stream};
use crate::spec::{World, id, moment};
use crate::{Answer, Question, ReadModel};
use crate::{cohort_retention, inspections, pipeline, pipeline_daily, pipeline_flow, rfm, sales_by_month, win_loss};

/// Half past eleven in the evening in Berlin.
const LATE: &str = "2026-03-31T21:30:00Z";
const NOW: &str = "2026-04-02T12:00:00Z";
const ZONES: [&str; 4] = [
    "Asia/Taipei",
    "Europe/Berlin",
    "America/Los_Angeles",
    "Pacific/Kiritimati",
];

fn world(time_zone: &str) -> (World, Calendar) {
    let calendar = Calendar::of(time_zone).unwrap();
    let models: Vec<&'static ReadModel> = vec![
        &pipeline::MODEL,
        &pipeline_flow::MODEL,
        &win_loss::MODEL,
        &inspections::MODEL,
        &sales_by_month::MODEL,
        &rfm::MODEL,
        &cohort_retention::MODEL,
    ];
    let mut world = World::new(&models).in_zone(&calendar);
    let morning = "2026-03-31T01:00:00Z";
    world.record(deal("a"), None, opened(Some(twd(1_000))), morning, morning);
    world.record(deal("a"), None, won(twd(1_000)), LATE, LATE);
    let machine = Id::<Equipment>::new(id("machine"));
    let inspection = StreamRef::of(Id::<Inspection>::new(id("inspection")));
    let scheduled = inspection::Event::Scheduled {
        equipment: machine,
        customer: None,
        due: date(2026, 3, 31),
        checklist: "safety".into(),
    };
    let finished = inspection::Event::Finished {
        equipment: machine,
        checklist: "safety".into(),
        due: date(2026, 3, 31),
        outcome: inspection::Outcome::Passed,
        failed: vec![],
        readings: 1,
    };
    world.record(inspection, None, scheduled, morning, morning);
    world.record(inspection, None, finished, LATE, LATE);
    let receipt = recorded("berlin", date(2026, 4, 1), &[("A", "1", 100)], Some("mei"));
    let entered = "2026-04-02T01:00:00Z";
    world.record(stream("receipt"), None, receipt, entered, entered);
    (world, calendar)
}

fn ask(world: &World, calendar: &Calendar, model: &'static ReadModel, as_of: Option<Timestamp>) -> Answer {
    let question = Question {
        as_of,
        now: Some(moment(NOW)),
        ..Question::new(calendar.clone())
    };
    world.ask(model, question)
}

fn cell(answer: &Answer, row: usize, column: &str) -> String {
    let at = answer.columns.iter().position(|name| *name == column).unwrap();
    answer.rows[row][at].to_text()
}

#[test]
fn what_happened_late_in_the_evening_is_of_the_companys_day_and_month() {
    let days: [(&str, Date); 4] = [
        (ZONES[0], date(2026, 4, 1)),
        (ZONES[1], date(2026, 3, 31)),
        (ZONES[2], date(2026, 3, 31)),
        (ZONES[3], date(2026, 4, 1)),
    ];
    for (time_zone, day) in days {
        let (world, calendar) = world(time_zone);
        let card = ask(&world, &calendar, &pipeline::MODEL, None);
        assert_eq!(cell(&card, 0, "closed_on"), day.to_string(), "{time_zone}");
        let outcome = ask(&world, &calendar, &win_loss::MODEL, None);
        assert_eq!(cell(&outcome, 0, "close_month"), crate::month_of(day), "{time_zone}");
        let inspection = ask(&world, &calendar, &inspections::MODEL, None);
        let on_time = day <= date(2026, 3, 31);
        assert_eq!(cell(&inspection, 0, "on_time"), on_time.to_string(), "{time_zone}");
        let flow = ask(&world, &calendar, &pipeline_flow::MODEL, None);
        let at = |row| (cell(&flow, row, "day"), cell(&flow, row, "won_minor"));
        let won: Vec<_> = (0..flow.rows.len()).map(at).filter(|(_, won)| won != "0").collect();
        assert_eq!(won, [(day.to_string(), "1000".into())], "{time_zone}");
    }
}

#[test]
fn today_is_the_companys() {
    // In Los Angeles it is still the first of April, and on Kiritimati the third already.
    for (time_zone, now, last, recency) in [
        (ZONES[0], "2026-04-02T06:59:59Z", date(2026, 4, 2), "1"),
        (ZONES[1], "2026-04-02T06:59:59Z", date(2026, 4, 2), "1"),
        (ZONES[2], "2026-04-02T06:59:59Z", date(2026, 4, 1), "0"),
        (ZONES[2], "2026-04-02T07:00:00Z", date(2026, 4, 2), "1"),
        (ZONES[3], "2026-04-02T10:00:00Z", date(2026, 4, 3), "2"),
    ] {
        let (world, calendar) = world(time_zone);
        let question = Question {
            now: Some(moment(now)),
            ..Question::new(calendar.clone())
        };
        let score = world.ask(&rfm::MODEL, question.clone());
        assert_eq!(cell(&score, 0, "recency_days"), recency, "{time_zone}");
        assert_eq!(question.today(), Some(last), "{time_zone}");
    }
}

#[test]
fn a_receipt_counts_from_the_midnight_of_its_day() {
    for (time_zone, midnight) in [
        (ZONES[0], "2026-03-31T16:00:00Z"),
        (ZONES[1], "2026-03-31T22:00:00Z"),
        (ZONES[2], "2026-04-01T07:00:00Z"),
        (ZONES[3], "2026-03-31T10:00:00Z"),
    ] {
        let (world, calendar) = world(time_zone);
        let midnight = moment(midnight);
        let before = midnight - jiff::SignedDuration::from_micros(1);
        for model in [&sales_by_month::MODEL, &cohort_retention::MODEL, &rfm::MODEL] {
            let rows = |at| ask(&world, &calendar, model, Some(at)).rows.len();
            assert_eq!((rows(before), rows(midnight)), (0, 1), "{} in {time_zone}", model.name);
        }
    }
}

/// Whatever clocks do: the last day of the flow is the day of the question, and the pipeline as of the end of a day is
/// what the day shows.
#[test]
fn days_have_no_gap_where_clocks_change() {
    let calendar = Calendar::of("Europe/Berlin").unwrap();
    for sunday in [date(2026, 3, 29), date(2026, 10, 25)] {
        let mut world = World::new(&[&pipeline::MODEL]).in_zone(&calendar);
        let (start, end) = (calendar.day_start(sunday), calendar.day_end(sunday));
        world.record_at(deal("first moment"), None, opened(Some(twd(1))), start, start);
        world.record_at(deal("last moment"), None, opened(Some(twd(10))), end, end);
        let next = end + jiff::SignedDuration::from_micros(1);
        world.record_at(deal("monday"), None, opened(Some(twd(100))), next, next);
        let daily = |day: Date| {
            let question = Question {
                now: Some(next),
                filters: vec![crate::Where::equal("day", &day.to_string())],
                ..Question::new(calendar.clone())
            };
            let answer = world.ask(&pipeline_daily::MODEL, question);
            (0..answer.rows.len())
                .map(|row| cell(&answer, row, "amount_minor"))
                .collect::<Vec<_>>()
        };
        let monday = sunday.tomorrow().unwrap();
        assert_eq!(daily(sunday.yesterday().unwrap()), Vec::<String>::new());
        assert_eq!(
            (daily(sunday), daily(monday)),
            (vec!["11".to_owned()], vec!["111".to_owned()])
        );
        let as_of = ask(&world, &calendar, &pipeline::MODEL, Some(end));
        assert_eq!(cell(&as_of, 0, "amount_minor"), "11");
    }
}
