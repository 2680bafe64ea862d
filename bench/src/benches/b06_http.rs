//! B6: a whole HTTP command beside an axum handler that only reads it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::ensure;
use async_trait::async_trait;
use tokio::sync::Mutex;

use super::Bench;
use crate::http::{HttpConnection, Server, crm_serve, free_port};
use crate::load::{Load, Measured, closed_loop};
use crate::meters::Meters;
use crate::ours;
use crate::session::{Class, Contender, Session};
use crate::target::{Bound, Figure, Target};

pub struct HttpCommands;

const CLIENTS: usize = 64;
const SHARDS: u16 = 8;
const CELL: &str = "64 connections";

#[async_trait]
impl Bench for HttpCommands {
    fn id(&self) -> &'static str {
        "B6"
    }

    fn title(&self) -> &'static str {
        "A whole HTTP command"
    }

    fn how(&self) -> &'static str {
        "64 closed-loop connections of a lean client post receipts to `crm serve --no-projections` (log on Kafka, 8 shards, states in PostgreSQL; \
         and the same on SQLite), and to an axum server that reads the same body into the same typed command and answers at once. Client and \
         server are two processes; both count."
    }

    fn targets(&self) -> Vec<Target> {
        let target = |ours, figure, bound| Target {
            cell: CELL.into(),
            ours,
            against: "no-op axum",
            figure,
            bound,
        };
        vec![
            target("ours on Kafka", Figure::Rate, Bound::AtLeast(0.4)),
            target("ours on SQLite", Figure::Rate, Bound::AtLeast(0.4)),
            target("ours on Kafka", Figure::Cpu, Bound::Shown),
        ]
    }

    async fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        let places = session.places.clone();
        let views = places.database("b6").await?;
        let log = places.topic("b6");
        ours::create_log(&log, &views, SHARDS).await?;
        let kafka = crm_serve(&places.crm, &log, &views, &["--no-projections"]).await?;
        let folder = places.folder("b6")?;
        let url = format!("sqlite:{}", folder.display());
        let sqlite = crm_serve(&places.crm, &url, &url, &["--no-projections"]).await?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let program: PathBuf = std::env::current_exe()?;
        let noop = Server::start(&program, &["noop", &address], &[], &address).await?;
        let mut contenders: Vec<Box<dyn Contender>> = vec![
            Box::new(HttpClients::new("no-op axum", Class::None, noop)),
            Box::new(HttpClients::new("ours on Kafka", Class::D0, kafka)),
            Box::new(HttpClients::new("ours on SQLite", Class::D1, sqlite)),
        ];
        let load = session.extent.load(CLIENTS);
        session.cell(CELL, load, &mut contenders).await?;
        session.check(&mut contenders).await?;
        drop(contenders);
        let stored = events_in(&log, &views).await?;
        session.note("events on Kafka at the end", stored);
        Ok(())
    }
}

async fn events_in(log: &str, views: &str) -> anyhow::Result<u64> {
    let log = ours::settings(log, views)?.open_log(infra::config::Use::Read)?;
    let mut events = 0;
    for shard in 0..SHARDS {
        events += services::log::audit(log.as_ref(), shard, |_| ()).await?.events;
    }
    Ok(events)
}

/// Clients of one server, each with a connection that it keeps.
pub struct HttpClients {
    name: &'static str,
    class: Class,
    server: Server,
    next: Arc<AtomicU64>,
    connections: Vec<Arc<Mutex<HttpConnection>>>,
    run_name: String,
}

impl HttpClients {
    pub fn new(name: &'static str, class: Class, server: Server) -> HttpClients {
        HttpClients {
            name,
            class,
            server,
            next: Arc::new(AtomicU64::new(1)),
            connections: vec![],
            run_name: "h".into(),
        }
    }
}

#[async_trait]
impl Contender for HttpClients {
    fn name(&self) -> String {
        self.name.into()
    }

    fn class(&self) -> Class {
        self.class
    }

    async fn run(&mut self, load: Load, meters: &Meters) -> anyhow::Result<Measured> {
        while self.connections.len() < load.clients {
            let connection = HttpConnection::open(&self.server.address).await?;
            self.connections.push(Arc::new(Mutex::new(connection)));
        }
        let meters = meters.clone().and("server", self.server.pid());
        let (connections, next, run) = (self.connections.clone(), Arc::clone(&self.next), self.run_name.clone());
        closed_loop(load, &meters, move |client| {
            let connection = Arc::clone(&connections[client]);
            let n = next.fetch_add(1, Ordering::Relaxed);
            let body = ours::receipt(&run, n).1.to_json().to_string();
            async move {
                let answer = connection.lock().await.post("/api/purchase", body.as_bytes()).await?;
                let text = String::from_utf8_lossy(&answer.body);
                ensure!(answer.status == 201, "the answer was {}: {text}", answer.status);
                Ok(())
            }
        })
        .await
    }
}
