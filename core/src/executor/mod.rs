//! Running one attempt, start to finish.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::id::JobId;
use crate::job::{JobSpec, Outcome};

#[cfg(unix)]
pub mod conduct;
mod function;
mod output;
#[cfg(unix)]
mod plan;
pub mod process;
mod steps;

pub use function::FunctionExecutor;
pub use output::{OutputChunk, OutputSink, OutputSource, Stream, output_pipe};
#[cfg(unix)]
pub use plan::Plan;
pub use process::ProcessExecutor;
pub use steps::StepLog;

/// Runs one attempt, start to finish.
///
/// # What an implementation promises
/// - **The outcome is evidence.** It comes from the runtime itself (wait status, the kernel's own out-of-memory count,
///   the executor's own timer), and is never inferred from an exit code such as 137. A program that cannot be started
///   is an [`Outcome::ExecutorError`] that names it, not exit code 126 or 127; a working directory that is not there or
///   not inside is an [`Outcome::InputError`].
/// - **The first cause wins.** A command that ended by itself before anything else happened is reported as it ended,
///   or as [`Outcome::OutOfMemory`] if it did not exit with 0 and the kernel killed one of its processes for want of
///   memory. After the timeout it has timed out, whatever it makes of the polite signal. After a stop it was
///   stopped, unless it exits with 0 and no step is left: then its work is done. Fired before the start, `stop` starts nothing.
/// - **Stopping escalates.** When [`RunContext::stop`] fires or the timeout is over: a polite signal to everything the
///   job started, [`GRACE`] while output still drains, then kill. A command that exits takes what it left running
///   with it, without grace.
/// - **No process of a job outlives `run`.** Descendants that started their own session or were orphaned are killed too,
///   also after an exit by itself.
/// - **Output is complete, in order within each stream, and bytes.** A reader that is slow slows the job down, and
///   what waits in between is bounded. Everything that was written before the end is handed on before `run` returns, so
///   `run` waits for its reader; a reader that has gone is not waited for.
/// - **Steps** run one after another in one directory and environment, each in a shell of its own, under one timeout.
///   What a step leaves running runs on until the job ends. Each step that was begun is said to [`RunContext::steps`] before
///   `run` returns: its exit code and how long it ran; one that was under way when the job was ended, without a code.
/// - **`run` does not panic and does not fail otherwise**: whatever goes wrong is an [`Outcome`].
/// - **Dropping the future** kills the job without grace. It may still be dying when the drop returns.
/// - **Nothing of the worker's environment reaches the job.** It has what it asks for, and `PATH`, `HOME`, `TMPDIR` and
///   `LANG` unless it sets its own. `HOME` and `TMPDIR` are inside the attempt's directory, which is the job's to change.
///   Standard input is empty.
///
/// `cmdexec_testkit::executor` is this contract as tests.
#[async_trait]
pub trait Executor: fmt::Debug + Send + Sync + 'static {
    /// What this executor runs and which limits it truly enforces on this machine. Constant.
    fn capabilities(&self) -> &Capabilities;

    /// The user that a slot's jobs run as, where it is another than the worker's own. The worker may then hand over an attempt's
    /// directory that belongs to that user with everything in it, which spares the executor giving it.
    fn user(&self, slot: usize) -> Option<u32> {
        let _ = slot;
        None
    }

    /// Removes what attempts of an earlier, crashed process of this worker left behind.
    /// Called once, before the first `run`, and after the worker has made its directories and mounts.
    async fn recover(&self) -> Result<(), Error>;

    /// Runs one attempt.
    async fn run(&self, context: RunContext) -> Outcome;

    /// Ends what the executor itself keeps running. No `run` is in progress.
    async fn shutdown(&self);
}

/// How long a job has between the polite signal and the kill.
pub const GRACE: Duration = Duration::from_secs(10);

/// What an executor is and can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// What it runs jobs in.
    pub kind: Kind,
    /// Limits that are truly enforced here. A job that asks for one that is not is still run,
    /// except where running it without would break a promise ([`Limit::NoNetwork`]): then it is refused.
    pub limits: BTreeSet<Limit>,
    /// How many graphics processors it can give to jobs.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gpus: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What an executor runs jobs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A process on the worker's machine, or a function in the worker's own process.
    Process,
    /// A container.
    Docker,
}

/// A limit that an executor enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Limit {
    /// `memory_mb` bounds the whole job, not each process.
    Memory,
    /// `memory_mb` bounds each process of the job by itself (an rlimit).
    MemoryPerProcess,
    /// `cpu_millis` bounds the processor time of the whole job.
    Cpu,
    /// `pids` bounds the whole job.
    Pids,
    /// `network: none` is an empty network.
    NoNetwork,
    /// Jobs run as another user than the worker, each slot as its own.
    User,
}

/// What one attempt runs with.
#[derive(Debug)]
pub struct RunContext {
    /// Which job.
    pub job: JobId,
    /// Which attempt, counted from 1.
    pub attempt: u32,
    /// What to run. `timeout` counts from the start of the command.
    pub spec: Arc<JobSpec>,
    /// What stands for the job's owner, if that is known: what is kept for the owner's other jobs, as by [`JobSpec::reuse`], goes by it.
    pub scope: Option<String>,
    /// A directory for this attempt alone, already filled with the job's files. The worker made it and removes it.
    /// An executor may give it to another user ([`Limit::User`]); the directories above it must let everyone through
    /// (mode 0711 is enough). If it belongs to that user already, so does everything in it ([`Executor::user`]).
    pub dir: PathBuf,
    /// Which of the worker's slots the attempt has, from 0. No two attempts have one at the same time.
    pub slot: usize,
    /// Where output goes. Waits when the reader is slow, which must reach the job's pipe.
    pub output: OutputSink,
    /// Where each step's end is said, of a job of several, and which image it runs in, of one in a container.
    pub steps: StepLog,
    /// Fires when the attempt is to stop.
    pub stop: CancellationToken,
}

/// An executor could not do what was asked, outside of any attempt.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    what: String,
    #[source]
    source: Option<std::io::Error>,
}

impl Error {
    /// An error with nothing behind it.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None }
    }

    /// An error that the system's error is behind.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        let what = what.into();
        Self { what: format!("{what}: {source}"), source: Some(source) }
    }
}
