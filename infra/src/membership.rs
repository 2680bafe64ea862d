//! Which process serves which shard, when several share a Kafka log: a consumer group decides.
//!
//! The members subscribe to a small topic with a partition per shard; nothing is ever written to it. Whoever is assigned a partition
//! serves the shard of its number. Safety does not rest on it, only on the claims in the log: two processes that both believe to be
//! assigned cost time, no data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{ClientContext, TopicPartitionList};
use services::shard::Assignment;
use tokio::sync::watch;

use crate::log::kafka::KafkaLog;

/// How long the group is kept waiting for shards that are being released.
const RELEASE_MAX: Duration = Duration::from_secs(20);
const RELEASE_POLL: Duration = Duration::from_millis(2);
/// How often the group's news are looked for.
const POLL: Duration = Duration::from_millis(50);
/// How long the brokers may take to make the topic.
const TOPIC_MAX: Duration = Duration::from_secs(10);

/// What is spread over processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// To own shards and decide commands.
    Writing,
    /// To fold shards into read models.
    Projecting,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Work::Writing => "writers",
            Work::Projecting => "projections",
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
    /// Takes a seat. From now on `words` say which shards are this process's. Before one is given to another member, `is_released` must
    /// be true of it, so that the other does not take over what is still being finished here.
    ///
    /// # Errors
    /// When the brokers cannot be reached, or the topic of the members has another number of partitions.
    pub async fn join(
        log: &KafkaLog,
        work: Work,
        session_timeout: Duration,
        words: Vec<watch::Sender<Assignment>>,
        is_released: impl Fn(u16) -> bool + Send + Sync + 'static,
    ) -> anyhow::Result<Membership> {
        let topic = format!("{}.members", log.topic());
        make_topic(log, &topic, words.len()).await?;
        let mut settings = log.settings(&[
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "latest"),
            // A member that comes or goes moves only as many shards as it must.
            ("partition.assignment.strategy", "cooperative-sticky"),
            // Nothing ever comes.
            ("fetch.wait.max.ms", "5000"),
        ]);
        settings.set("group.id", format!("{}.{}", log.topic(), work.name()));
        let timeout_ms = session_timeout.as_millis();
        settings.set("session.timeout.ms", timeout_ms.to_string());
        settings.set("heartbeat.interval.ms", (timeout_ms / 4).to_string());
        let group = Group {
            words,
            is_released: Box::new(is_released),
            work,
        };
        let leaving = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&leaving);
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("members-{}", work.name()));
        let thread = thread.spawn(move || match seat(&settings, group, &topic) {
            Ok(consumer) => {
                ready.send(Ok(())).unwrap_or_default();
                attend(&consumer, &until);
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

fn seat(settings: &ClientConfig, group: Group, topic: &str) -> anyhow::Result<BaseConsumer<Group>> {
    let consumer: BaseConsumer<Group> = settings.create_with_context(group)?;
    consumer.subscribe(&[topic])?;
    Ok(consumer)
}

/// Hears what the group says. Leaves when the consumer is dropped.
fn attend(consumer: &BaseConsumer<Group>, leaving: &AtomicBool) {
    while !leaving.load(Ordering::SeqCst) {
        if let Some(Err(error)) = consumer.poll(POLL) {
            tracing::debug!("the group's member goes on after: {error}");
        }
    }
}

async fn make_topic(log: &KafkaLog, topic: &str, partitions: usize) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = log.settings(&[]).create()?;
    let new = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(log.replication()));
    let options = AdminOptions::new()
        .request_timeout(Some(TOPIC_MAX))
        .operation_timeout(Some(TOPIC_MAX));
    let results = admin.create_topics([&new], &options).await;
    for result in results.context("the topic of the members cannot be made")? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => anyhow::bail!("the topic {name} cannot be made: {code}"),
        }
    }
    let topic = topic.to_owned();
    let found = tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(Some(&topic), TOPIC_MAX)?;
        let found = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        anyhow::Ok(found)
    });
    let found = found.await??;
    // A new one may not be known everywhere yet.
    if found != 0 && found != partitions {
        anyhow::bail!(
            "the topic of the members has {found} partitions for {partitions} shards: delete it, nothing is in it"
        );
    }
    Ok(())
}

/// Hands the group's decisions on.
struct Group {
    words: Vec<watch::Sender<Assignment>>,
    is_released: Box<dyn Fn(u16) -> bool + Send + Sync>,
    work: Work,
}

impl ClientContext for Group {}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Group>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(partitions) = rebalance else {
            return;
        };
        let shards = numbers(partitions);
        if consumer.assignment_lost() {
            // The group was not heard of for a while. Going on is safe until another claims.
            tracing::warn!(work = self.work.name(), ?shards, "lost touch with the group");
            shards
                .iter()
                .for_each(|shard| self.say(*shard, Assignment::HereUnlessClaimed));
            return;
        }
        tracing::info!(work = self.work.name(), ?shards, "releases shards to the group");
        shards.iter().for_each(|shard| self.say(*shard, Assignment::Elsewhere));
        let deadline = Instant::now() + RELEASE_MAX;
        while !shards.iter().all(|shard| (self.is_released)(*shard)) {
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
            Ok(assigned) => numbers(&assigned),
            Err(error) => {
                tracing::warn!("the group's assignment cannot be read: {error}");
                return;
            }
        };
        tracing::info!(work = self.work.name(), shards = ?assigned, "is assigned shards by the group");
        for shard in 0..self.words.len() as u16 {
            let word = match assigned.contains(&shard) {
                true => Assignment::Here,
                false => Assignment::Elsewhere,
            };
            self.say(shard, word);
        }
    }
}

impl Group {
    fn say(&self, shard: u16, word: Assignment) {
        if let Some(known) = self.words.get(usize::from(shard)) {
            known.send_if_modified(|known| std::mem::replace(known, word) != word);
        }
    }
}

fn numbers(partitions: &TopicPartitionList) -> Vec<u16> {
    let elements = partitions.elements();
    let numbers = elements.iter().map(|element| element.partition());
    numbers.filter_map(|number| u16::try_from(number).ok()).collect()
}
