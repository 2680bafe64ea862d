//! What processes of one installation ask each other: the shard of this one is to decide a request, or to tell a state. Not part of the
//! API; both ends are the same program.

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::routing::post;
use axum::{Json, Router};

use super::problem::Problem;
use super::{Api, BUNDLE_BYTES_MAX};
use crate::routing::{Answer, Asked, Order, Unreadable};
use crate::shard::ShardHandle;

/// A bundle in its canonical form with all that goes along.
pub const BYTES_MAX: usize = 3 * BUNDLE_BYTES_MAX;

/// Where its paths begin.
pub const PREFIX: &str = "/internal/";

pub fn routes() -> Router<Api> {
    Router::new()
        .route("/internal/shards/{shard}/commands", post(execute))
        .route("/internal/shards/{shard}/states", post(peek))
        .layer(DefaultBodyLimit::max(BYTES_MAX))
}

async fn execute(
    State(api): State<Api>,
    Path(shard): Path<u16>,
    Json(order): Json<Order>,
) -> Result<Json<Answer>, Problem> {
    let handle = handle(&api, shard)?;
    let within = Duration::from_millis(order.within_ms).min(handle.command_timeout());
    let (request, lane) = order.read().map_err(unreadable)?;
    Ok(Json(Answer::of_command(handle.execute(request, lane, within).await)))
}

async fn peek(
    State(api): State<Api>,
    Path(shard): Path<u16>,
    Json(asked): Json<Asked>,
) -> Result<Json<Answer>, Problem> {
    let handle = handle(&api, shard)?;
    let within = Duration::from_millis(asked.within_ms).min(handle.command_timeout());
    let stream = asked.stream().map_err(unreadable)?;
    Ok(Json(Answer::of_peek(handle.peek(stream, within).await)))
}

fn handle(api: &Api, shard: u16) -> Result<&ShardHandle, Problem> {
    let shards = api.commands.shards();
    let found = shards.get(usize::from(shard));
    found.ok_or_else(|| Problem::not_found(format!("there is no shard {shard}; the log has {}", shards.len())))
}

fn unreadable(error: Unreadable) -> Problem {
    Problem::malformed(".", error.to_string())
}
