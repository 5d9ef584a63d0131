//! Runs other people's commands on other people's machines, and loses none of them.
//!
//! A user submits a job: a shell command with limits. A [`coordinator`] keeps it durably in a [`store`] and hands it to a
//! worker, which runs it by an [`executor`] and reports how it ended. This crate has the model of all that, the traits it is
//! made of, a real embedded default of each, and nothing that speaks to a network: transports and other backends are
//! crates around it.
//!
//! | what | trait | embedded default |
//! |---|---|---|
//! | what users and workers do | [`service::JobService`], [`service::WorkerService`] | [`coordinator::Coordinator`] |
//! | where jobs are kept | [`store::Store`] | [`store::MemoryStore`] |
//! | who gets what | [`scheduler::Scheduler`] | [`scheduler::FifoScheduler`] |
//! | running one attempt | [`executor::Executor`] | [`executor::ProcessExecutor`], [`executor::FunctionExecutor`] |
//! | how many requests | [`limiter::RateLimiter`] | [`limiter::LocalLimiter`] |
//!
//! What may follow what in a job's life is one pure function, [`job::transition`].
//!
//! An embedded queue, from submission to result:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use cmdexec_core::coordinator::Coordinator;
//! use cmdexec_core::id::WorkerId;
//! use cmdexec_core::job::{JobSpec, Outcome, Status};
//! use cmdexec_core::service::{FinalOutput, FinishedAttempt, JobServiceExt, LeaseRequest, Registration};
//! use cmdexec_core::store::MemoryStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let coordinator = Coordinator::builder(MemoryStore::new()).build().await?;
//! let jobs = coordinator.jobs();
//! let job = jobs.submit(JobSpec::shell("echo hello")).await?;
//!
//! // What `worker::Worker` does, by hand:
//! let me = WorkerId::local();
//! let worker = coordinator.as_worker(me.clone());
//! worker.register(Registration::new("this machine", 1, 512)).await?;
//! let request = LeaseRequest { max: 1, wait: Duration::from_secs(10) };
//! let leased = worker.lease(&me, request).await?.remove(0);
//! let done = FinishedAttempt::new(&leased, Outcome::Exited { code: 0 });
//! worker.finish(&me, vec![done]).await?.remove(0)?;
//!
//! assert_eq!(jobs.wait(job.id).await?.status, Status::Completed);
//! # Ok(())
//! # }
//! ```

pub mod coordinator;
mod error;
pub mod executor;
pub mod files;
pub mod id;
pub mod job;
pub mod limiter;
pub mod scheduler;
pub mod service;
pub mod store;
pub mod time;
mod time_serde;
pub mod token;

pub use error::Error;
