//! Which process serves which shard, when several share a Kafka log: a consumer group decides.
//!
//! The members subscribe to a small topic with a partition per shard; nothing is ever written to it. Whoever is assigned a partition
//! serves the shard of its number. Safety does not rest on it, only on the claims in the log: two processes that both believe to be
//! assigned cost time, no data.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, TopicPartitionList};
use services::log::LogError;
use services::shard::Assignment;
use tokio::sync::watch;

use crate::log::kafka::{KafkaLog, is_unknown_place};

/// How long the group is kept waiting for shards that are being released.
pub const RELEASE_MAX: Duration = Duration::from_secs(20);
const RELEASE_POLL: Duration = Duration::from_millis(2);
/// How often the group's news are looked for.
const POLL: Duration = Duration::from_millis(50);
/// A member that hears for so long that the members' topics are not there is replaced; what it heard so long ago is forgotten.
const UNKNOWN_FOR: Duration = Duration::from_secs(3);
const UNKNOWN_FORGOTTEN: Duration = Duration::from_secs(30);
/// Pause before a seat is taken anew.
const SEAT_PAUSE: Duration = Duration::from_millis(200);

/// What is spread over processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// To own shards and decide commands.
    Writing,
    /// To fold shards into the read models of a group. Processes may differ in the groups they fold.
    Projecting(projections::Group),
}

/// Some work, and where the coordinator's word on each shard of it goes.
pub struct Share {
    pub work: Work,
    pub words: Vec<watch::Sender<Assignment>>,
}

impl Work {
    /// The topic that stands for it: a partition per shard, and never a record.
    fn topic(self, log: &KafkaLog) -> String {
        match self {
            Work::Writing => format!("{}.members", log.topic()),
            Work::Projecting(group) => format!("{}.members.{}", log.topic(), group.name()),
        }
    }
}

/// A seat in the group, given up by [`leave`](Self::leave).
pub struct Membership {
    leaving: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// The two ends of the coordinator's word on each shard. Until the group has spoken, every shard is served elsewhere.
pub fn words(shards: u16) -> (Vec<watch::Sender<Assignment>>, Vec<watch::Receiver<Assignment>>) {
    (0..shards).map(|_| watch::channel(Assignment::Elsewhere)).unzip()
}

impl Membership {
    /// Takes a seat in the group of this name. From now on the words of the `shares` say which shards are this process's. Before one is
    /// given to another member, `is_released` must be true of it, so that the other does not take over what is still being finished here.
    ///
    /// # Errors
    /// When the brokers cannot be reached, or a topic of the members has another number of partitions.
    pub async fn join(
        log: &KafkaLog,
        name: &'static str,
        session_timeout: Duration,
        shares: Vec<Share>,
        is_released: impl Fn(u16) -> bool + Send + Sync + 'static,
    ) -> anyhow::Result<Membership> {
        let seats = shares.into_iter().map(|share| (share.work.topic(log), share.words));
        let seats: Vec<Seat> = seats.collect();
        make_topics(log, &seats).await?;
        let mut settings = log.settings(&[
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "latest"),
            // A member that comes or goes moves only as many shards as it must.
            ("partition.assignment.strategy", "cooperative-sticky"),
            // Nothing ever comes.
            ("fetch.wait.max.ms", "5000"),
        ]);
        settings.set("group.id", format!("{}.{name}", log.topic()));
        let timeout_ms = session_timeout.as_millis();
        settings.set("session.timeout.ms", timeout_ms.to_string());
        settings.set("heartbeat.interval.ms", (timeout_ms / 4).to_string());
        let group = Group {
            name,
            seats: Arc::new(seats),
            is_released: Arc::new(is_released),
        };
        let leaving = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&leaving);
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("members-{name}"));
        let thread = thread.spawn(move || match seat(&settings, &group) {
            Ok(consumer) => {
                ready.send(Ok(())).unwrap_or_default();
                attend(consumer, &settings, &group, &until);
            }
            Err(error) => ready.send(Err(error)).unwrap_or_default(),
        })?;
        is_ready.await.context("the thread of the group's member ended")??;
        Ok(Membership { leaving, thread })
    }

    /// Gives up every shard, each when it is released, and then the seat: the others take over at once.
    pub async fn leave(self) {
        self.leaving.store(true, Ordering::SeqCst);
        let left = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::error!("the thread of the group's member ended badly");
        }
    }
}

fn seat(settings: &ClientConfig, group: &Group) -> anyhow::Result<BaseConsumer<Group>> {
    let topics: Vec<&str> = group.seats.iter().map(|(topic, _)| topic.as_str()).collect();
    let consumer: BaseConsumer<Group> = settings.create_with_context(group.clone())?;
    consumer.subscribe(&topics)?;
    Ok(consumer)
}

/// Keeps the seat, and takes it anew when it was lost: until `leaving`.
fn attend(first: BaseConsumer<Group>, settings: &ClientConfig, group: &Group, leaving: &AtomicBool) {
    let mut seated = Some(first);
    while !leaving.load(Ordering::SeqCst) {
        let why = match seated.take().map_or_else(|| seat(settings, group), Ok) {
            Ok(consumer) => {
                // Gone when it ends: a seat that is given up is given up in the group too.
                let ended = catch_unwind(AssertUnwindSafe(move || hear(&consumer, leaving)));
                match ended {
                    Ok(None) => return,
                    Ok(Some(error)) => error.to_string(),
                    Err(_) => {
                        metrics::counter!("crm_panics_total", "part" => "membership").increment(1);
                        "its thread panicked".to_owned()
                    }
                }
            }
            Err(error) => format!("{error:#}"),
        };
        tracing::warn!(group = group.name, "takes its seat in the group anew: {why}");
        std::thread::sleep(SEAT_PAUSE);
    }
}

/// Hears what the group says: until `leaving`, or until this client cannot find the members' topics any more.
fn hear(consumer: &BaseConsumer<Group>, leaving: &AtomicBool) -> Option<KafkaError> {
    let mut unknown_since: Option<Instant> = None;
    while !leaving.load(Ordering::SeqCst) {
        let error = match consumer.poll(POLL) {
            Some(Err(error)) => error,
            _ => continue,
        };
        if !is_unknown_place(&error) {
            tracing::debug!("the group's member goes on after: {error}");
            continue;
        }
        // It says so once each time that it asks: new topics may not be known everywhere yet, a broker may just have woken up.
        match unknown_since {
            Some(since) if since.elapsed() > UNKNOWN_FORGOTTEN => unknown_since = Some(Instant::now()),
            Some(since) if since.elapsed() > UNKNOWN_FOR => return Some(error),
            Some(_) => {}
            None => unknown_since = Some(Instant::now()),
        }
    }
    None
}

async fn make_topics(log: &KafkaLog, seats: &[Seat]) -> anyhow::Result<()> {
    let topics = seats
        .iter()
        .map(|(topic, words)| log.new_topic(topic, words.len() as u16));
    log.create_topics(&topics.collect::<Vec<_>>()).await?;
    for (topic, words) in seats {
        let found = match log.leaders_of(topic).await {
            Ok(leaders) => leaders.len(),
            // A new one may not be known everywhere yet, or have no leaders; its number of partitions is the one that was asked for.
            Err(LogError::NotCreated(_) | LogError::Unavailable(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        if found != words.len() {
            let shards = words.len();
            anyhow::bail!("the topic {topic} has {found} partitions for {shards} shards: delete it, nothing is in it");
        }
    }
    Ok(())
}

/// A topic, and where the word on each of its partitions goes.
type Seat = (String, Vec<watch::Sender<Assignment>>);

/// Hands the group's decisions on.
#[derive(Clone)]
struct Group {
    name: &'static str,
    seats: Arc<Vec<Seat>>,
    is_released: Arc<dyn Fn(u16) -> bool + Send + Sync>,
}

impl ClientContext for Group {}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Group>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(revoked) = rebalance else { return };
        let revoked = places(revoked);
        if consumer.assignment_lost() {
            // The group was not heard of for a while. Going on is safe until another claims.
            tracing::warn!(group = self.name, ?revoked, "lost touch with the group");
            self.say(&revoked, Assignment::HereUnlessClaimed);
            return;
        }
        tracing::info!(group = self.name, ?revoked, "releases shards to the group");
        self.say(&revoked, Assignment::Elsewhere);
        let deadline = Instant::now() + RELEASE_MAX;
        while !revoked.iter().all(|(_, shard)| (self.is_released)(*shard)) {
            if Instant::now() >= deadline {
                tracing::warn!("shards are given up that are not finished: the next owner settles what is open");
                return;
            }
            std::thread::sleep(RELEASE_POLL);
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Group>, rebalance: &Rebalance<'_>) {
        let Rebalance::Assign(_) = rebalance else { return };
        let assigned = match consumer.assignment() {
            Ok(assigned) => places(&assigned),
            Err(error) => {
                tracing::warn!(group = self.name, "the group's assignment cannot be read: {error}");
                return;
            }
        };
        tracing::info!(group = self.name, ?assigned, "is assigned shards by the group");
        let all = self.seats.iter().flat_map(|(topic, words)| {
            let shards = 0..words.len() as u16;
            shards.map(|shard| (topic.clone(), shard))
        });
        let elsewhere: Vec<_> = all.filter(|place| !assigned.contains(place)).collect();
        self.say(&elsewhere, Assignment::Elsewhere);
        self.say(&assigned, Assignment::Here);
    }
}

impl Group {
    fn say(&self, places: &[(String, u16)], word: Assignment) {
        for (topic, shard) in places {
            let seat = self.seats.iter().find(|(known, _)| known == topic);
            if let Some(known) = seat.and_then(|(_, words)| words.get(usize::from(*shard))) {
                known.send_if_modified(|known| std::mem::replace(known, word) != word);
            }
        }
    }
}

/// Topic and shard of each partition.
fn places(partitions: &TopicPartitionList) -> Vec<(String, u16)> {
    let elements = partitions.elements();
    let places = elements.iter().filter_map(|element| {
        let shard = u16::try_from(element.partition()).ok()?;
        Some((element.topic().to_owned(), shard))
    });
    places.collect()
}
