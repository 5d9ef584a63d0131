//! The job: what it is asked to do, where it stands, and the one function that says what may follow what.

use std::sync::Arc;

use crate::id::{JobId, Owner};
use crate::time::Timestamp;

mod spec;
mod state;

pub use spec::{Backoff, Command, JobSpec, Network, Resources};
pub use state::{Attempt, Lease, Life, Outcome, Reason, State, Status, UnknownStatus, Wait};

/// How many ended attempts that cost the job nothing are remembered, the newest ones.
pub const KEPT_FREE_ATTEMPTS: usize = 16;
