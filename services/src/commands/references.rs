//! What a command refers to may live in another slot, whose order is not that of the command's shard. It is looked at
//! here, before the command is sent.
//!
//! What is closed is refused, as in the shard's own slots. What is not there (yet) is a promise, unless the sender says that it
//! is strict; the read model `dangling` lists those.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::{AnyCommand, StreamKind, StreamRef, case, customer, interaction, lead, link};
use jiff::Timestamp;
use uuid::Uuid;

use super::Commands;
use crate::shard::{Action, Elsewhere, Failure, Request, elsewhere_of, rehearse};

/// How long a command waits for a look at what it refers to. Then it goes without: who is not strict does not need it.
pub const REFERENCE_WAIT_MAX: Duration = Duration::from_secs(1);

impl Commands {
    /// Refuses what would be refused if all that the request refers to lived in its own slot.
    ///
    /// # Errors
    /// The refusal; of a strict request also the failure to look.
    pub(super) async fn check_references(
        &self,
        request: &Request,
        strict: bool,
        now: Timestamp,
    ) -> Result<(), Failure> {
        self.check_what_nobody_decides_on(request, strict).await?;
        let mut elsewhere = Elsewhere::new();
        for stream in elsewhere_of(request) {
            let looked = match strict {
                true => self.peek(stream).await?,
                false => match tokio::time::timeout(REFERENCE_WAIT_MAX, self.peek(stream)).await {
                    Ok(Ok(looked)) => looked,
                    Ok(Err(_)) | Err(_) => continue,
                },
            };
            let (state, version) = looked;
            if version > 0 || strict {
                elsewhere.insert(stream, state);
            }
        }
        if elsewhere.is_empty() {
            return Ok(());
        }
        let states = self.peek_all(request).await?;
        rehearse(request, states, &elsewhere, now, &self.calendar).map(|_| ())
    }

    /// The customer of a link, the deal of a lead, and what a case or an interaction is about are no companions: a key is
    /// reserved before its customer is registered, a lead may be converted to a deal that begins later, and what
    /// something is about decides nothing.
    async fn check_what_nobody_decides_on(&self, request: &Request, strict: bool) -> Result<(), Failure> {
        for step in &request.steps {
            match &step.action {
                Action::Decide(AnyCommand::Link(link::Command::Link { customer, .. })) => {
                    let refused = match self.customer_status(*customer).await? {
                        customer::Status::Closed => customer::Unavailable::Closed(*customer),
                        customer::Status::NotRegistered if strict => customer::Unavailable::NotRegistered(*customer),
                        customer::Status::NotRegistered | customer::Status::Active => continue,
                    };
                    return Err(Failure::Rejected(refused.to_string()));
                }
                Action::Decide(AnyCommand::Lead(lead::Command::Convert {
                    opportunity: Some(opportunity),
                    ..
                })) if strict && !self.is_there(request, StreamRef::of(*opportunity)).await? => {
                    return Err(Failure::Rejected(format!("there is no opportunity {opportunity}")));
                }
                Action::Decide(command) if strict => {
                    for id in about(command) {
                        if !self.is_anything(request, id).await? {
                            return Err(Failure::Rejected(format!(
                                "there is nothing with the id {id}, which it is about"
                            )));
                        }
                    }
                }
                Action::Decide(_) | Action::Record(_) => {}
            }
        }
        Ok(())
    }

    /// Is there a stream of any kind with this id?
    async fn is_anything(&self, request: &Request, id: Uuid) -> Result<bool, Failure> {
        for kind in StreamKind::ALL {
            if self.is_there(request, StreamRef { kind: *kind, id }).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Is it begun, or does the request itself have a command for it?
    async fn is_there(&self, request: &Request, stream: StreamRef) -> Result<bool, Failure> {
        let is_own = request.steps.iter().any(|step| step.stream == stream);
        Ok(is_own || self.has_begun(stream).await?)
    }
}

/// What a case or an interaction is about: things of any kind, each once.
fn about(command: &AnyCommand) -> BTreeSet<Uuid> {
    let ids: &[Uuid] = match command {
        AnyCommand::Case(case::Command::Open { about, .. })
        | AnyCommand::Interaction(interaction::Command::Record { about, .. }) => about,
        AnyCommand::Interaction(interaction::Command::Correct { fields, .. }) => {
            fields.about.as_deref().unwrap_or_default()
        }
        _ => &[],
    };
    ids.iter().copied().collect()
}
