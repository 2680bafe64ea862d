//! Files of other systems, read as commands.
//!
//! A source turns a file into commands in its own order and knows nothing of logs or shards: the importer sends them. To add one,
//! write a file beside this one and a line in [`SOURCES`].

mod rows;
#[cfg(test)]
pub(crate) mod spec;

pub mod incidents;
pub mod online_retail;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::{Actor, DAY_MAX, DAY_MIN, StreamKind, StreamRef, derived_id, id_from_key};
use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value;
use services::commands::{Incoming, Reference};
use uuid::Uuid;

/// All there are.
pub static SOURCES: &[&dyn Source] = &[&online_retail::OnlineRetail, &incidents::Incidents];

/// A kind of file that can be ingested.
pub trait Source: Sync {
    /// The name in `crm ingest <name> <path>`, and the source of the keys it makes; it never changes.
    fn name(&self) -> &'static str;

    /// One line for the help.
    fn about(&self) -> &'static str;

    /// The columns that it reads, for the help.
    fn columns(&self) -> &'static [Column];

    /// How many bytes there are to read at `path`, for the progress bar.
    ///
    /// # Errors
    /// When there is nothing that can be read.
    fn size_bytes(&self, path: &Path) -> anyhow::Result<u64>;

    /// The commands of the file or folder, read as they are asked for. The same content gives the same commands under the same ids.
    ///
    /// # Errors
    /// When there is nothing that can be read. What is wrong later comes as [`BadLine`], and the rest goes on.
    fn lines(&self, path: &Path, reading: &Reading, progress: Arc<Progress>) -> anyhow::Result<Lines>;
}

/// A column of a file, found by its name.
#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    /// Other names that it has in the wild.
    pub also: &'static [&'static str],
    /// What it says, for the help.
    pub about: &'static str,
}

impl Column {
    const fn new(name: &'static str, about: &'static str) -> Column {
        Column { name, also: &[], about }
    }

    const fn or(mut self, also: &'static [&'static str]) -> Column {
        self.also = also;
        self
    }
}

/// How a run reads its files.
#[derive(Debug, Clone)]
pub struct Reading {
    pub corrections: Corrections,
    /// Names the run; part of the ids under which documents are asked anew.
    pub run: String,
}

/// What becomes of a document that the log has with other content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Corrections {
    /// The file is right: the document is corrected. An earlier version of it that comes again, and one that was voided, are refused
    #[default]
    Apply,
    /// The log is right: the document is refused
    Refuse,
    /// The file is right, even if it is an earlier version, or was voided
    Reinstate,
}

/// What a source gives: commands to send, and lines that make no sense.
pub type Lines = Box<dyn Iterator<Item = Result<ImportLine, BadLine>> + Send>;

/// The source of this name.
pub fn find(name: &str) -> Option<&'static dyn Source> {
    SOURCES.iter().copied().find(|source| source.name() == name)
}

/// One command and where it came from.
#[derive(Debug, Clone)]
pub struct ImportLine {
    pub incoming: Incoming,
    /// UUIDv8, derived from what the command is about, so that a file that comes twice is applied once.
    pub command_id: Uuid,
    /// The id under which it is asked anew when it was applied in an earlier run: a document may have been corrected or voided since.
    pub ask_anew: Option<Uuid>,
    /// Update or create: a beginning changes what is begun to what it says.
    pub upsert: bool,
    pub effective_at: Option<Timestamp>,
    pub actor: Actor,
    pub correlation: Option<String>,
    /// The file's name without its folder; the generator's name for what is generated.
    pub file: Arc<str>,
    /// From 1. Several commands may come from one line, and one command from several: then it is the first of them.
    pub line: u64,
    /// The number of the invoice or case that it belongs to, where the source has such.
    pub document: Option<Arc<str>>,
    /// Has it no identity but its content? Then nobody can tell the same line sent twice from a second one.
    pub by_content: bool,
    /// Whether the command was made from a difference between two states of one thing. Such a command changes something,
    /// unless the log knows another history of the thing.
    pub is_change: bool,
    /// Lines with the same key, like those of the same stream, are applied in the order in which they are given; others may
    /// overtake each other.
    pub key: Uuid,
}

/// Why a line gives no command. The reason never repeats what the line says: that may be personal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    pub file: Arc<str>,
    /// From 1; 0 stands for the file as a whole.
    pub line: u64,
    /// The number of the invoice or case that it belongs to, where the source has such.
    pub document: Option<Arc<str>>,
    pub what: What,
    pub reason: String,
}

/// What is the matter with a line, or with the document that begins there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The line makes no sense.
    NoSense,
    /// The document is not taken at all, for a part of it cannot be told.
    HeldBack,
    /// The document stands in these files before, with the same content.
    Double,
}

/// How far a source has read. The source writes it, whoever shows it reads it.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    files: AtomicU64,
    rows: AtomicU64,
    unchanged: AtomicU64,
}

impl Progress {
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Files that were begun.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Data lines that were read, good and bad; headers and blank lines are none.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Good lines that say nothing new, and so gave no command.
    pub fn unchanged(&self) -> u64 {
        self.unchanged.load(Ordering::Relaxed)
    }

    fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn add_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    fn add_row(&self) {
        self.rows.fetch_add(1, Ordering::Relaxed);
    }

    fn add_unchanged(&self) {
        self.unchanged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Is it a day on which some business may have been done? A year of two digits is not.
fn is_plausible(date: Date) -> bool {
    (DAY_MIN..=DAY_MAX).contains(&date)
}

/// A stream that is named by a key of the source.
fn keyed(source: &str, key: &str) -> Reference {
    Reference::Key {
        source: source.to_owned(),
        key: key.to_owned(),
    }
}

/// The id that [`keyed`] means, unless the key was linked to another customer.
fn keyed_id(stream: StreamKind, source: &str, key: &str) -> StreamRef {
    StreamRef {
        kind: stream,
        id: id_from_key(stream.name(), source, key),
    }
}

/// The id of the command that `parts` name within a source.
fn command_id(source: &str, parts: &[&str]) -> Uuid {
    let mut all = vec!["ingest", source];
    all.extend(parts);
    derived_id(&all)
}

fn incoming(stream: StreamKind, id: Reference, command: Value) -> Incoming {
    Incoming {
        stream,
        id: Some(id),
        customer: None,
        command,
        expected_version: None,
    }
}
