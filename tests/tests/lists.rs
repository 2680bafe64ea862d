//! Lists as people use them: what other systems call a thing is shown and found, and customers have their names beside their ids.

use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::Crm;

/// A company with a customer, a deal, a case and a job, each known to another system under a key.
struct Company {
    _dir: TempDir,
    place: String,
    server: Crm,
    http: reqwest::Client,
    customer: String,
}

impl Company {
    async fn new() -> Company {
        let dir = tempfile::tempdir().unwrap();
        let place = format!("sqlite:{}", dir.path().join("data").display());
        let server = Crm::start(&["serve"], &[("CRM_LOG", &place), ("CRM_VIEWS", &place)]);
        let mut company = Company {
            _dir: dir,
            place,
            server,
            http: reqwest::Client::new(),
            customer: String::new(),
        };
        let name = json!({"type": "register", "kind": "organisation", "name": "Acme",
            "external": [{"source": "erp", "key": "C-12"}]});
        company.customer = company.sent("customer", name).await;
        let customer = json!({"key": ["erp", "C-12"]});
        let things = [
            (
                "opportunity/key:erp:O-1",
                json!({"type": "open", "customer": customer, "name": "lathe", "close_date": "2026-12-31", "owner": "mei"}),
            ),
            (
                "case/key:desk:INC0001",
                json!({"type": "open", "customer": customer, "subject": "noise", "kind": "incident", "priority": "high",
                    "channel": "phone"}),
            ),
            (
                "job/key:dispatch:J-1",
                json!({"type": "create", "customer": customer, "summary": "repair"}),
            ),
            (
                "lead/key:web:L-1",
                json!({"type": "capture", "source": "fair", "name": "Ming"}),
            ),
            // A key that was learnt later.
            (
                "link",
                json!({"type": "link", "source": "shop", "key": "77", "customer": company.customer}),
            ),
        ];
        for (path, command) in things {
            company.sent(path, command).await;
        }
        company
    }

    /// Sends a command, and waits until lists have it; the id of its stream.
    async fn sent(&self, path: &str, command: Value) -> String {
        let url = self.server.url(&format!("/api/{path}"));
        let answer = self.http.post(url).json(&command).send().await.unwrap();
        let (status, answer): (_, Value) = (answer.status(), answer.json().await.unwrap());
        assert!(status.is_success(), "{path}: {answer}");
        let position = answer["position"].as_str().unwrap();
        for list in ["customers", "cases", "timeline"] {
            self.get(&format!("{list}?at_least={position}")).await;
        }
        answer["id"].as_str().unwrap().to_owned()
    }

    /// The rows of a list, over HTTP.
    async fn get(&self, question: &str) -> Vec<Value> {
        let url = self.server.url(&format!("/api/{question}"));
        let answer: Value = self.http.get(url).send().await.unwrap().json().await.unwrap();
        let rows = answer["rows"].as_array();
        rows.unwrap_or_else(|| panic!("{question}: {answer}")).clone()
    }

    fn query(&self, args: &[&str]) -> Output {
        let place = self.place.as_str();
        Crm::run(
            &[&["query"], args].concat(),
            &[("CRM_LOG", place), ("CRM_VIEWS", place)],
        )
    }

    /// The rows of a list, on the command line.
    fn rows(&self, list: &str, filter: &str) -> Vec<Value> {
        let output = self.query(&[list, "--where", filter, "--format", "json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_system_calls_a_thing_is_shown_and_found_in_its_list() {
    let company = Company::new().await;
    let lists = [
        ("pipeline", "opportunity", "erp:O-1"),
        ("cases", "case", "desk:INC0001"),
        ("jobs", "job", "dispatch:J-1"),
        ("leads", "lead", "web:L-1"),
    ];
    for (list, thing, key) in lists {
        for filter in [format!("{thing}=key:{key}"), format!("external_key={key}")] {
            let rows = company.rows(list, &filter);
            assert_eq!(rows.len(), 1, "{list} {filter}");
            assert_eq!(rows[0]["external_key"], json!(key), "{list} {filter}");
            assert_eq!(company.get(&format!("{list}?{filter}")).await, rows, "{list} {filter}");
        }
        let begun = company.rows("timeline", &format!("external_key={key}"));
        assert_eq!((begun.len(), &begun[0]["version"]), (1, &json!(1)), "{key}");
    }
    // A customer by any of its keys, and by it what is its own.
    for key in ["erp:C-12", "shop:77"] {
        let filter = format!("customer=key:{key}");
        let customers = company.rows("customers", &filter);
        assert_eq!(
            customers[0]["external_keys"],
            json!(["erp:C-12", "shop:77"]),
            "{filter}"
        );
        assert_eq!(company.get(&format!("customers?{filter}")).await, customers);
        for list in ["pipeline", "cases", "jobs", "external_keys"] {
            let rows = company.rows(list, &filter);
            assert!(!rows.is_empty(), "{list} {filter}");
            assert!(
                rows.iter().all(|row| row["customer"] == json!(company.customer)),
                "{list} {filter}"
            );
        }
    }
    assert!(company.rows("customers", "customer=key:erp:C-13").is_empty());
    let refused = company.query(&["cases", "--where", "case=key:INC0001"]);
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("key:<source>:<key>"),
        "{refused:?}"
    );
    // A file has the same column, also where its rows come part by part.
    let file = company.query(&["customers", "--format", "csv"]);
    let file = String::from_utf8(file.stdout).unwrap();
    assert!(file.contains(r#"[""erp:C-12"",""shop:77""]"#), "{file}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_has_the_names_of_customers_and_a_file_has_them_when_they_are_asked_for() {
    let company = Company::new().await;
    let printed = |args: &[&str]| {
        let output = company.query(args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for list in ["pipeline", "cases", "jobs", "timeline", "external_keys"] {
        let table = printed(&[list, "--where", "customer=key:erp:C-12"]);
        assert!(
            table.contains("customer_name") && table.contains("Acme"),
            "{list}: {table}"
        );
    }
    let chosen = printed(&[
        "pipeline",
        "--columns",
        "name,customer_name",
        "--format",
        "csv",
        "--names",
    ]);
    assert_eq!(chosen, "name,customer_name\nlathe,Acme\n");
    for format in ["json", "csv", "excel"] {
        let plain = printed(&["pipeline", "--format", format]);
        assert!(!plain.contains("customer_name") && !plain.contains("Acme"), "{plain}");
        let named = printed(&["pipeline", "--format", format, "--names"]);
        assert!(named.contains("customer_name") && named.contains("Acme"), "{named}");
    }
    let customers = printed(&["customers"]);
    assert!(
        !customers.contains("customer_name") && customers.contains("erp:C-12, shop:77"),
        "{customers}"
    );
}
