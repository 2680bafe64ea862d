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

#[cfg(test)]
mod specs {
    use domain::{Actor, EventType, Position, StreamKind, derived_id};
    use jiff::Timestamp;

    use super::*;
    use crate::log::{Claim, LogCreated, MemoryLog, StoredEvent};

    const SHARDS: u16 = 3;
    const SHARD: u16 = 1;
    const SOURCE: &str = "/crm/spec";

    fn now() -> Timestamp {
        "2026-03-02T01:00:00Z".parse().unwrap()
    }

    /// A customer whose stream belongs to this shard.
    fn customer(shard: u16) -> StreamRef {
        let ids = (0..).map(|n: u32| derived_id(&["customer", &n.to_string()]));
        let mut streams = ids.map(|id| StreamRef {
            kind: StreamKind::Customer,
            id,
        });
        streams.find(|stream| stream.slot().shard(SHARDS) == shard).unwrap()
    }

    /// What the audit finds in a shard with these commits of one event each: the command, the stream, and the event's
    /// number in it.
    async fn faults(commits: &[(&str, StreamRef, u64)]) -> Vec<String> {
        let log = MemoryLog::new();
        log.create(SHARDS).await.unwrap();
        let created = LogCreated {
            log_id: derived_id(&["log"]),
            shards: SHARDS,
            slots: 4_096,
            calendar: domain::Calendar::taipei(),
        };
        let claim = Claim {
            epoch: 1,
            nonce: derived_id(&["nonce"]),
            node: "node".into(),
            address: "127.0.0.1:0".into(),
        };
        log.push(SHARD, created.to_record(now()));
        log.push(SHARD, claim.to_record(SOURCE, now()));
        for (n, (command, stream, sequence)) in (1..).zip(commits) {
            let event = StoredEvent {
                command_id: derived_id(&[command]),
                index: 0,
                commit_size: 1,
                event_type: EventType::parse("crm.customer.closed.v1").unwrap(),
                stream: *stream,
                sequence: *sequence,
                time: now(),
                effective_at: None,
                actor: Actor::parse("user:mei").unwrap(),
                on_behalf_of: None,
                causation: None,
                correlation: None,
                traceparent: None,
                customer: None,
                external_key: None,
                command_hash: "0123456789abcdef".into(),
                body: b"{}".to_vec(),
                position: Position { shard: 0, offset: 0 },
            };
            log.push(SHARD, event.to_record(SOURCE, 1, n));
        }
        let found = audit(&log, SHARD, |_| {}).await.unwrap();
        assert_eq!(found.commits, commits.len() as u64);
        found.faults
    }

    #[tokio::test]
    async fn a_stream_in_the_wrong_shard_is_named_with_its_position_and_the_right_shard() {
        let (own, other) = (customer(SHARD), customer(2));
        let found = faults(&[("a", own, 1), ("b", other, 1), ("c", own, 2)]).await;
        assert_eq!(found, [format!("1:3: {other} belongs to shard 2")]);
    }

    #[tokio::test]
    async fn a_gap_in_a_stream_and_a_command_that_was_applied_twice_are_named() {
        let own = customer(SHARD);
        let found = faults(&[("a", own, 1), ("b", own, 3), ("a", own, 4)]).await;
        let twice = derived_id(&["a"]);
        let told = [
            format!("1:3: {own} has 3 where 2 was due"),
            format!("1:4: command {twice} was applied before"),
        ];
        assert_eq!(found, told);
    }
}
