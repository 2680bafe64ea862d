//! B3: command acks on the PostgreSQL log beside cqrs-es with its PostgreSQL store.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use services::shard::ShardConfig;

use super::Bench;
use crate::ours::Ours;
use crate::peer::Peer;
use crate::sender::{Sender, Sending};
use crate::session::{Class, Contender, Session};
use crate::target::{Bound, Figure, Target};

pub struct PostgresAcks;

const CLIENTS: [usize; 4] = [1, 16, 64, 256];
const SHARDS: u16 = 8;
const KNOWN_STREAMS: u64 = 2_000;
/// Pool sizes that a peer is tried with at each number of clients; the fastest is taken. 10 is the default of P1.
const POOLS: [u32; 5] = [4, 10, 16, 32, 64];
const PEER: &str = "P1 cqrs-es";
const AXON: &str = "P4 Axon, JPA";

fn cell(clients: usize) -> String {
    match clients {
        1 => "1 client".into(),
        _ => format!("{clients} clients"),
    }
}

#[async_trait]
impl Bench for PostgresAcks {
    fn id(&self) -> &'static str {
        "B3"
    }

    fn title(&self) -> &'static str {
        "Command acks on PostgreSQL"
    }

    fn how(&self) -> &'static str {
        "Closed-loop clients, 8 shards; log and states in the same PostgreSQL as the peer's events, fsync and synchronous commit on. The peer \
         is cqrs-es 0.5 with postgres-es 0.5; its aggregate decides by the domain's own rules and stores the domain's events, each \
         command begins an aggregate as ours begins a stream. P4 is Axon Framework 4.12 with its JPA event store (Hibernate 6.6, payloads as \
         bytea, Jackson) and the same rules in Java; its clients are threads. Both have a pool of the size that was fastest with so many clients in a trial before."
    }

    fn targets(&self) -> Vec<Target> {
        let target = |clients, figure, bound| Target {
            cell: cell(clients),
            ours: "ours",
            against: PEER,
            figure,
            bound,
        };
        let mut targets = vec![
            target(1, Figure::P50, Bound::AtMost(0.6)),
            target(64, Figure::Rate, Bound::AtLeast(8.0)),
            target(256, Figure::Rate, Bound::AtLeast(12.0)),
        ];
        targets.extend([1, 64, 256].map(|clients| Target {
            against: AXON,
            ..target(clients, Figure::Rate, Bound::Shown)
        }));
        targets.extend([1, 16, 64, 256].map(|clients| target(clients, Figure::Cpu, Bound::AtMost(0.05))));
        targets
    }

    async fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        let peers_database = session.places.database("b3_peer").await?;
        let program = session.places.peers.join("cqrs-es-peer");
        let mut peer = Peer::start(PEER, Class::D1, &program, &[peers_database]).await?;
        let clients_there = match session.extent.for_floor {
            true => vec![64],
            false => session.extent.pick(CLIENTS.to_vec(), vec![1, 64]),
        };
        choose_pools(session, &mut peer, &clients_there).await?;
        let views = session.places.database("b3_views").await?;
        let log = session.places.database("b3_log").await?;
        let ours = Ours::start(&log, &views, SHARDS, ShardConfig::default())
            .await
            .context("the log on PostgreSQL")?;
        let ours = Arc::new(ours);
        let mut known = Sender::new(&ours, Sending::Corrections { streams: KNOWN_STREAMS }, Class::D1);
        known.prepare().await?;
        let mut contenders: Vec<Box<dyn Contender>> = vec![
            Box::new(peer),
            Box::new(Sender::new(&ours, Sending::Receipts, Class::D1)),
            Box::new(known),
        ];
        if !session.extent.for_floor {
            let database = session.places.database("b3_axon").await?;
            let mut axon = start_axon(session, &database).await?;
            choose_pools(session, &mut axon, &clients_there).await?;
            contenders.push(Box::new(axon));
        }
        for clients in clients_there {
            let load = session.extent.load(clients);
            session.cell(&cell(clients), load, &mut contenders).await?;
        }
        session.check(&mut contenders).await?;
        drop(contenders);
        if let Ok(ours) = Arc::try_unwrap(ours) {
            ours.stop().await;
        }
        Ok(())
    }
}

async fn start_axon(session: &Session, url: &str) -> anyhow::Result<Peer> {
    let (_, place) = url.rsplit_once('@').context("the URL names a user")?;
    let arguments = [
        "-Xms1g",
        "-Xmx1g",
        "-XX:+UseG1GC",
        "-Dorg.jboss.logging.provider=slf4j",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
        "-cp",
        &session.places.axon,
        "AxonPeer",
        &format!("jdbc:postgresql://{place}"),
    ];
    Peer::start(AXON, Class::D1, Path::new("java"), &arguments.map(str::to_owned)).await
}

/// Sets the pool size that is fastest at each number of clients.
async fn choose_pools(session: &mut Session, peer: &mut Peer, clients_there: &[usize]) -> anyhow::Result<()> {
    let meters = session.places.meters();
    for &clients in clients_there {
        let load = session.extent.load(clients);
        let mut best = (0.0, POOLS[0]);
        for size in session.extent.pick(POOLS.to_vec(), vec![10, 16]) {
            peer.pools.insert(clients, size);
            let measured = peer.run(load, &meters).await?;
            let rate = measured.ops as f64 / measured.usage.seconds;
            eprintln!(
                "   {} with {clients} clients and a pool of {size}: {rate:.0}/s",
                peer.name()
            );
            if rate > best.0 {
                best = (rate, size);
            }
        }
        peer.pools.insert(clients, best.1);
    }
    let chosen: Vec<String> = peer.pools.values().map(u32::to_string).collect();
    session.note(&format!("pools of {}, by clients", peer.name()), chosen.join(", "));
    Ok(())
}
