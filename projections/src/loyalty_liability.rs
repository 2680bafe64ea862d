//! The points that each program owes its members, by the month in which they expire.
//!
//! In points: what a point costs is the finance department's to say, and no event tells it.

use domain::loyalty;
use domain::{Fact, StreamKind};
use uuid::Uuid;

use crate::loyalty_balance::lot_deltas;
use crate::{
    BadQuestion, Column, ColumnType, Event, Group, Page, Plan, Question, ReadModel, Row, Rows, Select, Value, month_of,
    table,
};

table! {
    /// `outstanding = issued - redeemed - expired`. Points that paid off a debt never were outstanding, and are in none.
    rollup LoyaltyLiabilityRow "loyalty_liabilities" {
        key program: String,
        /// Empty for points that never expire.
        key expiry_month: String,
        sum outstanding: i64,
        /// Earned or given by adjustments, less what was taken back.
        sum issued: i64,
        /// Less what was given back.
        sum redeemed: i64,
        sum expired: i64,
    }
}

table! {
    /// Which program an account is in; its later events do not say.
    entity LoyaltyProgramOf "loyalty_programs" {
        key account: Uuid,
        set program: String,
    }
}

pub static MODEL: ReadModel = ReadModel {
    name: "loyalty_liability",
    about: "Points outstanding, issued, redeemed and expired, by program and expiry month, and the share that expired",
    group: Group::Analytics,
    version: 1,
    streams: &[StreamKind::Loyalty],
    tables: &[LoyaltyLiabilityRow::TABLE, LoyaltyProgramOf::TABLE],
    project,
    plan,
};

fn project(event: &Event, rows: &mut Rows) {
    let Fact::Loyalty(fact) = &event.fact else { return };
    let account = event.stream.id;
    if let loyalty::Event::Enrolled { program, .. } = fact {
        rows.put(LoyaltyProgramOf {
            account,
            program: program.clone(),
        });
        return;
    }
    let Some(LoyaltyProgramOf { program, .. }) = rows.get(account) else {
        return;
    };
    for (expires_on, points) in lot_deltas(fact) {
        let mut row = LoyaltyLiabilityRow {
            program: program.clone(),
            expiry_month: expires_on.map(month_of).unwrap_or_default(),
            outstanding: points,
            issued: 0,
            redeemed: 0,
            expired: 0,
        };
        match fact {
            loyalty::Event::Enrolled { .. } => {}
            loyalty::Event::Earned { .. } | loyalty::Event::EarnReversed { .. } | loyalty::Event::Adjusted { .. } => {
                row.issued = points
            }
            loyalty::Event::Redeemed { .. } | loyalty::Event::RedemptionReversed { .. } => row.redeemed = -points,
            loyalty::Event::Expired { .. } => row.expired = -points,
        }
        rows.add(row);
    }
}

const COLUMNS: &[Column] = &[
    Column::shown("program", ColumnType::Text),
    Column::shown("expiry_month", ColumnType::Text).or_null(),
    Column::shown("outstanding", ColumnType::Int),
    Column::shown("issued", ColumnType::Int),
    Column::shown("redeemed", ColumnType::Int),
    Column::shown("expired", ColumnType::Int),
    Column::shown("breakage_bp", ColumnType::Int).or_null(),
];

fn plan(question: &Question) -> Result<Plan, BadQuestion> {
    question.present_only()?;
    let page = Page::of(question, COLUMNS)?;
    let select = page.narrow(Select::all(LoyaltyLiabilityRow::TABLE), &["program"]);
    Ok(page.plan(vec![select], move |mut results| {
        let mut rows: Vec<_> = results
            .remove(0)
            .into_iter()
            .map(LoyaltyLiabilityRow::from_values)
            .collect();
        rows.retain(|row| (row.outstanding, row.issued, row.redeemed, row.expired) != (0, 0, 0, 0));
        rows.sort_by(|a, b| (&a.program, &a.expiry_month).cmp(&(&b.program, &b.expiry_month)));
        rows.into_iter().map(with_breakage).collect()
    }))
}

/// Breakage: the share of what was issued that expired, in basis points.
fn with_breakage(row: LoyaltyLiabilityRow) -> Vec<Value> {
    let breakage = (row.issued > 0).then(|| i128::from(row.expired) * 10_000 / i128::from(row.issued));
    let mut values = row.into_values();
    if values[1].as_text().is_empty() {
        values[1] = Value::Null;
    }
    let breakage_bp = breakage.and_then(|breakage| i64::try_from(breakage).ok());
    values.push(breakage_bp.map_or(Value::Null, Value::Int));
    values
}

#[cfg(test)]
mod specs {
    use std::collections::BTreeMap;

    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
    use crate::loyalty_balance::specs::{account, commands, earn, redeem, reverse};
    use crate::spec::{World, question};

    fn ask(world: &World, filters: &[&str]) -> Vec<String> {
        let rows = world.ask(&MODEL, question(filters)).rows;
        let line = |row: &Vec<Value>| row.iter().map(Value::to_text).collect::<Vec<_>>().join(" ");
        rows.iter().map(line).collect()
    }

    #[test]
    fn points_are_owed_until_they_are_redeemed_or_expire() {
        let (world, _) = account(
            &[&MODEL],
            vec![
                earn(100, "r1", Some(date(2026, 3, 6))),
                earn(50, "r2", None),
                redeem(40, "coffee"),
                redeem(20, "tea"),
                reverse("tea"),
                loyalty::Command::Expire { on: date(2026, 3, 6) },
            ],
        );
        assert_eq!(
            ask(&world, &[]),
            ["points  50 50 0 0 0", "points 2026-03 0 100 40 60 6000"]
        );
        assert_eq!(ask(&world, &["expiry_month is null"]), ["points  50 50 0 0 0"]);
        assert_eq!(ask(&world, &["program=miles"]), Vec::<String>::new());
    }

    #[test]
    fn what_was_earned_and_taken_back_was_not_issued() {
        let (world, _) = account(&[&MODEL], vec![earn(100, "r1", None), reverse("r1")]);
        assert_eq!(ask(&world, &[]), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn the_outstanding_points_of_each_month_are_those_in_the_lots(commands in commands()) {
            let (world, state) = account(&[&MODEL], commands);
            let mut left: BTreeMap<String, i64> = BTreeMap::new();
            for lot in state.lots.values().filter(|lot| lot.left > 0) {
                *left.entry(lot.expires_on.map(month_of).unwrap_or_default()).or_default() += lot.left;
            }
            let rows = world.rows::<LoyaltyLiabilityRow>();
            for row in &rows {
                prop_assert_eq!(row.outstanding, row.issued - row.redeemed - row.expired);
            }
            let outstanding = rows.into_iter().filter(|row| row.outstanding != 0);
            let outstanding: BTreeMap<_, _> = outstanding.map(|row| (row.expiry_month, row.outstanding)).collect();
            prop_assert_eq!(outstanding, left);
        }
    }
}
