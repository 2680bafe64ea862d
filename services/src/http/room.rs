//! How many bytes of requests, and of answers, are held at one time, whatever the number of clients.
//!
//! A client that is slow to send, or slow to read, holds room. When another one needs it, the slow one loses it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::body::{BUNDLE_BYTES_MAX, DRAIN_BYTES_MAX};
use super::peers;
use super::problem::{Kind, Problem};

/// Bytes of the bodies of all requests under way in a process, as they were sent.
pub const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long a body may take to come, on every route.
const BODY_WAIT_MAX: Duration = Duration::from_secs(30);
/// The first bytes of each, which come out of a quarter of the room that the rest cannot take: small ones always find some.
const SMALL_BYTES: usize = 128 * 1024;
/// A client keeps its room for at least so long, however slow it is.
const SAFE: Duration = Duration::from_secs(1);

/// Put into a request that came when every place for connections was taken: only questions after the health are answered then.
#[derive(Debug, Clone, Copy)]
pub struct Crowded;

/// Room for so many bytes; cheap to clone.
#[derive(Clone)]
pub struct Room(Arc<Mutex<Inner>>);

struct Inner {
    /// For the first bytes of each, and for the rest.
    free: Free,
    next: u64,
    held: BTreeMap<u64, Held>,
}

/// Bytes of both kinds.
#[derive(Debug, Clone, Copy, Default)]
struct Free {
    small: usize,
    large: usize,
}

impl Free {
    /// How these bytes divide, when so many were taken before.
    fn of(before: usize, bytes: usize) -> Free {
        let small = bytes.min(SMALL_BYTES.saturating_sub(before));
        Free {
            small,
            large: bytes - small,
        }
    }

    fn has(self, wanted: Free) -> bool {
        wanted.small <= self.small && wanted.large <= self.large
    }

    fn give(&mut self, back: Free) {
        self.small += back.small;
        self.large += back.large;
    }

    fn take(&mut self, wanted: Free) {
        self.small -= wanted.small;
        self.large -= wanted.large;
    }
}

struct Held {
    bytes: usize,
    since: Instant,
    /// What gives the bytes back, while it is the client that is waited for.
    end: Option<Box<dyn FnOnce() + Send>>,
}

/// Somebody's part of the room; given back when this is dropped.
pub struct Share {
    number: u64,
    room: Room,
}

impl Room {
    pub fn new(bytes: usize) -> Room {
        let small = bytes / 4;
        let large = bytes - small;
        Room(Arc::new(Mutex::new(Inner {
            free: Free { small, large },
            next: 0,
            held: BTreeMap::new(),
        })))
    }

    /// A part without bytes. `end` is called when others need the room; then the bytes must be let go at once.
    pub fn enter(&self, end: impl FnOnce() + Send + 'static) -> Share {
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        let held = Held {
            bytes: 0,
            since: Instant::now(),
            end: Some(Box::new(end)),
        };
        inner.held.insert(number, held);
        let room = self.clone();
        Share { number, room }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic under the lock")
    }
}

impl Share {
    /// Takes room for so many bytes more. When there is none, those who have kept it for longest without need lose theirs; false when
    /// that is not enough either.
    pub fn grow(&self, bytes: usize) -> bool {
        let before = Instant::now() - SAFE;
        let mut ended = Vec::new();
        let has_room = {
            let mut inner = self.room.lock();
            while let Some(missing) = inner.missing(self.number, bytes) {
                let Some(end) = inner.end_oldest(before, self.number, missing) else {
                    break;
                };
                ended.push(end);
            }
            inner.take(self.number, bytes)
        };
        // Not under the lock: it may drop what holds a share.
        for end in ended {
            end();
        }
        has_room
    }

    /// Its client is not waited for any more: nobody takes the room away.
    pub fn settle(&self) {
        let end = self
            .room
            .lock()
            .held
            .get_mut(&self.number)
            .and_then(|held| held.end.take());
        drop(end);
    }
}

impl Inner {
    /// What is wanted, if there is no room for it.
    fn missing(&self, number: u64, bytes: usize) -> Option<Free> {
        let before = self.held.get(&number).map_or(0, |held| held.bytes);
        let wanted = Free::of(before, bytes);
        (!self.free.has(wanted)).then_some(wanted)
    }

    fn take(&mut self, number: u64, bytes: usize) -> bool {
        let has_room = self.missing(number, bytes).is_none();
        if let Some(held) = self.held.get_mut(&number).filter(|_| has_room) {
            self.free.take(Free::of(held.bytes, bytes));
            held.bytes += bytes;
        }
        has_room
    }

    /// Takes the room of the oldest one that waits for its client and has what is missing.
    fn end_oldest(&mut self, before: Instant, except: u64, missing: Free) -> Option<Box<dyn FnOnce() + Send>> {
        let helps = |held: &Held| match missing.small > self.free.small {
            true => held.bytes > 0,
            false => held.bytes > SMALL_BYTES,
        };
        // Numbers are given in the order of time.
        let mut slow = self
            .held
            .iter()
            .filter(|(number, held)| **number != except && held.end.is_some() && held.since <= before && helps(held));
        let number = *slow.next()?.0;
        self.give_back(number);
        self.held.get_mut(&number)?.end.take()
    }

    fn give_back(&mut self, number: u64) {
        if let Some(held) = self.held.get_mut(&number) {
            self.free.give(Free::of(0, std::mem::take(&mut held.bytes)));
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let held = {
            let mut inner = self.room.lock();
            inner.give_back(self.number);
            inner.held.remove(&self.number)
        };
        drop(held);
    }
}

/// The room for bodies.
pub fn bodies() -> Room {
    Room::new(BODIES_BYTES_MAX)
}

/// Takes room for a body as it comes, and keeps it until the request is answered.
///
/// 503 when there is none, and 408 for a body that does not come in time, or too slowly while others need its room.
pub async fn held(State(room): State<Room>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if request.extensions().get::<Crowded>().is_some() && !path.starts_with("/health/") {
        let why = "as many connections are open as may be; try again";
        return Problem::new(Kind::Unavailable, why).into_response();
    }
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let most = match path.starts_with(peers::PREFIX) {
        true => peers::BYTES_MAX,
        false => BUNDLE_BYTES_MAX,
    };
    let coming = Arc::new(Coming::new(&room));
    let counted = Arc::clone(&coming);
    let request = request.map(|body| Body::from_stream(counted_parts(body, most, counted)));
    tokio::select! {
        response = next.run(request) => match coming.is_refused() {
            true => no_room().into_response(),
            false => response,
        },
        problem = coming.fails() => problem.into_response(),
    }
}

/// A body on its way.
struct Coming {
    share: Share,
    now: Mutex<Stage>,
    /// Rings when others need its room.
    too_slow: Arc<Notify>,
    must_come_by: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Coming,
    /// There is no room: what still comes is thrown away, so that its sender gets to read why.
    Refused,
    Complete,
}

impl Coming {
    fn new(room: &Room) -> Coming {
        let too_slow = Arc::new(Notify::new());
        let ring = Arc::clone(&too_slow);
        Coming {
            share: room.enter(move || ring.notify_one()),
            now: Mutex::new(Stage::Coming),
            too_slow,
            must_come_by: Instant::now() + BODY_WAIT_MAX,
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.now.lock().expect("no panic under the lock")
    }

    fn is_refused(&self) -> bool {
        *self.stage() == Stage::Refused
    }

    /// A part has come. Is it to be held?
    fn takes(&self, bytes: usize) -> bool {
        if self.is_refused() {
            return false;
        }
        let has_room = bytes == 0 || self.share.grow(bytes);
        if !has_room {
            *self.stage() = Stage::Refused;
        }
        has_room
    }

    fn is_over(&self) {
        self.share.settle();
        let mut stage = self.stage();
        if *stage == Stage::Coming {
            *stage = Stage::Complete;
        }
    }

    /// Comes when the body is not waited for any longer, and never when it has come.
    async fn fails(&self) -> Problem {
        tokio::select! {
            () = self.too_slow.notified() => {
                let stage = *self.stage();
                match stage {
                    // It came in the meantime, and its command may be under way.
                    Stage::Complete => std::future::pending().await,
                    Stage::Coming | Stage::Refused => {
                        Problem::new(Kind::TooSlow, "the body came too slowly, and others need the room that it takes")
                    }
                }
            }
            () = sleep_until(self.must_come_by) => {
                let stage = *self.stage();
                match stage {
                    Stage::Coming => {
                        let seconds = BODY_WAIT_MAX.as_secs();
                        Problem::new(Kind::TooSlow, format!("the body did not come within {seconds} seconds"))
                    }
                    Stage::Refused => no_room(),
                    Stage::Complete => std::future::pending().await,
                }
            }
        }
    }
}

/// Tells when the body has come, or when nobody wants the rest of it.
struct End(Arc<Coming>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.is_over();
    }
}

fn counted_parts(
    body: Body,
    most: usize,
    coming: Arc<Coming>,
) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static {
    let mut came = 0_usize;
    let end = End(Arc::clone(&coming));
    let parts = body.into_data_stream().take_while(move |part| {
        let bytes = part.as_ref().map_or(0, Bytes::len);
        // What is beyond the most that is read is thrown away by its reader.
        let counted = bytes.min(most.saturating_sub(came));
        came = came.saturating_add(bytes);
        let goes_on = coming.takes(counted) || came <= DRAIN_BYTES_MAX;
        std::future::ready(goes_on)
    });
    parts.map(move |part| {
        let refused = end.0.is_refused();
        part.map(|part| if refused { Bytes::new() } else { part })
    })
}

fn no_room() -> Problem {
    let why = "the requests under way have as many bytes as may be held at one time";
    Problem::new(Kind::NotAccepted, why)
}
