//! Programs of others against ours: a client whose types are generated from the API's description, a tester that knows nothing but that
//! description, and a reader of the topic that knows nothing but CloudEvents.
//!
//! Their versions are pinned in `tests/clients`. They come from npm and PyPI, and where they cannot be had these tests fail.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;
use tests::{Crm, shared_kafka, unique_topic};

/// Seconds that the tester may take.
const FUZZ_SECONDS: &str = "120";
/// The same requests in every run.
const FUZZ_SEED: &str = "20260301";

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// The folder with the programs of others, installed once for all runs.
fn installed() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let target = Crm::binary()
            .ancestors()
            .nth(2)
            .expect("target/<profile>/crm")
            .to_owned();
        let folder = target.join("clients");
        must_succeed(Command::new(here().join("install")).arg(&folder));
        folder
    })
}

/// Runs a program to its end.
fn must_succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// A server on fresh files.
fn server() -> (Crm, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("create a data folder");
    let url = format!("sqlite:{}", dir.path().display());
    let crm = Crm::start(&["serve"], &[("CRM_LOG", &url), ("CRM_VIEWS", &url)]);
    (crm, dir)
}

async fn description(crm: &Crm) -> String {
    let answer = reqwest::get(crm.url("/api/openapi.json")).await.expect("an answer");
    answer.text().await.expect("the description")
}

#[tokio::test]
async fn a_typed_client_compiles_strictly_and_runs() {
    let (crm, _data) = server();
    let built = tempfile::tempdir().expect("create a folder");
    let folder = installed().join("typescript");
    for file in ["client.ts", "tsconfig.json", "package.json"] {
        std::fs::copy(here().join("typescript").join(file), built.path().join(file)).expect("copy the client");
    }
    std::os::unix::fs::symlink(folder.join("node_modules"), built.path().join("node_modules")).expect("link");
    std::fs::write(built.path().join("openapi.json"), description(&crm).await).expect("write the description");

    let program = |name: &str| folder.join("node_modules/.bin").join(name);
    let mut generate = Command::new(program("openapi-typescript"));
    must_succeed(
        generate
            .current_dir(built.path())
            .args(["openapi.json", "--output", "api.ts"]),
    );
    must_succeed(
        Command::new(program("tsc"))
            .current_dir(built.path())
            .args(["--project", "."]),
    );
    let mut client = Command::new("node");
    let said = must_succeed(client.current_dir(built.path()).arg("built/client.js").arg(crm.url("")));
    assert_eq!(said.trim(), "the client did all that it wanted");
}

#[tokio::test]
async fn a_tester_who_knows_the_description_finds_nothing() {
    let (crm, _data) = server();
    let mut tester = Command::new(installed().join("venv/bin/schemathesis"));
    tester
        .current_dir(here())
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .env("PYTHONPATH", here())
        .args([
            "--config-file",
            "schemathesis.toml",
            "run",
            &crm.url("/api/openapi.json"),
        ])
        .args(["--checks", "all"])
        .args(["--seed", FUZZ_SEED, "--max-time", FUZZ_SECONDS])
        .args(["--continue-on-failure", "--no-color"]);
    let told = must_succeed(&mut tester);
    println!("{told}");
}

#[tokio::test]
async fn the_topic_is_read_with_the_sdk_of_cloudevents() {
    let dir = tempfile::tempdir().expect("create a data folder");
    let (broker, topic) = (shared_kafka(), unique_topic("clients"));
    let (log, views) = (
        format!("kafka://{broker}/{topic}"),
        format!("sqlite:{}", dir.path().display()),
    );
    let env = [("CRM_LOG", log.as_str()), ("CRM_VIEWS", views.as_str())];
    let made = Crm::run(&["init", "--shards", "2"], &env);
    assert!(made.status.success(), "{made:?}");
    let crm = Crm::start(&["serve"], &env);
    let http = reqwest::Client::new();
    let register = json!({"type": "register", "kind": "person", "name": "王小明", "country": "TW"});
    let answer = http
        .post(crm.url("/api/customer"))
        .json(&register)
        .send()
        .await
        .expect("an answer");
    let done: serde_json::Value = answer.json().await.expect("JSON");
    let stream = format!("customer/{}", done["id"].as_str().expect("an id"));

    let mut reader = Command::new(installed().join("venv/bin/python"));
    let said = must_succeed(reader.arg(here().join("events.py")).args([&broker, &topic, &stream]));
    let lines: Vec<&str> = said.lines().collect();
    let registered = lines.iter().find(|line| line.contains(&stream));
    let fields: Vec<&str> = registered.expect("the event").split(' ').collect();
    assert_eq!(fields[0], "crm.customer.registered.v1", "{said}");
    assert!(fields.contains(&"name") && fields.contains(&"country"), "{said}");
}
