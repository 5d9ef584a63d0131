//! The services behind a transport, as the suite sees them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cmdexec_core::Error;
use cmdexec_core::service::{JobService, Services, UserPrincipal, WorkerPrincipal, WorkerService};

use crate::Tokens;

/// The far end of a transport: for each principal a client that shows its token, and is kept as real ones are, which cost something to make.
pub struct FarEnd<U, W> {
    tokens: Tokens,
    user: U,
    worker: W,
    users: Kept<UserPrincipal, dyn JobService>,
    workers: Kept<WorkerPrincipal, dyn WorkerService>,
}

/// Clients that were made.
type Kept<P, S> = Mutex<Vec<(P, Arc<S>)>>;

fn kept<P: Clone + PartialEq, S: ?Sized>(all: &Kept<P, S>, principal: P, make: impl FnOnce(P) -> Arc<S>) -> Arc<S> {
    let mut all = all.lock().unwrap();
    if let Some((_, client)) = all.iter().find(|(own, _)| *own == principal) {
        return Arc::clone(client);
    }
    let client = make(principal.clone());
    all.push((principal, Arc::clone(&client)));
    client
}

impl<U, W> FarEnd<U, W>
where
    U: Fn(String) -> Arc<dyn JobService> + Send + Sync + 'static,
    W: Fn(String) -> Arc<dyn WorkerService> + Send + Sync + 'static,
{
    /// That of a server which judges by these tokens' keys. `user` and `worker` make a client with a token.
    pub fn new(tokens: Tokens, user: U, worker: W) -> Self {
        Self { tokens, user, worker, users: Mutex::default(), workers: Mutex::default() }
    }
}

impl<U, W> fmt::Debug for FarEnd<U, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FarEnd").finish_non_exhaustive()
    }
}

#[async_trait]
impl<U, W> Services for FarEnd<U, W>
where
    U: Fn(String) -> Arc<dyn JobService> + Send + Sync + 'static,
    W: Fn(String) -> Arc<dyn WorkerService> + Send + Sync + 'static,
{
    fn as_user(&self, principal: UserPrincipal) -> Arc<dyn JobService> {
        kept(&self.users, principal, |principal| (self.user)(self.tokens.user(principal)))
    }

    fn as_worker(&self, principal: WorkerPrincipal) -> Arc<dyn WorkerService> {
        kept(&self.workers, principal, |principal| (self.worker)(self.tokens.worker(principal)))
    }

    async fn health(&self) -> Result<(), Error> {
        Ok(())
    }
}
