//! Sales by month, country and store, and by product: as they were reported at any time, and as they are known to be now.
//!
//! What a receipt sold counts at its day of business, whenever it was sent; a void takes it back at that same day, and
//! a correction puts what is right in its place. A receipt of tomorrow, of a till in a time zone where it is, counts
//! since it was written down. So a late receipt changes the month it belongs to, and the question's `known_at` still
//! gives the month as it was reported.

use std::collections::BTreeMap;

use domain::{Currency, Fact, StreamKind, purchase};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    BadQuestion, Column, ColumnType, Event, Expr, Group, Op, Page, Plan, Question, ReadModel, Row, Rows, Select, Value,
    month_of, table,
};

table! {
    /// What a receipt sold, kept until it is void: only then, and when it is corrected, is it needed again.
    entity SalesReceipt "sales_receipts" {
        key purchase: Uuid,
        /// When it was first written down.
        meta known_since: Timestamp,
        set sold: Vec<Sold>,
    }
}

table! {
    /// A receipt more, or one less: a row for all of it, with an empty `sku`, and one for each of its products.
    journal SalesChange "sales_changes" {
        /// When its day of business began, or when it was written down before that.
        set effective_at: Timestamp,
        meta recorded_at: Timestamp,
        set month: String,
        set country: String,
        set store: String,
        set sku: String,
        set currency: Currency,
        set quantity_milli: i64,
        set amount_minor: i64,
        set receipts: i64,
        set returns: i64,
    }
}

table! {
    /// The sum of all changes, for the fast answer of today.
    rollup SalesTotal "sales_totals" {
        key month: String,
        /// Of a store that is written `country:<name>`, as web shops are; else empty.
        key country: String,
        /// Empty when the receipt named none.
        key store: String,
        /// Empty on the rows for all products together.
        key sku: String,
        key currency: Currency,
        /// Thousandths.
        sum quantity_milli: i64,
        sum amount_minor: i64,
        /// Receipts with this product, those of returns too.
        sum receipts: i64,
        /// How many of those were returns.
        sum returns: i64,
    }
}

/// What a receipt sold of one product, or of all (an empty `sku`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sold {
    pub sku: String,
    pub quantity_milli: i64,
    pub amount_minor: i64,
}

pub static MODEL: ReadModel = ReadModel {
    name: "sales_by_month",
    about: "Sales by month, country, store and currency, for all products or sku=<one>; for any past date, as reported or restated",
    group: Group::Analytics,
    version: 2,
    streams: &[StreamKind::Purchase],
    tables: &[SalesReceipt::TABLE, SalesChange::TABLE, SalesTotal::TABLE],
    project,
    plan: |question| plan(question, MONTH_COLUMNS, Sum::AllProducts),
};

/// The same sales by product; `sales_by_month` makes the rows.
pub static BY_PRODUCT: ReadModel = ReadModel {
    name: "sales_by_product",
    about: "Sales by month, product and currency, of all stores or store=<one> or country=<one>; for any past date",
    group: Group::Analytics,
    version: 1,
    streams: &[StreamKind::Purchase],
    tables: &[],
    project: |_, _| {},
    plan: |question| plan(question, PRODUCT_COLUMNS, Sum::EachProduct),
};

/// The `sku` of the rows for all products together: no product is called so.
const ALL_PRODUCTS: &str = "";

fn project(event: &Event, rows: &mut Rows) {
    let Fact::Purchase(fact) = &event.fact else { return };
    let purchase = event.stream.id;
    match fact {
        purchase::Event::Recorded {
            kind,
            store,
            business_date,
            currency,
            lines,
            ..
        } => {
            let receipt = Counted::new(*kind, store.as_deref(), *business_date, *currency);
            // It is the first of its stream: nothing is to be looked up.
            put_in(event, rows, &receipt, event.recorded_at, sold(lines));
        }
        purchase::Event::Voided {
            kind,
            store,
            business_date,
            currency,
            ..
        } => {
            let receipt = Counted::new(*kind, store.as_deref(), *business_date, *currency);
            let before = rows.get::<SalesReceipt>(event.stream.id);
            take_out(event, rows, &receipt, before);
            rows.remove::<SalesReceipt>(purchase);
        }
        purchase::Event::Corrected {
            kind,
            store,
            business_date,
            currency,
            lines,
            was,
            ..
        } => {
            let before = rows.get::<SalesReceipt>(event.stream.id);
            let known_since = before.as_ref().map_or(event.recorded_at, |before| before.known_since);
            if let Some(was) = was {
                let receipt = Counted::new(was.kind, was.store.as_deref(), was.business_date, was.currency);
                take_out(event, rows, &receipt, before);
            }
            let receipt = Counted::new(*kind, store.as_deref(), *business_date, *currency);
            put_in(event, rows, &receipt, known_since, sold(lines));
        }
        purchase::Event::CustomerAttached { .. } => {}
    }
}

/// Where a receipt counts.
struct Counted<'a> {
    is_return: bool,
    store: &'a str,
    business_date: Date,
    currency: Currency,
}

impl Counted<'_> {
    fn new(kind: purchase::Kind, store: Option<&str>, business_date: Date, currency: Currency) -> Counted<'_> {
        Counted {
            is_return: kind == purchase::Kind::Return,
            store: store.unwrap_or_default(),
            business_date,
            currency,
        }
    }
}

/// `known_since` is when the receipt was first written down.
fn put_in(event: &Event, rows: &mut Rows, receipt: &Counted<'_>, known_since: Timestamp, sold: Vec<Sold>) {
    rows.put(SalesReceipt {
        purchase: event.stream.id,
        known_since,
        sold: sold.clone(),
    });
    count(event, rows, receipt, known_since, sold, 1);
}

fn take_out(event: &Event, rows: &mut Rows, receipt: &Counted<'_>, before: Option<SalesReceipt>) {
    if let Some(before) = before {
        count(event, rows, receipt, before.known_since, before.sold, -1);
    }
}

fn count(event: &Event, rows: &mut Rows, receipt: &Counted<'_>, known_since: Timestamp, sold: Vec<Sold>, sign: i64) {
    let country = receipt.store.strip_prefix("country:").unwrap_or_default();
    for part in sold {
        let total = SalesTotal {
            month: month_of(receipt.business_date),
            country: country.to_owned(),
            store: receipt.store.to_owned(),
            sku: part.sku,
            currency: receipt.currency,
            quantity_milli: part.quantity_milli * sign,
            amount_minor: part.amount_minor.saturating_mul(sign),
            receipts: sign,
            returns: sign * i64::from(receipt.is_return),
        };
        let since = event.calendar.day_start(receipt.business_date).min(known_since);
        rows.append(total.clone().at(since, event.recorded_at));
        rows.add(total);
    }
}

impl SalesTotal {
    fn at(self, effective_at: Timestamp, recorded_at: Timestamp) -> SalesChange {
        let SalesTotal {
            month,
            country,
            store,
            sku,
            currency,
            quantity_milli,
            amount_minor,
            receipts,
            returns,
        } = self;
        SalesChange {
            effective_at,
            recorded_at,
            month,
            country,
            store,
            sku,
            currency,
            quantity_milli,
            amount_minor,
            receipts,
            returns,
        }
    }
}

/// The whole receipt first, then each of its products once.
fn sold(lines: &[purchase::Line]) -> Vec<Sold> {
    let mut sold: BTreeMap<&str, Sold> = BTreeMap::new();
    for line in lines {
        for sku in [ALL_PRODUCTS, &line.sku] {
            let part = sold.entry(sku).or_insert_with(|| Sold {
                sku: sku.to_owned(),
                quantity_milli: 0,
                amount_minor: 0,
            });
            part.quantity_milli += quantity_milli(line);
            part.amount_minor = part.amount_minor.saturating_add(line.amount_minor);
        }
    }
    sold.into_values().collect()
}

/// More thousandths than this are no sale but a slip of the till; they count as so many.
const QUANTITY_MILLI_MAX: i64 = 1_000_000_000_000;

/// In thousandths, half-even.
fn quantity_milli(line: &purchase::Line) -> i64 {
    let thousandths = line.quantity.checked_mul(1_000.into());
    let rounded = thousandths.and_then(|thousandths| i64::try_from(thousandths.round_dp(0)).ok());
    let slip = if line.quantity.is_sign_negative() {
        i64::MIN
    } else {
        i64::MAX
    };
    rounded.unwrap_or(slip).clamp(-QUANTITY_MILLI_MAX, QUANTITY_MILLI_MAX)
}

const MONTH_COLUMNS: &[Column] = &[
    Column::shown("month", ColumnType::Text),
    Column::shown("country", ColumnType::Text),
    Column::shown("store", ColumnType::Text),
    Column::shown("currency", ColumnType::Text),
    Column::shown("quantity_milli", ColumnType::Int),
    Column::shown("amount_minor", ColumnType::Int),
    Column::shown("receipts", ColumnType::Int),
    Column::shown("returns", ColumnType::Int),
];

const PRODUCT_COLUMNS: &[Column] = &[
    Column::shown("month", ColumnType::Text),
    Column::shown("sku", ColumnType::Text),
    Column::shown("currency", ColumnType::Text),
    Column::shown("quantity_milli", ColumnType::Int),
    Column::shown("amount_minor", ColumnType::Int),
    Column::shown("receipts", ColumnType::Int),
    Column::shown("returns", ColumnType::Int),
];

const DIMENSIONS: [&str; 5] = ["month", "country", "store", "sku", "currency"];

/// Which rows are summed, when the question names no product.
#[derive(Clone, Copy, PartialEq)]
enum Sum {
    AllProducts,
    EachProduct,
}

fn plan(question: &Question, columns: &'static [Column], sum: Sum) -> Result<Plan, BadQuestion> {
    // A filter on a dimension that the answer does not show chooses what is summed.
    let is_shown = |name: &str| columns.iter().any(|column| column.name == name);
    let is_hidden = |name: &str| DIMENSIONS.contains(&name) && !is_shown(name);
    let filters = question.filters.iter().cloned();
    let (hidden, shown): (Vec<_>, Vec<_>) = filters.partition(|filter| is_hidden(&filter.column));
    let names_product = hidden.iter().any(|filter| filter.column == "sku");
    let hidden = Question {
        filters: hidden,
        ..Question::new(question.calendar.clone())
    };
    let page = Page::of(
        &Question {
            filters: shown,
            ..question.clone()
        },
        columns,
    )?;

    let is_dated = question.as_of.is_some() || question.known_until.is_some();
    let table = if is_dated {
        SalesChange::TABLE
    } else {
        SalesTotal::TABLE
    };
    let exprs = columns.iter().map(|column| match column.ty {
        ColumnType::Int => Expr::Sum(column.name),
        _ => Expr::Column(column.name),
    });
    let mut select = page.narrow(hidden.narrow(Select::of(table, exprs))?, &DIMENSIONS);
    let all_products = Value::Text(ALL_PRODUCTS.to_owned());
    if sum == Sum::EachProduct {
        select = select.filter("sku", Op::Ne, all_products);
    } else if !names_product {
        select = select.filter("sku", Op::Eq, all_products);
    }
    if is_dated {
        select = question.dated(select, "effective_at");
    }
    let sums_from = columns.len() - 4;
    Ok(page.plan(vec![select], move |mut results| {
        let mut rows = results.remove(0);
        // What was sold and taken back leaves nothing.
        rows.retain(|row| row[sums_from..].iter().any(|sum| sum.as_int() != 0));
        rows.sort_unstable();
        rows
    }))
}

#[cfg(test)]
mod specs {
    use domain::Calendar;
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
    use crate::Answer;
    use crate::purchases::specs::{attached, corrected, recorded, stream, voided};
    use crate::spec::{World, question};

    fn day(n: i8) -> Date {
        date(2026, 3, n)
    }

    /// Noon of that day of March.
    fn noon(n: i8) -> Timestamp {
        Timestamp::from_second(Calendar::taipei().day_start(day(n)).as_second() + 43_200).unwrap()
    }

    fn record(world: &mut World, receipt: &str, fact: purchase::Event, recorded_on: i8) {
        world.record_at(stream(receipt), None, fact, noon(recorded_on), noon(recorded_on));
    }

    fn rows(answer: &Answer) -> Vec<String> {
        let line = |row: &Vec<Value>| row.iter().map(Value::to_text).collect::<Vec<_>>().join(" ");
        answer.rows.iter().map(line).collect()
    }

    fn world() -> World {
        let mut world = World::new(&[&MODEL, &BY_PRODUCT]);
        let lines = [("A", "2", 200), ("B", "0.5", 50), ("A", "1", 100)];
        record(&mut world, "1", recorded("taipei", day(1), &lines, None), 1);
        record(
            &mut world,
            "2",
            recorded("taipei", day(2), &[("A", "-1", -100)], None),
            2,
        );
        let abroad = recorded("country:France", date(2026, 2, 28), &[("B", "4", 400)], None);
        record(&mut world, "3", abroad, 3);
        world
    }

    #[test]
    fn sales_are_summed_by_month_country_and_store() {
        let world = world();
        let expected = [
            "2026-02 France country:France TWD 4000 400 1 0",
            "2026-03  taipei TWD 2500 250 2 1",
        ];
        assert_eq!(rows(&world.ask(&MODEL, question(&[]))), expected);
        assert_eq!(rows(&world.ask(&MODEL, question(&["country=France"]))), expected[..1]);
        assert_eq!(rows(&world.ask(&MODEL, question(&["receipts>1"]))), expected[1..]);
        assert_eq!(
            rows(&world.ask(&MODEL, question(&["sku=A"]))),
            ["2026-03  taipei TWD 2000 200 2 1"]
        );
    }

    #[test]
    fn sales_are_summed_by_product() {
        let world = world();
        let expected = [
            "2026-02 B TWD 4000 400 1 0",
            "2026-03 A TWD 2000 200 2 1",
            "2026-03 B TWD 500 50 1 0",
        ];
        assert_eq!(rows(&world.ask(&BY_PRODUCT, question(&[]))), expected);
        assert_eq!(
            rows(&world.ask(&BY_PRODUCT, question(&["store=taipei"]))),
            expected[1..]
        );
        assert_eq!(
            rows(&world.ask(&BY_PRODUCT, question(&["sku=B", "month=2026-03"]))),
            expected[2..]
        );
    }

    #[test]
    fn a_void_leaves_the_month_as_if_the_receipt_had_never_been() {
        let mut world = World::new(&[&MODEL]);
        let sale = recorded("taipei", day(1), &[("A", "1", 100)], None);
        record(&mut world, "1", sale.clone(), 1);
        record(&mut world, "1", attached(&sale, None, "mei"), 2);
        record(&mut world, "1", voided(&sale, Some("mei")), 9);
        assert_eq!(rows(&world.ask(&MODEL, question(&[]))), Vec::<String>::new());

        let mut then = question(&[]);
        then.as_of = Some(noon(5));
        assert_eq!(rows(&world.ask(&MODEL, then.clone())), Vec::<String>::new());
        then.known_until = Some(world.known_at(noon(5)));
        assert_eq!(rows(&world.ask(&MODEL, then)), ["2026-03  taipei TWD 1000 100 1 0"]);
    }

    #[test]
    fn a_correction_restates_the_month_and_leaves_it_as_it_was_reported() {
        let mut world = World::new(&[&MODEL, &BY_PRODUCT]);
        let short = recorded("taipei", date(2026, 2, 28), &[("A", "1", 100)], None);
        let whole = recorded("country:France", day(1), &[("A", "1", 100), ("B", "2", 50)], None);
        record(&mut world, "1", short.clone(), 1);
        record(&mut world, "1", corrected(&short, None, &whole), 9);
        let restated = ["2026-03 France country:France TWD 3000 150 1 0"];
        assert_eq!(rows(&world.ask(&MODEL, question(&[]))), restated);
        let products = ["2026-03 A TWD 1000 100 1 0", "2026-03 B TWD 2000 50 1 0"];
        assert_eq!(rows(&world.ask(&BY_PRODUCT, question(&[]))), products);

        let mut then = question(&[]);
        then.as_of = Some(noon(5));
        assert_eq!(rows(&world.ask(&MODEL, then.clone())), restated);
        then.known_until = Some(world.known_at(noon(5)));
        assert_eq!(rows(&world.ask(&MODEL, then)), ["2026-02  taipei TWD 1000 100 1 0"]);

        record(&mut world, "1", voided(&whole, None), 10);
        assert_eq!(rows(&world.ask(&MODEL, question(&[]))), Vec::<String>::new());
    }

    #[test]
    fn a_quantity_rounds_half_even_to_a_thousandth() {
        let milli = |quantity: &str| {
            let purchase::Event::Recorded { lines, .. } = recorded("x", day(1), &[("A", quantity, 1)], None) else {
                panic!()
            };
            quantity_milli(&lines[0])
        };
        assert_eq!((milli("0.0005"), milli("0.0015"), milli("-2")), (0, 2, -2_000));
        assert_eq!(milli("-79228162514264337593543950335"), -QUANTITY_MILLI_MAX);
    }

    #[test]
    fn a_column_that_is_nowhere_is_refused() {
        let refused = World::new(&[&MODEL])
            .try_ask(&MODEL, question(&["colour=red"]))
            .unwrap_err();
        assert!(refused.to_string().contains("no column \"colour\""));
    }

    /// Receipts: store, day of business, days late, lines (product, amount), and how many days later it turned out void.
    #[test]
    fn a_receipt_of_tomorrow_counts_since_it_was_written_down() {
        let (tomorrow, today) = (day(2), "2026-03-01T04:00:00Z");
        let mut world = World::new(&[&MODEL]);
        let sale = recorded("tokyo", tomorrow, &[("A", "1", 100)], None);
        world.record(stream("1"), None, sale.clone(), today, today);
        let as_of = |world: &World, at: &str| {
            let mut question = question(&[]);
            question.as_of = Some(at.parse().unwrap());
            world.ask(&MODEL, question).rows.len()
        };
        assert_eq!(as_of(&world, today), 1);
        assert_eq!(as_of(&world, "2026-03-01T03:59:59Z"), 0);
        // What is taken back later was never there.
        let later = "2026-03-05T04:00:00Z";
        world.record(stream("1"), None, voided(&sale, None), later, later);
        for at in [today, "2026-03-01T16:00:00Z", later] {
            assert_eq!(as_of(&world, at), 0, "{at}");
        }
    }

    #[allow(clippy::type_complexity)]
    fn receipts() -> impl Strategy<Value = Vec<(u8, i8, i8, Vec<(u8, i64)>, Option<i8>)>> {
        let lines = proptest::collection::vec((0_u8..3, -50_i64..100), 1..4);
        let receipt = (0_u8..2, 1_i8..15, 0_i8..7, lines, proptest::option::of(0_i8..9));
        proptest::collection::vec(receipt, 1..20)
    }

    proptest! {
        #[test]
        fn the_sales_of_any_day_known_at_any_day_equal_a_naive_sum(
            receipts in receipts(), as_of in 1_i8..31, known_on in 1_i8..31,
        ) {
            const STORES: [&str; 2] = ["taipei", "country:Japan"];
            const SKUS: [&str; 3] = ["A", "B", "C"];
            let mut log: Vec<(i8, usize, purchase::Event)> = Vec::new();
            let mut by_store: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
            let mut by_sku: BTreeMap<&str, i64> = BTreeMap::new();
            for (n, (store, business_day, late, lines, void_after)) in receipts.iter().enumerate() {
                let lines: Vec<_> =
                    lines.iter().map(|(sku, amount)| (SKUS[usize::from(*sku)], "1", *amount)).collect();
                let store = STORES[usize::from(*store)];
                let sale = recorded(store, day(*business_day), &lines, None);
                let recorded_on = business_day + late;
                let voided_on = void_after.map(|days| recorded_on + days);
                log.push((recorded_on, n, sale.clone()));
                log.extend(voided_on.map(|on| (on, n, voided(&sale, None))));
                let is_known = recorded_on <= known_on && voided_on.is_none_or(|on| on > known_on);
                if is_known && *business_day <= as_of {
                    let sums = by_store.entry(store).or_default();
                    sums.0 += lines.iter().map(|(_, _, amount)| amount).sum::<i64>();
                    sums.1 += 1;
                    for (sku, _, amount) in lines {
                        *by_sku.entry(sku).or_default() += amount;
                    }
                }
            }
            log.sort_by_key(|(on, _, _)| *on);
            let mut world = World::new(&[&MODEL, &BY_PRODUCT]);
            for (on, n, fact) in log {
                record(&mut world, &n.to_string(), fact, on);
            }
            let mut question = question(&[]);
            question.as_of = Some(noon(as_of));
            question.known_until = Some(world.known_at(noon(known_on)));
            let answer = world.ask(&MODEL, question.clone());
            let answered: BTreeMap<&str, (i64, i64)> =
                answer.rows.iter().map(|row| (row[2].as_text(), (row[5].as_int(), row[6].as_int()))).collect();
            prop_assert_eq!(&answered, &by_store);
            let answer = world.ask(&BY_PRODUCT, question);
            let answered: BTreeMap<&str, i64> =
                answer.rows.iter().map(|row| (row[1].as_text(), row[4].as_int())).collect();
            prop_assert_eq!(answered, by_sku);

            // The fast answer of today is the dated one of the last day.
            let mut last = super::specs::question(&[]);
            last.as_of = Some(noon(31));
            prop_assert_eq!(world.ask(&MODEL, last), world.ask(&MODEL, super::specs::question(&[])));
        }
    }
}
