//! Command Executor's core.

pub mod executor;
pub mod files;
pub mod id;
pub mod job;
pub mod time;
mod time_serde;
