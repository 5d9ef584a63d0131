//! The jobs that are leased, as they were last seen: what saves a read for each message about them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::lock;
use crate::id::JobId;
use crate::job::Job;

/// The jobs that are leased, as they were last seen. Never the last word: a write names the version it judged.
///
/// Bounded by what workers hold.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<HashMap<JobId, Arc<Job>>>);

impl Leases {
    /// Notes jobs as they are now: kept while leased, forgotten when not.
    pub(super) fn put(&self, jobs: impl IntoIterator<Item = Arc<Job>>) {
        let mut leases = lock(&self.0);
        for job in jobs {
            if job.life.lease().is_none() {
                leases.remove(&job.id);
            } else if leases.get(&job.id).is_none_or(|seen| seen.version <= job.version) {
                leases.insert(job.id, job);
            }
        }
    }

    /// Jobs by id, those that are here.
    pub(super) fn get(&self, ids: impl IntoIterator<Item = JobId>) -> Vec<Option<Arc<Job>>> {
        let leases = lock(&self.0);
        ids.into_iter().map(|id| leases.get(&id).cloned()).collect()
    }

    /// Forgets a job that turned out to be another than it was seen here.
    pub(super) fn forget(&self, id: JobId) {
        lock(&self.0).remove(&id);
    }
}
