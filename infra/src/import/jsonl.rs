//! Commands as lines of JSON: the format of `crm import`.

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::{Actor, StreamKind, derived_id};
use jiff::Timestamp;
use serde_json::Value;
use services::commands::{Incoming, Reference};
use uuid::Uuid;

use crate::lines::next_line;
use crate::sources::{BadLine, ImportLine};

/// Bytes of one line at most, as of one command that comes over HTTP.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Reads `{"stream": …, "id": …, "customer": …, "command": {…}, "effective_at": …, "actor": …, "command_id": …,
/// "expected_version": …}` line by line. A command without an id of its own gets one from the import's name, the line's canonical
/// content and its occurrence, so that the same file may be sent twice.
pub struct Lines<R> {
    reader: R,
    name: String,
    file: Arc<str>,
    line: u64,
    seen: HashMap<Uuid, u32>,
    bytes: Arc<AtomicU64>,
}

impl<R: BufRead> Lines<R> {
    pub fn new(reader: R, name: &str, file: &str, bytes: Arc<AtomicU64>) -> Lines<R> {
        Lines {
            reader,
            name: name.to_owned(),
            file: Arc::from(file),
            line: 0,
            seen: HashMap::new(),
            bytes,
        }
    }

    fn bad(&self, reason: impl Into<String>) -> BadLine {
        BadLine {
            file: Arc::clone(&self.file),
            line: self.line,
            reason: reason.into(),
        }
    }

    fn parse(&mut self, text: &[u8]) -> Result<ImportLine, BadLine> {
        let json: Value = serde_json::from_slice(text).map_err(|error| {
            self.bad(format!(
                "it is no JSON: {:?} error at column {}",
                error.classify(),
                error.column()
            ))
        })?;
        let canonical = json.to_string();
        let Value::Object(mut fields) = json else {
            return Err(self.bad("a line is a JSON object"));
        };
        let stream = match fields.remove("stream") {
            Some(Value::String(name)) => {
                StreamKind::parse(&name).ok_or_else(|| self.bad(format!("there is no stream {name:?}")))?
            }
            _ => return Err(self.bad("it says no stream")),
        };
        let reference = |value: Option<Value>, at: &str| match value {
            None | Some(Value::Null) => Ok(None),
            Some(value) => Reference::from_json(&value, at)
                .map(Some)
                .map_err(|error| self.bad(error.to_string())),
        };
        let id = reference(fields.remove("id"), "id")?;
        let customer = reference(fields.remove("customer"), "customer")?;
        let command = fields.remove("command").ok_or_else(|| self.bad("it has no command"))?;
        let text = |value: Option<Value>, what: &str| match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.bad(format!("its {what} is no text"))),
        };
        let effective_at = text(fields.remove("effective_at"), "effective_at")?
            .map(|text| {
                text.parse::<Timestamp>()
                    .map_err(|_| self.bad(format!("{text:?} is no time with an offset")))
            })
            .transpose()?;
        let actor = text(fields.remove("actor"), "actor")?.unwrap_or_else(|| "system:import".to_owned());
        let actor = Actor::parse(&actor).ok_or_else(|| self.bad("its actor is not <kind>:<id>, such as user:mei"))?;
        let command_id = text(fields.remove("command_id"), "command_id")?
            .map(|text| Uuid::parse_str(&text).map_err(|_| self.bad("its command_id is no UUID")))
            .transpose()?;
        let expected_version = match fields.remove("expected_version") {
            None | Some(Value::Null) => None,
            Some(version) => Some(
                version
                    .as_u64()
                    .ok_or_else(|| self.bad("its expected_version is no version"))?,
            ),
        };
        let correlation = text(fields.remove("correlation"), "correlation")?;
        if let Some(unknown) = fields.keys().next() {
            return Err(self.bad(format!("it has an unknown field {unknown:?}")));
        }
        let content = derived_id(&["import", &self.name, &canonical]);
        let occurrence = self.seen.entry(content).or_insert(0);
        *occurrence += 1;
        let derived = derived_id(&["import", &self.name, &canonical, &occurrence.to_string()]);
        Ok(ImportLine {
            incoming: Incoming {
                stream,
                id,
                customer,
                command,
                expected_version,
            },
            command_id: command_id.unwrap_or(derived),
            effective_at,
            actor,
            correlation: correlation.or_else(|| Some(format!("import:{}", self.name))),
            file: Arc::clone(&self.file),
            line: self.line,
            key: derived,
        })
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<ImportLine, BadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.line += 1;
            let line = match next_line(&mut self.reader, LINE_BYTES_MAX) {
                Ok(None) => return None,
                Ok(Some(line)) => line,
                Err(error) => return Some(Err(self.bad(format!("it cannot be read: {error}")))),
            };
            self.bytes.fetch_add(line.read, Ordering::Relaxed);
            let Some(text) = line.text else {
                return Some(Err(self.bad(format!("longer than {LINE_BYTES_MAX} bytes"))));
            };
            let trimmed = text.trim_ascii();
            if !trimmed.is_empty() {
                return Some(self.parse(trimmed));
            }
        }
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_reported_and_the_rest_goes_on() {
        let line = |padding: usize| {
            let padding = " ".repeat(padding);
            format!(r#"{{"stream": "customer", {padding}"command": {{"type": "close"}}}}"#)
        };
        let room = LINE_BYTES_MAX - line(0).len() - 1;
        let text = [line(room), line(room + 1), line(0)].join("\n");
        let bytes = Arc::new(AtomicU64::new(0));
        let lines = Lines::new(text.as_bytes(), "spec", "spec.jsonl", Arc::clone(&bytes));
        let read: Vec<Result<u64, (u64, String)>> = lines
            .map(|line| line.map(|line| line.line).map_err(|bad| (bad.line, bad.reason)))
            .collect();
        let too_long = Err((2, "longer than 1048576 bytes".to_owned()));
        assert_eq!(read, [Ok(1), too_long, Ok(3)]);
        assert_eq!(bytes.load(Ordering::Relaxed), text.len() as u64);
    }
}
