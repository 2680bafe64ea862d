//! Read stores: the tables of read models in PostgreSQL or in a SQLite file.
//!
//! What is in them is derived: checkpoint and rows change in one transaction, so losing the end, or all of it, costs a replay
//! and nothing else.

mod generations;
pub(crate) mod postgres;
mod public;
pub(crate) mod sql;
pub(crate) mod sqlite;
pub(crate) mod statements;
mod together;

use projections::Value;
use services::states::StateError;
use services::views::ViewError;

pub use postgres::{CONNECTIONS_MAX, INDEXES_MAX, INDEXING_MAX, KEYED_CONNECTIONS_MAX, PostgresViews};
pub use sqlite::{READERS, SqliteViews};
pub use statements::STATEMENTS_KEPT;
pub use together::SMALL_ROWS_MAX;

/// Why the database did not do it, before a port gives it a name.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It may work later.
    Unavailable(String),
    /// It will not work like this.
    Refused(String),
    /// The database is damaged, or is none.
    Damaged(String),
    /// What was asked for has more bytes than it may have.
    TooLarge(usize),
    /// A row has a key that this table has already.
    Collides { table: String, why: String },
    /// Rows were to be merged by a key that the table does not have.
    HasNoKey(String),
}

impl From<Failure> for ViewError {
    fn from(failure: Failure) -> ViewError {
        match failure {
            Failure::Unavailable(why) => ViewError::Unavailable(why),
            Failure::TooLarge(bytes_max) => ViewError::TooLarge(bytes_max),
            Failure::Refused(why) | Failure::Damaged(why) | Failure::Collides { why, .. } | Failure::HasNoKey(why) => {
                ViewError::Refused(why)
            }
        }
    }
}

impl From<Failure> for StateError {
    fn from(failure: Failure) -> StateError {
        match failure {
            Failure::Unavailable(why)
            | Failure::Refused(why)
            | Failure::Damaged(why)
            | Failure::Collides { why, .. }
            | Failure::HasNoKey(why) => StateError::Unavailable(why),
            Failure::TooLarge(bytes_max) => StateError::Unavailable(format!("more than {bytes_max} bytes")),
        }
    }
}

/// A sentence about a request that no store can serve.
impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure::Refused(why)
    }
}

/// The rows of an answer while they come, up to their bytes.
pub(crate) struct Gathered {
    rows: Vec<Vec<Value>>,
    bytes: usize,
    bytes_max: usize,
}

impl Gathered {
    pub(crate) fn up_to(bytes_max: usize) -> Gathered {
        Gathered {
            rows: vec![],
            bytes: 0,
            bytes_max,
        }
    }

    /// # Errors
    /// [`Failure::TooLarge`] when there are more bytes than they may have.
    pub(crate) fn add(&mut self, row: Vec<Value>) -> Result<(), Failure> {
        self.bytes += row.iter().map(Value::bytes).sum::<usize>();
        if self.bytes > self.bytes_max {
            return Err(Failure::TooLarge(self.bytes_max));
        }
        self.rows.push(row);
        Ok(())
    }

    pub(crate) fn all(self) -> Vec<Vec<Value>> {
        self.rows
    }
}
