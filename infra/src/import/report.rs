//! What became of an import: true of the log, and with the place of whatever came to nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::Position;
use serde_json::{Value, json};

use super::Dangling;
use super::sender::Taken;
use crate::sources::{BadLine, ImportLine, What};

/// Findings that are kept in full; further ones are counted.
pub const FINDINGS_MAX: usize = 100_000;

/// What became of an import.
#[derive(Debug, Default)]
pub struct Report {
    /// Commands that wrote events, and how many events.
    pub applied: u64,
    pub events: u64,
    /// How many of those changed a document that the log had with other content.
    pub corrected: u64,
    /// How many of them changed another thing that was there already, for it was said that they may.
    pub updated: u64,
    /// Commands whose intent was so already, or that had been applied before.
    pub unchanged: u64,
    /// How many of those had been applied before, under the same id.
    pub applied_before: u64,
    /// Lines and documents that this run has twice.
    pub doubles: u64,
    /// Documents that were not taken, for a part of them makes no sense.
    pub held_back: u64,
    /// Changes of something that the log knows with another history.
    pub differs: u64,
    /// Commands that were refused.
    pub rejected: u64,
    /// Lines that make no sense.
    pub bad: u64,
    pub findings: Vec<Finding>,
    /// The last position of each shard that an answer named.
    pub positions: BTreeMap<u16, u64>,
    /// What the log refers to and does not have, after the import.
    pub dangling: Option<Dangling>,
    findings_left_out: u64,
    /// Where each shard ended before: an answer from before that is of an earlier run.
    ends: Vec<u64>,
}

/// Something to be said of a line or a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub what: Found,
    pub file: Arc<str>,
    pub line: u64,
    pub document: Option<Arc<str>>,
    pub reason: String,
}

/// What is to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The command was refused.
    Refused,
    /// The line makes no sense.
    NoSense,
    /// The document is not taken at all.
    HeldBack,
    /// The document says something else than the log does, and the log is as it was.
    Differs,
    /// The document says something else than the log did, and the log says it now.
    Corrected,
    /// The thing was there already and said something else, and says it now.
    Updated,
    /// It came twice in this run.
    Double,
    /// It has nothing that tells it from the same line of an earlier import, which was applied and ends at this position.
    AppliedBefore(Position),
}

impl Found {
    /// Did the line come to nothing although it should have come to something?
    pub fn is_trouble(self) -> bool {
        match self {
            Found::Refused | Found::NoSense | Found::HeldBack | Found::Differs => true,
            Found::Corrected | Found::Updated | Found::Double | Found::AppliedBefore(_) => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Found::Refused => "refused",
            Found::NoSense => "no-sense",
            Found::HeldBack => "held-back",
            Found::Differs => "differs",
            Found::Corrected => "corrected",
            Found::Updated => "updated",
            Found::Double => "double",
            Found::AppliedBefore(_) => "applied-before",
        }
    }
}

impl Finding {
    pub fn of(line: &ImportLine, what: Found, reason: impl Into<String>) -> Finding {
        Finding {
            what,
            file: Arc::clone(&line.file),
            line: line.line,
            document: line.document.clone(),
            reason: reason.into(),
        }
    }
}

impl From<BadLine> for Finding {
    fn from(bad: BadLine) -> Finding {
        Finding {
            what: match bad.what {
                What::NoSense => Found::NoSense,
                What::HeldBack => Found::HeldBack,
                What::Double => Found::Double,
            },
            file: bad.file,
            line: bad.line,
            document: bad.document,
            reason: bad.reason,
        }
    }
}

/// `i.csv, line 3: 539902: the quantity is no number`
impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, line {}: ", self.file, self.line)?;
        if let Some(document) = &self.document {
            write!(f, "{document}: ")?;
        }
        f.write_str(&self.reason)
    }
}

impl Report {
    /// Of an import into a log whose shards end there.
    pub fn new(ends: &[u64]) -> Report {
        Report {
            ends: ends.to_vec(),
            ..Report::default()
        }
    }

    pub fn add_taken(&mut self, line: &ImportLine, is_double: bool, taken: &Taken) {
        let position = taken.position;
        let last = self.positions.entry(position.shard).or_insert(position.offset);
        *last = (*last).max(position.offset);
        if is_double {
            self.doubles += 1;
            let reason = "a line of this run has this command id already";
            self.note(Finding::of(line, Found::Double, reason));
        } else if taken.events == 0 && line.is_change {
            let reason = "the log has this already, but not by this row: it knows another history, and a file does not change it";
            self.add_finding(Finding::of(line, Found::Differs, reason));
        } else if taken.events == 0 {
            self.unchanged += 1;
        } else if taken.is_of_before(&self.ends) {
            self.unchanged += 1;
            self.applied_before += 1;
            if line.by_content {
                let reason = "applied before";
                self.note(Finding::of(line, Found::AppliedBefore(position), reason));
            }
        } else {
            self.applied += 1;
            let events = u64::from(taken.events);
            self.events += events;
            let was_there = taken.version > events;
            if was_there && line.incoming.command["type"] == "correct" {
                self.corrected += 1;
                let reason = "it was in the log already, and is corrected or has got its customer";
                self.note(Finding::of(line, Found::Corrected, reason));
            } else if was_there && line.upsert {
                self.updated += 1;
                let reason = format!("it was there already, and is updated ({events} events)");
                self.note(Finding::of(line, Found::Updated, reason));
            }
        }
    }

    pub fn add_finding(&mut self, finding: Finding) {
        match finding.what {
            Found::Refused => self.rejected += 1,
            Found::NoSense => self.bad += 1,
            Found::HeldBack => self.held_back += 1,
            Found::Differs => self.differs += 1,
            Found::Double => self.doubles += 1,
            Found::Corrected | Found::Updated | Found::AppliedBefore(_) => {}
        }
        self.note(finding);
    }

    fn note(&mut self, finding: Finding) {
        match self.findings.len() < FINDINGS_MAX {
            true => self.findings.push(finding),
            false => self.findings_left_out += 1,
        }
    }

    pub fn found_trouble(&self) -> bool {
        self.rejected + self.bad + self.held_back + self.differs > 0
    }

    /// For people: what came of all lines.
    pub fn summary(&self) -> String {
        let mut summary = format!(
            "{} commands applied ({} events), {} unchanged, {} rejected, {} lines made no sense",
            self.applied, self.events, self.unchanged, self.rejected, self.bad
        );
        let more = [
            (self.corrected, "documents corrected"),
            (self.updated, "updated"),
            (self.held_back, "documents held back"),
            (self.differs, "changes that differ from the log"),
            (self.doubles, "doubles"),
            (self.applied_before, "applied before"),
        ];
        let more: Vec<String> = more
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if !more.is_empty() {
            summary += &format!("\n{}", more.join(", "));
        }
        summary
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let findings = self.findings.iter().map(|finding| {
            json!({
                "what": finding.what.name(),
                "file": *finding.file,
                "line": finding.line,
                "document": finding.document.as_deref(),
                "reason": finding.reason,
            })
        });
        json!({
            "new": self.applied - self.corrected - self.updated,
            "corrected": self.corrected,
            "updated": self.updated,
            "events": self.events,
            "unchanged": self.unchanged,
            "applied_before": self.applied_before,
            "doubles": self.doubles,
            "held_back": self.held_back,
            "differs": self.differs,
            "refused": self.rejected,
            "no_sense": self.bad,
            "dangling": self.dangling,
            "findings": findings.collect::<Vec<_>>(),
            "findings_left_out": self.findings_left_out,
        })
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn findings_beyond_the_bound_are_counted_and_not_kept() {
        let mut report = Report::default();
        for line in 0..FINDINGS_MAX as u64 + 10 {
            report.add_finding(Finding {
                what: Found::Refused,
                file: "spec.jsonl".into(),
                line,
                document: None,
                reason: "no".to_owned(),
            });
        }
        assert_eq!(report.rejected, FINDINGS_MAX as u64 + 10);
        assert_eq!(report.findings.len(), FINDINGS_MAX);
        assert_eq!(report.to_json()["findings_left_out"], 10);
    }
}
