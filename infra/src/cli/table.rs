//! Answers as a table for people, as JSON, or as CSV.

use std::collections::{BTreeSet, HashMap};
use std::io::IsTerminal;

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use domain::Calendar;
use projections::{Answer, People, Value, harmless};
use uuid::Uuid;

use super::output::visible;

/// Columns of a table when the question does not name them.
const COLUMNS_SHOWN: usize = 10;
/// Characters that tell one id from another among the rows of a table.
const ID_LENGTH: usize = 13;

/// The column with the names of the customers.
const CUSTOMER_NAME: &str = "customer_name";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: chosen columns, money with its decimals, shares in per cent, ids shortened
    Table,
    Json,
    /// For programs: all rows as they are
    Csv,
    /// CSV for a spreadsheet: money with its decimals, no formulas
    Excel,
}

/// How an answer is to be shown.
pub struct Shown<'a> {
    /// Empty: those that tell most; `all`.
    pub columns: &'a [String],
    /// A column, with a minus before it for the largest first.
    pub sort: Option<&'a str>,
    pub format: Format,
    /// Times are those of its clocks.
    pub calendar: &'a Calendar,
}

impl<'a> Shown<'a> {
    /// As people see it when they ask for nothing else.
    pub fn table(calendar: &'a Calendar) -> Shown<'a> {
        Shown {
            columns: &[],
            sort: None,
            format: Format::Table,
            calendar,
        }
    }

    /// # Errors
    /// A column that the answer does not have.
    pub fn render(&self, answer: &Answer) -> anyhow::Result<String> {
        let mut answer = answer.clone();
        if let Some(sort) = self.sort {
            let (name, descending) = sort.strip_prefix('-').map_or((sort, false), |name| (name, true));
            let at = place(&answer, name)?;
            answer.rows.sort_by(|a, b| match descending {
                true => b[at].cmp(&a[at]),
                false => a[at].cmp(&b[at]),
            });
        }
        let chosen = self.chosen(&answer)?;
        let hidden = answer.columns.len() - chosen.len();
        let full = match self.format {
            // The currency is needed, be it shown or not.
            Format::Table | Format::Excel => Some(answer.clone()),
            Format::Json | Format::Csv => None,
        };
        choose(&mut answer, &chosen);
        match self.format {
            Format::Table => {
                let text = table(
                    full.as_ref().unwrap_or(&answer),
                    &chosen,
                    !self.columns.is_empty(),
                    self.calendar,
                );
                Ok(match hidden {
                    0 => text,
                    _ => format!("{text}\n{hidden} more columns: --columns all"),
                })
            }
            Format::Json => json(&answer),
            Format::Csv => csv(&answer),
            Format::Excel => excel(full.as_ref().unwrap_or(&answer), &chosen, self.calendar),
        }
    }

    /// The places of the columns to show.
    fn chosen(&self, answer: &Answer) -> anyhow::Result<Vec<usize>> {
        let all = || (0..answer.columns.len()).collect();
        match (self.columns, self.format) {
            ([], Format::Table) => Ok(most_telling(answer)),
            ([], _) => Ok(all()),
            ([one], _) if one == "all" => Ok(all()),
            (names, _) => names.iter().map(|name| place(answer, name.trim())).collect(),
        }
    }
}

/// The customers that the rows name.
pub fn customers(answer: &Answer) -> Vec<Uuid> {
    let Some(at) = answer.columns.iter().position(|column| *column == "customer") else {
        return vec![];
    };
    let ids = answer.rows.iter().filter_map(|row| match row[at] {
        Value::Uuid(id) => Some(id),
        _ => None,
    });
    ids.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Puts the customers' names beside their ids. An unknown customer has no name.
pub fn put_names(answer: &mut Answer, names: &HashMap<Uuid, String>) {
    let Some(at) = answer.columns.iter().position(|column| *column == "customer") else {
        return;
    };
    answer.columns.insert(at + 1, CUSTOMER_NAME);
    for row in &mut answer.rows {
        let name = match &row[at] {
            Value::Uuid(id) => names.get(id).cloned(),
            _ => None,
        };
        row.insert(at + 1, name.map_or(Value::Null, Value::Text));
    }
}

fn place(answer: &Answer, name: &str) -> anyhow::Result<usize> {
    let found = answer.columns.iter().position(|column| *column == name);
    found.ok_or_else(|| anyhow::anyhow!("there is no column {name:?}; there are: {}", answer.columns.join(", ")))
}

fn choose(answer: &mut Answer, chosen: &[usize]) {
    answer.columns = chosen.iter().map(|at| answer.columns[*at]).collect();
    for row in &mut answer.rows {
        *row = chosen.iter().map(|at| row[*at].clone()).collect();
    }
}

/// What people look for first: names and figures. Ids come last, and what no row has is left out.
fn most_telling(answer: &Answer) -> Vec<usize> {
    let is_empty = |at: usize| {
        let mut cells = answer.rows.iter().map(|row| &row[at]);
        !answer.rows.is_empty() && cells.all(|cell| matches!(cell, Value::Null) || cell.to_text().is_empty())
    };
    let is_id = |at: usize| matches!(answer.rows.first().map(|row| &row[at]), Some(Value::Uuid(_)));
    let mut shown: Vec<usize> = (0..answer.columns.len()).filter(|at| !is_empty(*at)).collect();
    // The key is what the next command needs: one id stays, whatever else there is.
    let ids: Vec<usize> = shown.iter().copied().filter(|at| is_id(*at)).collect();
    shown.retain(|at| !is_id(*at));
    let rank = |at: usize| match answer.columns[at] {
        "name" | "subject" | "summary" | "summary_en" => 0,
        CUSTOMER_NAME | "external_key" | "external_keys" => 1,
        column if column == "status" || column.ends_with("_minor") => 2,
        _ => 3,
    };
    shown.sort_by_key(|at| rank(*at));
    shown.truncate(COLUMNS_SHOWN - ids.len().min(1));
    // What is left stands in the order of the read model, behind the names.
    shown.sort_by_key(|at| (rank(*at).min(2), *at));
    let room = COLUMNS_SHOWN - shown.len();
    shown.extend(ids.into_iter().take(room));
    shown
}

fn table(answer: &Answer, chosen: &[usize], in_full: bool, calendar: &Calendar) -> String {
    let people = People::of(&answer.columns, calendar);
    let headings: Vec<&str> = people.headings().collect();
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(chosen.iter().map(|at| headings[*at]));
    // In a pipe the ids are wanted whole.
    let shortens = !in_full && std::io::stdout().is_terminal();
    for row in &answer.rows {
        let cells: Vec<String> = people.grouped(row).collect();
        table.add_row(chosen.iter().map(|at| match &row[*at] {
            Value::Uuid(_) if shortens => format!("{}…", &cells[*at][..ID_LENGTH]),
            _ => visible(&cells[*at]),
        }));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        let at = chosen[index];
        if answer.rows.iter().any(|row| matches!(row.get(at), Some(Value::Int(_)))) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn json(answer: &Answer) -> anyhow::Result<String> {
    let row = |row: &Vec<Value>| {
        let fields = answer.columns.iter().zip(row);
        let fields = fields.map(|(name, value)| ((*name).to_owned(), value.to_json()));
        serde_json::Value::Object(fields.collect())
    };
    let rows: Vec<serde_json::Value> = answer.rows.iter().map(row).collect();
    Ok(serde_json::to_string_pretty(&rows)?)
}

fn csv(answer: &Answer) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&answer.columns)?;
    for row in &answer.rows {
        writer.write_record(row.iter().map(Value::to_text))?;
    }
    finish(writer)
}

fn excel(answer: &Answer, chosen: &[usize], calendar: &Calendar) -> anyhow::Result<String> {
    let people = People::of(&answer.columns, calendar);
    let headings: Vec<&str> = people.headings().collect();
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(chosen.iter().map(|at| headings[*at]))?;
    for row in &answer.rows {
        let cells: Vec<String> = people.plain(row).zip(row).map(harmless).collect();
        writer.write_record(chosen.iter().map(|at| &cells[*at]))?;
    }
    Ok(format!("\u{feff}{}", finish(writer)?))
}

fn finish(writer: csv::Writer<Vec<u8>>) -> anyhow::Result<String> {
    let text = String::from_utf8(writer.into_inner()?)?;
    let text = text.trim_end_matches(['\r', '\n']).to_owned();
    // To a terminal nothing goes that it would act on; a file or a program gets what there is.
    match std::io::stdout().is_terminal() {
        true => Ok(text.split('\n').map(visible).collect::<Vec<_>>().join("\n")),
        false => Ok(text),
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    fn answer() -> Answer {
        let row = |n: u128, name: &str, minor: i64| {
            vec![
                Value::Uuid(uuid::Uuid::from_u128(n)),
                Value::Text("mei".into()),
                Value::Text(name.into()),
                Value::Int(minor),
                Value::Text("TWD".into()),
                Value::Int(2_500),
                Value::Null,
            ]
        };
        Answer {
            columns: vec![
                "opportunity",
                "owner",
                "name",
                "amount_minor",
                "currency",
                "probability_bp",
                "competitor",
            ],
            rows: vec![row(1, "a", 14_710_400_000), row(2, "\u{1b}[2Jb\u{202e}", -5)],
            ..Answer::default()
        }
    }

    fn shown(columns: &[&str], sort: Option<&str>, format: Format) -> anyhow::Result<String> {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        let columns = &columns;
        let calendar = &Calendar::taipei();
        let shown = Shown {
            columns,
            sort,
            format,
            calendar,
        };
        shown.render(&answer())
    }

    #[test]
    fn a_table_is_for_people() {
        let table = shown(&[], None, Format::Table).unwrap();
        assert!(
            table.contains("147,104,000.00") && table.contains("25.00%") && table.contains("-0.05"),
            "{table}"
        );
        let heading = table.lines().nth(1).unwrap();
        let order = [
            "name",
            "owner",
            "amount",
            "currency",
            "probability_percent",
            "opportunity",
        ];
        let places: Vec<usize> = order.iter().map(|name| heading.find(name).unwrap()).collect();
        assert!(places.is_sorted(), "{heading}");
        assert!(
            !heading.contains("competitor") && table.ends_with("1 more columns: --columns all"),
            "{table}"
        );
        // What a terminal would act on is shown.
        assert!(
            table.contains("\\u{1b}[2Jb\\u{202e}") && !table.contains('\u{1b}'),
            "{table}"
        );
    }

    #[test]
    fn the_name_of_a_customer_stands_beside_its_id_and_before_other_figures() {
        let (known, unknown) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let row = |deal: u128, customer: Value| {
            let deal = Value::Uuid(Uuid::from_u128(deal));
            vec![deal, customer, Value::Text("lathe".into()), Value::Text("won".into())]
        };
        let mut answer = Answer {
            columns: vec!["opportunity", "customer", "name", "status"],
            rows: vec![
                row(7, Value::Uuid(known)),
                row(8, Value::Uuid(unknown)),
                row(9, Value::Null),
            ],
            ..Answer::default()
        };
        assert_eq!(customers(&answer), [known, unknown]);
        put_names(&mut answer, &HashMap::from([(known, "Acme".to_owned())]));
        assert_eq!(
            answer.columns,
            ["opportunity", "customer", "customer_name", "name", "status"]
        );
        let names: Vec<&Value> = answer.rows.iter().map(|row| &row[2]).collect();
        assert_eq!(names, [&Value::Text("Acme".into()), &Value::Null, &Value::Null]);
        let shown: Vec<&str> = most_telling(&answer).into_iter().map(|at| answer.columns[at]).collect();
        assert_eq!(shown, ["name", "customer_name", "status", "opportunity", "customer"]);
    }

    #[test]
    fn the_money_and_the_status_of_a_wide_list_are_shown_and_stand_where_they_stood() {
        let columns: Vec<&'static str> = [
            "store",
            "till",
            "receipt",
            "day",
            "currency",
            "lines",
            "tax_rate",
            "note",
            "total_minor",
            "status",
            "name",
        ]
        .to_vec();
        let row = columns.iter().map(|_| Value::Int(1)).collect();
        let answer = Answer {
            columns,
            rows: vec![row],
            ..Answer::default()
        };
        let shown: Vec<&str> = most_telling(&answer).into_iter().map(|at| answer.columns[at]).collect();
        assert_eq!(shown.len(), COLUMNS_SHOWN);
        let place = |name: &str| shown.iter().position(|column| *column == name);
        assert!(
            place("name") == Some(0) && place("total_minor") < place("status"),
            "{shown:?}"
        );
        assert!(
            place("store") < place("total_minor") && place("note").is_none(),
            "{shown:?}"
        );
    }

    #[test]
    fn columns_and_their_order_are_chosen_and_rows_sorted() {
        let csv = shown(&["name", "amount_minor"], Some("amount_minor"), Format::Csv).unwrap();
        assert_eq!(csv, "name,amount_minor\n\u{1b}[2Jb\u{202e},-5\na,14710400000");
        let csv = shown(&["name"], Some("-amount_minor"), Format::Csv).unwrap();
        assert_eq!(csv, "name\na\n\u{1b}[2Jb\u{202e}");
        let excel = shown(&["amount_minor"], None, Format::Excel).unwrap();
        assert_eq!(excel, "\u{feff}amount\n147104000.00\n-0.05");
        let refused = shown(&["colour"], None, Format::Table).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("there is no column \"colour\"; there are: opportunity,")
        );
        assert!(shown(&[], Some("colour"), Format::Table).is_err());
    }
}
