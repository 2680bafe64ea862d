//! A writer: what a process knows of the shard, and what it has on its way to the log.

use std::fmt;

use crate::log::{COMMANDS_MAX, CommandId, Event, Ghost, Offset, Record, Truth};
use crate::rules::{Rule, Rules};

/// What a command wants of the shard's one stream, which holds one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intent {
    /// Already so when it has the value.
    Set { to: u8 },
    /// Refused when it has another value than `from`.
    Move { from: u8, to: u8 },
}

/// A command, and how many events it makes when it is not already so.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Command {
    pub intent: Intent,
    pub events: u8,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.intent {
            Intent::Set { to } => write!(f, "set {to}")?,
            Intent::Move { from, to } => write!(f, "move {from} to {to}")?,
        }
        write!(f, " (x{})", self.events)
    }
}

/// What `decide` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Write { value: u8 },
    Already,
    Refuse,
}

impl Command {
    pub fn decide(&self, value: u8) -> Decision {
        match self.intent {
            Intent::Set { to } if to == value => Decision::Already,
            Intent::Set { to } => Decision::Write { value: to },
            Intent::Move { from, to } if from == value => Decision::Write { value: to },
            Intent::Move { .. } => Decision::Refuse,
        }
    }
}

/// States and command ids in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cache {
    pub value: u8,
    pub version: u8,
    /// Where the last event of each known command stands.
    pub applied: [Option<Offset>; COMMANDS_MAX],
}

impl Cache {
    pub fn of(truth: &Truth) -> Cache {
        let mut applied = [None; COMMANDS_MAX];
        for commit in &truth.commits {
            applied[usize::from(commit.command)] = Some(commit.at);
        }
        Cache {
            value: truth.value,
            version: truth.version,
            applied,
        }
    }
}

/// A client's attempt that waits at a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Open {
    pub command: CommandId,
    pub attempt: u8,
    /// Was it decided before, so that records of it may be on their way?
    pub is_started: bool,
}

/// An answer that waits until the records it rests on are confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Prepared {
    /// Its last event is this record of the append.
    Applied {
        last: u8,
    },
    Already,
    Refused,
}

/// An append on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Append {
    /// What has neither landed nor been lost yet.
    pub waiting: Vec<Record>,
    /// Where the others stand; `None` = the client library lost it and went on.
    pub stands: Vec<Option<Offset>>,
    pub answers: Vec<(Open, Prepared)>,
    /// The states once it is confirmed.
    pub after: Cache,
}

/// A process that writes to the shard, or would like to. A paused one is one that takes no step.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Writer {
    /// Just started, or an append went wrong, or a claim did.
    Idle {
        /// The last epoch that it owned since it was started.
        owned: u8,
        queue: Vec<Open>,
    },
    /// A claim is on its way.
    Claiming {
        owned: u8,
        epoch: u8,
        /// What it read before it claimed: kept only where the rule is broken that forbids to use it.
        before: Option<Cache>,
        queue: Vec<Open>,
    },
    /// It believes to own the shard.
    Serving {
        epoch: u8,
        claim: Offset,
        /// Where the next record must stand, and the number of the last one.
        next: Offset,
        n: u8,
        cache: Cache,
        queue: Vec<Open>,
        append: Option<Append>,
    },
}

/// What a writer answers at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Applied {
        at: Offset,
    },
    Already,
    Refused,
    /// "Surely nothing was applied."
    NotAccepted,
}

impl Writer {
    /// What it takes itself for.
    pub fn name(&self) -> String {
        match self {
            Writer::Idle { owned: 0, .. } => "a started writer".into(),
            Writer::Idle { owned, .. } => format!("the former owner of epoch {owned}"),
            Writer::Claiming { epoch, .. } => format!("the claimant of epoch {epoch}"),
            Writer::Serving { epoch, .. } => format!("the owner of epoch {epoch}"),
        }
    }

    pub fn queue_mut(&mut self) -> &mut Vec<Open> {
        match self {
            Writer::Idle { queue, .. } | Writer::Claiming { queue, .. } | Writer::Serving { queue, .. } => queue,
        }
    }

    /// The client of this command has gone away.
    pub fn forget(&mut self, command: CommandId) {
        self.queue_mut().retain(|open| open.command != command);
        if let Writer::Serving {
            append: Some(append), ..
        } = self
        {
            append.answers.retain(|(open, _)| open.command != command);
        }
    }

    /// Nothing more is sent; what is open waits for the take-over. Returns what is still on its way and may land later.
    pub fn give_up_append(&mut self) -> Vec<Record> {
        match self {
            Writer::Idle { .. } => vec![],
            Writer::Claiming {
                owned, epoch, queue, ..
            } => {
                let late = vec![Record::Claim { epoch: *epoch }];
                *self = Writer::Idle {
                    owned: *owned,
                    queue: std::mem::take(queue),
                };
                late
            }
            Writer::Serving {
                epoch, queue, append, ..
            } => {
                let (mut open, mut late) = (vec![], vec![]);
                if let Some(append) = append.take() {
                    late = append.waiting;
                    open.extend(append.answers.into_iter().map(|(open, _)| open));
                }
                open.append(queue);
                *self = Writer::Idle {
                    owned: *epoch,
                    queue: open,
                };
                late
            }
        }
    }

    /// The claim of a claimant stands at `at`, the last offset that `truth` has read: it is the owner, or too late. What stands before
    /// a claim never changes, so that to read it at once is the same as to read it later.
    pub fn read_back(&mut self, at: Offset, truth: &Truth, rules: Rules) {
        let Writer::Claiming {
            owned,
            epoch,
            before,
            queue,
        } = self
        else {
            return;
        };
        let is_owner = !truth.is_stopped && truth.epoch == *epoch && truth.owner == at;
        let queue = std::mem::take(queue);
        *self = match is_owner || !rules.keep(Rule::AClaimIsReadBack) {
            true => Writer::Serving {
                epoch: *epoch,
                claim: at,
                next: at + 1,
                n: 0,
                cache: before.take().unwrap_or_else(|| Cache::of(truth)),
                queue,
                append: None,
            },
            false => Writer::Idle { owned: *owned, queue },
        };
    }

    /// Decides everything that waits, in order, and sends what it comes to. Answers what needs no append.
    ///
    /// The program decides the next batch while one is on its way. Here it waits undecided, which is the same: nothing that happens
    /// meanwhile changes what is decided, and what was decided and not sent is decided anew after a take-over.
    pub fn serve(&mut self, commands: &[Command], rules: Rules) -> Vec<(CommandId, Answer)> {
        let Writer::Serving {
            epoch,
            claim,
            next,
            n,
            cache,
            queue,
            append,
        } = self
        else {
            return vec![];
        };
        let mut answers = vec![];
        let mut records: Vec<Record> = vec![];
        let mut waiting: Vec<(Open, Prepared)> = vec![];
        let mut after = cache.clone();
        for open in std::mem::take(queue) {
            let slot = usize::from(open.command);
            let command = &commands[slot];
            if let Some(at) = after.applied[slot] {
                answers.push((open.command, Answer::Applied { at }));
                continue;
            }
            let started = Open {
                is_started: true,
                ..open
            };
            match command.decide(after.value) {
                Decision::Write { value } => {
                    for index in 0..command.events {
                        after.version += 1;
                        *n += 1;
                        records.push(Record::Event(Event {
                            epoch: *epoch,
                            n: *n,
                            command: open.command,
                            index,
                            size: command.events,
                            sequence: after.version,
                            value,
                            ghost: Ghost {
                                claim: *claim,
                                attempt: open.attempt,
                            },
                        }));
                    }
                    after.value = value;
                    let last = records.len() as u8 - 1;
                    after.applied[slot] = Some(*next + last);
                    waiting.push((started, Prepared::Applied { last }));
                }
                Decision::Already if records.is_empty() && !rules.keep(Rule::ANoOpWaitsForABarrier) => {
                    answers.push((open.command, Answer::Already));
                }
                Decision::Already => waiting.push((started, Prepared::Already)),
                Decision::Refuse if records.is_empty() && !rules.keep(Rule::ARefusalWaitsForABarrier) => {
                    answers.push((open.command, Answer::Refused));
                }
                Decision::Refuse => waiting.push((started, Prepared::Refused)),
            }
        }
        if records.is_empty() && !waiting.is_empty() {
            *n += 1;
            records.push(Record::Barrier { epoch: *epoch, n: *n });
        }
        if !records.is_empty() {
            *append = Some(Append {
                waiting: records,
                stands: vec![],
                answers: waiting,
                after,
            });
        }
        answers
    }

    /// Only without [`Rule::ABarrierIsSentAfterTheQuestion`]: "already so" joins the append that is on its way.
    pub fn lean_on_append(&mut self, commands: &[Command]) -> bool {
        let Writer::Serving {
            queue,
            append: Some(append),
            ..
        } = self
        else {
            return false;
        };
        let Some(first) = queue.first().copied() else {
            return false;
        };
        let slot = usize::from(first.command);
        let is_new = append.after.applied[slot].is_none();
        if !is_new || commands[slot].decide(append.after.value) != Decision::Already {
            return false;
        }
        queue.remove(0);
        append.answers.push((
            Open {
                is_started: true,
                ..first
            },
            Prepared::Already,
        ));
        true
    }

    /// Is every record of the append confirmed?
    pub fn is_confirmed(&self) -> bool {
        match self {
            Writer::Serving {
                append: Some(append), ..
            } => append.waiting.is_empty() && append.stands.iter().all(Option::is_some),
            Writer::Serving { .. } | Writer::Idle { .. } | Writer::Claiming { .. } => false,
        }
    }

    /// The log has confirmed every record of the append. `None` when they do not stand where they should: then it is given up.
    pub fn confirm(&mut self, rules: Rules) -> Option<Vec<(CommandId, Answer)>> {
        let Writer::Serving {
            next, cache, append, ..
        } = self
        else {
            return None;
        };
        let sent = append.as_ref()?;
        let stands: Vec<Offset> = sent.stands.iter().copied().flatten().collect();
        let is_contiguous = stands.iter().zip(*next..).all(|(stands, due)| *stands == due);
        if !is_contiguous && rules.keep(Rule::OffsetsAreContiguous) {
            return None;
        }
        let sent = append.take()?;
        *next = stands[stands.len() - 1] + 1;
        *cache = sent.after;
        let mut answers = vec![];
        for (open, prepared) in sent.answers {
            let answer = match prepared {
                Prepared::Applied { last } => Answer::Applied {
                    at: stands[usize::from(last)],
                },
                Prepared::Already => Answer::Already,
                Prepared::Refused => Answer::Refused,
            };
            answers.push((open.command, answer));
        }
        Some(answers)
    }
}
