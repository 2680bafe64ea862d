//! `crm status`

use std::process::ExitCode;

use clap::Args;
use projections::{Group, READ_MODELS};
use serde::Serialize;
use services::clock::SystemClock;
use services::log::last_claim;
use services::views::{GenerationStatus, Queries};

use super::FOUND_TROUBLE;
use super::output::out;
use crate::config::{Settings, Use};
use crate::runtime::Parts;

/// Shows shards, owners, lag and trouble. Exit code 0: all is well; 1: log or store cannot be reached or are not in order;
/// 2: a read model stopped, or lags by more than --lag-max.
#[derive(Debug, Args)]
pub struct Status {
    /// A checksum of the business columns of every read model: equal on every store, and after a rebuild
    #[arg(long)]
    checksums: bool,
    /// Records that a read model may lag behind
    #[arg(long, default_value_t = 100_000)]
    lag_max: u64,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Found {
    ok: bool,
    log: String,
    log_id: String,
    views: String,
    shards: Vec<ShardFound>,
    groups: Vec<GroupFound>,
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
}

#[derive(Debug, Serialize)]
struct GroupFound {
    group: &'static str,
    generation: Option<i64>,
    status: &'static str,
    lag: u64,
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
            log: parts.log.address(),
            log_id: parts.opened.log_id.to_string(),
            views: parts.stores.views.address(),
            shards: vec![],
            groups: vec![],
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
            });
        }
        for group in Group::ALL {
            found.groups.push(self.group(&parts, group, &found.shards).await?);
        }
        found.ok = found
            .groups
            .iter()
            .all(|group| group.stops.is_empty() && group.lag <= self.lag_max);
        if self.checksums {
            let queries = Queries::new(parts.stores.views, std::sync::Arc::new(SystemClock));
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

    async fn group(&self, parts: &Parts, group: Group, shards: &[ShardFound]) -> anyhow::Result<GroupFound> {
        let views = parts.stores.views.as_ref();
        let generations = views.generations(group).await?;
        let live = generations
            .iter()
            .rev()
            .find(|generation| generation.status == GenerationStatus::Live);
        let Some(live) = live else {
            let lag = shards.iter().map(|shard| shard.records).sum();
            return Ok(GroupFound {
                group: group.name(),
                generation: None,
                status: "not built",
                lag,
                stops: vec![],
            });
        };
        let mut lag = 0;
        for shard in shards {
            let next = views
                .checkpoint(live, shard.shard)
                .await?
                .map_or(0, |checkpoint| checkpoint.next);
            lag += shard.records.saturating_sub(next);
        }
        let stops = views
            .stops(live)
            .await?
            .into_iter()
            .map(|(shard, why)| format!("shard {shard}: {why}"))
            .collect();
        let rebuilding = generations
            .iter()
            .any(|generation| generation.status == GenerationStatus::Building);
        let status = if rebuilding { "live, rebuilding" } else { "live" };
        Ok(GroupFound {
            group: group.name(),
            generation: Some(live.number),
            status,
            lag,
            stops,
        })
    }
}

fn show(found: &Found) {
    out!("log   {} ({})\nviews {}\n", found.log, found.log_id, found.views);
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
    out!("\n{}", if found.ok { "ok" } else { "NOT ok" });
}
