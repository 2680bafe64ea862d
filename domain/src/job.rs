//! Work at a customer, from the call to the signature (工單; WorkOrder).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::customer::{self, Customer};
use crate::equipment::{self, Equipment};
use crate::{
    Differing, Home, Id, Moment, Personal, Stream, StreamKind, StreamRef, at_the_door, in_sequence, same_beginning,
};

/// More than two months round the clock is a typing error.
pub const LABOUR_MINUTES_MAX: u32 = 100_000;
/// More parts than this are a delivery, not a repair.
pub const PARTS_MAX: usize = 1_000;

/// Every event says which status the job left, and names the equipment if there is one: its history tells them all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Created {
        customer: Id<Customer>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        equipment: Option<Id<Equipment>>,
        /// What it came from: `case/<id>`, `inspection/<id>`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<String>,
        summary: Personal<String>,
    },
    Scheduled {
        from: Status,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        equipment: Option<Id<Equipment>>,
        start: Timestamp,
        end: Timestamp,
        technician: String,
        /// The appointment it had until now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<Appointment>,
    },
    Dispatched {
        from: Status,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        equipment: Option<Id<Equipment>>,
        technician: String,
    },
    /// Work began, or went on after it was on hold.
    Started {
        from: Status,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        equipment: Option<Id<Equipment>>,
        technician: String,
    },
    Held {
        from: Status,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        equipment: Option<Id<Equipment>>,
        reason: String,
    },
    Completed {
        from: Status,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        equipment: Option<Id<Equipment>>,
        technician: String,
        resolution: Personal<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        parts: Vec<Part>,
        labour_minutes: u32,
    },
    SignedOff {
        from: Status,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        equipment: Option<Id<Equipment>>,
        by: Personal<String>,
    },
    Closed {
        from: Status,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        equipment: Option<Id<Equipment>>,
    },
    Cancelled {
        from: Status,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        equipment: Option<Id<Equipment>>,
        reason: String,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Begin a job for a customer, on one of their machines if it is about one.
    Create {
        customer: Id<Customer>,
        equipment: Option<Id<Equipment>>,
        /// What it came from: `case/<id>`, `inspection/<id>`.
        origin: Option<String>,
        summary: Personal<String>,
    },
    /// Agree on a time, for the first time or again.
    Schedule {
        #[serde(deserialize_with = "at_the_door::time")]
        #[schemars(schema_with = "at_the_door::time_schema")]
        start: Timestamp,
        #[serde(deserialize_with = "at_the_door::time")]
        #[schemars(schema_with = "at_the_door::time_schema")]
        end: Timestamp,
        technician: String,
    },
    /// The technician is on the way.
    Dispatch,
    /// Begin the work, or go on after it was on hold.
    Start,
    Hold {
        reason: String,
    },
    Complete {
        resolution: Personal<String>,
        #[serde(default)]
        parts: Vec<Part>,
        #[schemars(range(max = 100_000))]
        labour_minutes: u32,
    },
    /// The customer's signature, and whose it is.
    SignOff {
        by: Personal<String>,
    },
    Close,
    Cancel {
        reason: String,
    },
}

/// A part that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub sku: String,
    #[schemars(range(min = 1))]
    pub quantity: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("there is no such job; create it first")]
    NotCreated,
    #[error("this job is already created with other data: {0}")]
    AlreadyCreated(Differing),
    #[error("the {0} is empty")]
    Empty(&'static str),
    #[error("a reason is needed")]
    ReasonMissing,
    #[error("a job ends after it starts")]
    EndsBeforeStart,
    #[error("this job has no appointment; schedule it first")]
    NotScheduled,
    #[error("start the job first")]
    NotStarted,
    #[error("work on this job is in progress; hold it first")]
    InProgress,
    #[error("complete the job first")]
    NotCompleted,
    #[error("the customer signs the job off before it is closed")]
    NotSignedOff,
    #[error("job is already completed")]
    AlreadyCompleted,
    #[error("job is already signed off by somebody else")]
    AlreadySignedOff,
    #[error("job is already closed")]
    AlreadyClosed,
    #[error("job is cancelled")]
    Cancelled,
    #[error("job is already cancelled, because: {0}")]
    CancelledOtherwise(String),
    #[error("the status of this job has not changed since {0}; it cannot be backdated")]
    OnlySince(Timestamp),
    #[error("a job takes at most {LABOUR_MINUTES_MAX} minutes of labour, not {0}")]
    TooMuchLabour(u32),
    #[error("a job uses at most {PARTS_MAX} kinds of parts, not {0}")]
    TooManyParts(usize),
    #[error("part {0}: the sku is empty")]
    SkuMissing(usize),
    #[error("part {0}: the quantity is at least 1")]
    QuantityMissing(usize),
    #[error(transparent)]
    Customer(#[from] customer::Unavailable),
    #[error(transparent)]
    Equipment(#[from] equipment::Unavailable),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    pub status: Status,
    pub customer: Option<Id<Customer>>,
    pub equipment: Option<Id<Equipment>>,
    pub origin: Option<String>,
    pub summary: Personal<String>,
    pub appointment: Option<Appointment>,
    /// Set while it is on hold.
    pub hold_reason: Option<String>,
    pub work: Option<Work>,
    pub signed_off_by: Option<Personal<String>>,
    /// Set once it is cancelled.
    pub cancel_reason: Option<String>,
    /// Since when it has its status.
    pub changed_at: Timestamp,
    /// What it was created with.
    pub begun: Option<Event>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    #[default]
    NotCreated,
    New,
    Scheduled,
    Dispatched,
    InProgress,
    OnHold,
    Completed,
    SignedOff,
    Closed,
    Cancelled,
}

/// Who comes, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Appointment {
    pub start: Timestamp,
    pub end: Timestamp,
    pub technician: String,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Work {
    pub resolution: Personal<String>,
    pub parts: Vec<Part>,
    pub labour_minutes: u32,
}

#[derive(Debug)]
pub struct Job;

impl Stream for Job {
    const NAME: &'static str = "job";
    const KIND: StreamKind = StreamKind::Job;
    const BEGINS: &'static str = "create";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn home(command: &Command) -> Home {
        match command {
            Command::Create {
                equipment: Some(equipment),
                ..
            } => Home::With(equipment.uuid()),
            Command::Create {
                equipment: None,
                customer,
                ..
            } => Home::With(customer.uuid()),
            Command::Schedule { .. }
            | Command::Dispatch
            | Command::Start
            | Command::Hold { .. }
            | Command::Complete { .. }
            | Command::SignOff { .. }
            | Command::Close
            | Command::Cancel { .. } => Home::Anywhere,
        }
    }

    fn companions(command: &Command) -> Vec<StreamRef> {
        match command {
            Command::Create {
                customer, equipment, ..
            } => {
                let mut companions = customer::companion(*customer);
                companions.extend(equipment.map(StreamRef::of));
                companions
            }
            Command::Schedule { .. }
            | Command::Dispatch
            | Command::Start
            | Command::Hold { .. }
            | Command::Complete { .. }
            | Command::SignOff { .. }
            | Command::Close
            | Command::Cancel { .. } => vec![],
        }
    }

    fn decide(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Create {
                customer,
                equipment,
                origin,
                summary,
            } => create(state, customer, equipment, origin, summary, at),
            Command::Schedule { start, end, technician } => {
                let appointment = Appointment { start, end, technician };
                schedule(state, appointment, at)
            }
            Command::Dispatch => dispatch(state, at),
            Command::Start => start(state, at),
            Command::Hold { reason } => hold(state, reason, at),
            Command::Complete {
                resolution,
                parts,
                labour_minutes,
            } => {
                let work = Work {
                    resolution,
                    parts,
                    labour_minutes,
                };
                complete(state, work, at)
            }
            Command::SignOff { by } => sign_off(state, by, at),
            Command::Close => close(state, at),
            Command::Cancel { reason } => cancel(state, reason, at),
        }
    }

    /// No command changes what it was created with.
    fn upsert(state: &State, command: Command, _: &Moment<'_>) -> Vec<Command> {
        match command {
            Command::Create {
                customer,
                equipment,
                origin,
                summary,
            } => vec![Command::Create {
                customer,
                equipment: equipment.or(state.equipment),
                origin: origin.or_else(|| state.origin.clone()),
                summary,
            }],
            other => vec![other],
        }
    }

    fn evolve(mut state: State, event: &Event, at: Timestamp) -> State {
        state.changed_at = match state.status {
            Status::NotCreated => at,
            _ => in_sequence(state.changed_at, at),
        };
        match event {
            Event::Created {
                customer,
                equipment,
                origin,
                summary,
            } => {
                state.status = Status::New;
                state.customer = Some(*customer);
                state.equipment = *equipment;
                state.origin = origin.clone();
                state.summary = summary.clone();
                state.begun = Some(event.clone());
            }
            Event::Scheduled {
                start, end, technician, ..
            } => {
                state.status = Status::Scheduled;
                state.hold_reason = None;
                state.appointment = Some(Appointment {
                    start: *start,
                    end: *end,
                    technician: technician.clone(),
                });
            }
            Event::Dispatched { .. } => state.status = Status::Dispatched,
            Event::Started { .. } => {
                state.status = Status::InProgress;
                state.hold_reason = None;
            }
            Event::Held { reason, .. } => {
                state.status = Status::OnHold;
                state.hold_reason = Some(reason.clone());
            }
            Event::Completed {
                resolution,
                parts,
                labour_minutes,
                ..
            } => {
                state.status = Status::Completed;
                state.work = Some(Work {
                    resolution: resolution.clone(),
                    parts: parts.clone(),
                    labour_minutes: *labour_minutes,
                });
            }
            Event::SignedOff { by, .. } => {
                state.status = Status::SignedOff;
                state.signed_off_by = Some(by.clone());
            }
            Event::Closed { .. } => state.status = Status::Closed,
            Event::Cancelled { reason, .. } => {
                state.status = Status::Cancelled;
                state.hold_reason = None;
                state.cancel_reason = Some(reason.clone());
            }
        }
        state
    }

    fn customer(state: &State) -> Option<Uuid> {
        customer::routing(&state.customer)
    }
}

fn create(
    state: &State,
    customer: Id<Customer>,
    equipment: Option<Id<Equipment>>,
    origin: Option<String>,
    summary: Personal<String>,
    at: &Moment<'_>,
) -> Result<Vec<Event>, Rejection> {
    if summary.is_blank() {
        return Err(Rejection::Empty("summary"));
    }
    if origin.as_ref().is_some_and(|origin| origin.trim().is_empty()) {
        return Err(Rejection::Empty("origin"));
    }
    let created = Event::Created {
        customer,
        equipment,
        origin,
        summary,
    };
    if state.status != Status::NotCreated {
        same_beginning(state.begun.as_ref(), &created, &[]).map_err(Rejection::AlreadyCreated)?;
        return Ok(vec![]);
    }
    customer::must_be_open(customer, at)?;
    if let Some(equipment) = equipment {
        equipment::must_be_in_service(equipment, at)?;
    }
    Ok(vec![created])
}

/// "Already so" holds at the command's own time, too: who says that it was so earlier is told since when it is.
fn already_so(state: &State, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    if at.effective_at == at.now || at.effective_at >= state.changed_at {
        return Ok(vec![]);
    }
    Err(Rejection::OnlySince(state.changed_at))
}

fn schedule(state: &State, appointment: Appointment, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    if appointment.technician.trim().is_empty() {
        return Err(Rejection::Empty("technician"));
    }
    if appointment.end <= appointment.start {
        return Err(Rejection::EndsBeforeStart);
    }
    let is_agreed = state.appointment.as_ref() == Some(&appointment);
    match state.status {
        Status::Scheduled if is_agreed => already_so(state, at),
        Status::Dispatched if is_agreed => Ok(vec![]),
        Status::New | Status::Scheduled | Status::Dispatched | Status::OnHold => Ok(vec![Event::Scheduled {
            from: state.status,
            equipment: state.equipment,
            start: appointment.start,
            end: appointment.end,
            technician: appointment.technician,
            replaces: state.appointment.clone(),
        }]),
        Status::InProgress => Err(Rejection::InProgress),
        Status::Completed | Status::SignedOff => Err(Rejection::AlreadyCompleted),
        Status::Closed => Err(Rejection::AlreadyClosed),
        Status::Cancelled => Err(Rejection::Cancelled),
        Status::NotCreated => Err(Rejection::NotCreated),
    }
}

fn dispatch(state: &State, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    match state.status {
        Status::Scheduled => Ok(vec![Event::Dispatched {
            from: state.status,
            equipment: state.equipment,
            technician: technician(state)?,
        }]),
        Status::Dispatched => already_so(state, at),
        Status::New | Status::OnHold => Err(Rejection::NotScheduled),
        Status::InProgress => Err(Rejection::InProgress),
        Status::Completed | Status::SignedOff => Err(Rejection::AlreadyCompleted),
        Status::Closed => Err(Rejection::AlreadyClosed),
        Status::Cancelled => Err(Rejection::Cancelled),
        Status::NotCreated => Err(Rejection::NotCreated),
    }
}

fn start(state: &State, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    match state.status {
        Status::Scheduled | Status::Dispatched | Status::OnHold => Ok(vec![Event::Started {
            from: state.status,
            equipment: state.equipment,
            technician: technician(state)?,
        }]),
        Status::InProgress => already_so(state, at),
        Status::New => Err(Rejection::NotScheduled),
        Status::Completed | Status::SignedOff => Err(Rejection::AlreadyCompleted),
        Status::Closed => Err(Rejection::AlreadyClosed),
        Status::Cancelled => Err(Rejection::Cancelled),
        Status::NotCreated => Err(Rejection::NotCreated),
    }
}

fn hold(state: &State, reason: String, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    if reason.trim().is_empty() {
        return Err(Rejection::ReasonMissing);
    }
    match state.status {
        Status::OnHold if state.hold_reason.as_ref() == Some(&reason) => already_so(state, at),
        Status::New | Status::Scheduled | Status::Dispatched | Status::InProgress | Status::OnHold => {
            Ok(vec![Event::Held {
                from: state.status,
                equipment: state.equipment,
                reason,
            }])
        }
        Status::Completed | Status::SignedOff => Err(Rejection::AlreadyCompleted),
        Status::Closed => Err(Rejection::AlreadyClosed),
        Status::Cancelled => Err(Rejection::Cancelled),
        Status::NotCreated => Err(Rejection::NotCreated),
    }
}

fn complete(state: &State, work: Work, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    check_work(&work)?;
    match state.status {
        Status::InProgress => Ok(vec![Event::Completed {
            from: state.status,
            equipment: state.equipment,
            technician: technician(state)?,
            resolution: work.resolution,
            parts: work.parts,
            labour_minutes: work.labour_minutes,
        }]),
        Status::Completed if state.work.as_ref() == Some(&work) => already_so(state, at),
        Status::SignedOff | Status::Closed if state.work.as_ref() == Some(&work) => Ok(vec![]),
        Status::Completed | Status::SignedOff | Status::Closed => Err(Rejection::AlreadyCompleted),
        Status::New | Status::Scheduled | Status::Dispatched | Status::OnHold => Err(Rejection::NotStarted),
        Status::Cancelled => Err(Rejection::Cancelled),
        Status::NotCreated => Err(Rejection::NotCreated),
    }
}

fn sign_off(state: &State, by: Personal<String>, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    if by.is_blank() {
        return Err(Rejection::Empty("name of who signs off"));
    }
    match state.status {
        Status::Completed => Ok(vec![Event::SignedOff {
            from: state.status,
            equipment: state.equipment,
            by,
        }]),
        Status::SignedOff if state.signed_off_by.as_ref() == Some(&by) => already_so(state, at),
        Status::Closed if state.signed_off_by.as_ref() == Some(&by) => Ok(vec![]),
        Status::SignedOff | Status::Closed => Err(Rejection::AlreadySignedOff),
        Status::New | Status::Scheduled | Status::Dispatched | Status::InProgress | Status::OnHold => {
            Err(Rejection::NotCompleted)
        }
        Status::Cancelled => Err(Rejection::Cancelled),
        Status::NotCreated => Err(Rejection::NotCreated),
    }
}

fn close(state: &State, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    match state.status {
        Status::SignedOff => Ok(vec![Event::Closed {
            from: state.status,
            equipment: state.equipment,
        }]),
        Status::Closed => already_so(state, at),
        Status::Completed => Err(Rejection::NotSignedOff),
        Status::New | Status::Scheduled | Status::Dispatched | Status::InProgress | Status::OnHold => {
            Err(Rejection::NotCompleted)
        }
        Status::Cancelled => Err(Rejection::Cancelled),
        Status::NotCreated => Err(Rejection::NotCreated),
    }
}

fn cancel(state: &State, reason: String, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    if reason.trim().is_empty() {
        return Err(Rejection::ReasonMissing);
    }
    match state.status {
        Status::New | Status::Scheduled | Status::Dispatched | Status::InProgress | Status::OnHold => {
            Ok(vec![Event::Cancelled {
                from: state.status,
                equipment: state.equipment,
                reason,
            }])
        }
        Status::Cancelled => match &state.cancel_reason {
            Some(known) if *known != reason => Err(Rejection::CancelledOtherwise(known.clone())),
            _ => already_so(state, at),
        },
        Status::Completed | Status::SignedOff => Err(Rejection::AlreadyCompleted),
        Status::Closed => Err(Rejection::AlreadyClosed),
        Status::NotCreated => Err(Rejection::NotCreated),
    }
}

/// Who comes; a job that was put on hold before there was an appointment has nobody.
fn technician(state: &State) -> Result<String, Rejection> {
    let appointment = state.appointment.as_ref().ok_or(Rejection::NotScheduled)?;
    Ok(appointment.technician.clone())
}

fn check_work(work: &Work) -> Result<(), Rejection> {
    if work.resolution.is_blank() {
        return Err(Rejection::Empty("resolution"));
    }
    if work.labour_minutes > LABOUR_MINUTES_MAX {
        return Err(Rejection::TooMuchLabour(work.labour_minutes));
    }
    if work.parts.len() > PARTS_MAX {
        return Err(Rejection::TooManyParts(work.parts.len()));
    }
    for (index, part) in work.parts.iter().enumerate() {
        if part.sku.trim().is_empty() {
            return Err(Rejection::SkuMissing(index + 1));
        }
        if part.quantity == 0 {
            return Err(Rejection::QuantityMissing(index + 1));
        }
    }
    Ok(())
}

#[cfg(test)]
mod specs;
