//! The HTTP API: commands in, answers out, and how the server is doing.
//!
//! `router` makes it from its parts; `crm serve` binds it to an address. Every error is a [`problem`] with a sentence; nothing that
//! was sent gets into a log.

mod answers;
mod body;
mod commands;
mod examples;
mod file;
mod gzip;
mod hosts;
mod openapi;
mod page;
mod peers;
mod problem;
mod queries;
mod question;
mod render;
mod request_id;
mod room;
mod schemas;
mod status;
mod streams;
mod terms;
mod trail;

#[cfg(test)]
mod specs;

use std::sync::Arc;

use axum::http::{Method, Uri};
use axum::middleware;
use axum::response::Redirect;
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::StreamKind;
use projections::READ_MODELS;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::commands::{Commands, Reference};
use crate::log::EventLog;
use crate::routing::PeerSecret;
use crate::views::{Queries, ReadStore, Workers};
use crate::watch::Watch;
use problem::Problem;

pub use answers::Answers;
pub use body::{BUNDLE_BYTES_MAX, COMMAND_BYTES_MAX};
#[cfg(test)]
pub use examples::of_stream as example_of;
pub use hosts::Hosts;
pub use openapi::document as openapi_document;
pub use room::Crowded;
pub use status::vitals::describe as describe_metrics;

/// What the API stands on.
pub struct ApiParts {
    pub commands: Commands,
    pub queries: Queries,
    pub log: Arc<dyn EventLog>,
    pub store: Arc<dyn ReadStore>,
    /// This process's projection workers; none run when they are elsewhere.
    pub workers: Workers,
    /// What lasts too long: shards without an owner, records that were not read.
    pub watch: Watch,
    /// The instance's name, shown in the status.
    pub instance: String,
    /// Renders the process's metrics as Prometheus text.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// What other processes of the same log must know that send commands for the shards of this one; `None` where there are no others.
    pub peers: Option<PeerSecret>,
    /// The names by which this server is reached.
    pub hosts: Hosts,
    /// Room for the answers under way.
    pub answers: Answers,
    /// Turns true when the server begins to stop: it is not ready from then on.
    pub stopping: watch::Receiver<bool>,
}

type Api = Arc<ApiParts>;

/// All routes.
pub fn router(parts: ApiParts) -> Router {
    let hosts = parts.hosts.clone();
    let page = Router::new()
        .route("/api/docs", get(page::html))
        .route("/api/docs/page.js", get(page::script))
        .route("/api/docs/page.css", get(page::style));
    Router::new()
        .route("/", get(async || Redirect::to("/api/docs")))
        .route("/api", get(async || Json(index())))
        .route("/api/openapi.json", get(openapi::serve))
        .merge(page)
        .merge(peers::routes(parts.peers.clone()))
        .route("/api/bundle", post(commands::bundle))
        .route("/api/status", get(status::status))
        .route("/api/{name}", get(queries::ask).post(commands::begin))
        .route("/api/{name}/query", post(queries::ask_by_body))
        .route("/api/{name}/{id}", get(streams::present).post(commands::command))
        .route("/health/live", get(async || "alive\n"))
        .route("/health/ready", get(status::ready))
        .route("/metrics", get(status::vitals::metrics))
        .fallback(async || Problem::not_found(problem::NOTHING_HERE))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(room::bodies(), room::held))
        .layer(middleware::from_fn_with_state(hosts, hosts::checked))
        .layer(middleware::from_fn_with_state(parts.commands.clone(), trail::trail))
        .layer(gzip::layer())
        .with_state(Arc::new(parts))
}

/// What there is: for those who explore with nothing but curl.
fn index() -> Value {
    let streams: Vec<Value> = StreamKind::ALL
        .iter()
        .map(|kind| {
            json!({
                "stream": kind.name(),
                "begin": format!("POST /api/{}", kind.name()),
                "commands": kind.command_names(),
            })
        })
        .collect();
    let read_models: Vec<Value> = READ_MODELS
        .iter()
        .map(|model| {
            json!({
                "read_model": model.name,
                "about": model.about,
                "href": format!("/api/{}", model.name),
            })
        })
        .collect();
    json!({
        "docs": "/api/docs",
        "openapi": "/api/openapi.json",
        "status": "/api/status",
        "bundle": "POST /api/bundle",
        "streams": streams,
        "read_models": read_models,
    })
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::wrong_method(method.as_str(), uri.path())
}

/// The stream of a name in a path.
fn stream(name: &str) -> Result<StreamKind, Problem> {
    StreamKind::parse(name).ok_or_else(|| {
        if file::named(name).is_some() {
            return Problem::wrong_method("POST", &format!("/api/{name}"));
        }
        let names: Vec<&str> = StreamKind::ALL.iter().map(|kind| kind.name()).collect();
        let known = names.join(", ");
        Problem::not_found(format!(
            "there is no stream {name:?} to send commands to; there are: {known}"
        ))
    })
}

/// A UUID, or `key:<source>:<key>` for a thing that another system named. Percent-encoding is undone already; a key may have colons.
fn reference(text: &str) -> Result<Reference, Problem> {
    Reference::parse(text).map_err(|bad| Problem::malformed("id", bad.to_string()))
}
