//! Small commits to the read models in PostgreSQL that wait at the same time go in one transaction, and what becomes of one is not the
//! others' trouble.

use std::sync::Arc;
use std::time::Duration;

use infra::views::{PostgresViews, SMALL_ROWS_MAX};
use projections::{Group, Row, Select, TableChange, Value};
use services::log::Checkpoint;
use services::views::{Generation, ReadStore, ViewError};
use tests::{Database, Holder};
use tokio::task::JoinHandle;
use uuid::Uuid;

const SHARDS: u16 = 8;
const GROUP: Group = Group::Sales;
/// Until what was just asked for waits for its turn.
const MOMENT: Duration = Duration::from_millis(200);

projections::table! {
    entity Mark "together_marks" { key shard: i64, key mark: i64 }
}

projections::table! {
    rollup Total "together_total" { sum count: i64 }
}

type Committed = JoinHandle<Result<(), ViewError>>;

/// A store with two tables.
struct Ground {
    views: Arc<PostgresViews>,
    generation: Generation,
    database: Database,
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
            ..TableChange::nothing(Mark::TABLE)
        },
        counted(1),
    ]
}

fn counted(count: i64) -> TableChange {
    TableChange {
        deltas: vec![Total { count }.into_values()],
        ..TableChange::nothing(Total::TABLE)
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
        Ground {
            views,
            generation,
            database,
        }
    }

    /// Every commit waits until this one lets go.
    async fn hold_up(&self) -> Holder {
        Holder::of_all_tables(&self.database).await
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
    let holder = ground.hold_up().await;
    let mut commits = vec![ground.commit(0, None, changes(0, 1))];
    holder.until_waiting(1).await;
    for shard in 1..SHARDS {
        commits.push(ground.commit(shard, None, changes(shard, usize::from(shard))));
    }
    tokio::time::sleep(MOMENT).await;
    holder.let_go().await;
    for commit in commits {
        commit.await.unwrap().unwrap();
    }
    let transactions = "SELECT count(DISTINCT xmin::text) FROM crm.read_checkpoints";
    let transactions: i64 = holder.client.query_one(transactions, &[]).await.unwrap().get(0);
    assert_eq!(transactions, 2, "the first, and all others");
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
    let holder = ground.hold_up().await;
    let first = ground.commit(0, None, changes(0, 1));
    holder.until_waiting(1).await;
    let good: Vec<_> = [1, 2].map(|shard| ground.commit(shard, None, vec![counted(-1)])).into();
    let moved = ground.commit(3, Some(at(7)), changes(3, 1));
    tokio::time::sleep(MOMENT).await;
    holder.let_go().await;
    let outcome = moved.await.unwrap();
    assert!(matches!(outcome, Err(ViewError::Moved)), "{outcome:?}");
    for commit in good.into_iter().chain([first]) {
        commit.await.unwrap().unwrap();
    }
    assert_eq!(ground.found().await, (1, i64::MAX - 1));
    assert_eq!(ground.shards().await, [0, 1, 2, 4].map(|shard| (shard, 1)));

    // One that does not fit, and one that goes by itself: it has more rows than a small one may have, by one.
    let holder = ground.hold_up().await;
    let first = ground.commit(0, Some(at(1)), vec![counted(1)]);
    holder.until_waiting(1).await;
    let good: Vec<_> = [1, 2]
        .map(|shard| ground.commit(shard, Some(at(1)), vec![counted(-1)]))
        .into();
    let too_much = ground.commit(4, Some(at(1)), changes(4, 1));
    let large = ground.commit(5, None, changes(5, SMALL_ROWS_MAX));
    holder.until_waiting(2).await;
    tokio::time::sleep(MOMENT).await;
    holder.let_go().await;
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
    let holder = ground.hold_up().await;
    let mut commits = vec![];
    for shard in 0..4 {
        commits.push(ground.commit(shard, None, changes(shard, 1)));
        // One after the other, the first with the turn.
        match shard {
            0 => holder.until_waiting(1).await,
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

    holder.let_go().await;
    ground.commit(3, None, changes(3, 1)).await.unwrap().unwrap();
    assert_eq!(ground.found().await, (1, 1), "nothing of those that were stopped");
    assert_eq!(ground.shards().await, [(3, 1)]);
}
