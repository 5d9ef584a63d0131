//! The sockets that are open: how many there are with each token, and whose they are, so that they can be closed.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cmdexec_core::id::{Owner, WorkerId};
use tokio_util::sync::CancellationToken;

/// Whose a socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A user's.
    User(Owner),
    /// A worker's whose token is bound to this id.
    Worker(WorkerId),
    /// One whose token speaks for any worker.
    AnyWorker,
}

/// The sockets that are open.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// Keyed at random: nobody can choose tokens that collide.
    hash: RandomState,
    sockets: Mutex<Sockets>,
}

#[derive(Debug, Default)]
struct Sockets {
    next: u64,
    all: HashMap<u64, Entry>,
    per_token: HashMap<u64, usize>,
}

#[derive(Debug)]
struct Entry {
    subject: Subject,
    revoked: CancellationToken,
}

/// A socket's place among those that are open, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    open: Arc<Open>,
    number: u64,
    token: u64,
    /// Fires when the credentials are revoked.
    pub(super) revoked: CancellationToken,
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a socket; `None` if there are as many with its token as may be.
    pub(super) fn enter(self: &Arc<Self>, subject: Subject, token: &str, most: usize) -> Option<Place> {
        let token = self.hash.hash_one(token);
        let mut sockets = self.lock();
        let count = sockets.per_token.entry(token).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        let number = sockets.next;
        sockets.next += 1;
        let revoked = CancellationToken::new();
        sockets.all.insert(number, Entry { subject, revoked: revoked.clone() });
        Some(Place { open: Arc::clone(self), number, token, revoked })
    }

    /// Closes a subject's sockets; how many.
    pub(super) fn revoke(&self, subject: &Subject) -> usize {
        let sockets = self.lock();
        let its = sockets.all.values().filter(|entry| entry.subject == *subject);
        its.map(|entry| entry.revoked.cancel()).count()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().all.len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sockets = self.open.lock();
        sockets.all.remove(&self.number);
        if let Some(count) = sockets.per_token.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                sockets.per_token.remove(&self.token);
            }
        }
    }
}
