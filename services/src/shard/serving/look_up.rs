//! What is not in memory is looked up in the state store. Who needs it waits; all others go on meanwhile.

use std::sync::Arc;

use domain::StreamRef;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::Serving;
use crate::bugs::{self, Bug};
use crate::shard::inventory::Page;
use crate::shard::rehearsal::streams_of;
use crate::shard::request::{Failure, Message};
use crate::shard::takeover::fill;
use crate::shard::task::Task;
use crate::states::{Loaded, StateError};

/// A look-up on its way to the state store, and the messages that wait for it.
pub(super) struct Loading {
    pub(super) load: JoinHandle<Result<Loaded, StateError>>,
    pub(super) messages: Vec<Message>,
    asked: Lack,
}

/// What is not in memory: streams and command ids, in order, each once.
#[derive(Default, Clone)]
struct Lack {
    streams: Vec<StreamRef>,
    commands: Vec<Uuid>,
}

impl Lack {
    fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.commands.is_empty()
    }

    /// Is anything in it that this message needs?
    fn concerns(&self, message: &Message) -> bool {
        let is_command = match message {
            Message::Execute(open) => {
                let ids = [open.request.command_id, open.request.given];
                ids.iter().any(|id| self.commands.binary_search(id).is_ok())
            }
            Message::Peek { .. } => false,
        };
        is_command
            || needed(message)
                .iter()
                .any(|stream| self.streams.binary_search(stream).is_ok())
    }
}

impl Serving {
    /// Takes a message, and whatever else is waiting, and decides those that need nothing that is not in memory.
    pub(super) fn take(&mut self, first: Message, task: &mut Task) {
        self.busy_since.get_or_insert_with(Instant::now);
        let mut next = Some(first);
        let mut ready = Vec::new();
        while let Some(message) = next {
            match self.must_wait(&message) {
                true => self.parked.push(message),
                false => ready.push(message),
            }
            let is_enough = ready.len() + self.parked.len() >= self.parts.config.batch_records_max;
            next = if is_enough { None } else { task.try_next() };
        }
        self.answer_while_there_is_room(ready, task);
    }

    /// May another message be taken? Those that wait for look-ups are bounded too.
    pub(super) fn takes_messages(&self) -> bool {
        self.parked.len() < self.parts.config.batch_records_max
    }

    /// Does it need what is not in memory, or what is just being looked up? The latter is decided by what the store says, whatever is
    /// learned of it meanwhile.
    fn must_wait(&mut self, message: &Message) -> bool {
        let is_asked = |loading: &Loading| loading.asked.concerns(message);
        let is_known = || matches!(message, Message::Execute(open) if self.is_known(&open.request));
        (self.loading.as_ref().is_some_and(is_asked) && !is_known()) || !self.lack([message]).is_empty()
    }

    /// Looks up what the parked messages need, all together, once nothing is on its way to the log: so both carry more, and each command
    /// waits for the same two round trips as it would if look-ups and appends took turns.
    pub(super) fn start_look_up(&mut self, task: &mut Task) {
        if self.parked.is_empty() || self.loading.is_some() || self.in_flight.is_some() {
            return;
        }
        let messages = std::mem::take(&mut self.parked);
        let asked = self.lack(&messages);
        if asked.is_empty() {
            return self.answer_while_there_is_room(messages, task);
        }
        self.states.keep(messages.iter().flat_map(needed));
        let (store, shard, held) = (Arc::clone(&self.parts.states), self.shard, self.held);
        let Lack { streams, commands } = asked.clone();
        let load = tokio::spawn(async move { store.load(shard, held, &streams, &commands).await });
        self.loading = Some(Loading { load, messages, asked });
    }

    /// What these messages need and is not in memory. A peek of a stream that is new asks the store too: it is answered without a record
    /// that would prove that the shard is still ours, and the store tells at least whether another owner has been there.
    fn lack<'a>(&mut self, messages: impl IntoIterator<Item = &'a Message>) -> Lack {
        let mut lack = Lack::default();
        for message in messages {
            match message {
                Message::Peek { stream, .. } if self.states.contains(*stream) => {}
                Message::Peek { stream, .. } => lack.streams.push(*stream),
                Message::Execute(open) if self.is_known(&open.request) => {}
                Message::Execute(open) => {
                    let ids = [open.request.command_id, open.request.given];
                    lack.commands
                        .extend(ids.into_iter().filter(|id| self.ids.needs_look_up(*id)));
                    let streams = needed(message).into_iter();
                    lack.streams
                        .extend(streams.filter(|stream| !self.states.is_known(*stream)));
                }
            }
        }
        lack.streams.sort_unstable();
        lack.streams.dedup();
        lack.commands.sort_unstable();
        lack.commands.dedup();
        lack
    }

    pub(super) fn loaded(&mut self, result: Result<Loaded, StateError>, task: &mut Task) -> Result<(), String> {
        if let Err(error @ (StateError::Fenced | StateError::FellBack { .. } | StateError::OtherLog { .. })) = &result {
            // Nothing that is stored can be relied on: the log tells it anew.
            return Err(error.to_string());
        }
        let Loading { messages, asked, .. } = self.loading.take().expect("something was being loaded");
        self.states.keep([]);
        let mut ready = Vec::new();
        match result {
            Ok(loaded) => {
                fill(&asked.streams, loaded.states, &mut self.states);
                loaded.commands.into_iter().for_each(|command| self.ids.loaded(command));
                let mut again = Vec::new();
                for message in messages {
                    let mut lack = self.lack([&message]);
                    // Not found means new: nobody could use it meanwhile.
                    lack.commands.retain(|id| asked.commands.binary_search(id).is_err());
                    match lack.is_empty() {
                        true => ready.push(message),
                        // Its id was known without the store when the look-up began, and so many came meanwhile that it is not any more.
                        false => again.push(message),
                    }
                }
                // Before those that were parked since.
                self.parked.splice(0..0, again);
            }
            Err(error) => {
                // Absence is never assumed: only what is wholly in memory goes on.
                for message in messages {
                    let lack = self.lack([&message]);
                    match message {
                        message if lack.is_empty() => ready.push(message),
                        // It was begun before the shard was taken over anew, and nobody can tell whether it stands in the log.
                        Message::Execute(open) if !lack.commands.is_empty() && open.ticket.is_started() => {
                            open.answer(Err(Failure::OutcomeUnknown((&error).into())));
                        }
                        message => message.refuse(Failure::NotAccepted((&error).into())),
                    }
                }
            }
        }
        self.answer_while_there_is_room(ready, task);
        Ok(())
    }

    /// A page of the streams that are stored; an empty one is the last.
    pub(super) fn found_streams(&mut self, page: Page<StreamRef>) -> Result<(), String> {
        let streams = page.map_err(|error| error.to_string())?;
        self.states.have_begun(&streams);
        if streams.is_empty() || bugs::has(Bug::NewBeforeAllAreKnown) {
            self.states.no_others_have_begun();
        }
        Ok(())
    }

    /// A page of the derived command ids that are stored; an empty one is the last.
    pub(super) fn found_commands(&mut self, page: Page<Uuid>) -> Result<(), String> {
        let ids = page.map_err(|error| error.to_string())?;
        self.ids.were_recorded(&ids);
        if ids.is_empty() || bugs::has(Bug::NewBeforeAllAreKnown) {
            self.ids.no_others_were_recorded();
        }
        Ok(())
    }
}

/// The streams whose states a message needs: its own, and the companions in the same slot.
fn needed(message: &Message) -> Vec<StreamRef> {
    let open = match message {
        Message::Peek { stream, .. } => return vec![*stream],
        Message::Execute(open) => open,
    };
    streams_of(&open.request)
}
