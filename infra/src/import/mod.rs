//! Sending many commands: in parallel, in order where it matters, with a count of what came of them.

mod dangling;
pub mod jsonl;
mod report;
mod sender;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::{id_from_key, slot_of};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use services::commands::{CommandFailure, Reference};
use services::shard::Failure;
use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

pub use dangling::Dangling;
pub use report::{Finding, Found, Report};
pub use sender::Sender;

use crate::sources::{BadLine, ImportLine};
use sender::Taken;

/// Commands on their way at one time.
const IN_FLIGHT_MAX: usize = 256;
/// How often a command is sent again under the same id when the outcome is not known or nobody took it.
const TRIES_MAX: u32 = 60;
/// What one command came to.
enum Outcome {
    Taken {
        line: Box<ImportLine>,
        is_double: bool,
        taken: Taken,
    },
    Rejected(Finding),
    /// Nobody took it, however often: the import stops and can be resumed.
    Stuck(Finding),
}

/// Counts that a progress bar shows while an import runs.
#[derive(Debug, Default)]
pub struct Counts {
    pub done: AtomicU64,
    pub rejected: AtomicU64,
}

/// Sends all lines. `ends` is where each shard ended before: an ack from before that is of an earlier run. Lines that name a common stream or key go in the order in which they stand.
///
/// # Errors
/// When commands are not taken for minutes on end: what was applied is applied, run it again to go on.
pub async fn run(
    lines: impl Iterator<Item = Result<ImportLine, BadLine>>,
    sender: Sender,
    ends: &[u64],
    counts: Arc<Counts>,
) -> anyhow::Result<Report> {
    let mut report = Report::new(ends);
    let ends: Arc<[u64]> = ends.into();
    let mut sent: HashSet<Uuid> = HashSet::new();
    let room = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut last: HashMap<String, Shared<BoxFuture<'static, ()>>> = HashMap::new();
    let mut running: futures::stream::FuturesUnordered<tokio::task::JoinHandle<Outcome>> = Default::default();
    let mut swept = 0;
    for line in lines {
        let line = match line {
            Ok(line) => line,
            Err(bad) => {
                report.add_finding(bad.into());
                continue;
            }
        };
        let (done, finished) = oneshot::channel::<()>();
        let finished = finished.map(|_| ()).boxed().shared();
        let mut before = Vec::new();
        for name in names(&line) {
            before.extend(last.insert(name, finished.clone()));
        }
        let is_double = !sent.insert(line.command_id);
        let permit = Arc::clone(&room).acquire_owned().await?;
        let (sender, counts, ends) = (sender.clone(), Arc::clone(&counts), Arc::clone(&ends));
        running.push(tokio::spawn(async move {
            futures::future::join_all(before).await;
            let outcome = send(&sender, line, is_double, &ends).await;
            counts.done.fetch_add(1, Ordering::Relaxed);
            if matches!(outcome, Outcome::Rejected(_)) {
                counts.rejected.fetch_add(1, Ordering::Relaxed);
            }
            drop(permit);
            // Those who wait may have been given up.
            done.send(()).unwrap_or_default();
            outcome
        }));
        while running.len() >= IN_FLIGHT_MAX {
            let Some(outcome) = futures::StreamExt::next(&mut running).await else {
                break;
            };
            add(&mut report, outcome?)?;
        }
        swept += 1;
        if swept % 10_000 == 0 {
            last.retain(|_, finished| finished.peek().is_none());
        }
    }
    while let Some(outcome) = futures::StreamExt::next(&mut running).await {
        add(&mut report, outcome?)?;
    }
    Ok(report)
}

fn add(report: &mut Report, outcome: Outcome) -> anyhow::Result<()> {
    match outcome {
        Outcome::Taken { line, is_double, taken } => {
            report.add_taken(&line, is_double, &taken);
        }
        Outcome::Rejected(finding) => report.add_finding(finding),
        Outcome::Stuck(finding) => anyhow::bail!(
            "stopped at {}, line {}: {}. What was applied is applied; run the same import again to go on",
            finding.file,
            finding.line,
            finding.reason
        ),
    }
    Ok(())
}

/// Everything that the line names: its stream and its slot, and all ids and keys in the command. Streams of one slot have one
/// order (a machine's and its inspections', a customer's and their deals'), which is that of the lines and not of luck.
fn names(line: &ImportLine) -> Vec<String> {
    let mut names = vec![line.key.to_string()];
    names.extend(line.incoming.id.as_ref().map(|id| {
        let id = match id {
            Reference::Id(id) => *id,
            Reference::Key { source, key } => id_from_key(line.incoming.stream.name(), source, key),
        };
        format!("slot {}", slot_of(id).number())
    }));
    let own = [&line.incoming.id, &line.incoming.customer];
    for reference in own.into_iter().flatten() {
        names.push(match reference {
            Reference::Id(id) => id.to_string(),
            Reference::Key { source, key } => key_name(source, key),
        });
    }
    collect(&line.incoming.command, &mut names);
    names.sort_unstable();
    names.dedup();
    names
}

fn key_name(source: &str, key: &str) -> String {
    format!("{source}\u{1f}{key}")
}

fn collect(json: &serde_json::Value, names: &mut Vec<String>) {
    match json {
        serde_json::Value::String(text) if uuid::Uuid::parse_str(text).is_ok() => names.push(text.to_ascii_lowercase()),
        serde_json::Value::Array(list) => list.iter().for_each(|item| collect(item, names)),
        serde_json::Value::Object(object) => {
            if let Some([source, key]) = object.get("key").and_then(|key| key.as_array()).map(Vec::as_slice)
                && let (Some(source), Some(key)) = (source.as_str(), key.as_str())
            {
                names.push(key_name(source, key));
            }
            if let (Some(source), Some(key)) = (
                object.get("source").and_then(|s| s.as_str()),
                object.get("key").and_then(|k| k.as_str()),
            ) {
                names.push(key_name(source, key));
            }
            object.values().for_each(|value| collect(value, names));
        }
        _ => {}
    }
}

async fn send(sender: &Sender, mut line: ImportLine, is_double: bool, ends: &[u64]) -> Outcome {
    let finding = |line: &ImportLine, reason: String| Finding::of(line, Found::Refused, reason);
    for attempt in 1.. {
        match sender.send(&line).await {
            Ok(taken) if taken.is_of_before(ends) && line.ask_anew.is_some() => {
                line.command_id = line.ask_anew.take().expect("it was looked at");
            }
            Ok(taken) => {
                let line = Box::new(line);
                return Outcome::Taken { line, is_double, taken };
            }
            Err(CommandFailure::Shard(
                failure @ (Failure::NotAccepted(_) | Failure::OutcomeUnknown(_) | Failure::NoRoom(_)),
            )) => {
                if attempt >= TRIES_MAX {
                    return Outcome::Stuck(finding(&line, failure.to_string()));
                }
                tokio::time::sleep(std::time::Duration::from_millis(100 * u64::from(attempt.min(20)))).await;
            }
            Err(CommandFailure::Shard(Failure::IdReused(_))) if line.is_change => {
                let reason = "it was imported with other content before; the log keeps what it has, and a file does not change it";
                return Outcome::Rejected(Finding::of(&line, Found::Differs, reason));
            }
            Err(failure) => return Outcome::Rejected(finding(&line, failure.to_string())),
        }
    }
    unreachable!("the loop ends by an answer")
}

#[cfg(test)]
mod specs {
    use domain::{Id, inspection::inspection_id};
    use serde_json::{Value, json};

    use super::*;

    fn to_server(url: String) -> Sender {
        Sender::Server {
            http: reqwest::Client::new(),
            url,
            strict: false,
        }
    }

    fn names_of(line: Value) -> Vec<String> {
        let text = line.to_string();
        let mut lines = jsonl::Lines::new(text.as_bytes(), jsonl::specs::spec_name(), "spec.jsonl", Arc::default());
        names(&lines.next().unwrap().unwrap())
    }

    #[test]
    fn a_machine_and_its_inspection_do_not_overtake_each_other() {
        let machine = id_from_key("equipment", "Maker", "S-1");
        let inspection = inspection_id(Id::new(machine), "yearly", "2026-03-01".parse().unwrap());
        let down = names_of(json!({"stream": "equipment", "id": {"key": ["Maker", "S-1"]},
                                   "command": {"type": "report-down", "symptom": "noise"}}));
        let start =
            names_of(json!({"stream": "inspection", "id": inspection.to_string(), "command": {"type": "start"}}));
        let common: Vec<&String> = down.iter().filter(|name| start.contains(name)).collect();
        assert_eq!(common, [&format!("slot {}", slot_of(machine).number())]);
    }

    /// A server that answers after a while, and counts how many commands it has at one time.
    async fn slow_server(at_once: Arc<AtomicU64>, most: Arc<AtomicU64>) -> String {
        use axum::routing::post;
        let answer = move || {
            let (at_once, most) = (Arc::clone(&at_once), Arc::clone(&most));
            async move {
                let now = at_once.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                at_once.fetch_sub(1, Ordering::SeqCst);
                axum::Json(json!({"position": "0:1", "events": 1}))
            }
        };
        let api = axum::Router::new().route("/api/bundle", post(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, api).await });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn no_more_than_its_bound_of_commands_are_on_their_way() {
        let most = Arc::new(AtomicU64::new(0));
        let url = slow_server(Arc::default(), Arc::clone(&most)).await;
        let lines: String = (0..1_500)
            .map(|n| {
                let command = json!({"type": "register", "kind": "person", "name": "n"});
                let line = json!({"stream": "customer", "id": {"key": ["spec", n.to_string()]}, "command": command});
                format!("{line}\n")
            })
            .collect();
        let lines = jsonl::Lines::new(
            lines.as_bytes(),
            jsonl::specs::spec_name(),
            "spec.jsonl",
            Arc::default(),
        );
        let counts = Arc::new(Counts::default());
        // A line is read when there is room for its command, and not before.
        let (mut given, done) = (0, Arc::clone(&counts));
        let lines = lines.inspect(move |_| {
            given += 1;
            let ahead = given - done.done.load(Ordering::Relaxed);
            assert!(ahead <= IN_FLIGHT_MAX as u64 + 1, "{ahead} lines ahead");
        });
        let report = run(lines, to_server(url), &[], counts).await.unwrap();
        assert_eq!(report.applied, 1_500);
        let most = most.load(Ordering::SeqCst);
        assert!((2..=IN_FLIGHT_MAX as u64).contains(&most), "{most} at one time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_nobody_takes_is_sent_so_often_and_then_the_import_stops_and_says_where() {
        let tries = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&tries);
        let refuse = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            async {
                (
                    axum::http::StatusCode::SERVICE_UNAVAILABLE,
                    r#"{"detail": "it is being taken over"}"#,
                )
            }
        };
        let api = axum::Router::new().route("/api/bundle", axum::routing::post(refuse));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, api).await });

        let line = r#"{"stream": "customer", "id": {"key": ["spec", "1"]}, "command": {"type": "close"}}"#;
        let lines = jsonl::Lines::new(line.as_bytes(), jsonl::specs::spec_name(), "spec.jsonl", Arc::default());
        let stopped = run(lines, to_server(url), &[], Arc::default()).await;
        let why = stopped.unwrap_err().to_string();
        assert!(
            why.starts_with("stopped at spec.jsonl, line 1: ") && why.contains("it is being taken over"),
            "{why}"
        );
        assert_eq!(tries.load(Ordering::SeqCst), u64::from(TRIES_MAX));
    }
}
