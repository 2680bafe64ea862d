//! Who claimed a shard last, found from the end of the log: to ask the owner, not to judge.

use std::time::Duration;

use domain::Position;

use super::{Claim, Envelope, EventLog, LogError, Meaning};

/// Records per step backwards.
const STEP: u64 = 2_000;

/// The claim of the highest epoch among the records of a shard, as it stands; whether it is valid, and whether its owner lives, is for the
/// caller to find out. `None` when nobody ever claimed it.
///
/// # Errors
/// When the log cannot be read.
pub async fn last_claim(log: &dyn EventLog, shard: u16) -> Result<Option<Claim>, LogError> {
    let mut to = log.end(shard).await?;
    while to > 0 {
        let from = to.saturating_sub(STEP);
        let mut best: Option<Claim> = None;
        let mut reader = log.reader(shard, from).await?;
        let mut next = from;
        while next < to {
            let batch = reader.next(STEP as usize, Duration::from_secs(10)).await?;
            if batch.is_empty() {
                return Err(LogError::Unavailable("no records came in 10 s".into()));
            }
            for (offset, record) in batch.into_iter().filter(|(offset, _)| *offset < to) {
                next = offset + 1;
                if let Ok(Envelope {
                    meaning: Meaning::Claim(claim),
                    ..
                }) = Envelope::parse(&record, Position { shard, offset })
                    && best.as_ref().is_none_or(|known| claim.epoch > known.epoch)
                {
                    best = Some(claim);
                }
            }
        }
        if best.is_some() {
            return Ok(best);
        }
        to = from;
    }
    Ok(None)
}
