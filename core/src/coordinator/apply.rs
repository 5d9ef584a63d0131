//! Events become writes: decide, compare and set, decide again where somebody was faster, and then the effects.

use std::collections::HashSet;
use std::sync::Arc;

use super::Shared;
use crate::Error;
use crate::id::{JobId, LeaseToken, WorkerId};
use crate::job::{Applied, Effect, Event, Job, Rejected, Timer, transition};
use crate::store::{self, Change, Written};

/// What became of an event that was applied.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    /// The job as it is now.
    pub(super) job: Arc<Job>,
    /// What had to follow.
    pub(super) effect: Effect,
    /// Who held the job before and does no longer.
    pub(super) released: Option<WorkerId>,
}

/// An attempt that is over, returned by its worker's absence.
#[derive(Debug, Clone)]
pub(super) struct Unstarted {
    pub(super) job: Arc<Job>,
    pub(super) worker: WorkerId,
}

/// Why an event was not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Rejected(Rejected),
    Missing,
}

/// An event and the job it happens to.
struct Pending {
    at: usize,
    job: Arc<Job>,
    event: Event,
    /// Whether `job` was read after the event came, so that a rejection is the last word.
    is_fresh: bool,
}

impl Shared {
    /// The jobs with these ids: as last seen if leased, else from the store.
    pub(super) async fn jobs(&self, ids: &[JobId]) -> Result<Vec<Option<Arc<Job>>>, store::Error> {
        let mut jobs = self.leases.get(ids.iter().copied());
        let unknown: Vec<_> = jobs.iter().zip(ids).filter(|(job, _)| job.is_none()).map(|(_, id)| *id).collect();
        if unknown.is_empty() {
            return Ok(jobs);
        }
        let mut read = self.store.get(&unknown).await?.into_iter();
        for job in jobs.iter_mut().filter(|job| job.is_none()) {
            *job = read.next().flatten().map(Arc::new);
        }
        Ok(jobs)
    }

    /// A job as it is stored now.
    pub(super) async fn stored(&self, id: JobId) -> Result<Option<Job>, store::Error> {
        Ok(self.store.get(&[id]).await?.pop().flatten())
    }

    /// Applies events to jobs as they were last seen, and carries out what follows. The answers are in order; `None`
    /// where nothing had to change.
    ///
    /// # Errors
    /// The store's. Some of the events may have been applied; each may be repeated.
    pub(super) async fn settle(
        &self,
        events: Vec<(Arc<Job>, Event)>,
    ) -> Result<Vec<Result<Option<Settled>, Refused>>, store::Error> {
        let settled = self.apply(events).await?;
        let mut ready = Vec::new();
        let mut released = Vec::new();
        for settled in settled.iter().flatten().flatten() {
            if settled.effect == Effect::Ready {
                ready.push(Arc::clone(&settled.job));
            }
            released.extend(settled.released.clone().map(|worker| (worker, settled.job.id)));
        }
        self.dispatch.released(released).await;
        self.dispatch.ready(ready).await;
        Ok(settled)
    }

    /// Attempts that never began go back. For the dispatcher, which must not wait for itself: what follows for the
    /// queues is its own to do.
    pub(super) async fn unstarted(&self, attempts: Vec<(JobId, LeaseToken)>) -> Vec<Unstarted> {
        if attempts.is_empty() {
            return Vec::new();
        }
        let ids: Vec<_> = attempts.iter().map(|(id, _)| *id).collect();
        let settled = async {
            let jobs = self.jobs(&ids).await?;
            let events = jobs
                .into_iter()
                .zip(attempts)
                .filter_map(|(job, (_, token))| Some((job?, Event::Unstarted { token })))
                .collect();
            self.apply(events).await
        };
        match settled.await {
            Ok(settled) => settled
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|settled| Some(Unstarted { worker: settled.released?, job: settled.job }))
                .collect(),
            Err(error) => {
                // They come back by the rule for leases that no worker lists.
                tracing::warn!(%error, "leases that nobody waits for could not be returned at once");
                Vec::new()
            }
        }
    }

    /// Applies events and carries out what follows, but for what the dispatcher is to be told.
    async fn apply(
        &self,
        events: Vec<(Arc<Job>, Event)>,
    ) -> Result<Vec<Result<Option<Settled>, Refused>>, store::Error> {
        let mut answers: Vec<_> = events.iter().map(|_| Ok(None)).collect();
        let mut pending: Vec<_> = events
            .into_iter()
            .enumerate()
            .map(|(at, (job, event))| Pending { at, job, event, is_fresh: false })
            .collect();
        while !pending.is_empty() {
            let now = self.store.now();
            let mut changes = Vec::with_capacity(pending.len());
            let mut written = Vec::with_capacity(pending.len());
            let mut again = Vec::new();
            let mut named = HashSet::with_capacity(pending.len());
            for item in pending {
                if !named.insert(item.job.id) {
                    // A second event of the same job is judged after the first.
                    again.push(item);
                    continue;
                }
                match transition(&item.job, item.event.clone(), now) {
                    Ok(Applied::Unchanged) => {}
                    Ok(Applied::Changed { life, timer, effect }) => {
                        let (id, version) = (item.job.id, item.job.version);
                        changes.push(Change { id, version, life: life.clone(), timer });
                        written.push((item, life, timer, effect));
                    }
                    Err(rejected) if item.is_fresh => set(&mut answers, item.at, Err(Refused::Rejected(rejected))),
                    Err(_) => again.push(item),
                }
            }
            let answered = if changes.is_empty() { Vec::new() } else { self.store.update(changes).await? };
            let mut changed = Vec::new();
            for ((item, life, timer, effect), answer) in written.into_iter().zip(answered) {
                match answer {
                    Written::Yes => {
                        let released = match (item.job.life.lease(), life.lease()) {
                            (Some(before), None) => Some(before.worker.clone()),
                            _ => None,
                        };
                        let job = Job { life, version: item.job.version + 1, ..(*item.job).clone() };
                        let settled = Settled { job: Arc::new(job), effect, released };
                        self.follow_up(&settled, timer);
                        changed.push(Arc::clone(&settled.job));
                        set(&mut answers, item.at, Ok(Some(settled)));
                    }
                    Written::Stale => again.push(item),
                    Written::Missing => set(&mut answers, item.at, Err(Refused::Missing)),
                }
            }
            self.leases.put(changed);
            pending = self.read_again(again, &mut answers).await?;
        }
        Ok(answers)
    }

    /// Reads jobs again whose events have to be judged again.
    async fn read_again(
        &self,
        items: Vec<Pending>,
        answers: &mut [Result<Option<Settled>, Refused>],
    ) -> Result<Vec<Pending>, store::Error> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = items.iter().map(|item| item.job.id).collect();
        let read = self.store.get(&ids).await?;
        let mut pending = Vec::with_capacity(items.len());
        for (item, job) in items.into_iter().zip(read) {
            match job {
                Some(job) => {
                    let job = Arc::new(job);
                    self.leases.put([Arc::clone(&job)]);
                    pending.push(Pending { job, is_fresh: true, ..item });
                }
                None => {
                    self.leases.forget(item.job.id);
                    set(answers, item.at, Err(Refused::Missing));
                }
            }
        }
        Ok(pending)
    }

    /// What follows a write at once and in this process.
    fn follow_up(&self, settled: &Settled, timer: Timer) {
        let job = &settled.job;
        if let Some(worker) = &settled.released {
            self.outputs.forget(job.id);
            self.tally.attempt_over(worker, job, self.clock.uptime());
        }
        if matches!(timer, Timer::DueIn(_)) {
            self.wake_sweep.notify_one();
        }
        self.hub.publish(job);
    }
}

fn set<T>(answers: &mut [T], at: usize, answer: T) {
    if let Some(place) = answers.get_mut(at) {
        *place = answer;
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Rejected(Rejected::LeaseLost) => Self::LeaseLost,
            Refused::Rejected(Rejected::Finished) => Self::JobFinished,
            // Only events that nobody outside sends are rejected so.
            Refused::Rejected(Rejected::WrongState) => Self::Internal,
            Refused::Missing => Self::JobNotFound,
        }
    }
}
