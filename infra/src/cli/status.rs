//! `crm status`

use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use domain::Position;
use projections::{Group, READ_MODELS};
use serde::Serialize;
use services::clock::{Clock, SystemClock};
use services::log::{Envelope, EventLog, last_claim};
use services::routing::Peers;
use services::views::GenerationStatus;
use services::watch::UNREAD_FOR_DEFAULT;

use super::FOUND_TROUBLE;
use super::output::out;
use crate::config::{Settings, Use};
use crate::import::Dangling;
use crate::peers::HttpPeers;
use crate::runtime::Parts;

/// How long a shard's owner may take to answer, and the pause before it is asked again.
const OWNER_WAIT: Duration = Duration::from_secs(2);
const OWNER_PAUSE: Duration = Duration::from_millis(500);
/// How many seconds a shard may be without an owner, or a record unread: a day at most, and 0 asks once.
pub const UNREAD_SECONDS: RangeInclusive<u64> = 0..=86_400;

/// Show shards, owners, lag and trouble; the exit code is for monitoring
///
/// Shows shards, owners, lag and trouble. Exit code 0: all is well; 1: log or store cannot be reached or are not in order;
/// 2: a shard of a Kafka log is served by no process, a read model stopped, it lags by more than --lag-max, or its oldest unread record
/// waits for longer than --unread-max.
#[derive(Debug, Args)]
pub struct Status {
    /// A checksum of the business columns of every read model: equal on every store, and after a rebuild
    #[arg(long)]
    checksums: bool,
    /// Records that a read model may lag behind
    #[arg(long, default_value_t = 100_000)]
    lag_max: u64,
    /// Seconds that a shard may be without an owner, and a record unread
    #[arg(long, value_name = "SECONDS", default_value_t = UNREAD_FOR_DEFAULT.as_secs(), value_parser = clap::value_parser!(u64).range(UNREAD_SECONDS))]
    unread_max: u64,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Found {
    ok: bool,
    /// What is not as it should be, as sentences.
    trouble: Vec<String>,
    log: String,
    log_id: String,
    time_zone: String,
    views: String,
    shards: Vec<ShardFound>,
    groups: Vec<GroupFound>,
    /// What something refers to and what is not there (yet); left out while the read models are not built.
    #[serde(skip_serializing_if = "Option::is_none")]
    dangling: Option<Dangling>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
}

#[derive(Debug, Serialize)]
struct ShardFound {
    shard: u16,
    records: u64,
    epoch: u64,
    /// Node and address of the last claim.
    owner: Option<String>,
    /// Does that one serve it now? It is asked on a Kafka log only: others have one process that writes, whose own status tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    served: Option<bool>,
}

#[derive(Debug, Serialize)]
struct GroupFound {
    group: &'static str,
    generation: Option<i64>,
    status: &'static str,
    lag: u64,
    /// Shard and age in seconds of the oldest record that is not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_unread: Option<(u16, u64)>,
    stops: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Checksum {
    read_model: &'static str,
    checksum: String,
    rows: usize,
}

impl Status {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let parts = Parts::open_to_read(settings, settings.open_log(Use::Read)?).await?;
        let mut found = Found {
            ok: true,
            trouble: vec![],
            log: parts.log.address(),
            log_id: parts.opened.log_id.to_string(),
            time_zone: parts.opened.calendar.time_zone().to_owned(),
            views: parts.stores.views.address(),
            shards: vec![],
            groups: vec![],
            dangling: None,
            checksums: vec![],
        };
        for shard in 0..parts.opened.shards {
            let records = parts.log.end(shard).await?;
            let claim = last_claim(parts.log.as_ref(), shard).await?;
            let epoch = claim.as_ref().map_or(0, |claim| claim.epoch);
            let owner = claim.map(|claim| match claim.address.as_str() {
                "" => claim.node,
                address => format!("{} at {address}", claim.node),
            });
            found.shards.push(ShardFound {
                shard,
                records,
                epoch,
                owner,
                served: None,
            });
        }
        self.ask_owners(settings, &parts, &mut found.shards).await?;
        for group in Group::ALL {
            found.groups.push(self.group(&parts, group, &found.shards).await?);
        }
        found.dangling = Dangling::here(&parts.queries()).await.ok();
        found.trouble = self.trouble(&found);
        found.ok = found.trouble.is_empty();
        if self.checksums {
            let queries = parts.queries();
            for model in READ_MODELS {
                let (checksum, rows) = queries.checksum(model).await?;
                found.checksums.push(Checksum {
                    read_model: model.name,
                    checksum,
                    rows,
                });
            }
        }
        match self.json {
            true => out!("{}", serde_json::to_string_pretty(&found)?),
            false => show(&found),
        }
        Ok(if found.ok {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(FOUND_TROUBLE)
        })
    }

    /// Asks each shard's owner whether it serves the shard. While a shard moves nobody does, for a moment.
    async fn ask_owners(&self, settings: &Settings, parts: &Parts, shards: &mut [ShardFound]) -> anyhow::Result<()> {
        if settings.kafka_log()?.is_none() {
            return Ok(());
        }
        let secret = match parts.peer_secret(settings).await {
            Ok(secret) => secret,
            Err(why) => {
                for shard in shards.iter_mut().filter(|shard| shard.owner.is_none()) {
                    shard.served = Some(false);
                }
                if shards.iter().any(|shard| shard.owner.is_some()) {
                    eprintln!(
                        "the owners of the shards cannot be asked whether they serve them, for that takes the secret of the servers \
                         (CRM_PEER_SECRET_FILE): {why:#}"
                    );
                }
                return Ok(());
            }
        };
        let peers = &HttpPeers::new(secret)?;
        let deadline = Instant::now() + Duration::from_secs(self.unread_max);
        let asked = shards.iter().map(async |found| {
            loop {
                let stored = parts.stores.states.owner(found.shard, parts.opened.log_id).await;
                let address = match stored {
                    Ok(Some(address)) => Some(address),
                    _ => last_claim(parts.log.as_ref(), found.shard)
                        .await?
                        .map(|claim| claim.address),
                };
                let is_served = match address {
                    Some(address) => peers.serves(&address, found.shard, OWNER_WAIT).await,
                    None => false,
                };
                if is_served || Instant::now() >= deadline {
                    return anyhow::Ok(is_served);
                }
                tokio::time::sleep(OWNER_PAUSE).await;
            }
        });
        let asked = futures::future::try_join_all(asked).await?;
        for (shard, is_served) in shards.iter_mut().zip(asked) {
            shard.served = Some(is_served);
        }
        Ok(())
    }

    fn trouble(&self, found: &Found) -> Vec<String> {
        let unserved = found.shards.iter().filter(|shard| shard.served == Some(false));
        let mut trouble: Vec<String> = unserved
            .map(|shard| format!("shard {} is served by no process", shard.shard))
            .collect();
        for group in &found.groups {
            let name = group.group;
            trouble.extend(
                group
                    .stops
                    .iter()
                    .map(|stop| format!("the read models of {name} stopped on {stop}")),
            );
            if group.lag > self.lag_max {
                trouble.push(format!("the read models of {name} lag by {} records", group.lag));
            }
            if let Some((shard, seconds)) = group.oldest_unread.filter(|(_, seconds)| *seconds > self.unread_max) {
                trouble.push(format!(
                    "the read models of {name}: the oldest unread record, of shard {shard}, waits for {seconds} s"
                ));
            }
        }
        trouble
    }

    async fn group(&self, parts: &Parts, group: Group, shards: &[ShardFound]) -> anyhow::Result<GroupFound> {
        let views = parts.stores.views.as_ref();
        let generations = views.generations(group).await?;
        let live = generations.iter().rev().find(|generation| generation.is_asked());
        let Some(live) = live else {
            let lag = shards.iter().map(|shard| shard.records).sum();
            return Ok(GroupFound {
                group: group.name(),
                generation: None,
                status: "not built",
                lag,
                oldest_unread: None,
                stops: vec![],
            });
        };
        let (mut lag, mut oldest_unread) = (0, None);
        for shard in shards {
            let next = views
                .checkpoint(live, shard.shard)
                .await?
                .map_or(0, |checkpoint| checkpoint.next);
            lag += shard.records.saturating_sub(next);
            if next < shard.records
                && let Some(age) = age_of(parts.log.as_ref(), shard.shard, next).await?
                && oldest_unread.is_none_or(|(_, oldest)| age > oldest)
            {
                oldest_unread = Some((shard.shard, age));
            }
        }
        let stops = views.stops(live).await?.into_iter();
        let mut stops: Vec<String> = stops.map(|(shard, why)| format!("shard {shard}: {why}")).collect();
        let building = generations
            .iter()
            .find(|generation| generation.status == GenerationStatus::Building);
        let status = if building.is_some() { "live, rebuilding" } else { "live" };
        let blocked = match building {
            Some(building) => views.blocked(building).await?.map(|why| (building.number, why)),
            None => None,
        };
        stops.extend(blocked.map(|(number, why)| format!("generation {number}, which cannot go live: {why}")));
        Ok(GroupFound {
            group: group.name(),
            generation: Some(live.number),
            status,
            lag,
            oldest_unread,
            stops,
        })
    }
}

/// The age of a record in seconds, by this machine's clock; `None` of one that does not say when it was written.
async fn age_of(log: &dyn EventLog, shard: u16, offset: u64) -> anyhow::Result<Option<u64>> {
    let mut reader = log.reader(shard, offset).await?;
    let batch = reader.next(1, Duration::from_secs(10)).await?;
    let Some((_, record)) = batch.first() else {
        return Ok(None);
    };
    let written = Envelope::parse(record, Position { shard, offset }).map(|envelope| envelope.time);
    Ok(written
        .ok()
        .map(|time| u64::try_from(SystemClock.now().duration_since(time).as_secs()).unwrap_or(0)))
}

fn show(found: &Found) {
    out!(
        "log   {} ({})\ndays  {}\nviews {}\n",
        found.log,
        found.log_id,
        found.time_zone,
        found.views
    );
    for shard in &found.shards {
        let owner = shard.owner.as_deref().unwrap_or("nobody yet");
        out!(
            "shard {:3}  {:>10} records  epoch {:>4}  last claimed by {owner}",
            shard.shard,
            shard.records,
            shard.epoch
        );
    }
    out!("");
    for group in &found.groups {
        let generation = group
            .generation
            .map_or_else(|| "-".to_owned(), |number| number.to_string());
        out!(
            "{:10} generation {generation:>3}  {:18} lag {} records",
            group.group,
            group.status,
            group.lag
        );
        for stop in &group.stops {
            out!("           STOPPED on {stop}");
        }
    }
    if let Some(dangling) = found.dangling.filter(|dangling| dangling.things > 0) {
        out!("\n{dangling}");
    }
    if !found.checksums.is_empty() {
        out!("");
    }
    for checksum in &found.checksums {
        out!(
            "{:20} {}  {:>9} rows",
            checksum.read_model,
            checksum.checksum,
            checksum.rows
        );
    }
    if !found.trouble.is_empty() {
        out!("");
    }
    for trouble in &found.trouble {
        out!("TROUBLE {trouble}");
    }
    out!("\n{}", if found.ok { "ok" } else { "NOT ok" });
}
