//! The tokens that users and workers show: HS256 JWTs, made and judged the same way by every transport.
//!
//! Users and workers have a secret and an audience each, so that the one's token is never the other's.
//!
//! ```
//! use cmdexec_core::id::Owner;
//! use cmdexec_core::service::Role;
//! use cmdexec_core::time::{Clock, SystemClock};
//! use cmdexec_core::token::{Error, Keys, UserClaims};
//!
//! let keys = Keys::new("a secret of 32 characters at least", "and another one for the workers..")?;
//! let now = SystemClock.now();
//! let token = keys.mint_user(&UserClaims::new("ada".parse::<Owner>().unwrap(), Role::User, now));
//! assert_eq!(keys.verify_user(&token, now)?.role, Role::User);
//! assert_eq!(keys.verify_worker(&token, now), Err(Error::Invalid));
//! # Ok::<(), Error>(())
//! ```

use std::fmt;
use std::time::Duration;

use crate::id::{Owner, WorkerId};
use crate::service::{Role, UserPrincipal, WorkerPrincipal};
use crate::time::Timestamp;

mod hmac;
mod key;
mod wire;

#[cfg(test)]
mod tests;

pub use key::WorkerKey;

use key::Key;

/// How long a token lives unless something else is asked for.
pub const DEFAULT_TTL: Duration = Duration::from_hours(24);

/// How far the clocks of whoever made a token and of whoever judges it may differ.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// How many characters a secret has at least.
pub const MIN_SECRET: usize = 32;

/// The longest token that is looked at, in bytes. Those made here have a few hundred.
pub const MAX_TOKEN: usize = 8 * 1024;

/// Why a token, or the secrets for them, are not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The token was good and its time is over: a new one helps.
    #[error("the token has expired")]
    Expired,
    /// The token is not one, not signed with the secret, for somebody else, or says too little. Which of these is
    /// nobody's business who has no valid one.
    #[error("the token is not valid")]
    Invalid,
    /// The secrets can't be used. Says everything that is wrong with them, and nothing of them.
    #[error("{0}")]
    Secrets(String),
}

/// What a user's token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserClaims {
    /// `sub`: who.
    pub owner: Owner,
    /// `email`: for people to read.
    pub email: Option<String>,
    /// `role`: what the user may do.
    pub role: Role,
    /// `iat`: when it was made.
    pub issued: Option<Timestamp>,
    /// `exp`: from when on it is no longer accepted. Whole seconds in the token.
    pub expires: Timestamp,
}

impl UserClaims {
    /// Claims for a token that lives for [`DEFAULT_TTL`] from `now` on.
    pub fn new(owner: Owner, role: Role, now: Timestamp) -> Self {
        Self { owner, email: None, role, issued: Some(now), expires: now.after(DEFAULT_TTL) }
    }
}

impl From<UserClaims> for UserPrincipal {
    fn from(claims: UserClaims) -> Self {
        Self { owner: claims.owner, role: claims.role }
    }
}

/// What a worker's token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerClaims {
    /// `workerId`, or else `sub`: for which worker it speaks; `None`: for any.
    pub worker: Option<WorkerId>,
    /// `iat`: when it was made.
    pub issued: Option<Timestamp>,
    /// `exp`: from when on it is no longer accepted. Whole seconds in the token.
    pub expires: Timestamp,
}

impl WorkerClaims {
    /// Claims for a token that lives for [`DEFAULT_TTL`] from `now` on.
    pub fn new(worker: Option<WorkerId>, now: Timestamp) -> Self {
        Self { worker, issued: Some(now), expires: now.after(DEFAULT_TTL) }
    }
}

impl From<WorkerClaims> for WorkerPrincipal {
    fn from(claims: WorkerClaims) -> Self {
        claims.worker.map_or(Self::Any, Self::Bound)
    }
}

/// The two secrets, and whom tokens must name. Shows nothing of the secrets; they are wiped when it is dropped.
#[derive(Clone)]
pub struct Keys {
    user: Key,
    worker: WorkerKey,
}

impl Keys {
    /// Keys from the two secrets, of [`MIN_SECRET`] characters at least.
    ///
    /// The first key of a process gives `jsonwebtoken` what it computes with, HMAC and nothing else, if nothing was installed before. A
    /// program that uses `jsonwebtoken` 11 for other signatures too installs a `CryptoProvider` of its own choice first.
    ///
    /// # Errors
    /// [`Error::Secrets`]: one is too short, or both are the same.
    pub fn new(user_secret: &str, worker_secret: &str) -> Result<Self, Error> {
        let mut problems = Vec::new();
        for (whose, secret) in [("user", user_secret), ("worker", worker_secret)] {
            if secret.chars().count() < MIN_SECRET {
                problems.push(format!("the {whose} token secret must have at least {MIN_SECRET} characters"));
            }
        }
        if user_secret == worker_secret {
            problems.push("the user and worker token secrets must differ".to_owned());
        }
        if !problems.is_empty() {
            return Err(Error::Secrets(problems.join("; ")));
        }
        Ok(Self { user: Key::new(user_secret, "cmdexec-user"), worker: WorkerKey::new(worker_secret)? })
    }

    /// Puts `iss` into tokens; a token that names another issuer is invalid. `cmdexec` by default.
    #[must_use]
    pub fn with_issuer(mut self, issuer: impl Into<String>) -> Self {
        let issuer = issuer.into();
        self.user.issuer.clone_from(&issuer);
        self.worker.0.issuer = issuer;
        self
    }

    /// Puts `aud` into users' tokens; a token that names only other audiences is invalid. `cmdexec-user` by default.
    ///
    /// # Errors
    /// [`Error::Secrets`]: it is the workers' audience.
    pub fn with_user_audience(mut self, audience: impl Into<String>) -> Result<Self, Error> {
        self.user.audience = audience.into();
        if self.user.audience == self.worker.0.audience {
            return Err(Error::Secrets("users' and workers' tokens must have different audiences".to_owned()));
        }
        Ok(self)
    }

    /// A user's token with these claims.
    pub fn mint_user(&self, claims: &UserClaims) -> String {
        self.user.sign(wire::Claims::from(claims))
    }

    /// A worker's token with these claims.
    pub fn mint_worker(&self, claims: &WorkerClaims) -> String {
        self.worker.mint(claims)
    }

    /// What a user's token says, if it is one.
    ///
    /// # Errors
    /// [`Error::Expired`], [`Error::Invalid`].
    pub fn verify_user(&self, token: &str, now: Timestamp) -> Result<UserClaims, Error> {
        self.user.verify(token, now)?.try_into()
    }

    /// What a worker's token says, if it is one.
    ///
    /// # Errors
    /// [`Error::Expired`], [`Error::Invalid`].
    pub fn verify_worker(&self, token: &str, now: Timestamp) -> Result<WorkerClaims, Error> {
        self.worker.verify(token, now)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}
