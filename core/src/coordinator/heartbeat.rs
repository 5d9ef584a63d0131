//! Signs of life: renewing sessions, and telling workers from the store what to stop.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;

use super::register::REMOVED;
use super::tally::{Sums, Taken};
use super::{Shared, lock};
use crate::Error;
use crate::id::{LeaseToken, WorkerId};
use crate::job::{Event, Job, Outcome, State};
use crate::service::{Heartbeat, HeartbeatReply};
use crate::store::{Beat, Listed, Renewed};

/// How many attempts a beat may list.
const MAX_HELD: usize = 65_536;

/// What workers' beats said of the attempts that they have leases for.
#[derive(Debug, Default)]
pub(super) struct Presences(Mutex<HashMap<WorkerId, HashMap<LeaseToken, Presence>>>);

/// What one worker's beats said of one attempt.
#[derive(Debug, Clone, Copy, Default)]
struct Presence {
    /// Whether it was ever listed.
    was_listed: bool,
    /// How many beats in a row have not listed it.
    absences: u32,
}

/// What is to be done about an attempt that a beat does not list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absence {
    /// Nothing yet.
    Wait,
    /// It was listed and dropped: the worker has lost it.
    Dropped,
    /// It was never listed, though there was time: perhaps it never arrived.
    Unseen,
}

impl Presences {
    /// Notes what a beat said of the attempts that the worker has leases for, and what is to be done about each.
    fn note(
        &self,
        worker: &WorkerId,
        leases: &[(LeaseToken, bool, bool)],
        before: &HashSet<LeaseToken>,
    ) -> Vec<Absence> {
        let mut workers = lock(&self.0);
        let seen = workers.remove(worker).unwrap_or_default();
        let mut now = HashMap::with_capacity(leases.len());
        let absences = leases
            .iter()
            .map(|&(token, is_listed, had_time)| {
                let mut presence = seen.get(&token).copied().unwrap_or_default();
                presence.was_listed |= is_listed || before.contains(&token);
                presence.absences = if is_listed { 0 } else { presence.absences + 1 };
                now.insert(token, presence);
                match presence {
                    Presence { absences: 0, .. } => Absence::Wait,
                    // Beats may overtake one another, and leases beats: an older one that arrives late lists less. One
                    // absence proves nothing.
                    Presence { absences: 1, .. } => Absence::Wait,
                    Presence { was_listed: true, .. } => Absence::Dropped,
                    Presence { was_listed: false, .. } if had_time => Absence::Unseen,
                    Presence { .. } => Absence::Wait,
                }
            })
            .collect();
        if !now.is_empty() {
            workers.insert(worker.clone(), now);
        }
        absences
    }
}

/// A beat that is written, and what its worker held then, as of the claim with a number.
struct Beaten {
    worker: WorkerId,
    beat: Heartbeat,
    leased: Vec<Arc<Job>>,
    as_of: u64,
}

/// What is wrong with a beat.
pub(super) fn check(beat: &Heartbeat) -> Result<(), Error> {
    if beat.held.as_ref().is_some_and(|held| held.len() > MAX_HELD) {
        return Err(Error::invalid("running", format!("must be at most {MAX_HELD}")));
    }
    Ok(())
}

impl Shared {
    /// Renews the sessions of workers, of which none is named twice; the answers are in their order.
    pub(super) async fn take_beats(&self, beats: Vec<(WorkerId, Heartbeat)>) -> Vec<Result<HeartbeatReply, Error>> {
        match self.renew_and_read(&beats).await {
            Ok((renewed, leased, as_of)) => {
                let answers = beats.into_iter().zip(renewed).zip(leased).map(|(((worker, beat), renewed), leased)| {
                    let beat = Beaten { worker, beat, leased, as_of };
                    self.answer_beat(beat, renewed)
                });
                join_all(answers).await
            }
            Err(error) => beats.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// Writes beats, and then reads what the workers hold, as of the claim with the number.
    async fn renew_and_read(
        &self,
        beats: &[(WorkerId, Heartbeat)],
    ) -> Result<(Vec<Renewed>, Vec<Vec<Arc<Job>>>, u64), Error> {
        let renewed = self.renew(beats).await?;
        let as_of = self.dispatch.last_claim();
        let workers: Vec<_> = beats.iter().map(|(worker, _)| worker.clone()).collect();
        let mut leased = self.leased_by(&workers).await?;
        self.leases.refresh(leased.values().flatten().cloned());
        let leased = workers.iter().map(|worker| leased.remove(worker).unwrap_or_default()).collect();
        Ok((renewed, leased, as_of))
    }

    /// Sees to what follows from a beat that is written.
    async fn answer_beat(&self, beaten: Beaten, renewed: Renewed) -> Result<HeartbeatReply, Error> {
        let Beaten { worker, beat, leased, as_of } = beaten;
        let (before, is_removed) = match renewed {
            Renewed::Yes { before } => (before, false),
            Renewed::Removed { before } => (before, true),
            Renewed::Unknown => return Err(Error::WorkerNotFound),
        };
        let before = before.into_iter().flatten().map(|listed| listed.token).collect();
        if is_removed {
            // Another coordinator may have removed it.
            self.removed(&worker).await;
            if leased.is_empty() {
                return Err(REMOVED);
            }
        }

        let cancelling = leased.iter().filter(|job| matches!(job.life.state, State::Cancelling { .. }));
        let mut cancel: Vec<_> = cancelling.map(|job| job.id).collect();
        let mut lost = Vec::new();
        if let Some(held) = &beat.held {
            self.settle_absences(&worker, &leased, held, &before, is_removed).await?;
            lost = self.no_longer(&worker, &leased, held).await?;
        }
        if is_removed {
            // It is to stop everything; its leases end unrenewed, or when it has stopped listing them.
            let held: Option<HashSet<_>> =
                beat.held.as_ref().map(|held| held.iter().map(|listed| listed.job).collect());
            let is_held = |job: &&Arc<Job>| held.as_ref().is_none_or(|held| held.contains(&job.id));
            lost.extend(leased.iter().filter(is_held).map(|job| job.id));
            lost.sort_unstable();
            lost.dedup();
            cancel.clear();
        }
        let takes_jobs = beat.usage.status.takes_jobs();
        self.dispatch.beaten(worker, takes_jobs, leased.iter().map(|job| job.id).collect(), as_of).await;
        Ok(HeartbeatReply { server_time: self.store.now(), cancel, lost })
    }

    /// Writes beats.
    async fn renew(&self, beats: &[(WorkerId, Heartbeat)]) -> Result<Vec<Renewed>, Error> {
        let tallies: Vec<_> = beats.iter().map(|(worker, _)| self.tally.take(worker)).collect();
        let written = beats.iter().zip(&tallies).map(|((worker, beat), tally)| {
            let report = serde_json::to_value(beat.usage).unwrap_or_default();
            let Sums { name, completed, failed } = tally.sums();
            (worker.clone(), Beat { report, held: beat.held.clone(), completed, failed, tally: name })
        });
        let renewed = self.store.renew(written.collect()).await?;
        tallies.into_iter().for_each(Taken::written);
        Ok(renewed)
    }

    /// Ends attempts that the worker has a lease for and does not list.
    async fn settle_absences(
        &self,
        worker: &WorkerId,
        leased: &[Arc<Job>],
        held: &[Listed],
        before: &HashSet<LeaseToken>,
        is_removed: bool,
    ) -> Result<(), Error> {
        let now = self.store.now();
        let interval = self.options.heartbeat_interval();
        let held: HashSet<_> = held.iter().map(|listed| listed.token).collect();
        let leases: Vec<_> = leased
            .iter()
            .filter_map(|job| job.life.lease())
            .map(|lease| (lease.token, held.contains(&lease.token), now.since(lease.since) >= interval))
            .collect();
        let absences = self.presence.note(worker, &leases, before);
        let mut events = Vec::new();
        for ((job, (token, is_listed, _)), absence) in leased.iter().zip(leases).zip(absences) {
            let absence = if is_removed && !is_listed { Absence::Dropped } else { absence };
            let event = match absence {
                Absence::Wait => continue,
                Absence::Dropped => Event::Lost { token },
                // It has reported on it, so it has begun.
                Absence::Unseen if self.has_output(job).await? => Event::Lost { token },
                Absence::Unseen => Event::Unstarted { token },
            };
            events.push((Arc::clone(job), event));
        }
        // Each is judged by its token; what was decided in between stands.
        self.settle(events).await?;
        Ok(())
    }

    async fn has_output(&self, job: &Job) -> Result<bool, Error> {
        Ok(self.store.output_extent(job.id, job.life.claimed).await?.next > 0)
    }

    /// Jobs that the worker lists and has no lease for; not those whose report was accepted a moment ago.
    async fn no_longer(
        &self,
        worker: &WorkerId,
        leased: &[Arc<Job>],
        held: &[Listed],
    ) -> Result<Vec<crate::id::JobId>, Error> {
        let leases: HashSet<_> = leased.iter().filter_map(|job| Some((job.id, job.life.lease()?.token))).collect();
        let unknown: Vec<_> = held.iter().filter(|listed| !leases.contains(&(listed.job, listed.token))).collect();
        if unknown.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = unknown.iter().map(|listed| listed.job).collect();
        let jobs = self.store.get(&ids).await?;
        let is_lost = |(listed, job): &(&Listed, Option<Job>)| {
            let Some(job) = job else { return true };
            // The lease may have been claimed after the worker's leases were read.
            let holds = job.life.lease().is_some_and(|lease| lease.token == listed.token && lease.worker == *worker);
            let past = job.life.attempts.iter().find(|attempt| attempt.lease.token == listed.token);
            // A returned attempt may be one that was returned because it was not listed, and has arrived since.
            let has_reported = past.is_some_and(|past| !matches!(past.outcome, Outcome::Lost | Outcome::Returned));
            !holds && !has_reported
        };
        Ok(unknown.into_iter().zip(jobs).filter(is_lost).map(|(listed, _)| listed.job).collect())
    }
}
