//! What the worker's rooms share, and the one task that starts them, ends them in order, and waits for them.

use std::future::pending;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::attempt::{Attempt, Why};
use super::backoff::Backoff;
use super::directory::Directory;
use super::handle::{Ended, Phase};
use super::held::Held;
use super::inputs::Inputs;
use super::options::Options;
use super::spares::Spares;
use super::{lease, outbox, report, session, stops};
use crate::Error;
use crate::executor::{Executor, GRACE};
use crate::id::{JobId, WorkerId};
use crate::job::{Outcome, REPORT_MARGIN};
use crate::service::WorkerService;
use crate::time::Clock;

/// What every room of the worker works with.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) service: Arc<dyn WorkerService>,
    pub(super) executors: Vec<Arc<dyn Executor>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Mutex<StdRng>,
    pub(super) options: Options,
    pub(super) id: WorkerId,
    pub(super) inputs: Inputs,
    /// Where attempts have their directories.
    pub(super) attempts_dir: PathBuf,
    pub(super) spares: Spares,
    pub(super) held: Arc<Held>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) output: outbox::Outbox,
    pub(super) reports: report::Reports,
    /// Makes the session look at once: the status has changed, an exclusive job has come, the coordinator knows us no more.
    pub(super) nudge: Notify,
    /// The coordinator said that it does not know this worker.
    pub(super) unknown: AtomicBool,
    /// The coordinator said that this worker was removed.
    pub(super) removed: AtomicBool,
    pub(super) completed: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Shared {
    pub(super) fn id(&self) -> &WorkerId {
        &self.id
    }

    /// The executor that runs an attempt, if there is one.
    pub(super) fn executor_for(&self, attempt: &Attempt) -> Option<&Arc<dyn Executor>> {
        self.executors.iter().find(|executor| executor.capabilities().kind == attempt.kind())
    }

    /// The user that an attempt in this slot runs as, where it is another than the worker's.
    pub(super) fn user_of(&self, attempt: &Attempt, slot: usize) -> Option<u32> {
        self.executor_for(attempt)?.user(slot)
    }

    /// A directory for an attempt in this slot: one that was used before, or a new one.
    pub(super) fn directory_for(&self, attempt: &Attempt, slot: usize) -> io::Result<Directory> {
        let spare = self.spares.take(slot, self.user_of(attempt, slot), attempt, self.clock.uptime());
        let make = || Directory::make(self.attempts_dir.join(format!("{}-{}", attempt.job, attempt.number)));
        spare.map_or_else(make, Ok)
    }

    /// Puts an attempt's directory away: for the next, or for good.
    pub(super) async fn put_away(&self, directory: Directory, attempt: &Attempt, slot: usize) {
        if let Err(directory) = self.spares.put(slot, directory, attempt) {
            directory.remove().await;
            self.spares.refill(slot, self.user_of(attempt, slot), attempt, &*self.clock).await;
        }
    }

    /// The answer of a call, unless it takes so long that it is as good as failed.
    pub(super) async fn within<T>(
        &self,
        time: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            answer = call => answer,
            () = self.clock.sleep(time) => Err(Error::Unavailable { retry_after: Duration::ZERO }),
        }
    }

    /// Waits before a call is repeated.
    pub(super) async fn pause(&self, backoff: &mut Backoff, asked: Option<Duration>) {
        self.clock.sleep(self.next_wait(backoff, asked)).await;
    }

    pub(super) fn next_wait(&self, backoff: &mut Backoff, asked: Option<Duration>) -> Duration {
        backoff.next(asked, &mut *self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A call failed as a whole: what the session must know of it.
    pub(super) fn failed(&self, error: &Error) {
        match error {
            Error::WorkerNotFound => {
                self.unknown.store(true, Ordering::SeqCst);
                self.nudge.notify_one();
            }
            Error::Forbidden(why) => {
                if !self.removed.swap(true, Ordering::SeqCst) {
                    tracing::error!(worker = %self.id, why, "the coordinator refuses this worker; it ends");
                }
                // What it holds it is told to drop, or may still report.
                self.phase.send_if_modified(|phase| {
                    let ends = *phase < Phase::Draining;
                    *phase = (*phase).max(Phase::Draining);
                    ends
                });
            }
            error => tracing::debug!(%error, "a call to the coordinator failed"),
        }
    }

    /// Counts an acknowledged result.
    pub(super) fn count(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Returned | Outcome::Stopped => {}
            outcome if outcome.is_success() => drop(self.completed.fetch_add(1, Ordering::Relaxed)),
            _ => drop(self.failed.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// What a future gives that may not be there; nothing ever, if it is not.
pub(super) async fn optional<F: Future + Unpin>(future: Option<&mut F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// Runs the worker until it is told to end, or is removed, and everything that it had is over.
pub(super) async fn run(shared: Arc<Shared>, session: session::Session) -> Ended {
    // Dropping this set, when the worker's handle is dropped, ends them all, and with the lease room every attempt.
    let mut rooms = JoinSet::new();
    rooms.spawn(session::run(Arc::clone(&shared), session));
    rooms.spawn(lease::run(Arc::clone(&shared)));
    rooms.spawn(outbox::run(Arc::clone(&shared)));
    rooms.spawn(report::run(Arc::clone(&shared)));
    rooms.spawn(stops::run(Arc::clone(&shared)));

    let mut panicked = None;
    tokio::select! {
        () = end(&shared) => {}
        // No room ends by itself.
        Some(ended) = rooms.join_next() => panicked = ended.err(),
    }
    if let Some(panic) = &panicked {
        tracing::error!(%panic, "a part of the worker has failed; the worker ends");
    }
    rooms.shutdown().await;
    for executor in &shared.executors {
        executor.shutdown().await;
    }
    let left: Vec<JobId> = shared.held.jobs();
    let removed = shared.removed.load(Ordering::SeqCst);
    Ended { unreported: left, removed, failed: panicked.map(|panic| panic.to_string()) }
}

/// Waits until the worker is to end, and brings its jobs to an end: intake, jobs, reports.
async fn end(shared: &Shared) {
    let mut phase = shared.phase.subscribe();
    // Its sender lives in `shared`, so waiting can't fail.
    let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await;
    // A lease that is on its way in now must not slip past what follows.
    shared.held.close();
    shared.nudge.notify_one();

    let is_idle = async { until(shared, |held| held.running() == 0).await };
    tokio::select! {
        biased;
        () = is_idle => {}
        _ = phase.wait_for(|phase| *phase >= Phase::Forced) => {}
        () = shared.clock.sleep(shared.options.drain_timeout) => {}
    }

    shared.held.interrupt_all(Why::HandBack);
    let is_idle = async { until(shared, |held| held.running() == 0).await };
    tokio::select! {
        biased;
        () = is_idle => {}
        _ = phase.wait_for(|phase| *phase >= Phase::Forced) => {}
        () = shared.clock.sleep(GRACE + REPORT_MARGIN / 2) => {}
    }

    shared.held.kill_all();
    shared.output.hurry();
    let forced = *phase.borrow() >= Phase::Forced;
    let patience = if forced { REPORT_MARGIN / 10 } else { REPORT_MARGIN };
    tokio::select! {
        biased;
        () = until(shared, |held| held.len() == 0) => {}
        () = shared.clock.sleep(patience) => {}
    }
}

async fn until(shared: &Shared, is_so: impl Fn(&Held) -> bool) {
    let mut changes = shared.held.changes();
    while !is_so(&shared.held) {
        // Its sender lives in `shared`, so waiting can't fail.
        let _ = changes.changed().await;
    }
}
