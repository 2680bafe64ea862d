//! Read models in a SQLite file, `views.db`: for a program with nothing installed beside it.
//!
//! One connection writes, a few read; WAL lets them go on side by side. All of it happens on blocking threads.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use projections::{ColumnType, Group, Key, Select, Table, TableChange, Value};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params,
    params_from_iter,
};
use services::log::Checkpoint;
use services::views::{Generation, GenerationStatus, ReadStore, Snapshot, ViewError};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::generations::{self, Creation, Entry};
use super::sql::{self, Dialect, Stored, StoredTables};
use super::{Failure, Gathered};
use crate::files::{self, Identity};
use crate::states;

/// Connections that read at the same time; more would only wait for the same disk.
pub const READERS: usize = 4;
/// How long to wait for the writer of another process.
const BUSY_MAX: Duration = Duration::from_secs(10);
/// How long to wait for one's turn to read or write.
const TURN_MAX: Duration = Duration::from_secs(60);
/// Statements that a connection keeps prepared: a few per table of the generations at work.
const STATEMENTS_KEPT: usize = 256;

/// The read store and state store in a SQLite file.
pub struct SqliteViews {
    file: PathBuf,
    /// `None`: opened to read only.
    writer: Option<Arc<tokio::sync::Mutex<Connection>>>,
    /// Of the files that are written to.
    identity: Option<Identity>,
    may_read: Arc<Semaphore>,
    idle_readers: Arc<Mutex<Vec<Connection>>>,
    tables: StoredTables,
}

impl SqliteViews {
    /// Opens `<folder>/views.db`; makes both when they are not there.
    ///
    /// # Errors
    /// When the folder cannot be written to, or the file is no database of ours.
    pub async fn open(folder: impl AsRef<Path>) -> Result<SqliteViews, ViewError> {
        let folder = folder.as_ref().to_owned();
        let file = folder.join("views.db");
        let path = file.clone();
        let opened = blocking(move || {
            let unusable = |error: std::io::Error| Failure::Unavailable(format!("{}: {error}", folder.display()));
            files::make_folder(&folder).map_err(unusable)?;
            files::make_file(&path).map_err(unusable)?;
            let writer = open_writer(&path)?;
            files::keep_private(&folder);
            Ok((writer, Identity::of(files::database_files(&path)).map_err(unusable)?))
        });
        let (writer, identity) = opened.await.map_err(|failure| in_words(&file, failure))?;
        Ok(SqliteViews {
            writer: Some(Arc::new(tokio::sync::Mutex::new(writer))),
            identity: Some(identity),
            ..SqliteViews::without_writer(file)
        })
    }

    /// Opens `<folder>/views.db` to read only, also where nobody may write. Nothing is made.
    ///
    /// # Errors
    /// When it is not there, or is no database of ours.
    pub async fn open_to_read(folder: impl AsRef<Path>) -> Result<SqliteViews, ViewError> {
        let folder = folder.as_ref();
        let views = SqliteViews::without_writer(folder.join("views.db"));
        let folder = folder.display();
        if !views.file.exists() {
            return Err(ViewError::Unavailable(
                match views.file.parent().is_some_and(Path::is_dir) {
                    true => {
                        format!("there are no read models in {folder} yet; `crm serve` or `crm rebuild` makes them")
                    }
                    false => format!("there is no folder {folder}"),
                },
            ));
        }
        let is_ours = views.read(|transaction| Ok(transaction.table_exists(None, "read_generations")?));
        match is_ours.await? {
            true => Ok(views),
            false => Err(ViewError::Unavailable(format!(
                "the file views.db in {folder} has no read models"
            ))),
        }
    }

    fn without_writer(file: PathBuf) -> SqliteViews {
        SqliteViews {
            file,
            writer: None,
            identity: None,
            may_read: Arc::new(Semaphore::new(READERS)),
            idle_readers: Arc::default(),
            tables: StoredTables::new(Dialect::Sqlite),
        }
    }

    /// Is what was opened still there?
    fn check_files(&self) -> Result<(), Failure> {
        let checked = self.identity.as_ref().map_or(Ok(()), Identity::check);
        checked.map_err(|what| {
            Failure::Unavailable(format!(
                "{what}; start the program again: the read models come back from the log"
            ))
        })
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
        let (definition, tables) = (definition.to_owned(), tables.to_vec());
        let created = self.write(move |transaction| {
            let generation = create(&transaction, group, &definition, &tables, shards)?;
            transaction.commit()?;
            Ok(generation)
        });
        Ok(created.await?)
    }

    /// What [`make_indexes`](ReadStore::make_indexes) does, for the tables of somebody else.
    ///
    /// # Errors
    /// As `make_indexes`.
    pub async fn make_indexes_of(&self, generation: &Generation, tables: &[&'static Table]) -> Result<(), ViewError> {
        for table in tables {
            let stored = self.tables.get(generation, table);
            // One at a time: whoever else writes gets a turn in between.
            for statement in stored.create_indexes() {
                let made = self.write(move |transaction| {
                    transaction.execute_batch(&statement)?;
                    Ok(transaction.commit()?)
                });
                made.await?;
            }
        }
        Ok(())
    }

    /// Notes what keeps a generation from going live.
    async fn note_if_blocked(&self, generation: &Generation, done: Result<(), ViewError>) -> Result<(), ViewError> {
        let Some(why) = generations::blocking(generation, &done) else {
            return done;
        };
        let (group, number) = (generation.group.name(), generation.number);
        let noted = self.write(move |transaction| {
            execute(&transaction, sql::NOTE_STOP, params![group, number, sql::NO_SHARD, why])?;
            Ok(transaction.commit()?)
        });
        if let Err(failure) = noted.await {
            tracing::warn!(
                "why a generation cannot go live could not be noted: {}",
                ViewError::from(failure)
            );
        }
        done
    }

    /// Does `work` in a transaction of the one writer. `work` commits; what it drops is rolled back.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let writer = self.writer.clone().ok_or_else(|| only_to_read(&self.file))?;
        let turn = tokio::time::timeout(TURN_MAX, writer.lock_owned());
        let mut writer = turn.await.map_err(|_| no_turn())?;
        self.check_files()?;
        let written = blocking(move || work(writer.transaction_with_behavior(TransactionBehavior::Immediate)?)).await;
        written.map_err(|failure| in_words(&self.file, failure))
    }

    /// Does `work` in one snapshot.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = tokio::time::timeout(TURN_MAX, self.may_read.clone().acquire_owned());
        let turn = turn.await.map_err(|_| no_turn())?.expect("nobody closes it");
        self.check_files()?;
        let idle = self.idle_readers.clone();
        let (file, may_write) = (self.file.clone(), self.writer.is_some());
        let result = blocking(move || {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut reader = kept.map_or_else(|| open_reader(&file, may_write), Ok)?;
            let result = reader
                .transaction()
                .map_err(Failure::from)
                .and_then(|transaction| work(&transaction));
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            drop(turn);
            result
        });
        result.await.map_err(|failure| in_words(&self.file, failure))
    }
}

/// The failure with the file's name, and what to do where that is known.
fn in_words(file: &Path, failure: Failure) -> Failure {
    let name = file.display();
    match failure {
        Failure::Damaged(why) => Failure::Damaged(format!(
            "{name} is damaged ({why}). It holds nothing that is not in the log: stop the program, delete {name}, {name}-wal and {name}-shm, \
             and start the program again; the read models come back by replay"
        )),
        Failure::Unavailable(why) if !why.contains(&*name.to_string()) => {
            Failure::Unavailable(format!("{name}: {why}"))
        }
        other => other,
    }
}

fn only_to_read(file: &Path) -> Failure {
    Failure::Unavailable(format!("{} was opened to read only", file.display()))
}

#[async_trait]
impl ReadStore for SqliteViews {
    fn address(&self) -> String {
        format!("sqlite:{}", self.file.display())
    }

    async fn generations(&self, group: Group) -> Result<Vec<Generation>, ViewError> {
        let entries = self.read(move |transaction| entries(transaction, group)).await?;
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
        let wanted = generation.clone();
        let promoted = self.write(move |transaction| {
            promote(&transaction, &wanted)?;
            Ok(transaction.commit()?)
        });
        let promoted = promoted.await.map_err(ViewError::from);
        self.note_if_blocked(generation, promoted).await
    }

    async fn checkpoint(&self, generation: &Generation, shard: u16) -> Result<Option<Checkpoint>, ViewError> {
        let (group, number) = (generation.group.name(), generation.number);
        Ok(self
            .read(move |transaction| stands_at(transaction, group, number, shard))
            .await?)
    }

    async fn load(
        &self,
        generation: &Generation,
        shard: u16,
        expected: Option<&Checkpoint>,
        table: &'static Table,
        keys: &[Key],
    ) -> Result<Vec<Vec<Value>>, ViewError> {
        let (group, number, expected) = (generation.group.name(), generation.number, expected.cloned());
        let stored = self.tables.get(generation, table);
        let keys = sql::entity_keys(table, keys).map_err(ViewError::Refused)?.to_vec();
        let found = self.read(
            move |transaction| match stands_at(transaction, group, number, shard)? == expected {
                true => Ok(Some(find(transaction, &stored, &keys)?)),
                false => Ok(None),
            },
        );
        found.await?.ok_or(ViewError::Moved)
    }

    async fn commit(
        &self,
        generation: &Generation,
        shard: u16,
        expected: Option<&Checkpoint>,
        next: &Checkpoint,
        changes: &[TableChange],
    ) -> Result<(), ViewError> {
        let of_tables: Vec<(Arc<Stored>, TableChange)> = changes
            .iter()
            .map(|change| (self.tables.get(generation, change.table), change.clone()))
            .collect();
        let generation = generation.clone();
        let (expected, next) = (expected.cloned(), next.clone());
        let committed = self.write(move |transaction| {
            let (statement, parameters) = sql::move_checkpoint(&generation, shard, expected.as_ref(), &next);
            if execute(&transaction, statement, params_from_iter(parameters.iter().map(Cell)))? == 0 {
                return Ok(false);
            }
            let (group, number) = (generation.group, generation.number);
            execute(&transaction, sql::CLEAR_STOP, params![group.name(), number, shard])?;
            for (stored, change) in &of_tables {
                apply(&transaction, stored, change, shard)?;
            }
            transaction.commit()?;
            Ok(true)
        });
        match committed.await? {
            true => Ok(()),
            false => Err(ViewError::Moved),
        }
    }

    async fn note_stop(&self, generation: &Generation, shard: u16, why: &str) -> Result<(), ViewError> {
        let (group, number, why) = (generation.group.name(), generation.number, why.to_owned());
        let noted = self.write(move |transaction| {
            execute(&transaction, sql::NOTE_STOP, params![group, number, shard, why])?;
            Ok(transaction.commit()?)
        });
        Ok(noted.await?)
    }

    async fn stops(&self, generation: &Generation) -> Result<Vec<(u16, String)>, ViewError> {
        let (group, number) = (generation.group.name(), generation.number);
        let stops = self.read(move |transaction| {
            let mut statement = transaction.prepare_cached(sql::STOPS)?;
            let rows = statement.query_map(params![group, number], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        });
        Ok(stops.await?)
    }

    async fn blocked(&self, generation: &Generation) -> Result<Option<String>, ViewError> {
        let (group, number) = (generation.group.name(), generation.number);
        let why = self.read(move |transaction| {
            let mut statement = transaction.prepare_cached(sql::BLOCKED)?;
            let why = statement.query_row(params![group, number, sql::NO_SHARD], |row| row.get(0));
            Ok(why.optional()?)
        });
        Ok(why.await?)
    }

    async fn query(&self, generation: &Generation, selects: &[Select]) -> Result<Snapshot, ViewError> {
        let (group, number) = (generation.group, generation.number);
        let mut rendered = Vec::new();
        for select in selects {
            let stored = self.tables.get(generation, select.table);
            rendered.push(sql::render(&stored, select).map_err(ViewError::Refused)?);
        }
        let answered = self.read(move |transaction| {
            let mut statement = transaction.prepare_cached(sql::READ_UNTIL)?;
            let read_until = statement
                .query_map(params![group.name(), number], |row| {
                    Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
                })?
                .collect::<Result<Vec<_>, _>>()?;
            let mut results = Vec::new();
            for select in &rendered {
                let mut statement = transaction.prepare(&select.sql)?;
                let cells = select.parameters.iter().map(|(_, value)| Cell(value));
                let mut found = statement.query(params_from_iter(cells))?;
                let mut rows = Gathered::up_to(select.room);
                while let Some(row) = found.next()? {
                    rows.add(values(row, &select.types)?)?;
                }
                results.push(rows.all());
            }
            Ok(Snapshot { read_until, results })
        });
        Ok(answered.await?)
    }
}

fn create(
    transaction: &Transaction<'_>,
    group: Group,
    definition: &str,
    tables: &[&'static Table],
    shards: u16,
) -> Result<Generation, Failure> {
    let known = entries(transaction, group)?;
    let live = known
        .iter()
        .find(|entry| entry.generation.status == GenerationStatus::Live);
    let is_live_untouched = match live {
        None => false,
        Some(live) => !transaction
            .prepare_cached(sql::READ_UNTIL)?
            .exists(params![group.name(), live.generation.number])?,
    };
    let (generation, dropped) = match generations::creation(&known, is_live_untouched, group, definition, shards) {
        Creation::Existing(generation) => return Ok(generation),
        Creation::New { generation, dropped } => (generation, dropped),
    };
    if let Some(number) = dropped {
        drop_generation(transaction, group, number)?;
    }
    for table in tables {
        let stored = Stored::of(Dialect::Sqlite, group, generation.number, table);
        let mut statements = stored.create();
        if generation.status == GenerationStatus::Live {
            statements.extend(stored.create_indexes());
        }
        for statement in statements {
            transaction.execute_batch(&statement)?;
        }
    }
    let views = generations::views(Dialect::Sqlite, group, generation.number, tables);
    if generation.status == GenerationStatus::Live {
        show(transaction, &views)?;
    }
    execute(
        transaction,
        sql::ADD_GENERATION,
        params![
            group.name(),
            generation.number,
            generation.definition,
            generations::status_name(generation.status),
            shards,
            serde_json::to_string(&views).expect("views are plain data"),
        ],
    )?;
    Ok(generation)
}

fn promote(transaction: &Transaction<'_>, wanted: &Generation) -> Result<(), Failure> {
    let group = wanted.group;
    let Some(promotion) = generations::promotion(&entries(transaction, group)?, wanted)? else {
        return Ok(());
    };
    for (number, status) in promotion.statuses {
        let status = generations::status_name(status);
        execute(transaction, sql::SET_STATUS, params![status, group.name(), number])?;
    }
    execute(
        transaction,
        sql::CLEAR_STOP,
        params![group.name(), wanted.number, sql::NO_SHARD],
    )?;
    for name in promotion.hidden {
        transaction.execute_batch(&format!("DROP VIEW IF EXISTS {}", sql::quoted(&name)))?;
    }
    show(transaction, &promotion.shown)?;
    if let Some(number) = promotion.dropped {
        drop_generation(transaction, group, number)?;
    }
    Ok(())
}

fn show(transaction: &Transaction<'_>, views: &[generations::View]) -> Result<(), Failure> {
    for view in views {
        let name = sql::quoted(&view.name);
        transaction.execute_batch(&format!(
            "DROP VIEW IF EXISTS {name}; CREATE VIEW {name} AS {}",
            view.select
        ))?;
    }
    Ok(())
}

fn drop_generation(transaction: &Transaction<'_>, group: Group, number: i64) -> Result<(), Failure> {
    execute(transaction, sql::DROP_GENERATION, params![group.name(), number])?;
    let tables: Vec<String> = transaction
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB ?1")?
        .query_map([format!("{}*", sql::prefix_of(group, number))], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for table in tables {
        transaction.execute_batch(&format!("DROP TABLE {}", sql::quoted(&table)))?;
    }
    Ok(())
}

fn entries(transaction: &Transaction<'_>, group: Group) -> Result<Vec<Entry>, Failure> {
    let mut statement = transaction.prepare_cached(sql::GENERATIONS)?;
    let rows = statement.query_map([group.name()], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
    })?;
    let mut entries = Vec::new();
    for row in rows {
        entries.push(generations::entry(group, row?)?);
    }
    Ok(entries)
}

fn apply(transaction: &Transaction<'_>, stored: &Stored, change: &TableChange, shard: u16) -> Result<(), Failure> {
    let (older, new) = sql::rows(change, shard)?;
    if !older.is_empty() || !new.is_empty() {
        let mut statement = transaction.prepare_cached(stored.upsert())?;
        for row in older.iter().chain(&new) {
            statement.execute(params_from_iter(row.iter().map(|value| Cell(value))))?;
        }
    }
    let removes = sql::removed_keys(change)?;
    if !removes.is_empty() {
        let mut statement = transaction.prepare_cached(stored.delete())?;
        for key in removes {
            statement.execute(params_from_iter(key.iter().map(Cell)))?;
        }
    }
    Ok(())
}

/// The entity rows under these keys, all columns.
pub(crate) fn find(transaction: &Transaction<'_>, stored: &Stored, keys: &[Key]) -> Result<Vec<Vec<Value>>, Failure> {
    let types: Vec<ColumnType> = stored.table.columns.iter().map(|column| column.ty).collect();
    let mut statement = transaction.prepare_cached(stored.load())?;
    let mut rows = Vec::new();
    for key in keys {
        let mut found = statement.query(params_from_iter(key.iter().map(Cell)))?;
        while let Some(row) = found.next()? {
            rows.push(values(row, &types)?);
        }
    }
    Ok(rows)
}

/// What a statement of one's own answers, in columns of these types.
pub(crate) fn query(
    transaction: &Transaction<'_>,
    statement: &str,
    parameters: impl rusqlite::Params,
    types: &[ColumnType],
) -> Result<Vec<Vec<Value>>, Failure> {
    let mut statement = transaction.prepare_cached(statement)?;
    let mut found = statement.query(parameters)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push(values(row, types)?);
    }
    Ok(rows)
}

/// Writes entity rows, all columns.
pub(crate) fn put(transaction: &Transaction<'_>, stored: &Stored, rows: &[Vec<Value>]) -> Result<(), Failure> {
    let mut statement = transaction.prepare_cached(stored.upsert())?;
    for row in rows {
        statement.execute(params_from_iter(row.iter().map(Cell)))?;
    }
    Ok(())
}

pub(crate) fn execute(
    transaction: &Transaction<'_>,
    statement: &str,
    parameters: impl rusqlite::Params,
) -> Result<usize, Failure> {
    Ok(transaction.prepare_cached(statement)?.execute(parameters)?)
}

fn open_writer(file: &Path) -> Result<Connection, Failure> {
    let connection = Connection::open(file)?;
    prepare_connection(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A power cut may take the last transactions, whole ones, with their checkpoints.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.execute_batch(&sql::create_registry(Dialect::Sqlite))?;
    connection.execute_batch(&states::create_tables(Dialect::Sqlite))?;
    Ok(connection)
}

fn open_reader(file: &Path, may_write: bool) -> Result<Connection, Failure> {
    let connection = match may_write {
        // For the first to open the file after a crash rolls its WAL forward.
        true => {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            Connection::open_with_flags(file, flags)?
        }
        false => files::open_to_read(file)?,
    };
    prepare_connection(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn prepare_connection(connection: &Connection) -> Result<(), Failure> {
    connection.busy_timeout(BUSY_MAX)?;
    connection.pragma_update(None, "cache_size", -32_000)?; // KiB
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Failure::Unavailable("the program is shutting down".to_owned())),
        },
    }
}

fn no_turn() -> Failure {
    Failure::Unavailable(format!("no turn at the file within {} s", TURN_MAX.as_secs()))
}

/// A value on its way into a statement.
pub(crate) struct Cell<'a>(pub &'a Value);

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Uuid(uuid) => ToSqlOutput::Borrowed(ValueRef::Blob(uuid.as_bytes())),
            Value::Text(text) | Value::Json(text) => ToSqlOutput::from(text.as_str()),
            Value::Int(int) => ToSqlOutput::from(*int),
            Value::Bool(bool) => ToSqlOutput::from(*bool),
            Value::Date(date) => ToSqlOutput::from(date.to_string()),
            Value::Time(time) => ToSqlOutput::from(time.as_microsecond()),
        })
    }
}

fn values(row: &Row<'_>, types: &[ColumnType]) -> Result<Vec<Value>, Failure> {
    let mut values = Vec::with_capacity(types.len());
    for (i, ty) in types.iter().enumerate() {
        let cell = row.get_ref(i)?;
        let value = value(*ty, cell).ok_or_else(|| format!("a cell holds no {ty:?} but {}", cell.data_type()))?;
        values.push(value);
    }
    Ok(values)
}

fn value(ty: ColumnType, cell: ValueRef<'_>) -> Option<Value> {
    Some(match (ty, cell) {
        (_, ValueRef::Null) => Value::Null,
        (ColumnType::Uuid, ValueRef::Blob(bytes)) => Value::Uuid(Uuid::from_slice(bytes).ok()?),
        (ColumnType::Text, ValueRef::Text(bytes)) => Value::Text(std::str::from_utf8(bytes).ok()?.to_owned()),
        (ColumnType::Json, ValueRef::Text(bytes)) => Value::Json(std::str::from_utf8(bytes).ok()?.to_owned()),
        (ColumnType::Date, ValueRef::Text(bytes)) => Value::Date(std::str::from_utf8(bytes).ok()?.parse().ok()?),
        (ColumnType::Int, ValueRef::Integer(int)) => Value::Int(int),
        (ColumnType::Bool, ValueRef::Integer(int)) => Value::Bool(int != 0),
        (ColumnType::Time, ValueRef::Integer(int)) => Value::Time(sql::time_at(int)?),
        _ => return None,
    })
}

/// From the first five columns: log id, next, epoch, n, fingerprint.
fn stands_at(
    transaction: &Transaction<'_>,
    group: &str,
    number: i64,
    shard: u16,
) -> Result<Option<Checkpoint>, Failure> {
    let mut statement = transaction.prepare_cached(sql::CHECKPOINT)?;
    Ok(statement
        .query_row(params![group, number, shard], checkpoint)
        .optional()?)
}

fn checkpoint(row: &Row<'_>) -> rusqlite::Result<Checkpoint> {
    Ok(Checkpoint {
        log_id: Uuid::from_bytes(row.get(0)?),
        next: row.get::<_, i64>(1)?.cast_unsigned(),
        epoch: row.get::<_, i64>(2)?.cast_unsigned(),
        n: row.get::<_, i64>(3)?.cast_unsigned(),
        fingerprint: row.get::<_, i64>(4)?.cast_unsigned(),
    })
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        let (code, message) = match &error {
            rusqlite::Error::SqliteFailure(cause, message) => {
                let message = message.clone().unwrap_or_else(|| cause.to_string());
                (cause.code, message)
            }
            // Without the statement, which may be long.
            rusqlite::Error::SqlInputError { error: cause, msg, .. } => (cause.code, msg.clone()),
            other => return Failure::Refused(other.to_string()),
        };
        match code {
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure
            | ErrorCode::DiskFull
            | ErrorCode::OutOfMemory
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::FileLockingProtocolFailed => Failure::Unavailable(message),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Failure::Damaged(message),
            _ => Failure::Refused(message),
        }
    }
}

#[cfg(test)]
mod specs {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn so_many_statements_are_kept_prepared_by_a_connection_in_sqlite() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("views.db");
        for connection in [open_writer(&file).unwrap(), open_reader(&file, true).unwrap()] {
            // How often this very statement has run, now included.
            let run = |number: usize| {
                let mut statement = connection.prepare_cached(&format!("SELECT {number}")).unwrap();
                statement.query_row([], |_| Ok(())).unwrap();
                statement.get_status(StatementStatus::Run)
            };
            let runs = || (0..STATEMENTS_KEPT).map(run).collect::<Vec<_>>();
            runs();
            assert_eq!(runs(), [2; STATEMENTS_KEPT]);
            assert_eq!(run(STATEMENTS_KEPT), 1);
            assert_eq!(run(STATEMENTS_KEPT - 1), 3);
            assert_eq!(run(0), 1);
        }
    }
}
