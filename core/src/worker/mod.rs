//! The worker runtime: takes jobs from a coordinator, wherever that is, and runs them by its executors.
//!
//! One room for each thing it does: [`session`](self) keeps touch, `lease` asks for jobs, `attempt` runs one from its lease to its
//! report, `inputs` fills its directory and `outputs` collects what is left in it, `output`, `outbox` and `report` carry back what comes of it. They share
//! one table, `held`: every attempt from the moment the worker has its lease until its report is acknowledged.
//!
//! # What it promises
//! - **Out of touch** it keeps its jobs running and reports when it is back. Exclusive jobs it stops before their leases are over,
//!   counted from the sending of the last renewal that was acknowledged, by a clock that goes on through suspend.
//! - What it is **told is lost** it stops and forgets, without a report. What is cancelled it stops and reports.
//! - A result is sent after the last of its output is acknowledged, or with it.
//! - Its own capacity is the last word: what does not fit goes straight back.
//! - Memory is bounded whatever jobs write and however long the coordinator is away: a job whose output nobody takes waits.

mod ahead;
mod attempt;
mod backoff;
mod builder;
mod directory;
mod handle;
mod held;
mod inputs;
mod lease;
mod leftovers;
mod mounts;
mod options;
mod outbox;
mod output;
mod outputs;
mod report;
mod room;
mod runtime;
mod session;
mod spares;
mod stops;
mod usage;

use std::sync::Arc;

pub use builder::{Builder, StartError};
pub use handle::{Ended, Status, WorkerHandle};
pub use options::Options;
pub use outputs::OutputLimits;

use crate::executor::Executor;
use crate::service::WorkerService;

/// A worker; [`Worker::builder`] makes one.
#[derive(Debug)]
pub struct Worker;

impl Worker {
    /// A worker that takes jobs from `service` (the coordinator itself, or a transport's client) and runs them by `executor`.
    pub fn builder(service: Arc<dyn WorkerService>, executor: impl Executor) -> Builder {
        Builder::new(service, Arc::new(executor))
    }
}
