//! A server under a lasting mixed load holds no more memory than it did after it had warmed up.
//!
//! `CRM_MEMORY_SECONDS=1800 scripts/test --test memory` goes on for longer than the short run of every test.

use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tests::{Crm, Database, shared_kafka, unique_topic};

/// How long the load lasts when nobody says otherwise.
const SECONDS_DEFAULT: u64 = 40;
const CLIENTS: usize = 8;
/// Customers that the commands and the questions are about. Their number stays the same, so that what the caches hold does too.
const CUSTOMERS: usize = 400;
const SAMPLES: usize = 12;
/// What the later half may hold more than the half before it: a tenth, and what an allocator keeps in hand.
const SLACK_BYTES: u64 = 24 * 1024 * 1024;

fn lasts() -> Duration {
    let seconds = std::env::var("CRM_MEMORY_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse().expect("CRM_MEMORY_SECONDS is a number"));
    Duration::from_secs(seconds.unwrap_or(SECONDS_DEFAULT))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_flat_under_mixed_load_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let place = format!("sqlite:{}", folder.path().join("data").display());
    let crm = Crm::start(&["serve"], &[("CRM_LOG", &place), ("CRM_VIEWS", &place)]);
    stays_flat(&crm).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_flat_under_mixed_load_on_kafka_and_postgresql() {
    let log = format!("kafka://{}/{}", shared_kafka(), unique_topic("memory"));
    let views = Database::create();
    let env = [("CRM_LOG", log.as_str()), ("CRM_VIEWS", views.url())];
    let made = Crm::run(&["init", "--shards", "4"], &env);
    assert!(made.status.success(), "{made:?}");
    let crm = Crm::start(&["serve"], &env);
    stays_flat(&crm).await;
}

async fn stays_flat(crm: &Crm) {
    let http = Client::new();
    let customers = register_all(&http, crm).await;
    let each = lasts() / SAMPLES as u32;
    let mut resident = vec![];
    let mut requests = 0;
    for sample in 0..SAMPLES {
        let until = Instant::now() + each;
        let clients = (0..CLIENTS).map(|client| load(&http, crm, &customers, sample * CLIENTS + client, until));
        requests += join_all(clients).await.into_iter().sum::<u64>();
        resident.push(crm.resident_bytes());
    }
    println!("{requests} requests; MiB resident: {:?}", in_mib(&resident));
    let most = |part: &[u64]| part.iter().copied().max().expect("samples were taken");
    let (warm, late) = (
        most(&resident[SAMPLES / 3..2 * SAMPLES / 3]),
        most(&resident[2 * SAMPLES / 3..]),
    );
    assert!(
        late <= warm + warm / 10 + SLACK_BYTES,
        "memory grows with the requests: MiB resident {:?}",
        in_mib(&resident)
    );
}

fn in_mib(bytes: &[u64]) -> Vec<u64> {
    bytes.iter().map(|bytes| bytes / 1024 / 1024).collect()
}

async fn register_all(http: &Client, crm: &Crm) -> Vec<String> {
    let mut customers = vec![];
    for n in 0..CUSTOMERS {
        let body = json!({"type": "register", "kind": "person", "name": format!("林{n}")});
        let ack = http.post(crm.url("/api/customer")).json(&body).send().await.unwrap();
        let ack: Value = ack.json().await.unwrap();
        customers.push(ack["id"].as_str().expect("an id").to_owned());
    }
    customers
}

/// One client: commands that change something, commands that are refused, nonsense, pages of lists, computed answers and CSV.
async fn load(http: &Client, crm: &Crm, customers: &[String], seed: usize, until: Instant) -> u64 {
    let mut sent = 0;
    for n in seed.. {
        if Instant::now() >= until {
            break;
        }
        let customer = &customers[n * 7 % customers.len()];
        let to_customer = crm.url(&format!("/api/customer/{customer}"));
        let request = match n % 10 {
            0..5 => http
                .post(to_customer)
                .json(&json!({"type": "assign-owner", "owner": format!("o{n}")})),
            5 => http
                .post(to_customer)
                .json(&json!({"type": "assign-owner", "owner": " "})),
            6 => http
                .post(to_customer)
                .body("{\"type\": ")
                .header("Content-Type", "application/json"),
            7 => http.get(crm.url("/api/customers?limit=200")),
            8 => http.get(crm.url("/api/timeline?limit=500&format=csv")),
            _ => http.get(crm.url("/api/pipeline_daily?as_of=2026-01-31")),
        };
        let answer = request.send().await.expect("the server answers");
        let status = answer.status();
        answer.bytes().await.expect("the answer comes whole");
        let is_expected = match n % 10 {
            5 | 6 => status.is_client_error(),
            _ => status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE,
        };
        assert!(is_expected, "request {n} was answered {status}");
        sent += 1;
    }
    sent
}
