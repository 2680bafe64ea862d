//! What the company does, written down in the order in which it is entered.

use std::collections::HashMap;
use std::sync::Arc;

use domain::{Actor, AnyCommand, Calendar, Home, Id, Stream, StreamRef, derived_id, derived_in, job, slot_of};
use jiff::{SignedDuration, Timestamp};
use services::commands::{Incoming, Reference};
use uuid::Uuid;

use super::calendar::{LAST_DAY, at, on_clocks_of};
use crate::sources::ImportLine;

/// All commands of the two years. Two hundred thousand of them would still fit in memory with ease.
pub struct Book {
    /// Part of every id, so that companies of several sizes can stand side by side.
    company: &'static str,
    entries: Vec<Entry>,
    /// Streams that were begun without a key of their own.
    begun: u64,
    /// Before every serial number, for a machine stands in one company only.
    serials: &'static str,
    /// Machines that were built.
    built: u64,
    /// What is entered later than this has not happened yet.
    end: Timestamp,
}

struct Entry {
    entered_at: Timestamp,
    effective_at: Timestamp,
    actor: &'static str,
    stream: StreamRef,
    key: Uuid,
    command: AnyCommand,
}

/// A thread of the tale, in which each thing is entered after the one before it.
pub struct Story {
    key: Uuid,
    /// When its last thing was entered.
    pub entered_at: Timestamp,
}

impl Story {
    /// Begins after `since`. Stories with the same key never overtake each other.
    pub fn new(key: Uuid, since: Timestamp) -> Story {
        Story { key, entered_at: since }
    }

    /// `actor` enters at once what happens.
    pub fn tell<S: Stream>(
        &mut self,
        book: &mut Book,
        actor: &'static str,
        at: Timestamp,
        id: Id<S>,
        command: S::Command,
    ) where
        AnyCommand: From<S::Command>,
    {
        self.tell_late(book, actor, at, SignedDuration::ZERO, id, command);
    }

    /// `actor` enters what happened some time ago.
    pub fn tell_late<S: Stream>(
        &mut self,
        book: &mut Book,
        actor: &'static str,
        at: Timestamp,
        delay: SignedDuration,
        id: Id<S>,
        command: S::Command,
    ) where
        AnyCommand: From<S::Command>,
    {
        self.entered_at = self.entered_at.max(at + delay);
        if self.entered_at > book.end {
            return;
        }
        book.entries.push(Entry {
            entered_at: self.entered_at,
            effective_at: at,
            actor,
            stream: StreamRef::of(id),
            key: self.key,
            command: command.into(),
        });
    }

    /// Begins a stream, in the slot where it belongs.
    pub fn begin<S: Stream>(
        &mut self,
        book: &mut Book,
        actor: &'static str,
        at: Timestamp,
        command: S::Command,
    ) -> Id<S>
    where
        AnyCommand: From<S::Command>,
    {
        let id = book.new_id::<S>(&command);
        self.tell(book, actor, at, id, command);
        id
    }
}

impl Book {
    pub fn new(company: &'static str, serials: &'static str) -> Book {
        Book {
            company,
            serials,
            entries: Vec::new(),
            begun: 0,
            built: 0,
            end: at(LAST_DAY, 23, 59),
        }
    }

    pub fn company(&self) -> &'static str {
        self.company
    }

    /// The id of the stream that `command` begins.
    pub fn new_id<S: Stream>(&mut self, command: &S::Command) -> Id<S> {
        self.begun += 1;
        let number = self.begun.to_string();
        let parts = [self.company, S::NAME, &number];
        Id::new(match S::home(command) {
            Home::Exactly(id) => id,
            Home::With(other) => derived_in(slot_of(other), &parts),
            Home::Anywhere => derived_id(&parts),
        })
    }

    /// The serial number of the next machine.
    pub fn new_serial(&mut self, model: &str) -> String {
        self.built += 1;
        format!("{}{model}-{:05}", self.serials, self.built)
    }

    /// When something was entered last, by key.
    pub fn last_entered(&self) -> HashMap<Uuid, Timestamp> {
        let mut last = HashMap::new();
        for entry in &self.entries {
            let known = last.entry(entry.key).or_insert(entry.entered_at);
            *known = entry.entered_at.max(*known);
        }
        last
    }

    /// The commands in the order in which they are entered, by the clocks of `calendar`.
    pub fn into_lines(mut self, calendar: &Calendar) -> impl Iterator<Item = ImportLine> + Send + use<> {
        // Stable: within a story things stand in their order already.
        self.entries.sort_by_key(|entry| entry.entered_at);
        let calendar = calendar.clone();
        let (company, file) = (self.company, Arc::<str>::from(self.company));
        self.entries
            .into_iter()
            .zip(1..)
            .map(move |(entry, line): (Entry, u64)| ImportLine {
                incoming: Incoming {
                    stream: entry.stream.kind,
                    id: Some(Reference::Id(entry.stream.id)),
                    customer: None,
                    command: on_clocks(entry.command, &calendar).to_json(),
                    expected_version: None,
                },
                command_id: derived_id(&["demo", company, &line.to_string()]),
                ask_anew: None,
                upsert: false,
                effective_at: Some(on_clocks_of(&calendar, entry.effective_at)),
                actor: Actor::parse(entry.actor).expect("an actor"),
                correlation: None,
                file: file.clone(),
                line,
                document: None,
                by_content: false,
                is_change: false,
                key: entry.key,
            })
    }
}

/// The command with the times that stand in it by the clocks of `calendar`.
fn on_clocks(mut command: AnyCommand, calendar: &Calendar) -> AnyCommand {
    if let AnyCommand::Job(job::Command::Schedule { start, end, .. }) = &mut command {
        (*start, *end) = (on_clocks_of(calendar, *start), on_clocks_of(calendar, *end));
    }
    command
}
