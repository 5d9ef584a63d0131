//! REST for both services of Command Executor.
//!
//! - [`Server`] (feature `server`) puts [`Services`](cmdexec_core::service::Services) behind the project's HTTP contract.
//! - [`Client`] (feature `client`) implements [`JobService`](cmdexec_core::service::JobService) and
//!   [`WorkerService`](cmdexec_core::service::WorkerService) by calling such a server, so that whoever holds one can't tell it
//!   from the coordinator itself.
//!
//! ```
//! use std::sync::Arc;
//!
//! use cmdexec_core::coordinator::Coordinator;
//! use cmdexec_core::job::{JobSpec, Status};
//! use cmdexec_core::service::{JobServiceExt, Role};
//! use cmdexec_core::store::MemoryStore;
//! use cmdexec_core::time::{Clock, SystemClock};
//! use cmdexec_core::token::{Keys, UserClaims};
//! # #[cfg(all(feature = "server", feature = "client"))]
//! use cmdexec_transport_http::{Client, Server};
//! use tokio_util::sync::CancellationToken;
//!
//! # #[cfg(not(all(feature = "server", feature = "client")))]
//! # fn main() {}
//! # #[cfg(all(feature = "server", feature = "client"))]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let coordinator = Coordinator::builder(MemoryStore::new()).build().await?;
//! let keys = Keys::new("a secret of 32 characters at least", "and another one for the workers..")?;
//! let server = Server::builder(Arc::new(coordinator), keys.clone()).build()?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let url = format!("http://{}", listener.local_addr()?);
//! let stop = CancellationToken::new();
//! let serving = tokio::spawn({
//!     let stop = stop.clone();
//!     async move { server.serve(listener, stop).await }
//! });
//!
//! let token = keys.mint_user(&UserClaims::new("ada".parse()?, Role::User, SystemClock.now()));
//! let jobs = Client::builder(url).user_token(token).build()?;
//! let job = jobs.submit(JobSpec::shell("echo hello")).await?;
//! assert_eq!(jobs.job(job.id).await?.status, Status::Queued);
//!
//! stop.cancel();
//! assert_eq!(serving.await??, 0, "no connection had to be cut");
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod server;

use cmdexec_wire as wire;
#[cfg(feature = "server")]
use cmdexec_wire::{older, read};

#[cfg(feature = "client")]
pub use client::Client;
#[cfg(feature = "server")]
pub use server::Server;
