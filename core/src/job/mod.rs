//! The job: what it is asked to do, where it stands, and the one function that says what may follow what.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{JobId, Owner};
use crate::time::Timestamp;

mod class;
mod outputs;
mod spec;
mod state;
mod transition;
mod validate;

pub use class::{Class, Demand};
pub(crate) use outputs::Outputs;
pub use spec::{Backoff, Command, JobSpec, Network, Resources};
pub use state::{Attempt, Details, Lease, Life, Outcome, Reason, State, Status, Step, UnknownStatus, Wait};
pub use transition::{
    Applied, COLLECT_BOUND, Effect, Event, REPORT_MARGIN, Rejected, Report, SETUP_BOUND, Timer, hard_end, submitted,
    transition,
};
pub use validate::Problem;

/// How many ended attempts that cost the job nothing are remembered, the newest ones.
pub const KEPT_FREE_ATTEMPTS: usize = 16;

/// A job: what was submitted, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Which job.
    pub id: JobId,
    /// Whose.
    pub owner: Owner,
    /// When it was submitted.
    pub created: Timestamp,
    /// What to run. Never changes.
    pub spec: Arc<JobSpec>,
    /// What it demands of a worker. Follows from the spec.
    pub class: Class,
    /// Where it stands.
    pub life: Life,
    /// How often `life` was written; a write names the version that it replaces.
    pub version: u64,
}

impl Job {
    /// The job's place in the queue.
    pub fn place(&self) -> Place {
        Place { priority: self.spec.priority, id: self.id }
    }

    /// What a reader may see of where it stands.
    pub fn status(&self) -> Status {
        self.life.status()
    }
}

/// A place in the queue: higher priority first, and within a priority the older id first. Fixed at submission,
/// so that a retried job keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The job's priority.
    pub priority: i8,
    /// The job's id.
    pub id: JobId,
}

impl Ord for Place {
    /// The lesser place is served first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.priority.cmp(&self.priority).then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
