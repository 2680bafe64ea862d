//! Questions to a read model, the plan to answer one, and the answer.

use std::collections::BTreeMap;

use domain::Calendar;
use jiff::Timestamp;
use jiff::civil::Date;

use super::{Column, ColumnType, Expr, Filter, Key, Op, Order, PAGE_BYTES_MAX, Row, Select, Table, Value};

/// Rows of an answer when the question does not say.
pub const DEFAULT_LIMIT: usize = 100;
/// Rows of an answer at most; more come by cursor.
pub const LIMIT_MAX: usize = 10_000;
/// Rows of a part, when all rows are asked for.
pub const PART_ROWS: usize = 1_000;
/// Written filters of a question at most.
pub const FILTERS_MAX: usize = 100;
/// Values at most in all written filters of a question, of which the values of an `in (…)` count each; and values that
/// one column is asked for. A statement of SQLite has room for the values of thirty columns.
pub const FILTER_VALUES_MAX: usize = 1_000;

/// What somebody wants to know of a read model.
#[derive(Debug, Clone)]
pub struct Question {
    pub filters: Vec<Where>,
    /// The world at this time, with all that was recorded since (restated). `None` = now.
    pub as_of: Option<Timestamp>,
    /// Only what stood in the log up to these positions (as reported). `None` = all. The engine finds them for a time.
    pub known_until: Option<Vec<(u16, u64)>>,
    pub limit: Option<usize>,
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// All rows are wanted, part by part; limit and cursor do not count then. `None` = a page.
    pub part: Option<Part>,
    /// Today's date for figures that depend on it, when `as_of` does not say; given by the caller, for no clock is read here.
    pub now: Option<Timestamp>,
    /// That of the log: which day it is at a time.
    pub calendar: Calendar,
}

/// Which part of all rows. A list gives them in the order of its key, so that a row that stays is in one part exactly; what is computed
/// has one part.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// The key of the last row of the part before this one.
    pub after: Option<Key>,
}

/// A filter as it is asked: a column, a comparison and what it is compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct Where {
    pub column: String,
    pub op: Op,
    /// One; for [`Op::In`] any number of them.
    pub operands: Vec<Operand>,
}

/// What a filter compares with, before its column's type is known.
#[derive(Clone, PartialEq, Eq)]
pub enum Operand {
    /// No value.
    None,
    /// Exactly this text.
    Text(String),
    /// A word of a written filter. `null` in it is refused for a column of texts, where it may mean none or the word.
    Bare(String),
}

/// Redacted: what is asked for may be personal.
impl std::fmt::Debug for Operand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Operand::None => f.write_str("none"),
            Operand::Text(text) | Operand::Bare(text) => write!(f, "<text of {} bytes>", text.len()),
        }
    }
}

impl Operand {
    fn normalised(self) -> Operand {
        match self {
            Operand::None => Operand::None,
            Operand::Text(text) => Operand::Text(domain::normalised(text)),
            Operand::Bare(text) => Operand::Bare(domain::normalised(text)),
        }
    }
}

impl Where {
    /// Every filter is made here, however it was asked: its texts are in the form in which texts are stored.
    pub fn new(column: &str, op: Op, operands: impl IntoIterator<Item = Operand>) -> Where {
        Where {
            column: column.to_owned(),
            op,
            operands: operands.into_iter().map(Operand::normalised).collect(),
        }
    }

    /// `column` is exactly this text.
    pub fn equal(column: &str, text: &str) -> Where {
        Where::new(column, Op::Eq, [Operand::Text(text.to_owned())])
    }

    /// Reads a written filter: `stage=proposal`, `due<2026-05-01`, `stage in (proposal, negotiation)`, `owner is null`,
    /// `owner is not null`. A value may stand in double quotes, and a quote in it is written twice.
    ///
    /// # Errors
    /// [`BadQuestion::Filter`] when there is no comparison in it, [`BadQuestion::Quote`] when a quoted value does not end.
    pub fn parse(text: &str) -> Result<Where, BadQuestion> {
        let Some(at) = text.find(['=', '!', '<', '>']) else {
            return Where::in_words(text);
        };
        if text[..at].contains('(') {
            return Where::in_words(text);
        }
        let (column, rest) = text.split_at(at);
        let ops = [
            ("<=", Op::Le),
            (">=", Op::Ge),
            ("!=", Op::Ne),
            ("=", Op::Eq),
            ("<", Op::Lt),
            (">", Op::Gt),
        ];
        for (sign, op) in ops {
            if let Some(value) = rest.strip_prefix(sign) {
                return Ok(Where::new(column.trim(), op, [operand(value, text)?]));
            }
        }
        Err(BadQuestion::Filter(text.to_owned()))
    }

    /// `owner is null`, `stage in (a, b)`.
    fn in_words(text: &str) -> Result<Where, BadQuestion> {
        let wrong = || BadQuestion::Filter(text.to_owned());
        let (column, rest) = text.trim().split_once(char::is_whitespace).ok_or_else(wrong)?;
        let words: Vec<String> = rest.split_whitespace().map(str::to_ascii_lowercase).collect();
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["is", "null"] => return Ok(Where::new(column, Op::Eq, [Operand::None])),
            ["is", "not", "null"] => return Ok(Where::new(column, Op::Ne, [Operand::None])),
            _ => {}
        }
        let (word, list) = rest.trim().split_at_checked(2).ok_or_else(wrong)?;
        let list = list.trim().strip_prefix('(').and_then(|list| list.strip_suffix(')'));
        match list {
            Some(list) if word.eq_ignore_ascii_case("in") => Ok(Where::new(column, Op::In, operands(list, text)?)),
            _ => Err(wrong()),
        }
    }

    /// Filters as they are asked, written out or each as a column with a value: several that ask one column for
    /// equality mean any of their values, for nothing is equal to two.
    ///
    /// # Errors
    /// [`BadQuestion::TooManyFilters`], [`BadQuestion::TooManyValues`].
    pub fn gather(written: Vec<Where>, of_columns: Vec<Where>) -> Result<Vec<Where>, BadQuestion> {
        let values: usize = written.iter().map(|filter| filter.operands.len()).sum();
        if written.len() > FILTERS_MAX || values > FILTER_VALUES_MAX {
            return Err(BadQuestion::TooManyFilters);
        }
        let of_columns = Where::any_of(of_columns)?;
        let values = of_columns.iter().map(|filter| filter.operands.len());
        if values.max().is_some_and(|most| most > FILTER_VALUES_MAX) {
            return Err(BadQuestion::TooManyValues);
        }
        Where::any_of(written.into_iter().chain(of_columns).collect())
    }

    fn any_of(given: Vec<Where>) -> Result<Vec<Where>, BadQuestion> {
        let mut gathered: Vec<Where> = Vec::new();
        let is_equality = |op: Op| matches!(op, Op::Eq | Op::In);
        for filter in given {
            let mut known = gathered.iter_mut();
            let same =
                known.find(|known| known.column == filter.column && is_equality(known.op) && is_equality(filter.op));
            match same {
                Some(known) => {
                    known.op = Op::In;
                    known.operands.extend(filter.operands);
                }
                None => gathered.push(filter),
            }
            // No read model has so many columns.
            if gathered.len() > 2 * FILTERS_MAX {
                return Err(BadQuestion::TooManyFilters);
            }
        }
        Ok(gathered)
    }

    /// What is compared with, as values of the column's type.
    fn read(&self, ty: ColumnType) -> Result<Vec<Value>, BadQuestion> {
        let is_order = matches!(self.op, Op::Lt | Op::Le | Op::Gt | Op::Ge);
        let misfit = |value: &str| BadQuestion::Value {
            column: self.column.clone(),
            value: value.to_owned(),
        };
        let read = |operand: &Operand| match operand {
            Operand::None if is_order => Err(misfit("null")),
            Operand::None => Ok(Value::Null),
            Operand::Bare(text) if text == "null" && ty == ColumnType::Text => Err(BadQuestion::Null {
                column: self.column.clone(),
            }),
            // Nothing but a text is called so.
            Operand::Bare(text) | Operand::Text(text) if text == "null" && ty != ColumnType::Text && !is_order => {
                Ok(Value::Null)
            }
            Operand::Bare(text) | Operand::Text(text) => Value::parse(ty, text).ok_or_else(|| misfit(text)),
        };
        self.operands.iter().map(read).collect()
    }

    /// The texts that are compared with, for what is computed from them.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.operands.iter().map(|operand| match operand {
            Operand::None => "null",
            Operand::Text(text) | Operand::Bare(text) => text,
        })
    }
}

/// One value of a written filter.
fn operand(written: &str, filter: &str) -> Result<Operand, BadQuestion> {
    let written = written.trim();
    let Some(quoted) = written.strip_prefix('"') else {
        return Ok(Operand::Bare(written.to_owned()));
    };
    match unquoted(quoted) {
        Some((text, "")) => Ok(Operand::Text(text)),
        _ => Err(BadQuestion::Quote(filter.to_owned())),
    }
}

/// The values of `in (…)`.
fn operands(list: &str, filter: &str) -> Result<Vec<Operand>, BadQuestion> {
    let wrong = || BadQuestion::Filter(filter.to_owned());
    let mut operands = Vec::new();
    let mut rest = list.trim();
    loop {
        let (operand, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (text, after) = unquoted(quoted).ok_or_else(|| BadQuestion::Quote(filter.to_owned()))?;
                (Operand::Text(text), after.trim())
            }
            None => {
                let (word, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                if word.trim().is_empty() {
                    return Err(wrong());
                }
                (Operand::Bare(word.trim().to_owned()), after)
            }
        };
        operands.push(operand);
        match after.strip_prefix(',') {
            Some(after) => rest = after.trim(),
            None if after.is_empty() => return Ok(operands),
            None => return Err(wrong()),
        }
    }
}

/// What stands before the closing quote, and what comes after it.
fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('"')?;
        text.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                text.push('"');
                rest = after;
            }
            None => return Some((text, after)),
        }
    }
}

impl Question {
    /// For all that there is, now.
    pub fn new(calendar: Calendar) -> Question {
        Question {
            filters: vec![],
            as_of: None,
            known_until: None,
            limit: None,
            cursor: None,
            part: None,
            now: None,
            calendar,
        }
    }

    /// The day that figures are computed for; `None` when nobody said what time it is.
    pub fn today(&self) -> Option<Date> {
        self.as_of.or(self.now).map(|at| self.calendar.day(at))
    }

    /// The time that figures are computed for.
    pub fn time(&self) -> Timestamp {
        self.as_of.or(self.now).unwrap_or(Timestamp::MAX)
    }

    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, LIMIT_MAX)
    }

    /// How many rows the pages before this one had.
    fn offset(&self) -> Result<usize, BadQuestion> {
        match &self.cursor {
            None => Ok(0),
            Some(cursor) => match cursor.parse::<u32>() {
                Ok(rows) => Ok(rows as usize),
                Err(_) => Err(BadQuestion::Cursor),
            },
        }
    }

    /// Narrows `select` by the question's filters, as far as they name columns of its table.
    ///
    /// # Errors
    /// A column that the table does not have, or a value that does not fit it.
    pub fn narrow(&self, mut select: Select) -> Result<Select, BadQuestion> {
        for filter in &self.filters {
            let found = select.table.column(&filter.column);
            let column = found.ok_or_else(|| BadQuestion::unknown(&filter.column, select.table.columns))?;
            select = select.filter_any(column.name, filter.op, filter.read(column.ty)?);
        }
        Ok(select)
    }

    /// Limits a select on a bitemporal journal to what was true by `as_of` and known by `known_until`.
    pub fn dated(&self, select: Select, effective_at: &'static str) -> Select {
        self.true_by(self.as_of, select, effective_at)
    }

    /// The same of a journal that may hold what is not true yet, such as a receipt of tomorrow: without `as_of` it is
    /// limited to now.
    pub fn dated_by_now(&self, select: Select, effective_at: &'static str) -> Select {
        self.true_by(self.as_of.or(self.now), select, effective_at)
    }

    fn true_by(&self, at: Option<Timestamp>, mut select: Select, effective_at: &'static str) -> Select {
        if let Some(at) = at {
            select = select.filter(effective_at, Op::Le, Value::Time(at));
        }
        select.until = self.known_until.clone();
        select
    }

    /// # Errors
    /// For a read model that knows only the present: `as_of` and `known_at` are refused.
    pub fn present_only(&self) -> Result<(), BadQuestion> {
        match self.as_of.is_some() || self.known_until.is_some() {
            true => Err(BadQuestion::PresentOnly),
            false => Ok(()),
        }
    }
}

/// Why a question cannot be answered; the asker's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadQuestion {
    #[error(
        "{0:?} is no filter; write column=value, with =, !=, <, <=, > or >=, or column in (a, b), column is null, column is not null"
    )]
    Filter(String),
    #[error("{0:?} has a quoted value that does not end; a quote in it is written twice")]
    Quote(String),
    #[error(
        "{column:?} is compared with null; write {column} is null or {column} is not null, or {column}=\"null\" for the word"
    )]
    Null { column: String },
    #[error("a question has at most {FILTERS_MAX} filters and {FILTER_VALUES_MAX} values in them")]
    TooManyFilters,
    #[error("a column is asked for at most {FILTER_VALUES_MAX} values")]
    TooManyValues,
    #[error("there is no column {column:?}; there are: {known}")]
    Column { column: String, known: String },
    #[error("{value:?} does not fit the column {column:?}")]
    Value { column: String, value: String },
    #[error("this read model has no history; as_of and known_at are not supported")]
    PresentOnly,
    #[error("the cursor is not one that this read model gave")]
    Cursor,
}

impl BadQuestion {
    /// The column that is asked for wrongly.
    pub fn column(&self) -> Option<&str> {
        match self {
            BadQuestion::Null { column } | BadQuestion::Column { column, .. } | BadQuestion::Value { column, .. } => {
                Some(column)
            }
            BadQuestion::Filter(_)
            | BadQuestion::Quote(_)
            | BadQuestion::TooManyFilters
            | BadQuestion::TooManyValues
            | BadQuestion::PresentOnly
            | BadQuestion::Cursor => None,
        }
    }

    fn unknown(column: &str, columns: &[Column]) -> BadQuestion {
        let known: Vec<&str> = columns.iter().map(|column| column.name).collect();
        BadQuestion::Column {
            column: column.to_owned(),
            known: known.join(", "),
        }
    }
}

/// How a question is answered: selects that a store runs in one snapshot, and what is made of their rows.
pub struct Plan {
    pub selects: Vec<Select>,
    /// What the answer's rows consist of.
    pub columns: Vec<Column>,
    #[allow(clippy::type_complexity)]
    pub finish: Box<dyn FnOnce(Vec<Vec<Vec<Value>>>) -> Answer + Send>,
    /// What is looked up for the rows, once they are known.
    pub beside: Vec<Beside>,
}

/// A column that stands beside the rows of a page: a list of what another table has for the id that each of them begins
/// with. Rows of that table live in other shards, so that no fold can put it there.
#[derive(Debug, Clone, Copy)]
pub struct Beside {
    pub column: Column,
    pub table: &'static Table,
    /// The table's column with the id.
    pub of: &'static str,
    /// The table's columns that make up an entry, with a colon between them.
    pub parts: &'static [&'static str],
}

impl Beside {
    /// The rows of these ids.
    pub fn select(&self, ids: Vec<Value>) -> Select {
        let columns = [self.of].into_iter().chain(self.parts.iter().copied());
        let mut select = Select::of(self.table, columns.map(Expr::Column));
        select.bytes_max = PAGE_BYTES_MAX;
        select.filter_any(self.of, Op::In, ids)
    }
}

/// A table of values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<Value>>,
    /// Asks for the next page, if there is one.
    pub cursor: Option<String>,
    /// Asks for the next part, if all rows were asked for and there may be more.
    pub after: Option<Key>,
}

impl Answer {
    /// What its rows begin with.
    pub fn ids(&self) -> Vec<Value> {
        self.rows.iter().map(|row| row[0].clone()).collect()
    }

    /// Adds the column of what was found for the ids.
    pub fn put_beside(&mut self, beside: &Beside, found: Vec<Vec<Value>>) {
        let mut entries: BTreeMap<Value, Vec<String>> = BTreeMap::new();
        for mut row in found {
            let parts: Vec<String> = row.drain(1..).map(|part| part.to_text()).collect();
            entries.entry(row.remove(0)).or_default().push(parts.join(":"));
        }
        self.columns.push(beside.column.name);
        for row in &mut self.rows {
            let mut own = entries.get(&row[0]).cloned().unwrap_or_default();
            own.sort_unstable();
            row.push(Value::json(&own));
        }
    }
}

impl Plan {
    fn new(
        selects: Vec<Select>,
        columns: Vec<Column>,
        finish: impl FnOnce(Vec<Vec<Vec<Value>>>) -> Answer + Send + 'static,
    ) -> Plan {
        Plan {
            selects,
            columns,
            finish: Box::new(finish),
            beside: vec![],
        }
    }

    /// With a column that is looked up for the rows.
    pub fn with(mut self, beside: Beside) -> Plan {
        self.columns.push(beside.column);
        self.beside.push(beside);
        self
    }

    /// With more made of the rows: a figure of the day in each of them.
    pub fn then(mut self, more: impl FnOnce(&mut Vec<Vec<Value>>) + Send + 'static) -> Plan {
        let finish = self.finish;
        self.finish = Box::new(move |results| {
            let mut answer = finish(results);
            more(&mut answer.rows);
            answer
        });
        self
    }

    /// With other columns, which [`then`](Self::then) makes of the rows.
    pub fn showing(mut self, columns: Vec<Column>) -> Plan {
        let (names, finish) = (names(&columns), self.finish);
        self.columns = columns;
        self.finish = Box::new(move |results| Answer {
            columns: names,
            ..finish(results)
        });
        self
    }
}

/// An answer that is computed, not read row by row: its columns, and the question's filters and page, which are applied to the
/// computed rows.
#[derive(Debug)]
pub struct Page {
    columns: &'static [Column],
    filters: Vec<Filter>,
    offset: usize,
    limit: usize,
}

impl Page {
    /// # Errors
    /// Filters that do not fit the columns, a foreign cursor.
    pub fn of(question: &Question, columns: &'static [Column]) -> Result<Page, BadQuestion> {
        let mut filters = Vec::new();
        for asked in &question.filters {
            let known = columns.iter().find(|column| column.name == asked.column);
            let column = known.ok_or_else(|| BadQuestion::unknown(&asked.column, columns))?;
            filters.push(Filter {
                column: column.name,
                op: asked.op,
                values: asked.read(column.ty)?,
            });
        }
        Ok(Page {
            columns,
            filters,
            offset: question.offset()?,
            limit: question.part.as_ref().map_or(question.limit(), |_| usize::MAX),
        })
    }

    /// Spares the store's rows that no row of the answer is made of: the filters on `columns`, which the answer has from
    /// the table as they are.
    pub fn narrow(&self, mut select: Select, columns: &[&str]) -> Select {
        for filter in self.filters.iter().filter(|filter| columns.contains(&filter.column)) {
            select.filters.push(filter.clone());
        }
        select
    }

    /// The plan of the page of the rows that `compute` makes of the results: all there are, in order.
    pub fn plan(
        self,
        selects: Vec<Select>,
        compute: impl FnOnce(Vec<Vec<Vec<Value>>>) -> Vec<Vec<Value>> + Send + 'static,
    ) -> Plan {
        Plan::new(selects, self.columns.to_vec(), move |results| {
            self.answer(compute(results))
        })
    }

    /// The page of these rows.
    fn answer(&self, mut rows: Vec<Vec<Value>>) -> Answer {
        rows.retain(|row| {
            let cells = self.columns.iter().map(|column| column.name).zip(row);
            let cell = |column| cells.clone().find(|(name, _)| *name == column).map(|(_, cell)| cell);
            let mut filters = self.filters.iter();
            filters.all(|filter| cell(filter.column).is_some_and(|cell| filter.op.holds(cell, &filter.values)))
        });
        let end = self.offset.saturating_add(self.limit);
        let more = rows.len() > end;
        rows.truncate(end);
        rows.drain(..self.offset.min(rows.len()));
        Answer {
            columns: names(self.columns),
            rows,
            cursor: more.then(|| end.to_string()),
            after: None,
        }
    }
}

/// The plan of a read model that is one table, row by row: filtered, ordered, paged.
pub struct List {
    table: &'static Table,
    newest_first: Option<&'static str>,
}

impl List {
    /// In key order.
    pub fn of<R: Row>() -> List {
        List {
            table: R::TABLE,
            newest_first: None,
        }
    }

    /// Latest first by this column; equal ones in key order.
    pub fn newest_first<R: Row>(column: &'static str) -> List {
        List {
            table: R::TABLE,
            newest_first: Some(column),
        }
    }

    /// # Errors
    /// Filters that do not fit, a foreign cursor.
    pub fn plan(self, question: &Question) -> Result<Plan, BadQuestion> {
        let table = self.table;
        if let Some(part) = &question.part {
            return part_of(table, question, part);
        }
        let mut order: Vec<Order> = self
            .newest_first
            .map(|column| Order {
                column,
                descending: true,
            })
            .into_iter()
            .collect();
        let key: Vec<&'static str> = table.row_key().iter().map(|column| column.name).collect();
        order.extend(key.iter().map(|column| Order {
            column,
            descending: self.newest_first.is_some(),
        }));
        let offset = question.offset()?;
        let limit = question.limit();
        let mut select = question.narrow(Select::all(table))?;
        select.until = question.known_until.clone();
        select.order = order;
        select.offset = offset;
        select.limit = Some(limit + 1);
        select.bytes_max = PAGE_BYTES_MAX;
        Ok(Plan::new(vec![select], table.columns.to_vec(), move |mut results| {
            let mut rows = results.remove(0);
            let more = rows.len() > limit;
            rows.truncate(limit);
            Answer {
                columns: names(table.columns),
                rows,
                cursor: more.then(|| (offset + limit).to_string()),
                after: None,
            }
        }))
    }
}

/// The rows that come after the part before, in the order of their key.
fn part_of(table: &'static Table, question: &Question, part: &Part) -> Result<Plan, BadQuestion> {
    let (hidden, key) = (table.hidden_columns(), table.row_key());
    let columns = hidden.iter().chain(table.columns);
    let mut select = question.narrow(Select::of(table, columns.map(|column| Expr::Column(column.name))))?;
    select.until = question.known_until.clone();
    select.after = part.after.clone();
    select.order = key
        .iter()
        .map(|column| Order {
            column: column.name,
            descending: false,
        })
        .collect();
    select.limit = Some(PART_ROWS);
    select.bytes_max = PAGE_BYTES_MAX;
    Ok(Plan::new(vec![select], table.columns.to_vec(), move |mut results| {
        let mut rows = results.remove(0);
        let last = rows.last().filter(|_| rows.len() == PART_ROWS);
        let after = last.map(|row| row[..key.len()].to_vec());
        for row in &mut rows {
            row.drain(..hidden.len());
        }
        Answer {
            columns: names(table.columns),
            rows,
            cursor: None,
            after,
        }
    }))
}

fn names(columns: &[Column]) -> Vec<&'static str> {
    columns.iter().map(|column| column.name).collect()
}

#[cfg(test)]
mod specs {
    use super::*;
    use crate::spec::question;

    #[test]
    fn a_filter_is_a_column_a_comparison_and_a_value() {
        let read = |text: &str| Where::parse(text).unwrap();
        assert_eq!(
            read("stage=proposal"),
            Where::new("stage", Op::Eq, [Operand::Bare("proposal".into())])
        );
        assert_eq!(
            read("due <= 2026-05-01"),
            Where::new("due", Op::Le, [Operand::Bare("2026-05-01".into())])
        );
        assert_eq!(Where::parse("stage"), Err(BadQuestion::Filter("stage".into())));
    }

    #[test]
    fn a_filter_finds_the_stored_form_of_a_text_however_it_was_typed() {
        let stored = vec![Value::Text("café".into())];
        let typed = "cafe\u{301}";
        let asked = [
            Where::equal("owner", typed),
            Where::new("owner", Op::In, [Operand::Text(typed.into())]),
            Where::parse(&format!("owner={typed}")).unwrap(),
            Where::parse(&format!("owner != \"{typed}\"")).unwrap(),
            Where::parse(&format!("owner>={typed}")).unwrap(),
            Where::parse(&format!("owner in ({typed})")).unwrap(),
            Where::parse(&format!("owner in (\"{typed}\")")).unwrap(),
        ];
        for filter in asked {
            assert_eq!(filter.read(ColumnType::Text), Ok(stored.clone()), "{:?}", filter.op);
            // And for what is computed from the texts.
            assert_eq!(filter.texts().collect::<Vec<_>>(), ["café"]);
        }
        // What only looks alike is another text.
        assert_eq!(
            Where::equal("owner", "ｃａｆｅ").read(ColumnType::Text),
            Ok(vec![Value::Text("ｃａｆｅ".into())])
        );
    }

    #[test]
    fn none_a_word_and_an_empty_text_are_three_things() {
        let read = |text: &str| Where::parse(text).and_then(|read| Ok((read.op, read.read(ColumnType::Text)?)));
        let text = |text: &str| vec![Value::Text(text.into())];
        assert_eq!(read("owner is null"), Ok((Op::Eq, vec![Value::Null])));
        assert_eq!(read("owner IS NOT NULL"), Ok((Op::Ne, vec![Value::Null])));
        assert_eq!(read("owner=\"null\""), Ok((Op::Eq, text("null"))));
        assert_eq!(read("owner!=\"\""), Ok((Op::Ne, text(""))));
        assert_eq!(read("owner="), Ok((Op::Eq, text(""))));
        assert_eq!(read("owner=\"a \"\"b\"\" \""), Ok((Op::Eq, text("a \"b\" "))));
        // Somebody means none, somebody the word: neither is guessed.
        assert_eq!(read("owner=null"), Err(BadQuestion::Null { column: "owner".into() }));
        assert_eq!(read("owner=\"mei"), Err(BadQuestion::Quote("owner=\"mei".into())));
        // No day and no number is called so.
        let due = Where::parse("due!=null").unwrap();
        assert_eq!(
            (due.op, due.read(ColumnType::Date).unwrap()),
            (Op::Ne, vec![Value::Null])
        );
        assert_eq!(
            Where::equal("owner", "null").read(ColumnType::Text),
            Ok(vec![Value::Text("null".into())])
        );
    }

    #[test]
    fn a_filter_may_name_several_values() {
        let read = |text: &str| {
            Where::parse(text).and_then(|read| Ok((read.column.clone(), read.op, read.read(ColumnType::Text)?)))
        };
        let texts = |texts: &[&str]| texts.iter().map(|text| Value::Text((*text).into())).collect::<Vec<_>>();
        assert_eq!(
            read("stage in (proposal, \"a, (b)\",negotiation )"),
            Ok(("stage".into(), Op::In, texts(&["proposal", "a, (b)", "negotiation"])))
        );
        for wrong in [
            "stage in",
            "stage in ()",
            "stage in (a",
            "stage in (a,)",
            "stage in (a) b",
            "in (a)",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        // A comparison is read before a word that looks like `in`.
        assert_eq!(
            read("stage=a in (b)"),
            Ok(("stage".into(), Op::Eq, texts(&["a in (b)"])))
        );
    }

    #[test]
    fn the_same_column_twice_means_either() {
        let given =
            ["stage=a", "owner=mei", "stage in (b, c)", "stage!=b", "stage!=c"].map(|text| Where::parse(text).unwrap());
        let gathered = Where::gather(given.to_vec(), vec![]).unwrap();
        let bare = |text: &str| Operand::Bare(text.into());
        assert_eq!(
            gathered,
            [
                Where::new("stage", Op::In, [bare("a"), bare("b"), bare("c")]),
                Where::new("owner", Op::Eq, [bare("mei")]),
                Where::new("stage", Op::Ne, [bare("b")]),
                Where::new("stage", Op::Ne, [bare("c")]),
            ]
        );
    }

    #[test]
    fn a_question_has_so_many_filters_and_no_more() {
        let filter = |n: usize| Where::equal("owner", &n.to_string());
        let other = |n: usize| Where::new("owner", Op::Ne, [Operand::Text(n.to_string())]);
        let written = |filters| Where::gather(filters, vec![]).map(|gathered| gathered.len());
        assert_eq!(written((0..FILTERS_MAX).map(other).collect()), Ok(FILTERS_MAX));
        assert_eq!(
            written((0..=FILTERS_MAX).map(other).collect()),
            Err(BadQuestion::TooManyFilters)
        );
        let list = |n: usize| Where::new("owner", Op::In, (0..n).map(|n| Operand::Text(n.to_string())));
        assert_eq!(written(vec![list(FILTER_VALUES_MAX)]), Ok(1));
        assert_eq!(
            written(vec![list(FILTER_VALUES_MAX), filter(1)]),
            Err(BadQuestion::TooManyFilters)
        );
        // A value of a column is no written filter.
        let columns = |filters| Where::gather(vec![other(1)], filters).map(|gathered| gathered.len());
        assert_eq!(columns((0..FILTER_VALUES_MAX).map(filter).collect()), Ok(2));
        assert_eq!(
            columns((0..=FILTER_VALUES_MAX).map(filter).collect()),
            Err(BadQuestion::TooManyValues)
        );
        // What no read model has is refused before it takes long to look for.
        let unknown = |n: usize| Where::equal(&format!("x{n}"), "1");
        assert_eq!(
            columns((0..5_000).map(unknown).collect()),
            Err(BadQuestion::TooManyFilters)
        );
    }

    #[test]
    fn the_values_of_all_columns_fit_into_one_statement() {
        for model in crate::READ_MODELS {
            let values = (model.filters().len() + 1) * FILTER_VALUES_MAX;
            assert!(values < 32_766, "{} asks for {values} values", model.name);
        }
    }

    #[test]
    fn a_computed_answer_is_filtered_and_paged_like_a_table() {
        const COLUMNS: &[Column] = &[
            Column::shown("name", ColumnType::Text),
            Column::shown("count", ColumnType::Int),
        ];
        let row = |name: &str, count: i64| vec![Value::Text(name.into()), Value::Int(count)];
        let all = || vec![row("a", 1), row("b", 2), row("c", 3), row("d", 4)];
        let mut question = Question {
            filters: vec![Where::parse("count>1").unwrap()],
            limit: Some(2),
            ..question(&[])
        };
        let first = Page::of(&question, COLUMNS).unwrap().answer(all());
        assert_eq!(first.rows, vec![row("b", 2), row("c", 3)]);
        question.cursor = first.cursor;
        let second = Page::of(&question, COLUMNS).unwrap().answer(all());
        assert_eq!((second.rows, second.cursor), (vec![row("d", 4)], None));

        question.filters = vec![Where::parse("stage=won").unwrap()];
        let refused = Page::of(&question, COLUMNS).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "there is no column \"stage\"; there are: name, count"
        );
    }
}
