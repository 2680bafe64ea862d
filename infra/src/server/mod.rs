//! The HTTP server: it accepts connections, bounds their number and their waits, and stops in good order.
//!
//! A client that sends a half request, or reads no answer, costs one place among [`CONNECTIONS_MAX`] for a bounded time. When all
//! places are taken, the connection that has made its server wait for longest gives up its place. When all of them are busy, a
//! newcomer gets a place in a small reserve, where only `/health/…` is answered.

mod connection;
mod places;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use services::http::Crowded;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use connection::{Connection, Standing, Watched};
use places::{Place, Places};

/// HTTP connections of one process at most, idle ones included.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Connections beyond them, which get answers of `/health/…` only.
const RESERVE_MAX: usize = 64;
/// Bytes of a request's head, and of an answer that waits in this process for its connection.
const HEAD_BYTES_MAX: usize = 96 * 1024;
/// Bytes of answers that the system keeps for a connection. Without this bound it keeps some megabytes.
const SEND_BUFFER: usize = 256 * 1024;
/// A client that is silent for so long is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long no connection is accepted after the system refused one.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);
/// Files that this process opens besides HTTP connections.
const OTHER_FILES: usize = 512;

/// Serves `api` until `closing` turns true. Then it accepts nobody, and ends when all requests under way are answered.
pub async fn serve(listener: TcpListener, api: Router, connections_max: usize, mut closing: watch::Receiver<bool>) {
    if let Err(error) = SockRef::from(&listener).set_send_buffer_size(SEND_BUFFER) {
        tracing::warn!("the system's buffers for answers have no bound: {error}");
    }
    let (places, reserve) = (Places::new(connections_max), Places::reserve(RESERVE_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        let (stream, _) = match accepted {
            Ok(accepted) => accepted,
            // The client has gone again.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                tracing::warn!("no connection can be accepted: {error}");
                places.free_one();
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        let standing = Arc::new(Standing::new());
        let (place, is_crowded) = match places.take(&standing) {
            Some(place) => (place, false),
            None => match reserve.take(&standing) {
                Some(place) => (place, true),
                None => continue,
            },
        };
        let closing = closing.clone();
        connections.spawn(serve_one(stream, standing, place, is_crowded, api.clone(), closing));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves one connection to its end.
async fn serve_one(
    stream: TcpStream,
    standing: Arc<Standing>,
    _place: Place,
    is_crowded: bool,
    api: Router,
    mut closing: watch::Receiver<bool>,
) {
    if let Err(error) = prepare(&stream) {
        tracing::debug!("the connection is gone: {error}");
        return;
    }
    let io = TokioIo::new(Connection::new(stream, Arc::clone(&standing)));
    let api = TowerToHyperService::new(api);
    let of_requests = Arc::clone(&standing);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(|body| Body::new(Watched::request(body, Arc::clone(&of_requests))));
        if is_crowded {
            request.extensions_mut().insert(Crowded);
        }
        let (answer, of_answer) = (api.call(request), Arc::clone(&of_requests));
        async move {
            let response: Response<Body> = answer.await?;
            Ok::<_, Infallible>(response.map(|body| Watched::answer(body, of_answer)))
        }
    });
    let served = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(!is_crowded)
        // The connection itself has deadlines, for heads and for everything else.
        .header_read_timeout(None)
        .serve_connection(io, service);
    let mut served = std::pin::pin!(served);
    let mut is_closing = false;
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!("a connection ended: {error}");
                }
                return;
            }
            // Dropped with what it was about: no request on it had been begun.
            () = standing.cut() => return,
            _ = closing.wait_for(|closing| *closing), if !is_closing => {
                if standing.is_new() {
                    return;
                }
                served.as_mut().graceful_shutdown();
                is_closing = true;
            }
        }
    }
}

/// Answers leave at once, and a client that has vanished is found out.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// How many connections the system lets this process have. The soft limit of open files is raised to the hard one.
pub fn connections_allowed() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let allowed = files.saturating_sub(OTHER_FILES).clamp(RESERVE_MAX, CONNECTIONS_MAX);
    if allowed < CONNECTIONS_MAX {
        tracing::warn!("only {allowed} HTTP connections: this process may open {files} files (ulimit -n)");
    }
    allowed
}

#[cfg(test)]
mod specs;
