//! Answers on their way: written piece by piece, and bounded in bytes over all clients.

use std::io;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use projections::Value;

use super::problem::{Kind, Problem};
use super::room::{Room, Share};

/// Bytes of the rows of all answers under way in a process.
pub const ANSWERS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// An answer is written in pieces of about so many bytes.
const PIECE_BYTES: usize = 16 * 1024;
/// What a cell takes besides what is in it.
const CELL_BYTES: usize = size_of::<Value>();

/// Room for answers; cheap to clone.
#[derive(Clone)]
pub struct Answers(Room);

impl Default for Answers {
    fn default() -> Answers {
        Answers(Room::new(ANSWERS_BYTES_MAX))
    }
}

type Pieces = Box<dyn Iterator<Item = Bytes> + Send>;

/// Pieces of rows that have their room until they are read.
pub struct Part {
    rest: Arc<Mutex<Option<Pieces>>>,
    _until_it_is_read: Share,
}

impl Answers {
    /// A body that is made while it is read. `bytes` is what its rows take in memory.
    ///
    /// When there is no room for another answer, the one that is being read for longest is cut off: its client sees that it is not whole.
    ///
    /// # Errors
    /// 503 when there is no room even so.
    pub fn body(&self, bytes: usize, pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Result<Body, Problem> {
        let mut pieces: Pieces = Box::new(pieces);
        let Some(first) = pieces.next() else {
            return Ok(Body::empty());
        };
        let Some(second) = pieces.next() else {
            return Ok(Body::from(first));
        };
        let part = self.part(bytes, [first, second].into_iter().chain(pieces));
        let part = part.ok_or_else(|| {
            let why = "the answers under way have as many bytes as may be held at one time; try again";
            Problem::new(Kind::Unavailable, why)
        })?;
        Ok(Body::from_stream(futures::stream::iter(part)))
    }

    /// Would these bytes find room now? Those who are slow for longer than they may lose theirs for it.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.part(bytes, std::iter::empty()).is_some()
    }

    /// Room for rows, and their pieces; `None` when there is no room.
    pub fn part(&self, bytes: usize, pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Option<Part> {
        let pieces: Pieces = Box::new(pieces);
        let rest = Arc::new(Mutex::new(Some(pieces)));
        let cut = Arc::clone(&rest);
        let share = self.0.enter(move || drop(lock(&cut).take()));
        share.grow(bytes.min(ANSWERS_BYTES_MAX / 2)).then_some(Part {
            rest,
            _until_it_is_read: share,
        })
    }
}

impl Iterator for Part {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        match lock(&self.rest).as_mut() {
            Some(rest) => rest.next().map(Ok),
            None => Some(Err(io::Error::other("others need the room that the answer takes"))),
        }
    }
}

fn lock(slot: &Mutex<Option<Pieces>>) -> std::sync::MutexGuard<'_, Option<Pieces>> {
    slot.lock().expect("no panic under the lock")
}

/// Bytes that rows take in memory.
pub fn bytes_of(rows: &[Vec<Value>]) -> usize {
    let of_row = |row: &Vec<Value>| row.iter().map(|cell| cell.bytes() + CELL_BYTES).sum::<usize>();
    rows.iter().map(of_row).sum()
}

/// Pieces of a text that is made row by row: what stands before the rows, each row by `write`, what stands after them.
pub fn pieces(
    before: String,
    rows: Vec<Vec<Value>>,
    mut write: impl FnMut(&mut String, usize, &[Value]) + Send + 'static,
    after: String,
) -> impl Iterator<Item = Bytes> + Send + 'static {
    let mut rows = rows.into_iter().enumerate();
    let (mut text, mut after) = (before, Some(after));
    std::iter::from_fn(move || {
        while text.len() < PIECE_BYTES {
            match rows.next() {
                Some((number, row)) => write(&mut text, number, &row),
                None => {
                    text.push_str(&after.take().unwrap_or_default());
                    break;
                }
            }
        }
        let piece = std::mem::take(&mut text);
        (!piece.is_empty()).then(|| Bytes::from(piece))
    })
}
