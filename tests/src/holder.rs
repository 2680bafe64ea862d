//! Somebody else in a database of PostgreSQL, who holds its tables, and sees who waits.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use crate::Database;

/// What a session does that waits for a lock.
pub const WAITING: &str = "wait_event_type = 'Lock'";
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Somebody else in the same database, who holds every table of ours for as long as they like.
pub struct Holder {
    pub client: Client,
}

impl Holder {
    /// Holds them from now on.
    pub async fn of_all_tables(database: &Database) -> Holder {
        let (client, connection) = tokio_postgres::connect(database.url(), NoTls)
            .await
            .expect("the database is there");
        tokio::spawn(connection);
        let ours = "SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'";
        let names: String = client.query_one(ours, &[]).await.expect("the names of tables").get(0);
        let lock = format!("BEGIN; LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE");
        client.batch_execute(&lock).await.expect("nobody else holds them");
        Holder { client }
    }

    /// Sessions of others in this database for which `condition` is true.
    pub async fn sessions(&self, condition: &str) -> usize {
        let count = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND {condition}"
        );
        // In a transaction the server would answer what it answered first.
        self.client
            .batch_execute("SELECT pg_stat_clear_snapshot()")
            .await
            .expect("the server answers");
        let count: i64 = self.client.query_one(&count, &[]).await.expect("a count").get(0);
        usize::try_from(count).expect("no fewer than none")
    }

    /// The most such sessions, from when there are `expected` of them until a second later.
    pub async fn most_sessions(&self, condition: &str, expected: usize) -> usize {
        let deadline = Instant::now() + PATIENCE;
        let mut most = 0;
        while most < expected && Instant::now() < deadline {
            most = most.max(self.sessions(condition).await);
            tokio::time::sleep(POLL).await;
        }
        let seen_at = Instant::now();
        while seen_at.elapsed() < Duration::from_secs(1) {
            most = most.max(self.sessions(condition).await);
            tokio::time::sleep(POLL).await;
        }
        most
    }

    /// Waits until so many sessions wait for a lock.
    pub async fn until_waiting(&self, expected: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let waiting = self.sessions(WAITING).await;
            if waiting == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{waiting} sessions wait, not {expected}");
            tokio::time::sleep(POLL).await;
        }
    }

    pub async fn let_go(&self) {
        self.client.batch_execute("COMMIT").await.expect("the server answers");
    }
}
