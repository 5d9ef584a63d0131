//! Jobs that were pushed, and the calls of `lease` that wait for them. Only the task that has the socket gives credits; callers say what they want.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cmdexec_core::Error;
use cmdexec_core::id::WorkerId;
use cmdexec_core::service::LeasedJob;
use tokio::sync::Notify;

/// What is pushed to each worker.
#[derive(Debug, Default)]
pub(super) struct Pushed(Mutex<HashMap<WorkerId, Entry>>);

#[derive(Debug, Default)]
struct Entry {
    /// Jobs that nobody has taken yet.
    queue: VecDeque<LeasedJob>,
    /// How many jobs callers wait for in all, and how many callers.
    wanted: usize,
    callers: usize,
    /// How many credits stand at the server.
    standing: usize,
    /// What the server said last in the stead of jobs.
    failed: Option<Error>,
    news: Arc<Notify>,
}

/// A call of `lease` that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pushed: Arc<Pushed>,
    worker: WorkerId,
    most: usize,
    news: Arc<Notify>,
}

impl Pushed {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkerId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for jobs.
    pub(super) fn wait(self: &Arc<Self>, worker: &WorkerId, most: usize) -> Waiting {
        let mut all = self.lock();
        let entry = all.entry(worker.clone()).or_default();
        entry.wanted += most;
        entry.callers += 1;
        entry.failed = None;
        Waiting { pushed: Arc::clone(self), worker: worker.clone(), most, news: Arc::clone(&entry.news) }
    }

    /// Jobs that came when nobody waited.
    pub(super) fn take(&self, worker: &WorkerId, most: usize) -> Vec<LeasedJob> {
        let mut all = self.lock();
        all.get_mut(worker).map_or_else(Vec::new, |entry| taken(entry, most))
    }

    /// Jobs have come.
    pub(super) fn push(&self, worker: &WorkerId, jobs: Vec<LeasedJob>) {
        let mut all = self.lock();
        let entry = all.entry(worker.clone()).or_default();
        entry.standing = entry.standing.saturating_sub(jobs.len());
        entry.queue.extend(jobs);
        entry.news.notify_waiters();
    }

    /// Credits are void.
    pub(super) fn fail(&self, worker: &WorkerId, credits: usize, error: Error) {
        let mut all = self.lock();
        let entry = all.entry(worker.clone()).or_default();
        entry.standing = entry.standing.saturating_sub(credits);
        entry.failed = Some(error);
        entry.news.notify_waiters();
    }

    /// The socket is gone, and with it every credit.
    pub(super) fn reset(&self) {
        self.lock().values_mut().for_each(|entry| {
            entry.standing = 0;
            entry.news.notify_waiters();
        });
    }

    /// The workers that somebody waits for.
    pub(super) fn waited_for(&self) -> Vec<WorkerId> {
        self.lock().iter().filter(|(_, entry)| entry.callers > 0).map(|(worker, _)| worker.clone()).collect()
    }

    /// How many credits to give now; they stand from here on.
    pub(super) fn due(&self, worker: &WorkerId) -> usize {
        let mut all = self.lock();
        let Some(entry) = all.get_mut(worker) else { return 0 };
        let due = entry.wanted.saturating_sub(entry.standing + entry.queue.len());
        entry.standing += due;
        due
    }

    /// Workers that nobody waits for, and that still have credits or jobs.
    pub(super) fn idle(&self) -> Vec<WorkerId> {
        let all = self.lock();
        let idle =
            all.iter().filter(|(_, entry)| entry.callers == 0 && (entry.standing > 0 || !entry.queue.is_empty()));
        idle.map(|(worker, _)| worker.clone()).collect()
    }

    /// Forgets a worker's credits, which are being taken back; whether there were any.
    pub(super) fn drain(&self, worker: &WorkerId) -> bool {
        self.lock().get_mut(worker).is_some_and(|entry| std::mem::take(&mut entry.standing) > 0)
    }

    /// What is there of a worker's jobs if nobody waits for them: they go back.
    pub(super) fn unwanted(&self, worker: &WorkerId) -> Vec<LeasedJob> {
        let mut all = self.lock();
        let Some(entry) = all.get_mut(worker).filter(|entry| entry.callers == 0) else { return Vec::new() };
        let jobs = entry.queue.drain(..).collect();
        if entry.standing == 0 {
            all.remove(worker);
        }
        jobs
    }
}

fn taken(entry: &mut Entry, most: usize) -> Vec<LeasedJob> {
    let count = most.min(entry.queue.len());
    entry.queue.drain(..count).collect()
}

impl Waiting {
    /// What is there now: jobs, or what the server said in their stead.
    fn now(&self) -> Option<Result<Vec<LeasedJob>, Error>> {
        let mut all = self.pushed.lock();
        let entry = all.get_mut(&self.worker)?;
        let jobs = taken(entry, self.most);
        if !jobs.is_empty() {
            return Some(Ok(jobs));
        }
        entry.failed.clone().map(Err)
    }

    /// Waits for jobs. Cancellation safe: what nobody takes stays.
    pub(super) async fn jobs(&self) -> Result<Vec<LeasedJob>, Error> {
        loop {
            let news = self.news.notified();
            if let Some(answer) = self.now() {
                return answer;
            }
            news.await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(entry) = self.pushed.lock().get_mut(&self.worker) {
            entry.wanted -= self.most;
            entry.callers -= 1;
        }
    }
}
