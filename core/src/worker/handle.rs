//! What the worker's owner holds: it sees how the worker is, and ends it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::task::AbortOnDropHandle;

use super::leftovers::WorkDir;
use super::runtime::Shared;
use crate::id::{JobId, WorkerId};

/// What the worker is to do. Later ones outweigh earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Keep the session, take no jobs.
    Paused,
    /// Take jobs.
    Taking,
    /// Take no more, finish what is running.
    Draining,
    /// End at once.
    Forced,
}

/// A running worker.
///
/// Nothing of it runs outside: **dropping the handle stops everything**, jobs included, without a report. End it with
/// [`WorkerHandle::shutdown`], or [`WorkerHandle::drain`] and [`WorkerHandle::wait`].
#[derive(Debug)]
pub struct WorkerHandle {
    // Before the directory, so that nothing works in it any more when it goes. An aborted task may take a moment to notice.
    task: AbortOnDropHandle<Ended>,
    shared: Arc<Shared>,
    work_dir: WorkDir,
}

/// How a worker is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Jobs that are running or on their way to.
    pub running: usize,
    /// Jobs that are over and whose reports are not acknowledged yet.
    pub reporting: usize,
    /// Jobs whose success was acknowledged.
    pub completed: u64,
    /// Jobs whose failure was acknowledged.
    pub failed: u64,
    /// Whether it takes no more jobs for good.
    pub draining: bool,
    /// Whether the coordinator refuses it because somebody removed it.
    pub removed: bool,
}

/// What a worker that has ended leaves behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Ended {
    /// Jobs whose end the coordinator could not be told of. They are tried again once their leases are over.
    pub unreported: Vec<JobId>,
    /// The worker ended because the coordinator refuses it: somebody removed it.
    pub removed: bool,
    /// The worker ended because a part of it failed, which should not happen.
    pub failed: Option<String>,
}

impl WorkerHandle {
    pub(super) fn new(task: AbortOnDropHandle<Ended>, shared: Arc<Shared>, work_dir: WorkDir) -> Self {
        Self { task, shared, work_dir }
    }

    /// The worker's id.
    pub fn id(&self) -> &WorkerId {
        self.shared.id()
    }

    /// How the worker is.
    pub fn status(&self) -> Status {
        let running = self.shared.held.running();
        Status {
            running,
            reporting: self.shared.held.len().saturating_sub(running),
            completed: self.shared.completed.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
            draining: *self.shared.phase.borrow() >= Phase::Draining,
            removed: self.shared.removed.load(Ordering::SeqCst),
        }
    }

    /// Takes jobs (again).
    pub fn resume(&self) {
        self.go_to(Phase::Taking, |phase| phase == Phase::Paused);
    }

    /// Takes no jobs until [`WorkerHandle::resume`]. What is running goes on.
    pub fn pause(&self) {
        self.go_to(Phase::Paused, |phase| phase == Phase::Taking);
    }

    /// Takes no more jobs, for good, and ends: what runs has [`super::Options::drain_timeout`] to finish; then it is stopped and
    /// goes back, which costs the jobs nothing. A **second call ends at once**: what runs is killed and goes back.
    ///
    /// Returns at once; [`WorkerHandle::wait`] says when it is done.
    pub fn drain(&self) {
        let again = *self.shared.phase.borrow() >= Phase::Draining;
        self.go_to(if again { Phase::Forced } else { Phase::Draining }, |phase| phase < Phase::Forced);
    }

    /// Ends at once, as a second [`WorkerHandle::drain`] does.
    pub fn force(&self) {
        self.go_to(Phase::Forced, |_| true);
    }

    fn go_to(&self, next: Phase, may: impl FnOnce(Phase) -> bool) {
        self.shared.phase.send_if_modified(|phase| {
            let may = may(*phase) && *phase != next;
            if may {
                *phase = next;
            }
            may
        });
    }

    /// Waits until the worker has ended: because it was drained, or because it was removed. Cancellation safe; the worker
    /// goes on if this is dropped.
    pub async fn wait(&mut self) -> Ended {
        match (&mut self.task).await {
            Ok(ended) => ended,
            Err(panic) => Ended { failed: Some(panic.to_string()), ..Ended::default() },
        }
    }

    /// Drains and waits. To be called again to force, keep the handle and use [`WorkerHandle::drain`] and [`WorkerHandle::wait`].
    pub async fn shutdown(mut self) -> Ended {
        self.drain();
        let ended = self.wait().await;
        drop(self.work_dir);
        ended
    }
}
