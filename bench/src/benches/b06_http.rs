//! B6: a whole HTTP command beside an axum handler that only reads it.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use super::Bench;
use crate::http::{Server, crm_serve, free_port, wait_until_owned};
use crate::http_clients::HttpClients;
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
        let kafka = crm_serve(&places.crm, &log, &views, &["--no-projections"], None).await?;
        let folder = places.folder("b6")?;
        let url = format!("sqlite:{}", folder.display());
        let sqlite = crm_serve(&places.crm, &url, &url, &["--no-projections"], None).await?;
        for server in [&kafka, &sqlite] {
            wait_until_owned(&[&server.address], SHARDS, Duration::from_secs(60)).await?;
        }
        let address = format!("127.0.0.1:{}", free_port()?);
        let program: PathBuf = std::env::current_exe()?;
        let noop = Server::start(&program, &["noop", &address], &[], &address, None).await?;
        let mut contenders: Vec<Box<dyn Contender>> = vec![
            Box::new(HttpClients::new("no-op axum", Class::None, noop)),
            Box::new(HttpClients::new("ours on Kafka", Class::D0, kafka).with_log(ours::log_to_read(&log, &views)?)),
            Box::new(HttpClients::new("ours on SQLite", Class::D1, sqlite).with_log(ours::log_to_read(&url, &url)?)),
        ];
        let load = session.extent.load(CLIENTS);
        session.cell(CELL, load, &mut contenders).await?;
        session.check(&mut contenders).await
    }
}
