//! What will be sold: per month of closing, what is open, how likely it is, and what is won already.
//!
//! weighted = amount times probability of the open deals expected to close in the month; forecast = weighted + won in the
//! month. What is lost counts nothing. The roll-up by category is cumulative: commit is what is closed and committed, best
//! case adds the best cases, pipeline adds the rest; what was omitted is in none.

use std::collections::BTreeMap;

use domain::StreamKind;

use crate::deals::Status;
use crate::pipeline::{self, PipelineChange, summed};
use crate::{BadQuestion, Column, ColumnType, Expr, Group, Op, Plan, Question, ReadModel, Row, Select, Value};

const COLUMNS: &[Column] = &[
    Column::shown("close_month", ColumnType::Text),
    Column::shown("currency", ColumnType::Text).or_null(),
    Column::shown("open_deals", ColumnType::Int),
    Column::shown("open_minor", ColumnType::Int),
    Column::shown("weighted_minor", ColumnType::Int),
    Column::shown("won_deals", ColumnType::Int),
    Column::shown("won_minor", ColumnType::Int),
    Column::shown("forecast_minor", ColumnType::Int),
    Column::shown("commit_minor", ColumnType::Int),
    Column::shown("best_case_minor", ColumnType::Int),
    Column::shown("pipeline_minor", ColumnType::Int),
    Column::shown("omitted_minor", ColumnType::Int),
];

pub static MODEL: ReadModel = ReadModel {
    name: "forecast",
    about: "Per month of closing and currency: open, weighted, won, and the roll-up by forecast category; for any past date",
    group: Group::Sales,
    version: 1,
    streams: &[StreamKind::Opportunity],
    // It is asked of `pipeline_changes`, which `pipeline` keeps.
    tables: &[],
    project: |_, _| {},
    plan,
};

#[derive(Debug, Default, PartialEq)]
struct Month {
    open_deals: i64,
    weighted_minor: i64,
    won_deals: i64,
    won_minor: i64,
    commit_minor: i64,
    best_case_minor: i64,
    pipeline_minor: i64,
    omitted_minor: i64,
}

fn plan(question: &Question) -> Result<Plan, BadQuestion> {
    let select = Select::of(
        PipelineChange::TABLE,
        [
            Expr::Column("close_month"),
            Expr::Column("currency"),
            Expr::Column("status"),
            Expr::Column("category"),
            Expr::Sum("deals"),
            Expr::Sum("amount_minor"),
            Expr::Sum("weighted_minor"),
        ],
    );
    let select = select.filter("status", Op::Ne, Value::Text(Status::Lost.name().to_owned()));
    let (select, page) = summed(question, select, &pipeline::DIMENSIONS, COLUMNS)?;
    let select = question.dated(select, "effective_at");
    Ok(page.plan(vec![select], move |mut results| {
        let mut months: BTreeMap<(Value, Value), Month> = BTreeMap::new();
        for row in results.remove(0) {
            let month = months.entry((row[0].clone(), row[1].clone())).or_default();
            month.add(row[2].as_text(), row[3].as_text(), &row[4..]);
        }
        months.retain(|_, month| *month != Month::default());
        let rows = months.into_iter().map(|(key, month)| month.row(key));
        rows.collect()
    }))
}

impl Month {
    fn add(&mut self, status: &str, category: &str, sums: &[Value]) {
        let (deals, amount, weighted) = (sums[0].as_int(), sums[1].as_int(), sums[2].as_int());
        if status == Status::Won.name() {
            self.won_deals += deals;
            self.won_minor += amount;
            return;
        }
        self.open_deals += deals;
        self.weighted_minor += weighted;
        match category {
            "commit" => self.commit_minor += amount,
            "best-case" => self.best_case_minor += amount,
            "omitted" => self.omitted_minor += amount,
            _ => self.pipeline_minor += amount,
        }
    }

    fn row(self, (month, currency): (Value, Value)) -> Vec<Value> {
        let commit = self.won_minor + self.commit_minor;
        let best_case = commit + self.best_case_minor;
        let pipeline = best_case + self.pipeline_minor;
        let open = self.commit_minor + self.best_case_minor + self.pipeline_minor + self.omitted_minor;
        let figures = [
            self.open_deals,
            open,
            self.weighted_minor,
            self.won_deals,
            self.won_minor,
            self.won_minor + self.weighted_minor,
            commit,
            best_case,
            pipeline,
            self.omitted_minor,
        ];
        [month, currency].into_iter().chain(figures.map(Value::Int)).collect()
    }
}

#[cfg(test)]
mod specs {
    use domain::opportunity::{Event as DealEvent, ForecastCategory};
    use domain::{Currency, Money};
    use jiff::Timestamp;

    use super::*;
    use crate::deals::specs::{deal, lost, noon, opened, stage_changed, twd, won};
    use crate::spec::{World, question};

    fn line(month: i8, currency: &str, figures: [i64; 10]) -> Vec<Value> {
        let mut line = vec![Value::Text(format!("2026-{month:02}")), Value::Text(currency.into())];
        line.extend(figures.map(Value::Int));
        line
    }

    fn asked(world: &World, as_of: Option<Timestamp>, known_at: Option<Timestamp>) -> Vec<Vec<Value>> {
        let question = Question {
            as_of,
            known_until: known_at.map(|at| world.known_at(at)),
            ..question(&[])
        };
        world.ask(&MODEL, question).rows
    }

    fn categorised(to: ForecastCategory) -> DealEvent {
        DealEvent::ForecastCategorySet {
            from: ForecastCategory::Pipeline,
            to,
        }
    }

    #[test]
    fn categories_roll_up_and_currencies_stay_apart() {
        let mut world = World::new(&[&pipeline::MODEL]);
        let deals = [
            ("a", Some(ForecastCategory::Commit), 1_000),
            ("b", Some(ForecastCategory::BestCase), 2_000),
            ("c", None, 4_000),
            ("d", Some(ForecastCategory::Omitted), 8_000),
        ];
        for (name, category, amount) in deals {
            world.record_at(deal(name), None, opened(Some(twd(amount))), noon(1), noon(1));
            if let Some(category) = category {
                world.record_at(deal(name), None, categorised(category), noon(1), noon(1));
            }
        }
        let dollars = opened(Some(Money::new(70, Currency::USD)));
        world.record_at(deal("e"), None, dollars, noon(1), noon(1));
        let expected = [
            line(6, "TWD", [4, 15_000, 1_500, 0, 0, 1_500, 1_000, 3_000, 7_000, 8_000]),
            line(6, "USD", [1, 70, 7, 0, 0, 7, 0, 0, 70, 0]),
        ];
        assert_eq!(asked(&world, None, None), expected);
        assert_eq!(world.ask(&MODEL, question(&["currency=USD"])).rows, expected[1..]);
    }

    #[test]
    fn won_counts_in_the_month_it_was_won_and_lost_counts_nothing() {
        let mut world = World::new(&[&pipeline::MODEL]);
        world.record_at(deal("a"), None, opened(Some(twd(1_000))), noon(1), noon(1));
        world.record_at(deal("b"), None, opened(Some(twd(2_000))), noon(1), noon(1));
        world.record_at(deal("a"), None, won(twd(1_200)), noon(40), noon(40));
        world.record_at(deal("b"), None, lost("price"), noon(40), noon(40));
        let won_in_february = line(2, "TWD", [0, 0, 0, 1, 1_200, 1_200, 1_200, 1_200, 1_200, 0]);
        assert_eq!(asked(&world, None, None), [won_in_february]);
        let before = line(6, "TWD", [2, 3_000, 300, 0, 0, 300, 0, 0, 3_000, 0]);
        assert_eq!(asked(&world, Some(noon(39)), None), [before]);
    }

    #[test]
    fn a_forecast_is_told_as_it_was_reported() {
        let mut world = World::new(&[&pipeline::MODEL]);
        world.record_at(deal("a"), None, opened(Some(twd(1_000))), noon(1), noon(1));
        world.record_at(
            deal("a"),
            None,
            stage_changed("prospecting", "proposal"),
            noon(2),
            noon(9),
        );
        let reported = line(6, "TWD", [1, 1_000, 100, 0, 0, 100, 0, 0, 1_000, 0]);
        let restated = line(6, "TWD", [1, 1_000, 500, 0, 0, 500, 0, 0, 1_000, 0]);
        assert_eq!(asked(&world, Some(noon(5)), Some(noon(5))), [reported]);
        assert_eq!(asked(&world, Some(noon(5)), None), [restated]);
    }
}
