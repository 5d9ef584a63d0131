//! The promises, one function each.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

pub mod files;
pub mod lease;
pub mod output;
pub mod read;
pub mod report;
pub mod submit;
