//! What goes wrong, as RFC 9457 `application/problem+json`: a kind that programs tell apart, and a sentence for people.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::StreamKind;
use projections::{BadQuestion, ReadModel};
use serde_json::{Map, Value, json};

use super::file;
use super::request_id::reference;
use crate::commands::CommandFailure;
use crate::shard::Failure;
use crate::views::{AskError, ViewError};
use crate::why::Why;

/// What a sender sent is quoted back in a problem up to this length, in bytes: an error is no echo.
const QUOTE_MAX: usize = 600;
/// What is said of a path that leads nowhere.
pub const NOTHING_HERE: &str = "there is nothing here; GET /api lists what there is, /api/docs explains it";
/// Seconds after which a 503 is worth another try.
const RETRY_AFTER: &str = "1";

/// The kinds of problems there are. The kind's name is the anchor of the problem's `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Malformed,
    Foreign,
    NotFound,
    MethodNotAllowed,
    TooSlow,
    Conflict,
    TooLarge,
    WrongContentType,
    Rejected,
    CommandIdReused,
    Broken,
    NotAccepted,
    OutcomeUnknown,
    Behind,
    Unavailable,
    NoRoom,
}

impl Kind {
    pub const ALL: [Kind; 16] = [
        Kind::Malformed,
        Kind::Foreign,
        Kind::NotFound,
        Kind::MethodNotAllowed,
        Kind::TooSlow,
        Kind::Conflict,
        Kind::TooLarge,
        Kind::WrongContentType,
        Kind::Rejected,
        Kind::CommandIdReused,
        Kind::Broken,
        Kind::NotAccepted,
        Kind::OutcomeUnknown,
        Kind::Behind,
        Kind::Unavailable,
        Kind::NoRoom,
    ];

    pub fn status(self) -> StatusCode {
        match self {
            Kind::Malformed => StatusCode::BAD_REQUEST,
            Kind::Foreign => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Kind::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::WrongContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Kind::Rejected | Kind::CommandIdReused => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::Broken => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::NotAccepted | Kind::OutcomeUnknown | Kind::Behind | Kind::Unavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Kind::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Malformed => "malformed",
            Kind::Foreign => "foreign",
            Kind::NotFound => "not-found",
            Kind::MethodNotAllowed => "method-not-allowed",
            Kind::TooSlow => "too-slow",
            Kind::Conflict => "conflict",
            Kind::TooLarge => "too-large",
            Kind::WrongContentType => "wrong-content-type",
            Kind::Rejected => "rejected",
            Kind::CommandIdReused => "command-id-reused",
            Kind::Broken => "broken",
            Kind::NotAccepted => "not-accepted",
            Kind::OutcomeUnknown => "outcome-unknown",
            Kind::Behind => "behind",
            Kind::Unavailable => "unavailable",
            Kind::NoRoom => "no-room",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Kind::Malformed => "The request is malformed",
            Kind::Foreign => "The request is meant for, or comes from, another site",
            Kind::NotFound => "There is no such thing",
            Kind::MethodNotAllowed => "The method does not fit",
            Kind::TooSlow => "The body came too slowly",
            Kind::Conflict => "Somebody else was faster",
            Kind::TooLarge => "The request is too large",
            Kind::WrongContentType => "The body is not said to be JSON",
            Kind::Rejected => "The command was rejected",
            Kind::CommandIdReused => "The command id was used before",
            Kind::Broken => "The server made a mistake",
            Kind::NotAccepted => "The command was not accepted",
            Kind::OutcomeUnknown => "The outcome is unknown",
            Kind::Behind => "The read model is behind",
            Kind::Unavailable => "Not available now",
            Kind::NoRoom => "There is no room",
        }
    }
}

/// What only the log says of an answer.
#[derive(Debug, Clone)]
pub struct Cause(pub Vec<String>);

/// A problem on its way to the sender.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: Kind,
    detail: String,
    members: Map<String, Value>,
    /// The methods that fit, when the one that was used does not.
    allow: Option<&'static str>,
    /// What only the log says.
    cause: Option<String>,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Problem {
        Problem {
            kind,
            detail: shortened(detail.into()),
            members: Map::new(),
            allow: None,
            cause: None,
        }
    }

    /// With its cause, which the log says and the answer does not. Both have the reference of the request.
    pub fn because(mut self, cause: Option<impl Into<String>>) -> Problem {
        self.cause = cause.map(Into::into);
        self
    }

    /// The sender's mistake in form; `at` is the path of the field, the header or the parameter at fault, `.` the whole.
    pub fn malformed(at: &str, detail: impl Into<String>) -> Problem {
        Problem::new(Kind::Malformed, detail).with("at", shortened(at.to_owned()))
    }

    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(Kind::NotFound, detail)
    }

    /// The method does not fit the path; the header `Allow` says which ones do. A path that leads nowhere is not found, whatever the
    /// method.
    pub fn wrong_method(method: &str, path: &str) -> Problem {
        let Some(allowed) = allowed(path) else {
            return Problem::not_found(NOTHING_HERE);
        };
        let mut problem = Problem::new(
            Kind::MethodNotAllowed,
            format!("{method} is not allowed here; allowed: {allowed}"),
        );
        problem.allow = Some(allowed);
        problem
    }

    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Problem {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    /// The same problem at another path: where it stands in the body, not in the part of it that was read.
    pub fn moved(mut self, to: impl FnOnce(&str) -> String) -> Problem {
        if let Some(Value::String(at)) = self.members.get("at") {
            let at = to(at);
            self.members.insert("at".into(), shortened(at).into());
        }
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let mut body = self.members;
        body.insert("type".into(), format!("/api/docs#problem-{}", self.kind.name()).into());
        body.insert("title".into(), self.kind.title().into());
        body.insert("status".into(), status.as_u16().into());
        body.insert("detail".into(), self.detail.into());
        let reference = self.cause.as_ref().and_then(|_| reference());
        if let Some(reference) = reference {
            body.insert("reference".into(), reference.into());
        }
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response = (
            status,
            [(header::CONTENT_TYPE, content_type)],
            Value::Object(body).to_string(),
        )
            .into_response();
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(Cause(vec![cause]));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        if let Some(allow) = self.allow {
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// The methods that fit a path; `None` when there is nothing.
fn allowed(path: &str) -> Option<&'static str> {
    const READ: Option<&str> = Some("GET, HEAD");
    const WRITE: Option<&str> = Some("POST");
    const BOTH: Option<&str> = Some("GET, HEAD, POST");
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["api", "bundle"] => WRITE,
        // Equipment is a stream and a read model.
        ["api", name] if StreamKind::parse(name).is_some() && ReadModel::find(name).is_some() => BOTH,
        ["api", name] if StreamKind::parse(name).is_some() => WRITE,
        ["api", name, "query"] if ReadModel::find(name).is_some() => WRITE,
        ["api", name, _] if StreamKind::parse(name).is_some() => BOTH,
        ["api", name] if file::named(name).is_some() => READ,
        ["api", "openapi.json" | "status" | "docs"] | ["api", "docs", "page.js" | "page.css"] => READ,
        ["" | "api" | "metrics"] | ["health", "live" | "ready"] => READ,
        _ => None,
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        let (detail, cause) = (failure.to_string(), failure.cause().map(str::to_owned));
        let problem = match failure {
            Failure::Rejected(_) => Problem::new(Kind::Rejected, detail),
            Failure::Conflict { expected, current, .. } => Problem::new(Kind::Conflict, detail)
                .with("expected_version", expected)
                .with("current_version", current),
            Failure::IdReused(_) => Problem::new(Kind::CommandIdReused, detail),
            Failure::TooLarge(_) => Problem::new(Kind::TooLarge, detail),
            Failure::NotAccepted(_) | Failure::NotInTime(_) | Failure::Elsewhere(_) => {
                Problem::new(Kind::NotAccepted, detail)
            }
            Failure::OutcomeUnknown(_) => Problem::new(Kind::OutcomeUnknown, detail).with("retry", "same-id"),
            Failure::NoRoom(_) => Problem::new(Kind::NoRoom, detail),
        };
        problem.because(cause)
    }
}

impl From<CommandFailure> for Problem {
    fn from(failure: CommandFailure) -> Problem {
        match failure {
            CommandFailure::Malformed { at, message } => Problem::malformed(&at, message),
            CommandFailure::Shard(failure) => failure.into(),
        }
    }
}

impl From<BadQuestion> for Problem {
    fn from(bad: BadQuestion) -> Problem {
        Problem::malformed(bad.column().unwrap_or("query"), bad.to_string())
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Problem {
        let detail = error.to_string();
        match error {
            AskError::Bad(bad) => bad.into(),
            AskError::TooMuch(_) => Problem::malformed("query", detail),
            AskError::NoShard { .. } | AskError::Beyond { .. } => Problem::malformed("at_least", detail),
            AskError::Behind { position, stands } => Problem::new(Kind::Behind, detail)
                .with("shard", position.shard)
                .with("lag", (position.offset + 1).saturating_sub(stands)),
            AskError::Building(group) => Problem::new(Kind::Unavailable, detail).with("group", group),
            AskError::TooMany => Problem::new(Kind::Unavailable, detail),
            AskError::Store(error) => error.into(),
        }
    }
}

impl From<ViewError> for Problem {
    fn from(error: ViewError) -> Problem {
        let why = Why::from(&error);
        let problem = match error {
            ViewError::Moved | ViewError::OtherLog { .. } => Problem::new(Kind::Unavailable, &*why),
            ViewError::Unavailable(_) => Problem::new(Kind::Unavailable, format!("{why}; try again")),
            ViewError::TooLarge(_) => Problem::malformed("query", &*why),
            ViewError::Refused(_) => Problem::new(
                Kind::Broken,
                format!("{why}; whoever runs it finds the cause in its log"),
            ),
        };
        problem.because(why.cause())
    }
}

/// `{type, title, status, detail}` and the members that a kind has: JSON schema for the API's description.
pub fn schema() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457 problem details. `detail` is a sentence that may be shown.",
        "required": ["type", "title", "status", "detail"],
        "additionalProperties": false,
        "properties": {
            "type": {"type": "string", "format": "uri-reference", "enum": Kind::ALL.map(|kind| format!("/api/docs#problem-{}", kind.name()))},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "reference": {"type": "string", "description": "500, 503, 507: what went wrong stands in the server's log under this reference: the trace id of `traceparent`, or one of the server's own."},
            "at": {"type": "string", "description": "400: the path of the field, the header or the parameter at fault; `.` is the whole."},
            "current_version": {"type": "integer", "description": "409: the version that the stream has."},
            "expected_version": {"type": "integer", "description": "409: the version that was expected."},
            "retry": {"type": "string", "const": "same-id", "description": "503: the outcome is unknown; send it again with the same Idempotency-Key."},
            "shard": {"type": "integer", "description": "503: the shard that the read model is behind on."},
            "lag": {"type": "integer", "description": "503: how many records it is behind."},
            "group": {"type": "string", "description": "503: the group of read models that is being built."},
            "reasons": {"type": "array", "items": {"type": "string"}, "description": "503 of /health/ready: why not."}
        },
        "examples": [{
            "type": "/api/docs#problem-conflict", "title": Kind::Conflict.title(), "status": 409,
            "detail": "opportunity/01979e04-0000-8abc-8000-000000000001 is at version 4, not 3; read it again and decide anew",
            "current_version": 4, "expected_version": 3
        }]
    })
}

fn shortened(text: String) -> String {
    if text.len() <= QUOTE_MAX {
        return text;
    }
    let end = text.floor_char_boundary(QUOTE_MAX);
    format!("{}…", &text[..end])
}
