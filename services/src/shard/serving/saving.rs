//! States and command ids are saved behind the log.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Serving;
use crate::bugs::{self, Bug};
use crate::shard::cache::{Cached, saved};
use crate::states::{SavedCommand, SavedState, StateError};

/// Rows on their way to the state store, and how far it has come with them.
pub(super) struct Saving {
    pub(super) save: JoinHandle<Result<(), StateError>>,
    states: Arc<Vec<SavedState>>,
    commands: Arc<Vec<SavedCommand>>,
    next: u64,
}

impl Serving {
    pub(super) fn unsaved(&self) -> usize {
        let saving = self
            .saving
            .as_ref()
            .map_or(0, |saving| saving.states.len() + saving.commands.len());
        self.unsaved_states.len() + self.unsaved_commands.len() + saving
    }

    pub(super) fn save_due(&mut self) {
        self.save_at = Instant::now() + self.parts.config.save_every;
        self.begin_save();
    }

    /// Saves before its time when much has gathered.
    pub(super) fn start_save(&mut self) {
        let is_much = self.unsaved_states.len() + self.unsaved_commands.len() >= self.parts.config.save_at;
        if is_much && Instant::now() >= self.save_not_before {
            self.begin_save();
        }
    }

    pub(super) fn begin_save(&mut self) {
        if self.saving.is_some() || (self.unsaved_states.is_empty() && self.unsaved_commands.is_empty()) {
            return;
        }
        let mut states: Vec<_> = self
            .unsaved_states
            .drain()
            .map(|(stream, cached)| saved(stream, &cached))
            .collect();
        // In one order for all: what is saved first is evicted first, and a run can be repeated.
        states.sort_unstable_by_key(|row| row.stream);
        let (states, commands) = (Arc::new(states), Arc::new(std::mem::take(&mut self.unsaved_commands)));
        let (store, held, watermark) = (Arc::clone(&self.parts.states), self.held, self.watermark.clone());
        let next = watermark.checkpoint.next;
        let (rows, ids) = (Arc::clone(&states), Arc::clone(&commands));
        let save = tokio::spawn(async move {
            if bugs::has(Bug::WatermarkAheadOfStates) {
                store.save(held, &watermark, &[], &[]).await?;
            }
            store.save(held, &watermark, &rows, &ids).await
        });
        self.saving = Some(Saving {
            save,
            states,
            commands,
            next,
        });
    }

    pub(super) fn saved(&mut self, result: Result<(), StateError>) -> Result<(), String> {
        let saving = self.saving.take().expect("something was being saved");
        let (states, commands) = (saving.states, saving.commands);
        match result {
            Ok(()) => {
                self.held.next = saving.next;
                self.save_failed = false;
                states
                    .iter()
                    .for_each(|row| self.states.stored(row.stream, row.version));
                commands.iter().for_each(|command| self.ids.stored(command.id));
                Ok(())
            }
            Err(StateError::Unavailable(why)) => {
                tracing::warn!(
                    shard = self.shard,
                    "states could not be saved, will be tried again: {why}"
                );
                for row in Arc::unwrap_or_clone(states) {
                    let cached = Cached {
                        version: row.version,
                        state: row.state,
                    };
                    self.unsaved_states.entry(row.stream).or_insert(cached);
                }
                let mut commands = Arc::unwrap_or_clone(commands);
                commands.append(&mut self.unsaved_commands);
                self.unsaved_commands = commands;
                self.save_not_before = Instant::now() + self.parts.config.save_every;
                self.save_failed = true;
                Ok(())
            }
            Err(error @ (StateError::Fenced | StateError::FellBack { .. } | StateError::OtherLog { .. })) => {
                Err(error.to_string())
            }
        }
    }
}
