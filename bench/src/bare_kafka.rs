//! The bare limit on Kafka: clients that produce a finished record and wait for its ack.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;
use services::log::{EventLog, Record};

use crate::load::{Load, Measured, closed_loop};
use crate::meters::Meters;
use crate::session::{Class, Contender};

/// Those of the log's own producer that decide what an ack means and when a record leaves.
const SETTINGS: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("linger.ms", "0"),
    ("compression.type", "lz4"),
];

/// One producer for all partitions, as a program without an opinion has it.
pub struct BareProducer {
    producer: FutureProducer,
    log: Arc<dyn EventLog>,
    topic: Arc<str>,
    shards: u16,
    /// Finished records, sent again and again.
    records: Arc<Vec<Record>>,
    next: Arc<AtomicU64>,
    acked: Arc<AtomicU64>,
}

impl BareProducer {
    /// `log` is its own topic, made with the settings of a log.
    pub async fn new(kafka: &str, log: Arc<dyn EventLog>, shards: u16, records: Vec<Record>) -> anyhow::Result<Self> {
        log.create(shards).await?;
        let address = log.address();
        let (_, topic) = address.rsplit_once('/').context("the address names a topic")?;
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", kafka);
        for (name, value) in SETTINGS {
            settings.set(*name, *value);
        }
        Ok(BareProducer {
            producer: settings.create()?,
            topic: topic.into(),
            log,
            shards,
            records: Arc::new(records),
            next: Arc::default(),
            acked: Arc::default(),
        })
    }
}

#[async_trait]
impl Contender for BareProducer {
    fn name(&self) -> String {
        "bare produce".into()
    }

    fn class(&self) -> Class {
        Class::D0
    }

    async fn run(&mut self, load: Load, meters: &Meters) -> anyhow::Result<Measured> {
        let (producer, topic, records) = (
            self.producer.clone(),
            Arc::clone(&self.topic),
            Arc::clone(&self.records),
        );
        let (next, acked, shards) = (Arc::clone(&self.next), Arc::clone(&self.acked), self.shards);
        closed_loop(load, meters, move |_| {
            let (producer, topic, records) = (producer.clone(), Arc::clone(&topic), Arc::clone(&records));
            let acked = Arc::clone(&acked);
            let n = next.fetch_add(1, Ordering::Relaxed);
            async move {
                let record = &records[n as usize % records.len()];
                let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
                for (name, value) in &record.headers {
                    headers = headers.insert(Header {
                        key: name,
                        value: Some(value),
                    });
                }
                let mut message = FutureRecord::to(&topic)
                    .partition((n % u64::from(shards)) as i32)
                    .key(&record.key)
                    .headers(headers);
                message.payload = record.value.as_ref();
                let sent = producer.send_result(message).map_err(|(error, _)| error)?;
                let delivery = sent.await.context("the producer has ended")?;
                delivery.map_err(|(error, _)| error)?;
                acked.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        })
        .await
    }

    async fn check(&mut self) -> anyhow::Result<()> {
        self.producer
            .flush(Timeout::After(std::time::Duration::from_secs(10)))?;
        let acked = self.acked.load(Ordering::Relaxed);
        let mut stored = 0;
        for shard in 0..self.shards {
            stored += self.log.end(shard).await?;
        }
        match acked == stored {
            true => Ok(()),
            false => bail!("{acked} records were acked, the topic has {stored}"),
        }
    }
}
