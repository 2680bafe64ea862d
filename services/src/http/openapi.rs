//! The API's description, OpenAPI 3.1, made from the types that the program reads and writes.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The document depends on nothing but the program.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

pub async fn serve() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, DOCUMENT.as_str()).into_response()
}

/// The OpenAPI document.
pub fn document() -> Value {
    json!({"openapi": "3.1.0", "info": {"title": "CRM", "version": env!("CARGO_PKG_VERSION")}, "paths": {}})
}
