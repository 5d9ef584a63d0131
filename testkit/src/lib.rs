//! Conformance suites for Command Executor's traits, and fault injection: what holds one backend to its contract holds
//! every backend to it.

pub mod archive;
pub mod cluster;
#[cfg(unix)]
pub mod disk;
#[cfg(unix)]
pub mod executor;
pub mod service;
mod skip;
pub mod store;
pub mod tokens;

pub use skip::skip;
pub use tokens::Tokens;
