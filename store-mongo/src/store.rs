//! The store's face.

use std::fmt;
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
use cmdexec_core::time::Timestamp;

use crate::client::Mongo;
use crate::error::Error;
use crate::gather::Gather;
use crate::jobs::{Counted, Decoder, Insertion, Singles, Updates};
use crate::options::Options;
use crate::output::Appends;
use crate::{feed, jobs, output, purge, records, workers};

/// Keeps jobs in a MongoDB database, which any number of coordinators may share.
///
/// Cloning is cheap, and clones are the same store.
#[derive(Clone)]
pub struct MongoStore(Arc<Inner>);

struct Inner {
    mongo: Arc<Mongo>,
    decoder: Decoder,
    counted: Counted,
    singles: Arc<Gather<Singles>>,
    updates: Arc<Gather<Updates>>,
    appends: Arc<Gather<Appends>>,
}

impl MongoStore {
    /// Connects to a replica set, and makes what is missing of collections and indexes: see [`Options::open`].
    ///
    /// # Errors
    /// As [`Options::open`].
    pub async fn open(address: &str) -> Result<Self, store::Error> {
        Self::options().open(address).await
    }

    /// How to open a store otherwise than [`MongoStore::open`] does.
    pub fn options() -> Options {
        Options::default()
    }

    pub(crate) fn new(mongo: Mongo) -> Self {
        let mongo = Arc::new(mongo);
        Self(Arc::new(Inner {
            decoder: Decoder::default(),
            counted: Counted::default(),
            singles: Gather::new(Singles(Arc::clone(&mongo))),
            updates: Gather::new(Updates(Arc::clone(&mongo))),
            appends: Gather::new(Appends(Arc::clone(&mongo))),
            mongo,
        }))
    }

    /// The connection, unless the store was closed.
    fn mongo(&self) -> Result<&Mongo, Error> {
        self.0.mongo.check_open()?;
        Ok(&self.0.mongo)
    }

    fn decoder(&self) -> &Decoder {
        &self.0.decoder
    }

    /// Carries out a write of several steps whether or not its caller waits for it.
    async fn whole<T, F>(&self, write: impl FnOnce(Arc<Mongo>) -> F + Send + 'static) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.mongo()?;
        let mongo = Arc::clone(&self.0.mongo);
        let tasks = mongo.tasks.clone();
        let write = tasks.spawn(async move { write(mongo).await });
        write.await.unwrap_or_else(|_| Err(Error::closed()))
    }
}

impl fmt::Debug for MongoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoStore").field("database", &self.0.mongo.database.name()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MongoStore {
    fn now(&self) -> Timestamp {
        self.0.mongo.clock.now()
    }

    async fn insert(&self, mut batch: Insert) -> Result<Inserted, store::Error> {
        if batch.key.is_none() && batch.jobs.len() == 1 {
            if let Some((job, timer)) = batch.jobs.pop() {
                let insertion = Insertion::new(self.mongo()?, &job, timer).await?;
                let weight = insertion.weight();
                self.0.singles.call(&self.0.mongo.tasks, insertion, weight).await?;
            }
            return Ok(Inserted::New);
        }
        Ok(self.whole(|mongo| async move { jobs::insert(&mongo, &batch).await }).await?)
    }

    async fn list_keys(&self, after: Option<(&Owner, &str)>, limit: usize) -> Result<Vec<StoredKey>, store::Error> {
        Ok(jobs::list_keys(self.mongo()?, after, limit).await?)
    }

    async fn put_keys(&self, keys: Vec<StoredKey>) -> Result<(), store::Error> {
        Ok(self.whole(|mongo| async move { jobs::put_keys(&mongo, &keys).await }).await?)
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, store::Error> {
        Ok(jobs::get(self.mongo()?, self.decoder(), ids).await?)
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, store::Error> {
        query.check()?;
        Ok(jobs::list(self.mongo()?, self.decoder(), query).await?)
    }

    async fn classes(&self) -> Result<Vec<Queue>, store::Error> {
        Ok(jobs::classes(self.mongo()?, self.decoder(), &self.0.counted).await?)
    }

    async fn ready(&self, class: &Class, after: Option<Place>, limit: usize) -> Result<Vec<Job>, store::Error> {
        Ok(jobs::ready(self.mongo()?, self.decoder(), class, after, limit).await?)
    }

    async fn due(&self, limit: usize) -> Result<Vec<Job>, store::Error> {
        let mongo = self.mongo()?;
        Ok(jobs::due(mongo, self.decoder(), mongo.now().await?, limit).await?)
    }

    async fn next_due(&self) -> Result<Option<Duration>, store::Error> {
        let mongo = self.mongo()?;
        let now = mongo.now().await?;
        Ok(jobs::next_due(mongo).await?.map(|at| at.since(now)))
    }

    async fn expired(&self, lease: Duration, limit: usize) -> Result<Vec<Job>, store::Error> {
        let mongo = self.mongo()?;
        Ok(jobs::expired(mongo, self.decoder(), mongo.now().await?, lease, limit).await?)
    }

    async fn leased(&self, workers: &[WorkerId]) -> Result<Vec<Job>, store::Error> {
        Ok(jobs::leased(self.mongo()?, self.decoder(), workers).await?)
    }

    async fn counts(&self) -> Result<Vec<(Status, u64)>, store::Error> {
        Ok(self.0.counted.statuses(self.mongo()?).await?)
    }

    async fn update(&self, changes: Vec<Change>) -> Result<Vec<Written>, store::Error> {
        once_each(changes.iter().map(|change| change.id), "job")?;
        let weight = changes.len();
        Ok(self.0.updates.call(&self.0.mongo.tasks, changes, weight).await?)
    }

    async fn append_output(&self, appends: Vec<Append>) -> Result<(), store::Error> {
        appends.iter().try_for_each(Append::check)?;
        // A group holds some MiB of output.
        let chunks = appends.iter().flat_map(|append| &append.chunks);
        let weight = appends.len() + chunks.map(|chunk| chunk.bytes.len() >> 10).sum::<usize>();
        Ok(self.0.appends.call(&self.0.mongo.tasks, appends, weight).await?)
    }

    async fn read_output(
        &self,
        job: JobId,
        attempt: u32,
        from: u64,
        max_bytes: usize,
    ) -> Result<Vec<Chunk>, store::Error> {
        Ok(output::read(self.mongo()?, job, attempt, from, max_bytes).await?)
    }

    async fn output_tail(
        &self,
        job: JobId,
        attempt: u32,
        stream: Stream,
        max_bytes: usize,
    ) -> Result<Bytes, store::Error> {
        Ok(output::tail(self.mongo()?, job, attempt, stream, max_bytes).await?)
    }

    async fn output_extent(&self, job: JobId, attempt: u32) -> Result<Extent, store::Error> {
        Ok(output::extent(self.mongo()?, job, attempt).await?)
    }

    async fn output_index(
        &self,
        job: JobId,
        attempt: u32,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, u64)>, store::Error> {
        Ok(output::index(self.mongo()?, job, attempt, from, limit).await?)
    }

    async fn output_since(&self, job: JobId, attempt: u32, time: Timestamp) -> Result<Option<u64>, store::Error> {
        Ok(output::since(self.mongo()?, job, attempt, time).await?)
    }

    async fn output_times(
        &self,
        job: JobId,
        attempt: u32,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Timestamp)>, store::Error> {
        Ok(output::times(self.mongo()?, job, attempt, from, limit).await?)
    }

    async fn register_worker(&self, worker: &WorkerId, info: Bytes) -> Result<(), store::Error> {
        let worker = worker.clone();
        Ok(self.whole(|mongo| async move { workers::register(&mongo, &worker, &info).await }).await?)
    }

    async fn renew(&self, beats: Vec<(WorkerId, Beat)>) -> Result<Vec<Renewed>, store::Error> {
        once_each(beats.iter().map(|(worker, _)| worker), "worker")?;
        Ok(self.whole(|mongo| async move { workers::renew_all(&mongo, &beats).await }).await?)
    }

    async fn get_workers(&self, ids: &[WorkerId]) -> Result<Vec<Option<WorkerRow>>, store::Error> {
        Ok(workers::get(self.mongo()?, ids).await?)
    }

    async fn list_workers(&self, after: Option<&WorkerId>, limit: usize) -> Result<Vec<WorkerRow>, store::Error> {
        Ok(workers::list(self.mongo()?, after, limit, false).await?)
    }

    async fn list_all_workers(&self, after: Option<&WorkerId>, limit: usize) -> Result<Vec<WorkerRow>, store::Error> {
        Ok(workers::list(self.mongo()?, after, limit, true).await?)
    }

    async fn put_workers(&self, workers: Vec<WorkerRow>) -> Result<(), store::Error> {
        once_each(workers.iter().map(|row| &row.id), "worker")?;
        Ok(self.whole(|mongo| async move { workers::put(&mongo, &workers).await }).await?)
    }

    async fn remove_worker(&self, worker: &WorkerId) -> Result<bool, store::Error> {
        Ok(workers::remove(self.mongo()?, worker).await?)
    }

    async fn get_records(&self, kind: &str, keys: &[String]) -> Result<Vec<Option<Record>>, store::Error> {
        Ok(records::get(self.mongo()?, kind, keys).await?)
    }

    async fn put_records(&self, kind: &str, writes: Vec<RecordWrite>) -> Result<Vec<Written>, store::Error> {
        once_each(writes.iter().map(|write| &write.key), "record")?;
        let kind = kind.to_owned();
        Ok(self.whole(|mongo| async move { records::put(&mongo, &kind, &writes).await }).await?)
    }

    async fn list_records(&self, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, store::Error> {
        Ok(records::list(self.mongo()?, kind, after, limit).await?)
    }

    async fn purge(&self, keep: Duration, limit: usize) -> Result<usize, store::Error> {
        Ok(self.whole(move |mongo| async move { purge::purge(&mongo, keep, limit).await }).await?)
    }

    fn notices(&self) -> Option<Notices> {
        Some(feed::notices(Arc::clone(&self.0.mongo)))
    }

    async fn close(&self) {
        self.0.mongo.tasks.close();
        self.0.mongo.tasks.wait().await;
        // Of a clone, so that whoever closes at the same time has its own.
        self.0.mongo.client.clone().shutdown().await;
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
