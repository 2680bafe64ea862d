//! A row of a database: transactions that change it wait for one another, and readers see what was committed last without waiting.

use std::sync::{Arc, Mutex};

use tokio::sync::OwnedMutexGuard;

#[derive(Default)]
pub struct DbRow<T> {
    turn: Arc<tokio::sync::Mutex<()>>,
    committed: Mutex<T>,
}

impl<T> DbRow<T> {
    /// A transaction's lock on the row, until it is dropped.
    pub async fn lock(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.committed.lock().expect("no panic under the lock"))
    }

    /// By whoever holds the lock.
    pub fn write<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.committed.lock().expect("no panic under the lock"))
    }
}
