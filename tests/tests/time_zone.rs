//! A log counts its days by the time zone that it was created with: the program as its users run it, with SQLite.

use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::Crm;

/// A log and its read models in a folder.
struct Company {
    _dir: TempDir,
    place: String,
}

impl Company {
    fn new() -> Company {
        let dir = tempfile::tempdir().unwrap();
        let place = format!("sqlite:{}/data", dir.path().display());
        Company { _dir: dir, place }
    }

    fn env(&self) -> [(&str, &str); 2] {
        [("CRM_LOG", &self.place), ("CRM_VIEWS", &self.place)]
    }

    fn run(&self, args: &[&str]) -> Output {
        Crm::run(args, &self.env())
    }

    fn run_well(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "crm {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says when it refuses.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "crm {args:?} is done: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.run_well(&["status", "--json"])).unwrap()
    }

    fn rows(&self, query: &[&str]) -> Vec<Value> {
        let text = self.run_well(&[&["query"], query, &["--format", "json"]].concat());
        serde_json::from_str(&text).unwrap()
    }

    fn checksums(&self) -> Value {
        let status: Value = serde_json::from_str(&self.run_well(&["status", "--checksums", "--json"])).unwrap();
        status["checksums"].clone()
    }
}

/// A deal that was won on 29 March 2026 at 22:30 UTC, and a sale of that day.
fn tale(dir: &TempDir) -> String {
    let of = |stream: &str, key: &str, command: Value, at: &str| json!({"stream": stream, "id": {"key": ["erp", key]}, "command": command, "effective_at": at, "actor": "user:mei"});
    let begin = "2026-03-01T12:00:00Z";
    let register = json!({"type": "register", "kind": "person", "name": "Mei"});
    let open = json!({"type": "open", "customer": {"key": ["erp", "C-1"]}, "name": "lathe", "owner": "mei", "close_date": "2026-03-29",
        "amount": {"minor": 1_000, "currency": "EUR"}});
    let lines = [
        of("customer", "C-1", register, begin),
        of("opportunity", "O-1", open, begin),
        of("opportunity", "O-1", json!({"type": "win"}), "2026-03-29T22:30:00Z"),
    ];
    let path = dir.path().join("tale.jsonl");
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    std::fs::write(&path, text.join("\n")).unwrap();
    path.display().to_string()
}

#[test]
fn a_log_keeps_its_time_zone_and_no_other_is_taken() {
    let company = Company::new();
    let made = company.run_well(&["init", "--time-zone", "europe/berlin"]);
    assert!(made.contains("with 8 shards and the days of Europe/Berlin"), "{made}");
    company.run_well(&["rebuild"]);
    assert_eq!(company.status()["time_zone"], "Europe/Berlin");
    assert!(company.run_well(&["status"]).contains("days  Europe/Berlin"));

    // Again, with the same or with none, by flag, environment or file.
    company.run_well(&["init"]);
    company.run_well(&["init", "--time-zone", "Europe/Berlin"]);
    let other = "it was created with the time zone Europe/Berlin, not Asia/Taipei";
    for args in [
        &["init"][..],
        &["status"],
        &["query", "pipeline"],
        &["rebuild"],
        &["import", "/dev/null"],
    ] {
        let told = company.refused(&[args, &["--time-zone", "Asia/Taipei"]].concat());
        assert!(told.contains(other), "crm {args:?}: {told}");
    }
    let env = [&company.env()[..], &[("CRM_TIME_ZONE", "Asia/Taipei")]].concat();
    let mut serve = Crm::start_unready(&["serve"], &env);
    assert_eq!(serve.wait_for_end(std::time::Duration::from_secs(30)), 1);
    assert!(serve.log_text().contains(other), "{}", serve.log_text());
    let settings = tempfile::tempdir().unwrap();
    let file = settings.path().join("crm.toml");
    std::fs::write(&file, "time_zone = \"Asia/Taipei\"\n").unwrap();
    let told = company.refused(&["status", "--config", file.to_str().unwrap()]);
    assert!(told.contains(other), "{told}");

    let mut served = Crm::start(&["serve"], &company.env());
    assert_eq!(served.terminate(), 0);
    assert_eq!(company.status()["time_zone"], "Europe/Berlin");
}

#[test]
fn whoever_creates_a_log_by_opening_it_may_name_its_time_zone() {
    let named = Company::new();
    let env = [&named.env()[..], &[("CRM_TIME_ZONE", "America/Los_Angeles")]].concat();
    let mut served = Crm::start(&["serve"], &env);
    assert_eq!(served.terminate(), 0);
    assert_eq!(named.status()["time_zone"], "America/Los_Angeles");

    let silent = Company::new();
    let made = silent.run_well(&["init"]);
    assert!(made.contains("and the days of Asia/Taipei"), "{made}");

    let demo = Company::new();
    let told = demo.run_well(&["demo", "--once", "--small", "--time-zone", "America/Los_Angeles"]);
    assert!(told.contains(" 0 commands were done before, 0 rejected"), "{told}");
    assert_eq!(demo.status()["time_zone"], "America/Los_Angeles");
}

#[test]
fn a_time_zone_that_is_none_is_refused_before_anything_is_made() {
    let company = Company::new();
    let told = company.refused(&["init", "--time-zone", "Europe/Belin"]);
    assert!(
        told.contains("there is no time zone \"Europe/Belin\"") && told.contains("is it Europe/Berlin?"),
        "{told}"
    );
    assert!(company.refused(&["status"]).contains("does not exist"));
}

#[test]
fn the_same_events_are_of_other_days_in_another_time_zone_and_a_rebuild_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let tale = tale(&dir);
    for (time_zone, day, end_of_day, won_at) in [
        (
            "Asia/Taipei",
            "2026-03-30",
            "2026-03-29T15:59:59.999999Z",
            "2026-03-30 06:30:00",
        ),
        // The clocks were put forward that morning: half past midnight.
        (
            "Europe/Berlin",
            "2026-03-30",
            "2026-03-29T21:59:59.999999Z",
            "2026-03-30 00:30:00",
        ),
        (
            "America/Los_Angeles",
            "2026-03-29",
            "2026-03-30T06:59:59.999999Z",
            "2026-03-29 15:30:00",
        ),
    ] {
        let company = Company::new();
        company.run_well(&["init", "--time-zone", time_zone]);
        company.run_well(&["import", &tale]);
        let card = &company.rows(&["pipeline"])[0];
        assert_eq!(card["closed_on"], day, "{time_zone}");
        let flow = company.rows(&["pipeline_flow", "--where", "day>=2026-03-28", "--as-of", "2026-03-31"]);
        let won: Vec<&Value> = flow.iter().filter(|row| row["won_minor"] == 1_000).collect();
        assert_eq!((won.len(), &won[0]["day"]), (1, &json!(day)), "{time_zone}: {flow:?}");
        // A day that is asked for ends by the same clocks.
        let is_open = |as_of: &str| company.rows(&["pipeline", "--as-of", as_of]).len() == 1;
        assert_eq!(is_open("2026-03-29"), day == "2026-03-30", "{time_zone}");
        assert_eq!(is_open("2026-03-29"), is_open(end_of_day), "{time_zone}");
        let table = company.run_well(&["query", "pipeline", "--columns", "name,closed_at"]);
        assert!(table.contains(won_at), "{time_zone}: {table}");

        let before = company.checksums();
        company.run_well(&["rebuild"]);
        assert_eq!(company.checksums(), before, "{time_zone}");
    }
}
