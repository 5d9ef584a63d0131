//! Insertions and changes of jobs.

use cmdexec_core::id::JobId;
use cmdexec_core::job::{Status, Timer};
use cmdexec_core::store::{ErrorKind, Inserted, Key, Written};

use super::facts::{Deadlines, JobFact, KeyFact};
use super::plan::Plan;
use super::script::{Part, Span};
use super::work::{Changed, NewJob};
use crate::error::Error;
use crate::read::column;

/// What a group does to one job that exists; the rest is in its [`JobFact`].
#[derive(Debug)]
pub(super) struct Update {
    id: JobId,
    /// The worker that the row has.
    was: Option<String>,
    ended: Option<i64>,
    life: Span,
}

impl Plan<'_> {
    pub(super) fn insert(&mut self, jobs: &[NewJob], key: Option<&Key>) -> Result<Inserted, Error> {
        let now = self.now.as_millis();
        if let Some(key) = key
            && let Some(known) = self.facts.keys.get(&(key.owner.clone(), key.key.clone()))
            && known.expires > now
        {
            return Ok(Inserted::Known { ids: known.ids.clone(), fingerprint: known.fingerprint });
        }
        // All or none: nothing is planned before it is known that all can be.
        let mut ids = std::collections::HashSet::with_capacity(jobs.len());
        if let Some(taken) = jobs.iter().find(|job| self.facts.jobs.contains_key(&job.id) || !ids.insert(job.id)) {
            return Err(Error::Refused(ErrorKind::Conflict, format!("job {} exists", taken.id)));
        }
        for job in jobs {
            self.insert_job(job);
        }
        if let Some(key) = key {
            self.use_key(key, jobs);
        }
        Ok(Inserted::New)
    }

    fn insert_job(&mut self, job: &NewJob) {
        let seq = *self.next_seq;
        *self.next_seq += 1;
        let class = self.classes.number(&job.class, &mut self.script);
        let deadlines = self.deadlines(job.timer, Deadlines::default());
        let status = column::status_number(job.life.status);
        let worker = job.life.worker.as_ref().map(|worker| worker.as_str().to_owned());
        let id = self.script.put(job.id.as_bytes());
        let owner = self.script.put(job.owner.as_bytes());
        let worker_at = worker.as_ref().map_or(Span::NULL, |worker| self.script.put(worker.as_bytes()));
        let life = self.script.put(&job.life.json);
        let spec = self.script.put(&job.spec);
        self.script.row(
            Part::Insert,
            &[
                Some(seq),
                id.at,
                Some(status),
                Some(class),
                Some(job.rank),
                Some(job.created),
                deadlines.due,
                deadlines.floor,
                deadlines.hard_end,
                job.life.ended,
                owner.at,
                owner.len,
                worker_at.at,
                worker_at.len,
                life.at,
                life.len,
                spec.at,
                spec.len,
            ],
        );
        self.count(class, None, job.life.status);
        let fact = JobFact { seq, version: 0, status: job.life.status, class, deadlines, worker };
        self.facts.jobs.insert(job.id, fact);
    }

    fn use_key(&mut self, key: &Key, jobs: &[NewJob]) {
        let expires = self.now.after(key.ttl).as_millis();
        let owner = self.script.put(key.owner.as_str().as_bytes());
        let name = self.script.put(key.key.as_bytes());
        let fingerprint = self.script.put(&key.fingerprint);
        let ids: Vec<u8> = jobs.iter().flat_map(|job| *job.id.as_bytes()).collect();
        let ids = self.script.put(&ids);
        self.script
            .row(Part::Keys, &[owner.at, owner.len, name.at, name.len, fingerprint.at, ids.at, ids.len, Some(expires)]);
        let ids = jobs.iter().map(|job| job.id).collect();
        let fact = KeyFact { fingerprint: key.fingerprint, ids, expires };
        self.facts.keys.insert((key.owner.clone(), key.key.clone()), fact);
    }

    pub(super) fn update(&mut self, change: &Changed) -> Written {
        let Some(before) = self.facts.jobs.get(&change.id).cloned() else { return Written::Missing };
        if before.version != change.version {
            return Written::Stale;
        }
        let deadlines = self.deadlines(change.timer, before.deadlines);
        let worker = change.life.worker.as_ref().map(|worker| worker.as_str().to_owned());
        let fact = JobFact {
            version: before.version + 1,
            status: change.life.status,
            deadlines,
            worker,
            seq: before.seq,
            class: before.class,
        };
        let life = self.script.put(&change.life.json);
        let ended = change.life.ended;
        let first = || Update { id: change.id, was: before.worker, ended, life };
        let update = self.updates.entry(before.seq).or_insert_with(first);
        update.ended = ended;
        update.life = life;
        self.count(before.class, Some(before.status), change.life.status);
        self.facts.jobs.insert(change.id, fact);
        Written::Yes
    }

    /// A job has one row here, however often the group changed it: of several rows that match, SQLite would take any.
    pub(super) fn write_updates(&mut self) {
        for (seq, update) in std::mem::take(&mut self.updates) {
            let Some(fact) = self.facts.jobs.get(&update.id) else { continue };
            let cells = [
                Some(seq),
                Some(column::signed(fact.version)),
                Some(column::status_number(fact.status)),
                fact.deadlines.due,
                fact.deadlines.floor,
                fact.deadlines.hard_end,
                update.ended,
                update.life.at,
                update.life.len,
            ];
            if fact.worker == update.was {
                self.script.row(Part::Update, &cells);
            } else {
                let at = fact.worker.as_ref().map_or(Span::NULL, |worker| self.script.put(worker.as_bytes()));
                let cells: Vec<Option<i64>> = cells.into_iter().chain([at.at, at.len]).collect();
                self.script.row(Part::Assign, &cells);
            }
        }
    }

    fn deadlines(&self, timer: Timer, before: Deadlines) -> Deadlines {
        match timer {
            Timer::None => Deadlines::default(),
            Timer::Keep => before,
            Timer::DueAt(at) => Deadlines { due: Some(at.as_millis()), ..Deadlines::default() },
            Timer::DueIn(delay) => Deadlines { due: Some(self.now.after(delay).as_millis()), ..Deadlines::default() },
            Timer::Lease { floor, hard_end } => Deadlines {
                due: None,
                floor: Some(self.now.after(floor).as_millis()),
                hard_end: Some(self.now.after(hard_end).as_millis()),
            },
        }
    }

    fn count(&mut self, class: i64, before: Option<Status>, after: Status) {
        let delta = |of: Option<Status>| i64::from(of == Some(Status::Queued));
        for (status, delta) in [(before, -1), (Some(after), 1)] {
            let place = status.and_then(|status| usize::try_from(column::status_number(status)).ok());
            if let Some(count) = place.and_then(|place| self.counts.get_mut(place)) {
                *count += delta;
            }
        }
        let change = delta(Some(after)) - delta(before);
        if change != 0 {
            *self.queued.entry(class).or_default() += change;
        }
    }
}
