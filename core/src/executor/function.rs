//! An executor made from an async Rust function.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use tokio_util::task::AbortOnDropHandle;

use super::{Capabilities, Error, Executor, Kind, RunContext};
use crate::job::Outcome;

type Run = dyn Fn(RunContext) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync;

/// Runs attempts by an async function in the worker's own process, without any isolation.
///
/// The function sees the whole [`RunContext`]: it should return [`Outcome::Stopped`] soon after `stop` fires.
/// The timeout is enforced here, by dropping the function's future.
pub struct FunctionExecutor {
    run: Box<Run>,
    capabilities: Capabilities,
}

impl FunctionExecutor {
    /// An executor that runs `function` for every attempt.
    pub fn new<F, Fut>(function: F) -> Self
    where
        F: Fn(RunContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        Self {
            run: Box::new(move |context| Box::pin(function(context))),
            capabilities: Capabilities { kind: Kind::Process, limits: [].into() },
        }
    }
}

impl fmt::Debug for FunctionExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionExecutor").finish_non_exhaustive()
    }
}

#[async_trait]
impl Executor for FunctionExecutor {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn recover(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn run(&self, context: RunContext) -> Outcome {
        let timeout = context.spec.timeout;
        let running = AbortOnDropHandle::new(tokio::spawn((self.run)(context)));
        match tokio::time::timeout(timeout, running).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panicked)) => Outcome::ExecutorError { message: format!("the function panicked: {panicked}") },
            Err(_) => Outcome::TimedOut,
        }
    }

    async fn shutdown(&self) {}
}
