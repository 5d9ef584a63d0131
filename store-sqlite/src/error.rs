//! SQLite's errors, and what a caller of the store can do about them.

use std::time::Duration;

use cmdexec_core::store;
use sqlx::migrate::MigrateError;

/// What went wrong below the store's surface.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Reader(#[from] sqlx::Error),
    #[error(transparent)]
    Writer(#[from] rusqlite::Error),
    #[error(transparent)]
    Migration(#[from] MigrateError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{0} can't be read: {1}")]
    Row(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{0}")]
    Refused(store::ErrorKind, String),
}

/// A store whose disk is full or whose connections are all taken may be back soon.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// SQLite's result codes that mean something to a caller.
mod code {
    /// A statement that the schema does not understand.
    pub(super) const ERROR: i32 = 1;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const TOO_BIG: i32 = 18;
    pub(super) const CONSTRAINT: i32 = 19;
    pub(super) const MISMATCH: i32 = 20;
    pub(super) const NOT_A_DATABASE: i32 = 26;
    /// An extended code.
    pub(super) const UNIQUE: i32 = rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE;
}

impl Error {
    /// A column does not hold what it should.
    pub(crate) fn row(what: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Row(what, source.into())
    }

    pub(crate) fn closed() -> Self {
        Self::Refused(store::ErrorKind::Unavailable { retry_after: RETRY_AFTER }, "the store is closed".to_owned())
    }

    /// The low byte of an extended result code is the primary one.
    fn primary_code(&self) -> Option<i32> {
        let code = match self {
            Self::Reader(error) | Self::Migration(MigrateError::Execute(error)) => {
                error.as_database_error()?.code()?.parse::<i32>().ok()?
            }
            Self::Writer(error) => error.sqlite_error()?.extended_code,
            _ => return None,
        };
        Some(code & 0xff)
    }

    /// A row with this key is there already.
    pub(crate) fn is_unique_violation(&self) -> bool {
        let Self::Writer(error) = self else { return false };
        error.sqlite_error().is_some_and(|error| error.extended_code == code::UNIQUE)
    }

    /// The call is to blame in which it happened: what it hands over is too large, or breaks a constraint, or what it
    /// asks for is damaged. The disk's troubles are everybody's.
    pub(crate) fn is_one_calls_fault(&self) -> bool {
        match self {
            Self::Refused(..) | Self::Row(..) => true,
            // A column does not hold what it should.
            Self::Writer(error) if error.sqlite_error().is_none() => true,
            _ => matches!(self.primary_code(), Some(code::TOO_BIG | code::CONSTRAINT | code::MISMATCH)),
        }
    }

    /// What each caller is told of an error that several share.
    pub(crate) fn told(&self) -> Self {
        match self {
            Self::Refused(kind, what) => Self::Refused(*kind, what.clone()),
            error => Self::Refused(error.kind(), format!("SQLite: {error}")),
        }
    }

    pub(crate) fn kind(&self) -> store::ErrorKind {
        use store::ErrorKind::{Corrupt, Invalid, Unavailable};
        match self {
            Self::Refused(kind, _) => *kind,
            Self::Row(..) => Corrupt,
            Self::Writer(error) if error.sqlite_error().is_none() => Corrupt,
            // A migration that was applied has another text here.
            Self::Migration(error) if !matches!(error, MigrateError::Execute(_)) => Corrupt,
            _ => match self.primary_code() {
                Some(code::ERROR | code::CORRUPT | code::NOT_A_DATABASE | code::MISMATCH) => Corrupt,
                Some(code::TOO_BIG) => Invalid,
                // Full disks, failing disks, busy files: the next try may find them better.
                _ => Unavailable { retry_after: RETRY_AFTER },
            },
        }
    }
}

impl From<Error> for store::Error {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        match error {
            Error::Refused(_, what) => Self::new(kind, what),
            error => Self::with_source(kind, "SQLite", error),
        }
    }
}
