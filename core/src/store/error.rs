//! What a store answers when it can't do what was asked.

use std::time::Duration;

/// What went wrong, by what a caller can do about it. The driver's own error is its source.
#[derive(Debug, thiserror::Error)]
#[error("{kind}: {what}")]
pub struct Error {
    kind: ErrorKind,
    what: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a caller can do about a store's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such thing.
    #[error("not found")]
    NotFound,
    /// Somebody else has written it in between, or a key is taken.
    #[error("conflict")]
    Conflict,
    /// The store does not answer now. A write may or may not have happened.
    #[error("unavailable")]
    Unavailable {
        /// When to try again.
        retry_after: Duration,
    },
    /// What is stored can't be read. Trying again does not help.
    #[error("corrupt")]
    Corrupt,
    /// What was asked makes no sense. A mistake of the caller's.
    #[error("invalid")]
    Invalid,
}

impl Error {
    /// An error with nothing behind it.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    /// An error with a driver's error behind it.
    pub fn with_source(
        kind: ErrorKind,
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        Self { kind, what: format!("{}: {source}", what.into()), source: Some(source) }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.retry_after().is_some()
    }

    /// How long to wait before the same call may succeed; `None` if it never will.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.kind {
            ErrorKind::Unavailable { retry_after } => Some(retry_after),
            _ => None,
        }
    }
}
