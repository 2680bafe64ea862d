//! B11: memory with many streams.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use services::shard::ShardConfig;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::Bench;
use crate::load::{Load, Measured};
use crate::meters::{Meters, Usage, resident_bytes};
use crate::ours::{self, Ours};
use crate::places::Places;
use crate::session::{Class, Contender, Session};
use crate::target::{ALONE, Bound, Figure, Target};

pub struct Memory;

const STREAMS: u64 = 1_000_000;
const STREAMS_SHORT: u64 = 60_000;
const CELL: &str = "one process";
const BOUNDED: &str = "bounded cache";
const UNBOUNDED: &str = "all in memory";
/// States that a shard may keep when they are bounded: a tenth of all, over eight shards.
const BOUND: usize = 12_500;
const BOUND_SHORT: usize = 750;
const SHARDS: u16 = 8;
/// How often the process is looked at, as a share of all streams.
const LOOKS: u64 = 10;

#[async_trait]
impl Bench for Memory {
    fn id(&self) -> &'static str {
        "B11"
    }

    fn title(&self) -> &'static str {
        "Memory"
    }

    fn how(&self) -> &'static str {
        "A process of its own records a receipt in each of a million new streams (log and states in SQLite, 8 shards; it remembers few command \
         ids, so that these do not blur the picture) and tells what it holds in memory ten times on the way. `bounded cache` keeps a \
         tenth of the states: `flat` is its memory at the end to that when the bound was reached first (at two tenths of the streams). \
         `all in memory` keeps all: `per state` is what it grew by from two tenths to the end, per stream, to the mean size of a \
         state as JSON."
    }

    fn targets(&self) -> Vec<Target> {
        let target = |ours, figure, bound| Target {
            cell: CELL.into(),
            ours,
            against: ALONE,
            figure,
            bound,
        };
        vec![
            target(BOUNDED, Figure::Extra("flat"), Bound::AtMost(1.1)),
            target(UNBOUNDED, Figure::Extra("per_state"), Bound::AtMost(3.0)),
        ]
    }

    async fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        let streams = session.extent.pick(STREAMS, STREAMS_SHORT);
        let bound = session.extent.pick(BOUND, BOUND_SHORT);
        // It tells of one process, and a second round would tell the same.
        session.extent.rounds = session.extent.rounds.min(3);
        let places = session.places.clone();
        let contender = |name, cached_max| Growing {
            name,
            places: places.clone(),
            streams,
            cached_max,
        };
        let mut contenders: Vec<Box<dyn Contender>> = vec![
            Box::new(contender(BOUNDED, bound)),
            Box::new(contender(UNBOUNDED, streams as usize)),
        ];
        let load = session.extent.load(1);
        session.cell(CELL, load, &mut contenders).await
    }
}

struct Growing {
    name: &'static str,
    places: Places,
    streams: u64,
    cached_max: usize,
}

/// What the process tells.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Look {
    streams: u64,
    resident_bytes: u64,
    state_bytes_mean: f64,
}

#[async_trait]
impl Contender for Growing {
    fn name(&self) -> String {
        self.name.into()
    }

    fn class(&self) -> Class {
        Class::D1
    }

    async fn run(&mut self, _: Load, _: &Meters) -> anyhow::Result<Measured> {
        let folder = self.places.folder("b11")?;
        let program: PathBuf = std::env::current_exe()?;
        let mut child = Command::new(program)
            .arg("grow")
            .arg(&folder)
            .args([self.streams.to_string(), self.cached_max.to_string()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let core = Meters::default().and("core", child.id().context("it has ended")?);
        let start = core.read()?;
        let mut usage = Usage::default();
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut looks: Vec<Look> = vec![];
        while let Some(line) = lines.next_line().await? {
            looks.push(serde_json::from_str(&line)?);
            usage = core.since(&start)?;
        }
        anyhow::ensure!(child.wait().await?.success(), "the growing process failed");
        std::fs::remove_dir_all(&folder)?;
        let (reached, end) = (
            looks.get(1).context("it told too little")?,
            looks.last().context("it told nothing")?,
        );
        let grown = end.resident_bytes.saturating_sub(reached.resident_bytes) as f64;
        let per_stream = grown / (end.streams - reached.streams) as f64;
        Ok(Measured::job(self.streams, usage)
            .with("flat", end.resident_bytes as f64 / reached.resident_bytes as f64)
            .with("mib_at_end", end.resident_bytes as f64 / 1024.0 / 1024.0)
            .with("bytes_per_stream", per_stream)
            .with("state_bytes", end.state_bytes_mean)
            .with("per_state", per_stream / end.state_bytes_mean))
    }
}

/// The process: grows, and tells.
pub async fn grow(folder: PathBuf, streams: u64, cached_max: usize) -> anyhow::Result<()> {
    let url = format!("sqlite:{}", folder.display());
    let config = ShardConfig {
        cached_streams_max: cached_max,
        cached_commands_max: 100,
        ..ShardConfig::default()
    };
    let ours = Arc::new(Ours::start(&url, &url, SHARDS, config).await?);
    let part = streams / LOOKS;
    for look in 1..=LOOKS {
        let numbers = (look - 1) * part..look * part;
        ours.execute_all(numbers.map(|n| ours::receipt("m", n)), 256).await?;
        // What waits for the state store is not what is cached.
        let saved = async {
            while ours.commands().shards().iter().any(|shard| shard.status().unsaved > 0) {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), saved)
            .await
            .context("states are not saved")?;
        let look = Look {
            streams: look * part,
            resident_bytes: resident_bytes(std::process::id())?,
            state_bytes_mean: state_bytes_mean(&ours, look * part).await?,
        };
        println!("{}", serde_json::to_string(&look)?);
    }
    ours.check().await
}

async fn state_bytes_mean(ours: &Ours, streams: u64) -> anyhow::Result<f64> {
    let sample = 100.min(streams);
    let mut bytes = 0;
    for n in streams - sample..streams {
        let (state, _) = ours.commands().peek(ours::receipt("m", n).0).await?;
        bytes += state.to_json().len();
    }
    Ok(bytes as f64 / sample as f64)
}
