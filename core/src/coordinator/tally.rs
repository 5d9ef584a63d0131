//! Counts for people: jobs by worker until its next heartbeat writes them down, and how many ended of late.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use super::lock;
use crate::id::{LeaseToken, Owner, WorkerId};
use crate::job::{Job, Outcome, Status};

#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    workers: HashMap<WorkerId, Pending>,
    /// Jobs that ended, by second and owner, of the last minute.
    ended: VecDeque<(u64, HashMap<Owner, u64>)>,
}

/// What is to be written down of one worker.
#[derive(Debug, Default)]
struct Pending {
    /// Counted since its last beat.
    fresh: Sums,
    /// What beats had that failed. It may be written down all the same, and goes again as it was, under its name.
    unsure: Vec<Sums>,
}

/// How many attempts completed and failed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    /// The token of the first of them; `None` if there are none.
    pub(super) name: Option<LeaseToken>,
    pub(super) completed: u64,
    pub(super) failed: u64,
}

/// What a beat is to write down. Whose caller goes away, or learns of an error, gives it back.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    tally: &'a Tally,
    worker: &'a WorkerId,
    sums: Sums,
}

impl Tally {
    /// An attempt is over, and perhaps the job.
    pub(super) fn attempt_over(&self, worker: &WorkerId, job: &Job, uptime: Duration) {
        let mut counts = lock(&self.0);
        if let Some(attempt) = job.life.attempts.last()
            && !matches!(attempt.outcome, Outcome::Returned | Outcome::Stopped)
        {
            let fresh = &mut counts.workers.entry(worker.clone()).or_default().fresh;
            fresh.name.get_or_insert(attempt.lease.token);
            if attempt.outcome.is_success() { fresh.completed += 1 } else { fresh.failed += 1 }
        }
        if matches!(job.status(), Status::Completed | Status::Failed | Status::Cancelled) {
            counts.ended(&job.owner, uptime.as_secs());
        }
    }

    /// Takes what a worker's next heartbeat is to write down.
    pub(super) fn take<'a>(&'a self, worker: &'a WorkerId) -> Taken<'a> {
        Taken { tally: self, worker, sums: lock(&self.0).take(worker) }
    }

    /// What a worker's next heartbeats are to write down, but for what has this name: that is written down already.
    pub(super) fn of(&self, worker: &WorkerId, written: Option<LeaseToken>) -> Sums {
        let counts = lock(&self.0);
        let pending = counts.workers.get(worker).into_iter();
        let all = pending.flat_map(|pending| pending.unsure.iter().chain([&pending.fresh]));
        all.filter(|sums| sums.name != written).fold(Sums::default(), |sum, sums| Sums {
            name: None,
            completed: sum.completed + sums.completed,
            failed: sum.failed + sums.failed,
        })
    }

    /// How many jobs ended within the last minute: this owner's, or all.
    pub(super) fn last_minute(&self, owner: Option<&Owner>, uptime: Duration) -> u64 {
        let mut counts = lock(&self.0);
        counts.forget_before(uptime.as_secs());
        let ended = |second: &HashMap<Owner, u64>| match owner {
            Some(owner) => second.get(owner).copied().unwrap_or(0),
            None => second.values().sum(),
        };
        counts.ended.iter().map(|(_, second)| ended(second)).sum()
    }
}

impl Taken<'_> {
    pub(super) fn sums(&self) -> Sums {
        self.sums
    }

    /// It is written down.
    pub(super) fn written(mut self) {
        self.sums = Sums::default();
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.sums.name.is_some() {
            lock(&self.tally.0).workers.entry(self.worker.clone()).or_default().unsure.push(self.sums);
        }
    }
}

impl Counts {
    fn take(&mut self, worker: &WorkerId) -> Sums {
        let Some(pending) = self.workers.get_mut(worker) else { return Sums::default() };
        if let Some(unsure) = pending.unsure.pop() {
            return unsure;
        }
        let fresh = pending.fresh;
        self.workers.remove(worker);
        fresh
    }

    fn ended(&mut self, owner: &Owner, second: u64) {
        self.forget_before(second);
        if self.ended.back().is_none_or(|(then, _)| *then != second) {
            self.ended.push_back((second, HashMap::new()));
        }
        let Some((_, ended)) = self.ended.back_mut() else { return };
        match ended.get_mut(owner) {
            Some(count) => *count += 1,
            None => {
                ended.insert(owner.clone(), 1);
            }
        }
    }

    fn forget_before(&mut self, second: u64) {
        while self.ended.front().is_some_and(|(then, _)| then + 60 <= second) {
            self.ended.pop_front();
        }
    }
}
