use std::collections::BTreeSet;
use std::sync::Arc;

use axum::response::IntoResponse;
use projections::{ColumnType, PAGE_BYTES_MAX, PART_ROWS, READ_MODELS, ReadModel, Value, Where};
use serde_json::json;

use super::world::{CannedRows, STANDS, World};
use crate::clock::SystemClock;
use crate::http::problem::Problem;
use crate::http::question;
use crate::views::{Ask, AskError, Queries, ReadStore, ViewError};

/// Rows of customers, some of whose names are hard to put into CSV.
fn customers() -> CannedRows {
    let table = ReadModel::find("customers").unwrap().tables[0];
    let row = |n: u128, name: &str| {
        let cells = table.columns.iter().map(|column| match (column.name, column.ty) {
            ("name", _) => Value::Text(name.into()),
            (_, ColumnType::Uuid) => Value::Uuid(uuid::Uuid::from_u128(n)),
            (_, ColumnType::Time) => Value::Time("2026-03-01T01:00:00Z".parse().unwrap()),
            _ => Value::Null,
        });
        cells.collect()
    };
    CannedRows {
        rows: vec![row(1, "宏達精密"), row(2, "a \"b\", c\nd"), row(3, "c")],
        ..CannedRows::default()
    }
}

#[tokio::test]
async fn a_page_of_rows_says_what_it_rests_on() {
    let world = World::with(customers()).await;
    let answer = world
        .get("/api/customers?limit=2&status=active&registered_at<=2026-03-02T00:00:00Z&at_least=0:99,1:7&at_least=1:9")
        .await;
    let page = answer.json();
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(
        (&page["read_model"], &page["cursor"]),
        (&json!("customers"), &json!("2"))
    );
    assert_eq!(page["rows"].as_array().unwrap().len(), 2);
    assert_eq!(page["rows"][0]["name"], json!("宏達精密"));
    assert_eq!(page["read_until"], json!({"0": STANDS, "1": STANDS}));
    assert_eq!(answer.header("x-read-until"), Some("0:100,1:100"));
    // Columns stand in their order, the key first.
    assert!(
        answer
            .text
            .contains(r#"{"customer":"00000000-0000-0000-0000-000000000001","name":"#),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn a_day_that_is_asked_for_ends_by_the_clocks_of_the_log() {
    for (time_zone, end) in [
        ("Asia/Taipei", "2026-03-29T15:59:59.999999Z"),
        ("Europe/Berlin", "2026-03-29T21:59:59.999999Z"),
        ("America/Los_Angeles", "2026-03-30T06:59:59.999999Z"),
    ] {
        let world = World::in_zone(CannedRows::default(), time_zone).await;
        for page in [
            world.get("/api/backlog?as_of=2026-03-29").await,
            world.post("/api/backlog/query", json!({"as_of": "2026-03-29"})).await,
        ] {
            assert_eq!(page.json()["as_of"], end, "{}", page.text);
        }
        assert_eq!(world.get("/api/status").await.json()["time_zone"], time_zone);
    }
}

#[tokio::test]
async fn an_answer_is_made_of_so_many_rows_and_no_more() {
    let store: Arc<dyn ReadStore> = Arc::new(customers());
    let ask = async |model: &str, rows: usize| {
        let queries =
            Queries::new(Arc::clone(&store), Arc::new(SystemClock), domain::Calendar::taipei()).reading_at_most(rows);
        let ask = Ask::of(queries.question());
        queries.ask(ReadModel::find(model).unwrap(), ask).await
    };
    assert_eq!(ask("customers", 3).await.unwrap().answer.rows.len(), 3);
    // A list has a page of its own; the scores need all rows.
    for model in ["customers", "rfm"] {
        let refused = ask(model, 2).await.unwrap_err();
        assert!(matches!(refused, AskError::TooMuch(2)), "{refused}");
        assert_eq!(Problem::from(refused).into_response().status(), 400);
    }
}

#[tokio::test]
async fn rows_come_as_csv_too() {
    let world = World::with(customers()).await;
    let answer = world.get("/api/customers?format=csv&limit=2").await;
    assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(answer.header("x-cursor"), Some("2"));
    let mut lines = answer.text.split("\r\n");
    assert!(lines.next().unwrap().starts_with("customer,name,"));
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("00000000-0000-0000-0000-000000000001,宏達精密,")
    );
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("00000000-0000-0000-0000-000000000002,\"a \"\"b\"\", c\nd\",")
    );
}

/// So many rows that they come in parts.
fn many(count: u128) -> CannedRows {
    let canned = customers();
    let row = |n: u128| {
        let mut row = canned.rows[0].clone();
        row[0] = Value::Uuid(uuid::Uuid::from_u128(n));
        row
    };
    CannedRows {
        rows: (1..=count).map(row).collect(),
        ..CannedRows::default()
    }
}

#[tokio::test]
async fn a_file_has_all_rows_unless_a_limit_is_asked() {
    let rows = 2 * PART_ROWS + 3;
    let world = World::with(many(rows as u128)).await;
    for format in ["csv", "excel"] {
        let answer = world.get(&format!("/api/customers?format={format}")).await;
        let lines: BTreeSet<&str> = answer.text.split_terminator("\r\n").collect();
        assert_eq!(
            (answer.status, lines.len(), answer.header("x-cursor")),
            (200, rows + 1, None)
        );
        let limited = world.get(&format!("/api/customers?format={format}&limit=10")).await;
        assert_eq!(limited.text.split_terminator("\r\n").count(), 11);
        assert_eq!(limited.header("x-cursor"), Some("10"));
    }
    let answer = world.get("/api/customers?format=csv").await;
    assert_eq!(
        answer.header("content-disposition"),
        Some("attachment; filename=\"customers.csv\"")
    );
    assert_eq!(world.get("/api/customers.csv").await.text, answer.text);
    let excel = world.get("/api/customers.csv?format=excel").await.text;
    assert!(excel.starts_with('\u{feff}'));
    assert_eq!(
        world.get("/api/customers").await.json()["rows"]
            .as_array()
            .unwrap()
            .len(),
        100
    );
}

#[tokio::test]
async fn a_spreadsheet_gets_decimals_and_no_formula() {
    let table = ReadModel::find("customers").unwrap().tables[0];
    let names = [
        "=HYPERLINK(\"http://x\")",
        "+886 2 1234",
        "-1+1",
        "@SUM(A1)",
        "\tx",
        "宏達 = 1",
    ];
    let row = |(n, name): (usize, &&str)| {
        let cells = table.columns.iter().map(|column| match (column.name, column.ty) {
            ("name", _) => Value::Text((*name).into()),
            (_, ColumnType::Uuid) => Value::Uuid(uuid::Uuid::from_u128(n as u128)),
            (_, ColumnType::Time) => Value::Time("2026-03-01T16:30:00Z".parse().unwrap()),
            _ => Value::Null,
        });
        cells.collect()
    };
    let rows = CannedRows {
        rows: names.iter().enumerate().map(row).collect(),
        ..CannedRows::default()
    };
    let world = World::with(rows).await;
    let file = world.get("/api/customers?format=excel").await;
    assert!(file.text.starts_with("\u{feff}customer,name,"), "{}", file.text);
    for shown in [
        "\"'=HYPERLINK(\"\"http://x\"\")\"",
        "'+886 2 1234",
        "'-1+1",
        "'@SUM(A1)",
        "'\tx",
        ",宏達 = 1,",
    ] {
        assert!(file.text.contains(shown), "{shown}: {}", file.text);
    }
    assert!(file.text.contains("2026-03-02 00:30:00"), "{}", file.text);
    // A program gets what there is.
    let raw = world.get("/api/customers?format=csv").await.text;
    assert!(
        raw.starts_with("customer,") && raw.contains("\"=HYPERLINK(") && raw.contains(",-1+1,"),
        "{raw}"
    );
}

#[tokio::test]
async fn a_question_may_stand_in_the_body() {
    let world = World::with(customers()).await;
    let body = json!({
        "email": "a@b.c", "owner": null, "status": ["active", "closed"], "where": ["registered_at<=2026-03-02T00:00:00Z"],
        "limit": 2, "at_least": ["0:99", "1:7"]
    });
    let answer = world.post("/api/customers/query", body).await;
    let by_url = world.get("/api/customers?limit=2").await;
    assert_eq!((answer.status, &answer.text), (200, &by_url.text));
    let file = world.post("/api/customers/query", json!({"format": "csv"})).await;
    assert_eq!(file.text.split_terminator("\r\n").count(), 4, "{}", file.text);

    for (body, at, says) in [
        (json!([]), ".", "a question is a JSON object"),
        (
            json!({"colour": "red"}),
            "colour",
            "there is no column \"colour\"; there are: customer, name",
        ),
        (json!({"customer": "me"}), "customer", "does not fit the column"),
        (json!({"customer": 1}), "customer", "compared with a text"),
        (json!({"owner": {"is": "mei"}}), "owner", "compared with a text"),
        (json!({"owner": []}), "owner", "the list is empty"),
        (json!({"limit": 0}), "limit", "use 1 to 10000"),
        (json!({"limit": 1.5}), "limit", "use 1 to 10000"),
        (json!({"limit": true}), "limit", "limit is a number"),
        (json!({"where": [1]}), "where", "a list of texts"),
        (json!({"where": {}}), "where", "a text or a list of texts"),
        (json!({"as_of": 2026}), "as_of", "as_of is a text"),
        (
            json!({"where": vec!["owner!=a"; 5_000]}),
            "where",
            "at most 100 filters",
        ),
        (json!({"owner": vec!["a"; 5_000]}), "where", "at most 1000 values"),
        (json!({"registered_at": "null"}), "registered_at", "with null"),
        (json!({"owner": "a\u{0}b"}), "owner", "does not fit the column"),
    ] {
        let refused = world.post("/api/customers/query", body.clone()).await;
        assert_eq!(
            (refused.status, &refused.json()["at"]),
            (400, &json!(at)),
            "{body}: {}",
            refused.text
        );
        assert!(
            refused.text.contains(says) || refused.json()["detail"].as_str().unwrap().contains(says),
            "{}",
            refused.text
        );
    }
    assert_eq!(world.post("/api/nobody/query", json!({})).await.status, 404);
}

#[tokio::test]
async fn who_asks_for_the_head_only_makes_nobody_read() {
    let gone = CannedRows {
        error: Some(|| ViewError::Unavailable("connection refused".into())),
        ..CannedRows::default()
    };
    let world = World::with(gone).await;
    let head = |path: &'static str| world.request("HEAD", path, &[], "");
    let answer = head("/api/customers?format=csv").await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("text/csv; charset=utf-8"))
    );
    assert_eq!(answer.header("content-length"), None, "that of the answer is not known");
    assert_eq!(head("/api/customers?colour=red").await.status, 400);
    assert_eq!(world.get("/api/customers").await.status, 503);
}

#[tokio::test]
async fn a_method_that_does_not_fit_is_told_which_ones_do() {
    let world = World::new().await;
    for (method, path, allow) in [
        ("POST", "/api/customers", "GET, HEAD"),
        ("POST", "/api/customers.csv", "GET, HEAD"),
        ("DELETE", "/api/customers", "GET, HEAD"),
        ("GET", "/api/customer", "POST"),
        ("PUT", "/api/customer", "POST"),
        ("PATCH", "/api/customer/key:erp:1", "GET, HEAD, POST"),
        ("GET", "/api/customers/query", "POST"),
        ("GET", "/api/bundle", "POST"),
        ("POST", "/api/status", "GET, HEAD"),
        ("POST", "/health/live", "GET, HEAD"),
    ] {
        let answer = world
            .request(method, path, &[("content-type", "application/json")], "{}")
            .await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some(allow)),
            "{method} {path}: {}",
            answer.text
        );
    }
    for (method, path) in [
        ("DELETE", "/api/nobody"),
        ("GET", "/api/nobody"),
        ("PUT", "/api/nobody/1"),
    ] {
        assert_eq!(
            world.request(method, path, &[], "").await.status,
            404,
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn what_was_known_at_a_time_is_answered_with_its_positions_and_the_same_later() {
    let world = World::new().await;
    let answer = world
        .get("/api/backlog?known_at=2026-03-01&as_of=2026-03-01T00:00:00%2B08:00")
        .await;
    let page = answer.json();
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(
        (&page["known_until"], &page["as_of"]),
        (&json!("0:12,1:99"), &json!("2026-02-28T16:00:00Z"))
    );
    assert_eq!(page.get("read_until"), None);
    let again = world
        .get("/api/backlog?known_until=0:12,1:99&as_of=2026-03-01T00:00:00+08:00")
        .await;
    assert_eq!(again.text, answer.text);
    let nothing = world.get("/api/backlog?known_until=").await;
    assert_eq!(nothing.json()["known_until"], json!(""));
}

#[tokio::test]
async fn a_bad_question_is_a_400_that_says_what_is_wrong() {
    let world = World::with(customers()).await;
    let cases = [
        (
            "colour=red",
            "colour",
            "there is no column \"colour\"; there are: customer, name",
        ),
        ("customer=me", "customer", "\"me\" does not fit the column \"customer\""),
        ("where=active", "where", "is no filter"),
        (
            "where=registered_at<=yesterday",
            "registered_at",
            "does not fit the column",
        ),
        ("limit=0", "limit", "use 1 to 10000"),
        ("limit=-1", "limit", "use 1 to 10000"),
        ("limit=10001", "limit", "use 1 to 10000"),
        ("limit=many", "limit", "use 1 to 10000"),
        ("limit=1&limit=2", "limit", "given twice"),
        ("cursor=abc", "query", "the cursor is not one"),
        ("cursor=-1", "query", "the cursor is not one"),
        ("cursor=4294967296", "query", "the cursor is not one"),
        ("as_of=2026-02-30", "as_of", "no day such as"),
        ("as_of=2026-02-30T00:00:00Z", "as_of", "no time such as"),
        ("as_of=2026-03-01T00:00:00", "as_of", "no time such as"),
        ("as_of=", "as_of", "no day such as"),
        ("as_of=2026-03-01", "query", "has no history"),
        ("known_at=2026-03-01", "query", "has no history"),
        ("known_at=2026-03-01&known_until=0:1", "known_until", "give one of them"),
        ("known_until=0", "known_until", "is no position"),
        ("known_until=0:1,0:2", "known_until", "twice"),
        ("at_least=3", "at_least", "is no position"),
        ("at_least=0:-1", "at_least", "is no position"),
        ("at_least=0:99999999999999999999", "at_least", "is no position"),
        ("at_least=4:1", "at_least", "in no shard"),
        ("at_least=65536:1", "at_least", "is no position"),
        ("at_least=0:1,,0:2", "at_least", "is no position"),
        ("format=xml", "format", "there are: json, csv, excel"),
        ("email=a@b.c", "email", "send POST /api/customers/query"),
        ("where=phone is not null", "phone", "does not belong in a URL"),
        ("where=owner=null", "owner", "write owner is null"),
        ("where=owner in (a", "where", "is no filter"),
        ("where=owner=\"a", "where", "does not end"),
    ];
    for (query, at, says) in cases {
        let answer = world.get(&format!("/api/customers?{query}")).await;
        let problem = answer.json();
        assert_eq!(
            (answer.status, &problem["at"]),
            (400, &json!(at)),
            "{query}: {}",
            answer.text
        );
        assert!(
            problem["detail"].as_str().unwrap().contains(says),
            "{query}: {}",
            answer.text
        );
    }
    let unknown = world.get("/api/nobodies").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.text.contains("there is no read model"), "{}", unknown.text);
}

#[tokio::test]
async fn a_read_model_that_is_not_there_yet_is_a_503() {
    let building = CannedRows {
        is_building: true,
        ..CannedRows::default()
    };
    let world = World::with(building).await;
    let answer = world.get("/api/customers").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(answer.text.contains("are being built"), "{}", answer.text);
    let ready = world.get("/health/ready").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.json()["reasons"][0].as_str().unwrap().contains("being built"),
        "{}",
        ready.text
    );

    let gone = CannedRows {
        error: Some(|| ViewError::Unavailable("connection refused".into())),
        ..CannedRows::default()
    };
    let world = World::with(gone).await;
    assert_eq!(world.get("/api/customers").await.status, 503);
    let status = world.get("/api/status").await;
    assert_eq!((status.status, &status.json()["ok"]), (200, &json!(false)));
}

#[tokio::test]
async fn a_page_that_is_too_large_is_a_400_that_says_what_to_do() {
    let full = CannedRows {
        error: Some(|| ViewError::TooLarge(PAGE_BYTES_MAX)),
        ..CannedRows::default()
    };
    let refused = World::with(full).await.get("/api/customers?limit=10000").await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_eq!(
        refused.json()["detail"],
        "the answer would be made of more than 64 MiB; ask for fewer rows at a time, or for less with a filter"
    );
}

#[test]
fn a_read_model_that_is_behind_says_how_far() {
    let behind = AskError::Behind {
        position: domain::Position {
            shard: 3,
            offset: 1_207,
        },
        stands: 1_200,
    };
    let problem = serde_json::to_value(format!("{:?}", Problem::from(behind))).unwrap();
    let text = problem.as_str().unwrap();
    assert!(text.contains("Behind") && text.contains("\"lag\": Number(8)"), "{text}");
}

#[tokio::test]
async fn the_status_tells_how_far_everything_is() {
    let stopped = CannedRows {
        stops: vec![(2, "shard 2, offset 7: a poison event".into())],
        ..CannedRows::default()
    };
    let world = World::with(stopped).await;
    let status = world.get("/api/status").await.json();
    assert_eq!((&status["ok"], &status["instance"]), (&json!(false), &json!("spec")));
    assert_eq!(status["shards"][0]["owned"], json!(true));
    assert_eq!(
        status["read_models"][0]["shards"][2]["trouble"],
        json!("stopped; `crm status` and the log say why")
    );
    assert_eq!(status["read_models"][0]["shards"][2]["next"], json!(STANDS));
    assert!(
        status["trouble"][0].as_str().unwrap().contains("group sales: stopped"),
        "{status}"
    );

    let world = World::new().await;
    let status = world.get("/api/status").await.json();
    assert_eq!(
        (&status["ok"], &status["trouble"]),
        (&json!(true), &json!([])),
        "{status}"
    );
    assert_eq!(world.get("/health/live").await.status, 200);
    assert_eq!(world.get("/health/ready").await.status, 200);
    assert!(world.get("/metrics").await.text.contains("crm_commands_answered_total"));
    world.stop();
    let ready = world.get("/health/ready").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains("the server is stopping"), "{}", ready.text);
}

#[tokio::test]
async fn every_read_model_can_be_asked() {
    let world = World::new().await;
    for model in READ_MODELS {
        let answer = world.get(&format!("/api/{}", model.name)).await;
        assert_eq!(answer.status, 200, "{}: {}", model.name, answer.text);
    }
}

#[tokio::test]
async fn things_are_found_by_the_key_that_another_system_has_for_them() {
    let world = World::with(customers()).await;
    let registered = world
        .begun(
            "/api/customer",
            json!({"type": "register", "kind": "person", "name": "a", "external": [{"source": "erp", "key": "C-12"}]}),
        )
        .await;
    let model = ReadModel::find("cases").unwrap();
    let filters = async |parameters: &[(&str, &str)]| {
        let pairs = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut asked = question::of_url(model, pairs.collect(), &domain::Calendar::taipei())?;
        crate::http::queries::find_by_keys(&world.commands, model, &mut asked).await?;
        Ok::<_, Problem>(asked.ask.question.filters)
    };
    // A customer was registered with a key of the ERP; the id of a case is derived from the desk's number.
    let incident = domain::id_from_key("case", "desk", "INC:0001");
    let found = filters(&[("customer", "key:erp:C-12"), ("case", "key:desk:INC:0001")])
        .await
        .unwrap();
    assert_eq!(
        found,
        [
            Where::equal("customer", &registered),
            Where::equal("case", &incident.to_string())
        ]
    );
    let several = filters(&[("where", "case in (key:desk:INC:0001, \"key:desk:2\")")])
        .await
        .unwrap();
    assert_eq!(several[0].texts().next(), Some(incident.to_string().as_str()));
    assert!(filters(&[("case", "key:desk")]).await.is_err());
    let typed = filters(&[("case", "key:desk:cafe\u{301}")]).await.unwrap();
    let stored = domain::id_from_key("case", "desk", "café");
    assert_eq!(typed, [Where::equal("case", &stored.to_string())]);
    // A text is a text.
    let text = filters(&[("subject", "key:desk:1")]).await;
    assert!(text.is_err(), "it is personal");
    let group = filters(&[("group", "key:desk:1")]).await.unwrap();
    assert_eq!(group, [Where::equal("group", "key:desk:1")]);
    assert_eq!(world.get("/api/cases?case=key:desk:INC0001").await.status, 200);
}

#[tokio::test]
async fn a_large_answer_is_compressed_for_who_can_read_it() {
    let world = World::with(many(200)).await;
    let gzip = [("accept-encoding", "gzip")];
    let encoding = async |path: &str, headers: &[(&str, &str)]| {
        let answer = world.request("GET", path, headers, "").await;
        answer.header("content-encoding").map(str::to_owned)
    };
    assert_eq!(encoding("/api/customers", &gzip).await.as_deref(), Some("gzip"));
    assert_eq!(
        encoding("/api/customers?format=csv", &gzip).await.as_deref(),
        Some("gzip")
    );
    assert_eq!(encoding("/api/customers", &[]).await, None);
    assert_eq!(encoding("/health/live", &gzip).await, None);
}
