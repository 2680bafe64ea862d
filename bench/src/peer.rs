//! A peer in a process of its own: it gets one JSON line per run, says `started` when its warm-up is over, and then what it did.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use hdrhistogram::Histogram;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::load::{Load, Measured, histogram};
use crate::meters::Meters;
use crate::session::{Class, Contender};

/// How long a peer may be silent beyond the time of a run.
const SILENT_MAX: Duration = Duration::from_secs(120);

/// The process, once it said that it is ready.
pub struct Peer {
    name: String,
    class: Class,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Goes with every run: which of its ways it takes.
    pub settings: serde_json::Value,
    /// The size of its pool with so many clients, when it has one.
    pub pools: BTreeMap<usize, u32>,
    /// A process that works for it, and counts too.
    pub helper: Option<u32>,
    acked: u64,
}

/// What it says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Ready,
    Started,
    Done {
        /// In the measured time.
        ops: u64,
        /// In all, warm-up and tail as well.
        acked: u64,
        /// (microseconds, how many) as a histogram with three digits has them.
        latencies: Vec<(u64, u64)>,
    },
    Stored(u64),
}

impl Peer {
    /// Starts `program` and waits until it is ready.
    pub async fn start(name: &str, class: Class, program: &Path, arguments: &[String]) -> anyhow::Result<Peer> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut peer = Peer {
            name: name.to_owned(),
            class,
            child,
            input,
            output,
            settings: json!({}),
            pools: BTreeMap::new(),
            helper: None,
            acked: 0,
        };
        match peer.hear(SILENT_MAX).await? {
            Word::Ready => Ok(peer),
            other => bail!("{name} says {other:?} before it is ready"),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    async fn say(&mut self, word: serde_json::Value) -> anyhow::Result<()> {
        self.input.write_all(format!("{word}\n").as_bytes()).await?;
        self.input.flush().await?;
        Ok(())
    }

    async fn hear(&mut self, within: Duration) -> anyhow::Result<Word> {
        let line = tokio::time::timeout(within, self.output.next_line()).await;
        let line = line.with_context(|| format!("{} is silent", self.name))??;
        let line = line.with_context(|| format!("{} has ended", self.name))?;
        serde_json::from_str(&line).with_context(|| format!("{} says {line:?}", self.name))
    }
}

#[async_trait]
impl Contender for Peer {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn class(&self) -> Class {
        self.class
    }

    async fn run(&mut self, load: Load, meters: &Meters) -> anyhow::Result<Measured> {
        let mut run = self.settings.clone();
        if let Some(pool) = self.pools.get(&load.clients) {
            run["pool"] = (*pool).into();
        }
        run["clients"] = load.clients.into();
        run["warm_up_ms"] = (load.warm_up.as_millis() as u64).into();
        run["measure_ms"] = (load.measure.as_millis() as u64).into();
        self.say(json!({"run": run})).await?;
        let Word::Started = self.hear(load.warm_up + SILENT_MAX).await? else {
            bail!("{} did not start", self.name);
        };
        let mut meters = meters.clone().and("peer", self.pid());
        if let Some(helper) = self.helper {
            meters = meters.and("server", helper);
        }
        let start = meters.read()?;
        tokio::time::sleep(load.measure).await;
        let usage = meters.since(&start)?;
        let Word::Done { ops, acked, latencies } = self.hear(SILENT_MAX).await? else {
            bail!("{} did not end its run", self.name);
        };
        self.acked += acked;
        let mut all: Histogram<u64> = histogram();
        for (us, count) in latencies {
            all.record_n(us.max(1), count)?;
        }
        Ok(Measured {
            ops,
            usage,
            latencies: Some(all),
            extra: vec![],
        })
    }

    async fn check(&mut self) -> anyhow::Result<()> {
        self.say(json!({"count": {}})).await?;
        match self.hear(SILENT_MAX).await? {
            Word::Stored(stored) if stored == self.acked => Ok(()),
            Word::Stored(stored) => bail!("{} commands were acked, {stored} events are stored", self.acked),
            other => bail!("{} says {other:?} when asked what it stored", self.name),
        }
    }
}
