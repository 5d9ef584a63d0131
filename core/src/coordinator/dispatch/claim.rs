//! Claiming: a plan's placements become leases by one compare-and-set write, or by the insertion of the jobs themselves.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::state::Dispatcher;
use crate::id::{LeaseToken, Owner, WorkerId};
use crate::job::{Applied, Event, Job, Life, Timer, transition};
use crate::scheduler::Placement;
use crate::service::LeasedJob;
use crate::store::{self, Change, Insert, Inserted, Written};

/// Leases that are to be handed out: to whom, by which token, what.
type Won = Vec<(WorkerId, LeaseToken, Arc<Job>)>;

/// A job that is about to be claimed for a worker.
struct Claim {
    worker: WorkerId,
    job: Arc<Job>,
    token: LeaseToken,
    life: Life,
    timer: Timer,
}

impl Claim {
    fn change(&self) -> Change {
        Change { id: self.job.id, version: self.job.version, life: self.life.clone(), timer: self.timer }
    }

    /// The job once it is claimed.
    fn done(&self) -> Job {
        Job { life: self.life.clone(), version: self.job.version + 1, ..(*self.job).clone() }
    }
}

/// Jobs that are to be added while somebody waits for work, and whoever waits until they are.
pub(super) struct Admission {
    pub(super) insert: Insert,
    /// The jobs as they are before anybody claims them, which a watcher sees first.
    pub(super) jobs: Vec<Arc<Job>>,
    pub(super) reply: oneshot::Sender<Result<Inserted, store::Error>>,
}

/// Claims jobs for placements and hands them to those who asked. Says whether anything in the view has changed, so
/// that another plan makes sense.
pub(super) async fn claim(dispatcher: &mut Dispatcher, placements: Vec<Placement>) -> bool {
    let claims = choose(dispatcher, placements);
    if claims.is_empty() {
        // A scheduler that places what is not there must not keep the dispatcher busy for ever.
        return false;
    }
    let written = dispatcher.shared.store.update(claims.iter().map(Claim::change).collect()).await;
    let Some(won) = won(dispatcher, claims, written) else { return false };
    hand_out(dispatcher, won).await;
    true
}

/// Adds jobs, those that the placements name as claimed already: one commit rather than two. Then hands these out, and
/// tells whoever had them added.
pub(super) async fn admit(dispatcher: &mut Dispatcher, mut admissions: Vec<Admission>, placements: Vec<Placement>) {
    let shared = Arc::clone(&dispatcher.shared);
    let mut places = HashMap::new();
    for (i, admission) in admissions.iter().enumerate() {
        places.extend(admission.jobs.iter().enumerate().map(|(n, job)| (job.id, (i, n))));
    }
    let mut new: Vec<Vec<Claim>> = admissions.iter().map(|_| Vec::new()).collect();
    let mut old = Vec::new();
    for claim in choose(dispatcher, placements) {
        let place = places.get(&claim.job.id);
        match place.and_then(|&(i, n)| Some((admissions.get_mut(i)?.insert.jobs.get_mut(n)?, new.get_mut(i)?))) {
            Some(((job, timer), claims)) => {
                (*job, *timer) = (claim.done(), claim.timer);
                claims.push(claim);
            }
            None => old.push(claim),
        }
    }
    let update = async {
        if old.is_empty() { Ok(Vec::new()) } else { shared.store.update(old.iter().map(Claim::change).collect()).await }
    };
    let (inserts, added): (Vec<_>, Vec<_>) =
        admissions.into_iter().map(|one| (shared.store.insert(one.insert), (one.jobs, one.reply))).unzip();
    let (inserted, written) = tokio::join!(join_all(inserts), update);

    let mut jobs = won(dispatcher, old, written).unwrap_or_default();
    for (((added, _), claims), inserted) in added.iter().zip(new).zip(&inserted) {
        if matches!(inserted, Ok(Inserted::New)) {
            added.iter().for_each(|job| shared.hub.publish(job));
            jobs.extend(claims.into_iter().map(|claim| win(dispatcher, claim)));
        } else {
            // None of them is there, or nobody knows.
            added.iter().for_each(|job| dispatcher.queues.forget(&job.class));
        }
        if let Err(error) = inserted {
            dispatcher.store_failed(error);
        }
    }
    // A worker that waits for the job comes before the answer to whoever submitted it.
    hand_out(dispatcher, jobs).await;
    for ((_, reply), inserted) in added.into_iter().zip(inserted) {
        // Whoever had them added may have gone; they are.
        let _ = reply.send(inserted);
    }
}

/// Takes the jobs of placements from the queues, and says what becomes of each.
fn choose(dispatcher: &mut Dispatcher, placements: Vec<Placement>) -> Vec<Claim> {
    let shared = Arc::clone(&dispatcher.shared);
    let now = shared.store.now();
    let part = shared.peers.own_part();
    let mut claims = Vec::new();
    for placement in placements {
        let skip = dispatcher.spread.skip(placement.jobs, &mut *shared.random());
        for job in dispatcher.queues.take(&placement.class, placement.jobs, skip, |id| part.has(id)) {
            let token = LeaseToken::random(&mut *shared.random());
            let event = Event::Claim { worker: placement.worker.clone(), token, lease: shared.options.lease };
            // A window holds only queued jobs.
            let Ok(Applied::Changed { life, timer, .. }) = transition(&job, event, now) else { continue };
            claims.push(Claim { worker: placement.worker.clone(), job, token, life, timer });
        }
    }
    claims
}

/// What of the claims was won; nobody knows if the store failed.
fn won(dispatcher: &mut Dispatcher, claims: Vec<Claim>, written: Result<Vec<Written>, store::Error>) -> Option<Won> {
    let written = match written {
        Ok(written) => written,
        Err(error) => {
            // Whether they are claimed is not known. Those that are come back by the rule for leases that no worker
            // lists; those that are not are read again.
            dispatcher.store_failed(&error);
            claims.iter().for_each(|claim| dispatcher.queues.forget(&claim.job.class));
            return None;
        }
    };
    let mut won = Vec::with_capacity(claims.len());
    let claimed = claims.len();
    for (claim, written) in claims.into_iter().zip(written) {
        // Otherwise somebody else was faster: claimed or cancelled it.
        if written == Written::Yes {
            won.push(win(dispatcher, claim));
        }
    }
    if claimed > 0 {
        dispatcher.spread.note(claimed, claimed - won.len());
    }
    Some(won)
}

/// Notes that a claim is written.
fn win(dispatcher: &mut Dispatcher, claim: Claim) -> (WorkerId, LeaseToken, Arc<Job>) {
    let job = Arc::new(claim.done());
    dispatcher.hold(&claim.worker, &job);
    dispatcher.shared.leases.put([Arc::clone(&job)]);
    dispatcher.shared.hub.publish(&job);
    (claim.worker, claim.token, job)
}

/// What stands for an owner where workers tell owners apart.
fn scope(owner: &Owner) -> String {
    let digest = Sha256::new().chain_update("cmdexec reuse ").chain_update(owner.as_str()).finalize();
    format!("{:032x}", u128::from_be_bytes(digest.first_chunk().copied().unwrap_or_default()))
}

/// Hands leases to those who asked, the worker's oldest ask first; returns what nobody waits for any more.
async fn hand_out(dispatcher: &mut Dispatcher, won: Won) {
    let shared = Arc::clone(&dispatcher.shared);
    let expires = shared.store.now().after(shared.options.lease);
    let mut by_worker: Vec<(WorkerId, Vec<LeasedJob>)> = Vec::new();
    for (worker, token, job) in won {
        let leased = LeasedJob {
            job: job.id,
            token,
            attempt: job.life.claimed,
            lease: shared.options.lease,
            expires,
            scope: Some(scope(&job.owner)),
            spec: Arc::clone(&job.spec),
        };
        match by_worker.iter_mut().find(|(w, _)| *w == worker) {
            Some((_, jobs)) => jobs.push(leased),
            None => by_worker.push((worker, vec![leased])),
        }
    }
    let mut unwanted = Vec::new();
    for (worker, mut jobs) in by_worker {
        while !jobs.is_empty() {
            let Some(ask) = dispatcher.waiters.next(&worker) else { break };
            let rest = jobs.split_off(ask.max.min(jobs.len()));
            match ask.reply.send(Ok(jobs)) {
                Ok(()) => jobs = rest,
                // The asker has gone; the next ask of the worker may have them.
                Err(Ok(mut returned)) => {
                    returned.extend(rest);
                    jobs = returned;
                }
                Err(Err(_)) => jobs = rest,
            }
        }
        unwanted.extend(jobs.into_iter().map(|job| (job.job, job.token)));
        let wants = dispatcher.waiters.wants(&worker);
        dispatcher.workers.set_wants(&worker, wants);
    }
    for settled in shared.unstarted(unwanted).await {
        dispatcher.release(&settled.worker, settled.job.id);
        if matches!(settled.job.life.state, crate::job::State::Queued { .. }) {
            dispatcher.queues.add(settled.job);
        }
    }
}
