//! What every log promises, asked of all of them, and what only one of them has to keep.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{Actor, EventType, Position, StreamKind, StreamRef, derived_id};
use infra::log::kafka::KafkaLog;
use infra::log::postgres::PostgresLog;
use infra::log::sqlite::SqliteLog;
use infra::log::{APPEND_BYTES_MAX, APPEND_RECORDS_MAX, RECORD_BYTES_MAX};
use jiff::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use services::log::{
    AppendError, Claim, Envelope, EventLog, Foreign, Judge, Judgement, LogCreated, LogError, LogReader, LogWriter,
    MemoryLog, NewLog, Record, StoredEvent,
};
use tests::{Broker, Database, Holder, Server, shared_kafka, unique_topic};

/// How long something may take that must happen.
const PATIENCE: Duration = Duration::from_secs(30);
const SHARDS: u16 = 3;
/// The one that most checks look at; the others are there to be mixed up with.
const SHARD: u16 = 1;
const SOURCE: &str = "/crm/contract";

/// How long an append or a question to a server may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// And how much later that may be noticed.
const SLACK: Duration = Duration::from_secs(5);

macro_rules! contract {
    ($($backend:ident: $fresh:expr;)*) => { $( mod $backend {
        use super::*;

        contract!(@checks $fresh;
            a_log_is_there_from_its_creation_on
            offsets_count_from_zero_in_each_shard
            a_record_comes_back_byte_for_byte_from_any_offset
            a_reader_takes_no_more_than_it_asked_for
            a_waiting_reader_gets_what_is_appended_later
            a_reader_at_the_end_gives_up_after_its_wait
            an_offset_beyond_the_end_is_out_of_range
            an_oversized_record_is_refused_and_the_log_goes_on
            an_append_of_too_much_is_refused_and_the_log_goes_on
            a_writer_that_lost_its_shard_adds_nothing_that_counts
            of_two_claims_for_an_epoch_the_first_counts
            half_a_commit_counts_as_nothing
            a_barrier_counts_only_while_the_shard_is_owned
            a_record_that_is_not_ours_stops_the_judge_where_it_stands
            appends_of_one_writer_stay_in_order
            a_reader_misses_nothing_of_what_is_appended_meanwhile
        );
    } )* };
    (@checks $fresh:expr; $($check:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $check() {
            let (_lives_as_long, log) = $fresh;
            suite::$check(Arc::new(log)).await;
        }
    )* };
}

contract! {
    memory: ((), MemoryLog::new());
    sqlite: { let folder = tempfile::tempdir().unwrap(); let log = SqliteLog::new(folder.path()); (folder, log) };
    postgres: { let database = Database::create(); let log = PostgresLog::new(database.url()).unwrap(); (database, log) };
    kafka: ((), KafkaLog::new(&shared_kafka(), &unique_topic("contract"), BTreeMap::new()));
}

/// A reader hands out no more than this at once, and one record over it.
async fn large_records_come_in_batches(log: &dyn EventLog, bytes_max: usize) {
    const COUNT: usize = 20;
    log.create(SHARDS).await.unwrap();
    let large = Record {
        value: Some(vec![7; 900_000]),
        ..plain(0)
    };
    let mut writer = log.writer(SHARD).await.unwrap();
    writer.append(vec![large.clone(); COUNT]).await.unwrap();
    let mut reader = log.reader(SHARD, 0).await.unwrap();
    let mut came = 0;
    while came < COUNT {
        let batch = reader.next(100, PATIENCE).await.unwrap();
        assert!(!batch.is_empty());
        assert!((batch.len() - 1) * large.size() < bytes_max, "{} at once", batch.len());
        assert!(batch.iter().all(|(_, record)| *record == large));
        came += batch.len();
    }
    assert_eq!(came, COUNT);
}

mod suite {
    use super::*;

    pub async fn a_log_is_there_from_its_creation_on(log: Arc<dyn EventLog>) {
        assert!(matches!(log.open().await, Err(LogError::NotCreated(_))));
        log.create(3).await.unwrap();
        assert_eq!(log.open().await.unwrap(), 3);

        log.create(3).await.unwrap();
        for other in [2, 4] {
            let refusal = log.create(other).await.unwrap_err();
            assert!(matches!(refusal, LogError::WrongSettings(_)), "{refusal}");
            assert!(refusal.to_string().contains('3'), "{refusal}");
        }
        assert_eq!(log.open().await.unwrap(), 3);
        for shard in 0..3 {
            assert_eq!(log.end(shard).await.unwrap(), 0);
        }
    }

    pub async fn offsets_count_from_zero_in_each_shard(log: Arc<dyn EventLog>) {
        log.create(SHARDS).await.unwrap();
        for shard in [1, 2] {
            let mut writer = log.writer(shard).await.unwrap();
            assert_eq!(writer.append(vec![]).await.unwrap(), Vec::<u64>::new());
            assert_eq!(writer.append(vec![plain(1)]).await.unwrap(), [0]);
            assert_eq!(writer.append(vec![plain(2), plain(3)]).await.unwrap(), [1, 2]);
            assert_eq!(log.end(shard).await.unwrap(), 3);
        }
        let mut another = log.writer(1).await.unwrap();
        assert_eq!(another.append(vec![plain(4)]).await.unwrap(), [3]);
        let ends = [
            log.end(0).await.unwrap(),
            log.end(1).await.unwrap(),
            log.end(2).await.unwrap(),
        ];
        assert_eq!(ends, [0, 4, 3]);
    }

    pub async fn a_record_comes_back_byte_for_byte_from_any_offset(log: Arc<dyn EventLog>) {
        log.create(SHARDS).await.unwrap();
        let every_byte: Vec<u8> = (0..=255).collect();
        let header = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
        let records = [
            Record {
                key: b"0192c9a0".to_vec(),
                headers: vec![
                    header("ce_id", b"1.0"),
                    header("bytes", &every_byte),
                    header("", b"no name"),
                ],
                value: Some(every_byte.clone()),
            },
            Record {
                key: vec![],
                headers: vec![],
                value: Some(vec![]),
            },
            Record {
                key: every_byte,
                headers: vec![header("twice", b"1"), header("twice", b""), header("twice", b"1")],
                value: None,
            },
            Record {
                key: "客戶".into(),
                headers: vec![header("名稱", "王小明 🙂".as_bytes())],
                value: Some("{\"name\":\"王小明\"}".into()),
            },
            Record {
                key: b"big".to_vec(),
                headers: vec![header("big", &[0xfe; 40_000])],
                value: Some(
                    (0..200_000_u32)
                        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
                        .collect(),
                ),
            },
        ];
        let mut writer = log.writer(SHARD).await.unwrap();
        writer.append(records.to_vec()).await.unwrap();

        let expected: Vec<(u64, Record)> = (0..).zip(records).collect();
        for from in 0..expected.len() {
            let rest = read(&*log, from as u64, expected.len() - from).await;
            assert!(rest == expected[from..], "from {from}");
        }
    }

    pub async fn a_reader_takes_no_more_than_it_asked_for(log: Arc<dyn EventLog>) {
        log.create(SHARDS).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        writer.append((0..10).map(plain).collect()).await.unwrap();
        let mut reader = log.reader(SHARD, 0).await.unwrap();
        let mut offsets = vec![];
        while offsets.len() < 10 {
            let batch = reader.next(3, PATIENCE).await.unwrap();
            assert!((1..=3).contains(&batch.len()));
            offsets.extend(batch.into_iter().map(|(offset, _)| offset));
        }
        assert_eq!(offsets, Vec::from_iter(0..10));
    }

    pub async fn a_waiting_reader_gets_what_is_appended_later(log: Arc<dyn EventLog>) {
        log.create(SHARDS).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        writer.append(vec![plain(0)]).await.unwrap();
        let mut reader = log.reader(SHARD, 1).await.unwrap();
        let waiting = tokio::spawn(async move {
            let batch = reader.next(10, PATIENCE).await.unwrap();
            (batch, Instant::now())
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!waiting.is_finished());

        log.writer(2).await.unwrap().append(vec![plain(8)]).await.unwrap();
        writer.append(vec![plain(1)]).await.unwrap();
        let appended = Instant::now();
        let (batch, came) = waiting.await.unwrap();
        assert_eq!(batch, [(1, plain(1))]);
        assert!(came.saturating_duration_since(appended) < Duration::from_secs(2));
    }

    pub async fn a_reader_at_the_end_gives_up_after_its_wait(log: Arc<dyn EventLog>) {
        log.create(SHARDS).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        writer.append(vec![plain(0)]).await.unwrap();
        for (from, wait_ms) in [(1, 300), (1, 0)] {
            let mut reader = log.reader(SHARD, from).await.unwrap();
            let asked = Instant::now();
            let wait = Duration::from_millis(wait_ms);
            assert_eq!(reader.next(10, wait).await.unwrap(), []);
            let waited = asked.elapsed();
            assert!(waited >= wait && waited < wait + Duration::from_secs(2), "{waited:?}");
        }
    }

    pub async fn an_offset_beyond_the_end_is_out_of_range(log: Arc<dyn EventLog>) {
        log.create(SHARDS).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        writer.append(vec![plain(0), plain(1)]).await.unwrap();
        match first_error(&*log, 7).await {
            LogError::OutOfRange { shard, offset } => assert_eq!((shard, offset), (SHARD, 7)),
            other => panic!("{other}"),
        }
    }

    pub async fn an_oversized_record_is_refused_and_the_log_goes_on(log: Arc<dyn EventLog>) {
        log.create(SHARDS).await.unwrap();
        let sized = |bytes: usize| {
            let empty = Record {
                key: b"key".to_vec(),
                headers: vec![],
                value: Some(vec![]),
            };
            // Bytes that do not compress: that would make room which cannot be relied on.
            let mut state = 1_u64;
            let noise = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            });
            let value = noise.take(bytes - empty.size()).collect();
            Record {
                value: Some(value),
                ..empty
            }
        };
        let largest = sized(RECORD_BYTES_MAX);
        let mut writer = log.writer(SHARD).await.unwrap();
        if log.address() != MemoryLog::new().address() {
            let too_large = vec![plain(0), sized(RECORD_BYTES_MAX + 1)];
            let refusal = writer.append(too_large).await.unwrap_err();
            assert!(matches!(refusal, AppendError::Refused(_)), "{refusal}");
        }
        let offsets = writer.append(vec![largest.clone(), plain(1), largest.clone()]).await;
        assert_eq!(offsets.unwrap(), [0, 1, 2]);
        assert!(read(&*log, 0, 3).await == [(0, largest.clone()), (1, plain(1)), (2, largest)]);
    }

    pub async fn an_append_of_too_much_is_refused_and_the_log_goes_on(log: Arc<dyn EventLog>) {
        log.create(SHARDS).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        let large = Record {
            value: Some(vec![7; 1_000_000]),
            ..plain(0)
        };
        let fits = APPEND_BYTES_MAX / large.size();
        if log.address() != MemoryLog::new().address() {
            for too_much in [vec![plain(0); APPEND_RECORDS_MAX + 1], vec![large.clone(); fits + 1]] {
                let refusal = writer.append(too_much).await.unwrap_err();
                assert!(matches!(refusal, AppendError::Refused(_)), "{refusal}");
            }
        }
        assert_eq!(log.end(SHARD).await.unwrap(), 0);
        let last = |offsets: Vec<u64>| offsets.last().copied();
        let offsets = writer.append(vec![plain(0); APPEND_RECORDS_MAX]).await.unwrap();
        assert_eq!(last(offsets), Some(APPEND_RECORDS_MAX as u64 - 1));
        let offsets = writer.append(vec![large; fits]).await.unwrap();
        assert_eq!(last(offsets), Some((APPEND_RECORDS_MAX + fits) as u64 - 1));
    }

    pub async fn a_writer_that_lost_its_shard_adds_nothing_that_counts(log: Arc<dyn EventLog>) {
        begin(&*log).await;
        let mut old = Owner::claim(&*log, 1, "old").await.unwrap();
        old.commit("before", 2).await.unwrap();
        let expected = log.end(SHARD).await.unwrap();

        let mut new = Owner::claim(&*log, 2, "new").await.unwrap();
        for late in ["late", "later"] {
            // Kafka takes them, but not where the old owner must expect them; a database does not take them.
            match old.commit(late, 2).await {
                Ok(offsets) => assert_ne!(offsets[0], expected),
                Err(error) => assert!(matches!(error, AppendError::Fenced), "{error}"),
            }
        }
        new.commit("after", 1).await.unwrap();
        assert_eq!(
            what_counts(&*log).await.unwrap(),
            ["old claims", "before", "new claims", "after"]
        );
    }

    pub async fn of_two_claims_for_an_epoch_the_first_counts(log: Arc<dyn EventLog>) {
        begin(&*log).await;
        let mut first = Owner::claim(&*log, 1, "first").await.unwrap();
        let second = Owner::claim(&*log, 1, "second").await;
        assert!(second.is_ok() || matches!(second, Err(AppendError::Fenced)));
        first.commit("rightful", 1).await.unwrap();
        let skipping = Owner::claim(&*log, 3, "skips an epoch").await;
        assert!(skipping.is_ok() || matches!(skipping, Err(AppendError::Fenced)));
        assert_eq!(what_counts(&*log).await.unwrap(), ["first claims", "rightful"]);
    }

    pub async fn half_a_commit_counts_as_nothing(log: Arc<dyn EventLog>) {
        begin(&*log).await;
        let mut old = Owner::claim(&*log, 1, "old").await.unwrap();
        old.commit("whole", 3).await.unwrap();
        let mut torn = old.events("torn", 3);
        torn.truncate(2);
        old.writer.append(torn).await.unwrap();
        assert_eq!(what_counts(&*log).await.unwrap(), ["old claims", "whole"]);

        let mut new = Owner::claim(&*log, 2, "new").await.unwrap();
        new.commit("torn", 3).await.unwrap();
        assert_eq!(
            what_counts(&*log).await.unwrap(),
            ["old claims", "whole", "new claims", "torn"]
        );
    }

    pub async fn a_barrier_counts_only_while_the_shard_is_owned(log: Arc<dyn EventLog>) {
        begin(&*log).await;
        let mut old = Owner::claim(&*log, 1, "old").await.unwrap();
        old.barrier().await.unwrap();
        let _new = Owner::claim(&*log, 2, "new").await.unwrap();
        let late = old.barrier().await;
        assert!(late.is_ok() || matches!(late, Err(AppendError::Fenced)));
        assert_eq!(
            what_counts(&*log).await.unwrap(),
            ["old claims", "barrier", "new claims"]
        );
    }

    pub async fn a_record_that_is_not_ours_stops_the_judge_where_it_stands(log: Arc<dyn EventLog>) {
        begin(&*log).await;
        let mut owner = Owner::claim(&*log, 1, "owner").await.unwrap();
        owner.commit("before", 1).await.unwrap();
        let mut somebody = log.writer(SHARD).await.unwrap();
        assert_eq!(somebody.append(vec![plain(5)]).await.unwrap(), [3]);
        owner.commit("after", 1).await.unwrap();
        let foreign = what_counts(&*log).await.unwrap_err();
        assert_eq!((foreign.shard, foreign.offset), (SHARD, 3));
        assert_eq!(foreign.fingerprint, plain(5).fingerprint());
    }

    pub async fn appends_of_one_writer_stay_in_order(log: Arc<dyn EventLog>) {
        log.create(SHARDS).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        let mut expected = vec![];
        for size in [1, 64, 2, 700, 1, 1, 33] {
            let first = expected.len() as u64;
            let records: Vec<Record> = (first..first + size).map(plain).collect();
            let offsets = writer.append(records.clone()).await.unwrap();
            assert_eq!(offsets, Vec::from_iter(first..first + size));
            expected.extend(offsets.into_iter().zip(records));
        }
        assert!(read(&*log, 0, expected.len()).await == expected);
    }

    pub async fn a_reader_misses_nothing_of_what_is_appended_meanwhile(log: Arc<dyn EventLog>) {
        const COUNT: u64 = 10_000;
        log.create(SHARDS).await.unwrap();
        let readers = [0, 4_000].map(|from| {
            let log = log.clone();
            tokio::spawn(async move {
                while log.end(SHARD).await.unwrap() < from {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                read(&*log, from, (COUNT - from) as usize).await
            })
        });
        let mut writer = log.writer(SHARD).await.unwrap();
        let mut other = log.writer(SHARD + 1).await.unwrap();
        let mut next = 0;
        while next < COUNT {
            let size = (next % 97 + 1).min(COUNT - next);
            let records = (next..next + size).map(plain).collect();
            let beside = other.append(vec![plain(next)]);
            let (offsets, beside) = tokio::join!(writer.append(records), beside);
            assert_eq!(offsets.unwrap(), Vec::from_iter(next..next + size));
            beside.unwrap();
            next += size;
        }
        for (reader, from) in readers.into_iter().zip([0, 4_000]) {
            let expected: Vec<(u64, Record)> = (from..COUNT).map(|i| (i, plain(i))).collect();
            assert!(reader.await.unwrap() == expected);
        }
    }
}

mod only_kafka {
    use super::*;

    #[tokio::test]
    async fn a_topic_that_would_lose_events_is_refused_with_the_way_to_mend_it() {
        let refused = [
            (vec![("cleanup.policy", "compact")], "cleanup.policy=compact"),
            (vec![("retention.ms", "1000")], "retention.ms=1000"),
            (vec![("retention.bytes", "4096")], "retention.bytes=4096"),
            (
                vec![("unclean.leader.election.enable", "true")],
                "unclean.leader.election.enable=true",
            ),
        ];
        for (wrong, shown) in refused {
            let topic = unique_topic("wrong");
            let mut settings = BTreeMap::from([
                ("cleanup.policy", "delete"),
                ("retention.ms", "-1"),
                ("retention.bytes", "-1"),
                ("unclean.leader.election.enable", "false"),
            ]);
            settings.extend(wrong);
            make_topic(&topic, 2, &settings).await;

            let log = KafkaLog::new(&shared_kafka(), &topic, BTreeMap::new());
            for refusal in [log.open().await.map(|_| ()), log.create(2).await] {
                let refusal = refusal.unwrap_err();
                assert!(matches!(refusal, LogError::WrongSettings(_)), "{refusal}");
                let text = refusal.to_string();
                assert!(text.contains(&topic) && text.contains(shown), "{text}");
                assert!(text.contains("kafka-configs.sh --bootstrap-server"), "{text}");
            }
        }
    }

    #[tokio::test]
    async fn a_topic_that_somebody_made_with_the_right_settings_is_taken() {
        let topic = unique_topic("by-hand");
        let settings = BTreeMap::from([("retention.ms", "-1")]);
        make_topic(&topic, 4, &settings).await;
        let log = KafkaLog::new(&shared_kafka(), &topic, BTreeMap::new());
        assert_eq!(log.open().await.unwrap(), 4);
        log.create(4).await.unwrap();
    }

    #[tokio::test]
    async fn the_settings_of_the_protocol_cannot_be_overruled() {
        let extra = BTreeMap::from([("acks".to_owned(), "0".to_owned()), ("client.id".into(), "test".into())]);
        let log = KafkaLog::new(&shared_kafka(), &unique_topic("extra"), extra);
        log.create(1).await.unwrap();
        let offsets = log.writer(0).await.unwrap().append(vec![plain(1)]).await;
        assert_eq!(offsets.unwrap(), [0]);

        let extra = BTreeMap::from([("no.such.setting".to_owned(), "1".to_owned())]);
        let log = KafkaLog::new(&shared_kafka(), &unique_topic("extra"), extra);
        let refusal = log.open().await.unwrap_err();
        assert!(refusal.to_string().contains("no.such.setting"), "{refusal}");
    }

    #[tokio::test]
    async fn too_many_replicas_for_the_cluster_are_refused() {
        let log = KafkaLog::new(&shared_kafka(), &unique_topic("replicas"), BTreeMap::new()).with_replication(3);
        let refusal = log.create(2).await.unwrap_err();
        assert!(matches!(refusal, LogError::WrongSettings(_)), "{refusal}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_broker_that_dies_and_comes_back_loses_nothing_that_was_acked() {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Broker::start(folder.path());
        let log = KafkaLog::new(&broker.address(), "events", BTreeMap::new());
        log.create(SHARDS).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        let mut reader = log.reader(SHARD, 0).await.unwrap();
        writer.append((0..100).map(plain).collect()).await.unwrap();

        broker.kill();
        let asked = Instant::now();
        let unknown = writer.append(vec![plain(100)]).await.unwrap_err();
        assert!(matches!(unknown, AppendError::Unknown(_)), "{unknown}");
        assert!(asked.elapsed() < ANSWER_MAX + SLACK, "{:?}", asked.elapsed());
        let asked = Instant::now();
        let spent = writer.append(vec![plain(101)]).await.unwrap_err();
        assert!(matches!(spent, AppendError::Unknown(_)), "{spent}");
        drop(writer);
        assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
        let asked = Instant::now();
        let unreachable = log.end(SHARD).await.unwrap_err();
        assert!(matches!(unreachable, LogError::Unavailable(_)), "{unreachable}");
        assert!(asked.elapsed() < ANSWER_MAX + SLACK, "{:?}", asked.elapsed());

        broker.restart();
        let mut writer = log.writer(SHARD).await.unwrap();
        let offset = writer.append(vec![plain(102)]).await.unwrap()[0];
        let records = collect(&mut *reader, offset as usize + 1).await;
        let acked: Vec<(u64, Record)> = (0..100).map(|i| (i, plain(i))).collect();
        assert!(records[..100] == acked);
        assert_eq!(records[offset as usize], (offset, plain(102)));
        assert_eq!(log.end(SHARD).await.unwrap(), offset + 1);
    }

    #[tokio::test]
    async fn large_records_come_in_batches_of_a_megabyte() {
        let log = KafkaLog::new(&shared_kafka(), &unique_topic("large"), BTreeMap::new());
        large_records_come_in_batches(&log, 1024 * 1024).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_byte_that_flips_on_the_brokers_disk_is_damage_at_its_offset() {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(folder.path());
        let log = KafkaLog::new(&broker.address(), "events", BTreeMap::new());
        log.create(SHARDS).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        writer.append(vec![plain(0)]).await.unwrap();
        writer.append(vec![plain(1)]).await.unwrap();

        let segment = folder
            .path()
            .join(format!("data/events-{SHARD}/00000000000000000000.log"));
        let mut bytes = std::fs::read(&segment).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&segment, bytes).unwrap();

        assert_eq!(read(&log, 0, 1).await, [(0, plain(0))]);
        match first_error(&log, 0).await {
            LogError::Damaged { shard, offset, .. } => assert_eq!((shard, offset), (SHARD, 1)),
            other => panic!("{other}"),
        }
    }

    async fn make_topic(topic: &str, partitions: i32, settings: &BTreeMap<&str, &str>) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", shared_kafka())
            .create()
            .unwrap();
        let made = admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
        assert!(made[0].is_ok(), "{made:?}");
    }
}

mod only_sqlite {
    use super::*;

    #[tokio::test]
    async fn large_records_come_in_batches_of_some_megabytes() {
        let folder = tempfile::tempdir().unwrap();
        large_records_come_in_batches(&SqliteLog::new(folder.path()), 2 * 1024 * 1024).await;
    }

    #[tokio::test]
    async fn a_second_writing_process_is_refused_by_the_name_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let log = SqliteLog::new(folder.path());
        log.create(2).await.unwrap();
        let second = SqliteLog::new(folder.path());
        for refusal in [second.open().await.map(|_| ()), second.create(2).await] {
            let refusal = refusal.unwrap_err().to_string();
            assert!(refusal.contains(&folder.path().display().to_string()), "{refusal}");
            assert!(refusal.contains("in use by another process"), "{refusal}");
        }
        drop(log);
        assert_eq!(second.open().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_log_that_is_opened_again_has_everything_and_its_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let expected = {
            let log = SqliteLog::new(folder.path());
            begin(&log).await;
            let mut owner = Owner::claim(&log, 1, "first").await.unwrap();
            owner.commit("commit", 5).await.unwrap();
            read(&log, 0, 7).await
        };
        let log = SqliteLog::new(folder.path());
        assert_eq!(log.open().await.unwrap(), SHARDS);
        assert_eq!(log.end(SHARD).await.unwrap(), 7);
        assert!(read(&log, 0, 7).await == expected);
        let again = Owner::claim(&log, 1, "again").await;
        assert!(matches!(again, Err(AppendError::Fenced)));
        Owner::claim(&log, 2, "second").await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_process_may_read_while_one_writes() {
        let folder = tempfile::tempdir().unwrap();
        let reading = SqliteLog::read_only(folder.path());
        assert!(matches!(reading.open().await, Err(LogError::NotCreated(_))));

        let log = SqliteLog::new(folder.path());
        log.create(SHARDS).await.unwrap();
        assert_eq!(reading.open().await.unwrap(), SHARDS);
        assert!(reading.create(SHARDS).await.is_err());
        assert!(reading.writer(SHARD).await.is_err());
        let mut reader = reading.reader(SHARD, 0).await.unwrap();
        assert_eq!(reader.next(10, Duration::from_millis(120)).await.unwrap(), []);

        let mut writer = log.writer(SHARD).await.unwrap();
        writer.append(vec![plain(0)]).await.unwrap();
        assert_eq!(reader.next(10, PATIENCE).await.unwrap(), [(0, plain(0))]);
        assert_eq!(reading.end(SHARD).await.unwrap(), 1);
        assert!(matches!(
            first_error(&reading, 5).await,
            LogError::OutOfRange { offset: 5, .. }
        ));
        drop((writer, log));
        assert_eq!(read(&reading, 0, 1).await, [(0, plain(0))]);
    }

    #[tokio::test]
    async fn what_a_killed_process_left_behind_is_all_there() {
        let folder = tempfile::tempdir().unwrap();
        let log = SqliteLog::new(folder.path());
        log.create(SHARDS).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        let acked: Vec<(u64, Record)> = (0..20).map(|i| (i, plain(i))).collect();
        writer.append((0..20).map(plain).collect()).await.unwrap();

        for opened in [SqliteLog::read_only, SqliteLog::new] {
            let left = tempfile::tempdir().unwrap();
            for name in ["log.db", "log.db-wal", "log.lock", "log.acked"] {
                std::fs::copy(folder.path().join(name), left.path().join(name)).unwrap();
            }
            assert!(read(&opened(left.path()), 0, 20).await == acked);
        }
    }

    #[tokio::test]
    async fn a_changed_row_is_damage_at_its_offset() {
        let changes = [
            "UPDATE records SET value = CAST(x'00' || substr(value, 2) AS BLOB) WHERE log_offset = 2",
            "UPDATE records SET key = x'00' WHERE log_offset = 2",
            "UPDATE records SET headers = CAST(headers || x'00' AS BLOB) WHERE log_offset = 2",
            "UPDATE records SET headers = x'' WHERE log_offset = 2",
            "UPDATE records SET value = NULL WHERE log_offset = 2",
            "UPDATE records SET checksum = checksum + 1 WHERE log_offset = 2",
            "DELETE FROM records WHERE log_offset = 2",
            "DELETE FROM records WHERE log_offset >= 2",
            "UPDATE records SET log_offset = log_offset + 9 WHERE log_offset >= 2",
            "UPDATE shards SET next_offset = 2",
        ];
        for change in changes {
            let folder = tempfile::tempdir().unwrap();
            let log = SqliteLog::new(folder.path());
            log.create(SHARDS).await.unwrap();
            let mut writer = log.writer(SHARD).await.unwrap();
            writer.append((0..4).map(plain).collect()).await.unwrap();
            execute(folder.path(), change);

            assert!(read(&log, 0, 2).await == [(0, plain(0)), (1, plain(1))], "{change}");
            match first_error(&log, 0).await {
                LogError::Damaged { shard, offset, .. } => assert_eq!((shard, offset), (SHARD, 2), "{change}"),
                other => panic!("{change}: {other}"),
            }
        }
    }

    #[tokio::test]
    async fn no_flipped_byte_of_the_file_goes_unseen() {
        let folder = tempfile::tempdir().unwrap();
        {
            let log = SqliteLog::new(folder.path());
            log.create(SHARDS).await.unwrap();
            for shard in 0..SHARDS {
                let mut writer = log.writer(shard).await.unwrap();
                writer.append((0..40).map(plain).collect()).await.unwrap();
            }
        }
        let file = folder.path().join("log.db");
        let whole = std::fs::read(&file).unwrap();
        let expected = everything(folder.path()).await.unwrap();
        assert_eq!(expected.len(), usize::from(SHARDS) * 40);

        let (mut seen, mut harmless) = (0, 0);
        for at in (0..whole.len()).step_by(23) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&file, &flipped).unwrap();
            match everything(folder.path()).await {
                Err(_) => seen += 1,
                Ok(records) => {
                    assert!(records == expected, "byte {at} of {} changes what is read", whole.len());
                    harmless += 1;
                }
            }
        }
        println!("{seen} flipped bytes were seen, {harmless} changed nothing");
        assert!(seen > 0);
    }

    /// As `kill -9` leaves it: the write-ahead file is there, and nobody has tidied up.
    #[tokio::test]
    async fn no_flipped_byte_of_the_write_ahead_file_goes_unseen() {
        const TRANSACTIONS: usize = 12;
        let folder = tempfile::tempdir().unwrap();
        let log = SqliteLog::new(folder.path());
        log.create(SHARDS).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        for n in 0..TRANSACTIONS {
            writer.append(vec![plain(n as u64)]).await.unwrap();
        }
        let bytes_of = |file: &str| std::fs::read(folder.path().join(file)).unwrap();
        let (database, whole, note) = (bytes_of("log.db"), bytes_of("log.db-wal"), bytes_of("log.acked"));
        let expected: Vec<(u64, Record)> = (0..TRANSACTIONS as u64).map(|n| (n, plain(n))).collect();

        let (mut seen, mut torn, mut harmless) = (0, 0, 0);
        // The headers of the last frames are where the last transactions are told from each other.
        let frames = (32..whole.len()).step_by(24 + 4_096);
        let headers = frames.rev().take(6).flat_map(|header| header..header + 24);
        for at in (0..whole.len()).step_by(97).chain(headers) {
            let crashed = tempfile::tempdir().unwrap();
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(crashed.path().join("log.db"), &database).unwrap();
            std::fs::write(crashed.path().join("log.db-wal"), &flipped).unwrap();
            std::fs::write(crashed.path().join("log.acked"), &note).unwrap();
            // Whoever only reads must see it as well: before anybody writes, and so before anything is tidied up.
            let read_only = SqliteLog::read_only(crashed.path()).open().await;
            let created = SqliteLog::new(crashed.path()).create(SHARDS).await;
            let written = SqliteLog::new(crashed.path());
            let opened = written.open().await;
            assert!(
                std::fs::read(crashed.path().join("log.db-wal")).unwrap() == flipped || opened.is_ok(),
                "byte {at}"
            );
            match opened {
                Err(_) => {
                    assert!(read_only.is_err() && created.is_err(), "byte {at}");
                    seen += 1;
                    // Without the note, as a power cut may leave it, no more than the last transaction is lost unseen.
                    std::fs::remove_file(crashed.path().join("log.acked")).unwrap();
                    if written.open().await.is_ok() {
                        assert!(read_all(&written).await == expected[..TRANSACTIONS - 1], "byte {at}");
                        torn += 1;
                    }
                }
                Ok(_) => {
                    assert!(read_all(&written).await == expected, "byte {at}");
                    harmless += 1;
                }
            }
        }
        println!("{seen} flipped bytes were seen, {torn} of them by the note alone, {harmless} changed nothing");
        assert!(seen > torn && torn > 0);
    }

    async fn read_all(log: &SqliteLog) -> Vec<(u64, Record)> {
        let end = log.end(SHARD).await.unwrap();
        read(log, 0, end as usize).await
    }

    #[tokio::test]
    async fn an_older_copy_of_the_file_is_refused_until_it_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log.db");
        let append = async |first: u64| {
            let log = SqliteLog::new(folder.path());
            log.create(SHARDS).await.unwrap();
            let mut writer = log.writer(SHARD).await.unwrap();
            writer.append((first..first + 3).map(plain).collect()).await.unwrap();
        };
        append(0).await;
        let older = std::fs::read(&file).unwrap();
        append(3).await;
        std::fs::write(&file, &older).unwrap();
        for log in [SqliteLog::read_only(folder.path()), SqliteLog::new(folder.path())] {
            let refusal = log.open().await.unwrap_err().to_string();
            assert!(refusal.contains("had acked 6 records and has 3"), "{refusal}");
        }
        std::fs::remove_file(&file).unwrap();
        let refusal = SqliteLog::new(folder.path())
            .create(SHARDS)
            .await
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("had acked 6 records and has 0"), "{refusal}");

        std::fs::write(&file, &older).unwrap();
        std::fs::remove_file(folder.path().join("log.acked")).unwrap();
        append(3).await;
        assert_eq!(everything(folder.path()).await.unwrap().len(), 6);
    }

    #[tokio::test]
    async fn files_that_are_deleted_moved_or_replaced_under_a_log_take_no_more_acks() {
        type Harm = fn(&Path);
        let harms: [(&str, Harm); 5] = [
            ("was deleted", |folder| std::fs::remove_dir_all(folder).unwrap()),
            ("was deleted", |folder| {
                std::fs::remove_file(folder.join("log.db")).unwrap()
            }),
            ("was deleted", |folder| {
                std::fs::remove_file(folder.join("log.db-wal")).unwrap()
            }),
            ("was deleted", |folder| {
                std::fs::remove_file(folder.join("log.lock")).unwrap()
            }),
            ("was replaced", |folder| {
                std::fs::copy(folder.join("log.db"), folder.join("copy")).unwrap();
                std::fs::rename(folder.join("copy"), folder.join("log.db")).unwrap();
            }),
        ];
        for (what, harm) in harms {
            let outer = tempfile::tempdir().unwrap();
            let folder = outer.path().join("data");
            let log = SqliteLog::new(&folder);
            log.create(SHARDS).await.unwrap();
            let mut writer = log.writer(SHARD).await.unwrap();
            writer.append(vec![plain(0)]).await.unwrap();
            log.check().await.unwrap();
            harm(&folder);
            let refusal = writer.append(vec![plain(1)]).await.unwrap_err();
            assert!(
                matches!(&refusal, AppendError::Unknown(why) if why.contains(what)),
                "{refusal}"
            );
            // Whoever takes over anew, or only asks, is told the same.
            let told = [
                log.check().await.unwrap_err(),
                log.writer(SHARD).await.map(drop).unwrap_err(),
                log.end(SHARD).await.unwrap_err(),
                log.reader(SHARD, 0).await.map(drop).unwrap_err(),
            ];
            for error in told {
                let name = folder.display().to_string();
                assert!(
                    matches!(&error, LogError::Unavailable(why) if why.contains(&name)),
                    "{error}"
                );
                assert!(error.to_string().contains(what), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn a_folder_that_was_away_for_a_moment_is_the_same_log() {
        let outer = tempfile::tempdir().unwrap();
        let (folder, away) = (outer.path().join("data"), outer.path().join("away"));
        let log = SqliteLog::new(&folder);
        log.create(SHARDS).await.unwrap();
        std::fs::rename(&folder, &away).unwrap();
        assert!(log.check().await.is_err());
        std::fs::rename(&away, &folder).unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        assert_eq!(writer.append(vec![plain(0)]).await.unwrap(), [0]);
    }

    #[tokio::test]
    async fn a_file_of_another_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("log.db"),
            "this is no database, but long enough to look like one",
        )
        .unwrap();
        assert!(SqliteLog::new(folder.path()).open().await.is_err());

        let folder = tempfile::tempdir().unwrap();
        SqliteLog::new(folder.path()).create(SHARDS).await.unwrap();
        execute(folder.path(), "UPDATE meta SET value = 2 WHERE name = 'format'");
        let refusal = SqliteLog::new(folder.path()).open().await.unwrap_err();
        assert!(matches!(refusal, LogError::WrongSettings(_)), "{refusal}");
    }

    #[tokio::test]
    async fn an_empty_file_is_a_creation_that_was_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("log.db"), "").unwrap();
        let log = SqliteLog::new(folder.path());
        assert!(matches!(log.open().await, Err(LogError::NotCreated(_))));
        log.create(SHARDS).await.unwrap();
        assert_eq!(log.open().await.unwrap(), SHARDS);
    }

    /// All records of all shards, as another process reads them.
    async fn everything(folder: &Path) -> Result<Vec<(u64, Record)>, LogError> {
        let log = SqliteLog::read_only(folder);
        let mut records = vec![];
        for shard in 0..log.open().await? {
            let end = log.end(shard).await?;
            let mut reader = log.reader(shard, 0).await?;
            let before = records.len();
            while ((records.len() - before) as u64) < end {
                records.extend(reader.next(100, Duration::ZERO).await?);
            }
            records.extend(reader.next(100, Duration::ZERO).await?);
        }
        Ok(records)
    }

    fn execute(folder: &Path, statement: &str) {
        let database = rusqlite::Connection::open(folder.join("log.db")).unwrap();
        database.execute_batch(statement).unwrap();
    }
}

mod only_postgres {
    use services::clock::SystemClock;
    use tokio_postgres::{Client, NoTls};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn nodes_that_create_it_at_the_same_time_make_one_log() {
        let database = Database::create();
        let nodes = (0..6).map(|_| {
            let log = PostgresLog::new(database.url()).unwrap();
            tokio::spawn(async move { services::log::create(&log, &NewLog::of(5), &SystemClock).await.unwrap() })
        });
        let made = futures::future::join_all(nodes.collect::<Vec<_>>()).await;
        let ids: Vec<_> = made.into_iter().map(|opened| opened.unwrap().log_id).collect();
        assert_eq!(ids, [ids[0]; 6]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_another_process_writes_is_there_within_50_ms() {
        let database = Database::create();
        let (log, another) = (
            PostgresLog::new(database.url()).unwrap(),
            PostgresLog::new(database.url()).unwrap(),
        );
        log.create(SHARDS).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        let mut delays = vec![];
        for number in 0..21 {
            let mut reader = another.reader(SHARD, number).await.unwrap();
            let waiting = tokio::spawn(async move { (reader.next(9, PATIENCE).await.unwrap(), Instant::now()) });
            tokio::time::sleep(Duration::from_millis(60)).await;
            writer.append(vec![plain(number)]).await.unwrap();
            let appended = Instant::now();
            let (batch, came) = waiting.await.unwrap();
            assert_eq!(batch, [(number, plain(number))]);
            delays.push(came.saturating_duration_since(appended));
        }
        delays.sort();
        println!("{:?} in the middle, {:?} at most", delays[10], delays[20]);
        assert!(delays[10] < Duration::from_millis(50), "{delays:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_append_that_waits_while_another_claims_is_fenced_and_not_written() {
        let database = Database::create();
        let log = Arc::new(PostgresLog::new(database.url()).unwrap());
        begin(&*log).await;
        let mut old = Owner::claim(&*log, 1, "old").await.unwrap();
        old.commit("before", 2).await.unwrap();

        let somebody = connect(database.url()).await;
        let claim = format!("BEGIN; UPDATE crm_log.shards SET epoch = 2 WHERE shard = {SHARD}");
        somebody.batch_execute(&claim).await.unwrap();
        let late = tokio::spawn(async move {
            let first = old.commit("late", 2).await;
            (first, old.commit("later", 2).await)
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!late.is_finished());
        somebody.batch_execute("COMMIT").await.unwrap();
        let (first, second) = late.await.unwrap();
        for outcome in [first, second] {
            assert!(matches!(outcome, Err(AppendError::Fenced)), "{outcome:?}");
        }
        assert_eq!(log.end(SHARD).await.unwrap(), 4);
        assert_eq!(what_counts(&*log).await.unwrap(), ["old claims", "before"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_connection_that_is_lost_under_an_append_leaves_its_outcome_unknown() {
        let database = Database::create();
        let log = PostgresLog::new(database.url()).unwrap();
        log.create(SHARDS).await.unwrap();
        let somebody = connect(database.url()).await;
        let held = format!("BEGIN; SELECT FROM crm_log.shards WHERE shard = {SHARD} FOR UPDATE");
        somebody.batch_execute(&held).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        let append = tokio::spawn(async move {
            let first = writer.append(vec![plain(0)]).await;
            (first, writer.append(vec![plain(1)]).await)
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        let waiting = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'";
        assert_eq!(somebody.query(waiting, &[]).await.unwrap().len(), 1);
        let (first, second) = append.await.unwrap();
        for outcome in [first, second] {
            assert!(matches!(outcome, Err(AppendError::Unknown(_))), "{outcome:?}");
        }
        somebody.batch_execute("ROLLBACK").await.unwrap();
        let offsets = log.writer(SHARD).await.unwrap().append(vec![plain(2)]).await;
        assert_eq!(offsets.unwrap(), [0]);
    }

    #[tokio::test]
    async fn a_full_disk_refuses_and_works_again_when_there_is_room() {
        let database = Database::create();
        let log = PostgresLog::new(database.url()).unwrap();
        log.create(SHARDS).await.unwrap();
        let server = connect(database.url()).await;
        let full = "CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
            CREATE TRIGGER disk_full BEFORE INSERT ON crm_log.records FOR EACH ROW WHEN (new.log_offset = 2) EXECUTE FUNCTION disk_full()";
        server.batch_execute(full).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        let refusal = writer.append((0..4).map(plain).collect()).await.unwrap_err();
        assert!(
            matches!(&refusal, AppendError::Refused(why) if why.contains("No space")),
            "{refusal}"
        );
        assert_eq!(log.end(SHARD).await.unwrap(), 0);

        server
            .batch_execute("DROP TRIGGER disk_full ON crm_log.records")
            .await
            .unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        let offsets = writer.append((0..4).map(plain).collect()).await.unwrap();
        assert_eq!(offsets, [0, 1, 2, 3]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_dies_and_comes_back_loses_nothing_that_was_acked() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::start(folder.path());
        let log = PostgresLog::new(&server.url()).unwrap();
        log.create(SHARDS).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        let mut reader = log.reader(SHARD, 0).await.unwrap();
        writer.append((0..100).map(plain).collect()).await.unwrap();

        server.kill();
        // Its children end a moment later, and until then one of them may still take it.
        let mut number = 100;
        let unknown = loop {
            match writer.append(vec![plain(number)]).await {
                Ok(_) => number += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(unknown, AppendError::Unknown(_)), "{unknown}");
        let unreachable = log.end(SHARD).await.unwrap_err();
        assert!(matches!(unreachable, LogError::Unavailable(_)), "{unreachable}");
        let failed = log.writer(SHARD).await.map(|_| ()).unwrap_err();
        assert!(matches!(failed, LogError::Unavailable(_)), "{failed}");

        server.restart();
        let mut writer = log.writer(SHARD).await.unwrap();
        let offset = writer.append(vec![plain(7)]).await.unwrap()[0];
        assert!((number..=number + 1).contains(&offset));
        let records = collect(&mut *reader, offset as usize + 1).await;
        let acked: Vec<(u64, Record)> = (0..number).map(|i| (i, plain(i))).collect();
        assert!(records[..acked.len()] == acked);
        assert_eq!(records[offset as usize], (offset, plain(7)));
        assert_eq!(log.end(SHARD).await.unwrap(), offset + 1);
    }

    #[tokio::test]
    async fn a_server_or_a_database_that_would_lose_events_is_refused_with_the_way_to_mend_it() {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path());
        let log = PostgresLog::new(&server.url()).unwrap();
        log.create(SHARDS).await.unwrap();
        let client = connect(&server.url()).await;
        for statement in ["ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"] {
            client.batch_execute(statement).await.unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        let refusal = loop {
            match log.open().await {
                Err(refusal) => break refusal,
                Ok(_) => assert!(Instant::now() < deadline, "it is taken with fsync off"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(matches!(refusal, LogError::WrongSettings(_)), "{refusal}");
        assert!(refusal.to_string().contains("Set fsync=on"), "{refusal}");
        assert!(log.writer(SHARD).await.is_err());
        drop(server);

        let database = Database::create();
        let log = PostgresLog::new(&format!("{}?options=-csynchronous_commit%3Doff", database.url())).unwrap();
        log.create(SHARDS).await.unwrap();
        // Whoever opens a writer is told when the setting does not hold.
        log.writer(SHARD).await.unwrap().append(vec![plain(0)]).await.unwrap();
        let client = connect(database.url()).await;
        let (_, name) = database.url().rsplit_once('/').unwrap();
        let freeze = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
        client.batch_execute(&freeze).await.unwrap();
        let frozen = PostgresLog::new(database.url()).unwrap();
        assert_eq!(read(&frozen, 0, 1).await, [(0, plain(0))]);
        let refusal = frozen.writer(SHARD).await.map(|_| ()).unwrap_err();
        assert!(refusal.to_string().contains("read-only"), "{refusal}");
    }

    #[tokio::test]
    async fn a_changed_row_is_damage_at_its_offset() {
        let changes = [
            "UPDATE crm_log.records SET value = '\\x00' || substr(value, 2) WHERE log_offset = 2",
            "UPDATE crm_log.records SET key = '\\x00' WHERE log_offset = 2",
            "UPDATE crm_log.records SET headers = headers || '\\x00' WHERE log_offset = 2",
            "UPDATE crm_log.records SET headers = '' WHERE log_offset = 2",
            "UPDATE crm_log.records SET value = NULL WHERE log_offset = 2",
            "UPDATE crm_log.records SET checksum = checksum + 1 WHERE log_offset = 2",
            "DELETE FROM crm_log.records WHERE log_offset = 2",
            "DELETE FROM crm_log.records WHERE log_offset >= 2",
            "UPDATE crm_log.records SET log_offset = log_offset + 9 WHERE log_offset >= 2",
            "UPDATE crm_log.shards SET next_offset = 2",
            "DELETE FROM crm_log.records WHERE log_offset = 2;
             UPDATE crm_log.records SET log_offset = 2 WHERE log_offset = 3;
             UPDATE crm_log.shards SET next_offset = 3",
        ];
        let database = Database::create();
        let client = connect(database.url()).await;
        for change in changes {
            let log = PostgresLog::new(database.url()).unwrap();
            log.create(SHARDS).await.unwrap();
            let mut writer = log.writer(SHARD).await.unwrap();
            writer.append((0..4).map(plain).collect()).await.unwrap();
            client.batch_execute(change).await.unwrap();

            assert!(read(&log, 0, 2).await == [(0, plain(0)), (1, plain(1))], "{change}");
            match first_error(&log, 0).await {
                LogError::Damaged { shard, offset, .. } => assert_eq!((shard, offset), (SHARD, 2), "{change}"),
                other => panic!("{change}: {other}"),
            }
            client.batch_execute("DROP SCHEMA crm_log CASCADE").await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_shard_that_does_not_end_where_it_should_takes_nothing_more() {
        let database = Database::create();
        let log = PostgresLog::new(database.url()).unwrap();
        log.create(SHARDS).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        writer.append((0..4).map(plain).collect()).await.unwrap();
        let client = connect(database.url()).await;
        let cut = format!("DELETE FROM crm_log.records WHERE shard = {SHARD} AND log_offset = 3");
        client.batch_execute(&cut).await.unwrap();
        match log.writer(SHARD).await.map(|_| ()).unwrap_err() {
            LogError::Damaged { shard, offset, .. } => assert_eq!((shard, offset), (SHARD, 3)),
            other => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn large_records_come_in_batches_of_some_megabytes() {
        let database = Database::create();
        let log = PostgresLog::new(database.url()).unwrap();
        large_records_come_in_batches(&log, 2 * 1024 * 1024).await;
    }

    /// Somebody holds the tables: neither an append nor a question waits for longer than it may.
    #[tokio::test]
    async fn an_append_and_a_question_end_in_time_when_the_database_does_not_answer() {
        let database = Database::create();
        let log = PostgresLog::new(database.url()).unwrap();
        log.create(SHARDS).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        writer.append(vec![plain(0)]).await.unwrap();
        let holder = Holder::of_all_tables(&database).await;
        let begun = Instant::now();
        let (appended, asked) = tokio::join!(writer.append(vec![plain(1)]), log.end(SHARD));
        assert!(matches!(appended, Err(AppendError::Unknown(_))), "{appended:?}");
        assert!(matches!(asked, Err(LogError::Unavailable(_))), "{asked:?}");
        let took = begun.elapsed();
        assert!((ANSWER_MAX..ANSWER_MAX + SLACK).contains(&took), "{took:?}");
        holder.let_go().await;
        assert!(log.end(SHARD).await.unwrap() <= 2);
    }

    #[tokio::test]
    async fn its_password_is_never_shown() {
        let log = PostgresLog::new("postgres://crm:hunter2@127.0.0.1:1/crm").unwrap();
        assert_eq!(log.address(), "postgres://127.0.0.1:1/crm");
        let unreachable = log.open().await.unwrap_err();
        assert!(matches!(unreachable, LogError::Unavailable(_)), "{unreachable}");
        assert!(!unreachable.to_string().contains("hunter2"), "{unreachable}");
        let refusal = PostgresLog::new("postgres://crm:hunter2@127.0.0.1:port/crm")
            .map(|_| ())
            .unwrap_err();
        assert!(!refusal.to_string().contains("hunter2"), "{refusal}");

        let nowhere = format!("{}_not_there", Database::create().url());
        let refusal = PostgresLog::new(&nowhere).unwrap().open().await.unwrap_err();
        assert!(matches!(refusal, LogError::WrongSettings(_)), "{refusal}");
        assert!(refusal.to_string().contains("does not exist"), "{refusal}");
    }

    #[tokio::test]
    async fn tables_that_are_dropped_under_a_log_are_missed() {
        let database = Database::create();
        let log = PostgresLog::new(database.url()).unwrap();
        log.create(SHARDS).await.unwrap();
        let mut writer = log.writer(SHARD).await.unwrap();
        writer.append(vec![plain(0)]).await.unwrap();
        log.check().await.unwrap();
        let client = connect(database.url()).await;
        client.batch_execute("DROP SCHEMA crm_log CASCADE").await.unwrap();
        assert!(writer.append(vec![plain(1)]).await.is_err());
        for error in [
            log.check().await.unwrap_err(),
            log.writer(SHARD).await.map(drop).unwrap_err(),
        ] {
            assert!(
                matches!(&error, LogError::Unavailable(why) if why.contains("was dropped")),
                "{error}"
            );
        }
        // A process that starts then is told that there is no log.
        let other = PostgresLog::new(database.url()).unwrap();
        assert!(matches!(other.open().await, Err(LogError::NotCreated(_))));
    }

    #[tokio::test]
    async fn tables_of_another_format_are_refused() {
        let database = Database::create();
        PostgresLog::new(database.url()).unwrap().create(SHARDS).await.unwrap();
        let client = connect(database.url()).await;
        let change = "UPDATE crm_log.meta SET value = 2 WHERE name = 'format'";
        client.batch_execute(change).await.unwrap();
        let refusal = PostgresLog::new(database.url()).unwrap().open().await.unwrap_err();
        assert!(matches!(refusal, LogError::WrongSettings(_)), "{refusal}");
    }

    async fn connect(url: &str) -> Client {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

/// Creates the log and its first record in the shard we look at.
async fn begin(log: &dyn EventLog) {
    log.create(SHARDS).await.unwrap();
    let created = LogCreated {
        log_id: derived_id(&["log"]),
        shards: SHARDS,
        slots: domain::SLOTS,
        calendar: domain::Calendar::taipei(),
    };
    let mut writer = log.writer(SHARD).await.unwrap();
    assert_eq!(writer.append(vec![created.to_record(now())]).await.unwrap(), [0]);
}

/// A writer that follows the protocol, as far as a test lets it.
struct Owner {
    writer: Box<dyn LogWriter>,
    epoch: u64,
    n: u64,
}

impl Owner {
    async fn claim(log: &dyn EventLog, epoch: u64, node: &str) -> Result<Owner, AppendError> {
        let mut writer = log.writer(SHARD).await.unwrap();
        let claim = Claim {
            epoch,
            nonce: derived_id(&["claim", node]),
            node: node.to_owned(),
            address: String::new(),
        };
        writer.append(vec![claim.to_record(SOURCE, now())]).await?;
        Ok(Owner { writer, epoch, n: 0 })
    }

    /// A command's records, numbered on.
    fn events(&mut self, command: &str, count: u32) -> Vec<Record> {
        let customer = derived_id(&["customer"]);
        let event = |index| StoredEvent {
            command_id: derived_id(&["command", command]),
            index,
            commit_size: count,
            event_type: EventType {
                stream: "customer".into(),
                event: "renamed".into(),
                version: 1,
            },
            stream: StreamRef {
                kind: StreamKind::Customer,
                id: customer,
            },
            sequence: 1 + u64::from(index),
            time: now(),
            effective_at: None,
            actor: Actor::parse("user:mei").unwrap(),
            on_behalf_of: None,
            causation: None,
            correlation: Some(command.to_owned()),
            traceparent: None,
            customer: Some(customer),
            external_key: None,
            command_hash: "0123456789abcdef".into(),
            body: b"{}".to_vec(),
            position: Position {
                shard: SHARD,
                offset: 0,
            },
        };
        let number = |index| {
            self.n += 1;
            event(index).to_record(SOURCE, self.epoch, self.n)
        };
        (0..count).map(number).collect()
    }

    async fn commit(&mut self, command: &str, count: u32) -> Result<Vec<u64>, AppendError> {
        let records = self.events(command, count);
        self.writer.append(records).await
    }

    async fn barrier(&mut self) -> Result<Vec<u64>, AppendError> {
        self.n += 1;
        let record = Envelope::barrier_record(derived_id(&["barrier"]), SOURCE, now(), self.epoch, self.n);
        self.writer.append(vec![record]).await
    }
}

/// What the judge finds valid in the whole shard: claims by node, commits by command.
async fn what_counts(log: &dyn EventLog) -> Result<Vec<String>, Foreign> {
    let end = log.end(SHARD).await.unwrap();
    let mut judge = Judge::from_start(SHARD);
    let mut counts = vec![];
    for (offset, record) in read(log, 0, end as usize).await {
        match judge.judge(offset, record)? {
            Judgement::Claimed(claim) => counts.push(format!("{} claims", claim.node)),
            Judgement::Commit(commit) => counts.extend(commit.events[0].correlation.clone()),
            Judgement::Barrier => counts.push("barrier".into()),
            Judgement::Part | Judgement::Created(_) | Judgement::Quarantine | Judgement::Void => {}
        }
    }
    Ok(counts)
}

/// A record of no meaning, told from others by its number.
fn plain(number: u64) -> Record {
    Record {
        key: b"key".to_vec(),
        headers: vec![("number".into(), number.to_string().into_bytes())],
        value: Some(format!("record {number}").into_bytes()),
    }
}

fn now() -> Timestamp {
    "2026-03-02T01:00:00Z".parse().unwrap()
}

async fn read(log: &dyn EventLog, from: u64, count: usize) -> Vec<(u64, Record)> {
    let mut reader = log.reader(SHARD, from).await.unwrap();
    collect(&mut *reader, count).await
}

async fn collect(reader: &mut dyn LogReader, count: usize) -> Vec<(u64, Record)> {
    let mut records = vec![];
    while records.len() < count {
        let batch = reader.next(count - records.len(), PATIENCE).await.unwrap();
        assert!(
            !batch.is_empty(),
            "{} records of {count} came in {PATIENCE:?}",
            records.len()
        );
        records.extend(batch);
    }
    records
}

/// Reads from an offset on until that fails.
async fn first_error(log: &dyn EventLog, from: u64) -> LogError {
    let mut reader = match log.reader(SHARD, from).await {
        Ok(reader) => reader,
        Err(error) => return error,
    };
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Err(error) = reader.next(100, Duration::from_millis(200)).await {
            return error;
        }
    }
    panic!("nothing failed in {PATIENCE:?}");
}
