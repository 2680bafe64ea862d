//! What the API reads, and what it quotes, has an end.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, Bytes};
use projections::Group;

use super::world::{CannedRows, SECRET, World};
use crate::http::status::LOOK_WAIT_MAX;

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn a_question_names_so_many_positions_and_no_more() {
    let world = World::new().await;
    for (positions, status) in [(4_096, 200), (4_097, 400)] {
        let at_least = vec!["0:0"; positions].join(",");
        let answer = world.get(&format!("/api/customers?at_least={at_least}")).await;
        assert_eq!(answer.status, status, "{positions}: {}", answer.text);
    }
}

#[tokio::test]
async fn what_was_sent_is_quoted_up_to_a_length_and_no_further() {
    let world = World::new().await;
    let answer = world
        .get(&format!("/api/customers?{}=red", "colour".repeat(1_000)))
        .await;
    let problem = answer.json();
    let detail = problem["detail"].as_str().unwrap();
    assert_eq!((answer.status, detail.len()), (400, 600 + '…'.len_utf8()), "{detail}");
    assert!(detail.ends_with('…'), "{detail}");
}

/// Of a body that is too large so much is read and thrown away that a usual client gets its answer, and not a broken connection.
#[tokio::test]
async fn a_body_that_is_too_large_is_read_to_its_end_or_to_a_bound() {
    for (sent, read) in [(30, 30), (100, 33)] {
        let world = World::new().await;
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let parts = (0..sent).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(Bytes::from(vec![b' '; MIB]))
        });
        let body = Body::from_stream(futures::stream::iter(parts));
        let headers = [("content-type", "application/json")];
        let answer = world.request("POST", "/api/customer", &headers, body).await;
        assert_eq!(answer.status, 413, "{}", answer.text);
        assert_eq!(taken.load(Ordering::Relaxed), read, "of {sent} MiB");
        assert_eq!(world.events(), 0);
    }
}

#[tokio::test]
async fn what_another_process_sends_is_bounded_too() {
    let world = World::new().await;
    for (bytes, status) in [(12 * MIB, 400), (12 * MIB + 1, 413)] {
        let headers = [("content-type", "application/json"), ("x-crm-peer-secret", SECRET)];
        let body = Body::from(" ".repeat(bytes));
        let answer = world
            .request("POST", "/internal/shards/0/commands", &headers, body)
            .await;
        assert_eq!(answer.status, status, "{bytes} bytes: {}", answer.text);
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_waits_so_long_for_a_store_that_does_not_answer_and_says_so() {
    let world = World::with(CannedRows {
        hangs: true,
        ..CannedRows::default()
    })
    .await;
    let groups = Group::ALL.into_iter().filter(|group| group.models().next().is_some());
    let at_most = LOOK_WAIT_MAX * groups.count() as u32;
    for (path, status) in [("/api/status", 200), ("/health/ready", 503)] {
        let asked = tokio::time::Instant::now();
        let answer = world.get(path).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        assert!(answer.text.contains("did not answer in time"), "{}", answer.text);
        let waited = asked.elapsed();
        assert!(
            (LOOK_WAIT_MAX..=at_most + LOOK_WAIT_MAX).contains(&waited),
            "{waited:?}"
        );
    }
}
