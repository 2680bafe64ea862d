//! Commands as lines of JSON: the format of `crm import`.

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::{Actor, AnyCommand, Home, IDEMPOTENCY_KEY_MAX, StreamKind, command_id_from_key, derived_id};
use jiff::Timestamp;
use serde_json::Value;
use services::commands::{Incoming, Reference};
use services::strict_json;
use uuid::Uuid;

use crate::lines::next_line;
use crate::sources::{BadLine, ImportLine, What};

/// Bytes of one line at most, as of one command that comes over HTTP.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Reads `{"stream": …, "id": …, "customer": …, "command": {…}, "effective_at": …, "actor": …, "command_id": …,
/// "expected_version": …}` line by line. A command without an id of its own gets one from the line's canonical content and its
/// occurrence in the file: the same line is applied once, under whatever name its file comes.
pub struct Lines<R> {
    reader: R,
    import: Name,
    file: Arc<str>,
    line: u64,
    /// How often a content came, and where first.
    seen: HashMap<Uuid, (u32, u64)>,
    bytes: Arc<AtomicU64>,
    finished: bool,
    /// A line that is given out before the file is read on.
    ready: Option<Result<ImportLine, BadLine>>,
}

/// What an import is called.
#[derive(Debug, Clone)]
pub struct Name {
    /// Stands in the events as their correlation.
    pub name: String,
    /// Are lines that were applied before meant again? Then they get ids of their own under this name.
    pub again: bool,
    /// Set when things that are there already are changed to what lines say. It names the run, and is part of the ids under
    /// which lines are asked anew: a thing may have been changed since a line was applied.
    pub upsert: Option<String>,
}

impl Name {
    /// In a header there is room for visible ASCII characters only.
    fn correlation(&self) -> String {
        let visible = |character: char| match character.is_ascii_graphic() {
            true => character,
            false => '_',
        };
        let name: String = self.name.chars().map(visible).take(180).collect();
        format!("import:{name}")
    }
}

impl<R: BufRead> Lines<R> {
    pub fn new(reader: R, import: Name, file: &str, bytes: Arc<AtomicU64>) -> Lines<R> {
        Lines {
            reader,
            import,
            file: Arc::from(file),
            line: 0,
            seen: HashMap::new(),
            bytes,
            finished: false,
            ready: None,
        }
    }

    fn bad(&self, reason: impl Into<String>) -> BadLine {
        BadLine {
            file: Arc::clone(&self.file),
            line: self.line,
            document: None,
            what: What::NoSense,
            reason: reason.into(),
        }
    }

    fn parse(&mut self, text: &[u8]) -> Result<ImportLine, BadLine> {
        let json = strict_json::parse(text).map_err(|error| self.bad(format!("it is no JSON: {error}")))?;
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
            .map(|text| {
                command_id_from_key(&text).ok_or_else(|| {
                    self.bad(format!(
                        "its command_id has not 1 to {IDEMPOTENCY_KEY_MAX} visible characters"
                    ))
                })
            })
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
        let content = derived_id(&["import", &canonical]);
        let (occurrence, first) = {
            let seen = self.seen.entry(content).or_insert((0, self.line));
            seen.0 += 1;
            (seen.0.to_string(), seen.1)
        };
        let mut parts = vec!["import", &canonical, &occurrence];
        if self.import.again {
            parts.extend(["again", &self.import.name]);
        }
        let names_a_thing = id.is_some() || has_own_identity(stream, &command);
        let has_own_identity = names_a_thing || command_id.is_some();
        // Of a line that begins another thing each time, or nothing, there is nothing to update.
        let begins = command["type"] == stream.begins();
        let run = self.import.upsert.as_deref().filter(|_| names_a_thing && begins);
        parts.extend(run.map(|_| "upsert"));
        let derived = derived_id(&parts);
        parts.extend(run);
        let ask_anew = run.filter(|_| command_id.is_none()).map(|_| derived_id(&parts));
        if !has_own_identity && first != self.line {
            self.ready = Some(Err(BadLine {
                what: What::Double,
                ..self.bad(format!("the same as line {first}, and applied as well"))
            }));
        }
        Ok(ImportLine {
            incoming: Incoming {
                stream,
                id,
                customer,
                command,
                expected_version,
            },
            command_id: command_id.unwrap_or(derived),
            upsert: run.is_some(),
            ask_anew,
            effective_at,
            actor,
            correlation: correlation.or_else(|| Some(self.import.correlation())),
            file: Arc::clone(&self.file),
            line: self.line,
            document: None,
            by_content: !has_own_identity,
            is_change: false,
            key: derived,
        })
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<ImportLine, BadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(ready) = self.ready.take() {
            return Some(ready);
        }
        while !self.finished {
            self.line += 1;
            let line = match next_line(&mut self.reader, LINE_BYTES_MAX) {
                Ok(None) => break,
                Ok(Some(line)) => line,
                Err(error) => {
                    // It would say so for ever.
                    self.finished = true;
                    let reason = format!("the file cannot be read on from here: {}", error.kind());
                    return Some(Err(self.bad(reason)));
                }
            };
            self.bytes.fetch_add(line.read, Ordering::Relaxed);
            let Some(text) = line.text else {
                return Some(Err(self.bad(format!("longer than {LINE_BYTES_MAX} bytes"))));
            };
            // Windows programs begin a file with a mark that it is UTF-8.
            let text = match self.line {
                1 => text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text),
                _ => &text,
            };
            let trimmed = text.trim_ascii();
            if !trimmed.is_empty() {
                return Some(self.parse(trimmed));
            }
        }
        self.finished = true;
        None
    }
}

/// Whether the command itself says which thing it is about.
///
/// The line may name a customer by a key. The door replaces it by an id later. Here any id does.
fn has_own_identity(stream: StreamKind, command: &Value) -> bool {
    let mut command = command.clone();
    if let Value::Object(fields) = &mut command {
        let is_key = |value: &Value| value.get("key").is_some();
        let keys = fields.values_mut().filter(|value| is_key(value));
        keys.for_each(|key| *key = Uuid::nil().to_string().into());
        if !fields.contains_key("customer") {
            fields.insert("customer".into(), Uuid::nil().to_string().into());
        }
    }
    let with_customer = AnyCommand::from_json(stream, command.clone());
    let read = with_customer.or_else(|_| {
        if let Value::Object(fields) = &mut command {
            fields.remove("customer");
        }
        AnyCommand::from_json(stream, command)
    });
    read.is_ok_and(|command| matches!(command.home(), Home::Exactly(_)))
}

#[cfg(test)]
pub(super) mod specs {
    use super::*;

    pub fn spec_name() -> Name {
        Name {
            name: "spec".to_owned(),
            again: false,
            upsert: None,
        }
    }

    fn lines_of(text: &[u8], name: &str, again: bool) -> Vec<Result<ImportLine, BadLine>> {
        let import = Name {
            name: name.to_owned(),
            again,
            upsert: None,
        };
        Lines::new(text, import, "spec.jsonl", Arc::default()).collect()
    }

    fn ids(text: &[u8], name: &str, again: bool) -> Vec<Uuid> {
        let lines = lines_of(text, name, again).into_iter();
        lines.filter_map(|line| Some(line.ok()?.command_id)).collect()
    }

    const CALL: &str = r#"{"stream": "interaction", "customer": {"key": ["erp", "1"]}, "command": {"type": "record"}}"#;

    #[test]
    fn a_line_is_known_under_any_name_and_meant_again_when_it_is_said() {
        let twice = format!("{CALL}\n{CALL}\n");
        let today = ids(twice.as_bytes(), "monday.jsonl", false);
        assert_ne!(today[0], today[1]);
        assert_eq!(ids(twice.as_bytes(), "tuesday.jsonl", false), today);
        let again = ids(twice.as_bytes(), "tuesday.jsonl", true);
        assert!(again.iter().all(|id| !today.contains(id)), "{again:?}");
        assert_eq!(ids(twice.as_bytes(), "tuesday.jsonl", true), again);
        assert_ne!(ids(twice.as_bytes(), "wednesday.jsonl", true), again);
    }

    /// Whether it updates, its id, and that under which it is asked anew.
    fn upserted(line: &str, run: Option<&str>) -> (bool, Uuid, Option<Uuid>) {
        let import = Name {
            upsert: run.map(str::to_owned),
            ..spec_name()
        };
        let mut lines = Lines::new(line.as_bytes(), import, "spec.jsonl", Arc::default());
        let line = lines.next().unwrap().unwrap();
        (line.upsert, line.command_id, line.ask_anew)
    }

    #[test]
    fn a_line_that_begins_a_thing_it_names_updates_it_and_is_asked_anew_in_each_run() {
        let register = r#"{"stream": "customer", "id": {"key": ["erp", "1"]}, "command": {"type": "register"}}"#;
        let (updates, plain, anew) = upserted(register, None);
        assert_eq!((updates, anew), (false, None));
        let (updates, monday, anew_on_monday) = upserted(register, Some("monday"));
        assert!(updates && anew_on_monday.is_some() && monday != plain);
        let (_, tuesday, anew_on_tuesday) = upserted(register, Some("tuesday"));
        assert!(tuesday == monday && anew_on_tuesday != anew_on_monday);
        // Its sender says by the id whether it is the same.
        let with_id = register.replace(r#""command":"#, r#""command_id": "r-1", "command":"#);
        let (updates, _, anew) = upserted(&with_id, Some("monday"));
        assert_eq!((updates, anew), (true, None));
    }

    #[test]
    fn a_line_that_begins_nothing_or_something_else_each_time_is_applied_once_as_ever() {
        let rename =
            r#"{"stream": "customer", "id": {"key": ["erp", "1"]}, "command": {"type": "rename", "name": "a"}}"#;
        let open = r#"{"stream": "case", "command_id": "c-1", "command": {"type": "open"}}"#;
        for line in [CALL, rename, open] {
            assert_eq!(upserted(line, Some("monday")), upserted(line, None), "{line}");
        }
    }

    #[test]
    fn a_line_without_an_identity_that_comes_twice_is_said() {
        let identified = CALL.replace(r#""command""#, r#""id": {"key": ["erp", "I-1"]}, "command""#);
        let text = [CALL, CALL, &identified, &identified].join("\n");
        let read: Vec<Result<bool, (u64, What, String)>> = lines_of(text.as_bytes(), "spec", false)
            .into_iter()
            .map(|line| {
                line.map(|line| line.by_content)
                    .map_err(|bad| (bad.line, bad.what, bad.reason))
            })
            .collect();
        let said = "the same as line 1, and applied as well".to_owned();
        let expected = [Ok(true), Ok(true), Err((2, What::Double, said)), Ok(false), Ok(false)];
        assert_eq!(read, expected);
    }

    #[test]
    fn a_command_that_says_which_thing_it_is_about_has_an_identity() {
        let line = |stream: &str, command: &str| {
            let text =
                format!(r#"{{"stream": "{stream}", "customer": {{"key": ["erp", "1"]}}, "command": {command}}}"#);
            !lines_of(text.as_bytes(), "spec", false).remove(0).unwrap().by_content
        };
        let install = r#"{"type": "install", "maker": "M", "serial": "1", "model": "X", "site": "S"}"#;
        let schedule =
            r#"{"type": "schedule", "equipment": {"key": ["erp", "M-1"]}, "due": "2026-12-01", "checklist": "yearly"}"#;
        assert!(line("equipment", install));
        assert!(line("inspection", schedule));
        assert!(line("loyalty", r#"{"type": "enrol", "program": "gold"}"#));
        assert!(line("link", r#"{"type": "link", "source": "erp", "key": "1"}"#));
        let mail = r#"{"type": "record", "channel": "email", "direction": "in", "subject": "offer", "provider_id": "<1@mail>"}"#;
        assert!(line("interaction", mail));
        assert!(!line(
            "interaction",
            r#"{"type": "record", "channel": "phone", "direction": "in", "subject": "call"}"#
        ));
        assert!(!line(
            "case",
            r#"{"type": "open", "subject": "leaks", "kind": "incident", "priority": "high", "channel": "phone"}"#
        ));
    }

    #[test]
    fn a_mark_of_utf_8_is_read_over_and_a_field_that_is_given_twice_is_refused() {
        let marked = format!("\u{feff}{CALL}\r\n");
        assert!(lines_of(marked.as_bytes(), "spec", false)[0].is_ok());
        let twice = CALL.replace(
            r#""type": "record""#,
            r#""type": "record", "subject": "a", "subject": "b""#,
        );
        let bad = lines_of(twice.as_bytes(), "spec", false).remove(0).unwrap_err();
        assert!(
            bad.reason.contains("command.subject: the field is given twice"),
            "{}",
            bad.reason
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_on_ends_with_its_place() {
        struct Broken;
        impl std::io::Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::InvalidData.into())
            }
        }
        let text = format!("{CALL}\n");
        let reader = std::io::BufReader::new(std::io::Read::chain(text.as_bytes(), Broken));
        let read: Vec<_> = Lines::new(reader, spec_name(), "spec.jsonl", Arc::default()).collect();
        let places: Vec<_> = read
            .iter()
            .map(|line| line.as_ref().map_err(|bad| (bad.line, bad.reason.as_str())))
            .collect();
        assert_eq!(places.len(), 2);
        assert_eq!(
            places[1].as_ref().unwrap_err(),
            &(2, "the file cannot be read on from here: invalid data")
        );
    }

    #[test]
    fn a_file_may_be_called_as_its_owner_likes() {
        let name = |name: &str| Name {
            name: name.to_owned(),
            again: false,
            upsert: None,
        };
        assert_eq!(name("calls.jsonl").correlation(), "import:calls.jsonl");
        assert_eq!(name("my \u{96fb}\u{8a71}.jsonl").correlation(), "import:my___.jsonl");
        assert_eq!(name(&"x".repeat(500)).correlation().len(), 187);
    }

    #[test]
    fn a_line_that_is_too_long_is_reported_and_the_rest_goes_on() {
        let line = |padding: usize| {
            let padding = " ".repeat(padding);
            format!(r#"{{"stream": "customer", {padding}"command": {{"type": "close"}}}}"#)
        };
        let room = LINE_BYTES_MAX - line(0).len() - 1;
        let text = [line(room), line(room + 1), line(0).replace("close", "reopen")].join("\n");
        let bytes = Arc::new(AtomicU64::new(0));
        let lines = Lines::new(text.as_bytes(), spec_name(), "spec.jsonl", Arc::clone(&bytes));
        let read: Vec<Result<u64, (u64, String)>> = lines
            .map(|line| line.map(|line| line.line).map_err(|bad| (bad.line, bad.reason)))
            .collect();
        let too_long = Err((2, "longer than 1048576 bytes".to_owned()));
        assert_eq!(read, [Ok(1), too_long, Ok(3)]);
        assert_eq!(bytes.load(Ordering::Relaxed), text.len() as u64);
    }
}
