//! One connection: what it is about, and how long it may take over each part of it.

use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::body::HttpBody;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long the head of a request may take, from its first byte, or from the connection's beginning.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a connection may be idle between two requests. Longer than the 90 s that clients keep theirs, so that none sends a
/// request into a connection that is being closed.
const IDLE_WAIT_MAX: Duration = Duration::from_secs(120);
/// A client that takes less than [`WRITE_STEP`] of an answer in this time is cut off.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(20);
const WRITE_STEP: usize = 64 * 1024;
/// An answer that stands still for so long counts as waiting for its client.
const WRITE_STALLED: Duration = Duration::from_secs(2);

/// What a connection is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has come yet.
    New,
    /// A head has begun to come.
    Head,
    /// A body is coming.
    Body,
    /// A request is being answered.
    Answering,
    /// All requests are answered.
    Idle,
}

/// How a connection stands, for those who look for one to end.
pub struct Standing {
    now: Mutex<Now>,
    cut: Notify,
}

struct Now {
    phase: Phase,
    since: Instant,
    /// The client has not been ready to take more since then, and has taken so many bytes meanwhile.
    stalled: Option<(Instant, usize)>,
    /// Waits for bytes without a deadline. It is woken when the connection becomes idle, for then it has one.
    reader: Option<Waker>,
}

impl Standing {
    pub fn new() -> Standing {
        let now = Now {
            phase: Phase::New,
            since: Instant::now(),
            stalled: None,
            reader: None,
        };
        Standing {
            now: Mutex::new(now),
            cut: Notify::new(),
        }
    }

    /// Since when it has been its client's turn; and whether it is idle after answered requests. `None` while it is the server's turn:
    /// such a connection must not be ended, for what was begun on it would have no answer.
    pub fn waits_for_its_client(&self) -> Option<(bool, Instant)> {
        let now = self.lock();
        match now.phase {
            Phase::New | Phase::Head | Phase::Body => Some((false, now.since)),
            Phase::Answering | Phase::Idle if let Some((since, _)) = now.stalled => {
                (since.elapsed() >= WRITE_STALLED).then_some((false, since))
            }
            Phase::Answering => None,
            Phase::Idle => Some((true, now.since)),
        }
    }

    /// Has nothing come on it yet?
    pub fn is_new(&self) -> bool {
        self.lock().phase == Phase::New
    }

    /// Ends the connection.
    pub fn end(&self) {
        self.cut.notify_one();
    }

    /// Comes when the connection is to end.
    pub async fn cut(&self) {
        self.cut.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().expect("no panic under the lock")
    }

    fn turn(&self, from: &[Phase], to: Phase) {
        let mut now = self.lock();
        if from.contains(&now.phase) {
            now.phase = to;
            now.since = Instant::now();
            if to == Phase::Idle
                && let Some(reader) = now.reader.take()
            {
                reader.wake();
            }
        }
    }

    /// Until when something must have come. Without such a time, `context` is woken when there is one.
    fn must_come_by(&self, context: &Context<'_>) -> Option<Instant> {
        let mut now = self.lock();
        match now.phase {
            Phase::New | Phase::Head => Some(now.since + HEAD_WAIT_MAX),
            Phase::Idle => Some(now.since + IDLE_WAIT_MAX),
            // Bodies have a deadline of their own, and an answer as well.
            Phase::Body | Phase::Answering => {
                now.reader = Some(context.waker().clone());
                None
            }
        }
    }

    fn took(&self, bytes: usize) {
        let mut now = self.lock();
        if let Some((_, taken)) = &mut now.stalled {
            *taken += bytes;
            if *taken >= WRITE_STEP {
                now.stalled = None;
            }
        }
    }

    /// The client takes nothing just now. Until when it must have taken something.
    fn stalls(&self) -> Instant {
        let mut now = self.lock();
        let (since, _) = now.stalled.get_or_insert_with(|| (Instant::now(), 0));
        *since + WRITE_WAIT_MAX
    }

    fn is_taken(&self) {
        self.lock().stalled = None;
    }
}

/// A stream of bytes to and from a client, with deadlines.
pub struct Connection<S> {
    stream: S,
    standing: Arc<Standing>,
    reading: Alarm,
    writing: Alarm,
}

impl<S> Connection<S> {
    pub fn new(stream: S, standing: Arc<Standing>) -> Connection<S> {
        Connection {
            stream,
            standing,
            reading: Alarm::default(),
            writing: Alarm::default(),
        }
    }

    fn written(&mut self, context: &mut Context<'_>, written: Poll<Result<usize>>) -> Poll<Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => self.standing.took(bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let by = self.standing.stalls();
                ready!(self.writing.rings(by, context));
                return Poll::Ready(Err(too_slow("the client does not read its answer")));
            }
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if into.filled().len() > before {
            self.standing.turn(&[Phase::New, Phase::Idle], Phase::Head);
        }
        if read.is_pending()
            && let Some(by) = self.standing.must_come_by(context)
        {
            ready!(self.reading.rings(by, context));
            return Poll::Ready(Err(too_slow("no request came")));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        // Everything was handed to the system before.
        self.standing.is_taken();
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn too_slow(why: &'static str) -> Error {
    Error::new(ErrorKind::TimedOut, why)
}

/// Rings at a time that is put off mostly. So it is set anew only when it would have rung.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    fn rings(&mut self, by: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(by)));
        if by < sleep.deadline() {
            sleep.as_mut().reset(by);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if by <= sleep.deadline() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(by);
        }
    }
}

/// A body that tells the connection's standing when it has passed.
pub struct Watched<B> {
    body: B,
    standing: Arc<Standing>,
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    Answering,
    Idle,
}

impl<B: HttpBody> Watched<B> {
    /// The body of a request that has just come.
    pub fn request(body: B, standing: Arc<Standing>) -> Watched<B> {
        let phase = if body.is_end_stream() {
            Phase::Answering
        } else {
            Phase::Body
        };
        standing.turn(&[Phase::New, Phase::Head, Phase::Idle], phase);
        Watched {
            body,
            standing,
            then: Then::Answering,
        }
    }

    /// The body of its answer.
    pub fn answer(body: B, standing: Arc<Standing>) -> Watched<B> {
        standing.turn(&[Phase::Body], Phase::Answering);
        Watched {
            body,
            standing,
            then: Then::Idle,
        }
    }
}

impl<B> Watched<B> {
    fn passed(&self) {
        match self.then {
            Then::Answering => self.standing.turn(&[Phase::Body], Phase::Answering),
            Then::Idle => self.standing.turn(&[Phase::Answering], Phase::Idle),
        }
    }
}

impl<B: HttpBody + Unpin> HttpBody for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.passed();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Watched<B> {
    fn drop(&mut self) {
        self.passed();
    }
}
