//! Tokens for servers under test: two secrets that are none, and what is minted with them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use cmdexec_core::id::WorkerId;
use cmdexec_core::service::{Role, UserPrincipal, WorkerPrincipal};
use cmdexec_core::time::{Clock, SystemClock};
use cmdexec_core::token::{Keys, UserClaims, WorkerClaims};

/// The secret that users' tokens are minted with.
pub const USER_SECRET: &str = "the secret of the users, long enough";

/// The secret that workers' tokens are minted with.
pub const WORKER_SECRET: &str = "the secret of the workers, long enough";

/// Mints tokens that are good for now.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// What a server under test judges them by.
    pub keys: Keys,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { keys: Keys::new(USER_SECRET, WORKER_SECRET).unwrap() }
    }
}

impl Tokens {
    /// A user's.
    pub fn user(&self, principal: UserPrincipal) -> String {
        self.keys.mint_user(&UserClaims::new(principal.owner, principal.role, SystemClock.now()))
    }

    /// A worker's.
    pub fn worker(&self, principal: WorkerPrincipal) -> String {
        let worker = match principal {
            WorkerPrincipal::Bound(worker) => Some(worker),
            WorkerPrincipal::Any => None,
        };
        self.keys.mint_worker(&WorkerClaims::new(worker, SystemClock.now()))
    }

    /// That of the user with this name.
    ///
    /// # Panics
    /// It is no name.
    pub fn of_user(&self, name: &str, role: Role) -> String {
        self.user(UserPrincipal { owner: name.parse().unwrap(), role })
    }

    /// That of the worker with this id, or of any.
    ///
    /// # Panics
    /// It is no id.
    pub fn of_worker(&self, id: Option<&str>) -> String {
        let id = id.map(|id| id.parse::<WorkerId>().unwrap());
        self.worker(id.map_or(WorkerPrincipal::Any, WorkerPrincipal::Bound))
    }
}
