//! What a command refers to may live in another slot, whose order is not that of the command's shard. It is looked at here, before
//! the command is sent.
//!
//! What is closed is refused, as in the shard's own slots. What is not there (yet) is a promise, unless the sender says that it
//! is strict; the read model `dangling` lists those.

use std::time::Duration;

use jiff::Timestamp;

use super::Commands;
use crate::shard::{Elsewhere, Failure, Request, elsewhere_of, rehearse, streams_of};

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
        let mut states = Vec::new();
        for stream in streams_of(request) {
            states.push((stream, self.peek(stream).await?));
        }
        rehearse(request, states, &elsewhere, now, &self.calendar).map(|_| ())
    }
}
