//! One line and one measurement per request. Nothing of what was sent is in it: no path, no parameter, no body.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use domain::StreamKind;
use projections::ReadModel;
use tokio::time::Instant;

/// Logs method, route, status and latency, counts them, and keeps answers out of caches: they may hold personal data.
pub async fn trail(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let route = named(route.as_ref().map_or("-", MatchedPath::as_str), &path);
    let status = response.status();
    let latency = started.elapsed();
    let latency_us = latency.as_micros() as u64;
    let code = status.as_u16();
    if status.is_server_error() {
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
