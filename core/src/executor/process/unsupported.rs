//! A clear refusal, on systems that are not Unix.

use async_trait::async_trait;

use super::Options;
use crate::executor::{Capabilities, Error, Executor, Kind, RunContext};
use crate::job::Outcome;

const WHY: &str = "running jobs as processes needs Linux or another Unix; use containers here";

/// Refuses to run jobs as processes: this system has no way to hold a job's processes together that is built yet.
#[derive(Debug)]
pub struct ProcessExecutor {
    capabilities: Capabilities,
}

impl ProcessExecutor {
    /// An error that says so.
    pub fn new(_options: Options) -> Result<Self, Error> {
        Err(Error::new(WHY))
    }
}

impl Default for ProcessExecutor {
    fn default() -> Self {
        Self { capabilities: Capabilities { kind: Kind::Process, limits: [].into(), gpus: 0 } }
    }
}

#[async_trait]
impl Executor for ProcessExecutor {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn recover(&self) -> Result<(), Error> {
        Err(Error::new(WHY))
    }

    async fn run(&self, _context: RunContext) -> Outcome {
        Outcome::ExecutorError { message: WHY.to_owned() }
    }

    async fn shutdown(&self) {}
}
