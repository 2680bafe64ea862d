//! `crm log`: the log itself.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use domain::Position;
use services::clock::{Clock, SystemClock};
use services::log::{EventLog, Meaning, Quarantine, audit};

use super::FOUND_TROUBLE;
use super::output::out;
use crate::config::{Settings, Use};

/// Look at the log itself: list, verify, quarantine
#[derive(Debug, Args)]
pub struct LogCommand {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print records: headers only, for bodies may hold personal data
    List {
        #[arg(long, default_value_t = 0)]
        shard: u16,
        #[arg(long, default_value_t = 0)]
        from: u64,
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Print the events' bodies too
        #[arg(long)]
        bodies: bool,
    },
    /// Read everything and check every promise of the protocol; exit code 2 when one is broken
    Verify,
    /// Have readers step over one record, from now on and for ever: one that is not ours, or an event that a read model cannot hold
    ///
    /// `crm status` says which record stops a reader, and the whole command. A record that is not ours, or is damaged, is stepped over by
    /// all. An event of ours stays part of its stream; the read models that cannot hold it step over it, and go on.
    Quarantine {
        /// Where it stands: <shard>:<offset>
        #[arg(value_parser = position)]
        position: Position,
        /// The record's hash, as `crm status` and `crm log list` show it: another record is never stepped over
        #[arg(long, value_parser = hash)]
        hash: Option<u64>,
        /// Why, for those who read it later
        #[arg(long)]
        reason: String,
    },
}

fn position(text: &str) -> Result<Position, String> {
    Position::parse(text).ok_or_else(|| format!("{text:?} is not <shard>:<offset>"))
}

fn hash(text: &str) -> Result<u64, String> {
    let is_hash = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hash = u64::from_str_radix(text, 16).ok().filter(|_| is_hash);
    hash.ok_or_else(|| format!("{text:?} is not a hash of sixteen hex digits"))
}

impl LogCommand {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        match self.command {
            What::List {
                shard,
                from,
                limit,
                bodies,
            } => list(settings.open_log(Use::Read)?.as_ref(), shard, from, limit, bodies).await,
            What::Verify => verify(settings.open_log(Use::Read)?.as_ref()).await,
            What::Quarantine { position, hash, reason } => {
                quarantine(settings.open_log(Use::Write)?.as_ref(), position, hash, reason).await
            }
        }
    }
}

async fn list(log: &dyn EventLog, shard: u16, from: u64, limit: usize, bodies: bool) -> anyhow::Result<ExitCode> {
    let shards = log.open().await?;
    if shard >= shards {
        bail!("there is no shard {shard}; the log has {shards}");
    }
    let end = log.end(shard).await?.min(from.saturating_add(limit as u64));
    let mut next = from;
    if from >= end {
        return Ok(ExitCode::SUCCESS);
    }
    let mut reader = log.reader(shard, from).await?;
    while next < end {
        for (offset, record) in reader.next((end - next) as usize, Duration::from_secs(10)).await? {
            next = offset + 1;
            let text = |name: &str| String::from_utf8_lossy(record.header(name).unwrap_or(b"-")).into_owned();
            let (kind, subject, sequence) = (text("ce_type"), text("ce_subject"), text("ce_sequence"));
            let (epoch, n, time, actor) = (text("ce_epoch"), text("ce_n"), text("ce_time"), text("ce_actor"));
            let hash = record.fingerprint();
            out!(
                "{shard}:{offset}  {time}  epoch {epoch} n {n}  {kind}  {subject} {sequence}  {actor}  hash {hash:016x}"
            );
            if bodies {
                out!(
                    "    {}",
                    String::from_utf8_lossy(record.value.as_deref().unwrap_or(b"null"))
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(log: &dyn EventLog) -> anyhow::Result<ExitCode> {
    let shards = log.open().await?;
    let mut faults = 0;
    for shard in 0..shards {
        let found = audit(log, shard, |_| {}).await?;
        out!(
            "shard {shard}: {} records, {} commits, {} events, {} claims, {} void",
            found.records,
            found.commits,
            found.events,
            found.claims,
            found.void
        );
        for fault in &found.faults {
            out!("  BROKEN {fault}");
        }
        faults += found.faults.len();
    }
    Ok(if faults > 0 {
        out!("BROKEN: {faults} promises of the protocol do not hold");
        ExitCode::from(FOUND_TROUBLE)
    } else {
        out!("the log is whole: every promise of the protocol holds");
        ExitCode::SUCCESS
    })
}

async fn quarantine(log: &dyn EventLog, at: Position, hash: Option<u64>, reason: String) -> anyhow::Result<ExitCode> {
    let shards = log.open().await?;
    if at.shard >= shards {
        bail!("there is no shard {}; the log has {shards}", at.shard);
    }
    if at.offset >= log.end(at.shard).await? {
        bail!("there is no record at {at}");
    }
    let mut reader = log.reader(at.shard, at.offset).await?;
    let batch = reader.next(1, Duration::from_secs(10)).await?;
    let Some((_, record)) = batch.first().filter(|(offset, _)| *offset == at.offset) else {
        bail!("there is no record at {at}");
    };
    let found = record.fingerprint();
    if hash.is_some_and(|hash| hash != found) {
        bail!("the record at {at} has the hash {found:016x}: it is another one");
    }
    match services::log::Envelope::parse(record, at).map(|envelope| envelope.meaning) {
        Err(_) => {}
        Ok(Meaning::Event(_)) if hash.is_some() => {}
        Ok(Meaning::Event(_)) => bail!(
            "record {at} is an event of this CRM; correct it with a command. If a read model cannot store it, repeat this with the \
             --hash that crm status shows"
        ),
        Ok(_) => bail!("the record at {at} belongs to the protocol of the log; no reader stops at it"),
    }
    #[allow(clippy::disallowed_methods, reason = "the word of an operator has an id of its own")]
    let id = uuid::Uuid::now_v7();
    let word = Quarantine {
        offset: at.offset,
        fingerprint: found,
        reason,
    };
    log.writer(at.shard)
        .await?
        .append(vec![word.to_record(id, SystemClock.now())])
        .await?;
    out!("readers step over {at} from now on");
    Ok(ExitCode::SUCCESS)
}
