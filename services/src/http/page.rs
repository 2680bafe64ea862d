//! The browsable page of the API, served from the binary: nothing is loaded from elsewhere.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// Nothing but what this server serves: a browser refuses anything that was smuggled into a text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

pub async fn html() -> Response {
    served("text/html; charset=utf-8", include_str!("page.html"))
}

pub async fn script() -> Response {
    served("text/javascript; charset=utf-8", include_str!("page.js"))
}

pub async fn style() -> Response {
    served("text/css; charset=utf-8", include_str!("page.css"))
}

fn served(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
