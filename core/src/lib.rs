//! Command Executor's core.

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
