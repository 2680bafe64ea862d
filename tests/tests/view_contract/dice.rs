//! Random but valid rows, the same ones for the same seed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use projections::{Column, ColumnRole, ColumnType, Key, Table, TableChange, TableKind, Value};
use serde_json::json;
use uuid::Uuid;

pub struct Dice(tests::Dice);

/// Texts that databases like to order, fold or escape each in its own way.
const TEXTS: &[&str] = &[
    "",
    " ",
    "a",
    "A",
    "b",
    "Z",
    "z",
    "10",
    "9",
    "臺灣",
    "台灣",
    "客戶資料",
    "é",
    "e\u{301}",
    "ß",
    "ss",
    "😀",
    "\u{ffff}",
    "O'Brien \"x\" \\ %_",
    "null",
    "line\nbreak\ttab",
    "日本語",
];

impl Dice {
    pub fn seeded(seed: u64) -> Dice {
        Dice(tests::Dice::seeded(seed))
    }

    pub fn number(&mut self) -> u64 {
        self.0.number()
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0.below(end)
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A value that `column` may hold.
    pub fn value(&mut self, column: &Column) -> Value {
        if column.nullable && self.one_in(4) {
            return Value::Null;
        }
        // Few different keys, so that rows meet.
        let is_key = column.role == ColumnRole::Key;
        match column.ty {
            ColumnType::Uuid if is_key => {
                Value::Uuid(Uuid::from_u64_pair(self.number() % 8 * 0x1111_1111_1111_1111, 7))
            }
            ColumnType::Uuid => Value::Uuid(Uuid::from_u64_pair(self.number(), self.number())),
            ColumnType::Text => Value::Text((*self.pick(TEXTS)).to_owned()),
            ColumnType::Int if is_key => Value::Int(*self.pick(&[i64::MIN, -1, 0, 1, 2, i64::MAX])),
            ColumnType::Int if column.role == ColumnRole::Sum => Value::Int(self.number() as i64 % 1_000_000_000),
            ColumnType::Int if self.one_in(5) => Value::Int(*self.pick(&[i64::MIN, i64::MAX, 0, -1])),
            ColumnType::Int => Value::Int(self.number() as i64 % 100),
            ColumnType::Bool => Value::Bool(self.one_in(2)),
            ColumnType::Date => Value::Date(self.date(is_key)),
            ColumnType::Time => Value::Time(self.time(is_key)),
            ColumnType::Json => {
                let text = *self.pick(TEXTS);
                let number = self.number() as i64;
                let all = [
                    json!([]),
                    json!([text, "x"]),
                    json!({"z": number, "a": {"text": text, "none": null}, "long key": [1.5, true]}),
                    json!(number),
                ];
                Value::json(self.pick(&all))
            }
        }
    }

    fn date(&mut self, is_key: bool) -> Date {
        let edges = [
            Date::constant(0, 1, 1),
            Date::constant(9999, 12, 31),
            Date::constant(2024, 2, 29),
        ];
        if is_key || self.one_in(5) {
            return *self.pick(&edges);
        }
        let day = |n| jiff::Span::new().days(n);
        Date::constant(2020, 1, 1)
            .checked_add(day(self.below(3000) as i64))
            .unwrap()
    }

    fn time(&mut self, is_key: bool) -> Timestamp {
        let edges = [
            Timestamp::constant(-62_167_219_200, 0),
            Timestamp::constant(-1, -999_999_000),
            Timestamp::UNIX_EPOCH,
            Timestamp::constant(253_402_207_200, 999_999_000),
        ];
        if is_key || self.one_in(5) {
            return *self.pick(&edges);
        }
        Timestamp::from_microsecond(1_700_000_000_000_000 + self.below(1 << 40) as i64).unwrap()
    }

    pub fn row(&mut self, table: &Table) -> Vec<Value> {
        table.columns.iter().map(|column| self.value(column)).collect()
    }

    /// What a batch that begins at `offset` might do to `table`, in about `size` rows.
    pub fn change(&mut self, table: &'static Table, offset: u64, size: usize) -> TableChange {
        let mut change = TableChange::nothing(table);
        let rows: Vec<Vec<Value>> = (0..size).map(|_| self.row(table)).collect();
        if table.kind == TableKind::Journal {
            for (i, values) in rows.into_iter().enumerate() {
                // Two rows an event.
                change.appends.push((offset + i as u64 / 2, i as i64 % 2, values));
            }
            return change;
        }
        let key = |row: &[Value]| row[..table.key_len()].to_vec();
        let by_key: BTreeMap<Key, Vec<Value>> = rows.into_iter().map(|row| (key(&row), row)).collect();
        if table.kind == TableKind::Rollup {
            change.deltas = by_key.into_values().collect();
            return change;
        }
        let removed: BTreeSet<Key> = (0..size / 4)
            .map(|_| key(&self.row(table)))
            .filter(|key| !by_key.contains_key(key))
            .collect();
        // Whether a row is new or not, a store takes it.
        (change.upserts, change.inserts) = by_key.into_values().partition(|_| self.one_in(3));
        change.removes = removed.into_iter().collect();
        change
    }
}
