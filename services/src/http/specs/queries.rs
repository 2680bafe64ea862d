use std::sync::Arc;

use axum::response::IntoResponse;
use projections::{ColumnType, PAGE_BYTES_MAX, READ_MODELS, ReadModel, Value};
use serde_json::json;

use super::world::{CannedRows, STANDS, World};
use crate::clock::SystemClock;
use crate::http::problem::Problem;
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
async fn an_answer_is_made_of_so_many_rows_and_no_more() {
    let store: Arc<dyn ReadStore> = Arc::new(customers());
    let ask = async |model: &str, rows: usize| {
        let queries = Queries::new(Arc::clone(&store), Arc::new(SystemClock)).reading_at_most(rows);
        queries.ask(ReadModel::find(model).unwrap(), Ask::default()).await
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
            "query",
            "there is no column \"colour\"; there are: customer, name",
        ),
        ("customer=me", "query", "\"me\" does not fit the column \"customer\""),
        ("where=active", "where", "is no filter"),
        ("where=registered_at<=yesterday", "query", "does not fit the column"),
        ("limit=0", "limit", "from 1 to 10000"),
        ("limit=-1", "limit", "from 1 to 10000"),
        ("limit=10001", "limit", "from 1 to 10000"),
        ("limit=many", "limit", "from 1 to 10000"),
        ("limit=1&limit=2", "limit", "given twice"),
        ("cursor=abc", "query", "the cursor is not one"),
        ("cursor=-1", "query", "the cursor is not one"),
        ("cursor=4294967296", "query", "the cursor is not one"),
        ("as_of=2026-02-30", "as_of", "no day such as"),
        ("as_of=2026-02-30T00:00:00Z", "as_of", "no time such as"),
        ("as_of=2026-03-01T00:00:00", "as_of", "no time such as"),
        ("as_of=", "as_of", "no day such as"),
        ("as_of=2026-03-01", "query", "shows the present"),
        ("known_at=2026-03-01", "query", "shows the present"),
        ("known_at=2026-03-01&known_until=0:1", "known_until", "give one of them"),
        ("known_until=0", "known_until", "is no position"),
        ("known_until=0:1,0:2", "known_until", "twice"),
        ("at_least=3", "at_least", "is no position"),
        ("at_least=0:-1", "at_least", "is no position"),
        ("at_least=0:99999999999999999999", "at_least", "is no position"),
        ("at_least=4:1", "at_least", "in no shard"),
        ("format=xml", "format", "there are: json, csv"),
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
    let unknown = world.get("/api/customer").await;
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
        json!("shard 2, offset 7: a poison event")
    );
    assert_eq!(status["read_models"][0]["shards"][2]["next"], json!(STANDS));
    assert!(status["trouble"][0].as_str().unwrap().contains("a poison event"));

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
