//! Creating a log, and opening one that exists.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{AppendError, EventLog, LogCreated, LogError};
use crate::clock::Clock;
use crate::shard::{TakeOverError, read_creation};

/// How long a log that was just created may need to elect its leaders.
const LEADERS_WAIT: Duration = Duration::from_secs(30);

/// A log that was found in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub log_id: Uuid,
    pub shards: u16,
}

/// Creates the log with so many shards and writes each shard's first record. A log that exists with as many is left as it is; one
/// whose creation was cut short is completed.
///
/// # Errors
/// When it exists with another number of shards or wrong settings, or cannot be reached.
pub async fn create(log: &dyn EventLog, shards: u16, clock: &dyn Clock) -> Result<Opened, TakeOverError> {
    if shards == 0 || shards > domain::SLOTS {
        return Err(LogError::WrongSettings(format!("a log has 1 to {} shards, not {shards}", domain::SLOTS)).into());
    }
    log.create(shards).await?;
    // Partitions that were just made may have no leader yet.
    let deadline = Instant::now() + LEADERS_WAIT;
    loop {
        match write_creations(log, shards, clock).await {
            Ok(()) => return open(log).await,
            Err(TakeOverError::Log(LogError::Unavailable(why)) | TakeOverError::Claim(AppendError::Unknown(why)))
                if Instant::now() < deadline =>
            {
                tracing::debug!("the new log is not ready yet: {why}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Writes the first record of each shard that is empty; a second one after an unknown outcome is void.
async fn write_creations(log: &dyn EventLog, shards: u16, clock: &dyn Clock) -> Result<(), TakeOverError> {
    let mut log_id = None;
    for shard in 0..shards {
        if log.end(shard).await? > 0 {
            log_id = Some(read_creation(log, shard).await?.log_id);
            break;
        }
    }
    #[allow(clippy::disallowed_methods, reason = "a log's id is luck, drawn once")]
    let mut log_id = log_id.unwrap_or_else(Uuid::now_v7);
    for shard in 0..shards {
        if log.end(shard).await? == 0 {
            let created = LogCreated {
                log_id,
                shards,
                slots: domain::SLOTS,
            };
            log.writer(shard)
                .await?
                .append(vec![created.to_record(clock.now())])
                .await?;
        }
        if shard == 0 {
            // Several may create it at the same time: it is the log of the one whose record stands first.
            log_id = read_creation(log, shard).await?.log_id;
        }
    }
    Ok(())
}

/// Opens a log: its settings are right, and all shards say that they belong to the same log with as many shards.
///
/// # Errors
/// [`LogError::NotCreated`], [`LogError::WrongSettings`], or it cannot be reached.
pub async fn open(log: &dyn EventLog) -> Result<Opened, TakeOverError> {
    let shards = log.open().await?;
    let mut opened: Option<Opened> = None;
    for shard in 0..shards {
        let created = read_creation(log, shard).await?;
        let wrong = |what: String| LogError::WrongSettings(format!("{}: {what}", log.address()));
        if created.shards != shards {
            let made = created.shards;
            return Err(wrong(format!(
                "it was created with {made} shards and has {shards} partitions; create a new log for \
                another number, never add partitions"
            ))
            .into());
        }
        match &opened {
            Some(first) if first.log_id != created.log_id => {
                return Err(wrong(format!("shard {shard} belongs to another log than shard 0")).into());
            }
            _ => {
                opened = Some(Opened {
                    log_id: created.log_id,
                    shards,
                })
            }
        }
    }
    opened.ok_or_else(|| LogError::NotCreated(log.address()).into())
}
