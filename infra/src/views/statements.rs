//! How a program talks with PostgreSQL: statements with their parameters, rows and values there and back, and what a
//! failure means.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use deadpool_postgres::tokio_postgres::binary_copy::BinaryCopyInWriter;
use deadpool_postgres::tokio_postgres::error::SqlState;
use deadpool_postgres::tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use deadpool_postgres::tokio_postgres::{self, Row, Statement};
use deadpool_postgres::{Client, GenericClient, Object, Pool, PoolError, Transaction};
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use projections::{ColumnType, Key, Value};

use super::Failure;
use super::sql::{self, Stored, StoredRow};
use crate::postgres;

/// How long we wait for a whole transaction. Later than the server gives up a statement, for a server that is silent.
const ANSWER_MAX: Duration = Duration::from_secs(65);
/// Statements that a connection keeps prepared. Then it begins anew: there are many different questions, and each rebuild brings other tables.
pub const STATEMENTS_KEPT: usize = 512;

/// What a batch did to a table.
pub(super) struct Changed<'a> {
    pub stored: Arc<Stored>,
    pub older: Vec<StoredRow<'a>>,
    pub new: Vec<StoredRow<'a>>,
    pub removes: &'a [Key],
}

pub(super) async fn connection(pool: &Pool) -> Result<Client, Failure> {
    let client = pool.get().await.map_err(|error| match error {
        PoolError::Backend(error) => Failure::from(error),
        other => Failure::Unavailable(other.to_string()),
    })?;
    if client.statement_cache.size() >= STATEMENTS_KEPT {
        client.statement_cache.clear();
    }
    Ok(client)
}

/// A statement whose parameters are values, none of them null.
pub(crate) async fn execute(
    transaction: &Transaction<'_>,
    statement: &str,
    parameters: &[Value],
) -> Result<u64, Failure> {
    let write = Write::new(transaction, statement, values_of(parameters)).await?;
    Ok(write.run(transaction).await?)
}

/// What a statement of one's own answers, in columns of these types.
pub(crate) async fn query(
    client: &Client,
    statement: &str,
    parameters: &[Value],
    types: &[ColumnType],
) -> Result<Vec<Vec<Value>>, Failure> {
    let statement = client.prepare_cached(statement).await?;
    let rows = client.query_raw(&statement, values_of(parameters)).await?;
    let rows = rows.map(|row| Ok(values(&row?, types)?));
    rows.try_collect().await
}

/// Finds entity rows by their keys. Made before the questions are asked, so that several can be sent at once: they cost one round trip, and the
/// server answers them in the order in which they were sent.
pub(crate) struct Finder {
    statement: Statement,
    columns: Vec<ColumnType>,
}

impl Finder {
    pub(crate) async fn new(client: &impl GenericClient, stored: &Stored) -> Result<Finder, Failure> {
        Ok(Finder {
            statement: client.prepare_cached(stored.load()).await?,
            columns: stored.table.columns.iter().map(|column| column.ty).collect(),
        })
    }

    /// The rows under these keys, all columns.
    pub(crate) async fn find(&self, client: &impl GenericClient, keys: &[Key]) -> Result<Vec<Vec<Value>>, Failure> {
        if keys.is_empty() {
            return Ok(vec![]);
        }
        let wanted = arrays(keys);
        let wanted: Vec<&(dyn ToSql + Sync)> = wanted.iter().map(|array| &**array as &(dyn ToSql + Sync)).collect();
        let rows = client.query(&self.statement, &wanted).await?;
        let rows = rows.iter().map(|row| Ok(values(row, &self.columns)?));
        rows.collect()
    }
}

/// A statement that changes rows, prepared, with its parameters.
pub(crate) struct Write<'a> {
    statement: Statement,
    parameters: Vec<Parameter<'a>>,
}

impl<'a> Write<'a> {
    pub(crate) async fn new(
        transaction: &Transaction<'_>,
        statement: &str,
        parameters: Vec<Parameter<'a>>,
    ) -> Result<Write<'a>, Failure> {
        let statement = transaction.prepare_cached(statement).await?;
        Ok(Write { statement, parameters })
    }

    pub(super) async fn run(self, transaction: &Transaction<'_>) -> Result<u64, tokio_postgres::Error> {
        transaction.execute_raw(&self.statement, self.parameters).await
    }
}

/// Sends all at once, `first` before the others: one round trip. `false` when `first` changed nothing; then the others count for nothing,
/// whatever became of them, and the transaction is to be rolled back.
pub(crate) async fn send(
    transaction: &Transaction<'_>,
    first: Write<'_>,
    others: Vec<Write<'_>>,
) -> Result<bool, Failure> {
    let others = join_all(others.into_iter().map(|write| write.run(transaction)));
    let (first, others) = tokio::join!(biased; first.run(transaction), others);
    if first? == 0 {
        return Ok(false);
    }
    for other in others {
        other?;
    }
    Ok(true)
}

/// Writes rows of all stored columns in one statement; `None` when there are none.
pub(crate) async fn put<'a, Cell: AsValue>(
    transaction: &Transaction<'_>,
    stored: &Stored,
    rows: &'a [Vec<Cell>],
) -> Result<Option<Write<'a>>, Failure> {
    if rows.is_empty() {
        return Ok(None);
    }
    let parameters = arrays(rows);
    Ok(Some(Write::new(transaction, stored.upsert(), parameters).await?))
}

pub(super) async fn delete<'a>(
    transaction: &Transaction<'_>,
    stored: &Stored,
    keys: &'a [Key],
) -> Result<Option<Write<'a>>, Failure> {
    if keys.is_empty() {
        return Ok(None);
    }
    let parameters = arrays(keys);
    Ok(Some(Write::new(transaction, stored.delete(), parameters).await?))
}

pub(super) async fn copy(
    transaction: &Transaction<'_>,
    stored: &Stored,
    rows: &[StoredRow<'_>],
) -> Result<(), Failure> {
    let statement = transaction.prepare_cached(&stored.copy()).await?;
    let sink = transaction.copy_in(&statement).await?;
    let columns = stored.columns();
    let types: Vec<Type> = columns.iter().map(|column| type_of(column.ty)).collect();
    let mut writer = std::pin::pin!(BinaryCopyInWriter::new(sink, &types));
    for row in rows {
        let cells: Vec<Sent<'_>> = row.iter().map(|value| Sent(value)).collect();
        writer.as_mut().write_raw(cells).await?;
    }
    writer.as_mut().finish().await?;
    Ok(())
}

/// Bounds what is asked of a server that may be silent.
pub(crate) async fn bounded<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER_MAX, work).await {
        Ok(result) => result,
        Err(_) => Err(Failure::Unavailable(format!(
            "no answer within {} s",
            ANSWER_MAX.as_secs()
        ))),
    }
}

/// Gives the connection back; or away, when it may be broken, or the rest of an answer would still come through it.
pub(crate) fn settle<T>(client: Client, result: Result<T, Failure>) -> Result<T, Failure> {
    if let Err(Failure::Unavailable(_) | Failure::TooLarge(_)) = result {
        drop(Object::take(client));
    }
    result
}

pub(crate) type Parameter<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// Parameters of a statement.
pub(crate) fn values_of(values: &[Value]) -> Vec<Parameter<'_>> {
    values
        .iter()
        .map(|value| Box::new(Sent(value)) as Parameter<'_>)
        .collect()
}

/// One array per column of the rows.
pub(super) fn arrays<Cell: AsValue>(rows: &[Vec<Cell>]) -> Vec<Parameter<'_>> {
    let array = |column: usize| -> Parameter<'_> {
        let cells = rows.iter().map(|row| Sent(row[column].as_value()));
        Box::new(cells.collect::<Vec<_>>())
    };
    let columns = rows.first().map_or(0, Vec::len);
    (0..columns).map(array).collect()
}

/// A cell of a row, owned or borrowed.
pub(crate) trait AsValue: Sync {
    fn as_value(&self) -> &Value;
}

impl AsValue for Value {
    fn as_value(&self) -> &Value {
        self
    }
}

impl AsValue for Cow<'_, Value> {
    fn as_value(&self) -> &Value {
        self
    }
}

/// A value on its way to the server. It has been checked to be of its column's type, or null.
#[derive(Debug)]
pub(super) struct Sent<'a>(pub &'a Value);

impl ToSql for Sent<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self.0 {
            Value::Null => Ok(IsNull::Yes),
            Value::Uuid(uuid) => uuid.to_sql(ty, out),
            Value::Text(text) => text.to_sql(ty, out),
            Value::Int(int) => int.to_sql(ty, out),
            Value::Bool(bool) => bool.to_sql(ty, out),
            Value::Date(date) => date.to_sql(ty, out),
            // In whole microseconds: the driver would round up, past the last second there is.
            Value::Time(time) => sql::time_at(time.as_microsecond()).to_sql(ty, out),
            Value::Json(text) => {
                // The version of the binary form, and the text as it is.
                out.extend_from_slice(&[1]);
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

pub(super) fn type_of(ty: ColumnType) -> Type {
    match ty {
        ColumnType::Uuid => Type::UUID,
        ColumnType::Text => Type::TEXT,
        ColumnType::Int => Type::INT8,
        ColumnType::Bool => Type::BOOL,
        ColumnType::Date => Type::DATE,
        ColumnType::Time => Type::TIMESTAMPTZ,
        ColumnType::Json => Type::JSONB,
    }
}

pub(super) fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub(super) fn values(row: &Row, types: &[ColumnType]) -> Result<Vec<Value>, tokio_postgres::Error> {
    let cells = types.iter().enumerate();
    cells.map(|(i, ty)| value(row, i, *ty)).collect()
}

fn value(row: &Row, i: usize, ty: ColumnType) -> Result<Value, tokio_postgres::Error> {
    let value = match ty {
        ColumnType::Uuid => row.try_get::<_, Option<_>>(i)?.map(Value::Uuid),
        ColumnType::Text => row.try_get::<_, Option<_>>(i)?.map(Value::Text),
        ColumnType::Int => row.try_get::<_, Option<_>>(i)?.map(Value::Int),
        ColumnType::Bool => row.try_get::<_, Option<_>>(i)?.map(Value::Bool),
        ColumnType::Date => row.try_get::<_, Option<_>>(i)?.map(Value::Date),
        ColumnType::Time => row.try_get::<_, Option<_>>(i)?.map(Value::Time),
        ColumnType::Json => {
            let tree: Option<serde_json::Value> = row.try_get(i)?;
            tree.map(|tree| Value::Json(tree.to_string()))
        }
    };
    Ok(value.unwrap_or(Value::Null))
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Failure {
        let message = postgres::words(&error);
        if let Some(refusal) = error.as_db_error() {
            return match (refusal.code(), refusal.table()) {
                (code, _) if may_work_later(code) => Failure::Unavailable(message),
                (&SqlState::UNIQUE_VIOLATION, Some(table)) => Failure::Collides {
                    table: table.to_owned(),
                    why: message,
                },
                (&SqlState::INVALID_COLUMN_REFERENCE, _) => Failure::HasNoKey(message),
                _ => Failure::Refused(message),
            };
        }
        let cause = std::error::Error::source(&error);
        let is_connection_lost = error.is_closed() || cause.is_some_and(|cause| cause.is::<std::io::Error>());
        match is_connection_lost {
            true => Failure::Unavailable(message),
            false => Failure::Refused(message),
        }
    }
}

/// The server, not the statement, was the reason: shutdown, start, no room, a lock or time-out.
fn may_work_later(code: &SqlState) -> bool {
    let classes = ["08", "53", "57", "58"];
    let others = [
        &SqlState::T_R_SERIALIZATION_FAILURE,
        &SqlState::T_R_DEADLOCK_DETECTED,
        &SqlState::LOCK_NOT_AVAILABLE,
        &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ];
    classes.iter().any(|class| code.code().starts_with(class)) || others.contains(&code)
}
