//! What a command refers to in another slot: kept as a promise, refused when it is closed, or when the sender is strict.

use serde_json::{Value, json};

use super::world::World;
use crate::commands::REFERENCE_WAIT_MAX;
use crate::log::Fault;

const STRICT: (&str, &str) = ("prefer", "respond-async, handling=strict");

fn register(name: &str) -> Value {
    json!({"type": "register", "kind": "organisation", "name": name})
}

/// Commands that refer to a customer from a slot of their own: path and body.
fn referring_to(customer: &str, n: usize) -> Vec<(String, Value)> {
    let open = |more: Value| {
        let mut command = json!({"type": "open", "customer": customer});
        command
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        command
    };
    vec![
        (
            format!("/api/opportunity/key:sheet:O-{n}"),
            open(json!({"name": "lathe", "close_date": "2026-12-30", "owner": "mei"})),
        ),
        (
            format!("/api/case/key:desk:I-{n}"),
            open(json!({"subject": "leaks", "kind": "incident", "priority": "high", "channel": "phone"})),
        ),
        (
            "/api/purchase".to_owned(),
            json!({"type": "record", "kind": "sale", "source": "pos", "receipt": format!("R-{n}"), "business_date": "2026-11-01",
                "currency": "TWD", "lines": [{"sku": "A", "quantity": 1, "unit_price": "100"}], "customer": customer}),
        ),
        (
            "/api/equipment".to_owned(),
            json!({"type": "install", "customer": customer, "maker": "M", "serial": n.to_string(), "model": "X", "site": "S"}),
        ),
        (
            format!("/api/job/key:field:J-{n}"),
            json!({"type": "create", "customer": customer, "summary": "repair"}),
        ),
    ]
}

#[tokio::test]
async fn what_refers_to_nothing_is_a_promise_and_refused_when_the_sender_is_strict() {
    let world = World::new().await;
    for n in 0..4 {
        let nobody = domain::derived_id(&["nobody", &n.to_string()]).to_string();
        for (path, command) in referring_to(&nobody, n) {
            let is_elsewhere = domain::slot_of(nobody.parse().unwrap());
            let events = world.events();
            let refused = world.post_with(&path, &[STRICT], command.clone()).await;
            assert_eq!(refused.status, 422, "{path}: {}", refused.text);
            assert!(refused.text.contains("there is no "), "{path}: {}", refused.text);
            assert_eq!(world.events(), events, "{path}");
            let taken = world.post(&path, command.clone()).await;
            if taken.status == 422 {
                // By chance the two live in one slot, where a shard looks itself.
                assert!(taken.text.contains("there is no "), "{is_elsewhere:?} {}", taken.text);
                continue;
            }
            assert_eq!(taken.status, 201, "{path}: {}", taken.text);
            // It was applied: the same command has its answer, however strict its sender is by now.
            let key = [("idempotency-key", "the same")];
            let first = world.post_with(&path, &key, command.clone()).await;
            let again = world.post_with(&path, &[key[0], STRICT], command).await;
            assert_eq!((first.status, again.status), (200, 200), "{path}: {}", again.text);
        }
    }
}

#[tokio::test]
async fn a_strict_sender_is_told_so_and_may_refer_to_what_is_there() {
    let world = World::new().await;
    let customer = world.begun("/api/customer", register("Chen")).await;
    for (path, command) in referring_to(&customer, 1) {
        let taken = world.post_with(&path, &[STRICT], command).await;
        assert_eq!(taken.status, 201, "{path}: {}", taken.text);
        assert_eq!(taken.header("preference-applied"), Some("handling=strict"), "{path}");
    }
    let lenient = world
        .post_with("/api/customer", &[("prefer", "handling=lenient")], register("Lin"))
        .await;
    assert_eq!((lenient.status, lenient.header("preference-applied")), (201, None));
    let bundle = json!({"commands": [{"stream": "purchase", "command": referring_to(&domain::derived_id(&["x"]).to_string(), 9)[2].1}]});
    let refused = world.post_with("/api/bundle", &[STRICT], bundle).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
}

#[tokio::test]
async fn a_closed_customer_is_refused_in_every_slot_and_what_was_applied_before_has_its_answer() {
    let world = World::new().await;
    let customer = world.begun("/api/customer", register("Chen")).await;
    let mut before = Vec::new();
    for (n, (path, command)) in referring_to(&customer, 1).into_iter().enumerate() {
        let key = format!("command-{n}");
        let taken = world
            .post_with(&path, &[("idempotency-key", &key)], command.clone())
            .await;
        assert_eq!(taken.status, 201, "{path}: {}", taken.text);
        before.push((path, command, key, taken.json()["position"].clone()));
    }
    let closed = world
        .post(&format!("/api/customer/{customer}"), json!({"type": "close"}))
        .await;
    assert_eq!(closed.status, 200, "{}", closed.text);
    for (path, command) in referring_to(&customer, 2) {
        let refused = world.post(&path, command).await;
        assert_eq!(refused.status, 422, "{path}: {}", refused.text);
        assert!(refused.text.contains("is closed"), "{path}: {}", refused.text);
    }
    for (path, command, key, position) in before {
        let again = world.post_with(&path, &[("idempotency-key", &key)], command).await;
        assert_eq!(again.json()["position"], position, "{path}: {}", again.text);
    }
}

#[tokio::test]
async fn what_a_case_or_a_contact_is_about_must_be_there_for_a_strict_sender() {
    let world = World::new().await;
    let customer = world.begun("/api/customer", register("Chen")).await;
    let nothing = domain::derived_id(&["nothing"]).to_string();
    let receipt = world
        .begun(
            "/api/purchase",
            json!({"type": "record", "kind": "sale", "source": "pos", "receipt": "R-1", "business_date": "2026-11-01",
                "currency": "TWD", "lines": [{"sku": "A", "quantity": 1, "unit_price": "100"}]}),
        )
        .await;
    let open = |about: &[&str]| {
        json!({"type": "open", "customer": customer, "subject": "leaks", "kind": "incident", "priority": "high", "channel": "phone",
            "about": about})
    };
    let record = |about: &[&str]| json!({"type": "record", "customer": customer, "channel": "phone", "direction": "in", "subject": "call", "about": about});
    let call = world.begun("/api/interaction", record(&[])).await;
    let correct = |about: &[&str]| json!({"type": "correct", "fields": {"about": about}, "reason": "slip"});
    let call = format!("/api/interaction/{call}");
    for (path, command) in [
        ("/api/case", &open as &dyn Fn(&[&str]) -> Value),
        ("/api/interaction", &record),
        (&call, &correct),
    ] {
        let refused = world.post_with(path, &[STRICT], command(&[&receipt, &nothing])).await;
        assert_eq!(refused.status, 422, "{path}: {}", refused.text);
        assert!(refused.text.contains(&nothing), "{path}: {}", refused.text);
        let taken = world.post_with(path, &[STRICT], command(&[&receipt, &customer])).await;
        assert!([200, 201].contains(&taken.status), "{path}: {}", taken.text);
        // A sender who is not strict may refer to what comes later.
        let taken = world.post(path, command(&[&nothing])).await;
        assert!([200, 201].contains(&taken.status), "{path}: {}", taken.text);
    }
    // What begins in the same bundle is there.
    let deal =
        json!({"type": "open", "customer": customer, "name": "lathe", "close_date": "2026-12-30", "owner": "mei"});
    let mut about_it = open(&[]);
    about_it["about"] = json!([{"item": 0}]);
    let bundle =
        json!({"commands": [{"stream": "opportunity", "command": deal}, {"stream": "case", "command": about_it}]});
    let taken = world.post_with("/api/bundle", &[STRICT], bundle).await;
    assert_eq!(taken.status, 200, "{}", taken.text);
}

#[tokio::test]
async fn a_key_is_linked_to_a_customer_who_is_not_closed_and_for_a_strict_sender_is_there() {
    let world = World::new().await;
    let link = |key: &str, customer: &str| json!({"type": "link", "source": "web", "key": key, "customer": customer});
    let nobody = domain::derived_id(&["nobody"]).to_string();
    let refused = world.post_with("/api/link", &[STRICT], link("1", &nobody)).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert_eq!(world.post("/api/link", link("1", &nobody)).await.status, 201);
    let customer = world.begun("/api/customer", register("Chen")).await;
    let linked = world.post_with("/api/link", &[STRICT], link("2", &customer)).await;
    assert_eq!(linked.status, 201, "{}", linked.text);
    world
        .post(&format!("/api/customer/{customer}"), json!({"type": "close"}))
        .await;
    let refused = world.post("/api/link", link("3", &customer)).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
}

#[tokio::test]
async fn a_return_in_another_slot_is_measured_by_its_sale() {
    let world = World::new().await;
    let receipt = |kind: &str, receipt: &str, of: Option<&str>, price: &str, quantity: &str| {
        json!({"type": "record", "kind": kind, "source": "pos", "receipt": receipt, "business_date": "2026-11-01", "of": of,
            "currency": "TWD", "lines": [{"sku": "A", "quantity": quantity, "unit_price": price}]})
    };
    world
        .begun("/api/purchase", receipt("sale", "S-1", None, "100", "2"))
        .await;
    for n in 0..4 {
        let too_much = receipt("return", &format!("R-{n}"), Some("S-1"), "100", "-3");
        let refused = world.post("/api/purchase", too_much).await;
        assert_eq!(refused.status, 422, "{}", refused.text);
        assert!(refused.text.contains("gives back 300"), "{}", refused.text);
    }
    let fits = receipt("return", "R-9", Some("S-1"), "100", "-1");
    let id = world.begun("/api/purchase", fits.clone()).await;
    let again = world.post("/api/purchase", fits).await;
    assert_eq!(
        (again.status, &again.json()["id"], &again.json()["version"]),
        (200, &json!(id), &json!(1)),
        "{}",
        again.text
    );
    // Its sale may come later.
    world
        .begun("/api/purchase", receipt("return", "R-10", Some("S-2"), "100", "-3"))
        .await;
}

#[tokio::test]
async fn a_return_in_another_slot_brings_back_what_was_sold_and_what_only_all_returns_show_is_taken() {
    let world = World::new().await;
    let receipt = |kind: &str, receipt: &str, of: Option<&str>, day: &str, line: Value| {
        json!({"type": "record", "kind": kind, "source": "pos", "receipt": receipt, "business_date": day, "of": of,
            "currency": "TWD", "lines": [line]})
    };
    let line = |sku: &str, quantity: i32, price: &str| json!({"sku": sku, "quantity": quantity, "unit_price": price});
    let (day, before) = ("2026-11-01", "2026-10-31");
    let sale = receipt("sale", "S-1", None, day, line("A", 2, "100"));
    let sale = world.begun("/api/purchase", sale).await;
    for n in 0..4 {
        let refused = [
            (day, line("A", -3, "60"), "and this return gives back 3"),
            (day, line("B", -1, "60"), "and this return gives some back"),
            (before, line("A", -1, "60"), "nothing comes back before it is sold"),
        ];
        for (day, line, why) in refused {
            let back = receipt("return", &format!("R-{n}"), Some("S-1"), day, line);
            let refused = world.post("/api/purchase", back).await;
            assert_eq!(refused.status, 422, "{}", refused.text);
            assert!(refused.text.contains(why), "{}", refused.text);
        }
    }
    // All of it twice, and then it never was: the sale does not know its returns. `returns_to_check` lists them.
    for number in ["R-8", "R-9"] {
        let all = receipt("return", number, Some("S-1"), day, line("A", -2, "100"));
        world.begun("/api/purchase", all).await;
    }
    let void = json!({"type": "void", "reason": "training"});
    let voided = world.post(&format!("/api/purchase/{sale}"), void).await;
    assert_eq!(voided.status, 200, "{}", voided.text);
}

#[tokio::test]
async fn who_is_not_strict_waits_for_a_look_for_a_second_and_no_longer() {
    let world = std::sync::Arc::new(World::new().await);
    let (shards, slot_of) = (world.commands.shards().len() as u16, domain::slot_of);
    let customer = domain::derived_id(&["customer"]);
    let shard = slot_of(customer).shard(shards);
    let registered = world.post(&format!("/api/customer/{customer}"), register("Chen")).await;
    assert_eq!(registered.status, 201, "{}", registered.text);
    let mut case = (0..).map(|n| domain::id_from_key("case", "desk", &n.to_string()));
    let case = case.find(|id| slot_of(*id).shard(shards) != shard).unwrap();

    world.log.inject(shard, Fault::SlowAck(8 * REFERENCE_WAIT_MAX));
    let slow = tokio::spawn({
        let world = std::sync::Arc::clone(&world);
        async move {
            let path = format!("/api/customer/{customer}");
            world.post(&path, json!({"type": "close"})).await
        }
    });
    while world.events() < 2 {
        tokio::task::yield_now().await;
    }
    let open = json!({"type": "open", "customer": customer, "subject": "leaks", "kind": "incident", "priority": "high", "channel": "phone"});
    let taken = world.post(&format!("/api/case/{case}"), open).await;
    assert_eq!(taken.status, 201, "{}", taken.text);
    assert!(!slow.is_finished(), "it did not wait for the customer's shard");
    assert_eq!(slow.await.unwrap().status, 200);
}
