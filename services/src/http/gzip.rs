//! Answers are compressed for clients that say that they can read it.
//!
//! A compressed answer tells by its length whether two of its texts are alike, which helps those who can put text into an answer beside a
//! secret. No answer of this API holds a secret such as a token.

use axum::http::{Extensions, HeaderMap, StatusCode, Version, header};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};

/// Smaller answers are sent as they are: there is nothing to gain.
const BYTES_MIN: u16 = 1_024;

/// Compresses what is large enough. The answer that has a stream's version as its tag stays as it is, for a tag names bytes.
pub fn layer() -> CompressionLayer<impl Predicate> {
    let has_no_tag =
        |_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions| !headers.contains_key(header::ETAG);
    CompressionLayer::new().compress_when(SizeAbove::new(BYTES_MIN).and(has_no_tag))
}
