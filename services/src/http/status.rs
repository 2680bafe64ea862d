//! How the server is doing: for people, for probes, for Prometheus.

pub mod vitals;

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use projections::Group;
use serde::Serialize;

use super::Api;
use super::problem::{Cause, Kind, Problem};
use crate::shard::ShardStatus;
use crate::views::{AskError, GenerationStatus, ViewError};
use crate::why::{Why, told};

/// How long the read store and the log may take to say how they are.
pub const LOOK_WAIT_MAX: Duration = Duration::from_secs(3);

/// Where those who run the program learn the cause.
const ASK: &str = "`crm status` and the log say why";

#[derive(Serialize)]
pub struct Status {
    /// Is everything as it should be? `trouble` says what is not.
    ok: bool,
    instance: String,
    version: &'static str,
    log: String,
    /// Whose days figures are counted in; as it was when the log was created.
    time_zone: String,
    views: String,
    stopping: bool,
    shards: Vec<ShardStatus>,
    read_models: Vec<GroupStatus>,
    trouble: Vec<String>,
}

/// Read models that are built together.
#[derive(Serialize)]
struct GroupStatus {
    group: &'static str,
    read_models: Vec<&'static str>,
    definition: String,
    /// The number of the live generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
    /// A newer one that is being built.
    #[serde(skip_serializing_if = "Option::is_none")]
    building: Option<i64>,
    /// Why it cannot go live.
    #[serde(skip)]
    blocked: Option<String>,
    /// Over all shards.
    lag: u64,
    shards: Vec<Standing>,
}

/// How far a group is on one shard.
#[derive(Serialize)]
struct Standing {
    shard: u16,
    next: u64,
    end: u64,
    lag: u64,
    /// How long the oldest record waits that they have not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    unread_seconds: Option<u64>,
    /// Events that this process folded, and those of types that it does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "told")]
    trouble: Option<Why>,
}

/// The causes stand in the log; `crm status` and the log say more than an answer to anybody may.
pub async fn status(State(api): State<Api>) -> Response {
    let shards = shards(&api);
    let mut trouble: Vec<Why> = log_trouble(&api).await.into_iter().collect();
    trouble.extend(shards.iter().filter_map(shard_trouble));
    trouble.extend(api.watch.trouble().into_iter().map(Why::from));
    let ends = ends(&api, &shards, &mut trouble).await;
    let mut read_models = Vec::new();
    for group in groups() {
        match waited(group_status(&api, group, &ends)).await {
            Ok(status) => {
                if status.generation.is_none() {
                    trouble.push(format!("the read models of the group {} are being built", group.name()).into());
                }
                if let (Some(number), Some(why)) = (status.building, &status.blocked) {
                    let name = group.name();
                    let told = format!("generation {number} of the group {name} cannot go live; {ASK}");
                    trouble.push(Why::hiding(told, why));
                }
                let stopped = status.shards.iter().filter_map(|standing| standing.trouble.clone());
                trouble.extend(stopped.map(|why| of_group(group, why)));
                read_models.push(status);
            }
            Err(why) => trouble.push(of_group(group, why)),
        }
    }
    let causes: Vec<String> = trouble
        .iter()
        .filter(|why| why.cause().is_some())
        .map(Why::whole)
        .collect();
    let stopping = *api.stopping.borrow();
    let status = Status {
        ok: trouble.is_empty() && !stopping,
        instance: api.instance.clone(),
        version: env!("CARGO_PKG_VERSION"),
        log: api.log.address(),
        time_zone: api.queries.calendar().time_zone().to_owned(),
        views: api.store.address(),
        stopping,
        shards,
        read_models,
        trouble: trouble.iter().map(|why| why.to_string()).collect(),
    };
    let mut response = Json(status).into_response();
    if !causes.is_empty() {
        response.extensions_mut().insert(Cause(causes));
    }
    response
}

fn of_group(group: Group, why: Why) -> Why {
    why.within(|why| format!("the read models of the group {}: {why}", group.name()))
}

/// Ready: this process can answer. Every shard that is this process's to serve is owned, and every read model can be asked. A shard that no
/// process serves, or a read model that is late, is told by the status: it would not be better if nobody was sent here.
pub async fn ready(State(api): State<Api>) -> Result<&'static str, Problem> {
    let mut reasons: Vec<Why> = Vec::new();
    if *api.stopping.borrow() {
        reasons.push("the server is stopping".into());
    }
    reasons.extend(log_trouble(&api).await);
    reasons.extend(shards(&api).iter().filter_map(shard_trouble));
    for group in groups() {
        let live = async {
            match api.queries.live(group).await {
                Ok(_) => Ok(()),
                Err(AskError::Store(error)) => Err(of_group(group, (&error).into())),
                Err(error) => Err(error.to_string().into()),
            }
        };
        if let Err(why) = tokio::time::timeout(LOOK_WAIT_MAX, live)
            .await
            .unwrap_or_else(|_| Err(no_answer()))
        {
            reasons.push(why);
        }
    }
    match reasons.is_empty() {
        true => Ok("ready\n"),
        false => {
            let told: Vec<&str> = reasons.iter().map(|why| &**why).collect();
            let causes: Vec<String> = reasons
                .iter()
                .filter(|why| why.cause().is_some())
                .map(Why::whole)
                .collect();
            let problem = Problem::new(Kind::Unavailable, format!("not ready: {}", told.join("; ")));
            let cause = (!causes.is_empty()).then(|| causes.join("; "));
            Err(problem.with("reasons", told).because(cause))
        }
    }
}

fn shards(api: &Api) -> Vec<ShardStatus> {
    api.commands.shards().iter().map(|shard| shard.status()).collect()
}

/// A shard that has nothing to write does not learn that its log is gone.
async fn log_trouble(api: &Api) -> Option<Why> {
    match tokio::time::timeout(LOOK_WAIT_MAX, api.log.check()).await {
        Ok(looked) => looked.err().map(|error| Why::from(&error)),
        Err(_) => Some("the log did not answer in time".into()),
    }
}

fn shard_trouble(shard: &ShardStatus) -> Option<Why> {
    let number = shard.shard;
    if let Some(id) = shard.failing_commands.first() {
        let what = format!(
            "shard {number}: the program fails at command {id} again and again; the command is refused, and its sender has no answer"
        );
        return Some(what.into());
    }
    match (&shard.trouble, shard.owned || !shard.assigned) {
        (Some(why), _) => Some(why.clone().within(|why| format!("shard {number}: {why}"))),
        (None, false) => Some(format!("shard {number} is not owned yet").into()),
        (None, true) => None,
    }
}

/// The groups that have read models.
fn groups() -> impl Iterator<Item = Group> {
    Group::ALL.into_iter().filter(|group| group.models().next().is_some())
}

/// Where each shard of the log ends. What we own we know; the log is asked for the rest.
async fn ends(api: &Api, shards: &[ShardStatus], trouble: &mut Vec<Why>) -> Vec<u64> {
    let looks = shards.iter().map(async |shard| match shard.owned {
        true => Ok(shard.next),
        false => {
            let end = async { api.log.end(shard.shard).await.map_err(|error| Why::from(&error)) };
            let end = tokio::time::timeout(LOOK_WAIT_MAX, end).await;
            end.unwrap_or_else(|_| Err("the log did not answer in time".into()))
        }
    });
    let ends = futures::future::join_all(looks).await;
    let known = ends.into_iter().zip(shards).map(|(end, shard)| {
        end.unwrap_or_else(|why| {
            trouble.push(why.within(|why| format!("shard {}: {why}", shard.shard)));
            shard.next
        })
    });
    known.collect()
}

async fn group_status(api: &Api, group: Group, ends: &[u64]) -> Result<GroupStatus, ViewError> {
    let definition = group.definition();
    let generations = api.store.generations(group).await?;
    let of = |status| {
        let mut fitting = generations
            .iter()
            .rev()
            .filter(|generation| generation.definition == definition);
        fitting.find(|generation| generation.status == status)
    };
    let (live, building) = (of(GenerationStatus::Live), of(GenerationStatus::Building));
    let blocked = match building {
        Some(building) => api.store.blocked(building).await?,
        None => None,
    };
    let progress = api.workers.progress();
    let mut standings = Vec::new();
    if let Some(live) = live {
        let stops = api.store.stops(live).await?;
        for shard in 0..live.shards {
            let checkpoint = api.store.checkpoint(live, shard).await?;
            let next = checkpoint.map_or(0, |checkpoint| checkpoint.next);
            let end = ends.get(usize::from(shard)).copied().unwrap_or(next).max(next);
            let worker = progress.iter().find(|worker| {
                worker.group == group.name() && worker.generation == live.number && worker.shard == shard
            });
            let stop = stops
                .iter()
                .find(|(stopped, _)| *stopped == shard)
                .map(|(_, why)| Why::hiding(format!("stopped; {ASK}"), why));
            let waits = worker.and_then(|worker| worker.trouble.as_ref());
            standings.push(Standing {
                shard,
                next,
                end,
                lag: end - next,
                unread_seconds: api
                    .watch
                    .unread_for(group, shard)
                    .filter(|_| end > next)
                    .map(|waits| waits.as_secs()),
                events: worker.map(|worker| worker.events),
                unknown: worker.map(|worker| worker.unknown),
                trouble: stop.or_else(|| waits.map(|why| Why::hiding(format!("waits; {ASK}"), why))),
            });
        }
    }
    Ok(GroupStatus {
        group: group.name(),
        read_models: group.models().map(|model| model.name).collect(),
        definition: definition.to_owned(),
        generation: live.map(|live| live.number),
        building: building.map(|building| building.number),
        blocked,
        lag: standings.iter().map(|standing| standing.lag).sum(),
        shards: standings,
    })
}

async fn waited<T>(look: impl Future<Output = Result<T, ViewError>>) -> Result<T, Why> {
    let looked = tokio::time::timeout(LOOK_WAIT_MAX, look).await;
    looked.map_err(|_| no_answer())?.map_err(|error| Why::from(&error))
}

fn no_answer() -> Why {
    "the read store did not answer in time".into()
}
