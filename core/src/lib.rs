//! Command Executor's core.

mod error;
pub mod executor;
pub mod files;
pub mod id;
pub mod job;
pub mod store;
pub mod time;
mod time_serde;

pub use error::Error;
