//! The bare limit of an HTTP command: axum reads the same body into the same command, and answers without doing anything.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use domain::{AnyCommand, StreamKind};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

pub async fn serve(address: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let router = Router::new()
        .route("/api/{name}", post(answer))
        .with_state(Uuid::now_v7());
    axum::serve(listener, router).await?;
    Ok(())
}

async fn answer(
    State(id): State<Uuid>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), (StatusCode, String)> {
    let wrong = |why: String| (StatusCode::BAD_REQUEST, why);
    if !headers.contains_key("content-type") {
        return Err(wrong("no JSON".into()));
    }
    let kind = StreamKind::parse(&name).ok_or_else(|| wrong("no such stream".into()))?;
    let json: Value = serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
    let command = AnyCommand::from_json(kind, json).map_err(|error| wrong(error.to_string()))?;
    let done = json!({
        "stream": command.kind().name(), "id": id, "version": 1, "position": "0:1", "events": 1, "command_id": id,
    });
    Ok((StatusCode::CREATED, Json(done)))
}
