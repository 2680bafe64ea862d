//! Small commits to the read models in PostgreSQL that wait at the same time go in one transaction, and what becomes of one is not the
//! others' trouble.

use std::sync::Arc;
use std::time::{Duration, Instant};

use infra::views::{PostgresViews, SMALL_ROWS_MAX};
use projections::{Group, Row, Select, Table, TableChange, Value};
use services::log::Checkpoint;
use services::views::{Generation, ReadStore, ViewError};
use tests::Database;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

const SHARDS: u16 = 8;
const GROUP: Group = Group::Sales;
const PATIENCE: Duration = Duration::from_secs(60);
/// Until what was just asked for waits for its turn.
const MOMENT: Duration = Duration::from_millis(200);

projections::table! {
    entity Mark "together_marks" { key shard: i64, key mark: i64 }
}

projections::table! {
    rollup Total "together_total" { sum count: i64 }
}

type Committed = JoinHandle<Result<(), ViewError>>;

/// A store, and somebody who holds up every commit to it.
struct Ground {
    views: Arc<PostgresViews>,
    generation: Generation,
    holder: Client,
    _database: Database,
}

fn no_change(table: &'static Table) -> TableChange {
    TableChange {
        table,
        upserts: vec![],
        inserts: vec![],
        removes: vec![],
        deltas: vec![],
        appends: vec![],
    }
}

/// So many new rows, and one more in the total.
fn changes(shard: u16, marks: usize) -> Vec<TableChange> {
    let mark = |mark: usize| Mark {
        shard: i64::from(shard),
        mark: mark as i64,
    };
    vec![
        TableChange {
            inserts: (0..marks).map(|n| mark(n).into_values()).collect(),
            ..no_change(Mark::TABLE)
        },
        counted(1),
    ]
}

fn counted(count: i64) -> TableChange {
    TableChange {
        deltas: vec![Total { count }.into_values()],
        ..no_change(Total::TABLE)
    }
}

fn at(next: u64) -> Checkpoint {
    Checkpoint {
        log_id: Uuid::from_u128(77),
        next,
        epoch: 1,
        n: next,
        fingerprint: next,
    }
}

impl Ground {
    async fn new() -> Ground {
        let database = Database::create();
        let views = Arc::new(PostgresViews::connect(database.url()).await.unwrap());
        let tables = [Mark::TABLE, Total::TABLE];
        let generation = views.create_with(GROUP, "a", &tables, SHARDS).await.unwrap();
        let (holder, connection) = tokio_postgres::connect(database.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        Ground {
            views,
            generation,
            holder,
            _database: database,
        }
    }

    async fn hold_up(&self) {
        let lock = "BEGIN; LOCK TABLE crm.read_checkpoints IN ACCESS EXCLUSIVE MODE";
        self.holder.batch_execute(lock).await.unwrap();
    }

    async fn let_go(&self) {
        self.holder.batch_execute("COMMIT").await.unwrap();
    }

    async fn until_held_up(&self, sessions: i64) {
        let count =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let deadline = Instant::now() + PATIENCE;
        loop {
            let clear = "SELECT pg_stat_clear_snapshot()";
            self.holder.batch_execute(clear).await.unwrap();
            let waiting: i64 = self.holder.query_one(count, &[]).await.unwrap().get(0);
            if waiting == sessions {
                return;
            }
            assert!(Instant::now() < deadline, "{waiting} sessions wait, not {sessions}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The shard's commit, from this checkpoint on.
    fn commit(&self, shard: u16, expected: Option<Checkpoint>, changes: Vec<TableChange>) -> Committed {
        let (views, generation) = (Arc::clone(&self.views), self.generation.clone());
        tokio::spawn(async move {
            let next = at(expected.as_ref().map_or(0, |expected| expected.next) + 1);
            views
                .commit(&generation, shard, expected.as_ref(), &next, &changes)
                .await
        })
    }

    async fn transactions(&self) -> i64 {
        let count = "SELECT count(DISTINCT xmin::text) FROM crm.read_checkpoints";
        self.holder.query_one(count, &[]).await.unwrap().get(0)
    }

    /// Marks, and the total.
    async fn found(&self) -> (usize, i64) {
        let selects = [Select::all(Mark::TABLE), Select::all(Total::TABLE)];
        let results = self.views.query(&self.generation, &selects).await.unwrap().results;
        let total = results[1].first().map_or(0, |row| match row[0] {
            Value::Int(count) => count,
            ref other => panic!("{other:?}"),
        });
        (results[0].len(), total)
    }

    async fn shards(&self) -> Vec<(u16, u64)> {
        self.views.query(&self.generation, &[]).await.unwrap().read_until
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_commits_that_wait_go_in_one_transaction() {
    let ground = Ground::new().await;
    ground.hold_up().await;
    let mut commits = vec![ground.commit(0, None, changes(0, 1))];
    ground.until_held_up(1).await;
    for shard in 1..SHARDS {
        commits.push(ground.commit(shard, None, changes(shard, usize::from(shard))));
    }
    tokio::time::sleep(MOMENT).await;
    ground.let_go().await;
    for commit in commits {
        commit.await.unwrap().unwrap();
    }
    assert_eq!(ground.transactions().await, 2, "the first, and all others");
    assert_eq!(ground.found().await, (1 + 28, 8));
    assert_eq!(
        ground.shards().await,
        (0..SHARDS).map(|shard| (shard, 1)).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_be_written_is_not_the_others_trouble() {
    let ground = Ground::new().await;
    let most = ground.commit(4, None, vec![counted(i64::MAX)]);
    most.await.unwrap().unwrap();

    // One whose checkpoint is another one by now.
    ground.hold_up().await;
    let first = ground.commit(0, None, changes(0, 1));
    ground.until_held_up(1).await;
    let good: Vec<_> = [1, 2].map(|shard| ground.commit(shard, None, vec![counted(-1)])).into();
    let moved = ground.commit(3, Some(at(7)), changes(3, 1));
    tokio::time::sleep(MOMENT).await;
    ground.let_go().await;
    let outcome = moved.await.unwrap();
    assert!(matches!(outcome, Err(ViewError::Moved)), "{outcome:?}");
    for commit in good.into_iter().chain([first]) {
        commit.await.unwrap().unwrap();
    }
    assert_eq!(ground.found().await, (1, i64::MAX - 1));
    assert_eq!(ground.shards().await, [0, 1, 2, 4].map(|shard| (shard, 1)));

    // One that does not fit, and one that goes by itself: it has more rows than a small one may have, by one.
    ground.hold_up().await;
    let first = ground.commit(0, Some(at(1)), vec![counted(1)]);
    ground.until_held_up(1).await;
    let good: Vec<_> = [1, 2]
        .map(|shard| ground.commit(shard, Some(at(1)), vec![counted(-1)]))
        .into();
    let too_much = ground.commit(4, Some(at(1)), changes(4, 1));
    let large = ground.commit(5, None, changes(5, SMALL_ROWS_MAX));
    ground.until_held_up(2).await;
    tokio::time::sleep(MOMENT).await;
    ground.let_go().await;
    let outcome = too_much.await.unwrap();
    assert!(matches!(outcome, Err(ViewError::Refused(_))), "{outcome:?}");
    for commit in good.into_iter().chain([first, large]) {
        commit.await.unwrap().unwrap();
    }
    assert_eq!(ground.found().await, (1 + SMALL_ROWS_MAX, i64::MAX - 1));
    assert_eq!(ground.shards().await, [(0, 2), (1, 2), (2, 2), (4, 1), (5, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_stopped_takes_nobody_along_unawares() {
    let ground = Ground::new().await;
    ground.hold_up().await;
    let mut commits = vec![];
    for shard in 0..4 {
        commits.push(ground.commit(shard, None, changes(shard, 1)));
        // One after the other, the first with the turn.
        match shard {
            0 => ground.until_held_up(1).await,
            _ => tokio::time::sleep(MOMENT).await,
        }
    }
    let [writes, writes_next, is_stopped, waits]: [Committed; 4] = commits.try_into().unwrap();
    is_stopped.abort();
    writes.abort();
    // The second has the turn now, and what the fourth wants written.
    tokio::time::sleep(MOMENT).await;
    writes_next.abort();
    let outcome = waits.await.unwrap();
    assert!(matches!(outcome, Err(ViewError::Unavailable(_))), "{outcome:?}");

    ground.let_go().await;
    ground.commit(3, None, changes(3, 1)).await.unwrap().unwrap();
    assert_eq!(ground.found().await, (1, 1), "nothing of those that were stopped");
    assert_eq!(ground.shards().await, [(3, 1)]);
}
