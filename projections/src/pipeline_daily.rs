//! The pipeline day by day: what was open at the end of each day, by stage and currency.

use std::collections::BTreeMap;

use domain::StreamKind;
use jiff::ToSpan;
use jiff::civil::Date;

use crate::deals::{Status, stage_rank};
use crate::pipeline::{self, PipelineChange, summed};
use crate::{BadQuestion, Column, ColumnType, Expr, Group, Op, Plan, Question, ReadModel, Row, Select, Value};

/// Days that are shown when the question does not say.
const DAYS_DEFAULT: i32 = 60;
/// Days that are shown at most: ten years.
const DAYS_MAX: i32 = 3_660;

const COLUMNS: &[Column] = &[
    Column::shown("day", ColumnType::Date),
    Column::shown("stage", ColumnType::Text),
    Column::shown("currency", ColumnType::Text).or_null(),
    Column::shown("deals", ColumnType::Int),
    Column::shown("amount_minor", ColumnType::Int),
    Column::shown("weighted_minor", ColumnType::Int),
];

pub static MODEL: ReadModel = ReadModel {
    name: "pipeline_daily",
    about: "What was open at the end of each day of the company's time zone, by stage and currency; 60 days unless `day` says otherwise",
    group: Group::Sales,
    version: 1,
    streams: &[StreamKind::Opportunity],
    // It is asked of `pipeline_changes`, which `pipeline` keeps.
    tables: &[],
    project: |_, _| {},
    plan,
};

fn plan(question: &Question) -> Result<Plan, BadQuestion> {
    let days = Days::of(question)?;
    let select = Select::of(
        PipelineChange::TABLE,
        [
            Expr::Column("day"),
            Expr::Column("stage"),
            Expr::Column("currency"),
            Expr::Sum("deals"),
            Expr::Sum("amount_minor"),
            Expr::Sum("weighted_minor"),
        ],
    );
    let open = select.filter("status", Op::Eq, Value::Text(Status::Open.name().to_owned()));
    let (select, page) = summed(question, open, &pipeline::DIMENSIONS, COLUMNS)?;
    let select = days.bound(question.dated(select, "effective_at")).order_by("day");
    Ok(page.plan(vec![select], move |mut results| closings(&days, results.remove(0))))
}

/// One row per day and stage from the changes of each day, which come in the order of days.
fn closings(days: &Days, changes: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    let mut stages: BTreeMap<(usize, String, Value), [i64; 3]> = BTreeMap::new();
    let last = changes.last().map(|row| date(&row[0]));
    let mut changes = changes.into_iter().peekable();
    for day in days.list(last) {
        while let Some(row) = changes.next_if(|row| date(&row[0]) <= day) {
            let stage = row[1].as_text().to_owned();
            let sums = stages.entry((stage_rank(&stage), stage, row[2].clone())).or_default();
            for (sum, change) in sums.iter_mut().zip(&row[3..]) {
                *sum += change.as_int();
            }
        }
        for ((_, stage, currency), sums) in &stages {
            if *sums != [0; 3] {
                let mut row = vec![Value::Date(day), Value::Text(stage.clone()), currency.clone()];
                row.extend(sums.map(Value::Int));
                rows.push(row);
            }
        }
    }
    rows
}

/// The value of a `day` column.
pub fn date(value: &Value) -> Date {
    match value {
        Value::Date(day) => *day,
        other => panic!("expected a date, the store gave {other:?}"),
    }
}

/// The days a question asks for by filters on `day`; 60 up to today otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Days {
    from: Option<Date>,
    to: Option<Date>,
}

impl Days {
    /// # Errors
    /// A filter on `day` that is no date.
    pub fn of(question: &Question) -> Result<Days, BadQuestion> {
        let mut days = Days {
            from: None,
            to: question.today(),
        };
        for filter in question.filters.iter().filter(|filter| filter.column == "day") {
            let read = |text: &str| {
                text.parse::<Date>().map_err(|_| BadQuestion::Value {
                    column: filter.column.clone(),
                    value: text.to_owned(),
                })
            };
            let mut named: Vec<Date> = filter.texts().map(read).collect::<Result<_, _>>()?;
            named.sort_unstable();
            let (Some(&day), Some(&last)) = (named.first(), named.last()) else {
                continue;
            };
            let (from, to) = match filter.op {
                Op::Eq | Op::In => (Some(day), Some(last)),
                Op::Ge => (Some(day), None),
                Op::Gt => (Some(day.saturating_add(1.day())), None),
                Op::Le => (None, Some(day)),
                Op::Lt => (None, Some(day.saturating_sub(1.day()))),
                Op::Ne => (None, None),
            };
            days.from = days.from.max(from);
            days.to = [days.to, to].into_iter().flatten().min();
        }
        Ok(days)
    }

    /// Only changes up to the last day.
    pub fn bound(&self, select: Select) -> Select {
        match self.to {
            Some(to) => select.filter("day", Op::Le, Value::Date(to)),
            None => select,
        }
    }

    /// Day after day; up to the `last` one there is a change on, when nobody said what day it is.
    pub fn list(&self, last: Option<Date>) -> impl Iterator<Item = Date> {
        let to = self.to.or(last);
        let from = to.map(|to| {
            let earliest = to.saturating_sub((DAYS_MAX - 1).days());
            let from = self.from.unwrap_or(to.saturating_sub((DAYS_DEFAULT - 1).days()));
            from.max(earliest)
        });
        from.into_iter()
            .flat_map(|from| from.series(1.day()))
            .take_while(move |day| Some(*day) <= to)
    }
}

#[cfg(test)]
mod specs {
    use domain::Calendar;
    use jiff::civil::date as on;
    use proptest::prelude::*;

    use super::*;
    use crate::deals::specs::{amount_set, deal, live, lives, noon, opened, stage_changed, twd};
    use crate::spec::{World, question};

    #[test]
    fn each_day_has_the_figures_of_its_end() {
        let mut world = World::new(&[&pipeline::MODEL]);
        world.record_at(deal("a"), None, opened(Some(twd(1_000))), noon(1), noon(1));
        world.record_at(
            deal("a"),
            None,
            stage_changed("prospecting", "proposal"),
            noon(3),
            noon(3),
        );
        // Late: known on the fifth, true on the second.
        world.record_at(deal("a"), None, amount_set(twd(2_000)), noon(2), noon(5));
        let question = Question {
            now: Some(noon(4)),
            ..question(&["day>=2026-01-01"])
        };
        let line = |day: i8, stage: &str, amount: i64, weighted: i64| {
            vec![
                Value::Date(on(2026, 1, day)),
                Value::Text(stage.into()),
                Value::Text("TWD".into()),
                Value::Int(1),
                Value::Int(amount),
                Value::Int(weighted),
            ]
        };
        let restated = [
            line(2, "prospecting", 1_000, 100),
            line(3, "prospecting", 2_000, 200),
            line(4, "proposal", 2_000, 1_000),
            line(5, "proposal", 2_000, 1_000),
        ];
        assert_eq!(world.ask(&MODEL, question.clone()).rows, restated);
        let reported = Question {
            known_until: Some(world.known_at(noon(4))),
            ..question
        };
        let rows = world.ask(&MODEL, reported).rows;
        assert_eq!(rows[1], line(3, "prospecting", 1_000, 100));
    }

    #[test]
    fn sixty_days_are_shown_unless_the_question_says_which() {
        let days = |filters: &[&str]| {
            let question = Question {
                now: Some(noon(59)),
                ..question(filters)
            };
            let days: Vec<Date> = Days::of(&question).unwrap().list(None).collect();
            (days.first().copied(), days.len())
        };
        assert_eq!(days(&[]), (Some(on(2026, 1, 1)), 60));
        assert_eq!(days(&["day>2026-02-01", "day<2026-02-05"]), (Some(on(2026, 2, 2)), 3));
        assert_eq!(days(&["day=2026-02-01"]), (Some(on(2026, 2, 1)), 1));
        assert_eq!(days(&["day>=2027-02-01"]), (None, 0));
        // Ten years, the latest ones.
        let ten_years = days(&["day>=1990-01-01", "day<=2026-01-10"]);
        assert_eq!(ten_years, (Some(on(2016, 1, 4)), DAYS_MAX as usize));
        let nonsense = Days::of(&question(&["day=tomorrow"]));
        assert!(nonsense.is_err());
    }

    proptest! {
        /// A day's figures are those of the pipeline as of the day's end.
        #[test]
        fn a_day_is_the_pipeline_as_of_its_end(lives in lives(), day in 0_i64..60) {
            let mut world = World::new(&[&pipeline::MODEL]);
            live(&mut world, lives);
            let as_of = Question { as_of: Some(noon(day)), ..question(&[]) };
            let summary = world.ask(&pipeline::MODEL, as_of).rows;
            let daily = Question { now: Some(noon(59)), ..question(&[&format!("day={}", Calendar::taipei().day(noon(day)))]) };
            let mut rows = world.ask(&MODEL, daily).rows;
            for row in &mut rows {
                row.remove(0);
            }
            prop_assert_eq!(rows, summary);
        }
    }
}
