//! What should come from inside only: orders between processes, a fault of the program itself, a machine whose clock is wrong.

use std::time::{Duration, Instant};

use domain::{AnyCommand, StreamKind, StreamRef, command_id_within, derived_id};
use serde_json::{Value, json};
use services::shard::{Action, PANICS_MAX, Request, Step, Who, hash_of};
use tests::traffic::run_well;
use tests::{FaultyClock, unique_topic};
use uuid::Uuid;

use crate::honest::{ALL_BUT_READINESS, Honest, Pace};
use crate::stage::{SECRET, SHARDS, Stage};

const PATIENCE: Duration = Duration::from_secs(30);

/// A customer that nobody else has, on this shard of the log on Kafka.
fn customer_on(shard: u16) -> StreamRef {
    let name = unique_topic("order");
    let ids = (0..).map(|n: u32| derived_id(&[&name, &n.to_string()]));
    let mut streams = ids.map(|id| StreamRef {
        kind: StreamKind::Customer,
        id,
    });
    streams.find(|stream| stream.slot().shard(SHARDS) == shard).unwrap()
}

/// A good order for this stream, changed by `spoil`. Its hash fits what it says.
fn order(stream: StreamRef, spoil: impl FnOnce(&mut Value)) -> Value {
    let id = derived_id(&[&stream.to_string()]);
    let mut order = json!({
        "command_id": command_id_within(id, stream),
        "given": id,
        "hash": "",
        "steps": [{
            "stream": stream.to_string(),
            "command": {"type": "register", "kind": "person", "name": "ordered"},
            "expected_version": null,
        }],
        "effective_at": null,
        "who": {"actor": "user:mei", "on_behalf_of": null, "causation": null, "correlation": null, "traceparent": null},
        "lane": "people",
        "within_ms": 5_000,
    });
    spoil(&mut order);
    order["hash"] = hash_of_order(&order).unwrap_or_default().into();
    order
}

fn hash_of_order(order: &Value) -> Option<String> {
    let steps = order["steps"].as_array()?.iter().map(|step| {
        let stream = StreamRef::parse(step["stream"].as_str()?)?;
        let command = AnyCommand::from_json(stream.kind, step["command"].clone()).ok()?;
        Some(Step {
            stream,
            action: Action::Decide(command),
            expected_version: None,
        })
    });
    Some(hash_of(&Request {
        command_id: Uuid::nil(),
        given: Uuid::nil(),
        hash: String::new(),
        steps: steps.collect::<Option<_>>()?,
        external_keys: vec![],
        effective_at: order["effective_at"].as_str().and_then(|at| at.parse().ok()),
        upsert: order["upsert"] == true,
        who: Who::new(domain::Actor::system("callers")),
    }))
}

/// Orders as processes of one log send them to each other: by who does not know their secret, and by who does and sends
/// what no door would let in.
pub async fn orders_that_are_forged(stage: &mut Stage) -> Pace {
    const KNOWN: &[(&str, &str)] = &[("x-crm-peer-secret", SECRET)];
    let mut honest = Honest::beside(stage).await;
    let stage = &*stage;
    let path = |shard: u16| format!("/internal/shards/{shard}/commands");
    let attack = async || {
        let good = order(customer_on(0), |_| {});
        let asked = json!({"stream": customer_on(0).to_string(), "within_ms": 1_000});
        for headers in [
            &[][..],
            &[("x-crm-peer-secret", "")],
            &[("x-crm-peer-secret", "the-secret-of-the-caller")],
            &[("x-crm-peer-secret", "x"), ("x-crm-peer-secret", SECRET)],
        ] {
            assert_eq!(stage.post(&path(0), headers, &good).await.0, 404);
            assert_eq!(stage.post("/internal/shards/0/states", headers, &asked).await.0, 404);
        }
        for (what, order) in spoilt() {
            let (status, text) = stage.post(&path(0), KNOWN, &order).await;
            let refused = if stage.is_shared() { [400, 422] } else { [404, 404] };
            assert!(refused.contains(&status), "{what}: {status} {text}");
        }
        let nowhere = stage.post(&path(SHARDS), KNOWN, &order(customer_on(0), |_| {})).await;
        assert_eq!(nowhere.0, 404);
    };
    honest.are_served_beside(attack).await;
    // The same that was not spoilt.
    let good = stage.post(&path(0), KNOWN, &order(customer_on(0), |_| {})).await;
    assert_eq!(good.0, if stage.is_shared() { 200 } else { 404 }, "{}", good.1);
    let pace = honest.end("orders that are forged").await;
    // Of all of them the one good one was written, and the log is in order.
    run_well(&["log", "verify"], &stage.env());
    let listed = run_well(&["log", "list", "--limit", "100000", "--bodies"], &stage.env());
    assert_eq!(listed.matches("\"spoilt\"").count(), 0);
    pace
}

/// What is refused of who knows the secret.
fn spoilt() -> Vec<(&'static str, Value)> {
    let own = customer_on(0);
    let register = |name: &str| json!({"type": "register", "kind": "person", "name": name});
    let spoilt = |what: &'static str, spoil: &dyn Fn(&mut Value)| {
        let order = order(own, |order| {
            order["steps"][0]["command"]["name"] = json!("spoilt");
            spoil(order);
        });
        (what, order)
    };
    let facts = json!([["crm.customer.registered.v1", {"kind": "person", "name": "spoilt"}]]);
    let elsewhere = customer_on(1).to_string();
    vec![
        spoilt("facts", &|order| order["steps"][0]["facts"] = facts.clone()),
        spoilt("facts for a command", &|order| {
            order["steps"][0]["command"] = facts.clone()
        }),
        spoilt("another shard's stream", &|order| {
            order["steps"][0]["stream"] = json!(elsewhere);
        }),
        spoilt("no stream", &|order| order["steps"][0]["stream"] = json!("customer/1")),
        spoilt("a NUL", &|order| order["steps"][0]["command"] = register("spoilt\u{0}")),
        spoilt("an actor with a newline", &|order| {
            order["who"]["actor"] = json!("user:mei\nsystem:root");
        }),
        spoilt("a correlation with a space", &|order| {
            order["who"]["correlation"] = json!("a b");
        }),
        spoilt("a time before the year 1", &|order| {
            order["effective_at"] = json!("-009999-01-01T00:00:00Z");
        }),
        spoilt("a time to come", &|order| {
            order["effective_at"] = json!("2199-01-01T00:00:00Z")
        }),
        spoilt("an id of version 4", &|order| {
            order["command_id"] = json!("6f1c7a52-5f0e-4a6b-9a52-0c9a3f1f2d11");
        }),
        spoilt("no step", &|order| order["steps"] = json!([])),
    ]
}

/// A command at which the program panics. There is none that we know of: so a stored state, which is a cache, is
/// damaged in a way that the program cannot have written.
pub async fn commands_that_the_program_fails_at(stage: &mut Stage) -> Pace {
    let name = unique_topic("till");
    let account = account_with_a_redemption(stage, &name).await;
    stage.end();
    let (lots, gone) = (format!("\"lots\":{{\"{name}\":"), format!("\"lots\":{{\"{name}x\":"));
    assert_eq!(stage.replace_in_states("loyalty", &lots, &gone).await, 1);
    stage.serve(&[]).await;

    let mut honest = Honest::asking(stage, ALL_BUT_READINESS).await;
    let at = &*stage;
    let path = format!("/api/loyalty/{account}");
    let reverse = json!({"type": "reverse", "of": "gift", "reason": "returned"});
    let attack = async || {
        let (status, text) = at.post(&path, &[("idempotency-key", &name)], &reverse).await;
        assert_eq!(status, 503, "{text}");
    };
    honest.are_served_beside(attack).await;
    let (_, text) = at.post(&path, &[("idempotency-key", &name)], &reverse).await;
    assert!(text.contains("the program fails at this command"), "{text}");
    let pace = honest.end("commands that the program fails at").await;

    // It is counted and named, and nobody is sent here any more.
    let panics = at.metric("crm_panics_total{part=\"shard\"} ").await;
    assert!(panics >= f64::from(PANICS_MAX), "{panics}");
    let (ready, why) = at.get("/health/ready").await;
    assert_eq!(ready, 503);
    assert!(why.contains("the program fails at command"), "{why}");
    let (_, status) = at.get("/api/status").await;
    assert!(status.contains("failing_commands"), "{status}");
    // Whoever mends the state gets the command through.
    stage.end();
    assert_eq!(stage.replace_in_states("loyalty", &gone, &lots).await, 1);
    stage.serve(&[]).await;
    let (status, text) = stage.post(&path, &[("idempotency-key", &name)], &reverse).await;
    assert_eq!(status, 200, "{text}");
    pace
}

/// An account with points of a source of this name, some of which went for a gift.
async fn account_with_a_redemption(stage: &Stage, name: &str) -> String {
    let id = |text: &str| {
        serde_json::from_str::<Value>(text).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let register = json!({"type": "register", "kind": "person", "name": "spends"});
    let customer = id(&stage.post("/api/customer", &[], &register).await.1);
    let enrol = json!({"type": "enrol", "customer": customer, "program": "points"});
    let account = id(&stage.post("/api/loyalty", &[], &enrol).await.1);
    for command in [
        json!({"type": "earn", "points": 100, "source": name}),
        json!({"type": "redeem", "points": 40, "for": "gift"}),
    ] {
        let (status, text) = stage.post(&format!("/api/loyalty/{account}"), &[], &command).await;
        assert_eq!(status, 200, "{text}");
    }
    account
}

/// The machine's clock is put back by ten minutes, and then ahead by two days.
pub async fn clocks_that_are_wrong(stage: &mut Stage) -> Pace {
    const AHEAD: i64 = 48 * 3_600 + 1_800;
    let clock = FaultyClock::new();
    stage.end();
    stage.serve(&clock.env()).await;
    let mut honest = Honest::beside(stage).await;
    clock.put(-600);
    honest.are_served().await;
    let pace = honest.end("clocks that are wrong").await;

    clock.put(AHEAD);
    let register = json!({"type": "register", "kind": "person", "name": "ahead of its time"});
    let (status, text) = stage.post("/api/customer", &[], &register).await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("clock"), "{text}");
    until_ready_is(stage, 503).await;
    // Questions are answered, and nothing bears that time.
    assert_eq!(stage.get("/api/customers?limit=1").await.0, 200);
    clock.put(0);
    until_ready_is(stage, 200).await;
    let (status, text) = stage.post("/api/customer", &[], &register).await;
    assert_eq!(status, 201, "{text}");
    stage.end();

    // A start has PostgreSQL's clock to compare with.
    if stage.is_shared() {
        clock.put(AHEAD);
        let mut env = stage.env();
        let more = clock.env();
        env.extend(more.iter().map(|(name, value)| (*name, value.as_str())));
        let ahead = tests::Crm::start_unready(&["serve"], &env);
        let begun = Instant::now();
        while !ahead.log_text().contains("clock is 48 h ahead") {
            assert!(begun.elapsed() < PATIENCE, "{}", ahead.log_text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!ahead.is_ready());
    }
    stage.serve(&[]).await;
    run_well(&["log", "verify"], &stage.env());
    pace
}

async fn until_ready_is(stage: &Stage, wanted: u16) {
    let begun = Instant::now();
    loop {
        let (status, text) = stage.get("/health/ready").await;
        if status == wanted {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{status} {text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
