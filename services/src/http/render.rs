//! Writes the answer to a question: as JSON, as CSV for programs, or as CSV for spreadsheets.

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use jiff::Timestamp;
use projections::{People, ReadModel, Value, harmless};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::question::Format;
use crate::views::{Answered, Rest};

/// Says that a file is UTF-8 to programs that would take it for something older.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// A page of rows.
pub fn page(model: &ReadModel, format: Format, answered: Answered, as_of: Option<Timestamp>) -> Response {
    if format == Format::Json {
        return json(model, answered, as_of);
    }
    let file = File::of(format, &answered);
    let text = file.head() + &file.lines(&answered.answer.rows);
    with_headers(model, format, &answered, Body::from(text))
}

/// All rows, sent while they are read. When the read store fails on the way the answer breaks off, which its reader is told by the
/// connection: a file that ends well is complete.
pub fn all(model: &ReadModel, format: Format, mut first: Answered, rest: Rest) -> Response {
    first.answer.cursor = None;
    let file = File::of(format, &first);
    let begin = file.head() + &file.lines(&first.answer.rows);
    let parts = stream::try_unfold((file, rest, Some(begin)), |(file, mut rest, begin)| async move {
        if let Some(begin) = begin {
            return Ok(Some((Bytes::from(begin), (file, rest, None))));
        }
        let rows = rest.next().await.map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>(rows.map(|rows| (Bytes::from(file.lines(&rows)), (file, rest, None))))
    });
    with_headers(model, format, &first, Body::from_stream(parts))
}

/// What an answer's headers say before anything is read.
pub fn head(model: &ReadModel, format: Format) -> Response {
    let mut response = Body::empty().into_response();
    response.headers_mut().extend(about_format(model, format));
    response
}

#[derive(Serialize)]
struct Page<'a> {
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

fn json(model: &ReadModel, answered: Answered, as_of: Option<Timestamp>) -> Response {
    let columns = answered.answer.columns.as_slice();
    let rows = answered.answer.rows.iter();
    let page = Page {
        read_model: model.name,
        rows: rows.map(|cells| RowJson { columns, cells }).collect(),
        cursor: answered.answer.cursor.as_deref(),
        as_of,
        known_until: answered.known_until.as_deref().map(vector),
        definition: &answered.definition,
        read_until: answered.known_until.is_none().then_some(Ends(&answered.read_until)),
    };
    let mut response = axum::Json(page).into_response();
    response.headers_mut().extend(about(&answered));
    response
}

/// The rows with a line of column names; what the JSON says besides is in headers.
struct File {
    format: Format,
    people: People,
}

impl File {
    fn of(format: Format, answered: &Answered) -> File {
        File {
            format,
            people: People::of(&answered.answer.columns),
        }
    }

    fn head(&self) -> String {
        let mut text = String::new();
        match self.format {
            Format::Excel => {
                text.push_str(BYTE_ORDER_MARK);
                line(&mut text, self.people.headings().map(str::to_owned));
            }
            Format::Csv | Format::Json => line(&mut text, self.people.columns().map(str::to_owned)),
        }
        text
    }

    fn lines(&self, rows: &[Vec<Value>]) -> String {
        let mut text = String::new();
        for row in rows {
            match self.format {
                Format::Excel => line(&mut text, self.people.plain(row).zip(row).map(harmless)),
                Format::Csv | Format::Json => line(&mut text, row.iter().map(Value::to_text)),
            }
        }
        text
    }
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

fn with_headers(model: &ReadModel, format: Format, answered: &Answered, body: Body) -> Response {
    let mut response = body.into_response();
    response.headers_mut().extend(about_format(model, format));
    response.headers_mut().extend(about(answered));
    response
}

fn about_format(model: &ReadModel, format: Format) -> Vec<(HeaderName, HeaderValue)> {
    let (content_type, name) = match format {
        Format::Json => ("application/json", None),
        Format::Csv => ("text/csv; charset=utf-8", Some(format!("{}.csv", model.name))),
        Format::Excel => ("text/csv; charset=utf-8", Some(format!("{}-excel.csv", model.name))),
    };
    let disposition = name.map(|name| format!("attachment; filename=\"{name}\""));
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let disposition = disposition.and_then(|text| HeaderValue::try_from(text).ok());
    let disposition = disposition.map(|value| (header::CONTENT_DISPOSITION, value));
    [content_type].into_iter().chain(disposition).collect()
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
