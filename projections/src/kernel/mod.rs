//! What every read model stands on: tables declared once, rows that fold in batches, questions and answers.

mod answer;
mod days;
mod lives;
mod people;
mod restate;
mod rows;
mod select;
pub mod spec;
mod table;
mod value;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use domain::{Calendar, Fact, Recorded, StreamKind};
use sha2::{Digest, Sha256};

pub use answer::{
    Answer, BadQuestion, Beside, DEFAULT_LIMIT, FILTER_VALUES_MAX, FILTERS_MAX, LIMIT_MAX, List, Operand, PART_ROWS,
    Page, Part, Plan, Question, Where,
};
pub use days::{days_between, month_of};
pub use lives::{Advance, Step, life};
pub use people::{People, harmless};
pub use restate::{Change, enter, restate, step_at};
pub use rows::{Rows, TableChange};
pub use select::{Expr, Filter, Op, Order, PAGE_BYTES_MAX, ROWS_BYTES_MAX, Select};
pub use table::{Column, ColumnRole, Row, Table, TableKind};
pub use value::{ColumnType, ColumnValue, IntoKey, Key, Value, word};

/// An event as projections see it.
pub type Event = Recorded<Fact>;

/// Read models that are built together, by one pass over the log under one checkpoint, and rebuilt together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Customers, leads and the sales pipeline.
    Sales,
    /// Cases, equipment, inspections and jobs.
    Service,
    /// Purchases, loyalty, and what is computed from them.
    Analytics,
    /// The journal of every event; in a pass of its own, for it is the heaviest.
    Journal,
}

impl Group {
    pub const ALL: [Group; 4] = [Group::Sales, Group::Service, Group::Analytics, Group::Journal];

    pub fn name(self) -> &'static str {
        match self {
            Group::Sales => "sales",
            Group::Service => "service",
            Group::Analytics => "analytics",
            Group::Journal => "journal",
        }
    }

    /// `None` when there is no group of that name.
    pub fn parse(name: &str) -> Option<Group> {
        Group::ALL.into_iter().find(|group| group.name() == name)
    }

    pub fn models(self) -> impl Iterator<Item = &'static ReadModel> {
        crate::READ_MODELS
            .iter()
            .copied()
            .filter(move |model| model.group == self)
    }

    /// Each once, also one that several read models rest on.
    pub fn tables(self) -> impl Iterator<Item = &'static Table> {
        let mut told = BTreeSet::new();
        let tables = self.models().flat_map(|model| model.tables.iter().copied());
        tables.filter(move |table| told.insert(table.name))
    }

    /// Is any read model of this group interested in events of `kind`?
    pub fn wants(self, kind: StreamKind) -> bool {
        self.models()
            .any(|model| model.streams.is_empty() || model.streams.contains(&kind))
    }

    /// Sixteen hex digits that change whenever a table or a `version` of the group changes: then the group is rebuilt.
    pub fn definition(self) -> &'static str {
        static DEFINITIONS: LazyLock<Vec<(Group, String)>> =
            LazyLock::new(|| Group::ALL.map(|group| (group, group.digest())).to_vec());
        let known = DEFINITIONS.iter().find(|(group, _)| *group == self);
        &known.expect("every group is among them").1
    }

    fn digest(self) -> String {
        let mut hasher = Sha256::new();
        for model in self.models() {
            hasher.update(format!("{} v{}\n", model.name, model.version));
            for table in model.tables {
                hasher.update(format!("{} {:?} {:?}\n", table.name, table.kind, table.columns));
            }
        }
        domain::hex(&hasher.finalize()[..8])
    }
}

/// A read model: what it is called, what it is made of, and how it is made and asked.
pub struct ReadModel {
    /// `GET /api/<name>`, `crm query <name>`.
    pub name: &'static str,
    /// What it tells, in a sentence for users.
    pub about: &'static str,
    pub group: Group,
    /// To be raised when `project` changes its meaning: then the group is rebuilt.
    pub version: u32,
    /// The streams whose events it looks at; empty = all.
    pub streams: &'static [StreamKind],
    pub tables: &'static [&'static Table],
    /// Folds one event into rows. Pure: the same events give the same rows.
    pub project: fn(&Event, &mut Rows),
    /// How a question is answered from the tables.
    pub plan: fn(&Question) -> Result<Plan, BadQuestion>,
}

impl ReadModel {
    /// `None` when there is no read model of that name.
    pub fn find(name: &str) -> Option<&'static ReadModel> {
        crate::READ_MODELS.iter().copied().find(|model| model.name == name)
    }
}

impl ReadModel {
    /// The columns of its answers: of the present and, where those are others, of the past. Making a plan is pure, so this is too.
    pub fn answers(&self) -> Vec<Vec<Column>> {
        let present = some_time(None);
        let past = Question {
            as_of: present.now,
            ..present.clone()
        };
        let plans = [present, past].map(|question| (self.plan)(&question));
        let mut answers: Vec<Vec<Column>> = plans.into_iter().flatten().map(|plan| plan.columns).collect();
        answers.dedup();
        answers
    }

    /// Whether it answers for the past, by `as_of` and `known_at`. Others show the present.
    pub fn is_dated(&self) -> bool {
        let now = some_time(None);
        let past = Question { as_of: now.now, ..now };
        (self.plan)(&past).is_ok()
    }

    /// The columns that a question may have filters on: most of those of its answers, and some that only choose what is summed.
    pub fn filters(&self) -> Vec<Column> {
        let nobody = Where::equal("", "");
        let Err(BadQuestion::Column { known, .. }) = (self.plan)(&some_time(Some(nobody))) else {
            return vec![];
        };
        let plan = (self.plan)(&some_time(None));
        let selected = plan.iter().flat_map(|plan| &plan.selects);
        let of_tables = selected.flat_map(|select| select.table.columns).copied();
        let of_answers = self.answers().into_iter().flatten();
        let columns: Vec<Column> = of_answers.chain(of_tables).collect();
        let named = known
            .split(", ")
            .filter_map(|name| columns.iter().find(|column| column.name == name));
        named.filter(|column| column.ty != ColumnType::Json).copied().collect()
    }
}

impl ReadModel {
    /// Whether a filter may ask for rows that have no value in this column. What a figure of the day is computed from
    /// has always one.
    pub fn may_lack(&self, column: &str) -> bool {
        let none = Where::new(column, Op::Eq, [Operand::None]);
        (self.plan)(&some_time(Some(none))).is_ok()
    }
}

fn some_time(filter: Option<Where>) -> Question {
    Question {
        filters: filter.into_iter().collect(),
        now: Some(jiff::Timestamp::UNIX_EPOCH),
        // Of what is planned here no day is shown.
        ..Question::new(Calendar::taipei())
    }
}

impl std::fmt::Debug for ReadModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn a_group_has_each_table_once() {
        for group in Group::ALL {
            let mut names: Vec<&str> = group.tables().map(|table| table.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{}", group.name());
        }
    }
}
