//! How many of the customers who first bought in a month still buy in the months after, as of any day.

use std::collections::{BTreeMap, BTreeSet};

use domain::{DAY_MAX, DAY_MIN};
use domain::{Fact, StreamKind};
use jiff::Timestamp;
use uuid::Uuid;

use crate::purchases::movements;
use crate::{
    BadQuestion, Column, ColumnType, ColumnValue, Event, Expr, Group, Page, Plan, Question, ReadModel, Row, Rows,
    Select, Value, month_of, table,
};

table! {
    /// A sale that came to a customer, or left again: by a void, or to another customer.
    journal CohortPurchase "cohort_purchases" {
        /// When its day of business began.
        set effective_at: Timestamp,
        meta recorded_at: Timestamp,
        set customer: Uuid,
        set month: String,
        /// Signed.
        set sales: i64,
    }
}

pub static MODEL: ReadModel = ReadModel {
    name: "cohort_retention",
    about: "Of the customers who first bought in a month (cohort), how many bought k months later; cohorts of the last ten years",
    group: Group::Analytics,
    version: 1,
    streams: &[StreamKind::Purchase],
    tables: &[CohortPurchase::TABLE],
    project,
    plan,
};

fn project(event: &Event, rows: &mut Rows) {
    let Fact::Purchase(fact) = &event.fact else { return };
    for movement in movements(fact).into_iter().filter(|movement| movement.sales != 0) {
        rows.append(CohortPurchase {
            effective_at: event.calendar.day_start(movement.business_date),
            recorded_at: event.recorded_at,
            customer: movement.customer,
            month: month_of(movement.business_date),
            sales: movement.sales,
        });
    }
}

/// Months of cohorts, and so months for which one is followed, at most: ten years up to the last purchase. The answer has
/// `MONTHS_MAX * (MONTHS_MAX + 1) / 2` rows at most, whatever days are in the log. `as_of` asks for earlier ones.
const MONTHS_MAX: i64 = 120;

const COLUMNS: &[Column] = &[
    Column::shown("cohort", ColumnType::Text),
    Column::shown("k", ColumnType::Int),
    Column::shown("size", ColumnType::Int),
    Column::shown("active", ColumnType::Int),
    Column::shown("retention_bp", ColumnType::Int),
];

fn plan(question: &Question) -> Result<Plan, BadQuestion> {
    let page = Page::of(question, COLUMNS)?;
    let months = [Expr::Column("customer"), Expr::Column("month"), Expr::Sum("sales")];
    let select = question.dated_by_now(Select::of(CohortPurchase::TABLE, months), "effective_at");
    // Old logs have days of the year 10 and of the year 9999; nobody bought then, and nobody bought tomorrow.
    let today = question.today().unwrap_or(DAY_MAX);
    let months = month_number(&month_of(DAY_MIN))..=month_number(&month_of(today.min(DAY_MAX)));
    Ok(page.plan(vec![select], move |mut results| {
        let mut bought: BTreeMap<Uuid, BTreeSet<i64>> = BTreeMap::new();
        for row in results.remove(0) {
            let month = month_number(row[1].as_text());
            if row[2].as_int() > 0 && months.contains(&month) {
                bought
                    .entry(Uuid::from_value(row[0].clone()))
                    .or_default()
                    .insert(month);
            }
        }
        retention(bought.into_values())
    }))
}

/// Each cohort from its first month (k = 0) to the last month in which anybody bought; those of the last `MONTHS_MAX` months.
fn retention(bought: impl Iterator<Item = BTreeSet<i64>>) -> Vec<Vec<Value>> {
    let mut active: BTreeMap<i64, BTreeMap<i64, i64>> = BTreeMap::new();
    let mut last = i64::MIN;
    for months in bought {
        let Some(first) = months.first().copied() else { continue };
        for month in months {
            *active.entry(first).or_default().entry(month).or_default() += 1;
            last = last.max(month);
        }
    }
    let mut rows = Vec::new();
    active.retain(|cohort, _| last - cohort < MONTHS_MAX);
    for (cohort, by_month) in active {
        let size = by_month[&cohort];
        for month in cohort..=last {
            let buyers = by_month.get(&month).copied().unwrap_or(0);
            // Rounded to the nearest basis point.
            let retention_bp = (buyers * 10_000 + size / 2) / size;
            rows.push(vec![
                Value::Text(month_name(cohort)),
                Value::Int(month - cohort),
                Value::Int(size),
                Value::Int(buyers),
                Value::Int(retention_bp),
            ]);
        }
    }
    rows
}

/// Months since the year 0, of `2026-03`.
fn month_number(month: &str) -> i64 {
    let (year, month) = month.split_once('-').expect("a month is written year-month");
    let number = |text: &str| text.parse::<i64>().expect("a month is written in digits");
    number(year) * 12 + number(month) - 1
}

fn month_name(number: i64) -> String {
    format!("{:04}-{:02}", number.div_euclid(12), number.rem_euclid(12) + 1)
}

#[cfg(test)]
mod specs {
    use domain::{Calendar, purchase};
    use jiff::civil::{Date, date};

    use super::*;
    use crate::purchases::specs::{attached, recorded, stream, voided};
    use crate::spec::{World, question};

    fn day_start(day: Date) -> Timestamp {
        Calendar::taipei().day_start(day)
    }

    fn sale(customer: &str, on: Date) -> purchase::Event {
        recorded("taipei", on, &[("A", "1", 100)], Some(customer))
    }

    fn record(world: &mut World, receipt: &str, fact: purchase::Event, on: Date) {
        world.record_at(stream(receipt), None, fact, day_start(on), day_start(on));
    }

    fn world(sales: &[(&str, Date)]) -> World {
        let mut world = World::new(&[&MODEL]);
        for (n, (customer, on)) in sales.iter().enumerate() {
            record(&mut world, &n.to_string(), sale(customer, *on), *on);
        }
        world
    }

    /// Cohort, k, size, active, basis points.
    fn ask(world: &World, as_of: Option<Date>) -> Vec<String> {
        let mut question = question(&[]);
        question.as_of = as_of.map(day_start);
        let rows = world.ask(&MODEL, question).rows;
        let line = |row: &Vec<Value>| row.iter().map(Value::to_text).collect::<Vec<_>>().join(" ");
        rows.iter().map(line).collect()
    }

    #[test]
    fn a_cohort_is_followed_from_its_first_month() {
        let world = world(&[
            ("a", date(2025, 11, 3)),
            ("b", date(2025, 11, 9)),
            ("c", date(2025, 11, 9)),
            ("a", date(2026, 1, 5)),
            ("a", date(2026, 1, 6)),
            ("d", date(2026, 1, 7)),
        ]);
        let expected = [
            "2025-11 0 3 3 10000",
            "2025-11 1 3 0 0",
            "2025-11 2 3 1 3333",
            "2026-01 0 1 1 10000",
        ];
        assert_eq!(ask(&world, None), expected);
        assert_eq!(ask(&world, Some(date(2025, 12, 31))), ["2025-11 0 3 3 10000"]);
        let rows = world.ask(&MODEL, question(&["k=2"])).rows;
        assert_eq!(rows.len(), 1);
    }

    #[test]
    fn an_answer_has_the_cohorts_of_ten_years_whatever_days_are_in_the_log() {
        let mut sales = vec![
            ("a", date(10, 12, 1)),
            ("b", date(9999, 12, 31)),
            ("b", date(2026, 3, 1)),
        ];
        let months: Vec<Date> = (0..200).map(|n| date(2010 + n / 12, (n % 12 + 1) as i8, 1)).collect();
        let names: Vec<String> = (0..200).map(|n| format!("customer-{n}")).collect();
        sales.extend(names.iter().map(String::as_str).zip(months));
        let world = world(&sales);
        let ask = |now: Option<Date>| {
            let mut question = question(&[]);
            question.now = now.map(day_start);
            question.limit = Some(10_000);
            let rows = world.ask(&MODEL, question).rows;
            let cohort = |row: Option<&Vec<Value>>| row.map(|row| row[0].to_text()).unwrap();
            (rows.len() as i64, cohort(rows.first()), cohort(rows.last()))
        };
        // One cohort a month from April 2016 to August 2026, and the last purchase is in August 2026.
        let all = MONTHS_MAX * (MONTHS_MAX + 1) / 2;
        assert_eq!(ask(None), (all, "2016-09".into(), "2026-08".into()));
        // Nobody bought after today.
        assert_eq!(ask(Some(date(2020, 5, 31))), (all, "2010-06".into(), "2020-05".into()));
    }

    #[test]
    fn a_return_is_no_purchase_and_a_void_moves_the_customer_to_the_next_cohort() {
        let mut world = world(&[("a", date(2025, 11, 3)), ("a", date(2025, 12, 3))]);
        let back = recorded("taipei", date(2026, 2, 1), &[("A", "-1", -100)], Some("a"));
        record(&mut world, "back", back, date(2026, 2, 1));
        assert_eq!(ask(&world, None), ["2025-11 0 1 1 10000", "2025-11 1 1 1 10000"]);
        let first = sale("a", date(2025, 11, 3));
        record(&mut world, "0", voided(&first, Some("a")), date(2026, 3, 1));
        assert_eq!(ask(&world, None), ["2025-12 0 1 1 10000"]);
    }

    #[test]
    fn a_purchase_counts_for_the_customer_it_belongs_to_in_the_end() {
        let mut world = world(&[("a", date(2025, 11, 3)), ("a", date(2025, 12, 3))]);
        let second = sale("a", date(2025, 12, 3));
        record(&mut world, "1", attached(&second, Some("a"), "b"), date(2026, 3, 1));
        let expected = ["2025-11 0 1 1 10000", "2025-11 1 1 0 0", "2025-12 0 1 1 10000"];
        assert_eq!(ask(&world, None), expected);
    }
}
