//! What every read store keeps to: one suite, bound to SQLite and to PostgreSQL.
//!
//! It runs over the tables of all read models and over a few of its own, which have what read models may have one day:
//! nullable keys, a roll-up without a key, JSON. What a store answers is compared with a [`Model`] in memory.

#[path = "view_contract/dice.rs"]
mod dice;
#[path = "view_contract/model.rs"]
mod model;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::Calendar;
use infra::views::{PostgresViews, SqliteViews};
use jiff::Timestamp;
use jiff::civil::Date;
use projections::{
    ColumnRole, ColumnType, Expr, Group, Key, Op, Order, Question, READ_MODELS, ReadModel, Row, Select, Table,
    TableChange, TableKind, Value,
};
use services::clock::SystemClock;
use services::log::Checkpoint;
use services::states::{StateError, StateStore};
use services::views::{
    Ask, AskError, CHECKSUM_ROWS_MAX, Generation, GenerationStatus, Queries, ReadStore, ViewError, logs_of,
};
use tempfile::TempDir;
use tests::{Database, Server, unique_topic};
use tokio_postgres::NoTls;
use uuid::Uuid;

use dice::Dice;
use model::Model;

/// Each of these functions runs on both stores.
macro_rules! on_both_stores {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&super::sqlite().await).await;
            })+
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&super::postgres().await).await;
            })+
        }
    };
}

on_both_stores! {
    every_table_gives_back_what_it_was_given,
    filters_orders_limits_and_sums_are_exact,
    page_by_page_a_table_gives_each_row_once_in_the_order_of_its_key,
    an_answer_has_so_many_bytes_and_no_more,
    a_checksum_is_of_all_rows_of_a_table_however_many,
    a_journal_ends_where_it_was_known,
    of_two_workers_at_once_one_moves_the_checkpoint,
    a_refused_batch_changes_nothing,
    sums_that_do_not_fit_are_refused,
    rows_and_checkpoints_are_of_one_snapshot,
    shards_write_to_one_rollup_at_the_same_time,
    generations_swap_and_swap_back,
    who_goes_live_late_undoes_no_rollback,
    a_half_built_generation_goes_on_or_is_dropped,
    what_is_built_without_keys_comes_to_the_same,
    batches_that_meet_a_new_key_at_the_same_time_are_all_written,
    indexes_that_were_left_out_are_made_later,
    views_come_and_go_with_the_tables,
    two_creates_at_once_make_one_generation,
    every_group_can_be_created,
    a_noted_stop_is_cleared_by_a_commit,
    what_does_not_fit_is_refused_in_words,
}

const SHARDS: u16 = 8;
/// The group that the suite's own tables are built in.
const GROUP: Group = Group::Sales;

projections::table! {
    entity Thing "suite_things" {
        key thing: Uuid,
        key part: Option<i64>,
        set customer: Option<Uuid>,
        set owner: Option<String>,
        set status: String,
        set is_open: Option<bool>,
        set due: Option<Date>,
        meta seen_at: Option<Timestamp>,
        set amount: Option<i64>,
        set tags: Vec<String>,
    }
}

projections::table! {
    entity Mark "suite_marks" { key mark: Uuid }
}

projections::table! {
    rollup Total "suite_totals" {
        key country: Option<String>,
        key month: Date,
        sum amount: i64,
        sum discount: Option<i64>,
        min first: Option<Timestamp>,
        max last: Timestamp,
        min least: Option<Uuid>,
        max greatest: Uuid,
        min all_paid: bool,
        max any_paid: Option<bool>,
        max name: Option<String>,
        min small: i64,
    }
}

projections::table! {
    rollup Grand "suite_grand_total" { sum count: i64, max last: Option<Date> }
}

projections::table! {
    journal Entry "suite_entries" {
        set customer: Option<Uuid>,
        set effective_at: Timestamp,
        set amount: i64,
        set text: String,
        set about: Vec<String>,
    }
}

const OWN_TABLES: [&Table; 5] = [Thing::TABLE, Mark::TABLE, Total::TABLE, Grand::TABLE, Entry::TABLE];

/// The suite's own and those of all read models.
fn all_tables() -> Vec<&'static Table> {
    let mut tables: Vec<&'static Table> = OWN_TABLES.to_vec();
    for table in READ_MODELS.iter().flat_map(|model| model.tables) {
        // Several read models may stand on one table.
        if !tables.iter().any(|known| known.name == table.name) {
            tables.push(table);
        }
    }
    tables
}

// ---------------------------------------------------------------------------------------------------- stores

/// A store of a test's own.
struct Subject {
    views: Arc<dyn ReadStore>,
    ground: Ground,
}

enum Ground {
    Sqlite(Arc<SqliteViews>, TempDir),
    Postgres(Arc<PostgresViews>, Database),
}

async fn sqlite() -> Subject {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteViews::open(folder.path()).await.unwrap());
    Subject {
        views: store.clone(),
        ground: Ground::Sqlite(store, folder),
    }
}

async fn postgres() -> Subject {
    let database = Database::create();
    let store = Arc::new(PostgresViews::connect(database.url()).await.unwrap());
    Subject {
        views: store.clone(),
        ground: Ground::Postgres(store, database),
    }
}

impl Subject {
    /// A generation of these tables.
    async fn create_with(&self, definition: &str, tables: &[&'static Table]) -> Generation {
        let created = match &self.ground {
            Ground::Sqlite(store, _) => store.create_with(GROUP, definition, tables, SHARDS).await,
            Ground::Postgres(store, _) => store.create_with(GROUP, definition, tables, SHARDS).await,
        };
        created.unwrap()
    }

    /// How many rows a public view shows; `None` when there is no such view.
    async fn public_rows(&self, view: &str) -> Option<i64> {
        match &self.ground {
            Ground::Sqlite(_, folder) => {
                let connection = rusqlite::Connection::open(folder.path().join("views.db")).unwrap();
                let count = format!("SELECT COUNT(*) FROM {view}");
                connection.query_row(&count, [], |row| row.get(0)).ok()
            }
            Ground::Postgres(_, database) => {
                let connected = tokio_postgres::connect(database.url(), tokio_postgres::NoTls).await;
                let (client, connection) = connected.unwrap();
                tokio::spawn(connection);
                let count = format!("SELECT COUNT(*) FROM crm.{view}");
                Some(client.query_one(&count, &[]).await.ok()?.get(0))
            }
        }
    }

    /// One select's rows.
    async fn rows(&self, generation: &Generation, select: Select) -> Vec<Vec<Value>> {
        let mut snapshot = self.views.query(generation, &[select]).await.unwrap();
        snapshot.results.remove(0)
    }

    /// The rows under these keys, loaded as the worker of shard 0 does.
    async fn load_all(&self, generation: &Generation, table: &'static Table, keys: &[Key]) -> Vec<Vec<Value>> {
        let at = self.views.checkpoint(generation, 0).await.unwrap();
        let found = self.views.load(generation, 0, at.as_ref(), table, keys);
        found.await.unwrap()
    }

    /// Some batches of random rows, and the model of what they came to.
    async fn fill(&self, generation: &Generation, seed: u64, size: usize) -> Model {
        let mut model = Model::default();
        commit_all(self.views.as_ref(), generation, batches(seed, size), &mut model).await;
        model
    }

    /// The same store as another process has it.
    async fn of_another_process(&self) -> Arc<dyn ReadStore> {
        match &self.ground {
            Ground::Sqlite(_, folder) => Arc::new(SqliteViews::open(folder.path()).await.unwrap()),
            Ground::Postgres(_, database) => Arc::new(PostgresViews::connect(database.url()).await.unwrap()),
        }
    }

    async fn make_indexes(&self, generation: &Generation) {
        let tables = all_tables();
        let made = match &self.ground {
            Ground::Sqlite(store, _) => store.make_indexes_of(generation, &tables).await,
            Ground::Postgres(store, _) => store.make_indexes_of(generation, &tables).await,
        };
        made.unwrap();
    }

    /// The names of the indexes of a generation's tables.
    async fn indexes(&self, generation: &Generation) -> BTreeSet<String> {
        let (group, number) = (generation.group.name(), generation.number);
        match &self.ground {
            Ground::Sqlite(_, folder) => {
                let connection = rusqlite::Connection::open(folder.path().join("views.db")).unwrap();
                let prefix = format!("{group}_g{number}_");
                let named = "SELECT substr(name, length(?1) + 1) FROM sqlite_master WHERE type = 'index' \
                     AND substr(name, 1, length(?1)) = ?1";
                let mut statement = connection.prepare(named).unwrap();
                let names = statement.query_map([prefix], |row| row.get(0)).unwrap();
                names.collect::<Result<_, _>>().unwrap()
            }
            Ground::Postgres(_, database) => {
                let connected = tokio_postgres::connect(database.url(), NoTls).await;
                let (client, connection) = connected.unwrap();
                tokio::spawn(connection);
                let named = "SELECT indexname::text FROM pg_indexes WHERE schemaname = $1";
                let schema = format!("crm_{group}_g{number}");
                let rows = client.query(named, &[&schema]).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
        }
    }

    /// All rows of all tables are those of the model.
    async fn holds(&self, generation: &Generation, model: &Model) {
        for table in all_tables() {
            let rows = self.rows(generation, everything(table)).await;
            assert_eq!(rows, model.rows(table), "{}", table.name);
        }
    }
}

async fn commit_all(views: &dyn ReadStore, generation: &Generation, batches: Vec<Batch>, model: &mut Model) {
    for (shard, changes) in batches {
        let expected = views.checkpoint(generation, shard).await.unwrap();
        let next = after(expected.as_ref(), 1000);
        let committed = views.commit(generation, shard, expected.as_ref(), &next, &changes);
        committed.await.unwrap();
        for change in &changes {
            model.apply(shard, change);
        }
    }
}

/// A shard, and what a batch did to the tables.
type Batch = (u16, Vec<TableChange>);

/// Six batches for two shards, over all tables.
fn batches(seed: u64, size: usize) -> Vec<Batch> {
    batches_from(0, seed, size)
}

/// The same, of a later part of the log.
fn batches_from(first: u64, seed: u64, size: usize) -> Vec<Batch> {
    let mut dice = Dice::seeded(seed);
    let mut batches = Vec::new();
    for round in first..first + 3 {
        for shard in [0, 5] {
            let mut change = |table: &&'static Table| dice.change(table, round * 1000, size);
            batches.push((shard, all_tables().iter().map(&mut change).collect()));
        }
    }
    batches
}

fn after(checkpoint: Option<&Checkpoint>, events: u64) -> Checkpoint {
    Checkpoint {
        log_id: Uuid::from_u128(77),
        next: checkpoint.map_or(0, |checkpoint| checkpoint.next) + events,
        epoch: 1,
        n: checkpoint.map_or(0, |checkpoint| checkpoint.n) + events,
        // Needs all 64 bits.
        fingerprint: u64::MAX - events,
    }
}

fn mark(number: u128) -> TableChange {
    let mark = Mark {
        mark: Uuid::from_u128(number),
    };
    TableChange {
        upserts: vec![mark.into_values()],
        ..TableChange::nothing(Mark::TABLE)
    }
}

fn grand(count: i64) -> TableChange {
    TableChange {
        deltas: vec![Grand { count, last: None }.into_values()],
        ..TableChange::nothing(Grand::TABLE)
    }
}

fn marks() -> Select {
    Select::all(Mark::TABLE)
}

/// All columns, with those that are hidden.
fn everything(table: &'static Table) -> Select {
    let columns = table.hidden_columns().iter().chain(table.columns);
    Select::of(table, columns.map(|column| Expr::Column(column.name)))
}

// ------------------------------------------------------------------------------------------------------ rows

async fn every_table_gives_back_what_it_was_given(subject: &Subject) {
    let generation = subject.create_with("a", &all_tables()).await;
    for seed in [1, 2] {
        let generation = match seed {
            1 => generation.clone(),
            // Large enough for PostgreSQL's COPY; beside the first one.
            _ => subject.create_with("b", &all_tables()).await,
        };
        let model = subject.fill(&generation, seed, [12, 300][seed as usize - 1]).await;
        for table in all_tables() {
            let rows = subject.rows(&generation, everything(table)).await;
            assert_eq!(rows, model.rows(table), "{}", table.name);
            if table.kind != TableKind::Entity {
                continue;
            }
            let mut dice = Dice::seeded(seed + 100);
            let key = |row: &[Value]| row[..table.key_len()].to_vec();
            let mut wanted: Vec<_> = model.rows(table).iter().step_by(2).map(|row| key(row)).collect();
            wanted.extend((0..5).map(|_| key(&dice.row(table))));
            wanted.sort();
            wanted.dedup();
            let mut found = subject.load_all(&generation, table, &wanted).await;
            found.sort();
            let mut expected = model.rows(table);
            expected.retain(|row| wanted.contains(&key(row)));
            assert_eq!(found, expected, "{}", table.name);
            assert!(!expected.is_empty());
            assert_eq!(
                subject.load_all(&generation, table, &[]).await,
                Vec::<Vec<Value>>::new()
            );
        }
    }
}

/// Selects of every kind on a table whose rows are in the model.
fn selects(table: &'static Table, model: &Model, dice: &mut Dice) -> Vec<Select> {
    let rows = model.rows(table);
    let mut selects = Vec::new();
    let comparable: Vec<_> = table
        .columns
        .iter()
        .filter(|column| column.ty != ColumnType::Json)
        .collect();
    for column in table.columns {
        for op in [Op::Eq, Op::Ne, Op::Lt, Op::Le, Op::Gt, Op::Ge] {
            selects.push(everything(table).filter(column.name, op, Value::Null));
            if column.ty == ColumnType::Json {
                continue;
            }
            let stored = dice.pick(&rows)[model::place(table, column.name)].clone();
            selects.push(everything(table).filter(column.name, op, stored));
            let other = dice.value(column);
            selects.push(everything(table).filter(column.name, op, other));
        }
        // One of none, of one, of several, and of several or no value.
        let several: Vec<Value> = match column.ty {
            ColumnType::Json => vec![],
            _ => (0..3)
                .map(|_| dice.pick(&rows)[model::place(table, column.name)].clone())
                .collect(),
        };
        let with_null: Vec<Value> = several.iter().cloned().chain([Value::Null]).collect();
        for values in [vec![], vec![Value::Null], several, with_null] {
            selects.push(everything(table).filter_any(column.name, Op::In, values));
        }
    }
    // Earlier and later than anything.
    for column in &comparable {
        let ends = match column.ty {
            ColumnType::Date => [Value::Date(Date::MIN), Value::Date(Date::MAX)],
            ColumnType::Time => [Value::Time(Timestamp::MIN), Value::Time(Timestamp::MAX)],
            _ => continue,
        };
        for end in ends {
            selects.push(everything(table).filter(column.name, Op::Ge, end.clone()));
            selects.push(everything(table).filter(column.name, Op::Le, end));
        }
    }
    for _ in 0..40 {
        let mut select = everything(table);
        select.order = orders(&comparable, dice);
        select.limit = (!dice.one_in(3)).then(|| dice.below(rows.len() + 2));
        if dice.one_in(2) {
            let column = dice.pick(&comparable);
            let value = dice.value(column);
            select = select.filter(column.name, *dice.pick(&[Op::Le, Op::Ge, Op::Ne]), value);
        }
        if dice.one_in(3) {
            select.after = Some(dice.pick(&rows)[..table.row_key().len()].to_vec());
        }
        selects.push(select);
    }
    for _ in 0..40 {
        let mut exprs = vec![Expr::Count];
        let mut asked = Vec::new();
        for column in &comparable {
            // Sums of what may be the largest number do not fit.
            let is_summable = column.role == ColumnRole::Sum;
            match dice.below(6) {
                0 => exprs.push(Expr::Column(column.name)),
                1 => exprs.push(Expr::Min(column.name)),
                2 => exprs.push(Expr::Max(column.name)),
                3 if is_summable => exprs.push(Expr::Sum(column.name)),
                _ => continue,
            }
            asked.push(*column);
        }
        let mut select = Select::of(table, exprs);
        if !asked.is_empty() && dice.one_in(2) {
            select.order = orders(&asked, dice);
        }
        select.limit = dice.one_in(2).then(|| dice.below(10));
        if dice.one_in(3) {
            let column = dice.pick(&comparable);
            let value = dice.value(column);
            select = select.filter(column.name, *dice.pick(&[Op::Lt, Op::Gt, Op::Eq]), value);
        }
        selects.push(select);
    }
    selects
}

fn orders(columns: &[&projections::Column], dice: &mut Dice) -> Vec<Order> {
    let mut order = |_| Order {
        column: dice.pick(columns).name,
        descending: dice.one_in(2),
    };
    let first = order(());
    let second = order(());
    match first.column == second.column {
        true => vec![first],
        false => vec![first, second],
    }
}

async fn filters_orders_limits_and_sums_are_exact(subject: &Subject) {
    let generation = subject.create_with("a", &all_tables()).await;
    let model = subject.fill(&generation, 3, 40).await;
    let mut dice = Dice::seeded(4);
    for table in all_tables() {
        let selects = selects(table, &model, &mut dice);
        let snapshot = subject.views.query(&generation, &selects).await.unwrap();
        for (select, rows) in selects.iter().zip(snapshot.results) {
            assert_eq!(rows, model.answer(select), "{select:?}");
        }
    }
}

/// However many rows there are, and whatever is null in their keys.
async fn page_by_page_a_table_gives_each_row_once_in_the_order_of_its_key(subject: &Subject) {
    let generation = subject.create_with("a", &all_tables()).await;
    let model = subject.fill(&generation, 8, 40).await;
    for table in all_tables() {
        let mut page = everything(table);
        page.limit = Some(7);
        let mut found = vec![];
        loop {
            let rows = subject.rows(&generation, page.clone()).await;
            let Some(last) = rows.last() else {
                break;
            };
            page.after = Some(last[..table.row_key().len()].to_vec());
            found.extend(rows);
        }
        assert_eq!(found, model.rows(table), "{}", table.name);
    }
}

/// What would not fit in memory is not gathered there; the store answers the next question.
async fn an_answer_has_so_many_bytes_and_no_more(subject: &Subject) {
    let generation = subject.create_with("a", &all_tables()).await;
    let model = subject.fill(&generation, 10, 200).await;
    let mut select = everything(Entry::TABLE);
    let rows = model.answer(&select);
    let bytes: usize = rows.iter().flatten().map(Value::bytes).sum();
    select.bytes_max = bytes;
    assert_eq!(subject.rows(&generation, select.clone()).await, rows);
    select.bytes_max = bytes - 1;
    let too_large = [vec![select.clone()], vec![marks(), select]];
    for selects in too_large {
        let refused = subject.views.query(&generation, &selects).await.unwrap_err();
        assert!(
            matches!(refused, ViewError::TooLarge(max) if max == bytes - 1),
            "{refused}"
        );
    }
    subject.holds(&generation, &model).await;
}

/// It reads a page at a time, and forgets none.
async fn a_checksum_is_of_all_rows_of_a_table_however_many(subject: &Subject) {
    let is_one_journal = |model: &&ReadModel| matches!(model.tables, [table] if table.kind == TableKind::Journal);
    let read_model = READ_MODELS.iter().copied().find(is_one_journal).unwrap();
    let table = read_model.tables[0];
    let generation = subject.views.create(read_model.group, SHARDS).await.unwrap();
    subject.views.make_indexes(&generation).await.unwrap();
    subject.views.promote(&generation).await.unwrap();
    let queries = Queries::new(Arc::clone(&subject.views), Arc::new(SystemClock), Calendar::taipei());
    let mut dice = Dice::seeded(9);
    let mut rows = 0;
    let mut checksums = BTreeSet::new();
    // Just a page; one row more; one page more.
    for (offset, more) in [(0, CHECKSUM_ROWS_MAX), (1_000_000, 1), (2_000_000, CHECKSUM_ROWS_MAX)] {
        let batch = (3, vec![dice.change(table, offset, more)]);
        commit_all(subject.views.as_ref(), &generation, vec![batch], &mut Model::default()).await;
        rows += more;
        let (checksum, found) = queries.checksum(read_model).await.unwrap();
        assert_eq!(found, rows);
        checksums.insert(checksum);
    }
    assert_eq!(checksums.len(), 3);
}

async fn a_journal_ends_where_it_was_known(subject: &Subject) {
    let generation = subject.create_with("a", &all_tables()).await;
    let model = subject.fill(&generation, 5, 60).await;
    for table in all_tables()
        .into_iter()
        .filter(|table| table.kind == TableKind::Journal)
    {
        let all = model.rows(table).len();
        let untils = [
            (vec![], 0..1),
            (vec![(0, 7)], 1..all),
            (vec![(5, 1000), (0, 3)], 1..all),
            (vec![(0, u64::MAX), (5, u64::MAX), (6, 9)], all..all + 1),
        ];
        for (until, count) in untils {
            let mut select = everything(table);
            select.until = Some(until);
            let rows = subject.rows(&generation, select.clone()).await;
            assert_eq!(rows, model.answer(&select), "{select:?}");
            assert!(count.contains(&rows.len()), "{} rows of {select:?}", rows.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_stores_answer_alike() {
    let (sqlite, postgres) = (sqlite().await, postgres().await);
    let mut answers = Vec::new();
    for subject in [&sqlite, &postgres] {
        let generation = subject.create_with("a", &all_tables()).await;
        let model = subject.fill(&generation, 6, 80).await;
        let mut dice = Dice::seeded(7);
        let tables = all_tables();
        let selects: Vec<Select> = tables
            .iter()
            .flat_map(|table| selects(table, &model, &mut dice))
            .collect();
        answers.push(subject.views.query(&generation, &selects).await.unwrap());
    }
    assert_eq!(answers[0], answers[1]);
}

// ------------------------------------------------------------------------------------------------ checkpoints

async fn of_two_workers_at_once_one_moves_the_checkpoint(subject: &Subject) {
    let generation = subject.create_with("a", &OWN_TABLES).await;
    let mut expected: Option<Checkpoint> = None;
    for round in 0..20 {
        let worker = |number: u64| {
            let (views, generation, expected) = (subject.views.clone(), generation.clone(), expected.clone());
            tokio::spawn(async move {
                let next = after(expected.as_ref(), number);
                let changes = [mark(u128::from(round * 2 + number)), grand(1)];
                let committed = views.commit(&generation, 3, expected.as_ref(), &next, &changes).await;
                (next, committed)
            })
        };
        let (one, other) = tokio::join!(worker(1), worker(2));
        let (winner, loser) = match (one.unwrap(), other.unwrap()) {
            ((next, Ok(())), (_, Err(error))) | ((_, Err(error)), (next, Ok(()))) => (next, error),
            both => panic!("one must win and the other be told: {both:?}"),
        };
        assert!(matches!(loser, ViewError::Moved), "{loser}");
        assert_eq!(
            subject.views.checkpoint(&generation, 3).await.unwrap(),
            Some(winner.clone())
        );
        expected = Some(winner);
    }
    assert_eq!(subject.rows(&generation, marks()).await.len(), 20);
    assert_eq!(
        subject.rows(&generation, Select::all(Grand::TABLE)).await[0][0],
        Value::Int(20)
    );

    // Whoever expects a first or an older checkpoint, or one that differs in a single field, is too late.
    let expected = expected.unwrap();
    let next = after(Some(&expected), 5);
    let mut wrong = vec![None];
    let mut differing = |change: &dyn Fn(&mut Checkpoint)| {
        let mut other = expected.clone();
        change(&mut other);
        wrong.push(Some(other));
    };
    differing(&|checkpoint| checkpoint.log_id = Uuid::from_u128(78));
    differing(&|checkpoint| checkpoint.next -= 1);
    differing(&|checkpoint| checkpoint.epoch += 1);
    differing(&|checkpoint| checkpoint.n += 1);
    differing(&|checkpoint| checkpoint.fingerprint ^= 1 << 63);
    for wrong in wrong {
        let committed = subject
            .views
            .commit(&generation, 3, wrong.as_ref(), &next, &[mark(9999)])
            .await;
        assert!(matches!(committed, Err(ViewError::Moved)), "{wrong:?}: {committed:?}");
        // Nor are rows given to fold on.
        let key = vec![Value::Uuid(Uuid::from_u128(1))];
        let loaded = subject
            .views
            .load(&generation, 3, wrong.as_ref(), Mark::TABLE, &[key])
            .await;
        assert!(matches!(loaded, Err(ViewError::Moved)), "{wrong:?}: {loaded:?}");
    }
    assert_eq!(subject.rows(&generation, marks()).await.len(), 20);
    assert_eq!(subject.views.checkpoint(&generation, 4).await.unwrap(), None);
}

async fn a_refused_batch_changes_nothing(subject: &Subject) {
    let generation = subject.create_with("a", &OWN_TABLES).await;
    let first = after(None, 1);
    let changes = [mark(1), grand(i64::MAX)];
    subject
        .views
        .commit(&generation, 0, None, &first, &changes)
        .await
        .unwrap();

    let next = after(Some(&first), 1);
    let changes = [mark(2), grand(1), mark(3)];
    let refused = subject
        .views
        .commit(&generation, 0, Some(&first), &next, &changes)
        .await;
    assert!(matches!(refused, Err(ViewError::Refused(_))), "{refused:?}");

    assert_eq!(
        subject.views.checkpoint(&generation, 0).await.unwrap(),
        Some(first.clone())
    );
    assert_eq!(subject.rows(&generation, marks()).await.len(), 1);
    let mended = [mark(2), grand(-1)];
    subject
        .views
        .commit(&generation, 0, Some(&first), &next, &mended)
        .await
        .unwrap();
    assert_eq!(subject.rows(&generation, marks()).await.len(), 2);
}

async fn sums_that_do_not_fit_are_refused(subject: &Subject) {
    let generation = subject.create_with("a", &OWN_TABLES).await;
    let mut expected = None;
    for (before, more) in [
        (i64::MAX, 1),
        (i64::MIN, -1),
        (i64::MIN, i64::MIN),
        (i64::MAX, i64::MAX),
    ] {
        let back = match subject.rows(&generation, Select::all(Grand::TABLE)).await.first() {
            None => 0,
            Some(row) => row[0].as_int(),
        };
        // To zero, and from there to the edge: neither step overflows.
        for count in [
            back.checked_neg().unwrap_or(i64::MAX),
            i64::from(back == i64::MIN),
            before,
        ] {
            let next = after(expected.as_ref(), 1);
            let changes = [grand(count)];
            let committed = subject.views.commit(&generation, 0, expected.as_ref(), &next, &changes);
            committed.await.unwrap();
            expected = Some(next);
        }
        assert_eq!(
            subject.rows(&generation, Select::all(Grand::TABLE)).await[0][0],
            Value::Int(before)
        );
        let next = after(expected.as_ref(), 1);
        let committed = subject
            .views
            .commit(&generation, 0, expected.as_ref(), &next, &[grand(more)])
            .await;
        assert!(
            matches!(committed, Err(ViewError::Refused(_))),
            "{before} + {more}: {committed:?}"
        );
        assert_eq!(
            subject.rows(&generation, Select::all(Grand::TABLE)).await[0][0],
            Value::Int(before)
        );
    }
    // Each shard's sum fits; that of both does not.
    let next = after(None, 1);
    subject
        .views
        .commit(&generation, 1, None, &next, &[grand(1)])
        .await
        .unwrap();
    let answered = subject.views.query(&generation, &[Select::all(Grand::TABLE)]).await;
    assert!(matches!(answered, Err(ViewError::Refused(_))), "{answered:?}");
}

async fn rows_and_checkpoints_are_of_one_snapshot(subject: &Subject) {
    let generation = subject.create_with("a", &OWN_TABLES).await;
    let writer = {
        let (views, generation) = (subject.views.clone(), generation.clone());
        tokio::spawn(async move {
            let mut expected = None;
            for _ in 0..60 {
                let next = after(expected.as_ref(), 1);
                let changes = [grand(1), mark(u128::from(next.next))];
                views
                    .commit(&generation, 2, expected.as_ref(), &next, &changes)
                    .await
                    .unwrap();
                expected = Some(next);
            }
        })
    };
    let (mut seen, both) = (0, [Select::of(Grand::TABLE, [Expr::Sum("count")]), marks()]);
    while seen < 60 {
        // A store may answer one select in another way than several.
        for selects in [&both[..], &both[..1], &both[1..]] {
            let snapshot = subject.views.query(&generation, selects).await.unwrap();
            let next = snapshot.read_until.first().map_or(0, |(shard, next)| {
                assert_eq!(*shard, 2);
                *next
            });
            for (select, rows) in selects.iter().zip(&snapshot.results) {
                match select.table.name == Grand::TABLE.name {
                    true => assert_eq!(rows[0][0].as_int() as u64, next),
                    false => assert_eq!(rows.len() as u64, next),
                }
            }
            assert!(next >= seen, "a later snapshot went back");
            seen = next;
        }
    }
    writer.await.unwrap();
}

async fn shards_write_to_one_rollup_at_the_same_time(subject: &Subject) {
    let generation = subject.create_with("a", &OWN_TABLES).await;
    let workers: Vec<_> = (0..SHARDS)
        .map(|shard| {
            let (views, generation) = (subject.views.clone(), generation.clone());
            tokio::spawn(async move {
                let mut expected = None;
                for _ in 0..10 {
                    let next = after(expected.as_ref(), 1);
                    let changes = [grand(i64::from(shard) + 1)];
                    views
                        .commit(&generation, shard, expected.as_ref(), &next, &changes)
                        .await
                        .unwrap();
                    expected = Some(next);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(
        subject.rows(&generation, Select::all(Grand::TABLE)).await[0][0],
        Value::Int(360)
    );
    let expected: Vec<_> = (0..SHARDS).map(|shard| (shard, 10)).collect();
    let nothing = Select::all(Grand::TABLE).filter("count", Op::Lt, Value::Int(0));
    for selects in [
        vec![],
        vec![Select::all(Grand::TABLE)],
        vec![nothing.clone()],
        vec![marks(), nothing],
    ] {
        let snapshot = subject.views.query(&generation, &selects).await.unwrap();
        assert_eq!(snapshot.read_until, expected, "{selects:?}");
    }
}

// ------------------------------------------------------------------------------------------------ generations

async fn statuses(subject: &Subject) -> Vec<(i64, GenerationStatus)> {
    let generations = subject.views.generations(GROUP).await.unwrap();
    generations
        .iter()
        .map(|generation| (generation.number, generation.status))
        .collect()
}

async fn generations_swap_and_swap_back(subject: &Subject) {
    use GenerationStatus::{Building, Live, Previous};
    assert_eq!(statuses(subject).await, vec![]);

    let first = subject.create_with("a", &OWN_TABLES).await;
    assert_eq!((first.number, first.status, first.shards), (1, Live, SHARDS));
    let at = after(None, 1);
    subject.views.commit(&first, 0, None, &at, &[mark(1)]).await.unwrap();
    assert_eq!(subject.public_rows("suite_marks").await, Some(1));

    let second = subject.create_with("a", &OWN_TABLES).await;
    assert_eq!((second.number, second.status), (2, Building));
    subject
        .views
        .commit(&second, 0, None, &at, &[mark(1), mark(2)])
        .await
        .unwrap();
    assert_eq!(subject.public_rows("suite_marks").await, Some(1));
    subject.views.promote(&second).await.unwrap();
    assert_eq!(statuses(subject).await, vec![(1, Previous), (2, Live)]);
    assert_eq!(subject.public_rows("suite_marks").await, Some(2));
    // Once more is no swap back.
    subject.views.promote(&second).await.unwrap();
    assert_eq!(statuses(subject).await, vec![(1, Previous), (2, Live)]);

    // The one before goes on, and can be brought back.
    let next = after(Some(&at), 1);
    let changes = [mark(2), mark(3)];
    subject
        .views
        .commit(&first, 0, Some(&at), &next, &changes)
        .await
        .unwrap();
    assert_eq!(subject.rows(&first, marks()).await.len(), 3);
    subject.views.promote(&first).await.unwrap();
    assert_eq!(statuses(subject).await, vec![(1, Live), (2, Previous)]);
    assert_eq!(subject.public_rows("suite_marks").await, Some(3));

    let third = subject.create_with("b", &OWN_TABLES).await;
    assert_eq!((third.number, third.status), (3, Building));
    subject.views.promote(&third).await.unwrap();
    assert_eq!(statuses(subject).await, vec![(1, Previous), (3, Live)]);
    assert_eq!(subject.public_rows("suite_marks").await, Some(0));

    // Generation 2 is gone, with its checkpoints, and nobody writes to it any more.
    assert_eq!(subject.views.checkpoint(&second, 0).await.unwrap(), None);
    let late = subject.views.commit(&second, 0, Some(&at), &next, &[mark(9)]).await;
    assert!(matches!(late, Err(ViewError::Moved)), "{late:?}");
    let late = subject.views.commit(&second, 0, None, &next, &[]).await;
    assert!(matches!(late, Err(ViewError::Refused(_))), "{late:?}");
    let late = subject.views.query(&second, &[marks()]).await;
    assert!(matches!(late, Err(ViewError::Refused(_))), "{late:?}");
    let late = subject.views.promote(&second).await;
    assert!(
        matches!(&late, Err(ViewError::Refused(why)) if why == "generation 2 of sales is gone"),
        "{late:?}"
    );
}

async fn who_goes_live_late_undoes_no_rollback(subject: &Subject) {
    use GenerationStatus::{Live, Previous};
    let first = subject.create_with("a", &OWN_TABLES).await;
    let at = after(None, 1);
    subject.views.commit(&first, 0, None, &at, &[mark(1)]).await.unwrap();
    // A rebuild makes it, a node has joined in, and both want it to go live.
    let built = subject.create_with("a", &OWN_TABLES).await;
    subject.views.promote(&built).await.unwrap();
    subject.views.promote(&first).await.unwrap();
    subject.views.promote(&built).await.unwrap();
    assert_eq!(statuses(subject).await, vec![(1, Live), (2, Previous)]);
    // A caller who knows that it was live rolls back to it.
    let previous = subject.views.generations(GROUP).await.unwrap().remove(1);
    subject.views.promote(&previous).await.unwrap();
    assert_eq!(statuses(subject).await, vec![(1, Previous), (2, Live)]);
}

async fn a_half_built_generation_goes_on_or_is_dropped(subject: &Subject) {
    use GenerationStatus::{Building, Live};
    let live = subject.create_with("a", &OWN_TABLES).await;
    subject
        .views
        .commit(&live, 0, None, &after(None, 1), &[])
        .await
        .unwrap();

    let half = subject.create_with("b", &OWN_TABLES).await;
    subject
        .views
        .commit(&half, 0, None, &after(None, 1), &[mark(1)])
        .await
        .unwrap();
    let again = subject.create_with("b", &OWN_TABLES).await;
    assert_eq!(again, half);
    assert_eq!(subject.rows(&again, marks()).await.len(), 1);

    let other = subject.create_with("c", &OWN_TABLES).await;
    assert_eq!(
        (other.number, other.status, other.definition.as_str()),
        (3, Building, "c")
    );
    assert_eq!(statuses(subject).await, vec![(1, Live), (3, Building)]);
    assert_eq!(subject.rows(&other, marks()).await.len(), 0);
    let dropped = subject.views.query(&half, &[marks()]).await;
    assert!(matches!(dropped, Err(ViewError::Refused(_))), "{dropped:?}");
}

async fn what_is_built_without_keys_comes_to_the_same(subject: &Subject) {
    let live = subject.create_with("one", &all_tables()).await;
    subject.fill(&live, 7, 20).await;
    let built = subject.create_with("two", &all_tables()).await;
    assert_eq!(built.status, GenerationStatus::Building);
    // Enough for whatever way a store has for many rows.
    let (size, mut model) = (300, Model::default());
    let (own, other) = (&subject.views, subject.of_another_process().await);
    commit_all(own.as_ref(), &built, batches_from(0, 11, size), &mut model).await;
    commit_all(other.as_ref(), &built, batches_from(3, 12, size), &mut model).await;
    subject.holds(&built, &model).await;
    subject.make_indexes(&built).await;
    subject.holds(&built, &model).await;
    // Rows meet those that were there before, also when the process does not know of the keys yet.
    commit_all(other.as_ref(), &built, batches_from(6, 13, size), &mut model).await;
    commit_all(own.as_ref(), &built, batches_from(9, 14, size), &mut model).await;
    subject.holds(&built, &model).await;
    subject.make_indexes(&built).await;
    subject.views.promote(&built).await.unwrap();
    let built = subject.views.generations(GROUP).await.unwrap().remove(1);
    assert_eq!(built.status, GenerationStatus::Live);
    let third = subject.of_another_process().await;
    commit_all(third.as_ref(), &built, batches_from(12, 15, 20), &mut model).await;
    subject.holds(&built, &model).await;
}

async fn batches_that_meet_a_new_key_at_the_same_time_are_all_written(subject: &Subject) {
    subject.create_with("one", &[Grand::TABLE]).await;
    let built = subject.create_with("two", &[Grand::TABLE]).await;
    let (mut at, mut counts) = (None, 0);
    for round in 0..2 {
        let next = after(at.as_ref(), 1);
        let changes = [grand(1)];
        let of_shards = (0..SHARDS).map(|shard| subject.views.commit(&built, shard, at.as_ref(), &next, &changes));
        // All of them write as to a table without a key when the first of them learns better.
        for committed in futures::future::join_all(of_shards).await {
            committed.unwrap_or_else(|error| panic!("round {round}: {error}"));
            counts += 1;
        }
        at = Some(next);
        if round == 0 {
            let other = subject.of_another_process().await;
            match &subject.ground {
                Ground::Sqlite(store, _) => store.make_indexes_of(&built, &[Grand::TABLE]).await.unwrap(),
                // Another process makes the keys: this one does not know.
                Ground::Postgres(_, database) => {
                    let other = PostgresViews::connect(database.url()).await.unwrap();
                    other.make_indexes_of(&built, &[Grand::TABLE]).await.unwrap();
                }
            }
            drop(other);
        }
    }
    let total = subject.rows(&built, Select::all(Grand::TABLE)).await;
    assert_eq!(total[0][0], Value::Int(counts));
}

async fn indexes_that_were_left_out_are_made_later(subject: &Subject) {
    let live = subject.create_with("one", &all_tables()).await;
    subject.fill(&live, 7, 20).await;
    let expected = subject.indexes(&live).await;
    assert!(
        expected.contains("suite_entries_by_customer_effective_at"),
        "{expected:?}"
    );
    let built = subject.create_with("two", &all_tables()).await;
    let mut model = subject.fill(&built, 8, 20).await;
    assert!(subject.indexes(&built).await.len() < expected.len());
    // Who forgets to make them has slow read models, but no wrong ones.
    subject.views.promote(&built).await.unwrap();
    let built = subject.views.generations(GROUP).await.unwrap().remove(1);
    let other = subject.of_another_process().await;
    commit_all(other.as_ref(), &built, batches_from(3, 9, 20), &mut model).await;
    subject.holds(&built, &model).await;
    subject.make_indexes(&built).await;
    assert_eq!(subject.indexes(&built).await, expected);
    subject.holds(&built, &model).await;
}

async fn views_come_and_go_with_the_tables(subject: &Subject) {
    let first = subject.create_with("a", &[Mark::TABLE, Grand::TABLE]).await;
    subject
        .views
        .commit(&first, 0, None, &after(None, 1), &[grand(1)])
        .await
        .unwrap();
    assert_eq!(subject.public_rows("suite_grand_total").await, Some(1));
    assert_eq!(subject.public_rows("suite_entries").await, None);

    let second = subject.create_with("b", &[Mark::TABLE, Entry::TABLE]).await;
    subject.views.promote(&second).await.unwrap();
    assert_eq!(subject.public_rows("suite_grand_total").await, None);
    assert_eq!(subject.public_rows("suite_entries").await, Some(0));

    // As an older program would, which knows nothing of the newer tables.
    subject.views.promote(&first).await.unwrap();
    assert_eq!(subject.public_rows("suite_grand_total").await, Some(1));
    assert_eq!(subject.public_rows("suite_entries").await, None);

    // A table whose columns have changed: the view of the same name shows the new ones.
    static CHANGED: Table = Table {
        name: "suite_marks",
        kind: TableKind::Entity,
        columns: Thing::TABLE.columns,
    };
    let third = subject.create_with("c", &[&CHANGED]).await;
    subject.views.promote(&third).await.unwrap();
    assert_eq!(subject.public_rows("suite_marks WHERE due IS NULL").await, Some(0));
}

async fn two_creates_at_once_make_one_generation(subject: &Subject) {
    let create = || {
        let views = subject.views.clone();
        tokio::spawn(async move { views.create(Group::Sales, SHARDS).await.unwrap() })
    };
    let (one, other, third) = tokio::join!(create(), create(), create());
    let first = one.unwrap();
    assert_eq!((other.unwrap(), third.unwrap()), (first.clone(), first.clone()));
    assert_eq!(first.definition, Group::Sales.definition());

    subject
        .views
        .commit(&first, 0, None, &after(None, 1), &[])
        .await
        .unwrap();
    let (one, other, third) = tokio::join!(create(), create(), create());
    let second = one.unwrap();
    assert_eq!((other.unwrap(), third.unwrap()), (second.clone(), second.clone()));
    assert_eq!(second.number, 2);
    assert_eq!(
        subject.views.generations(Group::Sales).await.unwrap(),
        vec![first, second]
    );
}

async fn every_group_can_be_created(subject: &Subject) {
    for group in Group::ALL {
        let generation = subject.views.create(group, SHARDS).await.unwrap();
        assert_eq!(
            subject.views.generations(group).await.unwrap(),
            vec![generation.clone()]
        );
        for table in group.tables() {
            assert_eq!(
                subject.rows(&generation, Select::all(table)).await,
                Vec::<Vec<Value>>::new()
            );
            assert_eq!(subject.public_rows(table.name).await, Some(0));
        }
    }
    let address = subject.views.address();
    assert!(
        address.starts_with("sqlite:") || address.starts_with("postgres://"),
        "{address}"
    );
}

async fn a_noted_stop_is_cleared_by_a_commit(subject: &Subject) {
    let generation = subject.create_with("a", &OWN_TABLES).await;
    let views = &subject.views;
    views.note_stop(&generation, 3, "a first reason").await.unwrap();
    views.note_stop(&generation, 3, "因為讀不懂").await.unwrap();
    views.note_stop(&generation, 1, "another shard's").await.unwrap();
    let stops = vec![(1, "another shard's".to_owned()), (3, "因為讀不懂".to_owned())];
    assert_eq!(views.stops(&generation).await.unwrap(), stops);

    views.commit(&generation, 3, None, &after(None, 1), &[]).await.unwrap();
    assert_eq!(views.stops(&generation).await.unwrap(), stops[..1]);
}

async fn what_does_not_fit_is_refused_in_words(subject: &Subject) {
    let generation = subject.create_with("a", &OWN_TABLES).await;
    let mut known_until = Select::all(Thing::TABLE);
    known_until.until = Some(vec![(0, 1)]);
    let after_key = |key| Select {
        after: Some(key),
        ..Select::all(Thing::TABLE)
    };
    let selects = [
        (
            Select::of(Thing::TABLE, []),
            "a select on table suite_things asks for nothing",
        ),
        (
            Select::all(Thing::TABLE).filter("nobody", Op::Eq, Value::Null),
            "table suite_things has no column \"nobody\"",
        ),
        (
            Select::all(Thing::TABLE).filter("due", Op::Eq, Value::Int(1)),
            "column \"due\" of table suite_things was given another type of value",
        ),
        (
            Select::all(Thing::TABLE).order_by("tags"),
            "column \"tags\" of table suite_things holds JSON, which is not grouped, ordered or compared",
        ),
        (
            Select::of(Thing::TABLE, [Expr::Sum("status")]),
            "column \"status\" of table suite_things is no number to add",
        ),
        (
            Select::of(Thing::TABLE, [Expr::Count]).order_by("status"),
            "groups cannot be ordered by \"status\", which is not asked for",
        ),
        (known_until, "table suite_things is no journal and has no positions"),
        (after_key(vec![]), "table suite_things has a key of 2 columns, not of 0"),
        (
            after_key(vec![Value::Int(1), Value::Int(1)]),
            "column \"thing\" of table suite_things was given another type of value",
        ),
    ];
    for (select, why) in selects {
        match subject.views.query(&generation, &[select]).await {
            Err(ViewError::Refused(refused)) => assert_eq!(refused, why),
            other => panic!("{why}: {other:?}"),
        }
    }

    let entry = |text: &str, effective_at| Entry {
        customer: None,
        effective_at,
        amount: 1,
        text: text.to_owned(),
        about: vec![],
    };
    let appends = [
        (
            entry("a\0b", Timestamp::UNIX_EPOCH),
            "column \"text\" of table suite_entries was given the character NUL",
        ),
        (
            entry("", Timestamp::MIN),
            "column \"effective_at\" of table suite_entries was given a time before the year 0",
        ),
    ];
    for (entry, why) in appends {
        let change = TableChange {
            appends: vec![(0, 0, entry.into_values())],
            ..TableChange::nothing(Entry::TABLE)
        };
        match subject
            .views
            .commit(&generation, 0, None, &after(None, 1), &[change])
            .await
        {
            Err(ViewError::Refused(refused)) => assert_eq!(refused, why),
            other => panic!("{why}: {other:?}"),
        }
    }
    assert_eq!(subject.views.checkpoint(&generation, 0).await.unwrap(), None);
}

// ------------------------------------------------------------------------------------------- each on its own

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_closed_opens_again_with_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let deeper = folder.path().join("not/there/yet");
    let first = SqliteViews::open(&deeper).await.unwrap();
    let generation = first.create(Group::Sales, SHARDS).await.unwrap();
    first.commit(&generation, 0, None, &after(None, 1), &[]).await.unwrap();
    drop(first);

    let again = SqliteViews::open(&deeper).await.unwrap();
    assert_eq!(again.generations(Group::Sales).await.unwrap(), vec![generation.clone()]);
    assert_eq!(again.checkpoint(&generation, 0).await.unwrap(), Some(after(None, 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_somebody_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("views.db"),
        "no database at all, but long enough to look at",
    )
    .unwrap();
    let refused = SqliteViews::open(folder.path()).await.err().unwrap();
    let file = folder.path().join("views.db").display().to_string();
    for refused in [refused, SqliteViews::open_to_read(folder.path()).await.err().unwrap()] {
        assert!(
            matches!(&refused, ViewError::Refused(why) if why.contains("not a database")),
            "{refused}"
        );
        // With the name of the file, and what to do.
        assert!(refused.to_string().contains(&format!("{file} is damaged")), "{refused}");
        assert!(
            refused
                .to_string()
                .contains(&format!("delete {file}, {file}-wal and {file}-shm")),
            "{refused}"
        );
    }
}

/// The same table in a later version of the program: other columns under the same name.
mod changed {
    projections::table! {
        entity Mark "suite_marks" { key mark: uuid::Uuid, set owner: Option<String>, set colour: String }
    }
    projections::table! {
        entity Repainted "suite_marks" { key mark: uuid::Uuid, set colour: String, set owner: Option<String> }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_that_a_view_of_somebody_else_blocks_is_said_with_its_name_until_it_is_done() {
    let subject = postgres().await;
    let Ground::Postgres(store, database) = &subject.ground else {
        unreachable!()
    };
    let of = |table: &'static Table| vec![table];
    subject.create_with("one", &of(changed::Mark::TABLE)).await;
    let (client, connection) = tokio_postgres::connect(database.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
        .batch_execute("CREATE SCHEMA bi; CREATE VIEW bi.\"Marks by owner\" AS SELECT owner, count(*) FROM crm.suite_marks GROUP BY 1")
        .await
        .unwrap();
    let built = subject.create_with("two", &of(changed::Repainted::TABLE)).await;
    assert_eq!(store.blocked(&built).await.unwrap(), None);
    for _ in 0..2 {
        let refused = store.promote(&built).await.unwrap_err();
        assert!(
            matches!(&refused, ViewError::Refused(why) if why.contains("bi.Marks by owner") && why.contains("crm.suite_marks")),
            "{refused}"
        );
        let noted = subject.of_another_process().await.blocked(&built).await.unwrap();
        assert_eq!(noted, Some(refused.to_string()));
        assert_eq!(store.stops(&built).await.unwrap(), vec![]);
        // Whoever folds on does not make it forgotten.
        let at = store.checkpoint(&built, 0).await.unwrap();
        store
            .commit(&built, 0, at.as_ref(), &after(at.as_ref(), 1), &[])
            .await
            .unwrap();
    }
    // The live one is what it was.
    assert_eq!(statuses(&subject).await[0], (1, GenerationStatus::Live));
    client.batch_execute("DROP VIEW bi.\"Marks by owner\"").await.unwrap();
    store.promote(&built).await.unwrap();
    assert_eq!(store.blocked(&built).await.unwrap(), None);
    assert_eq!(statuses(&subject).await[1], (2, GenerationStatus::Live));

    // A view that goes is the same.
    client
        .batch_execute("CREATE VIEW bi.marks AS SELECT mark FROM crm.suite_marks")
        .await
        .unwrap();
    let without = subject.create_with("three", &[Grand::TABLE]).await;
    let refused = store.promote(&without).await.unwrap_err();
    assert!(refused.to_string().contains("bi.marks is built on it"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_read_a_view_may_read_the_next_one() {
    let subject = postgres().await;
    let Ground::Postgres(store, database) = &subject.ground else {
        unreachable!()
    };
    let (client, connection) = tokio_postgres::connect(database.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    // Roles are the server's, not the database's.
    let role = |name: &str| format!("\"{name} {}\"", unique_topic("role"));
    let (reads, passes_on, reads_one, was_taken) = (role("reads"), role("passes on"), role("one"), role("taken"));
    let roles = [&reads, &passes_on, &reads_one, &was_taken];
    for role in roles {
        client.batch_execute(&format!("CREATE ROLE {role}")).await.unwrap();
    }
    let by_default = format!("ALTER DEFAULT PRIVILEGES IN SCHEMA crm GRANT SELECT ON TABLES TO {was_taken}");
    client.batch_execute(&by_default).await.unwrap();
    subject.create_with("one", &[changed::Mark::TABLE]).await;
    let grants = format!(
        "GRANT SELECT ON crm.suite_marks TO {reads}; GRANT SELECT ON crm.suite_marks TO {passes_on} WITH GRANT OPTION;
         GRANT SELECT (colour, mark) ON crm.suite_marks TO {reads_one}; REVOKE ALL ON crm.suite_marks FROM {was_taken}"
    );
    client.batch_execute(&grants).await.unwrap();
    let may = async |role: &str, privilege: &str| -> bool {
        let name = role.trim_matches('"').to_owned();
        let asked = "SELECT has_table_privilege($1::text::name, 'crm.suite_marks', $2::text)";
        client.query_one(asked, &[&name, &privilege]).await.unwrap().get(0)
    };
    let may_column = async |role: &str, column: &str| -> bool {
        let name = role.trim_matches('"').to_owned();
        let asked = "SELECT has_column_privilege($1::text::name, 'crm.suite_marks', $2::text, 'SELECT')";
        client.query_one(asked, &[&name, &column]).await.unwrap().get(0)
    };
    for definition in ["as it was made", "swapped", "swapped back"] {
        match definition {
            "swapped" => {
                let built = subject.create_with("two", &[changed::Repainted::TABLE]).await;
                store.promote(&built).await.unwrap();
            }
            "swapped back" => {
                let first = store.generations(GROUP).await.unwrap().remove(0);
                store.promote(&first).await.unwrap();
            }
            _ => {}
        }
        assert!(may(&reads, "SELECT").await, "{definition}");
        assert!(!may(&reads, "INSERT").await, "{definition}");
        assert!(may(&passes_on, "SELECT WITH GRANT OPTION").await, "{definition}");
        assert!(!may(&reads, "SELECT WITH GRANT OPTION").await, "{definition}");
        assert!(may_column(&reads_one, "colour").await, "{definition}");
        assert!(!may_column(&reads_one, "owner").await, "{definition}");
        assert!(!may(&was_taken, "SELECT").await, "{definition}");
    }
    for role in roles {
        client
            .batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_read_in_postgresql_can_ask() {
    let subject = postgres().await;
    let Ground::Postgres(store, database) = &subject.ground else {
        unreachable!()
    };
    let nothing = Database::create();
    let refused = PostgresViews::connect_to_read(nothing.url()).await.err().unwrap();
    assert!(refused.to_string().contains("there are no read models at"), "{refused}");
    let generation = store.create(Group::Sales, SHARDS).await.unwrap();
    store.commit(&generation, 0, None, &after(None, 1), &[]).await.unwrap();
    // Every transaction of it is refused to write.
    let mark = if database.url().contains('?') { '&' } else { '?' };
    let url = format!("{}{mark}options=-c%20default_transaction_read_only=on", database.url());
    assert!(PostgresViews::connect(&url).await.is_err());
    let reader: Arc<dyn ReadStore> = Arc::new(PostgresViews::connect_to_read(&url).await.unwrap());
    let queries =
        Queries::new(Arc::clone(&reader), Arc::new(SystemClock), Calendar::taipei()).of_log(Uuid::from_u128(77));
    let pipeline = ReadModel::find("pipeline").unwrap();
    assert_eq!(queries.checksum(pipeline).await.unwrap().1, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_deleted_or_replaced_under_the_store_is_missed() {
    for replaced in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("views.db");
        let store = SqliteViews::open(folder.path()).await.unwrap();
        let generation = store.create(Group::Sales, SHARDS).await.unwrap();
        store.commit(&generation, 0, None, &after(None, 1), &[]).await.unwrap();
        match replaced {
            true => {
                std::fs::copy(&file, folder.path().join("copy")).unwrap();
                std::fs::rename(folder.path().join("copy"), &file).unwrap();
            }
            false => std::fs::remove_file(&file).unwrap(),
        }
        let (at, next) = (after(None, 1), after(None, 2));
        let told = [
            store.generations(Group::Sales).await.err(),
            store.commit(&generation, 0, Some(&at), &next, &[]).await.err(),
        ];
        for error in told {
            let name = file.display().to_string();
            assert!(
                matches!(&error, Some(ViewError::Unavailable(why)) if why.contains(&name)),
                "{error:?}"
            );
        }
        let states = store.watermark(0, Uuid::from_u128(77)).await;
        assert!(matches!(states, Err(StateError::Unavailable(_))), "{states:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_models_of_another_log_are_not_shown() {
    for subject in [sqlite().await, postgres().await] {
        let generation = subject.views.create(Group::Sales, SHARDS).await.unwrap();
        // The first shards may have nothing to read yet.
        subject
            .views
            .commit(&generation, 5, None, &after(None, 1), &[])
            .await
            .unwrap();
        let (ours, other) = (Uuid::from_u128(77), Uuid::from_u128(78));
        assert_eq!(logs_of(subject.views.as_ref()).await.unwrap(), BTreeSet::from([ours]));
        let pipeline = ReadModel::find("pipeline").unwrap();
        let queries =
            |log| Queries::new(Arc::clone(&subject.views), Arc::new(SystemClock), Calendar::taipei()).of_log(log);
        queries(ours)
            .ask(pipeline, Ask::of(Question::new(Calendar::taipei())))
            .await
            .unwrap();
        let refused = queries(other)
            .ask(pipeline, Ask::of(Question::new(Calendar::taipei())))
            .await
            .unwrap_err();
        assert!(
            matches!(refused, AskError::Store(ViewError::OtherLog { stored, wanted }) if (stored, wanted) == (ours, other)),
            "{refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_postgres_everything_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let store = PostgresViews::connect(&server.url()).await.unwrap();
    let generation = store.create(Group::Sales, SHARDS).await.unwrap();
    let first = after(None, 1);
    store.commit(&generation, 0, None, &first, &[]).await.unwrap();
    store.claim(0, Uuid::from_u128(77), 1, "127.0.0.1:7070").await.unwrap();

    server.kill();
    // Its children notice a moment later.
    let deadline = Instant::now() + Duration::from_secs(30);
    while store.checkpoint(&generation, 0).await.is_ok() {
        assert!(Instant::now() < deadline, "a killed server still answers");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..3 {
        let gone = store.checkpoint(&generation, 0).await;
        assert!(matches!(gone, Err(ViewError::Unavailable(_))), "{gone:?}");
        let gone = store.claim(0, Uuid::from_u128(77), 2, "127.0.0.1:7070").await;
        assert!(matches!(gone, Err(StateError::Unavailable(_))), "{gone:?}");
    }
    server.restart();

    let at = store.checkpoint(&generation, 0).await.unwrap();
    let next = after(at.as_ref(), 1);
    store.commit(&generation, 0, at.as_ref(), &next, &[]).await.unwrap();
    store.claim(0, Uuid::from_u128(77), 2, "127.0.0.1:7070").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_not_there_is_unavailable_at_once() {
    let started = Instant::now();
    let error = PostgresViews::connect("postgres://crm:secret@127.0.0.1:1/crm")
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ViewError::Unavailable(_)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(!error.to_string().contains("secret"), "{error}");
    let error = PostgresViews::connect("mysql://127.0.0.1/crm").await.err().unwrap();
    assert!(matches!(error, ViewError::Refused(_)), "{error}");
}
