//! One line and one measurement per request. Nothing of what was sent is in it: no path, no parameter, no body.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use domain::StreamKind;
use projections::ReadModel;
use tokio::time::Instant;

use super::problem::Cause;
use super::request_id::REFERENCE;
use super::terms;
use crate::commands::Commands;

/// The header that has an answer's reference, where the log says more of it than the answer.
const REFERENCE_HEADER: HeaderName = HeaderName::from_static("x-reference");

/// Logs method, route, status and latency, counts them, and keeps answers out of caches: they may hold personal data.
pub async fn trail(State(commands): State<Commands>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let path = request.uri().path().to_owned();
    let of_caller = terms::trace_of(request.headers());
    let reference = of_caller.unwrap_or_else(|| commands.new_command_id().simple().to_string());
    let mut response = REFERENCE.scope(reference.clone(), next.run(request)).await;
    let route = named(route.as_ref().map_or("-", MatchedPath::as_str), &path);
    let status = response.status();
    let latency = started.elapsed();
    let latency_us = latency.as_micros() as u64;
    let code = status.as_u16();
    if let Some(Cause(causes)) = response.extensions_mut().remove::<Cause>() {
        for cause in causes {
            tracing::warn!(%method, route, status = code, latency_us, reference, "answered {code}, for {cause}");
        }
        let reference = HeaderValue::from_str(&reference).expect("hexadecimal digits");
        response.headers_mut().insert(REFERENCE_HEADER, reference);
    } else if status.is_server_error() {
        tracing::warn!(%method, route, status = code, latency_us, "answered {code}");
    } else if status.is_client_error() {
        tracing::info!(%method, route, status = code, latency_us, "answered {code}");
    } else {
        tracing::debug!(%method, route, status = code, latency_us, "answered {code}");
    }
    let labels = [
        ("method", known_method(method.as_str()).to_owned()),
        ("route", route),
        ("status", code.to_string()),
    ];
    metrics::counter!("crm_http_requests_total", &labels).increment(1);
    metrics::histogram!("crm_http_request_seconds", &labels[..2]).record(latency.as_secs_f64());
    let headers = response.headers_mut();
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The route's template. Its `{name}` is the stream or the read model where there is one of that name; a caller can invent others.
fn named(route: &str, path: &str) -> String {
    let given = path.split('/').nth(2).unwrap_or_default();
    let stream = StreamKind::parse(given).map(StreamKind::name);
    let known = stream.or_else(|| ReadModel::find(given).map(|model| model.name));
    match known {
        Some(name) if route.starts_with("/api/{name}") => route.replacen("{name}", name, 1),
        _ => route.to_owned(),
    }
}

/// A caller can invent methods; a metric must not grow with them.
fn known_method(method: &str) -> &'static str {
    match method {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
