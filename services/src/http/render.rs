//! Writes the answer to a question: as JSON, as CSV for programs, or as CSV for spreadsheets.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use domain::Calendar;
use futures::stream;
use jiff::Timestamp;
use projections::{People, ReadModel, Value, harmless};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use super::answers::{Answers, Part, bytes_of, pieces};
use super::problem::{Kind, Problem};
use super::question::Format;
use crate::views::{Answered, Rest};

/// How long the next part of a file waits for room, and how often it looks.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(30);
const ROOM_PAUSE: Duration = Duration::from_millis(200);
/// Where the rows belong in a page.
const NO_ROWS: &str = "\"rows\":[]";
/// Says that a file is UTF-8 to programs that would take it for something older.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// A page of rows, written while it is read.
///
/// # Errors
/// 503 when the answers under way leave no room for it.
pub fn page(
    answers: &Answers,
    model: &ReadModel,
    format: Format,
    mut answered: Answered,
    as_of: Option<Timestamp>,
    calendar: &Calendar,
) -> Result<Response, Problem> {
    let rows = std::mem::take(&mut answered.answer.rows);
    let bytes = bytes_of(&rows);
    let body = match format {
        Format::Json => answers.body(bytes, json(model, &answered, rows, as_of)?)?,
        Format::Csv | Format::Excel => {
            let file = File::of(format, &answered, calendar);
            let row = move |text: &mut String, _: usize, cells: &[Value]| file.line(text, cells);
            let head = File::of(format, &answered, calendar).head();
            answers.body(bytes, pieces(head, rows, row, String::new()))?
        }
    };
    Ok(with_headers(model, format, &answered, body))
}

/// All rows, sent while they are read. When the read store fails on the way the answer breaks off, which its reader is told by the
/// connection: a file that ends well is complete.
pub fn all(
    answers: &Answers,
    model: &ReadModel,
    format: Format,
    mut first: Answered,
    rest: Rest,
    calendar: &Calendar,
) -> Response {
    first.answer.cursor = None;
    let rows = std::mem::take(&mut first.answer.rows);
    let head = File::of(format, &first, calendar).head();
    let sending = Sending {
        answers: answers.clone(),
        file: Arc::new(File::of(format, &first, calendar)),
        rest,
        part: None,
    };
    let parts = stream::try_unfold((sending, Some((head, rows))), |(mut sending, begin)| async move {
        if let Some((head, rows)) = begin {
            sending.part = Some(sending.with_room(head, rows).await?);
        }
        let piece = sending.next().await?;
        Ok::<_, io::Error>(piece.map(|piece| (piece, (sending, None))))
    });
    with_headers(model, format, &first, Body::from_stream(parts))
}

/// All rows on their way, part by part.
struct Sending {
    answers: Answers,
    file: Arc<File>,
    rest: Rest,
    part: Option<Part>,
}

impl Sending {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(piece) = self.part.as_mut().and_then(Iterator::next) {
                return piece.map(Some);
            }
            self.part = None;
            match self.rest.next().await.map_err(io::Error::other)? {
                Some(rows) => self.part = Some(self.with_room(String::new(), rows).await?),
                None => return Ok(None),
            }
        }
    }

    /// The file was begun, so a part of it waits for its room.
    async fn with_room(&self, head: String, rows: Vec<Vec<Value>>) -> io::Result<Part> {
        let (file, bytes) = (Arc::clone(&self.file), bytes_of(&rows));
        let row = move |text: &mut String, _: usize, cells: &[Value]| file.line(text, cells);
        let pieces = pieces(head, rows, row, String::new());
        let until = Instant::now() + ROOM_WAIT_MAX;
        while !self.answers.has_room(bytes) && Instant::now() < until {
            tokio::time::sleep(ROOM_PAUSE).await;
        }
        let part = self.answers.part(bytes, pieces);
        part.ok_or_else(|| io::Error::other("the answers under way have as many bytes as may be held at one time"))
    }
}

/// What an answer's headers say before anything is read.
pub fn head(model: &ReadModel, format: Format) -> Response {
    // Of a length that is not known, so that none is said: that of the answer would be another.
    let mut response = Body::from_stream(stream::empty::<Result<Bytes, Infallible>>()).into_response();
    response.headers_mut().extend(about_format(model, format));
    response
}

#[derive(Serialize)]
struct Page<'a> {
    read_model: &'static str,
    /// The rows come in its place, one by one.
    rows: [(); 0],
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

fn json(
    model: &ReadModel,
    answered: &Answered,
    rows: Vec<Vec<Value>>,
    as_of: Option<Timestamp>,
) -> Result<impl Iterator<Item = Bytes> + Send + 'static, Problem> {
    let page = Page {
        read_model: model.name,
        rows: [],
        cursor: answered.answer.cursor.as_deref(),
        as_of,
        known_until: answered.known_until.as_deref().map(vector),
        definition: &answered.definition,
        read_until: answered.known_until.is_none().then_some(Ends(&answered.read_until)),
    };
    let frame = serde_json::to_string(&page)
        .map_err(|error| Problem::new(Kind::Broken, "the answer cannot be written").because(Some(error.to_string())))?;
    // The name of a read model comes before it, and has no such text.
    let (before, after) = frame.split_once(NO_ROWS).unwrap_or((&frame, ""));
    let columns = answered.answer.columns.clone();
    let row = move |text: &mut String, number: usize, cells: &[Value]| {
        if number > 0 {
            text.push(',');
        }
        let columns = columns.as_slice();
        text.push_str(&serde_json::to_string(&RowJson { columns, cells }).unwrap_or_default());
    };
    let (before, after) = (format!("{before}\"rows\":["), format!("]{after}"));
    Ok(pieces(before, rows, row, after))
}

/// The rows with a line of column names; what the JSON says besides is in headers.
struct File {
    format: Format,
    people: People,
}

impl File {
    fn of(format: Format, answered: &Answered, calendar: &Calendar) -> File {
        File {
            format,
            people: People::of(&answered.answer.columns, calendar),
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

    fn line(&self, text: &mut String, row: &[Value]) {
        match self.format {
            Format::Excel => line(text, self.people.plain(row).zip(row).map(harmless)),
            Format::Csv | Format::Json => line(text, row.iter().map(Value::to_text)),
        }
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
