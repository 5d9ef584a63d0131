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
//! use cmdexec_core::coordinator::Coordinator;
//! use cmdexec_core::executor::FunctionExecutor;
//! use cmdexec_core::id::WorkerId;
//! use cmdexec_core::job::{JobSpec, Outcome, Status};
//! use cmdexec_core::service::JobServiceExt;
//! use cmdexec_core::store::MemoryStore;
//! use cmdexec_core::worker::Worker;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let coordinator = Coordinator::builder(MemoryStore::new()).build().await?;
//! // `ProcessExecutor::default()` would run the command.
//! let executor = FunctionExecutor::new(|_context| async { Outcome::Exited { code: 0 } });
//! let worker = Worker::builder(coordinator.as_worker(WorkerId::local()), executor).slots(4).start().await?;
//!
//! let job = coordinator.jobs().run(JobSpec::shell("echo hello")).await?;
//! assert_eq!(job.status, Status::Completed);
//!
//! worker.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub mod archive;
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
pub mod worker;

pub use error::Error;
pub use worker::Worker;
