//! The push channel: both services of Command Executor over one WebSocket.
//!
//! - [`Server`] (feature `server`) answers at a path of another server. Workers get jobs pushed the moment they
//!   exist, users watch theirs live.
//! - [`Client`] (feature `client`) implements [`JobService`](cmdexec_core::service::JobService) and
//!   [`WorkerService`](cmdexec_core::service::WorkerService) over such a socket, which it opens again whenever it breaks.
//!   [`Fallback`](client::Fallback) puts another way to the same coordinator behind it for the meantime.
//!
//! What travels is JSON, and described in `docs/protocol.md`: the bodies are those of the HTTP contract, around them stands what a
//! socket needs. Files' bytes don't travel here: they would hold up everything behind them, and HTTP has ranges for them.

mod close;
mod message;
mod refusal;
mod silence;
mod socket;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod server;

#[cfg(feature = "client")]
pub use client::Client;
pub use close::Code;
#[cfg(feature = "server")]
pub use server::Server;

/// What a fuzzer holds on to.
#[doc(hidden)]
pub mod fuzzing {
    /// Reads a message as either end does; must never panic.
    pub fn decode(bytes: &[u8]) {
        if let Ok(text) = std::str::from_utf8(bytes) {
            #[cfg(feature = "server")]
            crate::server::fuzz_text(text);
            #[cfg(feature = "client")]
            crate::client::fuzz_text(text);
        }
        #[cfg(feature = "server")]
        crate::server::fuzz_binary(bytes);
        #[cfg(feature = "client")]
        crate::client::fuzz_binary(bytes);
    }
}
