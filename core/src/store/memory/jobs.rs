//! The jobs, and when the clock is to be watched for them.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::index::{Among, Index};
use crate::id::JobId;
use crate::job::{Job, Timer};
use crate::store::{Change, Error, ErrorKind, ListQuery, Page, Written};
use crate::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Jobs {
    rows: BTreeMap<JobId, Row>,
    pub(super) index: Index,
}

/// A job as it is kept.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) job: Job,
    pub(super) deadlines: Deadlines,
}

/// What a [`Timer`] came to when it was set.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Deadlines {
    pub(super) due: Option<Timestamp>,
    pub(super) floor: Option<Timestamp>,
    pub(super) hard_end: Option<Timestamp>,
}

impl Deadlines {
    fn set(timer: Timer, before: Self, now: Timestamp) -> Self {
        match timer {
            Timer::None => Self::default(),
            Timer::Keep => before,
            Timer::DueAt(at) => Self { due: Some(at), ..Self::default() },
            Timer::DueIn(delay) => Self { due: Some(now.after(delay)), ..Self::default() },
            Timer::Lease { floor, hard_end } => {
                Self { due: None, floor: Some(now.after(floor)), hard_end: Some(now.after(hard_end)) }
            }
        }
    }
}

impl Jobs {
    pub(super) fn insert(&mut self, jobs: Vec<(Job, Timer)>, now: Timestamp) -> Result<(), Error> {
        let mut added = BTreeMap::new();
        for (job, timer) in jobs {
            let id = job.id;
            let row = Row { job, deadlines: Deadlines::set(timer, Deadlines::default(), now) };
            if self.rows.contains_key(&id) || added.insert(id, row).is_some() {
                return Err(Error::new(ErrorKind::Conflict, format!("job {id} exists")));
            }
        }
        for (id, row) in added {
            self.index.add(&row);
            self.rows.insert(id, row);
        }
        Ok(())
    }

    pub(super) fn get(&self, id: JobId) -> Option<&Job> {
        self.rows.get(&id).map(|row| &row.job)
    }

    /// The jobs that an index names.
    pub(super) fn all(&self, ids: impl IntoIterator<Item = JobId>) -> Vec<Job> {
        ids.into_iter().filter_map(|id| self.get(id)).cloned().collect()
    }

    pub(super) fn update(&mut self, change: Change, now: Timestamp) -> Written {
        let Some(row) = self.rows.get_mut(&change.id) else { return Written::Missing };
        if row.job.version != change.version {
            return Written::Stale;
        }
        self.index.remove(row);
        row.job.life = change.life;
        row.job.version += 1;
        row.deadlines = Deadlines::set(change.timer, row.deadlines, now);
        self.index.add(row);
        Written::Yes
    }

    /// Removes jobs that ended before `before`, the oldest endings first, and says which.
    pub(super) fn purge(&mut self, before: Timestamp, limit: usize) -> Vec<JobId> {
        let gone: Vec<JobId> = self.index.ended_before(before).take(limit).collect();
        for id in &gone {
            if let Some(row) = self.rows.remove(id) {
                self.index.remove(&row);
            }
        }
        gone
    }

    pub(super) fn list(&self, query: &ListQuery) -> Page {
        let newest_first = |before: Option<JobId>| -> Box<dyn Iterator<Item = &Job> + '_> {
            let below = (Bound::Unbounded, before.map_or(Bound::Unbounded, Bound::Excluded));
            match self.index.narrowest(query) {
                Among::These(ids) => Box::new(ids.range(below).rev().filter_map(|id| self.get(*id))),
                Among::Nothing => Box::new(std::iter::empty()),
                Among::All => Box::new(self.rows.range(below).rev().map(|(_, row)| &row.job)),
            }
        };
        let mut page = newest_first(query.before).filter(|job| query.matches(job)).skip(query.offset);
        let jobs = page.by_ref().take(query.limit).cloned().collect();
        let more = page.next().is_some();
        let total = newest_first(None).filter(|job| query.matches(job)).take(query.count_to).count();
        Page { jobs, more, total }
    }
}
