//! Bounds that only a real server shows: how many connections there are, how much is made at once, how long somebody is waited for.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use infra::log::kafka::KafkaLog;
use infra::log::postgres::{CONNECTIONS_MAX as LOG_CONNECTIONS_MAX, PostgresLog};
use infra::membership::{Membership, RELEASE_MAX, Share, Work, words};
use infra::views::{
    CONNECTIONS_MAX, INDEXES_MAX, INDEXING_MAX, KEYED_CONNECTIONS_MAX, PostgresViews, READERS, STATEMENTS_KEPT,
    SqliteViews,
};
use projections::{Expr, Group, Select, Table, Value};
use services::log::{Checkpoint, EventLog};
use services::shard::Assignment;
use services::views::{Generation, ReadStore, ViewError};
use tests::{Crm, Database, Holder, WAITING, shared_kafka, unique_topic};
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

/// Hears of each statement that the client library prepares.
struct Prepared(Mutex<Vec<String>>);

static PREPARED: Prepared = Prepared(Mutex::new(vec![]));

impl Prepared {
    fn times(&self, part: &str) -> usize {
        let heard = self.0.lock().unwrap();
        heard.iter().filter(|said| said.contains(part)).count()
    }
}

impl log::Log for Prepared {
    fn enabled(&self, of: &log::Metadata<'_>) -> bool {
        of.target() == "tokio_postgres::prepare"
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[tokio::test]
async fn so_many_statements_are_kept_prepared_by_a_connection_in_postgresql_and_then_it_begins_anew() {
    log::set_logger(&PREPARED).unwrap();
    log::set_max_level(log::LevelFilter::Debug);
    let database = Database::create();
    let views = PostgresViews::connect(database.url()).await.unwrap();
    let generation = views.create(GROUP, SHARDS).await.unwrap();
    // One after the other: there is one connection. No other test has limits.
    let ask = async |limit: usize| {
        let mut select = a_row_of(tables()[0]);
        select.limit = Some(limit);
        views.query(&generation, &[select]).await.unwrap();
    };
    let prepared = |limit: usize| PREPARED.times(&format!(" LIMIT {limit} "));
    for _ in 0..3 {
        ask(1_000).await;
    }
    assert_eq!(prepared(1_000), 1);
    for limit in 1_001..=1_000 + STATEMENTS_KEPT {
        ask(limit).await;
    }
    ask(1_000).await;
    assert_eq!(prepared(1_000), 2);
    let once = (1_001..=1_000 + STATEMENTS_KEPT).all(|limit| prepared(limit) == 1);
    assert!(once);
}

/// With all tables held, so many questions have a connection and no answer; the others do not even get a connection.
#[tokio::test]
async fn who_gets_no_turn_or_no_answer_is_told_so_in_time() {
    let database = Database::create();
    let views: Arc<dyn ReadStore> = Arc::new(PostgresViews::connect(database.url()).await.unwrap());
    let generation = views.create(GROUP, SHARDS).await.unwrap();
    let holder = Holder::of_all_tables(&database).await;
    let under_way: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (views, generation) = (Arc::clone(&views), generation.clone());
            tokio::spawn(async move {
                let begun = tokio::time::Instant::now();
                let outcome = views.query(&generation, &[a_row_of(tables()[0])]).await;
                (outcome, begun.elapsed())
            })
        })
        .collect();
    assert_eq!(holder.most_sessions("true", CONNECTIONS_MAX).await, CONNECTIONS_MAX);
    // All of it waits, so that the clock jumps from one end of a wait to the next.
    tokio::time::pause();
    let (mut no_turn, mut no_answer) = (0, 0);
    for one in under_way {
        let (outcome, waited) = one.await.unwrap();
        assert!(matches!(outcome, Err(ViewError::Unavailable(_))), "{outcome:?}");
        if waited <= Duration::from_secs(12) {
            no_turn += 1;
        } else {
            assert!(waited <= Duration::from_secs(67), "{waited:?}");
            no_answer += 1;
        }
    }
    tokio::time::resume();
    assert_eq!((no_turn, no_answer), (AT_ONCE - CONNECTIONS_MAX, CONNECTIONS_MAX));
    holder.let_go().await;
    views.query(&generation, &[a_row_of(tables()[0])]).await.unwrap();
}

/// A body that does not come would be waited for for half a minute.
#[test]
fn a_server_that_is_stopped_waits_so_long_for_what_is_under_way_and_cuts_it_off() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().display());
    let mut node = Crm::start(&["serve"], &[("CRM_LOG", &url), ("CRM_VIEWS", &url)]);
    let mut half = TcpStream::connect(node.address()).unwrap();
    let head = "POST /api/customer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    half.write_all(head.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let begun = Instant::now();
    assert_eq!(node.terminate(), 0, "{}", node.log_text());
    let took = begun.elapsed();
    assert!(
        (Duration::from_secs(19)..Duration::from_secs(26)).contains(&took),
        "{took:?}"
    );
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
    // The clock jumps on while the reason is noted in the store too: how far depends on the machine. A second round of the
    // same wait would be seen.
    assert!(
        waited > INDEXES_MAX - PATIENCE && waited < 2 * INDEXES_MAX,
        "{waited:?}"
    );

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
