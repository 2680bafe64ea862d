//! `GET /api/<stream>/<id>`: a stream's present version and state, as its shard has it.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::StreamRef;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::problem::{Kind, Problem};
use super::terms::is_known;
use super::{Api, reference, stream};

#[derive(Serialize)]
struct Present {
    stream: &'static str,
    id: Uuid,
    version: u64,
    state: Value,
}

pub async fn present(
    State(api): State<Api>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((name, id)) = path.map_err(|_| Problem::malformed("path", "the path is not UTF-8 when decoded"))?;
    let kind = stream(&name)?;
    let id = api.commands.resolve(kind, &reference(&id)?).await?;
    let (state, version) = api.commands.peek(StreamRef { kind, id }).await?;
    if version == 0 {
        return Err(Problem::not_found(format!("there is no {name} {id}")));
    }
    let etag = (header::ETAG, format!("\"{version}\""));
    if is_known(&headers, version) {
        return Ok((StatusCode::NOT_MODIFIED, [etag]).into_response());
    }
    let state = serde_json::from_slice(&state.to_json())
        .map_err(|error| Problem::new(Kind::Broken, "the state cannot be shown").because(Some(error.to_string())))?;
    let present = Present {
        stream: kind.name(),
        id,
        version,
        state,
    };
    Ok(([etag], Json(present)).into_response())
}
