//! One shard, its writers, the network between, and clients that retry: every step that can happen next.

use std::fmt;

use stateright::{Model, Property};

use crate::log::{CommandId, Log, Offset, Record};
use crate::promises::{self, Sightings};
use crate::rules::{Rule, Rules};
use crate::writer::{Answer, Cache, Command, Decision, Open, Writer};

/// A world and its bounds. Within them everything is tried.
#[derive(Debug, Clone)]
pub struct Shard {
    pub writers: usize,
    pub commands: Vec<Command>,
    /// How often a client asks for one command.
    pub attempts_max: u8,
    /// Claims that are ever sent, the first included.
    pub claims_max: u8,
    pub crashes_max: u8,
    pub rules: Rules,
    /// What was seen, where that is asked for.
    pub sightings: Option<Sightings>,
    /// Only this promise is watched.
    pub only: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub log: Log,
    /// In no order: which process is which says nothing, so worlds that differ in it only are one.
    pub writers: Vec<Writer>,
    /// Appends that their writers have given up, and that may land yet.
    pub late: Vec<Vec<Record>>,
    pub clients: Vec<Client>,
    pub claims: u8,
    pub crashes: u8,
}

/// The one who sent a command, and what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Client {
    pub attempts: u8,
    pub is_asking: bool,
    /// Has there been a moment since it asked when the log's truth was such that the command writes nothing?
    pub was_idle: bool,
    pub told: Option<Told>,
    /// The attempts, as bits, that were told "surely nothing was applied".
    pub not_accepted: u8,
}

/// A final answer: after it the client does not ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Told {
    Applied {
        at: Offset,
    },
    /// `was_so`: at some moment since the question.
    Already {
        was_so: bool,
    },
    Refused {
        was_so: bool,
    },
}

/// Writers and late appends by their place in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// A client asks, for the first time or again because it knows no outcome; an earlier attempt is given up.
    Ask {
        command: CommandId,
        writer: usize,
    },
    /// Reads the log to its end and sends a claim of the next epoch.
    Claim {
        writer: usize,
    },
    /// Decides what waits and sends it.
    Serve {
        writer: usize,
    },
    /// Only where [`Rule::ABarrierIsSentAfterTheQuestion`] is broken.
    LeanOnAppend {
        writer: usize,
    },
    /// A record of what the writer has on its way lands; those before it, if any are skipped, never will.
    Land {
        writer: usize,
        skipping: usize,
    },
    LandLate {
        append: usize,
        skipping: usize,
    },
    /// The writer hears that its append stands.
    Confirm {
        writer: usize,
    },
    /// The writer hears an error, or nothing in time.
    TimeOut {
        writer: usize,
    },
    /// Finds that another one took over, and answers what waits.
    StandBy {
        writer: usize,
    },
    /// Memory is lost; what is on its way is not. It starts again.
    Crash {
        writer: usize,
    },
}

impl Shard {
    pub fn with_sightings(self) -> Shard {
        Shard {
            sightings: Some(Sightings::default()),
            ..self
        }
    }

    fn step(&self, world: &mut World, step: Step) -> Option<()> {
        match step {
            Step::Ask { command, writer } => {
                let slot = usize::from(command);
                for writer in &mut world.writers {
                    writer.forget(command);
                }
                let client = &mut world.clients[slot];
                client.attempts += 1;
                client.is_asking = true;
                client.was_idle = false;
                let open = Open {
                    command,
                    attempt: client.attempts,
                    is_started: false,
                };
                world.writers[writer].queue_mut().push(open);
                self.witness(world);
            }
            Step::Claim { writer } => {
                let truth = world.log.truth();
                let Writer::Idle { owned, queue } = &mut world.writers[writer] else {
                    return None;
                };
                if truth.is_stopped {
                    return None;
                }
                let settles_before = !self.rules.keep(Rule::OpenCommandsAreSettledAfterTheClaim);
                world.claims += 1;
                world.writers[writer] = Writer::Claiming {
                    owned: *owned,
                    epoch: truth.epoch + 1,
                    before: settles_before.then(|| Cache::of(truth)),
                    queue: std::mem::take(queue),
                };
            }
            Step::Serve { writer } => {
                let answers = world.writers[writer].serve(&self.commands, self.rules);
                answers
                    .into_iter()
                    .for_each(|(command, answer)| world.tell(command, answer));
            }
            Step::LeanOnAppend { writer } => {
                world.writers[writer].lean_on_append(&self.commands).then_some(())?;
            }
            Step::Land { writer, skipping } => {
                let at = world.log.end();
                let record = match &mut world.writers[writer] {
                    Writer::Idle { .. } => return None,
                    Writer::Claiming { epoch, .. } => Record::Claim { epoch: *epoch },
                    Writer::Serving { append, .. } => {
                        let append = append.as_mut()?;
                        append.stands.extend(std::iter::repeat_n(None, skipping));
                        append.stands.push(Some(at));
                        append.waiting.drain(..=skipping).next_back()?
                    }
                };
                world.log.push(record, self.rules);
                world.writers[writer].read_back(at, world.log.truth(), self.rules);
                self.witness(world);
            }
            Step::LandLate { append, skipping } => {
                let record = world.late[append].drain(..=skipping).next_back()?;
                world.log.push(record, self.rules);
                self.witness(world);
            }
            Step::Confirm { writer } => {
                let answers = world.writers[writer].confirm(self.rules)?;
                answers
                    .into_iter()
                    .for_each(|(command, answer)| world.tell(command, answer));
            }
            Step::TimeOut { writer } => {
                let late = world.writers[writer].give_up_append();
                world.late.push(late);
            }
            Step::StandBy { writer } => {
                let queue = std::mem::take(world.writers[writer].queue_mut());
                for open in queue {
                    if open.is_started && self.rules.keep(Rule::StandingByLeavesTheOutcomeOpen) {
                        world.clients[usize::from(open.command)].hang_up();
                    } else {
                        world.tell(open.command, Answer::NotAccepted);
                    }
                }
            }
            Step::Crash { writer } => {
                world.crashes += 1;
                let late = world.writers[writer].give_up_append();
                world.late.push(late);
                for open in world.writers[writer].queue_mut().drain(..) {
                    world.clients[usize::from(open.command)].hang_up();
                }
                world.writers[writer] = Writer::Idle {
                    owned: 0,
                    queue: vec![],
                };
            }
        }
        world.tidy();
        Some(())
    }

    /// After the log grew or somebody asked: is the truth such, now, that an open command would write nothing?
    fn witness(&self, world: &mut World) {
        let value = world.log.truth().value;
        for (client, command) in world.clients.iter_mut().zip(&self.commands) {
            if client.is_asking && !matches!(command.decide(value), Decision::Write { .. }) {
                client.was_idle = true;
            }
        }
    }
}

impl Client {
    /// The attempt ended without an answer.
    fn hang_up(&mut self) {
        self.is_asking = false;
        self.was_idle = false;
    }
}

impl World {
    fn tell(&mut self, command: CommandId, answer: Answer) {
        let client = &mut self.clients[usize::from(command)];
        let was_so = client.was_idle;
        match answer {
            Answer::Applied { at } => client.told = Some(Told::Applied { at }),
            Answer::Already => client.told = Some(Told::Already { was_so }),
            Answer::Refused => client.told = Some(Told::Refused { was_so }),
            Answer::NotAccepted => client.not_accepted |= 1 << client.attempts,
        }
        client.hang_up();
    }

    /// Worlds that differ only in names become one.
    fn tidy(&mut self) {
        self.late.retain(|append| !append.is_empty());
        self.late.sort_unstable();
        self.writers.sort_unstable();
    }
}

impl Model for Shard {
    type State = World;
    type Action = Step;

    /// A writer owns the shard in its first epoch; the others were just started.
    fn init_states(&self) -> Vec<World> {
        let mut log = Log::default();
        log.push(Record::Claim { epoch: 1 }, self.rules);
        let mut writers = vec![
            Writer::Idle {
                owned: 0,
                queue: vec![]
            };
            self.writers
        ];
        writers[0] = Writer::Serving {
            epoch: 1,
            claim: 0,
            next: 1,
            n: 0,
            cache: Cache::of(log.truth()),
            queue: vec![],
            append: None,
        };
        let mut world = World {
            log,
            writers,
            late: vec![],
            clients: vec![Client::default(); self.commands.len()],
            claims: 1,
            crashes: 0,
        };
        world.tidy();
        vec![world]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for (writer, at) in world.writers.iter().enumerate() {
            if world.writers[..writer].contains(at) {
                continue; // its twin does the same
            }
            match at {
                Writer::Idle { owned, queue } => {
                    if world.claims < self.claims_max {
                        steps.push(Step::Claim { writer });
                    }
                    let epoch = world.log.truth().epoch;
                    if *owned > 0 && epoch > *owned && !queue.is_empty() {
                        steps.push(Step::StandBy { writer });
                    }
                }
                Writer::Claiming { .. } => {
                    steps.push(Step::Land { writer, skipping: 0 });
                    steps.push(Step::TimeOut { writer });
                }
                Writer::Serving {
                    queue, append: None, ..
                } if !queue.is_empty() => steps.push(Step::Serve { writer }),
                Writer::Serving { append: None, .. } => {}
                Writer::Serving {
                    append: Some(append), ..
                } => {
                    for skipping in 0..append.waiting.len() {
                        steps.push(Step::Land { writer, skipping });
                    }
                    if at.is_confirmed() {
                        steps.push(Step::Confirm { writer });
                    }
                    steps.push(Step::TimeOut { writer });
                    if !self.rules.keep(Rule::ABarrierIsSentAfterTheQuestion) {
                        steps.push(Step::LeanOnAppend { writer });
                    }
                }
            }
            // Only who serves is asked: a question that waits for a take-over is one that is asked after it.
            if matches!(at, Writer::Serving { .. }) {
                for (command, client) in world.clients.iter().enumerate() {
                    if client.told.is_none() && client.attempts < self.attempts_max {
                        let command = command as CommandId;
                        steps.push(Step::Ask { command, writer });
                    }
                }
            }
            if world.crashes < self.crashes_max
                && *at
                    != (Writer::Idle {
                        owned: 0,
                        queue: vec![],
                    })
            {
                steps.push(Step::Crash { writer });
            }
        }
        for (append, records) in world.late.iter().enumerate() {
            if append > 0 && world.late[append - 1] == *records {
                continue;
            }
            for skipping in 0..records.len() {
                steps.push(Step::LandLate { append, skipping });
            }
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        self.step(&mut next, step)?;
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Shard>> {
        let mut all = promises::always();
        all.retain(|property| self.only.is_none_or(|only| only == property.name));
        if self.sightings.is_some() {
            all.extend(promises::sometimes());
        }
        all
    }
}

impl World {
    /// A step as a sentence; writers go by what they take themselves for.
    pub fn tell_of(&self, step: Step) -> String {
        let name = |writer: usize| self.writers[writer].name();
        match step {
            Step::Ask { command, writer } => format!("command {command} is asked of {}", name(writer)),
            Step::Claim { writer } => format!("{} reads to the end and sends a claim", name(writer)),
            Step::Serve { writer } => format!("{} decides what waits", name(writer)),
            Step::LeanOnAppend { writer } => format!("{} lets a no-op rest on its append", name(writer)),
            Step::Land { writer, skipping } => format!("a record of {} lands{}", name(writer), lost(skipping)),
            Step::LandLate { append, skipping } => {
                let record = self.late[append][skipping];
                format!("late, {record:?} lands{}", lost(skipping))
            }
            Step::Confirm { writer } => format!("{} hears that its append stands", name(writer)),
            Step::TimeOut { writer } => format!("{} hears nothing in time", name(writer)),
            Step::StandBy { writer } => format!("{} stands by", name(writer)),
            Step::Crash { writer } => format!("{} crashes", name(writer)),
        }
    }
}

fn lost(skipping: usize) -> String {
    match skipping {
        0 => String::new(),
        skipping => format!(", {skipping} before it never will"),
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (writers, attempts, claims) = (self.writers, self.attempts_max, self.claims_max);
        write!(
            f,
            "{writers} writers, {:?}, {attempts} attempts, {claims} claims",
            self.commands
        )?;
        write!(f, ", {} crashes", self.crashes_max)
    }
}
