//! What stands in the log, and which of it counts: the model's own judge, written from the protocol's text and not from the code.
//! `production.rs` holds the two against each other.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::rules::{Rule, Rules};

/// Where a record stands. The creation record, which is always first and always valid, is left out: offset 0 is the first claim.
pub type Offset = u8;

/// A command's number, which is its id.
pub type CommandId = u8;

/// How many commands a world may know: room in fixed arrays, which hash faster.
pub const COMMANDS_MAX: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Record {
    /// Which writer sent it is known by its offset, as it is by nonce and offset in production.
    Claim {
        epoch: u8,
    },
    Event(Event),
    Barrier {
        epoch: u8,
        n: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Event {
    pub epoch: u8,
    pub n: u8,
    pub command: CommandId,
    /// Which record of the commit, from 0, and how many there are.
    pub index: u8,
    pub size: u8,
    /// The stream's version after it.
    pub sequence: u8,
    /// The stream's value once the whole commit counts.
    pub value: u8,
    pub ghost: Ghost,
}

/// `2.1: command 0, 1/2` is the first record of epoch 2 and the first of the two that command 0 makes.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Claim { epoch } => write!(f, "claim of epoch {epoch}"),
            Record::Barrier { epoch, n } => write!(f, "{epoch}.{n}: barrier"),
            Record::Event(event) => {
                let (epoch, n, command, nth) = (event.epoch, event.n, event.command, event.index + 1);
                write!(f, "{epoch}.{n}: command {command}, {nth}/{}", event.size)
            }
        }
    }
}

/// What no judge and no writer looks at; properties do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ghost {
    /// The claim by which its writer believed to own the shard.
    pub claim: Offset,
    /// Which of the client's attempts made the writer send it, from 1.
    pub attempt: u8,
}

/// What a record came to; the same words as in production.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Judgement {
    Claimed,
    Barrier,
    Part,
    /// The last record of a commit: it counts.
    Commit,
    Void,
    /// It breaks the protocol: readers stop here and call an operator.
    Foreign,
}

/// The events of one command that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    pub command: CommandId,
    /// Of its last record.
    pub at: Offset,
    /// The claim in force where it stands, and the one that its writer believed in.
    pub owner: Offset,
    pub writer: Offset,
    pub attempt: u8,
    /// Was it decided on exactly the state that the log had given until then?
    pub fits: bool,
}

/// The log as a reader understands it that has read so far.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    pub epoch: u8,
    pub n: u8,
    open: Vec<Event>,
    /// The valid claim in force.
    pub owner: Offset,
    pub value: u8,
    pub version: u8,
    pub commits: Vec<Commit>,
    pub judgements: Vec<Judgement>,
    pub is_stopped: bool,
}

/// The records of the shard, and what they come to. Most steps leave it as it is, so worlds share it.
#[derive(Debug, Clone, Default)]
pub struct Log {
    records: Arc<Vec<Record>>,
    truth: Arc<Truth>,
}

impl Log {
    pub fn push(&mut self, record: Record, rules: Rules) {
        Arc::make_mut(&mut self.records).push(record);
        Arc::make_mut(&mut self.truth).read(&record, rules);
    }

    pub fn records(&self) -> &[Record] {
        &self.records
    }

    pub fn truth(&self) -> &Truth {
        &self.truth
    }

    /// Where the next record will stand.
    pub fn end(&self) -> Offset {
        self.records.len() as Offset
    }
}

/// The truth follows from the records.
impl PartialEq for Log {
    fn eq(&self, other: &Log) -> bool {
        self.records == other.records
    }
}

impl Eq for Log {}

impl Hash for Log {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.records.hash(hasher);
    }
}

impl Truth {
    /// Judges the next record.
    pub fn read(&mut self, record: &Record, rules: Rules) {
        if self.is_stopped {
            return;
        }
        let at = self.judgements.len() as Offset;
        let judgement = self.judge(record, rules);
        self.judgements.push(judgement);
        match judgement {
            Judgement::Claimed => self.owner = at,
            Judgement::Commit => self.apply(at),
            Judgement::Foreign => self.is_stopped = true,
            Judgement::Barrier | Judgement::Part | Judgement::Void => {}
        }
    }

    fn judge(&mut self, record: &Record, rules: Rules) -> Judgement {
        match *record {
            Record::Claim { epoch } if epoch == self.epoch + 1 => {
                self.epoch = epoch;
                self.n = 0;
                if rules.keep(Rule::AClaimCutsTheOpenCommit) {
                    self.open.clear();
                }
                Judgement::Claimed
            }
            Record::Claim { .. } => Judgement::Void,
            Record::Barrier { epoch, n } if !self.is_next(epoch, n, rules) => Judgement::Void,
            Record::Event(event) if !self.is_next(event.epoch, event.n, rules) => Judgement::Void,
            Record::Barrier { .. } if !self.open.is_empty() => Judgement::Foreign,
            Record::Barrier { .. } => {
                self.n += 1;
                Judgement::Barrier
            }
            Record::Event(event) if !self.continues(&event) => Judgement::Foreign,
            Record::Event(event) => {
                self.n += 1;
                self.open.push(event);
                match event.index + 1 == event.size {
                    true => Judgement::Commit,
                    false => Judgement::Part,
                }
            }
        }
    }

    fn is_next(&self, epoch: u8, n: u8, rules: Rules) -> bool {
        let is_current = epoch == self.epoch || !rules.keep(Rule::OnlyTheEpochInForceCounts);
        let is_due = n == self.n + 1 || !rules.keep(Rule::RecordsAreNumbered);
        self.epoch > 0 && is_current && is_due
    }

    fn continues(&self, event: &Event) -> bool {
        let same = |first: &Event| first.command == event.command && first.size == event.size;
        usize::from(event.index) == self.open.len() && self.open.first().is_none_or(same)
    }

    fn apply(&mut self, at: Offset) {
        let events = std::mem::take(&mut self.open);
        let mut fits = true;
        for event in &events {
            fits &= event.sequence == self.version + 1;
            self.version = event.sequence;
        }
        let last = events[events.len() - 1];
        self.value = last.value;
        self.commits.push(Commit {
            command: last.command,
            at,
            owner: self.owner,
            writer: last.ghost.claim,
            attempt: last.ghost.attempt,
            fits,
        });
    }

    /// The commit of this command that counts.
    pub fn commit_of(&self, command: CommandId) -> Option<&Commit> {
        self.commits.iter().find(|commit| commit.command == command)
    }
}
