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

use crate::sources::{BadLine, ImportLine};

/// Bytes of one line at most.
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
        if text.len() > LINE_BYTES_MAX {
            return Err(self.bad(format!("the line has {} bytes, {LINE_BYTES_MAX} at most", text.len())));
        }
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
            let mut text = Vec::new();
            self.line += 1;
            match self.reader.read_until(b'\n', &mut text) {
                Ok(0) => return None,
                Ok(read) => self.bytes.fetch_add(read as u64, Ordering::Relaxed),
                Err(error) => return Some(Err(self.bad(format!("it cannot be read: {error}")))),
            };
            let trimmed = text.trim_ascii();
            if !trimmed.is_empty() {
                return Some(self.parse(trimmed));
            }
        }
    }
}
