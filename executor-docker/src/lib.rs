//! Runs jobs in containers of a Docker daemon.
//!
//! ```no_run
//! # async fn example() -> Result<(), cmdexec_core::executor::Error> {
//! use cmdexec_executor_docker::{DockerExecutor, Options};
//!
//! let executor = DockerExecutor::open(Options::new("/var/lib/worker/containers")).await?;
//! # drop(executor);
//! # Ok(())
//! # }
//! ```
//!
//! A worker that is given one beside its other executors uses it for every job that names a `container_image`.
//! [`Options`] says what may be chosen, [`Policy`] what jobs may ask for.
//!
//! The first process of each container is a small program of this crate (`init/main.rs`), which is handed the job's command and its
//! pipes over a socket. So a container can be started before there is a job for it, endings are what the kernel said
//! to the command's parent, and output never passes the daemon.
#![cfg(target_os = "linux")]

mod cgroup;
mod container;
mod control;
mod daemon;
mod executor;
mod gpus;
mod image;
mod keep;
mod link;
mod mounts;
mod options;
mod policy;
mod pool;
mod profile;
mod reference;
mod runtime;
mod sight;
mod sweep;
mod trouble;
mod users;
mod wire;
mod workshop;

pub use executor::DockerExecutor;
pub use options::{Credentials, Options, PoolOptions, Pull};
pub use policy::Policy;
