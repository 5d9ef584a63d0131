//! What can go wrong with a daemon, told apart once, at the edge.

use std::time::Duration;

use bollard::errors::Error as Driver;
use cmdexec_core::job::Outcome;

/// Why the daemon did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It is there already, or in use.
    #[error("{0}")]
    Conflict(String),
    /// Nobody listens.
    #[error("the container daemon can't be reached: {0}")]
    Unreachable(String),
    /// It may do what it was asked to later, or may have done it.
    #[error("the container daemon did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// No space is left where it keeps images and containers.
    #[error("the container daemon's disk is full: {0}")]
    DiskFull(String),
    /// It runs where this machine's directories are not, or not at these paths.
    #[error("the container daemon does not see the worker's directories at the same paths: {0}")]
    Unseen(String),
    /// In its own words.
    #[error("the container daemon: {0}")]
    Refused(String),
    /// Something of this machine's, not the daemon's.
    #[error("{0}")]
    Here(String),
}

impl Trouble {
    /// A call of the system failed.
    pub(crate) fn io(what: &str, error: &std::io::Error) -> Self {
        Self::Here(format!("{what}: {error}"))
    }

    /// Whether what was asked for may have been done all the same.
    pub(crate) fn is_uncertain(&self) -> bool {
        matches!(self, Self::Silent(_) | Self::Unreachable(_))
    }

    /// The end of an attempt for this reason.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::ExecutorError { message: self.to_string() }
    }
}

impl From<Driver> for Trouble {
    fn from(error: Driver) -> Self {
        let said = |message: String| match () {
            () if message.contains("no space left on device") => Self::DiskFull(message),
            () if message.contains("bind source path does not exist") => Self::Unseen(message),
            () => Self::Refused(message),
        };
        match error {
            Driver::DockerResponseServerError { status_code: 404, message } => Self::NotFound(message),
            Driver::DockerResponseServerError { status_code: 409, message } => Self::Conflict(message),
            Driver::DockerResponseServerError { message, .. } => said(message),
            Driver::DockerStreamError { error } => said(error),
            Driver::SocketNotFoundError(path) => Self::Unreachable(format!("{path} does not exist")),
            Driver::RequestTimeoutError => Self::Silent(Duration::from_secs(0)),
            Driver::HyperLegacyError { err } => Self::Unreachable(whole(&err)),
            Driver::HyperResponseError { err } => Self::Unreachable(whole(&err)),
            Driver::IOError { err } => Self::Unreachable(err.to_string()),
            other => said(other.to_string()),
        }
    }
}

/// An error with what is behind it, which these keep to themselves.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_daemon_says_is_told_apart() {
        let answer = |status_code, message: &str| {
            Trouble::from(Driver::DockerResponseServerError { status_code, message: message.to_owned() })
        };
        assert!(matches!(answer(404, "No such image"), Trouble::NotFound(_)));
        assert!(matches!(answer(409, "name is in use"), Trouble::Conflict(_)));
        assert!(matches!(answer(500, "mkdir /x: no space left on device"), Trouble::DiskFull(_)));
        let unseen = r#"invalid mount config for type "bind": bind source path does not exist: /x"#;
        assert!(matches!(answer(400, unseen), Trouble::Unseen(_)));
        assert!(matches!(answer(500, "OCI runtime create failed"), Trouble::Refused(_)));
        assert!(Trouble::Silent(Duration::from_secs(30)).is_uncertain() && !answer(500, "x").is_uncertain());
    }
}
