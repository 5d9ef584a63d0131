//! MongoDB's errors, and what a caller of the store can do about them.

use std::time::Duration;

use cmdexec_core::store;
use mongodb::error::{ErrorKind as Driver, WriteFailure};

/// What went wrong below the store's surface.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Driver(#[from] mongodb::error::Error),
    #[error("{0} can't be read: {1}")]
    Row(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{1}")]
    Refused(store::ErrorKind, String),
}

/// A replica set that is electing a primary has one after a few seconds.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The server's codes that mean something to a caller.
mod code {
    pub(super) const DUPLICATE_KEY: [i32; 3] = [11000, 11001, 12582];
    /// What is asked makes no sense to the server: a document too large, an operator that it lacks, a wrong type.
    pub(super) const INVALID: [i32; 8] = [2, 9, 14, 52, 59, 10334, 17280, 40324];
    /// A transaction fills the part of the server's cache that changes may take.
    pub(super) const TOO_LARGE_FOR_CACHE: i32 = 388;
    /// No credentials, wrong ones, or not enough rights.
    pub(super) const UNAUTHORIZED: [i32; 3] = [13, 18, 8000];
}

impl Error {
    /// A field does not hold what it should.
    pub(crate) fn row(what: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Row(what, source.into())
    }

    pub(crate) fn unavailable(what: impl Into<String>) -> Self {
        Self::Refused(store::ErrorKind::Unavailable { retry_after: RETRY_AFTER }, what.into())
    }

    pub(crate) fn closed() -> Self {
        Self::unavailable("the store is closed")
    }

    fn code(&self) -> Option<i32> {
        let Self::Driver(error) = self else { return None };
        match error.kind.as_ref() {
            Driver::Command(command) => Some(command.code),
            Driver::Write(WriteFailure::WriteError(write)) => Some(write.code),
            Driver::InsertMany(failed) => failed.write_errors.as_ref()?.first().map(|write| write.code),
            _ => None,
        }
    }

    /// A document with this key is there already.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.code().is_some_and(is_duplicate)
    }

    /// The server never says so of what it has done: trying again may help, and does no harm to what knows itself.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self.kind(), store::ErrorKind::Unavailable { .. })
    }

    /// The server's cache has no room for the transaction, and it is the transaction itself that takes most of it.
    pub(crate) fn is_too_large_for_cache(&self) -> bool {
        self.code() == Some(code::TOO_LARGE_FOR_CACHE)
    }

    /// A change stream can't be taken up where it broke off: the server's log does not go back so far, or to another's.
    pub(crate) fn is_lost_history(&self) -> bool {
        const HISTORY_LOST: [i32; 4] = [136, 260, 280, 286];
        self.code().is_some_and(|code| HISTORY_LOST.contains(&code))
    }

    /// The server knows no change streams, or not for this database.
    pub(crate) fn has_no_change_streams(&self) -> bool {
        self.code().is_some_and(|code| code::INVALID.contains(&code) || matches!(code, 115 | 303 | 304 | 40573))
    }

    /// Whether the transaction was committed is not known; committing again finds out.
    pub(crate) fn is_unknown_commit(&self) -> bool {
        matches!(self, Self::Driver(error) if error.contains_label(mongodb::error::UNKNOWN_TRANSACTION_COMMIT_RESULT))
    }

    /// What each caller is told of an error that several share.
    pub(crate) fn told(&self) -> Self {
        Self::Refused(self.kind(), self.to_string())
    }

    pub(crate) fn kind(&self) -> store::ErrorKind {
        use store::ErrorKind::{Corrupt, Invalid, Unavailable};
        let error = match self {
            Self::Refused(kind, _) => return *kind,
            Self::Row(..) => return Corrupt,
            Self::Driver(error) => error,
        };
        match error.kind.as_ref() {
            Driver::Bson(_) | Driver::InvalidResponse { .. } => Corrupt,
            Driver::InvalidArgument { .. }
            | Driver::Authentication { .. }
            | Driver::InvalidTlsConfig { .. }
            | Driver::IncompatibleServer { .. }
            | Driver::SessionsNotSupported => Invalid,
            _ => match self.code() {
                Some(code) if code::INVALID.contains(&code) || code::UNAUTHORIZED.contains(&code) => Invalid,
                // Elections, full disks, connections that break: the next try may find them better.
                _ => Unavailable { retry_after: RETRY_AFTER },
            },
        }
    }
}

/// Whether a code says that a document with the key is there already.
pub(crate) fn is_duplicate(code: i32) -> bool {
    code::DUPLICATE_KEY.contains(&code)
}

impl From<mongodb::bson::error::Error> for Error {
    fn from(error: mongodb::bson::error::Error) -> Self {
        Self::row("a document", error)
    }
}

impl From<Error> for store::Error {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        match error {
            Error::Refused(_, what) => Self::new(kind, what),
            error => Self::with_source(kind, "MongoDB", error),
        }
    }
}
