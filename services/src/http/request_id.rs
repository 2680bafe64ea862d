//! The reference of a request, by which its answer and what the log says of it are found together.

tokio::task_local! {
    pub(super) static REFERENCE: String;
}

/// By which an answer, and what the log says of it, are found together; `None` outside of a request.
pub fn reference() -> Option<String> {
    REFERENCE.try_with(Clone::clone).ok()
}
