//! What the state store has, listed once after a take-over, page by page, beside the work: from then on a shard knows what is new.

use std::sync::Arc;
use std::time::Duration;

use domain::StreamRef;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use uuid::Uuid;

use super::config::ShardParts;
use crate::states::{Held, StateError, StateStore};

/// After a page, also one that did not come, it rests so many times as long as it took: there is no hurry, and all shards of a process do
/// this at the same time.
const REST: u32 = 9;

pub type Page<T> = Result<Vec<T>, StateError>;

/// Asks a store for what a shard has of one kind, after this one, so many at most.
type List<T> = fn(Arc<dyn StateStore>, u16, Held, Option<T>, usize) -> BoxFuture<'static, Page<T>>;

/// Lists things of one type.
pub struct Inventory<T> {
    list: List<T>,
    /// The last one that came.
    after: Option<T>,
    asked: Option<Asked<T>>,
    not_before: Instant,
    /// Before the first page, and between two tries when the store is away.
    pause: Duration,
}

struct Asked<T> {
    page: JoinHandle<Page<T>>,
    since: Instant,
}

impl Inventory<StreamRef> {
    pub fn of_streams(pause: Duration) -> Inventory<StreamRef> {
        Inventory::new(pause, |store, shard, held, after, max| {
            async move { store.streams(shard, held, after, max).await }.boxed()
        })
    }
}

impl Inventory<Uuid> {
    pub fn of_derived_commands(pause: Duration) -> Inventory<Uuid> {
        Inventory::new(pause, |store, shard, held, after, max| {
            async move { store.derived_commands(shard, held, after, max).await }.boxed()
        })
    }
}

impl<T: Copy + Send + 'static> Inventory<T> {
    fn new(pause: Duration, list: List<T>) -> Inventory<T> {
        Inventory {
            list,
            after: None,
            asked: None,
            not_before: Instant::now() + pause,
            pause,
        }
    }

    /// The next page; an empty one is the last. Who stops waiting and asks again misses nothing. What is saved after a page was asked for need
    /// not be in it, for the shard knows what it has saved itself.
    ///
    /// # Errors
    /// The store is not ours any more. While it is only away it is asked again.
    pub async fn next(&mut self, parts: &ShardParts, shard: u16, held: Held) -> Page<T> {
        loop {
            tokio::time::sleep_until(self.not_before).await;
            let (list, after, max) = (self.list, self.after, parts.config.inventory_page_max.max(1));
            let asked = self.asked.get_or_insert_with(|| Asked {
                page: tokio::spawn(list(Arc::clone(&parts.states), shard, held, after, max)),
                since: Instant::now(),
            });
            let page = wait(Some(&mut asked.page)).await;
            self.not_before = Instant::now() + asked.since.elapsed() * REST;
            self.asked = None;
            match page {
                Err(StateError::Unavailable(why)) => {
                    tracing::warn!("what is stored cannot be listed, will be tried again: {why}");
                    self.not_before = self.not_before.max(Instant::now() + self.pause);
                }
                Ok(page) => {
                    self.after = page.last().copied().or(self.after);
                    return Ok(page);
                }
                error => return error,
            }
        }
    }
}

/// The result of a task, or never when there is none. A panic in it is passed on.
pub(super) async fn wait<T>(handle: Option<&mut JoinHandle<T>>) -> T {
    match handle {
        Some(handle) => match handle.await.map_err(JoinError::try_into_panic) {
            Ok(value) => value,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime shuts down, and this task with it.
            Err(Err(_)) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
