//! What is told to Prometheus, and what is made of it: measurements, alert rules, a dashboard.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::Crm;

fn monitoring() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("docs/monitoring")
}

fn promtool(args: &[&str], input: &str) -> Output {
    let mut promtool = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs: scripts/test installs it, with Debian's package prometheus");
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    promtool.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{out}{err}")
}

/// A server that has done a little of everything; its measurements.
async fn measurements(crm: &Crm) -> String {
    let client = reqwest::Client::new();
    // What is looked at every few seconds is told after the first look.
    for _ in 0..60 {
        let answer = client.get(crm.url("/metrics")).send().await.unwrap();
        if answer.text().await.unwrap().contains("crm_read_models_stopped{") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let command = json!({"type": "register", "kind": "person", "name": "林"});
    for (path, body) in [("/api/customer", &command), ("/api/case", &command)] {
        client.post(crm.url(path)).json(body).send().await.unwrap();
    }
    for path in [
        "/api/customers",
        "/api/pipeline",
        "/api/nothing",
        "/api/customer/key:a:b",
        "/elsewhere",
    ] {
        client.get(crm.url(path)).send().await.unwrap();
    }
    let answer = client.get(crm.url("/metrics")).send().await.unwrap();
    assert_eq!(
        answer.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    answer.text().await.unwrap()
}

/// The value of a measurement with these labels.
fn value(text: &str, measurement: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{measurement} ")));
    line.unwrap_or_else(|| panic!("there is no {measurement}\n{text}"))
        .parse()
        .unwrap()
}

#[tokio::test]
async fn the_metrics_are_complete_and_promtool_finds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().display());
    let crm = Crm::start(&["serve"], &[("CRM_LOG", &url), ("CRM_VIEWS", &url)]);
    let text = measurements(&crm).await;
    let checked = promtool(&["check", "metrics"], &text);
    assert_eq!((checked.status.code(), said(&checked).as_str()), (Some(0), ""));

    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(value(&text, &format!("crm_build_info{{version=\"{version}\"}}")), 1.0);
    for shard in 0..8 {
        assert_eq!(value(&text, &format!("crm_shard_owned{{shard=\"{shard}\"}}")), 1.0);
        assert_eq!(value(&text, &format!("crm_shard_in_trouble{{shard=\"{shard}\"}}")), 0.0);
        for lane in ["people", "imports"] {
            value(
                &text,
                &format!("crm_shard_commands_waiting{{shard=\"{shard}\",lane=\"{lane}\"}}"),
            );
        }
        for group in ["sales", "service", "analytics", "journal"] {
            let labels = format!("{{group=\"{group}\",shard=\"{shard}\"}}");
            value(&text, &format!("crm_read_models_lag_records{labels}"));
        }
    }
    for group in ["sales", "service", "analytics", "journal"] {
        let labels = format!("{{group=\"{group}\"}}");
        assert_eq!(value(&text, &format!("crm_read_models_live{labels}")), 1.0);
        assert_eq!(value(&text, &format!("crm_read_models_stopped{labels}")), 0.0);
        value(&text, &format!("crm_oldest_unread_record_age_seconds{labels}"));
    }
    assert_eq!(value(&text, "crm_shards_not_served"), 0.0);
    assert_eq!(value(&text, "crm_status_unknown"), 0.0);
    assert!(value(&text, "crm_append_seconds_count") >= 1.0);
    for (method, route, status) in [
        ("POST", "/api/customer", 201),
        ("POST", "/api/case", 400),
        ("GET", "/api/customers", 200),
        ("GET", "/api/pipeline", 200),
        ("GET", "/api/{name}", 404),
        ("GET", "/api/customer/{id}", 404),
        ("GET", "-", 404),
    ] {
        let labels = format!("{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}");
        assert_eq!(value(&text, &format!("crm_http_requests_total{labels}")), 1.0);
    }
    for known in [
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(value(&text, known) > 0.0, "{known}");
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_alert_rules() {
    let rules = monitoring().join("alerts.yml");
    let checked = promtool(&["check", "rules", rules.to_str().unwrap()], "");
    assert!(checked.status.success(), "{}", said(&checked));
}

#[tokio::test]
async fn rules_and_dashboard_speak_of_measurements_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().display());
    let crm = Crm::start(&["serve"], &[("CRM_LOG", &url), ("CRM_VIEWS", &url)]);
    let rules = std::fs::read_to_string(monitoring().join("alerts.yml")).unwrap();
    let dashboard = std::fs::read_to_string(monitoring().join("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let questions = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let asked: Vec<&str> = questions.map(|target| target["expr"].as_str().unwrap()).collect();
    let pages = rules + "\n" + &asked.join("\n");
    let words = pages.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let named: BTreeSet<String> = words
        .filter(|word| (word.starts_with("crm_") || word.starts_with("process_")) && word.len() > "process_".len())
        .map(str::to_owned)
        .collect();
    assert!(named.len() > 15, "{named:?}");
    // Seats are told of where there is a group.
    let seldom = ["crm_seat_unsettled_seconds", "crm_seats_taken_anew_total"];
    let seldom = BTreeSet::from(seldom.map(str::to_owned));
    let told = told(&measurements(&crm).await);
    let unknown: Vec<&String> = named.difference(&told).filter(|name| !seldom.contains(*name)).collect();
    assert_eq!(unknown, Vec::<&String>::new());
}

/// The names of all that is measured.
fn told(text: &str) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        told.insert(name.to_owned());
        if kind == "histogram" {
            told.insert(format!("{name}_bucket"));
        }
    }
    told
}
