//! The embedded default: everything in this process's memory, behind the same contract as every other store.
//!
//! One mutex over plain tables. No call does more under it than look up and change what it was asked about, so it is
//! never held for long, and never over an await.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Append, Beat, Change, Chunk, Error, ErrorKind, Extent, Insert, Inserted, ListQuery, Notices, Page, Queue, Record,
    RecordWrite, Renewed, Store, StoredKey, WorkerRow, Written,
};
use crate::executor::Stream;
use crate::id::{JobId, Owner, WorkerId};
use crate::job::{Class, Job, Place, Status};
use crate::time::{Clock, SystemClock, Timestamp};

mod expiring;
mod index;
mod jobs;
mod keys;
mod output;
mod records;
mod workers;

/// Keeps everything in memory, for as long as it lives.
///
/// For embedding where jobs need not outlive the process, and for tests: it keeps the whole of [`Store`]'s contract
/// but durability. Cloning is cheap, and clones are the same store.
///
/// ```
/// use cmdexec_core::store::{MemoryStore, Store};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cmdexec_core::store::Error> {
/// let store = MemoryStore::new();
/// assert!(store.classes().await?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    tables: Arc<Mutex<Tables>>,
}

#[derive(Debug, Default)]
struct Tables {
    closed: bool,
    jobs: jobs::Jobs,
    keys: keys::Keys,
    outputs: output::Outputs,
    workers: workers::Workers,
    records: records::Records,
}

impl MemoryStore {
    /// An empty store by the machine's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// An empty store by this clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, tables: Arc::default() }
    }

    /// # Errors
    /// `Unavailable`: the store was closed.
    fn tables(&self) -> Result<MutexGuard<'_, Tables>, Error> {
        // Nothing panics half-way through a change; what a poisoned lock guards is whole.
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.closed {
            let kind = ErrorKind::Unavailable { retry_after: Duration::from_secs(1) };
            return Err(Error::new(kind, "the store is closed"));
        }
        Ok(tables)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    /// Without what it keeps: that may be a lot, and some of it is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("clock", &self.clock).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn insert(&self, batch: Insert) -> Result<Inserted, Error> {
        let mut tables = self.tables()?;
        let now = self.clock.now();
        if let Some(key) = &batch.key
            && let Some(known) = tables.keys.find(key, now)
        {
            return Ok(known);
        }
        let ids = batch.jobs.iter().map(|(job, _)| job.id).collect();
        tables.jobs.insert(batch.jobs, now)?;
        if let Some(key) = batch.key {
            tables.keys.put(key, ids, now);
        }
        Ok(Inserted::New)
    }

    async fn list_keys(&self, after: Option<(&Owner, &str)>, limit: usize) -> Result<Vec<StoredKey>, Error> {
        Ok(self.tables()?.keys.list(after, limit, self.clock.now()))
    }

    async fn put_keys(&self, keys: Vec<StoredKey>) -> Result<(), Error> {
        let mut tables = self.tables()?;
        let now = self.clock.now();
        keys.into_iter().for_each(|StoredKey { key, ids }| tables.keys.put(key, ids, now));
        Ok(())
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, Error> {
        let tables = self.tables()?;
        Ok(ids.iter().map(|id| tables.jobs.get(*id).cloned()).collect())
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, Error> {
        query.check()?;
        Ok(self.tables()?.jobs.list(query))
    }

    async fn classes(&self) -> Result<Vec<Queue>, Error> {
        Ok(self.tables()?.jobs.index.classes())
    }

    async fn ready(&self, class: &Class, after: Option<Place>, limit: usize) -> Result<Vec<Job>, Error> {
        let tables = self.tables()?;
        Ok(tables.jobs.all(tables.jobs.index.ready(class, after).take(limit)))
    }

    async fn due(&self, limit: usize) -> Result<Vec<Job>, Error> {
        let tables = self.tables()?;
        Ok(tables.jobs.all(tables.jobs.index.due(self.clock.now()).take(limit)))
    }

    async fn next_due(&self) -> Result<Option<Duration>, Error> {
        Ok(self.tables()?.jobs.index.next_due().map(|at| at.since(self.clock.now())))
    }

    async fn expired(&self, lease: Duration, limit: usize) -> Result<Vec<Job>, Error> {
        let tables = self.tables()?;
        let now = self.clock.now();
        let is_over = |worker: &WorkerId| tables.workers.renewed(worker).is_none_or(|at| at.after(lease) <= now);
        Ok(tables.jobs.all(tables.jobs.index.expired(now, is_over, limit)))
    }

    async fn leased(&self, workers: &[WorkerId]) -> Result<Vec<Job>, Error> {
        let tables = self.tables()?;
        let workers: BTreeSet<_> = workers.iter().collect();
        Ok(tables.jobs.all(workers.into_iter().flat_map(|worker| tables.jobs.index.leased(worker))))
    }

    async fn counts(&self) -> Result<Vec<(Status, u64)>, Error> {
        Ok(self.tables()?.jobs.index.counts())
    }

    async fn update(&self, changes: Vec<Change>) -> Result<Vec<Written>, Error> {
        once_each(changes.iter().map(|change| change.id), "job")?;
        let mut tables = self.tables()?;
        let now = self.clock.now();
        Ok(changes.into_iter().map(|change| tables.jobs.update(change, now)).collect())
    }

    async fn append_output(&self, appends: Vec<Append>) -> Result<(), Error> {
        appends.iter().try_for_each(Append::check)?;
        let mut tables = self.tables()?;
        let now = self.clock.now();
        let Tables { jobs, outputs, .. } = &mut *tables;
        for append in appends {
            if jobs.get(append.job).is_some() {
                outputs.append(append, now);
            }
        }
        Ok(())
    }

    async fn read_output(&self, job: JobId, attempt: u32, from: u64, max_bytes: usize) -> Result<Vec<Chunk>, Error> {
        Ok(self.tables()?.outputs.read(job, attempt, from, max_bytes))
    }

    async fn output_tail(&self, job: JobId, attempt: u32, stream: Stream, max_bytes: usize) -> Result<Bytes, Error> {
        Ok(self.tables()?.outputs.tail(job, attempt, stream, max_bytes))
    }

    async fn output_extent(&self, job: JobId, attempt: u32) -> Result<Extent, Error> {
        Ok(self.tables()?.outputs.extent(job, attempt))
    }

    async fn output_index(&self, job: JobId, attempt: u32, from: u64, limit: usize) -> Result<Vec<(u64, u64)>, Error> {
        Ok(self.tables()?.outputs.index(job, attempt, from, limit))
    }

    async fn output_since(&self, job: JobId, attempt: u32, time: Timestamp) -> Result<Option<u64>, Error> {
        Ok(self.tables()?.outputs.since(job, attempt, time))
    }

    async fn output_times(
        &self,
        job: JobId,
        attempt: u32,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Timestamp)>, Error> {
        Ok(self.tables()?.outputs.times(job, attempt, from, limit))
    }

    async fn register_worker(&self, worker: &WorkerId, info: Bytes) -> Result<(), Error> {
        self.tables()?.workers.register(worker, info, self.clock.now())
    }

    async fn renew(&self, beats: Vec<(WorkerId, Beat)>) -> Result<Vec<Renewed>, Error> {
        once_each(beats.iter().map(|(worker, _)| worker), "worker")?;
        let mut tables = self.tables()?;
        let now = self.clock.now();
        Ok(beats.into_iter().map(|(worker, beat)| tables.workers.renew(&worker, beat, now)).collect())
    }

    async fn get_workers(&self, ids: &[WorkerId]) -> Result<Vec<Option<WorkerRow>>, Error> {
        let tables = self.tables()?;
        Ok(ids.iter().map(|id| tables.workers.get(id)).collect())
    }

    async fn list_workers(&self, after: Option<&WorkerId>, limit: usize) -> Result<Vec<WorkerRow>, Error> {
        let tables = self.tables()?;
        Ok(tables.workers.all(after).filter(|row| !row.removed).take(limit).cloned().collect())
    }

    async fn list_all_workers(&self, after: Option<&WorkerId>, limit: usize) -> Result<Vec<WorkerRow>, Error> {
        Ok(self.tables()?.workers.all(after).take(limit).cloned().collect())
    }

    async fn put_workers(&self, workers: Vec<WorkerRow>) -> Result<(), Error> {
        once_each(workers.iter().map(|row| &row.id), "worker")?;
        let mut tables = self.tables()?;
        workers.into_iter().for_each(|row| tables.workers.put(row));
        Ok(())
    }

    async fn remove_worker(&self, worker: &WorkerId) -> Result<bool, Error> {
        Ok(self.tables()?.workers.remove(worker))
    }

    async fn get_records(&self, kind: &str, keys: &[String]) -> Result<Vec<Option<Record>>, Error> {
        let tables = self.tables()?;
        let now = self.clock.now();
        Ok(keys.iter().map(|key| tables.records.get(kind, key, now)).collect())
    }

    async fn put_records(&self, kind: &str, writes: Vec<RecordWrite>) -> Result<Vec<Written>, Error> {
        once_each(writes.iter().map(|write| &write.key), "record")?;
        let mut tables = self.tables()?;
        let now = self.clock.now();
        Ok(writes.into_iter().map(|write| tables.records.put(kind, write, now)).collect())
    }

    async fn list_records(&self, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, Error> {
        Ok(self.tables()?.records.list(kind, after, limit, self.clock.now()))
    }

    async fn purge(&self, keep: Duration, limit: usize) -> Result<usize, Error> {
        let mut tables = self.tables()?;
        let now = self.clock.now();
        let gone = tables.jobs.purge(now.before(keep), limit);
        for id in &gone {
            tables.outputs.remove(*id);
        }
        tables.keys.purge(now, limit);
        tables.records.purge(now, limit);
        Ok(gone.len())
    }

    fn notices(&self) -> Option<Notices> {
        None
    }

    async fn close(&self) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }
}

/// # Errors
/// `Invalid`: a batch names something twice.
fn once_each<T: Eq + Hash>(named: impl Iterator<Item = T>, what: &str) -> Result<(), Error> {
    let mut seen = HashSet::with_capacity(named.size_hint().0);
    for item in named {
        if !seen.insert(item) {
            return Err(Error::new(ErrorKind::Invalid, format!("a batch names a {what} twice")));
        }
    }
    Ok(())
}
