//! The forms in which the services' exchanges are written, by the names of the HTTP contract: what every transport says in JSON.
//!
//! It is for the project's transports, which is why it promises nothing to anybody else: what it writes is the promise, held still by the
//! golden files of each transport. [`read`] takes requests field by field, so that every wrong field is named at once, and by the
//! older names too ([`older`]); the types of the root are written by either end and read by clients. A test holds both to the same names.
#![expect(
    missing_docs,
    reason = "fields are named as the contract names them, which docs/api.md and the OpenAPI document describe"
)]

mod bytes;
mod file;
mod job;
mod lease;
#[cfg(feature = "server")]
pub mod older;
mod output;
#[cfg(feature = "client")]
mod pack;
#[cfg(feature = "client")]
mod packed;
#[cfg(feature = "server")]
pub mod read;
mod refusal;
mod report;
mod scalar;
mod spec;
#[cfg(feature = "client")]
mod spread;
mod stats;
#[cfg(feature = "client")]
mod tls;
mod worker;

pub use bytes::{decode, encode};
pub use file::{Artifacts, FILE_CREATED, FILE_EXPIRES, FILE_NAME, Stored, StoredPage, decoded_name, file_of, file_url};
pub use job::{Attempt, Created, CreatedBatch, Job, JobList, JobPage, JobState, RunResult, Update};
pub use lease::{Lease, Leases};
pub use output::{Batch, BatchAck, Chunk, Event, OutputAck, PACKED, Packed, PackedBatch, PackedChunk};
pub use refusal::{LATER, error_of};
pub use report::{Outcome, Report, ReportAck, Step};
pub use scalar::{Cpus, Seconds, Time};
pub use spec::{Backoff, Spec};
pub use stats::{Demand, Queue, Stats, Throughput};
pub use worker::{Beat, BeatAck, Executor, Held, Register, Registered, Worker, WorkerList};

#[cfg(feature = "server")]
pub use file::encoded_name;
#[cfg(feature = "client")]
pub use spread::{OutputAcks, ReportAcks, Sizes, SpreadOutput, is_repeatable};
#[cfg(feature = "client")]
pub use tls::tls;
#[cfg(feature = "openapi")]
pub use {
    job::{EndedName, ReasonName, StatusName},
    output::{OutputBody, StreamName},
    report::Reports,
    spec::NetworkName,
    worker::{KindName, WorkerStatusName},
};
#[cfg(feature = "client")]
use {pack::Packer, packed::packed};

/// The answer to what was refused: RFC 9457, and two fields of the project's own.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Where this kind of problem is described.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The status in words.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What is wrong, for people.
    #[serde(default)]
    pub detail: String,
    /// The stable name of this kind of problem, for programs.
    #[serde(default)]
    pub code: String,
    /// The same as `detail`, for older clients.
    #[serde(default)]
    pub error: String,
    /// Every field that is wrong, and how.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<FieldProblem>,
    /// The most that would have been taken, in bytes, where something was too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// When to try again. Older clients read it here, newer ones from the header `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "retryAfterSeconds")]
    pub retry_after_seconds: Option<u64>,
}

/// One wrong field.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldProblem {
    /// The field, such as `backoff.factor` or `jobs[3].timeout`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl From<cmdexec_core::job::Problem> for FieldProblem {
    fn from(problem: cmdexec_core::job::Problem) -> Self {
        Self { field: problem.field, message: problem.message }
    }
}

/// A form as JSON: structs of strings and numbers, which always serialise.
pub fn body(value: &impl serde::Serialize) -> ::bytes::Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// The beginning of a list's request on a worker's behalf, up to its bracket: what [`Packer`] puts before its items.
#[cfg(feature = "client")]
fn head(worker: &cmdexec_core::id::WorkerId, list: &str) -> Vec<u8> {
    format!("{{\"workerId\":{},\"{list}\":[", serde_json::json!(worker)).into_bytes()
}
