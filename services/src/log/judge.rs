//! Which records count. One function judges a record, for readers, take-over and settlement alike.

use domain::Position;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Claim, Envelope, Foreign, LogCreated, Meaning, Record, StoredEvent};
use crate::bugs::{self, Bug};

/// Where a reader stands, always between two commits. Resuming re-reads the record before `next`: another fingerprint means that
/// the log lost its tail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub log_id: Uuid,
    /// The next offset to read.
    pub next: u64,
    /// The epoch in force, and how many of its records were read.
    pub epoch: u64,
    pub n: u64,
    /// Of the record before `next`.
    pub fingerprint: u64,
}

/// The events of one command, all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    pub events: Vec<StoredEvent>,
}

/// What a record came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// The last record of a commit: the commit counts.
    Commit(Commit),
    /// Part of a commit that is not complete yet; it may never be.
    Part,
    /// A valid claim: it owns the shard from here on.
    Claimed(Claim),
    /// The log's first record.
    Created(LogCreated),
    Barrier,
    /// An operator's word about another record; no event.
    Quarantine,
    /// From a writer that did not own the shard, or whose earlier record is missing: skipped.
    Void,
}

/// Judges the records of one shard, in order.
#[derive(Debug, Clone)]
pub struct Judge {
    shard: u16,
    log_id: Option<Uuid>,
    next: u64,
    epoch: u64,
    n: u64,
    open: Vec<StoredEvent>,
    boundary: Option<Boundary>,
}

/// A point between two commits. The fingerprint of the record before it is made only when somebody asks: few points become checkpoints.
#[derive(Debug, Clone)]
struct Boundary {
    log_id: Uuid,
    next: u64,
    epoch: u64,
    n: u64,
    before: Before,
}

#[derive(Debug, Clone)]
enum Before {
    Record(Record),
    Fingerprint(u64),
}

impl Judge {
    /// From the first record of the shard on.
    pub fn from_start(shard: u16) -> Judge {
        Judge {
            shard,
            log_id: None,
            next: 0,
            epoch: 0,
            n: 0,
            open: vec![],
            boundary: None,
        }
    }

    /// From where a reader stood. The caller has compared the fingerprint of the record before.
    pub fn resume(shard: u16, at: &Checkpoint) -> Judge {
        Judge {
            shard,
            log_id: Some(at.log_id),
            next: at.next,
            epoch: at.epoch,
            n: at.n,
            open: vec![],
            boundary: Some(Boundary {
                log_id: at.log_id,
                next: at.next,
                epoch: at.epoch,
                n: at.n,
                before: Before::Fingerprint(at.fingerprint),
            }),
        }
    }

    /// The offset of the record that is judged next.
    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many records of the epoch in force were valid.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// The last point between two commits; `None` before the first record.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let boundary = self.boundary.as_ref()?;
        Some(Checkpoint {
            log_id: boundary.log_id,
            next: boundary.next,
            epoch: boundary.epoch,
            n: boundary.n,
            fingerprint: match &boundary.before {
                Before::Record(record) => record.fingerprint(),
                Before::Fingerprint(fingerprint) => *fingerprint,
            },
        })
    }

    /// Where the next record after [`checkpoint`](Self::checkpoint) stands; 0 before the first record.
    pub fn settled(&self) -> u64 {
        self.boundary.as_ref().map_or(0, |boundary| boundary.next)
    }

    /// Judges the record at `offset`.
    ///
    /// # Errors
    /// [`Foreign`] when it is none of ours, or breaks the protocol. The reader stops there.
    pub fn judge(&mut self, offset: u64, record: Record) -> Result<Judgement, Foreign> {
        let judgement = self.decide(offset, &record)?;
        self.step(Before::Record(record));
        Ok(judgement)
    }

    fn decide(&mut self, offset: u64, record: &Record) -> Result<Judgement, Foreign> {
        let foreign = |why: String| Foreign {
            shard: self.shard,
            offset,
            fingerprint: record.fingerprint(),
            why,
        };
        if offset != self.next {
            return Err(foreign(format!(
                "offset {} was expected: records are missing",
                self.next
            )));
        }
        let envelope = Envelope::parse(
            record,
            Position {
                shard: self.shard,
                offset,
            },
        )?;
        if offset == 0 && !matches!(envelope.meaning, Meaning::Created(_)) {
            return Err(foreign("the first record does not say which log this is".into()));
        }
        Ok(match envelope.meaning {
            Meaning::Created(created) if offset == 0 => {
                self.log_id = Some(created.log_id);
                Judgement::Created(created)
            }
            Meaning::Created(_) => Judgement::Void,
            Meaning::Quarantine(_) => Judgement::Quarantine,
            Meaning::Claim(claim) if claim.epoch == self.epoch + 1 => {
                self.epoch = claim.epoch;
                self.n = 0;
                self.open.clear();
                Judgement::Claimed(claim)
            }
            Meaning::Claim(_) => Judgement::Void,
            Meaning::Barrier | Meaning::Event(_) if !self.is_next(envelope.epoch, envelope.n) => Judgement::Void,
            Meaning::Barrier if !self.open.is_empty() => {
                return Err(foreign("a barrier stands inside a commit".into()));
            }
            Meaning::Barrier => {
                self.n += 1;
                Judgement::Barrier
            }
            Meaning::Event(event) => {
                if !self.continues_commit(&event) {
                    let why = format!("event {} does not continue the commit before it", event.event_id());
                    return Err(foreign(why));
                }
                self.n += 1;
                let is_last = event.index + 1 == event.commit_size || bugs::has(Bug::HalfCommitCounts);
                self.open.push(*event);
                if is_last {
                    Judgement::Commit(Commit {
                        events: std::mem::take(&mut self.open),
                    })
                } else {
                    Judgement::Part
                }
            }
        })
    }

    /// Steps over the record of this fingerprint, which an operator has quarantined.
    pub fn step_over(&mut self, fingerprint: u64) {
        self.step(Before::Fingerprint(fingerprint));
    }

    fn step(&mut self, before: Before) {
        self.next += 1;
        if let (true, Some(log_id)) = (self.open.is_empty(), self.log_id) {
            let (next, epoch, n) = (self.next, self.epoch, self.n);
            self.boundary = Some(Boundary {
                log_id,
                next,
                epoch,
                n,
                before,
            });
        }
    }

    fn is_next(&self, epoch: u64, n: u64) -> bool {
        let in_force = epoch == self.epoch || bugs::has(Bug::NoEpochCheck);
        epoch > 0 && in_force && (n == self.n + 1 || bugs::has(Bug::NoNumberCheck))
    }

    fn continues_commit(&self, event: &StoredEvent) -> bool {
        let expected = self.open.len() as u32;
        let same_commit = self
            .open
            .first()
            .is_none_or(|first| first.command_id == event.command_id && first.commit_size == event.commit_size);
        (event.index == expected || bugs::has(Bug::HalfCommitCounts)) && event.index < event.commit_size && same_commit
    }
}
