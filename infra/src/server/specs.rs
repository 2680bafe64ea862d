use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;

/// Bounded: a server that does not answer fails the spec.
const PATIENCE: Duration = Duration::from_secs(30);

struct Served {
    address: SocketAddr,
    closing: watch::Sender<bool>,
    ended: tokio::task::JoinHandle<()>,
}

async fn served(connections_max: usize) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let api = Router::new()
        .route("/", get(async || "here"))
        .route("/echo", post(async |body: String| body))
        .route("/never", get(std::future::pending::<&'static str>))
        .route("/large", get(async || "x".repeat(16 * 1024 * 1024)))
        .route(
            "/crowded",
            get(async |request: axum::extract::Request| {
                format!("{:?}", request.extensions().get::<Crowded>().is_some())
            }),
        );
    let (closing, closed) = watch::channel(false);
    let ended = tokio::spawn(serve(listener, api, connections_max, closed));
    Served {
        address,
        closing,
        ended,
    }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn begun(&self, head: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }
}

async fn ask(stream: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: spec\r\n\r\n");
    // What was closed by the server is an answer as well.
    if stream.write_all(request.as_bytes()).await.is_err() {
        return String::new();
    }
    let mut answer = [0; 1_000];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await;
    let length = read.expect("an answer in time").unwrap_or_default();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    read.is_ok()
}

const HALF: &str = "GET / HTTP/1.1\r\nHost: sp";

#[tokio::test]
async fn when_all_places_are_taken_the_one_that_has_kept_the_server_waiting_gives_up_its_own() {
    let served = served(3).await;
    let mut useful = served.connect().await;
    assert!(ask(&mut useful, "/").await.ends_with("here"));
    let mut half = served.begun(HALF).await;
    let mut half_body = served
        .begun("POST /echo HTTP/1.1\r\nHost: spec\r\nContent-Length: 9\r\n\r\nha")
        .await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for _ in 0..2 {
        let mut next = served.connect().await;
        assert!(ask(&mut next, "/crowded").await.ends_with("false"));
        std::mem::forget(next);
    }
    assert!(is_closed(&mut half).await);
    assert!(is_closed(&mut half_body).await);
    assert!(
        ask(&mut useful, "/").await.ends_with("here"),
        "it was idle, and kept its place"
    );
}

#[tokio::test]
async fn who_is_being_answered_keeps_the_place_and_a_newcomer_gets_into_the_reserve() {
    let served = served(2).await;
    let never = "GET /never HTTP/1.1\r\nHost: spec\r\n\r\n";
    let _under_way = [served.begun(never).await, served.begun(never).await];
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for _ in 0..2 * RESERVE_MAX {
        let mut next = served.connect().await;
        let answer = ask(&mut next, "/crowded").await;
        assert!(answer.ends_with("true"), "{answer}");
        // Half a request more that stays in the reserve.
        let half = served.begun(HALF).await;
        std::mem::forget(half);
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_and_an_idle_connection_are_closed_in_time() {
    for (asks, wait) in [(false, Duration::from_secs(10)), (true, Duration::from_secs(120))] {
        let standing = Arc::new(Standing::new());
        let (mut client, server) = tokio::io::duplex(1_000);
        let io = TokioIo::new(Connection::new(server, Arc::clone(&standing)));
        let service = service_fn(move |request: Request<Incoming>| {
            let _request = Watched::request(request.into_body(), Arc::clone(&standing));
            let answer = Watched::answer(Body::from("here"), Arc::clone(&standing));
            async move { Ok::<_, Infallible>(Response::new(answer)) }
        });
        tokio::time::pause();
        let begun = Instant::now();
        let serving = tokio::spawn(
            http1::Builder::new()
                .header_read_timeout(None)
                .serve_connection(io, service),
        );
        if asks {
            client.write_all(b"GET / HTTP/1.1\r\nHost: spec\r\n\r\n").await.unwrap();
        } else {
            // A byte now and then is no request.
            client.write_all(b"G").await.unwrap();
            tokio::time::sleep(Duration::from_secs(9)).await;
            client.write_all(b"E").await.unwrap();
        }
        // A connection that is idle is closed without an error.
        assert_eq!(serving.await.unwrap().is_err(), !asks);
        let took = begun.elapsed();
        assert!((wait..wait + Duration::from_secs(1)).contains(&took), "{took:?}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_one_that_reads_slowly_is_not() {
    for (reads, is_whole) in [(0, false), (1_000, false), (16 * 1024, true)] {
        let standing = Arc::new(Standing::new());
        let (mut client, server) = tokio::io::duplex(1_000);
        tokio::time::pause();
        let mut connection = Connection::new(server, standing);
        let writing = tokio::spawn(async move { connection.write_all(&[7; 500_000]).await });
        let mut some = vec![0; reads];
        for _ in 0..300 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if reads > 0 && client.read_exact(&mut some).await.is_err() {
                break;
            }
        }
        assert_eq!(writing.await.unwrap().is_ok(), is_whole, "{reads} bytes a second");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_stop_waits_for_what_is_under_way_and_not_for_what_is_idle_or_half() {
    let served = served(10).await;
    let mut idle = served.connect().await;
    assert!(ask(&mut idle, "/").await.ends_with("here"));
    let mut under_way = served
        .begun("POST /echo HTTP/1.1\r\nHost: spec\r\nContent-Length: 4\r\n\r\nha")
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    served.closing.send_replace(true);
    assert!(is_closed(&mut idle).await);
    assert!(!served.ended.is_finished());
    under_way.write_all(b"lf").await.unwrap();
    let mut answer = String::new();
    under_way.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("half"), "{answer}");
    tokio::time::timeout(PATIENCE, served.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let served = served(10).await;
    for (bytes, status) in [(60 * 1024, "200"), (200 * 1024, "431")] {
        let filler = "x".repeat(bytes);
        let mut stream = served.connect().await;
        let head = format!("GET / HTTP/1.1\r\nHost: spec\r\nX-Filler: {filler}\r\n\r\n");
        // The server may close before everything is sent.
        stream.write_all(head.as_bytes()).await.unwrap_or_default();
        let mut answer = vec![0; 12];
        let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await;
        read.expect("an answer in time").unwrap();
        assert!(
            answer.ends_with(status.as_bytes()),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
}
