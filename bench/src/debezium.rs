//! Peer P3: Debezium's JDBC sink in a Kafka Connect worker, a process of its own, on the same topic.
//!
//! Its table has the columns that it can fill from the event itself; nested lists are beyond it, and are left out of its schema.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_trait::async_trait;
use tokio::process::{Child, Command};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::http::free_port;
use crate::load::{Load, Measured};
use crate::meters::Meters;
use crate::places::{self, Places};
use crate::session::{Class, Contender};

/// How long the worker may take to write everything.
const DRAINED_WITHIN: Duration = Duration::from_secs(300);
/// Rows that must be there before the clock starts, as a share of all: until then Java warms up.
const WARM_SHARE: f64 = 0.25;

const TABLE: &str = "CREATE TABLE customers (customer text PRIMARY KEY, kind text NOT NULL, name text NOT NULL, country text, locale text)";
/// What stands in the value of a registration, as Kafka Connect writes schemas. All of it is optional, for the log's own records are read
/// before the filter leaves them out.
const SCHEMA: &str = r#"{"type":"struct","name":"registered","optional":false,"fields":[
    {"field":"kind","type":"string","optional":true},{"field":"name","type":"string","optional":true},
    {"field":"country","type":"string","optional":true},{"field":"locale","type":"string","optional":true}]}"#;

/// Customers of a topic into one table.
pub struct Debezium {
    pub places: Places,
    pub jars: PathBuf,
    pub topic: String,
    pub events: u64,
    pub tasks: u32,
    /// The customer of the last record of each partition.
    pub last: Vec<Uuid>,
}

#[async_trait]
impl Contender for Debezium {
    fn name(&self) -> String {
        "P3 Debezium JDBC sink".into()
    }

    fn class(&self) -> Class {
        Class::None
    }

    async fn run(&mut self, _: Load, meters: &Meters) -> anyhow::Result<Measured> {
        let folder = self.places.folder("debezium")?;
        let url = self.places.database("debezium").await?;
        let client = places::connect(&url).await?;
        client.batch_execute(TABLE).await?;
        self.write_settings(&folder, &url)?;
        self.places.checkpoint().await?;
        let mut worker = self.start(&folder)?;
        let begun = Instant::now();
        let warm = (self.events as f64 * WARM_SHARE) as i64;
        while count(&client).await? < warm {
            must_run(&mut worker, &folder, begun)?;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let before = count(&client).await?;
        let meters = meters.clone().and("worker", worker.id().context("the worker runs")?);
        let start = meters.read()?;
        let last: Vec<String> = self.last.iter().map(Uuid::to_string).collect();
        let is_there = client
            .prepare("SELECT count(*) FROM customers WHERE customer = ANY($1)")
            .await?;
        while client.query_one(&is_there, &[&last]).await?.get::<_, i64>(0) < last.len() as i64 {
            must_run(&mut worker, &folder, begun)?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The reduction buffer does not keep the order: others of its batch may come after the last record of their partition.
        while count(&client).await? < self.events.cast_signed() {
            must_run(&mut worker, &folder, begun)?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let usage = meters.since(&start)?;
        worker.kill().await?;
        drop(client);
        self.places.drop_database(&url).await?;
        std::fs::remove_dir_all(&folder)?;
        Ok(Measured::job(self.events - before.cast_unsigned(), usage))
    }
}

impl Debezium {
    fn start(&self, folder: &Path) -> anyhow::Result<Child> {
        let log = std::fs::File::create(folder.join("worker.log"))?;
        let child = Command::new("java")
            .args([
                "-Xms1g",
                "-Xmx1g",
                "-XX:+UseG1GC",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "-cp",
            ])
            .arg(self.jars.join("*"))
            .arg("org.apache.kafka.connect.cli.ConnectStandalone")
            .args([folder.join("worker.properties"), folder.join("sink.properties")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("java cannot be started")?;
        Ok(child)
    }

    fn write_settings(&self, folder: &Path, url: &str) -> anyhow::Result<()> {
        let offsets = folder.join("offsets");
        let worker = format!(
            "bootstrap.servers={}\nlisteners=http://127.0.0.1:{}\noffset.storage.file.filename={}\n\
             key.converter=org.apache.kafka.connect.storage.StringConverter\n\
             value.converter=org.apache.kafka.connect.json.JsonConverter\nvalue.converter.schemas.enable=true\n\
             value.converter.schema.content={}\n\
             consumer.auto.offset.reset=earliest\nconsumer.max.poll.records=5000\nconsumer.fetch.min.bytes=65536\n\
             consumer.max.partition.fetch.bytes=4194304\n",
            self.places.kafka,
            free_port()?,
            offsets.display(),
            SCHEMA.replace('\n', ""),
        );
        let (_, place) = url.rsplit_once('@').context("the URL names a user")?;
        // A name of its own, and so a consumer group of its own: it would go on where an earlier worker was, and wait for its end.
        let name = folder.file_name().context("a folder has a name")?.display();
        let sink = format!(
            "name={name}\nconnector.class=io.debezium.connector.jdbc.JdbcSinkConnector\ntasks.max={}\ntopics={}\n\
             connection.url=jdbc:postgresql://{place}?options=-c%20synchronous_commit=off%20-c%20jit=off\n\
             connection.username=crm\nconnection.password=crm\ninsert.mode=upsert\nprimary.key.mode=record_key\n\
             primary.key.fields=customer\ncollection.name.format=customers\nschema.evolution=none\nbatch.size=5000\n\
             use.reduction.buffer=true\ndialect.postgres.unnest.insert.enabled=true\n\
             transforms=events,key\ntransforms.key.type=org.apache.kafka.connect.transforms.HoistField$Key\n\
             transforms.key.field=customer\ntransforms.events.type=org.apache.kafka.connect.transforms.Filter\n\
             transforms.events.predicate=isEvent\ntransforms.events.negate=true\npredicates=isEvent\n\
             predicates.isEvent.type=org.apache.kafka.connect.transforms.predicates.HasHeaderKey\n\
             predicates.isEvent.name=ce_sequence\n",
            self.tasks, self.topic,
        );
        std::fs::write(folder.join("worker.properties"), worker)?;
        std::fs::write(folder.join("sink.properties"), sink)?;
        Ok(())
    }
}

async fn count(client: &Client) -> anyhow::Result<i64> {
    Ok(client.query_one("SELECT count(*) FROM customers", &[]).await?.get(0))
}

/// # Errors
/// When the worker has ended, one of its tasks has, or it takes too long; with the end of its log.
fn must_run(worker: &mut Child, folder: &Path, begun: Instant) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(folder.join("worker.log"))?;
    let has_failed = text.contains("unrecoverable exception") || worker.try_wait()?.is_some();
    if !has_failed && begun.elapsed() < DRAINED_WITHIN {
        return Ok(());
    }
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("\tat ")).collect();
    bail!(
        "the worker does not write: {}",
        lines[lines.len().saturating_sub(30)..].join("\n")
    )
}
