//! What callers hand to the writer. Rows come encoded, so that the encoding costs the callers' threads.

use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::job::{Class, Job, Life, Status, Timer};
use cmdexec_core::store::{Append, Beat, Change, Inserted, Key, RecordWrite, Renewed, Written};
use cmdexec_core::time::Timestamp;
use tokio::sync::oneshot;

use crate::error::Error;

/// A call, and where its answer goes.
#[derive(Debug)]
pub(crate) enum Work {
    Insert { jobs: Vec<NewJob>, key: Option<Key>, slot: Slot<Inserted> },
    Update { changes: Vec<Changed>, slot: Slot<Vec<Written>> },
    Append { appends: Vec<Append>, slot: Slot<()> },
    Register { worker: WorkerId, info: Bytes, slot: Slot<()> },
    Renew { beats: Vec<(WorkerId, Beat)>, slot: Slot<Vec<Renewed>> },
    RemoveWorker { worker: WorkerId, slot: Slot<bool> },
    PutRecords { kind: String, writes: Vec<RecordWrite>, slot: Slot<Vec<Written>> },
    Purge { keep: Duration, limit: usize, slot: Slot<usize> },
    Close,
}

/// An answer that is decided before it may be given: nobody hears of what is not committed.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    sender: oneshot::Sender<Result<T, Error>>,
    answer: Option<Result<T, Error>>,
}

impl<T> Slot<T> {
    pub(crate) fn new(sender: oneshot::Sender<Result<T, Error>>) -> Self {
        Self { sender, answer: None }
    }

    pub(super) fn set(&mut self, answer: Result<T, Error>) {
        self.answer = Some(answer);
    }

    /// The caller may have gone away; then nobody is told.
    fn give(self) {
        if let Some(answer) = self.answer {
            let _ = self.sender.send(answer);
        }
    }

    fn fail(self, error: &Error) {
        let _ = self.sender.send(Err(Error::Refused(error.kind(), format!("SQLite: {error}"))));
    }
}

impl Work {
    /// The answer as it was decided.
    pub(super) fn answer(self) {
        match self {
            Self::Insert { slot, .. } => slot.give(),
            Self::Update { slot, .. } | Self::PutRecords { slot, .. } => slot.give(),
            Self::Append { slot, .. } | Self::Register { slot, .. } => slot.give(),
            Self::Renew { slot, .. } => slot.give(),
            Self::RemoveWorker { slot, .. } => slot.give(),
            Self::Purge { slot, .. } => slot.give(),
            Self::Close => {}
        }
    }

    /// The answer if nothing could be written.
    pub(super) fn fail(self, error: &Error) {
        match self {
            Self::Insert { slot, .. } => slot.fail(error),
            Self::Update { slot, .. } | Self::PutRecords { slot, .. } => slot.fail(error),
            Self::Append { slot, .. } | Self::Register { slot, .. } => slot.fail(error),
            Self::Renew { slot, .. } => slot.fail(error),
            Self::RemoveWorker { slot, .. } => slot.fail(error),
            Self::Purge { slot, .. } => slot.fail(error),
            Self::Close => {}
        }
    }

    /// Whether nobody minds if it waits a little for others to be committed with.
    pub(super) fn can_wait(&self) -> bool {
        matches!(self, Self::Renew { .. })
    }

    /// How many rows it is about, a large one counted as one for each 4 KiB.
    pub(super) fn weight(&self) -> usize {
        let rows = |lengths: &mut dyn Iterator<Item = usize>| lengths.map(|length| 1 + length / 4096).sum();
        match self {
            Self::Insert { jobs, .. } => rows(&mut jobs.iter().map(|job| job.spec.len() + job.life.json.len())),
            Self::Update { changes, .. } => rows(&mut changes.iter().map(|change| change.life.json.len())),
            Self::Append { appends, .. } => {
                rows(&mut appends.iter().flat_map(|append| &append.chunks).map(|chunk| chunk.bytes.len()))
            }
            Self::PutRecords { writes, .. } => {
                rows(&mut writes.iter().map(|write| write.value.as_ref().map_or(0, Bytes::len)))
            }
            Self::Renew { beats, .. } => beats.len(),
            Self::Register { info, .. } => 1 + info.len() / 4096,
            Self::RemoveWorker { .. } | Self::Purge { .. } | Self::Close => 1,
        }
    }
}

/// A job to be inserted, as its columns.
#[derive(Debug)]
pub(crate) struct NewJob {
    pub(super) id: JobId,
    pub(super) class: Class,
    pub(super) rank: i64,
    pub(super) owner: String,
    pub(super) created: i64,
    pub(super) timer: Timer,
    pub(super) life: Lived,
    pub(super) spec: Vec<u8>,
}

/// A change, as columns.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(super) id: JobId,
    pub(super) version: u64,
    pub(super) timer: Timer,
    pub(super) life: Lived,
}

/// A life, and what of it is kept in columns of its own.
#[derive(Debug)]
pub(super) struct Lived {
    pub(super) status: Status,
    pub(super) ended: Option<i64>,
    pub(super) worker: Option<WorkerId>,
    pub(super) json: Vec<u8>,
}

impl NewJob {
    pub(crate) fn new(job: &Job, timer: Timer) -> Result<Self, Error> {
        Ok(Self {
            id: job.id,
            class: job.class.clone(),
            rank: rank(job.spec.priority),
            owner: job.owner.as_str().to_owned(),
            created: job.created.as_millis(),
            timer,
            life: Lived::of(&job.life)?,
            spec: serde_json::to_vec(&*job.spec).map_err(|e| Error::row("spec", e))?,
        })
    }
}

impl Changed {
    pub(crate) fn new(change: &Change) -> Result<Self, Error> {
        Ok(Self { id: change.id, version: change.version, timer: change.timer, life: Lived::of(&change.life)? })
    }
}

impl Lived {
    fn of(life: &Life) -> Result<Self, Error> {
        Ok(Self {
            status: life.status(),
            ended: life.finished_at().map(Timestamp::as_millis),
            worker: life.last_lease().map(|lease| lease.worker.clone()),
            json: serde_json::to_vec(life).map_err(|e| Error::row("life", e))?,
        })
    }
}

/// The column that a queue is ordered by: the least is served first.
pub(crate) fn rank(priority: i8) -> i64 {
    -i64::from(priority)
}
