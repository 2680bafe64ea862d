//! A real Apache Kafka: one shared by all suites, and brokers of a test's own that it may kill.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use uuid::Uuid;

use crate::child::{Process, tied_to_us};
use crate::port::free_port;
use crate::setting;

const SETTINGS: &str = include_str!("../../scripts/lib/kafka.properties");
const JVM_OPTIONS: &str = concat!("@", env!("CARGO_MANIFEST_DIR"), "/../scripts/lib/kafka.jvm");
// Kafka wants some id in a new folder; brokers on their own need not differ in it.
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qg";

// A start takes 4 s on an idle machine; a suite that builds beside it may need ten times that.
const READY_MAX: Duration = Duration::from_secs(90);
const METADATA_MAX: Duration = Duration::from_secs(1);

/// The address of the Kafka that all suites share (`CRM_TEST_KAFKA`). Use [`unique_topic`] on it and leave it alive.
pub fn shared_kafka() -> String {
    setting("CRM_TEST_KAFKA")
}

/// A topic's name that no other test and no earlier run has used. Creating the topic is up to the test.
#[allow(
    clippy::disallowed_methods,
    reason = "a name that must differ from run to run, and decides nothing"
)]
pub fn unique_topic(name: &str) -> String {
    format!("{name}.{}", Uuid::now_v7().simple())
}

/// A broker of a test's own, dead when dropped. Its address stays the same through kills and restarts.
pub struct Broker {
    dir: PathBuf,
    port: u16,
    process: Process,
}

impl Broker {
    /// Starts a broker that keeps everything in `dir`, and waits until it answers. A folder that an earlier broker left
    /// is taken up with its data.
    pub fn start(dir: &Path) -> Broker {
        Broker::with(dir, free_port(), |settings| settings)
    }

    /// The same with a second listener, which tells its clients to come to `proxy_port`. The broker, and the address to which a proxy on
    /// that port must hand on.
    pub fn start_behind(dir: &Path, proxy_port: u16) -> (Broker, String) {
        let (port, inner) = (free_port(), free_port());
        let broker = Broker::with(dir, port, |settings| {
            let listener = |port: u16| format!("PROXIED://127.0.0.1:{port},CONTROLLER://");
            let mut settings = settings.replacen(",CONTROLLER://", &format!(",{}", listener(inner)), 1);
            let advertised = format!("advertised.listeners=PLAINTEXT://127.0.0.1:{port}");
            settings = settings.replace(&advertised, &format!("{advertised},PROXIED://127.0.0.1:{proxy_port}"));
            settings = settings.replace("map=PLAINTEXT:PLAINTEXT", "map=PROXIED:PLAINTEXT,PLAINTEXT:PLAINTEXT");
            settings + "\ninter.broker.listener.name=PLAINTEXT\n"
        });
        (broker, format!("127.0.0.1:{inner}"))
    }

    fn with(dir: &Path, port: u16, change: impl FnOnce(String) -> String) -> Broker {
        let settings = SETTINGS
            .replace("@PORT@", &port.to_string())
            .replace("@CONTROLLER_PORT@", &free_port().to_string())
            .replace("@DATA@", &dir.join("data").display().to_string());
        let settings = change(settings);
        std::fs::write(settings_file(dir), settings).expect("write the broker's settings");
        format_storage(dir);

        let mut broker = Broker {
            dir: dir.to_owned(),
            port,
            process: start_process(dir),
        };
        broker.wait_until_ready();
        broker
    }

    /// `127.0.0.1:<port>`, for `bootstrap.servers`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills it with SIGKILL, as a crash of the process would. What it wrote to its files stays.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again in the same folder and on the same port, after killing it if it still runs, and waits until it
    /// answers and leads all its partitions.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = start_process(&self.dir);
        self.wait_until_ready();
    }

    /// Freezes it: connections stay open, nothing answers.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.process.resume();
    }

    fn wait_until_ready(&mut self) {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.address())
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .create()
            .expect("create a client");
        self.process.wait_until(READY_MAX, || leads_all_partitions(&client));
    }
}

/// A broker answers before the controller has let it back in; until then its partitions have no leader.
fn leads_all_partitions(client: &BaseConsumer) -> bool {
    let Ok(metadata) = client.fetch_metadata(None, METADATA_MAX) else {
        return false;
    };
    let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    !metadata.brokers().is_empty() && partitions.all(|partition| partition.leader() >= 0)
}

fn start_process(dir: &Path) -> Process {
    let mut command = tied_to_us("java");
    command
        .args(java_arguments())
        .arg("kafka.Kafka")
        .arg(settings_file(dir));
    Process::start("kafka", command, &dir.join("kafka.log"))
}

fn format_storage(dir: &Path) {
    let output = Command::new("java")
        .args(java_arguments())
        .args([
            "kafka.tools.StorageTool",
            "format",
            "--ignore-formatted",
            "--cluster-id",
            CLUSTER_ID,
            "--config",
        ])
        .arg(settings_file(dir))
        .output()
        .expect("java runs");
    assert!(
        output.status.success(),
        "the broker's folder cannot be made: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn java_arguments() -> [String; 3] {
    [
        JVM_OPTIONS.to_owned(),
        "-cp".to_owned(),
        format!("{}/*", setting("CRM_KAFKA_LIBS")),
    ]
}

fn settings_file(dir: &Path) -> PathBuf {
    dir.join("server.properties")
}
