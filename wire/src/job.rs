//! A job as it is shown, and what became of submissions.

use cmdexec_core::job::{Reason, Status};
use cmdexec_core::service::Ended;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Seconds, Spec, Step, Time};

/// A job: everything in its spec, and where it stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Job {
    pub job_id: Uuid,
    #[cfg_attr(feature = "openapi", schema(value_type = StatusName))]
    pub status: Status,
    /// Whose it is.
    pub owner: String,
    /// Counts its changes.
    #[serde(default)]
    pub version: u64,
    /// Which worker has it, or had it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    pub created_at: Time,
    /// When its current or last attempt was handed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// The exit code of the last attempt that is over; 128 + the number for a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The last 64 KiB of standard output. What is not UTF-8 is replaced; then `stdoutBase64` has the bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// The last 64 KiB of standard error. What is not UTF-8 is replaced; then `stderrBase64` has the bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
    /// Whether the stored output lost bytes to the cap.
    #[serde(default)]
    pub truncated: bool,
    /// How many bytes it lost.
    #[serde(default)]
    pub dropped_bytes: u64,
    /// Why it failed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why it failed, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<ReasonName>))]
    pub reason: Option<Reason>,
    /// How the last attempt that is over went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RunResult>,
    /// Its attempts, oldest first, the current one included.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    /// Where the ZIP is of what `outputs` found, of the last attempt that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts_url: Option<String>,
    /// What to know of the last attempt that is over though it changed nothing, such as an output that was not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    #[serde(flatten)]
    pub spec: Spec,
}

/// How a job's last attempt that is over went.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RunResult {
    /// Whether the command did what it was asked to.
    pub success: bool,
    /// Seconds that the command ran, as the worker says; where it did not, that it had the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Seconds>,
    /// How many lines there are in `stdout` and `stderr`; absent in a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<usize>,
    /// How each of `commands` went that was begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// Where the ZIP is of what that attempt left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts_url: Option<String>,
}

/// One attempt of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    pub worker_id: String,
    pub started_at: Time,
    /// Null while it runs.
    pub ended_at: Option<Time>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<EndedName>))]
    pub outcome: Option<Ended>,
    pub exit_code: Option<i32>,
    /// Exactly which image it ran in: by its registry's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// A page of jobs, newest first: summaries, without output and environment, the command cut at 200 characters.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct JobPage {
    pub jobs: Vec<Job>,
    /// What to send as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many jobs match, counted to 10,000.
    pub total: usize,
}

/// Several jobs, in the order in which they were asked for; null where there is none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobList {
    pub jobs: Vec<Option<Job>>,
}

/// What became of a submission.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Created {
    pub job_id: Uuid,
    /// Null for a repeat whose job has ended and is gone.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<StatusName>))]
    pub status: Option<Status>,
    pub created_at: Time,
}

/// What became of a batch, in the request's order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedBatch {
    pub jobs: Vec<Created>,
}

/// Where a job stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct JobState {
    pub job_id: Uuid,
    #[cfg_attr(feature = "openapi", schema(value_type = StatusName))]
    pub status: Status,
}

/// A job has changed: the data of an `update` event.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Update {
    pub job_id: Uuid,
    #[cfg_attr(feature = "openapi", schema(value_type = StatusName))]
    pub status: Status,
    /// Counts the job's changes.
    pub version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    pub at: Time,
}

/// Where a job stands.
#[cfg(feature = "openapi")]
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum StatusName {
    /// Waits for its time or a retry delay.
    Scheduled,
    /// Ready to be handed out.
    Queued,
    /// A worker has it.
    Running,
    /// A worker has it and is to stop it.
    Cancelling,
    /// Ended with exit code 0.
    Completed,
    /// Ended otherwise.
    Failed,
    /// Ended because somebody asked.
    Cancelled,
}

/// Why a job failed.
#[cfg(feature = "openapi")]
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum ReasonName {
    ExitCode,
    Timeout,
    OutOfMemory,
    WorkerLost,
    InputError,
    ExecutorError,
    DependencyFailed,
}

/// How an attempt ended.
#[cfg(feature = "openapi")]
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum EndedName {
    Completed,
    ExitCode,
    Timeout,
    OutOfMemory,
    Cancelled,
    Returned,
    InputError,
    ExecutorError,
    WorkerLost,
}

#[cfg(feature = "server")]
mod write {
    use cmdexec_core::job::Details;
    use cmdexec_core::service::{AttemptView, JobUpdate, JobView, SubmittedJob};

    use super::{Attempt, Created, Job, RunResult, Step, Update};
    use crate::{Seconds, Spec, Time, encode, file_url};

    impl Job {
        /// The job with all that is known of it.
        pub fn whole(view: &JobView) -> Self {
            let mut job = Self::summary(view);
            job.spec = Spec::whole(&view.spec);
            let (stdout, stderr) = (String::from_utf8_lossy(&view.stdout), String::from_utf8_lossy(&view.stderr));
            if let Some(result) = &mut job.result {
                result.lines = Some(stdout.lines().count() + stderr.lines().count());
            }
            (job.stdout, job.stderr) = (Some(stdout.into_owned()), Some(stderr.into_owned()));
            (job.stdout_base64, job.stderr_base64) = (encode(&view.stdout).1, encode(&view.stderr).1);
            job
        }

        /// The job as it stands in a list.
        pub fn summary(view: &JobView) -> Self {
            let over = view.status.is_finished() || view.details != Details::default();
            Self {
                job_id: view.id.as_uuid(),
                status: view.status,
                owner: view.owner.to_string(),
                version: view.version,
                worker_id: view.worker.as_ref().map(ToString::to_string),
                created_at: Time(view.created),
                started_at: view.started.map(Time),
                completed_at: view.completed.map(Time),
                exit_code: view.exit_code,
                stdout: None,
                stderr: None,
                stdout_base64: None,
                stderr_base64: None,
                truncated: view.dropped > 0,
                dropped_bytes: view.dropped,
                error: view.error.clone(),
                reason: view.reason,
                result: over.then(|| RunResult {
                    success: view.exit_code == Some(0),
                    duration: view.details.duration.map(Seconds),
                    lines: None,
                    steps: view.details.steps.iter().map(Step::from).collect(),
                    artifacts_url: view.details.artifacts.map(file_url),
                }),
                attempts: view.attempts.iter().map(Attempt::from).collect(),
                artifacts_url: view.artifacts.map(file_url),
                warnings: view.details.warnings.clone(),
                spec: Spec { env: None, ..Spec::whole(&view.spec) },
            }
        }
    }

    impl From<&AttemptView> for Attempt {
        fn from(view: &AttemptView) -> Self {
            Self {
                number: view.number,
                worker_id: view.worker.to_string(),
                started_at: Time(view.started),
                ended_at: view.ended.map(Time),
                outcome: view.outcome,
                exit_code: view.exit_code,
                image: view.image.clone(),
            }
        }
    }

    impl From<&SubmittedJob> for Created {
        fn from(job: &SubmittedJob) -> Self {
            Self { job_id: job.id.as_uuid(), status: job.status, created_at: Time(job.created) }
        }
    }

    impl From<&JobUpdate> for Update {
        fn from(update: &JobUpdate) -> Self {
            Self {
                job_id: update.id.as_uuid(),
                status: update.status,
                version: update.version,
                worker_id: update.worker.as_ref().map(ToString::to_string),
                exit_code: update.exit_code,
                at: Time(update.at),
            }
        }
    }
}

#[cfg(feature = "client")]
mod read {
    use cmdexec_core::id::JobId;
    use cmdexec_core::job::Details;
    use cmdexec_core::service::{AttemptView, JobView};

    use super::{Attempt, Job};
    use crate::{Seconds, decode, file_of};

    impl Job {
        /// The job as the service that was asked gave it; `None` if the answer makes no sense.
        pub fn into_view(self) -> Option<JobView> {
            let bytes = |text: Option<String>, base64: Option<String>| match base64 {
                Some(base64) => decode(&base64),
                None => Some(text.unwrap_or_default().into()),
            };
            let file = |url: Option<String>| match url {
                None => Some(None),
                Some(url) => file_of(&url).map(Some),
            };
            let mut details = Details { warnings: self.warnings, ..Details::default() };
            if let Some(result) = self.result {
                details.duration = result.duration.map(|Seconds(duration)| duration);
                details.steps = result.steps.into_iter().map(Into::into).collect();
                details.artifacts = file(result.artifacts_url)?;
            }
            details.image =
                self.attempts.iter().rev().find(|attempt| attempt.ended_at.is_some()).and_then(|a| a.image.clone());
            let attempts: Option<Vec<_>> = self.attempts.into_iter().map(Attempt::into_view).collect();
            Some(JobView {
                id: JobId::from_uuid(self.job_id),
                owner: self.owner.parse().ok()?,
                spec: self.spec.into_spec()?.into(),
                status: self.status,
                version: self.version,
                worker: self.worker_id.map(|id| id.parse()).transpose().ok()?,
                created: self.created_at.0,
                started: self.started_at.map(|t| t.0),
                completed: self.completed_at.map(|t| t.0),
                exit_code: self.exit_code,
                details,
                artifacts: file(self.artifacts_url)?,
                reason: self.reason,
                error: self.error,
                attempts: attempts?,
                stdout: bytes(self.stdout, self.stdout_base64)?,
                stderr: bytes(self.stderr, self.stderr_base64)?,
                dropped: self.dropped_bytes,
            })
        }
    }

    impl Attempt {
        fn into_view(self) -> Option<AttemptView> {
            Some(AttemptView {
                number: self.number,
                worker: self.worker_id.parse().ok()?,
                started: self.started_at.0,
                ended: self.ended_at.map(|t| t.0),
                outcome: self.outcome,
                exit_code: self.exit_code,
                image: self.image,
            })
        }
    }
}
