//! Looks again and again whether each shard is served by some process, how long the oldest record waits that a read
//! model has not read, and whether the groups that spread the work over processes speak to this one. All of it is
//! normal for a moment, and trouble when it lasts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use projections::Group;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::commands::Commands;
use crate::log::EventLog;
use crate::views::ReadStore;

/// How long a shard may be without an owner, and a record unread, unless another time is given.
pub const UNREAD_FOR_DEFAULT: Duration = Duration::from_secs(10);
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How long log and store may take to answer, each.
const LOOK_WAIT: Duration = Duration::from_secs(3);
/// Ends of a shard that are remembered, each with the time at which it was seen.
pub const SEEN_ENDS_MAX: usize = 64;

/// What was seen; cheap to clone.
#[derive(Clone)]
pub struct Watch {
    max: Duration,
    seen: Arc<Mutex<Seen>>,
    seats: Vec<Seat>,
}

/// This process's seat in a group that spreads work over processes.
#[derive(Clone)]
pub struct Seat {
    pub group: &'static str,
    /// How long the group has not said what is to be done here.
    pub unsettled: watch::Receiver<Duration>,
}

#[derive(Default)]
struct Seen {
    unserved_since: BTreeMap<u16, Instant>,
    unread: BTreeMap<(Group, u16), Unread>,
    stopped: BTreeMap<Group, usize>,
}

/// Ends of a shard that a read model has not read up to, oldest first, and when each was first seen.
#[derive(Default)]
struct Unread(VecDeque<(Instant, u64)>);

impl Unread {
    fn look(&mut self, now: Instant, next: u64, end: u64) {
        while self.0.front().is_some_and(|(_, end)| *end <= next) {
            self.0.pop_front();
        }
        if end <= next || self.0.back().is_some_and(|(_, seen)| end <= *seen) {
            return;
        }
        let is_full = self.0.len() >= SEEN_ENDS_MAX;
        match self.0.back_mut() {
            // What came since waits for a shorter time than this says.
            Some((_, seen)) if is_full => *seen = end,
            _ => self.0.push_back((now, end)),
        }
    }

    fn waits(&self, now: Instant) -> Option<Duration> {
        self.0.front().map(|(since, _)| now.duration_since(*since))
    }
}

impl Watch {
    /// `max` is how long a shard may be without an owner, and a record unread.
    pub fn new(max: Duration) -> Watch {
        Watch {
            max,
            seen: Arc::default(),
            seats: vec![],
        }
    }

    pub fn with_seats(self, seats: Vec<Seat>) -> Watch {
        Watch { seats, ..self }
    }

    /// What has lasted too long, as sentences.
    pub fn trouble(&self) -> Vec<String> {
        let (now, seen) = (Instant::now(), self.seen());
        let unserved = seen.unserved_since.iter().filter_map(|(shard, since)| {
            let waited = now.duration_since(*since);
            (waited > self.max).then(|| format!("shard {shard} is served by no process, for {} s", waited.as_secs()))
        });
        let unread = seen.unread.iter().filter_map(|((group, shard), unread)| {
            let waited = unread.waits(now).filter(|waited| *waited > self.max)?;
            Some(format!(
                "the read models of the group {}: the oldest unread record of shard {shard} waits for {} s",
                group.name(),
                waited.as_secs()
            ))
        });
        let unsettled = self.seats.iter().filter_map(|seat| {
            let waited = *seat.unsettled.borrow();
            let (group, seconds) = (seat.group, waited.as_secs());
            (waited > self.max)
                .then(|| format!("the group of {group} has not said for {seconds} s which shards are this process's"))
        });
        unserved.chain(unread).chain(unsettled).collect()
    }

    /// How long the oldest unread record of the shard waits for the group; `None` when there is none.
    pub fn unread_for(&self, group: Group, shard: u16) -> Option<Duration> {
        self.seen().unread.get(&(group, shard))?.waits(Instant::now())
    }

    /// Looks until `stop` turns true.
    pub async fn run(
        self,
        commands: Commands,
        log: Arc<dyn EventLog>,
        store: Arc<dyn ReadStore>,
        mut stop: watch::Receiver<bool>,
    ) {
        while !*stop.borrow() {
            tokio::select! {
                biased;
                _ = stop.changed() => {}
                () = async {
                    self.look(&commands, log.as_ref(), store.as_ref()).await;
                    tokio::time::sleep(LOOK_EVERY).await;
                } => {}
            }
        }
    }

    /// Looks once. What does not answer is taken for what it was.
    pub async fn look(&self, commands: &Commands, log: &dyn EventLog, store: &dyn ReadStore) {
        let shards = commands.shards();
        let served = join_all((0_u16..).zip(shards).map(|(shard, _)| commands.is_served(shard)));
        let ends = join_all((0_u16..).zip(shards).map(async |(shard, handle)| {
            let status = handle.status();
            match status.owned {
                true => Some(status.next),
                false => timeout(LOOK_WAIT, log.end(shard)).await.ok()?.ok(),
            }
        }));
        let (served, ends) = tokio::join!(served, ends);
        self.note_served(served);
        for group in Group::ALL {
            // A store that is away is told of elsewhere.
            if let Ok(Some((nexts, stopped))) = timeout(LOOK_WAIT, progress(store, group)).await {
                self.note_progress(group, &nexts, stopped, &ends);
            }
        }
        self.show();
    }

    fn note_progress(&self, group: Group, nexts: &[u64], stopped: usize, ends: &[Option<u64>]) {
        let (now, mut seen) = (Instant::now(), self.seen());
        seen.stopped.insert(group, stopped);
        for ((shard, next), end) in (0_u16..).zip(nexts).zip(ends) {
            let unread = seen.unread.entry((group, shard)).or_default();
            unread.look(now, *next, end.unwrap_or(0));
        }
    }

    fn note_served(&self, served: Vec<bool>) {
        let mut seen = self.seen();
        for (shard, is_served) in (0_u16..).zip(served) {
            if is_served {
                seen.unserved_since.remove(&shard);
            } else {
                seen.unserved_since.entry(shard).or_insert_with(Instant::now);
            }
        }
    }

    /// As metrics.
    fn show(&self) {
        let (now, seen) = (Instant::now(), self.seen());
        metrics::gauge!("crm_shards_not_served").set(seen.unserved_since.len() as f64);
        let mut oldest: BTreeMap<Group, f64> = BTreeMap::new();
        for ((group, _), unread) in &seen.unread {
            let waits = unread.waits(now).unwrap_or_default().as_secs_f64();
            let most = oldest.entry(*group).or_default();
            *most = most.max(waits);
        }
        for (group, seconds) in oldest {
            metrics::gauge!("crm_oldest_unread_record_age_seconds", "group" => group.name()).set(seconds);
        }
        for seat in &self.seats {
            let waited = seat.unsettled.borrow().as_secs_f64();
            metrics::gauge!("crm_seat_unsettled_seconds", "group" => seat.group).set(waited);
        }
        for (group, stopped) in &seen.stopped {
            metrics::gauge!("crm_read_models_stopped", "group" => group.name()).set(*stopped as f64);
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next offset of each shard of the group's live read models, and of how many shards they have stopped; `None` without any.
async fn progress(store: &dyn ReadStore, group: Group) -> Option<(Vec<u64>, usize)> {
    let generations = store.generations(group).await.ok()?;
    let live = generations.iter().rev().find(|generation| generation.is_asked())?;
    let mut nexts = Vec::new();
    for shard in 0..live.shards {
        let checkpoint = store.checkpoint(live, shard).await.ok()?;
        nexts.push(checkpoint.map_or(0, |checkpoint| checkpoint.next));
    }
    Some((nexts, store.stops(live).await.ok()?.len()))
}

#[cfg(test)]
mod specs {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_record_that_was_not_read_says_how_long_it_waits() {
        let (start, mut unread) = (Instant::now(), Unread::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        unread.look(at(0), 10, 10);
        assert_eq!(unread.waits(at(0)), None);
        unread.look(at(3), 10, 12);
        unread.look(at(6), 10, 15);
        assert_eq!(unread.waits(at(7)), Some(Duration::from_secs(4)));
        // What goes on, and never catches up, is as old as what it has not read.
        unread.look(at(9), 12, 20);
        assert_eq!(unread.waits(at(9)), Some(Duration::from_secs(3)));
        unread.look(at(12), 20, 20);
        assert_eq!(unread.waits(at(12)), None);
    }

    #[test]
    fn a_group_that_has_long_said_nothing_is_trouble() {
        let (tell, unsettled) = watch::channel(Duration::from_secs(10));
        let group = "writers";
        let watch = Watch::new(UNREAD_FOR_DEFAULT).with_seats(vec![Seat { group, unsettled }]);
        assert_eq!(watch.trouble(), Vec::<String>::new());
        tell.send_replace(Duration::from_secs(11));
        assert_eq!(
            watch.trouble(),
            ["the group of writers has not said for 11 s which shards are this process's"]
        );
        tell.send_replace(Duration::ZERO);
        assert_eq!(watch.trouble(), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_ends_are_remembered_and_no_more() {
        let (start, mut unread) = (Instant::now(), Unread::default());
        for second in 0..10 * SEEN_ENDS_MAX as u64 {
            unread.look(start + Duration::from_secs(second), 0, 1 + second);
        }
        assert_eq!(unread.0.len(), SEEN_ENDS_MAX);
        let now = start + Duration::from_secs(10 * SEEN_ENDS_MAX as u64);
        assert_eq!(unread.waits(now), Some(now - start), "the oldest stays");
    }
}
