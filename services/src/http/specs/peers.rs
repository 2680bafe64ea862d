//! What another process may send, and what nobody may: an order is checked as a command that comes through the door.

use serde_json::{Value, json};

use super::world::{SECRET, World};

const COMMAND: &str = "/internal/shards/0/commands";
const STATE: &str = "/internal/shards/0/states";

/// A customer on this shard of the world's.
fn customer(shard: u16) -> domain::StreamRef {
    let ids = (0..).map(|n: u32| domain::derived_id(&["peer", &n.to_string()]));
    let mut streams = ids.map(|id| domain::StreamRef {
        kind: domain::StreamKind::Customer,
        id,
    });
    streams
        .find(|stream| stream.slot().shard(super::world::SHARDS) == shard)
        .unwrap()
}

/// A good order for shard 0, changed by `spoil`. Its hash fits what it says.
fn order(spoil: impl FnOnce(&mut Value)) -> Value {
    let mut order = json!({
        "command_id": domain::derived_id(&["an order"]),
        "given": domain::derived_id(&["an order"]),
        "hash": "",
        "steps": [{
            "stream": customer(0).to_string(),
            "command": {"type": "register", "kind": "person", "name": "n"},
            "expected_version": null,
        }],
        "effective_at": null,
        "who": {"actor": "user:mei", "on_behalf_of": null, "causation": null, "correlation": null, "traceparent": null},
        "lane": "people",
        "within_ms": 2_000,
    });
    spoil(&mut order);
    order["hash"] = hash_of(&order).unwrap_or_default().into();
    order
}

fn hash_of(order: &Value) -> Option<String> {
    let steps = order["steps"].as_array()?.iter().map(|step| {
        let stream = domain::StreamRef::parse(step["stream"].as_str()?)?;
        let command = domain::AnyCommand::from_json(stream.kind, step["command"].clone()).ok()?;
        Some(crate::shard::Step {
            stream,
            action: crate::shard::Action::Decide(command),
            expected_version: None,
        })
    });
    Some(crate::shard::hash_of(&crate::shard::Request {
        command_id: uuid::Uuid::nil(),
        given: uuid::Uuid::nil(),
        hash: String::new(),
        steps: steps.collect::<Option<_>>()?,
        external_keys: vec![],
        effective_at: order["effective_at"].as_str().and_then(|at| at.parse().ok()),
        upsert: order["upsert"] == true,
        who: crate::shard::Who::new(domain::Actor::system("spec")),
    }))
}

#[tokio::test]
async fn an_order_of_another_process_is_decided_once() {
    let world = World::new().await;
    let secret = [("x-crm-peer-secret", SECRET)];
    for _ in 0..2 {
        let answer = world.post_with(COMMAND, &secret, order(|_| {})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json()["done"]["events"], 1, "{}", answer.text);
    }
    assert_eq!(world.events(), 1);
}

#[tokio::test]
async fn who_does_not_know_the_secret_finds_nothing_there() {
    let world = World::new().await;
    let asked = json!({"stream": customer(0).to_string(), "within_ms": 1_000});
    for secret in [
        None,
        Some(""),
        Some("the-secret-of-the-spec"),
        Some("the-secret-of-the-specs "),
    ] {
        let headers: Vec<_> = secret.map(|secret| ("x-crm-peer-secret", secret)).into_iter().collect();
        for (path, body) in [(COMMAND, order(|_| {})), (STATE, asked.clone())] {
            let answer = world.post_with(path, &headers, body).await;
            assert_eq!(answer.status, 404, "{secret:?}: {}", answer.text);
        }
        let answer = world.request("GET", "/internal/shards/0/served", &headers, "").await;
        assert_eq!(answer.status, 404, "{secret:?}: {}", answer.text);
    }
    assert_eq!(world.events(), 0);
}

#[tokio::test]
async fn where_processes_share_no_log_there_is_no_such_route() {
    let world = World::alone().await;
    let secret = [("x-crm-peer-secret", SECRET)];
    let answer = world.post_with(COMMAND, &secret, order(|_| {})).await;
    assert_eq!(answer.status, 404, "{}", answer.text);
    assert_eq!(world.events(), 0);
}

#[tokio::test]
async fn what_no_client_may_send_no_process_may_either() {
    let world = World::new().await;
    let secret = [("x-crm-peer-secret", SECRET)];
    let step = |name: &'static str, value: Value| move |order: &mut Value| order["steps"][0][name] = value;
    let who = |name: &'static str, value: &str| {
        let value = value.to_owned();
        move |order: &mut Value| order["who"][name] = value.into()
    };
    let top = |name: &'static str, value: Value| move |order: &mut Value| order[name] = value;
    let registered = json!({"kind": "person", "name": "n"});
    let facts = json!([["crm.customer.registered.v1", registered]]);
    let opened =
        json!({"type": "record", "customer": customer(1).id, "channel": "phone", "direction": "in", "subject": "s"});
    let spoilt = [
        ("facts", order(step("facts", facts))),
        (
            "another shard's stream",
            order(step("stream", json!(customer(1).to_string()))),
        ),
        (
            "another slot",
            order(|order| {
                order["steps"][0]["stream"] = json!(format!(
                    "interaction/{}",
                    uuid::Uuid::from_u128(0x7000_8000_0000_0000_0000)
                ));
                order["steps"][0]["command"] = opened;
            }),
        ),
        (
            "a NUL",
            order(step(
                "command",
                json!({"type": "register", "kind": "person", "name": "a\u{0}b"}),
            )),
        ),
        (
            "a day before the year 1",
            order(|order| {
                let customer = customer(0).id;
                order["steps"][0]["stream"] = json!(format!("opportunity/{customer}"));
                order["steps"][0]["command"] = json!({
                    "type": "open", "customer": customer, "name": "n", "owner": "mei", "close_date": "-009999-01-01",
                    "amount": {"minor": 1, "currency": "TWD"},
                });
            }),
        ),
        ("no command", order(step("command", json!({"type": "rename-all"})))),
        ("an actor with a newline", order(who("actor", "user:mei\nsystem:root"))),
        ("an actor without a kind", order(who("on_behalf_of", "mei"))),
        ("a causation with a space", order(who("causation", "a b"))),
        (
            "a correlation that is too long",
            order(who("correlation", &"c".repeat(201))),
        ),
        ("no trace context", order(who("traceparent", "00-xyz"))),
        (
            "a key of another stream",
            order(top(
                "external_keys",
                json!([[customer(0).id, {"source": "erp", "key": "C-12"}]]),
            )),
        ),
        (
            "a time before the year 1",
            order(top("effective_at", json!("-009999-01-01T00:00:00Z"))),
        ),
        (
            "a time to come",
            order(top("effective_at", json!("2199-01-01T00:00:00Z"))),
        ),
        (
            "an id of version 4",
            order(top("command_id", json!("6f1c7a52-5f0e-4a6b-9a52-0c9a3f1f2d11"))),
        ),
        (
            "an old id",
            order(top("command_id", json!("01890a5d-ac96-774b-bcce-b302099a8057"))),
        ),
        ("no step", order(top("steps", json!([])))),
    ];
    for (what, order) in spoilt {
        let answer = world.post_with(COMMAND, &secret, order).await;
        assert!(
            matches!(answer.status, 400 | 422),
            "{what}: {} {}",
            answer.status,
            answer.text
        );
    }
    let mut other_hash = order(|_| {});
    other_hash["hash"] = json!("0123456789abcdef");
    assert_eq!(world.post_with(COMMAND, &secret, other_hash).await.status, 400);
    let asked = json!({"stream": customer(1).to_string(), "within_ms": 1_000});
    assert_eq!(world.post_with(STATE, &secret, asked).await.status, 400);
    assert_eq!(world.events(), 0);
}
