//! A store that says how long its calls take, and counts what they do, and otherwise is the store it was given.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::{JobId, Owner, WorkerId};
use cmdexec_core::job::{Class, Job, Place, Status};
use cmdexec_core::store::{
    Append, Beat, Change, Chunk, Error, Extent, Insert, Inserted, ListQuery, Notices, Page, Queue, Record, RecordWrite,
    Renewed, Store, StoredKey, WorkerRow, Written,
};
use cmdexec_core::time::{Clock, SystemClock, Timestamp};

pub(crate) const SECONDS: &str = "cmdexec_store_seconds";
pub(crate) const ERRORS: &str = "cmdexec_store_errors_total";
pub(crate) const SUBMITTED: &str = "cmdexec_jobs_submitted_total";
pub(crate) const ENDED: &str = "cmdexec_jobs_ended_total";

/// See the module.
#[derive(Debug)]
pub(crate) struct Measured(Arc<dyn Store>);

impl Measured {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }
}

async fn measure<T>(call: &'static str, calling: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let begun = SystemClock.uptime();
    let answer = calling.await;
    let took: Duration = SystemClock.uptime().saturating_sub(begun);
    metrics::histogram!(SECONDS, "call" => call).record(took);
    if answer.is_err() {
        metrics::counter!(ERRORS, "call" => call).increment(1);
    }
    answer
}

#[async_trait]
impl Store for Measured {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    async fn insert(&self, batch: Insert) -> Result<Inserted, Error> {
        let jobs = batch.jobs.len() as u64;
        let inserted = measure("insert", self.0.insert(batch)).await?;
        if inserted == Inserted::New {
            metrics::counter!(SUBMITTED).increment(jobs);
        }
        Ok(inserted)
    }

    async fn list_keys(&self, after: Option<(&Owner, &str)>, limit: usize) -> Result<Vec<StoredKey>, Error> {
        measure("list_keys", self.0.list_keys(after, limit)).await
    }

    async fn put_keys(&self, keys: Vec<StoredKey>) -> Result<(), Error> {
        measure("put_keys", self.0.put_keys(keys)).await
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, Error> {
        measure("get", self.0.get(ids)).await
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, Error> {
        measure("list", self.0.list(query)).await
    }

    async fn classes(&self) -> Result<Vec<Queue>, Error> {
        measure("classes", self.0.classes()).await
    }

    async fn ready(&self, class: &Class, after: Option<Place>, limit: usize) -> Result<Vec<Job>, Error> {
        measure("ready", self.0.ready(class, after, limit)).await
    }

    async fn due(&self, limit: usize) -> Result<Vec<Job>, Error> {
        measure("due", self.0.due(limit)).await
    }

    async fn next_due(&self) -> Result<Option<Duration>, Error> {
        measure("next_due", self.0.next_due()).await
    }

    async fn expired(&self, lease: Duration, limit: usize) -> Result<Vec<Job>, Error> {
        measure("expired", self.0.expired(lease, limit)).await
    }

    async fn leased(&self, workers: &[WorkerId]) -> Result<Vec<Job>, Error> {
        measure("leased", self.0.leased(workers)).await
    }

    async fn counts(&self) -> Result<Vec<(Status, u64)>, Error> {
        measure("counts", self.0.counts()).await
    }

    async fn update(&self, changes: Vec<Change>) -> Result<Vec<Written>, Error> {
        let statuses: Vec<Status> = changes.iter().map(|change| change.life.status()).collect();
        let written = measure("update", self.0.update(changes)).await?;
        for (status, written) in statuses.into_iter().zip(&written) {
            if status.is_finished() && *written == Written::Yes {
                metrics::counter!(ENDED, "status" => status.as_str()).increment(1);
            }
        }
        Ok(written)
    }

    async fn append_output(&self, appends: Vec<Append>) -> Result<(), Error> {
        measure("append_output", self.0.append_output(appends)).await
    }

    async fn read_output(&self, job: JobId, attempt: u32, from: u64, max_bytes: usize) -> Result<Vec<Chunk>, Error> {
        measure("read_output", self.0.read_output(job, attempt, from, max_bytes)).await
    }

    async fn output_tail(&self, job: JobId, attempt: u32, stream: Stream, max_bytes: usize) -> Result<Bytes, Error> {
        measure("output_tail", self.0.output_tail(job, attempt, stream, max_bytes)).await
    }

    async fn output_extent(&self, job: JobId, attempt: u32) -> Result<Extent, Error> {
        measure("output_extent", self.0.output_extent(job, attempt)).await
    }

    async fn output_index(&self, job: JobId, attempt: u32, from: u64, limit: usize) -> Result<Vec<(u64, u64)>, Error> {
        measure("output_index", self.0.output_index(job, attempt, from, limit)).await
    }

    async fn output_since(&self, job: JobId, attempt: u32, time: Timestamp) -> Result<Option<u64>, Error> {
        measure("output_since", self.0.output_since(job, attempt, time)).await
    }

    async fn output_times(
        &self,
        job: JobId,
        attempt: u32,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Timestamp)>, Error> {
        measure("output_times", self.0.output_times(job, attempt, from, limit)).await
    }

    async fn register_worker(&self, worker: &WorkerId, info: Bytes) -> Result<(), Error> {
        measure("register_worker", self.0.register_worker(worker, info)).await
    }

    async fn renew(&self, beats: Vec<(WorkerId, Beat)>) -> Result<Vec<Renewed>, Error> {
        measure("renew", self.0.renew(beats)).await
    }

    async fn get_workers(&self, ids: &[WorkerId]) -> Result<Vec<Option<WorkerRow>>, Error> {
        measure("get_workers", self.0.get_workers(ids)).await
    }

    async fn list_workers(&self, after: Option<&WorkerId>, limit: usize) -> Result<Vec<WorkerRow>, Error> {
        measure("list_workers", self.0.list_workers(after, limit)).await
    }

    async fn list_all_workers(&self, after: Option<&WorkerId>, limit: usize) -> Result<Vec<WorkerRow>, Error> {
        measure("list_all_workers", self.0.list_all_workers(after, limit)).await
    }

    async fn put_workers(&self, workers: Vec<WorkerRow>) -> Result<(), Error> {
        measure("put_workers", self.0.put_workers(workers)).await
    }

    async fn remove_worker(&self, worker: &WorkerId) -> Result<bool, Error> {
        measure("remove_worker", self.0.remove_worker(worker)).await
    }

    async fn get_records(&self, kind: &str, keys: &[String]) -> Result<Vec<Option<Record>>, Error> {
        measure("get_records", self.0.get_records(kind, keys)).await
    }

    async fn put_records(&self, kind: &str, writes: Vec<RecordWrite>) -> Result<Vec<Written>, Error> {
        measure("put_records", self.0.put_records(kind, writes)).await
    }

    async fn list_records(&self, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, Error> {
        measure("list_records", self.0.list_records(kind, after, limit)).await
    }

    async fn purge(&self, keep: Duration, limit: usize) -> Result<usize, Error> {
        measure("purge", self.0.purge(keep, limit)).await
    }

    fn notices(&self) -> Option<Notices> {
        self.0.notices()
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
