//! B8: all read models rebuilt from a long history.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::ensure;
use async_trait::async_trait;
use infra::config::Use;
use projections::Group;
use serde_json::json;
use services::log::{Checkpoint, EventLog};
use services::views::{Feeds, Generation, ReadStore, generation_for, rebuild};

use super::Bench;
use crate::history::{self, Kind};
use crate::load::{Load, Measured};
use crate::meters::Meters;
use crate::peer::Peer;
use crate::places::Places;
use crate::projecting::fold;
use crate::session::{Class, Contender, Session};
use crate::target::{Bound, Figure, Target};
use crate::{bare_rebuild, bare_upsert, ours};

pub struct Rebuild;

const SHARDS: u16 = 8;
const CELL: &str = "all read models";
const OURS: &str = "ours, rebuild";
const LIVE: &str = "ours, live";
const BARE: &str = "bare bound";
const PEER: &str = "P1 QueryReplay";
/// The live rate is taken from a part of the history's length: it does not depend on it.
const LIVE_SHARE: u64 = 20;
const PEERS_POOL: u32 = 16;

#[async_trait]
impl Bench for Rebuild {
    fn id(&self) -> &'static str {
        "B8"
    }

    fn title(&self) -> &'static str {
        "Rebuild"
    }

    fn how(&self) -> &'static str {
        "All read models of all groups from a history on Kafka (8 shards) into PostgreSQL, until they are promoted. `live` is what the projectors \
         of all groups fold side by side, as workers do, from a history of a twentieth of that length. `bare bound` decodes and folds on \
         all cores, copies the rows into tables without indexes, and makes the indexes: no judge, no checkpoints, no look-ups. `P1` \
         replays one event after another into one view with `QueryReplay`, from 64 tasks."
    }

    fn targets(&self) -> Vec<Target> {
        let target = |against, bound| Target {
            cell: CELL.into(),
            ours: OURS,
            against,
            figure: Figure::Rate,
            bound,
        };
        vec![
            target(LIVE, Bound::AtLeast(8.0)),
            // At most 1.5 times its time.
            target(BARE, Bound::AtLeast(1.0 / 1.5)),
            target(PEER, Bound::AtLeast(500.0)),
        ]
    }

    async fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        let events = session.extent.events();
        session.note("events of the history", events);
        // A round of ten million events takes long, and tells as much as several short ones.
        session.extent.rounds = session.extent.rounds.min(3);
        let places = session.places.clone();
        let (long, _) = history::shared(&places, SHARDS, Kind::Mixed, events).await?;
        let (brief, _) = history::shared(&places, SHARDS, Kind::Mixed, events / LIVE_SHARE).await?;
        let way = |way, url: &str, rows: &Arc<OnceLock<Counts>>| Whole {
            places: places.clone(),
            url: url.to_owned(),
            way,
            events: None,
            rows: Arc::clone(rows),
        };
        let (of_long, of_brief) = (Arc::default(), Arc::default());
        let mut contenders: Vec<Box<dyn Contender>> = vec![
            Box::new(way(Way::Bare, &long, &of_long)),
            Box::new(way(Way::Rebuild, &long, &of_long)),
            Box::new(way(Way::Live, &brief, &of_brief)),
            Box::new(replaying_peer(session).await?),
        ];
        let load = session.extent.load(64);
        session.cell(CELL, load, &mut contenders).await
    }
}

/// The peer with events to replay.
async fn replaying_peer(session: &Session) -> anyhow::Result<Peer> {
    // As our read models are stored: they come from a log, and a crash may take the last of them.
    let url = session.places.database("b8_peer").await? + "?options=-c%20synchronous_commit%3Doff";
    let program: &Path = &session.places.peers.join("cqrs-es-peer");
    let mut peer = Peer::start(PEER, Class::None, program, &[url, "replay".into()]).await?;
    peer.settings = json!({"pool": PEERS_POOL});
    peer.run(session.extent.load(64), &session.places.meters()).await?;
    peer.settings = json!({"pool": PEERS_POOL, "replay": true});
    Ok(peer)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Rebuild,
    Live,
    Bare,
}

/// One way to all read models of a log.
struct Whole {
    places: Places,
    url: String,
    way: Way,
    /// Events of the log, once they were counted.
    events: Option<u64>,
    /// Rows of each table, as whoever came first left them.
    rows: Arc<OnceLock<Counts>>,
}

/// Rows by the name of the table.
type Counts = BTreeMap<&'static str, i64>;

#[async_trait]
impl Contender for Whole {
    fn name(&self) -> String {
        match self.way {
            Way::Rebuild => OURS,
            Way::Live => LIVE,
            Way::Bare => BARE,
        }
        .into()
    }

    fn class(&self) -> Class {
        Class::None
    }

    async fn run(&mut self, _: Load, meters: &Meters) -> anyhow::Result<Measured> {
        let url = self.places.database("b8").await?;
        let settings = ours::settings(&self.url, &url)?;
        let (log, store) = (settings.open_log(Use::Read)?, settings.open_stores().await?.views);
        let mut live: Vec<Generation> = vec![];
        for group in Group::ALL {
            live.push(generation_for(store.as_ref(), group, SHARDS).await?);
        }
        if self.way == Way::Rebuild {
            // Else what is live and empty would be filled, in place of a new one beside it.
            touch(store.as_ref(), &live).await?;
        }
        self.places.checkpoint().await?;
        let events = match self.events {
            Some(events) => events,
            None => *self.events.insert(events_of(log.as_ref()).await?),
        };
        let start = meters.read()?;
        let schema_of: fn(&Generation) -> String = match self.way {
            Way::Rebuild => {
                let built = rebuild(
                    Arc::clone(&log),
                    Arc::clone(&store),
                    &Group::ALL,
                    SHARDS,
                    |_, _, _, _| (),
                )
                .await;
                built.map_err(anyhow::Error::msg)?;
                schema
            }
            Way::Live => {
                let feeds = Feeds::new(Arc::clone(&log));
                let folds = live.iter().map(|generation| fold(&feeds, &store, generation));
                for folded in futures::future::join_all(folds).await {
                    folded?;
                }
                schema
            }
            Way::Bare => {
                let schemas: Vec<(Group, String)> = live.iter().map(|built| (built.group, schema(built))).collect();
                let folded = bare_rebuild::rebuild(&log, SHARDS, &url, &schemas).await?;
                ensure!(folded == events, "{folded} events were folded in place of {events}");
                |_| "public".into()
            }
        };
        let usage = meters.since(&start)?;
        self.check_rows(store.as_ref(), &url, schema_of, events).await?;
        drop(store);
        self.places.drop_database(&url).await?;
        Ok(Measured::job(events, usage))
    }
}

impl Whole {
    /// The journal has a row for each event, and every table as many as others found.
    async fn check_rows(
        &self,
        store: &dyn ReadStore,
        url: &str,
        schema_of: fn(&Generation) -> String,
        events: u64,
    ) -> anyhow::Result<()> {
        let mut rows = Counts::new();
        for group in Group::ALL {
            let generations = store.generations(group).await?;
            let schema = schema_of(generations.last().expect("a generation was made"));
            for table in group.tables() {
                let name = format!("{schema}.{}", bare_upsert::quoted(table.name));
                rows.insert(table.name, bare_upsert::count(url, &name).await?);
            }
        }
        let journal = Group::Journal.tables().next().expect("the journal has a table").name;
        let found = rows[journal].cast_unsigned();
        ensure!(found == events, "the journal has {found} rows for {events} events");
        let others = self.rows.get_or_init(|| rows.clone());
        ensure!(rows == *others, "{} left {rows:?}, others {others:?}", self.name());
        Ok(())
    }
}

/// Lets the generations look as if something was read into them.
async fn touch(store: &dyn ReadStore, generations: &[Generation]) -> anyhow::Result<()> {
    let read = Checkpoint {
        log_id: uuid::Uuid::nil(),
        next: 1,
        epoch: 0,
        n: 0,
        fingerprint: 0,
    };
    for generation in generations {
        store.commit(generation, 0, None, &read, &[]).await?;
    }
    Ok(())
}

fn schema(generation: &Generation) -> String {
    format!("crm_{}_g{}", generation.group.name(), generation.number)
}

/// The log's valid events.
async fn events_of(log: &dyn EventLog) -> anyhow::Result<u64> {
    let mut events = 0;
    for shard in 0..SHARDS {
        events += services::log::audit(log, shard, |_| ()).await?.events;
    }
    Ok(events)
}
