//! The worker runtime against the real coordinator, under a clock that the tests move, with a network that fails as told.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod contact;
mod ending;
mod output;
mod report;
mod running;
mod world;
