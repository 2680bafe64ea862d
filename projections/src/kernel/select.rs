//! A query that every store can run alike: columns, sums, filters, order.

use super::{Key, Table, Value};

/// What a select asks of the (merged) table. When any expression aggregates, the plain columns are the group.
#[derive(Debug, Clone)]
pub struct Select {
    pub table: &'static Table,
    pub exprs: Vec<Expr>,
    pub filters: Vec<Filter>,
    /// Only journal rows at or before these positions: (shard, offset). Shards that are not named give nothing.
    pub until: Option<Vec<(u16, u64)>>,
    /// Only rows that come later than this one in the order of [`Table::row_key`].
    pub after: Option<Key>,
    pub order: Vec<Order>,
    /// So many rows are left out first.
    pub offset: usize,
    pub limit: Option<usize>,
    /// Bytes of values ([`Value::bytes`]) that its rows may have; a store refuses to answer with more.
    pub bytes_max: usize,
}

/// What the rows of a select have at most, unless it says less.
pub const ROWS_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// What the rows of a list's page have at most.
pub const PAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expr {
    Column(&'static str),
    Sum(&'static str),
    Min(&'static str),
    Max(&'static str),
    Count,
}

/// A comparison of a column. A row passes when its cell compares so with the value.
#[derive(Debug, Clone)]
pub struct Filter {
    pub column: &'static str,
    pub op: Op,
    /// One value; for [`Op::In`] any number of them.
    pub values: Vec<Value>,
}

/// How a cell is compared. Null is a value like any other for `Eq`, `Ne` and `In`: a cell without a value differs from every value.
/// Nothing is less or greater than null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Equal to one of the values.
    In,
}

impl Op {
    pub fn sql(self) -> &'static str {
        match self {
            Op::Eq => "=",
            Op::Ne => "<>",
            Op::Lt => "<",
            Op::Le => "<=",
            Op::Gt => ">",
            Op::Ge => ">=",
            Op::In => "IN",
        }
    }

    /// Whether `cell` compares so with `values`, as in a store.
    pub fn holds(self, cell: &Value, values: &[Value]) -> bool {
        match self {
            Op::Eq | Op::In => values.contains(cell),
            Op::Ne => !values.contains(cell),
            Op::Lt | Op::Le | Op::Gt | Op::Ge => values
                .iter()
                .all(|value| *cell != Value::Null && *value != Value::Null && self.orders(cell, value)),
        }
    }

    fn orders(self, cell: &Value, value: &Value) -> bool {
        match self {
            Op::Lt => cell < value,
            Op::Le => cell <= value,
            Op::Gt => cell > value,
            Op::Ge => cell >= value,
            Op::Eq | Op::Ne | Op::In => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub column: &'static str,
    pub descending: bool,
}

impl Select {
    /// All columns of the table.
    pub fn all(table: &'static Table) -> Select {
        Select::of(table, table.columns.iter().map(|column| Expr::Column(column.name)))
    }

    pub fn of(table: &'static Table, exprs: impl IntoIterator<Item = Expr>) -> Select {
        let exprs = exprs.into_iter().collect();
        Select {
            table,
            exprs,
            filters: vec![],
            until: None,
            after: None,
            order: vec![],
            offset: 0,
            limit: None,
            bytes_max: ROWS_BYTES_MAX,
        }
    }

    /// Only rows whose `column` compares so with `value`. A null value compares by `Eq` (is null) and `Ne` (is not null).
    pub fn filter(self, column: &'static str, op: Op, value: Value) -> Select {
        self.filter_any(column, op, vec![value])
    }

    /// The same with several values, for [`Op::In`].
    pub fn filter_any(mut self, column: &'static str, op: Op, values: Vec<Value>) -> Select {
        self.filters.push(Filter { column, op, values });
        self
    }

    pub fn order_by(mut self, column: &'static str) -> Select {
        self.order.push(Order {
            column,
            descending: false,
        });
        self
    }

    pub fn order_by_desc(mut self, column: &'static str) -> Select {
        self.order.push(Order {
            column,
            descending: true,
        });
        self
    }
}
