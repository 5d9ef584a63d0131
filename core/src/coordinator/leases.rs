//! The jobs that are leased, as they were last seen: what saves a read for each message about them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::{Shared, lock};
use crate::Error;
use crate::id::{JobId, WorkerId};
use crate::job::{Job, hard_end};
use crate::time::Timestamp;

/// The jobs that are leased, as they were last seen. Never the last word: a write names the version it judged.
///
/// Bounded by what workers hold; what ended elsewhere is forgotten at its hard end.
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

    /// Notes jobs as they are now, those that are here. What is read while it ends must not come back.
    pub(super) fn refresh(&self, jobs: impl IntoIterator<Item = Arc<Job>>) {
        let mut leases = lock(&self.0);
        for job in jobs {
            if let Some(seen) = leases.get_mut(&job.id).filter(|seen| seen.version <= job.version) {
                *seen = job;
            }
        }
    }

    /// Notes jobs as they are by somebody else's doing, those that are here; the answer is those whose lease is over, with
    /// their worker.
    pub(super) fn note(&self, jobs: impl IntoIterator<Item = Arc<Job>>) -> Vec<(WorkerId, JobId)> {
        let mut leases = lock(&self.0);
        let mut over = Vec::new();
        for job in jobs {
            let Some(seen) = leases.get_mut(&job.id).filter(|seen| seen.version < job.version) else { continue };
            let before = seen.life.lease().cloned();
            if let Some(before) = before
                && job.life.lease().is_none_or(|now| now.token != before.token)
            {
                over.push((before.worker, job.id));
            }
            if job.life.lease().is_some() {
                *seen = job;
            } else {
                leases.remove(&job.id);
            }
        }
        over
    }

    /// Forgets leases that are past their hard end: they ended at another coordinator, or their end was not noted.
    pub(super) fn forget_ended(&self, now: Timestamp) {
        lock(&self.0)
            .retain(|_, job| job.life.lease().is_some_and(|lease| now < lease.since.after(hard_end(&job.spec))));
    }

    /// Whether a job is here.
    pub(super) fn has(&self, id: JobId) -> bool {
        lock(&self.0).contains_key(&id)
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

impl Shared {
    /// The jobs that each of these workers has leases for, by the store.
    pub(super) async fn leased_by(&self, workers: &[WorkerId]) -> Result<HashMap<WorkerId, Vec<Arc<Job>>>, Error> {
        let mut leased: HashMap<_, Vec<_>> = HashMap::new();
        for job in self.store.leased(workers).await? {
            if let Some(worker) = job.life.lease().map(|lease| lease.worker.clone()) {
                leased.entry(worker).or_default().push(Arc::new(job));
            }
        }
        Ok(leased)
    }
}
