//! Which customers bought lately, often and much, as of any day (RFM).
//!
//! R = days since the last purchase, F = purchases, M = spend, each within 365 days; F and M are net of returns. Each scores 1 to 5 by the fifth of
//! customers it is in; 5 is best, and equal ones share the higher rank. Customers are compared within one currency.

use std::collections::BTreeMap;

use domain::{Currency, Fact, StreamKind};
use jiff::Timestamp;
use jiff::civil::Date;
use uuid::Uuid;

use crate::purchases::movements;
use crate::{
    BadQuestion, Column, ColumnType, ColumnValue, Event, Expr, Group, Page, Plan, Question, ReadModel, Row, Rows,
    Select, Value, days_between, table,
};

table! {
    /// A purchase that came to a customer, or left again: by a void, or to another customer.
    journal CustomerPurchase "customer_purchases" {
        /// When its day of business began.
        set effective_at: Timestamp,
        meta recorded_at: Timestamp,
        set customer: Uuid,
        set business_date: Date,
        set currency: Currency,
        /// Signed; a return is none.
        set sales: i64,
        /// What the customer paid more, or less: for a return less than nothing.
        set total_minor: i64,
        /// The part of it that belongs to returns.
        set returned_minor: i64,
    }
}

pub static MODEL: ReadModel = ReadModel {
    name: "rfm",
    about: "Customers by recency, frequency and spend of the 365 days before as_of, scored 1 to 5, with their segment",
    group: Group::Analytics,
    version: 1,
    streams: &[StreamKind::Purchase],
    tables: &[CustomerPurchase::TABLE],
    project,
    plan,
};

/// Frequency and spend are those of so many days, the day of the question included.
const WINDOW_DAYS: i64 = 365;

fn project(event: &Event, rows: &mut Rows) {
    let Fact::Purchase(fact) = &event.fact else { return };
    for movement in movements(fact) {
        rows.append(CustomerPurchase {
            effective_at: event.calendar.day_start(movement.business_date),
            recorded_at: event.recorded_at,
            customer: movement.customer,
            business_date: movement.business_date,
            currency: movement.currency,
            sales: movement.sales,
            total_minor: movement.total_minor,
            returned_minor: if movement.is_return { movement.total_minor } else { 0 },
        });
    }
}

const COLUMNS: &[Column] = &[
    Column::shown("customer", ColumnType::Uuid),
    Column::shown("currency", ColumnType::Text),
    Column::shown("last_purchase", ColumnType::Date),
    Column::shown("recency_days", ColumnType::Int),
    Column::shown("frequency", ColumnType::Int),
    Column::shown("monetary_minor", ColumnType::Int),
    Column::shown("r", ColumnType::Int),
    Column::shown("f", ColumnType::Int),
    Column::shown("m", ColumnType::Int),
    Column::shown("segment", ColumnType::Text),
];

fn plan(question: &Question) -> Result<Plan, BadQuestion> {
    let page = Page::of(question, COLUMNS)?;
    let days = [
        Expr::Column("currency"),
        Expr::Column("customer"),
        Expr::Column("business_date"),
        Expr::Sum("sales"),
        Expr::Sum("total_minor"),
        Expr::Sum("returned_minor"),
    ];
    // The other filters wait for the scores, which need all customers.
    let select = page.narrow(Select::of(CustomerPurchase::TABLE, days), &["currency"]);
    let select = question.dated(select, "effective_at");
    let today = question.today();
    Ok(page.plan(vec![select], move |mut results| {
        let days: Vec<Day> = results.remove(0).into_iter().map(Day::from_row).collect();
        // Nobody said what day it is: the last one that is known.
        let today = today.or_else(|| days.iter().map(|day| day.date).max());
        today.map(|today| score(&days, today)).unwrap_or_default()
    }))
}

/// What a customer bought on a day.
struct Day {
    currency: String,
    customer: Uuid,
    date: Date,
    sales: i64,
    total_minor: i64,
    returned_minor: i64,
}

impl Day {
    fn from_row(row: Vec<Value>) -> Day {
        let [currency, customer, date, sales, total_minor, returned_minor] =
            <[Value; 6]>::try_from(row).expect("six columns were selected");
        Day {
            currency: currency.as_text().to_owned(),
            customer: Uuid::from_value(customer),
            date: Date::from_value(date),
            sales: sales.as_int(),
            total_minor: total_minor.as_int(),
            returned_minor: returned_minor.as_int(),
        }
    }
}

/// A customer's figures in one currency.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    last_purchase: Date,
    recency_days: i64,
    frequency: i64,
    monetary_minor: i64,
    /// Of the spend, what was taken back: nothing or less.
    returned_minor: i64,
}

impl Figures {
    /// Returns take back purchases in proportion to what they take back of the spend: half of it is half of the purchases, and all of
    /// it is all of them. A part of a purchase that stays is a purchase.
    fn net_of_returns(mut self) -> Figures {
        let bought_minor = i128::from(self.monetary_minor) - i128::from(self.returned_minor);
        if bought_minor > 0 && self.returned_minor < 0 {
            let kept_minor = i128::from(self.monetary_minor.max(0));
            let kept = (i128::from(self.frequency) * kept_minor + bought_minor - 1) / bought_minor;
            self.frequency = i64::try_from(kept).expect("no more than were bought");
        }
        self
    }
}

fn score(days: &[Day], today: Date) -> Vec<Vec<Value>> {
    let mut figures: BTreeMap<(&str, Uuid), Figures> = BTreeMap::new();
    // Whoever has no sale left, for all of it was void or another customer's, never bought.
    for day in days.iter().filter(|day| day.sales > 0 && day.date <= today) {
        let fresh = Figures {
            last_purchase: day.date,
            recency_days: 0,
            frequency: 0,
            monetary_minor: 0,
            returned_minor: 0,
        };
        let customer = figures.entry((&day.currency, day.customer)).or_insert(fresh);
        customer.last_purchase = customer.last_purchase.max(day.date);
        customer.recency_days = days_between(customer.last_purchase, today);
    }
    let is_recent = |date: Date| date <= today && days_between(date, today) < WINDOW_DAYS;
    for day in days.iter().filter(|day| is_recent(day.date)) {
        if let Some(customer) = figures.get_mut(&(day.currency.as_str(), day.customer)) {
            customer.frequency += day.sales;
            customer.monetary_minor += day.total_minor;
            customer.returned_minor += day.returned_minor;
        }
    }
    for customer in figures.values_mut() {
        *customer = customer.net_of_returns();
    }
    let mut scored = Vec::new();
    let mut currencies: Vec<&str> = figures.keys().map(|(currency, _)| *currency).collect();
    currencies.dedup();
    for currency in currencies {
        let buyers: Vec<_> = figures.iter().filter(|((of, _), _)| *of == currency).collect();
        scored.extend(score_currency(&buyers));
    }
    // The best first.
    scored.sort_by(|a, b| {
        a.currency
            .cmp(b.currency)
            .then(b.scores.cmp(&a.scores))
            .then(a.customer.cmp(&b.customer))
    });
    scored.into_iter().map(Scored::into_row).collect()
}

struct Scored<'a> {
    currency: &'a str,
    customer: Uuid,
    figures: Figures,
    /// R, F, M.
    scores: [i64; 3],
}

/// Those who bought within the window are ranked among each other; the others are lost, and score 1.
fn score_currency<'a>(buyers: &[(&(&'a str, Uuid), &Figures)]) -> Vec<Scored<'a>> {
    let is_active = |figures: &Figures| figures.frequency > 0;
    let column = |figure: fn(&Figures) -> i64| {
        let active = buyers.iter().filter(|(_, figures)| is_active(figures));
        let mut values: Vec<i64> = active.map(|(_, figures)| figure(figures)).collect();
        values.sort_unstable();
        values
    };
    let figure: [fn(&Figures) -> i64; 3] = [|f| -f.recency_days, |f| f.frequency, |f| f.monetary_minor];
    let columns = figure.map(column);
    let scored = buyers.iter().map(|((currency, customer), figures)| {
        let mut scores = [1; 3];
        if is_active(figures) {
            for at in 0..3 {
                scores[at] = quintile(&columns[at], figure[at](figures));
            }
        }
        Scored {
            currency,
            customer: *customer,
            figures: **figures,
            scores,
        }
    });
    scored.collect()
}

/// 1 to 5: the fifth in which `value` is among all values, sorted from worst to best. Equal values share the highest rank.
fn quintile(values: &[i64], value: i64) -> i64 {
    let rank = values.partition_point(|other| *other <= value);
    (5 * rank).div_ceil(values.len()) as i64
}

/// The usual segments by R and F. What they spend (M) is a score beside them.
fn segment(figures: &Figures, [r, f, _]: [i64; 3]) -> &'static str {
    if figures.frequency <= 0 {
        return "lost";
    }
    match (r, f) {
        (5, 4 | 5) => "champions",
        (3 | 4, 4 | 5) => "loyal",
        (4 | 5, 2 | 3) => "potential-loyalists",
        (5, _) => "new",
        (4, _) => "promising",
        (3, 3) => "need-attention",
        (3, _) => "about-to-sleep",
        (_, 5) => "cannot-lose",
        (_, 3 | 4) => "at-risk",
        (_, _) => "hibernating",
    }
}

impl Scored<'_> {
    fn into_row(self) -> Vec<Value> {
        let [r, f, m] = self.scores;
        vec![
            Value::Uuid(self.customer),
            Value::Text(self.currency.to_owned()),
            Value::Date(self.figures.last_purchase),
            Value::Int(self.figures.recency_days),
            Value::Int(self.figures.frequency),
            Value::Int(self.figures.monetary_minor),
            Value::Int(r),
            Value::Int(f),
            Value::Int(m),
            Value::Text(segment(&self.figures, self.scores).to_owned()),
        ]
    }
}

#[cfg(test)]
mod specs {
    use domain::{Calendar, purchase};
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
    use crate::purchases::specs::{attached, recorded, stream, voided};
    use crate::spec::{World, id, question};

    fn day_start(day: Date) -> Timestamp {
        Calendar::taipei().day_start(day)
    }

    fn sale(customer: &str, on: Date, amount_minor: i64) -> purchase::Event {
        recorded("taipei", on, &[("A", "1", amount_minor)], Some(customer))
    }

    fn record(world: &mut World, receipt: &str, fact: purchase::Event, recorded_on: Date) {
        world.record_at(
            stream(receipt),
            None,
            fact,
            day_start(recorded_on),
            day_start(recorded_on),
        );
    }

    /// Customer, recency, frequency, spend, scores and segment, the best first.
    fn ask(world: &World, as_of: Date) -> Vec<(Uuid, [i64; 6], String)> {
        let mut question = question(&[]);
        question.as_of = Some(day_start(as_of));
        let rows = world.ask(&MODEL, question).rows;
        let told = rows.into_iter().map(|row| {
            let ints = [3, 4, 5, 6, 7, 8].map(|at: usize| row[at].as_int());
            (Uuid::from_value(row[0].clone()), ints, row[9].as_text().to_owned())
        });
        told.collect()
    }

    #[test]
    fn customers_are_ranked_by_when_how_often_and_how_much_they_bought() {
        let mut world = World::new(&[&MODEL]);
        let day = date(2026, 3, 1);
        record(&mut world, "1", sale("a", date(2026, 2, 27), 500), day);
        record(&mut world, "2", sale("a", date(2026, 1, 1), 500), day);
        record(&mut world, "3", sale("b", date(2025, 12, 1), 300), day);
        record(
            &mut world,
            "4",
            recorded("taipei", date(2025, 12, 2), &[("A", "-1", -100)], Some("b")),
            day,
        );
        record(&mut world, "5", sale("c", date(2024, 1, 1), 9_000), day);
        let expected = vec![
            (id("a"), [2, 2, 1_000, 5, 5, 5], "champions".to_owned()),
            (id("b"), [90, 1, 200, 3, 3, 3], "need-attention".to_owned()),
            (id("c"), [790, 0, 0, 1, 1, 1], "lost".to_owned()),
        ];
        assert_eq!(ask(&world, day), expected);
    }

    #[test]
    fn who_returned_everything_is_no_champion_and_who_returned_half_bought_half() {
        let mut world = World::new(&[&MODEL]);
        let day = date(2026, 3, 1);
        let back = |amount: i64, customer| recorded("taipei", day, &[("A", "-1", -amount)], Some(customer));
        for (receipt, customer) in [("1", "a"), ("2", "a"), ("3", "b"), ("4", "b"), ("5", "c")] {
            record(&mut world, receipt, sale(customer, date(2026, 2, 1), 500), day);
        }
        record(&mut world, "6", back(500, "a"), day);
        record(&mut world, "7", back(500, "a"), day);
        record(&mut world, "8", back(500, "b"), day);
        record(&mut world, "9", back(100, "c"), day);
        let told: Vec<_> = ask(&world, day)
            .into_iter()
            .map(|(customer, [_, frequency, money, ..], segment)| (customer, frequency, money, segment))
            .collect();
        let row = |name, frequency, money, segment: &str| (id(name), frequency, money, segment.to_owned());
        assert_eq!(told.len(), 3);
        assert!(told.contains(&row("a", 0, 0, "lost")), "{told:?}");
        assert!(told.contains(&row("b", 1, 500, "champions")), "{told:?}");
        assert!(told.contains(&row("c", 1, 400, "champions")), "{told:?}");
    }

    #[test]
    fn what_was_bought_counts_for_365_days() {
        let mut world = World::new(&[&MODEL]);
        let bought = date(2025, 3, 1);
        record(&mut world, "1", sale("a", bought, 500), bought);
        let frequency = |as_of| ask(&world, as_of)[0].1[1];
        assert_eq!((frequency(date(2026, 2, 28)), frequency(date(2026, 3, 1))), (1, 0));
        assert_eq!(ask(&world, date(2025, 2, 28)), vec![]);
    }

    #[test]
    fn a_purchase_that_was_void_or_another_customers_does_not_count() {
        let mut world = World::new(&[&MODEL]);
        let day = date(2026, 3, 1);
        let (first, second) = (sale("a", date(2026, 2, 1), 500), sale("a", date(2026, 2, 20), 700));
        record(&mut world, "1", first.clone(), day);
        record(&mut world, "2", second.clone(), day);
        record(&mut world, "2", attached(&second, Some("a"), "b"), day);
        let figures = |world: &World, name: &str| {
            let rows = ask(world, day);
            let row = rows.into_iter().find(|(customer, _, _)| *customer == id(name));
            row.map(|(_, ints, _)| (ints[0], ints[1], ints[2]))
        };
        assert_eq!(figures(&world, "a"), Some((28, 1, 500)));
        assert_eq!(figures(&world, "b"), Some((9, 1, 700)));
        record(&mut world, "1", voided(&first, Some("a")), day);
        assert_eq!(figures(&world, "a"), None);
    }

    #[test]
    fn a_question_may_ask_for_a_segment_and_ranks_stay() {
        let mut world = World::new(&[&MODEL]);
        let day = date(2026, 3, 1);
        record(&mut world, "1", sale("a", date(2026, 2, 27), 500), day);
        record(&mut world, "2", sale("b", date(2025, 12, 1), 300), day);
        let filter = format!("customer={}", id("b"));
        let mut question = question(&[&filter]);
        question.as_of = Some(day_start(day));
        let rows = world.ask(&MODEL, question).rows;
        assert_eq!((rows.len(), rows[0][6].as_int()), (1, 3));
    }

    #[test]
    fn every_pair_of_scores_has_its_segment() {
        let figures = Figures {
            last_purchase: date(2026, 3, 1),
            recency_days: 0,
            frequency: 1,
            monetary_minor: 0,
            returned_minor: 0,
        };
        let grid = (1..=5).map(|r| (1..=5).map(move |f| segment(&figures, [r, f, 1])).collect::<Vec<_>>());
        let expected = [
            ["hibernating", "hibernating", "at-risk", "at-risk", "cannot-lose"],
            ["hibernating", "hibernating", "at-risk", "at-risk", "cannot-lose"],
            ["about-to-sleep", "about-to-sleep", "need-attention", "loyal", "loyal"],
            [
                "promising",
                "potential-loyalists",
                "potential-loyalists",
                "loyal",
                "loyal",
            ],
            [
                "new",
                "potential-loyalists",
                "potential-loyalists",
                "champions",
                "champions",
            ],
        ];
        assert_eq!(grid.collect::<Vec<_>>(), expected);
    }

    proptest! {
        #[test]
        fn equal_values_share_the_higher_rank_and_better_ones_score_no_less(
            mut values in proptest::collection::vec(-20_i64..20, 1..60),
        ) {
            values.sort_unstable();
            for (at, value) in values.iter().enumerate() {
                let score = quintile(&values, *value);
                prop_assert!((1..=5).contains(&score));
                // The score of the last of its equals, had each a rank of its own.
                let highest = values.iter().rposition(|other| other == value).unwrap() + 1;
                prop_assert_eq!(score, (5 * highest).div_ceil(values.len()) as i64);
                if at > 0 {
                    prop_assert!(quintile(&values, values[at - 1]) <= score);
                }
            }
            prop_assert_eq!(quintile(&values, *values.last().unwrap()), 5);
        }
    }
}
