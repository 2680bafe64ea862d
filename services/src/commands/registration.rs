//! A customer's keys are reserved before it is registered: a key belongs to one customer. What is refused leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};

use domain::{Id, StreamKind, StreamRef, customer, link};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{Commands, Incoming, Reference};
use crate::shard::{Ack, Action, Elsewhere, Failure, Lane, Request, Step, rehearse};

/// A key whose customer is not registered so long after the reservation is free: no registration is under way for so long.
const RESERVED_FOR: SignedDuration = SignedDuration::from_mins(2);

/// A key that a customer of the request is to have, and that its id is not derived from.
struct Wanted {
    source: String,
    key: String,
    customer: Id<customer::Customer>,
}

/// A key that may be reserved.
struct Free {
    /// The version of its link.
    version: u64,
    /// Whether it was reserved for a customer who was never registered.
    is_abandoned: bool,
}

/// A link that was made for a registration that is not done yet.
struct Reserved {
    link: StreamRef,
    version: u64,
}

impl Commands {
    /// Executes the request. If it registers customers, they have their keys before.
    ///
    /// The registration is rehearsed first: what is refused reserves nothing. A reservation that a crash leaves behind is completed by
    /// the retry, or taken over by another registration.
    pub(super) async fn register_and_execute(
        &self,
        mut request: Request,
        bundle: &[Incoming],
        lane: Lane,
        now: Timestamp,
    ) -> Result<Ack, Failure> {
        let mut wanted = wanted_keys(&request);
        let guards = guards(&request, bundle);
        if wanted.is_empty() {
            request.steps.splice(0..0, guards);
            return self.execute(request, lane).await;
        }
        let states = self.peek_all(&request).await?;
        let begun = states.iter().filter(|(_, (_, version))| *version > 0);
        let begun: BTreeSet<Uuid> = begun.map(|(stream, _)| stream.id).collect();
        match rehearse(&request, states, &Elsewhere::new(), now, &self.calendar) {
            // Unless it was applied, and the customer is another by now.
            Err(refusal) => return self.recall(request, lane).await?.ok_or(refusal),
            Ok(0) => return self.execute(request, lane).await,
            Ok(_) => {}
        }
        // A registered customer has got its keys; who changes something else of it takes none that was moved since.
        wanted.retain(|wanted| !begun.contains(&wanted.customer.uuid()));
        let mut free = Vec::new();
        for wanted in &wanted {
            free.push(self.must_be_free(wanted, now).await?);
        }
        let mut reserved = Vec::new();
        let outcome = async {
            for (wanted, free) in wanted.iter().zip(free) {
                reserved.extend(self.reserve(wanted, &free, &request, lane).await?);
            }
            let mut request = request.clone();
            request.steps.splice(0..0, guards);
            self.execute(request, lane).await
        };
        let outcome = outcome.await;
        if let Err(Failure::Rejected(_) | Failure::Conflict { .. } | Failure::IdReused(_) | Failure::TooLarge(_)) =
            outcome
        {
            for reserved in reserved {
                self.release(reserved, &request, lane).await?;
            }
        }
        outcome
    }

    /// Refuses a key that belongs to a customer who is registered, or is being registered.
    async fn must_be_free(&self, wanted: &Wanted, now: Timestamp) -> Result<Free, Failure> {
        let (link, version) = self.link(&wanted.source, &wanted.key).await?;
        let own = link::own_customer(&wanted.source, &wanted.key);
        let taken = |customer| {
            let taken = link::Rejection::Taken {
                source_name: wanted.source.clone(),
                key: wanted.key.clone(),
                customer,
            };
            Err(Failure::Rejected(taken.to_string()))
        };
        let free = |is_abandoned| Ok(Free { version, is_abandoned });
        match link.customer {
            Some(owner) if owner == wanted.customer => free(false),
            Some(owner) if self.is_registered(owner).await? => taken(owner),
            Some(_) if link.since.is_none_or(|since| since + RESERVED_FOR <= now) => free(true),
            Some(owner) => {
                let what = format!(
                    "{} key {} is reserved for customer {owner}, which is being registered",
                    wanted.source, wanted.key
                );
                Err(Failure::NotAccepted(what.into()))
            }
            None if self.is_registered(own).await? => taken(own),
            None => free(false),
        }
    }

    async fn is_registered(&self, customer: Id<customer::Customer>) -> Result<bool, Failure> {
        Ok(self.customer_status(customer).await? != customer::Status::NotRegistered)
    }

    /// Links the key, away from an owner who was never registered if the link is still of this version. `None` = it was linked so before.
    async fn reserve(
        &self,
        wanted: &Wanted,
        free: &Free,
        of: &Request,
        lane: Lane,
    ) -> Result<Option<Reserved>, Failure> {
        let link = StreamRef::of(link::link_id(&wanted.source, &wanted.key));
        let command = link::Command::Link {
            source: wanted.source.clone(),
            key: wanted.key.clone(),
            customer: wanted.customer,
        };
        let step = |command: link::Command, expected_version| Step {
            stream: link,
            action: Action::Decide(command.into()),
            expected_version,
        };
        let mut steps = Vec::new();
        if free.is_abandoned {
            steps.push(step(link::Command::Unlink, Some(free.version)));
        }
        steps.push(step(command, None));
        let ack = self
            .execute(
                Request::new(own_id(of, "reserve", link, free.version), steps, None, of.who.clone()),
                lane,
            )
            .await?;
        let version = ack.streams.first().map_or(0, |(_, version)| *version);
        Ok((ack.events > 0).then_some(Reserved { link, version }))
    }

    async fn release(&self, reserved: Reserved, of: &Request, lane: Lane) -> Result<(), Failure> {
        let step = Step {
            stream: reserved.link,
            action: Action::Decide(link::Command::Unlink.into()),
            expected_version: Some(reserved.version),
        };
        let id = own_id(of, "release", reserved.link, reserved.version);
        match self
            .execute(Request::new(id, vec![step], None, of.who.clone()), lane)
            .await
        {
            // Somebody else has it by now.
            Ok(_) | Err(Failure::Conflict { .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

/// The command id of a step that a registration needs besides its own. A retry of the registration may have to reserve
/// once more, at another version of the link.
fn own_id(of: &Request, what: &str, link: StreamRef, version: u64) -> Uuid {
    domain::derived_id(&[
        &of.command_id.to_string(),
        what,
        &link.to_string(),
        &version.to_string(),
    ])
}

fn registrations(request: &Request) -> impl Iterator<Item = (usize, Uuid, &[domain::ExternalKey])> {
    request
        .steps
        .iter()
        .enumerate()
        .filter_map(|(index, step)| match &step.action {
            Action::Decide(domain::AnyCommand::Customer(customer::Command::Register { external, .. })) => {
                Some((index, step.stream.id, external.as_slice()))
            }
            _ => None,
        })
}

fn wanted_keys(request: &Request) -> Vec<Wanted> {
    let mut wanted = BTreeMap::new();
    for (_, id, external) in registrations(request) {
        for external in external {
            if link::own_customer(&external.source, &external.key).uuid() != id {
                wanted.insert((external.source.clone(), external.key.clone()), Id::new(id));
            }
        }
    }
    let wanted = wanted.into_iter();
    wanted
        .map(|((source, key), customer)| Wanted { source, key, customer })
        .collect()
}

/// A step before each registration of a customer under a key itself: it is refused when the key was linked to another customer meanwhile.
/// The link lives in the same slot, so that both are decided together. Such a step writes nothing, and is no part of the request's hash.
fn guards(request: &Request, bundle: &[Incoming]) -> Vec<Step> {
    let mut guards = Vec::new();
    for (index, id, external) in registrations(request) {
        let by_reference = match &bundle[index].id {
            Some(Reference::Key { source, key }) => Some((source, key)),
            Some(Reference::Id(_)) | None => None,
        };
        let own = external.iter().map(|external| (&external.source, &external.key));
        let own = own.chain(by_reference);
        let mut own = own.filter(|(source, key)| link::own_customer(source, key).uuid() == id);
        if let Some((source, key)) = own.next_back() {
            let command = link::Command::Link {
                source: source.clone(),
                key: key.clone(),
                customer: Id::new(id),
            };
            guards.push(Step {
                stream: StreamRef {
                    kind: StreamKind::Link,
                    id: link::link_id(source, key).uuid(),
                },
                action: Action::Decide(command.into()),
                expected_version: None,
            });
        }
    }
    guards
}
