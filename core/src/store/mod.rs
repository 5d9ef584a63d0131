//! Where jobs are kept: a dumb, batch-first, compare-and-set table.
//!
//! Rules about jobs live in [`crate::job`]; a store keeps rows. `cmdexec_testkit::store` is this contract as code.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::executor::Stream;
use crate::id::{JobId, Owner, WorkerId};
use crate::job::{Class, Job, Place, Status};
use crate::time::Timestamp;

mod error;
mod memory;
mod notice;
mod rows;

pub use error::{Error, ErrorKind};
pub use memory::MemoryStore;
pub use notice::{Notice, Notices};
pub use rows::{
    Append, Beat, Change, Chunk, Extent, Insert, Inserted, Key, ListQuery, Listed, Page, Queue, Record, RecordWrite,
    Renewed, StoredKey, WorkerRow, Written,
};

/// Where jobs are kept.
///
/// # What an implementation promises
/// - **Durable when the call returns.** What a writing call has acknowledged survives the death of the process, and for
///   stores that say so the loss of power. [`MemoryStore`] is durable for as long as it lives.
/// - **Cancellation.** Dropping a call's future leaves either the whole of what it would have done or none of it.
/// - **Atomicity** is stated at each method. Independent items of a batch may be applied in any order.
/// - **One clock.** Deadlines are set and compared by the store's own clock. Callers pass durations.
/// - **Cost.** No method's cost grows with the number of jobs that it does not return, except as stated.
/// - Calls may be made from any number of tasks at once; a store gathers what is waiting into groups as it sees fit.
///   A call that begins after another has returned sees what that one wrote.
///
/// # Wrappers
/// Every method is required, so that a wrapper (limits, faults, metrics) cannot forget one.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The store's clock as this process best knows it, for times that are recorded. Deadlines don't depend on it.
    fn now(&self) -> Timestamp;

    /// Adds jobs, all or none, as they are: queued, leased or ended, and with their versions.
    ///
    /// With a [`Key`]: if its owner used the key within its time to live, nothing is added, and the answer is what was
    /// added then, also when those jobs are gone. Of two concurrent calls with one key exactly one adds.
    ///
    /// # Errors
    /// `Conflict`: a job with one of the ids exists.
    async fn insert(&self, batch: Insert) -> Result<Inserted, Error>;

    /// Keys that are known, by owner and key, those after `after`, at most `limit`. For moving to another store.
    async fn list_keys(&self, after: Option<(&Owner, &str)>, limit: usize) -> Result<Vec<StoredKey>, Error>;

    /// Makes keys known as [`Store::list_keys`] gave them, whether or not their jobs are there. One that is known already is
    /// replaced.
    async fn put_keys(&self, keys: Vec<StoredKey>) -> Result<(), Error>;

    /// The jobs with these ids, in the order asked, `None` where there is none.
    async fn get(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, Error>;

    /// A page of jobs, newest id first.
    ///
    /// # Errors
    /// `Invalid`: [`ListQuery::check`] says so.
    ///
    /// # Cost
    /// A filter on owner, status, worker or input is served by an index, one on a label need not be.
    async fn list(&self, query: &ListQuery) -> Result<Page, Error>;

    /// Every class with queued jobs: its first place, and how many are queued.
    async fn classes(&self) -> Result<Vec<Queue>, Error>;

    /// Queued jobs of a class in queue order, those after `after` (from the head if `None`), at most `limit`.
    async fn ready(&self, class: &Class, after: Option<Place>, limit: usize) -> Result<Vec<Job>, Error>;

    /// Scheduled jobs whose time has come, the longest overdue first, at most `limit`. Of equally overdue ones, the
    /// older id first.
    async fn due(&self, limit: usize) -> Result<Vec<Job>, Error>;

    /// How long until the next scheduled job is due: zero if one is overdue, `None` if none is scheduled.
    async fn next_due(&self) -> Result<Option<Duration>, Error>;

    /// Leased jobs whose lease is over, in no order, at most `limit`. A lease is over at its hard end; and from its floor on, once
    /// its worker's session was not renewed for `lease` (or the worker has none).
    async fn expired(&self, lease: Duration, limit: usize) -> Result<Vec<Job>, Error>;

    /// The jobs that any of these workers has a lease for, in no order. A worker that is named twice is named once.
    async fn leased(&self, workers: &[WorkerId]) -> Result<Vec<Job>, Error>;

    /// How many jobs there are of each status. Statuses without jobs may be missing.
    async fn counts(&self) -> Result<Vec<(Status, u64)>, Error>;

    /// Writes lives, each if the job's version is still the one named; the job's version then is one more.
    /// Items are independent; the answers are in the order of the changes.
    ///
    /// # Errors
    /// `Invalid`: the batch names a job twice.
    async fn update(&self, changes: Vec<Change>) -> Result<Vec<Written>, Error>;

    /// Adds to the output of attempts. Items are independent of each other, each is applied whole or not at all, and
    /// items about one attempt in the order given. A chunk whose `seq` is there already is ignored.
    /// Output of a job that does not exist is dropped.
    ///
    /// # Errors
    /// `Invalid`: [`Append::check`] says so of an item; nothing is applied.
    async fn append_output(&self, appends: Vec<Append>) -> Result<(), Error>;

    /// Chunks of an attempt's output in the order of `seq`, from `from` on, as many as fit into `max_bytes`
    /// (at least one if there is one).
    async fn read_output(&self, job: JobId, attempt: u32, from: u64, max_bytes: usize) -> Result<Vec<Chunk>, Error>;

    /// The last `max_bytes` that are kept of what an attempt wrote to a stream.
    async fn output_tail(&self, job: JobId, attempt: u32, stream: Stream, max_bytes: usize) -> Result<Bytes, Error>;

    /// What is kept of an attempt's output. All zero for an attempt without any.
    async fn output_extent(&self, job: JobId, attempt: u32) -> Result<Extent, Error>;

    /// The numbers and lengths of an attempt's chunks in the order of `seq`, from `from` on, at most `limit`.
    ///
    /// # Cost
    /// Does not read the bytes.
    async fn output_index(&self, job: JobId, attempt: u32, from: u64, limit: usize) -> Result<Vec<(u64, u64)>, Error>;

    /// The lowest `seq` of the chunks of an attempt that were added at `time` or later, by the store's clock.
    async fn output_since(&self, job: JobId, attempt: u32, time: Timestamp) -> Result<Option<u64>, Error>;

    /// The numbers of an attempt's chunks in the order of `seq`, from `from` on, at most `limit`, each with when it was added.
    /// For moving to another store; one that did not always note it says 1970 where it does not know.
    async fn output_times(
        &self,
        job: JobId,
        attempt: u32,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Timestamp)>, Error>;

    /// Writes a worker's registration and renews its session. A worker that was known keeps its counts, its last
    /// beat, and the time of its first registration.
    ///
    /// # Errors
    /// `Conflict`: the worker was removed.
    async fn register_worker(&self, worker: &WorkerId, info: Bytes) -> Result<(), Error>;

    /// Renews sessions: one small write each, whatever the number of the worker's jobs. The answers, in order, say
    /// what the last beat before this one listed. [`Beat::after`] is what is kept.
    ///
    /// # Errors
    /// `Invalid`: the batch names a worker twice.
    async fn renew(&self, beats: Vec<(WorkerId, Beat)>) -> Result<Vec<Renewed>, Error>;

    /// The workers with these ids, in the order asked, `None` where there is none.
    async fn get_workers(&self, ids: &[WorkerId]) -> Result<Vec<Option<WorkerRow>>, Error>;

    /// Workers that were not removed, by id, those after `after`, at most `limit`.
    async fn list_workers(&self, after: Option<&WorkerId>, limit: usize) -> Result<Vec<WorkerRow>, Error>;

    /// As [`Store::list_workers`], with those that were removed. For moving to another store.
    async fn list_all_workers(&self, after: Option<&WorkerId>, limit: usize) -> Result<Vec<WorkerRow>, Error>;

    /// Makes workers known as [`Store::list_all_workers`] gave them: with their times, sums and whether they were removed. One that
    /// is known already is replaced. Items are independent.
    ///
    /// # Errors
    /// `Invalid`: the batch names a worker twice; nothing is written.
    async fn put_workers(&self, workers: Vec<WorkerRow>) -> Result<(), Error>;

    /// Marks a worker as removed, for good. The answer says whether it was known and not removed.
    async fn remove_worker(&self, worker: &WorkerId) -> Result<bool, Error>;

    /// The records with these keys, in the order asked, `None` where there is none.
    async fn get_records(&self, kind: &str, keys: &[String]) -> Result<Vec<Option<Record>>, Error>;

    /// Writes records, each if its version is still the one named (0: if there is none). Items are independent; the
    /// answers are in the order of the writes. Removing what is not there, with version 0, is `Yes`.
    ///
    /// # Errors
    /// `Invalid`: the batch names a key twice.
    async fn put_records(&self, kind: &str, writes: Vec<RecordWrite>) -> Result<Vec<Written>, Error>;

    /// Records of a kind by key, those after `after`, at most `limit`.
    async fn list_records(&self, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, Error>;

    /// Removes finished jobs that ended longer ago than `keep`, with their output, and idempotency keys and records
    /// whose time to live is over; at most `limit` of each, the longest over first. The answer is how many jobs were removed.
    async fn purge(&self, keep: Duration, limit: usize) -> Result<usize, Error>;

    /// What others that share this store write from now on, as it becomes known; `None` from a store that this process has
    /// to itself.
    ///
    /// Notices may be late, repeated, of this process's own writes, or missing: nothing may depend on one. Whoever takes them
    /// too slowly gets [`Notice::Missed`].
    fn notices(&self) -> Option<Notices>;

    /// Completes what was acknowledged, and lets go of files and connections. Later calls may fail as `Unavailable`.
    async fn close(&self);
}
