//! Jobs that were pushed, and the calls of `lease` that wait for them. Only the task that has the socket gives credits; callers say what they want.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::id::WorkerId;
use cmdexec_core::service::LeasedJob;
use cmdexec_core::time::Clock;
use tokio::sync::Notify;

/// For how long what was pushed may be taken at most: beats may be asked for more often than the length of leases says.
const FRESH: Duration = Duration::from_secs(2);

/// What is pushed to each worker.
#[derive(Debug)]
pub(super) struct Pushed {
    clock: Arc<dyn Clock>,
    workers: Mutex<HashMap<WorkerId, Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Jobs that nobody has taken yet.
    queue: VecDeque<Arrived>,
    /// How many jobs callers wait for in all, and how many callers.
    wanted: usize,
    callers: usize,
    /// How many credits stand at the server.
    standing: usize,
    /// What the server said last in the stead of jobs.
    failed: Option<Error>,
    news: Arc<Notify>,
}

#[derive(Debug)]
struct Arrived {
    leased: LeasedJob,
    /// By the clock's uptime.
    at: Duration,
}

impl Arrived {
    /// Whether it may still be begun with. A lease that no heartbeat lists is had back, and given to another, an interval after it was handed
    /// out, a sixth of its length by default. It was on its way before it lay here, and has to be listed in time: half of that is too late.
    fn is_fresh(&self, now: Duration) -> bool {
        now.saturating_sub(self.at) < FRESH.min(self.leased.lease / 12)
    }
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
    /// Nothing yet; how old it gets is measured by this clock.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, workers: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkerId, Entry>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Jobs that came a moment ago, when nobody waited.
    pub(super) fn take(&self, worker: &WorkerId, most: usize) -> Vec<LeasedJob> {
        let (now, mut all) = (self.clock.uptime(), self.lock());
        all.get_mut(worker).map_or_else(Vec::new, |entry| entry.take(most, now))
    }

    /// Jobs have come.
    pub(super) fn push(&self, worker: &WorkerId, jobs: Vec<LeasedJob>) {
        let (at, mut all) = (self.clock.uptime(), self.lock());
        let entry = all.entry(worker.clone()).or_default();
        entry.standing = entry.standing.saturating_sub(jobs.len());
        entry.queue.extend(jobs.into_iter().map(|leased| Arrived { leased, at }));
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

    /// The socket is gone, and with it every credit, and every job that nobody waits for: it can't be given back any more, and comes back because
    /// no heartbeat lists it. Kept, it would be begun with when it runs elsewhere.
    pub(super) fn reset(&self) {
        self.lock().retain(|_, entry| {
            entry.standing = 0;
            entry.news.notify_waiters();
            entry.callers > 0
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
        let jobs = entry.queue.drain(..).map(|arrived| arrived.leased).collect();
        if entry.standing == 0 {
            all.remove(worker);
        }
        jobs
    }
}

impl Entry {
    /// The oldest of what is fresh. What is not is forgotten: its lease comes to nothing because no heartbeat lists it.
    fn take(&mut self, most: usize, now: Duration) -> Vec<LeasedJob> {
        self.queue.retain(|arrived| arrived.is_fresh(now));
        let count = most.min(self.queue.len());
        self.queue.drain(..count).map(|arrived| arrived.leased).collect()
    }
}

impl Waiting {
    /// What is there now: jobs, or what the server said in their stead.
    fn now(&self) -> Option<Result<Vec<LeasedJob>, Error>> {
        let (now, mut all) = (self.pushed.clock.uptime(), self.pushed.lock());
        let entry = all.get_mut(&self.worker)?;
        if !entry.queue.is_empty() {
            // Where all of it is too old, the credits for it are gone: whoever asks again gives new ones.
            return Some(Ok(entry.take(self.most, now)));
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

#[cfg(test)]
mod tests {
    use cmdexec_core::id::{JobId, LeaseToken};
    use cmdexec_core::job::JobSpec;
    use cmdexec_core::time::ManualClock;
    use futures_util::FutureExt;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    fn pushed() -> (ManualClock, Arc<Pushed>, WorkerId) {
        let clock = ManualClock::default();
        let pushed = Arc::new(Pushed::new(Arc::new(clock.clone())));
        (clock, pushed, "w".parse().unwrap())
    }

    fn leased(job: u8, lease: Duration) -> LeasedJob {
        LeasedJob {
            job: JobId::from_bytes([job; 16]),
            token: LeaseToken::from_bits(u128::from(job)),
            attempt: 1,
            lease,
            expires: ManualClock::default().now().after(lease),
            scope: None,
            spec: Arc::new(JobSpec::shell("true")),
        }
    }

    fn minute(job: u8) -> LeasedJob {
        leased(job, Duration::from_mins(1))
    }

    #[test]
    fn what_comes_when_nobody_waits_is_there_for_who_asks_next() {
        let (_, pushed, worker) = pushed();
        pushed.push(&worker, vec![minute(1), minute(2), minute(3)]);
        assert_eq!(pushed.take(&worker, 2), [minute(1), minute(2)]);
        assert_eq!(pushed.idle().as_slice(), std::slice::from_ref(&worker));
        assert_eq!(pushed.unwanted(&worker), [minute(3)]);
        assert_eq!(pushed.take(&worker, 1), []);
    }

    #[test]
    fn a_lease_that_may_have_gone_back_is_not_handed_out() {
        // The second is had back at the latest after 100 ms.
        for (lease, fresh) in [(Duration::from_mins(1), FRESH), (Duration::from_millis(600), 50 * MOMENT)] {
            let (clock, pushed, worker) = pushed();
            pushed.push(&worker, vec![leased(1, lease), leased(2, lease)]);
            clock.advance(fresh.saturating_sub(MOMENT));
            assert_eq!(pushed.take(&worker, 1), [leased(1, lease)]);
            pushed.push(&worker, vec![leased(3, lease)]);
            clock.advance(MOMENT);
            assert_eq!(pushed.take(&worker, 2), [leased(3, lease)], "{fresh:?}");
            assert_eq!(pushed.unwanted(&worker), [], "there is nothing that could be had back");
        }
    }

    #[test]
    fn a_socket_that_breaks_takes_with_it_what_nobody_waits_for() {
        let (_, pushed, worker) = pushed();
        let other: WorkerId = "other".parse().unwrap();
        drop(pushed.wait(&worker, 4));
        let waiting = pushed.wait(&other, 4);
        assert_eq!((pushed.due(&worker), pushed.due(&other)), (0, 4));
        pushed.push(&worker, vec![minute(1)]);
        pushed.push(&other, vec![minute(2)]);
        pushed.reset();
        assert_eq!(pushed.take(&worker, 4), []);
        assert_eq!(waiting.jobs().now_or_never(), Some(Ok(vec![minute(2)])));
        assert_eq!(pushed.due(&other), 4, "over the next socket all are to be given again");
    }

    #[test]
    fn who_waits_through_a_suspension_asks_again() {
        let (clock, pushed, worker) = pushed();
        let waiting = pushed.wait(&worker, 1);
        assert_eq!(waiting.jobs().now_or_never(), None);
        pushed.push(&worker, vec![minute(1)]);
        clock.advance(Duration::from_mins(10));
        assert_eq!(waiting.jobs().now_or_never(), Some(Ok(Vec::new())));
        assert_eq!(pushed.due(&worker), 1);
    }
}
