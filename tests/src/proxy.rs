//! A TCP proxy that misbehaves as networks do: it delays, cuts connections in the middle of a message, or keeps them open and swallows
//! everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::port::free_port;

const CHUNK: usize = 16 * 1024;
/// How long it may take until the byte comes at which a connection is cut.
const CUT_MAX: Duration = Duration::from_secs(60);

/// What happens to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Good,
    /// Each piece, in either direction, is held back so long.
    Slow(Duration),
    /// Connections stay open, new ones are taken, and nothing gets through: as when a machine in between is gone.
    HalfOpen,
    /// What the server answers is lost, and the connections go on: as with a server that forgets whom it owes an answer.
    Unanswered,
}

/// A proxy in front of one address; it ends with its runtime.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    line: watch::Sender<Line>,
}

struct State {
    /// Bytes until the next cut; negative = none is due.
    until_cut: AtomicI64,
    cuts: AtomicU64,
    connections: AtomicU64,
    /// Rings when every connection is to be cut.
    cut_all: watch::Sender<u64>,
}

impl Proxy {
    /// Listens on a free port and hands everything on to `target`.
    pub async fn start(target: &str) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", free_port())).await.expect("a port");
        Proxy::with(listener, target.to_owned())
    }

    /// The same on a port of one's choice, for a server that must know it beforehand.
    pub async fn start_on(port: u16, target: &str) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        Proxy::with(listener, target.to_owned())
    }

    fn with(listener: TcpListener, target: String) -> Proxy {
        let address = listener.local_addr().expect("it listens");
        let state = Arc::new(State {
            until_cut: AtomicI64::new(-1),
            cuts: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            cut_all: watch::channel(0).0,
        });
        let line = watch::channel(Line::Good).0;
        let (shared, lines) = (Arc::clone(&state), line.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(client, target.clone(), Arc::clone(&shared), lines.clone()));
            }
        });
        Proxy { address, state, line }
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// Cuts the connection that carries the byte with this number from now on, right there, and all others with it; and waits until that
    /// has come.
    pub async fn cut(&self, after_bytes: i64) {
        let goal = self.cuts() + 1;
        self.state.until_cut.store(after_bytes, Ordering::SeqCst);
        let deadline = Instant::now() + CUT_MAX;
        while self.cuts() < goal {
            assert!(
                Instant::now() < deadline,
                "the cut after {after_bytes} bytes did not come"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many times connections were cut.
    pub fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// How many connections were made.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }
}

async fn serve(client: TcpStream, target: String, state: Arc<State>, line: watch::Sender<Line>) {
    let mut cut = state.cut_all.subscribe();
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    // Small messages go out as they come, or every answer would wait for the next packet.
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = carry(Way::Asking, from_client, to_server, &state, line.subscribe()) => {}
        () = carry(Way::Answering, from_server, to_client, &state, line.subscribe()) => {}
        _ = cut.changed() => {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Asking,
    Answering,
}

async fn carry(
    way: Way,
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    state: &State,
    mut line: watch::Receiver<Line>,
) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let Ok(count @ 1..) = from.read(&mut chunk).await else {
            return;
        };
        let now = *line.borrow_and_update();
        match now {
            Line::Good => {}
            Line::Unanswered if way == Way::Answering => continue,
            Line::Unanswered => {}
            Line::Slow(by) => tokio::time::sleep(by).await,
            Line::HalfOpen => {
                // What came in between is lost, as in a router that was switched off; the connection cannot go on after it.
                while *line.borrow() == Line::HalfOpen {
                    if line.changed().await.is_err() {
                        return;
                    }
                }
                return;
            }
        }
        let before = state.until_cut.fetch_sub(count as i64, Ordering::SeqCst);
        if (0..count as i64).contains(&before) {
            // In the middle of whatever this is: its first half still arrives.
            let _first_half = to.write_all(&chunk[..before as usize]).await;
            state.cuts.fetch_add(1, Ordering::SeqCst);
            state.cut_all.send_modify(|cuts| *cuts += 1);
            return;
        }
        if to.write_all(&chunk[..count]).await.is_err() {
            return;
        }
    }
}
