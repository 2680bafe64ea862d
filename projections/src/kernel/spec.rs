//! A small world in memory: events are recorded, read models fold them, questions are answered. For specs.
//!
//! It folds event by event and runs selects as a store must: nulls compare with nothing but null, sums, minima and maxima
//! skip them, and they sort before everything else.

use std::collections::{BTreeMap, HashMap};

use domain::{Actor, Calendar, ExternalKey, Fact, Position, StreamRef, derived_id};
use jiff::Timestamp;
use uuid::Uuid;

use super::rows::merge;
use super::{
    Answer, BadQuestion, Event, Expr, Filter, Key, Question, ReadModel, Row, Rows, Select, Table, TableChange,
    TableKind, Value,
};

/// Shards of the log in specs.
pub const SHARDS: u16 = 8;

/// An id in a slot of its own; the same name gives the same id.
pub fn id(name: &str) -> Uuid {
    derived_id(&["spec", name])
}

/// Reads a time such as `2026-03-02T09:00:00+08:00`.
///
/// # Panics
/// When it is none.
pub fn moment(text: &str) -> Timestamp {
    domain::spec::moment(text)
}

/// A question with filters such as `stage=proposal` and nothing else, in Taipei.
///
/// # Panics
/// When a filter is none.
pub fn question(filters: &[&str]) -> Question {
    Question {
        filters: filters
            .iter()
            .map(|text| super::Where::parse(text).expect("a filter"))
            .collect(),
        ..Question::new(Calendar::taipei())
    }
}

/// A log, and the tables of some read models that have folded all of it.
pub struct World {
    models: Vec<&'static ReadModel>,
    calendar: Calendar,
    log: Vec<Event>,
    versions: HashMap<StreamRef, u64>,
    offsets: HashMap<u16, u64>,
    external_keys: HashMap<StreamRef, ExternalKey>,
    tables: BTreeMap<&'static str, Stored>,
}

#[derive(Default)]
struct Stored {
    /// Entity and rollup rows, all columns.
    keyed: BTreeMap<Key, Vec<Value>>,
    /// Journal rows: shard, offset, row number, all columns.
    journal: BTreeMap<(u16, u64, i64), Vec<Value>>,
}

impl World {
    pub fn new(models: &[&'static ReadModel]) -> World {
        World {
            models: models.to_vec(),
            calendar: Calendar::taipei(),
            log: vec![],
            versions: HashMap::new(),
            offsets: HashMap::new(),
            external_keys: HashMap::new(),
            tables: BTreeMap::new(),
        }
    }

    /// `stream` is begun under this key of another system.
    pub fn name_by_key(&mut self, stream: StreamRef, source: &str, key: &str) {
        let (source, key) = (source.to_owned(), key.to_owned());
        self.external_keys.insert(stream, ExternalKey { source, key });
    }

    /// Of a company whose clocks are of this time zone, and not Taipei's. Questions have to be asked there as well.
    pub fn in_zone(mut self, calendar: &Calendar) -> World {
        self.calendar = calendar.clone();
        self
    }

    /// Something happened to `stream`: true from `effective_at`, written at `recorded_at`.
    ///
    /// # Panics
    /// When a read model breaks a rule of the engine.
    pub fn record(
        &mut self,
        stream: StreamRef,
        customer: Option<Uuid>,
        fact: impl Into<Fact>,
        effective_at: &str,
        recorded_at: &str,
    ) -> &Event {
        self.record_at(stream, customer, fact, moment(effective_at), moment(recorded_at))
    }

    /// Like [`record`](World::record), with times that are times already.
    ///
    /// # Panics
    /// When a read model breaks a rule of the engine.
    pub fn record_at(
        &mut self,
        stream: StreamRef,
        customer: Option<Uuid>,
        fact: impl Into<Fact>,
        effective_at: Timestamp,
        recorded_at: Timestamp,
    ) -> &Event {
        let shard = stream.slot().shard(SHARDS);
        let version = self.versions.entry(stream).or_default();
        *version += 1;
        let offset = self.offsets.entry(shard).or_default();
        *offset += 1;
        let event = Event {
            stream,
            version: *version,
            fact: fact.into(),
            customer,
            external_key: self.external_keys.get(&stream).filter(|_| *version == 1).cloned(),
            recorded_at,
            effective_at,
            actor: Actor::parse("user:mei").expect("an actor"),
            event_id: format!("{}.0", derived_id(&[&stream.to_string(), &version.to_string()])),
            causation: None,
            correlation: None,
            position: Position { shard, offset: *offset },
            calendar: self.calendar.clone(),
        };
        for model in self.models.clone() {
            if model.streams.is_empty() || model.streams.contains(&stream.kind) {
                self.fold(model, &event);
            }
        }
        self.log.push(event);
        self.log.last().expect("just pushed")
    }

    /// All that was recorded, in order.
    pub fn log(&self) -> &[Event] {
        &self.log
    }

    /// The positions up to which the log was written by this time, as [`Question::known_until`] wants them.
    pub fn known_at(&self, recorded_at: Timestamp) -> Vec<(u16, u64)> {
        let mut last = BTreeMap::new();
        for event in self.log.iter().filter(|event| event.recorded_at <= recorded_at) {
            last.insert(event.position.shard, event.position.offset);
        }
        last.into_iter().collect()
    }

    /// # Panics
    /// When the question does not fit the read model.
    pub fn ask(&self, model: &'static ReadModel, question: Question) -> Answer {
        self.try_ask(model, question).expect("a question that fits")
    }

    /// # Errors
    /// When the question does not fit the read model.
    pub fn try_ask(&self, model: &'static ReadModel, question: Question) -> Result<Answer, BadQuestion> {
        let plan = (model.plan)(&question)?;
        let results = plan.selects.iter().map(|select| self.run(select)).collect();
        let mut answer = (plan.finish)(results);
        for beside in plan.beside {
            let found = self.run(&beside.select(answer.ids()));
            answer.put_beside(&beside, found);
        }
        Ok(answer)
    }

    /// All rows of a table: in key order, those of a journal in the order of the log.
    pub fn rows<R: Row>(&self) -> Vec<R> {
        self.run(&Select::all(R::TABLE))
            .into_iter()
            .map(R::from_values)
            .collect()
    }

    /// Runs a select as a store must.
    pub fn run(&self, select: &Select) -> Vec<Vec<Value>> {
        let mut rows: Vec<Cells<'_>> = self.scan(select.table);
        rows.retain(|row| select.filters.iter().all(|filter| row.passes(filter)));
        if let Some(until) = &select.until {
            rows.retain(|row| row.is_within(until));
        }
        let aggregates = select.exprs.iter().any(|expr| !matches!(expr, Expr::Column(_)));
        let mut results: Vec<(Vec<Value>, Vec<Value>)> = if aggregates {
            let order = |row: &[Value]| sort_key(select, |column| grouped(select, column, row));
            group(select, &rows).into_iter().map(|row| (order(&row), row)).collect()
        } else {
            let cells = |row: &Cells<'_>| {
                let values = select.exprs.iter().map(|expr| match expr {
                    Expr::Column(column) => row.cell(column),
                    Expr::Sum(_) | Expr::Min(_) | Expr::Max(_) | Expr::Count => unreachable!("nothing aggregates"),
                });
                values.collect()
            };
            rows.iter()
                .map(|row| (sort_key(select, |column| row.cell(column)), cells(row)))
                .collect()
        };
        results.sort_by(|(left, _), (right, _)| {
            let columns = select.order.iter().zip(left.iter().zip(right));
            columns.fold(std::cmp::Ordering::Equal, |ordering, (order, (left, right))| {
                ordering.then_with(|| {
                    if order.descending {
                        right.cmp(left)
                    } else {
                        left.cmp(right)
                    }
                })
            })
        });
        let page = results.into_iter().skip(select.offset);
        page.take(select.limit.unwrap_or(usize::MAX))
            .map(|(_, row)| row)
            .collect()
    }

    fn fold(&mut self, model: &ReadModel, event: &Event) {
        let mut known: Vec<(&'static Table, Key, Option<Vec<Value>>)> = Vec::new();
        loop {
            let mut rows = Rows::new(SHARDS);
            for (table, key, values) in &known {
                rows.know(table, key.clone(), values.clone());
            }
            rows.at(event.position);
            (model.project)(event, &mut rows);
            assert_eq!(rows.violation(), None, "{} at {}", model.name, event.position);
            let missing = rows.missing();
            if missing.is_empty() {
                return self.store(event.position.shard, rows.into_changes());
            }
            for (table, keys) in missing {
                for key in keys {
                    let stored = self.tables.get(table.name).and_then(|rows| rows.keyed.get(&key));
                    known.push((table, key.clone(), stored.cloned()));
                }
            }
        }
    }

    fn store(&mut self, shard: u16, changes: Vec<TableChange>) {
        for change in changes {
            let key_len = change.table.key_len();
            let stored = self.tables.entry(change.table.name).or_default();
            for row in change.upserts.into_iter().chain(change.inserts) {
                stored.keyed.insert(row[..key_len].to_vec(), row);
            }
            for key in change.removes {
                stored.keyed.remove(&key);
            }
            for delta in change.deltas {
                let Some(sum) = stored.keyed.get_mut(&delta[..key_len]) else {
                    stored.keyed.insert(delta[..key_len].to_vec(), delta);
                    continue;
                };
                for ((column, old), new) in change.table.columns.iter().zip(sum).zip(delta) {
                    merge(column.role, old, new);
                }
            }
            for (offset, row, values) in change.appends {
                stored.journal.insert((shard, offset, row), values);
            }
        }
    }

    fn scan(&self, table: &'static Table) -> Vec<Cells<'_>> {
        let Some(stored) = self.tables.get(table.name) else {
            return vec![];
        };
        match table.kind {
            TableKind::Entity | TableKind::Rollup => {
                let rows = stored.keyed.values();
                rows.map(|values| Cells {
                    table,
                    place: None,
                    values,
                })
                .collect()
            }
            TableKind::Journal => {
                let rows = stored.journal.iter();
                rows.map(|(place, values)| Cells {
                    table,
                    place: Some(*place),
                    values,
                })
                .collect()
            }
        }
    }
}

/// A stored row, by column name.
struct Cells<'a> {
    table: &'static Table,
    place: Option<(u16, u64, i64)>,
    values: &'a [Value],
}

impl Cells<'_> {
    fn cell(&self, name: &str) -> Value {
        if let Some(at) = self.table.columns.iter().position(|column| column.name == name) {
            return self.values[at].clone();
        }
        match (name, self.place) {
            ("shard", Some((shard, _, _))) => Value::Int(shard.into()),
            ("log_offset", Some((_, offset, _))) => Value::Int(i64::try_from(offset).expect("a small offset")),
            ("row", Some((_, _, row))) => Value::Int(row),
            _ => panic!("table {} has no column {name:?}", self.table.name),
        }
    }

    fn passes(&self, filter: &Filter) -> bool {
        filter.op.holds(&self.cell(filter.column), &filter.values)
    }

    fn is_within(&self, until: &[(u16, u64)]) -> bool {
        let Some((shard, offset, _)) = self.place else {
            return true;
        };
        until.iter().any(|(known, last)| *known == shard && offset <= *last)
    }
}

fn sort_key(select: &Select, cell: impl Fn(&'static str) -> Value) -> Vec<Value> {
    select.order.iter().map(|order| cell(order.column)).collect()
}

/// A column that the select groups by, in a row of its result.
fn grouped(select: &Select, column: &'static str, row: &[Value]) -> Value {
    let at = select.exprs.iter().position(|expr| *expr == Expr::Column(column));
    row[at.unwrap_or_else(|| panic!("{column:?} is ordered by and not selected"))].clone()
}

fn group(select: &Select, rows: &[Cells<'_>]) -> Vec<Vec<Value>> {
    let keys: Vec<&'static str> = select
        .exprs
        .iter()
        .filter_map(|expr| match expr {
            Expr::Column(column) => Some(*column),
            Expr::Sum(_) | Expr::Min(_) | Expr::Max(_) | Expr::Count => None,
        })
        .collect();
    let mut groups: BTreeMap<Vec<Value>, Vec<&Cells<'_>>> = BTreeMap::new();
    if keys.is_empty() {
        groups.insert(vec![], vec![]);
    }
    for row in rows {
        let key = keys.iter().map(|column| row.cell(column)).collect();
        groups.entry(key).or_default().push(row);
    }
    let answer = |rows: &[&Cells<'_>], expr: &Expr| {
        let cells = |column| {
            rows.iter()
                .map(move |row| row.cell(column))
                .filter(|cell| *cell != Value::Null)
        };
        match expr {
            Expr::Column(column) => rows[0].cell(column),
            Expr::Count => Value::Int(i64::try_from(rows.len()).expect("a small table")),
            Expr::Sum(column) => cells(column)
                .reduce(|sum, cell| Value::Int(sum.as_int() + cell.as_int()))
                .unwrap_or(Value::Null),
            Expr::Min(column) => cells(column).min().unwrap_or(Value::Null),
            Expr::Max(column) => cells(column).max().unwrap_or(Value::Null),
        }
    };
    groups
        .values()
        .map(|rows| select.exprs.iter().map(|expr| answer(rows, expr)).collect())
        .collect()
}

#[cfg(test)]
mod specs {
    use domain::{Id, Personal, customer};

    use super::*;
    use crate::customers;

    fn registered(name: &str) -> customer::Event {
        customer::Event::Registered {
            kind: customer::Kind::Organisation,
            name: Personal::from(name),
            country: Some("TW".into()),
            locale: None,
            external: vec![],
        }
    }

    #[test]
    fn events_are_folded_and_questions_answered() {
        let mut world = World::new(&[&customers::MODEL]);
        for name in ["a", "b"] {
            let customer = Id::<customer::Customer>::new(id(name));
            let at = "2026-03-01T09:00:00+08:00";
            world.record(StreamRef::of(customer), Some(customer.uuid()), registered(name), at, at);
        }
        let renamed = customer::Event::Renamed {
            from: Personal::from("a"),
            to: Personal::from("c"),
        };
        let a = StreamRef::of::<customer::Customer>(Id::new(id("a")));
        let at = "2026-03-02T09:00:00+08:00";
        let event = world.record(a, Some(a.id), renamed, at, at);
        assert_eq!(event.version, 2);

        let answer = world.ask(&customers::MODEL, question(&["name=c"]));
        assert_eq!(answer.rows.len(), 1);
        assert_eq!(answer.rows[0][0], Value::Uuid(a.id));
        assert_eq!(world.rows::<customers::CustomerRow>().len(), 2);

        let counted = Select::of(
            customers::CustomerRow::TABLE,
            [Expr::Column("country"), Expr::Count, Expr::Max("name")],
        );
        assert_eq!(
            world.run(&counted),
            vec![vec![Value::Text("TW".into()), Value::Int(2), Value::Text("c".into())]]
        );
    }
}
