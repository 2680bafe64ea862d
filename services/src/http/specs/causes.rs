//! What a store says when it fails goes to the log, and no answer has a word of it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Event, Metadata, Subscriber};

use super::world::{Answer, CannedRows, World};
use crate::http::{example_of, examples, openapi_document};
use crate::log::{AppendError, EventLog, LogError, LogReader, LogWriter, MemoryLog, Record};
use crate::views::ViewError;

/// A word that only a store says.
const MARKER: &str = "MARKER-7f3a";

fn words() -> String {
    format!("{MARKER}: SELECT secret FROM /var/lib/crm/log.db at 10.0.0.7")
}

/// A log in memory that begins to fail.
#[derive(Clone, Default)]
struct Failing {
    log: MemoryLog,
    fails: Arc<AtomicBool>,
    /// How the next appends fail: refused, or their outcome unknown.
    unknown: Arc<AtomicBool>,
}

impl Failing {
    fn look(&self) -> Result<(), LogError> {
        match self.fails.load(Ordering::Relaxed) {
            true => Err(LogError::Unavailable(words())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl EventLog for Failing {
    fn address(&self) -> String {
        self.log.address()
    }

    async fn create(&self, shards: u16) -> Result<(), LogError> {
        self.log.create(shards).await
    }

    async fn open(&self) -> Result<u16, LogError> {
        self.look()?;
        self.log.open().await
    }

    async fn end(&self, shard: u16) -> Result<u64, LogError> {
        self.look()?;
        self.log.end(shard).await
    }

    async fn writer(&self, shard: u16) -> Result<Box<dyn LogWriter>, LogError> {
        self.look()?;
        let writer = self.log.writer(shard).await?;
        Ok(Box::new(FailingWriter {
            of: self.clone(),
            writer,
        }))
    }

    async fn reader(&self, shard: u16, from: u64) -> Result<Box<dyn LogReader>, LogError> {
        self.look()?;
        self.log.reader(shard, from).await
    }

    async fn check(&self) -> Result<(), LogError> {
        self.look()
    }
}

struct FailingWriter {
    of: Failing,
    writer: Box<dyn LogWriter>,
}

#[async_trait]
impl LogWriter for FailingWriter {
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError> {
        match (self.of.look(), self.of.unknown.load(Ordering::Relaxed)) {
            (Ok(()), _) => self.writer.append(records).await,
            (Err(_), true) => Err(AppendError::Unknown(words())),
            (Err(_), false) => Err(AppendError::Refused(words())),
        }
    }
}

/// The lines of the log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!(" {}={value:?}", field.name()));
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Values<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Lines {
    fn has(&self, words: &[&str]) -> bool {
        let lines = self.0.lock().unwrap();
        lines.iter().any(|line| words.iter().all(|word| line.contains(word)))
    }
}

/// Every route of the description, with an example of what may be sent there.
async fn ask_everywhere(world: &World, headers: &[(&str, &str)]) -> Vec<(String, Answer)> {
    let document = openapi_document();
    let mut answers = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let name = path.split('/').nth(2).unwrap_or_default();
            let at = path.replace("{id}", "key:erp:C-12");
            let answer = match (method.as_str(), path.ends_with("/query")) {
                ("POST", true) => world.post_with(&at, headers, serde_json::json!({})).await,
                ("POST", false) => {
                    let body = example_of(name).unwrap_or(examples::BUNDLE);
                    world.post_with(&at, headers, serde_json::from_str(body).unwrap()).await
                }
                _ => world.request(&method, &at, headers, "").await,
            };
            answers.push((format!("{method} {path}"), answer));
        }
    }
    answers
}

/// No answer has the store's words, and each one that hides some has a reference, under which the log has them. How
/// many those are.
fn hidden(answers: &[(String, Answer)], lines: &Lines) -> usize {
    let mut found = 0;
    for (route, answer) in answers {
        assert!(!answer.text.contains("MARKER"), "{route}: {}", answer.text);
        let headers = format!("{:?}", answer.headers);
        assert!(!headers.contains("MARKER"), "{route}: {headers}");
        let Some(reference) = answer.header("x-reference") else {
            continue;
        };
        assert!(
            lines.has(&[reference, MARKER]),
            "{route}: the log has nothing under {reference}"
        );
        if answer.status >= 500 {
            assert_eq!(answer.json()["reference"], reference, "{route}: {}", answer.text);
        }
        found += 1;
    }
    found
}

#[tokio::test(start_paused = true)]
async fn no_answer_has_the_words_of_a_read_store_that_fails() {
    let lines = Lines::default();
    let _logged = tracing::subscriber::set_default(lines.clone());
    let errors: [fn() -> ViewError; 2] = [|| ViewError::Refused(words()), || ViewError::Unavailable(words())];
    for (error, status) in errors.into_iter().zip([500, 503]) {
        let world = World::with(CannedRows {
            error: Some(error),
            ..CannedRows::default()
        })
        .await;
        let answers = ask_everywhere(&world, &[]).await;
        // Each read model in three ways, the status and the readiness.
        assert_eq!(hidden(&answers, &lines), 3 * projections::READ_MODELS.len() + 2);
        let (_, customers) = answers.iter().find(|(route, _)| route == "GET /api/customers").unwrap();
        assert_eq!(customers.status, status);
    }
    // What is noted about a stop or a blocked swap has a store's words as well.
    let world = World::with(CannedRows {
        stops: vec![(2, words())],
        is_building: true,
        blocked: Some(words()),
        ..CannedRows::default()
    })
    .await;
    assert!(hidden(&ask_everywhere(&world, &[]).await, &lines) >= 1);
    let stopped = World::with(CannedRows {
        stops: vec![(2, words())],
        ..CannedRows::default()
    })
    .await;
    assert_eq!(hidden(&ask_everywhere(&stopped, &[]).await, &lines), 1);
}

#[tokio::test(start_paused = true)]
async fn no_answer_has_the_words_of_a_log_that_fails() {
    let lines = Lines::default();
    let _logged = tracing::subscriber::set_default(lines.clone());
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let traceparent = format!("00-{trace}-b7ad6b7169203331-01");
    for (unknown, status) in [(false, 507), (true, 503)] {
        let failing = Failing::default();
        let world = World::on(failing.log.clone(), Arc::new(failing.clone())).await;
        failing.unknown.store(unknown, Ordering::Relaxed);
        failing.fails.store(true, Ordering::Relaxed);
        let capture = serde_json::from_str(example_of("lead").unwrap()).unwrap();
        let first = world
            .post_with("/api/lead", &[("traceparent", &traceparent)], capture)
            .await;
        assert_eq!(first.status, status, "{}", first.text);
        assert_eq!(first.header("x-reference"), Some(trace), "{}", first.text);
        assert!(lines.has(&[trace, MARKER]));
        // By now no shard that was written to is served.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let answers = ask_everywhere(&world, &[]).await;
        assert!(hidden(&answers, &lines) > 5, "hardly anything failed");
    }
}
