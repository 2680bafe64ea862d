//! A service desk's log (UCI incident management process): every change of every incident, as the incident stood after it.
//!
//! The rows of a case stand together. What differs from the row before becomes commands:
//!
//! | column | command |
//! |---|---|
//! | first row | `open` |
//! | category, subcategory, priority | `classify` |
//! | assignment_group, assigned_to | `assign` |
//! | incident_state Active | `resume` when the case was pending, `reopen` when it was resolved or closed; a case that nobody has is taken up by an internal `reply` |
//! | Awaiting User Info; Awaiting Vendor, Problem or Evidence | `set-pending` on the customer; on a third party |
//! | Resolved, Closed | `resolve` with the closed_code, `close` |
//! | made_sla turns false | `escalate` with [`SLA_MISSED`], while the case is open: see [`Case::missed_sla_at`] |
//!
//! A row that differs in nothing of this is counted as unchanged.

use std::collections::HashSet;
use std::iter::Peekable;
use std::path::Path;
use std::sync::Arc;
use std::vec;

use anyhow::Context;
use domain::case::{self, PendingOn};
use domain::{Actor, StreamKind};
use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::rows::{Row, Rows};
use super::{
    BadLine, Column, ImportLine, Lines, Progress, Reading, Source, What, command_id, incoming, is_plausible, keyed,
    keyed_id,
};

const NAME: &str = "incidents";
const COLUMNS: &[Column] = &[
    Column::new("number", "the incident"),
    Column::new("incident_state", "New, Active, Awaiting …, Resolved or Closed").or(&["ident_state"]),
    Column::new("sys_mod_count", "how many changes before this one"),
    Column::new("made_sla", "true or false"),
    Column::new("caller_id", "who called"),
    Column::new("opened_at", "29/2/2016 01:16, UTC"),
    Column::new("sys_updated_at", "when it was changed, written likewise"),
    Column::new("contact_type", "Phone, Email, Self service …"),
    Column::new("category", "what it is about"),
    Column::new("subcategory", "more exactly").or(&["category"]),
    Column::new("u_symptom", "what was seen"),
    Column::new("impact", "1 to 3"),
    Column::new("urgency", "1 to 3"),
    Column::new("priority", "1 to 4, with or without its word: 3 - Moderate"),
    Column::new("assignment_group", "the group that has it"),
    Column::new("assigned_to", "the agent who has it"),
    Column::new("closed_code", "how it ended"),
];

/// Why a case is escalated that did not keep its service level. The cases that were never escalated for it kept theirs.
pub const SLA_MISSED: &str = "sla-missed";

/// More changes than this are a loop in somebody's program.
const CASE_ROWS_MAX: usize = 10_000;

/// The log does not say since when a caller is known, and their first case would depend on the file: the day on which the log
/// begins stands for it.
const CALLERS_KNOWN_SINCE: Timestamp = Timestamp::constant(1_456_704_000, 0); // 2016-02-29T00:00:00Z

#[derive(Debug)]
pub struct Incidents;

impl Source for Incidents {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "A service desk's log: a CSV with a row for every change of an incident"
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn size_bytes(&self, path: &Path) -> anyhow::Result<u64> {
        let file = path.metadata();
        Ok(file.with_context(|| format!("cannot read {}", path.display()))?.len())
    }

    fn lines(&self, path: &Path, _: &Reading, progress: Arc<Progress>) -> anyhow::Result<Lines> {
        let rows = Rows::open(path, COLUMNS, progress.clone());
        let rows = rows.with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Box::new(Log {
            file: rows.file().clone(),
            changes: Changes { rows }.peekable(),
            progress,
            seen: HashSet::new(),
            registered: HashSet::new(),
            ready: Vec::new().into_iter(),
        }))
    }
}

/// The log, case after case.
struct Log {
    file: Arc<str>,
    changes: Peekable<Changes>,
    progress: Arc<Progress>,
    /// The numbers of the cases that were read.
    seen: HashSet<String>,
    registered: HashSet<String>,
    ready: vec::IntoIter<Result<ImportLine, BadLine>>,
}

impl Iterator for Log {
    type Item = Result<ImportLine, BadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(line) = self.ready.next() {
                return Some(line);
            }
            match self.changes.next()? {
                Ok(first) => {
                    let number = first.number.clone();
                    self.read_case(&number, vec![first], Vec::new());
                }
                Err(bad) => match bad.document.clone() {
                    Some(number) => self.read_case(&number, Vec::new(), vec![bad]),
                    None => return Some(Err(bad)),
                },
            }
        }
    }
}

impl Log {
    /// Reads on to the end of the case. A case with a row that makes no sense is held back whole: without it the others may mean
    /// something else.
    fn read_case(&mut self, number: &str, mut changes: Vec<Change>, mut bad: Vec<BadLine>) {
        // Rows of which nobody can tell to which case they belong. Between two rows of this one they are of this one.
        let mut stray = Vec::new();
        loop {
            let next = self.changes.next_if(|next| match next {
                Ok(change) => change.number == number,
                Err(bad) => bad.document.as_deref().is_none_or(|document| document == number),
            });
            match next {
                Some(Err(row)) if row.document.is_none() => stray.push(row),
                Some(row) => {
                    bad.append(&mut stray);
                    match row {
                        Ok(change) if changes.len() < CASE_ROWS_MAX => changes.push(change),
                        Ok(change) => {
                            let reason = format!("the case has more than {CASE_ROWS_MAX} rows");
                            bad.push(self.bad(change.line, number, What::NoSense, reason));
                        }
                        Err(row) => bad.push(row),
                    }
                }
                None => break,
            }
        }
        let mut ready = Vec::new();
        if self.changes.peek().is_none() {
            // A file that is cut off ends in the middle of its last case.
            bad.append(&mut stray);
        }
        let is_apart = !self.seen.insert(number.to_owned());
        match bad.first().map(|cause| (cause.file.clone(), cause.line)) {
            _ if is_apart => {
                ready.extend(bad.into_iter().map(Err));
                for change in &changes {
                    let reason = "the rows of a case do not stand together, so that their order is not known";
                    ready.push(Err(self.bad(change.line, number, What::NoSense, reason.into())));
                }
            }
            None => {
                put_in_order(&mut changes);
                self.give_out(&changes, &mut ready);
            }
            Some((file, line)) => {
                ready.extend(bad.into_iter().map(Err));
                let begins = changes.first().map_or(line, |change| change.line.min(line));
                let reason = format!("the case is held back whole, for {file}, line {line}");
                ready.push(Err(self.bad(begins, number, What::HeldBack, reason)));
            }
        }
        ready.extend(stray.into_iter().map(Err));
        self.ready = ready.into_iter();
    }

    fn give_out(&mut self, changes: &[Change], ready: &mut Vec<Result<ImportLine, BadLine>>) {
        let first = &changes[0];
        let key = keyed_id(StreamKind::Customer, NAME, &first.caller).id;
        let line = |change: &Change, stream: StreamKind, id: &str, ids: &[&str], at: Timestamp, command: Value| {
            let is_change = command["type"] != stream.begins();
            Ok(ImportLine {
                incoming: incoming(stream, keyed(NAME, id), command),
                command_id: command_id(NAME, ids),
                ask_anew: None,
                upsert: false,
                effective_at: Some(at),
                actor: Actor::parse("integration:incidents").expect("an actor"),
                correlation: None,
                file: self.file.clone(),
                line: change.line,
                document: Some(change.number.as_str().into()),
                by_content: false,
                is_change,
                key,
            })
        };
        if self.registered.insert(first.caller.clone()) {
            let name = match first.caller.as_str() {
                UNKNOWN => "Unknown caller".to_owned(),
                caller => format!("Caller {caller}"),
            };
            let command = json!({"type": "register", "kind": "person", "name": name});
            let ids = ["customer", &first.caller];
            let customer = StreamKind::Customer;
            ready.push(line(first, customer, &first.caller, &ids, CALLERS_KNOWN_SINCE, command));
        }
        let mut case = Case::begin(changes);
        for (place, change) in changes.iter().enumerate() {
            let steps = case.steps(place, change);
            if steps.is_empty() {
                self.progress.add_unchanged();
            }
            for (at, command) in steps {
                let kind = command["type"].as_str().expect("a command has a type").to_owned();
                let ids = ["case", &change.number, &change.modification, &change.updated, &kind];
                ready.push(line(change, StreamKind::Case, &change.number, &ids, at, command));
            }
        }
    }

    fn bad(&self, line: u64, number: &str, what: What, reason: String) -> BadLine {
        BadLine {
            file: self.file.clone(),
            line,
            document: Some(number.into()),
            what,
            reason,
        }
    }
}

/// Rows that stand in another order than they were written in are put in order. The desk's counter slips now and then, and so
/// does its clock: the file's order is wrong where both go back at once.
fn put_in_order(changes: &mut [Change]) {
    let goes_back = |pair: &[Change]| pair[1].count < pair[0].count && pair[1].updated_at < pair[0].updated_at;
    if changes.windows(2).any(goes_back) {
        changes.sort_by_key(|change| (change.count, change.updated_at));
    }
}

/// How far the case is, as the commands so far have brought it.
struct Case {
    /// The row at which the service level was missed.
    missed_sla_at: Option<usize>,
    stage: Stage,
    category: Option<String>,
    priority: &'static str,
    agent: Option<String>,
    group: Option<String>,
    /// When it was resolved, or closed after that.
    ended_at: Timestamp,
    /// The time of the last row. A clock that went back does not take the case with it.
    at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Open,
    Pending(PendingOn),
    Resolved,
    Closed,
}

impl Case {
    fn begin(changes: &[Change]) -> Case {
        let first = &changes[0];
        Case {
            missed_sla_at: Case::missed_sla_at(changes),
            stage: Stage::New,
            category: None,
            priority: first.priority,
            agent: None,
            group: None,
            ended_at: first.opened_at,
            at: first.opened_at,
        }
    }

    /// The desk writes `made_sla` down when it closes a case, but the time ran out while there still was something to do. So it
    /// belongs to the row that the flag comes with if the case was open before it, else to the row that resolved it.
    fn missed_sla_at(changes: &[Change]) -> Option<usize> {
        let mut place = changes.iter().position(|change| !change.made_sla)?;
        while place > 0 && changes[place - 1].state.is_ended() {
            place -= 1;
        }
        Some(place)
    }

    /// What the row says that was not so before: times and commands.
    fn steps(&mut self, place: usize, change: &Change) -> Vec<(Timestamp, Value)> {
        let mut steps = Vec::new();
        if place == 0 {
            steps.push((self.at, open(change)));
        }
        self.at = self.at.max(change.updated_at);
        if self.is_ended() && !change.state.is_ended() {
            steps.push((
                self.reopened_at(),
                json!({"type": "reopen", "reason": "reopened at the service desk"}),
            ));
            self.stage = Stage::Open;
        }
        if self.stage != Stage::Closed {
            let classified = self.classify(change).map(|command| (self.at, command));
            steps.extend(classified);
            let assigned = self.assign(change).map(|command| (self.at, command));
            steps.extend(assigned);
        }
        if self.missed_sla_at == Some(place) {
            steps.push((self.at, json!({"type": "escalate", "reason": SLA_MISSED})));
        }
        for command in self.move_to(change) {
            steps.push((self.at, command));
        }
        steps
    }

    fn is_ended(&self) -> bool {
        matches!(self.stage, Stage::Resolved | Stage::Closed)
    }

    /// This desk once reopened a case later than our rule allows. Such a one is dated back to the last moment that it allows, for
    /// without its reopening the rest of the case would be lost.
    fn reopened_at(&self) -> Timestamp {
        let latest = self.ended_at + SignedDuration::from_hours(24 * case::REOPEN_DAYS_MAX);
        self.at.min(latest)
    }

    fn classify(&mut self, change: &Change) -> Option<Value> {
        let is_priority_new = self.priority != change.priority;
        let category = match (&change.category, is_priority_new) {
            (Some(category), _) if self.category.as_ref() != Some(category) => category.clone(),
            (_, false) => return None,
            (_, true) => self.category.clone().unwrap_or_else(|| "Unclassified".to_owned()),
        };
        let mut command = json!({"type": "classify", "category": category});
        if is_priority_new {
            command["priority"] = change.priority.into();
            let (impact, urgency) = (change.impact.as_deref(), change.urgency.as_deref());
            let reason = format!("impact {}, urgency {}", impact.unwrap_or("?"), urgency.unwrap_or("?"));
            command["reason"] = reason.into();
        }
        self.category = Some(category);
        self.priority = change.priority;
        Some(command)
    }

    /// A case is never nobody's again: who is no longer named keeps it, unless another group takes it.
    fn assign(&mut self, change: &Change) -> Option<Value> {
        let changes_group = change.group.is_some() && change.group != self.group;
        let group = change.group.clone().or_else(|| self.group.clone());
        let agent = match &change.agent {
            None if !changes_group => self.agent.clone(),
            agent => agent.clone(),
        };
        if agent == self.agent && group == self.group {
            return None;
        }
        let mut command = json!({"type": "assign"});
        if let Some(agent) = &agent {
            command["agent"] = agent.as_str().into();
        }
        if let Some(group) = &group {
            command["group"] = group.as_str().into();
        }
        (self.agent, self.group) = (agent, group);
        if self.stage == Stage::New {
            self.stage = Stage::Open;
        }
        Some(command)
    }

    fn move_to(&mut self, change: &Change) -> Vec<Value> {
        let resolve = || json!({"type": "resolve", "code": change.closed_code.as_deref().unwrap_or("none")});
        let close = || json!({"type": "close"});
        let (stage, commands) = match (self.stage, change.state) {
            (stage, State::New | State::Unknown) => (stage, vec![]),
            (Stage::New, State::Active) => {
                let taken_up = json!({"type": "reply", "author": "agent", "public": false});
                (Stage::Open, vec![taken_up])
            }
            (Stage::Pending(_), State::Active) => (Stage::Open, vec![json!({"type": "resume"})]),
            (stage, State::Active) => (stage, vec![]),
            (Stage::Pending(now), State::Awaiting(on)) if now == on => (Stage::Pending(on), vec![]),
            (_, State::Awaiting(on)) => (Stage::Pending(on), vec![json!({"type": "set-pending", "on": on})]),
            (stage @ (Stage::Resolved | Stage::Closed), State::Resolved) => (stage, vec![]),
            (_, State::Resolved) => (Stage::Resolved, vec![resolve()]),
            (Stage::Closed, State::Closed) => (Stage::Closed, vec![]),
            (Stage::Resolved, State::Closed) => (Stage::Closed, vec![close()]),
            (_, State::Closed) => (Stage::Closed, vec![resolve(), close()]),
        };
        if stage != self.stage && matches!(stage, Stage::Resolved | Stage::Closed) {
            self.ended_at = self.at;
        }
        self.stage = stage;
        commands
    }
}

fn open(change: &Change) -> Value {
    let mut subject = Vec::new();
    subject.extend(change.symptom.as_ref().map(|symptom| format!("Symptom {symptom}")));
    subject.extend(change.category.clone());
    if subject.is_empty() {
        subject.push(format!("Incident {}", change.number));
    }
    json!({
        "type": "open",
        "customer": {"key": [NAME, change.caller]},
        "subject": subject.join(" / "),
        "kind": "incident",
        "priority": change.priority,
        "channel": change.channel,
    })
}

/// The key of callers without a number.
const UNKNOWN: &str = "unknown";

/// A row: how a case stood after a change.
struct Change {
    line: u64,
    number: String,
    state: State,
    /// With `updated` it tells a change of a case from all others: the desk's counter slips now and then.
    modification: String,
    /// The desk's counter as a number.
    count: u64,
    updated: String,
    updated_at: Timestamp,
    opened_at: Timestamp,
    made_sla: bool,
    caller: String,
    channel: &'static str,
    category: Option<String>,
    symptom: Option<String>,
    impact: Option<String>,
    urgency: Option<String>,
    priority: &'static str,
    group: Option<String>,
    agent: Option<String>,
    closed_code: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Active,
    Awaiting(PendingOn),
    Resolved,
    Closed,
    /// The desk's `-100`: nobody knows; it stays as it was.
    Unknown,
}

impl State {
    fn parse(text: &str) -> Option<State> {
        Some(match text {
            "New" => State::New,
            "Active" => State::Active,
            "Awaiting User Info" => State::Awaiting(PendingOn::Customer),
            "Awaiting Vendor" | "Awaiting Problem" | "Awaiting Evidence" => State::Awaiting(PendingOn::ThirdParty),
            "Resolved" => State::Resolved,
            "Closed" => State::Closed,
            "-100" => State::Unknown,
            _ => return None,
        })
    }

    fn is_ended(self) -> bool {
        matches!(self, State::Resolved | State::Closed)
    }
}

/// The rows of the file that make sense.
struct Changes {
    rows: Rows,
}

impl Iterator for Changes {
    type Item = Result<Change, BadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = match self.rows.next()? {
            Ok(row) => row,
            Err(mut bad) => {
                // What cannot be a number says nothing of which case the row belongs to.
                let is_number = |text: &Arc<str>| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
                bad.document = bad.document.filter(is_number);
                return Some(Err(bad));
            }
        };
        Some(change(&row).map_err(|reason| {
            let [number, ..] = row.columns::<17>();
            self.rows.bad(row.line, known(number).as_deref(), reason)
        }))
    }
}

fn known(text: &str) -> Option<String> {
    match text {
        "?" | "" => None,
        text => Some(text.to_owned()),
    }
}

/// The publisher writes what a number is of before it, as in `Group 56`, and what a level means behind it, as in `3 - Moderate`.
fn bare<'a>(text: &'a str, of: &str) -> &'a str {
    let number = text.strip_prefix(of).map_or(text, str::trim);
    number.split_once(" - ").map_or(number, |(level, _)| level)
}

fn change(row: &Row) -> Result<Change, &'static str> {
    let [
        number,
        state,
        modification,
        made_sla,
        caller,
        opened,
        updated,
        channel,
        category,
        subcategory,
        symptom,
        impact,
        urgency,
        priority,
        group,
        agent,
        closed_code,
    ] = row.columns();
    let category = match (
        known(bare(category, "Category")),
        known(bare(subcategory, "Subcategory")),
    ) {
        (None, _) => None,
        (Some(category), None) => Some(format!("Category {category}")),
        (Some(category), Some(subcategory)) => Some(format!("Category {category}/{subcategory}")),
    };
    Ok(Change {
        line: row.line,
        number: known(number).ok_or("the number is blank")?,
        state: State::parse(state).ok_or("the state is none that a case can be in")?,
        modification: modification.to_owned(),
        count: modification.parse().map_err(|_| "sys_mod_count is no number")?,
        updated: updated.to_owned(),
        updated_at: time(updated).ok_or("sys_updated_at is no time such as 29/2/2016 01:16")?,
        opened_at: time(opened).ok_or("opened_at is no time such as 29/2/2016 01:16")?,
        made_sla: match made_sla {
            "true" => true,
            "false" => false,
            _ => return Err("made_sla is neither true nor false"),
        },
        caller: known(bare(caller, "Caller")).unwrap_or_else(|| UNKNOWN.to_owned()),
        channel: match channel {
            "Phone" | "IVR" => "phone",
            "Email" => "email",
            "Self service" => "web",
            "Direct opening" => "face",
            _ => "other",
        },
        category,
        symptom: known(bare(symptom, "Symptom")),
        impact: known(bare(impact, "")),
        urgency: known(bare(urgency, "")),
        priority: match bare(priority, "") {
            "1" => "urgent",
            "2" => "high",
            "3" => "normal",
            "4" => "low",
            _ => return Err("the priority is none of 1 to 4"),
        },
        group: known(bare(group, "Group")).map(|group| format!("Group {group}")),
        agent: known(bare(agent, "Resolver")).map(|agent| format!("Resolver {agent}")),
        closed_code: known(bare(closed_code, "code")),
    })
}

/// The desk's clock has no zone: it is taken as UTC.
fn time(text: &str) -> Option<Timestamp> {
    let local = DateTime::strptime("%d/%m/%Y %H:%M", text).ok()?;
    if !is_plausible(local.date()) {
        return None;
    }
    Offset::UTC.to_timestamp(local).ok()
}

#[cfg(test)]
mod specs {
    use domain::{AnyState, Fact};

    use super::*;
    use crate::sources::Corrections;
    use crate::sources::spec::{Folded, real_input};

    /// The columns of the desk's file: `category` stands twice, the second is the subcategory.
    const HEADER: &str = "number,ident_state,active,reassignment_count,reopen_count,sys_mod_count,made_sla,caller_id,opened_by,\
        opened_at,sys_created_by,sys_created_at,sys_updated_by,sys_updated_at,contact_type,location,category,category,u_symptom,\
        cmdb_ci,impact,urgency,priority,assignment_group,assigned_to,knowledge,u_priority_confirmation,notify,problem_id,rfc,\
        vendor,caused_by,closed_code,resolved_by,resolved_at,closed_at";

    fn read(folded: &mut Folded, path: &Path) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        let reading = Reading {
            corrections: Corrections::Apply,
            run: "spec".to_owned(),
        };
        folded.take_all(Incidents.lines(path, &reading, progress.clone()).unwrap());
        progress
    }

    /// The service desk's file.
    fn log() -> Option<std::path::PathBuf> {
        Some(real_input(NAME)?.join("incident_event_log_first_2000.csv"))
    }

    fn cases(folded: &Folded) -> Vec<&case::State> {
        let cases = folded.states.values().filter_map(|state| match state {
            AnyState::Case(case) => Some(case),
            _ => None,
        });
        cases.collect()
    }

    #[test]
    fn all_changes_of_two_thousand_cases_are_taken() {
        let Some(log) = log() else { return };
        let mut folded = Folded::default();
        let progress = read(&mut folded, &log);
        assert_eq!((progress.files(), progress.rows()), (1, 14_041));
        assert_eq!((&folded.rejected, &folded.bad), (&vec![], &vec![]));
        assert_eq!((&folded.idle, folded.repeated), (&vec![], 0));
        let cases = cases(&folded);
        let closed = cases.iter().filter(|case| case.status == case::Status::Closed);
        assert_eq!((cases.len(), closed.count()), (2_000, 2_000));
        let is_reopening = |fact: &Fact| matches!(fact, Fact::Case(case::Event::Reopened { .. }));
        assert_eq!((folded.streams(is_reopening), folded.count(is_reopening)), (27, 33));
        let is_miss =
            |fact: &Fact| matches!(fact, Fact::Case(case::Event::Escalated { reason, .. }) if reason == SLA_MISSED);
        assert_eq!((folded.count(is_miss), 2_000 - folded.streams(is_miss)), (1_167, 833));
        let callers = folded
            .states
            .values()
            .filter(|state| matches!(state, AnyState::Customer(_)));
        assert_eq!(callers.count(), 1_234);
    }

    #[test]
    fn a_log_that_comes_twice_changes_nothing() {
        let Some(log) = log() else { return };
        let mut folded = Folded::default();
        read(&mut folded, &log);
        let facts = folded.facts.len();
        read(&mut folded, &log);
        assert_eq!((folded.facts.len(), folded.rejected), (facts, vec![]));
    }

    #[test]
    fn times_of_a_case_never_go_back() {
        let Some(log) = log() else { return };
        let mut folded = Folded::default();
        read(&mut folded, &log);
        let mut last = std::collections::HashMap::new();
        for (stream, at, _) in &folded.facts {
            let before = last.insert(*stream, *at);
            assert!(before.is_none_or(|before| before <= *at), "{stream} at {at}");
        }
    }

    /// Number, state, changes, made_sla, updated, category, priority, group, agent.
    fn row(columns: [&str; 9]) -> String {
        let mut row = vec!["?"; HEADER.split(',').count()];
        let places = [0, 1, 5, 6, 13, 16, 22, 23, 24];
        for (place, text) in places.into_iter().zip(columns) {
            row[place] = text;
        }
        (row[7], row[9], row[14], row[32]) = ("7", "1/3/2016 08:00", "Phone", "6");
        row.join(",") + "\n"
    }

    fn facts_of(rows: &[String]) -> (Vec<Fact>, Vec<BadLine>, u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.csv");
        std::fs::write(&path, format!("{HEADER}\n{}", rows.concat())).unwrap();
        let mut folded = Folded::default();
        let progress = read(&mut folded, &path);
        assert_eq!(folded.rejected, Vec::<String>::new());
        let facts = folded.facts.into_iter().map(|(_, _, fact)| fact);
        let facts = facts.filter(|fact| matches!(fact, Fact::Case(_)));
        (facts.collect(), folded.bad, progress.unchanged())
    }

    fn names(facts: &[Fact]) -> Vec<String> {
        facts.iter().map(|fact| fact.encode().0.event).collect()
    }

    #[test]
    fn what_differs_from_the_row_before_becomes_commands() {
        let (facts, bad, unchanged) = facts_of(&[
            row(["1", "New", "0", "true", "1/3/2016 08:01", "55", "3", "?", "?"]),
            row(["1", "Active", "1", "true", "1/3/2016 09:00", "55", "3", "?", "?"]),
            row(["1", "Active", "2", "true", "1/3/2016 09:00", "55", "3", "?", "?"]),
            row([
                "1",
                "Awaiting Vendor",
                "3",
                "true",
                "1/3/2016 10:00",
                "55",
                "1",
                "12",
                "3",
            ]),
            row(["1", "Active", "4", "true", "1/3/2016 11:00", "55", "1", "12", "?"]),
            row(["1", "Resolved", "5", "true", "1/3/2016 12:00", "55", "1", "13", "?"]),
            row(["1", "Closed", "6", "false", "6/3/2016 12:00", "55", "1", "13", "?"]),
            row(["1", "Active", "7", "false", "7/3/2016 12:00", "55", "1", "13", "4"]),
            row(["1", "Closed", "8", "false", "8/3/2016 12:00", "55", "1", "13", "4"]),
        ]);
        let expected = [
            "opened",
            "classified",
            "replied",
            "classified",
            "assigned",
            "pending",
            "resumed",
            "assigned",
            "escalated",
            "resolved",
            "closed",
            "reopened",
            "assigned",
            "resolved",
            "closed",
        ];
        assert_eq!(names(&facts), expected);
        let taken_from_the_agent = Fact::Case(case::Event::Assigned {
            from_agent: Some("Resolver 3".into()),
            from_group: Some("Group 12".into()),
            agent: None,
            group: Some("Group 13".into()),
            from: case::Status::Open,
        });
        assert_eq!(facts[7], taken_from_the_agent);
        assert_eq!((bad, unchanged), (vec![], 1));
    }

    #[test]
    fn rows_that_stand_in_another_order_are_taken_in_that_of_the_desk() {
        let rows = [
            row(["1", "New", "0", "true", "1/3/2016 08:01", "55", "3", "?", "?"]),
            row(["1", "Active", "1", "true", "1/3/2016 09:00", "55", "3", "?", "4"]),
            row(["1", "Resolved", "2", "true", "1/3/2016 10:00", "55", "3", "?", "4"]),
            row(["1", "Closed", "3", "true", "1/3/2016 11:00", "55", "3", "?", "4"]),
        ];
        let in_order = facts_of(&rows).0;
        assert_eq!(names(&in_order).last().map(String::as_str), Some("closed"));
        for order in [[2, 0, 1, 3], [3, 2, 1, 0], [1, 0, 3, 2]] {
            let (facts, bad, _) = facts_of(&order.map(|at| rows[at].clone()));
            assert_eq!((&facts, &bad), (&in_order, &vec![]), "{order:?}");
        }
    }

    #[test]
    fn a_counter_or_a_clock_that_slips_by_itself_changes_no_order() {
        let (facts, _, _) = facts_of(&[
            row(["1", "New", "5", "true", "1/3/2016 08:01", "55", "3", "?", "?"]),
            row(["1", "Active", "4", "true", "1/3/2016 09:00", "55", "3", "?", "4"]),
            row(["1", "Resolved", "6", "true", "1/3/2016 08:30", "55", "3", "?", "4"]),
        ]);
        assert_eq!(names(&facts), ["opened", "classified", "assigned", "resolved"]);
    }

    #[test]
    fn a_reopening_later_than_our_rule_allows_is_dated_back() {
        let (facts, _, _) = facts_of(&[
            row(["1", "Closed", "1", "true", "1/3/2016 09:00", "?", "4", "?", "?"]),
            row(["1", "Closed", "2", "true", "20/3/2016 09:00", "?", "4", "?", "?"]),
            row(["1", "Active", "3", "true", "1/12/2016 09:00", "?", "4", "?", "?"]),
        ]);
        assert_eq!(names(&facts), ["opened", "resolved", "closed", "reopened"]);
    }

    #[test]
    fn a_case_has_so_many_rows_and_the_next_case_is_taken() {
        let change = |n: usize| {
            let n = n.to_string();
            row(["1", "New", &n, "true", "1/3/2016 08:01", "?", "3", "?", "?"])
        };
        let mut rows: Vec<String> = (0..=CASE_ROWS_MAX).map(change).collect();
        rows.push(row(["2", "New", "0", "true", "1/3/2016 09:01", "?", "3", "?", "?"]));
        let (facts, bad, _) = facts_of(&rows);
        assert_eq!(names(&facts), ["opened"]);
        let found: Vec<_> = bad.iter().map(|bad| (bad.line, bad.reason.as_str())).collect();
        let held_back = "the case is held back whole, for log.csv, line 10002";
        assert_eq!(found, [(10_002, "the case has more than 10000 rows"), (2, held_back)]);
    }

    #[test]
    fn a_row_of_which_nobody_can_tell_whose_it_is_belongs_to_the_case_around_it() {
        let new = |number: &str, n: &str| row([number, "New", n, "true", "1/3/2016 08:01", "?", "3", "?", "?"]);
        let junk = || "\u{1} the printer was here\n".to_owned();
        let opened = |rows: &[String]| names(&facts_of(rows).0).len();
        assert_eq!(opened(&[new("1", "0"), junk(), new("1", "1"), new("2", "0")]), 1);
        assert_eq!(opened(&[new("1", "0"), new("1", "1"), junk(), new("2", "0")]), 2);
        assert_eq!(opened(&[new("1", "0"), new("2", "0"), junk()]), 1);
    }

    #[test]
    fn the_file_is_read_as_its_publisher_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.csv");
        let header =
            HEADER
                .replace("ident_state", "incident_state")
                .replacen("category,category", "category,subcategory", 1);
        let text = format!(
            "{header}\nINC0000045,New,true,0,0,0,true,Caller 2403,Opened by  8,29/2/2016 01:16,Created by 6,29/2/2016 01:23,\
             Updated by 21,29/2/2016 01:23,Phone,Location 143,Category 55,Subcategory 170,Symptom 72,?,2 - Medium,\
             2 - Medium,3 - Moderate,Group 56,Resolver 89,true,false,Do Not Notify,?,?,?,?,code 5,Resolved by 149,\
             29/2/2016 11:29,5/3/2016 12:00\n"
        );
        std::fs::write(&path, text).unwrap();
        let mut folded = Folded::default();
        read(&mut folded, &path);
        assert_eq!((&folded.bad, &folded.rejected), (&vec![], &vec![]));
        let cases = cases(&folded);
        assert_eq!(cases[0].group.as_deref(), Some("Group 56"));
        assert_eq!(cases[0].agent.as_deref(), Some("Resolver 89"));
    }

    #[test]
    fn a_row_that_makes_no_sense_stops_nothing_else() {
        let (facts, bad, _) = facts_of(&[
            row(["1", "New", "0", "true", "1/3/2016 08:01", "?", "3", "?", "?"]),
            row(["1", "Lost", "1", "true", "1/3/2016 08:01", "?", "3", "?", "?"]),
            row(["1", "New", "2", "perhaps", "1/3/2016 08:01", "?", "3", "?", "?"]),
            row(["1", "New", "3", "true", "30/2/2016 08:01", "?", "3", "?", "?"]),
            row(["1", "New", "4", "true", "1/3/2016 08:01", "?", "9", "?", "?"]),
            row(["?", "New", "5", "true", "1/3/2016 08:01", "?", "3", "?", "?"]),
            "1,New\n".to_owned(),
            row(["1", "Resolved", "6", "true", "1/3/2016 09:01", "?", "3", "?", "?"]),
            row(["2", "New", "0", "true", "1/3/2016 09:01", "?", "3", "?", "?"]),
            row(["1", "Closed", "7", "true", "1/3/2016 09:01", "?", "3", "?", "?"]),
        ]);
        assert_eq!(names(&facts), ["opened"]);
        let found: Vec<_> = bad.iter().map(|bad| (bad.line, bad.reason.as_str())).collect();
        let expected = [
            (3, "the state is none that a case can be in"),
            (4, "made_sla is neither true nor false"),
            (5, "sys_updated_at is no time such as 29/2/2016 01:16"),
            (6, "the priority is none of 1 to 4"),
            (7, "the number is blank"),
            (8, "2 columns instead of 36"),
            (2, "the case is held back whole, for log.csv, line 3"),
            (
                11,
                "the rows of a case do not stand together, so that their order is not known",
            ),
        ];
        assert_eq!(found, expected);
    }
}
