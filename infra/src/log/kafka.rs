//! The log as a Kafka topic: one partition per shard, one record per event.
//!
//! Kafka does not know who owns a shard, so an append with an old epoch lands, and the [judge](services::log::Judge) finds
//! it void. What makes that safe is in the protocol; here are only the settings it relies on. The values were measured
//! (see DESIGN); those with a reason that is not plain from their name bear a comment.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer, PurgeConfig};
use rdkafka::{Offset, TopicPartitionList};
use services::log::{AppendError, EventLog, LogError, LogReader, LogWriter, Record};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::refuse_oversized;

/// How long an append waits for its acks. librdkafka keeps its own time-out late, and knows of no commit.
const APPEND_MAX: Duration = Duration::from_secs(10);
/// How long a question to the brokers may take: metadata, settings, where a partition ends.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a new topic may take until each partition has a leader that answers.
const READY_MAX: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(100);
/// How often a question is asked again, each time with a new client, when the brokers' answer is that they do not know the partition.
const UNKNOWN_TRIES: u32 = 3;
const UNKNOWN_PAUSE: Duration = Duration::from_millis(100);
/// How long a reader's client may believe that its partition is not there.
const UNKNOWN_FOR: Duration = Duration::from_secs(3);
/// How often a reader's thread looks whether anybody still reads.
const READER_POLL: Duration = Duration::from_millis(100);
/// A reader's thread hands records over in batches, and a few of these wait: some MiB in all.
const READER_BATCH_RECORDS_MAX: usize = 2_000;
const READER_BATCH_BYTES_MAX: usize = 1024 * 1024;
const READER_BATCHES_MAX: usize = 4;
/// How often a record may come with a wrong checksum before it counts as damaged.
const BAD_FETCHES_MAX: u32 = 3;

/// For every client: be back within half a second of the broker. The defaults wait up to ten.
const CLIENT: &[(&str, &str)] = &[
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "500"),
    ("retry.backoff.ms", "50"),
    ("retry.backoff.max.ms", "500"),
    ("socket.timeout.ms", "10000"),
    // A broker that stood still says for a moment that it has none of its topics. The defaults believe that for five minutes.
    ("topic.metadata.refresh.interval.ms", "2000"),
    ("metadata.max.age.ms", "6000"),
    ("topic.metadata.propagation.max.ms", "2000"),
    // A mistyped topic must fail, not appear.
    ("allow.auto.create.topics", "false"),
    ("log.connection.close", "false"),
];
const PRODUCER: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("linger.ms", "0"),
    ("compression.type", "lz4"),
    // Longer than APPEND_MAX: a short one only makes more outcomes unknown.
    ("message.timeout.ms", "30000"),
    ("message.max.bytes", "1048576"),
    // A producer has one append on its way at a time: APPEND_RECORDS_MAX.
    ("queue.buffering.max.messages", "100000"),
    // Above APPEND_BYTES_MAX by what librdkafka adds per record.
    ("queue.buffering.max.kbytes", "131072"),
];
const CONSUMER: &[(&str, &str)] = &[
    // librdkafka's consumer wants one; nothing is ever committed under it.
    ("group.id", "crm-reader"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // An offset that is not there means that the log lost its tail. Never go on elsewhere.
    ("auto.offset.reset", "error"),
    // The end of a partition is no error, and the client library would log one for each record that is read there.
    ("enable.partition.eof", "false"),
    ("isolation.level", "read_uncommitted"),
    ("check.crcs", "true"),
    // The default of 1000 makes a replay three times slower.
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.wait.max.ms", "100"),
    ("queued.max.messages.kbytes", "16384"),
];

/// What the topic must be set to, for nothing of the log may ever be removed.
const TOPIC: &[(&str, &str)] = &[
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("unclean.leader.election.enable", "false"),
];

/// The log in one topic.
pub struct KafkaLog {
    brokers: String,
    topic: String,
    extra: BTreeMap<String, String>,
    replication: i32,
    /// The client that is kept for questions.
    inquirer: Mutex<Option<Inquirer>>,
}

type Inquirer = Arc<DroppedApart<BaseConsumer>>;

impl KafkaLog {
    /// The log in `topic` of the cluster at `brokers` (`host:port`, several with commas). `extra` are further settings of
    /// librdkafka, for security say; they cannot change those that the protocol relies on. Nothing is connected yet.
    pub fn new(brokers: &str, topic: &str, extra: BTreeMap<String, String>) -> KafkaLog {
        KafkaLog {
            brokers: brokers.to_owned(),
            topic: topic.to_owned(),
            extra,
            replication: 1,
            inquirer: Mutex::default(),
        }
    }

    /// The same with so many replicas of each partition when [`create`](EventLog::create) makes the topic. In production 3:
    /// then two of them must have a record before it is acked.
    pub fn with_replication(self, replication: i32) -> KafkaLog {
        KafkaLog { replication, ..self }
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The settings of a client of this log's brokers, of a certain kind.
    pub fn settings(&self, kind: &[(&str, &str)]) -> ClientConfig {
        let mut settings = ClientConfig::new();
        for (name, value) in &self.extra {
            settings.set(name, value);
        }
        settings.set("bootstrap.servers", &self.brokers);
        for (name, value) in CLIENT.iter().chain(kind) {
            settings.set(*name, *value);
        }
        settings
    }

    /// A client of its own; making one starts threads and reads files.
    async fn client<T: FromClientConfig + Send + 'static>(&self, kind: &[(&str, &str)]) -> Result<T, LogError> {
        let settings = self.settings(kind);
        blocking(move || settings.create()).await
    }

    /// Asks the brokers something, with a client that is kept for that. One that got no answer is thrown away: what it remembers of the
    /// topic may be wrong, and stays so for longer than a new one takes.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(&BaseConsumer, &str) -> KafkaResult<T> + Clone + Send + 'static,
    ) -> Result<T, LogError> {
        let mut tries = 0;
        loop {
            let inquirer = self.inquirer().await?;
            let (client, topic, question) = (Arc::clone(&inquirer), self.topic.clone(), question.clone());
            let answer = blocking(move || {
                let client = client.get();
                let answer = question(client, &topic);
                // Its errors come with the answers; what it says beside must not pile up.
                while client.poll(Duration::ZERO).is_some() {}
                Ok(answer)
            });
            let error = match answer.await? {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            self.throw_away(&inquirer).await;
            tries += 1;
            if tries >= UNKNOWN_TRIES || !is_unknown_place(&error) {
                return Err(unavailable(error));
            }
            sleep(UNKNOWN_PAUSE).await;
        }
    }

    async fn inquirer(&self) -> Result<Inquirer, LogError> {
        let mut kept = self.inquirer.lock().await;
        if let Some(inquirer) = kept.as_ref() {
            return Ok(Arc::clone(inquirer));
        }
        let made = Arc::new(DroppedApart(Some(self.client(&[]).await?)));
        *kept = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Others may have made a new one already.
    async fn throw_away(&self, inquirer: &Inquirer) {
        let mut kept = self.inquirer.lock().await;
        if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, inquirer)) {
            *kept = None;
        }
    }

    /// The leader of each partition of the log, -1 while it has none.
    async fn leaders(&self) -> Result<Vec<i32>, LogError> {
        self.leaders_of(&self.topic).await
    }

    /// The leader of each partition of a topic beside the log, -1 while it has none.
    ///
    /// # Errors
    /// [`LogError::NotCreated`] when the brokers do not know it.
    pub async fn leaders_of(&self, topic: &str) -> Result<Vec<i32>, LogError> {
        let asked = topic.to_owned();
        // The brokers are asked here, not the client's memory: a topic that is not there is one that nobody made.
        let answer = self.ask(move |client, _| {
            let metadata = client.fetch_metadata(Some(&asked), ANSWER_MAX)?;
            let found = metadata.topics().iter().find(|found| found.name() == asked);
            let Some(found) = found else {
                return Ok(Err(RDKafkaErrorCode::UnknownTopicOrPartition));
            };
            match found.error() {
                Some(error) => Ok(Err(error.into())),
                None => Ok(Ok(found
                    .partitions()
                    .iter()
                    .map(|partition| partition.leader())
                    .collect())),
            }
        });
        match answer.await? {
            Ok(leaders) => Ok(leaders),
            Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Err(LogError::NotCreated(self.address()))
            }
            Err(code) => Err(LogError::Unavailable(format!("the topic {topic}: {code}"))),
        }
    }

    async fn admin(&self) -> Result<DroppedApart<AdminClient<DefaultClientContext>>, LogError> {
        Ok(DroppedApart(Some(self.client(&[]).await?)))
    }

    /// A topic beside the log, with so many partitions.
    pub fn new_topic<'a>(&self, name: &'a str, partitions: u16) -> NewTopic<'a> {
        NewTopic::new(name, i32::from(partitions), TopicReplication::Fixed(self.replication))
    }

    async fn create_topic(&self, shards: u16) -> Result<(), LogError> {
        let mut topic = self.new_topic(&self.topic, shards);
        for (name, value) in TOPIC {
            topic = topic.set(name, value);
        }
        if self.replication >= 3 {
            topic = topic.set("min.insync.replicas", "2");
        }
        self.create_topics(&[topic]).await
    }

    /// Makes topics; those that are there stay as they are.
    ///
    /// # Errors
    /// [`LogError::WrongSettings`] when the brokers never would, [`LogError::Unavailable`].
    pub async fn create_topics(&self, topics: &[NewTopic<'_>]) -> Result<(), LogError> {
        let admin = self.admin().await?;
        let results = admin.get().create_topics(topics, &options()).await;
        for result in results.map_err(unavailable)? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    let why = format!("the topic {name} cannot be created: {code}");
                    return Err(match code {
                        RDKafkaErrorCode::InvalidReplicationFactor
                        | RDKafkaErrorCode::InvalidTopic
                        | RDKafkaErrorCode::InvalidPartitions
                        | RDKafkaErrorCode::InvalidConfig
                        | RDKafkaErrorCode::PolicyViolation => LogError::WrongSettings(why),
                        _ => LogError::Unavailable(why),
                    });
                }
            }
        }
        Ok(())
    }

    /// Until each partition has a leader and that one answers: it may still be busy with its new office.
    async fn wait_until_it_answers(&self) -> Result<(), LogError> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            let error = match self.try_each_partition().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if Instant::now() >= deadline {
                return Err(LogError::Unavailable(format!(
                    "the topic {} is not ready after {} s: {error}",
                    self.topic,
                    READY_MAX.as_secs()
                )));
            }
            sleep(READY_POLL).await;
        }
    }

    async fn try_each_partition(&self) -> Result<(), LogError> {
        let leaders = self.leaders().await?;
        if leaders.is_empty() || leaders.contains(&-1) {
            let without = leaders.iter().filter(|leader| **leader < 0).count();
            let why = format!("{without} of {} partitions have no leader", leaders.len());
            return Err(LogError::Unavailable(why));
        }
        // More partitions than that are no log; `open` says so.
        for shard in (0..u16::MAX).take(leaders.len()) {
            self.end(shard).await?;
        }
        Ok(())
    }

    async fn check_settings(&self) -> Result<(), LogError> {
        let admin = self.admin().await?;
        let topic = ResourceSpecifier::Topic(&self.topic);
        let answers = admin.get().describe_configs([&topic], &options()).await;
        let unreadable =
            |code: RDKafkaErrorCode| LogError::Unavailable(format!("the settings of topic {}: {code}", self.topic));
        let mut wrong = vec![];
        for answer in answers.map_err(unavailable)? {
            let found = answer.map_err(unreadable)?;
            for (name, needed) in TOPIC {
                let value = found.get(name).and_then(|entry| entry.value.as_deref());
                if let Some(value) = value
                    && value != *needed
                {
                    wrong.push((format!("{name}={value}"), format!("{name}={needed}")));
                }
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let (has, needs): (Vec<String>, Vec<String>) = wrong.into_iter().unzip();
        Err(LogError::WrongSettings(format!(
            "the topic {topic} would lose events: it has {}, and needs {}. Mend it with: kafka-configs.sh \
             --bootstrap-server {} --alter --entity-type topics --entity-name {topic} --add-config {}",
            has.join(", "),
            needs.join(", "),
            self.brokers,
            needs.join(","),
            topic = self.topic,
        )))
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    fn address(&self) -> String {
        format!("kafka://{}/{}", self.brokers, self.topic)
    }

    async fn create(&self, shards: u16) -> Result<(), LogError> {
        if shards == 0 {
            return Err(LogError::WrongSettings("a log needs at least one shard".into()));
        }
        self.create_topic(shards).await?;
        self.wait_until_it_answers().await?;
        let found = self.open().await?;
        match found == shards {
            true => Ok(()),
            false => Err(LogError::WrongSettings(format!(
                "the topic {} exists with {found} partitions, not {shards}; the number cannot be changed, only a copy of \
                 the log can have another",
                self.topic
            ))),
        }
    }

    async fn open(&self) -> Result<u16, LogError> {
        let partitions = self.leaders().await?.len();
        self.check_settings().await?;
        u16::try_from(partitions).map_err(|_| {
            LogError::WrongSettings(format!(
                "the topic {} has {partitions} partitions: too many",
                self.topic
            ))
        })
    }

    async fn end(&self, shard: u16) -> Result<u64, LogError> {
        let (_, end) = self
            .ask(move |client, topic| client.fetch_watermarks(topic, i32::from(shard), ANSWER_MAX))
            .await?;
        u64::try_from(end).map_err(|_| LogError::Unavailable(format!("Kafka says that shard {shard} ends at {end}")))
    }

    async fn writer(&self, shard: u16) -> Result<Box<dyn LogWriter>, LogError> {
        Ok(Box::new(Writer {
            producer: Some(self.client(PRODUCER).await?),
            topic: self.topic.clone(),
            shard,
            is_spent: false,
        }))
    }

    async fn reader(&self, shard: u16, from: u64) -> Result<Box<dyn LogReader>, LogError> {
        let Ok(offset) = i64::try_from(from) else {
            return Err(LogError::OutOfRange { shard, offset: from });
        };
        let (settings, topic) = (self.settings(CONSUMER), self.topic.clone());
        let consumer = blocking(move || {
            let consumer: BaseConsumer = settings.create()?;
            let mut start = TopicPartitionList::new();
            start.add_partition_offset(&topic, i32::from(shard), Offset::Offset(offset))?;
            consumer.assign(&start)?;
            Ok(consumer)
        })
        .await?;
        let (to_reader, batches) = mpsc::channel(READER_BATCHES_MAX);
        let thread = std::thread::Builder::new().name(format!("log-reader-{shard}"));
        thread
            .spawn(move || read_until_unwanted(&consumer, &to_reader, shard, from))
            .map_err(|error| LogError::Unavailable(format!("no thread for a reader: {error}")))?;
        Ok(Box::new(Reader {
            batches,
            ready: VecDeque::new(),
        }))
    }
}

/// One producer, for one claim.
struct Writer {
    /// `None` only while it is dropped.
    producer: Option<FutureProducer>,
    topic: String,
    shard: u16,
    /// Something sent has no known outcome. Whatever came after it could stand without it, so nothing more is sent.
    is_spent: bool,
}

#[async_trait]
impl LogWriter for Writer {
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError> {
        if self.is_spent {
            let why = "an earlier append of this writer has no known outcome; nothing more was sent";
            return Err(AppendError::Unknown(why.into()));
        }
        refuse_unsendable(&records)?;
        let deadline = Instant::now() + APPEND_MAX;
        let mut deliveries = Vec::with_capacity(records.len());
        for record in &records {
            match self.send(record) {
                Ok(delivery) => {
                    // Also when the caller gives up waiting.
                    self.is_spent = true;
                    deliveries.push(delivery);
                }
                Err(error) if deliveries.is_empty() && is_local_refusal(&error) => {
                    return Err(AppendError::Refused(error.to_string()));
                }
                Err(error) => return Err(AppendError::Unknown(error.to_string())),
            }
        }
        let mut offsets = Vec::with_capacity(records.len());
        for delivery in deliveries {
            let why = match timeout_at(deadline, delivery).await {
                Ok(Ok(Ok(delivered))) => match u64::try_from(delivered.offset) {
                    Ok(offset) => {
                        offsets.push(offset);
                        continue;
                    }
                    Err(_) => "the broker has the record but does not say where".into(),
                },
                Ok(Ok(Err((error, _)))) => error.to_string(),
                Ok(Err(_)) => "the producer has ended".into(),
                Err(_) => format!("no ack within {} s", APPEND_MAX.as_secs()),
            };
            return Err(AppendError::Unknown(why));
        }
        self.is_spent = false;
        Ok(offsets)
    }
}

impl Writer {
    fn send(&self, record: &Record) -> KafkaResult<rdkafka::producer::DeliveryFuture> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (name, value) in &record.headers {
            headers = headers.insert(Header {
                key: name,
                value: Some(value),
            });
        }
        let mut message = FutureRecord::to(&self.topic)
            .partition(i32::from(self.shard))
            .key(&record.key)
            .headers(headers);
        message.payload = record.value.as_ref();
        let producer = self.producer.as_ref().expect("it is there until the drop");
        producer.send_result(message).map_err(|(error, _)| error)
    }
}

impl Drop for Writer {
    /// Throws away what was not sent, and does not wait for it here: closing takes a while when the broker is gone.
    fn drop(&mut self) {
        let Some(producer) = self.producer.take() else {
            return;
        };
        drop_apart(producer, |producer| {
            producer.purge(PurgeConfig::default().queue().inflight());
        });
    }
}

fn refuse_unsendable(records: &[Record]) -> Result<(), AppendError> {
    refuse_oversized(records)?;
    let mut names = records.iter().flat_map(|record| &record.headers).map(|(name, _)| name);
    match names.find(|name| name.contains('\0')) {
        Some(name) => Err(AppendError::Refused(format!(
            "the header's name {name:?} holds a zero byte"
        ))),
        None => Ok(()),
    }
}

/// Does the client believe that the topic, or the partition, is not there? A log that was opened is there; so the client is to be replaced.
pub fn is_unknown_place(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopicId
        )
    )
}

/// The client library did not take the record at all.
fn is_local_refusal(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::QueueFull | RDKafkaErrorCode::MessageSizeTooLarge)
    )
}

type Batch = Result<Vec<(u64, Record)>, LogError>;

struct Reader {
    /// From the reader's thread, which ends when this is dropped.
    batches: mpsc::Receiver<Batch>,
    ready: VecDeque<(u64, Record)>,
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self, records_max: usize, wait: Duration) -> Result<Vec<(u64, Record)>, LogError> {
        if self.ready.is_empty() {
            match timeout(wait, self.batches.recv()).await {
                Ok(Some(batch)) => self.ready.extend(batch?),
                Ok(None) => return Err(LogError::Unavailable("the reader has ended".into())),
                Err(_) => return Ok(vec![]),
            }
        }
        let count = records_max.min(self.ready.len());
        Ok(self.ready.drain(..count).collect())
    }
}

/// A reader's thread.
fn read_until_unwanted(consumer: &BaseConsumer, to_reader: &mpsc::Sender<Batch>, shard: u16, from: u64) {
    let mut progress = Progress {
        shard,
        next: from,
        bad_fetches: 0,
        unknown_since: None,
    };
    // The library panics on a header whose name is no UTF-8: such a record is not ours.
    let attempt = catch_unwind(AssertUnwindSafe(|| progress.read(consumer, to_reader)));
    let harm = attempt.unwrap_or_else(|_| Some(progress.damage("the client library cannot take the record apart")));
    if let Some(harm) = harm {
        let _nobody_reads = to_reader.blocking_send(Err(harm));
    }
}

struct Progress {
    shard: u16,
    next: u64,
    /// Fetches with a wrong checksum since the last good record.
    bad_fetches: u32,
    /// Since when the client believes that the partition is not there.
    unknown_since: Option<std::time::Instant>,
}

impl Progress {
    /// Until nobody reads any more, or it cannot go on.
    fn read(&mut self, consumer: &BaseConsumer, to_reader: &mpsc::Sender<Batch>) -> Option<LogError> {
        loop {
            let (records, harm) = self.take_what_is_there(consumer);
            let harm = harm.or_else(|| self.is_lost());
            let nobody_reads = match records.is_empty() {
                true => to_reader.is_closed(),
                false => to_reader.blocking_send(Ok(records)).is_err(),
            };
            if nobody_reads || harm.is_some() {
                return harm;
            }
        }
    }

    fn take_what_is_there(&mut self, consumer: &BaseConsumer) -> (Vec<(u64, Record)>, Option<LogError>) {
        let (mut records, mut bytes) = (vec![], 0);
        let mut wait = READER_POLL;
        while records.len() < READER_BATCH_RECORDS_MAX && bytes < READER_BATCH_BYTES_MAX {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    // Kafka's offsets are never negative.
                    let offset = message.offset().cast_unsigned();
                    let record = to_record(&message);
                    bytes += record.size();
                    records.push((offset, record));
                    self.next = offset + 1;
                    self.bad_fetches = 0;
                    self.unknown_since = None;
                }
                Some(Err(error)) => {
                    if let Some(harm) = self.harm_in(&error) {
                        return (records, Some(harm));
                    }
                }
            }
            wait = Duration::ZERO;
        }
        (records, None)
    }

    /// Most errors pass: at the end of the partition, or while the broker is gone, the library goes on by itself.
    fn harm_in(&mut self, error: &KafkaError) -> Option<LogError> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                Some(LogError::OutOfRange {
                    shard: self.shard,
                    offset: self.next,
                })
            }
            // On the way, it would be right the next time; on the broker's disk, the library asks for it for ever.
            Some(RDKafkaErrorCode::BadMessage) => {
                self.bad_fetches += 1;
                let stays_bad = self.bad_fetches >= BAD_FETCHES_MAX;
                stays_bad.then(|| self.damage("its checksum is wrong"))
            }
            _ if is_unknown_place(error) => {
                self.unknown_since.get_or_insert_with(std::time::Instant::now);
                None
            }
            _ => {
                tracing::trace!("a log reader goes on after: {error}");
                None
            }
        }
    }

    /// A broker that stood still says for a moment that it has no such partition. A client that has believed it for so long is replaced.
    fn is_lost(&self) -> Option<LogError> {
        let since = self.unknown_since.filter(|since| since.elapsed() > UNKNOWN_FOR)?;
        let (shard, waited) = (self.shard, since.elapsed().as_secs());
        let why = format!("the client that reads shard {shard} has not found it for {waited} s");
        Some(LogError::Unavailable(why))
    }

    fn damage(&self, why: &str) -> LogError {
        LogError::Damaged {
            shard: self.shard,
            offset: self.next,
            why: why.into(),
        }
    }
}

fn to_record(message: &BorrowedMessage) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
            .collect()
    });
    Record {
        key: message.key().unwrap_or_default().to_vec(),
        headers,
        value: message.payload().map(<[u8]>::to_vec),
    }
}

/// A client that is closed on a thread of its own, for that takes a while and must not hold up an async thread.
struct DroppedApart<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> DroppedApart<T> {
    fn get(&self) -> &T {
        self.0.as_ref().expect("it is there until the drop")
    }
}

impl<T: Send + 'static> Drop for DroppedApart<T> {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop_apart(client, |_| ());
        }
    }
}

/// Closes a client on a thread of its own, after a last word to it.
pub fn drop_apart<T: Send + 'static>(client: T, last_word: impl FnOnce(&T) + Send + 'static) {
    let thread = std::thread::Builder::new().name("log-closer".into());
    let closing = thread.spawn(move || {
        last_word(&client);
        drop(client);
    });
    if let Err(error) = closing {
        // The client was dropped with the closure, right here: slower, but closed.
        tracing::warn!("no thread to close a Kafka client: {error}");
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(ANSWER_MAX))
        .operation_timeout(Some(ANSWER_MAX))
}

fn unavailable(error: KafkaError) -> LogError {
    match error {
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => LogError::WrongSettings(error.to_string()),
        _ => LogError::Unavailable(error.to_string()),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> KafkaResult<T> + Send + 'static) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(unavailable),
        Err(error) => Err(LogError::Unavailable(error.to_string())),
    }
}
