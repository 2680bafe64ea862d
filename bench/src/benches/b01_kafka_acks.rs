//! B1: command acks on Kafka beside bare produce and ack.

use std::sync::Arc;

use async_trait::async_trait;
use infra::config::Use;
use services::shard::ShardConfig;

use super::Bench;
use crate::bare_kafka::BareProducer;
use crate::ours::{self, Ours};
use crate::sender::{Sender, Sending};
use crate::session::{Class, Contender, Session};
use crate::stored;
use crate::target::{Bound, Figure, Target};

pub struct KafkaAcks;

const CLIENTS: [usize; 3] = [1, 64, 256];
const SHARDS: [u16; 2] = [1, 8];
/// Interactions that the corrections go to: few enough to be in memory.
const KNOWN_STREAMS: u64 = 2_000;

fn cell(clients: usize, shards: u16) -> String {
    let plural = if shards == 1 { "" } else { "s" };
    let clients_plural = if clients == 1 { "" } else { "s" };
    format!("{clients} client{clients_plural}, {shards} shard{plural}")
}

#[async_trait]
impl Bench for KafkaAcks {
    fn id(&self) -> &'static str {
        "B1"
    }

    fn title(&self) -> &'static str {
        "Command acks on Kafka"
    }

    fn how(&self) -> &'static str {
        "Closed-loop clients in one process with the core, log on Kafka, states in PostgreSQL. `ours` records receipts, each of which begins \
         a stream; `ours, known streams` corrects interactions whose states are in memory; `ours, as JSON` is `ours` through the door that HTTP uses. `bare produce` sends finished records of the same bytes through \
         one producer with the same settings and waits for each ack."
    }

    fn targets(&self) -> Vec<Target> {
        let mut targets = vec![];
        for shards in SHARDS {
            for clients in CLIENTS {
                for ours in ["ours", "ours, known streams"] {
                    let (figure, bound) = match clients {
                        1 => (Figure::P50, Bound::AtMost(1.5)),
                        _ => (Figure::Rate, Bound::AtLeast(0.85)),
                    };
                    let against = "bare produce";
                    let cell = cell(clients, shards);
                    targets.push(Target {
                        cell: cell.clone(),
                        ours,
                        against,
                        figure,
                        bound,
                    });
                    targets.push(Target {
                        cell,
                        ours,
                        against,
                        figure: Figure::Cpu,
                        bound: Bound::Shown,
                    });
                }
            }
        }
        targets
    }

    async fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        let (shards_there, clients_there) = match session.extent.for_floor {
            true => (vec![8], vec![64]),
            false => (SHARDS.to_vec(), session.extent.pick(CLIENTS.to_vec(), vec![1, 64])),
        };
        for shards in shards_there {
            let (mut contenders, ours) = contenders(session, shards).await?;
            for clients in clients_there.iter().copied() {
                let load = session.extent.load(clients);
                session.cell(&cell(clients, shards), load, &mut contenders).await?;
            }
            session.check(&mut contenders).await?;
            drop(contenders);
            if let Ok(ours) = Arc::try_unwrap(ours) {
                ours.stop().await;
            }
        }
        Ok(())
    }
}

async fn contenders(session: &Session, shards: u16) -> anyhow::Result<(Vec<Box<dyn Contender>>, Arc<Ours>)> {
    let places = &session.places;
    let views = places.database("b1").await?;
    let ours = Ours::start(&places.topic("b1.ours"), &views, shards, ShardConfig::default()).await?;
    let ours = Arc::new(ours);
    let mut known = Sender::new(&ours, Sending::Corrections { streams: KNOWN_STREAMS }, Class::D0);
    known.prepare().await?;
    let bare = ours::settings(&places.topic("b1.bare"), &views)?.open_log(Use::Write)?;
    let bare = BareProducer::new(&places.kafka, bare, shards, stored::receipts(1_024)?).await?;
    let mut contenders: Vec<Box<dyn Contender>> = vec![
        Box::new(bare),
        Box::new(Sender::new(&ours, Sending::Receipts, Class::D0)),
        Box::new(known),
    ];
    if !session.extent.for_floor {
        contenders.push(Box::new(Sender::new(&ours, Sending::JsonReceipts, Class::D0)));
    }
    Ok((contenders, ours))
}
