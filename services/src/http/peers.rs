//! What processes of one installation ask each other: the shard of this one is to decide a request, or to tell a state. Not part of the
//! API; both ends are the same program. The routes exist only where processes share a log, and only for those who know their secret.

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::problem::Problem;
use super::{Api, BUNDLE_BYTES_MAX};
use crate::routing::{Answer, Asked, Order, PeerSecret, SECRET_HEADER, Unreadable};
use crate::shard::ShardHandle;

/// A bundle in its canonical form with all that goes along.
pub const BYTES_MAX: usize = 3 * BUNDLE_BYTES_MAX;

/// Where its paths begin.
pub const PREFIX: &str = "/internal/";

/// No routes where this process shares its log with nobody.
pub fn routes(secret: Option<PeerSecret>) -> Router<Api> {
    let Some(secret) = secret else {
        return Router::new();
    };
    Router::new()
        .route("/internal/shards/{shard}/commands", post(execute))
        .route("/internal/shards/{shard}/states", post(peek))
        .route("/internal/shards/{shard}/served", get(is_served))
        .layer(DefaultBodyLimit::max(BYTES_MAX))
        .route_layer(from_fn_with_state(secret, known))
}

/// Whoever does not know the secret finds nothing here.
async fn known(State(secret): State<PeerSecret>, request: Request, next: Next) -> Result<Response, Problem> {
    let given = request.headers().get(SECRET_HEADER);
    match given.is_some_and(|given| secret.is(given.as_bytes())) {
        true => Ok(next.run(request).await),
        false => Err(Problem::not_found("there is nothing here")),
    }
}

/// What comes from another process is checked as what comes through the door: a faulty process must not write what no client can.
async fn execute(
    State(api): State<Api>,
    Path(shard): Path<u16>,
    Json(order): Json<Order>,
) -> Result<Json<Answer>, Problem> {
    let handle = handle(&api, shard)?;
    let within = Duration::from_millis(order.within_ms).min(handle.command_timeout());
    let (request, lane) = order.read().map_err(unreadable)?;
    api.commands.check(shard, &request).await?;
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
    api.commands.check_shard(shard, stream)?;
    Ok(Json(Answer::of_peek(handle.peek(stream, within).await)))
}

/// Does this process serve the shard now?
async fn is_served(State(api): State<Api>, Path(shard): Path<u16>) -> Result<Json<bool>, Problem> {
    Ok(Json(handle(&api, shard)?.status().owned))
}

fn handle(api: &Api, shard: u16) -> Result<&ShardHandle, Problem> {
    let shards = api.commands.shards();
    let found = shards.get(usize::from(shard));
    found.ok_or_else(|| Problem::not_found(format!("there is no shard {shard}; the log has {}", shards.len())))
}

fn unreadable(error: Unreadable) -> Problem {
    Problem::malformed(".", error.to_string())
}
