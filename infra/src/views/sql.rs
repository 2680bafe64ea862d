//! What both read stores say alike: tables, upserts and selects as SQL.
//!
//! Parameters are written `$1`, `$2` … and stand in that order in every statement: PostgreSQL goes by the number, SQLite by
//! the order of appearance. Text compares by its bytes and nulls come before everything else, so both order rows alike.

mod select;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;
use jiff::civil::Date;
use projections::{Column, ColumnRole, ColumnType, Group, Key, Table, TableChange, TableKind, Value};
use services::log::Checkpoint;
use services::views::{Generation, GenerationStatus};

pub(crate) use select::{Rendered, render, with_read_until};

/// Whose SQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Postgres,
    Sqlite,
}

/// The registry, in the schema `crm` of PostgreSQL (by `search_path`) or the SQLite file.
pub(crate) fn create_registry(dialect: Dialect) -> String {
    let (text, int, uuid) = (
        type_name(dialect, ColumnType::Text),
        type_name(dialect, ColumnType::Int),
        type_name(dialect, ColumnType::Uuid),
    );
    let of_generation = "FOREIGN KEY (read_group, number) REFERENCES read_generations ON DELETE CASCADE";
    format!(
        "CREATE TABLE IF NOT EXISTS read_generations (
            read_group {text} NOT NULL, number {int} NOT NULL, definition {text} NOT NULL, status {text} NOT NULL,
            shards {int} NOT NULL, views {text} NOT NULL, PRIMARY KEY (read_group, number));
        CREATE TABLE IF NOT EXISTS read_checkpoints (
            read_group {text} NOT NULL, number {int} NOT NULL, shard {int} NOT NULL, log_id {uuid} NOT NULL,
            next {int} NOT NULL, epoch {int} NOT NULL, n {int} NOT NULL, fingerprint {int} NOT NULL,
            PRIMARY KEY (read_group, number, shard), {of_generation});
        CREATE TABLE IF NOT EXISTS read_stops (
            read_group {text} NOT NULL, number {int} NOT NULL, shard {int} NOT NULL, why {text} NOT NULL,
            PRIMARY KEY (read_group, number, shard), {of_generation});"
    )
}

/// A group's name → its generations, oldest first.
pub(crate) const GENERATIONS: &str =
    "SELECT number, definition, status, shards, views FROM read_generations WHERE read_group = $1 ORDER BY number";
/// Group, number, definition, status, shards, views.
pub(crate) const ADD_GENERATION: &str = "INSERT INTO read_generations (read_group, number, definition, status, shards, views) VALUES ($1, $2, $3, $4, $5, $6)";
/// Status, group, number.
pub(crate) const SET_STATUS: &str = "UPDATE read_generations SET status = $1 WHERE read_group = $2 AND number = $3";
/// Group, number.
pub(crate) const DROP_GENERATION: &str = "DELETE FROM read_generations WHERE read_group = $1 AND number = $2";
/// Group, number, shard.
pub(crate) const CHECKPOINT: &str = "SELECT log_id, next, epoch, n, fingerprint FROM read_checkpoints \
     WHERE read_group = $1 AND number = $2 AND shard = $3";
/// Group, number.
pub(crate) const READ_UNTIL: &str =
    "SELECT shard, next FROM read_checkpoints WHERE read_group = $1 AND number = $2 ORDER BY shard";
pub(crate) const FIRST_CHECKPOINT: &str = "INSERT INTO read_checkpoints (log_id, next, epoch, n, fingerprint, read_group, number, shard) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING";
const NEXT_CHECKPOINT: &str = "UPDATE read_checkpoints SET log_id = $1, next = $2, epoch = $3, n = $4, fingerprint = $5 \
     WHERE read_group = $6 AND number = $7 AND shard = $8 \
     AND log_id = $9 AND next = $10 AND epoch = $11 AND n = $12 AND fingerprint = $13";
/// Does the same as `NEXT_CHECKPOINT` to several, in PostgreSQL: an array for each of its parameters.
pub(crate) const NEXT_CHECKPOINTS: &str = "UPDATE read_checkpoints AS c SET log_id = m.log_id, next = m.next, epoch = m.epoch, n = m.n, fingerprint = m.fingerprint \
     FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[], $8::bigint[], \
         $9::uuid[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[]) \
         AS m (log_id, next, epoch, n, fingerprint, read_group, number, shard, \
             was_log_id, was_next, was_epoch, was_n, was_fingerprint) \
     WHERE c.read_group = m.read_group AND c.number = m.number AND c.shard = m.shard \
     AND c.log_id = m.was_log_id AND c.next = m.was_next AND c.epoch = m.was_epoch AND c.n = m.was_n \
     AND c.fingerprint = m.was_fingerprint";

/// The statement, with its parameters, that moves a checkpoint from `expected` to `next`: it changes one row, or none when the checkpoint
/// is another one.
pub(crate) fn move_checkpoint(
    generation: &Generation,
    shard: u16,
    expected: Option<&Checkpoint>,
    next: &Checkpoint,
) -> (&'static str, Vec<Value>) {
    let mut parameters = checkpoint_values(next).to_vec();
    parameters.push(Value::Text(generation.group.name().to_owned()));
    parameters.push(Value::Int(generation.number));
    parameters.push(Value::Int(i64::from(shard)));
    match expected {
        None => (FIRST_CHECKPOINT, parameters),
        Some(expected) => {
            parameters.extend(checkpoint_values(expected));
            (NEXT_CHECKPOINT, parameters)
        }
    }
}

/// Log id, next, epoch, n, fingerprint. The integers keep their bits.
pub(crate) fn checkpoint_values(checkpoint: &Checkpoint) -> [Value; 5] {
    [
        Value::Uuid(checkpoint.log_id),
        Value::Int(checkpoint.next.cast_signed()),
        Value::Int(checkpoint.epoch.cast_signed()),
        Value::Int(checkpoint.n.cast_signed()),
        Value::Int(checkpoint.fingerprint.cast_signed()),
    ]
}

/// Group, number, shard, why.
pub(crate) const NOTE_STOP: &str = "INSERT INTO read_stops (read_group, number, shard, why) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (read_group, number, shard) DO UPDATE SET why = excluded.why";
/// Group, number, shard.
pub(crate) const CLEAR_STOP: &str = "DELETE FROM read_stops WHERE read_group = $1 AND number = $2 AND shard = $3";
/// The same for several places, in PostgreSQL: an array for each of its parameters.
pub(crate) const CLEAR_STOPS: &str = "DELETE FROM read_stops AS s \
     USING unnest($1::text[], $2::bigint[], $3::bigint[]) AS p (read_group, number, shard) \
     WHERE s.read_group = p.read_group AND s.number = p.number AND s.shard = p.shard";
/// Group, number.
pub(crate) const STOPS: &str =
    "SELECT shard, why FROM read_stops WHERE read_group = $1 AND number = $2 AND shard >= 0 ORDER BY shard";
/// Stands in the place of a shard when the whole generation cannot go live.
pub(crate) const NO_SHARD: i64 = -1;
/// Group, number, [`NO_SHARD`].
pub(crate) const BLOCKED: &str = "SELECT why FROM read_stops WHERE read_group = $1 AND number = $2 AND shard = $3";

/// A table of one generation, as it is stored.
pub(crate) struct Stored {
    pub dialect: Dialect,
    pub table: &'static Table,
    /// Quoted, with its schema or prefix.
    pub name: String,
    /// A rollup without its key, as far as this process knows: rows are appended to it, and meet when they are asked for.
    pub is_appended: AtomicBool,
    /// New rows of it turned out to be there already: they are written like others.
    pub meets_new: AtomicBool,
    /// Stands before the names of its indexes.
    index_prefix: String,
    /// Made when they are first asked for, and the same from then on.
    upsert: OnceLock<String>,
    delete: OnceLock<String>,
    load: OnceLock<String>,
}

/// The tables of a store that somebody asked for.
pub(crate) struct StoredTables {
    dialect: Dialect,
    /// By group, generation and name.
    known: Mutex<HashMap<TableKey, Arc<Stored>>>,
}

type TableKey = (Group, i64, &'static str);

/// Generations of a group whose tables are remembered: more than are at work at one time.
const GENERATIONS_REMEMBERED: i64 = 8;

impl StoredTables {
    pub fn new(dialect: Dialect) -> StoredTables {
        StoredTables {
            dialect,
            known: Mutex::default(),
        }
    }

    pub fn get(&self, generation: &Generation, table: &'static Table) -> Arc<Stored> {
        let (group, number) = (generation.group, generation.number);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stored) = known.get(&(group, number, table.name)) {
            return Arc::clone(stored);
        }
        let mut stored = Stored::of(self.dialect, group, number, table);
        let is_built = generation.status == GenerationStatus::Building;
        *stored.is_appended.get_mut() = is_built && stored.is_appended_while_built();
        let stored = Arc::new(stored);
        // Each rebuild brings another one.
        known.retain(|(other, older, _), _| *other != group || *older > number - GENERATIONS_REMEMBERED);
        known.insert((group, number, table.name), Arc::clone(&stored));
        stored
    }
}

/// `crm_sales_g1`: the schema of a generation's tables in PostgreSQL.
pub(crate) fn schema_of(group: Group, number: i64) -> String {
    format!("crm_{}_g{number}", group.name())
}

/// `sales_g1_`: what a generation's tables in SQLite are called before their own name.
pub(crate) fn prefix_of(group: Group, number: i64) -> String {
    format!("{}_g{number}_", group.name())
}

impl Stored {
    pub fn of(dialect: Dialect, group: Group, number: i64, table: &'static Table) -> Stored {
        let (name, index_prefix) = match dialect {
            Dialect::Postgres => (
                format!("{}.{}", quoted(&schema_of(group, number)), quoted(table.name)),
                table.name.to_owned(),
            ),
            Dialect::Sqlite => {
                let name = format!("{}{}", prefix_of(group, number), table.name);
                (quoted(&name), name)
            }
        };
        Stored::named(dialect, table, name, index_prefix)
    }

    /// `name` as it stands in statements, `index_prefix` before the names of its indexes.
    pub fn named(dialect: Dialect, table: &'static Table, name: String, index_prefix: String) -> Stored {
        Stored {
            dialect,
            table,
            name,
            is_appended: AtomicBool::new(false),
            meets_new: AtomicBool::new(false),
            index_prefix,
            upsert: OnceLock::new(),
            delete: OnceLock::new(),
            load: OnceLock::new(),
        }
    }

    /// Does it get its key only when the generation is full?
    pub fn is_appended_while_built(&self) -> bool {
        self.dialect == Dialect::Postgres && self.table.kind == TableKind::Rollup
    }

    /// All columns as they are stored: of a journal, where the event stands comes first; of a rollup, the shard last.
    pub fn columns(&self) -> Vec<&'static Column> {
        let own = self.table.columns.iter();
        match self.table.kind {
            TableKind::Rollup => own.chain([SHARD]).collect(),
            TableKind::Entity | TableKind::Journal => self.table.hidden_columns().iter().chain(own).collect(),
        }
    }

    fn key(&self) -> Vec<&'static Column> {
        match self.table.kind {
            TableKind::Rollup => self.table.key_columns().iter().chain([SHARD]).collect(),
            TableKind::Entity | TableKind::Journal => self.table.row_key().iter().collect(),
        }
    }

    /// The statements that make the table, with the key by which new rows meet older ones.
    pub fn create(&self) -> Vec<String> {
        match self.table.kind {
            TableKind::Entity | TableKind::Rollup => self.create_with_key(self.key()),
            TableKind::Journal => self.create_without_key(),
        }
    }

    /// The statement that makes a table to which rows are only appended: a journal, or a rollup until [`merge_appended`](Self::merge_appended).
    pub fn create_without_key(&self) -> Vec<String> {
        self.create_with_key(vec![])
    }

    fn create_with_key(&self, key: Vec<&Column>) -> Vec<String> {
        let mut parts: Vec<String> = self
            .columns()
            .iter()
            .map(|column| {
                let null = if column.nullable { "" } else { " NOT NULL" };
                format!("{} {}{null}", quoted(column.name), type_name(self.dialect, column.ty))
            })
            .collect();
        let is_nullable = key.iter().any(|column| column.nullable);
        if !key.is_empty() && !is_nullable {
            parts.push(format!("PRIMARY KEY ({})", names(&key)));
        }
        let strict = match self.dialect {
            Dialect::Postgres => "",
            // A sum that overflows becomes a REAL, which a strict table refuses.
            Dialect::Sqlite => " STRICT",
        };
        let mut statements = vec![format!("CREATE TABLE {} ({}){strict}", self.name, parts.join(", "))];
        if is_nullable {
            statements.push(self.create_unique_index());
        }
        statements
    }

    fn create_unique_index(&self) -> String {
        let nulls = match self.dialect {
            Dialect::Postgres => " NULLS NOT DISTINCT",
            Dialect::Sqlite => "",
        };
        format!(
            "CREATE UNIQUE INDEX {} ON {} ({}){nulls}",
            quoted(&format!("{}_key", self.index_prefix)),
            self.name,
            self.conflict_target()
        )
    }

    fn add_key(&self) -> String {
        let key = self.key();
        match key.iter().any(|column| column.nullable) {
            true => self.create_unique_index(),
            false => format!("ALTER TABLE {} ADD PRIMARY KEY ({})", self.name, names(&key)),
        }
    }

    /// The statements that make what only questions need, as far as it is not there: large tables get it faster once they are full.
    pub fn create_indexes(&self) -> Vec<String> {
        let mut statements = vec![];
        if self.table.kind == TableKind::Journal {
            let name = quoted(&format!("{}_key", self.index_prefix));
            let key = names(&self.key());
            statements.push(format!(
                "CREATE UNIQUE INDEX IF NOT EXISTS {name} ON {} ({key})",
                self.name
            ));
        }
        for columns in self.indexes() {
            let by: Vec<&str> = columns.iter().map(|column| column.name).collect();
            statements.push(format!(
                "CREATE INDEX IF NOT EXISTS {} ON {} ({})",
                quoted(&format!("{}_by_{}", self.index_prefix, by.join("_"))),
                self.name,
                names(&columns)
            ));
        }
        statements
    }

    /// The columns that questions usually filter by, as far as the table has them.
    fn indexes(&self) -> Vec<Vec<&'static Column>> {
        let own = |name: &str| self.table.columns.iter().find(|column| column.name == name);
        match self.table.kind {
            TableKind::Entity => {
                let columns = ["customer", "owner", "status"].into_iter().filter_map(own);
                // The first key column is found by the key.
                let others = columns.filter(|column| self.table.key_columns().first() != Some(column));
                others.map(|column| vec![column]).collect()
            }
            TableKind::Rollup => vec![],
            TableKind::Journal => {
                let effective_at = own("effective_at").filter(|column| column.ty == ColumnType::Time);
                // A customer's story is read in order of time.
                let of_customer = own("customer").map(|customer| [customer].into_iter().chain(effective_at).collect());
                effective_at
                    .map(|column| vec![column])
                    .into_iter()
                    .chain(of_customer)
                    .collect()
            }
        }
    }

    /// Writes rows of all stored columns: an entity's replace, a rollup's are merged, a journal's are new. PostgreSQL takes an array per
    /// column, SQLite a value per column.
    pub fn upsert(&self) -> &str {
        self.upsert.get_or_init(|| self.make_upsert())
    }

    fn make_upsert(&self) -> String {
        let columns = self.columns();
        let source = match self.dialect {
            Dialect::Postgres => format!("SELECT * FROM {}", self.unnest(&columns)),
            Dialect::Sqlite => format!("VALUES ({})", numbered(columns.len())),
        };
        let insert = format!("INSERT INTO {} AS t ({}) {source}", self.name, names(&columns));
        if self.table.kind == TableKind::Journal {
            return insert;
        }
        let sets: Vec<String> = self.table.columns[self.table.key_len()..]
            .iter()
            .map(|column| {
                let name = quoted(column.name);
                format!("{name} = {}", self.merged_with_excluded(column))
            })
            .collect();
        let action = if sets.is_empty() {
            "NOTHING".to_owned()
        } else {
            format!("UPDATE SET {}", sets.join(", "))
        };
        format!("{insert} ON CONFLICT ({}) DO {action}", self.conflict_target())
    }

    /// Reads new rows in PostgreSQL's binary form.
    pub fn copy(&self) -> String {
        format!(
            "COPY {} ({}) FROM STDIN (FORMAT binary)",
            self.name,
            names(&self.columns())
        )
    }

    fn merged_with_excluded(&self, column: &Column) -> String {
        let name = quoted(column.name);
        let (old, new) = (format!("t.{name}"), format!("excluded.{name}"));
        if self.table.kind != TableKind::Rollup {
            return new;
        }
        let (least, greatest) = match self.dialect {
            Dialect::Postgres => ("LEAST", "GREATEST"),
            Dialect::Sqlite => ("min", "max"),
        };
        // SQLite's answer null when either is; PostgreSQL's leave nulls out.
        let compare = |function: &str| match self.dialect {
            Dialect::Sqlite if column.nullable => {
                format!("{function}(ifnull({old}, {new}), ifnull({new}, {old}))")
            }
            Dialect::Sqlite | Dialect::Postgres => format!("{function}({old}, {new})"),
        };
        match column.role {
            ColumnRole::Key | ColumnRole::Set | ColumnRole::Meta => new,
            ColumnRole::Sum if column.nullable => format!("COALESCE({old}, 0) + COALESCE({new}, 0)"),
            ColumnRole::Sum => format!("{old} + {new}"),
            ColumnRole::Min => compare(least),
            ColumnRole::Max => compare(greatest),
        }
    }

    /// Deletes entity rows. PostgreSQL takes an array per key column, SQLite a value per key column.
    pub fn delete(&self) -> &str {
        self.delete.get_or_init(|| self.make_delete())
    }

    fn make_delete(&self) -> String {
        let key = self.key();
        let condition = self.is_key(&key);
        match self.dialect {
            Dialect::Postgres => {
                let wanted = self.unnest(&key);
                format!(
                    "DELETE FROM {} AS t USING {wanted} AS k ({}) WHERE {condition}",
                    self.name,
                    names(&key)
                )
            }
            Dialect::Sqlite => format!("DELETE FROM {} AS t WHERE {condition}", self.name),
        }
    }

    /// Finds entity rows, all columns. Parameters as in [`delete`](Self::delete).
    pub fn load(&self) -> &str {
        self.load.get_or_init(|| self.make_load())
    }

    fn make_load(&self) -> String {
        let key = self.key();
        let columns: Vec<String> = self.table.columns.iter().map(|column| of_t(column.name)).collect();
        let wanted = match self.dialect {
            Dialect::Postgres => format!(" JOIN {} AS k ({}) ON ", self.unnest(&key), names(&key)),
            Dialect::Sqlite => " WHERE ".to_owned(),
        };
        format!(
            "SELECT {} FROM {} AS t{wanted}{}",
            columns.join(", "),
            self.name,
            self.is_key(&key)
        )
    }

    fn is_key(&self, key: &[&Column]) -> String {
        let parts: Vec<String> = key
            .iter()
            .enumerate()
            .map(|(i, column)| {
                let name = quoted(column.name);
                match (self.dialect, column.nullable) {
                    (Dialect::Postgres, false) => format!("t.{name} = k.{name}"),
                    (Dialect::Postgres, true) => format!("t.{name} IS NOT DISTINCT FROM k.{name}"),
                    (Dialect::Sqlite, false) => format!("t.{name} = ${}", i + 1),
                    (Dialect::Sqlite, true) => format!("ifnull(t.{name}, x'') = ifnull(${}, x'')", i + 1),
                }
            })
            .collect();
        parts.join(" AND ")
    }

    /// The unique key; in SQLite, where nulls are all different, an empty blob (which is no value of any column) stands for null.
    fn conflict_target(&self) -> String {
        let parts: Vec<String> = self
            .key()
            .iter()
            .map(|column| match self.dialect {
                Dialect::Sqlite if column.nullable => format!("ifnull({}, x'')", quoted(column.name)),
                Dialect::Sqlite | Dialect::Postgres => quoted(column.name),
            })
            .collect();
        parts.join(", ")
    }

    fn unnest(&self, columns: &[&Column]) -> String {
        let arrays: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(i, column)| format!("${}::{}[]", i + 1, array_type(column.ty)))
            .collect();
        format!("UNNEST({})", arrays.join(", "))
    }

    /// The table as people see it, as a select: a rollup's shards merged, all else as it is stored. Of the `Set` columns of a rollup, which
    /// should be the same in every shard, the greatest is shown.
    pub fn merged(&self) -> String {
        match self.table.kind {
            TableKind::Entity | TableKind::Journal => {
                format!("SELECT {} FROM {} AS t", names_of_t(&self.columns()), self.name)
            }
            TableKind::Rollup => self.merged_by(self.table.key_columns().iter().collect(), None),
        }
    }

    /// The statements by which PostgreSQL merges the rows of a rollup that were only appended, and gives it its key.
    pub fn merge_appended(&self) -> Vec<String> {
        let columns = names(&self.columns());
        let merged = self.merged_by(self.key(), Some(SHARD));
        vec![
            format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", self.name),
            format!("CREATE TEMPORARY TABLE merged ON COMMIT DROP AS {merged}"),
            format!("TRUNCATE {}", self.name),
            format!(
                "INSERT INTO {} ({columns}) SELECT {columns} FROM pg_temp.merged",
                self.name
            ),
            self.add_key(),
        ]
    }

    /// A rollup's rows merged by a key, and what else of it is shown.
    fn merged_by(&self, key: Vec<&Column>, shown: Option<&Column>) -> String {
        let mut columns: Vec<String> = self
            .table
            .columns
            .iter()
            .map(|column| {
                let name = quoted(column.name);
                match column.role {
                    ColumnRole::Key => of_t(column.name),
                    // A sum of nulls is nought, whether one shard added them or two.
                    ColumnRole::Sum if column.nullable => format!("COALESCE({}, 0) AS {name}", self.sum(column)),
                    ColumnRole::Sum => format!("{} AS {name}", self.sum(column)),
                    ColumnRole::Min => format!("{} AS {name}", self.least(column)),
                    ColumnRole::Set | ColumnRole::Meta | ColumnRole::Max => {
                        format!("{} AS {name}", self.greatest(column))
                    }
                }
            })
            .collect();
        columns.extend(shown.map(|column| of_t(column.name)));
        let group = if key.is_empty() {
            // Without a key there is one row, but none before the first delta.
            "HAVING COUNT(*) > 0".to_owned()
        } else {
            format!("GROUP BY {}", names_of_t(&key))
        };
        format!("SELECT {} FROM {} AS t {group}", columns.join(", "), self.name)
    }

    fn sum(&self, column: &Column) -> String {
        let name = of_t(column.name);
        match self.dialect {
            // The sum of bigints is a numeric; the cast refuses what a bigint cannot hold.
            Dialect::Postgres => format!("SUM({name})::bigint"),
            Dialect::Sqlite => format!("SUM({name})"),
        }
    }

    fn least(&self, column: &Column) -> String {
        self.extreme("MIN", "ASC", column)
    }

    fn greatest(&self, column: &Column) -> String {
        self.extreme("MAX", "DESC", column)
    }

    fn extreme(&self, function: &str, direction: &str, column: &Column) -> String {
        let name = of_t(column.name);
        let is_unknown_to_postgres = matches!(column.ty, ColumnType::Uuid | ColumnType::Bool | ColumnType::Json);
        if self.dialect == Dialect::Postgres && is_unknown_to_postgres {
            format!("(array_agg({name} ORDER BY {name} {direction} NULLS LAST))[1]")
        } else {
            format!("{function}({name})")
        }
    }

    fn column(&self, name: &str) -> Result<&'static Column, String> {
        self.table
            .column(name)
            .ok_or_else(|| format!("table {} has no column {name:?}", self.table.name))
    }

    fn comparable(&self, name: &str) -> Result<&'static Column, String> {
        let column = self.column(name)?;
        if column.ty == ColumnType::Json {
            return Err(format!(
                "column {name:?} of table {} holds JSON, which is not grouped, ordered or compared",
                self.table.name
            ));
        }
        Ok(column)
    }

    fn summable(&self, name: &str) -> Result<&'static Column, String> {
        let column = self.column(name)?;
        if column.ty != ColumnType::Int {
            return Err(format!(
                "column {name:?} of table {} is no number to add",
                self.table.name
            ));
        }
        Ok(column)
    }
}

/// The rows of a batch as they are stored, in the order of [`Stored::columns`]: those that meet older ones, and those that are new (most
/// likely so, of an entity).
///
/// # Errors
/// A value that no store can keep, as a sentence without the value.
pub(crate) fn rows<'a>(
    change: &'a TableChange,
    shard: u16,
) -> Result<(Vec<StoredRow<'a>>, Vec<StoredRow<'a>>), String> {
    let table = change.table;
    let int = |number: i64| Cow::Owned(Value::Int(number));
    let own = |values: &'a [Value]| values.iter().map(Cow::Borrowed);
    let entities = |rows: &'a [Vec<Value>]| rows.iter().map(|values| own(values).collect()).collect();
    let (older, new): (Vec<StoredRow<'a>>, Vec<StoredRow<'a>>) = match table.kind {
        TableKind::Entity => (entities(&change.upserts), entities(&change.inserts)),
        TableKind::Rollup => {
            let deltas = change.deltas.iter();
            let deltas = deltas.map(|values| own(values).chain([int(i64::from(shard))]).collect());
            (deltas.collect(), vec![])
        }
        TableKind::Journal => {
            let appends = change.appends.iter().map(|(offset, row, values)| {
                let place = [int(i64::from(shard)), int(offset.cast_signed()), int(*row)];
                place.into_iter().chain(own(values)).collect()
            });
            (vec![], appends.collect())
        }
    };
    let hidden = table.hidden_columns().len();
    for row in older.iter().chain(&new) {
        for (column, value) in table.columns.iter().zip(&row[hidden..]) {
            check(table, column, value)?;
        }
    }
    Ok((older, new))
}

/// A row as it is stored.
pub(crate) type StoredRow<'a> = Vec<Cow<'a, Value>>;

/// The keys of entity rows, after checking that they fit the table.
///
/// # Errors
/// A key that does not fit, or a table that is read otherwise, as a sentence.
pub(crate) fn entity_keys<'a>(table: &Table, keys: &'a [Key]) -> Result<&'a [Key], String> {
    if table.kind != TableKind::Entity {
        return Err(format!("table {} has no rows to be found by key", table.name));
    }
    for key in keys {
        if key.len() != table.key_len() {
            return Err(format!("a key of table {} has {} columns", table.name, table.key_len()));
        }
        for (column, value) in table.key_columns().iter().zip(key) {
            check(table, column, value)?;
        }
    }
    Ok(keys)
}

/// The keys of the rows that a batch removes.
///
/// # Errors
/// As [`entity_keys`].
pub(crate) fn removed_keys(change: &TableChange) -> Result<&[Key], String> {
    match change.removes.is_empty() {
        true => Ok(&[]),
        false => entity_keys(change.table, &change.removes),
    }
}

fn check(table: &Table, column: &Column, value: &Value) -> Result<(), String> {
    if !is_of(column.ty, value) {
        return Err(misfit(table, column));
    }
    let problem = match value {
        Value::Text(text) if text.contains('\0') => "the character NUL",
        Value::Date(date) if *date < FIRST_DATE => "a date before the year 0",
        Value::Time(time) if *time < first_time() => "a time before the year 0",
        Value::Json(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() => "broken JSON",
        _ => return Ok(()),
    };
    Err(format!(
        "column {:?} of table {} was given {problem}",
        column.name, table.name
    ))
}

fn misfit(table: &Table, column: &Column) -> String {
    format!(
        "column {:?} of table {} was given another type of value",
        column.name, table.name
    )
}

fn is_of(ty: ColumnType, value: &Value) -> bool {
    type_of(value).is_none_or(|own| own == ty)
}

/// `None` for null, which is of every type.
pub(crate) fn type_of(value: &Value) -> Option<ColumnType> {
    Some(match value {
        Value::Null => return None,
        Value::Uuid(_) => ColumnType::Uuid,
        Value::Text(_) => ColumnType::Text,
        Value::Int(_) => ColumnType::Int,
        Value::Bool(_) => ColumnType::Bool,
        Value::Date(_) => ColumnType::Date,
        Value::Time(_) => ColumnType::Time,
        Value::Json(_) => ColumnType::Json,
    })
}

/// PostgreSQL begins in 4713 BC, and ISO text orders right from the year 0 on: that is where the stores begin.
const FIRST_DATE: Date = Date::constant(0, 1, 1);

fn first_time() -> Timestamp {
    Timestamp::constant(-62_167_219_200, 0)
}

/// What stores keep of a time is its whole microseconds. (`Timestamp::from_microsecond` refuses the very last second.)
pub(crate) fn time_at(microsecond: i64) -> Option<Timestamp> {
    let (second, rest) = (microsecond.div_euclid(1_000_000), microsecond.rem_euclid(1_000_000));
    Timestamp::new(second, rest as i32 * 1000).ok()
}

const SHARD: &Column = &Table::JOURNAL_KEY[0];

/// `name` as an identifier.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn names(columns: &[&Column]) -> String {
    let names: Vec<String> = columns.iter().map(|column| quoted(column.name)).collect();
    names.join(", ")
}

/// `t."name"`: a column of the table, whatever the columns of the answer are called.
fn of_t(name: &str) -> String {
    format!("t.{}", quoted(name))
}

fn names_of_t(columns: &[&Column]) -> String {
    let names: Vec<String> = columns.iter().map(|column| of_t(column.name)).collect();
    names.join(", ")
}

/// `$1, $2, …`
fn numbered(count: usize) -> String {
    let parameters: Vec<String> = (1..=count).map(|i| format!("${i}")).collect();
    parameters.join(", ")
}

/// A column's type.
pub(crate) fn type_name(dialect: Dialect, ty: ColumnType) -> &'static str {
    match (dialect, ty) {
        (Dialect::Postgres, ColumnType::Text) => "text COLLATE \"C\"",
        (Dialect::Postgres, ty) => array_type(ty),
        (Dialect::Sqlite, ColumnType::Uuid) => "BLOB",
        (Dialect::Sqlite, ColumnType::Text | ColumnType::Date | ColumnType::Json) => "TEXT",
        (Dialect::Sqlite, ColumnType::Int | ColumnType::Bool | ColumnType::Time) => "INTEGER",
    }
}

/// PostgreSQL's own name of a type.
fn array_type(ty: ColumnType) -> &'static str {
    match ty {
        ColumnType::Uuid => "uuid",
        ColumnType::Text => "text",
        ColumnType::Int => "bigint",
        ColumnType::Bool => "boolean",
        ColumnType::Date => "date",
        ColumnType::Time => "timestamptz",
        ColumnType::Json => "jsonb",
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn the_tables_of_so_many_generations_are_remembered_and_no_more() {
        let tables = StoredTables::new(Dialect::Postgres);
        let generation = |number| Generation {
            group: Group::Sales,
            number,
            definition: String::new(),
            status: GenerationStatus::Live,
            shards: 1,
        };
        let table = Group::Sales.tables().next().expect("a group has tables");
        let first = tables.get(&generation(1), table);
        assert!(Arc::ptr_eq(&first, &tables.get(&generation(1), table)));
        for number in 2..100 {
            tables.get(&generation(number), table);
            let known = tables.known.lock().unwrap().len() as i64;
            assert_eq!(known, number.min(GENERATIONS_REMEMBERED));
        }
        let latest = tables.get(&generation(99), table);
        assert!(Arc::ptr_eq(&latest, &tables.get(&generation(99), table)));
    }
}
