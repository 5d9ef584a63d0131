//! The orders in which jobs are asked for. Every question of the contract has its index here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::jobs::Row;
use crate::id::{JobId, Owner, WorkerId};
use crate::job::{Class, Place, Status};
use crate::store::{ListQuery, Queue};
use crate::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Index {
    ready: BTreeMap<Class, BTreeSet<Place>>,
    due: BTreeSet<(Timestamp, JobId)>,
    /// Leased jobs by worker and floor. One without a floor is never over, and stands at the end of time.
    leases: BTreeMap<WorkerId, BTreeSet<(Timestamp, JobId)>>,
    hard_ends: BTreeSet<(Timestamp, JobId)>,
    ended: BTreeSet<(Timestamp, JobId)>,
    by_owner: BTreeMap<Owner, BTreeSet<JobId>>,
    by_status: BTreeMap<Status, BTreeSet<JobId>>,
    by_worker: BTreeMap<WorkerId, BTreeSet<JobId>>,
}

const END_OF_TIME: Timestamp = Timestamp::from_millis(i64::MAX);

impl Index {
    /// Adds a row to, or takes it from, every index that it belongs to. One body for both, so that they can't differ.
    fn walk(&mut self, row: &Row, add: bool) {
        let Row { job, deadlines } = row;
        let (id, status) = (job.id, job.status());
        match status {
            Status::Queued => put(&mut self.ready, &job.class, job.place(), add),
            Status::Scheduled => {
                if let Some(due) = deadlines.due {
                    put_in(&mut self.due, (due, id), add);
                }
            }
            Status::Running | Status::Cancelling => {
                if let Some(lease) = job.life.lease() {
                    put(&mut self.leases, &lease.worker, (deadlines.floor.unwrap_or(END_OF_TIME), id), add);
                }
                if let Some(hard_end) = deadlines.hard_end {
                    put_in(&mut self.hard_ends, (hard_end, id), add);
                }
            }
            Status::Completed | Status::Failed | Status::Cancelled => {
                if let Some(at) = job.life.finished_at() {
                    put_in(&mut self.ended, (at, id), add);
                }
            }
        }
        put(&mut self.by_owner, &job.owner, id, add);
        put(&mut self.by_status, &status, id, add);
        if let Some(lease) = job.life.last_lease() {
            put(&mut self.by_worker, &lease.worker, id, add);
        }
    }

    pub(super) fn add(&mut self, row: &Row) {
        self.walk(row, true);
    }

    pub(super) fn remove(&mut self, row: &Row) {
        self.walk(row, false);
    }

    pub(super) fn classes(&self) -> Vec<Queue> {
        let queue = |(class, places): (&Class, &BTreeSet<Place>)| {
            let head = *places.first()?;
            Some(Queue { class: class.clone(), head, queued: places.len() as u64 })
        };
        self.ready.iter().filter_map(queue).collect()
    }

    pub(super) fn ready(&self, class: &Class, after: Option<Place>) -> impl Iterator<Item = JobId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let places = self.ready.get(class).into_iter();
        places.flat_map(move |places| places.range((from, Bound::Unbounded))).map(|place| place.id)
    }

    pub(super) fn due(&self, now: Timestamp) -> impl Iterator<Item = JobId> {
        self.due.iter().take_while(move |(at, _)| *at <= now).map(|(_, id)| *id)
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Jobs whose lease is past its hard end; and those past their floor whose worker's session is over.
    pub(super) fn expired(&self, now: Timestamp, is_over: impl Fn(&WorkerId) -> bool, limit: usize) -> BTreeSet<JobId> {
        let hard = self.hard_ends.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id);
        let mut expired: BTreeSet<JobId> = hard.take(limit).collect();
        for (_, leases) in self.leases.iter().filter(|(worker, _)| is_over(worker)) {
            for (_, id) in leases.iter().take_while(|(floor, _)| *floor <= now) {
                if expired.len() >= limit {
                    return expired;
                }
                expired.insert(*id);
            }
        }
        expired
    }

    pub(super) fn leased(&self, worker: &WorkerId) -> impl Iterator<Item = JobId> {
        self.leases.get(worker).into_iter().flatten().map(|(_, id)| *id)
    }

    pub(super) fn counts(&self) -> Vec<(Status, u64)> {
        self.by_status.iter().map(|(status, ids)| (*status, ids.len() as u64)).collect()
    }

    pub(super) fn ended_before(&self, before: Timestamp) -> impl Iterator<Item = JobId> {
        self.ended.iter().take_while(move |(at, _)| *at < before).map(|(_, id)| *id)
    }

    /// Where a listing has to look: under the condition that fewest jobs fulfil.
    pub(super) fn narrowest(&self, query: &ListQuery) -> Among<'_> {
        let owner = query.owner.as_ref().map(|owner| self.by_owner.get(owner));
        let status = query.status.as_ref().map(|status| self.by_status.get(status));
        let worker = query.worker.as_ref().map(|worker| self.by_worker.get(worker));
        let sets = [owner, status, worker].into_iter().flatten();
        match sets.min_by_key(|ids| ids.map_or(0, BTreeSet::len)) {
            Some(Some(ids)) => Among::These(ids),
            Some(None) => Among::Nothing,
            None => Among::All,
        }
    }
}

/// Where a listing has to look.
pub(super) enum Among<'a> {
    /// At all jobs.
    All,
    /// At these.
    These(&'a BTreeSet<JobId>),
    /// There is none.
    Nothing,
}

fn put_in<V: Ord>(set: &mut BTreeSet<V>, value: V, add: bool) {
    if add {
        set.insert(value);
    } else {
        set.remove(&value);
    }
}

/// As [`put_in`], in the set under `key`; an empty set is not kept.
fn put<K: Ord + Clone, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: V, add: bool) {
    if let Some(set) = map.get_mut(key) {
        put_in(set, value, add);
        if set.is_empty() {
            map.remove(key);
        }
    } else if add {
        map.insert(key.clone(), BTreeSet::from([value]));
    }
}
