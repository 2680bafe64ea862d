//! Questions to a read model, the plan to answer one, and the answer.

use jiff::Timestamp;

use super::{ColumnType, Filter, Op, Order, PAGE_BYTES_MAX, Row, Select, Table, Value};

/// Rows of an answer when the question does not say.
pub const DEFAULT_LIMIT: usize = 100;
/// Rows of an answer at most; more come by cursor.
pub const LIMIT_MAX: usize = 10_000;

/// What somebody wants to know of a read model.
#[derive(Debug, Clone, Default)]
pub struct Question {
    pub filters: Vec<Where>,
    /// The world at this time, with all that was recorded since (restated). `None` = now.
    pub as_of: Option<Timestamp>,
    /// Only what stood in the log up to these positions (as reported). `None` = all. The engine finds them for a time.
    pub known_until: Option<Vec<(u16, u64)>>,
    pub limit: Option<usize>,
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// Today's date for figures that depend on it, when `as_of` does not say; given by the caller, for no clock is read here.
    pub now: Option<Timestamp>,
}

/// `stage=proposal`, `due<2026-05-01`.
#[derive(Debug, Clone, PartialEq)]
pub struct Where {
    pub column: String,
    pub op: Op,
    pub value: String,
}

impl Where {
    /// Reads `column=value` with one of `=`, `!=`, `<`, `<=`, `>`, `>=`.
    ///
    /// # Errors
    /// [`BadQuestion::Filter`] when there is no comparison in it.
    pub fn parse(text: &str) -> Result<Where, BadQuestion> {
        let at = text
            .find(['=', '!', '<', '>'])
            .ok_or_else(|| BadQuestion::Filter(text.to_owned()))?;
        let (column, rest) = text.split_at(at);
        let ops = [
            ("<=", Op::Le),
            (">=", Op::Ge),
            ("!=", Op::Ne),
            ("=", Op::Eq),
            ("<", Op::Lt),
            (">", Op::Gt),
        ];
        for (sign, op) in ops {
            if let Some(value) = rest.strip_prefix(sign) {
                return Ok(Where {
                    column: column.trim().to_owned(),
                    op,
                    value: value.trim().to_owned(),
                });
            }
        }
        Err(BadQuestion::Filter(text.to_owned()))
    }

    /// What is compared with; `null` is nothing.
    fn read(&self, ty: ColumnType) -> Result<Value, BadQuestion> {
        if self.value == "null" {
            return Ok(Value::Null);
        }
        Value::parse(ty, &self.value).ok_or_else(|| BadQuestion::Value {
            column: self.column.clone(),
            value: self.value.clone(),
        })
    }
}

impl Question {
    /// The time that figures are computed for.
    pub fn time(&self) -> Timestamp {
        self.as_of.or(self.now).unwrap_or(Timestamp::MAX)
    }

    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, LIMIT_MAX)
    }

    /// How many rows the pages before this one had.
    fn offset(&self) -> Result<usize, BadQuestion> {
        match &self.cursor {
            None => Ok(0),
            Some(cursor) => match cursor.parse::<u32>() {
                Ok(rows) => Ok(rows as usize),
                Err(_) => Err(BadQuestion::Cursor),
            },
        }
    }

    /// Narrows `select` by the question's filters, as far as they name columns of its table.
    ///
    /// # Errors
    /// A column that the table does not have, or a value that does not fit it.
    pub fn narrow(&self, mut select: Select) -> Result<Select, BadQuestion> {
        for filter in &self.filters {
            let column = select.table.column(&filter.column).ok_or_else(|| BadQuestion::Column {
                column: filter.column.clone(),
                known: select
                    .table
                    .columns
                    .iter()
                    .map(|column| column.name)
                    .collect::<Vec<_>>()
                    .join(", "),
            })?;
            select = select.filter(column.name, filter.op, filter.read(column.ty)?);
        }
        Ok(select)
    }

    /// Limits a select on a bitemporal journal to what was true by `as_of` and known by `known_until`.
    pub fn dated(&self, mut select: Select, effective_at: &'static str) -> Select {
        if let Some(as_of) = self.as_of {
            select = select.filter(effective_at, Op::Le, Value::Time(as_of));
        }
        select.until = self.known_until.clone();
        select
    }

    /// # Errors
    /// For a read model that knows only the present: `as_of` and `known_at` are refused.
    pub fn present_only(&self) -> Result<(), BadQuestion> {
        match self.as_of.is_some() || self.known_until.is_some() {
            true => Err(BadQuestion::PresentOnly),
            false => Ok(()),
        }
    }
}

/// Why a question cannot be answered; the asker's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadQuestion {
    #[error("{0:?} is no filter; write column=value, with =, !=, <, <=, > or >=")]
    Filter(String),
    #[error("there is no column {column:?}; there are: {known}")]
    Column { column: String, known: String },
    #[error("{value:?} does not fit the column {column:?}")]
    Value { column: String, value: String },
    #[error("this read model shows the present; as_of and known_at are answered by the dated ones")]
    PresentOnly,
    #[error("the cursor is not one that this read model gave")]
    Cursor,
}

/// How a question is answered: selects that a store runs in one snapshot, and what is made of their rows.
pub struct Plan {
    pub selects: Vec<Select>,
    #[allow(clippy::type_complexity)]
    pub finish: Box<dyn FnOnce(Vec<Vec<Vec<Value>>>) -> Answer + Send>,
}

/// A table of values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<Value>>,
    /// Asks for the next page, if there is one.
    pub cursor: Option<String>,
}

impl Plan {
    pub fn new(selects: Vec<Select>, finish: impl FnOnce(Vec<Vec<Vec<Value>>>) -> Answer + Send + 'static) -> Plan {
        Plan {
            selects,
            finish: Box::new(finish),
        }
    }

    /// With more made of the answer: a figure of the day in every row.
    pub fn then(self, more: impl FnOnce(Answer) -> Answer + Send + 'static) -> Plan {
        let finish = self.finish;
        Plan::new(self.selects, move |results| more(finish(results)))
    }
}

/// An answer that is computed, not read row by row: its columns, and the question's filters and page, which are applied to the
/// computed rows.
#[derive(Debug)]
pub struct Page {
    columns: &'static [(&'static str, ColumnType)],
    filters: Vec<Filter>,
    offset: usize,
    limit: usize,
}

impl Page {
    /// # Errors
    /// Filters that do not fit the columns, a foreign cursor.
    pub fn of(question: &Question, columns: &'static [(&'static str, ColumnType)]) -> Result<Page, BadQuestion> {
        let mut filters = Vec::new();
        for asked in &question.filters {
            let known = columns.iter().find(|(name, _)| *name == asked.column);
            let (name, ty) = known.ok_or_else(|| BadQuestion::Column {
                column: asked.column.clone(),
                known: columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
            })?;
            filters.push(Filter {
                column: name,
                op: asked.op,
                value: asked.read(*ty)?,
            });
        }
        Ok(Page {
            columns,
            filters,
            offset: question.offset()?,
            limit: question.limit(),
        })
    }

    /// Spares the store's rows that no row of the answer is made of: the filters on `columns`, which the answer has from
    /// the table as they are.
    pub fn narrow(&self, mut select: Select, columns: &[&str]) -> Select {
        for filter in self.filters.iter().filter(|filter| columns.contains(&filter.column)) {
            select.filters.push(filter.clone());
        }
        select
    }

    /// The page of these rows, which are all there are, in order.
    pub fn answer(&self, mut rows: Vec<Vec<Value>>) -> Answer {
        rows.retain(|row| {
            let cells = self.columns.iter().map(|(name, _)| *name).zip(row);
            let cell = |column| cells.clone().find(|(name, _)| *name == column).map(|(_, cell)| cell);
            let mut filters = self.filters.iter();
            filters.all(|filter| cell(filter.column).is_some_and(|cell| filter.op.holds(cell, &filter.value)))
        });
        let end = self.offset.saturating_add(self.limit);
        let more = rows.len() > end;
        rows.truncate(end);
        rows.drain(..self.offset.min(rows.len()));
        Answer {
            columns: self.columns.iter().map(|(name, _)| *name).collect(),
            rows,
            cursor: more.then(|| end.to_string()),
        }
    }
}

/// The plan of a read model that is one table, row by row: filtered, ordered, paged.
pub struct List {
    table: &'static Table,
    newest_first: Option<&'static str>,
}

impl List {
    /// In key order.
    pub fn of<R: Row>() -> List {
        List {
            table: R::TABLE,
            newest_first: None,
        }
    }

    /// Latest first by this column; equal ones in key order.
    pub fn newest_first<R: Row>(column: &'static str) -> List {
        List {
            table: R::TABLE,
            newest_first: Some(column),
        }
    }

    /// # Errors
    /// Filters that do not fit, a foreign cursor.
    pub fn plan(self, question: &Question) -> Result<Plan, BadQuestion> {
        let table = self.table;
        let mut order: Vec<Order> = self
            .newest_first
            .map(|column| Order {
                column,
                descending: true,
            })
            .into_iter()
            .collect();
        let key: Vec<&'static str> = table.row_key().iter().map(|column| column.name).collect();
        order.extend(key.iter().map(|column| Order {
            column,
            descending: self.newest_first.is_some(),
        }));
        let offset = question.offset()?;
        let limit = question.limit();
        let mut select = question.narrow(Select::all(table))?;
        select.until = question.known_until.clone();
        select.order = order;
        select.offset = offset;
        select.limit = Some(limit + 1);
        select.bytes_max = PAGE_BYTES_MAX;
        let columns = table.columns.iter().map(|column| column.name).collect();
        Ok(Plan::new(vec![select], move |mut results| {
            let mut rows = results.remove(0);
            let more = rows.len() > limit;
            rows.truncate(limit);
            Answer {
                columns,
                rows,
                cursor: more.then(|| (offset + limit).to_string()),
            }
        }))
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn a_filter_is_a_column_a_comparison_and_a_value() {
        let read = |text: &str| Where::parse(text).unwrap();
        assert_eq!(
            read("stage=proposal"),
            Where {
                column: "stage".into(),
                op: Op::Eq,
                value: "proposal".into()
            }
        );
        assert_eq!(
            read("due <= 2026-05-01"),
            Where {
                column: "due".into(),
                op: Op::Le,
                value: "2026-05-01".into()
            }
        );
        assert_eq!(Where::parse("stage"), Err(BadQuestion::Filter("stage".into())));
    }

    #[test]
    fn a_computed_answer_is_filtered_and_paged_like_a_table() {
        const COLUMNS: &[(&str, ColumnType)] = &[("name", ColumnType::Text), ("count", ColumnType::Int)];
        let row = |name: &str, count: i64| vec![Value::Text(name.into()), Value::Int(count)];
        let all = || vec![row("a", 1), row("b", 2), row("c", 3), row("d", 4)];
        let mut question = Question {
            filters: vec![Where::parse("count>1").unwrap()],
            limit: Some(2),
            ..Question::default()
        };
        let first = Page::of(&question, COLUMNS).unwrap().answer(all());
        assert_eq!(first.rows, vec![row("b", 2), row("c", 3)]);
        question.cursor = first.cursor;
        let second = Page::of(&question, COLUMNS).unwrap().answer(all());
        assert_eq!((second.rows, second.cursor), (vec![row("d", 4)], None));

        question.filters = vec![Where::parse("stage=won").unwrap()];
        let refused = Page::of(&question, COLUMNS).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "there is no column \"stage\"; there are: name, count"
        );
    }
}
