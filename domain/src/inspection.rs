//! One inspection of a machine by a checklist, due on a day (檢驗, 巡檢; Inspection).

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::customer::{self, Customer};
use crate::equipment::{self, Equipment};
use crate::{
    Differing, Home, Id, Moment, SAYINGS_MAX, Stream, StreamKind, StreamRef, Timed, at_the_door, derived_in,
    in_sequence,
};

/// More items than this are no checklist but a measurement series, which belongs in a file.
pub const ITEMS_MAX: usize = 1_000;

/// Every event names the equipment: its history tells them all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Scheduled {
        equipment: Id<Equipment>,
        /// Who owned the equipment, if that could be looked up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        customer: Option<Id<Customer>>,
        due: Date,
        checklist: String,
    },
    Started {
        equipment: Id<Equipment>,
        due: Date,
        checklist: String,
    },
    ReadingRecorded {
        equipment: Id<Equipment>,
        item: String,
        value: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unit: Option<String>,
        pass: bool,
        /// Does it take the place of an earlier reading of this item?
        replaces: bool,
    },
    Finished {
        equipment: Id<Equipment>,
        due: Date,
        checklist: String,
        outcome: Outcome,
        /// The items whose last reading did not pass.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        failed: Vec<String>,
        /// How many items were read.
        readings: u32,
    },
    Voided {
        equipment: Id<Equipment>,
        due: Date,
        checklist: String,
        status_before: Status,
        reason: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Passed,
    Failed,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Begin an inspection. Equipment, checklist and due day are its identity: one due item per period.
    Schedule {
        equipment: Id<Equipment>,
        #[serde(deserialize_with = "at_the_door::day")]
        #[schemars(schema_with = "at_the_door::day_schema")]
        due: Date,
        checklist: String,
    },
    Start,
    /// Of an item the last reading by time counts; one that is entered late takes its place.
    RecordReading {
        item: String,
        value: String,
        unit: Option<String>,
        pass: bool,
    },
    /// Passed if the last reading of every item passed, else failed.
    Finish,
    /// It does not count, even if it was finished.
    Void {
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("there is no such inspection; schedule it first")]
    NotScheduled,
    #[error(
        "this inspection is already scheduled with other data: {0}; it is the inspection of its equipment, day and checklist"
    )]
    AlreadyScheduled(Differing),
    #[error("start the inspection first")]
    NotStarted,
    #[error("this inspection is finished")]
    Finished,
    #[error("this inspection is void")]
    Voided,
    #[error("this inspection is already void, because: {0}")]
    VoidedOtherwise(String),
    #[error("the status of this inspection has not changed since {0}; it cannot be backdated")]
    OnlySince(Timestamp),
    #[error("the {0} is empty")]
    Empty(&'static str),
    #[error("an inspection has at most {ITEMS_MAX} items")]
    TooManyItems,
    #[error("this item was read {SAYINGS_MAX} times already")]
    ReadTooOften,
    #[error("no item was read")]
    NothingRead,
    #[error("a reason is needed")]
    ReasonMissing,
    #[error(transparent)]
    Equipment(#[from] equipment::Unavailable),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    pub status: Status,
    /// `None` until it is scheduled.
    pub subject: Option<Subject>,
    pub customer: Option<Id<Customer>>,
    /// The readings of each item, each since when.
    pub readings: BTreeMap<String, Timed<Reading>>,
    /// Set once it is void.
    pub void_reason: Option<String>,
    /// Since when it has its status.
    pub status_since: Timestamp,
    /// When something last happened to it.
    pub changed_at: Timestamp,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    #[default]
    NotScheduled,
    Scheduled,
    Started,
    Finished,
    Voided,
}

/// What is inspected, when and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    pub equipment: Id<Equipment>,
    pub due: Date,
    pub checklist: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reading {
    pub value: String,
    pub unit: Option<String>,
    pub pass: bool,
}

#[derive(Debug)]
pub struct Inspection;

/// The stream of an inspection; it lives with its equipment.
pub fn inspection_id(equipment: Id<Equipment>, checklist: &str, due: Date) -> Id<Inspection> {
    let parts = [Inspection::NAME, &equipment.to_string(), checklist, &due.to_string()];
    Id::new(derived_in(equipment.slot(), &parts))
}

impl Stream for Inspection {
    const NAME: &'static str = "inspection";
    const KIND: StreamKind = StreamKind::Inspection;
    const BEGINS: &'static str = "schedule";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn home(command: &Command) -> Home {
        match command {
            Command::Schedule {
                equipment,
                due,
                checklist,
            } => Home::Exactly(inspection_id(*equipment, checklist, *due).uuid()),
            Command::Start | Command::RecordReading { .. } | Command::Finish | Command::Void { .. } => Home::Anywhere,
        }
    }

    fn companions(command: &Command) -> Vec<StreamRef> {
        match command {
            Command::Schedule { equipment, .. } => equipment::companion(*equipment),
            Command::Start | Command::RecordReading { .. } | Command::Finish | Command::Void { .. } => vec![],
        }
    }

    fn decide(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
        if let (Command::Schedule { .. }, Status::NotScheduled) = (&command, state.status) {
            return schedule(command, at);
        }
        let subject = state.subject.clone().ok_or(Rejection::NotScheduled)?;
        match (state.status, &command) {
            (Status::Voided, Command::Void { reason }) => {
                return match &state.void_reason {
                    Some(known) if known != reason => Err(Rejection::VoidedOtherwise(known.clone())),
                    _ => already_so(state, at),
                };
            }
            (Status::Voided, _) => return Err(Rejection::Voided),
            (Status::NotScheduled | Status::Scheduled | Status::Started | Status::Finished, _) => {}
        }
        Ok(match command {
            Command::Schedule {
                equipment,
                due,
                checklist,
            } => {
                let differing = [
                    ("checklist", checklist != subject.checklist),
                    ("due", due != subject.due),
                    ("equipment", equipment != subject.equipment),
                ];
                let differing = differing.iter().filter(|(_, differs)| *differs);
                let differing: Vec<String> = differing.map(|(field, _)| (*field).to_owned()).collect();
                if !differing.is_empty() {
                    return Err(Rejection::AlreadyScheduled(Differing(differing)));
                }
                vec![]
            }
            Command::Start if state.status == Status::Finished => return Err(Rejection::Finished),
            Command::Start if state.status == Status::Started => already_so(state, at)?,
            Command::Start => vec![Event::Started {
                equipment: subject.equipment,
                due: subject.due,
                checklist: subject.checklist,
            }],
            Command::RecordReading {
                item,
                value,
                unit,
                pass,
            } => record_reading(state, subject.equipment, item, Reading { value, unit, pass }, at)?,
            Command::Finish if state.status == Status::Finished => already_so(state, at)?,
            Command::Finish => vec![finish(state, subject)?],
            Command::Void { reason } if reason.trim().is_empty() => return Err(Rejection::ReasonMissing),
            Command::Void { reason } => vec![Event::Voided {
                equipment: subject.equipment,
                due: subject.due,
                checklist: subject.checklist,
                status_before: state.status,
                reason,
            }],
        })
    }

    fn evolve(mut state: State, event: &Event, at: Timestamp) -> State {
        let at = match state.status {
            Status::NotScheduled => at,
            _ => state.true_since(event, at),
        };
        state.changed_at = state.changed_at.max(at);
        let before = state.status;
        match event {
            Event::Scheduled {
                equipment,
                customer,
                due,
                checklist,
            } => {
                state.status = Status::Scheduled;
                state.customer = *customer;
                state.subject = Some(Subject {
                    equipment: *equipment,
                    due: *due,
                    checklist: checklist.clone(),
                });
            }
            Event::Started { .. } => state.status = Status::Started,
            Event::ReadingRecorded {
                item,
                value,
                unit,
                pass,
                ..
            } => {
                let reading = Reading {
                    value: value.clone(),
                    unit: unit.clone(),
                    pass: *pass,
                };
                state.readings.entry(item.clone()).or_default().enter(reading, at);
            }
            Event::Finished { .. } => state.status = Status::Finished,
            Event::Voided { reason, .. } => {
                state.status = Status::Voided;
                state.void_reason = Some(reason.clone());
            }
        }
        if state.status != before {
            state.status_since = at;
        }
        state
    }

    fn customer(state: &State) -> Option<Uuid> {
        customer::routing(&state.customer)
    }
}

impl State {
    /// Each step causes the next one. Only readings do not cause one another: they are true after the start.
    fn true_since(&self, event: &Event, at: Timestamp) -> Timestamp {
        match event {
            Event::ReadingRecorded { .. } => in_sequence(self.status_since, at),
            Event::Scheduled { .. } | Event::Started { .. } | Event::Finished { .. } | Event::Voided { .. } => {
                in_sequence(self.changed_at, at)
            }
        }
    }
}

/// "Already so" holds at the command's own time, too: who says that it was so earlier is told since when it is.
fn already_so(state: &State, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    if at.effective_at == at.now || at.effective_at >= state.status_since {
        return Ok(vec![]);
    }
    Err(Rejection::OnlySince(state.status_since))
}

fn schedule(command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    let Command::Schedule {
        equipment,
        due,
        checklist,
    } = command
    else {
        unreachable!("only schedule schedules");
    };
    if checklist.trim().is_empty() {
        return Err(Rejection::Empty("checklist"));
    }
    let customer = equipment::must_be_in_service(equipment, at)?;
    Ok(vec![Event::Scheduled {
        equipment,
        customer,
        due,
        checklist,
    }])
}

fn record_reading(
    state: &State,
    equipment: Id<Equipment>,
    item: String,
    reading: Reading,
    at: &Moment<'_>,
) -> Result<Vec<Event>, Rejection> {
    must_be_started(state)?;
    if item.trim().is_empty() {
        return Err(Rejection::Empty("item"));
    }
    if reading.value.trim().is_empty() {
        return Err(Rejection::Empty("value"));
    }
    let readings = state.readings.get(&item);
    let time = at.effective_at.max(state.status_since);
    let before = readings.and_then(|readings| readings.at(time));
    if before == Some(&reading) {
        return Ok(vec![]);
    }
    if readings.is_none() && state.readings.len() >= ITEMS_MAX {
        return Err(Rejection::TooManyItems);
    }
    if readings.is_some_and(Timed::is_full) {
        return Err(Rejection::ReadTooOften);
    }
    Ok(vec![Event::ReadingRecorded {
        equipment,
        item,
        value: reading.value,
        unit: reading.unit,
        pass: reading.pass,
        replaces: before.is_some(),
    }])
}

fn finish(state: &State, subject: Subject) -> Result<Event, Rejection> {
    must_be_started(state)?;
    if state.readings.is_empty() {
        return Err(Rejection::NothingRead);
    }
    let mut failed = Vec::new();
    for (item, readings) in &state.readings {
        if readings.latest().is_some_and(|last| !last.said.pass) {
            failed.push(item.clone());
        }
    }
    let outcome = match failed.is_empty() {
        true => Outcome::Passed,
        false => Outcome::Failed,
    };
    Ok(Event::Finished {
        equipment: subject.equipment,
        due: subject.due,
        checklist: subject.checklist,
        outcome,
        failed,
        readings: u32::try_from(state.readings.len()).expect("items are limited"),
    })
}

fn must_be_started(state: &State) -> Result<(), Rejection> {
    match state.status {
        Status::NotScheduled => Err(Rejection::NotScheduled),
        Status::Scheduled => Err(Rejection::NotStarted),
        Status::Started => Ok(()),
        Status::Finished => Err(Rejection::Finished),
        Status::Voided => Err(Rejection::Voided),
    }
}

#[cfg(test)]
mod specs {
    use jiff::civil::date;

    use super::*;
    use crate::slot_of;
    use crate::spec::{given, given_at, moment, neighbour, stranger};

    fn press() -> Id<Equipment> {
        neighbour("press")
    }

    fn schedule_for(equipment: Id<Equipment>) -> Command {
        Command::Schedule {
            equipment,
            due: date(2026, 4, 1),
            checklist: "quarterly".into(),
        }
    }

    fn scheduled_for(equipment: Id<Equipment>, customer: Option<Id<Customer>>) -> Event {
        Event::Scheduled {
            equipment,
            customer,
            due: date(2026, 4, 1),
            checklist: "quarterly".into(),
        }
    }

    fn scheduled() -> Event {
        scheduled_for(press(), Some(stranger("a")))
    }

    fn started() -> Event {
        Event::Started {
            equipment: press(),
            due: date(2026, 4, 1),
            checklist: "quarterly".into(),
        }
    }

    fn read(item: &str, value: &str, pass: bool) -> Command {
        Command::RecordReading {
            item: item.into(),
            value: value.into(),
            unit: Some("bar".into()),
            pass,
        }
    }

    fn reading(item: &str, value: &str, pass: bool, replaces: bool) -> Event {
        Event::ReadingRecorded {
            equipment: press(),
            item: item.into(),
            value: value.into(),
            unit: Some("bar".into()),
            pass,
            replaces,
        }
    }

    fn finished(outcome: Outcome, failed: &[&str], readings: u32) -> Event {
        Event::Finished {
            equipment: press(),
            due: date(2026, 4, 1),
            checklist: "quarterly".into(),
            outcome,
            failed: failed.iter().map(|item| item.to_string()).collect(),
            readings,
        }
    }

    fn void() -> Command {
        Command::Void {
            reason: "wrong machine".into(),
        }
    }

    fn voided(status_before: Status) -> Event {
        Event::Voided {
            equipment: press(),
            due: date(2026, 4, 1),
            checklist: "quarterly".into(),
            status_before,
            reason: "wrong machine".into(),
        }
    }

    fn machine(status: equipment::Status) -> equipment::State {
        let card = equipment::Card {
            status,
            customer: Some(stranger("a")),
            ..Default::default()
        };
        card.into()
    }

    #[test]
    fn an_inspection_is_scheduled_for_a_machine_in_service_and_its_owner() {
        for status in [equipment::Status::InService, equipment::Status::Down] {
            given::<Inspection>([])
                .with(press(), machine(status))
                .when(schedule_for(press()))
                .then([scheduled()]);
        }
        given::<Inspection>([])
            .when(schedule_for(press()))
            .then_rejected(equipment::Unavailable::NotInstalled(press()).into());
        given::<Inspection>([])
            .with(press(), machine(equipment::Status::Retired))
            .when(schedule_for(press()))
            .then_rejected(equipment::Unavailable::Retired(press()).into());
    }

    #[test]
    fn a_machine_counts_as_it_was_at_the_commands_own_time() {
        let installed = equipment::Event::Installed {
            customer: stranger("a"),
            maker: "M".into(),
            serial: "1".into(),
            model: "X".into(),
            site: "S".into(),
            warranty_until: None,
        };
        let retired = equipment::Event::Retired {
            status_before: equipment::Status::InService,
        };
        let life = [
            ("2026-01-01T09:00:00+08:00", installed),
            ("2026-03-01T09:00:00+08:00", retired),
        ];
        let state = life.iter().fold(equipment::State::default(), |state, (at, event)| {
            equipment::Equipment::evolve(state, event, moment(at))
        });
        let beside = || given::<Inspection>([]).with(press(), state.clone());
        beside()
            .effective("2026-02-01T09:00:00+08:00")
            .when(schedule_for(press()))
            .then([scheduled()]);
        beside()
            .when(schedule_for(press()))
            .then_rejected(equipment::Unavailable::Retired(press()).into());
    }

    #[test]
    fn one_period_of_a_machine_and_checklist_is_one_inspection() {
        let Home::Exactly(id) = Inspection::home(&schedule_for(press())) else {
            panic!("an inspection has an id of its own")
        };
        assert_eq!(id, inspection_id(press(), "quarterly", date(2026, 4, 1)).uuid());
        assert_eq!(slot_of(id), press().slot());
        assert_ne!(id, inspection_id(press(), "quarterly", date(2026, 7, 1)).uuid());
        given::<Inspection>([scheduled(), started()])
            .when(schedule_for(press()))
            .then_nothing();
        given::<Inspection>([scheduled()])
            .when(schedule_for(neighbour("lathe")))
            .then_rejected(Rejection::AlreadyScheduled(Differing(vec!["equipment".into()])));
    }

    #[test]
    fn an_inspection_is_started_before_items_are_read() {
        given::<Inspection>([scheduled()])
            .when(Command::Start)
            .then([started()]);
        for command in [read("pressure", "6", true), Command::Finish] {
            given::<Inspection>([scheduled()])
                .when(command)
                .then_rejected(Rejection::NotStarted);
        }
        given::<Inspection>([])
            .when(Command::Start)
            .then_rejected(Rejection::NotScheduled);
    }

    #[test]
    fn the_last_reading_of_an_item_counts() {
        let low = || [scheduled(), started(), reading("pressure", "4", false, false)];
        given::<Inspection>(low())
            .when(read("pressure", "4", false))
            .then_nothing();
        given::<Inspection>(low())
            .when(read("pressure", "6", true))
            .then([reading("pressure", "6", true, true)]);
        given::<Inspection>(low().into_iter().chain([reading("pressure", "6", true, true)]))
            .when(Command::Finish)
            .then([finished(Outcome::Passed, &[], 1)]);
    }

    #[test]
    fn of_an_item_the_last_reading_by_time_counts_however_late_another_is_entered() {
        const NOV_10: &str = "2025-11-10T09:00:00+08:00";
        const NOV_15: &str = "2025-11-15T09:00:00+08:00";
        const NOV_20: &str = "2025-11-20T09:00:00+08:00";
        let timely = || {
            [
                (NOV_10, scheduled()),
                (NOV_10, started()),
                (NOV_10, reading("pressure", "4", false, false)),
                (NOV_20, reading("pressure", "6", true, true)),
            ]
        };
        let late = read("pressure", "3", false);
        given_at::<Inspection>(timely())
            .effective(NOV_15)
            .same_intent_twice(late.clone());
        let past = || {
            given_at::<Inspection>(
                timely()
                    .into_iter()
                    .chain([(NOV_15, reading("pressure", "3", false, true))]),
            )
        };
        past().when(Command::Finish).then([finished(Outcome::Passed, &[], 1)]);
        // What is so now was not so then.
        past()
            .effective(NOV_15)
            .when(read("pressure", "6", true))
            .then([reading("pressure", "6", true, true)]);
        // Of one instant the last recorded one counts.
        given_at::<Inspection>(
            timely()
                .into_iter()
                .chain([(NOV_20, reading("pressure", "3", false, true))]),
        )
        .when(Command::Finish)
        .then([finished(Outcome::Failed, &["pressure"], 1)]);
    }

    #[test]
    fn one_failed_item_fails_the_inspection() {
        given::<Inspection>([
            scheduled(),
            started(),
            reading("pressure", "6", true, false),
            reading("leakage", "2", false, false),
        ])
        .when(Command::Finish)
        .then([finished(Outcome::Failed, &["leakage"], 2)]);
    }

    #[test]
    fn an_inspection_without_readings_cannot_be_finished() {
        given::<Inspection>([scheduled(), started()])
            .when(Command::Finish)
            .then_rejected(Rejection::NothingRead);
    }

    #[test]
    fn another_reason_for_a_void_inspection_is_not_dropped_in_silence() {
        let past = || given::<Inspection>([scheduled(), voided(Status::Scheduled)]);
        past().when(void()).then_nothing();
        past()
            .when(Command::Void {
                reason: "twice in the calendar".into(),
            })
            .then_rejected(Rejection::VoidedOtherwise("wrong machine".into()));
    }

    #[test]
    fn no_step_of_an_inspection_is_before_the_step_that_caused_it() {
        let at = |text: &str| crate::spec::moment(text);
        let (morning, noon) = (at("2026-03-02T09:00:00+08:00"), at("2026-03-02T12:00:00+08:00"));
        let inspection = Inspection::evolve(State::default(), &scheduled(), noon);
        let inspection = Inspection::evolve(inspection, &started(), morning);
        assert_eq!((inspection.status_since, inspection.changed_at), (noon, noon));
    }

    #[test]
    fn a_finished_inspection_takes_no_readings_and_can_be_voided() {
        let past = || {
            [
                scheduled(),
                started(),
                reading("pressure", "6", true, false),
                finished(Outcome::Passed, &[], 1),
            ]
        };
        given::<Inspection>(past())
            .when(read("pressure", "7", true))
            .then_rejected(Rejection::Finished);
        given::<Inspection>(past())
            .when(Command::Start)
            .then_rejected(Rejection::Finished);
        given::<Inspection>(past())
            .when(void())
            .then([voided(Status::Finished)]);
    }

    #[test]
    fn a_voided_inspection_refuses_everything() {
        let past = || given::<Inspection>([scheduled(), voided(Status::Scheduled)]);
        for command in [
            schedule_for(press()),
            Command::Start,
            read("pressure", "6", true),
            Command::Finish,
        ] {
            past().when(command).then_rejected(Rejection::Voided);
        }
        past().when(void()).then_nothing();
    }

    #[test]
    fn an_empty_item_value_or_reason_is_refused() {
        let past = || given::<Inspection>([scheduled(), started()]);
        past()
            .when(read(" ", "6", true))
            .then_rejected(Rejection::Empty("item"));
        past()
            .when(read("pressure", "", true))
            .then_rejected(Rejection::Empty("value"));
        past()
            .when(Command::Void { reason: "".into() })
            .then_rejected(Rejection::ReasonMissing);
    }

    #[test]
    fn an_inspection_has_no_more_than_a_thousand_items() {
        let many = (0..ITEMS_MAX).map(|n| reading(&format!("item {n}"), "6", true, false));
        let full = given::<Inspection>([scheduled(), started()].into_iter().chain(many));
        full.when(read("one more", "6", true))
            .then_rejected(Rejection::TooManyItems);
        full.when(read("item 7", "8", true))
            .then([reading("item 7", "8", true, true)]);
    }

    #[test]
    fn an_item_is_read_a_hundred_times_and_no_more() {
        let many = (0..SAYINGS_MAX).map(|n| reading("pressure", &format!("{n}"), true, n > 0));
        let full = given::<Inspection>([scheduled(), started()].into_iter().chain(many));
        full.when(read("pressure", "99", true)).then_nothing();
        full.when(read("pressure", "6", true))
            .then_rejected(Rejection::ReadTooOften);
    }

    #[test]
    fn the_same_intent_twice_gives_nothing_the_second_time() {
        given::<Inspection>([])
            .with(press(), machine(equipment::Status::InService))
            .same_intent_twice(schedule_for(press()));
        given::<Inspection>([scheduled()]).same_intent_twice(Command::Start);
        given::<Inspection>([scheduled(), started()]).same_intent_twice(read("pressure", "6", true));
        let read_once = [scheduled(), started(), reading("pressure", "6", true, false)];
        given::<Inspection>(read_once).same_intent_twice(Command::Finish);
        given::<Inspection>([scheduled()]).same_intent_twice(void());
    }
}
