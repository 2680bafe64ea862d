//! Bounds that only a real server shows: how many connections there are, how much is made at once, how long somebody is waited for.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use infra::log::kafka::KafkaLog;
use infra::log::postgres::{CONNECTIONS_MAX as LOG_CONNECTIONS_MAX, PostgresLog};
use infra::membership::{Membership, RELEASE_MAX, Share, Work, words};
use infra::views::{
    CONNECTIONS_MAX, INDEXES_MAX, INDEXING_MAX, KEYED_CONNECTIONS_MAX, PostgresViews, READERS, SqliteViews,
};
use projections::{Expr, Group, Select, Table, Value};
use services::log::{Checkpoint, EventLog};
use services::shard::Assignment;
use services::views::{Generation, ReadStore};
use tests::{Database, Holder, WAITING, shared_kafka, unique_topic};
use uuid::Uuid;

const SHARDS: u16 = 3;
const GROUP: Group = Group::Sales;
/// Of each kind, many more than there are connections.
const AT_ONCE: usize = 60;
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

fn tables() -> Vec<&'static Table> {
    GROUP.tables().collect()
}

fn a_row_of(table: &'static Table) -> Select {
    Select::of(table, [Expr::Column(table.columns[0].name)])
}

async fn ask(views: Arc<dyn ReadStore>, generation: Generation) {
    let asked = views.query(&generation, &[a_row_of(tables()[0])]).await;
    asked.unwrap();
}

async fn look_up(views: Arc<dyn ReadStore>, generation: Generation) {
    let key = vec![Value::Uuid(Uuid::from_u128(1))];
    let table = tables().into_iter().find(|table| table.name == "customers").unwrap();
    let found = views.load(&generation, 0, None, table, &[key]).await;
    assert_eq!(found.unwrap(), Vec::<Vec<Value>>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_connections_go_to_a_read_store_in_postgresql_and_the_rest_wait() {
    let database = Database::create();
    let views: Arc<dyn ReadStore> = Arc::new(PostgresViews::connect(database.url()).await.unwrap());
    let generation = views.create(GROUP, SHARDS).await.unwrap();
    let holder = Holder::of_all_tables(&database).await;
    let mut under_way = vec![];
    for _ in 0..AT_ONCE {
        under_way.push(tokio::spawn(ask(views.clone(), generation.clone())));
        under_way.push(tokio::spawn(look_up(views.clone(), generation.clone())));
    }
    let all = CONNECTIONS_MAX + KEYED_CONNECTIONS_MAX;
    assert_eq!(holder.most_sessions("true", all).await, all);
    holder.let_go().await;
    for one in under_way {
        one.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_connections_go_to_a_log_in_postgresql_and_the_rest_wait() {
    let database = Database::create();
    let log = Arc::new(PostgresLog::new(database.url()).unwrap());
    log.create(SHARDS).await.unwrap();
    let mut writers = vec![];
    for shard in 0..SHARDS {
        writers.push(log.writer(shard).await.unwrap());
    }
    let holder = Holder::of_all_tables(&database).await;
    let mut under_way = vec![];
    for _ in 0..AT_ONCE {
        let log = Arc::clone(&log);
        under_way.push(tokio::spawn(async move { log.end(1).await.unwrap() }));
    }
    let all = LOG_CONNECTIONS_MAX + usize::from(SHARDS);
    assert_eq!(holder.most_sessions("true", all).await, all);
    holder.let_go().await;
    for one in under_way {
        assert_eq!(one.await.unwrap(), 0);
    }
}

/// How many files of this name this process has open.
fn open_files(path: &Path) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let is_it = |entry: std::io::Result<std::fs::DirEntry>| {
        let target = entry.and_then(|entry| std::fs::read_link(entry.path()));
        target.is_ok_and(|target| target == path)
    };
    open.map(is_it).filter(|is_it| *is_it).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_connections_read_a_store_in_sqlite_and_the_rest_wait() {
    let folder = tempfile::tempdir().unwrap();
    let views: Arc<dyn ReadStore> = Arc::new(SqliteViews::open(folder.path()).await.unwrap());
    let generation = views.create(GROUP, SHARDS).await.unwrap();
    let asked = (0..500).map(|_| tokio::spawn(ask(views.clone(), generation.clone())));
    for one in asked.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    // A reader is kept when it was used: so many were used at one time. One more is the writer.
    let open = open_files(&folder.path().join("views.db"));
    assert!((3..=READERS + 1).contains(&open), "{open} connections");
}

#[tokio::test]
async fn indexes_are_made_for_so_many_tables_at_once_and_given_up_after_hours_and_tried_again() {
    let database = Database::create();
    let views = Arc::new(PostgresViews::connect(database.url()).await.unwrap());
    let tables = tables();
    assert!(tables.len() > INDEXING_MAX);
    let live = views.create_with(GROUP, "one", &tables, SHARDS).await.unwrap();
    let somewhere = Checkpoint {
        log_id: Uuid::from_u128(77),
        next: 1,
        epoch: 1,
        n: 1,
        fingerprint: 7,
    };
    views.commit(&live, 0, None, &somewhere, &[]).await.unwrap();
    let built = views.create_with(GROUP, "two", &tables, SHARDS).await.unwrap();
    assert_ne!(built.number, live.number);

    let holder = Holder::of_all_tables(&database).await;
    let (maker, of) = (Arc::clone(&views), built.clone());
    let making = tokio::spawn(async move { maker.make_indexes(&of).await });
    assert_eq!(holder.most_sessions(WAITING, INDEXING_MAX).await, INDEXING_MAX);

    // All of it waits for the tables, so that the clock jumps to the next time that anything in this process waits for.
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let given_up = making.await.unwrap().unwrap_err().to_string();
    let waited = begun.elapsed();
    tokio::time::resume();
    assert!(given_up.contains("got no indexes"), "{given_up}");
    assert!(waited > INDEXES_MAX - PATIENCE && waited <= INDEXES_MAX, "{waited:?}");

    holder.let_go().await;
    views.make_indexes(&built).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_group_waits_so_long_for_a_shard_that_is_not_released() {
    let log = KafkaLog::new(&shared_kafka(), &unique_topic("release"), BTreeMap::new());
    log.create(2).await.unwrap();
    let join = async |is_released: fn(u16) -> bool| {
        let (words, told) = words(2);
        let shares = vec![Share {
            work: Work::Writing,
            words,
        }];
        let seat = Membership::join(&log, "limits", Duration::from_secs(6), shares, is_released).await;
        (seat.unwrap(), told)
    };
    let here = |told: &[tokio::sync::watch::Receiver<Assignment>]| {
        let is_here = |word: &&tokio::sync::watch::Receiver<Assignment>| *word.borrow() == Assignment::Here;
        told.iter().filter(is_here).count()
    };
    let until = async |told: &[tokio::sync::watch::Receiver<Assignment>], shards: usize| {
        let deadline = Instant::now() + PATIENCE + RELEASE_MAX;
        while here(told) != shards {
            assert!(Instant::now() < deadline, "{} shards, not {shards}", here(told));
            tokio::time::sleep(POLL).await;
        }
    };
    let (_first_seat, first) = join(|_| false).await;
    until(&first, 2).await;
    let begun = Instant::now();
    let (_second_seat, second) = join(|_| true).await;
    until(&second, 1).await;
    assert!(begun.elapsed() >= RELEASE_MAX, "after {:?}", begun.elapsed());
    assert_eq!(here(&first), 1);
}
