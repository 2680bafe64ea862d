//! One thing has one identity, whatever way it comes in.

use serde_json::{Value, json};

use super::world::{Answer, World, made_at_ms, now_ms};

fn register(name: &str, external: &[(&str, &str)]) -> Value {
    let external: Vec<Value> = external
        .iter()
        .map(|(source, key)| json!({"source": source, "key": key}))
        .collect();
    json!({"type": "register", "kind": "organisation", "name": name, "external": external})
}

fn open_for(customer: Value) -> Value {
    json!({"type": "open", "customer": customer, "name": "lathe", "close_date": "2026-06-30", "owner": "mei"})
}

fn receipt(store: &str, till: &str) -> Value {
    json!({"type": "record", "kind": "sale", "source": "pos", "store": store, "till": till, "receipt": "77",
        "business_date": "2026-11-01", "currency": "TWD", "lines": [{"sku": "A", "quantity": 1, "unit_price": "100"}]})
}

fn mail_to(customer: Value) -> Value {
    json!({"type": "record", "customer": customer, "channel": "email", "direction": "in", "subject": "offer",
        "provider_id": "<msg-1@mail>"})
}

fn id_of(answer: &Answer) -> String {
    answer.json()["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{}", answer.text))
        .to_owned()
}

#[tokio::test]
async fn a_receipt_is_one_purchase_however_it_comes_and_another_id_is_refused_with_its_own() {
    let world = World::new().await;
    let first = world.post("/api/purchase", receipt("S2", "T1")).await;
    let id = id_of(&first);
    let events = world.events();
    let stranger = made_at_ms(now_ms(), 9);
    for other in ["key:pos:77".to_owned(), stranger.to_string()] {
        let refused = world.post(&format!("/api/purchase/{other}"), receipt("S2", "T1")).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
        let problem = refused.json();
        assert_eq!(problem["at"], json!("id"), "{}", refused.text);
        assert!(problem["detail"].as_str().unwrap().contains(&id), "{}", refused.text);
    }
    let same = [
        "/api/purchase".to_owned(),
        format!("/api/purchase/{id}"),
        "/api/purchase/key:pos:S2%2FT1%2F2026-11-01%2F77".to_owned(),
    ];
    for path in same {
        let again = world.post(&path, receipt("S2", "T1")).await;
        assert_eq!((again.status, id_of(&again)), (200, id.clone()), "{}", again.text);
    }
    assert_eq!(world.events(), events);
}

#[tokio::test]
async fn every_stream_whose_identity_is_in_its_command_refuses_another_id() {
    let world = World::new().await;
    let customer = world.begun("/api/customer", register("a", &[])).await;
    let machine =
        json!({"type": "install", "customer": customer, "maker": "M", "serial": "1", "model": "X", "site": "S"});
    let machine_id = world.begun("/api/equipment", machine.clone()).await;
    let begin = [
        ("purchase", receipt("S2", "T1")),
        ("interaction", mail_to(json!(customer))),
        ("equipment", machine),
        (
            "link",
            json!({"type": "link", "source": "erp", "key": "1", "customer": customer}),
        ),
        (
            "loyalty",
            json!({"type": "enrol", "customer": customer, "program": "gold"}),
        ),
        (
            "inspection",
            json!({"type": "schedule", "equipment": machine_id, "due": "2026-12-01", "checklist": "yearly"}),
        ),
    ];
    for (n, (stream, command)) in begin.into_iter().enumerate() {
        let slot = domain::slot_of(machine_id.parse().unwrap());
        let other = domain::derived_in(slot, &["made up", &n.to_string()]);
        let refused = world.post(&format!("/api/{stream}/{other}"), command.clone()).await;
        assert_eq!(
            (refused.status, &refused.json()["at"]),
            (400, &json!("id")),
            "{stream}: {}",
            refused.text
        );
        let answer = world.post(&format!("/api/{stream}"), command).await;
        assert!([200, 201].contains(&answer.status), "{stream}: {}", answer.text);
        assert!(refused.text.contains(&id_of(&answer)), "{stream}: {}", refused.text);
    }
}

#[tokio::test]
async fn two_tills_whose_names_hold_a_slash_have_two_receipts() {
    let world = World::new().await;
    let one = world.begun("/api/purchase", receipt("A/B", "C")).await;
    let other = world.begun("/api/purchase", receipt("A", "B/C")).await;
    assert_ne!(one, other);
}

#[tokio::test]
async fn one_mail_to_many_customers_is_as_many_interactions() {
    let world = World::new().await;
    // More than there are slots for chance to keep them apart: these two share one.
    let slot = domain::Slot::new(5);
    let mut seen = std::collections::BTreeSet::new();
    for name in ["a", "b", "c"] {
        let customer = domain::derived_in(slot, &[name]).to_string();
        let path = format!("/api/customer/{customer}");
        assert_eq!(world.post(&path, register(name, &[])).await.status, 201);
        let mail = world.begun("/api/interaction", mail_to(json!(customer))).await;
        let again = world.post("/api/interaction", mail_to(json!(customer))).await;
        assert_eq!((again.status, id_of(&again)), (200, mail.clone()));
        seen.insert(mail);
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn a_refused_registration_leaves_its_keys_free() {
    let world = World::new().await;
    let keys = [("pos", "77"), ("erp", "J1")];
    let events = world.events();
    let refused = world.post("/api/customer", register(" ", &keys)).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert_eq!(world.events(), events);
    // One of a bundle, whose other command is refused.
    let bundle = json!({"commands": [
        {"stream": "customer", "command": register("a", &keys)},
        {"stream": "opportunity", "command": {"type": "open", "customer": {"item": 0}, "name": " ", "close_date": "2026-06-30", "owner": "mei"}},
    ]});
    let refused = world.post("/api/bundle", bundle).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert_eq!(world.events(), events);
    // One whose second key is another's.
    world.begun("/api/customer/key:erp:J1", register("first", &[])).await;
    let events = world.events();
    let refused = world.post("/api/customer", register("second", &keys)).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert!(
        refused.text.contains("erp key J1 already belongs to customer"),
        "{}",
        refused.text
    );
    assert_eq!(world.events(), events);
    let free = world.post("/api/customer", register("third", &keys[..1])).await;
    assert_eq!(free.status, 201, "{}", free.text);
    assert_eq!(
        world.get("/api/customer/key:pos:77").await.json()["id"],
        free.json()["id"]
    );
}

#[tokio::test]
async fn a_key_agrees_with_the_customer_that_was_made_at_it_in_both_orders() {
    let world = World::new().await;
    let first = world.begun("/api/customer/key:erp:J1", register("first", &[])).await;
    let refused = world.post("/api/customer", register("second", &[("erp", "J1")])).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert!(
        refused
            .text
            .contains(&format!("erp key J1 already belongs to customer {first}")),
        "{}",
        refused.text
    );
    let link = json!({"type": "link", "source": "erp", "key": "J1", "customer": made_at_ms(now_ms(), 3).to_string()});
    assert_eq!(world.post("/api/link", link).await.status, 422);
    assert_eq!(world.get("/api/customer/key:erp:J1").await.json()["id"], json!(first));

    let linked = world.begun("/api/customer", register("third", &[("erp", "J2")])).await;
    let refused = world.post("/api/customer/key:erp:J2", register("fourth", &[])).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    let again = world.post("/api/customer/key:erp:J2", register("third", &[])).await;
    assert_eq!((again.status, id_of(&again)), (200, linked.clone()));
    // Nor at the id that the key would give.
    let derived = domain::id_from_key("customer", "erp", "J2");
    let refused = world
        .post(&format!("/api/customer/{derived}"), register("fifth", &[("erp", "J2")]))
        .await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert_eq!(world.get("/api/customer/key:erp:J2").await.json()["id"], json!(linked));
}

#[tokio::test]
async fn a_key_that_was_reserved_for_a_customer_who_never_came_is_taken_over() {
    let world = World::new().await;
    let nobody = made_at_ms(now_ms(), 3).to_string();
    let link = |key: &str| json!({"type": "link", "source": "pos", "key": key, "customer": nobody});
    // Long ago, and just now: the latter registration may be under way.
    let long_ago = world
        .post("/api/link?effective_at=2026-01-01T00:00:00Z", link("1"))
        .await;
    assert_eq!(long_ago.status, 201, "{}", long_ago.text);
    assert_eq!(world.post("/api/link", link("2")).await.status, 201);
    let heir = world.begun("/api/customer", register("heir", &[("pos", "1")])).await;
    assert_eq!(world.get("/api/customer/key:pos:1").await.json()["id"], json!(heir));
    let waits = world.post("/api/customer", register("heir", &[("pos", "2")])).await;
    assert_eq!(waits.status, 503, "{}", waits.text);
    // It comes after all.
    let path = format!("/api/customer/{nobody}");
    assert_eq!(world.post(&path, register("late", &[("pos", "2")])).await.status, 201);
    let refused = world.post("/api/customer", register("heir", &[("pos", "2")])).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
}

#[tokio::test]
async fn a_key_is_unique_within_the_stream_that_it_addresses_and_event_ids_are_unique_in_any_case() {
    let world = World::new().await;
    for key in [
        made_at_ms(now_ms(), 5).to_string(),
        "order 4711".into(),
        "7b8b7b4e-5f0e-4c8e-9d2a-0d6c0e5e7a11".into(),
    ] {
        let header = [("idempotency-key", key.as_str())];
        let mut deals = std::collections::BTreeSet::new();
        for n in 0..8 {
            let customer = world.begun("/api/customer", register(&n.to_string(), &[])).await;
            let deal = world
                .post_with("/api/opportunity", &header, open_for(json!(customer)))
                .await;
            assert_eq!(deal.status, 201, "{key}: {}", deal.text);
            let again = world
                .post_with("/api/opportunity", &header, open_for(json!(customer)))
                .await;
            assert_eq!(again.text, deal.text);
            let path = format!("/api/opportunity/{}", id_of(&deal));
            let moved = world
                .post_with(&path, &header, json!({"type": "change-stage", "to": "proposal"}))
                .await;
            assert_eq!(
                moved.status, 422,
                "{key}: another command for the same stream: {}",
                moved.text
            );
            deals.insert(id_of(&deal));
        }
        assert_eq!(deals.len(), 8);
    }
    let mut ids = std::collections::BTreeSet::new();
    for shard in 0..super::world::SHARDS {
        for record in world.log.records(shard) {
            if record.header("ce_commitsize").is_some() {
                let id = String::from_utf8(record.header("ce_id").unwrap().to_vec()).unwrap();
                assert!(ids.insert(id.clone()), "{id} is there twice");
            }
        }
    }
}

#[tokio::test]
async fn a_retry_after_its_key_was_linked_anew_has_the_first_answer() {
    let world = World::new().await;
    let a = world.begun("/api/customer", register("a", &[("erp", "1")])).await;
    let b = world.begun("/api/customer", register("b", &[])).await;
    let command = made_at_ms(now_ms(), 6).to_string();
    let header = [("idempotency-key", command.as_str())];
    let by_key = || open_for(json!({"key": ["erp", "1"]}));
    let first = world.post_with("/api/opportunity", &header, by_key()).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let renamed = made_at_ms(now_ms(), 7).to_string();
    let rename = || json!({"type": "rename", "name": "a & co"});
    let renaming = [("idempotency-key", renamed.as_str())];
    let was_renamed = world.post_with("/api/customer/key:erp:1", &renaming, rename()).await;
    assert_eq!(id_of(&was_renamed), a);

    let link = domain::link::link_id("erp", "1");
    assert_eq!(
        world
            .post(&format!("/api/link/{link}"), json!({"type": "unlink"}))
            .await
            .status,
        200
    );
    let to_b = json!({"type": "link", "source": "erp", "key": "1", "customer": b});
    assert_eq!(world.post("/api/link", to_b).await.status, 200);
    let events = world.events();
    let again = world.post_with("/api/opportunity", &header, by_key()).await;
    assert_eq!((again.status, &again.text), (201, &first.text));
    let again = world.post_with("/api/customer/key:erp:1", &renaming, rename()).await;
    assert_eq!(again.text, was_renamed.text);
    assert_eq!(world.events(), events);
    // Another command finds the new owner.
    let other = world.post("/api/customer/key:erp:1", rename()).await;
    assert_eq!(id_of(&other), b);
}

#[tokio::test]
async fn a_registration_that_comes_again_after_its_customer_changed_has_the_first_answer() {
    let world = World::new().await;
    let command = made_at_ms(now_ms(), 8).to_string();
    let header = [("idempotency-key", command.as_str())];
    let body = || register("before", &[("erp", "9")]);
    let first = world.post_with("/api/customer", &header, body()).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let path = format!("/api/customer/{}", id_of(&first));
    assert_eq!(
        world
            .post(&path, json!({"type": "rename", "name": "after"}))
            .await
            .status,
        200
    );
    let again = world.post_with("/api/customer", &header, body()).await;
    assert_eq!((again.status, &again.text), (201, &first.text));
}

#[tokio::test]
async fn what_another_system_calls_a_thing_stands_on_the_event_that_begins_it() {
    let world = World::new().await;
    let recorded = |answer: &Answer| {
        let position = domain::Position::parse(answer.json()["position"].as_str().unwrap()).unwrap();
        let record = &world.log.records(position.shard)[position.offset as usize];
        let key = record.header("ce_externalkey");
        key.map(|key| String::from_utf8(key.to_vec()).unwrap())
    };
    let customer = world.post("/api/customer/key:erp:C-12", register("a", &[])).await;
    assert_eq!(recorded(&customer).as_deref(), Some(r#"["erp","C-12"]"#));
    let case = json!({"type": "open", "customer": {"key": ["erp", "C-12"]}, "subject": "noise", "kind": "incident",
        "priority": "high", "channel": "phone"});
    let opened = world.post("/api/case/key:desk:INC%3A1", case.clone()).await;
    assert_eq!(
        recorded(&opened).as_deref(),
        Some(r#"["desk","INC:1"]"#),
        "{}",
        opened.text
    );
    let note = json!({"type": "reply", "author": "agent", "public": false});
    let replied = world.post("/api/case/key:desk:INC%3A1", note).await;
    assert_eq!(replied.json()["version"], 2, "{}", replied.text);
    let address = world.post("/api/case/key:mail:ming@example.com", case.clone()).await;
    let by_id = domain::id_from_key("case", "desk", "INC0002");
    let by_id = world.post(&format!("/api/case/{by_id}"), case).await;
    // Its number is in the event itself.
    let receipt = receipt("", "");
    let receipt = world
        .post("/api/purchase/key:pos:77", without(receipt, &["store", "till"]))
        .await;
    for answer in [replied, address, by_id, receipt] {
        assert!([200, 201].contains(&answer.status), "{}", answer.text);
        assert_eq!(recorded(&answer), None, "{}", answer.text);
    }
}

fn without(mut command: Value, fields: &[&str]) -> Value {
    let object = command.as_object_mut().unwrap();
    object.retain(|name, _| !fields.contains(&name.as_str()));
    command
}
