//! A case: what a customer asked for, and what became of it (服務案件、客訴; Case, Incident, Ticket).

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::customer::{self, Customer};
use crate::interaction::Channel;
use crate::{
    Differing, History, Home, Id, Moment, Personal, Stream, StreamKind, StreamRef, UPSERT_REASON, same_beginning,
};

/// So long after it was resolved or closed a case is reopened; what comes later is another case.
pub const REOPEN_DAYS_MAX: i64 = 30;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Opened {
        customer: Id<Customer>,
        subject: Personal<String>,
        kind: Kind,
        priority: Priority,
        channel: Channel,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        about: Vec<Uuid>,
    },
    Classified {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_category: Option<String>,
        category: String,
        from_priority: Priority,
        priority: Priority,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// `agent` and `group` are who has it now; without an agent it waits in the group's queue.
    Assigned {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_agent: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_group: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
        from: Status,
    },
    Replied {
        author: Author,
        public: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<Personal<String>>,
        from: Status,
    },
    Pending {
        on: PendingOn,
        from: Status,
    },
    Resumed {
        from: Status,
    },
    Escalated {
        reason: String,
        /// Who had it when it was escalated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    Resolved {
        code: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<Personal<String>>,
        /// Who resolved it, as it was assigned.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
        from: Status,
        /// When it was resolved in the world.
        at: Timestamp,
    },
    Reopened {
        reason: String,
        from: Status,
        /// Since when it had been resolved or closed.
        ended_at: Timestamp,
    },
    Closed {
        /// The code it was resolved with.
        code: String,
        from: Status,
        /// When it was closed in the world.
        at: Timestamp,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Begin a case of a customer.
    Open {
        customer: Id<Customer>,
        subject: Personal<String>,
        kind: Kind,
        priority: Priority,
        channel: Channel,
        /// The equipment, purchases, other cases … that it is about.
        #[serde(default)]
        about: Vec<Uuid>,
    },
    /// Say what it is about, and how urgent it is. Another priority needs a reason.
    Classify {
        category: String,
        priority: Option<Priority>,
        reason: Option<String>,
    },
    /// Give it to an agent, a group, or an agent of a group. Another group without an agent takes it from the agent.
    Assign {
        agent: Option<String>,
        group: Option<String>,
    },
    /// Each reply counts, also the same one again. One that is not public is a note among colleagues.
    Reply {
        author: Author,
        public: bool,
        text: Option<Personal<String>>,
    },
    /// Nothing can be done until somebody else has answered.
    SetPending {
        on: PendingOn,
    },
    Resume,
    Escalate {
        reason: String,
    },
    Resolve {
        code: String,
        note: Option<Personal<String>>,
    },
    /// Up to 30 days after it was resolved or closed.
    Reopen {
        reason: String,
    },
    /// The last word on a resolved case: only `reopen` is accepted after it.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Question,
    Request,
    Incident,
    Complaint,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
    Urgent,
}

/// Who replied: a person, a program that talks, or the program by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Author {
    Agent,
    Bot,
    System,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PendingOn {
    Customer,
    ThirdParty,
}

impl PendingOn {
    fn status(self) -> Status {
        match self {
            PendingOn::Customer => Status::PendingCustomer,
            PendingOn::ThirdParty => Status::PendingThird,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("there is no such case; open it first")]
    NotOpened,
    #[error("this case already exists with different data: {0}")]
    AlreadyOpened(Differing),
    #[error("a case needs a subject")]
    SubjectMissing,
    #[error("a category is needed")]
    CategoryMissing,
    #[error("another priority needs a reason")]
    PriorityReasonMissing,
    #[error("a case is assigned to an agent, a group or both")]
    NobodyToAssign,
    #[error("a reason is needed")]
    ReasonMissing,
    #[error("a case is resolved with a code")]
    CodeMissing,
    #[error("this case waits for nobody; there is nothing to resume")]
    NotPending,
    #[error("this case is resolved; reopen it first")]
    Resolved,
    #[error("this case is already resolved with code {0:?}; reopen it first")]
    ResolvedOtherwise(String),
    #[error("this case is already resolved with another note; reopen it first")]
    ResolvedWithAnotherNote,
    #[error("this case has been {0} since {1}; that cannot be backdated")]
    OnlySince(&'static str, Timestamp),
    #[error("this case is not resolved; resolve it first")]
    NotResolved,
    #[error("this case is closed; reopen it first")]
    Closed,
    #[error("a case is reopened within {REOPEN_DAYS_MAX} days; open a new case and refer to this one")]
    TooLateToReopen,
    #[error(transparent)]
    Customer(#[from] customer::Unavailable),
}

/// A case and its history, which reads as its latest card.
pub type State = History<Card>;

/// A case as it stood at some time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Card {
    pub status: Status,
    pub customer: Option<Id<Customer>>,
    pub subject: Personal<String>,
    pub category: Option<String>,
    pub priority: Priority,
    pub agent: Option<String>,
    pub group: Option<String>,
    /// Why it was escalated, until somebody else has it.
    pub escalation: Option<String>,
    /// What it was resolved with.
    pub code: String,
    pub note: Option<Personal<String>>,
    /// When it was closed, or else resolved.
    pub ended_at: Option<Timestamp>,
    pub opened_at: Timestamp,
    /// Since when the customer has waited for the first reply by a person: the opening, or the last reopening before it.
    pub waiting_since: Timestamp,
    /// The first public reply by a person.
    pub first_response_at: Option<Timestamp>,
    pub first_resolved_at: Option<Timestamp>,
    /// When it was last resolved; none while it is open again.
    pub resolved_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    pub escalations: u32,
    pub reopens: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    #[default]
    NotOpened,
    New,
    Open,
    PendingCustomer,
    PendingThird,
    Resolved,
    Closed,
}

impl Status {
    pub fn has_ended(self) -> bool {
        match self {
            Status::Resolved | Status::Closed => true,
            Status::NotOpened | Status::New | Status::Open | Status::PendingCustomer | Status::PendingThird => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Status::NotOpened => "not open",
            Status::New => "new",
            Status::Open => "open",
            Status::PendingCustomer | Status::PendingThird => "pending",
            Status::Resolved => "resolved",
            Status::Closed => "closed",
        }
    }
}

impl Event {
    /// Whether the event opens or ends the case. Each such event is the cause of the next one.
    fn opens_or_ends(&self) -> bool {
        match self {
            Event::Opened { .. } | Event::Resolved { .. } | Event::Reopened { .. } | Event::Closed { .. } => true,
            Event::Classified { .. }
            | Event::Assigned { .. }
            | Event::Replied { .. }
            | Event::Pending { .. }
            | Event::Resumed { .. }
            | Event::Escalated { .. } => false,
        }
    }

    fn is_pending(&self) -> bool {
        matches!(self, Event::Pending { .. })
    }
}

impl crate::Card for Card {
    type Event = Event;

    fn is_cause(earlier: &Event, event: &Event) -> bool {
        match event {
            Event::Resumed { .. } => earlier.is_pending(),
            _ => event.opens_or_ends() && earlier.opens_or_ends(),
        }
    }

    /// A case that has ended waits for nobody and is not escalated, and nobody works on a closed one: what was entered
    /// earlier and is dated after the end changes nothing of that.
    fn after(mut self, event: &Event, at: Timestamp) -> Card {
        let is_closed = self.status == Status::Closed;
        match event {
            Event::Opened {
                customer,
                subject,
                priority,
                ..
            } => {
                self.status = Status::New;
                self.customer = Some(*customer);
                self.subject = subject.clone();
                self.priority = *priority;
                (self.opened_at, self.waiting_since) = (at, at);
            }
            Event::Classified { .. } | Event::Assigned { .. } if is_closed => {}
            Event::Classified {
                category,
                from_priority,
                priority,
                ..
            } => {
                self.category = Some(category.clone());
                if from_priority != priority {
                    self.priority = *priority;
                }
            }
            Event::Assigned { agent, group, .. } => {
                self.agent = agent.clone();
                self.group = group.clone();
                self.escalation = None;
                if self.status == Status::New {
                    self.status = Status::Open;
                }
            }
            Event::Replied { author, public, .. } => {
                if *author == Author::Agent && self.status == Status::New {
                    self.status = Status::Open;
                }
                if *author == Author::Agent && *public {
                    self.first_response_at = self.first_response_at.or(Some(at));
                }
            }
            Event::Pending { .. } | Event::Resumed { .. } if self.status.has_ended() => {}
            Event::Pending { on, .. } => self.status = on.status(),
            Event::Resumed { .. } => self.status = Status::Open,
            Event::Escalated { reason, .. } => {
                self.escalations += 1;
                if !self.status.has_ended() {
                    self.escalation = Some(reason.clone());
                }
            }
            Event::Resolved { code, note, .. } => {
                self.status = Status::Resolved;
                self.code = code.clone();
                self.note = note.clone();
                self.ended_at = Some(at);
                self.first_resolved_at = self.first_resolved_at.or(Some(at));
                self.resolved_at = Some(at);
            }
            Event::Reopened { .. } => {
                self.status = Status::Open;
                self.code.clear();
                self.note = None;
                self.ended_at = None;
                self.resolved_at = None;
                self.closed_at = None;
                self.escalation = None;
                self.reopens += 1;
                if self.first_response_at.is_none() {
                    self.waiting_since = at;
                }
            }
            Event::Closed { .. } => {
                self.status = Status::Closed;
                self.ended_at = Some(at);
                self.closed_at = Some(at);
            }
        }
        self
    }

    /// Of all the replies only the first one of a person changes anything.
    fn is_changed_by(&self, event: &Event) -> bool {
        match event {
            Event::Replied { author, public, .. } => {
                let is_first = self.status == Status::New || (*public && self.first_response_at.is_none());
                *author == Author::Agent && is_first
            }
            _ => true,
        }
    }

    fn remembered(event: &Event) -> Event {
        let mut event = event.clone();
        if let Event::Replied { text, .. } = &mut event {
            *text = None;
        }
        event
    }
}

#[derive(Debug)]
pub struct Case;

impl Stream for Case {
    const NAME: &'static str = "case";
    const KIND: StreamKind = StreamKind::Case;
    const BEGINS: &'static str = "open";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn home(command: &Command) -> Home {
        match command {
            Command::Open { customer, .. } => Home::With(customer.uuid()),
            _ => Home::Anywhere,
        }
    }

    fn companions(command: &Command) -> Vec<StreamRef> {
        match command {
            Command::Open { customer, .. } => customer::companion(*customer),
            _ => vec![],
        }
    }

    /// Each command is decided on the case as it stood at the command's own time, so that a late one is "already so" only
    /// if it was so then, and `from` is what was true just before.
    fn decide(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
        if let Command::Open { .. } = command {
            return open(state, command, at);
        }
        if state.status == Status::NotOpened {
            return Err(Rejection::NotOpened);
        }
        let time = match command {
            Command::Resolve { .. } | Command::Reopen { .. } | Command::Close => {
                state.not_before_cause(at.effective_at, Event::opens_or_ends)
            }
            Command::Resume => state.not_before_cause(at.effective_at, Event::is_pending),
            _ => state.not_before_beginning(at.effective_at),
        };
        let card = &*state.at(time);
        match (card.status, &command) {
            (Status::Closed, Command::Reopen { .. } | Command::Close) => {}
            (Status::Closed, _) => return Err(Rejection::Closed),
            (Status::Resolved, Command::SetPending { .. } | Command::Resume | Command::Escalate { .. }) => {
                return Err(Rejection::Resolved);
            }
            (Status::NotOpened | Status::Resolved, _) => {}
            (Status::New | Status::Open | Status::PendingCustomer | Status::PendingThird, _) => {}
        }
        let from = card.status;
        Ok(match command {
            Command::Open { .. } => unreachable!("decided above"),
            Command::Classify {
                category,
                priority,
                reason,
            } => classify(card, category, priority, reason)?,
            Command::Assign { agent, group } => assign(card, agent, group)?,
            Command::Reply { author, public, text } => vec![Event::Replied {
                author,
                public,
                text,
                from,
            }],
            Command::SetPending { on } if from == on.status() => vec![],
            Command::SetPending { on } => vec![Event::Pending { on, from }],
            Command::Resume => match from {
                Status::PendingCustomer | Status::PendingThird => vec![Event::Resumed { from }],
                Status::Open => vec![],
                Status::New => return Err(Rejection::NotPending),
                Status::NotOpened | Status::Resolved | Status::Closed => unreachable!("refused above"),
            },
            Command::Escalate { reason } if reason.trim().is_empty() => return Err(Rejection::ReasonMissing),
            Command::Escalate { reason } if card.escalation.as_ref() == Some(&reason) => vec![],
            Command::Escalate { reason } => vec![Event::Escalated {
                reason,
                agent: card.agent.clone(),
                group: card.group.clone(),
            }],
            Command::Resolve { code, .. } if code.trim().is_empty() => return Err(Rejection::CodeMissing),
            Command::Resolve { code, .. } if from == Status::Resolved && card.code != code => {
                return Err(Rejection::ResolvedOtherwise(card.code.clone()));
            }
            Command::Resolve { note: Some(note), .. }
                if from == Status::Resolved && card.note != Some(note.clone()) =>
            {
                return Err(Rejection::ResolvedWithAnotherNote);
            }
            Command::Resolve { .. } if from == Status::Resolved => {
                already_so(state, card, at)?;
                vec![]
            }
            Command::Resolve { code, note } => vec![Event::Resolved {
                code,
                note,
                agent: card.agent.clone(),
                group: card.group.clone(),
                from,
                at: time,
            }],
            Command::Reopen { reason } if reason.trim().is_empty() => return Err(Rejection::ReasonMissing),
            Command::Reopen { reason } => match card.ended_at {
                None => {
                    already_so(state, card, at)?;
                    vec![]
                }
                Some(ended_at) => {
                    let elapsed = time.duration_since(ended_at);
                    if elapsed > SignedDuration::from_hours(24 * REOPEN_DAYS_MAX) {
                        return Err(Rejection::TooLateToReopen);
                    }
                    vec![Event::Reopened { reason, from, ended_at }]
                }
            },
            Command::Close => match from {
                Status::Closed => {
                    already_so(state, card, at)?;
                    vec![]
                }
                Status::Resolved => vec![Event::Closed {
                    code: card.code.clone(),
                    from,
                    at: time,
                }],
                Status::New | Status::Open | Status::PendingCustomer | Status::PendingThird => {
                    return Err(Rejection::NotResolved);
                }
                Status::NotOpened => unreachable!("refused above"),
            },
        })
    }

    /// Another priority is a classification, which needs a category: of a case that has none yet the priority stays.
    fn upsert(state: &State, command: Command, at: &Moment<'_>) -> Vec<Command> {
        let (
            Command::Open {
                customer,
                subject,
                kind,
                priority,
                channel,
                about,
            },
            Some(Event::Opened {
                priority: first_priority,
                about: first_about,
                ..
            }),
        ) = (&command, state.begun())
        else {
            return vec![command];
        };
        let card = &*state.as_of(at.effective_at);
        let category = card.category.clone().filter(|_| *priority != card.priority);
        let stays = *priority == card.priority || category.is_some();
        let mut commands = vec![Command::Open {
            customer: *customer,
            subject: subject.clone(),
            kind: *kind,
            priority: if stays { *first_priority } else { *priority },
            channel: *channel,
            about: if about.is_empty() {
                first_about.clone()
            } else {
                about.clone()
            },
        }];
        commands.extend(category.map(|category| Command::Classify {
            category,
            priority: Some(*priority),
            reason: Some(UPSERT_REASON.to_owned()),
        }));
        commands
    }

    fn evolve(state: State, event: &Event, at: Timestamp) -> State {
        state.record(event, at)
    }

    fn customer(state: &State) -> Option<Uuid> {
        customer::routing(&state.customer)
    }
}

fn open(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    let Command::Open {
        customer,
        subject,
        kind,
        priority,
        channel,
        about,
    } = command
    else {
        unreachable!("only open opens");
    };
    let is_blank = subject.is_blank();
    let opened = Event::Opened {
        customer,
        subject,
        kind,
        priority,
        channel,
        about,
    };
    if state.status != Status::NotOpened {
        same_beginning(state.begun(), &opened, &[]).map_err(Rejection::AlreadyOpened)?;
        return Ok(vec![]);
    }
    if is_blank {
        return Err(Rejection::SubjectMissing);
    }
    customer::must_be_open(customer, at)?;
    Ok(vec![opened])
}

/// "Already so" holds at the command's own time, too: who says that it was so earlier is told since when it is.
fn already_so(state: &State, card: &Card, at: &Moment<'_>) -> Result<(), Rejection> {
    let was = state.at(at.effective_at).status;
    let was_so = was == card.status || (card.ended_at.is_none() && !was.has_ended() && was != Status::NotOpened);
    if was_so || at.effective_at == at.now {
        return Ok(());
    }
    let since = state.not_before_cause(Timestamp::MIN, Event::opens_or_ends);
    Err(Rejection::OnlySince(card.status.name(), since))
}

fn classify(
    card: &Card,
    category: String,
    priority: Option<Priority>,
    reason: Option<String>,
) -> Result<Vec<Event>, Rejection> {
    if category.trim().is_empty() {
        return Err(Rejection::CategoryMissing);
    }
    let priority = priority.unwrap_or(card.priority);
    let has_reason = reason.as_ref().is_some_and(|reason| !reason.trim().is_empty());
    if priority != card.priority && !has_reason {
        return Err(Rejection::PriorityReasonMissing);
    }
    if priority == card.priority && card.category.as_ref() == Some(&category) {
        return Ok(vec![]);
    }
    Ok(vec![Event::Classified {
        from_category: card.category.clone(),
        category,
        from_priority: card.priority,
        priority,
        reason,
    }])
}

fn assign(card: &Card, agent: Option<String>, group: Option<String>) -> Result<Vec<Event>, Rejection> {
    let is_blank = |name: &Option<String>| name.as_ref().is_some_and(|name| name.trim().is_empty());
    if is_blank(&agent) || is_blank(&group) || (agent.is_none() && group.is_none()) {
        return Err(Rejection::NobodyToAssign);
    }
    let stays_in_group = group.is_none() || group == card.group;
    let agent = match agent {
        None if stays_in_group => card.agent.clone(),
        agent => agent,
    };
    let group = group.or_else(|| card.group.clone());
    if agent == card.agent && group == card.group {
        return Ok(vec![]);
    }
    Ok(vec![Event::Assigned {
        from_agent: card.agent.clone(),
        from_group: card.group.clone(),
        agent,
        group,
        from: card.status,
    }])
}

#[cfg(test)]
mod specs;
