//! Read models in PostgreSQL: the schema `crm` has the registry and the public views, a schema per generation its tables.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::tokio_postgres::types::{ToSql, Type};
use deadpool_postgres::tokio_postgres::{self, IsolationLevel, Row, Statement};
use deadpool_postgres::{Client, GenericClient, Pool, Transaction};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};
use projections::{ColumnType, Group, Key, Select, Table, TableChange, TableKind, Value};
use services::log::Checkpoint;
use services::views::{Generation, GenerationStatus, ReadStore, Snapshot, ViewError};

use super::generations::{self, Creation, Entry};
use super::public;
use super::sql::{self, Dialect, Rendered, Stored, StoredTables};
use super::statements::{
    Changed, Finder, Sent, Write, bounded, connection, copy, delete, execute, put, send, settle, text, type_of, values,
    values_of,
};
use super::together::{Outcome, Part, Together};
use super::{Failure, Gathered};
use crate::postgres::{self, Probe};
use crate::states;

/// Connections of one process for people's questions; each is used for moments.
pub const CONNECTIONS_MAX: usize = 8;
/// Those for what shards and projectors find and change by key.
pub const KEYED_CONNECTIONS_MAX: usize = 12;
/// From then on a connection may have been lost unnoticed.
const IDLE: Duration = Duration::from_secs(1);
/// Tables that get their indexes at the same time.
pub const INDEXING_MAX: usize = 3;
/// How long the indexes of a table may take.
pub const INDEXES_MAX: Duration = Duration::from_secs(6 * 60 * 60);
/// From so many rows on, a journal is written by COPY.
const COPY_FROM: usize = 100;

/// What every connection asks of the server. Views and states are derived and carry their checkpoints, so a crash may take the last
/// moments of them; where it may not, a transaction says so.
const SESSION: &str = "-c search_path=crm -c statement_timeout=60000 -c idle_in_transaction_session_timeout=10000 \
     -c synchronous_commit=off -c jit=off";
/// What the connections ask for that find and change rows by key. Each statement has one good plan, by the key, and it must not depend on how
/// few rows the server believes a young table to have: while it reads them all, they become many.
const KEYED: &str = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_bitmapscan=off \
     -c enable_hashjoin=off -c enable_mergejoin=off";
pub(crate) const DURABLE: &str = "SET LOCAL synchronous_commit = on";
/// The swap of views waits for readers, and they for it: not for long.
const SHORT_LOCKS: &str = "SET LOCAL lock_timeout = '5s'";

/// The read store and state store in a PostgreSQL database. Connections are made anew when the server was away.
pub struct PostgresViews {
    pool: Pool,
    keyed: Pool,
    address: String,
    tables: StoredTables,
    together: Together,
}

impl PostgresViews {
    /// Connects to `postgres://user:password@host:port/database` and makes the schema `crm` when it is not there.
    ///
    /// # Errors
    /// When the URL is none, the server cannot be reached, or the user may not create schemas.
    pub async fn connect(url: &str) -> Result<PostgresViews, ViewError> {
        let store = PostgresViews::at(url)?;
        store.set_up().await?;
        Ok(store)
    }

    /// The same to read only: nothing is made, and the right to read is enough.
    ///
    /// # Errors
    /// When the URL is none, the server cannot be reached, or there are no read models.
    pub async fn connect_to_read(url: &str) -> Result<PostgresViews, ViewError> {
        let store = PostgresViews::at(url)?;
        let client = store.client().await?;
        let registry = "SELECT to_regclass('crm.read_generations') IS NOT NULL";
        let found = bounded(async { Ok(client.query_typed(registry, &[]).await?) }).await;
        let is_there = settle(client, found)?.first().is_some_and(|row| row.get(0));
        match is_there {
            true => Ok(store),
            false => Err(ViewError::Unavailable(format!(
                "there are no read models at {} yet; `crm serve` or `crm rebuild` makes them",
                store.address
            ))),
        }
    }

    fn at(url: &str) -> Result<PostgresViews, ViewError> {
        let mut config = postgres::configure(url).map_err(ViewError::Refused)?;
        let options = match config.get_options() {
            None => SESSION.to_owned(),
            Some(own) => format!("{SESSION} {own}"),
        };
        let address = postgres::address(&config);
        let mut keyed = config.clone();
        keyed.options(format!("{options} {KEYED}"));
        config.options(options);
        Ok(PostgresViews {
            pool: postgres::pool(config, CONNECTIONS_MAX, Probe::AfterIdle(IDLE)),
            keyed: postgres::pool(keyed, KEYED_CONNECTIONS_MAX, Probe::AfterIdle(IDLE)),
            address,
            tables: StoredTables::new(Dialect::Postgres),
            together: Together::default(),
        })
    }

    async fn set_up(&self) -> Result<(), Failure> {
        let mut client = self.client().await?;
        let done = bounded(async {
            let transaction = client.transaction().await?;
            lock(&transaction, "registry").await?;
            transaction.batch_execute("CREATE SCHEMA IF NOT EXISTS crm").await?;
            transaction
                .batch_execute(&sql::create_registry(Dialect::Postgres))
                .await?;
            transaction
                .batch_execute(&states::create_tables(Dialect::Postgres))
                .await?;
            Ok(transaction.commit().await?)
        });
        let done = done.await;
        settle(client, done)
    }

    /// What [`create`](ReadStore::create) does, for the tables of somebody else: suites bring their own.
    ///
    /// # Errors
    /// As `create`.
    pub async fn create_with(
        &self,
        group: Group,
        definition: &str,
        tables: &[&'static Table],
        shards: u16,
    ) -> Result<Generation, ViewError> {
        let mut client = self.client().await?;
        let created = bounded(async {
            let transaction = client.transaction().await?;
            let generation = create(&transaction, group, definition, tables, shards).await?;
            transaction.commit().await?;
            Ok(generation)
        });
        let created = created.await;
        let generation = settle(client, created)?;
        self.drop_leftovers(group).await;
        Ok(generation)
    }

    /// What [`make_indexes`](ReadStore::make_indexes) does, for the tables of somebody else.
    ///
    /// # Errors
    /// As `make_indexes`.
    pub async fn make_indexes_of(&self, generation: &Generation, tables: &[&'static Table]) -> Result<(), ViewError> {
        let tables = tables.iter().map(|table| self.tables.get(generation, table));
        let tables: Vec<Arc<Stored>> = tables.collect();
        let each = tables.into_iter().map(|stored| async move {
            let mut client = self.client().await?;
            let made = make_indexes(&mut client, &stored).await;
            settle(client, made)?;
            stored.is_appended.store(false, Ordering::Relaxed);
            Ok::<(), Failure>(())
        });
        let made = futures::stream::iter(each).buffer_unordered(INDEXING_MAX);
        Ok(made.try_for_each(|()| async { Ok(()) }).await?)
    }

    /// Drops the tables of generations that are not in the registry any more. They wait for whoever still reads them, and so are
    /// dropped by themselves; what cannot be dropped now is dropped the next time.
    async fn drop_leftovers(&self, group: Group) {
        if let Err(failure) = self.try_drop_leftovers(group).await {
            let why = ViewError::from(failure);
            tracing::warn!(
                group = group.name(),
                "could not drop the tables of an old generation yet: {why}"
            );
        }
    }

    async fn try_drop_leftovers(&self, group: Group) -> Result<(), Failure> {
        let client = self.client().await?;
        let done = bounded(async {
            // Numbers are not used again, so a schema without an entry never gets one.
            let orphans = "SELECT n.nspname::text FROM pg_namespace n \
                 WHERE n.nspname ~ ('^crm_' || $1 || '_g[0-9]+$') AND NOT EXISTS (SELECT FROM read_generations g \
                 WHERE g.read_group = $1 AND n.nspname = 'crm_' || $1 || '_g' || g.number)";
            for row in client.query_typed(orphans, &[(&group.name(), Type::TEXT)]).await? {
                let schema = sql::quoted(row.try_get(0)?);
                let drop = format!("BEGIN; {SHORT_LOCKS}; DROP SCHEMA IF EXISTS {schema} CASCADE; COMMIT");
                if let Err(error) = client.batch_execute(&drop).await {
                    client.batch_execute("ROLLBACK").await?;
                    return Err(error.into());
                }
            }
            Ok(())
        });
        let done = done.await;
        settle(client, done)
    }

    /// Notes what keeps a generation from going live.
    async fn note_if_blocked(&self, generation: &Generation, done: Result<(), ViewError>) -> Result<(), ViewError> {
        if let Some(why) = generations::blocking(generation, &done)
            && let Err(failure) = self.note(generation, sql::NO_SHARD, &why).await
        {
            let error = ViewError::from(failure);
            tracing::warn!("why a generation cannot go live could not be noted: {error}");
        }
        done
    }

    async fn note(&self, generation: &Generation, shard: i64, why: &str) -> Result<(), Failure> {
        let mut client = self.keyed().await?;
        let noted = bounded(async {
            let transaction = client.transaction().await?;
            let (group, number) = (text(generation.group.name()), Value::Int(generation.number));
            execute(
                &transaction,
                sql::NOTE_STOP,
                &[group, number, Value::Int(shard), text(why)],
            )
            .await?;
            Ok(transaction.commit().await?)
        });
        let noted = noted.await;
        settle(client, noted)
    }

    async fn client(&self) -> Result<Client, Failure> {
        connection(&self.pool).await
    }

    /// A connection whose statements go by key, always.
    pub(crate) async fn keyed(&self) -> Result<Client, Failure> {
        connection(&self.keyed).await
    }
}

#[async_trait]
impl ReadStore for PostgresViews {
    fn address(&self) -> String {
        self.address.clone()
    }

    async fn generations(&self, group: Group) -> Result<Vec<Generation>, ViewError> {
        let client = self.client().await?;
        let found = bounded(entries(&client, group)).await;
        let entries = settle(client, found)?;
        Ok(entries.into_iter().map(|entry| entry.generation).collect())
    }

    async fn create(&self, group: Group, shards: u16) -> Result<Generation, ViewError> {
        let tables: Vec<&'static Table> = group.tables().collect();
        self.create_with(group, group.definition(), &tables, shards).await
    }

    async fn make_indexes(&self, generation: &Generation) -> Result<(), ViewError> {
        let tables: Vec<&'static Table> = generation.group.tables().collect();
        let made = self.make_indexes_of(generation, &tables).await;
        self.note_if_blocked(generation, made).await
    }

    async fn promote(&self, generation: &Generation) -> Result<(), ViewError> {
        let mut client = self.client().await?;
        let promoted = bounded(async {
            let mut transaction = client.transaction().await?;
            promote(&mut transaction, generation).await?;
            Ok(transaction.commit().await?)
        });
        let promoted = promoted.await;
        let promoted = settle(client, promoted).map_err(ViewError::from);
        self.note_if_blocked(generation, promoted).await?;
        self.drop_leftovers(generation.group).await;
        Ok(())
    }

    async fn checkpoint(&self, generation: &Generation, shard: u16) -> Result<Option<Checkpoint>, ViewError> {
        let client = self.keyed().await?;
        let found = bounded(async {
            let checkpoint = client.prepare_cached(sql::CHECKPOINT).await?;
            stands_at(&client, &checkpoint, generation, shard).await
        });
        let found = found.await;
        Ok(settle(client, found)?)
    }

    async fn load(
        &self,
        generation: &Generation,
        shard: u16,
        expected: Option<&Checkpoint>,
        table: &'static Table,
        keys: &[Key],
    ) -> Result<Vec<Vec<Value>>, ViewError> {
        let keys = sql::entity_keys(table, keys).map_err(ViewError::Refused)?;
        if keys.is_empty() {
            return Ok(vec![]);
        }
        let stored = self.tables.get(generation, table);
        let client = self.keyed().await?;
        let found = bounded(async {
            let checkpoint = client.prepare_cached(sql::CHECKPOINT).await?;
            let rows = Finder::new(&client, &stored).await?;
            // The checkpoint first, on the same connection: a crash between the two would break it.
            tokio::try_join!(
                biased;
                stands_at(&client, &checkpoint, generation, shard),
                rows.find(&client, keys),
            )
        });
        let found = found.await;
        let (checkpoint, rows) = settle(client, found)?;
        match checkpoint.as_ref() == expected {
            true => Ok(rows),
            false => Err(ViewError::Moved),
        }
    }

    async fn commit(
        &self,
        generation: &Generation,
        shard: u16,
        expected: Option<&Checkpoint>,
        next: &Checkpoint,
        changes: &[TableChange],
    ) -> Result<(), ViewError> {
        let mut batch = Vec::new();
        for change in changes {
            let stored = self.tables.get(generation, change.table);
            let (older, new) = sql::rows(change, shard).map_err(ViewError::Refused)?;
            let removes = sql::removed_keys(change).map_err(ViewError::Refused)?;
            batch.push(Changed {
                stored,
                older,
                new,
                removes,
            });
        }
        if let Some(part) = Part::small(generation, shard, expected, next, &batch) {
            match self.together.commit(&self.keyed, part).await {
                Outcome::Written => return Ok(()),
                Outcome::TryAlone => {}
                Outcome::Unavailable(why) => return Err(ViewError::Unavailable(why)),
            }
        }
        let mut client = self.keyed().await?;
        let committed = bounded(async {
            let mut ways: Vec<Way> = batch.iter().map(|changed| Way::of(&changed.stored)).collect();
            let mut tries = 2 * batch.len() + 1;
            loop {
                tries -= 1;
                let mut transaction = client.transaction().await?;
                let moved = sql::move_checkpoint(generation, shard, expected, next);
                match write(&mut transaction, generation, shard, moved, &batch, &ways).await {
                    Ok(true) => {
                        transaction.commit().await?;
                        return Ok(true);
                    }
                    Ok(false) => {
                        transaction.rollback().await?;
                        return Ok(false);
                    }
                    Err(failure) => {
                        transaction.rollback().await?;
                        if tries == 0 || !learn(&batch, &mut ways, &failure) {
                            return Err(failure);
                        }
                    }
                }
            }
        });
        let committed = committed.await;
        match settle(client, committed)? {
            true => Ok(()),
            false => Err(ViewError::Moved),
        }
    }

    async fn note_stop(&self, generation: &Generation, shard: u16, why: &str) -> Result<(), ViewError> {
        Ok(self.note(generation, i64::from(shard), why).await?)
    }

    async fn stops(&self, generation: &Generation) -> Result<Vec<(u16, String)>, ViewError> {
        let client = self.client().await?;
        let found = bounded(async {
            let statement = client.prepare_cached(sql::STOPS).await?;
            let place: [&(dyn ToSql + Sync); 2] = [&generation.group.name(), &generation.number];
            let mut stops = Vec::new();
            for row in client.query(&statement, &place).await? {
                stops.push((row.try_get::<_, i64>(0)? as u16, row.try_get(1)?));
            }
            Ok(stops)
        });
        let found = found.await;
        Ok(settle(client, found)?)
    }

    async fn blocked(&self, generation: &Generation) -> Result<Option<String>, ViewError> {
        let client = self.client().await?;
        let found = bounded(async {
            let statement = client.prepare_cached(sql::BLOCKED).await?;
            let place: [&(dyn ToSql + Sync); 3] = [&generation.group.name(), &generation.number, &sql::NO_SHARD];
            let row = client.query_opt(&statement, &place).await?;
            Ok(row.map(|row| row.try_get(0)).transpose()?)
        });
        let found = found.await;
        Ok(settle(client, found)?)
    }

    async fn query(&self, generation: &Generation, selects: &[Select]) -> Result<Snapshot, ViewError> {
        let mut rendered = Vec::new();
        for select in selects {
            let stored = self.tables.get(generation, select.table);
            rendered.push(sql::render(&stored, select).map_err(ViewError::Refused)?);
        }
        let mut client = self.client().await?;
        let answered = bounded(async {
            match rendered.as_slice() {
                [select] => answer_alone(&client, generation, select).await,
                selects => answer_together(&mut client, generation, selects).await,
            }
        });
        let answered = answered.await;
        Ok(settle(client, answered)?)
    }
}

/// How a table is written to: as far as this process knew when it began to write the batch.
#[derive(Clone, Copy)]
struct Way {
    is_appended: bool,
    meets_new: bool,
}

impl Way {
    fn of(stored: &Stored) -> Way {
        Way {
            is_appended: stored.is_appended.load(Ordering::Relaxed),
            meets_new: stored.meets_new.load(Ordering::Relaxed),
        }
    }
}

/// Writes a batch behind its checkpoint; `false` when the checkpoint is another one.
async fn write(
    transaction: &mut Transaction<'_>,
    generation: &Generation,
    shard: u16,
    moved: (&'static str, Vec<Value>),
    batch: &[Changed<'_>],
    ways: &[Way],
) -> Result<bool, Failure> {
    let (group, number) = (text(generation.group.name()), Value::Int(generation.number));
    let place = [group, number, Value::Int(i64::from(shard))];
    let moved = Write::new(transaction, moved.0, values_of(&moved.1)).await?;
    let mut writes = vec![Write::new(transaction, sql::CLEAR_STOP, values_of(&place)).await?];
    let mut copies = Vec::new();
    for (changed, way) in batch.iter().zip(ways) {
        let stored = &changed.stored;
        for (rows, is_new) in [(&changed.older, way.is_appended), (&changed.new, true)] {
            let is_copied = way.is_appended || (is_new && rows.len() >= COPY_FROM && !way.meets_new);
            match is_copied && !rows.is_empty() {
                true => copies.push((stored, rows)),
                false => writes.extend(put(transaction, stored, rows).await?),
            }
        }
        writes.extend(delete(transaction, stored, changed.removes).await?);
    }
    if !send(transaction, moved, writes).await? {
        return Ok(false);
    }
    for (stored, rows) in copies {
        copy(transaction, stored, rows).await?;
    }
    Ok(true)
}

/// Is there another way to write the batch than the one that failed? A table may have got its key meanwhile, and a row that looked new may
/// be there. What counts is how this batch was written: another one, written at the same time, may have learned the same before.
fn learn(batch: &[Changed<'_>], ways: &mut [Way], failure: &Failure) -> bool {
    let mut has_learned = false;
    for (changed, way) in batch.iter().zip(ways) {
        let stored = &changed.stored;
        match failure {
            Failure::Collides { table, .. } if stored.table.name == table => match stored.table.kind {
                TableKind::Rollup if way.is_appended => {
                    way.is_appended = false;
                    stored.is_appended.store(false, Ordering::Relaxed);
                    has_learned = true;
                }
                TableKind::Entity if !way.meets_new => {
                    way.meets_new = true;
                    stored.meets_new.store(true, Ordering::Relaxed);
                    has_learned = true;
                }
                TableKind::Rollup | TableKind::Entity | TableKind::Journal => {}
            },
            Failure::HasNoKey(_) if stored.is_appended_while_built() && !way.is_appended => {
                way.is_appended = true;
                stored.is_appended.store(true, Ordering::Relaxed);
                has_learned = true;
            }
            Failure::Collides { .. }
            | Failure::HasNoKey(_)
            | Failure::Unavailable(_)
            | Failure::Refused(_)
            | Failure::Damaged(_)
            | Failure::TooLarge(_) => {}
        }
    }
    has_learned
}

/// One select, in one statement.
async fn answer_alone(client: &Client, generation: &Generation, select: &Rendered) -> Result<Snapshot, Failure> {
    let group = text(generation.group.name());
    let number = Value::Int(generation.number);
    let mut parameters = select.parameters.clone();
    parameters.extend([(ColumnType::Text, group), (ColumnType::Int, number)]);
    let types: Vec<Type> = parameters.iter().map(|(ty, _)| type_of(*ty)).collect();
    let sent: Vec<Sent<'_>> = parameters.iter().map(|(_, value)| Sent(value)).collect();
    let given: Vec<&(dyn ToSql + Sync)> = sent.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    let statement = sql::with_read_until(select);
    let prepared = client.prepare_typed_cached(&statement, &types).await?;
    let mut rows = pin!(client.query_raw(&prepared, given).await?);
    let shard = select.types.len();
    let (mut read_until, mut found) = (Vec::new(), Gathered::up_to(select.room));
    while let Some(row) = rows.try_next().await? {
        match row.try_get::<_, Option<i64>>(shard)? {
            Some(_) => read_until.push(end_of_shard(&row, shard)?),
            None => found.add(values(&row, &select.types)?)?,
        }
    }
    read_until.sort_unstable();
    Ok(Snapshot {
        read_until,
        results: vec![found.all()],
    })
}

/// How far a shard has been read, from the columns shard and next, of which `first` is the first.
fn end_of_shard(row: &Row, first: usize) -> Result<(u16, u64), tokio_postgres::Error> {
    let (shard, next): (i64, i64) = (row.try_get(first)?, row.try_get(first + 1)?);
    Ok((shard as u16, next.cast_unsigned()))
}

/// Several selects, in one transaction.
async fn answer_together(
    client: &mut Client,
    generation: &Generation,
    selects: &[Rendered],
) -> Result<Snapshot, Failure> {
    let snapshot = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let statement = snapshot.prepare_cached(sql::READ_UNTIL).await?;
    let read_until = async {
        let place: [&(dyn ToSql + Sync); 2] = [&generation.group.name(), &generation.number];
        let rows = snapshot.query(&statement, &place).await?;
        let of_shards = rows.iter();
        let of_shards = of_shards.map(|row| Ok(end_of_shard(row, 0)?));
        of_shards.collect::<Result<Vec<_>, Failure>>()
    };
    // All at once: they cost one round trip, and see the same snapshot.
    let results = try_join_all(selects.iter().map(|select| answer(&snapshot, select)));
    let (read_until, results) = tokio::try_join!(read_until, results)?;
    snapshot.commit().await?;
    Ok(Snapshot { read_until, results })
}

async fn answer(snapshot: &Transaction<'_>, select: &Rendered) -> Result<Vec<Vec<Value>>, Failure> {
    let sent: Vec<_> = select
        .parameters
        .iter()
        .map(|(ty, value)| (Sent(value), type_of(*ty)))
        .collect();
    let typed: Vec<_> = sent
        .iter()
        .map(|(value, ty)| (value as &(dyn ToSql + Sync), ty.clone()))
        .collect();
    let mut rows = pin!(snapshot.query_typed_raw(&select.sql, typed).await?);
    let mut found = Gathered::up_to(select.room);
    while let Some(row) = rows.try_next().await? {
        found.add(values(&row, &select.types)?)?;
    }
    Ok(found.all())
}

async fn create(
    transaction: &Transaction<'_>,
    group: Group,
    definition: &str,
    tables: &[&'static Table],
    shards: u16,
) -> Result<Generation, Failure> {
    transaction.batch_execute(DURABLE).await?;
    lock(transaction, group.name()).await?;
    let known = entries(transaction, group).await?;
    let live = known
        .iter()
        .find(|entry| entry.generation.status == GenerationStatus::Live);
    let is_live_untouched = match live {
        None => false,
        Some(live) => {
            let statement = transaction.prepare_cached(sql::READ_UNTIL).await?;
            let place: [&(dyn ToSql + Sync); 2] = [&group.name(), &live.generation.number];
            transaction.query(&statement, &place).await?.is_empty()
        }
    };
    let (generation, dropped) = match generations::creation(&known, is_live_untouched, group, definition, shards) {
        Creation::Existing(generation) => return Ok(generation),
        Creation::New { generation, dropped } => (generation, dropped),
    };
    if let Some(number) = dropped {
        execute(
            transaction,
            sql::DROP_GENERATION,
            &[text(group.name()), Value::Int(number)],
        )
        .await?;
    }
    let schema = sql::quoted(&sql::schema_of(group, generation.number));
    transaction.batch_execute(&format!("CREATE SCHEMA {schema}")).await?;
    for table in tables {
        let stored = Stored::of(Dialect::Postgres, group, generation.number, table);
        let mut statements = match generation.status {
            GenerationStatus::Building if stored.is_appended_while_built() => stored.create_without_key(),
            _ => stored.create(),
        };
        if generation.status == GenerationStatus::Live {
            statements.extend(stored.create_indexes());
        }
        transaction.batch_execute(&statements.join(";\n")).await?;
    }
    let views = generations::views(Dialect::Postgres, group, generation.number, tables);
    if generation.status == GenerationStatus::Live {
        for view in &views {
            let name = sql::quoted(&view.name);
            transaction
                .batch_execute(&format!("CREATE VIEW {name} AS {}", view.select))
                .await?;
        }
    }
    let entry = [
        text(group.name()),
        Value::Int(generation.number),
        text(&generation.definition),
        text(generations::status_name(generation.status)),
        Value::Int(i64::from(shards)),
        text(&serde_json::to_string(&views).expect("views are plain data")),
    ];
    execute(transaction, sql::ADD_GENERATION, &entry).await?;
    Ok(generation)
}

async fn has_key(transaction: &Transaction<'_>, stored: &Stored) -> Result<bool, Failure> {
    let statement = "SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = $1::text::regclass AND indisunique)";
    let rows = transaction
        .query_typed(statement, &[(&stored.name, Type::TEXT)])
        .await?;
    Ok(rows.first().map_or(Ok(false), |row| row.try_get(0))?)
}

async fn make_indexes(client: &mut Client, stored: &Stored) -> Result<(), Failure> {
    let made = tokio::time::timeout(INDEXES_MAX, async {
        let transaction = client.transaction().await?;
        transaction.batch_execute("SET LOCAL statement_timeout = 0").await?;
        // Two who make the same index would refuse each other.
        lock(&transaction, &stored.name).await?;
        if stored.is_appended_while_built() && !has_key(&transaction, stored).await? {
            // Whoever appends waits, and then meets the key.
            let statements = stored.merge_appended();
            transaction.batch_execute(&statements.join(";\n")).await?;
        }
        for statement in stored.create_indexes() {
            transaction.batch_execute(&statement).await?;
        }
        transaction.batch_execute(&format!("ANALYZE {}", stored.name)).await?;
        Ok(transaction.commit().await?)
    });
    made.await
        .unwrap_or_else(|_| Err(Failure::Unavailable(format!("{} got no indexes", stored.name))))
}

async fn promote(transaction: &mut Transaction<'_>, wanted: &Generation) -> Result<(), Failure> {
    transaction.batch_execute(&format!("{DURABLE}; {SHORT_LOCKS}")).await?;
    let group = wanted.group;
    lock(transaction, group.name()).await?;
    let Some(promotion) = generations::promotion(&entries(transaction, group).await?, wanted)? else {
        return Ok(());
    };
    for (number, status) in promotion.statuses {
        let status = text(generations::status_name(status));
        execute(
            transaction,
            sql::SET_STATUS,
            &[status, text(group.name()), Value::Int(number)],
        )
        .await?;
    }
    if let Some(number) = promotion.dropped {
        // Its checkpoints go with it: whoever still folds it changes nothing any more. Its tables go afterwards.
        execute(
            transaction,
            sql::DROP_GENERATION,
            &[text(group.name()), Value::Int(number)],
        )
        .await?;
    }
    let of_generation = [text(group.name()), Value::Int(wanted.number), Value::Int(sql::NO_SHARD)];
    execute(transaction, sql::CLEAR_STOP, &of_generation).await?;
    for name in promotion.hidden {
        public::hide(transaction, &name, "goes").await?;
    }
    for view in &promotion.shown {
        public::show(transaction, view).await?;
    }
    Ok(())
}

/// One at a time, over all processes, until the transaction ends.
async fn lock(transaction: &Transaction<'_>, what: &str) -> Result<(), Failure> {
    let lock = "SELECT pg_advisory_xact_lock(hashtext('crm read models'), hashtext($1))";
    transaction.query_typed(lock, &[(&what, Type::TEXT)]).await?;
    Ok(())
}

async fn entries(client: &impl GenericClient, group: Group) -> Result<Vec<Entry>, Failure> {
    let statement = client.prepare_cached(sql::GENERATIONS).await?;
    let mut entries = Vec::new();
    for row in client.query(&statement, &[&group.name()]).await? {
        let row = (
            row.try_get(0)?,
            row.try_get(1)?,
            row.try_get(2)?,
            row.try_get(3)?,
            row.try_get(4)?,
        );
        entries.push(generations::entry(group, row)?);
    }
    Ok(entries)
}

/// From the first five columns: log id, next, epoch, n, fingerprint.
async fn stands_at(
    client: &impl GenericClient,
    statement: &Statement,
    generation: &Generation,
    shard: u16,
) -> Result<Option<Checkpoint>, Failure> {
    let place: [&(dyn ToSql + Sync); 3] = [&generation.group.name(), &generation.number, &i64::from(shard)];
    let row = client.query_opt(statement, &place).await?;
    Ok(row.as_ref().map(checkpoint).transpose()?)
}

fn checkpoint(row: &Row) -> Result<Checkpoint, tokio_postgres::Error> {
    Ok(Checkpoint {
        log_id: row.try_get(0)?,
        next: row.try_get::<_, i64>(1)?.cast_unsigned(),
        epoch: row.try_get::<_, i64>(2)?.cast_unsigned(),
        n: row.try_get::<_, i64>(3)?.cast_unsigned(),
        fingerprint: row.try_get::<_, i64>(4)?.cast_unsigned(),
    })
}
