//! An interaction: one contact with a customer, in or out, on any channel (接觸; EmailMessage, VoiceCall, engagement).
//!
//! Append-only: what was recorded stays, and a correction is a fact of its own. It puts the record right, and a record has no
//! times between which it was wrong: of several corrections the last recorded one counts, whatever their times say.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::customer::{self, Customer};
use crate::{
    Companion, Differing, Home, Id, Identity, Moment, Personal, Stream, StreamKind, StreamRef, UPSERT_REASON,
    id_beside, same_beginning,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Recorded {
        customer: Id<Customer>,
        channel: Channel,
        direction: Direction,
        subject: Personal<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<Personal<String>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        provider_id: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        about: Vec<Uuid>,
    },
    Corrected {
        /// The version of the stream whose content is corrected.
        of: u64,
        /// What stood in the fields until now.
        from: Fields,
        /// Only the fields that differ.
        fields: Fields,
        reason: String,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Record a contact. With a `provider_id` (a message id, a call id) it is recorded once per customer and channel, however
    /// often the provider delivers it.
    Record {
        customer: Id<Customer>,
        channel: Channel,
        direction: Direction,
        subject: Personal<String>,
        body: Option<Personal<String>>,
        provider_id: Option<String>,
        /// The deals, cases, equipment … that it was about.
        #[serde(default)]
        about: Vec<Uuid>,
    },
    /// Put `fields` right; a field that is left out stays as it is.
    Correct { fields: Fields, reason: String },
}

/// How a customer and the company meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    Phone,
    Email,
    Line,
    Web,
    Face,
    Fax,
    Letter,
    Store,
    Other,
}

impl Channel {
    /// The name in JSON, and in the id of an interaction with a provider id: it never changes.
    pub fn name(self) -> &'static str {
        match self {
            Channel::Phone => "phone",
            Channel::Email => "email",
            Channel::Line => "line",
            Channel::Web => "web",
            Channel::Face => "face",
            Channel::Fax => "fax",
            Channel::Letter => "letter",
            Channel::Store => "store",
            Channel::Other => "other",
        }
    }
}

/// Who began it: `in` the customer, `out` the company.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    In,
    Out,
}

/// The part of an interaction that can be put right.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Personal<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Personal<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<Vec<Uuid>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("there is no such interaction; record it first")]
    NotRecorded,
    #[error("this interaction is already recorded with other data: {0}; use correct to change it")]
    AlreadyRecorded(Differing),
    #[error("an interaction needs a subject")]
    SubjectMissing,
    #[error("the provider id is empty; leave it out when there is none")]
    ProviderIdEmpty,
    #[error("a correction needs at least one field")]
    NothingToCorrect,
    #[error("a reason is needed")]
    ReasonMissing,
    #[error(transparent)]
    Customer(#[from] customer::Unavailable),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    pub version: u64,
    pub customer: Option<Id<Customer>>,
    pub provider_id: Option<String>,
    /// What stands.
    pub current: Content,
    /// What was recorded at first, once that is no longer what stands: a provider delivers it again unchanged.
    pub original: Option<Content>,
}

/// What an interaction says; every field is known once it is recorded, except a body that it does not have.
pub type Content = Fields;

#[derive(Debug)]
pub struct Interaction;

impl Stream for Interaction {
    const NAME: &'static str = "interaction";
    const KIND: StreamKind = StreamKind::Interaction;
    const BEGINS: &'static str = "record";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn home(command: &Command) -> Home {
        match command {
            Command::Record {
                customer,
                channel,
                provider_id: Some(provider_id),
                ..
            } => Home::Exactly(identity(*customer, *channel, provider_id).id),
            Command::Record { customer, .. } => Home::With(customer.uuid()),
            Command::Correct { .. } => Home::Anywhere,
        }
    }

    fn companions(command: &Command) -> Vec<StreamRef> {
        match command {
            Command::Record {
                customer,
                channel,
                provider_id,
                ..
            } => {
                let mut companions = customer::companion(*customer);
                let former = provider_id.as_ref().and_then(|id| former(*customer, *channel, id));
                companions.extend(former.map(StreamRef::of));
                companions
            }
            Command::Correct { .. } => vec![],
        }
    }

    fn former(command: &Command) -> Option<Uuid> {
        match command {
            Command::Record {
                customer,
                channel,
                provider_id: Some(id),
                ..
            } => former(*customer, *channel, id).map(Id::uuid),
            Command::Record { provider_id: None, .. } | Command::Correct { .. } => None,
        }
    }

    fn decide(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Record { .. } => record(recorded_before(&command, at).unwrap_or(state), command, at),
            Command::Correct { .. } if state.customer.is_none() => Err(Rejection::NotRecorded),
            Command::Correct { fields, reason } => correct(state, fields, reason),
        }
    }

    /// The customer and the provider's id are its identity.
    fn upsert(state: &State, command: Command, _: &Moment<'_>) -> Vec<Command> {
        let Command::Record {
            customer,
            channel,
            direction,
            subject,
            body,
            provider_id,
            about,
        } = &command
        else {
            return vec![command];
        };
        let is_it = Some(*customer) == state.customer && (provider_id.is_none() || *provider_id == state.provider_id);
        if !is_it {
            return vec![command];
        }
        vec![Command::Correct {
            fields: Fields {
                channel: Some(*channel),
                direction: Some(*direction),
                subject: Some(subject.clone()),
                body: body.clone(),
                about: Some(about.clone()).filter(|about| !about.is_empty()),
            },
            reason: UPSERT_REASON.to_owned(),
        }]
    }

    fn evolve(mut state: State, event: &Event, _: Timestamp) -> State {
        state.version += 1;
        match event {
            Event::Recorded {
                customer,
                channel,
                direction,
                subject,
                body,
                provider_id,
                about,
            } => {
                state.customer = Some(*customer);
                state.provider_id = provider_id.clone();
                state.current = Content {
                    channel: Some(*channel),
                    direction: Some(*direction),
                    subject: Some(subject.clone()),
                    body: body.clone(),
                    about: Some(about.clone()),
                };
            }
            Event::Corrected { fields, .. } => {
                let stood = state.current.clone();
                state.original.get_or_insert(stood);
                state.current.put(fields.clone());
            }
        }
        state
    }

    fn customer(state: &State) -> Option<Uuid> {
        customer::routing(&state.customer)
    }
}

/// What a provider sends again is the same interaction; the same mail to another customer is another one.
fn identity(customer: Id<Customer>, channel: Channel, provider_id: &str) -> Identity {
    id_beside(Interaction::NAME, customer.uuid(), &[channel.name(), provider_id])
}

fn former(customer: Id<Customer>, channel: Channel, provider_id: &str) -> Option<Id<Interaction>> {
    identity(customer, channel, provider_id).former.map(Id::new)
}

/// The state of this interaction, when it was recorded under the id that left the customer out.
fn recorded_before<'a>(command: &Command, at: &Moment<'a>) -> Option<&'a State> {
    let Command::Record {
        customer,
        channel,
        provider_id: Some(provider_id),
        ..
    } = command
    else {
        return None;
    };
    match at.state_of(former(*customer, *channel, provider_id)?) {
        Companion::Known(state) if state.customer == Some(*customer) => Some(state),
        Companion::Known(_) | Companion::Elsewhere => None,
    }
}

fn record(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    let Command::Record {
        customer,
        channel,
        direction,
        subject,
        body,
        provider_id,
        about,
    } = command
    else {
        unreachable!("only record records");
    };
    let recorded = Event::Recorded {
        customer,
        channel,
        direction,
        subject,
        body,
        provider_id,
        about,
    };
    if state.customer.is_some() {
        // Whoever sends what stands after a correction has nothing to add.
        let stands = same_beginning(state.as_recorded(&state.current).as_ref(), &recorded, &[]);
        let original = state.original.as_ref().unwrap_or(&state.current);
        let came = same_beginning(state.as_recorded(original).as_ref(), &recorded, &[]);
        return stands.or(came).map(|()| vec![]).map_err(Rejection::AlreadyRecorded);
    }
    let Event::Recorded {
        subject, provider_id, ..
    } = &recorded
    else {
        unreachable!("it was just made");
    };
    if subject.is_blank() {
        return Err(Rejection::SubjectMissing);
    }
    if provider_id.as_ref().is_some_and(|id| id.trim().is_empty()) {
        return Err(Rejection::ProviderIdEmpty);
    }
    customer::must_be_open(customer, at)?;
    Ok(vec![recorded])
}

impl State {
    /// The event that would have recorded this content.
    fn as_recorded(&self, content: &Content) -> Option<Event> {
        Some(Event::Recorded {
            customer: self.customer?,
            channel: content.channel?,
            direction: content.direction?,
            subject: content.subject.clone()?,
            body: content.body.clone(),
            provider_id: self.provider_id.clone(),
            about: content.about.clone()?,
        })
    }
}

fn correct(state: &State, fields: Fields, reason: String) -> Result<Vec<Event>, Rejection> {
    if fields == Fields::default() {
        return Err(Rejection::NothingToCorrect);
    }
    if reason.trim().is_empty() {
        return Err(Rejection::ReasonMissing);
    }
    if fields.subject.as_ref().is_some_and(Personal::is_blank) {
        return Err(Rejection::SubjectMissing);
    }
    let fields = fields.that_differ_from(&state.current);
    if fields == Fields::default() {
        return Ok(vec![]);
    }
    Ok(vec![Event::Corrected {
        of: state.version,
        from: state.current.where_given(&fields),
        fields,
        reason,
    }])
}

impl Fields {
    fn put(&mut self, fields: Fields) {
        let Fields {
            channel,
            direction,
            subject,
            body,
            about,
        } = fields;
        self.channel = channel.or(self.channel);
        self.direction = direction.or(self.direction);
        self.subject = subject.or(self.subject.take());
        self.body = body.or(self.body.take());
        self.about = about.or(self.about.take());
    }

    fn that_differ_from(self, other: &Fields) -> Fields {
        Fields {
            channel: self.channel.filter(|_| self.channel != other.channel),
            direction: self.direction.filter(|_| self.direction != other.direction),
            subject: self.subject.filter(|it| Some(it) != other.subject.as_ref()),
            body: self.body.filter(|it| Some(it) != other.body.as_ref()),
            about: self.about.filter(|it| Some(it) != other.about.as_ref()),
        }
    }

    /// Our values of the fields that `given` has.
    fn where_given(&self, given: &Fields) -> Fields {
        Fields {
            channel: self.channel.filter(|_| given.channel.is_some()),
            direction: self.direction.filter(|_| given.direction.is_some()),
            subject: self.subject.clone().filter(|_| given.subject.is_some()),
            body: self.body.clone().filter(|_| given.body.is_some()),
            about: self.about.clone().filter(|_| given.about.is_some()),
        }
    }
}

#[cfg(test)]
mod specs {
    use super::*;
    use crate::spec::{folded, given, neighbour};
    use crate::{slot_of, variants};

    fn record() -> Command {
        Command::Record {
            customer: neighbour("a"),
            channel: Channel::Email,
            direction: Direction::In,
            subject: "主軸異音".into(),
            body: Some("請儘快回覆".into()),
            provider_id: Some("<1@mail.tw>".into()),
            about: vec![],
        }
    }

    fn recorded() -> Event {
        Event::Recorded {
            customer: neighbour("a"),
            channel: Channel::Email,
            direction: Direction::In,
            subject: "主軸異音".into(),
            body: Some("請儘快回覆".into()),
            provider_id: Some("<1@mail.tw>".into()),
            about: vec![],
        }
    }

    fn correct_direction() -> Command {
        Command::Correct {
            fields: Fields {
                channel: Some(Channel::Email),
                direction: Some(Direction::Out),
                ..Fields::default()
            },
            reason: "wrong folder".into(),
        }
    }

    fn direction_corrected() -> Event {
        Event::Corrected {
            of: 1,
            from: Fields {
                direction: Some(Direction::In),
                ..Fields::default()
            },
            fields: Fields {
                direction: Some(Direction::Out),
                ..Fields::default()
            },
            reason: "wrong folder".into(),
        }
    }

    fn active() -> customer::State {
        customer::Card {
            status: customer::Status::Active,
            ..Default::default()
        }
        .into()
    }

    #[test]
    fn a_contact_is_recorded_with_a_customer_that_is_open() {
        let customer = neighbour("a");
        given::<Interaction>([])
            .with(customer, active())
            .when(record())
            .then([recorded()]);
        given::<Interaction>([])
            .when(record())
            .then_rejected(customer::Unavailable::NotRegistered(customer).into());
    }

    #[test]
    fn a_provider_id_is_one_interaction_per_channel_in_the_slot_of_the_customer() {
        let home = |channel, provider_id: Option<&str>| {
            Interaction::home(&Command::Record {
                customer: neighbour("a"),
                channel,
                direction: Direction::In,
                subject: "主軸異音".into(),
                body: None,
                provider_id: provider_id.map(str::to_owned),
                about: vec![],
            })
        };
        let Home::Exactly(id) = home(Channel::Phone, Some("7")) else {
            panic!("a provider id is a key")
        };
        assert_eq!(slot_of(id), neighbour::<Customer>("a").slot());
        assert_eq!(home(Channel::Phone, Some("7")), Home::Exactly(id));
        assert_ne!(home(Channel::Line, Some("7")), Home::Exactly(id));
        assert_eq!(
            home(Channel::Phone, None),
            Home::With(neighbour::<Customer>("a").uuid())
        );
    }

    #[test]
    fn one_mail_to_two_customers_of_a_slot_is_two_interactions() {
        let home = |customer| {
            let Command::Record {
                channel,
                direction,
                subject,
                body,
                provider_id,
                about,
                ..
            } = record()
            else {
                unreachable!()
            };
            Interaction::home(&Command::Record {
                customer: neighbour(customer),
                channel,
                direction,
                subject,
                body,
                provider_id,
                about,
            })
        };
        assert_eq!(home("a"), home("a"));
        assert_ne!(home("a"), home("b"));
    }

    #[test]
    fn a_message_that_was_recorded_while_its_id_left_the_customer_out_is_met_again() {
        let former = former(neighbour("a"), Channel::Email, "<1@mail.tw>").unwrap();
        let before = folded::<Interaction>([&recorded()]);
        given::<Interaction>([])
            .with(former, before.clone())
            .when(record())
            .then_nothing();
        let mut of_another = before;
        of_another.customer = Some(neighbour("b"));
        given::<Interaction>([])
            .with(former, of_another)
            .with(neighbour::<Customer>("a"), active())
            .when(record())
            .then([recorded()]);
    }

    #[test]
    fn a_channel_is_called_the_same_in_ids_and_in_json() {
        let channels: Vec<Channel> = variants::<Channel>()
            .iter()
            .map(|name| serde_json::from_str(&format!("\"{name}\"")).unwrap())
            .collect();
        let names: Vec<&str> = channels.iter().map(|channel| channel.name()).collect();
        assert_eq!(names, variants::<Channel>());
    }

    #[test]
    fn a_correction_tells_what_differs_and_what_stood() {
        given::<Interaction>([recorded()])
            .when(correct_direction())
            .then([direction_corrected()]);
    }

    #[test]
    fn a_message_delivered_again_after_a_correction_is_still_the_same_message() {
        given::<Interaction>([recorded(), direction_corrected()])
            .when(record())
            .then_nothing();
        let Command::Record {
            customer,
            channel,
            subject,
            body,
            provider_id,
            about,
            ..
        } = record()
        else {
            unreachable!()
        };
        // So is the message as it stands now.
        let corrected = Command::Record {
            customer,
            channel,
            direction: Direction::Out,
            subject,
            body,
            provider_id,
            about,
        };
        given::<Interaction>([recorded(), direction_corrected()])
            .when(corrected)
            .then_nothing();
    }

    #[test]
    fn another_message_under_the_same_provider_id_is_refused() {
        let Command::Record {
            customer,
            channel,
            direction,
            provider_id,
            ..
        } = record()
        else {
            unreachable!()
        };
        let other = Command::Record {
            customer,
            channel,
            direction,
            subject: "報價".into(),
            body: None,
            provider_id,
            about: vec![],
        };
        given::<Interaction>([recorded()])
            .when(other)
            .then_rejected(Rejection::AlreadyRecorded(Differing(vec![
                "body".into(),
                "subject".into(),
            ])));
    }

    #[test]
    fn a_correction_needs_a_field_and_a_reason() {
        given::<Interaction>([recorded()])
            .when(Command::Correct {
                fields: Fields::default(),
                reason: "typo".into(),
            })
            .then_rejected(Rejection::NothingToCorrect);
        given::<Interaction>([recorded()])
            .when(Command::Correct {
                fields: Fields {
                    subject: Some("報價".into()),
                    ..Fields::default()
                },
                reason: " ".into(),
            })
            .then_rejected(Rejection::ReasonMissing);
    }

    #[test]
    fn nothing_is_corrected_that_nobody_recorded() {
        given::<Interaction>([])
            .when(correct_direction())
            .then_rejected(Rejection::NotRecorded);
    }

    #[test]
    fn the_same_intent_twice_gives_nothing_the_second_time() {
        given::<Interaction>([])
            .with(neighbour::<Customer>("a"), active())
            .same_intent_twice(record());
        given::<Interaction>([recorded()]).same_intent_twice(correct_direction());
        given::<Interaction>([recorded()]).same_intent_twice(Command::Correct {
            fields: Fields {
                body: Some("已回覆".into()),
                about: Some(vec![neighbour::<Customer>("b").uuid()]),
                ..Fields::default()
            },
            reason: "scan was cut off".into(),
        });
    }
}
