//! Raw rounds: one JSON object a line, one file a benchmark.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::load::Measured;

/// The first line of a file: what was run, and on what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Head {
    pub bench: String,
    /// Day and time, UTC.
    pub at: String,
    pub commit: String,
    pub machine: String,
    pub short: bool,
    pub rounds: u32,
    /// Further conditions: how many events, which pool size.
    pub notes: BTreeMap<String, String>,
}

/// One contender in one round.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Line {
    pub cell: String,
    /// From 1; the warm-up round is not written.
    pub round: u32,
    /// Whose turn it was in its round, from 0.
    pub turn: u32,
    pub contender: String,
    /// D0: survives the death of its process; D1: survives a power cut; `-`: stores nothing that must survive.
    pub class: String,
    pub ops: u64,
    pub seconds: f64,
    pub per_second: f64,
    /// Processor time of each process tree, in microseconds an operation.
    pub cpu_us: BTreeMap<String, f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<u64>,
    pub idle: f64,
    pub others: f64,
    /// The fsync probe of this round.
    pub fsync_us: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, f64>,
}

impl Line {
    pub fn fill(&mut self, measured: &Measured) {
        let ops = measured.ops.max(1) as f64;
        let usage = &measured.usage;
        self.ops = measured.ops;
        self.seconds = rounded(usage.seconds, 4);
        self.per_second = rounded(measured.ops as f64 / usage.seconds, 2);
        let per_op = |(name, seconds): (&String, &f64)| (name.clone(), rounded(seconds * 1e6 / ops, 2));
        self.cpu_us = usage.cpu_seconds.iter().map(per_op).collect();
        self.idle = rounded(usage.idle, 3);
        self.others = rounded(usage.others, 3);
        if let Some(latencies) = measured.latencies.as_ref().filter(|latencies| !latencies.is_empty()) {
            self.p50_us = Some(latencies.value_at_quantile(0.50));
            self.p95_us = Some(latencies.value_at_quantile(0.95));
            self.p99_us = Some(latencies.value_at_quantile(0.99));
        }
        self.extra = measured
            .extra
            .iter()
            .map(|(name, figure)| ((*name).to_owned(), rounded(*figure, 3)))
            .collect();
    }

    /// Processor time of all processes, in microseconds an operation.
    pub fn cpu_total_us(&self) -> f64 {
        // A sum of nothing is minus zero.
        self.cpu_us.values().sum::<f64>() + 0.0
    }
}

pub fn rounded(figure: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (figure * scale).round() / scale
}

/// Writes a benchmark's rounds as they come. The file takes its place at the end only: a run that was broken off leaves the last one.
pub struct Sink {
    path: PathBuf,
    lines: Vec<String>,
}

impl Sink {
    pub fn new(folder: &Path, bench: &str) -> Sink {
        Sink {
            path: path_of(folder, bench),
            lines: vec![],
        }
    }

    pub fn add(&mut self, line: &Line) -> anyhow::Result<()> {
        self.lines.push(serde_json::to_string(line)?);
        Ok(())
    }

    pub fn finish(self, head: &Head) -> anyhow::Result<()> {
        fs::create_dir_all(self.path.parent().context("a file is in a folder")?)?;
        let fresh = self.path.with_extension("new");
        let mut file = fs::File::create(&fresh)?;
        writeln!(file, "{}", serde_json::to_string(head)?)?;
        for line in self.lines {
            writeln!(file, "{line}")?;
        }
        fs::rename(fresh, self.path)?;
        Ok(())
    }
}

/// The rounds of a benchmark, if it was run.
pub fn read(folder: &Path, bench: &str) -> anyhow::Result<Option<(Head, Vec<Line>)>> {
    let path = path_of(folder, bench);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path)?;
    let mut lines = text.lines();
    let wrong = || format!("{} is damaged", path.display());
    let head = serde_json::from_str(lines.next().unwrap_or_default()).with_context(wrong)?;
    let lines = lines
        .map(serde_json::from_str)
        .collect::<Result<Vec<Line>, _>>()
        .with_context(wrong)?;
    Ok(Some((head, lines)))
}

fn path_of(folder: &Path, bench: &str) -> PathBuf {
    folder.join(format!("{bench}.jsonl"))
}
