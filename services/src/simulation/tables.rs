//! The rows of one shard of a generation, and a digest of them that follows every change: equal rows are equal digests.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use projections::{ColumnRole, Key, Table, TableChange, TableKind, Value};

/// Rows as they were before a change, `None` = there was none.
pub type Before = Vec<(&'static Table, Key, Option<Vec<Value>>)>;

#[derive(Debug, Default)]
pub struct Tables {
    rows: HashMap<&'static str, HashMap<Key, Vec<Value>>>,
    digest: u64,
}

impl Tables {
    pub fn digest(&self) -> u64 {
        self.digest
    }

    pub fn get(&self, table: &Table, key: &Key) -> Option<&Vec<Value>> {
        self.rows.get(table.name)?.get(key)
    }

    /// Answers what stood there before, by which [`take_back`](Tables::take_back) undoes it.
    pub fn apply(&mut self, changes: &[TableChange]) -> Before {
        let mut before = Vec::new();
        for change in changes {
            let table = change.table;
            let key_len = table.key_len();
            for row in change.upserts.iter().chain(&change.inserts) {
                self.put(table, row[..key_len].to_vec(), row.clone(), &mut before);
            }
            for key in &change.removes {
                let row = self.remove(table, key);
                before.push((table, key.clone(), row));
            }
            for delta in &change.deltas {
                let key = delta[..key_len].to_vec();
                let row = match self.get(table, &key) {
                    Some(sum) => merged(table, sum, delta),
                    None => delta.clone(),
                };
                self.put(table, key, row, &mut before);
            }
            for (offset, row, values) in &change.appends {
                assert_eq!(table.kind, TableKind::Journal);
                let place = vec![Value::Int(offset.cast_signed()), Value::Int(*row)];
                self.put(table, place, values.clone(), &mut before);
            }
        }
        before
    }

    pub fn take_back(&mut self, before: Before) {
        for (table, key, row) in before.into_iter().rev() {
            match row {
                Some(row) => self.put(table, key, row, &mut Vec::new()),
                None => drop(self.remove(table, &key)),
            }
        }
    }

    fn put(&mut self, table: &'static Table, key: Key, row: Vec<Value>, before: &mut Before) {
        before.push((table, key.clone(), self.remove(table, &key)));
        self.digest ^= digest(table, &key, &row);
        self.rows.entry(table.name).or_default().insert(key, row);
    }

    fn remove(&mut self, table: &'static Table, key: &Key) -> Option<Vec<Value>> {
        let row = self.rows.get_mut(table.name)?.remove(key)?;
        self.digest ^= digest(table, key, &row);
        Some(row)
    }

    /// In which tables the two differ, and how many rows.
    pub fn difference(&self, other: &Tables) -> String {
        let names: BTreeSet<&'static str> = self.rows.keys().chain(other.rows.keys()).copied().collect();
        let nothing = HashMap::new();
        let mut found = Vec::new();
        for name in names {
            let ours = self.rows.get(name).unwrap_or(&nothing);
            let theirs = other.rows.get(name).unwrap_or(&nothing);
            let keys: BTreeSet<&Key> = ours.keys().chain(theirs.keys()).collect();
            let differing = keys.iter().filter(|key| ours.get(**key) != theirs.get(**key)).count();
            if differing > 0 {
                found.push(format!("{differing} rows of {name}"));
            }
        }
        found.join(", ")
    }
}

fn merged(table: &Table, sum: &[Value], delta: &[Value]) -> Vec<Value> {
    let columns = table.columns.iter().zip(sum.iter().zip(delta));
    columns
        .map(|(column, (old, new))| match column.role {
            ColumnRole::Key => old.clone(),
            ColumnRole::Set | ColumnRole::Meta => new.clone(),
            ColumnRole::Sum => Value::Int(old.as_int() + new.as_int()),
            ColumnRole::Min if *new != Value::Null && (*old == Value::Null || new < old) => new.clone(),
            ColumnRole::Max if *new != Value::Null && new > old => new.clone(),
            ColumnRole::Min | ColumnRole::Max => old.clone(),
        })
        .collect()
}

fn digest(table: &Table, key: &Key, row: &[Value]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (table.name, key, row).hash(&mut hasher);
    hasher.finish()
}
