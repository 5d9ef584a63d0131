//! Why a socket is closed, for programs.

use std::fmt;

#[cfg(feature = "server")]
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
#[cfg(feature = "server")]
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Why an end of a socket closes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// 1000: it is no longer needed.
    Done,
    /// 1001: the server ends. Connect again, to another one or a little later.
    GoingAway,
    /// 1002: a frame broke the rules.
    Protocol,
    /// 1007: a text was not UTF-8.
    NotUtf8,
    /// 1009: a message was too large.
    TooLarge,
    /// 1011: something is broken on the server's side.
    Internal,
    /// 4400: a message was not one, or came at the wrong time.
    Malformed,
    /// 4401: the credentials are missing or wrong.
    Unauthenticated,
    /// 4403: the credentials were good, and are revoked; or the worker was removed.
    Revoked,
    /// 4406: the ends have no version of the protocol in common.
    Version,
    /// 4408: the peer was silent for too long, or took nothing of what it was sent.
    Silent,
    /// 4410: the token's time is over: connect with a new one.
    Expired,
    /// 4429: as many sockets are open with this token as may be.
    TooMany,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 13] = [
        Self::Done,
        Self::GoingAway,
        Self::Protocol,
        Self::NotUtf8,
        Self::TooLarge,
        Self::Internal,
        Self::Malformed,
        Self::Unauthenticated,
        Self::Revoked,
        Self::Version,
        Self::Silent,
        Self::Expired,
        Self::TooMany,
    ];

    /// The code as it travels.
    pub fn number(self) -> u16 {
        match self {
            Self::Done => 1000,
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::NotUtf8 => 1007,
            Self::TooLarge => 1009,
            Self::Internal => 1011,
            Self::Malformed => 4400,
            Self::Unauthenticated => 4401,
            Self::Revoked => 4403,
            Self::Version => 4406,
            Self::Silent => 4408,
            Self::Expired => 4410,
            Self::TooMany => 4429,
        }
    }

    /// The code that a number is, if it is known.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

/// What ends a socket: the code, and a reason for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closing {
    pub(crate) code: Code,
    pub(crate) reason: String,
}

impl Closing {
    pub(crate) fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// As a frame, whose reason has room for 123 bytes.
    #[cfg(feature = "server")]
    pub(crate) fn frame(&self) -> CloseFrame {
        let end = self.reason.floor_char_boundary(123);
        let reason = self.reason.get(..end).unwrap_or_default();
        CloseFrame { code: CloseCode::from(self.code.number()), reason: reason.into() }
    }
}
