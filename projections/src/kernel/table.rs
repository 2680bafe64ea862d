//! A table, declared once: a Rust struct, its key and its kind. Stores make schema, loads and upserts from it.

use std::fmt;

use domain::StreamKind;

use super::{ColumnType, Key, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Keyed by the event's own stream, or below it: read, changed and written back by its one shard.
    Entity,
    /// Keyed by anything; commutative deltas, kept per shard and merged by the view.
    Rollup,
    /// Append only, keyed by shard and offset; never read by a fold.
    Journal,
}

/// What a column is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnRole {
    Key,
    Set,
    /// Like `Set`, but no business figure (a recorded time, a position): left out of checksums.
    Meta,
    Sum,
    Min,
    Max,
}

/// A column of a table, or of an answer that is computed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub ty: ColumnType,
    pub nullable: bool,
    pub role: ColumnRole,
    /// Whether it holds personal data, which does not belong in URLs.
    pub personal: bool,
}

/// As it is stored: what is personal is stored like anything else, and a group's definition does not depend on it.
impl fmt::Debug for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Column")
            .field("name", &self.name)
            .field("ty", &self.ty)
            .field("nullable", &self.nullable)
            .field("role", &self.role)
            .finish()
    }
}

impl Column {
    /// A column of a computed answer. It has a value in every row.
    pub const fn shown(name: &'static str, ty: ColumnType) -> Column {
        Column {
            name,
            ty,
            nullable: false,
            role: ColumnRole::Set,
            personal: false,
        }
    }

    /// What kind of thing it names, so that it may be named by the key of another system: `case=key:desk:INC0001`.
    pub fn names(&self) -> Option<StreamKind> {
        match (self.ty, self.name) {
            (ColumnType::Uuid, "account") => Some(StreamKind::Loyalty),
            (ColumnType::Uuid, "case_id") => Some(StreamKind::Case),
            (ColumnType::Uuid, name) => StreamKind::parse(name),
            _ => None,
        }
    }

    /// The same, where a row may have no value.
    pub const fn or_null(mut self) -> Column {
        self.nullable = true;
        self
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    pub name: &'static str,
    pub kind: TableKind,
    /// In declaration order; the key columns come first.
    pub columns: &'static [Column],
}

impl Table {
    /// What a journal has besides its own columns: where the event stands, and which of its rows this is.
    pub const JOURNAL_KEY: [Column; 3] = [
        Column {
            role: ColumnRole::Meta,
            ..Column::shown("shard", ColumnType::Int)
        },
        Column {
            role: ColumnRole::Meta,
            ..Column::shown("log_offset", ColumnType::Int)
        },
        Column {
            role: ColumnRole::Meta,
            ..Column::shown("row", ColumnType::Int)
        },
    ];

    pub fn key_len(&self) -> usize {
        self.columns
            .iter()
            .filter(|column| column.role == ColumnRole::Key)
            .count()
    }

    pub fn key_columns(&self) -> &'static [Column] {
        &self.columns[..self.key_len()]
    }

    /// What can be asked for besides its own columns, before which it stands.
    pub fn hidden_columns(&self) -> &'static [Column] {
        match self.kind {
            TableKind::Journal => &Table::JOURNAL_KEY,
            TableKind::Entity | TableKind::Rollup => &[],
        }
    }

    /// What tells its rows apart, and the order in which stores give them: the key, or of a journal the place of the event. It comes first
    /// among the hidden and own columns.
    pub fn row_key(&self) -> &'static [Column] {
        match self.kind {
            TableKind::Journal => &Table::JOURNAL_KEY,
            TableKind::Entity | TableKind::Rollup => self.key_columns(),
        }
    }

    /// `None` when the table has no such column.
    pub fn column(&self, name: &str) -> Option<&'static Column> {
        let mut columns = self.hidden_columns().iter().chain(self.columns);
        columns.find(|column| column.name == name)
    }
}

/// A row of a table; made by [`table!`](crate::table).
pub trait Row: Clone + 'static {
    const TABLE: &'static Table;

    /// In the order of the table's columns.
    fn into_values(self) -> Vec<Value>;

    fn from_values(values: Vec<Value>) -> Self;

    fn key(&self) -> Key {
        let mut values = self.clone().into_values();
        values.truncate(Self::TABLE.key_len());
        values
    }
}

/// Declares a table and the struct of its rows. Each column says what it is for: `key` (first), `set`, `meta` (not a business
/// figure), and in a rollup `sum`, `min`, `max`.
///
/// ```
/// projections::table! {
///     /// Sales of one month.
///     rollup MonthlySales "monthly_sales" {
///         key month: jiff::civil::Date,
///         key country: String,
///         sum amount_minor: i64,
///     }
/// }
/// # use projections::Row;
/// assert_eq!(MonthlySales::TABLE.key_len(), 2);
/// ```
#[macro_export]
macro_rules! table {
    ($(#[$doc:meta])* $kind:ident $name:ident $table:literal { $($(#[$field_doc:meta])* $role:ident $column:ident : $ty:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name { $($(#[$field_doc])* pub $column: $ty),+ }

        impl $crate::Row for $name {
            const TABLE: &'static $crate::Table = &$crate::Table {
                name: $table,
                kind: $crate::table!(@kind $kind),
                columns: &[$($crate::Column {
                    name: stringify!($column),
                    ty: <$ty as $crate::ColumnValue>::TYPE,
                    nullable: <$ty as $crate::ColumnValue>::NULLABLE,
                    role: $crate::table!(@role $role),
                    personal: <$ty as $crate::ColumnValue>::PERSONAL,
                }),+],
            };

            fn into_values(self) -> Vec<$crate::Value> {
                vec![$($crate::ColumnValue::into_value(self.$column)),+]
            }

            fn from_values(values: Vec<$crate::Value>) -> Self {
                let mut values = values.into_iter();
                $name { $($column: $crate::ColumnValue::from_value(values.next().expect("a value per column"))),+ }
            }
        }
    };
    (@kind entity) => { $crate::TableKind::Entity };
    (@kind rollup) => { $crate::TableKind::Rollup };
    (@kind journal) => { $crate::TableKind::Journal };
    (@role key) => { $crate::ColumnRole::Key };
    (@role set) => { $crate::ColumnRole::Set };
    (@role meta) => { $crate::ColumnRole::Meta };
    (@role sum) => { $crate::ColumnRole::Sum };
    (@role min) => { $crate::ColumnRole::Min };
    (@role max) => { $crate::ColumnRole::Max };
}
