//! B14: UmaDB beside our SQLite log behind HTTP.

use std::time::Duration;

use async_trait::async_trait;

use super::Bench;
use crate::http::{Server, crm_serve, free_port, wait_until_owned};
use crate::http_clients::HttpClients;
use crate::ours;
use crate::peer::Peer;
use crate::session::{Class, Contender, Session};
use crate::target::{Bound, Figure, Target};

pub struct Umadb;

const CLIENTS: usize = 64;
const CELL: &str = "64 clients";
const OURS: &str = "ours on SQLite";
/// The two ways that its server writes.
const PEERS: [(&str, &str); 2] = [("P2 UmaDB", "plain"), ("P2 UmaDB, pipelined", "pipelined")];
/// Of a log that is created without another word.
const SHARDS: u16 = 8;

#[async_trait]
impl Bench for Umadb {
    fn id(&self) -> &'static str {
        "B14"
    }

    fn title(&self) -> &'static str {
        "UmaDB"
    }

    fn how(&self) -> &'static str {
        "64 closed-loop clients. `ours` posts receipts to `crm serve --no-projections` on SQLite by HTTP/1.1, a connection each: rules, duplicate \
         check and version check are the server's. UmaDB 0.7.8 gets the finished event from clients that have decided it by the same rules, \
         over gRPC (eight connections), on condition that no event of that stream is there; its server runs with its writer plain and \
         pipelined. Each is a process for the clients and one for the server."
    }

    fn targets(&self) -> Vec<Target> {
        let target = |against, figure, bound| Target {
            cell: CELL.into(),
            ours: OURS,
            against,
            figure,
            bound,
        };
        let mut targets = vec![];
        for (peer, _) in PEERS {
            targets.push(target(peer, Figure::Rate, Bound::AtLeast(1.0)));
            targets.push(target(peer, Figure::Cpu, Bound::Shown));
        }
        targets
    }

    async fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        let places = session.places.clone();
        let url = format!("sqlite:{}", places.folder("b14.ours")?.display());
        let ours = crm_serve(&places.crm, &url, &url, &["--no-projections"], None).await?;
        wait_until_owned(&[&ours.address], SHARDS, Duration::from_secs(60)).await?;
        let program = places.peers.join("umadb-peer");
        let ours = HttpClients::new(OURS, Class::D1, ours).with_log(ours::log_to_read(&url, &url)?);
        let mut contenders: Vec<Box<dyn Contender>> = vec![Box::new(ours)];
        let mut servers = vec![];
        for (name, writer) in PEERS {
            let folder = places.folder("b14.umadb")?;
            let address = format!("127.0.0.1:{}", free_port()?);
            let arguments = ["server", &folder.to_string_lossy(), &address, writer];
            let server = Server::start(&program, &arguments, &[], &address, None).await?;
            let arguments = ["clients".to_owned(), format!("http://{address}")];
            let mut peer = Peer::start(name, Class::D1, &program, &arguments).await?;
            peer.helper = Some(server.pid());
            servers.push(server);
            contenders.push(Box::new(peer));
        }
        let load = session.extent.load(CLIENTS);
        session.cell(CELL, load, &mut contenders).await?;
        session.check(&mut contenders).await
    }
}
