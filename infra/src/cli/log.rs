//! `crm log`: the log itself.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use domain::Position;
use services::clock::{Clock, SystemClock};
use services::log::{EventLog, Quarantine, audit};

use super::FOUND_TROUBLE;
use super::output::out;
use crate::config::{Settings, Use};

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
    /// Have readers step over one record that is not ours, from now on and for ever
    Quarantine {
        /// Where it stands: <shard>:<offset>
        #[arg(value_parser = position)]
        position: Position,
        /// Why, for those who read it later
        #[arg(long)]
        reason: String,
    },
}

fn position(text: &str) -> Result<Position, String> {
    Position::parse(text).ok_or_else(|| format!("{text:?} is not <shard>:<offset>"))
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
            What::Quarantine { position, reason } => {
                quarantine(settings.open_log(Use::Write)?.as_ref(), position, reason).await
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
            out!("{shard}:{offset}  {time}  epoch {epoch} n {n}  {kind}  {subject} {sequence}  {actor}");
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
    let mut broken = false;
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
            broken = true;
            out!("  BROKEN {fault}");
        }
    }
    Ok(if broken {
        ExitCode::from(FOUND_TROUBLE)
    } else {
        ExitCode::SUCCESS
    })
}

async fn quarantine(log: &dyn EventLog, at: Position, reason: String) -> anyhow::Result<ExitCode> {
    log.open().await?;
    let mut reader = log.reader(at.shard, at.offset).await?;
    let batch = reader.next(1, Duration::from_secs(10)).await?;
    let Some((_, record)) = batch.first().filter(|(offset, _)| *offset == at.offset) else {
        bail!("there is no record at {at}");
    };
    if services::log::Envelope::parse(record, at).is_ok() {
        bail!("the record at {at} is one of ours; what is right is corrected by a command, never stepped over");
    }
    #[allow(clippy::disallowed_methods, reason = "the word of an operator has an id of its own")]
    let id = uuid::Uuid::now_v7();
    let word = Quarantine {
        offset: at.offset,
        fingerprint: record.fingerprint(),
        reason,
    };
    log.writer(at.shard)
        .await?
        .append(vec![word.to_record(id, SystemClock.now())])
        .await?;
    out!("readers step over {at} from now on");
    Ok(ExitCode::SUCCESS)
}
