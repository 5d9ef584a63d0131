//! The store's face: reads go to the pool, writes to the writer.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::{JobId, Owner, WorkerId};
use cmdexec_core::job::{Class, Job, Place, Status};
use cmdexec_core::store::{
    self, Append, Beat, Change, Chunk, ErrorKind, Extent, Insert, Inserted, ListQuery, Notices, Page, Queue, Record,
    RecordWrite, Renewed, Store, StoredKey, WorkerRow, Written,
};
use cmdexec_core::time::{Clock, Timestamp};
use sqlx::sqlite::SqlitePool;

use crate::error::Error;
use crate::long::{Addition, Folder, Keeper};
use crate::options::Options;
use crate::read::job::Decoder;
use crate::read::{job, key, list, output, queue, record, worker};
use crate::writer::{Changed, GROUP_WEIGHT, Group, Handle, NewJob, weight};

/// Keeps jobs in a SQLite file.
///
/// Cloning is cheap, and clones are the same store. [`Store::close`] it before the process ends: what was acknowledged
/// is safe without, but the log is then read back at the next start. A store whose last clone is dropped closes
/// itself in the background.
#[derive(Clone)]
pub struct SqliteStore {
    clock: Arc<dyn Clock>,
    readers: SqlitePool,
    decoder: Arc<Decoder>,
    writer: Handle,
    folder: Folder,
    keeper: Keeper,
}

impl SqliteStore {
    /// Opens the database in this file by the machine's clock, and makes it if it is missing: see [`Options::open`].
    ///
    /// # Errors
    /// As [`Options::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, store::Error> {
        Self::options().open(path).await
    }

    /// How to open a store otherwise than [`SqliteStore::open`] does.
    pub fn options() -> Options {
        Options::default()
    }

    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        readers: SqlitePool,
        writer: Handle,
        folder: Folder,
        keeper: Keeper,
    ) -> Self {
        Self { clock, readers, decoder: Arc::default(), writer, folder, keeper }
    }

    /// The connections to read with.
    fn readers(&self) -> Result<&SqlitePool, Error> {
        if self.writer.is_closed() { Err(Error::closed()) } else { Ok(&self.readers) }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("clock", &self.clock).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn insert(&self, batch: Insert) -> Result<Inserted, store::Error> {
        let jobs = batch.jobs.iter().map(|(job, timer)| NewJob::new(job, *timer)).collect::<Result<Vec<_>, _>>()?;
        let weight = weight(jobs.iter().map(NewJob::len));
        Ok(self.writer.call(weight, move |group| group.insert(&jobs, batch.key.as_ref())).await?)
    }

    async fn list_keys(&self, after: Option<(&Owner, &str)>, limit: usize) -> Result<Vec<StoredKey>, store::Error> {
        Ok(key::list(self.readers()?, after, limit, self.clock.now()).await?)
    }

    async fn put_keys(&self, keys: Vec<StoredKey>) -> Result<(), store::Error> {
        let weight = weight(keys.iter().map(|stored| stored.ids.len() * 16));
        let write =
            move |group: &mut Group<'_>| keys.iter().try_for_each(|StoredKey { key, ids }| group.use_key(key, ids));
        Ok(self.writer.call(weight, write).await?)
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, store::Error> {
        Ok(job::get(self.readers()?, &self.decoder, ids).await?)
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, store::Error> {
        query.check()?;
        Ok(list::list(self.readers()?, &self.decoder, query).await?)
    }

    async fn classes(&self) -> Result<Vec<Queue>, store::Error> {
        Ok(queue::classes(self.readers()?, &self.decoder).await?)
    }

    async fn ready(&self, class: &Class, after: Option<Place>, limit: usize) -> Result<Vec<Job>, store::Error> {
        Ok(queue::ready(self.readers()?, &self.decoder, class, after, limit).await?)
    }

    async fn due(&self, limit: usize) -> Result<Vec<Job>, store::Error> {
        Ok(queue::due(self.readers()?, &self.decoder, self.clock.now(), limit).await?)
    }

    async fn next_due(&self) -> Result<Option<Duration>, store::Error> {
        Ok(queue::next_due(self.readers()?).await?.map(|at| at.since(self.clock.now())))
    }

    async fn expired(&self, lease: Duration, limit: usize) -> Result<Vec<Job>, store::Error> {
        Ok(queue::expired(self.readers()?, &self.decoder, self.clock.now(), lease, limit).await?)
    }

    async fn leased(&self, workers: &[WorkerId]) -> Result<Vec<Job>, store::Error> {
        Ok(queue::leased(self.readers()?, &self.decoder, workers).await?)
    }

    async fn counts(&self) -> Result<Vec<(Status, u64)>, store::Error> {
        Ok(queue::counts(self.readers()?).await?)
    }

    async fn update(&self, changes: Vec<Change>) -> Result<Vec<Written>, store::Error> {
        once_each(changes.iter().map(|change| change.id), "job")?;
        let changes = changes.iter().map(Changed::new).collect::<Result<Vec<_>, _>>()?;
        let weight = weight(changes.iter().map(Changed::len));
        Ok(self.writer.call(weight, move |group| group.update(&changes)).await?)
    }

    async fn append_output(&self, appends: Vec<Append>) -> Result<(), store::Error> {
        appends.iter().try_for_each(Append::check)?;
        if appends.iter().any(|append| self.folder.takes(append)) {
            return Ok(self.keeper.append(appends).await?);
        }
        let additions: Vec<_> = appends.into_iter().map(Addition::in_rows).collect();
        let weight = weight(additions.iter().flat_map(Addition::lengths));
        let freed = self.writer.call_in_turn(weight, move |group| group.append(&additions)).await?;
        self.keeper.free(freed).await;
        Ok(())
    }

    async fn read_output(
        &self,
        job: JobId,
        attempt: u32,
        from: u64,
        max_bytes: usize,
    ) -> Result<Vec<Chunk>, store::Error> {
        Ok(output::read(self.readers()?, &self.folder, job, attempt, from, max_bytes).await?)
    }

    async fn output_tail(
        &self,
        job: JobId,
        attempt: u32,
        stream: Stream,
        max_bytes: usize,
    ) -> Result<Bytes, store::Error> {
        Ok(output::tail(self.readers()?, &self.folder, job, attempt, stream, max_bytes).await?)
    }

    async fn output_extent(&self, job: JobId, attempt: u32) -> Result<Extent, store::Error> {
        Ok(output::extent(self.readers()?, job, attempt).await?)
    }

    async fn output_index(
        &self,
        job: JobId,
        attempt: u32,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, u64)>, store::Error> {
        Ok(output::index(self.readers()?, job, attempt, from, limit).await?)
    }

    async fn output_since(&self, job: JobId, attempt: u32, time: Timestamp) -> Result<Option<u64>, store::Error> {
        Ok(output::since(self.readers()?, job, attempt, time).await?)
    }

    async fn output_times(
        &self,
        job: JobId,
        attempt: u32,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Timestamp)>, store::Error> {
        Ok(output::times(self.readers()?, job, attempt, from, limit).await?)
    }

    async fn register_worker(&self, worker: &WorkerId, info: Bytes) -> Result<(), store::Error> {
        let worker = worker.clone();
        let weight = weight([info.len()].into_iter());
        Ok(self.writer.call(weight, move |group| group.register(&worker, &info)).await?)
    }

    async fn renew(&self, beats: Vec<(WorkerId, Beat)>) -> Result<Vec<Renewed>, store::Error> {
        once_each(beats.iter().map(|(worker, _)| worker), "worker")?;
        let weight = beats.len();
        let write = move |group: &mut Group<'_>| beats.iter().map(|(worker, beat)| group.renew(worker, beat)).collect();
        Ok(self.writer.call_at_leisure(weight, write).await?)
    }

    async fn get_workers(&self, ids: &[WorkerId]) -> Result<Vec<Option<WorkerRow>>, store::Error> {
        Ok(worker::get(self.readers()?, ids).await?)
    }

    async fn list_workers(&self, after: Option<&WorkerId>, limit: usize) -> Result<Vec<WorkerRow>, store::Error> {
        Ok(worker::list(self.readers()?, after, limit, false).await?)
    }

    async fn list_all_workers(&self, after: Option<&WorkerId>, limit: usize) -> Result<Vec<WorkerRow>, store::Error> {
        Ok(worker::list(self.readers()?, after, limit, true).await?)
    }

    async fn put_workers(&self, workers: Vec<WorkerRow>) -> Result<(), store::Error> {
        once_each(workers.iter().map(|row| &row.id), "worker")?;
        let weight = weight(workers.iter().map(|row| row.info.len()));
        let write = move |group: &mut Group<'_>| workers.iter().try_for_each(|row| group.put_worker(row));
        Ok(self.writer.call(weight, write).await?)
    }

    async fn remove_worker(&self, worker: &WorkerId) -> Result<bool, store::Error> {
        let worker = worker.clone();
        Ok(self.writer.call(1, move |group| group.remove_worker(&worker)).await?)
    }

    async fn get_records(&self, kind: &str, keys: &[String]) -> Result<Vec<Option<Record>>, store::Error> {
        Ok(record::get(self.readers()?, kind, keys, self.clock.now()).await?)
    }

    async fn put_records(&self, kind: &str, writes: Vec<RecordWrite>) -> Result<Vec<Written>, store::Error> {
        once_each(writes.iter().map(|write| &write.key), "record")?;
        let kind = kind.to_owned();
        let weight = weight(writes.iter().map(|write| write.value.as_ref().map_or(0, Bytes::len)));
        let write = move |group: &mut Group<'_>| writes.iter().map(|write| group.put_record(&kind, write)).collect();
        Ok(self.writer.call(weight, write).await?)
    }

    async fn list_records(&self, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, store::Error> {
        Ok(record::list(self.readers()?, kind, after, limit, self.clock.now()).await?)
    }

    async fn purge(&self, keep: Duration, limit: usize) -> Result<usize, store::Error> {
        let purged = self.writer.call(limit.min(GROUP_WEIGHT), move |group| group.purge(keep, limit)).await?;
        self.keeper.remove(purged.files).await;
        Ok(purged.jobs)
    }

    fn notices(&self) -> Option<Notices> {
        None
    }

    async fn close(&self) {
        self.keeper.close().await;
        self.writer.close().await;
    }
}

/// # Errors
/// `Invalid`: a batch names something twice.
fn once_each<T: Eq + std::hash::Hash>(named: impl Iterator<Item = T>, what: &str) -> Result<(), Error> {
    let mut seen = std::collections::HashSet::with_capacity(named.size_hint().0);
    for item in named {
        if !seen.insert(item) {
            return Err(Error::Refused(ErrorKind::Invalid, format!("a batch names a {what} twice")));
        }
    }
    Ok(())
}
