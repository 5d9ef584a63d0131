//! The three programs together, as people start them: on ports of their own, with databases of their own.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod cli;
mod containers;
mod crash;
mod files;
mod harness;
mod push;
mod relay;
mod shutdown;
mod tls;
