//! `crm import` and `crm ingest`: many commands, through a running server if there is one, else through shards of this process.

use std::io::{BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use projections::Group;
use services::clock::{Clock, SystemClock};
use services::log::{EventLog, last_claim};
use services::shard::ShardConfig;
use services::views::generation_for;

use super::FOUND_TROUBLE;
use super::output::out;
use crate::config::{Settings, Use};
use crate::import::{Counts, Dangling, Finding, Found, Report, Sender, jsonl};
use crate::runtime::Parts;
use crate::secrets::Url;
use crate::sources::{self, BadLine, Corrections, ImportLine, Progress, Reading};

/// What `crm import --help` says below its flags.
const LINE_HELP: &str = r#"A line is a JSON object:
  {"stream": "customer", "id": {"key": ["erp", "C-12"]}, "effective_at": "2026-03-02T09:00:00+08:00",
   "command": {"type": "register", "kind": "organisation", "name": "Acme"}}

  stream            customer, lead, opportunity, interaction, case, equipment, inspection, job, purchase, loyalty, link
  id                which one: its UUID, or {"key": ["<source>", "<key>"]} with the key that another system has for it.
                    Left out, it follows from the command where that says which thing it is about (purchase, equipment, inspection,
                    loyalty, link, interaction with a provider_id); else the command begins a new one
  customer          for a command that begins something of a customer: an id or a key likewise
  command           what POST /api/<stream> takes: {"type": …} and its fields; GET /api/openapi.json has all of them
  effective_at      when it was true, with an offset; now, if it is left out
  actor             who did it, such as user:mei; system:import, if it is left out
  command_id        makes the line known when it comes again; else its content does
  expected_version  refuses the line if the stream has another version
  correlation       stands in the events; import:<name>, if it is left out

A line is applied once. It may come again in another file, or under another name: what is so already is unchanged. A line that
has neither an id nor a command_id, such as a telephone call, could be a second one: it is not applied again but reported, with
the import that applied it. --again --name <name> says that all lines are meant, once more under that name.

A line that begins a thing which is there already with other data (register, capture, open, record, install, create …) is refused, and
the reason names the fields. With --upsert (update or create) the thing is changed to what the line says, by the events of its commands:
  customer          name
  opportunity       customer, name, stage, amount, close_date, owner
  interaction       channel, direction, subject, body, about
  case              priority, once the case has a category
  equipment         customer, site
  purchase          all but source and receipt: the receipt is corrected, and an earlier version of it is refused
  link              customer
The line counts for what it says, whatever was changed since by others, at its effective_at. A field that is left out stays as it is,
except in a receipt, which is replaced whole but for its customer. A field that no command changes is refused by name, and with it the
line. The report counts these lines as updated. What a line says that neither names its thing nor begins one is not concerned.

Files begin with a UTF-8 mark or do not; blank lines are skipped. The exit code is 2 when a line was refused or made no sense."#;

/// What `crm ingest --help` says below its flags: the columns of each source.
fn sources_help() -> String {
    let mut help = "Sources. Columns are found by name, in any order; further ones are left alone.\n".to_owned();
    for source in sources::SOURCES {
        help += &format!("\n{}: {}\n", source.name(), source.about());
        for column in source.columns() {
            let also = match column.also {
                [] => String::new(),
                also => format!(" (or {})", also.join(", ")),
            };
            help += &format!("  {:<18} {}\n", format!("{}{also}", column.name), column.about);
        }
    }
    help += "
A document (an invoice, a case) is taken whole, or held back whole when one of its lines makes no sense: mend the file and send it
again. Give the files that have parts of an invoice in one run. An invoice that the log has with other content is corrected; the
figures as they were reported before are still there (--known-at). A case is a history: rows that come later continue it, and a
row that says otherwise than the log does is reported and changes nothing. The exit code is 2 when something was held back, was
refused, or differs.";
    help
}

/// Send commands from a file, one JSON object a line
///
/// Safe to run twice, and to run again after it was cut short: what was applied is applied once.
#[derive(Debug, Args)]
#[command(after_long_help = LINE_HELP)]
pub struct Import {
    /// The file; - is standard input
    file: PathBuf,
    /// The import's name, which stands in its events; the file's name otherwise
    #[arg(long)]
    name: Option<String>,
    /// Apply lines once more that were applied before: they are meant. Under the same name they are applied once again only
    #[arg(long, requires = "name")]
    again: bool,
    /// Update or create: where a line begins a thing that is there already and says something else, change that thing to what the line says
    /// instead of refusing the line
    #[arg(long)]
    upsert: bool,
    #[command(flatten)]
    sending: Sending,
}

/// Read files of another system: online-retail, incidents
///
/// A file sent twice, or days in another order, change nothing.
#[derive(Debug, Args)]
#[command(after_long_help = sources_help())]
pub struct Ingest {
    /// online-retail <folder or day file>, incidents <file>
    source: String,
    path: PathBuf,
    /// What becomes of an invoice that the log has with other content
    #[arg(long, value_enum, default_value_t)]
    corrections: Corrections,
    #[command(flatten)]
    sending: Sending,
}

/// How commands go, and what is said of it.
#[derive(Debug, Args)]
struct Sending {
    /// Send to this server instead of looking for one
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Refuse what refers to a customer, machine, deal or other thing that is not there (yet). Without it a thing with an id or a
    /// key of its own is taken, and `crm query dangling` lists the reference until what it means comes
    #[arg(long)]
    strict: bool,
    /// Show every finding, not only the first ones
    #[arg(long)]
    all_findings: bool,
    /// Write the report as JSON to this file; - is standard output, instead of the words
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
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
            let about = file.metadata()?;
            if about.is_dir() {
                anyhow::bail!("{shown} is a folder; crm import reads one file of commands");
            }
            (Box::new(BufReader::new(file)), about.len())
        };
        let bytes = Arc::new(AtomicU64::new(0));
        let file = if is_stdin { "-" } else { &stem };
        let import = jsonl::Name {
            name,
            again: self.again,
            upsert: self.upsert.then(|| SystemClock.now().to_string()),
        };
        let lines: BoxedLines = Box::new(jsonl::Lines::new(reader, import, file, Arc::clone(&bytes)));
        let read = move || bytes.load(Ordering::Relaxed);
        self.sending.report_can_be_written()?;
        let report = send_all(settings, &self.sending, lines, size, read).await?;
        self.sending.show(&report, None)
    }
}

impl Ingest {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let source = sources::find(&self.source).with_context(|| {
            let known: Vec<_> = sources::SOURCES.iter().map(|source| source.name()).collect();
            format!("there is no source {:?}; there are: {}", self.source, known.join(", "))
        })?;
        let size = source.size_bytes(&self.path)?;
        let progress = Arc::new(Progress::default());
        let reading = Reading {
            corrections: self.corrections,
            run: SystemClock.now().to_string(),
        };
        let lines = source.lines(&self.path, &reading, Arc::clone(&progress))?;
        let seen = Arc::clone(&progress);
        self.sending.report_can_be_written()?;
        let report = send_all(settings, &self.sending, lines, size, move || seen.bytes()).await?;
        self.sending.show(&report, Some(&progress))
    }
}

async fn send_all(
    settings: &Settings,
    sending: &Sending,
    lines: BoxedLines,
    size: u64,
    read: impl Fn() -> u64 + Send + 'static,
) -> anyhow::Result<Report> {
    let strict = sending.strict;
    match find_server(settings, sending.server.clone()).await? {
        Some(url) => {
            eprintln!("sending to {}", Url::new(url.as_str()));
            let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?;
            let (ends, address) = ends_at(&http, &url).await?;
            let sender = Sender::Server {
                http: http.clone(),
                url: url.clone(),
                strict,
            };
            let mut report = send_shown(lines, sender, &ends, size, read).await?;
            wait_for_server(&http, &url, &report).await;
            report.dangling = told(Dangling::at(&http, &url).await);
            // The log of the server may be out of reach here.
            if let Ok(log) = settings.open_log(Use::Read)
                && log.address() == address
                && log.open().await.is_ok()
            {
                say_where_applied(log.as_ref(), &mut report).await?;
            }
            Ok(report)
        }
        None => {
            let parts = Parts::open(settings, settings.open_log(Use::Write)?).await?;
            let ends = ends(parts.log.as_ref()).await?;
            let writer = parts.start_writer(settings, "", shards_of_an_import());
            let projecting = parts.start_workers(Group::ALL.to_vec());
            let commands = writer.commands.clone();
            let mut report = send_shown(lines, Sender::Local { commands, strict }, &ends, size, read).await?;
            wait_until_read(&parts, &Group::ALL).await?;
            report.dangling = told(Dangling::here(&parts.queries()).await);
            say_where_applied(parts.log.as_ref(), &mut report).await?;
            parts.stop();
            writer.ended().await;
            projecting.ended().await?;
            Ok(report)
        }
    }
}

/// The shards of an import that serves itself. A file meets most of its documents once, so that few of them need to be in memory.
fn shards_of_an_import() -> ShardConfig {
    ShardConfig {
        cached_streams_max: 1_000,
        cached_commands_max: 10_000,
        ..ShardConfig::default()
    }
}

/// How often a line of progress is written where standard error is no terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// How long an import through a server waits until the read models have it.
const SERVER_WAIT: Duration = Duration::from_secs(600);
/// Findings whose earlier import is looked up in the log.
const LOOKED_UP: usize = 1_000;

/// Waits until the read models of the server have what it acked, or says why not.
async fn wait_for_server(http: &reqwest::Client, url: &str, report: &Report) {
    let started = Instant::now();
    let mut said = started;
    loop {
        let behind = match server_lag(http, url, report).await {
            Ok(0) => return,
            Ok(behind) => format!("the read models have {behind} records to read"),
            Err(why) => format!("the server does not say how far its read models are: {why}"),
        };
        if started.elapsed() > SERVER_WAIT {
            eprintln!("{behind}; not waiting any longer. All that was acked is in the log");
            return;
        }
        if said.elapsed() > PROGRESS_EVERY {
            said = Instant::now();
            eprintln!("{behind}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The import is done, whether or not this can be said of it.
fn told(dangling: anyhow::Result<Dangling>) -> Option<Dangling> {
    dangling
        .inspect_err(|why| eprintln!("what is referred to and not there is not known: {why:#}"))
        .ok()
}

/// What the server says of itself.
async fn status_of(http: &reqwest::Client, url: &str) -> anyhow::Result<serde_json::Value> {
    let answer = http.get(format!("{url}/api/status")).send().await;
    let answer = answer
        .and_then(reqwest::Response::error_for_status)
        .map_err(reqwest::Error::without_url)
        .with_context(|| format!("{} does not answer", Url::new(url)))?;
    Ok(answer.json().await?)
}

/// Its groups of read models.
fn groups_of(status: &serde_json::Value) -> anyhow::Result<&Vec<serde_json::Value>> {
    let groups = status["read_models"].as_array();
    groups.context("its status has no read models")
}

/// How far each group is on each shard.
fn standings(groups: &[serde_json::Value]) -> impl Iterator<Item = &serde_json::Value> {
    groups.iter().filter_map(|group| group["shards"].as_array()).flatten()
}

/// Where each shard of the server's log ends now, and the log's address.
async fn ends_at(http: &reqwest::Client, url: &str) -> anyhow::Result<(Vec<u64>, String)> {
    let status = status_of(http, url).await?;
    let mut ends = Vec::new();
    for standing in standings(groups_of(&status)?) {
        if let (Some(shard), Some(end)) = (standing["shard"].as_u64(), standing["end"].as_u64()) {
            let shard = usize::try_from(shard)?;
            ends.resize(ends.len().max(shard + 1), 0);
            ends[shard] = end.max(ends[shard]);
        }
    }
    Ok((ends, status["log"].as_str().unwrap_or_default().to_owned()))
}

/// Records up to the last ack that a read model of the server has not read yet.
async fn server_lag(http: &reqwest::Client, url: &str, report: &Report) -> anyhow::Result<u64> {
    let status = status_of(http, url).await?;
    let groups = groups_of(&status)?;
    if groups.iter().any(|group| group["generation"].is_null()) {
        anyhow::bail!("some of its read models are being built");
    }
    let mut behind = 0;
    for standing in standings(groups) {
        let shard = standing["shard"].as_u64().and_then(|shard| u16::try_from(shard).ok());
        if let Some(acked) = shard.and_then(|shard| report.positions.get(&shard)) {
            // What has read nothing has no next.
            behind += (acked + 1).saturating_sub(standing["next"].as_u64().unwrap_or(0));
        }
    }
    Ok(behind)
}

/// Puts the import that applied a line before into what is said of it.
async fn say_where_applied(log: &dyn EventLog, report: &mut Report) -> anyhow::Result<()> {
    let found = report.findings.iter_mut().filter_map(|finding| match finding.what {
        Found::AppliedBefore(position) => Some((finding, position)),
        _ => None,
    });
    for (finding, at) in found.take(LOOKED_UP) {
        let mut reader = log.reader(at.shard, at.offset).await?;
        let batch = reader.next(1, Duration::from_secs(10)).await?;
        let Some((_, record)) = batch.first().filter(|(offset, _)| *offset == at.offset) else {
            continue;
        };
        let text = |name: &str| {
            record
                .header(name)
                .map(|text| String::from_utf8_lossy(text).into_owned())
        };
        let by = text("ce_correlationid").unwrap_or_else(|| "another sender".to_owned());
        let when = text("ce_time").unwrap_or_default();
        finding.reason = format!("applied before by {by} at {when}; if it is meant again: --again --name <name>");
    }
    Ok(())
}

/// Sends, with a progress bar on standard error, or a line of it now and then.
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
            let mut said = Instant::now();
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let read = read();
                bar.set_position(read);
                let (done, rejected) = (
                    counts.done.load(Ordering::Relaxed),
                    counts.rejected.load(Ordering::Relaxed),
                );
                bar.set_message(format!("{done} commands, {rejected} rejected"));
                if bar.is_hidden() && said.elapsed() > PROGRESS_EVERY {
                    said = Instant::now();
                    eprintln!("{}", progress_line(done, rejected, read, size));
                }
            }
        }
    });
    let report = crate::import::run(lines, sender, ends, counts).await;
    shown.abort();
    bar.finish_and_clear();
    report
}

/// `3098 commands, 0 rejected, 56 % of 7 MB read`; of standard input nobody knows the size.
fn progress_line(done: u64, rejected: u64, read: u64, size: u64) -> String {
    let of = match size {
        0 => String::new(),
        size => format!(", {} % of {} MB read", read * 100 / size, size / 1_000_000),
    };
    format!("{done} commands, {rejected} rejected{of}")
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

impl Sending {
    /// Said before anything is sent.
    fn report_can_be_written(&self) -> anyhow::Result<()> {
        match &self.report {
            Some(file) if file.as_os_str() != "-" => std::fs::File::create(file)
                .map(|_| ())
                .with_context(|| format!("cannot write the report to {}", file.display())),
            _ => Ok(()),
        }
    }

    /// Prints what came of an import; what came to nothing goes to standard error.
    fn show(&self, report: &Report, read: Option<&Progress>) -> anyhow::Result<ExitCode> {
        const SHOWN: usize = 20;
        let shown = if self.all_findings { usize::MAX } else { SHOWN };
        // What needs somebody's hand comes first.
        let (trouble, notes): (Vec<&Finding>, Vec<&Finding>) =
            report.findings.iter().partition(|finding| finding.what.is_trouble());
        for finding in trouble.into_iter().chain(notes).take(shown) {
            eprintln!("{finding}");
        }
        if report.findings.len() > shown {
            eprintln!("and {} more; --all-findings shows them", report.findings.len() - shown);
        }
        let mut json = report.to_json();
        if let Some(read) = read {
            json["files"] = read.files().into();
            json["lines"] = read.rows().into();
            json["lines_without_news"] = read.unchanged().into();
        }
        let is_on_stdout = self.report.as_ref().is_some_and(|file| file.as_os_str() == "-");
        match &self.report {
            Some(_) if is_on_stdout => out!("{json}"),
            Some(file) => std::fs::write(file, format!("{json}\n"))
                .with_context(|| format!("cannot write the report to {}", file.display()))?,
            None => {}
        }
        if !is_on_stdout {
            out!("{}", report.summary());
            if let Some(dangling) = report.dangling.filter(|dangling| dangling.things > 0) {
                out!("{dangling}");
            }
            if let Some(read) = read {
                out!(
                    "{} files, {} lines read, {} said nothing new",
                    read.files(),
                    read.rows(),
                    read.unchanged()
                );
            }
        }
        Ok(match report.found_trouble() {
            true => ExitCode::from(FOUND_TROUBLE),
            false => ExitCode::SUCCESS,
        })
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

#[cfg(test)]
mod specs {
    use serde_json::{Value, json};

    use super::*;

    /// A server whose read models are a record further each time that they are asked for.
    async fn server_that_reads_on(asked: Arc<AtomicU64>) -> String {
        let status = move || {
            let next = asked.fetch_add(1, Ordering::SeqCst);
            let group = |name: &str, next: Value| json!({"group": name, "generation": 1, "shards": [{"shard": 0, "next": next}, {"shard": 1, "next": 40}]});
            let nothing_yet = if next == 0 { Value::Null } else { json!(next) };
            async move { axum::Json(json!({"read_models": [group("sales", json!(99)), group("journal", nothing_yet)]})) }
        };
        let api = axum::Router::new().route("/api/status", axum::routing::get(status));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, api).await });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn an_import_through_a_server_waits_until_every_read_model_has_what_was_acked() {
        let asked = Arc::new(AtomicU64::new(0));
        let url = server_that_reads_on(Arc::clone(&asked)).await;
        let mut report = Report::new(&[]);
        report.positions.extend([(0, 4), (1, 39)]);
        wait_for_server(&reqwest::Client::new(), &url, &report).await;
        // The record at 4 is read when 5 is next.
        assert_eq!(asked.load(Ordering::SeqCst), 6);
        // Nothing was acked: there is nothing to wait for.
        wait_for_server(&reqwest::Client::new(), &url, &Report::new(&[])).await;
        assert_eq!(asked.load(Ordering::SeqCst), 7);
    }

    #[test]
    fn a_line_of_progress_says_how_much_is_done_and_how_much_there_is() {
        assert_eq!(
            progress_line(3_098, 2, 4_200_000, 7_500_000),
            "3098 commands, 2 rejected, 56 % of 7 MB read"
        );
        assert_eq!(progress_line(1, 0, 100, 0), "1 commands, 0 rejected");
    }
}
