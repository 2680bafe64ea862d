//! The rows that events read and change. A fold sees values only; the engine loads what is missing and folds the same events again.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::{Position, slot_of};

use super::{ColumnRole, IntoKey, Key, Row, Table, TableKind, Value};

/// The rows of events that are committed together, over all tables of a group.
///
/// Events are folded some at a time: what they come to is an attempt until [`keep`](Rows::keep). Are rows [`missing`](Rows::missing), they are
/// to be made [`known`](Rows::know), and the events folded again after [`retry`](Rows::retry).
#[derive(Debug, Default)]
pub struct Rows {
    shards: u16,
    position: Option<Position>,
    tables: BTreeMap<&'static str, TableRows>,
    violation: Option<String>,
}

#[derive(Debug)]
struct TableRows {
    table: &'static Table,
    /// What is known of entity rows that no kept fold changed: `None` = known to be absent.
    stored: HashMap<Key, Option<Vec<Value>>>,
    stored_bytes: usize,
    kept: Changes,
    attempt: Changes,
    missing: BTreeSet<Key>,
}

/// What folds changed.
#[derive(Debug, Default)]
struct Changes {
    /// Entity rows; `None` = removed.
    entities: HashMap<Key, Option<Vec<Value>>>,
    deltas: HashMap<Key, Vec<Value>>,
    appends: Vec<(u64, Vec<Value>)>,
    /// Of all their values, once they are kept.
    bytes: usize,
}

/// What a batch did to one table; each part sorted by key.
#[derive(Debug, Clone, PartialEq)]
pub struct TableChange {
    pub table: &'static Table,
    /// Entity rows as they are now, all columns.
    pub upserts: Vec<Vec<Value>>,
    /// The same, of which no fold saw an older one: new rows, most likely.
    pub inserts: Vec<Vec<Value>>,
    pub removes: Vec<Key>,
    /// Rollup rows to be merged into those of the shard, all columns.
    pub deltas: Vec<Vec<Value>>,
    /// Journal rows: offset, row number within the event, all columns.
    pub appends: Vec<(u64, i64, Vec<Value>)>,
}

impl Rows {
    /// No rows yet, for a log of so many shards.
    pub fn new(shards: u16) -> Rows {
        Rows {
            shards,
            ..Rows::default()
        }
    }

    /// The event at `position` comes next.
    pub fn at(&mut self, position: Position) {
        self.position = Some(position);
    }

    /// The entity row of this key. `None` = there is none, or it is not loaded yet: then the batch will be run again.
    pub fn get<R: Row>(&mut self, key: impl IntoKey) -> Option<R> {
        let key = key.into_key();
        if !self.is_own(R::TABLE, &key) {
            return None;
        }
        let rows = self.table(R::TABLE);
        match rows.entity(&key) {
            Some(known) => known.clone().map(R::from_values),
            None => {
                rows.missing.insert(key);
                None
            }
        }
    }

    /// Inserts or replaces an entity row.
    pub fn put<R: Row>(&mut self, row: R) {
        let key = row.key();
        if !self.is_own(R::TABLE, &key) {
            return;
        }
        let rows = self.table(R::TABLE);
        rows.attempt.entities.insert(key, Some(row.into_values()));
    }

    /// Changes an entity row, if there is one.
    pub fn update<R: Row>(&mut self, key: impl IntoKey, change: impl FnOnce(&mut R)) {
        if let Some(mut row) = self.get::<R>(key) {
            change(&mut row);
            self.put(row);
        }
    }

    /// Removes an entity row, if there is one.
    pub fn remove<R: Row>(&mut self, key: impl IntoKey) {
        let key = key.into_key();
        if !self.is_own(R::TABLE, &key) {
            return;
        }
        self.table(R::TABLE).attempt.entities.insert(key, None);
    }

    /// Merges a delta into a rollup row: sums add, minima and maxima compare.
    pub fn add<R: Row>(&mut self, delta: R) {
        assert_eq!(R::TABLE.kind, TableKind::Rollup, "{} is no rollup", R::TABLE.name);
        let key = delta.key();
        self.table(R::TABLE).attempt.add(R::TABLE, key, delta.into_values());
    }

    /// Appends a journal row for the event at hand.
    pub fn append<R: Row>(&mut self, row: R) {
        assert_eq!(R::TABLE.kind, TableKind::Journal, "{} is no journal", R::TABLE.name);
        let offset = self.position.expect("an event is at hand").offset;
        self.table(R::TABLE).attempt.appends.push((offset, row.into_values()));
    }

    /// The keys that folds asked for and that nobody loaded yet, per table.
    pub fn missing(&self) -> Vec<(&'static Table, Vec<Key>)> {
        let tables = self.tables.values().filter(|rows| !rows.missing.is_empty());
        tables
            .map(|rows| (rows.table, rows.missing.iter().cloned().collect()))
            .collect()
    }

    /// Tells what the store holds under `key`; `None` = nothing.
    pub fn know(&mut self, table: &'static Table, key: Key, values: Option<Vec<Value>>) {
        let rows = self.table(table);
        rows.stored_bytes += values.as_deref().map_or(0, bytes_of);
        rows.stored.insert(key, values);
    }

    /// Forgets what was folded since the last [`keep`](Self::keep), for the same events come again.
    pub fn retry(&mut self) {
        for rows in self.tables.values_mut() {
            rows.attempt = Changes::default();
            rows.missing.clear();
        }
        self.violation = None;
    }

    /// What was folded stays.
    pub fn keep(&mut self) {
        for rows in self.tables.values_mut() {
            let attempt = std::mem::take(&mut rows.attempt);
            rows.kept.follow(rows.table, attempt);
        }
    }

    /// How many rows were changed and kept.
    pub fn changed(&self) -> usize {
        self.tables.values().map(|rows| rows.kept.len()).sum()
    }

    /// What the values of the rows that were kept or loaded take in memory.
    pub fn bytes(&self) -> usize {
        self.tables
            .values()
            .map(|rows| rows.kept.bytes + rows.stored_bytes)
            .sum()
    }

    /// Why this batch breaks a rule of the engine, if it does: an entity key outside the event's shard.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// What it all came to, table by table in name order.
    pub fn into_changes(mut self) -> Vec<TableChange> {
        self.keep();
        self.tables
            .into_values()
            .map(TableRows::into_change)
            .filter(|change| !change.is_empty())
            .collect()
    }

    fn table(&mut self, table: &'static Table) -> &mut TableRows {
        self.tables.entry(table.name).or_insert_with(|| TableRows {
            table,
            stored: HashMap::new(),
            stored_bytes: 0,
            kept: Changes::default(),
            attempt: Changes::default(),
            missing: BTreeSet::new(),
        })
    }

    /// An entity row belongs to the shard of its first key column; another shard's worker must not touch it.
    fn is_own(&mut self, table: &'static Table, key: &Key) -> bool {
        assert_eq!(table.kind, TableKind::Entity, "{} has no entity rows", table.name);
        let position = self.position.expect("an event is at hand");
        match key.first() {
            Some(Value::Uuid(id)) if slot_of(*id).shard(self.shards) == position.shard => true,
            _ => {
                let rule = format!(
                    "table {}: the event at {position} touches a row of another shard",
                    table.name
                );
                self.violation.get_or_insert(rule);
                false
            }
        }
    }
}

impl TableRows {
    /// `None` = not known.
    fn entity(&self, key: &Key) -> Option<&Option<Vec<Value>>> {
        let changed = [&self.attempt, &self.kept].into_iter();
        changed
            .filter_map(|changes| changes.entities.get(key))
            .next()
            .or_else(|| self.stored.get(key))
    }

    fn into_change(self) -> TableChange {
        let mut change = TableChange {
            deltas: sorted(self.kept.deltas).map(|(_, values)| values).collect(),
            ..TableChange::nothing(self.table)
        };
        for (key, values) in sorted(self.kept.entities) {
            match (values, self.stored.get(&key)) {
                (Some(values), Some(Some(_))) => change.upserts.push(values),
                (Some(values), _) => change.inserts.push(values),
                (None, _) => change.removes.push(key),
            }
        }
        let mut last = (u64::MAX, 0);
        for (offset, values) in self.kept.appends {
            last = if last.0 == offset {
                (last.0, last.1 + 1)
            } else {
                (offset, 0)
            };
            change.appends.push((offset, last.1, values));
        }
        change
    }
}

impl Changes {
    fn len(&self) -> usize {
        self.entities.len() + self.deltas.len() + self.appends.len()
    }

    /// Merges a delta into the rollup row of this key.
    fn add(&mut self, table: &Table, key: Key, values: Vec<Value>) {
        match self.deltas.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(values);
            }
            Entry::Occupied(mut sum) => {
                for ((column, old), new) in table.columns.iter().zip(sum.get_mut()).zip(values) {
                    merge(column.role, old, new);
                }
            }
        }
    }

    /// `later` changes come on top.
    fn follow(&mut self, table: &Table, later: Changes) {
        for (key, values) in later.entities {
            self.bytes += values.as_deref().map_or(0, bytes_of);
            let before = self.entities.insert(key, values).flatten();
            self.bytes -= before.as_deref().map_or(0, bytes_of);
        }
        for (key, values) in later.deltas {
            // Merged into another one it takes no more than that.
            if !self.deltas.contains_key(&key) {
                self.bytes += bytes_of(&values);
            }
            self.add(table, key, values);
        }
        self.bytes += later.appends.iter().map(|(_, values)| bytes_of(values)).sum::<usize>();
        self.appends.extend(later.appends);
    }
}

fn bytes_of(values: &[Value]) -> usize {
    values.iter().map(Value::bytes).sum()
}

/// By key, so that two who write the same rows take them in the same order.
fn sorted<V>(rows: HashMap<Key, V>) -> impl Iterator<Item = (Key, V)> {
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
    rows.into_iter()
}

impl TableChange {
    /// The table stays as it is.
    pub fn nothing(table: &'static Table) -> TableChange {
        TableChange {
            table,
            upserts: vec![],
            inserts: vec![],
            removes: vec![],
            deltas: vec![],
            appends: vec![],
        }
    }

    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty()
            && self.inserts.is_empty()
            && self.removes.is_empty()
            && self.deltas.is_empty()
            && self.appends.is_empty()
    }
}

pub(super) fn merge(role: ColumnRole, old: &mut Value, new: Value) {
    match role {
        ColumnRole::Key => {}
        ColumnRole::Sum => *old = Value::Int(old.as_int().checked_add(new.as_int()).expect("a sum fits 64 bits")),
        ColumnRole::Min if new != Value::Null && (*old == Value::Null || new < *old) => *old = new,
        ColumnRole::Max if new != Value::Null && new > *old => *old = new,
        ColumnRole::Min | ColumnRole::Max => {}
        ColumnRole::Set | ColumnRole::Meta => *old = new,
    }
}

#[cfg(test)]
mod specs {
    use uuid::Uuid;

    use super::*;

    crate::table! {
        entity Card "card" { key id: Uuid, set stage: String }
    }
    crate::table! {
        rollup Total "total" { key country: String, sum amount: i64, min first: Option<i64>, max last: i64 }
    }
    crate::table! {
        journal Entry "entry" { set text: String }
    }

    #[test]
    fn what_rows_take_is_known_and_what_is_replaced_or_merged_counts_once() {
        let mut rows = Rows::new(8);
        rows.at(Position { shard: 3, offset: 7 });
        let card = |stage: String| Card { id: id(3), stage };
        let total = |amount: i64| Total {
            country: "TW".into(),
            amount,
            first: None,
            last: 1,
        };
        let mut taken = 0;
        for stage in [1_000, 5] {
            rows.put(card("x".repeat(stage)));
            rows.add(total(1));
            rows.append(Entry { text: "y".repeat(100) });
            rows.keep();
            taken = rows.bytes();
        }
        let of = |values: Vec<Value>| bytes_of(&values);
        let entry = Entry { text: "y".repeat(100) };
        let expected = of(card("xxxxx".into()).into_values()) + of(total(2).into_values());
        assert_eq!(taken, expected + 2 * of(entry.into_values()));
        rows.know(
            Card::TABLE,
            vec![Value::Uuid(id(4))],
            Some(card("loaded".into()).into_values()),
        );
        assert_eq!(rows.bytes(), taken + of(card("loaded".into()).into_values()));
    }

    fn id(shard: u16) -> Uuid {
        domain::derived_in(domain::Slot::new(shard), &["card"])
    }

    fn rows() -> Rows {
        let mut rows = Rows::new(8);
        rows.at(Position { shard: 3, offset: 7 });
        rows
    }

    #[test]
    fn an_unknown_row_is_asked_for_and_a_known_one_is_changed() {
        let mut first = rows();
        first.update(id(3), |card: &mut Card| card.stage = "proposal".into());
        assert_eq!(first.missing(), vec![(Card::TABLE, vec![id(3).into_key()])]);

        let mut second = rows();
        let stored = Card {
            id: id(3),
            stage: "prospecting".into(),
        };
        second.know(Card::TABLE, id(3).into_key(), Some(stored.into_values()));
        second.update(id(3), |card: &mut Card| card.stage = "proposal".into());
        let changed = Card {
            id: id(3),
            stage: "proposal".into(),
        };
        assert_eq!(second.into_changes()[0].upserts, vec![changed.into_values()]);
    }

    #[test]
    fn events_that_are_folded_again_count_once() {
        let fold = |rows: &mut Rows| {
            rows.update(id(3), |card: &mut Card| card.stage.push('!'));
            rows.add(Total {
                country: "TW".into(),
                amount: 5,
                first: None,
                last: 2,
            });
            rows.append(Entry { text: "a".into() });
        };
        let card = |stage: &str| Card {
            id: id(3),
            stage: stage.into(),
        };
        let mut rows = rows();
        fold(&mut rows);
        assert_eq!(rows.missing(), vec![(Card::TABLE, vec![id(3).into_key()])]);
        rows.know(Card::TABLE, id(3).into_key(), Some(card("won").into_values()));
        rows.retry();
        assert_eq!((rows.missing(), rows.changed()), (vec![], 0));
        fold(&mut rows);
        rows.keep();
        // The next events see what was kept.
        rows.at(Position { shard: 3, offset: 8 });
        fold(&mut rows);
        assert_eq!(rows.missing(), vec![]);
        rows.keep();
        assert_eq!(rows.changed(), 4);
        let changes = rows.into_changes();
        assert_eq!(changes[0].upserts, vec![card("won!!").into_values()]);
        assert_eq!(changes[1].appends.len(), 2);
        assert_eq!(changes[2].deltas[0][1], Value::Int(10));
    }

    #[test]
    fn a_row_of_another_shard_is_refused() {
        let mut rows = rows();
        rows.put(Card {
            id: id(4),
            stage: "proposal".into(),
        });
        assert!(rows.violation().unwrap().contains("another shard"));
        assert_eq!(rows.into_changes(), vec![]);
    }

    #[test]
    fn deltas_of_one_key_are_merged() {
        let mut rows = rows();
        rows.add(Total {
            country: "TW".into(),
            amount: 5,
            first: None,
            last: 2,
        });
        rows.add(Total {
            country: "TW".into(),
            amount: -2,
            first: Some(9),
            last: 1,
        });
        let merged = Total {
            country: "TW".into(),
            amount: 3,
            first: Some(9),
            last: 2,
        };
        assert_eq!(rows.into_changes()[0].deltas, vec![merged.into_values()]);
    }

    #[test]
    fn the_journal_numbers_the_rows_of_an_event() {
        let mut rows = rows();
        rows.append(Entry { text: "a".into() });
        rows.append(Entry { text: "b".into() });
        rows.at(Position { shard: 3, offset: 9 });
        rows.append(Entry { text: "c".into() });
        let numbered: Vec<_> = rows.into_changes()[0]
            .appends
            .iter()
            .map(|(offset, row, _)| (*offset, *row))
            .collect();
        assert_eq!(numbered, vec![(7, 0), (7, 1), (9, 0)]);
    }
}
