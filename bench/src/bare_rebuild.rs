//! The bare bound of a rebuild: decode and fold on all cores, COPY the rows, then make the indexes. No checkpoints, no look-ups (a row that is
//! not in memory is not there), no judge, nothing that a crash could be resumed from.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use domain::Position;
use projections::{Event, Group, Rows, Table, TableChange, Value};
use services::log::{Envelope, EventLog, Meaning};
use services::shard::read_creation;
use tokio_postgres::Client;
use tokio_postgres::binary_copy::BinaryCopyInWriter;

use crate::bare_upsert::{SESSION, cell, columns, quoted, rows_of, type_name};
use crate::places;

const READ_RECORDS_MAX: usize = 5_000;
const READ_WAIT: Duration = Duration::from_secs(10);
/// Events after which the journal's rows are copied, for they are never looked at again.
const JOURNAL_EVENTS: usize = 20_000;

/// Rebuilds all groups; `schemas` have the tables to be copied, empty. Answers how many events were folded.
pub async fn rebuild(
    log: &Arc<dyn EventLog>,
    shards: u16,
    url: &str,
    schemas: &[(Group, String)],
) -> anyhow::Result<u64> {
    let setup = places::connect(url).await?;
    for (group, schema) in schemas {
        for table in group.tables() {
            let name = quoted(table.name);
            setup
                .batch_execute(&format!("CREATE TABLE public.{name} (LIKE {schema}.{name})"))
                .await?;
        }
    }
    let cores = std::thread::available_parallelism()?.get();
    let next = Arc::new(AtomicU16::new(0));
    let groups: Arc<Vec<Group>> = Arc::new(schemas.iter().map(|(group, _)| *group).collect());
    let workers: Vec<_> = (0..cores)
        .map(|_| {
            let (log, next, groups, url) = (Arc::clone(log), Arc::clone(&next), Arc::clone(&groups), url.to_owned());
            tokio::spawn(async move {
                let client = places::connect(&url).await?;
                client.batch_execute(SESSION).await?;
                let mut events = 0;
                loop {
                    let shard = next.fetch_add(1, Ordering::Relaxed);
                    if shard >= shards {
                        return anyhow::Ok(events);
                    }
                    events += fold(log.as_ref(), shard, shards, &groups, &client).await?;
                }
            })
        })
        .collect();
    let mut events = 0;
    for worker in workers {
        events += worker.await??;
    }
    index(&setup, url, schemas, cores).await?;
    Ok(events)
}

async fn fold(log: &dyn EventLog, shard: u16, shards: u16, groups: &[Group], client: &Client) -> anyhow::Result<u64> {
    let mut folds: Vec<(Group, Rows)> = groups.iter().map(|group| (*group, Rows::new(shards))).collect();
    let (end, mut offset, mut events, mut in_journal) = (log.end(shard).await?, 0, 0, 0);
    let calendar = read_creation(log, shard).await?.calendar;
    let mut reader = log.reader(shard, 0).await?;
    while offset < end {
        let batch = reader.next(READ_RECORDS_MAX, READ_WAIT).await?;
        ensure!(!batch.is_empty(), "no records came");
        for (at, record) in batch {
            offset = at + 1;
            let position = Position { shard, offset: at };
            let Meaning::Event(stored) = Envelope::parse(&record, position)?.meaning else {
                continue;
            };
            let event = stored.decode(&calendar)?;
            folds.iter_mut().for_each(|(group, rows)| project(*group, &event, rows));
            events += 1;
            in_journal += 1;
        }
        if in_journal >= JOURNAL_EVENTS {
            in_journal = 0;
            for (group, rows) in &mut folds {
                if *group == Group::Journal {
                    let copied = std::mem::replace(rows, Rows::new(shards)).into_changes();
                    copy_all(client, &copied, shard).await?;
                }
            }
        }
        tokio::task::yield_now().await;
    }
    for (_, rows) in folds {
        copy_all(client, &rows.into_changes(), shard).await?;
    }
    Ok(events)
}

fn project(group: Group, event: &Event, rows: &mut Rows) {
    rows.at(event.position);
    for model in group.models() {
        if model.streams.is_empty() || model.streams.contains(&event.stream.kind) {
            (model.project)(event, rows);
        }
    }
}

async fn copy_all(client: &Client, changes: &[TableChange], shard: u16) -> anyhow::Result<()> {
    for change in changes {
        copy(client, change.table, rows_of(change, shard)).await?;
    }
    Ok(())
}

async fn copy(client: &Client, table: &'static Table, rows: Vec<Vec<Value>>) -> anyhow::Result<()> {
    let columns = columns(table);
    let names: Vec<String> = columns.iter().map(|column| quoted(column.name)).collect();
    let statement = format!(
        "COPY public.{} ({}) FROM STDIN (FORMAT binary)",
        quoted(table.name),
        names.join(", ")
    );
    let types: Vec<_> = columns.iter().map(|column| type_name(column.ty)).collect();
    let mut writer = pin!(BinaryCopyInWriter::new(client.copy_in(&statement).await?, &types));
    for row in rows {
        let cells: Vec<_> = columns
            .iter()
            .zip(row)
            .map(|(column, value)| cell(column.ty, value))
            .collect();
        writer.as_mut().write_raw(cells).await?;
    }
    writer.finish().await?;
    Ok(())
}

/// Makes the keys and indexes that the tables of the schemas have, on all cores.
async fn index(setup: &Client, url: &str, schemas: &[(Group, String)], cores: usize) -> anyhow::Result<()> {
    let mut statements = vec![];
    for (_, schema) in schemas {
        let rows = setup
            .query("SELECT indexdef FROM pg_indexes WHERE schemaname = $1", &[schema])
            .await?;
        for row in rows {
            let definition: String = row.get(0);
            let (head, tail) = definition.split_once(" ON ").context("an index stands on a table")?;
            let tail = tail
                .strip_prefix(&format!("{schema}."))
                .context("the table has its schema")?;
            statements.push(format!("{head} ON public.{tail}"));
        }
    }
    let statements = Arc::new(std::sync::Mutex::new(statements));
    let workers: Vec<_> = (0..cores)
        .map(|_| {
            let (statements, url) = (Arc::clone(&statements), url.to_owned());
            tokio::spawn(async move {
                let client = places::connect(&url).await?;
                client.batch_execute(SESSION).await?;
                loop {
                    let Some(statement) = statements.lock().expect("no panic under the lock").pop() else {
                        return anyhow::Ok(());
                    };
                    client.batch_execute(&statement).await?;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    Ok(())
}
