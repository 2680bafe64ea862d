//! What is not in memory is looked up in the state store. Who needs it waits; all others go on meanwhile.

use std::sync::Arc;

use domain::StreamRef;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::Serving;
use crate::bugs::{self, Bug};
use crate::shard::inventory::Page;
use crate::shard::request::{Action, Failure, Message, Request};
use crate::shard::takeover::fill;
use crate::shard::task::Task;
use crate::states::{Loaded, StateError};

/// A look-up on its way to the state store, and the messages that wait for it.
pub(super) struct Loading {
    pub(super) load: JoinHandle<Result<Loaded, StateError>>,
    pub(super) messages: Vec<Message>,
    /// What is looked up, in order.
    streams: Vec<StreamRef>,
    commands: Vec<Uuid>,
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
        match message {
            Message::Peek { stream, .. } => self.is_being_looked_up(*stream) || !self.states.contains(*stream),
            Message::Execute(open) if self.is_known(&open.request) => false,
            Message::Execute(open) => {
                let id = open.request.command_id;
                let is_asked = |loading: &Loading| loading.commands.binary_search(&id).is_ok();
                self.ids.needs_look_up(id)
                    || self.loading.as_ref().is_some_and(is_asked)
                    || needed(&open.request)
                        .into_iter()
                        .any(|stream| self.is_being_looked_up(stream) || !self.states.is_known(stream))
            }
        }
    }

    fn is_being_looked_up(&self, stream: StreamRef) -> bool {
        let streams = self.loading.as_ref().map(|loading| &loading.streams);
        streams.is_some_and(|streams| streams.binary_search(&stream).is_ok())
    }

    /// Looks up what the parked messages need, all together, once nothing is on its way to the log: so both carry more, and each command
    /// waits for the same two round trips as it would if look-ups and appends took turns.
    pub(super) fn start_look_up(&mut self, task: &mut Task) {
        if self.parked.is_empty() || self.loading.is_some() || self.in_flight.is_some() {
            return;
        }
        let messages = std::mem::take(&mut self.parked);
        let (streams, commands) = self.missing(&messages);
        if streams.is_empty() && commands.is_empty() {
            return self.answer_while_there_is_room(messages, task);
        }
        let (store, shard, held) = (Arc::clone(&self.parts.states), self.shard, self.held);
        let (asked_streams, asked_commands) = (streams.clone(), commands.clone());
        let load = tokio::spawn(async move { store.load(shard, held, &asked_streams, &asked_commands).await });
        self.loading = Some(Loading {
            load,
            messages,
            streams,
            commands,
        });
    }

    /// The streams and command ids that these messages need and that are not in memory, in order. A peek of a stream that is new asks the
    /// store too: it is answered without a record that would prove that the shard is still ours, and the store tells at least whether
    /// another owner has been there.
    fn missing(&mut self, messages: &[Message]) -> (Vec<StreamRef>, Vec<Uuid>) {
        let (mut streams, mut peeked, mut commands) = (Vec::new(), Vec::new(), Vec::new());
        for message in messages {
            match message {
                Message::Peek { stream, .. } => peeked.push(*stream),
                Message::Execute(open) if self.is_known(&open.request) => {}
                Message::Execute(open) => {
                    if self.ids.needs_look_up(open.request.command_id) {
                        commands.push(open.request.command_id);
                    }
                    streams.extend(needed(&open.request));
                }
            }
        }
        streams.retain(|stream| !self.states.is_known(*stream));
        streams.extend(peeked.into_iter().filter(|stream| !self.states.contains(*stream)));
        streams.sort_unstable();
        streams.dedup();
        commands.sort_unstable();
        commands.dedup();
        (streams, commands)
    }

    pub(super) fn loaded(&mut self, result: Result<Loaded, StateError>, task: &mut Task) -> Result<(), String> {
        if let Err(error @ (StateError::Fenced | StateError::FellBack { .. } | StateError::OtherLog { .. })) = &result {
            // Nothing that is stored can be relied on: the log tells it anew.
            return Err(error.to_string());
        }
        let loading = self.loading.take().expect("something was being loaded");
        match result {
            Ok(loaded) => {
                fill(&loading.streams, loaded.states, &mut self.states);
                loaded.commands.into_iter().for_each(|command| self.ids.loaded(command));
                self.answer_while_there_is_room(loading.messages, task);
                self.ids.trim();
            }
            Err(error) => {
                // Absence is never assumed: only what is wholly in memory goes on.
                let mut ready = vec![];
                for message in loading.messages {
                    let (streams, commands) = self.missing(std::slice::from_ref(&message));
                    match (streams.is_empty() && commands.is_empty(), message) {
                        (true, message) => ready.push(message),
                        // It was begun before the shard was taken over anew, and nobody can tell whether it stands in the log.
                        (false, Message::Execute(open)) if !commands.is_empty() && open.ticket.is_started() => {
                            open.answer(Err(Failure::OutcomeUnknown(error.to_string())));
                        }
                        (false, message) => message.refuse(Failure::NotAccepted(error.to_string())),
                    }
                }
                self.answer_while_there_is_room(ready, task);
            }
        }
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

/// The streams whose states a request needs: its own, and the companions in the same slot.
pub(super) fn needed(request: &Request) -> Vec<StreamRef> {
    let mut streams = Vec::new();
    for step in &request.steps {
        streams.push(step.stream);
        if let Action::Decide(command) = &step.action {
            streams.extend(
                command
                    .companions()
                    .into_iter()
                    .filter(|other| other.slot() == step.stream.slot()),
            );
        }
    }
    streams
}
