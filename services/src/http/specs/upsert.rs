//! "Update or create": a command that begins a stream changes one that is begun, if its sender says so.

use serde_json::{Value, json};

use super::world::World;

const CUSTOMER: &str = "/api/customer/key:erp:C-1";
const DEAL: &str = "/api/opportunity/key:erp:4711";

fn register(name: &str) -> Value {
    json!({"type": "register", "kind": "organisation", "name": name})
}

fn open(amount: i64, owner: &str) -> Value {
    json!({"type": "open", "customer": {"key": ["erp", "C-1"]}, "name": "lathe", "amount": {"minor": amount, "currency": "TWD"},
        "close_date": "2026-12-31", "owner": owner, "source": "fair"})
}

fn updating(path: &str) -> String {
    format!("{path}?upsert=true")
}

/// A customer and a deal.
async fn world() -> World {
    let world = World::new().await;
    for (path, command) in [(CUSTOMER, register("Chen")), (DEAL, open(100, "mei"))] {
        let created = world.post(&updating(path), command).await;
        assert_eq!(
            (created.status, &created.json()["events"]),
            (201, &json!(1)),
            "{}",
            created.text
        );
    }
    world
}

async fn state_of(world: &World, path: &str) -> Value {
    world.get(path).await.json()["state"].clone()
}

#[tokio::test]
async fn what_is_there_with_other_data_is_refused_or_changed_if_its_sender_says_so() {
    let world = world().await;
    for path in [DEAL.to_owned(), format!("{DEAL}?upsert=false")] {
        let refused = world.post(&path, open(200, "jun")).await;
        assert_eq!(refused.status, 422, "{}", refused.text);
        assert!(refused.text.contains("amount, owner"), "{}", refused.text);
    }
    let changed = world.post(&updating(DEAL), open(200, "jun")).await;
    let done = changed.json();
    assert_eq!(
        (changed.status, &done["events"], &done["version"]),
        (200, &json!(2), &json!(3)),
        "{done}"
    );
    let deal = state_of(&world, DEAL).await;
    assert_eq!((&deal["amount"]["minor"], &deal["owner"]), (&json!(200), &json!("jun")));
    let again = world.post(&updating(DEAL), open(200, "jun")).await;
    assert_eq!(
        (again.status, &again.json()["events"]),
        (200, &json!(0)),
        "{}",
        again.text
    );
}

#[tokio::test]
async fn an_update_is_applied_whole_or_not_at_all() {
    let world = world().await;
    let events = world.events();
    let mut other = open(200, "jun");
    other["source"] = json!("web");
    let refused = world.post(&updating(DEAL), other).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert!(refused.text.contains("different data: source"), "{}", refused.text);
    // A won deal may be renamed, and its amount stands.
    assert_eq!(world.post(DEAL, json!({"type": "win"})).await.status, 200);
    let mut other = open(200, "mei");
    other["name"] = json!("lathes");
    let refused = world.post(&updating(DEAL), other).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert!(refused.text.contains("already won"), "{}", refused.text);
    assert_eq!(
        (world.events(), &state_of(&world, DEAL).await["name"]),
        (events + 1, &json!("lathe"))
    );
}

#[tokio::test]
async fn a_retry_has_the_answer_of_the_first_time_whatever_happened_since() {
    let world = world().await;
    let key = [("idempotency-key", "update 1")];
    let first = world.post_with(&updating(DEAL), &key, open(200, "jun")).await;
    assert_eq!(first.json()["events"], 2, "{}", first.text);
    world.post(DEAL, json!({"type": "assign-owner", "owner": "wu"})).await;
    let events = world.events();
    let again = world.post_with(&updating(DEAL), &key, open(200, "jun")).await;
    assert_eq!((again.status, &again.text), (200, &first.text));
    // With other data it is another command, and so it is without the word.
    let reused = world.post_with(&updating(DEAL), &key, open(300, "jun")).await;
    assert_eq!(reused.status, 422, "{}", reused.text);
    assert!(reused.text.contains("used before"), "{}", reused.text);
    assert_eq!(world.post_with(DEAL, &key, open(200, "jun")).await.status, 422);
    assert_eq!(
        (world.events(), &state_of(&world, DEAL).await["owner"]),
        (events, &json!("wu"))
    );
}

#[tokio::test]
async fn an_expected_version_holds_for_an_update_too() {
    let world = world().await;
    let late = world
        .post_with(&updating(DEAL), &[("if-match", "\"7\"")], open(200, "mei"))
        .await;
    assert_eq!(
        (late.status, &late.json()["current_version"]),
        (409, &json!(1)),
        "{}",
        late.text
    );
    let taken = world
        .post_with(&updating(DEAL), &[("if-match", "\"1\"")], open(200, "mei"))
        .await;
    assert_eq!(taken.json()["version"], 2, "{}", taken.text);
}

#[tokio::test]
async fn a_late_update_changes_what_was_so_then() {
    let world = World::new().await;
    let at = |day: u32| format!("effective_at=2026-11-{day:02}T09:00:00Z");
    world.post(&format!("{CUSTOMER}?{}", at(1)), register("Chen")).await;
    world.post(&format!("{DEAL}?{}", at(2)), open(100, "mei")).await;
    let set = json!({"type": "set-amount", "amount": {"minor": 300, "currency": "TWD"}});
    world.post(&format!("{DEAL}?{}", at(9)), set).await;
    for events in [1, 0] {
        let late = world
            .post(&format!("{DEAL}?upsert=true&{}", at(5)), open(200, "mei"))
            .await;
        assert_eq!(late.json()["events"], events, "{}", late.text);
        assert_eq!(state_of(&world, DEAL).await["amount"]["minor"], 300);
    }
}

#[tokio::test]
async fn a_bundle_updates_what_is_there_and_begins_the_rest_or_nothing() {
    let world = world().await;
    let bundle = |name: &str, source: &str| {
        let mut deal = open(200, "mei");
        deal["source"] = json!(source);
        json!({"commands": [
            {"stream": "opportunity", "id": {"key": ["erp", "4711"]}, "command": deal},
            {"stream": "case", "id": {"key": ["erp", "4711"]}, "command": {"type": "open", "customer": {"key": ["erp", "C-1"]},
                "subject": name, "kind": "request", "priority": "low", "channel": "phone"}},
        ]})
    };
    let events = world.events();
    let refused = world.post("/api/bundle?upsert=true", bundle("leaks", "web")).await;
    assert_eq!((refused.status, world.events()), (422, events), "{}", refused.text);
    for written in [2, 0] {
        let done = world.post("/api/bundle?upsert=true", bundle("leaks", "fair")).await;
        assert_eq!(
            (done.status, &done.json()["events"]),
            (200, &json!(written)),
            "{}",
            done.text
        );
    }
}

#[tokio::test]
async fn a_deal_moves_to_another_customer_as_by_the_command_for_it() {
    let world = world().await;
    let to = |key: &str| {
        let mut command = open(100, "mei");
        command["customer"] = json!({"key": ["erp", key]});
        command
    };
    let strict = [("prefer", "handling=strict")];
    for n in 2..8 {
        let (path, key) = (format!("/api/customer/key:erp:C-{n}"), format!("C-{n}"));
        let refused = world.post_with(&updating(DEAL), &strict, to(&key)).await;
        assert_eq!(refused.status, 422, "{}", refused.text);
        assert!(refused.text.contains("there is no customer"), "{}", refused.text);
        let customer = world.begun(&path, register("Lin")).await;
        let moved = world.post_with(&updating(DEAL), &strict, to(&key)).await;
        assert_eq!(
            (moved.status, &moved.json()["events"]),
            (200, &json!(1)),
            "{}",
            moved.text
        );
        assert_eq!(state_of(&world, DEAL).await["customer"], json!(customer));
        world.post(&path, json!({"type": "close"})).await;
    }
    let refused = world.post(&updating(DEAL), to("C-2")).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert!(refused.text.contains("is closed"), "{}", refused.text);
}

#[tokio::test]
async fn a_customer_keeps_the_keys_that_it_was_registered_with() {
    let world = World::new().await;
    let register = |name: &str, keys: &[&str]| {
        let external: Vec<Value> = keys.iter().map(|key| json!({"source": "shop", "key": key})).collect();
        json!({"type": "register", "kind": "organisation", "name": name, "external": external})
    };
    world.begun(CUSTOMER, register("Chen", &["1"])).await;
    // A further key is not its own affair, and is not reserved.
    let refused = world.post(&updating(CUSTOMER), register("Chen", &["1", "2"])).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert!(
        refused.text.contains("external") && refused.text.contains("link"),
        "{}",
        refused.text
    );
    let other = world.begun("/api/customer", register("Lin", &["2"])).await;
    // A key that was given to somebody else since stays there.
    world.post("/api/link/key:shop:1", json!({"type": "unlink"})).await;
    world
        .post(
            "/api/link",
            json!({"type": "link", "source": "shop", "key": "1", "customer": other}),
        )
        .await;
    let renamed = world.post(&updating(CUSTOMER), register("Chen & Co.", &["1"])).await;
    assert_eq!(
        (renamed.status, &renamed.json()["events"]),
        (200, &json!(1)),
        "{}",
        renamed.text
    );
    assert_eq!(state_of(&world, "/api/link/key:shop:1").await["customer"], json!(other));
}

#[tokio::test]
async fn a_key_is_linked_to_another_customer_by_who_says_so_and_not_by_a_registration() {
    let world = World::new().await;
    let (chen, lin) = (
        world.begun("/api/customer", register("Chen")).await,
        world.begun("/api/customer", register("Lin")).await,
    );
    let link = |customer: &str| json!({"type": "link", "source": "erp", "key": "C-1", "customer": customer});
    world.begun("/api/link", link(&chen)).await;
    let refused = world.post("/api/link", link(&lin)).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    let moved = world.post("/api/link?upsert=true", link(&lin)).await;
    assert_eq!(
        (moved.status, &moved.json()["events"]),
        (200, &json!(2)),
        "{}",
        moved.text
    );
    // The key means Lin now, and so does a registration under it.
    let renamed = world.post(&updating(CUSTOMER), register("Lin & Co.")).await;
    assert_eq!(renamed.json()["id"], json!(lin), "{}", renamed.text);
    let own = domain::id_from_key("customer", "erp", "C-1");
    let path = format!("/api/customer/{own}?upsert=true");
    let keyed =
        json!({"type": "register", "kind": "person", "name": "n", "external": [{"source": "erp", "key": "C-1"}]});
    let refused = world.post(&path, keyed).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert!(refused.text.contains("belongs to customer"), "{}", refused.text);
}

#[tokio::test]
async fn the_parameter_is_true_or_false_and_given_once() {
    let world = world().await;
    for query in ["upsert=yes", "upsert=", "upsert=true&upsert=true"] {
        let refused = world.post(&format!("{DEAL}?{query}"), open(200, "mei")).await;
        assert_eq!(
            (refused.status, &refused.json()["at"]),
            (400, &json!("upsert")),
            "{}",
            refused.text
        );
    }
}
