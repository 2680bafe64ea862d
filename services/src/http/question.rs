//! Reads a question to a read model, from the parameters of a URL or from a JSON body.

use domain::{Calendar, Position};
use jiff::Timestamp;
use jiff::civil::Date;
use projections::{Column, ColumnType, LIMIT_MAX, Op, Operand, Question, ReadModel, Where};
use serde_json::Value;

use super::problem::Problem;
use super::terms::time;
use crate::views::Ask;

/// Positions of one `known_until` or `at_least`: one per shard is enough.
const POSITIONS_MAX: usize = 4096;

/// The parameters that are no columns.
pub const PARAMETERS: [&str; 8] = [
    "where",
    "limit",
    "cursor",
    "as_of",
    "known_at",
    "known_until",
    "at_least",
    "format",
];

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Json,
    /// For programs: raw values.
    Csv,
    /// CSV for people who open it in a spreadsheet.
    Excel,
}

impl Format {
    /// What a file can be.
    pub const FILES: [(&str, Format); 2] = [("csv", Format::Csv), ("excel", Format::Excel)];
    pub const NAMES: [(&str, Format); 3] = [("json", Format::Json), ("csv", Format::Csv), ("excel", Format::Excel)];
}

/// A question as it was read.
#[derive(Debug)]
pub struct Asked {
    pub ask: Ask,
    pub format: Format,
}

impl Asked {
    /// Whether all rows are wanted, not a page: a file for a program or a spreadsheet is complete unless the question says otherwise.
    pub fn wants_all(&self) -> bool {
        let question = &self.ask.question;
        self.format != Format::Json && question.limit.is_none() && question.cursor.is_none()
    }
}

/// Reads the parameters of a URL. A column is a parameter of its own, and its value is taken as it is. Days are those
/// of `calendar`.
///
/// # Errors
/// 400 that names the parameter at fault.
pub fn of_url(model: &ReadModel, parameters: Vec<(String, String)>, calendar: &Calendar) -> Result<Asked, Problem> {
    let mut reading = Reading::new(calendar);
    for (name, value) in parameters {
        match PARAMETERS.contains(&name.as_str()) {
            true => reading.parameter(&name, value)?,
            false => reading.column(&name, &value)?,
        }
    }
    let asked = reading.finish()?;
    let mut personal = model.filters();
    personal.retain(|column| column.personal);
    let mut filters = asked.ask.question.filters.iter().map(|filter| filter.column.as_str());
    match filters.find(|name| personal.iter().any(|column| column.name == *name)) {
        Some(name) => Err(Problem::malformed(
            name,
            format!(
                "{name} is personal data, which does not belong in a URL: URLs are kept in histories and logs; \
                 send POST /api/{}/query with JSON such as {{\"{name}\": \"…\"}}",
                model.name
            ),
        )),
        None => Ok(asked),
    }
}

/// Reads a JSON body with the same parameters. A column has a value, a list of values of which one must fit, or null for none.
///
/// # Errors
/// 400 that names the field at fault.
pub fn of_json(model: &ReadModel, json: Value, calendar: &Calendar) -> Result<Asked, Problem> {
    let Value::Object(fields) = json else {
        let what = "a question is a JSON object such as {\"where\": [\"owner is null\"], \"limit\": 10}";
        return Err(Problem::malformed(".", what));
    };
    let mut reading = Reading::new(calendar);
    let columns = model.filters();
    for (name, value) in fields {
        if PARAMETERS.contains(&name.as_str()) {
            parameters_of_json(&mut reading, &name, value)?;
            continue;
        }
        let column = columns.iter().find(|column| column.name == name);
        let column = column.ok_or_else(|| {
            let known: Vec<&str> = columns.iter().map(|column| column.name).collect();
            let what = format!("there is no column {name:?}; there are: {}", known.join(", "));
            Problem::malformed(&name, what)
        })?;
        reading.of_columns.push(column_of_json(column, value)?);
    }
    reading.finish()
}

fn parameters_of_json(reading: &mut Reading, name: &str, value: Value) -> Result<(), Problem> {
    let several = matches!(name, "where" | "at_least");
    match value {
        Value::String(text) => reading.parameter(name, text),
        Value::Number(number) if name == "limit" => reading.parameter(name, number.to_string()),
        Value::Array(items) if several => items.into_iter().try_for_each(|item| match item {
            Value::String(text) => reading.parameter(name, text),
            _ => Err(Problem::malformed(name, format!("{name} is a list of texts"))),
        }),
        _ if name == "limit" => Err(Problem::malformed(name, "limit is a number")),
        _ if several => Err(Problem::malformed(name, format!("{name} is a text or a list of texts"))),
        _ => Err(Problem::malformed(name, format!("{name} is a text"))),
    }
}

fn column_of_json(column: &Column, value: Value) -> Result<Where, Problem> {
    let name = column.name;
    let misfit = |ty: ColumnType| {
        let fits = match ty {
            ColumnType::Int => "a whole number",
            ColumnType::Bool => "true or false",
            _ => "a text",
        };
        let what = format!("{name} is compared with {fits}, with null, or with a list of them");
        Problem::malformed(name, what)
    };
    let operand = |value: Value| match (value, column.ty) {
        (Value::Null, _) => Ok(Operand::None),
        // A text may be called so; of everything else it would be none, for which JSON has a word of its own.
        (Value::String(text), ty) if text == "null" && ty != ColumnType::Text => Err(misfit(ty)),
        (Value::String(text), ColumnType::Text | ColumnType::Uuid | ColumnType::Date | ColumnType::Time) => {
            Ok(Operand::Text(text))
        }
        (Value::Bool(value), ColumnType::Bool) => Ok(Operand::Text(value.to_string())),
        (Value::Number(number), ColumnType::Int) => Ok(Operand::Text(number.to_string())),
        (_, ty) => Err(misfit(ty)),
    };
    match value {
        Value::Array(items) if items.is_empty() => {
            Err(Problem::malformed(name, "the list is empty, which nothing is equal to"))
        }
        Value::Array(items) => {
            let operands: Result<Vec<Operand>, Problem> = items.into_iter().map(operand).collect();
            Ok(Where::new(name, Op::In, operands?))
        }
        one => Ok(Where::new(name, Op::Eq, [operand(one)?])),
    }
}

/// What was read so far.
struct Reading {
    ask: Ask,
    /// Filters that are written out.
    written: Vec<Where>,
    /// Columns with a value.
    of_columns: Vec<Where>,
    format: Option<Format>,
}

impl Reading {
    fn new(calendar: &Calendar) -> Reading {
        Reading {
            ask: Ask::of(Question::new(calendar.clone())),
            written: vec![],
            of_columns: vec![],
            format: None,
        }
    }

    fn parameter(&mut self, name: &str, value: String) -> Result<(), Problem> {
        let question = &mut self.ask.question;
        match name {
            "where" => self.written.push(filter(name, &value)?),
            "at_least" => self.ask.at_least.extend(positions(name, &value)?),
            "limit" => once(name, &mut question.limit, limit(&value)?)?,
            "cursor" => once(name, &mut question.cursor, value)?,
            "as_of" => {
                let as_of = until(name, &value, &question.calendar)?;
                once(name, &mut question.as_of, as_of)?;
            }
            "known_at" => {
                let known_at = until(name, &value, &question.calendar)?;
                once(name, &mut self.ask.known_at, known_at)?;
            }
            "known_until" => once(name, &mut question.known_until, known_until(&value)?)?,
            "format" => once(name, &mut self.format, read_format(&value)?)?,
            _ => return Err(Problem::malformed(name, format!("there is no parameter {name:?}"))),
        }
        Ok(())
    }

    /// `?stage=proposal`. A comparison in a URL falls apart at its `=`, and is put together again: `?due<=2026-05-01`
    /// has the parameter
    /// `due<`, and `?amount_minor>100` has no value at all.
    fn column(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        match name.contains(['<', '>', '!']) {
            true if value.is_empty() && !name.ends_with(['<', '>', '!']) => self.written.push(filter(name, name)?),
            true => self.written.push(filter(name, &format!("{name}={value}"))?),
            false => self.of_columns.push(Where::equal(name, value)),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Asked, Problem> {
        if self.ask.known_at.is_some() && self.ask.question.known_until.is_some() {
            let what = "known_at and known_until say the same in two ways; give one of them";
            return Err(Problem::malformed("known_until", what));
        }
        if self.ask.at_least.len() > POSITIONS_MAX {
            return Err(Problem::malformed(
                "at_least",
                format!("{POSITIONS_MAX} positions at most"),
            ));
        }
        let gathered = Where::gather(self.written, self.of_columns);
        self.ask.question.filters = gathered.map_err(|error| Problem::malformed("where", error.to_string()))?;
        Ok(Asked {
            ask: self.ask,
            format: self.format.unwrap_or_default(),
        })
    }
}

fn once<T>(name: &str, slot: &mut Option<T>, value: T) -> Result<(), Problem> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Problem::malformed(name, format!("the parameter {name} is given twice"))),
    }
}

fn filter(at: &str, text: &str) -> Result<Where, Problem> {
    Where::parse(text).map_err(|error| Problem::malformed(at, error.to_string()))
}

fn limit(text: &str) -> Result<usize, Problem> {
    let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| {
        Problem::malformed(
            "limit",
            format!("{text:?} is not a valid limit; use 1 to {LIMIT_MAX} and page with cursor"),
        )
    })
}

/// A time, or the last moment of a day of business.
fn until(parameter: &str, text: &str, calendar: &Calendar) -> Result<Timestamp, Problem> {
    let is_date = text.len() <= "2026-03-01".len();
    if !is_date {
        return time(parameter, text);
    }
    let day = text.parse::<Date>();
    day.map(|day| calendar.day_end(day)).map_err(|error| {
        Problem::malformed(
            parameter,
            format!("{text:?} is no day such as 2026-03-01 and no time such as 2026-03-01T09:00:00+08:00: {error}"),
        )
    })
}

/// `0:12,1:99`, as an answer gave it. Empty means that nothing was known.
fn known_until(text: &str) -> Result<Vec<(u16, u64)>, Problem> {
    let mut known: Vec<(u16, u64)> = Vec::new();
    for position in positions("known_until", text)? {
        if known.iter().any(|(shard, _)| *shard == position.shard) {
            let what = format!("shard {} is in it twice", position.shard);
            return Err(Problem::malformed("known_until", what));
        }
        known.push((position.shard, position.offset));
    }
    known.sort_unstable();
    Ok(known)
}

fn positions(parameter: &str, text: &str) -> Result<Vec<Position>, Problem> {
    if text.is_empty() {
        return Ok(vec![]);
    }
    let parts: Vec<&str> = text.split(',').collect();
    if parts.len() > POSITIONS_MAX {
        return Err(Problem::malformed(
            parameter,
            format!("{POSITIONS_MAX} positions at most"),
        ));
    }
    let read = parts.into_iter().map(|part| {
        Position::parse(part).ok_or_else(|| {
            Problem::malformed(
                parameter,
                format!("{part:?} is no position; it is <shard>:<offset>, such as 3:1207"),
            )
        })
    });
    read.collect()
}

fn read_format(text: &str) -> Result<Format, Problem> {
    let found = Format::NAMES.into_iter().find(|(name, _)| *name == text);
    found.map(|(_, format)| format).ok_or_else(|| {
        let names = Format::NAMES.map(|(name, _)| name).join(", ");
        Problem::malformed("format", format!("there is no format {text:?}; there are: {names}"))
    })
}
