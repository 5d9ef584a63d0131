//! What travels, by the names of the HTTP contract: one room for each exchange.
//!
//! These types are written by either half and read by the client. The server reads requests field by field instead
//! (`crate::read`), so that it can name every wrong field at once; a test holds both to the same names.

mod bytes;
mod file;
mod job;
mod lease;
mod output;
mod report;
mod scalar;
mod spec;
mod stats;
mod worker;

pub(crate) use bytes::{decode, encode};
pub(crate) use file::{
    Artifacts, FILE_CREATED, FILE_EXPIRES, FILE_NAME, Stored, StoredPage, decoded_name, file_of, file_url,
};
pub(crate) use job::{Created, CreatedBatch, Job, JobList, JobPage, JobState, Update};
pub(crate) use lease::{Lease, Leases};
pub(crate) use output::{BatchAck, Chunk, Event, OutputAck, PACKED, Packed};
pub(crate) use report::{Report, ReportAck, Step};
pub(crate) use scalar::{Cpus, Seconds, Time};
pub(crate) use spec::Spec;
pub(crate) use stats::Stats;
pub(crate) use worker::{Beat, BeatAck, Register, Registered, WorkerList};

#[cfg(feature = "client")]
pub(crate) use output::{Batch, PackedBatch, PackedChunk};
#[cfg(feature = "server")]
pub(crate) use {
    file::encoded_name,
    job::StatusName,
    output::{OutputBody, StreamName},
    report::Reports,
    worker::{Executor, Worker},
};

/// The answer to what was refused: RFC 9457, and two fields of the project's own.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub(crate) struct Problem {
    /// Where this kind of problem is described.
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    /// The status in words.
    #[serde(default)]
    pub(crate) title: String,
    /// The HTTP status.
    #[serde(default)]
    pub(crate) status: u16,
    /// What is wrong, for people.
    #[serde(default)]
    pub(crate) detail: String,
    /// The stable name of this kind of problem, for programs.
    #[serde(default)]
    pub(crate) code: String,
    /// The same as `detail`, for older clients.
    #[serde(default)]
    pub(crate) error: String,
    /// Every field that is wrong, and how.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<FieldProblem>,
    /// The most that would have been taken, in bytes, where something was too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u64>,
    /// When to try again. Older clients read it here, newer ones from the header `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "retryAfterSeconds")]
    pub(crate) retry_after_seconds: Option<u64>,
}

/// One wrong field.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub(crate) struct FieldProblem {
    /// The field, such as `backoff.factor` or `jobs[3].timeout`.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) message: String,
}

#[cfg(feature = "server")]
impl From<cmdexec_core::job::Problem> for FieldProblem {
    fn from(problem: cmdexec_core::job::Problem) -> Self {
        Self { field: problem.field, message: problem.message }
    }
}
