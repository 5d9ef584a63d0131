//! Workers that come.

use bytes::Bytes;

use super::{Shared, view};
use crate::Error;
use crate::id::WorkerId;
use crate::job::Problem;
use crate::scheduler::Offer;
use crate::service::{Registered, Registration};
use crate::store::ErrorKind;

/// How large a registration may be as it is stored.
const MAX_INFO: usize = 32 << 10;

pub(super) const REMOVED: Error = Error::Forbidden("the worker was removed");

impl Shared {
    /// Makes a worker known, or known again.
    pub(super) async fn register(&self, mut registration: Registration) -> Result<Registered, Error> {
        let problems = problems(&registration);
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let worker = registration.worker.take().unwrap_or_else(|| WorkerId::random(&mut *self.random()));
        let info = serde_json::to_vec(&registration).map_err(|_| Error::Internal)?;
        if info.len() > MAX_INFO {
            return Err(Error::invalid("metadata", format!("the registration must be at most {MAX_INFO} bytes")));
        }
        match self.store.register_worker(&worker, Bytes::from(info)).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Conflict => {
                self.removed(&worker).await;
                return Err(REMOVED);
            }
            Err(error) => return Err(error.into()),
        }
        let takes_jobs = registration.usage.is_none_or(|usage| usage.status.takes_jobs());
        self.introduce(&worker, &registration, takes_jobs).await?;
        Ok(Registered {
            worker,
            heartbeat_interval: self.options.heartbeat_interval(),
            poll_interval: self.options.poll_interval,
            lease: self.options.lease,
        })
    }

    /// Tells the dispatcher of a worker that the store knows; for one that registered before this process began.
    ///
    /// # Errors
    /// [`Error::WorkerNotFound`], and [`Error::Forbidden`] for one that was removed.
    pub(super) async fn introduce_known(&self, worker: &WorkerId) -> Result<(), Error> {
        let row = self.store.get_workers(std::slice::from_ref(worker)).await?.pop().flatten();
        let row = row.ok_or(Error::WorkerNotFound)?;
        if row.removed {
            self.removed(worker).await;
            return Err(REMOVED);
        }
        // A registration that can't be read is made again.
        let info: Registration = serde_json::from_slice(&row.info).map_err(|_| Error::WorkerNotFound)?;
        let takes_jobs = view::said(&row).is_none_or(|usage| usage.status.takes_jobs());
        self.introduce(worker, &info, takes_jobs).await
    }

    async fn introduce(&self, worker: &WorkerId, registration: &Registration, takes_jobs: bool) -> Result<(), Error> {
        let held = self.store.leased(std::slice::from_ref(worker)).await?;
        let held = held.into_iter().map(|job| (job.id, job.class)).collect();
        self.dispatch.worker(worker.clone(), Offer::from(registration), takes_jobs, held).await;
        // It may have been removed since it was looked up, and the dispatcher told so before it was told this.
        let row = self.store.get_workers(std::slice::from_ref(worker)).await?.pop().flatten();
        if row.is_none_or(|row| row.removed) {
            self.removed(worker).await;
            return Err(REMOVED);
        }
        Ok(())
    }

    /// A worker was removed, here or by another coordinator: whoever asks for it or listens for it hears so.
    pub(super) async fn removed(&self, worker: &WorkerId) {
        self.dispatch.removed(worker.clone()).await;
        self.hub.stops.end(worker);
    }
}

fn problems(registration: &Registration) -> Vec<Problem> {
    let is_label = |label: &String| (1..=128).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_graphic());
    let mut kinds: Vec<_> = registration.executors.iter().flatten().map(|executor| executor.kind).collect();
    let count = kinds.len();
    kinds.sort_unstable();
    kinds.dedup();
    [
        ((1..=256).contains(&registration.hostname.len()), "hostname", "must be 1 to 256 bytes"),
        ((1..=65_536).contains(&registration.cpu_count), "cpuCount", "must be from 1 to 65536"),
        ((1..=1 << 30).contains(&registration.total_memory_mb), "totalMemoryMb", "must be from 1 to 1073741824"),
        (registration.slots.is_none_or(|slots| (1..=65_536).contains(&slots)), "slots", "must be from 1 to 65536"),
        (registration.labels.len() <= 64, "labels", "must be at most 64"),
        (registration.labels.iter().all(is_label), "labels", "each must be 1 to 128 bytes of visible ASCII"),
        (registration.version.as_ref().is_none_or(|v| v.len() <= 128), "version", "must be at most 128 bytes"),
        (kinds.len() == count, "executors", "must name each kind once"),
    ]
    .into_iter()
    .filter(|(holds, ..)| !holds)
    .map(|(_, field, message)| Problem::new(field, message))
    .collect()
}
