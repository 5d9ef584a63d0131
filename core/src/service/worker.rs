//! What a worker does.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{StopStream, WorkerStatus};
use crate::Error;
use crate::executor::{Capabilities, OutputChunk};
use crate::files::{ByteStream, Download, FileId, GetRange};
use crate::id::{JobId, LeaseToken, WorkerId};
use crate::job::{Details, JobSpec, Outcome};
use crate::store::{Chunk, Listed};
use crate::time::Timestamp;

/// What a worker does. Which workers it may speak for was decided when the service was made
/// ([`crate::coordinator::Coordinator::as_worker`], or the token that a client carries): for any other it answers
/// [`Error::Forbidden`].
///
/// # Repeating
/// Every call may be repeated when it is not known whether it arrived: registering and beating again renews again; output
/// with a `seq` that was seen is ignored; a report that was accepted is accepted again. Two are different.
/// [`WorkerService::lease`]: what a lost reply handed out is held until the worker's heartbeats have not listed it for an interval.
/// And [`WorkerService::heartbeat`]: a beat that is repeated must list what the worker holds by then, for what two in a row do not list
/// counts as dropped. A client repeats none by itself.
///
/// # Errors
/// Every method may answer [`Error::Unavailable`] (repeat it) and [`Error::Internal`].
#[async_trait]
pub trait WorkerService: fmt::Debug + Send + Sync + 'static {
    /// Makes a worker known, or known again. Durable.
    ///
    /// # Errors
    /// [`Error::Forbidden`]: the worker was removed.
    async fn register(&self, registration: Registration) -> Result<Registered, Error>;

    /// Renews the worker's session, and with it the lease of every attempt that it holds. The answer says which to stop
    /// because they are cancelled, and which because they are no longer the worker's.
    ///
    /// A worker that lists what it holds must list everything it holds, each attempt from the moment it has the lease
    /// until its report is acknowledged.
    ///
    /// # Errors
    /// [`Error::WorkerNotFound`]: register again. [`Error::Forbidden`]: the worker was removed and its leases have ended.
    async fn heartbeat(&self, worker: &WorkerId, beat: Heartbeat) -> Result<HeartbeatReply, Error>;

    /// Jobs that the worker has and that are cancelled, from now on and as it happens. It only saves waiting for the heartbeat that says the same
    /// and is what counts: a stream may miss some, and a service that can't tell gives one that stays silent, as this does unless it is implemented. It
    /// ends when the worker is removed, or when a service that shares its store learns that. Who wraps another service must hand its stream on.
    async fn stops(&self, worker: &WorkerId) -> Result<StopStream, Error> {
        let _ = worker;
        Ok(Box::pin(futures_util::stream::pending()))
    }

    /// Asks for jobs; waits until there is one that fits, at most `wait` (and at most 60 s).
    ///
    /// A worker whose last word of itself (a heartbeat, or its registration) was [`WorkerStatus::Draining`],
    /// [`WorkerStatus::Error`] or [`WorkerStatus::Offline`] gets none until it says otherwise, and none gets more than
    /// [`crate::coordinator::Options::max_leases`] at once.
    ///
    /// Without a wait the answer is empty only if no job that fits was committed before the call. Dropping the
    /// future returns what was claimed for it.
    ///
    /// # Errors
    /// [`Error::WorkerNotFound`]: register again. [`Error::Forbidden`]: the worker was removed.
    async fn lease(&self, worker: &WorkerId, request: LeaseRequest) -> Result<Vec<LeasedJob>, Error>;

    /// Adds to the output of attempts; durable when it returns. The answers are in the order of the batches: whether
    /// the attempt is to be stopped because it is cancelled, or [`Error::LeaseLost`].
    ///
    /// A batch without pieces just asks.
    async fn append_output(
        &self,
        worker: &WorkerId,
        batches: Vec<OutputBatch>,
    ) -> Result<Vec<Result<OutputAck, Error>>, Error>;

    /// Reports how attempts ended; durable when it returns. The answers are in the order of the reports:
    /// accepted (perhaps before), or [`Error::LeaseLost`].
    async fn finish(&self, worker: &WorkerId, attempts: Vec<FinishedAttempt>) -> Result<Vec<Result<(), Error>>, Error>;

    /// The bytes of a file that a job brings, or a part of them, for a worker that has a lease for such a job. Without a
    /// `worker`, the service speaks for one worker or for any; then any worker's lease will do.
    ///
    /// # Errors
    /// [`Error::FileNotFound`]: it is gone, or no job that the worker has a lease for brings it. [`Error::Invalid`] for
    /// `range`: the file has no such part.
    async fn download(
        &self,
        worker: Option<&WorkerId>,
        file: FileId,
        range: Option<GetRange>,
    ) -> Result<Download, Error>;

    /// Keeps the ZIP of an attempt's outputs, durably, for as long as the job is kept; its id goes into
    /// [`crate::job::Details::artifacts`] of the attempt's report. An upload that ends early leaves nothing behind.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::FileTooLarge`], [`Error::QuotaExceeded`] (of the job's owner);
    /// [`Error::Invalid`]: the bytes don't begin as a ZIP does, or this service keeps no files. What the stream itself ended with.
    async fn upload_artifacts(
        &self,
        worker: &WorkerId,
        job: JobId,
        token: Option<LeaseToken>,
        bytes: ByteStream,
    ) -> Result<FileId, Error>;
}

/// For which workers a worker's service speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerPrincipal {
    /// For this one.
    Bound(WorkerId),
    /// For any, as a worker does that was given the shared secret.
    Any,
}

impl From<WorkerId> for WorkerPrincipal {
    fn from(id: WorkerId) -> Self {
        Self::Bound(id)
    }
}

/// What a worker says of itself when it comes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// Its id; one is made if there is none.
    pub worker: Option<WorkerId>,
    /// The machine's name.
    pub hostname: String,
    /// How many processors it offers.
    pub cpu_count: u32,
    /// How much memory it offers, in MiB.
    pub total_memory_mb: u64,
    /// What it can run jobs in. `None` from a worker of an earlier protocol version: then it has all, and enforces nothing.
    pub executors: Option<Vec<Capabilities>>,
    /// How many jobs it takes at once. `None`: asking is capacity.
    pub slots: Option<u32>,
    /// Its labels.
    pub labels: BTreeSet<String>,
    /// The version of its program.
    pub version: Option<String>,
    /// What else it says of itself.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// How it is; counts until its first heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

impl Registration {
    /// How many graphics processors it offers to jobs: as many as the executor that has most of them.
    pub fn gpus(&self) -> u32 {
        self.executors.iter().flatten().map(|executor| executor.gpus).max().unwrap_or(0)
    }

    /// A worker that offers this many processors and this much memory (in MiB), asks for as many jobs as it likes, and
    /// runs every kind of job.
    pub fn new(hostname: impl Into<String>, cpu_count: u32, total_memory_mb: u64) -> Self {
        Self {
            worker: None,
            hostname: hostname.into(),
            cpu_count,
            total_memory_mb,
            executors: None,
            slots: None,
            labels: BTreeSet::new(),
            version: None,
            metadata: serde_json::Map::new(),
            usage: None,
        }
    }
}

/// What a worker is told when it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its id.
    pub worker: WorkerId,
    /// How often to beat.
    pub heartbeat_interval: Duration,
    /// How often to ask, for a worker that does not wait when it asks.
    pub poll_interval: Duration,
    /// How long a lease lasts from the last acknowledged heartbeat.
    pub lease: Duration,
}

/// How a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// What it is doing.
    pub status: WorkerStatus,
    /// How busy its processors are, 0 to 100.
    pub cpu: f64,
    /// How full its memory is, 0 to 100.
    pub ram: f64,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq)]
pub struct Heartbeat {
    /// How the worker is.
    pub usage: Usage,
    /// Every attempt that it holds. `None` from a worker of an earlier protocol version: it renews every lease it has.
    pub held: Option<Vec<Listed>>,
}

/// The answer to a sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// The store's clock.
    pub server_time: Timestamp,
    /// Jobs that are cancelled: stop them and report.
    pub cancel: Vec<JobId>,
    /// Jobs that are no longer the worker's: stop them and forget them.
    pub lost: Vec<JobId>,
}

/// A worker asks for jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRequest {
    /// How many it takes, at least 1.
    pub max: usize,
    /// How long it waits for the first.
    pub wait: Duration,
}

/// A job that a worker has the lease for.
#[derive(Debug, Clone, PartialEq)]
pub struct LeasedJob {
    /// Which job.
    pub job: JobId,
    /// What fences the attempt.
    pub token: LeaseToken,
    /// Which attempt, counted from 1.
    pub attempt: u32,
    /// How long the lease lasts from the worker's last acknowledged heartbeat, and at least from now.
    pub lease: Duration,
    /// When the lease ends if no heartbeat renews it, by the coordinator's clock.
    pub expires: Timestamp,
    /// What stands for the job's owner, a digest of the name: what a worker keeps for the owner's other jobs goes by it. `None` where the
    /// coordinator does not say: then nothing is kept.
    pub scope: Option<String>,
    /// What to run.
    pub spec: Arc<JobSpec>,
}

/// Output of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputBatch {
    /// Which job.
    pub job: JobId,
    /// Which attempt. Workers of earlier protocol versions send none: then it is the worker's current one.
    pub token: Option<LeaseToken>,
    /// What it wrote.
    pub pieces: OutputPieces,
}

/// Pieces of output, numbered or not.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputPieces {
    /// Each with its number among the attempt's pieces: those seen before are ignored.
    Numbered(Vec<Chunk>),
    /// From a worker of an earlier protocol version: in the order they arrive.
    Plain(Vec<OutputChunk>),
}

/// The answer to output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputAck {
    /// The job is cancelled: stop it and report.
    pub cancel: bool,
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedAttempt {
    /// Which job.
    pub job: JobId,
    /// Which attempt. Workers of earlier protocol versions send none.
    pub token: Option<LeaseToken>,
    /// How it ended.
    pub outcome: Outcome,
    /// What else there is to say of it. Artifacts must have been uploaded for this attempt.
    pub details: Details,
    /// Output that comes with the report. Kept before the report is.
    pub output: FinalOutput,
}

impl FinishedAttempt {
    /// The end of the attempt that `leased` began, without output.
    pub fn new(leased: &LeasedJob, outcome: Outcome) -> Self {
        Self {
            job: leased.job,
            token: Some(leased.token),
            outcome,
            details: Details::default(),
            output: FinalOutput::None,
        }
    }
}

/// Output that comes with a report.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum FinalOutput {
    /// None; everything was sent before.
    #[default]
    None,
    /// The last pieces, numbered on from those that were sent before.
    Rest(Vec<Chunk>),
    /// The attempt's whole output, which replaces what was sent before.
    Whole {
        /// Standard output.
        stdout: Bytes,
        /// Standard error.
        stderr: Bytes,
    },
}
