//! What the state store has, listed once after a take-over, page by page, beside the work: from then on a shard knows what is new.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::serving::wait;
use crate::states::StateError;

/// After a page, also one that did not come, it rests so many times as long as it took: there is no hurry, and all shards of a process do
/// this at the same time.
const REST: u32 = 9;

pub type Page<T> = Result<Vec<T>, StateError>;

/// Lists things of one type.
pub struct Inventory<T> {
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

impl<T: Copy + Send + 'static> Inventory<T> {
    pub fn new(pause: Duration) -> Inventory<T> {
        Inventory {
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
    pub async fn next(&mut self, list: impl Fn(Option<T>) -> BoxFuture<'static, Page<T>>) -> Page<T> {
        loop {
            tokio::time::sleep_until(self.not_before).await;
            let after = self.after;
            let asked = self.asked.get_or_insert_with(|| Asked {
                page: tokio::spawn(list(after)),
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
