//! `GET /api/<read model>`: a question from query parameters, the answer as JSON or CSV.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use domain::Position;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use projections::{LIMIT_MAX, READ_MODELS, ReadModel, Value, Where, day_start};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::Api;
use super::problem::Problem;
use super::terms::time;
use crate::views::{Answered, Ask};

/// Positions of one `known_until` or `at_least`: one per shard is enough.
const POSITIONS_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Format {
    #[default]
    Json,
    Csv,
}

pub async fn ask(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path(name) = name.map_err(|_| Problem::malformed("path", "the path is not UTF-8 when decoded"))?;
    let model = read_model(&name)?;
    let Query(parameters) =
        parameters.map_err(|_| Problem::malformed("query", "the query parameters cannot be read"))?;
    let (ask, format) = read(parameters)?;
    let shards = api.commands.shards().len();
    if let Some(position) = ask
        .at_least
        .iter()
        .find(|position| usize::from(position.shard) >= shards)
    {
        let what = format!(
            "{position} is in no shard of this log; it has shards 0 to {}",
            shards.saturating_sub(1)
        );
        return Err(Problem::malformed("at_least", what));
    }
    let as_of = ask.question.as_of;
    let answered = api.queries.ask(model, ask).await?;
    match format {
        Format::Json => json(model, answered, as_of),
        Format::Csv => csv(&answered),
    }
}

fn read_model(name: &str) -> Result<&'static ReadModel, Problem> {
    ReadModel::find(name).ok_or_else(|| {
        let names: Vec<&str> = READ_MODELS.iter().map(|model| model.name).collect();
        let known = names.join(", ");
        Problem::not_found(format!("there is no read model {name:?}; there are: {known}"))
    })
}

fn read(parameters: Vec<(String, String)>) -> Result<(Ask, Format), Problem> {
    let mut ask = Ask::default();
    let mut format = None;
    for (name, value) in parameters {
        match name.as_str() {
            "where" => ask.question.filters.push(filter(&name, &value)?),
            "at_least" => ask.at_least.extend(positions("at_least", &value)?),
            "limit" => once(&name, &mut ask.question.limit, limit(&value)?)?,
            "cursor" => once(&name, &mut ask.question.cursor, value)?,
            "as_of" => once(&name, &mut ask.question.as_of, until("as_of", &value)?)?,
            "known_at" => once(&name, &mut ask.known_at, until("known_at", &value)?)?,
            "known_until" => once(&name, &mut ask.question.known_until, known_until(&value)?)?,
            "format" => once(&name, &mut format, read_format(&value)?)?,
            _ => ask.question.filters.push(column(&name, &value)?),
        }
    }
    if ask.known_at.is_some() && ask.question.known_until.is_some() {
        let what = "known_at and known_until say the same in two ways; give one of them";
        return Err(Problem::malformed("known_until", what));
    }
    if ask.at_least.len() > POSITIONS_MAX {
        return Err(Problem::malformed(
            "at_least",
            format!("{POSITIONS_MAX} positions at most"),
        ));
    }
    Ok((ask, format.unwrap_or_default()))
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

/// `?stage=proposal`. A comparison in a URL falls apart at its `=`, and is put together again: `?due<=2026-05-01` has the parameter
/// `due<`, and `?amount_minor>100` has no value at all.
fn column(name: &str, value: &str) -> Result<Where, Problem> {
    match name.contains(['<', '>', '!']) {
        true if value.is_empty() && !name.ends_with(['<', '>', '!']) => filter(name, name),
        true => filter(name, &format!("{name}={value}")),
        false => filter(name, &format!("{name}={value}")),
    }
}

fn limit(text: &str) -> Result<usize, Problem> {
    let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| {
        Problem::malformed(
            "limit",
            format!("{text:?} is no limit; it is a number from 1 to {LIMIT_MAX}, more come by cursor"),
        )
    })
}

/// A time, or the last moment of a day of business.
fn until(parameter: &str, text: &str) -> Result<Timestamp, Problem> {
    let is_date = text.len() <= "2026-03-01".len();
    if !is_date {
        return time(parameter, text);
    }
    let end = text
        .parse::<Date>()
        .and_then(|day| day.tomorrow())
        .map(|next| day_start(next) - SignedDuration::from_micros(1));
    end.map_err(|error| {
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
    let parts: Vec<&str> = text.split(',').filter(|part| !part.is_empty()).collect();
    if parts.len() > POSITIONS_MAX {
        return Err(Problem::malformed(
            parameter,
            format!("{POSITIONS_MAX} positions at most"),
        ));
    }
    let read = parts.into_iter().map(|part| {
        let position = Position::parse(part).filter(|position| i64::try_from(position.offset).is_ok());
        position.ok_or_else(|| {
            Problem::malformed(
                parameter,
                format!("{part:?} is no position; it is <shard>:<offset>, such as 3:1207"),
            )
        })
    });
    read.collect()
}

fn read_format(text: &str) -> Result<Format, Problem> {
    match text {
        "json" => Ok(Format::Json),
        "csv" => Ok(Format::Csv),
        _ => Err(Problem::malformed(
            "format",
            format!("there is no format {text:?}; there are: json, csv"),
        )),
    }
}

#[derive(Serialize)]
struct Body<'a> {
    read_model: &'static str,
    rows: Vec<RowJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    known_until: Option<String>,
    definition: &'a str,
    /// The next offset per shard. Left out of an answer that is limited to what was known at a time, which is the same byte for byte
    /// whenever it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    read_until: Option<Ends<'a>>,
}

/// A row as an object, its columns in their order.
struct RowJson<'a> {
    columns: &'a [&'static str],
    cells: &'a [Value],
}

impl Serialize for RowJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_map(Some(self.cells.len()))?;
        for (column, cell) in self.columns.iter().zip(self.cells) {
            row.serialize_entry(column, &cell.to_json())?;
        }
        row.end()
    }
}

struct Ends<'a>(&'a [(u16, u64)]);

impl Serialize for Ends<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut ends = serializer.serialize_map(Some(self.0.len()))?;
        for (shard, next) in self.0 {
            ends.serialize_entry(&shard.to_string(), next)?;
        }
        ends.end()
    }
}

fn json(model: &ReadModel, answered: Answered, as_of: Option<Timestamp>) -> Result<Response, Problem> {
    let columns = answered.answer.columns.as_slice();
    let rows = answered.answer.rows.iter();
    let body = Body {
        read_model: model.name,
        rows: rows.map(|cells| RowJson { columns, cells }).collect(),
        cursor: answered.answer.cursor.as_deref(),
        as_of,
        known_until: answered.known_until.as_deref().map(vector),
        definition: &answered.definition,
        read_until: answered.known_until.is_none().then_some(Ends(&answered.read_until)),
    };
    let mut response = axum::Json(body).into_response();
    response.headers_mut().extend(about(&answered));
    Ok(response)
}

/// The rows with a line of column names; what the JSON says besides is in headers.
fn csv(answered: &Answered) -> Result<Response, Problem> {
    let mut text = String::new();
    line(
        &mut text,
        answered.answer.columns.iter().map(|column| (*column).to_owned()),
    );
    for row in &answered.answer.rows {
        line(&mut text, row.iter().map(Value::to_text));
    }
    let content_type = [(header::CONTENT_TYPE, "text/csv; charset=utf-8")];
    let mut response = (content_type, text).into_response();
    response.headers_mut().extend(about(answered));
    Ok(response)
}

/// One line of RFC 4180.
fn line(text: &mut String, cells: impl Iterator<Item = String>) {
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            text.push(',');
        }
        match cell.contains([',', '"', '\r', '\n']) {
            true => {
                text.push('"');
                text.push_str(&cell.replace('"', "\"\""));
                text.push('"');
            }
            false => text.push_str(&cell),
        }
    }
    text.push_str("\r\n");
}

fn about(answered: &Answered) -> Vec<(HeaderName, HeaderValue)> {
    let headers = [
        ("x-read-until", Some(vector(&answered.read_until))),
        ("x-known-until", answered.known_until.as_deref().map(vector)),
        ("x-definition", Some(answered.definition.clone())),
        ("x-cursor", answered.answer.cursor.clone()),
    ];
    let given = headers.into_iter().filter_map(|(name, value)| {
        let value = HeaderValue::try_from(value?).ok()?;
        Some((HeaderName::from_static(name), value))
    });
    given.collect()
}

/// `0:12,1:99`
fn vector(positions: &[(u16, u64)]) -> String {
    let texts: Vec<String> = positions
        .iter()
        .map(|(shard, offset)| format!("{shard}:{offset}"))
        .collect();
    texts.join(",")
}
