//! Which process serves which shard, when several share a Kafka log: a consumer group decides.
//!
//! The members subscribe to a small topic with a partition per shard; nothing is ever written to it. Whoever is
//! assigned a partition serves the shard of its number. Safety does not rest on it, only on the claims in the log: two
//! processes that both believe to be assigned cost time, no data.

mod patience;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, TopicPartitionList};
use services::log::LogError;
use services::shard::Assignment;
use services::watch::Seat;
use tokio::sync::{oneshot, watch};

use crate::log::kafka::{KafkaLog, drop_apart, is_unknown_place};
pub use patience::UNSETTLED_MAX;
use patience::{Account, Patience, Statistics, rejoin_max};

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
/// How often the client library tells how its seat is.
const STATISTICS_EVERY: Duration = Duration::from_secs(1);
/// How long the broker may take to say how the group is.
const ACCOUNT_WAIT: Duration = Duration::from_secs(2);
/// How long a seat may take to be given up, beside the time of releasing shards. Then the process ends without.
const LEAVE_WAIT: Duration = Duration::from_secs(10);

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
    name: &'static str,
    leaving: Arc<AtomicBool>,
    left: oneshot::Receiver<()>,
    unsettled: watch::Receiver<Duration>,
}

/// The two ends of the coordinator's word on each shard. Until the group has spoken, every shard is served elsewhere.
pub fn words(shards: u16) -> (Vec<watch::Sender<Assignment>>, Vec<watch::Receiver<Assignment>>) {
    (0..shards).map(|_| watch::channel(Assignment::Elsewhere)).unzip()
}

impl Membership {
    /// Takes a seat in the group of this name. From now on the words of the `shares` say which shards are this
    /// process's. Before one is given to another member, `is_released` must be true of it, so that the other does not
    /// take over what is still being finished here.
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
        let topics = shares.into_iter().map(|share| (share.work.topic(log), share.words));
        let topics: Vec<Topic> = topics.collect();
        make_topics(log, &topics).await?;
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
        // The library waits so long for an answer to its joining, and the group for a member. Its default is five minutes.
        settings.set(
            "max.poll.interval.ms",
            rejoin_max(session_timeout).as_millis().to_string(),
        );
        settings.set("statistics.interval.ms", STATISTICS_EVERY.as_millis().to_string());
        let group = Group {
            name,
            id: format!("{}.{name}", log.topic()),
            topics: Arc::new(topics),
            is_released: Arc::new(is_released),
            heard: Arc::default(),
        };
        metrics::counter!("crm_seats_taken_anew_total", "group" => name).increment(0);
        let leaving = Arc::new(AtomicBool::new(false));
        let (tell, unsettled) = watch::channel(Duration::ZERO);
        let mut attendant = Attendant {
            settings,
            group,
            patience: Patience::new(session_timeout),
            tell,
            leaving: Arc::clone(&leaving),
        };
        let (ready, is_ready) = oneshot::channel();
        let (ended, left) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("members-{name}"));
        thread.spawn(move || match attendant.take_seat() {
            Ok(consumer) => {
                ready.send(Ok(())).unwrap_or_default();
                attendant.attend(consumer);
                ended.send(()).unwrap_or_default();
            }
            Err(error) => ready.send(Err(error)).unwrap_or_default(),
        })?;
        is_ready.await.context("the thread of the group's member ended")??;
        Ok(Membership {
            name,
            leaving,
            left,
            unsettled,
        })
    }

    /// What is to be watched of it.
    pub fn seat(&self) -> Seat {
        Seat {
            group: self.name,
            unsettled: self.unsettled.clone(),
        }
    }

    /// Gives up every shard, each when it is released, and then the seat: the others take over at once.
    pub async fn leave(self) {
        self.leaving.store(true, Ordering::SeqCst);
        match tokio::time::timeout(RELEASE_MAX + LEAVE_WAIT, self.left).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!("the thread of the group's member ended badly"),
            Err(_) => tracing::warn!(group = self.name, "the seat in the group is left to its session's end"),
        }
    }
}

/// Who keeps a seat, on a thread of its own.
struct Attendant {
    settings: ClientConfig,
    group: Group,
    patience: Patience,
    /// For how long the group has said nothing.
    tell: watch::Sender<Duration>,
    leaving: Arc<AtomicBool>,
}

impl Attendant {
    fn take_seat(&self) -> anyhow::Result<BaseConsumer<Group>> {
        let topics: Vec<&str> = self.group.topics.iter().map(|(topic, _)| topic.as_str()).collect();
        let consumer: BaseConsumer<Group> = self.settings.create_with_context(self.group.anew())?;
        consumer.subscribe(&topics)?;
        Ok(consumer)
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Keeps the seat, and takes it anew when it was lost: until it is left.
    fn attend(&mut self, first: BaseConsumer<Group>) {
        let mut seated = Some(first);
        while !self.is_leaving() {
            let why = match seated.take().map_or_else(|| self.take_seat(), Ok) {
                Ok(consumer) => match catch_unwind(AssertUnwindSafe(|| self.hear(&consumer))) {
                    // Dropped here: with its seat it gives up its shards, each when it is released.
                    Ok(None) => return,
                    Ok(Some(why)) => {
                        give_up(consumer);
                        why
                    }
                    Err(_) => {
                        metrics::counter!("crm_panics_total", "part" => "membership").increment(1);
                        give_up(consumer);
                        "its thread panicked".to_owned()
                    }
                },
                Err(error) => format!("{error:#}"),
            };
            self.group.lose_touch();
            self.patience.give_up();
            metrics::counter!("crm_seats_taken_anew_total", "group" => self.group.name).increment(1);
            tracing::warn!(group = self.group.name, "takes its seat in the group anew: {why}");
            std::thread::sleep(SEAT_PAUSE);
        }
    }

    /// Hears what the group says, until the seat is left or to be given up; then why.
    fn hear(&mut self, consumer: &BaseConsumer<Group>) -> Option<String> {
        let mut unknown = UnknownPlace::default();
        while !self.is_leaving() {
            let begun = Instant::now();
            if let Some(Err(error)) = consumer.poll(POLL) {
                if unknown.is_to_be_believed(&error) {
                    return Some(error.to_string());
                }
                tracing::debug!("the group's member goes on after: {error}");
            }
            if let Some(why) = self.lost_patience(consumer, begun.elapsed()) {
                return Some(why);
            }
        }
        None
    }

    /// After so much more time: why the seat is to be given up, if it is.
    fn lost_patience(&mut self, consumer: &BaseConsumer<Group>, step: Duration) -> Option<String> {
        let context = consumer.context();
        if std::mem::take(&mut context.heard().is_settled) {
            self.patience.settle();
        } else {
            self.patience.wait(step);
        }
        if self.patience.asks() {
            let account = self.account_of_the_group();
            self.patience.hear(account, context.heard().is_in_touch);
        }
        let unsettled = self.patience.unsettled();
        // By the second is enough.
        self.tell.send_if_modified(|told| {
            let is_news = told.as_secs() != unsettled.as_secs();
            if is_news {
                *told = unsettled;
            }
            is_news
        });
        let why = self.patience.end()?;
        let (state, seconds) = (context.heard().state.clone(), unsettled.as_secs());
        Some(format!("{why}, for {seconds} s (its client is: {state})"))
    }

    /// What the broker says of the group to a client of its own: the member's may be what is stuck.
    fn account_of_the_group(&self) -> Account {
        let id = self.group.id.as_str();
        let client: Result<BaseConsumer, KafkaError> = self.settings.create();
        let account = client.and_then(|client| {
            let account = client.fetch_group_list(Some(id), ACCOUNT_WAIT);
            drop_apart(client, |_| ());
            account
        });
        match account {
            Ok(account) => {
                let found = account.groups().iter().find(|group| group.name() == id);
                match found.map(|group| group.state()) {
                    Some("Stable" | "Empty" | "Dead") => Account::GoesOn,
                    Some(_) => Account::Waits,
                    None => Account::Silent,
                }
            }
            Err(_) => Account::Silent,
        }
    }
}

/// Closes it on a thread of its own, for it may wait for what nobody answers. What it still hears counts no more.
fn give_up(consumer: BaseConsumer<Group>) {
    consumer.context().heard().is_given_up = true;
    drop_apart(consumer, |_| ());
}

/// Since when this client believes that the members' topics are not there.
#[derive(Default)]
struct UnknownPlace(Option<Instant>);

impl UnknownPlace {
    /// It says so once each time that it asks: new topics may not be known everywhere yet, a broker may just have woken up.
    fn is_to_be_believed(&mut self, error: &KafkaError) -> bool {
        if !is_unknown_place(error) {
            return false;
        }
        let since = *self.0.get_or_insert_with(Instant::now);
        if since.elapsed() > UNKNOWN_FORGOTTEN {
            self.0 = Some(Instant::now());
            return false;
        }
        since.elapsed() > UNKNOWN_FOR
    }
}

async fn make_topics(log: &KafkaLog, topics: &[Topic]) -> anyhow::Result<()> {
    let new = topics.iter();
    let new = new.map(|(topic, words)| log.new_topic(topic, words.len() as u16));
    log.create_topics(&new.collect::<Vec<_>>()).await?;
    for (topic, words) in topics {
        let found = match log.leaders_of(topic).await {
            Ok(leaders) => leaders.len(),
            // A new one may not be known everywhere yet, or have no leaders; its number of partitions is the one that
            // was asked for.
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
type Topic = (String, Vec<watch::Sender<Assignment>>);

/// Hands the group's decisions on.
#[derive(Clone)]
struct Group {
    name: &'static str,
    /// As the brokers know it.
    id: String,
    topics: Arc<Vec<Topic>>,
    is_released: Arc<dyn Fn(u16) -> bool + Send + Sync>,
    heard: Arc<Mutex<Heard>>,
}

/// What one client has heard.
#[derive(Default)]
struct Heard {
    /// Since somebody looked.
    is_settled: bool,
    /// False until the first assignment, and from when one was lost until the next. A client that lost its assignment
    /// because it did not find the topics stays in the group, and may never ask for another.
    is_assigned: bool,
    /// How its seat is, in the words of the client library.
    state: String,
    /// As the client library last said.
    is_in_touch: bool,
    /// Another client sits there now.
    is_given_up: bool,
}

impl Heard {
    fn hear_assignment(&mut self) {
        (self.is_assigned, self.is_settled) = (true, true);
    }
}

impl ClientContext for Group {
    fn stats_raw(&self, statistics: &[u8]) {
        let mut heard = self.heard();
        match serde_json::from_slice::<Statistics>(statistics) {
            Ok(statistics) => {
                heard.is_settled |= heard.is_assigned && statistics.is_settled();
                heard.state = statistics.state();
                heard.is_in_touch = statistics.is_in_touch();
            }
            // Nothing is known against it.
            Err(error) => {
                tracing::debug!("the client library's statistics cannot be read: {error}");
                heard.is_settled |= heard.is_assigned;
                heard.is_in_touch = true;
            }
        }
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Group>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(revoked) = rebalance else { return };
        if self.heard().is_given_up {
            return;
        }
        let revoked = places(revoked);
        if consumer.assignment_lost() {
            // The group was not heard of for a while. Going on is safe until another claims.
            tracing::warn!(group = self.name, ?revoked, "lost touch with the group");
            self.heard().is_assigned = false;
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
        if self.heard().is_given_up {
            return;
        }
        self.heard().hear_assignment();
        let assigned = match consumer.assignment() {
            Ok(assigned) => places(&assigned),
            Err(error) => {
                tracing::warn!(group = self.name, "the group's assignment cannot be read: {error}");
                return;
            }
        };
        tracing::info!(group = self.name, ?assigned, "is assigned shards by the group");
        let all = self.topics.iter().flat_map(|(topic, words)| {
            let shards = 0..words.len() as u16;
            shards.map(|shard| (topic.clone(), shard))
        });
        let elsewhere: Vec<_> = all.filter(|place| !assigned.contains(place)).collect();
        self.say(&elsewhere, Assignment::Elsewhere);
        self.say(&assigned, Assignment::Here);
    }
}

impl Group {
    /// The same for another client.
    fn anew(&self) -> Group {
        Group {
            heard: Arc::default(),
            ..self.clone()
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with what is here. That is safe until another claims.
    fn lose_touch(&self) {
        for word in self.topics.iter().flat_map(|(_, words)| words) {
            word.send_if_modified(|known| {
                let was_here = *known == Assignment::Here;
                if was_here {
                    *known = Assignment::HereUnlessClaimed;
                }
                was_here
            });
        }
    }

    fn say(&self, places: &[(String, u16)], word: Assignment) {
        for (topic, shard) in places {
            let seat = self.topics.iter().find(|(known, _)| known == topic);
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
