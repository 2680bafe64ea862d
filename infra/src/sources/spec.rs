//! Runs commands through the domain alone, without a log or a shard, and keeps every state: what a source gives must be accepted.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::PathBuf;

use domain::{
    AnyCommand, AnyState, Calendar, Companions, Fact, Home, Moment, StreamKind, StreamRef, id_from_key, slot_of,
};
use jiff::Timestamp;
use serde_json::Value;
use services::commands::Reference;
use uuid::Uuid;

use super::{BadLine, ImportLine};

/// A company in memory.
#[derive(Default)]
pub struct Folded {
    pub states: HashMap<StreamRef, AnyState>,
    pub facts: Vec<(StreamRef, Timestamp, Fact)>,
    /// Commands that were sent before under their id.
    pub repeated: usize,
    /// Commands that gave no event.
    pub idle: Vec<String>,
    pub rejected: Vec<String>,
    pub bad: Vec<BadLine>,
    applied: HashMap<Uuid, String>,
}

struct Known<'a> {
    id: Uuid,
    states: &'a HashMap<StreamRef, AnyState>,
    unbegun: HashMap<StreamRef, AnyState>,
}

impl Companions for Known<'_> {
    fn find(&self, stream: StreamRef) -> Option<&dyn Any> {
        if slot_of(stream.id) != slot_of(self.id) {
            return None;
        }
        let state = self.states.get(&stream).or_else(|| self.unbegun.get(&stream));
        Some(state.expect("a companion is declared").as_any())
    }
}

impl Folded {
    pub fn take_all(&mut self, lines: impl Iterator<Item = Result<ImportLine, BadLine>>) {
        for line in lines {
            match line {
                Ok(line) => self.take(&line),
                Err(bad) => self.bad.push(bad),
            }
        }
    }

    /// As the door and the shard would take it.
    pub fn take(&mut self, line: &ImportLine) {
        let content = format!("{:?} {:?}", line.incoming, line.effective_at);
        for id in std::iter::once(line.command_id).chain(line.ask_anew) {
            match self.applied.insert(id, content.clone()) {
                None => break,
                Some(before) => assert_eq!(before, content, "a command id is used for one content"),
            }
            if line.ask_anew.is_none_or(|anew| anew == id) {
                self.repeated += 1;
                return;
            }
        }
        let kind = line.incoming.stream;
        let mut json = line.incoming.command.clone();
        resolve(&mut json);
        let command = AnyCommand::from_json(kind, json).unwrap_or_else(|error| panic!("line {}: {error}", line.line));
        let id = match &line.incoming.id {
            Some(Reference::Id(id)) => *id,
            Some(Reference::Key { source, key }) => id_from_key(kind.name(), source, key),
            None => match command.home() {
                Home::Exactly(id) => id,
                Home::With(_) | Home::Anywhere => panic!("line {}: a {kind:?} without an id", line.line),
            },
        };
        let stream = StreamRef { kind, id };
        let declared = command.companions().into_iter();
        let known = Known {
            id,
            states: &self.states,
            unbegun: declared.map(|other| (other, AnyState::initial(other.kind))).collect(),
        };
        let calendar = Calendar::taipei();
        let now = "2026-11-01T00:00:00+08:00".parse().expect("a time");
        let at = Moment::new(id, now, line.effective_at.unwrap_or(now), &calendar, &known);
        let state = self.states.get(&stream).cloned();
        let mut state = state.unwrap_or_else(|| AnyState::initial(kind));
        let name = line.incoming.command["type"].clone();
        let place = format!("{} line {}: {} {name}", line.file, line.line, kind.name());
        match state.decide(command, &at) {
            Ok(facts) => {
                if facts.is_empty() {
                    self.idle.push(place);
                }
                for fact in facts {
                    state = state.evolve(&fact, at.effective_at);
                    self.facts.push((stream, at.effective_at, fact));
                }
                self.states.insert(stream, state);
            }
            Err(rejection) => {
                self.rejected.push(format!("{place}: {rejection}"));
            }
        }
    }

    pub fn count(&self, counts: impl Fn(&Fact) -> bool) -> usize {
        self.facts.iter().filter(|(_, _, fact)| counts(fact)).count()
    }

    /// The streams with a fact that counts.
    pub fn streams(&self, counts: impl Fn(&Fact) -> bool) -> usize {
        let facts = self.facts.iter().filter(|(_, _, fact)| counts(fact));
        facts.map(|(stream, _, _)| *stream).collect::<HashSet<_>>().len()
    }
}

/// Puts ids in the place of keys.
fn resolve(json: &mut Value) {
    let Value::Object(fields) = json else { return };
    for (name, value) in fields.iter_mut() {
        let Some([Value::String(source), Value::String(key)]) =
            value.get("key").and_then(Value::as_array).map(Vec::as_slice)
        else {
            continue;
        };
        let kind = StreamKind::parse(name).expect("a field with a key is called like its stream");
        *value = id_from_key(kind.name(), source, key).to_string().into();
    }
}

/// A folder of the real inputs; `None`, and a line that says so, where it is not there.
pub fn real_input(folder: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("CRM_DATA_DIR") {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
    };
    let path = root.join(folder);
    if path.exists() {
        return Some(path);
    }
    // Not `eprintln!`: what a test that passes prints is not shown.
    let line = format!(
        "SKIPPED: real input {} is not there, set CRM_DATA_DIR\n",
        path.display()
    );
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("standard error takes a line");
    None
}
