//! How much of what people and other processes send is held at one time, whatever the number of requests.

use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::Semaphore;

use super::body::{self, BUNDLE_BYTES_MAX};
use super::peers;
use super::problem::{Kind, Problem};

/// Bytes of the bodies of all requests under way in a process, as they were sent.
pub const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Room is given out in these.
const UNIT_BYTES: usize = 1024;

/// Room for bodies; cheap to clone.
#[derive(Clone)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Room {
        Room(Arc::new(Semaphore::new(BODIES_BYTES_MAX / UNIT_BYTES)))
    }
}

/// Holds room for the body until the request is answered.
///
/// # Errors
/// 503 at once when there is none. A body that does not say how long it is counts as one of the largest.
pub async fn held(State(room): State<Room>, request: Request, next: Next) -> Result<Response, Problem> {
    let most = match request.uri().path().starts_with(peers::PREFIX) {
        true => peers::BYTES_MAX,
        false => BUNDLE_BYTES_MAX,
    };
    let said = request.body().size_hint().upper();
    let bytes = said.map_or(most, |said| usize::try_from(said).unwrap_or(usize::MAX).min(most));
    let units = bytes.div_ceil(UNIT_BYTES) as u32;
    let Ok(_room) = room.0.try_acquire_many(units) else {
        body::discard(request.into_body()).await;
        let why = "the requests under way have as many bytes as may be held at one time";
        return Err(Problem::new(Kind::NotAccepted, why));
    };
    Ok(next.run(request).await)
}
