//! What one client cannot do to the others: take all the room, or be believed to be somebody else.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, Version};
use futures::StreamExt;
use serde_json::json;

use super::world::{Answer, CannedRows, SECRET, World};
use crate::http::answers::{ANSWERS_BYTES_MAX, Answers};
use crate::http::room::{BODIES_BYTES_MAX, Crowded};
use crate::views::LARGE_QUESTIONS_MAX;

const MIB: usize = 1024 * 1024;
const JSON: [(&str, &str); 2] = [("content-type", "application/json"), ("x-crm-peer-secret", SECRET)];

/// A body of which so much comes at once, and then nothing any more.
fn half(bytes: usize) -> Body {
    let came = futures::stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b' '; bytes]))]);
    Body::from_stream(came.chain(futures::stream::pending()))
}

#[tokio::test(start_paused = true)]
async fn bodies_that_stand_still_take_room_for_what_came_and_lose_it_when_others_need_it() {
    let world = World::new().await;
    let send = |body: Body| Box::pin(world.request("POST", "/api/bundle", &JSON, body));
    // Those of which nothing came take nothing, however many they are.
    let mut under_way: Vec<_> = (0..200).map(|_| send(half(0))).collect();
    let fit = BODIES_BYTES_MAX * 3 / 4 / (4 * MIB - 128 * 1024);
    under_way.extend((0..fit).map(|_| send(half(4 * MIB))));
    for request in &mut under_way {
        assert!(futures::poll!(request.as_mut()).is_pending());
    }
    let refused = send(Body::from(vec![b' '; 4 * MIB])).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(refused.text.contains("not-accepted"), "{}", refused.text);
    let small = world.post("/api/bundle", json!({"commands": []})).await;
    assert_eq!(small.status, 400, "a small one finds room: {}", small.text);

    tokio::time::advance(Duration::from_secs(1)).await;
    let taken = send(Body::from(vec![b' '; 4 * MIB])).await;
    assert_eq!(taken.status, 400, "it was read, and is no JSON: {}", taken.text);
    let mut too_slow = 0;
    for request in &mut under_way {
        if let std::task::Poll::Ready(answer) = futures::poll!(request.as_mut()) {
            assert_eq!(answer.status, 408, "{}", answer.text);
            assert!(answer.text.contains("others need the room"), "{}", answer.text);
            too_slow += 1;
        }
    }
    assert_eq!(too_slow, 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_has_a_deadline_on_every_route() {
    let id = "01979e04-0000-8abc-8000-000000000001";
    for path in [
        "/api/bundle".to_owned(),
        "/api/customer".into(),
        format!("/api/customer/{id}"),
        "/internal/shards/0/commands".into(),
        "/internal/shards/0/states".into(),
    ] {
        let world = World::new().await;
        let begun = tokio::time::Instant::now();
        let answer = world.request("POST", &path, &JSON, half(1)).await;
        assert_eq!(answer.status, 408, "{path}: {}", answer.text);
        assert_eq!(begun.elapsed().as_secs(), 30, "{path}");
    }
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_not_waited_for() {
    let world = World::new().await;
    for (method, path, status) in [("GET", "/api/customers", 200), ("POST", "/api/nothing", 404)] {
        let answer = world.request(method, path, &JSON, half(1)).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_nobody_reads_lose_their_room_when_others_need_it() {
    let answers = Answers::default();
    let body = |bytes: usize| {
        let parts = ["one ", "two ", "three"].map(Bytes::from);
        answers.body(bytes, parts.into_iter())
    };
    let large = ANSWERS_BYTES_MAX * 3 / 4 / 3;
    let mut unread: Vec<Body> = (0..3).map(|_| body(large).unwrap()).collect();
    let refused = body(large).unwrap_err();
    assert!(
        format!("{refused:?}").contains("as many bytes as may be held"),
        "{refused:?}"
    );
    drop(body(100_000).expect("a small one finds room"));

    tokio::time::advance(Duration::from_secs(1)).await;
    let newest = body(large).unwrap();
    let oldest = to_bytes(unread.remove(0), usize::MAX).await.unwrap_err();
    assert!(oldest.to_string().contains("others need the room"), "{oldest}");
    for kept in unread.into_iter().chain([newest]) {
        assert_eq!(to_bytes(kept, usize::MAX).await.unwrap(), "one two three");
    }
    // What was read has given its room back.
    (0..3).for_each(|_| drop(body(large).unwrap()));
}

fn asked(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

async fn status(world: &World, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
    let answer: Answer = world.send(asked(method, path, headers)).await;
    let is_told = answer.status < 400 || answer.json()["detail"].as_str().is_some_and(|detail| detail.len() > 20);
    assert!(is_told, "{path} {headers:?}: {}", answer.text);
    answer.status
}

#[tokio::test]
async fn a_request_names_this_server_and_no_other_one() {
    let world = World::new().await;
    for (host, is_ours) in [
        ("localhost:7070", true),
        ("LocalHost:7070", true),
        ("localhost.:7070", true),
        ("localhost", true),
        ("127.0.0.1:7070", true),
        ("127.0.0.9:7070", true),
        ("[::1]:7070", true),
        ("crm.example.com", true),
        ("crm.example.com:8443", true),
        ("localhost:7071", false),
        ("evil.example", false),
        ("evil.example:7070", false),
        ("localhost.evil.example:7070", false),
        ("127.0.0.1.evil.example", false),
        ("0.0.0.0:7070", false),
        ("192.168.1.7:7070", false),
    ] {
        let ours = if is_ours { 200 } else { 403 };
        for path in ["/api/customers", "/api", "/metrics", "/api/openapi.json"] {
            assert_eq!(
                status(&world, "GET", path, &[("host", host)]).await,
                ours,
                "{host} {path}"
            );
        }
        // Probes come by addresses of their own.
        assert_eq!(status(&world, "GET", "/health/live", &[("host", host)]).await, 200);
    }
    for wrong in ["", "user@localhost:7070", "localhost:port", "a b", "localhost:70700"] {
        assert_eq!(
            status(&world, "GET", "/api", &[("host", wrong)]).await,
            400,
            "{wrong:?}"
        );
    }
}

#[tokio::test]
async fn a_request_names_its_host_once() {
    let world = World::new().await;
    let twice = [("host", "localhost:7070"), ("host", "localhost:7070")];
    for path in ["/api", "/health/live"] {
        assert_eq!(status(&world, "GET", path, &[]).await, 400, "{path}");
        assert_eq!(status(&world, "GET", path, &twice).await, 400, "{path}");
    }
    let mut old = asked("GET", "/health/live", &[]);
    *old.version_mut() = Version::HTTP_10;
    assert_eq!(world.send(old).await.status, 200, "an old probe names none");
    let elsewhere = "http://evil.example/api";
    assert_eq!(
        status(&world, "GET", elsewhere, &[("host", "localhost:7070")]).await,
        403
    );
}

#[tokio::test]
async fn a_page_of_another_site_may_neither_change_nor_read() {
    let world = World::new().await;
    for (origin, is_ours) in [
        ("http://localhost:7070", true),
        ("http://127.0.0.1:7070", true),
        ("https://crm.example.com", true),
        ("http://localhost:3000", false),
        ("http://localhost", false),
        ("https://evil.example", false),
        ("http://evil.example:7070", false),
        ("null", false),
        ("file://", false),
        ("chrome-extension://abc", false),
    ] {
        let headers = [("host", "localhost:7070"), ("origin", origin)];
        for (method, path, else_status) in [
            ("GET", "/api/customers", 200),
            ("POST", "/api/customer", 415),
            ("POST", "/api/bundle", 415),
            ("GET", "/metrics", 200),
            ("GET", "/health/live", 200),
        ] {
            let expected = if is_ours { else_status } else { 403 };
            assert_eq!(
                status(&world, method, path, &headers).await,
                expected,
                "{origin} {method} {path}"
            );
        }
    }
    // Behind a proxy the page and the request have one and the same name.
    let proxied = [("host", "localhost"), ("origin", "http://localhost")];
    assert_eq!(status(&world, "GET", "/api", &proxied).await, 200);
    let twice = [
        ("host", "localhost"),
        ("origin", "http://localhost"),
        ("origin", "http://localhost"),
    ];
    assert_eq!(status(&world, "GET", "/api", &twice).await, 400);
    assert_eq!(world.events(), 0);
}

#[tokio::test]
async fn with_every_place_taken_only_the_health_is_told() {
    let world = World::new().await;
    for (path, status) in [
        ("/health/live", 200),
        ("/health/ready", 200),
        ("/api/customers", 503),
        ("/metrics", 503),
    ] {
        let mut request = asked("GET", path, &[("host", "localhost:7070")]);
        request.extensions_mut().insert(Crowded);
        let answer = world.send(request).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_registration_reserves_so_many_keys_and_no_more() {
    let world = World::new().await;
    for (count, status) in [(100, 201), (101, 400)] {
        let external: Vec<_> = (0..count)
            .map(|key| json!({"source": "erp", "key": format!("{count}-{key}")}))
            .collect();
        let command = json!({"type": "register", "kind": "person", "name": "many", "external": external});
        let answer = world.post("/api/customer", command).await;
        assert_eq!(answer.status, status, "{count}: {}", answer.text);
    }
}

#[tokio::test(start_paused = true)]
async fn large_questions_take_turns_and_small_ones_do_not_wait_for_them() {
    let world = World::with(CannedRows {
        is_slow: true,
        ..CannedRows::default()
    })
    .await;
    let large = |path: &'static str| Box::pin(world.get(path));
    let mut at_the_store = [large("/api/customers?limit=10000"), large("/api/rfm")];
    assert_eq!(at_the_store.len(), LARGE_QUESTIONS_MAX);
    for question in &mut at_the_store {
        assert!(futures::poll!(question.as_mut()).is_pending());
    }
    let begun = tokio::time::Instant::now();
    let one_more = large("/api/customers?limit=501").await;
    assert_eq!(
        (one_more.status, begun.elapsed().as_secs()),
        (503, 10),
        "{}",
        one_more.text
    );
    for small in ["/api/customers", "/api/customers?limit=500", "/health/ready"] {
        assert_eq!(world.get(small).await.status, 200, "{small}");
    }
}
