//! Counts for people: jobs by worker until its next heartbeat writes them down, and how many ended of late.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use super::lock;
use crate::id::{Owner, WorkerId};
use crate::job::{Job, Status};

#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Completed and failed attempts by worker, since its last beat.
    workers: HashMap<WorkerId, (u64, u64)>,
    /// Jobs that ended, by second and owner, of the last minute.
    ended: VecDeque<(u64, HashMap<Owner, u64>)>,
}

impl Tally {
    /// An attempt is over, and perhaps the job.
    pub(super) fn attempt_over(&self, worker: &WorkerId, job: &Job, uptime: Duration) {
        let mut counts = lock(&self.0);
        match job.life.attempts.last().map(|attempt| &attempt.outcome) {
            Some(outcome) if outcome.is_success() => counts.worker(worker).0 += 1,
            Some(crate::job::Outcome::Returned | crate::job::Outcome::Stopped) | None => {}
            Some(_) => counts.worker(worker).1 += 1,
        }
        if matches!(job.status(), Status::Completed | Status::Failed | Status::Cancelled) {
            counts.ended(&job.owner, uptime.as_secs());
        }
    }

    /// Takes what a worker's next heartbeat is to write down.
    pub(super) fn take(&self, worker: &WorkerId) -> (u64, u64) {
        lock(&self.0).workers.remove(worker).unwrap_or_default()
    }

    /// What a worker's next heartbeat is to write down.
    pub(super) fn of(&self, worker: &WorkerId) -> (u64, u64) {
        lock(&self.0).workers.get(worker).copied().unwrap_or_default()
    }

    /// Gives back what could not be written down.
    pub(super) fn give_back(&self, worker: &WorkerId, (completed, failed): (u64, u64)) {
        let mut counts = lock(&self.0);
        let entry = counts.worker(worker);
        entry.0 += completed;
        entry.1 += failed;
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

impl Counts {
    fn worker(&mut self, worker: &WorkerId) -> &mut (u64, u64) {
        self.workers.entry(worker.clone()).or_default()
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
