//! How often and how fast deals are won: by month of closing and currency, whatever the reason.

use domain::StreamKind;

use crate::pipeline::summed;
use crate::win_loss::{DIMENSIONS, Tally, outcomes, share_bp, tally};
use crate::{BadQuestion, Column, ColumnType, Group, Plan, Question, ReadModel, Value};

const COLUMNS: &[Column] = &[
    Column::shown("close_month", ColumnType::Text),
    Column::shown("currency", ColumnType::Text),
    Column::shown("won", ColumnType::Int),
    Column::shown("lost", ColumnType::Int),
    Column::shown("won_minor", ColumnType::Int),
    Column::shown("lost_minor", ColumnType::Int),
    Column::shown("win_rate_bp", ColumnType::Int).or_null(),
    Column::shown("win_rate_value_bp", ColumnType::Int).or_null(),
    Column::shown("median_cycle_days", ColumnType::Int).or_null(),
    Column::shown("p80_cycle_days", ColumnType::Int).or_null(),
];

pub static MODEL: ReadModel = ReadModel {
    name: "win_rate",
    about: "Share of closed deals that were won, by count and by value, and days from opened to won; by month and currency",
    group: Group::Sales,
    version: 1,
    streams: &[StreamKind::Opportunity],
    // It is asked of the table that `win_loss` keeps.
    tables: &[],
    project: |_, _| {},
    plan,
};

fn plan(question: &Question) -> Result<Plan, BadQuestion> {
    question.present_only()?;
    let (select, page) = summed(question, outcomes(["close_month", "currency"]), &DIMENSIONS, COLUMNS)?;
    Ok(page.plan(vec![select], move |mut results| tally(results.remove(0), 2, figures)))
}

fn figures(tally: &Tally) -> Vec<Value> {
    vec![
        Value::Int(tally.won),
        Value::Int(tally.lost),
        Value::Int(tally.won_minor),
        Value::Int(tally.lost_minor),
        share_bp(tally.won, tally.lost),
        share_bp(tally.won_minor, tally.lost_minor),
        tally.cycle_days(50),
        tally.cycle_days(80),
    ]
}

#[cfg(test)]
mod specs {
    use super::*;
    use crate::deals::specs::{lost, twd, won};
    use crate::spec::{World, question};
    use crate::win_loss::{self, specs::ended};

    #[test]
    fn the_rate_is_won_of_won_and_lost_by_count_and_by_value() {
        let mut world = World::new(&[&win_loss::MODEL]);
        for (name, days) in [("a", 3), ("b", 5), ("c", 20)] {
            ended(&mut world, name, days, won(twd(1_000)));
        }
        ended(&mut world, "d", 4, lost("price"));
        let mut expected = vec![Value::Text("2026-01".into()), Value::Text("TWD".into())];
        expected.extend([3, 1, 3_000, 1_000, 7_500, 7_500, 5, 20].map(Value::Int));
        assert_eq!(world.ask(&MODEL, question(&[])).rows, [expected]);
    }
}
