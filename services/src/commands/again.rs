//! A command that comes again has the answer that it had, also when it would be read or decided otherwise by now.

use jiff::Timestamp;
use uuid::Uuid;

use super::meaning::Meanings;
use super::{Accepted, CommandFailure, Commands, Incoming, Terms};
use crate::shard::{Ack, Failure, Lane, Request};

impl Commands {
    /// The answer to a command that was applied while a key in it meant another customer: the retry of a command names the key, not the
    /// customer whom it meant at first.
    pub(super) async fn answered_while_a_key_meant_another(
        &self,
        bundle: &[Incoming],
        given: Uuid,
        effective_at: Option<Timestamp>,
        terms: &Terms,
        meanings: &Meanings,
    ) -> Result<Option<Accepted>, CommandFailure> {
        for (key, customer) in &meanings.before {
            let mut before = Meanings::default();
            before.fixed.insert(key.clone(), *customer);
            let read = self.request(bundle, given, effective_at, terms, &mut before).await;
            let request = match read {
                Ok(request) => request,
                // It could not have been applied so.
                Err(CommandFailure::Malformed { .. }) => continue,
                Err(failure) => return Err(failure),
            };
            let streams = request.steps.iter().map(|step| step.stream).collect();
            let command_id = request.command_id;
            if let Some(ack) = self.recall(request, terms.lane).await? {
                return Ok(Some(Accepted {
                    command_id,
                    streams,
                    ack,
                }));
            }
        }
        Ok(None)
    }

    /// The answer that this request had, if it was applied. It is not applied by this: a version that no stream has is expected.
    pub(super) async fn recall(&self, mut request: Request, lane: Lane) -> Result<Option<Ack>, Failure> {
        for step in &mut request.steps {
            step.expected_version = Some(u64::MAX);
        }
        match self.execute(request, lane).await {
            Ok(ack) => Ok(Some(ack)),
            // Under this id something else was applied there, and so this was not.
            Err(Failure::Conflict { .. } | Failure::IdReused(_)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}
