//! `crm import` and `crm ingest`: many commands, through a running server if there is one, else through shards of this process.

use std::io::{BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use projections::Group;
use services::log::{EventLog, last_claim};
use services::shard::ShardConfig;
use services::views::generation_for;

use super::FOUND_TROUBLE;
use super::output::out;
use crate::config::{Settings, Use};
use crate::import::{Counts, Report, Sender, jsonl};
use crate::runtime::Parts;
use crate::sources::{self, BadLine, ImportLine};

/// Sends commands, one JSON object a line. Safe to run twice, and to run again after it was cut short.
///
/// {"stream": "customer", "id": {"key": ["erp", "C-12"]}, "command": {"type": "register", "kind": "organisation", "name": "…"}}
#[derive(Debug, Args)]
pub struct Import {
    /// The file; - is standard input
    file: PathBuf,
    /// The import's name, part of the command ids it derives; the file's name otherwise
    #[arg(long)]
    name: Option<String>,
    /// Send to this server instead of looking for one
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Show every rejected line, not only the first ones
    #[arg(long)]
    all_findings: bool,
}

/// Reads files of another system. A file sent twice, or days in another order, change nothing.
#[derive(Debug, Args)]
pub struct Ingest {
    /// online-retail <folder or day file>, incidents <file>
    source: String,
    path: PathBuf,
    /// Send to this server instead of looking for one
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Show every rejected line, not only the first ones
    #[arg(long)]
    all_findings: bool,
}

type BoxedLines = Box<dyn Iterator<Item = Result<ImportLine, BadLine>> + Send>;

impl Import {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let is_stdin = self.file.as_os_str() == "-";
        let shown = if is_stdin {
            "standard input".to_owned()
        } else {
            self.file.display().to_string()
        };
        let stem = self
            .file
            .file_name()
            .map_or_else(|| "import".to_owned(), |name| name.to_string_lossy().into_owned());
        let name = self.name.unwrap_or(if is_stdin {
            "standard-input".to_owned()
        } else {
            stem.clone()
        });
        let (reader, size): (Box<dyn BufRead + Send>, u64) = if is_stdin {
            (Box::new(BufReader::new(std::io::stdin())), 0)
        } else {
            let file = std::fs::File::open(&self.file).with_context(|| format!("cannot read {shown}"))?;
            let size = file.metadata()?.len();
            (Box::new(BufReader::new(file)), size)
        };
        let bytes = Arc::new(AtomicU64::new(0));
        let file = if is_stdin { "-" } else { &stem };
        let lines: BoxedLines = Box::new(jsonl::Lines::new(reader, &name, file, Arc::clone(&bytes)));
        let read = move || bytes.load(Ordering::Relaxed);
        send_all(settings, self.server, lines, size, read, self.all_findings).await
    }
}

impl Ingest {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let source = sources::find(&self.source).with_context(|| {
            let known: Vec<_> = sources::SOURCES.iter().map(|source| source.name()).collect();
            format!("there is no source {:?}; there are: {}", self.source, known.join(", "))
        })?;
        let size = source.size_bytes(&self.path)?;
        let progress = Arc::new(sources::Progress::default());
        let lines = source.lines(&self.path, Arc::clone(&progress))?;
        let seen = Arc::clone(&progress);
        let code = send_all(
            settings,
            self.server,
            lines,
            size,
            move || seen.bytes(),
            self.all_findings,
        )
        .await?;
        out!(
            "{} files, {} lines read, {} said nothing new",
            progress.files(),
            progress.rows(),
            progress.unchanged()
        );
        Ok(code)
    }
}

async fn send_all(
    settings: &Settings,
    server: Option<String>,
    lines: BoxedLines,
    size: u64,
    read: impl Fn() -> u64 + Send + 'static,
    all_findings: bool,
) -> anyhow::Result<ExitCode> {
    let report = match find_server(settings, server).await? {
        Some(url) => {
            eprintln!("sending to {url}");
            let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?;
            let ends = ends(settings.open_log(Use::Read)?.as_ref()).await?;
            send_shown(lines, Sender::Server { http, url }, &ends, size, read).await?
        }
        None => {
            let parts = Parts::open(settings, settings.open_log(Use::Write)?).await?;
            let ends = ends(parts.log.as_ref()).await?;
            let writer = parts.start_writer(settings, "", ShardConfig::default());
            let projecting = parts.start_workers(Group::ALL.to_vec());
            let report = send_shown(lines, Sender::Local(writer.commands.clone()), &ends, size, read).await?;
            wait_until_read(&parts, &Group::ALL).await?;
            parts.stop();
            writer.ended().await;
            projecting.ended().await?;
            report
        }
    };
    Ok(show(&report, all_findings))
}

/// Sends, with a progress bar on standard error.
pub async fn send_shown(
    lines: BoxedLines,
    sender: Sender,
    ends: &[u64],
    size: u64,
    read: impl Fn() -> u64 + Send + 'static,
) -> anyhow::Result<Report> {
    let counts = Arc::new(Counts::default());
    let bar = progress_bar(size, "{bytes}/{total_bytes}");
    let shown = tokio::spawn({
        let (bar, counts) = (bar.clone(), Arc::clone(&counts));
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                bar.set_position(read());
                let (done, rejected) = (
                    counts.done.load(Ordering::Relaxed),
                    counts.rejected.load(Ordering::Relaxed),
                );
                bar.set_message(format!("{done} commands, {rejected} rejected"));
            }
        }
    });
    let report = crate::import::run(lines, sender, ends, counts).await;
    shown.abort();
    bar.finish_and_clear();
    report
}

/// Where each shard ends now.
///
/// # Errors
/// When the log cannot be read.
pub async fn ends(log: &dyn EventLog) -> anyhow::Result<Vec<u64>> {
    let mut ends = Vec::new();
    for shard in 0..log.open().await? {
        ends.push(log.end(shard).await?);
    }
    Ok(ends)
}

/// A bar on a terminal; nothing where standard error is none.
pub fn progress_bar(size: u64, counts: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = match size {
        0 => "{spinner} {elapsed} {msg}".to_owned(),
        _ => format!("{{bar:30}} {counts} {{elapsed}} (about {{eta}} left) {{msg}}"),
    };
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(size).with_style(style)
}

/// Prints what came of an import; lines that came to nothing go to standard error.
fn show(report: &Report, all_findings: bool) -> ExitCode {
    const SHOWN: usize = 20;
    let shown = if all_findings { usize::MAX } else { SHOWN };
    for finding in report.findings.iter().take(shown) {
        eprintln!("{}, line {}: {}", finding.file, finding.line, finding.reason);
    }
    if report.findings.len() > shown {
        eprintln!("and {} more; --all-findings shows them", report.findings.len() - shown);
    }
    out!(
        "{} commands applied ({} events), {} unchanged, {} rejected, {} lines made no sense",
        report.applied,
        report.events,
        report.unchanged,
        report.rejected,
        report.bad
    );
    if report.rejected + report.bad > 0 {
        ExitCode::from(FOUND_TROUBLE)
    } else {
        ExitCode::SUCCESS
    }
}

/// The server that owns the shards, if one answers: the one that was named, or the one whose claim stands last in the log.
async fn find_server(settings: &Settings, named: Option<String>) -> anyhow::Result<Option<String>> {
    if let Some(url) = named {
        return Ok(Some(url.trim_end_matches('/').to_owned()));
    }
    let log = settings.open_log(Use::Read)?;
    let Ok(shards) = log.open().await else { return Ok(None) };
    let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
    let mut asked = std::collections::BTreeSet::new();
    for shard in 0..shards {
        let Some(claim) = last_claim(log.as_ref(), shard).await? else {
            continue;
        };
        if claim.address.is_empty() || !asked.insert(claim.address.clone()) {
            continue;
        }
        let url = format!("http://{}", claim.address);
        if let Ok(answer) = http.get(format!("{url}/health/live")).send().await
            && answer.status().is_success()
        {
            return Ok(Some(url));
        }
    }
    Ok(None)
}

/// Waits until these groups have read everything that stands in the log now, with a progress bar.
///
/// # Errors
/// When a read model stopped: its reason.
pub async fn wait_until_read(parts: &Parts, groups: &[Group]) -> anyhow::Result<()> {
    let ends = ends(parts.log.as_ref()).await?;
    let total: u64 = ends.iter().sum::<u64>() * groups.len() as u64;
    let bar = progress_bar(total, "{pos}/{len} records");
    bar.set_message("building read models");
    loop {
        let mut read = 0;
        for group in groups {
            let store = parts.stores.views.as_ref();
            let generation = generation_for(store, *group, parts.opened.shards).await?;
            for (shard, end) in ends.iter().enumerate() {
                let stored = store.checkpoint(&generation, shard as u16).await?;
                read += stored.map_or(0, |checkpoint| checkpoint.next).min(*end);
            }
            if let Some((shard, why)) = store.stops(&generation).await?.into_iter().next() {
                anyhow::bail!("the read models of {} stopped on shard {shard}: {why}", group.name());
            }
        }
        bar.set_position(read);
        if read >= total {
            bar.finish_and_clear();
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
