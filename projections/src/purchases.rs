//! What was bought, receipt by receipt.

use domain::{Currency, Fact, Id, StreamKind, in_sequence, purchase};
use jiff::Timestamp;
use jiff::civil::Date;
use uuid::Uuid;

use crate::{
    BadQuestion, Column, ColumnType, Event, Expr, Group, List, Op, Page, Plan, Question, ReadModel, Row, Rows, Select,
    Value, table, word,
};

table! {
    /// Amounts are signed as the customer pays: a return's are negative.
    entity PurchaseRow "purchases" {
        key purchase: Uuid,
        /// `sale` or `return`.
        set kind: String,
        set source: String,
        set store: Option<String>,
        set till: Option<String>,
        set receipt: String,
        set business_date: Date,
        set currency: Currency,
        set lines: i64,
        set total_minor: i64,
        set tax_minor: Option<i64>,
        set customer: Option<Uuid>,
        /// The receipt of the sale that this return takes back.
        set of: Option<String>,
        /// `recorded` or `voided`; what is void counts in no sum.
        set status: String,
        set void_reason: Option<String>,
        /// How often it was corrected.
        set corrections: i64,
        set at: Timestamp,
    }
}

table! {
    /// What was sold by a receipt, and what came back of it. A sale and its returns are of different shards, and come in any order.
    rollup SaleBalance "sale_balances" {
        key source: String,
        /// Empty when the receipt named none.
        key store: String,
        /// The receipt of the sale.
        key receipt: String,
        key currency: Currency,
        /// Sales with this number: more than one where each till counts by itself.
        sum sales: i64,
        /// Sales with this number that are void.
        sum voided: i64,
        sum sold_minor: i64,
        /// Returns that name it.
        sum returns: i64,
        /// What they gave back: less than nothing.
        sum returned_minor: i64,
    }
}

pub static MODEL: ReadModel = ReadModel {
    name: "purchases",
    about: "Every receipt with its store, day, total and customer",
    group: Group::Analytics,
    version: 2,
    streams: &[StreamKind::Purchase],
    tables: &[PurchaseRow::TABLE, SaleBalance::TABLE],
    project,
    plan: |question| {
        question.present_only()?;
        List::newest_first::<PurchaseRow>("business_date").plan(question)
    },
};

/// Returns that do not fit what they take back; `purchases` makes the rows.
pub static RETURNS_TO_CHECK: ReadModel = ReadModel {
    name: "returns_to_check",
    about: "Sales of which more came back than was sold, and returns of a sale that is void, of another currency or not there",
    group: Group::Analytics,
    version: 1,
    streams: &[StreamKind::Purchase],
    tables: &[],
    project: |_, _| {},
    plan: plan_returns,
};

const RETURN_COLUMNS: &[Column] = &[
    Column::shown("source", ColumnType::Text),
    Column::shown("store", ColumnType::Text),
    Column::shown("sale", ColumnType::Text),
    Column::shown("currency", ColumnType::Text),
    Column::shown("returns", ColumnType::Int),
    Column::shown("sold_minor", ColumnType::Int),
    Column::shown("returned_minor", ColumnType::Int),
    // `no-sale`, `sale-void` or `more-than-sold`.
    Column::shown("trouble", ColumnType::Text),
];

fn plan_returns(question: &Question) -> Result<Plan, BadQuestion> {
    question.present_only()?;
    let page = Page::of(question, RETURN_COLUMNS)?;
    let columns = [
        "source",
        "store",
        "receipt",
        "currency",
        "returns",
        "sold_minor",
        "returned_minor",
        "sales",
        "voided",
    ];
    let select = Select::of(SaleBalance::TABLE, columns.map(Expr::Column));
    let select = page.narrow(select, &["source", "store", "currency"]);
    let select = select
        .filter("returns", Op::Gt, Value::Int(0))
        .order_by("source")
        .order_by("receipt");
    Ok(page.plan(vec![select], move |mut results| {
        let mut found = Vec::new();
        for mut row in results.remove(0) {
            let voided = row.pop().expect("the void ones were selected").as_int();
            let sales = row.pop().expect("the sales were selected").as_int();
            let (sold, returned) = (row[5].as_int(), row[6].as_int());
            let trouble = match (sales, voided, sold.saturating_add(returned)) {
                (..=0, 1.., _) => "sale-void",
                (..=0, _, _) => "no-sale",
                (_, _, ..=-1) => "more-than-sold",
                _ => continue,
            };
            row.push(Value::Text(trouble.to_owned()));
            found.push(row);
        }
        found
    }))
}

fn project(event: &Event, rows: &mut Rows) {
    let Fact::Purchase(fact) = &event.fact else { return };
    match fact {
        purchase::Event::Recorded { .. } => {
            let row = row(event, fact, 0);
            add(rows, balance(&row, 1));
            rows.put(row);
        }
        purchase::Event::Corrected { .. } => {
            let before = rows.get::<PurchaseRow>(event.stream.id);
            let mut row = row(event, fact, before.as_ref().map_or(0, |before| before.corrections) + 1);
            if let Some(before) = &before {
                row.at = in_sequence(before.at, row.at);
            }
            add(rows, before.and_then(|before| balance(&before, -1)));
            add(rows, balance(&row, 1));
            rows.put(row);
        }
        purchase::Event::CustomerAttached { to, .. } => {
            rows.update(event.stream.id, |row: &mut PurchaseRow| row.customer = Some(to.uuid()));
        }
        purchase::Event::Voided { reason, .. } => {
            let before = rows.get::<PurchaseRow>(event.stream.id);
            let Some(before) = before else { return };
            add(rows, balance(&before, -1));
            let row = PurchaseRow {
                status: "voided".to_owned(),
                void_reason: Some(reason.clone()),
                ..before
            };
            add(rows, balance(&row, 1));
            rows.put(row);
        }
    }
}

fn add(rows: &mut Rows, balance: Option<SaleBalance>) {
    if let Some(balance) = balance {
        rows.add(balance);
    }
}

/// What the receipt adds to its sale's balance, or takes out of it; nothing when it is a return that is void, or names no sale.
fn balance(row: &PurchaseRow, sign: i64) -> Option<SaleBalance> {
    let is_void = row.status != "recorded";
    let is_return = row.kind == word(purchase::Kind::Return);
    let receipt = match is_return {
        true if is_void => return None,
        true => row.of.clone()?,
        false => row.receipt.clone(),
    };
    let of_sales = sign * i64::from(!is_return && !is_void);
    let of_returns = sign * i64::from(is_return);
    Some(SaleBalance {
        source: row.source.clone(),
        store: row.store.clone().unwrap_or_default(),
        receipt,
        currency: row.currency,
        sales: of_sales,
        voided: sign * i64::from(!is_return && is_void),
        sold_minor: row.total_minor.saturating_mul(of_sales),
        returns: of_returns,
        returned_minor: row.total_minor.saturating_mul(of_returns),
    })
}

fn row(event: &Event, fact: &purchase::Event, corrections: i64) -> PurchaseRow {
    let (purchase::Event::Recorded {
        kind,
        source,
        store,
        till,
        receipt,
        business_date,
        currency,
        lines,
        total_minor,
        tax_minor,
        tenders: _,
        customer,
        of,
    }
    | purchase::Event::Corrected {
        kind,
        source,
        store,
        till,
        receipt,
        business_date,
        currency,
        lines,
        total_minor,
        tax_minor,
        tenders: _,
        customer,
        of,
        was: _,
    }) = fact
    else {
        unreachable!("the other events have no content");
    };
    PurchaseRow {
        purchase: event.stream.id,
        kind: word(kind),
        source: source.clone(),
        store: store.clone(),
        till: till.clone(),
        receipt: receipt.clone(),
        business_date: *business_date,
        currency: *currency,
        lines: lines.len() as i64,
        total_minor: *total_minor,
        tax_minor: *tax_minor,
        customer: customer.map(Id::uuid),
        of: of.clone(),
        status: "recorded".to_owned(),
        void_reason: None,
        corrections,
        at: event.effective_at,
    }
}

/// A purchase that came to a customer, or left again.
pub(crate) struct Movement {
    pub customer: Uuid,
    pub business_date: Date,
    pub currency: Currency,
    /// How many sales more (1) or less (-1); a return is none.
    pub sales: i64,
    /// What the customer paid more, or less.
    pub total_minor: i64,
    /// Is it of a return?
    pub is_return: bool,
}

/// What an event moves from and to customers. A void takes back at the purchase's own day, for it never happened; a correction does
/// the same, and puts in what is right at the day that is right.
pub(crate) fn movements(fact: &purchase::Event) -> Vec<Movement> {
    let movement = |customer: Option<Id<_>>, sign: i64, kind, business_date, currency, total_minor: i64| {
        customer.map(|customer| Movement {
            customer: customer.uuid(),
            business_date,
            currency,
            sales: sign * i64::from(kind == purchase::Kind::Sale),
            total_minor: total_minor.saturating_mul(sign),
            is_return: kind == purchase::Kind::Return,
        })
    };
    let (kind, business_date, currency, total_minor) = match fact {
        purchase::Event::Recorded {
            kind,
            business_date,
            currency,
            total_minor,
            ..
        }
        | purchase::Event::CustomerAttached {
            kind,
            business_date,
            currency,
            total_minor,
            ..
        }
        | purchase::Event::Voided {
            kind,
            business_date,
            currency,
            total_minor,
            ..
        }
        | purchase::Event::Corrected {
            kind,
            business_date,
            currency,
            total_minor,
            ..
        } => (*kind, *business_date, *currency, *total_minor),
    };
    let (comes_to, leaves) = match fact {
        purchase::Event::Recorded { customer, .. } | purchase::Event::Corrected { customer, .. } => (*customer, None),
        purchase::Event::CustomerAttached { from, to, .. } => (Some(*to), *from),
        purchase::Event::Voided { customer, .. } => (None, *customer),
    };
    let mut moved: Vec<Option<Movement>> = vec![
        movement(comes_to, 1, kind, business_date, currency, total_minor),
        movement(leaves, -1, kind, business_date, currency, total_minor),
    ];
    if let purchase::Event::Corrected { was: Some(was), .. } = fact {
        moved.push(movement(
            was.customer,
            -1,
            was.kind,
            was.business_date,
            was.currency,
            was.total_minor,
        ));
    }
    moved.into_iter().flatten().collect()
}

#[cfg(test)]
pub(crate) mod specs {
    use domain::StreamRef;
    use jiff::civil::date;

    use super::*;
    use crate::spec::{World, id, moment, question};

    /// A receipt of this store and day with such lines (sku, quantity, amount). Without a line above zero it is a return.
    pub fn recorded(
        store: &str,
        business_date: Date,
        lines: &[(&str, &str, i64)],
        customer: Option<&str>,
    ) -> purchase::Event {
        let is_sale = lines.iter().any(|(_, _, amount_minor)| *amount_minor > 0);
        let line = |(sku, quantity, amount_minor): &(&str, &str, i64)| purchase::Line {
            sku: (*sku).to_owned(),
            name: None,
            quantity: quantity.parse().unwrap(),
            unit_price: 1.into(),
            amount_minor: *amount_minor,
        };
        purchase::Event::Recorded {
            kind: if is_sale {
                purchase::Kind::Sale
            } else {
                purchase::Kind::Return
            },
            source: "till".into(),
            store: Some(store.into()),
            till: None,
            receipt: "17".into(),
            business_date,
            currency: Currency::TWD,
            total_minor: lines.iter().map(|(_, _, amount_minor)| amount_minor).sum(),
            lines: lines.iter().map(line).collect(),
            tax_minor: Some(5),
            tenders: vec![],
            customer: customer.map(|name| Id::new(id(name))),
            of: None,
        }
    }

    /// The customer of that receipt becomes `to`.
    pub fn attached(recorded: &purchase::Event, from: Option<&str>, to: &str) -> purchase::Event {
        let purchase::Event::Recorded {
            kind,
            source,
            store,
            receipt,
            business_date,
            currency,
            total_minor,
            ..
        } = recorded.clone()
        else {
            panic!("only what was recorded is attached");
        };
        purchase::Event::CustomerAttached {
            from: from.map(|name| Id::new(id(name))),
            to: Id::new(id(to)),
            kind,
            source,
            store,
            receipt,
            business_date,
            currency,
            total_minor,
        }
    }

    /// That receipt never happened; it belonged to `customer`.
    pub fn voided(recorded: &purchase::Event, customer: Option<&str>) -> purchase::Event {
        let purchase::Event::Recorded {
            kind,
            source,
            store,
            receipt,
            business_date,
            currency,
            total_minor,
            ..
        } = recorded.clone()
        else {
            panic!("only what was recorded is void");
        };
        purchase::Event::Voided {
            reason: "training".into(),
            customer: customer.map(|name| Id::new(id(name))),
            kind,
            source,
            store,
            receipt,
            business_date,
            currency,
            total_minor,
        }
    }

    /// That receipt says what `now` says; it belonged to `customer`, and was not void.
    pub fn corrected(recorded: &purchase::Event, customer: Option<&str>, now: &purchase::Event) -> purchase::Event {
        let (
            purchase::Event::Recorded {
                kind: was_kind,
                store: was_store,
                business_date: was_date,
                currency: was_currency,
                total_minor: was_total,
                ..
            },
            purchase::Event::Recorded {
                kind,
                source,
                store,
                till,
                receipt,
                business_date,
                currency,
                lines,
                total_minor,
                tax_minor,
                tenders,
                customer: now_customer,
                of,
            },
        ) = (recorded.clone(), now.clone())
        else {
            panic!("only what was recorded is corrected");
        };
        purchase::Event::Corrected {
            kind,
            source,
            store,
            till,
            receipt,
            business_date,
            currency,
            lines,
            total_minor,
            tax_minor,
            tenders,
            customer: now_customer,
            of,
            was: Some(purchase::Was {
                customer: customer.map(|name| Id::new(id(name))),
                kind: was_kind,
                store: was_store,
                business_date: was_date,
                currency: was_currency,
                total_minor: was_total,
            }),
        }
    }

    pub fn stream(name: &str) -> StreamRef {
        StreamRef::of::<purchase::Purchase>(Id::new(id(name)))
    }

    #[test]
    fn a_purchase_gets_its_customer_and_may_turn_out_void() {
        let mut world = World::new(&[&MODEL]);
        let at = "2026-03-02T20:15:00+08:00";
        let sale = recorded("taipei", date(2026, 3, 2), &[("A", "1", 100), ("B", "2", 50)], None);
        world.record(stream("one"), None, sale.clone(), at, at);
        world.record(stream("one"), None, attached(&sale, None, "mei"), at, at);
        world.record(stream("one"), None, voided(&sale, Some("mei")), at, at);
        let expected = PurchaseRow {
            purchase: id("one"),
            kind: "sale".into(),
            source: "till".into(),
            store: Some("taipei".into()),
            till: None,
            receipt: "17".into(),
            business_date: date(2026, 3, 2),
            currency: Currency::TWD,
            lines: 2,
            total_minor: 150,
            tax_minor: Some(5),
            customer: Some(id("mei")),
            of: None,
            status: "voided".into(),
            void_reason: Some("training".into()),
            corrections: 0,
            at: moment(at),
        };
        assert_eq!(world.rows::<PurchaseRow>(), vec![expected]);
        assert_eq!(world.ask(&MODEL, question(&["status=recorded"])).rows.len(), 0);
    }

    #[test]
    fn a_corrected_purchase_says_what_is_right_and_is_void_no_more() {
        let mut world = World::new(&[&MODEL]);
        let at = "2026-03-02T20:15:00+08:00";
        let short = recorded("taipei", date(2026, 3, 2), &[("A", "1", 100)], None);
        let whole = recorded(
            "taipei",
            date(2026, 3, 3),
            &[("A", "1", 100), ("B", "2", 50)],
            Some("mei"),
        );
        world.record(stream("one"), None, short.clone(), at, at);
        world.record(stream("one"), None, voided(&short, None), at, at);
        world.record(stream("one"), None, corrected(&short, None, &whole), at, at);
        let rows = world.rows::<PurchaseRow>();
        let row = &rows[0];
        assert_eq!(
            (row.business_date, row.total_minor, row.lines, row.customer),
            (date(2026, 3, 3), 150, 2, Some(id("mei")))
        );
        assert_eq!(
            (row.status.as_str(), &row.void_reason, row.corrections),
            ("recorded", &None, 1)
        );
    }

    #[test]
    fn returns_that_do_not_fit_their_sale_are_listed() {
        let mut world = World::new(&[&MODEL, &RETURNS_TO_CHECK]);
        let (day, at) = (date(2026, 3, 2), "2026-03-02T20:15:00+08:00");
        let numbered = |amount: i64, number: &str, sale: Option<&str>| {
            let mut fact = recorded(
                "taipei",
                day,
                &[("A", if amount < 0 { "-1" } else { "1" }, amount)],
                None,
            );
            if let purchase::Event::Recorded { receipt, of, .. } = &mut fact {
                (*receipt, *of) = (number.to_owned(), sale.map(str::to_owned));
            }
            fact
        };
        let mut record = |stream_name: &str, fact: purchase::Event| {
            world.record(stream(stream_name), None, fact, at, at);
            let rows = world.ask(&RETURNS_TO_CHECK, question(&[])).rows;
            let told = rows
                .iter()
                .map(|row| [2, 4, 5, 6, 7].map(|place: usize| row[place].to_text()).join(" "));
            told.collect::<Vec<_>>()
        };
        // The return comes before its sale.
        assert_eq!(record("r1", numbered(-60, "9", Some("1"))), ["1 1 0 -60 no-sale"]);
        assert_eq!(record("s1", numbered(100, "1", None)), [""; 0]);
        // It comes twice, under another number.
        let twice = numbered(-60, "10", Some("1"));
        assert_eq!(record("r2", twice.clone()), ["1 2 100 -120 more-than-sold"]);
        assert_eq!(record("r2", voided(&twice, None)), [""; 0]);
        assert_eq!(record("r3", numbered(-5, "11", None)), [""; 0]);
        // Of the sale there was more, and then there was none.
        let (sale, less) = (numbered(100, "1", None), numbered(50, "1", None));
        assert_eq!(
            record("s1", corrected(&sale, None, &less)),
            ["1 1 50 -60 more-than-sold"]
        );
        assert_eq!(record("s1", voided(&less, None)), ["1 1 0 -60 sale-void"]);
        // It did happen, and then it did not.
        let mut again = corrected(&less, None, &sale);
        if let purchase::Event::Corrected { was, .. } = &mut again {
            *was = None;
        }
        assert_eq!(record("s1", again), [""; 0]);
        assert_eq!(record("s1", voided(&sale, None)), ["1 1 0 -60 sale-void"]);
    }

    #[test]
    fn a_correction_is_not_before_what_it_corrects() {
        let mut world = World::new(&[&MODEL]);
        let (second, third) = ("2026-03-02T20:15:00+08:00", "2026-03-03T20:15:00+08:00");
        let sale = recorded("taipei", date(2026, 3, 2), &[("A", "1", 100)], None);
        let less = recorded("taipei", date(2026, 3, 2), &[("A", "1", 50)], None);
        world.record(stream("one"), None, sale.clone(), third, third);
        world.record(stream("one"), None, corrected(&sale, None, &less), second, third);
        assert_eq!(world.rows::<PurchaseRow>()[0].at, moment(third));
    }
}
