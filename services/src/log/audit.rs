//! Reading a whole log as an auditor does: every valid commit in order, and the promises of the protocol checked on the way.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use domain::StreamRef;
use uuid::Uuid;

use super::{Commit, EventLog, Judgement, LogError};
use crate::shard::{TakeOverError, judge_or_step_over, resume};

/// What an audit of one shard found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    pub records: u64,
    pub commits: u64,
    pub events: u64,
    pub claims: u64,
    /// Records that count for nothing: of writers that did not own the shard, or cut off by a claim.
    pub void: u64,
    /// What breaks a promise: a gap in a stream's sequence, a command that was applied twice. Each with its position.
    pub faults: Vec<String>,
}

/// Reads `shard` from its first record to its present end, and shows each commit to `look`.
///
/// # Errors
/// A record that is not ours, a log that cannot be reached.
pub async fn audit(log: &dyn EventLog, shard: u16, mut look: impl FnMut(&Commit)) -> Result<Audit, TakeOverError> {
    let mut found = Audit::default();
    let mut versions: HashMap<StreamRef, u64> = HashMap::new();
    let mut commands: HashSet<Uuid> = HashSet::new();
    let mut shards = None;
    let end = log.end(shard).await?;
    let (mut judge, mut reader) = resume(log, shard, None).await?;
    while judge.next() < end {
        let batch = reader.next(5_000, Duration::from_secs(10)).await?;
        if batch.is_empty() {
            return Err(LogError::Unavailable("no records came in 10 s".into()).into());
        }
        for (offset, record) in batch.into_iter().take_while(|(offset, _)| *offset < end) {
            found.records += 1;
            match judge_or_step_over(log, &mut judge, shard, offset, record).await? {
                Some(Judgement::Commit(commit)) => {
                    found.commits += 1;
                    found.events += commit.events.len() as u64;
                    let command = commit.events[0].command_id;
                    if !commands.insert(command) {
                        found
                            .faults
                            .push(format!("{shard}:{offset}: command {command} was applied before"));
                    }
                    for event in &commit.events {
                        let own = shards.map_or(shard, |shards| event.stream.slot().shard(shards));
                        if own != shard {
                            let (at, stream) = (event.position, event.stream);
                            found.faults.push(format!("{at}: {stream} belongs to shard {own}"));
                        }
                        let version = versions.entry(event.stream).or_insert(0);
                        if event.sequence != *version + 1 {
                            let (due, found_at) = (*version + 1, event.sequence);
                            let stream = event.stream;
                            found
                                .faults
                                .push(format!("{shard}:{offset}: {stream} has {found_at} where {due} was due"));
                        }
                        *version = event.sequence;
                    }
                    look(&commit);
                }
                Some(Judgement::Claimed(_)) => found.claims += 1,
                Some(Judgement::Void) | None => found.void += 1,
                Some(Judgement::Created(created)) => shards = Some(created.shards),
                Some(Judgement::Part | Judgement::Barrier | Judgement::Quarantine) => {}
            }
        }
    }
    Ok(found)
}
