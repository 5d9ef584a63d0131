//! A store for Command Executor that any number of coordinators share: a MongoDB replica set.
//!
//! ```no_run
//! use cmdexec_core::coordinator::Coordinator;
//! use cmdexec_store_mongo::MongoStore;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MongoStore::open("mongodb://db-1,db-2,db-3/cmdexec?replicaSet=rs0").await?;
//! let coordinator = Coordinator::builder(store).build().await?;
//! # Ok(())
//! # }
//! ```
//!
//! What a call has acknowledged is in the journals of a majority of the replica set's members, and survives the loss of
//! any minority of them. Change streams tell each coordinator what the others write; where a server has none, the
//! coordinator's sweep finds it a second later. Nothing asks for more than MongoDB 4.2 and Amazon DocumentDB 5.0 have,
//! but transactions for batches of several jobs.

mod bell;
mod client;
mod clock;
mod conditional;
mod error;
mod feed;
mod gather;
mod jobs;
mod options;
mod output;
mod purge;
mod records;
mod schema;
mod store;
mod workers;

pub use options::Options;
pub use store::MongoStore;
