//! What travels between the coordinator and a store.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Error, ErrorKind};
use crate::executor::Stream;
use crate::files::FileId;
use crate::id::{JobId, LeaseToken, Owner, WorkerId};
use crate::job::{Class, Job, Life, Place, Status, Timer};
use crate::time::Timestamp;

/// Jobs to be added together.
#[derive(Debug, Clone)]
pub struct Insert {
    /// The jobs and what to watch the clock for on their behalf.
    pub jobs: Vec<(Job, Timer)>,
    /// What makes a repetition of this insertion known.
    pub key: Option<Key>,
}

/// What makes the repetition of a submission known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Whose key. Keys of different owners have nothing to do with one another.
    pub owner: Owner,
    /// The key.
    pub key: String,
    /// A digest of what is submitted.
    pub fingerprint: [u8; 32],
    /// For how long a repetition is known.
    pub ttl: Duration,
}

/// A key as a store keeps it, for moving it to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// The key; its time to live is what is left of it.
    pub key: Key,
    /// The jobs that were added with it, in their order. Some or all may be gone.
    pub ids: Vec<JobId>,
}

/// What became of an insertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// The jobs are there.
    New,
    /// The key was used before: for these jobs, with this fingerprint.
    Known {
        /// The jobs that were added then, in their order.
        ids: Vec<JobId>,
        /// The digest of what was submitted then.
        fingerprint: [u8; 32],
    },
}

/// Which jobs to list. Every condition must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListQuery {
    /// Only this owner's.
    pub owner: Option<Owner>,
    /// Only those in this status.
    pub status: Option<Status>,
    /// Only those whose current or last lease is this worker's.
    pub worker: Option<WorkerId>,
    /// Only those whose spec names this label.
    pub label: Option<String>,
    /// Only those that bring this file.
    pub input: Option<FileId>,
    /// Only those created after this.
    pub created_after: Option<Timestamp>,
    /// Only ids less than this: the last of the page before.
    pub before: Option<JobId>,
    /// Leave out this many, at most [`ListQuery::MAX_OFFSET`], after all the other conditions.
    pub offset: usize,
    /// How many at most.
    pub limit: usize,
    /// Count the jobs that the conditions but `before`, `offset` and `limit` hold for, up to this many; 0: don't.
    pub count_to: usize,
}

impl ListQuery {
    /// The most that [`ListQuery::offset`] may be.
    pub const MAX_OFFSET: usize = 10_000;

    /// For stores: whether the query can be asked at all.
    ///
    /// # Errors
    /// `Invalid`: the offset is too large.
    pub fn check(&self) -> Result<(), Error> {
        if self.offset > Self::MAX_OFFSET {
            return Err(Error::new(ErrorKind::Invalid, format!("an offset of more than {}", Self::MAX_OFFSET)));
        }
        Ok(())
    }

    /// For stores: whether every condition but `before` holds for a job.
    pub fn matches(&self, job: &Job) -> bool {
        self.owner.as_ref().is_none_or(|owner| *owner == job.owner)
            && self.status.is_none_or(|status| status == job.status())
            && self.worker.as_ref().is_none_or(|w| job.life.last_lease().is_some_and(|lease| lease.worker == *w))
            && self.label.as_ref().is_none_or(|label| job.spec.labels.contains(label))
            && self.input.is_none_or(|input| job.spec.input == Some(input))
            && self.created_after.is_none_or(|after| job.created > after)
    }
}

/// A page of jobs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The jobs, newest id first.
    pub jobs: Vec<Job>,
    /// Whether more follow.
    pub more: bool,
    /// How many there are, up to `count_to`.
    pub total: usize,
}

/// The queue of one class.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Which class.
    pub class: Class,
    /// The place that is served first.
    pub head: Place,
    /// How many jobs are queued.
    pub queued: u64,
}

/// A life to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Whose.
    pub id: JobId,
    /// The version that was judged.
    pub version: u64,
    /// What replaces it.
    pub life: Life,
    /// What to watch the clock for from now on.
    pub timer: Timer,
}

/// What became of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is written.
    Yes,
    /// The version is another: read again, decide again.
    Stale,
    /// There is no such thing.
    Missing,
}

/// Output to be added to an attempt's. Its parts are applied in the order of the fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Append {
    /// Which job.
    pub job: JobId,
    /// Which attempt. Output of earlier attempts of the job is removed; if there is any of a later one, this is
    /// ignored.
    pub attempt: u32,
    /// True: what is there of the attempt is removed first, and its count of dropped bytes starts from 0.
    pub replace: bool,
    /// What to add.
    pub chunks: Vec<Chunk>,
    /// Chunks with these numbers, first and last included, are removed, to keep within the job's cap. Also numbers of
    /// chunks that were never added, because they would have been removed at once.
    pub trim: Option<(u64, u64)>,
    /// How many bytes were dropped or trimmed; added to the attempt's count.
    pub dropped: u64,
    /// When the chunks were added, if that is not now: for moving to another store.
    pub at: Option<Timestamp>,
}

impl Append {
    /// For stores: whether its numbers can be kept everywhere, since databases count in signed 64 bits.
    ///
    /// # Errors
    /// `Invalid`: a chunk's number is [`Chunk::MAX_SEQ`] or more, or more bytes were dropped than that.
    pub fn check(&self) -> Result<(), Error> {
        if self.chunks.iter().any(|chunk| chunk.seq >= Chunk::MAX_SEQ) || self.dropped >= Chunk::MAX_SEQ {
            return Err(Error::new(ErrorKind::Invalid, "a chunk's number, or a count of bytes, is out of bounds"));
        }
        Ok(())
    }
}

/// A piece of an attempt's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its number among the attempt's chunks, across both streams, from 0.
    pub seq: u64,
    /// Which stream.
    pub stream: Stream,
    /// What was written to it.
    pub bytes: Bytes,
}

impl Chunk {
    /// Every [`Chunk::seq`] is less than this.
    pub const MAX_SEQ: u64 = 1 << 62;
}

/// What is kept of an attempt's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// One more than the highest `seq` that is kept.
    pub next: u64,
    /// How many bytes are kept.
    pub bytes: u64,
    /// How many bytes were dropped or trimmed.
    pub dropped: u64,
    /// Every number that was ever to be trimmed is less than this: what is kept from here on lies behind all that was.
    pub trimmed: u64,
}

/// An attempt that a worker says it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Listed {
    /// Which job.
    pub job: JobId,
    /// Which attempt.
    pub token: LeaseToken,
}

/// What a heartbeat writes.
///
/// Its serde form is how stores keep it; golden files hold it still.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beat {
    /// What the worker says of itself, opaque to the store.
    #[serde(default)]
    pub report: serde_json::Value,
    /// The attempts that it says it holds; `None` from a worker that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Vec<Listed>>,
    /// Jobs that completed on it since the last beat, added to its count.
    #[serde(default)]
    pub completed: u64,
    /// Jobs that failed on it since the last beat, added to its count.
    #[serde(default)]
    pub failed: u64,
    /// Names the counts, by the token of an attempt that is among them, so that they can be given again where it is not known
    /// whether they were added: counts with the name of those that were added last are not added. Without a name they always are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tally: Option<LeaseToken>,
}

impl Beat {
    /// For stores: what is kept of a beat behind the one that was kept before.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        let is_repeated = self.tally.is_some() && self.tally == before.tally;
        let add = |sum: u64, more: u64| if is_repeated { sum } else { sum.saturating_add(more) };
        Self {
            completed: add(before.completed, self.completed),
            failed: add(before.failed, self.failed),
            tally: self.tally.or(before.tally),
            ..self
        }
    }
}

/// What became of a renewal.
#[derive(Debug, Clone, PartialEq)]
pub enum Renewed {
    /// The session is renewed.
    Yes {
        /// What the last beat before this one listed.
        before: Option<Vec<Listed>>,
    },
    /// The worker never registered.
    Unknown,
    /// The worker was removed: its session is not renewed, so that its leases end. The beat is kept.
    Removed {
        /// What the last beat before this one listed.
        before: Option<Vec<Listed>>,
    },
}

/// A worker as a store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRow {
    /// Which worker.
    pub id: WorkerId,
    /// Its registration, opaque to the store.
    pub info: Bytes,
    /// Its last beat; `completed` and `failed` are the sums over all beats, and `tally` is the name of what was added last.
    pub beat: Beat,
    /// When it registered first.
    pub registered: Timestamp,
    /// When its session was last renewed.
    pub renewed: Timestamp,
    /// Whether it was removed.
    pub removed: bool,
}

/// A small versioned thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its key, unique within its kind.
    pub key: String,
    /// What is kept.
    pub value: Bytes,
    /// Counts its writes from 1; again from 1 if it was removed in between.
    pub version: u64,
}

/// A record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordWrite {
    /// Its key.
    pub key: String,
    /// What to keep; `None` removes it.
    pub value: Option<Bytes>,
    /// The version that it replaces; 0 if there is to be none.
    pub version: u64,
    /// After this long it is gone, as if it had been removed.
    pub ttl: Option<Duration>,
}
