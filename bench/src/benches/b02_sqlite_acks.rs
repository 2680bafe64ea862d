//! B2: command acks on the SQLite log beside one transaction per command, and beside a bare group insert.

use std::sync::Arc;

use async_trait::async_trait;
use services::shard::ShardConfig;

use super::Bench;
use crate::bare_sqlite::{BareInsert, Transactions};
use crate::ours::Ours;
use crate::sender::{Sender, Sending};
use crate::session::{Class, Contender, Session};
use crate::stored;
use crate::target::{Bound, Figure, Target};

pub struct SqliteAcks;

const CLIENTS: [usize; 3] = [1, 64, 256];
const SHARDS: [u16; 2] = [1, 8];
const KNOWN_STREAMS: u64 = 2_000;

fn cell(clients: usize, shards: u16) -> String {
    format!("{clients} clients, {shards} shards")
}

#[async_trait]
impl Bench for SqliteAcks {
    fn id(&self) -> &'static str {
        "B2"
    }

    fn title(&self) -> &'static str {
        "Command acks on SQLite"
    }

    fn how(&self) -> &'static str {
        "As B1, log and states in SQLite files of one folder, with 1 and with 8 shards. The bare limits insert the same rows (key, headers, value) with the \
         same journal and fsync from one thread: one transaction per command, or one per group of whatever waits."
    }

    fn targets(&self) -> Vec<Target> {
        let mut targets = vec![];
        for (shards, clients) in SHARDS.into_iter().flat_map(|shards| [(shards, 64), (shards, 256)]) {
            for ours in ["ours", "ours, known streams"] {
                let rate = |against, bound| Target {
                    cell: cell(clients, shards),
                    ours,
                    against,
                    figure: Figure::Rate,
                    bound,
                };
                targets.push(rate("one transaction per command", Bound::AtLeast(6.0)));
                targets.push(rate("bare group insert", Bound::AtLeast(0.8)));
                targets.push(Target {
                    figure: Figure::Cpu,
                    ..rate("bare group insert", Bound::Shown)
                });
            }
        }
        targets
    }

    async fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        for shards in session.extent.pick(SHARDS.to_vec(), vec![8]) {
            run(session, shards).await?;
        }
        Ok(())
    }
}

async fn run(session: &mut Session, shards: u16) -> anyhow::Result<()> {
    let folder = session.places.folder("b2")?;
    let url = |name: &str| format!("sqlite:{}", folder.join(name).display());
    let ours = Arc::new(Ours::start(&url("log"), &url("views"), shards, ShardConfig::default()).await?);
    let mut known = Sender::new(&ours, Sending::Corrections { streams: KNOWN_STREAMS }, Class::D1);
    known.prepare().await?;
    let bare = |transactions, name: &str| -> anyhow::Result<Box<dyn Contender>> {
        let folder = session.places.folder(name)?;
        Ok(Box::new(BareInsert::new(
            &folder,
            transactions,
            stored::receipts(1_024)?,
        )?))
    };
    let mut contenders: Vec<Box<dyn Contender>> = vec![
        bare(Transactions::OnePerCommand, "b2.each")?,
        bare(Transactions::OnePerGroup, "b2.group")?,
        Box::new(Sender::new(&ours, Sending::Receipts, Class::D1)),
        Box::new(known),
    ];
    for clients in session.extent.pick(CLIENTS.to_vec(), vec![64]) {
        let load = session.extent.load(clients);
        session.cell(&cell(clients, shards), load, &mut contenders).await?;
    }
    session.check(&mut contenders).await?;
    drop(contenders);
    if let Ok(ours) = Arc::try_unwrap(ours) {
        ours.stop().await;
    }
    Ok(())
}
