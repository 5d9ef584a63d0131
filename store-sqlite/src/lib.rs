//! A durable store for Command Executor on one machine: a SQLite file.
//!
//! ```
//! use cmdexec_core::store::Store;
//! use cmdexec_store_sqlite::SqliteStore;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("jobs.db");
//! let store = SqliteStore::open(&path).await?;
//! assert!(store.classes().await?.is_empty());
//! store.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! One writer gathers what waits into one transaction (group commit), so that a `fsync` is shared by whoever came in
//! the meantime; readers have connections of their own. What a call has acknowledged survives `kill -9` and, as far as
//! the disk tells the truth, the loss of power. One process at a time may have the file open.
//!
//! Long output is kept in files beside the database ([`Options::long_output`]), which belong to it wherever it is moved.

mod error;
mod file;
mod long;
mod options;
mod read;
mod store;
mod writer;

pub use options::Options;
pub use store::SqliteStore;
