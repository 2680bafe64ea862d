//! A case: what a customer asked for, and what became of it (服務案件、客訴; Case, Incident, Ticket).

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::customer::{self, Customer};
use crate::interaction::Channel;
use crate::{Home, Id, Moment, Personal, Stream, StreamKind, StreamRef};

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
    #[error("this case is already open with other data")]
    AlreadyOpened,
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
    #[error("this case is not resolved; resolve it first")]
    NotResolved,
    #[error("this case is closed; reopen it first")]
    Closed,
    #[error("a case is reopened within {REOPEN_DAYS_MAX} days; open a new case and refer to this one")]
    TooLateToReopen,
    #[error(transparent)]
    Customer(#[from] customer::Unavailable),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
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
    /// When it was resolved, or else closed.
    pub ended_at: Option<Timestamp>,
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

impl Event {
    /// From which status to which, for the events that change it.
    pub fn transition(&self) -> Option<(Status, Status)> {
        let (from, to) = match self {
            Event::Opened { .. } => (Status::NotOpened, Status::New),
            Event::Assigned { from: Status::New, .. } => (Status::New, Status::Open),
            Event::Assigned { .. } => return None,
            Event::Replied { author, from, .. } => match (author, from) {
                (Author::Agent, Status::New) => (Status::New, Status::Open),
                (Author::Agent | Author::Bot | Author::System, _) => return None,
            },
            Event::Pending { on, from } => (*from, on.status()),
            Event::Resumed { from } => (*from, Status::Open),
            Event::Resolved { from, .. } => (*from, Status::Resolved),
            Event::Reopened { from, .. } => (*from, Status::Open),
            Event::Closed { from, .. } => (*from, Status::Closed),
            Event::Classified { .. } | Event::Escalated { .. } => return None,
        };
        Some((from, to))
    }
}

#[derive(Debug)]
pub struct Case;

impl Stream for Case {
    const NAME: &'static str = "case";
    const KIND: StreamKind = StreamKind::Case;
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

    fn decide(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
        match (state.status, &command) {
            (Status::NotOpened, Command::Open { .. }) => {}
            (Status::NotOpened, _) => return Err(Rejection::NotOpened),
            (_, Command::Open { .. }) => {}
            (Status::Closed, Command::Reopen { .. } | Command::Close) => {}
            (Status::Closed, _) => return Err(Rejection::Closed),
            (Status::Resolved, Command::SetPending { .. } | Command::Resume | Command::Escalate { .. }) => {
                return Err(Rejection::Resolved);
            }
            (Status::Resolved, _) => {}
            (Status::New | Status::Open | Status::PendingCustomer | Status::PendingThird, _) => {}
        }
        let from = state.status;
        Ok(match command {
            Command::Open { .. } => open(state, command, at)?,
            Command::Classify {
                category,
                priority,
                reason,
            } => classify(state, category, priority, reason)?,
            Command::Assign { agent, group } => assign(state, agent, group)?,
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
            Command::Escalate { reason } if state.escalation.as_ref() == Some(&reason) => vec![],
            Command::Escalate { reason } => vec![Event::Escalated {
                reason,
                agent: state.agent.clone(),
                group: state.group.clone(),
            }],
            Command::Resolve { code, .. } if code.trim().is_empty() => return Err(Rejection::CodeMissing),
            Command::Resolve { code, .. } if from == Status::Resolved => {
                if state.code == code {
                    vec![]
                } else {
                    return Err(Rejection::ResolvedOtherwise(state.code.clone()));
                }
            }
            Command::Resolve { code, note } => vec![Event::Resolved {
                code,
                note,
                agent: state.agent.clone(),
                group: state.group.clone(),
                from,
                at: at.effective_at,
            }],
            Command::Reopen { reason } if reason.trim().is_empty() => return Err(Rejection::ReasonMissing),
            Command::Reopen { reason } => match state.ended_at {
                None => vec![],
                Some(ended_at) => {
                    let elapsed = at.effective_at.duration_since(ended_at);
                    if elapsed > SignedDuration::from_hours(24 * REOPEN_DAYS_MAX) {
                        return Err(Rejection::TooLateToReopen);
                    }
                    vec![Event::Reopened { reason, from, ended_at }]
                }
            },
            Command::Close => match from {
                Status::Closed => vec![],
                Status::Resolved => vec![Event::Closed {
                    code: state.code.clone(),
                    from,
                    at: at.effective_at,
                }],
                Status::New | Status::Open | Status::PendingCustomer | Status::PendingThird => {
                    return Err(Rejection::NotResolved);
                }
                Status::NotOpened => unreachable!("refused above"),
            },
        })
    }

    fn evolve(mut state: State, event: &Event, _: Timestamp) -> State {
        if let Some((_, to)) = event.transition() {
            state.status = to;
        }
        match event {
            Event::Opened {
                customer,
                subject,
                priority,
                ..
            } => {
                state.customer = Some(*customer);
                state.subject = subject.clone();
                state.priority = *priority;
            }
            Event::Classified { category, priority, .. } => {
                state.category = Some(category.clone());
                state.priority = *priority;
            }
            Event::Assigned { agent, group, .. } => {
                state.agent = agent.clone();
                state.group = group.clone();
                state.escalation = None;
            }
            Event::Escalated { reason, .. } => state.escalation = Some(reason.clone()),
            Event::Resolved { code, at, .. } => {
                state.code = code.clone();
                state.ended_at = Some(*at);
            }
            Event::Reopened { .. } => {
                state.code.clear();
                state.ended_at = None;
                state.escalation = None;
            }
            Event::Closed { at, .. } => state.ended_at = Some(*at),
            Event::Replied { .. } | Event::Pending { .. } | Event::Resumed { .. } => {}
        }
        state
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
    if state.status != Status::NotOpened {
        let same = state.customer == Some(customer) && state.subject == subject;
        return if same {
            Ok(vec![])
        } else {
            Err(Rejection::AlreadyOpened)
        };
    }
    if subject.is_blank() {
        return Err(Rejection::SubjectMissing);
    }
    customer::must_be_open(customer, at)?;
    Ok(vec![Event::Opened {
        customer,
        subject,
        kind,
        priority,
        channel,
        about,
    }])
}

fn classify(
    state: &State,
    category: String,
    priority: Option<Priority>,
    reason: Option<String>,
) -> Result<Vec<Event>, Rejection> {
    if category.trim().is_empty() {
        return Err(Rejection::CategoryMissing);
    }
    let priority = priority.unwrap_or(state.priority);
    let has_reason = reason.as_ref().is_some_and(|reason| !reason.trim().is_empty());
    if priority != state.priority && !has_reason {
        return Err(Rejection::PriorityReasonMissing);
    }
    if priority == state.priority && state.category.as_ref() == Some(&category) {
        return Ok(vec![]);
    }
    Ok(vec![Event::Classified {
        from_category: state.category.clone(),
        category,
        from_priority: state.priority,
        priority,
        reason,
    }])
}

fn assign(state: &State, agent: Option<String>, group: Option<String>) -> Result<Vec<Event>, Rejection> {
    let is_blank = |name: &Option<String>| name.as_ref().is_some_and(|name| name.trim().is_empty());
    if is_blank(&agent) || is_blank(&group) || (agent.is_none() && group.is_none()) {
        return Err(Rejection::NobodyToAssign);
    }
    let stays_in_group = group.is_none() || group == state.group;
    let agent = match agent {
        None if stays_in_group => state.agent.clone(),
        agent => agent,
    };
    let group = group.or_else(|| state.group.clone());
    if agent == state.agent && group == state.group {
        return Ok(vec![]);
    }
    Ok(vec![Event::Assigned {
        from_agent: state.agent.clone(),
        from_group: state.group.clone(),
        agent,
        group,
        from: state.status,
    }])
}

#[cfg(test)]
mod specs {
    use super::*;
    use crate::spec::{folded, given, moment, neighbour};

    const RESOLVED_AT: &str = "2026-03-02T09:00:00+08:00";

    fn open() -> Command {
        Command::Open {
            customer: neighbour("a"),
            subject: "主軸異音".into(),
            kind: Kind::Incident,
            priority: Priority::Normal,
            channel: Channel::Phone,
            about: vec![],
        }
    }

    fn opened() -> Event {
        Event::Opened {
            customer: neighbour("a"),
            subject: "主軸異音".into(),
            kind: Kind::Incident,
            priority: Priority::Normal,
            channel: Channel::Phone,
            about: vec![],
        }
    }

    fn assigned() -> Event {
        Event::Assigned {
            from_agent: None,
            from_group: None,
            agent: Some("mei".into()),
            group: Some("hotline".into()),
            from: Status::New,
        }
    }

    fn pending() -> Event {
        Event::Pending {
            on: PendingOn::Customer,
            from: Status::New,
        }
    }

    fn resolve(code: &str) -> Command {
        Command::Resolve {
            code: code.into(),
            note: None,
        }
    }

    fn resolved() -> Event {
        Event::Resolved {
            code: "repaired".into(),
            note: None,
            agent: None,
            group: None,
            from: Status::New,
            at: moment(RESOLVED_AT),
        }
    }

    fn closed() -> Event {
        Event::Closed {
            code: "repaired".into(),
            from: Status::Resolved,
            at: moment("2026-03-12T09:00:00+08:00"),
        }
    }

    fn reopen() -> Command {
        Command::Reopen {
            reason: "noise is back".into(),
        }
    }

    fn reply(author: Author) -> Command {
        Command::Reply {
            author,
            public: true,
            text: Some("已收到".into()),
        }
    }

    fn replied(author: Author) -> Event {
        Event::Replied {
            author,
            public: true,
            text: Some("已收到".into()),
            from: Status::New,
        }
    }

    fn active() -> customer::State {
        customer::Card {
            status: customer::Status::Active,
            ..Default::default()
        }
        .into()
    }

    fn status_after(events: &[Event]) -> Status {
        folded::<Case>(events).status
    }

    #[test]
    fn a_case_is_opened_for_a_customer_that_exists_and_is_open() {
        let customer = neighbour::<Customer>("a");
        given::<Case>([]).with(customer, active()).when(open()).then([opened()]);
        given::<Case>([])
            .when(open())
            .then_rejected(customer::Unavailable::NotRegistered(customer).into());
    }

    #[test]
    fn nothing_happens_to_a_case_that_nobody_opened() {
        given::<Case>([])
            .when(Command::Close)
            .then_rejected(Rejection::NotOpened);
    }

    #[test]
    fn a_new_case_is_open_once_an_agent_has_it_or_replies() {
        assert_eq!(status_after(&[opened()]), Status::New);
        assert_eq!(status_after(&[opened(), assigned()]), Status::Open);
        assert_eq!(status_after(&[opened(), replied(Author::Agent)]), Status::Open);
        assert_eq!(status_after(&[opened(), replied(Author::Bot)]), Status::New);
        assert_eq!(status_after(&[opened(), replied(Author::System)]), Status::New);
    }

    #[test]
    fn every_reply_counts() {
        let event = replied(Author::Bot);
        given::<Case>([opened()]).when(reply(Author::Bot)).then([event.clone()]);
        given::<Case>([opened(), event.clone()])
            .when(reply(Author::Bot))
            .then([event]);
    }

    #[test]
    fn another_priority_needs_a_reason() {
        let classify = |reason: Option<&str>| Command::Classify {
            category: "spindle".into(),
            priority: Some(Priority::Urgent),
            reason: reason.map(str::to_owned),
        };
        given::<Case>([opened()])
            .when(classify(None))
            .then_rejected(Rejection::PriorityReasonMissing);
        given::<Case>([opened()])
            .when(classify(Some("line is down")))
            .then([Event::Classified {
                from_category: None,
                category: "spindle".into(),
                from_priority: Priority::Normal,
                priority: Priority::Urgent,
                reason: Some("line is down".into()),
            }]);
    }

    #[test]
    fn a_case_is_assigned_to_somebody() {
        given::<Case>([opened()])
            .when(Command::Assign {
                agent: None,
                group: None,
            })
            .then_rejected(Rejection::NobodyToAssign);
    }

    #[test]
    fn a_case_handed_to_another_group_waits_for_an_agent_there() {
        given::<Case>([opened(), assigned()])
            .when(Command::Assign {
                agent: None,
                group: Some("workshop".into()),
            })
            .then([Event::Assigned {
                from_agent: Some("mei".into()),
                from_group: Some("hotline".into()),
                agent: None,
                group: Some("workshop".into()),
                from: Status::Open,
            }]);
    }

    #[test]
    fn another_agent_of_the_same_group_takes_over() {
        given::<Case>([opened(), assigned()])
            .when(Command::Assign {
                agent: Some("jun".into()),
                group: None,
            })
            .then([Event::Assigned {
                from_agent: Some("mei".into()),
                from_group: Some("hotline".into()),
                agent: Some("jun".into()),
                group: Some("hotline".into()),
                from: Status::Open,
            }]);
    }

    #[test]
    fn a_pending_case_tells_whom_it_waits_for_and_is_open_again_when_resumed() {
        given::<Case>([opened(), pending()])
            .when(Command::SetPending {
                on: PendingOn::ThirdParty,
            })
            .then([Event::Pending {
                on: PendingOn::ThirdParty,
                from: Status::PendingCustomer,
            }]);
        let resumed = Event::Resumed {
            from: Status::PendingCustomer,
        };
        given::<Case>([opened(), pending()])
            .when(Command::Resume)
            .then([resumed.clone()]);
        assert_eq!(status_after(&[opened(), pending(), resumed]), Status::Open);
        given::<Case>([opened()])
            .when(Command::Resume)
            .then_rejected(Rejection::NotPending);
    }

    #[test]
    fn a_case_is_resolved_with_one_code() {
        given::<Case>([opened()])
            .when(resolve(" "))
            .then_rejected(Rejection::CodeMissing);
        given::<Case>([opened()])
            .effective(RESOLVED_AT)
            .when(resolve("repaired"))
            .then([resolved()]);
        given::<Case>([opened(), resolved()])
            .when(resolve("no fault found"))
            .then_rejected(Rejection::ResolvedOtherwise("repaired".into()));
    }

    #[test]
    fn only_a_resolved_case_is_closed() {
        for before in [vec![opened()], vec![opened(), assigned()], vec![opened(), pending()]] {
            given::<Case>(before)
                .when(Command::Close)
                .then_rejected(Rejection::NotResolved);
        }
        given::<Case>([opened(), resolved()])
            .effective("2026-03-12T09:00:00+08:00")
            .when(Command::Close)
            .then([closed()]);
    }

    #[test]
    fn a_resolved_case_does_not_wait_or_escalate() {
        let escalate = Command::Escalate {
            reason: "no answer".into(),
        };
        let wait = Command::SetPending {
            on: PendingOn::Customer,
        };
        for command in [escalate, wait, Command::Resume] {
            given::<Case>([opened(), resolved()])
                .when(command)
                .then_rejected(Rejection::Resolved);
        }
    }

    #[test]
    fn a_closed_case_accepts_only_reopen() {
        let after = || given::<Case>([opened(), resolved(), closed()]);
        after().when(reply(Author::Agent)).then_rejected(Rejection::Closed);
        after().when(resolve("repaired")).then_rejected(Rejection::Closed);
        after()
            .at("2026-03-20T09:00:00+08:00")
            .when(reopen())
            .then([Event::Reopened {
                reason: "noise is back".into(),
                from: Status::Closed,
                ended_at: moment("2026-03-12T09:00:00+08:00"),
            }]);
    }

    #[test]
    fn a_case_is_reopened_within_thirty_days() {
        let resolved_case = || given::<Case>([opened(), resolved()]);
        resolved_case()
            .effective("2026-04-01T09:00:00+08:00")
            .when(reopen())
            .then([Event::Reopened {
                reason: "noise is back".into(),
                from: Status::Resolved,
                ended_at: moment(RESOLVED_AT),
            }]);
        resolved_case()
            .effective("2026-04-01T09:00:01+08:00")
            .when(reopen())
            .then_rejected(Rejection::TooLateToReopen);
        // The days count from the closing, when there was one.
        given::<Case>([opened(), resolved(), closed()])
            .effective("2026-04-11T09:00:00+08:00")
            .when(reopen())
            .then([Event::Reopened {
                reason: "noise is back".into(),
                from: Status::Closed,
                ended_at: moment("2026-03-12T09:00:00+08:00"),
            }]);
    }

    #[test]
    fn an_escalation_counts_again_once_somebody_else_had_it() {
        let escalate = Command::Escalate {
            reason: "no answer".into(),
        };
        let escalated = |agent: Option<&str>, group: Option<&str>| Event::Escalated {
            reason: "no answer".into(),
            agent: agent.map(str::to_owned),
            group: group.map(str::to_owned),
        };
        given::<Case>([opened(), escalated(None, None)])
            .when(escalate.clone())
            .then_nothing();
        given::<Case>([opened(), escalated(None, None), assigned()])
            .when(escalate)
            .then([escalated(Some("mei"), Some("hotline"))]);
    }

    #[test]
    fn the_same_intent_twice_gives_nothing_the_second_time() {
        given::<Case>([])
            .with(neighbour::<Customer>("a"), active())
            .same_intent_twice(open());
        let intents = [
            Command::Classify {
                category: "spindle".into(),
                priority: Some(Priority::High),
                reason: Some("line is down".into()),
            },
            Command::Assign {
                agent: Some("mei".into()),
                group: None,
            },
            Command::Assign {
                agent: None,
                group: Some("hotline".into()),
            },
            Command::SetPending {
                on: PendingOn::ThirdParty,
            },
            Command::Escalate {
                reason: "no answer".into(),
            },
            resolve("repaired"),
        ];
        for intent in intents {
            given::<Case>([opened()]).same_intent_twice(intent);
        }
        given::<Case>([opened(), pending()]).same_intent_twice(Command::Resume);
        given::<Case>([opened(), resolved()]).same_intent_twice(Command::Close);
        given::<Case>([opened(), resolved()]).same_intent_twice(reopen());
    }
}
