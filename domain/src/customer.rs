//! A customer: an organisation or a person (客戶; Account, person account).

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Companion, Id, Moment, Personal, Stream, StreamKind, StreamRef};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Registered {
        kind: Kind,
        name: Personal<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        country: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        locale: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        external: Vec<ExternalKey>,
    },
    Renamed {
        from: Personal<String>,
        to: Personal<String>,
    },
    ContactPointSet {
        kind: ContactKind,
        value: Personal<String>,
        primary: bool,
    },
    OwnerAssigned {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        to: String,
    },
    GradeSet {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        to: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    Closed,
    Reopened,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Begin a customer. `external` are its keys in other systems: `{"key": [source, key]}` then finds it.
    Register {
        kind: Kind,
        name: Personal<String>,
        /// ISO 3166 code or the name that the source uses.
        country: Option<String>,
        /// `zh-TW` or `en`.
        locale: Option<String>,
        #[serde(default)]
        external: Vec<ExternalKey>,
    },
    Rename {
        name: Personal<String>,
    },
    /// Set an e-mail address, telephone number, LINE id or address. A new primary one takes the place of the last.
    SetContactPoint {
        kind: ContactKind,
        value: Personal<String>,
        #[serde(default)]
        primary: bool,
    },
    AssignOwner {
        owner: String,
    },
    SetGrade {
        grade: String,
        reason: Option<String>,
    },
    /// No more business: only `reopen` is accepted after it.
    Close,
    Reopen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Organisation,
    Person,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ContactKind {
    Email,
    Phone,
    Line,
    Address,
}

/// The customer's key in another system: an ERP customer number, a member card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalKey {
    pub source: String,
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("this customer is already registered with other data; use rename and the other commands to change it")]
    AlreadyRegistered,
    #[error("a customer needs a name")]
    NameMissing,
    #[error("the value is no e-mail address")]
    NotAnEmail,
    #[error("the contact point is empty")]
    ContactPointEmpty,
    #[error("the {0} is empty")]
    Empty(&'static str),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why nothing can be done for a customer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    #[error("there is no customer {0}")]
    NotRegistered(Id<Customer>),
    #[error("customer {0} is closed; reopen it first")]
    Closed(Id<Customer>),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    pub status: Status,
    pub name: Personal<String>,
    pub kind: Option<Kind>,
    pub owner: Option<String>,
    pub grade: Option<String>,
    /// Each contact point and whether it is the primary one of its kind.
    pub contact_points: BTreeMap<ContactKind, Vec<(Personal<String>, bool)>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    #[default]
    NotRegistered,
    Active,
    Closed,
}

#[derive(Debug)]
pub struct Customer;

impl Stream for Customer {
    const NAME: &'static str = "customer";
    const KIND: StreamKind = StreamKind::Customer;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
        if let Command::Register {
            kind,
            name,
            country,
            locale,
            external,
        } = command
        {
            return register(state, kind, name, country, locale, external);
        }
        let id = Id::new(at.id);
        match (state.status, &command) {
            (Status::NotRegistered, _) => return Err(Unavailable::NotRegistered(id).into()),
            (Status::Closed, Command::Reopen | Command::Close) | (Status::Active, _) => {}
            (Status::Closed, _) => return Err(Unavailable::Closed(id).into()),
        }
        Ok(match command {
            Command::Register { .. } => unreachable!("answered above"),
            Command::Rename { name } if name.is_blank() => return Err(Rejection::NameMissing),
            Command::Rename { name } if name == state.name => vec![],
            Command::Rename { name } => vec![Event::Renamed {
                from: state.name.clone(),
                to: name,
            }],
            Command::SetContactPoint { kind, value, primary } => set_contact_point(state, kind, value, primary)?,
            Command::AssignOwner { owner } if owner.trim().is_empty() => return Err(Rejection::Empty("owner")),
            Command::AssignOwner { owner } if state.owner.as_ref() == Some(&owner) => vec![],
            Command::AssignOwner { owner } => vec![Event::OwnerAssigned {
                from: state.owner.clone(),
                to: owner,
            }],
            Command::SetGrade { grade, .. } if grade.trim().is_empty() => return Err(Rejection::Empty("grade")),
            Command::SetGrade { grade, .. } if state.grade.as_ref() == Some(&grade) => vec![],
            Command::SetGrade { grade, reason } => {
                vec![Event::GradeSet {
                    from: state.grade.clone(),
                    to: grade,
                    reason,
                }]
            }
            Command::Close if state.status == Status::Closed => vec![],
            Command::Close => vec![Event::Closed],
            Command::Reopen if state.status == Status::Active => vec![],
            Command::Reopen => vec![Event::Reopened],
        })
    }

    fn evolve(mut state: State, event: &Event, _: Timestamp) -> State {
        match event {
            Event::Registered { kind, name, .. } => {
                state.status = Status::Active;
                state.kind = Some(*kind);
                state.name = name.clone();
            }
            Event::Renamed { to, .. } => state.name = to.clone(),
            Event::ContactPointSet { kind, value, primary } => {
                let points = state.contact_points.entry(*kind).or_default();
                points.retain(|(known, _)| known != value);
                if *primary {
                    points.iter_mut().for_each(|(_, is_primary)| *is_primary = false);
                }
                points.push((value.clone(), *primary));
            }
            Event::OwnerAssigned { to, .. } => state.owner = Some(to.clone()),
            Event::GradeSet { to, .. } => state.grade = Some(to.clone()),
            Event::Closed => state.status = Status::Closed,
            Event::Reopened => state.status = Status::Active,
        }
        state
    }
}

fn register(
    state: &State,
    kind: Kind,
    name: Personal<String>,
    country: Option<String>,
    locale: Option<String>,
    external: Vec<ExternalKey>,
) -> Result<Vec<Event>, Rejection> {
    if name.is_blank() {
        return Err(Rejection::NameMissing);
    }
    if state.status != Status::NotRegistered {
        let same = state.kind == Some(kind) && state.name == name;
        return if same {
            Ok(vec![])
        } else {
            Err(Rejection::AlreadyRegistered)
        };
    }
    Ok(vec![Event::Registered {
        kind,
        name,
        country,
        locale,
        external,
    }])
}

fn set_contact_point(
    state: &State,
    kind: ContactKind,
    value: Personal<String>,
    primary: bool,
) -> Result<Vec<Event>, Rejection> {
    if value.is_blank() {
        return Err(Rejection::ContactPointEmpty);
    }
    if kind == ContactKind::Email && !looks_like_email(value.reveal()) {
        return Err(Rejection::NotAnEmail);
    }
    let known = state
        .contact_points
        .get(&kind)
        .is_some_and(|points| points.contains(&(value.clone(), primary)));
    Ok(if known {
        vec![]
    } else {
        vec![Event::ContactPointSet { kind, value, primary }]
    })
}

/// One `@` with something before it and a dotted domain behind it. Whether mail arrives is another question.
fn looks_like_email(text: &str) -> bool {
    match text.split_once('@') {
        Some((local, domain)) => {
            let dotted = domain.contains('.') && !domain.starts_with('.') && !domain.ends_with('.');
            !local.is_empty() && dotted && !domain.contains('@') && !text.contains(char::is_whitespace)
        }
        None => false,
    }
}

/// For streams that belong to a customer: refuses one that is not registered or is closed. A customer of another slot
/// cannot be checked here and passes as a reference.
///
/// # Errors
/// [`Unavailable`] says which.
pub fn must_be_open(customer: Id<Customer>, at: &Moment<'_>) -> Result<(), Unavailable> {
    match at.state_of(customer) {
        Companion::Elsewhere => Ok(()),
        Companion::Known(state) => match state.status {
            Status::NotRegistered => Err(Unavailable::NotRegistered(customer)),
            Status::Closed => Err(Unavailable::Closed(customer)),
            Status::Active => Ok(()),
        },
    }
}

/// The companion that `must_be_open` looks at.
pub fn companion(customer: Id<Customer>) -> Vec<StreamRef> {
    vec![StreamRef::of(customer)]
}

/// The customer as the key of its events.
pub fn routing(customer: &Option<Id<Customer>>) -> Option<Uuid> {
    customer.map(Id::uuid)
}

#[cfg(test)]
mod specs {
    use super::*;
    use crate::spec::{folded, given};

    fn register() -> Command {
        Command::Register {
            kind: Kind::Organisation,
            name: "台灣精密機械".into(),
            country: Some("TW".into()),
            locale: Some("zh-TW".into()),
            external: vec![],
        }
    }

    fn registered() -> Event {
        Event::Registered {
            kind: Kind::Organisation,
            name: "台灣精密機械".into(),
            country: Some("TW".into()),
            locale: Some("zh-TW".into()),
            external: vec![],
        }
    }

    fn id() -> Id<Customer> {
        Id::new(crate::derived_id(&["spec"]))
    }

    #[test]
    fn a_customer_is_registered_once() {
        given::<Customer>([]).when(register()).then([registered()]);
        given::<Customer>([registered()]).when(register()).then_nothing();
        let other = Command::Register {
            kind: Kind::Person,
            name: "林小姐".into(),
            country: None,
            locale: None,
            external: vec![],
        };
        given::<Customer>([registered()])
            .when(other)
            .then_rejected(Rejection::AlreadyRegistered);
    }

    #[test]
    fn nothing_happens_to_a_customer_that_nobody_registered() {
        given::<Customer>([])
            .when(Command::Close)
            .then_rejected(Unavailable::NotRegistered(id()).into());
    }

    #[test]
    fn a_closed_customer_accepts_only_reopen() {
        let closed = || given::<Customer>([registered(), Event::Closed]);
        closed()
            .when(Command::AssignOwner { owner: "mei".into() })
            .then_rejected(Unavailable::Closed(id()).into());
        closed().when(Command::Reopen).then([Event::Reopened]);
    }

    #[test]
    fn a_new_primary_contact_point_takes_the_place_of_the_last() {
        let set = |value: &str| Event::ContactPointSet {
            kind: ContactKind::Email,
            value: value.into(),
            primary: true,
        };
        let state = folded::<Customer>(&[registered(), set("a@example.tw"), set("b@example.tw")]);
        let points = &state.contact_points[&ContactKind::Email];
        assert_eq!(points, &[("a@example.tw".into(), false), ("b@example.tw".into(), true)]);
    }

    #[test]
    fn an_email_address_has_an_at_and_a_domain() {
        let set = |value: &str| Command::SetContactPoint {
            kind: ContactKind::Email,
            value: value.into(),
            primary: true,
        };
        given::<Customer>([registered()])
            .when(set("nobody"))
            .then_rejected(Rejection::NotAnEmail);
        given::<Customer>([registered()])
            .when(set("a@b@c.tw"))
            .then_rejected(Rejection::NotAnEmail);
    }

    #[test]
    fn the_same_intent_twice_gives_nothing_the_second_time() {
        let intents = [
            Command::Rename {
                name: "精密機械".into(),
            },
            Command::SetContactPoint {
                kind: ContactKind::Phone,
                value: "02-2345-6789".into(),
                primary: true,
            },
            Command::AssignOwner { owner: "mei".into() },
            Command::SetGrade {
                grade: "A".into(),
                reason: None,
            },
            Command::Close,
        ];
        given::<Customer>([]).same_intent_twice(register());
        for intent in intents {
            given::<Customer>([registered()]).same_intent_twice(intent);
        }
        given::<Customer>([registered(), Event::Closed]).same_intent_twice(Command::Reopen);
    }
}
