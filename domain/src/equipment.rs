//! A machine that stands at a customer's site (設備; Asset, installed base).

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::customer::{self, Customer};
use crate::{
    Companion, Differing, History, Home, Id, Moment, Personal, Stream, StreamKind, StreamRef, UPSERT_REASON,
    at_the_door, id_from_key, same_beginning,
};

/// More checklists than this on one machine are a loop in somebody's program.
pub const PLANS_MAX: usize = 100;
/// Ten years: what is inspected less often is not planned here.
pub const EVERY_DAYS_MAX: u32 = 3_650;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Installed {
        customer: Id<Customer>,
        maker: String,
        serial: String,
        model: String,
        site: Personal<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warranty_until: Option<Date>,
    },
    Moved {
        from: Personal<String>,
        to: Personal<String>,
    },
    OwnerTransferred {
        from: Id<Customer>,
        to: Id<Customer>,
        reason: String,
    },
    Down {
        symptom: String,
        /// When it went down in the world.
        at: Timestamp,
    },
    Restored {
        down_since: Timestamp,
    },
    Retired {
        status_before: Status,
    },
    InspectionsPlanned {
        checklist: String,
        every_days: u32,
        first_due: Date,
        /// The plan that the checklist had until now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<Plan>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Begin a machine. Maker and serial number are its identity, so it is installed once in its life.
    Install {
        customer: Id<Customer>,
        maker: String,
        serial: String,
        model: String,
        site: Personal<String>,
        #[serde(default, deserialize_with = "at_the_door::day_if_any")]
        #[schemars(schema_with = "at_the_door::day_if_any_schema")]
        warranty_until: Option<Date>,
    },
    Move {
        site: Personal<String>,
    },
    TransferOwner {
        to: Id<Customer>,
        reason: String,
    },
    ReportDown {
        symptom: String,
    },
    Restore,
    /// Out of use for good: nothing is accepted after it.
    Retire,
    /// Inspect by this checklist every so many days. Planned again, a checklist's plan is replaced.
    PlanInspections {
        checklist: String,
        #[schemars(range(min = 1, max = 3_650))]
        every_days: u32,
        #[serde(deserialize_with = "at_the_door::day")]
        #[schemars(schema_with = "at_the_door::day_schema")]
        first_due: Date,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("this equipment is already installed with other data: {0}; use move to change its site")]
    AlreadyInstalled(Differing),
    #[error("this equipment is already installed at customer {0}; use transfer-owner to change that")]
    BelongsTo(Id<Customer>),
    #[error("the {0} is empty")]
    Empty(&'static str),
    #[error("a reason is needed")]
    ReasonMissing,
    #[error("this equipment is down since {0}, with another symptom; restore it first")]
    AlreadyDown(Timestamp),
    #[error("this equipment has been {0} since {1}; that cannot be backdated")]
    OnlySince(&'static str, Timestamp),
    #[error("this equipment went down at {0}, it cannot be restored before")]
    RestoredBeforeDown(Timestamp),
    #[error("inspections are planned every 1 to {EVERY_DAYS_MAX} days, not every {0}")]
    IntervalOutOfRange(u32),
    #[error("one machine has at most {PLANS_MAX} inspection plans")]
    TooManyPlans,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error(transparent)]
    Customer(#[from] customer::Unavailable),
}

/// Why nothing can be done with a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    #[error("there is no equipment {0}; install it first")]
    NotInstalled(Id<Equipment>),
    #[error("equipment {0} is retired")]
    Retired(Id<Equipment>),
}

/// A machine and its history, which reads as its latest card.
pub type State = History<Card>;

/// A machine as it stood at some time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Card {
    pub status: Status,
    pub customer: Option<Id<Customer>>,
    pub maker: String,
    pub serial: String,
    pub model: String,
    pub site: Personal<String>,
    pub warranty_until: Option<Date>,
    /// Set while it is down, or when it was down as it was retired.
    pub breakdown: Option<Breakdown>,
    /// By checklist.
    pub plans: BTreeMap<String, Plan>,
    pub installed_at: Timestamp,
    pub retired_at: Option<Timestamp>,
    pub failures: u32,
    /// Breakdowns that ended with a restore, and how long those took.
    pub repairs: u32,
    pub down_seconds: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    #[default]
    NotInstalled,
    InService,
    Down,
    Retired,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Breakdown {
    pub symptom: String,
    pub since: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    pub every_days: u32,
    pub first_due: Date,
}

impl Event {
    /// Whether the event begins or ends the service of the machine. Each such event is the cause of the next one.
    fn turns(&self) -> bool {
        match self {
            Event::Installed { .. } | Event::Down { .. } | Event::Restored { .. } | Event::Retired { .. } => true,
            Event::Moved { .. } | Event::OwnerTransferred { .. } | Event::InspectionsPlanned { .. } => false,
        }
    }
}

impl crate::Card for Card {
    type Event = Event;

    fn is_cause(earlier: &Event, event: &Event) -> bool {
        event.turns() && earlier.turns()
    }

    /// A retired machine stands where it stood, whatever was entered earlier and is dated after its end.
    fn after(mut self, event: &Event, at: Timestamp) -> Card {
        if self.status == Status::Retired {
            return self;
        }
        match event {
            Event::Installed {
                customer,
                maker,
                serial,
                model,
                site,
                warranty_until,
            } => {
                self.status = Status::InService;
                self.customer = Some(*customer);
                self.maker = maker.clone();
                self.serial = serial.clone();
                self.model = model.clone();
                self.site = site.clone();
                self.warranty_until = *warranty_until;
                self.installed_at = at;
            }
            Event::Moved { to, .. } => self.site = to.clone(),
            Event::OwnerTransferred { to, .. } => self.customer = Some(*to),
            Event::Down { symptom, .. } => {
                self.status = Status::Down;
                self.failures += 1;
                self.breakdown = Some(Breakdown {
                    symptom: symptom.clone(),
                    since: at,
                });
            }
            Event::Restored { .. } => {
                self.status = Status::InService;
                self.repairs += 1;
                if let Some(breakdown) = self.breakdown.take() {
                    self.down_seconds += at.as_second() - breakdown.since.as_second();
                }
            }
            Event::Retired { .. } => {
                self.status = Status::Retired;
                self.retired_at = Some(at);
            }
            Event::InspectionsPlanned {
                checklist,
                every_days,
                first_due,
                ..
            } => {
                let plan = Plan {
                    every_days: *every_days,
                    first_due: *first_due,
                };
                self.plans.insert(checklist.clone(), plan);
            }
        }
        self
    }
}

#[derive(Debug)]
pub struct Equipment;

/// The stream of a machine.
pub fn equipment_id(maker: &str, serial: &str) -> Id<Equipment> {
    Id::new(id_from_key(Equipment::NAME, maker, serial))
}

impl Stream for Equipment {
    const NAME: &'static str = "equipment";
    const KIND: StreamKind = StreamKind::Equipment;
    const BEGINS: &'static str = "install";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn home(command: &Command) -> Home {
        match command {
            Command::Install { maker, serial, .. } => Home::Exactly(equipment_id(maker, serial).uuid()),
            Command::Move { .. }
            | Command::TransferOwner { .. }
            | Command::ReportDown { .. }
            | Command::Restore
            | Command::Retire
            | Command::PlanInspections { .. } => Home::Anywhere,
        }
    }

    fn companions(command: &Command) -> Vec<StreamRef> {
        match command {
            Command::Install { customer, .. } => customer::companion(*customer),
            Command::TransferOwner { to, .. } => customer::companion(*to),
            Command::Move { .. }
            | Command::ReportDown { .. }
            | Command::Restore
            | Command::Retire
            | Command::PlanInspections { .. } => vec![],
        }
    }

    /// Each command is decided on the machine as it stood at the command's own time.
    fn decide(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
        let id = Id::new(at.id);
        if let Command::Install { .. } = command {
            return install(state, command, at);
        }
        if state.status == Status::NotInstalled {
            return Err(Unavailable::NotInstalled(id).into());
        }
        let time = match command {
            Command::ReportDown { .. } | Command::Restore | Command::Retire => {
                state.not_before_cause(at.effective_at, Event::turns)
            }
            _ => state.not_before_beginning(at.effective_at),
        };
        let card = &*state.at(time);
        match (card.status, &command) {
            (Status::NotInstalled | Status::InService | Status::Down, _) => {}
            (Status::Retired, Command::Retire) => {
                already_so(state, card, at)?;
                return Ok(vec![]);
            }
            (Status::Retired, _) => return Err(Unavailable::Retired(id).into()),
        }
        Ok(match command {
            Command::Install { .. } => unreachable!("decided above"),
            Command::Move { site } if site.is_blank() => return Err(Rejection::Empty("site")),
            Command::Move { site } if site == card.site => vec![],
            Command::Move { site } => vec![Event::Moved {
                from: card.site.clone(),
                to: site,
            }],
            Command::TransferOwner { reason, .. } if reason.trim().is_empty() => return Err(Rejection::ReasonMissing),
            Command::TransferOwner { to, reason } => match card.customer {
                Some(from) if from != to => {
                    customer::must_be_open(to, at)?;
                    vec![Event::OwnerTransferred { from, to, reason }]
                }
                _ => vec![],
            },
            Command::ReportDown { symptom } if symptom.trim().is_empty() => return Err(Rejection::Empty("symptom")),
            Command::ReportDown { symptom } => match &card.breakdown {
                None => vec![Event::Down { symptom, at: time }],
                Some(breakdown) if breakdown.symptom == symptom => {
                    already_so(state, card, at)?;
                    vec![]
                }
                Some(breakdown) => return Err(Rejection::AlreadyDown(breakdown.since)),
            },
            Command::Restore => match &card.breakdown {
                None => {
                    already_so(state, card, at)?;
                    vec![]
                }
                Some(breakdown) if at.effective_at < breakdown.since => {
                    return Err(Rejection::RestoredBeforeDown(breakdown.since));
                }
                Some(breakdown) => vec![Event::Restored {
                    down_since: breakdown.since,
                }],
            },
            Command::Retire => vec![Event::Retired {
                status_before: card.status,
            }],
            Command::PlanInspections {
                checklist,
                every_days,
                first_due,
            } => {
                let plan = Plan { every_days, first_due };
                plan_inspections(card, checklist, plan)?
            }
        })
    }

    fn upsert(state: &State, command: Command, at: &Moment<'_>) -> Vec<Command> {
        let (
            Command::Install {
                customer,
                maker,
                serial,
                model,
                site,
                warranty_until,
            },
            Some(Event::Installed {
                customer: first_customer,
                site: first_site,
                warranty_until: known_warranty,
                ..
            }),
        ) = (&command, state.begun())
        else {
            return vec![command];
        };
        let card = &*state.as_of(at.effective_at);
        let mut commands = vec![Command::Install {
            customer: *first_customer,
            maker: maker.clone(),
            serial: serial.clone(),
            model: model.clone(),
            site: first_site.clone(),
            warranty_until: warranty_until.or(*known_warranty),
        }];
        if *site != card.site {
            commands.push(Command::Move { site: site.clone() });
        }
        if Some(*customer) != card.customer {
            commands.push(Command::TransferOwner {
                to: *customer,
                reason: UPSERT_REASON.to_owned(),
            });
        }
        commands
    }

    fn evolve(state: State, event: &Event, at: Timestamp) -> State {
        state.record(event, at)
    }

    fn customer(state: &State) -> Option<Uuid> {
        customer::routing(&state.customer)
    }
}

fn install(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    let Command::Install {
        customer,
        maker,
        serial,
        model,
        site,
        warranty_until,
    } = command
    else {
        unreachable!("only install installs");
    };
    for (name, text) in [("maker", &maker), ("serial", &serial), ("model", &model)] {
        if text.trim().is_empty() {
            return Err(Rejection::Empty(name));
        }
    }
    if site.is_blank() {
        return Err(Rejection::Empty("site"));
    }
    let installed = Event::Installed {
        customer,
        maker,
        serial,
        model,
        site,
        warranty_until,
    };
    if state.status == Status::Retired {
        return Err(Unavailable::Retired(Id::new(at.id)).into());
    }
    if let Some(owner) = state.customer {
        let same = same_beginning(state.begun(), &installed, &[]);
        return match same {
            Ok(()) => Ok(vec![]),
            Err(_) if is_now(state, &installed) => Ok(vec![]),
            Err(differing) if owner != customer && differing.has("customer") => Err(Rejection::BelongsTo(owner)),
            Err(differing) => Err(Rejection::AlreadyInstalled(differing)),
        };
    }
    customer::must_be_open(customer, at)?;
    Ok(vec![installed])
}

/// Does the machine stand now as if it had just been installed so?
fn is_now(card: &Card, installed: &Event) -> bool {
    let now = Event::Installed {
        customer: card.customer.unwrap_or(Id::new(Uuid::nil())),
        maker: card.maker.clone(),
        serial: card.serial.clone(),
        model: card.model.clone(),
        site: card.site.clone(),
        warranty_until: card.warranty_until,
    };
    now == *installed
}

/// "Already so" holds at the command's own time, too: who says that it was so earlier is told since when it is.
fn already_so(state: &State, card: &Card, at: &Moment<'_>) -> Result<(), Rejection> {
    let was_so = state.at(at.effective_at).status == card.status;
    if was_so || at.effective_at == at.now {
        return Ok(());
    }
    let status = match card.status {
        Status::NotInstalled => "not installed",
        Status::InService => "in service",
        Status::Down => "down",
        Status::Retired => "retired",
    };
    let since = state.not_before_cause(Timestamp::MIN, Event::turns);
    Err(Rejection::OnlySince(status, since))
}

fn plan_inspections(card: &Card, checklist: String, plan: Plan) -> Result<Vec<Event>, Rejection> {
    if checklist.trim().is_empty() {
        return Err(Rejection::Empty("checklist"));
    }
    if !(1..=EVERY_DAYS_MAX).contains(&plan.every_days) {
        return Err(Rejection::IntervalOutOfRange(plan.every_days));
    }
    let replaces = card.plans.get(&checklist).copied();
    if replaces == Some(plan) {
        return Ok(vec![]);
    }
    if replaces.is_none() && card.plans.len() >= PLANS_MAX {
        return Err(Rejection::TooManyPlans);
    }
    Ok(vec![Event::InspectionsPlanned {
        checklist,
        every_days: plan.every_days,
        first_due: plan.first_due,
        replaces,
    }])
}

/// For streams about a machine: refuses one that is not installed, or was retired at the command's own time; one that is
/// down may be worked on. Gives its owner of then, if the machine can be looked at: one of another slot passes as a
/// reference without an owner.
///
/// # Errors
/// [`Unavailable`] says which.
pub fn must_be_in_service(equipment: Id<Equipment>, at: &Moment<'_>) -> Result<Option<Id<Customer>>, Unavailable> {
    match at.state_of(equipment) {
        Companion::Elsewhere => Ok(None),
        Companion::Known(state) => {
            let card = state.as_of(at.effective_at);
            match card.status {
                Status::NotInstalled => Err(Unavailable::NotInstalled(equipment)),
                Status::Retired => Err(Unavailable::Retired(equipment)),
                Status::InService | Status::Down => Ok(card.customer),
            }
        }
    }
}

/// The companion that `must_be_in_service` looks at.
pub fn companion(equipment: Id<Equipment>) -> Vec<StreamRef> {
    vec![StreamRef::of(equipment)]
}

#[cfg(test)]
mod specs {
    use jiff::civil::date;

    use super::*;
    use crate::spec::{given, given_at, moment, neighbour, stranger};

    fn install_for(customer: Id<Customer>) -> Command {
        Command::Install {
            customer,
            maker: "永進機械".into(),
            serial: "MV-2024-0017".into(),
            model: "MV154A".into(),
            site: "台中市西屯區工業區一路 8 號".into(),
            warranty_until: Some(date(2027, 12, 31)),
        }
    }

    fn installed_for(customer: Id<Customer>) -> Event {
        Event::Installed {
            customer,
            maker: "永進機械".into(),
            serial: "MV-2024-0017".into(),
            model: "MV154A".into(),
            site: "台中市西屯區工業區一路 8 號".into(),
            warranty_until: Some(date(2027, 12, 31)),
        }
    }

    fn installed() -> Event {
        installed_for(stranger("a"))
    }

    fn report(symptom: &str) -> Command {
        Command::ReportDown {
            symptom: symptom.into(),
        }
    }

    fn down() -> Event {
        Event::Down {
            symptom: "主軸異音".into(),
            at: moment("2026-03-01T22:15:00+08:00"),
        }
    }

    fn retired() -> Event {
        Event::Retired {
            status_before: Status::InService,
        }
    }

    fn plan(every_days: u32) -> Command {
        Command::PlanInspections {
            checklist: "quarterly".into(),
            every_days,
            first_due: date(2026, 4, 1),
        }
    }

    fn planned(every_days: u32, replaces: Option<Plan>) -> Event {
        Event::InspectionsPlanned {
            checklist: "quarterly".into(),
            every_days,
            first_due: date(2026, 4, 1),
            replaces,
        }
    }

    fn broken_machine() -> crate::spec::Given<Equipment> {
        given_at([
            ("2026-01-05T09:00:00+08:00", installed()),
            ("2026-03-01T22:15:00+08:00", down()),
        ])
    }

    fn id() -> Id<Equipment> {
        Id::new(crate::derived_id(&["spec"]))
    }

    #[test]
    fn a_machine_is_installed_once_and_known_by_maker_and_serial() {
        let id = equipment_id("永進機械", "MV-2024-0017");
        assert_eq!(Equipment::home(&install_for(stranger("a"))), Home::Exactly(id.uuid()));
        given::<Equipment>([])
            .when(install_for(stranger("a")))
            .then([installed()]);
        given::<Equipment>([installed()])
            .when(install_for(stranger("a")))
            .then_nothing();
    }

    #[test]
    fn an_installed_machine_gets_another_owner_only_by_a_transfer() {
        let (a, b) = (stranger("a"), stranger("b"));
        given::<Equipment>([installed_for(a)])
            .when(install_for(b))
            .then_rejected(Rejection::BelongsTo(a));
        given::<Equipment>([installed_for(a)])
            .when(Command::TransferOwner {
                to: b,
                reason: "二手轉售".into(),
            })
            .then([Event::OwnerTransferred {
                from: a,
                to: b,
                reason: "二手轉售".into(),
            }]);
    }

    #[test]
    fn installing_it_again_with_other_data_is_refused() {
        let moved = Event::Moved {
            from: "台中市西屯區工業區一路 8 號".into(),
            to: "彰化".into(),
        };
        // As it was installed, it is the same intent, whatever became of it since.
        given::<Equipment>([installed(), moved])
            .when(install_for(stranger("a")))
            .then_nothing();
        let mut other = install_for(stranger("a"));
        if let Command::Install {
            model, warranty_until, ..
        } = &mut other
        {
            *model = "MV184A".into();
            *warranty_until = None;
        }
        let differing = Differing(vec!["model".into(), "warranty_until".into()]);
        given::<Equipment>([installed()])
            .when(other)
            .then_rejected(Rejection::AlreadyInstalled(differing));
    }

    const MONDAY: &str = "2026-02-02T09:00:00+08:00";
    const TUESDAY: &str = "2026-02-03T09:00:00+08:00";
    const FRIDAY: &str = "2026-02-06T09:00:00+08:00";

    #[test]
    fn a_move_that_is_entered_late_holds_until_the_next_one() {
        let moved = |to: &str| Event::Moved {
            from: "台中市西屯區工業區一路 8 號".into(),
            to: to.into(),
        };
        let machine =
            || given_at::<Equipment>([(MONDAY, installed()), (FRIDAY, moved("彰化")), (TUESDAY, moved("台南"))]);
        let move_to = |site: &str| Command::Move { site: site.into() };
        machine().when(move_to("彰化")).then_nothing();
        machine().effective(TUESDAY).when(move_to("台南")).then_nothing();
        machine().when(move_to("台南")).then([Event::Moved {
            from: "彰化".into(),
            to: "台南".into(),
        }]);
    }

    #[test]
    fn a_machine_is_not_restored_before_it_broke_down() {
        let restored = Event::Restored {
            down_since: moment(FRIDAY),
        };
        let machine = State::default()
            .record(&installed(), moment(MONDAY))
            .record(&down(), moment(FRIDAY))
            .record(&restored, moment(TUESDAY));
        assert_eq!(
            (machine.status, machine.repairs, machine.down_seconds),
            (Status::InService, 1, 0)
        );
    }

    #[test]
    fn an_owner_of_the_same_slot_must_exist_and_be_open() {
        let customer = neighbour("a");
        let missing = || Rejection::from(customer::Unavailable::NotRegistered(customer));
        given::<Equipment>([])
            .when(install_for(customer))
            .then_rejected(missing());
        given::<Equipment>([installed()])
            .when(Command::TransferOwner {
                to: customer,
                reason: "sold".into(),
            })
            .then_rejected(missing());
    }

    #[test]
    fn a_breakdown_remembers_when_it_began_in_the_world() {
        given_at::<Equipment>([("2026-01-05T09:00:00+08:00", installed())])
            .effective("2026-03-01T22:15:00+08:00")
            .when(report("主軸異音"))
            .then([down()]);
        broken_machine().when(Command::Restore).then([Event::Restored {
            down_since: moment("2026-03-01T22:15:00+08:00"),
        }]);
    }

    #[test]
    fn a_machine_breaks_down_once_before_it_is_restored() {
        let since = moment("2026-03-01T22:15:00+08:00");
        broken_machine().when(report("主軸異音")).then_nothing();
        broken_machine()
            .when(report("冷卻液外漏"))
            .then_rejected(Rejection::AlreadyDown(since));
        broken_machine()
            .effective("2026-03-01T22:14:59+08:00")
            .when(Command::Restore)
            .then_rejected(Rejection::RestoredBeforeDown(since));
        given::<Equipment>([installed()]).when(Command::Restore).then_nothing();
    }

    #[test]
    fn a_retired_machine_accepts_nothing_else() {
        let gone = || given::<Equipment>([installed(), retired()]);
        for command in [install_for(stranger("a")), report("x"), Command::Restore, plan(90)] {
            gone().when(command).then_rejected(Unavailable::Retired(id()).into());
        }
        gone().when(Command::Retire).then_nothing();
        broken_machine().when(Command::Retire).then([Event::Retired {
            status_before: Status::Down,
        }]);
    }

    #[test]
    fn nothing_happens_to_a_machine_that_nobody_installed() {
        given::<Equipment>([])
            .when(Command::Retire)
            .then_rejected(Unavailable::NotInstalled(id()).into());
    }

    #[test]
    fn a_new_plan_of_a_checklist_replaces_the_last_one() {
        let last = Plan {
            every_days: 90,
            first_due: date(2026, 4, 1),
        };
        given::<Equipment>([installed()])
            .when(plan(90))
            .then([planned(90, None)]);
        given::<Equipment>([installed(), planned(90, None)])
            .when(plan(30))
            .then([planned(30, Some(last))]);
    }

    #[test]
    fn inspections_are_planned_every_one_to_3650_days() {
        for every_days in [0, 3_651] {
            given::<Equipment>([installed()])
                .when(plan(every_days))
                .then_rejected(Rejection::IntervalOutOfRange(every_days));
        }
        given::<Equipment>([installed()])
            .when(plan(3_650))
            .then([planned(3_650, None)]);
    }

    #[test]
    fn one_machine_has_no_more_than_a_hundred_plans() {
        let many = (0..PLANS_MAX).map(|n| Event::InspectionsPlanned {
            checklist: format!("checklist {n}"),
            every_days: 30,
            first_due: date(2026, 4, 1),
            replaces: None,
        });
        given::<Equipment>([installed()].into_iter().chain(many))
            .when(plan(90))
            .then_rejected(Rejection::TooManyPlans);
    }

    #[test]
    fn the_same_intent_twice_gives_nothing_the_second_time() {
        given::<Equipment>([]).same_intent_twice(install_for(stranger("a")));
        let intents = [
            Command::Move {
                site: "彰化市".into()
            },
            Command::TransferOwner {
                to: stranger("b"),
                reason: "sold".into(),
            },
            report("主軸異音"),
            Command::Retire,
            plan(90),
        ];
        for intent in intents {
            given::<Equipment>([installed()]).same_intent_twice(intent);
        }
        broken_machine().same_intent_twice(Command::Restore);
    }
}
