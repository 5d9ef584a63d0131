//! An executor that gives no job a network, whatever the job asks for.

use std::sync::Arc;

use anyhow::bail;
use async_trait::async_trait;
use cmdexec_core::executor::{Capabilities, Error, Executor, Limit, RunContext};
use cmdexec_core::job::{JobSpec, Network, Outcome};

/// See the module.
#[derive(Debug)]
pub(crate) struct NoNetwork<E>(E);

impl<E: Executor> NoNetwork<E> {
    /// Wraps an executor, if that can take the network away.
    pub(crate) fn new(executor: E) -> anyhow::Result<Self> {
        if !executor.capabilities().limits.contains(&Limit::NoNetwork) {
            bail!(
                "ALLOW_NETWORK is false, and the worker may not take the network away from jobs here: run it as root"
            );
        }
        Ok(Self(executor))
    }
}

#[async_trait]
impl<E: Executor> Executor for NoNetwork<E> {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    fn user(&self, slot: usize) -> Option<u32> {
        self.0.user(slot)
    }

    async fn recover(&self) -> Result<(), Error> {
        self.0.recover().await
    }

    async fn run(&self, mut context: RunContext) -> Outcome {
        if context.spec.network == Some(Network::Bridge) {
            return Outcome::ExecutorError { message: "this worker gives no job a network".to_owned() };
        }
        let mut spec = JobSpec::clone(&context.spec);
        spec.network = Some(Network::None);
        context.spec = Arc::new(spec);
        self.0.run(context).await
    }

    async fn shutdown(&self) {
        self.0.shutdown().await;
    }
}
