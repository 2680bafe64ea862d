//! The bare limit of a projector: the rows it wrote, in the transactions it wrote them in, and nothing else. The statements are one
//! `INSERT … SELECT FROM unnest(…) ON CONFLICT` a table, and one for the checkpoint; the arrays are made before the clock starts.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use projections::{Column, ColumnRole, ColumnType, Table, TableChange, TableKind, Value};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Statement};

use crate::places;
use crate::recording::RecordedCommit;

/// What every connection of the core's views asks for too: views are derived.
pub const SESSION: &str = "SET synchronous_commit = off; SET jit = off";

/// The transactions of one shard, with their arrays.
pub struct Transactions {
    shard: u16,
    transactions: Vec<Prepared>,
}

struct Prepared {
    next: i64,
    tables: Vec<(&'static Table, Vec<Box<dyn ToSql + Sync + Send>>)>,
}

impl Transactions {
    /// Per shard, in order.
    pub fn of(commits: &[RecordedCommit]) -> Vec<Transactions> {
        let mut shards: BTreeMap<u16, Vec<Prepared>> = BTreeMap::new();
        for commit in commits {
            let tables = commit
                .changes
                .iter()
                .map(|change| (change.table, arrays(change, commit.shard)))
                .collect();
            shards.entry(commit.shard).or_default().push(Prepared {
                next: commit.next.cast_signed(),
                tables,
            });
        }
        shards
            .into_iter()
            .map(|(shard, transactions)| Transactions { shard, transactions })
            .collect()
    }

    /// The tables they write to.
    pub fn tables(&self) -> impl Iterator<Item = &'static Table> {
        self.transactions
            .iter()
            .flat_map(|transaction| transaction.tables.iter().map(|(table, _)| *table))
    }

    /// Writes them, one after the other.
    pub async fn write(&self, connection: &mut Connection) -> anyhow::Result<()> {
        for prepared in &self.transactions {
            let transaction = connection.client.transaction().await?;
            let shard = i64::from(self.shard);
            transaction
                .execute(&connection.checkpoint, &[&shard, &prepared.next])
                .await?;
            for (table, arrays) in &prepared.tables {
                let statement = connection
                    .upserts
                    .get(table.name)
                    .context("each table has its statement")?;
                let arrays: Vec<&(dyn ToSql + Sync)> =
                    arrays.iter().map(|array| &**array as &(dyn ToSql + Sync)).collect();
                transaction.execute(statement, &arrays).await?;
            }
            transaction.commit().await?;
        }
        Ok(())
    }
}

/// A connection with its statements prepared.
pub struct Connection {
    client: Client,
    checkpoint: Statement,
    upserts: BTreeMap<&'static str, Statement>,
}

impl Connection {
    /// `tables` must be there: see [`create`].
    pub async fn open(url: &str, tables: &[&'static Table]) -> anyhow::Result<Connection> {
        let client = places::connect(url).await?;
        client.batch_execute(SESSION).await?;
        let checkpoint = "INSERT INTO public.bare_checkpoints (shard, next) VALUES ($1, $2) \
             ON CONFLICT (shard) DO UPDATE SET next = excluded.next";
        let checkpoint = client.prepare(checkpoint).await?;
        let mut upserts = BTreeMap::new();
        for table in tables {
            upserts.insert(table.name, client.prepare(&upsert(table)).await?);
        }
        Ok(Connection {
            client,
            checkpoint,
            upserts,
        })
    }
}

/// Makes the tables in the schema `public` (the user's own schema holds the core's views): a copy of those that the core made in `schema`, keys and indexes included.
pub async fn create(url: &str, tables: &[(&'static Table, String)]) -> anyhow::Result<()> {
    let client = places::connect(url).await?;
    client
        .batch_execute("CREATE TABLE public.bare_checkpoints (shard bigint PRIMARY KEY, next bigint NOT NULL)")
        .await?;
    for (table, like) in tables {
        let statement = format!("CREATE TABLE public.{} (LIKE {like} INCLUDING ALL)", quoted(table.name));
        client.batch_execute(&statement).await?;
    }
    Ok(())
}

/// Rows of a table.
pub async fn count(url: &str, name: &str) -> anyhow::Result<i64> {
    let client = places::connect(url).await?;
    let row = client.query_one(&format!("SELECT count(*) FROM {name}"), &[]).await?;
    Ok(row.get(0))
}

pub fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// All columns as they are stored: of a journal, where the event stands comes first; of a rollup, the shard last.
pub fn columns(table: &Table) -> Vec<Column> {
    let own = table.columns.iter().copied();
    match table.kind {
        TableKind::Entity => own.collect(),
        TableKind::Rollup => own.chain([Table::JOURNAL_KEY[0]]).collect(),
        TableKind::Journal => Table::JOURNAL_KEY.iter().copied().chain(own).collect(),
    }
}

fn upsert(table: &Table) -> String {
    let columns = columns(table);
    let names: Vec<String> = columns.iter().map(|column| quoted(column.name)).collect();
    let arrays: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(i, column)| format!("${}::{}[]", i + 1, type_name(column.ty)))
        .collect();
    let insert = format!(
        "INSERT INTO public.{} AS t ({}) SELECT * FROM unnest({})",
        quoted(table.name),
        names.join(", "),
        arrays.join(", ")
    );
    let mut key: Vec<String> = table.key_columns().iter().map(|column| quoted(column.name)).collect();
    match table.kind {
        TableKind::Journal => return insert,
        TableKind::Rollup => key.push("shard".into()),
        TableKind::Entity => {}
    }
    let sets: Vec<String> = table.columns[table.key_len()..]
        .iter()
        .map(|column| set(table, column))
        .collect();
    let action = match sets.is_empty() {
        true => "NOTHING".to_owned(),
        false => format!("UPDATE SET {}", sets.join(", ")),
    };
    format!("{insert} ON CONFLICT ({}) DO {action}", key.join(", "))
}

fn set(table: &Table, column: &Column) -> String {
    let name = quoted(column.name);
    let merged = match (table.kind, column.role) {
        (TableKind::Rollup, ColumnRole::Sum) => format!("COALESCE(t.{name}, 0) + COALESCE(excluded.{name}, 0)"),
        (TableKind::Rollup, ColumnRole::Min) => format!("LEAST(t.{name}, excluded.{name})"),
        (TableKind::Rollup, ColumnRole::Max) => format!("GREATEST(t.{name}, excluded.{name})"),
        _ => format!("excluded.{name}"),
    };
    format!("{name} = {merged}")
}

pub fn type_name(ty: ColumnType) -> Type {
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

/// One array per stored column.
fn arrays(change: &TableChange, shard: u16) -> Vec<Box<dyn ToSql + Sync + Send>> {
    let rows = rows_of(change, shard);
    columns(change.table)
        .iter()
        .enumerate()
        .map(|(i, column)| array(column.ty, rows.iter().map(|row| row[i].clone()).collect()))
        .collect()
}

/// The rows of a change as they are stored.
pub fn rows_of(change: &TableChange, shard: u16) -> Vec<Vec<Value>> {
    let shard = Value::Int(i64::from(shard));
    let mut rows: Vec<Vec<Value>> = [change.upserts.as_slice(), &change.inserts].concat();
    rows.extend(change.deltas.iter().map(|row| {
        let mut row = row.clone();
        row.push(shard.clone());
        row
    }));
    rows.extend(change.appends.iter().map(|(offset, number, row)| {
        let mut whole = vec![shard.clone(), Value::Int(offset.cast_signed()), Value::Int(*number)];
        whole.extend(row.iter().cloned());
        whole
    }));
    rows
}

/// One value as the driver takes it.
pub fn cell(ty: ColumnType, value: Value) -> Box<dyn ToSql + Sync + Send> {
    match value {
        Value::Null => null(ty),
        Value::Uuid(inner) => Box::new(inner),
        Value::Text(inner) => Box::new(inner),
        Value::Int(inner) => Box::new(inner),
        Value::Bool(inner) => Box::new(inner),
        Value::Date(inner) => Box::new(inner),
        Value::Time(inner) => Box::new(inner),
        Value::Json(text) => Box::new(serde_json::from_str::<serde_json::Value>(&text).ok()),
    }
}

fn null(ty: ColumnType) -> Box<dyn ToSql + Sync + Send> {
    match ty {
        ColumnType::Uuid => Box::new(None::<uuid::Uuid>),
        ColumnType::Text => Box::new(None::<String>),
        ColumnType::Int => Box::new(None::<i64>),
        ColumnType::Bool => Box::new(None::<bool>),
        ColumnType::Date => Box::new(None::<jiff::civil::Date>),
        ColumnType::Time => Box::new(None::<jiff::Timestamp>),
        ColumnType::Json => Box::new(None::<serde_json::Value>),
    }
}

fn array(ty: ColumnType, values: Vec<Value>) -> Box<dyn ToSql + Sync + Send> {
    macro_rules! array {
        ($variant:ident) => {
            Box::new(
                values
                    .into_iter()
                    .map(|value| match value {
                        Value::$variant(inner) => Some(inner),
                        _ => None,
                    })
                    .collect::<Vec<_>>(),
            )
        };
    }
    match ty {
        ColumnType::Uuid => array!(Uuid),
        ColumnType::Text => array!(Text),
        ColumnType::Int => array!(Int),
        ColumnType::Bool => array!(Bool),
        ColumnType::Date => array!(Date),
        ColumnType::Time => array!(Time),
        ColumnType::Json => {
            let json = values.into_iter().map(|value| match value {
                Value::Json(text) => serde_json::from_str::<serde_json::Value>(&text).ok(),
                _ => None,
            });
            Box::new(json.collect::<Vec<_>>())
        }
    }
}

/// # Errors
/// When a commit removed rows: the bare upsert would not do the same work.
pub fn only_upserts(commits: &[RecordedCommit]) -> anyhow::Result<()> {
    let removes = commits
        .iter()
        .flat_map(|commit| &commit.changes)
        .any(|change| !change.removes.is_empty());
    ensure!(!removes, "the history removes rows, which the bare upsert does not do");
    Ok(())
}
