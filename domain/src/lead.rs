//! A lead: somebody who might become a customer (線索; Lead).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::customer::{self, ContactKind, Customer};
use crate::interaction::Channel;
use crate::opportunity::Opportunity;
use crate::{Differing, History, Home, Id, Moment, Personal, Stream, StreamKind, StreamRef, same_beginning};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Captured {
        source: String,
        name: Personal<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        company: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        contact_points: Vec<ContactPoint>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        campaign: Option<String>,
    },
    Assigned {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_owner: Option<String>,
        owner: String,
        from: Status,
    },
    AttemptLogged {
        channel: Channel,
        outcome: String,
        from: Status,
    },
    Qualified {
        from: Status,
    },
    Converted {
        customer: Id<Customer>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opportunity: Option<Id<Opportunity>>,
        /// Where the lead came from, for the customer's own story begins here.
        source: String,
        from: Status,
    },
    Disqualified {
        reason: String,
        from: Status,
    },
    Recycled {
        /// Who had it until now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_owner: Option<String>,
        from: Status,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Begin a lead. Its contact points are kept as they came: a mistyped address is no reason to lose a lead.
    Capture {
        /// Where it came from: `fair`, `web`, `referral`.
        source: String,
        name: Personal<String>,
        company: Option<String>,
        #[serde(default)]
        contact_points: Vec<ContactPoint>,
        campaign: Option<String>,
    },
    Assign {
        owner: String,
    },
    /// We tried to reach them. Each attempt counts, also the same one again.
    LogAttempt {
        channel: Channel,
        outcome: String,
    },
    Qualify,
    /// They became this customer, perhaps with a deal. From any state but `disqualified`, and once.
    Convert {
        customer: Id<Customer>,
        opportunity: Option<Id<Opportunity>>,
    },
    Disqualify {
        reason: String,
    },
    /// Not now: back among the leads that nobody has, to be assigned again one day.
    Recycle,
}

/// A way to reach the lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContactPoint {
    pub kind: ContactKind,
    pub value: Personal<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("there is no such lead; capture it first")]
    NotCaptured,
    #[error("this lead is already captured with other data: {0}")]
    AlreadyCaptured(Differing),
    #[error("this lead is already disqualified, because: {0}; recycle it first")]
    DisqualifiedOtherwise(String),
    #[error("this lead has been {0} since {1}; that cannot be backdated")]
    OnlySince(&'static str, Timestamp),
    #[error("a lead needs a source")]
    SourceMissing,
    #[error("a lead needs a name")]
    NameMissing,
    #[error("a contact point is empty")]
    ContactPointEmpty,
    #[error("the owner is empty")]
    OwnerMissing,
    #[error("an attempt needs an outcome")]
    OutcomeMissing,
    #[error("a reason is needed")]
    ReasonMissing,
    #[error("lead is already converted")]
    AlreadyConverted,
    #[error("this lead is disqualified; recycle it first")]
    Disqualified,
    #[error(transparent)]
    Customer(#[from] customer::Unavailable),
}

/// A lead and its history, which reads as its latest card.
pub type State = History<Card>;

/// A lead as it stood at some time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Card {
    pub status: Status,
    pub source: String,
    pub name: Personal<String>,
    pub owner: Option<String>,
    /// What it was converted to.
    pub customer: Option<Id<Customer>>,
    pub opportunity: Option<Id<Opportunity>>,
    pub captured_at: Timestamp,
    pub attempts: u32,
    pub first_attempt_at: Option<Timestamp>,
    pub converted_at: Option<Timestamp>,
    pub disqualified_reason: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    #[default]
    NotCaptured,
    New,
    Assigned,
    Working,
    Qualified,
    Converted,
    Recycled,
    Disqualified,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::NotCaptured => "not captured",
            Status::New => "new",
            Status::Assigned => "assigned",
            Status::Working => "working",
            Status::Qualified => "qualified",
            Status::Converted => "converted",
            Status::Recycled => "recycled",
            Status::Disqualified => "disqualified",
        }
    }

    fn has_ended(self) -> bool {
        match self {
            Status::Converted | Status::Disqualified => true,
            Status::NotCaptured
            | Status::New
            | Status::Assigned
            | Status::Working
            | Status::Qualified
            | Status::Recycled => false,
        }
    }
}

impl Event {
    /// Whether the event begins, ends or renews the lead. Each such event is the cause of the next one.
    fn begins_or_ends(&self) -> bool {
        match self {
            Event::Captured { .. } | Event::Converted { .. } | Event::Disqualified { .. } | Event::Recycled { .. } => {
                true
            }
            Event::Assigned { .. } | Event::AttemptLogged { .. } | Event::Qualified { .. } => false,
        }
    }
}

impl crate::Card for Card {
    type Event = Event;

    fn is_cause(earlier: &Event, event: &Event) -> bool {
        event.begins_or_ends() && earlier.begins_or_ends()
    }

    /// A lead that has ended stands where it ended, whatever was entered earlier and is dated after the end.
    fn after(mut self, event: &Event, at: Timestamp) -> Card {
        let has_ended = self.status.has_ended();
        match event {
            Event::Captured { source, name, .. } => {
                self.status = Status::New;
                self.source = source.clone();
                self.name = name.clone();
                self.captured_at = at;
            }
            Event::Assigned { .. } | Event::Qualified { .. } if has_ended => {}
            Event::Assigned { owner, .. } => {
                self.owner = Some(owner.clone());
                // A lead that is handed over stands where it stood.
                if let Status::New | Status::Recycled = self.status {
                    self.status = Status::Assigned;
                }
            }
            Event::AttemptLogged { .. } => {
                self.attempts += 1;
                self.first_attempt_at = self.first_attempt_at.or(Some(at));
                if let Status::New | Status::Assigned | Status::Recycled = self.status {
                    self.status = Status::Working;
                }
            }
            Event::Qualified { .. } => self.status = Status::Qualified,
            Event::Converted {
                customer, opportunity, ..
            } => {
                self.status = Status::Converted;
                self.customer = Some(*customer);
                self.opportunity = *opportunity;
                self.converted_at = Some(at);
            }
            Event::Disqualified { reason, .. } => {
                self.status = Status::Disqualified;
                self.disqualified_reason = Some(reason.clone());
            }
            Event::Recycled { .. } => {
                self.status = Status::Recycled;
                self.owner = None;
                self.disqualified_reason = None;
            }
        }
        self
    }
}

#[derive(Debug)]
pub struct Lead;

impl Stream for Lead {
    const NAME: &'static str = "lead";
    const KIND: StreamKind = StreamKind::Lead;
    const BEGINS: &'static str = "capture";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    /// A lead is nobody's yet, so it has a slot of its own.
    fn home(_: &Command) -> Home {
        Home::Anywhere
    }

    fn companions(command: &Command) -> Vec<StreamRef> {
        match command {
            Command::Convert { customer, .. } => customer::companion(*customer),
            _ => vec![],
        }
    }

    /// Each command is decided on the lead as it stood at the command's own time.
    fn decide(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
        if let Command::Capture { .. } = command {
            return capture(state, command);
        }
        if state.status == Status::NotCaptured {
            return Err(Rejection::NotCaptured);
        }
        let time = match command {
            Command::Convert { .. } | Command::Disqualify { .. } | Command::Recycle => {
                state.not_before_cause(at.effective_at, Event::begins_or_ends)
            }
            _ => state.not_before_beginning(at.effective_at),
        };
        let card = &*state.at(time);
        match (card.status, &command) {
            (Status::Converted, Command::Convert { .. }) => {}
            (Status::Converted, _) => return Err(Rejection::AlreadyConverted),
            (Status::Disqualified, Command::Disqualify { .. } | Command::Recycle) => {}
            (Status::Disqualified, _) => return Err(Rejection::Disqualified),
            (Status::NotCaptured | Status::New | Status::Assigned | Status::Working, _)
            | (Status::Qualified | Status::Recycled, _) => {}
        }
        let from = card.status;
        Ok(match command {
            Command::Capture { .. } => unreachable!("decided above"),
            Command::Assign { owner } if owner.trim().is_empty() => return Err(Rejection::OwnerMissing),
            Command::Assign { owner } if card.owner.as_ref() == Some(&owner) => vec![],
            Command::Assign { owner } => vec![Event::Assigned {
                from_owner: card.owner.clone(),
                owner,
                from,
            }],
            Command::LogAttempt { outcome, .. } if outcome.trim().is_empty() => return Err(Rejection::OutcomeMissing),
            Command::LogAttempt { channel, outcome } => vec![Event::AttemptLogged { channel, outcome, from }],
            Command::Qualify if card.status == Status::Qualified => vec![],
            Command::Qualify => vec![Event::Qualified { from }],
            Command::Convert { customer, opportunity } if card.status == Status::Converted => {
                let same = card.customer == Some(customer) && card.opportunity == opportunity;
                if !same {
                    return Err(Rejection::AlreadyConverted);
                }
                already_so(state, card, at)?;
                vec![]
            }
            Command::Convert { customer, opportunity } => {
                customer::must_be_open(customer, at)?;
                vec![Event::Converted {
                    customer,
                    opportunity,
                    source: card.source.clone(),
                    from,
                }]
            }
            Command::Disqualify { reason } if reason.trim().is_empty() => return Err(Rejection::ReasonMissing),
            Command::Disqualify { reason } if card.status == Status::Disqualified => {
                match &card.disqualified_reason {
                    Some(known) if *known != reason => return Err(Rejection::DisqualifiedOtherwise(known.clone())),
                    _ => already_so(state, card, at)?,
                }
                vec![]
            }
            Command::Disqualify { reason } => vec![Event::Disqualified { reason, from }],
            Command::Recycle if card.status == Status::Recycled => {
                already_so(state, card, at)?;
                vec![]
            }
            Command::Recycle => vec![Event::Recycled {
                from_owner: card.owner.clone(),
                from,
            }],
        })
    }

    /// No command changes what was captured.
    fn upsert(state: &State, command: Command, _: &Moment<'_>) -> Vec<Command> {
        let (
            Command::Capture {
                source,
                name,
                company,
                contact_points,
                campaign,
            },
            Some(Event::Captured {
                company: known_company,
                contact_points: known_points,
                campaign: known_campaign,
                ..
            }),
        ) = (&command, state.begun())
        else {
            return vec![command];
        };
        let points = if contact_points.is_empty() {
            known_points
        } else {
            contact_points
        };
        vec![Command::Capture {
            source: source.clone(),
            name: name.clone(),
            company: company.clone().or_else(|| known_company.clone()),
            contact_points: points.clone(),
            campaign: campaign.clone().or_else(|| known_campaign.clone()),
        }]
    }

    fn evolve(state: State, event: &Event, at: Timestamp) -> State {
        state.record(event, at)
    }

    fn customer(state: &State) -> Option<Uuid> {
        customer::routing(&state.customer)
    }
}

fn capture(state: &State, command: Command) -> Result<Vec<Event>, Rejection> {
    let Command::Capture {
        source,
        name,
        company,
        contact_points,
        campaign,
    } = command
    else {
        unreachable!("only capture captures");
    };
    let is_sourceless = source.trim().is_empty();
    let is_nameless = name.is_blank();
    let has_empty_points = contact_points.iter().any(|point| point.value.is_blank());
    let captured = Event::Captured {
        source,
        name,
        company,
        contact_points,
        campaign,
    };
    if state.status != Status::NotCaptured {
        same_beginning(state.begun(), &captured, &[]).map_err(Rejection::AlreadyCaptured)?;
        return Ok(vec![]);
    }
    if is_sourceless {
        return Err(Rejection::SourceMissing);
    }
    if is_nameless {
        return Err(Rejection::NameMissing);
    }
    if has_empty_points {
        return Err(Rejection::ContactPointEmpty);
    }
    Ok(vec![captured])
}

/// "Already so" holds at the command's own time, too: who says that it was so earlier is told since when it is.
fn already_so(state: &State, card: &Card, at: &Moment<'_>) -> Result<(), Rejection> {
    let was_so = state.at(at.effective_at).status == card.status;
    if was_so || at.effective_at == at.now {
        return Ok(());
    }
    let since = state.not_before_cause(Timestamp::MIN, Event::begins_or_ends);
    Err(Rejection::OnlySince(card.status.name(), since))
}

#[cfg(test)]
mod specs {
    use super::*;
    use crate::spec::{folded, given, given_at, moment, neighbour, stranger};

    fn capture() -> Command {
        Command::Capture {
            source: "fair".into(),
            name: "王小明".into(),
            company: Some("大同精密".into()),
            contact_points: vec![ContactPoint {
                kind: ContactKind::Phone,
                value: "02-2345-6789".into(),
            }],
            campaign: Some("timtos-2026".into()),
        }
    }

    fn captured() -> Event {
        Event::Captured {
            source: "fair".into(),
            name: "王小明".into(),
            company: Some("大同精密".into()),
            contact_points: vec![ContactPoint {
                kind: ContactKind::Phone,
                value: "02-2345-6789".into(),
            }],
            campaign: Some("timtos-2026".into()),
        }
    }

    fn assigned() -> Event {
        Event::Assigned {
            from_owner: None,
            owner: "mei".into(),
            from: Status::New,
        }
    }

    fn attempt() -> Command {
        Command::LogAttempt {
            channel: Channel::Phone,
            outcome: "no answer".into(),
        }
    }

    fn attempted(from: Status) -> Event {
        Event::AttemptLogged {
            channel: Channel::Phone,
            outcome: "no answer".into(),
            from,
        }
    }

    fn convert() -> Command {
        Command::Convert {
            customer: neighbour("a"),
            opportunity: Some(neighbour("deal")),
        }
    }

    fn converted(from: Status) -> Event {
        Event::Converted {
            customer: neighbour("a"),
            opportunity: Some(neighbour("deal")),
            source: "fair".into(),
            from,
        }
    }

    fn disqualified(from: Status) -> Event {
        Event::Disqualified {
            reason: "no budget".into(),
            from,
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
        folded::<Lead>(events).status
    }

    #[test]
    fn a_lead_is_captured_once() {
        given::<Lead>([]).when(capture()).then([captured()]);
        given::<Lead>([captured()])
            .when(Command::Capture {
                source: "web".into(),
                name: "林小姐".into(),
                company: None,
                contact_points: vec![],
                campaign: None,
            })
            .then_rejected(Rejection::AlreadyCaptured(Differing(
                ["campaign", "company", "contact_points", "name", "source"]
                    .map(str::to_owned)
                    .to_vec(),
            )));
    }

    const MONDAY: &str = "2026-02-02T09:00:00+08:00";
    const TUESDAY: &str = "2026-02-03T09:00:00+08:00";
    const FRIDAY: &str = "2026-02-06T09:00:00+08:00";

    #[test]
    fn a_late_entry_changes_only_the_days_until_the_next_one() {
        let to_jun = Event::Assigned {
            from_owner: None,
            owner: "jun".into(),
            from: Status::New,
        };
        let lead = || given_at::<Lead>([(MONDAY, captured()), (FRIDAY, assigned()), (TUESDAY, to_jun.clone())]);
        let assign = |owner: &str| Command::Assign { owner: owner.into() };
        lead().when(assign("mei")).then_nothing();
        lead().effective(TUESDAY).when(assign("jun")).then_nothing();
        lead().when(assign("jun")).then([Event::Assigned {
            from_owner: Some("mei".into()),
            owner: "jun".into(),
            from: Status::Assigned,
        }]);
    }

    #[test]
    fn a_lead_is_not_recycled_before_it_was_disqualified() {
        let recycled = Event::Recycled {
            from_owner: None,
            from: Status::Disqualified,
        };
        let lead = State::default()
            .record(&captured(), moment(MONDAY))
            .record(&disqualified(Status::New), moment(FRIDAY))
            .record(&recycled, moment(TUESDAY));
        assert_eq!(lead.status, Status::Recycled);
    }

    #[test]
    fn another_reason_for_a_disqualified_lead_is_not_dropped_in_silence() {
        given::<Lead>([captured(), disqualified(Status::New)])
            .when(Command::Disqualify {
                reason: "moved away".into(),
            })
            .then_rejected(Rejection::DisqualifiedOtherwise("no budget".into()));
    }

    #[test]
    fn a_lead_needs_a_source_and_a_name_and_contact_points_that_say_something() {
        let capture = |source: &str, name: &str, phone: &str| Command::Capture {
            source: source.into(),
            name: name.into(),
            company: None,
            contact_points: vec![ContactPoint {
                kind: ContactKind::Phone,
                value: phone.into(),
            }],
            campaign: None,
        };
        let refused = |command, rejection| given::<Lead>([]).when(command).then_rejected(rejection);
        refused(capture(" ", "王小明", "02"), Rejection::SourceMissing);
        refused(capture("fair", " ", "02"), Rejection::NameMissing);
        refused(capture("fair", "王小明", " "), Rejection::ContactPointEmpty);
    }

    #[test]
    fn nothing_happens_to_a_lead_that_nobody_captured() {
        given::<Lead>([])
            .when(Command::Qualify)
            .then_rejected(Rejection::NotCaptured);
    }

    #[test]
    fn every_attempt_counts_and_the_first_makes_a_lead_worked() {
        given::<Lead>([captured()])
            .when(attempt())
            .then([attempted(Status::New)]);
        given::<Lead>([captured(), attempted(Status::New)])
            .when(attempt())
            .then([attempted(Status::Working)]);
        assert_eq!(status_after(&[captured(), attempted(Status::New)]), Status::Working);
    }

    #[test]
    fn a_worked_lead_that_is_handed_over_is_still_worked() {
        let handed_over = Event::Assigned {
            from_owner: Some("mei".into()),
            owner: "jun".into(),
            from: Status::Working,
        };
        let before = [captured(), assigned(), attempted(Status::Assigned)];
        given::<Lead>(before.clone())
            .when(Command::Assign { owner: "jun".into() })
            .then([handed_over.clone()]);
        let after = [captured(), assigned(), attempted(Status::Assigned), handed_over];
        assert_eq!(status_after(&after), Status::Working);
    }

    #[test]
    fn a_lead_is_converted_to_a_customer_that_is_open() {
        let customer = neighbour("a");
        given::<Lead>([captured()])
            .with(customer, active())
            .when(convert())
            .then([converted(Status::New)]);
        given::<Lead>([captured()])
            .when(convert())
            .then_rejected(customer::Unavailable::NotRegistered(customer).into());
    }

    #[test]
    fn a_customer_of_another_slot_is_a_reference_that_cannot_be_checked() {
        given::<Lead>([captured()])
            .when(Command::Convert {
                customer: stranger("b"),
                opportunity: None,
            })
            .then([Event::Converted {
                customer: stranger("b"),
                opportunity: None,
                source: "fair".into(),
                from: Status::New,
            }]);
    }

    #[test]
    fn a_lead_is_converted_once() {
        let after = || given::<Lead>([captured(), converted(Status::New)]);
        after().when(convert()).then_nothing();
        after()
            .when(Command::Convert {
                customer: neighbour("a"),
                opportunity: None,
            })
            .then_rejected(Rejection::AlreadyConverted);
        after()
            .when(Command::Recycle)
            .then_rejected(Rejection::AlreadyConverted);
    }

    #[test]
    fn a_converted_lead_belongs_to_its_customer() {
        let state = folded::<Lead>(&[captured(), converted(Status::New)]);
        assert_eq!(Lead::customer(&state), Some(neighbour::<Customer>("a").uuid()));
    }

    #[test]
    fn a_disqualified_lead_is_recycled_before_anything_else() {
        let after = || given::<Lead>([captured(), assigned(), disqualified(Status::Assigned)]);
        after().when(convert()).then_rejected(Rejection::Disqualified);
        after().when(attempt()).then_rejected(Rejection::Disqualified);
        after().when(Command::Recycle).then([Event::Recycled {
            from_owner: Some("mei".into()),
            from: Status::Disqualified,
        }]);
    }

    #[test]
    fn a_recycled_lead_is_nobodys_until_it_is_assigned_again() {
        let recycled = Event::Recycled {
            from_owner: Some("mei".into()),
            from: Status::Disqualified,
        };
        given::<Lead>([captured(), assigned(), disqualified(Status::Assigned), recycled])
            .when(Command::Assign { owner: "mei".into() })
            .then([Event::Assigned {
                from_owner: None,
                owner: "mei".into(),
                from: Status::Recycled,
            }]);
    }

    #[test]
    fn the_same_intent_twice_gives_nothing_the_second_time() {
        given::<Lead>([]).same_intent_twice(capture());
        let intents = [
            Command::Assign { owner: "mei".into() },
            Command::Qualify,
            convert(),
            Command::Disqualify {
                reason: "no budget".into(),
            },
            Command::Recycle,
        ];
        for intent in intents {
            given::<Lead>([captured()])
                .with(neighbour::<Customer>("a"), active())
                .same_intent_twice(intent);
        }
    }
}
