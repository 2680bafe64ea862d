use serde_json::json;

use super::world::{World, made_at_ms, now_ms};

fn register() -> serde_json::Value {
    json!({"type": "register", "kind": "organisation", "name": "宏達精密"})
}

fn open_for(customer: &str) -> serde_json::Value {
    json!({"type": "open", "customer": customer, "name": "五軸加工機 2 台", "amount": {"minor": 500, "currency": "TWD"},
        "close_date": "2026-06-30", "owner": "mei"})
}

#[tokio::test]
async fn a_command_that_begins_a_stream_is_answered_with_where_it_is() {
    let world = World::new().await;
    let answer = world.post("/api/customer", register()).await;
    let done = answer.json();
    let id = done["id"].as_str().unwrap();
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("etag"), Some("\"1\""));
    assert_eq!(answer.header("location"), Some(format!("/api/customer/{id}").as_str()));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(
        (&done["stream"], &done["version"], &done["events"]),
        (&json!("customer"), &json!(1), &json!(1))
    );
    let position = domain::Position::parse(done["position"].as_str().unwrap()).unwrap();
    assert_eq!(
        position.offset + 1,
        super::world::end_of(&world.log, position.shard).await
    );

    let answer = world
        .post(
            &format!("/api/customer/{id}"),
            json!({"type": "assign-owner", "owner": "mei"}),
        )
        .await;
    assert_eq!((answer.status, answer.header("etag")), (200, Some("\"2\"")));
    let present = world.get(&format!("/api/customer/{id}")).await;
    assert_eq!((present.status, present.header("etag")), (200, Some("\"2\"")));
    let present = present.json();
    assert_eq!(
        (&present["version"], &present["state"]["owner"]),
        (&json!(2), &json!("mei"))
    );
}

#[tokio::test]
async fn the_same_command_id_has_one_effect_and_one_answer() {
    let world = World::new().await;
    let id = made_at_ms(now_ms(), 1).to_string();
    let first = world
        .post_with("/api/customer", &[("idempotency-key", &id)], register())
        .await;
    let quoted = format!("\"{id}\"");
    let events = world.events();
    let again = world
        .post_with("/api/customer", &[("idempotency-key", &quoted)], register())
        .await;
    assert_eq!((first.status, &first.text), (201, &again.text));
    assert_eq!((again.status, world.events()), (201, events));
    // The answer names the id under which it is recorded: what was given, within the stream.
    let done = first.json();
    let stream = domain::StreamRef::parse(&format!("customer/{}", done["id"].as_str().unwrap())).unwrap();
    let recorded = domain::command_id_within(id.parse().unwrap(), stream).to_string();
    assert_eq!(done["command_id"], json!(recorded));
    // Whoever keeps that one has the same answer with it.
    let by_recorded = world
        .post_with(
            &format!("/api/customer/{}", stream.id),
            &[("idempotency-key", &recorded)],
            register(),
        )
        .await;
    assert_eq!((by_recorded.status, world.events()), (201, events));
}

#[tokio::test]
async fn a_name_or_a_key_is_the_same_in_whatever_form_a_keyboard_sends_it() {
    let world = World::new().await;
    // A letter and its accent as two characters, as a Mac writes file names, and as one.
    let (two, one) = ("cafe\u{301}", "caf\u{e9}");
    let register = |name: &str| json!({"type": "register", "kind": "organisation", "name": name});
    let first = world.post(&format!("/api/customer/key:erp:{two}"), register(two)).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let again = world.post(&format!("/api/customer/key:erp:{one}"), register(one)).await;
    assert_eq!((again.status, &again.json()["events"]), (200, &json!(0)));
    assert_eq!(again.json()["id"], first.json()["id"]);
    let deal = |key: &str| {
        let mut open = open_for("");
        open["customer"] = json!({"key": ["erp", key]});
        open
    };
    for key in [one, two] {
        let opened = world.post("/api/opportunity", deal(key)).await;
        assert_eq!(opened.status, 201, "{}", opened.text);
    }
    // The same command in the other form has the same content.
    let id = made_at_ms(now_ms(), 2).to_string();
    let rename = |name: &str| json!({"type": "rename", "name": name});
    let path = format!("/api/customer/key:erp:{one}");
    for name in [format!("{two} 2"), format!("{one} 2")] {
        let renamed = world.post_with(&path, &[("idempotency-key", &id)], rename(&name)).await;
        assert_eq!(
            (renamed.status, &renamed.json()["events"]),
            (200, &json!(1)),
            "{}",
            renamed.text
        );
    }
}

#[tokio::test]
async fn a_bundle_is_applied_whole_and_its_retry_has_the_same_answer() {
    let world = World::new().await;
    let bundle = json!({"commands": [
        {"stream": "customer", "command": register()},
        {"stream": "opportunity", "command": {"type": "open", "customer": {"item": 0}, "name": "五軸加工機",
            "close_date": "2026-06-30", "owner": "mei"}, "expected_version": 0},
        {"stream": "customer", "id": {"key": ["erp", "C-99"]}, "command": register()},
    ]});
    let refused = world.post("/api/bundle", bundle.clone()).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(refused.text.contains("one slot"), "{}", refused.text);

    let mut bundle = bundle;
    bundle["commands"].as_array_mut().unwrap().pop();
    let id = made_at_ms(now_ms(), 2).to_string();
    let key = [("idempotency-key", id.as_str())];
    let first = world.post_with("/api/bundle", &key, bundle.clone()).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let done = first.json();
    assert_eq!(
        (&done["events"], &done["streams"][1]["version"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(done["streams"][1]["stream"], json!("opportunity"));
    let again = world.post_with("/api/bundle", &key, bundle.clone()).await;
    assert_eq!(again.text, first.text);

    // A command that finds it so already, beside one that writes.
    let customer = done["streams"][0]["id"].as_str().unwrap();
    let bundle = json!({"commands": [
        {"stream": "customer", "id": customer, "command": {"type": "rename", "name": "宏達精密"}},
        {"stream": "customer", "id": customer, "command": {"type": "rename", "name": "宏達精密工業"}},
        {"stream": "opportunity", "id": done["streams"][1]["id"], "command": {"type": "set-close-date", "close_date": "2026-06-30"}},
    ]});
    let id = made_at_ms(now_ms(), 3).to_string();
    let key = [("idempotency-key", id.as_str())];
    let first = world.post_with("/api/bundle", &key, bundle.clone()).await;
    assert_eq!(first.json()["streams"].as_array().unwrap().len(), 2, "{}", first.text);
    let again = world.post_with("/api/bundle", &key, bundle).await;
    assert_eq!(again.text, first.text);
}

#[tokio::test]
async fn a_thing_of_another_system_is_found_by_its_key() {
    let world = World::new().await;
    let began = world.post("/api/customer/key:erp:C%2F12:a", register()).await;
    assert_eq!(began.status, 201, "{}", began.text);
    let present = world.get("/api/customer/key:erp:C%2F12:a").await.json();
    assert_eq!(present["id"], began.json()["id"]);
    let opened = world
        .post(
            "/api/opportunity",
            json!({"type": "open", "customer": {"key": ["erp", "C/12:a"]}, "name": "五軸加工機",
            "close_date": "2026-06-30", "owner": "mei"}),
        )
        .await;
    assert_eq!(opened.status, 201, "{}", opened.text);
}

#[tokio::test]
async fn an_expected_version_holds_or_the_present_one_is_told() {
    let world = World::new().await;
    let customer = world.begun("/api/customer", register()).await;
    let deal = world.begun("/api/opportunity", open_for(&customer)).await;
    let path = format!("/api/opportunity/{deal}");
    let to = |stage: &str| json!({"type": "change-stage", "to": stage});
    let moved = world.post_with(&path, &[("if-match", "\"1\"")], to("proposal")).await;
    assert_eq!(moved.json()["version"], json!(2));
    let late = world.post_with(&path, &[("if-match", "1")], to("negotiation")).await;
    let problem = late.json();
    assert_eq!(
        (late.status, &problem["current_version"], &problem["expected_version"]),
        (409, &json!(2), &json!(1))
    );
    assert_eq!(late.header("content-type"), Some("application/problem+json"));
    assert_eq!(problem["type"], json!("/api/docs#problem-conflict"));
}

#[tokio::test]
async fn who_and_when_are_recorded() {
    let world = World::new().await;
    let headers = [
        ("x-actor", "integration:erp"),
        ("x-on-behalf-of", "user:mei"),
        ("x-correlation-id", "import-7"),
        ("x-causation-id", "0192.0"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-lane", "imports"),
    ];
    // A plus in a URL is a space.
    let path = "/api/customer?effective_at=2026-03-01T09:00:00+08:00";
    let done = world.post_with(path, &headers, register()).await;
    assert_eq!(done.status, 201, "{}", done.text);
    let position = domain::Position::parse(done.json()["position"].as_str().unwrap()).unwrap();
    let record = &world.log.records(position.shard)[position.offset as usize];
    let header = |name| String::from_utf8(record.header(name).unwrap().to_vec()).unwrap();
    assert_eq!(header("ce_actor"), "integration:erp");
    assert_eq!(header("ce_onbehalfof"), "user:mei");
    assert_eq!(header("ce_correlationid"), "import-7");
    assert_eq!(header("ce_causationid"), "0192.0");
    assert_eq!(header("ce_effectiveat"), "2026-03-01T01:00:00Z");
    assert!(header("traceparent").starts_with("00-4bf9"));
}

#[tokio::test]
async fn a_command_that_was_so_already_writes_nothing() {
    let world = World::new().await;
    let customer = world.begun("/api/customer", register()).await;
    let done = world
        .post(
            &format!("/api/customer/{customer}"),
            json!({"type": "rename", "name": "宏達精密"}),
        )
        .await;
    assert_eq!(
        (done.status, &done.json()["events"], &done.json()["version"]),
        (200, &json!(0), &json!(1))
    );
}

#[tokio::test]
async fn a_failed_append_says_what_is_known_of_the_outcome() {
    let world = World::new().await;
    for shard in 0..super::world::SHARDS {
        world.log.inject(shard, crate::log::Fault::Refuse);
    }
    let refused = world.post("/api/customer", register()).await;
    assert_eq!(refused.status, 507, "{}", refused.text);
    assert!(refused.text.contains("nothing was stored"), "{}", refused.text);
}

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let world = World::new().await;
    let id = world
        .begun(
            "/api/customer",
            json!({"type": "register", "kind": "person", "name": "a"}),
        )
        .await;
    let path = format!("/api/customer/{id}");
    for (known, status) in [
        ("\"1\"", 304),
        ("W/\"1\"", 304),
        ("\"7\", \"1\"", 304),
        ("*", 304),
        ("\"2\"", 200),
        ("1", 200),
    ] {
        let answer = world.request("GET", &path, &[("if-none-match", known)], "").await;
        assert_eq!(
            (answer.status, answer.header("etag")),
            (status, Some("\"1\"")),
            "{known}"
        );
        assert_eq!(answer.text.is_empty(), status == 304, "{known}");
    }
}

#[tokio::test]
async fn a_star_asks_for_a_stream_that_is_begun() {
    let world = World::new().await;
    let id = world
        .begun(
            "/api/customer",
            json!({"type": "register", "kind": "person", "name": "a"}),
        )
        .await;
    let rename = json!({"type": "rename", "name": "b"});
    let star = [("if-match", "*")];
    assert_eq!(
        world
            .post_with(&format!("/api/customer/{id}"), &star, rename.clone())
            .await
            .status,
        200
    );
    let missing = world
        .post_with("/api/customer/key:erp:nobody", &star, rename.clone())
        .await;
    assert_eq!(
        (missing.status, &missing.json()["current_version"]),
        (409, &json!(0)),
        "{}",
        missing.text
    );
    assert_eq!(world.post_with("/api/customer", &star, rename).await.status, 400);
}

/// A clock that runs ahead says "now"; a time that is ahead by more is a mistake, mostly local time that is labelled Z.
#[tokio::test]
async fn nothing_is_true_before_it_is_known() {
    let world = World::new().await;
    let at = |ahead: jiff::SignedDuration| {
        use crate::clock::Clock;
        format!("/api/customer?effective_at={}", crate::clock::SystemClock.now() + ahead)
    };
    let register = |name: &str| json!({"type": "register", "kind": "person", "name": name});
    let mins = jiff::SignedDuration::from_mins;
    for ahead in [mins(6), mins(8 * 60), mins(23 * 60)] {
        let refused = world.post(&at(ahead), register("a")).await;
        assert_eq!(
            (refused.status, &refused.json()["at"]),
            (400, &json!("effective_at")),
            "{}",
            refused.text
        );
    }
    let key = made_at_ms(now_ms(), 1).to_string();
    let (path, key) = (at(mins(4)), [("idempotency-key", key.as_str())]);
    let taken = world.post_with(&path, &key, register("b")).await;
    assert_eq!(taken.status, 201, "{}", taken.text);
    let again = world.post_with(&path, &key, register("b")).await;
    assert_eq!(again.json()["position"], taken.json()["position"], "{}", again.text);
    let records = (0..super::world::SHARDS).flat_map(|shard| world.log.records(shard));
    let events: Vec<_> = records
        .filter(|record| record.header("ce_commitsize").is_some())
        .collect();
    assert_eq!(events.len(), 1);
    // It is true from when it was recorded.
    assert_eq!(events[0].header("ce_effectiveat"), None);
}
