//! REST for both services of Command Executor.
//!
//! - [`Server`] (feature `server`) puts [`cmdexec_core::service::Services`] behind the project's HTTP contract, on hyper.
//! - [`Client`] (feature `client`) implements [`JobService`](cmdexec_core::service::JobService) and
//!   [`WorkerService`](cmdexec_core::service::WorkerService) by calling such a server, so that whoever holds one can't tell it
//!   from the coordinator itself.

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
mod older;
#[cfg(feature = "server")]
mod read;
#[cfg(feature = "server")]
pub mod server;
mod wire;

#[cfg(feature = "client")]
pub use client::Client;
#[cfg(feature = "server")]
pub use server::Server;
