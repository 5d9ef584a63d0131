//! What a user does.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream as FuturesStream;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::executor::{Capabilities, Stream};
use crate::files::{ByteStream, Download, FileId, GetRange, StoredFile};
use crate::id::{JobId, Owner, WorkerId};
use crate::job::{Class, Details, JobSpec, Outcome, Reason, Status};
use crate::time::Timestamp;

/// What a user does. Whose jobs it is about was decided when the service was made
/// ([`crate::coordinator::Coordinator::as_user`], or the token that a client carries).
///
/// # Who may what
/// A `user` sees and changes its own jobs, a `viewer` sees its own, an `admin` sees and changes all. What a caller may
/// not know of does not exist for it ([`Error::JobNotFound`]); what it may see but not change is [`Error::Forbidden`].
///
/// # Errors
/// Every method may answer [`Error::Unavailable`] (nothing was done, or it is not known) and [`Error::Internal`].
///
/// # Cancellation
/// Dropping a call's future leaves either the whole of what it would have done or none of it.
#[async_trait]
pub trait JobService: fmt::Debug + Send + Sync + 'static {
    /// Submits jobs, all or none. Once this returns, they are durable and will be run. The answers are in order.
    ///
    /// With an idempotency key, a repeat within 24 h answers what the first call did, also when those jobs are gone.
    ///
    /// # Errors
    /// [`Error::Invalid`] lists every problem of every spec; [`Error::IdempotencyConflict`]: the key was used for
    /// something else.
    async fn submit_batch(&self, submission: Submission) -> Result<Vec<SubmittedJob>, Error>;

    /// The jobs with these ids, in order, with the last 64 KiB of each stream; `None` where there is none (for the caller).
    async fn get(&self, ids: &[JobId]) -> Result<Vec<Option<JobView>>, Error>;

    /// A page of jobs, newest first: summaries, without output and environment, the command cut at 200 characters.
    async fn list(&self, query: &JobQuery) -> Result<JobPage, Error>;

    /// Asks for a job to end: at once if no worker has it, else as soon as its worker confirms. Asking again is harmless.
    ///
    /// # Errors
    /// [`Error::JobFinished`], [`Error::JobNotFound`].
    async fn cancel(&self, id: JobId) -> Result<Status, Error>;

    /// The output of a job's current (or last) attempt as it was written, from a cursor on.
    ///
    /// The stream ends with [`OutputEvent::End`]; following, once the job has ended and everything was given; otherwise at
    /// the end of what is there. Whoever follows the same job shares one read of what is new; a slow reader holds up
    /// nobody, and nothing is kept for it but its place. Where an error ends the stream, the last cursor resumes it.
    /// Where bytes were lost to the cap there is an [`OutputEvent::Gap`], never nothing.
    async fn output(&self, id: JobId, query: OutputQuery) -> Result<OutputStream, Error>;

    /// Changes of jobs from now on. What is asked about is looked up first, so that a change between two calls is not missed:
    /// with [`WatchQuery::Job`] the first item says where the job stands now.
    ///
    /// A watcher that reads too slowly misses changes in between, never the last one of a job; of all jobs, it gets
    /// an [`Error::Unavailable`] and should list again.
    async fn watch(&self, query: WatchQuery) -> Result<UpdateStream, Error>;

    /// How much there is of everything. Who is no admin sees the counts of its own jobs (each to 10,000), and no queues: what
    /// waits in one is everybody's. Workers are shown to all.
    async fn stats(&self) -> Result<Stats, Error>;

    /// The workers with these ids, or all, by id; what is not there is left out. Everybody sees workers, but of what they run
    /// only the jobs that it may see.
    async fn workers(&self, ids: Option<&[WorkerId]>) -> Result<Vec<WorkerView>, Error>;

    /// Removes a worker: it gets no further leases and can't register again; what it runs it is told to drop, and is
    /// tried again elsewhere. Only for admins.
    ///
    /// # Errors
    /// [`Error::WorkerNotFound`], [`Error::Forbidden`].
    async fn remove_worker(&self, worker: &WorkerId) -> Result<(), Error>;

    /// Keeps a ZIP for the caller's jobs to bring. Durable when it returns; an upload that ends early leaves nothing behind,
    /// and memory never holds the whole. The same bytes are kept once: uploading them again renews the time until which they
    /// are kept, and gives them the new name.
    ///
    /// `name` is for people and downloads: its last path component counts, at most 255 bytes of it.
    ///
    /// # Errors
    /// [`Error::FileTooLarge`], [`Error::QuotaExceeded`]; [`Error::Invalid`]: the bytes don't begin as a ZIP does, or this
    /// service keeps no files. What the stream itself ended with.
    async fn upload(&self, name: Option<&str>, bytes: ByteStream) -> Result<StoredFile, Error>;

    /// The caller's uploads, by id, those after `after`, at most `limit` (from 1 to 500).
    async fn files(&self, after: Option<FileId>, limit: usize) -> Result<Vec<StoredFile>, Error>;

    /// What is kept of a file that the caller uploaded, or that a job of the caller's left as its artifacts.
    ///
    /// # Errors
    /// [`Error::FileNotFound`].
    async fn file(&self, id: FileId) -> Result<StoredFile, Error>;

    /// A file's bytes, or a part of them. The stream may end with [`Error::Unavailable`]: ask again from where it ended.
    ///
    /// # Errors
    /// [`Error::FileNotFound`]; [`Error::Invalid`] for `range`: the file has no such part.
    async fn download(&self, id: FileId, range: Option<GetRange>) -> Result<Download, Error>;

    /// Removes an upload of the caller's.
    ///
    /// # Errors
    /// [`Error::FileNotFound`]; [`Error::FileInUse`]: a job that has not ended brings it.
    async fn delete_file(&self, id: FileId) -> Result<(), Error>;
}

/// On whose behalf a user's service acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserPrincipal {
    /// Who. Its jobs are this owner's.
    pub owner: Owner,
    /// What it may do.
    pub role: Role,
}

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, with everybody's jobs.
    Admin,
    /// Everything with its own jobs.
    User,
    /// See its own jobs.
    Viewer,
}

/// Jobs to be submitted together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Submission {
    /// The jobs. At least 1, at most 10,000.
    pub specs: Vec<JobSpec>,
    /// 1 to 256 bytes of visible ASCII that make a repetition of this submission known. A job that is submitted alone may
    /// name it in its spec instead; a spec that names another is refused. The jobs keep it, unless it begins with `~`: such
    /// are made by transports that repeat for themselves.
    pub idempotency_key: Option<String>,
}

/// What became of one job of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmittedJob {
    /// Its id.
    pub id: JobId,
    /// Where it stands; for a repeat, now. `None`: it has ended and is gone, so that nobody knows how.
    pub status: Option<Status>,
    /// When it was submitted first.
    pub created: Timestamp,
    /// Whether this was a repeat, and the job there already.
    pub repeated: bool,
}

/// A job as its user sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub owner: Owner,
    /// What was submitted.
    pub spec: Arc<JobSpec>,
    /// Where it stands.
    pub status: Status,
    /// Counts its changes.
    pub version: u64,
    /// Which worker has it, or had it last.
    pub worker: Option<WorkerId>,
    /// When it was submitted.
    pub created: Timestamp,
    /// When its current or last attempt was claimed.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub completed: Option<Timestamp>,
    /// The exit code of the last attempt that is over; 128 + the number for a signal.
    pub exit_code: Option<i32>,
    /// What else the worker said of that attempt's end. Where it did not say how long the command ran: from the claim to the end
    /// of the attempt, by the store's clock; `None` if the attempt was given back.
    pub details: Details,
    /// The ZIP of what [`JobSpec::outputs`] found, of the last attempt that has one.
    pub artifacts: Option<FileId>,
    /// Why it failed, for programs.
    pub reason: Option<Reason>,
    /// Why it failed, for people.
    pub error: Option<String>,
    /// Its attempts, oldest first, the current one included.
    pub attempts: Vec<AttemptView>,
    /// The last 64 KiB of its standard output.
    pub stdout: Bytes,
    /// The last 64 KiB of its standard error.
    pub stderr: Bytes,
    /// How many bytes of its output were lost to the cap.
    pub dropped: u64,
}

/// An attempt as the job's user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptView {
    /// Counted from 1.
    pub number: u32,
    /// Who ran it.
    pub worker: WorkerId,
    /// When it was claimed.
    pub started: Timestamp,
    /// When it was over.
    pub ended: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<Ended>,
    /// Its exit code; 128 + the number for a signal.
    pub exit_code: Option<i32>,
    /// Exactly which image it ran in, once it is over.
    pub image: Option<String>,
}

/// How an attempt ended, as its user sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ended {
    /// With exit code 0.
    Completed,
    /// With another exit code, or by a signal.
    ExitCode,
    /// Its time was over.
    Timeout,
    /// It used more memory than it may.
    OutOfMemory,
    /// It was stopped because somebody cancelled the job.
    Cancelled,
    /// Its worker gave it back.
    Returned,
    /// The job's files could not be had or unpacked.
    InputError,
    /// The executor could not run it.
    ExecutorError,
    /// Its worker was lost.
    WorkerLost,
}

impl From<&Outcome> for Ended {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Exited { code: 0 } => Self::Completed,
            Outcome::Exited { .. } | Outcome::Signaled { .. } => Self::ExitCode,
            Outcome::TimedOut => Self::Timeout,
            Outcome::OutOfMemory => Self::OutOfMemory,
            Outcome::Stopped => Self::Cancelled,
            Outcome::Returned => Self::Returned,
            Outcome::InputError { .. } => Self::InputError,
            Outcome::ExecutorError { .. } => Self::ExecutorError,
            Outcome::Lost => Self::WorkerLost,
        }
    }
}

/// Which jobs to list. Every condition must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobQuery {
    /// Only those in this status.
    pub status: Option<Status>,
    /// Only those whose current or last worker this is.
    pub worker: Option<WorkerId>,
    /// Only those that ask for this label.
    pub label: Option<String>,
    /// Only those created after this.
    pub created_after: Option<Timestamp>,
    /// Only those older than this one: the last of the page before.
    pub before: Option<JobId>,
    /// Leave out this many, at most 10,000.
    pub offset: usize,
    /// How many at most, from 1 to 500.
    pub limit: usize,
}

impl Default for JobQuery {
    /// The 50 newest.
    fn default() -> Self {
        Self { status: None, worker: None, label: None, created_after: None, before: None, offset: 0, limit: 50 }
    }
}

/// A page of jobs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JobPage {
    /// The jobs, newest first.
    pub jobs: Vec<JobView>,
    /// What to put into [`JobQuery::before`] for the next page, if there is one.
    pub next: Option<JobId>,
    /// How many jobs match, counted up to 10,000.
    pub total: usize,
}

/// A place in a job's output: before the piece `next` of an attempt. As text, `attempt.next.bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cursor {
    /// Which attempt.
    pub attempt: u32,
    /// The `seq` of the next piece.
    pub next: u64,
    /// How many bytes the attempt wrote before it, on both streams. What is lost behind a cursor is counted by this.
    pub bytes: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.attempt, self.next, self.bytes)
    }
}

/// A text was not a [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor that this service gave out")]
pub struct ParseCursorError;

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, ParseCursorError> {
        let (attempt, rest) = text.split_once('.').ok_or(ParseCursorError)?;
        let (next, bytes) = rest.split_once('.').ok_or(ParseCursorError)?;
        let attempt = attempt.parse().map_err(|_| ParseCursorError)?;
        let number = |text: &str| text.parse().map_err(|_| ParseCursorError);
        Ok(Self { attempt, next: number(next)?, bytes: number(bytes)? })
    }
}

/// Which output to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputQuery {
    /// From where on; from the beginning by default. A cursor of an attempt that is past gives a
    /// [`OutputEvent::Reset`] first.
    pub from: Option<Cursor>,
    /// Without a cursor: only what came to be kept at this time or later, by the store's clock.
    pub since: Option<Timestamp>,
    /// Without a cursor: only the last so many lines of what is there, at most [`OutputQuery::MAX_TAIL`] of them. The
    /// streams are counted together, as they are given; what follows the last line's end is a line too.
    pub tail: Option<usize>,
    /// Wait for more until the job has ended.
    pub follow: bool,
    /// Only this stream.
    pub stream: Option<Stream>,
}

impl OutputQuery {
    /// The most that [`OutputQuery::tail`] may be.
    pub const MAX_TAIL: usize = 100_000;
}

/// What a stream of output gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputEvent {
    /// Bytes that the job wrote.
    Chunk {
        /// Where to resume after this.
        cursor: Cursor,
        /// Which stream.
        stream: Stream,
        /// What was written.
        bytes: Bytes,
    },
    /// Here bytes are missing that the job wrote: they were too much to be kept.
    Gap {
        /// Where to resume after this.
        cursor: Cursor,
        /// How many bytes, of both streams together.
        bytes: u64,
    },
    /// A new attempt has begun, or what was streamed is replaced: what was given so far is void.
    Reset {
        /// Where to resume after this.
        cursor: Cursor,
    },
    /// Nothing follows.
    End {
        /// Where the job stands.
        status: Status,
    },
}

impl OutputEvent {
    /// Where to resume after it, if anything can follow.
    pub fn cursor(&self) -> Option<Cursor> {
        match self {
            Self::Chunk { cursor, .. } | Self::Gap { cursor, .. } | Self::Reset { cursor } => Some(*cursor),
            Self::End { .. } => None,
        }
    }
}

/// A stream of a job's output.
pub type OutputStream = Pin<Box<dyn FuturesStream<Item = Result<OutputEvent, Error>> + Send>>;

/// What to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchQuery {
    /// One job, until it has ended.
    Job(JobId),
    /// Every job that the caller may see, without end.
    All,
}

/// A job has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobUpdate {
    /// Which job.
    pub id: JobId,
    /// Where it stands.
    pub status: Status,
    /// Counts its changes.
    pub version: u64,
    /// Which worker has it, or had it last.
    pub worker: Option<WorkerId>,
    /// The exit code of the last attempt that is over.
    pub exit_code: Option<i32>,
    /// When.
    pub at: Timestamp,
}

/// A stream of changes.
pub type UpdateStream = Pin<Box<dyn FuturesStream<Item = Result<JobUpdate, Error>> + Send>>;

/// How much there is of everything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stats {
    /// Jobs by status, every status named.
    pub jobs: BTreeMap<Status, u64>,
    /// The queues, by class; none for who is no admin.
    pub queues: Vec<ClassStats>,
    /// Workers by status, every status named.
    pub workers: BTreeMap<WorkerStatus, u64>,
    /// Jobs that ended at this coordinator within the last minute.
    pub finished_last_minute: u64,
}

/// How much waits in one class.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassStats {
    /// Which class.
    pub class: Class,
    /// How many jobs are queued.
    pub queued: u64,
    /// How long ago the job that is served next was submitted.
    pub head_wait: Duration,
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerStatus {
    /// Has no job.
    Idle,
    /// Has jobs.
    Busy,
    /// Finishes what it has and takes no more.
    Draining,
    /// Was not heard of for too long.
    Offline,
    /// Says that something is wrong with it.
    Error,
}

impl WorkerStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Idle, Self::Busy, Self::Draining, Self::Offline, Self::Error];

    /// Whether a worker that says so of itself takes jobs.
    pub fn takes_jobs(self) -> bool {
        matches!(self, Self::Idle | Self::Busy)
    }

    /// The status as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::Offline => "offline",
            Self::Error => "error",
        }
    }
}

/// A worker as users see it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    /// Its id.
    pub id: WorkerId,
    /// The machine's name.
    pub hostname: String,
    /// What it is doing.
    pub status: WorkerStatus,
    /// How many processors it has, or offers.
    pub cpu_count: u32,
    /// How much memory it has, or offers, in MiB.
    pub total_memory_mb: u64,
    /// How busy its processors are, 0 to 100.
    pub cpu_usage: f64,
    /// How full its memory is, 0 to 100.
    pub ram_usage: f64,
    /// Its labels.
    pub labels: Vec<String>,
    /// What it can run jobs in, and which limits it enforces.
    pub executors: Vec<Capabilities>,
    /// How many jobs it takes at once; `None` if it did not say.
    pub slots: Option<u32>,
    /// The jobs that it has: those that the caller may see. Its status is by all of them.
    pub running: Vec<JobId>,
    /// Jobs that completed on it.
    pub jobs_completed: u64,
    /// Jobs that failed on it.
    pub jobs_failed: u64,
    /// When it was last heard of.
    pub last_heartbeat: Timestamp,
    /// When it registered first.
    pub registered: Timestamp,
    /// The version of its program.
    pub version: Option<String>,
    /// What else it said of itself.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}
