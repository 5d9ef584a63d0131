//! A store that fails as real ones do, when it is told to.
//!
//! ```
//! use cmdexec_core::store::{MemoryStore, Store};
//! use cmdexec_testkit::store::{Call, Fault, FaultyStore};
//! use std::sync::Arc;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let store = FaultyStore::new(Arc::new(MemoryStore::new()));
//! store.inject(Call::Update, Fault::LoseReply);
//! assert!(store.update(vec![]).await.is_err()); // written, but the caller does not learn so
//! assert!(store.update(vec![]).await.is_ok());
//! # }
//! ```

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::{JobId, Owner, WorkerId};
use cmdexec_core::job::{Class, Job, Place, Status};
use cmdexec_core::store::{
    Append, Beat, Change, Chunk, Error, ErrorKind, Extent, Insert, Inserted, ListQuery, Notices, Page, Queue, Record,
    RecordWrite, Renewed, Store, StoredKey, WorkerRow, Written,
};
use cmdexec_core::time::Timestamp;
use tokio::sync::watch;

/// A method of [`Store`] that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the method of its name")]
pub enum Call {
    Insert,
    ListKeys,
    PutKeys,
    Get,
    List,
    Classes,
    Ready,
    Due,
    NextDue,
    Expired,
    Leased,
    Counts,
    Update,
    AppendOutput,
    ReadOutput,
    OutputTail,
    OutputExtent,
    OutputIndex,
    OutputSince,
    OutputTimes,
    RegisterWorker,
    Renew,
    GetWorkers,
    ListWorkers,
    ListAllWorkers,
    PutWorkers,
    RemoveWorker,
    GetRecords,
    PutRecords,
    ListRecords,
    Purge,
}

/// What happens to a call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It does not reach the store, and fails as `Unavailable`.
    Refuse,
    /// The store does what was asked, and then the call fails as `Unavailable`.
    LoseReply,
    /// It waits at the gate before it reaches the store.
    HoldBefore(Gate),
    /// The store does what was asked, and the answer waits at the gate.
    HoldAfter(Gate),
}

/// Where a call waits until it is let through. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<(usize, bool)>>);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new((0, false))))
    }

    /// Completes once a call waits here (or has).
    pub async fn reached(&self) {
        // The sender is `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|(arrived, _)| *arrived > 0).await;
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.0.send_modify(|(_, open)| *open = true);
    }

    pub(crate) async fn pass(&self) {
        self.0.send_modify(|(arrived, _)| *arrived += 1);
        let _ = self.0.subscribe().wait_for(|(_, open)| *open).await;
    }
}

/// Hands every call to the store behind it, but for those that a [`Fault`] was injected for. Clones share their faults.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    faults: VecDeque<(Call, Fault)>,
    down: bool,
    made: Vec<Call>,
}

impl FaultyStore {
    /// A store without faults so far.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Makes the next call of this method that no earlier fault is meant for go wrong.
    pub fn inject(&self, call: Call, fault: Fault) {
        self.state().faults.push_back((call, fault));
    }

    /// True: every call is refused until it is set to false again, as if the database were away.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// How often a method was called so far, refused calls included.
    pub fn calls(&self, call: Call) -> usize {
        self.state().made.iter().filter(|made| **made == call).count()
    }

    /// How many faults were injected and have not happened yet.
    pub fn pending(&self) -> usize {
        self.state().faults.len()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, call: Call) -> Option<Fault> {
        let mut state = self.state();
        state.made.push(call);
        if state.down {
            return Some(Fault::Refuse);
        }
        let at = state.faults.iter().position(|(its, _)| *its == call)?;
        state.faults.remove(at).map(|(_, fault)| fault)
    }

    async fn with_fault<T>(&self, call: Call, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match self.take(call) {
            None => answer.await,
            Some(Fault::Refuse) => Err(away("refused")),
            Some(Fault::LoseReply) => {
                answer.await?;
                Err(away("the reply was lost"))
            }
            Some(Fault::HoldBefore(gate)) => {
                gate.pass().await;
                answer.await
            }
            Some(Fault::HoldAfter(gate)) => {
                let answer = answer.await;
                gate.pass().await;
                answer
            }
        }
    }
}

fn away(what: &str) -> Error {
    let kind = ErrorKind::Unavailable { retry_after: Duration::from_millis(100) };
    Error::new(kind, format!("injected fault: {what}"))
}

#[async_trait]
impl Store for FaultyStore {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    async fn insert(&self, batch: Insert) -> Result<Inserted, Error> {
        self.with_fault(Call::Insert, self.inner.insert(batch)).await
    }

    async fn list_keys(&self, after: Option<(&Owner, &str)>, limit: usize) -> Result<Vec<StoredKey>, Error> {
        self.with_fault(Call::ListKeys, self.inner.list_keys(after, limit)).await
    }

    async fn put_keys(&self, keys: Vec<StoredKey>) -> Result<(), Error> {
        self.with_fault(Call::PutKeys, self.inner.put_keys(keys)).await
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, Error> {
        self.with_fault(Call::Get, self.inner.get(ids)).await
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, Error> {
        self.with_fault(Call::List, self.inner.list(query)).await
    }

    async fn classes(&self) -> Result<Vec<Queue>, Error> {
        self.with_fault(Call::Classes, self.inner.classes()).await
    }

    async fn ready(&self, class: &Class, after: Option<Place>, limit: usize) -> Result<Vec<Job>, Error> {
        self.with_fault(Call::Ready, self.inner.ready(class, after, limit)).await
    }

    async fn due(&self, limit: usize) -> Result<Vec<Job>, Error> {
        self.with_fault(Call::Due, self.inner.due(limit)).await
    }

    async fn next_due(&self) -> Result<Option<Duration>, Error> {
        self.with_fault(Call::NextDue, self.inner.next_due()).await
    }

    async fn expired(&self, lease: Duration, limit: usize) -> Result<Vec<Job>, Error> {
        self.with_fault(Call::Expired, self.inner.expired(lease, limit)).await
    }

    async fn leased(&self, workers: &[WorkerId]) -> Result<Vec<Job>, Error> {
        self.with_fault(Call::Leased, self.inner.leased(workers)).await
    }

    async fn counts(&self) -> Result<Vec<(Status, u64)>, Error> {
        self.with_fault(Call::Counts, self.inner.counts()).await
    }

    async fn update(&self, changes: Vec<Change>) -> Result<Vec<Written>, Error> {
        self.with_fault(Call::Update, self.inner.update(changes)).await
    }

    async fn append_output(&self, appends: Vec<Append>) -> Result<(), Error> {
        self.with_fault(Call::AppendOutput, self.inner.append_output(appends)).await
    }

    async fn read_output(&self, job: JobId, attempt: u32, from: u64, max_bytes: usize) -> Result<Vec<Chunk>, Error> {
        self.with_fault(Call::ReadOutput, self.inner.read_output(job, attempt, from, max_bytes)).await
    }

    async fn output_tail(&self, job: JobId, attempt: u32, stream: Stream, max_bytes: usize) -> Result<Bytes, Error> {
        self.with_fault(Call::OutputTail, self.inner.output_tail(job, attempt, stream, max_bytes)).await
    }

    async fn output_extent(&self, job: JobId, attempt: u32) -> Result<Extent, Error> {
        self.with_fault(Call::OutputExtent, self.inner.output_extent(job, attempt)).await
    }

    async fn output_index(&self, job: JobId, attempt: u32, from: u64, limit: usize) -> Result<Vec<(u64, u64)>, Error> {
        self.with_fault(Call::OutputIndex, self.inner.output_index(job, attempt, from, limit)).await
    }

    async fn output_since(&self, job: JobId, attempt: u32, time: Timestamp) -> Result<Option<u64>, Error> {
        self.with_fault(Call::OutputSince, self.inner.output_since(job, attempt, time)).await
    }

    async fn output_times(
        &self,
        job: JobId,
        attempt: u32,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Timestamp)>, Error> {
        self.with_fault(Call::OutputTimes, self.inner.output_times(job, attempt, from, limit)).await
    }

    async fn register_worker(&self, worker: &WorkerId, info: Bytes) -> Result<(), Error> {
        self.with_fault(Call::RegisterWorker, self.inner.register_worker(worker, info)).await
    }

    async fn renew(&self, beats: Vec<(WorkerId, Beat)>) -> Result<Vec<Renewed>, Error> {
        self.with_fault(Call::Renew, self.inner.renew(beats)).await
    }

    async fn get_workers(&self, ids: &[WorkerId]) -> Result<Vec<Option<WorkerRow>>, Error> {
        self.with_fault(Call::GetWorkers, self.inner.get_workers(ids)).await
    }

    async fn list_workers(&self, after: Option<&WorkerId>, limit: usize) -> Result<Vec<WorkerRow>, Error> {
        self.with_fault(Call::ListWorkers, self.inner.list_workers(after, limit)).await
    }

    async fn list_all_workers(&self, after: Option<&WorkerId>, limit: usize) -> Result<Vec<WorkerRow>, Error> {
        self.with_fault(Call::ListAllWorkers, self.inner.list_all_workers(after, limit)).await
    }

    async fn put_workers(&self, workers: Vec<WorkerRow>) -> Result<(), Error> {
        self.with_fault(Call::PutWorkers, self.inner.put_workers(workers)).await
    }

    async fn remove_worker(&self, worker: &WorkerId) -> Result<bool, Error> {
        self.with_fault(Call::RemoveWorker, self.inner.remove_worker(worker)).await
    }

    async fn get_records(&self, kind: &str, keys: &[String]) -> Result<Vec<Option<Record>>, Error> {
        self.with_fault(Call::GetRecords, self.inner.get_records(kind, keys)).await
    }

    async fn put_records(&self, kind: &str, writes: Vec<RecordWrite>) -> Result<Vec<Written>, Error> {
        self.with_fault(Call::PutRecords, self.inner.put_records(kind, writes)).await
    }

    async fn list_records(&self, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, Error> {
        self.with_fault(Call::ListRecords, self.inner.list_records(kind, after, limit)).await
    }

    async fn purge(&self, keep: Duration, limit: usize) -> Result<usize, Error> {
        self.with_fault(Call::Purge, self.inner.purge(keep, limit)).await
    }

    fn notices(&self) -> Option<Notices> {
        self.inner.notices()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
