//! Work at a customer, from the call to the signature (工單; WorkOrder).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::customer::{self, Customer};
use crate::equipment::{self, Equipment};
use crate::{Home, Id, Moment, Personal, Stream, StreamKind, StreamRef, at_the_door};

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
        start: Timestamp,
        #[serde(deserialize_with = "at_the_door::time")]
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
    #[error("this job is already created with other data")]
    AlreadyCreated,
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
                schedule(state, appointment)
            }
            Command::Dispatch => dispatch(state),
            Command::Start => start(state),
            Command::Hold { reason } => hold(state, reason),
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
                complete(state, work)
            }
            Command::SignOff { by } => sign_off(state, by),
            Command::Close => close(state),
            Command::Cancel { reason } => cancel(state, reason),
        }
    }

    fn evolve(mut state: State, event: &Event, _: Timestamp) -> State {
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
            Event::Cancelled { .. } => {
                state.status = Status::Cancelled;
                state.hold_reason = None;
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
    if state.status != Status::NotCreated {
        let same = state.customer == Some(customer)
            && state.equipment == equipment
            && state.origin == origin
            && state.summary == summary;
        return if same {
            Ok(vec![])
        } else {
            Err(Rejection::AlreadyCreated)
        };
    }
    customer::must_be_open(customer, at)?;
    if let Some(equipment) = equipment {
        equipment::must_be_in_service(equipment, at)?;
    }
    Ok(vec![Event::Created {
        customer,
        equipment,
        origin,
        summary,
    }])
}

fn schedule(state: &State, appointment: Appointment) -> Result<Vec<Event>, Rejection> {
    if appointment.technician.trim().is_empty() {
        return Err(Rejection::Empty("technician"));
    }
    if appointment.end <= appointment.start {
        return Err(Rejection::EndsBeforeStart);
    }
    let is_agreed = state.appointment.as_ref() == Some(&appointment);
    match state.status {
        Status::Scheduled | Status::Dispatched if is_agreed => Ok(vec![]),
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

fn dispatch(state: &State) -> Result<Vec<Event>, Rejection> {
    match state.status {
        Status::Scheduled => Ok(vec![Event::Dispatched {
            from: state.status,
            equipment: state.equipment,
            technician: technician(state)?,
        }]),
        Status::Dispatched => Ok(vec![]),
        Status::New | Status::OnHold => Err(Rejection::NotScheduled),
        Status::InProgress => Err(Rejection::InProgress),
        Status::Completed | Status::SignedOff => Err(Rejection::AlreadyCompleted),
        Status::Closed => Err(Rejection::AlreadyClosed),
        Status::Cancelled => Err(Rejection::Cancelled),
        Status::NotCreated => Err(Rejection::NotCreated),
    }
}

fn start(state: &State) -> Result<Vec<Event>, Rejection> {
    match state.status {
        Status::Scheduled | Status::Dispatched | Status::OnHold => Ok(vec![Event::Started {
            from: state.status,
            equipment: state.equipment,
            technician: technician(state)?,
        }]),
        Status::InProgress => Ok(vec![]),
        Status::New => Err(Rejection::NotScheduled),
        Status::Completed | Status::SignedOff => Err(Rejection::AlreadyCompleted),
        Status::Closed => Err(Rejection::AlreadyClosed),
        Status::Cancelled => Err(Rejection::Cancelled),
        Status::NotCreated => Err(Rejection::NotCreated),
    }
}

fn hold(state: &State, reason: String) -> Result<Vec<Event>, Rejection> {
    if reason.trim().is_empty() {
        return Err(Rejection::ReasonMissing);
    }
    match state.status {
        Status::OnHold if state.hold_reason.as_ref() == Some(&reason) => Ok(vec![]),
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

fn complete(state: &State, work: Work) -> Result<Vec<Event>, Rejection> {
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
        Status::Completed | Status::SignedOff | Status::Closed if state.work.as_ref() == Some(&work) => Ok(vec![]),
        Status::Completed | Status::SignedOff | Status::Closed => Err(Rejection::AlreadyCompleted),
        Status::New | Status::Scheduled | Status::Dispatched | Status::OnHold => Err(Rejection::NotStarted),
        Status::Cancelled => Err(Rejection::Cancelled),
        Status::NotCreated => Err(Rejection::NotCreated),
    }
}

fn sign_off(state: &State, by: Personal<String>) -> Result<Vec<Event>, Rejection> {
    if by.is_blank() {
        return Err(Rejection::Empty("name of who signs off"));
    }
    match state.status {
        Status::Completed => Ok(vec![Event::SignedOff {
            from: state.status,
            equipment: state.equipment,
            by,
        }]),
        Status::SignedOff | Status::Closed if state.signed_off_by.as_ref() == Some(&by) => Ok(vec![]),
        Status::SignedOff | Status::Closed => Err(Rejection::AlreadySignedOff),
        Status::New | Status::Scheduled | Status::Dispatched | Status::InProgress | Status::OnHold => {
            Err(Rejection::NotCompleted)
        }
        Status::Cancelled => Err(Rejection::Cancelled),
        Status::NotCreated => Err(Rejection::NotCreated),
    }
}

fn close(state: &State) -> Result<Vec<Event>, Rejection> {
    match state.status {
        Status::SignedOff => Ok(vec![Event::Closed {
            from: state.status,
            equipment: state.equipment,
        }]),
        Status::Closed => Ok(vec![]),
        Status::Completed => Err(Rejection::NotSignedOff),
        Status::New | Status::Scheduled | Status::Dispatched | Status::InProgress | Status::OnHold => {
            Err(Rejection::NotCompleted)
        }
        Status::Cancelled => Err(Rejection::Cancelled),
        Status::NotCreated => Err(Rejection::NotCreated),
    }
}

fn cancel(state: &State, reason: String) -> Result<Vec<Event>, Rejection> {
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
        Status::Cancelled => Ok(vec![]),
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
mod specs {
    use super::*;
    use crate::spec::{given, moment, neighbour, stranger};

    fn press() -> Id<Equipment> {
        neighbour("press")
    }

    fn create_on(equipment: Option<Id<Equipment>>, customer: Id<Customer>) -> Command {
        Command::Create {
            customer,
            equipment,
            origin: Some("case/0192f0c1-0000-8000-8000-000000000001".into()),
            summary: "主軸異音".into(),
        }
    }

    fn created_on(equipment: Option<Id<Equipment>>, customer: Id<Customer>) -> Event {
        Event::Created {
            customer,
            equipment,
            origin: Some("case/0192f0c1-0000-8000-8000-000000000001".into()),
            summary: "主軸異音".into(),
        }
    }

    fn created() -> Event {
        created_on(Some(press()), stranger("a"))
    }

    fn tuesday(technician: &str) -> Appointment {
        Appointment {
            start: moment("2026-03-03T09:00:00+08:00"),
            end: moment("2026-03-03T12:00:00+08:00"),
            technician: technician.into(),
        }
    }

    fn schedule(technician: &str) -> Command {
        let Appointment { start, end, technician } = tuesday(technician);
        Command::Schedule { start, end, technician }
    }

    fn scheduled(from: Status, technician: &str, replaces: Option<Appointment>) -> Event {
        let Appointment { start, end, technician } = tuesday(technician);
        Event::Scheduled {
            from,
            equipment: Some(press()),
            start,
            end,
            technician,
            replaces,
        }
    }

    fn dispatched() -> Event {
        Event::Dispatched {
            from: Status::Scheduled,
            equipment: Some(press()),
            technician: "wen".into(),
        }
    }

    fn started(from: Status) -> Event {
        Event::Started {
            from,
            equipment: Some(press()),
            technician: "wen".into(),
        }
    }

    fn hold(reason: &str) -> Command {
        Command::Hold { reason: reason.into() }
    }

    fn held(from: Status) -> Event {
        Event::Held {
            from,
            equipment: Some(press()),
            reason: "waiting for parts".into(),
        }
    }

    fn bearing() -> Vec<Part> {
        vec![Part {
            sku: "BRG-7014".into(),
            quantity: 2,
        }]
    }

    fn complete(parts: Vec<Part>, labour_minutes: u32) -> Command {
        Command::Complete {
            resolution: "更換主軸軸承".into(),
            parts,
            labour_minutes,
        }
    }

    fn completed() -> Event {
        Event::Completed {
            from: Status::InProgress,
            equipment: Some(press()),
            technician: "wen".into(),
            resolution: "更換主軸軸承".into(),
            parts: bearing(),
            labour_minutes: 150,
        }
    }

    fn sign_off(by: &str) -> Command {
        Command::SignOff { by: by.into() }
    }

    fn signed_off() -> Event {
        Event::SignedOff {
            from: Status::Completed,
            equipment: Some(press()),
            by: "陳廠長".into(),
        }
    }

    fn closed() -> Event {
        Event::Closed {
            from: Status::SignedOff,
            equipment: Some(press()),
        }
    }

    fn cancel() -> Command {
        Command::Cancel {
            reason: "repaired themselves".into(),
        }
    }

    fn cancelled(from: Status) -> Event {
        Event::Cancelled {
            from,
            equipment: Some(press()),
            reason: "repaired themselves".into(),
        }
    }

    /// The whole course of a job; a spec takes as much of it as it needs.
    fn course() -> [Event; 7] {
        [
            created(),
            scheduled(Status::New, "wen", None),
            dispatched(),
            started(Status::Dispatched),
            completed(),
            signed_off(),
            closed(),
        ]
    }

    fn after(events: usize) -> crate::spec::Given<Job> {
        given(course().into_iter().take(events))
    }

    const CREATED: usize = 1;
    const SCHEDULED: usize = 2;
    const DISPATCHED: usize = 3;
    const IN_PROGRESS: usize = 4;
    const COMPLETED: usize = 5;
    const SIGNED_OFF: usize = 6;
    const CLOSED: usize = 7;

    fn machine(status: equipment::Status) -> equipment::State {
        equipment::State {
            status,
            ..Default::default()
        }
    }

    #[test]
    fn a_job_goes_from_the_call_to_the_signature() {
        let commands = [
            create_on(Some(press()), stranger("a")),
            schedule("wen"),
            Command::Dispatch,
            Command::Start,
            complete(bearing(), 150),
            sign_off("陳廠長"),
            Command::Close,
        ];
        for (events, command) in commands.into_iter().enumerate() {
            after(events)
                .with(press(), machine(equipment::Status::Down))
                .when(command)
                .then([course()[events].clone()]);
        }
    }

    #[test]
    fn a_job_lives_with_its_machine_or_else_with_its_customer() {
        let customer = stranger("a");
        assert_eq!(
            Job::home(&create_on(Some(press()), customer)),
            Home::With(press().uuid())
        );
        assert_eq!(Job::home(&create_on(None, customer)), Home::With(customer.uuid()));
    }

    #[test]
    fn a_job_is_created_for_an_open_customer_and_a_machine_that_is_not_retired() {
        given::<Job>([])
            .when(create_on(None, neighbour("a")))
            .then_rejected(customer::Unavailable::NotRegistered(neighbour("a")).into());
        given::<Job>([])
            .when(create_on(Some(press()), stranger("a")))
            .then_rejected(equipment::Unavailable::NotInstalled(press()).into());
        given::<Job>([])
            .with(press(), machine(equipment::Status::Retired))
            .when(create_on(Some(press()), stranger("a")))
            .then_rejected(equipment::Unavailable::Retired(press()).into());
        after(CREATED)
            .when(create_on(None, stranger("a")))
            .then_rejected(Rejection::AlreadyCreated);
    }

    #[test]
    fn a_new_job_is_scheduled_before_it_is_started() {
        for command in [Command::Start, Command::Dispatch] {
            after(CREATED).when(command).then_rejected(Rejection::NotScheduled);
        }
        given::<Job>([created(), held(Status::New)])
            .when(Command::Start)
            .then_rejected(Rejection::NotScheduled);
        after(SCHEDULED).when(Command::Start).then([started(Status::Scheduled)]);
    }

    #[test]
    fn a_job_may_be_scheduled_again_until_work_begins() {
        after(SCHEDULED).when(schedule("wen")).then_nothing();
        after(DISPATCHED).when(schedule("wen")).then_nothing();
        after(DISPATCHED)
            .when(schedule("kai"))
            .then([scheduled(Status::Dispatched, "kai", Some(tuesday("wen")))]);
        after(IN_PROGRESS)
            .when(schedule("kai"))
            .then_rejected(Rejection::InProgress);
        let on_hold = course().into_iter().take(IN_PROGRESS).chain([held(Status::InProgress)]);
        given::<Job>(on_hold)
            .when(schedule("wen"))
            .then([scheduled(Status::OnHold, "wen", Some(tuesday("wen")))]);
    }

    #[test]
    fn an_appointment_ends_after_it_starts() {
        let start = moment("2026-03-03T09:00:00+08:00");
        after(CREATED)
            .when(Command::Schedule {
                start,
                end: start,
                technician: "wen".into(),
            })
            .then_rejected(Rejection::EndsBeforeStart);
    }

    #[test]
    fn work_goes_on_after_it_was_on_hold() {
        after(IN_PROGRESS)
            .when(hold("waiting for parts"))
            .then([held(Status::InProgress)]);
        let on_hold = || given::<Job>(course().into_iter().take(IN_PROGRESS).chain([held(Status::InProgress)]));
        on_hold()
            .when(complete(bearing(), 150))
            .then_rejected(Rejection::NotStarted);
        on_hold().when(Command::Start).then([started(Status::OnHold)]);
        on_hold().when(hold("customer is away")).then([Event::Held {
            from: Status::OnHold,
            equipment: Some(press()),
            reason: "customer is away".into(),
        }]);
    }

    #[test]
    fn a_job_is_signed_off_before_it_is_closed() {
        after(COMPLETED)
            .when(Command::Close)
            .then_rejected(Rejection::NotSignedOff);
        after(IN_PROGRESS)
            .when(Command::Close)
            .then_rejected(Rejection::NotCompleted);
        after(IN_PROGRESS)
            .when(sign_off("陳廠長"))
            .then_rejected(Rejection::NotCompleted);
        after(SIGNED_OFF)
            .when(sign_off("林小姐"))
            .then_rejected(Rejection::AlreadySignedOff);
    }

    #[test]
    fn a_completed_job_is_not_cancelled_or_completed_otherwise() {
        for events in [COMPLETED, SIGNED_OFF] {
            after(events).when(cancel()).then_rejected(Rejection::AlreadyCompleted);
        }
        after(CLOSED).when(cancel()).then_rejected(Rejection::AlreadyClosed);
        after(CLOSED)
            .when(Command::Start)
            .then_rejected(Rejection::AlreadyClosed);
        after(COMPLETED)
            .when(complete(bearing(), 151))
            .then_rejected(Rejection::AlreadyCompleted);
        after(CLOSED).when(complete(bearing(), 150)).then_nothing();
    }

    #[test]
    fn a_cancelled_job_stays_cancelled() {
        after(IN_PROGRESS).when(cancel()).then([cancelled(Status::InProgress)]);
        let past = || given::<Job>([created(), cancelled(Status::New)]);
        for command in [
            schedule("wen"),
            Command::Dispatch,
            Command::Start,
            hold("x"),
            complete(bearing(), 150),
            sign_off("陳廠長"),
            Command::Close,
        ] {
            past().when(command).then_rejected(Rejection::Cancelled);
        }
    }

    #[test]
    fn the_work_has_limits_and_its_parts_have_names_and_quantities() {
        let part = |sku: &str, quantity| Part {
            sku: sku.into(),
            quantity,
        };
        let refused = |command, rejection| after(IN_PROGRESS).when(command).then_rejected(rejection);
        refused(complete(bearing(), 100_001), Rejection::TooMuchLabour(100_001));
        refused(complete(vec![part("A", 1), part("", 1)], 1), Rejection::SkuMissing(2));
        refused(complete(vec![part("A", 0)], 1), Rejection::QuantityMissing(1));
        refused(
            complete(vec![part("A", 1); PARTS_MAX + 1], 1),
            Rejection::TooManyParts(1_001),
        );
    }

    #[test]
    fn nothing_happens_to_a_job_that_nobody_created() {
        after(0).when(Command::Start).then_rejected(Rejection::NotCreated);
    }

    #[test]
    fn the_same_intent_twice_gives_nothing_the_second_time() {
        given::<Job>([])
            .with(press(), machine(equipment::Status::InService))
            .same_intent_twice(create_on(Some(press()), stranger("a")));
        after(CREATED).same_intent_twice(schedule("wen"));
        after(SCHEDULED).same_intent_twice(Command::Dispatch);
        after(DISPATCHED).same_intent_twice(Command::Start);
        after(IN_PROGRESS).same_intent_twice(hold("waiting for parts"));
        after(IN_PROGRESS).same_intent_twice(complete(bearing(), 150));
        after(COMPLETED).same_intent_twice(sign_off("陳廠長"));
        after(SIGNED_OFF).same_intent_twice(Command::Close);
        after(CREATED).same_intent_twice(cancel());
    }
}
