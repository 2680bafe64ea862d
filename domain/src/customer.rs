//! A customer: an organisation or a person (客戶; Account, person account).

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Companion, Differing, ExternalKey, History, Id, Moment, Personal, Stream, StreamKind, StreamRef, same_beginning,
};

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
    /// The same grade again with another reason is another assessment.
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

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error(
        "this customer is already registered with other data: {0}; use rename, link and the other commands to change it"
    )]
    AlreadyRegistered(Differing),
    #[error("a customer needs a name")]
    NameMissing,
    #[error("the value is no e-mail address")]
    NotAnEmail,
    #[error("the contact point is empty")]
    ContactPointEmpty,
    #[error("only an address has several lines")]
    SeveralLines,
    #[error("the {0} is empty")]
    Empty(&'static str),
    #[error("this customer has been {0} since {1}; that cannot be backdated")]
    OnlySince(&'static str, Timestamp),
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

/// A customer and its history, which reads as its latest card.
pub type State = History<Card>;

/// A customer as it stood at some time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Card {
    pub status: Status,
    /// Since when it is registered, closed or open again.
    pub status_since: Timestamp,
    pub registered_at: Timestamp,
    /// Since when all that it says is so.
    pub changed_at: Timestamp,
    pub name: Personal<String>,
    pub kind: Option<Kind>,
    pub country: Option<String>,
    pub locale: Option<String>,
    pub owner: Option<String>,
    pub grade: Option<String>,
    pub grade_reason: Option<String>,
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

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::NotRegistered => "not-registered",
            Status::Active => "active",
            Status::Closed => "closed",
        }
    }
}

impl Event {
    /// Whether the event opens or closes the customer. Each such event is the cause of the next one.
    fn opens_or_closes(&self) -> bool {
        match self {
            Event::Registered { .. } | Event::Closed | Event::Reopened => true,
            Event::Renamed { .. }
            | Event::ContactPointSet { .. }
            | Event::OwnerAssigned { .. }
            | Event::GradeSet { .. } => false,
        }
    }
}

impl Card {
    /// The primary contact point of its kind, or the first one.
    pub fn contact_point(&self, kind: ContactKind) -> Option<&Personal<String>> {
        let points = self.contact_points.get(&kind)?;
        let primary = points.iter().find(|(_, is_primary)| *is_primary);
        primary.or(points.first()).map(|(value, _)| value)
    }
}

impl crate::Card for Card {
    type Event = Event;

    fn is_cause(earlier: &Event, event: &Event) -> bool {
        event.opens_or_closes() && earlier.opens_or_closes()
    }

    fn after(mut self, event: &Event, at: Timestamp) -> Card {
        self.changed_at = at;
        match event {
            Event::Registered {
                kind,
                name,
                country,
                locale,
                ..
            } => {
                (self.status, self.status_since) = (Status::Active, at);
                self.registered_at = at;
                self.kind = Some(*kind);
                self.name = name.clone();
                self.country = country.clone();
                self.locale = locale.clone();
            }
            Event::Renamed { to, .. } => self.name = to.clone(),
            Event::ContactPointSet { kind, value, primary } => {
                let points = self.contact_points.entry(*kind).or_default();
                if *primary {
                    points.iter_mut().for_each(|(_, is_primary)| *is_primary = false);
                }
                match points.iter_mut().find(|(known, _)| known == value) {
                    Some((_, is_primary)) => *is_primary = *primary,
                    None => points.push((value.clone(), *primary)),
                }
            }
            Event::OwnerAssigned { to, .. } => self.owner = Some(to.clone()),
            Event::GradeSet { to, reason, .. } => {
                self.grade = Some(to.clone());
                self.grade_reason = reason.clone();
            }
            Event::Closed => (self.status, self.status_since) = (Status::Closed, at),
            Event::Reopened => (self.status, self.status_since) = (Status::Active, at),
        }
        self
    }
}

#[derive(Debug)]
pub struct Customer;

impl Stream for Customer {
    const NAME: &'static str = "customer";
    const KIND: StreamKind = StreamKind::Customer;
    const BEGINS: &'static str = "register";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    /// Each command is decided on the customer as it stood at the command's own time, so that a late one is "already so"
    /// only if it was so then, and `from` is what was true just before.
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
        let time = match command {
            Command::Close | Command::Reopen => state.not_before_cause(at.effective_at, Event::opens_or_closes),
            _ => state.not_before_beginning(at.effective_at),
        };
        let card = &*state.at(time);
        match (card.status, &command) {
            (Status::NotRegistered, _) => return Err(Unavailable::NotRegistered(id).into()),
            (Status::Closed, Command::Reopen | Command::Close) | (Status::Active, _) => {}
            (Status::Closed, _) => return Err(Unavailable::Closed(id).into()),
        }
        Ok(match command {
            Command::Register { .. } => unreachable!("answered above"),
            Command::Rename { name } if name.is_blank() => return Err(Rejection::NameMissing),
            Command::Rename { name } if name == card.name => vec![],
            Command::Rename { name } => vec![Event::Renamed {
                from: card.name.clone(),
                to: name,
            }],
            Command::SetContactPoint { kind, value, primary } => set_contact_point(card, kind, value, primary)?,
            Command::AssignOwner { owner } if owner.trim().is_empty() => return Err(Rejection::Empty("owner")),
            Command::AssignOwner { owner } if card.owner.as_ref() == Some(&owner) => vec![],
            Command::AssignOwner { owner } => vec![Event::OwnerAssigned {
                from: card.owner.clone(),
                to: owner,
            }],
            Command::SetGrade { grade, .. } if grade.trim().is_empty() => return Err(Rejection::Empty("grade")),
            Command::SetGrade { grade, reason }
                if card.grade.as_ref() == Some(&grade) && (reason.is_none() || reason == card.grade_reason) =>
            {
                vec![]
            }
            Command::SetGrade { grade, reason } => {
                vec![Event::GradeSet {
                    from: card.grade.clone(),
                    to: grade,
                    reason,
                }]
            }
            Command::Close if card.status == Status::Closed => already_so(state, card, at)?,
            Command::Close => vec![Event::Closed],
            Command::Reopen if card.status == Status::Active => already_so(state, card, at)?,
            Command::Reopen => vec![Event::Reopened],
        })
    }

    fn upsert(state: &State, command: Command, at: &Moment<'_>) -> Vec<Command> {
        let (
            Command::Register {
                kind,
                name,
                country,
                locale,
                external,
            },
            Some(Event::Registered {
                name: first,
                country: known_country,
                locale: known_locale,
                ..
            }),
        ) = (&command, state.begun())
        else {
            return vec![command];
        };
        let mut commands = vec![Command::Register {
            kind: *kind,
            name: first.clone(),
            country: country.clone().or_else(|| known_country.clone()),
            locale: locale.clone().or_else(|| known_locale.clone()),
            external: external.clone(),
        }];
        if *name != state.as_of(at.effective_at).name {
            commands.push(Command::Rename { name: name.clone() });
        }
        commands
    }

    fn evolve(state: State, event: &Event, at: Timestamp) -> State {
        state.record(event, at)
    }
}

/// "Already so" holds at the command's own time, too: a late close before the one that there is would be lost.
fn already_so(state: &State, card: &Card, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    let was_so = state.at(at.effective_at).status == card.status;
    match was_so || at.effective_at == at.now {
        true => Ok(vec![]),
        false => Err(Rejection::OnlySince(card.status.name(), card.status_since)),
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
    // A source may know the name that it was given since.
    let is_called_so = state.name == name;
    let external = match state.begun() {
        Some(Event::Registered { external: known, .. }) if has_no_other_keys(known, &external) => known.clone(),
        _ => external,
    };
    let registered = Event::Registered {
        kind,
        name,
        country,
        locale,
        external,
    };
    if state.status != Status::NotRegistered {
        let derived: &[&str] = if is_called_so { &["name"] } else { &[] };
        same_beginning(state.begun(), &registered, derived).map_err(Rejection::AlreadyRegistered)?;
        return Ok(vec![]);
    }
    Ok(vec![registered])
}

/// Whether `again` names no key that is not known: a customer that is found by one key need not be given all of them.
fn has_no_other_keys(known: &[ExternalKey], again: &[ExternalKey]) -> bool {
    again.iter().all(|key| known.contains(key))
}

fn set_contact_point(
    card: &Card,
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
    if kind != ContactKind::Address && value.reveal().contains(['\n', '\r', '\t', '\u{2028}', '\u{2029}']) {
        return Err(Rejection::SeveralLines);
    }
    let known = card
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

/// For streams that belong to a customer: refuses one that is not registered, or was closed at the command's own time. A
/// customer of another slot cannot be checked here and passes as a reference.
///
/// # Errors
/// [`Unavailable`] says which.
pub fn must_be_open(customer: Id<Customer>, at: &Moment<'_>) -> Result<(), Unavailable> {
    match at.state_of(customer) {
        Companion::Elsewhere => Ok(()),
        Companion::Known(state) => match state.as_of(at.effective_at).status {
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
    use crate::spec::{folded, given, given_at};

    fn differing(fields: &[&str]) -> Differing {
        Differing(fields.iter().map(|field| (*field).to_owned()).collect())
    }

    fn erp(key: &str) -> ExternalKey {
        ExternalKey {
            source: "erp".into(),
            key: key.into(),
        }
    }

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
            .then_rejected(Rejection::AlreadyRegistered(differing(&[
                "country", "kind", "locale", "name",
            ])));
    }

    #[test]
    fn what_differs_from_the_registration_is_named_and_the_first_command_stays_good() {
        let renamed = Event::Renamed {
            from: "台灣精密機械".into(),
            to: "台灣精機".into(),
        };
        let again = |name: &str, country: Option<&str>, keys: &[&str]| Command::Register {
            kind: Kind::Organisation,
            name: name.into(),
            country: country.map(str::to_owned),
            locale: Some("zh-TW".into()),
            external: keys.iter().map(|key| erp(key)).collect(),
        };
        let Event::Registered {
            kind,
            name,
            country,
            locale,
            ..
        } = registered()
        else {
            unreachable!()
        };
        let with_keys = Event::Registered {
            kind,
            name,
            country,
            locale,
            external: vec![erp("1"), erp("2")],
        };
        let customer = || given::<Customer>([with_keys.clone(), renamed.clone()]);
        // The command that registered it, also after it was renamed, and the same with the name of today.
        customer()
            .when(again("台灣精密機械", Some("TW"), &["1", "2"]))
            .then_nothing();
        customer()
            .when(again("台灣精機", Some("TW"), &["2", "1"]))
            .then_nothing();
        for (command, fields) in [
            (again("別家", Some("TW"), &["1", "2"]), vec!["name"]),
            (again("台灣精機", Some("JP"), &["1", "2"]), vec!["country"]),
            (again("台灣精機", None, &["1", "2"]), vec!["country"]),
            (again("台灣精機", Some("TW"), &["1", "3"]), vec!["external"]),
        ] {
            customer()
                .when(command)
                .then_rejected(Rejection::AlreadyRegistered(differing(&fields)));
        }
    }

    #[test]
    fn a_registration_of_before_texts_had_one_form_is_still_the_same() {
        let register = |name: &str| Command::Register {
            kind: Kind::Person,
            name: name.into(),
            country: None,
            locale: None,
            external: vec![],
        };
        let old = Event::Registered {
            kind: Kind::Person,
            name: "Bjo\u{308}rn".into(),
            country: None,
            locale: None,
            external: vec![],
        };
        given::<Customer>([old.clone()])
            .when(register("Bj\u{f6}rn"))
            .then_nothing();
        given::<Customer>([old])
            .when(register("Bjorn"))
            .then_rejected(Rejection::AlreadyRegistered(differing(&["name"])));
    }

    #[test]
    fn a_late_entry_is_decided_on_what_was_true_then() {
        let owner = |from: Option<&str>, to: &str| Event::OwnerAssigned {
            from: from.map(str::to_owned),
            to: to.into(),
        };
        let assign = |owner: &str| Command::AssignOwner { owner: owner.into() };
        let mut events = vec![
            ("2026-01-01T09:00:00+08:00", registered()),
            ("2026-01-20T09:00:00+08:00", owner(None, "mei")),
        ];
        // Found out late: from the 10th to the 20th it was lin.
        given_at::<Customer>(events.clone())
            .effective("2026-01-10T09:00:00+08:00")
            .when(assign("lin"))
            .then([owner(None, "lin")]);
        events.push(("2026-01-10T09:00:00+08:00", owner(None, "lin")));
        // Now it is mei, whatever came last.
        let customer = || given_at::<Customer>(events.clone());
        customer().when(assign("mei")).then_nothing();
        customer().when(assign("lin")).then([owner(Some("mei"), "lin")]);
        customer()
            .effective("2026-01-15T09:00:00+08:00")
            .when(assign("lin"))
            .then_nothing();
        // What is dated before the registration is true since then.
        customer()
            .effective("2025-12-01T09:00:00+08:00")
            .when(assign("wu"))
            .then([owner(None, "wu")]);
    }

    #[test]
    fn a_customer_that_was_open_at_that_time_takes_a_late_entry() {
        let events = || {
            [
                ("2026-01-01T09:00:00+08:00", registered()),
                ("2026-02-01T09:00:00+08:00", Event::Closed),
            ]
        };
        let customer = || given_at::<Customer>(events());
        let january = "2026-01-15T09:00:00+08:00";
        let assigned = Event::OwnerAssigned {
            from: None,
            to: "mei".into(),
        };
        let assign = || Command::AssignOwner { owner: "mei".into() };
        customer().effective(january).when(assign()).then([assigned]);
        customer()
            .when(assign())
            .then_rejected(Unavailable::Closed(id()).into());
        let since = crate::spec::moment("2026-02-01T09:00:00+08:00");
        customer()
            .effective(january)
            .when(Command::Close)
            .then_rejected(Rejection::OnlySince("closed", since));
        customer().when(Command::Close).then_nothing();
    }

    #[test]
    fn the_same_grade_for_another_reason_is_another_assessment() {
        let set = |from: Option<&str>, reason: Option<&str>| Event::GradeSet {
            from: from.map(str::to_owned),
            to: "A".into(),
            reason: reason.map(str::to_owned),
        };
        let command = |reason: Option<&str>| Command::SetGrade {
            grade: "A".into(),
            reason: reason.map(str::to_owned),
        };
        let customer = || given::<Customer>([registered(), set(None, Some("turnover of 2025"))]);
        customer().when(command(None)).then_nothing();
        customer().when(command(Some("turnover of 2025"))).then_nothing();
        customer()
            .when(command(Some("turnover of 2026")))
            .then([set(Some("A"), Some("turnover of 2026"))]);
    }

    #[test]
    fn only_an_address_has_several_lines() {
        let set = |kind, value: &str| Command::SetContactPoint {
            kind,
            value: value.into(),
            primary: false,
        };
        let lines = "台北市信義區\n松仁路 1 號";
        given::<Customer>([registered()]).same_intent_twice(set(ContactKind::Address, lines));
        given::<Customer>([registered()])
            .when(set(ContactKind::Phone, "02-2345-6789\n02-1111-1111"))
            .then_rejected(Rejection::SeveralLines);
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
