//! What a read store must answer, worked out in memory.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use jiff::Timestamp;
use projections::{ColumnRole, Expr, Key, Op, Select, Table, TableChange, TableKind, Value};

/// The rows of all tables: per table and shard (entities all under shard 0), by key.
#[derive(Default, Clone)]
pub struct Model(BTreeMap<(&'static str, u16), BTreeMap<Key, Vec<Value>>>);

impl Model {
    pub fn apply(&mut self, shard: u16, change: &TableChange) {
        let table = change.table;
        let shard_of_rows = if table.kind == TableKind::Entity { 0 } else { shard };
        let rows = self.0.entry((table.name, shard_of_rows)).or_default();
        let key = |row: &[Value]| row[..table.key_len()].to_vec();
        for row in change.upserts.iter().chain(&change.inserts) {
            rows.insert(key(row), row.clone());
        }
        for key in &change.removes {
            rows.remove(key);
        }
        for row in &change.deltas {
            merge(table, rows, key(row), row, |_, new| new.clone());
        }
        for (offset, number, row) in &change.appends {
            let mut key = vec![
                Value::Int(shard.into()),
                Value::Int(*offset as i64),
                Value::Int(*number),
            ];
            let place = key.clone();
            key.extend(row.clone());
            rows.insert(place, key);
        }
    }

    /// The merged rows in key order; a journal's begin with their place.
    pub fn rows(&self, table: &'static Table) -> Vec<Vec<Value>> {
        let mut all: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
        for ((name, _), rows) in &self.0 {
            if *name == table.name {
                for (key, row) in rows {
                    let later = |old: &Value, new: &Value| old.max(new).clone();
                    merge(table, &mut all, key.clone(), row, later);
                }
            }
        }
        let mut rows: Vec<Vec<Value>> = all.into_values().collect();
        for row in &mut rows {
            let hidden = row.len() - table.columns.len();
            for (column, cell) in table.columns.iter().zip(&mut row[hidden..]) {
                if column.role == ColumnRole::Sum {
                    // Of nothing: nought.
                    *cell = Value::Int(cell.as_int());
                }
            }
        }
        rows
    }

    pub fn answer(&self, select: &Select) -> Vec<Vec<Value>> {
        let table = select.table;
        let column = |name: &str| place(table, name);
        let mut rows = self.rows(table);
        rows.retain(|row| {
            let is_wanted = select
                .filters
                .iter()
                .all(|filter| fits(&row[column(filter.column)], filter.op, &filter.values));
            let is_known = select.until.as_ref().is_none_or(|until| {
                let reaches = |(shard, offset): &(u16, u64)| {
                    row[0].as_int() == i64::from(*shard) && row[1].as_int() as u64 <= *offset
                };
                until.iter().any(reaches)
            });
            let is_later = select
                .after
                .as_ref()
                .is_none_or(|after| row[..table.row_key().len()] > after[..]);
            is_wanted && is_known && is_later
        });

        let is_plain = |expr: &Expr| matches!(expr, Expr::Column(_));
        let is_aggregate = !select.exprs.iter().all(is_plain);
        let mut groups: BTreeMap<Key, Vec<Vec<Value>>> = BTreeMap::new();
        for (i, row) in rows.into_iter().enumerate() {
            let key = match is_aggregate {
                true => plain(select).map(|name| row[column(name)].clone()).collect(),
                false => vec![Value::Int(i as i64)],
            };
            groups.entry(key).or_default().push(row);
        }
        if is_aggregate && plain(select).next().is_none() {
            groups.entry(vec![]).or_default();
        }

        // Groups come in the order of their keys, so a stable sort leaves ties in it.
        let mut answer: Vec<(Vec<Value>, Vec<Value>)> = Vec::new();
        for rows in groups.into_values() {
            let values: Vec<Value> = select
                .exprs
                .iter()
                .map(|expr| evaluate(expr, &rows, |name| column(name)))
                .collect();
            let order = select.order.iter().map(|order| {
                let asked = |expr: &&Expr| match expr {
                    Expr::Column(name) | Expr::Sum(name) | Expr::Min(name) | Expr::Max(name) => *name == order.column,
                    Expr::Count => false,
                };
                match is_aggregate {
                    false => rows[0][column(order.column)].clone(),
                    true => evaluate(select.exprs.iter().find(asked).unwrap(), &rows, |name| column(name)),
                }
            });
            answer.push((order.collect(), values));
        }
        answer.sort_by(|(a, _), (b, _)| {
            let mut parts = a.iter().zip(b).zip(&select.order);
            parts
                .find_map(|((a, b), order)| {
                    let ordering = if order.descending { b.cmp(a) } else { a.cmp(b) };
                    ordering.is_ne().then_some(ordering)
                })
                .unwrap_or(Ordering::Equal)
        });
        answer.truncate(select.limit.unwrap_or(usize::MAX));
        answer.into_iter().map(|(_, values)| values).collect()
    }
}

fn plain(select: &Select) -> impl Iterator<Item = &'static str> {
    select.exprs.iter().filter_map(|expr| match expr {
        Expr::Column(name) => Some(*name),
        Expr::Sum(_) | Expr::Min(_) | Expr::Max(_) | Expr::Count => None,
    })
}

/// Where a column stands in [`Model::rows`].
pub fn place(table: &Table, name: &str) -> usize {
    let columns = table.hidden_columns().iter().chain(table.columns);
    let mut names = columns.map(|column| column.name);
    names.position(|known| known == name).unwrap()
}

fn fits(cell: &Value, op: Op, values: &[Value]) -> bool {
    let stored = values.iter().map(|value| match value {
        Value::Time(time) => Value::Time(in_microseconds(*time)),
        other => other.clone(),
    });
    op.holds(cell, &stored.collect::<Vec<_>>())
}

/// What a store keeps of a time.
fn in_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::new(time.as_second(), time.subsec_nanosecond() / 1000 * 1000).unwrap()
}

fn evaluate(expr: &Expr, rows: &[Vec<Value>], column: impl Fn(&str) -> usize) -> Value {
    let cells = |name: &'static str| {
        let place = column(name);
        rows.iter()
            .map(move |row| &row[place])
            .filter(|cell| **cell != Value::Null)
    };
    let found = match expr {
        Expr::Column(name) => return rows[0][column(name)].clone(),
        Expr::Count => return Value::Int(rows.len() as i64),
        Expr::Min(name) => cells(name).min().cloned(),
        Expr::Max(name) => cells(name).max().cloned(),
        Expr::Sum(name) => cells(name).map(Value::as_int).reduce(|a, b| a + b).map(Value::Int),
    };
    found.unwrap_or(Value::Null)
}

fn merge(
    table: &Table,
    rows: &mut BTreeMap<Key, Vec<Value>>,
    key: Key,
    new: &[Value],
    set: impl Fn(&Value, &Value) -> Value,
) {
    let Some(old) = rows.get_mut(&key) else {
        rows.insert(key, new.to_vec());
        return;
    };
    for ((column, old), new) in table.columns.iter().zip(old).zip(new) {
        *old = match column.role {
            ColumnRole::Key => continue,
            ColumnRole::Set | ColumnRole::Meta => set(old, new),
            ColumnRole::Sum => Value::Int(old.as_int() + new.as_int()),
            ColumnRole::Min if *old == Value::Null => new.clone(),
            ColumnRole::Min if *new == Value::Null => continue,
            ColumnRole::Min => (*old).clone().min(new.clone()),
            ColumnRole::Max => (*old).clone().max(new.clone()),
        };
    }
}
