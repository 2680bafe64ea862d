//! Rows as people read them: money with its decimals and currency, shares as per cent, times of the company's clock.

use domain::{Calendar, Currency};

use super::Value;

/// How the columns of an answer are shown to people.
#[derive(Debug, Clone)]
pub struct People {
    columns: Vec<Shown>,
    /// Where the currency of a row's amounts stands.
    currency: Option<usize>,
    calendar: Calendar,
}

#[derive(Debug, Clone)]
struct Shown {
    column: &'static str,
    heading: String,
    unit: Unit,
}

/// What a column's numbers count, which its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// As they are.
    None,
    /// Minor units of the row's currency: `amount_minor`.
    Minor,
    /// Basis points, shown as per cent: `win_rate_bp`.
    BasisPoints,
    /// Thousandths: `quantity_milli`.
    Thousandths,
}

impl People {
    /// Times are those of the calendar's clocks.
    pub fn of(columns: &[&'static str], calendar: &Calendar) -> People {
        People {
            columns: shown(columns),
            currency: columns.iter().position(|column| *column == "currency"),
            calendar: calendar.clone(),
        }
    }

    /// The columns' own names.
    pub fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().map(|shown| shown.column)
    }

    /// What people call the columns: `amount` and not `amount_minor`.
    pub fn headings(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|shown| shown.heading.as_str())
    }

    /// A row's cells, numbers without anything that a program could not read: `1234567.50`.
    pub fn plain(&self, row: &[Value]) -> impl Iterator<Item = String> {
        self.cells(row, |number| number)
    }

    /// A row's cells, numbers in groups of three digits: `1,234,567.50`, `25.00%`.
    pub fn grouped(&self, row: &[Value]) -> impl Iterator<Item = String> {
        let units: Vec<Unit> = self.columns.iter().map(|shown| shown.unit).collect();
        let cells = self.cells(row, grouped);
        cells.zip(units).map(|(cell, unit)| match unit {
            Unit::BasisPoints if !cell.is_empty() => cell + "%",
            Unit::None | Unit::Minor | Unit::BasisPoints | Unit::Thousandths => cell,
        })
    }

    fn cells(&self, row: &[Value], number: fn(String) -> String) -> impl Iterator<Item = String> {
        let currency = self
            .currency
            .and_then(|at| Currency::parse(row.get(at)?.as_text()).ok());
        let shown = self
            .columns
            .iter()
            .zip(row)
            .map(|(shown, cell)| match (cell, shown.unit) {
                (Value::Int(minor), Unit::Minor) => {
                    number(decimal(*minor, currency.as_ref().map_or(2, Currency::exponent)))
                }
                (Value::Int(points), Unit::BasisPoints) => number(decimal(*points, 2)),
                (Value::Int(thousandths), Unit::Thousandths) => number(decimal(*thousandths, 3)),
                (Value::Int(int), Unit::None) => number(int.to_string()),
                (Value::Time(time), _) => self.calendar.local(*time).strftime("%Y-%m-%d %H:%M:%S").to_string(),
                (Value::Json(json), _) => listed(json),
                (other, _) => other.to_text(),
            });
        shown.collect::<Vec<_>>().into_iter()
    }
}

/// A spreadsheet takes a text that begins with one of these for a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// A cell for a spreadsheet: a text that would be run as a formula is shown as the text that it is.
pub fn harmless((shown, cell): (String, &Value)) -> String {
    match cell {
        Value::Text(_) | Value::Json(_) if shown.starts_with(FORMULA) => format!("'{shown}"),
        _ => shown,
    }
}

/// The columns with their headings. Where a count `won` and the money `won_minor` would have one heading, the money is
/// called `won_amount`.
fn shown(columns: &[&'static str]) -> Vec<Shown> {
    let mut all: Vec<Shown> = columns.iter().map(|column| Shown::of(column)).collect();
    let headings: Vec<String> = all.iter().map(|shown| shown.heading.clone()).collect();
    for shown in &mut all {
        let named_alike = headings.iter().filter(|heading| **heading == shown.heading);
        if named_alike.count() > 1 && shown.unit == Unit::Minor {
            shown.heading += "_amount";
        }
    }
    all
}

impl Shown {
    fn of(column: &'static str) -> Shown {
        let units = [
            ("_minor", "", Unit::Minor),
            ("_bp", "_percent", Unit::BasisPoints),
            ("_milli", "", Unit::Thousandths),
        ];
        for (ending, shown, unit) in units {
            if let Some(stem) = column.strip_suffix(ending) {
                let heading = format!("{stem}{shown}");
                return Shown { column, heading, unit };
            }
        }
        Shown {
            column,
            heading: column.to_owned(),
            unit: Unit::None,
        }
    }
}

/// A list of texts as people write it; other JSON as it is.
fn listed(json: &str) -> String {
    match serde_json::from_str::<Vec<String>>(json) {
        Ok(texts) => texts.join(", "),
        Err(_) => json.to_owned(),
    }
}

/// 123,456 with 2 decimals is `1234.56`.
fn decimal(number: i64, decimals: u32) -> String {
    let digits = number.unsigned_abs().to_string();
    let decimals = decimals as usize;
    let padded = format!("{digits:0>width$}", width = decimals + 1);
    let (whole, rest) = padded.split_at(padded.len() - decimals);
    let sign = if number < 0 { "-" } else { "" };
    match decimals {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{rest}"),
    }
}

/// `1234567.50` → `1,234,567.50`
fn grouped(number: String) -> String {
    let (whole, rest) = number.split_at(number.find('.').unwrap_or(number.len()));
    let mut text = String::new();
    for (at, digit) in whole.char_indices() {
        let left = whole.len() - at;
        if at > 0 && left % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text + rest
}

#[cfg(test)]
mod specs {
    use super::*;

    fn row() -> Vec<Value> {
        vec![
            Value::Text("JPY".into()),
            Value::Int(-1_234_567),
            Value::Int(2_500),
            Value::Int(-1_500),
            Value::Int(10_000),
            Value::Time("2026-03-01T16:30:00Z".parse().unwrap()),
            Value::Null,
        ]
    }

    const COLUMNS: [&str; 7] = [
        "currency",
        "amount_minor",
        "win_rate_bp",
        "quantity_milli",
        "deals",
        "at",
        "won_minor",
    ];

    #[test]
    fn amounts_have_the_decimals_of_their_currency_and_shares_are_per_cent() {
        let people = People::of(&COLUMNS, &Calendar::taipei());
        assert_eq!(
            people.headings().collect::<Vec<_>>(),
            [
                "currency",
                "amount",
                "win_rate_percent",
                "quantity",
                "deals",
                "at",
                "won"
            ]
        );
        assert_eq!(
            people.plain(&row()).collect::<Vec<_>>(),
            ["JPY", "-1234567", "25.00", "-1.500", "10000", "2026-03-02 00:30:00", ""]
        );
        assert_eq!(
            people.grouped(&row()).collect::<Vec<_>>(),
            [
                "JPY",
                "-1,234,567",
                "25.00%",
                "-1.500",
                "10,000",
                "2026-03-02 00:30:00",
                ""
            ]
        );
    }

    #[test]
    fn a_count_and_its_money_have_two_headings() {
        let people = People::of(
            &["currency", "won", "lost", "won_minor", "lost_minor"],
            &Calendar::taipei(),
        );
        let headings: Vec<&str> = people.headings().collect();
        assert_eq!(headings, ["currency", "won", "lost", "won_amount", "lost_amount"]);
    }

    #[test]
    fn no_answer_has_two_columns_of_one_heading() {
        for model in crate::READ_MODELS {
            let question = crate::spec::question(&[]);
            let Ok(plan) = (model.plan)(&question) else { continue };
            let columns: Vec<&'static str> = plan.columns.iter().map(|column| column.name).collect();
            let people = People::of(&columns, &Calendar::taipei());
            let headings: std::collections::BTreeSet<&str> = people.headings().collect();
            assert_eq!(headings.len(), columns.len(), "{}: {columns:?}", model.name);
        }
    }

    #[test]
    fn a_list_of_texts_is_written_with_commas_and_other_json_stays() {
        for (json, shown) in [
            (r#"["erp:C-12","shop:77"]"#, "erp:C-12, shop:77"),
            ("[]", ""),
            (r#"[{"item":"oil"}]"#, r#"[{"item":"oil"}]"#),
        ] {
            let row = [Value::Json(json.into())];
            assert_eq!(
                People::of(&["external_keys"], &Calendar::taipei())
                    .plain(&row)
                    .collect::<Vec<_>>(),
                [shown]
            );
        }
    }

    #[test]
    fn times_are_those_of_the_companys_clocks() {
        for (time_zone, shown) in [
            ("Asia/Taipei", "2026-03-02 00:30:00"),
            ("Europe/Berlin", "2026-03-01 17:30:00"),
            ("America/Los_Angeles", "2026-03-01 08:30:00"),
        ] {
            let people = People::of(&COLUMNS, &Calendar::of(time_zone).unwrap());
            assert_eq!(people.plain(&row()).nth(5).as_deref(), Some(shown));
        }
    }

    #[test]
    fn a_number_keeps_all_its_digits() {
        for (number, decimals, text) in [
            (0, 2, "0.00"),
            (-5, 2, "-0.05"),
            (123_456, 3, "123.456"),
            (i64::MIN, 2, "-92233720368547758.08"),
            (7, 0, "7"),
        ] {
            assert_eq!(decimal(number, decimals), text);
        }
        for (plain, text) in [
            ("-123", "-123"),
            ("-1234.5", "-1,234.5"),
            ("100000", "100,000"),
            ("999", "999"),
        ] {
            assert_eq!(grouped(plain.into()), text);
        }
    }
}
