//! A small server in memory, and answers that are easy to assert.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use projections::{Expr, Group, Key, Select, Table, TableChange, Value};
use serde_json::Value as Json;
use tokio::sync::watch;
use tower::ServiceExt;
use uuid::Uuid;

use crate::clock::SystemClock;
use crate::commands::Commands;
use crate::http::{Answers, ApiParts, Hosts, router};
use crate::log::{Checkpoint, EventLog, MemoryLog, NewLog, create};
use crate::routing::{PeerSecret, Routing};
use crate::shard::{Assignment, ShardConfig, ShardParts, spawn};
use crate::states::MemoryStates;
use crate::views::{Generation, GenerationStatus, Queries, ReadStore, Snapshot, ViewError, Workers};
use crate::watch::{UNREAD_FOR_DEFAULT, Watch};

pub const SHARDS: u16 = 4;

pub struct World {
    pub log: MemoryLog,
    pub commands: Commands,
    router: Router,
    stop: watch::Sender<bool>,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

/// What another process of the same log knows.
pub const SECRET: &str = "the-secret-of-the-specs";

impl Answer {
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl World {
    pub async fn new() -> World {
        World::with(CannedRows::default()).await
    }

    /// A server whose read store gives canned rows, and whose shards are owned.
    pub async fn with(rows: CannedRows) -> World {
        World::beside(rows, PeerSecret::new(SECRET), "Asia/Taipei").await
    }

    /// The same of a company whose clocks are of this time zone.
    pub async fn in_zone(rows: CannedRows, time_zone: &str) -> World {
        World::beside(rows, None, time_zone).await
    }

    /// One that shares its log with no other process.
    pub async fn alone() -> World {
        World::beside(CannedRows::default(), None, "Asia/Taipei").await
    }

    async fn beside(rows: CannedRows, peers: Option<PeerSecret>, time_zone: &str) -> World {
        let log = MemoryLog::new();
        World::of(rows, peers, log.clone(), Arc::new(log), time_zone).await
    }

    /// A server whose records go to `memory` by way of `log`.
    pub async fn on(memory: MemoryLog, log: Arc<dyn EventLog>) -> World {
        World::of(CannedRows::default(), None, memory, log, "Asia/Taipei").await
    }

    async fn of(
        rows: CannedRows,
        peers: Option<PeerSecret>,
        memory: MemoryLog,
        log: Arc<dyn EventLog>,
        time_zone: &str,
    ) -> World {
        let calendar = domain::Calendar::of(time_zone).unwrap();
        let new = NewLog {
            shards: SHARDS,
            calendar: Some(calendar.clone()),
        };
        create(log.as_ref(), &new, &SystemClock).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let parts = ShardParts {
            log: Arc::clone(&log),
            states: Arc::new(MemoryStates::default()),
            clock: Arc::new(SystemClock),
            node: "spec".into(),
            address: "127.0.0.1:0".into(),
            source: "/crm/spec".into(),
            config: ShardConfig {
                command_timeout: Duration::from_secs(10),
                ..ShardConfig::default()
            },
        };
        let handles = (0..SHARDS).map(|shard| spawn(shard, parts.clone(), Assignment::alone(), stopped.clone()).0);
        let commands = Commands::new(
            Routing::alone(handles.collect()),
            Arc::new(SystemClock),
            calendar.clone(),
        );
        while commands.shards().iter().any(|shard| !shard.status().owned) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let store: Arc<dyn ReadStore> = Arc::new(rows);
        let router = router(ApiParts {
            commands: commands.clone(),
            queries: Queries::new(Arc::clone(&store), Arc::new(SystemClock), calendar).with_log(Arc::clone(&log)),
            log: Arc::clone(&log),
            store: Arc::clone(&store),
            workers: Workers::new(log, store, SHARDS, BTreeMap::new()),
            instance: "spec".into(),
            peers,
            watch: Watch::new(UNREAD_FOR_DEFAULT),
            metrics: Arc::new(|| "crm_commands_answered_total 1\n".into()),
            hosts: Hosts::of(([127, 0, 0, 1], 7070).into()).and("crm.example.com").unwrap(),
            answers: Answers::default(),
            stopping: stopped,
        });
        World {
            log: memory,
            commands,
            router,
            stop,
        }
    }

    /// The server begins to stop.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        // What no client can send plain.
        let path = path
            .replace('<', "%3C")
            .replace(' ', "%20")
            .replace('"', "%22")
            .replace('>', "%3E");
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:7070");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    /// A request as it is; `request` adds the host that every client sends.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.unread(request).await;
        let (head, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    /// An answer whose body nobody has read yet.
    pub async fn unread(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: Json) -> Answer {
        self.post_with(path, &[], body).await
    }

    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: Json) -> Answer {
        let json = [("content-type", "application/json")];
        let headers: Vec<(&str, &str)> = json.iter().chain(headers).copied().collect();
        self.request("POST", path, &headers, body.to_string()).await
    }

    /// A stream that is begun; its id.
    pub async fn begun(&self, path: &str, body: Json) -> String {
        let answer = self.post(path, body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// How many events there are in the log. Claims and barriers, which only prove who owns a shard, do not count.
    pub fn events(&self) -> usize {
        let records = (0..SHARDS).flat_map(|shard| self.log.records(shard));
        records
            .filter(|record| record.header("ce_commitsize").is_some())
            .count()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A command id of version 7 that was made so many milliseconds after the epoch.
pub fn made_at_ms(ms: u64, n: u8) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(ms, &[n; 10]).into_uuid()
}

pub fn now_ms() -> u64 {
    use crate::clock::Clock;
    SystemClock.now().as_millisecond() as u64
}

/// A read store that answers every select with the same rows, and says how far it is.
#[derive(Default)]
pub struct CannedRows {
    pub rows: Vec<Vec<Value>>,
    pub is_building: bool,
    pub stops: Vec<(u16, String)>,
    /// Why the generation that is being built cannot go live.
    pub blocked: Option<String>,
    pub error: Option<fn() -> ViewError>,
    /// It has read nothing yet.
    pub is_behind: bool,
    /// It never answers a question of many rows.
    pub is_slow: bool,
    /// It never says what it has.
    pub hangs: bool,
}

/// Where it says that it stands, on every shard.
pub const STANDS: u64 = 100;

#[async_trait]
impl ReadStore for CannedRows {
    fn address(&self) -> String {
        "memory:".into()
    }

    async fn generations(&self, group: Group) -> Result<Vec<Generation>, ViewError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        if let Some(error) = self.error {
            return Err(error());
        }
        let status = if self.is_building {
            GenerationStatus::Building
        } else {
            GenerationStatus::Live
        };
        Ok(vec![Generation {
            group,
            number: 1,
            definition: group.definition().to_owned(),
            status,
            shards: SHARDS,
        }])
    }

    async fn create(&self, group: Group, _: u16) -> Result<Generation, ViewError> {
        Ok(self.generations(group).await?.remove(0))
    }

    async fn make_indexes(&self, _: &Generation) -> Result<(), ViewError> {
        Ok(())
    }

    async fn promote(&self, _: &Generation) -> Result<(), ViewError> {
        Ok(())
    }

    async fn checkpoint(&self, _: &Generation, _: u16) -> Result<Option<Checkpoint>, ViewError> {
        Ok(Some(Checkpoint {
            log_id: Uuid::nil(),
            next: if self.is_behind { 0 } else { STANDS },
            epoch: 1,
            n: 1,
            fingerprint: 0,
        }))
    }

    async fn load(
        &self,
        _: &Generation,
        _: u16,
        _: Option<&Checkpoint>,
        _: &'static Table,
        _: &[Key],
    ) -> Result<Vec<Vec<Value>>, ViewError> {
        Ok(vec![])
    }

    async fn commit(
        &self,
        _: &Generation,
        _: u16,
        _: Option<&Checkpoint>,
        _: &Checkpoint,
        _: &[TableChange],
    ) -> Result<(), ViewError> {
        Ok(())
    }

    async fn note_stop(&self, _: &Generation, _: u16, _: &str) -> Result<(), ViewError> {
        Ok(())
    }

    async fn blocked(&self, _: &Generation) -> Result<Option<String>, ViewError> {
        Ok(self.blocked.clone())
    }

    async fn stops(&self, _: &Generation) -> Result<Vec<(u16, String)>, ViewError> {
        Ok(self.stops.clone())
    }

    async fn query(&self, generation: &Generation, selects: &[Select]) -> Result<Snapshot, ViewError> {
        if self.is_slow
            && selects
                .iter()
                .any(|select| select.limit.is_none_or(|limit| limit > 501))
        {
            std::future::pending::<()>().await;
        }
        let next = self.checkpoint(generation, 0).await?.unwrap().next;
        // Asked for the last positions that were recorded by a time, it knows two shards.
        let is_last_position = |select: &Select| {
            matches!(
                select.exprs.as_slice(),
                [Expr::Column("shard"), Expr::Max("log_offset")]
            )
        };
        let result = |select: &Select| match is_last_position(select) {
            true => vec![vec![Value::Int(0), Value::Int(12)], vec![Value::Int(1), Value::Int(99)]],
            false => self
                .rows
                .iter()
                .filter(|row| select.after.as_ref().is_none_or(|after| row[..after.len()] > after[..]))
                .skip(select.offset)
                .take(select.limit.unwrap_or(usize::MAX))
                .cloned()
                .collect(),
        };
        Ok(Snapshot {
            read_until: vec![(0, next), (1, next)],
            results: selects.iter().map(result).collect(),
        })
    }
}

/// The log's end is known without asking it.
pub async fn end_of(log: &MemoryLog, shard: u16) -> u64 {
    log.end(shard).await.unwrap()
}
