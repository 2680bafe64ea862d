//! Why deals are won and lost: by month of closing, reason, competitor and source.

use std::collections::BTreeMap;

use domain::{Calendar, StreamKind};
use jiff::Timestamp;

use crate::deals::{self, Card, Figures, Status};
use crate::pipeline::summed;
use crate::{
    BadQuestion, Column, ColumnType, Event, Expr, Group, Plan, Question, ReadModel, Row, Rows, Select, Value, month_of,
    table,
};

table! {
    /// Closed deals; one that is reopened is taken back. Texts are empty where nothing was said, and so is the currency of a
    /// deal that never had an amount.
    rollup Outcome "win_loss" {
        /// `2026-06`
        key close_month: String,
        key reason: String,
        key competitor: String,
        key source: String,
        key currency: String,
        /// `won` or `lost`.
        key outcome: String,
        /// Whole days from opened to closed.
        key cycle_days: i64,
        sum deals: i64,
        sum amount_minor: i64,
    }
}

/// The columns of the table that tell which deals are counted.
pub const DIMENSIONS: [&str; 5] = ["close_month", "reason", "competitor", "source", "currency"];

const COLUMNS: &[Column] = &[
    Column::shown("close_month", ColumnType::Text),
    Column::shown("reason", ColumnType::Text),
    Column::shown("competitor", ColumnType::Text),
    Column::shown("source", ColumnType::Text),
    Column::shown("currency", ColumnType::Text),
    Column::shown("won", ColumnType::Int),
    Column::shown("lost", ColumnType::Int),
    Column::shown("won_minor", ColumnType::Int),
    Column::shown("lost_minor", ColumnType::Int),
    Column::shown("win_rate_bp", ColumnType::Int).or_null(),
    Column::shown("median_cycle_days", ColumnType::Int).or_null(),
];

pub static MODEL: ReadModel = ReadModel {
    name: "win_loss",
    about: "Deals won and lost by month of closing, reason, competitor, source and currency",
    group: Group::Sales,
    version: 2,
    streams: &[StreamKind::Opportunity],
    tables: &[Outcome::TABLE],
    project,
    plan,
};

fn project(event: &Event, rows: &mut Rows) {
    let Some((_, advance)) = deals::advance(event, rows) else {
        return;
    };
    let old = outcome(&advance.old, &event.calendar);
    let new = outcome(&advance.new, &event.calendar);
    if old == new {
        return;
    }
    if let Some(outcome) = old {
        rows.add(Outcome {
            deals: -outcome.deals,
            amount_minor: -outcome.amount_minor,
            ..outcome
        });
    }
    if let Some(outcome) = new {
        rows.add(outcome);
    }
}

/// How the deal ended; `None` while it is open.
fn outcome(cards: &[(Timestamp, Card)], calendar: &Calendar) -> Option<Outcome> {
    let (_, card) = cards.last()?;
    let closed_at = card.closed_at?;
    Some(Outcome {
        close_month: month_of(calendar.day(closed_at)),
        reason: card.close_reason.clone().unwrap_or_default(),
        competitor: card.competitor.clone().unwrap_or_default(),
        source: card.source.clone().unwrap_or_default(),
        currency: card
            .currency()
            .map_or_else(String::new, |currency| currency.code().to_owned()),
        outcome: card.status.name().to_owned(),
        cycle_days: closed_at.duration_since(card.opened_at).as_hours() / 24,
        deals: 1,
        amount_minor: card.amount_minor(),
    })
}

fn plan(question: &Question) -> Result<Plan, BadQuestion> {
    question.present_only()?;
    let (select, page) = summed(question, outcomes(DIMENSIONS), &DIMENSIONS, COLUMNS)?;
    Ok(page.plan(vec![select], move |mut results| {
        tally(results.remove(0), DIMENSIONS.len(), Tally::short)
    }))
}

/// Deals and amounts by these columns, outcome and length.
pub fn outcomes(by: impl IntoIterator<Item = &'static str>) -> Select {
    let columns = by.into_iter().chain(["outcome", "cycle_days"]).map(Expr::Column);
    Select::of(
        Outcome::TABLE,
        columns.chain([Expr::Sum("deals"), Expr::Sum("amount_minor")]),
    )
}

/// Won and lost deals of one group.
#[derive(Debug, Default)]
pub struct Tally {
    pub won: i64,
    pub lost: i64,
    pub won_minor: i64,
    pub lost_minor: i64,
    /// How many won deals took so many days.
    cycles: BTreeMap<i64, i64>,
}

/// One row per group (the first `by` columns of rows from [`outcomes`]), ended by the figures that `show` gives.
pub fn tally(rows: Vec<Vec<Value>>, by: usize, show: fn(&Tally) -> Vec<Value>) -> Vec<Vec<Value>> {
    let mut groups: BTreeMap<Vec<Value>, Tally> = BTreeMap::new();
    for row in rows {
        let tally = groups.entry(row[..by].to_vec()).or_default();
        let (outcome, cycle_days) = (row[by].as_text(), row[by + 1].as_int());
        let (deals, amount) = (row[by + 2].as_int(), row[by + 3].as_int());
        if outcome == Status::Won.name() {
            tally.won += deals;
            tally.won_minor += amount;
            *tally.cycles.entry(cycle_days).or_default() += deals;
        } else {
            tally.lost += deals;
            tally.lost_minor += amount;
        }
    }
    groups.retain(|_, tally| tally.won != 0 || tally.lost != 0);
    groups
        .into_iter()
        .map(|(group, tally)| group.into_iter().chain(show(&tally)).collect())
        .collect()
}

impl Tally {
    fn short(&self) -> Vec<Value> {
        vec![
            Value::Int(self.won),
            Value::Int(self.lost),
            Value::Int(self.won_minor),
            Value::Int(self.lost_minor),
            share_bp(self.won, self.lost),
            self.cycle_days(50),
        ]
    }

    /// The length of the won deal that so many percent of them do not exceed: 50 = the (lower) median.
    pub fn cycle_days(&self, percent: i64) -> Value {
        let mut seen = 0;
        for (days, deals) in &self.cycles {
            seen += deals;
            if seen > 0 && seen * 100 >= self.won * percent {
                return Value::Int(*days);
            }
        }
        Value::Null
    }
}

/// `part / (part + rest)` in basis points, rounded half up; null when there is neither.
pub fn share_bp(part: i64, rest: i64) -> Value {
    let (part, whole) = (i128::from(part), i128::from(part) + i128::from(rest));
    match whole {
        0 => Value::Null,
        _ => Value::Int(i64::try_from((part * 20_000 + whole) / (2 * whole)).expect("at most 10000")),
    }
}

#[cfg(test)]
pub mod specs {
    use domain::opportunity::Event as DealEvent;
    use proptest::prelude::*;

    use super::*;
    use crate::deals::DealHistory;
    use crate::deals::specs::{deal, live, lives, lost, noon, opened, reopened, twd, won};
    use crate::spec::{World, question};

    /// A deal of 1,000 cents that was opened on the first day and ended so many days later.
    pub fn ended(world: &mut World, name: &str, days: i64, how: DealEvent) {
        world.record_at(deal(name), None, opened(Some(twd(1_000))), noon(1), noon(1));
        world.record_at(deal(name), None, how, noon(1 + days), noon(1 + days));
    }

    fn line(reason: &str, figures: [i64; 4], rate: i64, median: Option<i64>) -> Vec<Value> {
        let text = |text: &str| Value::Text(text.into());
        let mut line = vec![text("2026-01"), text(reason), text(""), text("fair"), text("TWD")];
        line.extend(figures.map(Value::Int));
        line.push(Value::Int(rate));
        line.push(median.map_or(Value::Null, Value::Int));
        line
    }

    #[test]
    fn won_and_lost_are_counted_by_reason() {
        let mut world = World::new(&[&MODEL]);
        ended(&mut world, "a", 3, won(twd(1_200)));
        ended(&mut world, "b", 9, won(twd(800)));
        ended(&mut world, "c", 5, won(twd(500)));
        ended(&mut world, "d", 4, lost("price"));
        let expected = [
            line("", [3, 0, 2_500, 0], 10_000, Some(5)),
            line("price", [0, 1, 0, 1_000], 0, None),
        ];
        assert_eq!(world.ask(&MODEL, question(&[])).rows, expected);
        assert_eq!(world.ask(&MODEL, question(&["reason=price"])).rows, expected[1..]);
    }

    #[test]
    fn a_reopened_deal_is_taken_back() {
        let mut world = World::new(&[&MODEL]);
        ended(&mut world, "a", 3, lost("price"));
        world.record_at(deal("a"), None, reopened(), noon(6), noon(6));
        assert_eq!(world.ask(&MODEL, question(&[])).rows, Vec::<Vec<Value>>::new());
        world.record_at(deal("a"), None, won(twd(900)), noon(11), noon(11));
        assert_eq!(
            world.ask(&MODEL, question(&[])).rows,
            [line("", [1, 0, 900, 0], 10_000, Some(10))]
        );
    }

    #[test]
    fn a_share_is_rounded_to_the_basis_point() {
        assert_eq!(share_bp(1, 2), Value::Int(3_333));
        assert_eq!(share_bp(2, 1), Value::Int(6_667));
        assert_eq!(share_bp(0, 0), Value::Null);
    }

    proptest! {
        #[test]
        fn the_sums_are_those_of_the_deals_that_are_closed_now(lives in lives()) {
            let mut world = World::new(&[&MODEL]);
            live(&mut world, lives);
            let mut expected = (0, 0, 0, 0);
            for deal in world.rows::<DealHistory>() {
                let card = crate::life::<Card>(&deal.steps).cards().pop().unwrap().1;
                match card.status {
                    Status::NotOpened | Status::Open => {}
                    Status::Won => expected = (expected.0 + 1, expected.1, expected.2 + card.amount_minor(), expected.3),
                    Status::Lost => expected = (expected.0, expected.1 + 1, expected.2, expected.3 + card.amount_minor()),
                }
            }
            let answer = world.ask(&MODEL, question(&[]));
            let sum = |column: usize| answer.rows.iter().map(|row| row[column].as_int()).sum::<i64>();
            prop_assert_eq!((sum(5), sum(6), sum(7), sum(8)), expected);
        }
    }
}
