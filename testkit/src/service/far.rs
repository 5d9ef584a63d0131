//! The services behind a transport, as the suite sees them.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cmdexec_core::Error;
use cmdexec_core::service::{JobService, Services, UserPrincipal, WorkerPrincipal, WorkerService};

use crate::Tokens;

/// The far end of a transport: for each principal a client that shows its token.
pub struct FarEnd<U, W> {
    tokens: Tokens,
    user: U,
    worker: W,
}

impl<U, W> FarEnd<U, W>
where
    U: Fn(String) -> Arc<dyn JobService> + Send + Sync + 'static,
    W: Fn(String) -> Arc<dyn WorkerService> + Send + Sync + 'static,
{
    /// That of a server which judges by these tokens' keys. `user` and `worker` make a client with a token.
    pub fn new(tokens: Tokens, user: U, worker: W) -> Self {
        Self { tokens, user, worker }
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
        (self.user)(self.tokens.user(principal))
    }

    fn as_worker(&self, principal: WorkerPrincipal) -> Arc<dyn WorkerService> {
        (self.worker)(self.tokens.worker(principal))
    }

    async fn health(&self) -> Result<(), Error> {
        Ok(())
    }
}
