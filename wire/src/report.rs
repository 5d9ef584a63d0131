//! How a worker reports the end of attempts.

#[cfg(feature = "client")]
use cmdexec_core::{
    job,
    service::{FinalOutput, FinishedAttempt},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[cfg(feature = "client")]
use super::encode;
use super::{BatchAck, Chunk, Seconds};

/// The end of an attempt: by its `exitCode`, or precisely by its `outcome`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub job_id: Uuid,
    /// Who sends this; needed where the token speaks for any worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_token: Option<String>,
    /// The command's exit code. Needed where there is no `outcome`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How it ended, where an exit code does not say it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Milliseconds that the command ran. `duration` says the same in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// How each of `commands` ended that was begun, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The `fileId` of the artifacts that were uploaded for this attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<String>,
    /// What the job's owner should know though it changes nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Exactly which image it ran in: its registry's digest, or the id of one that is nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The attempt's last pieces of output, numbered on from those that were sent before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<Chunk>,
    /// The attempt's whole standard output: it and `stderr` replace what was sent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// The attempt's whole standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
}

/// How one of a job's `commands` ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its exit code; 128 + the number for a signal. Null if it was under way when the job was ended.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Seconds that it ran.
    pub duration: Seconds,
}

impl From<&cmdexec_core::job::Step> for Step {
    fn from(step: &cmdexec_core::job::Step) -> Self {
        Self { exit_code: step.exit_code, duration: Seconds(step.duration) }
    }
}

#[cfg(feature = "client")]
impl From<Step> for cmdexec_core::job::Step {
    fn from(Step { exit_code, duration: Seconds(duration) }: Step) -> Self {
        Self { exit_code, duration }
    }
}

/// Several reports of one worker. Describes the body: clients pack it item by item.
#[cfg(feature = "openapi")]
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reports {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    pub results: Vec<Report>,
}

/// The answer to reports.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReportAck {
    pub ok: bool,
    /// What became of each of `results`, in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Vec<BatchAck>>,
}

/// How an attempt ended, from the executor's own evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum Outcome {
    /// The command exited by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal that nobody here sent ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// Its time was over.
    TimedOut,
    /// It used more memory than it may.
    OutOfMemory,
    /// It was told to stop.
    Stopped,
    /// The worker gives it back. Costs the job nothing.
    Returned,
    /// The job's files could not be had or unpacked.
    InputError {
        /// What was wrong with them.
        message: String,
    },
    /// The executor could not run the command.
    ExecutorError {
        /// What went wrong.
        message: String,
    },
}

#[cfg(feature = "client")]
impl Outcome {
    /// How to say this outcome; `None` for what only a server may say.
    fn of(outcome: &job::Outcome) -> Option<Self> {
        Some(match outcome.clone() {
            job::Outcome::Exited { code } => Self::Exited { code },
            job::Outcome::Signaled { signal } => Self::Signaled { signal },
            job::Outcome::TimedOut => Self::TimedOut,
            job::Outcome::OutOfMemory => Self::OutOfMemory,
            job::Outcome::Stopped => Self::Stopped,
            job::Outcome::Returned => Self::Returned,
            job::Outcome::InputError { message } => Self::InputError { message },
            job::Outcome::ExecutorError { message } => Self::ExecutorError { message },
            job::Outcome::Lost => return None,
        })
    }
}

#[cfg(feature = "client")]
impl Report {
    /// How to report this; `None` for what only a server may say.
    pub fn of(attempt: &FinishedAttempt) -> Option<Self> {
        let outcome = Outcome::of(&attempt.outcome)?;
        let mut report = Self {
            job_id: attempt.job.as_uuid(),
            worker_id: None,
            lease_token: attempt.token.map(|token| token.reveal()),
            exit_code: attempt.outcome.exit_code(),
            // An exit code says it all for most, and keeps the common report short.
            outcome: (!matches!(outcome, Outcome::Exited { .. })).then_some(outcome),
            duration_ms: attempt.details.duration.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            steps: attempt.details.steps.iter().map(Step::from).collect(),
            artifacts: attempt.details.artifacts.map(|id| id.to_string()),
            warnings: attempt.details.warnings.clone(),
            image: attempt.details.image.clone(),
            chunks: Vec::new(),
            stdout: None,
            stdout_base64: None,
            stderr: None,
            stderr_base64: None,
        };
        match &attempt.output {
            FinalOutput::None => {}
            FinalOutput::Rest(chunks) => report.chunks = chunks.iter().map(Chunk::numbered).collect(),
            FinalOutput::Whole { stdout, stderr } => {
                (report.stdout, report.stdout_base64) = encode(stdout);
                (report.stderr, report.stderr_base64) = encode(stderr);
            }
        }
        Some(report)
    }
}
