//! Claiming: a plan's placements become leases by one compare-and-set write.

use std::sync::Arc;

use super::state::Dispatcher;
use crate::id::{LeaseToken, WorkerId};
use crate::job::{Applied, Event, Job, Life, transition};
use crate::scheduler::Placement;
use crate::service::LeasedJob;
use crate::store::{Change, Written};

/// A job that is about to be claimed for a worker.
struct Claim {
    worker: WorkerId,
    job: Arc<Job>,
    token: LeaseToken,
    life: Life,
}

/// Claims jobs for placements and hands them to those who asked. Says whether anything in the view has changed, so
/// that another plan makes sense.
pub(super) async fn claim(dispatcher: &mut Dispatcher, placements: Vec<Placement>) -> bool {
    let shared = Arc::clone(&dispatcher.shared);
    let now = shared.store.now();
    let part = shared.peers.own_part();
    let mut claims = Vec::new();
    let mut changes = Vec::new();
    for placement in placements {
        let skip = dispatcher.spread.skip(placement.jobs, &mut *shared.random());
        for job in dispatcher.queues.take(&placement.class, placement.jobs, skip, |id| part.has(id)) {
            let token = LeaseToken::random(&mut *shared.random());
            let event = Event::Claim { worker: placement.worker.clone(), token, lease: shared.options.lease };
            // A window holds only queued jobs.
            let Ok(Applied::Changed { life, timer, .. }) = transition(&job, event, now) else { continue };
            changes.push(Change { id: job.id, version: job.version, life: life.clone(), timer });
            claims.push(Claim { worker: placement.worker.clone(), job, token, life });
        }
    }
    if changes.is_empty() {
        // A scheduler that places what is not there must not keep the dispatcher busy for ever.
        return false;
    }
    let written = match shared.store.update(changes).await {
        Ok(written) => written,
        Err(error) => {
            // Whether they are claimed is not known. Those that are come back by the rule for leases that no worker
            // lists; those that are not are read again.
            dispatcher.store_failed(&error);
            claims.iter().for_each(|claim| dispatcher.queues.forget(&claim.job.class));
            return false;
        }
    };
    let mut won = Vec::with_capacity(claims.len());
    let claimed = claims.len();
    for (claim, written) in claims.into_iter().zip(written) {
        // Otherwise somebody else was faster: claimed or cancelled it.
        if written == Written::Yes {
            let job = Job { life: claim.life, version: claim.job.version + 1, ..(*claim.job).clone() };
            dispatcher.hold(&claim.worker, &job);
            won.push((claim.worker, claim.token, Arc::new(job)));
        }
    }
    dispatcher.spread.note(claimed, claimed - won.len());
    shared.leases.put(won.iter().map(|(_, _, job)| Arc::clone(job)));
    for (_, _, job) in &won {
        shared.hub.publish(job);
    }
    hand_out(dispatcher, won).await;
    true
}

/// Hands leases to those who asked, the worker's oldest ask first; returns what nobody waits for any more.
async fn hand_out(dispatcher: &mut Dispatcher, won: Vec<(WorkerId, LeaseToken, Arc<Job>)>) {
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
