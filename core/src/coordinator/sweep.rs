//! The sweep: whatever the clock brings about, and whatever a lost wake-up or a dead process has left undone.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Shared, files};
use crate::job::{Event, Job};
use crate::store;

/// How often everything is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// How soon what was left to another coordinator is looked at again.
const LEFT_AGAIN: Duration = Duration::from_millis(100);

/// How often finished jobs are looked at whose time is over.
const PURGE_EVERY: Duration = Duration::from_secs(60);

/// How often files are looked at whose time is over.
const FILES_EVERY: Duration = Duration::from_secs(600);

/// How many jobs are looked at in one go.
const BATCH: usize = 1_000;

/// Sweeps until `stop` fires.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut purged = shared.clock.uptime();
    let mut filed = purged;
    let is_shared = shared.is_shared;
    loop {
        let due_in = match sweep(&shared, is_shared).await {
            Ok(due_in) => due_in,
            Err(error) => {
                tracing::warn!(%error, "sweep: the store failed; it is tried again");
                INTERVAL
            }
        };
        if shared.clock.uptime().saturating_sub(purged) >= PURGE_EVERY {
            purged = shared.clock.uptime();
            if shared.peers.is_first() {
                purge(&shared).await;
            }
            shared.leases.forget_ended(shared.store.now());
            shared.outputs.forget_unless(|job| shared.leases.has(job));
        }
        if shared.clock.uptime().saturating_sub(filed) >= FILES_EVERY {
            filed = shared.clock.uptime();
            if shared.peers.is_first()
                && let Err(error) = files::sweep(&shared).await
            {
                tracing::warn!(%error, "files could not be looked through; it is tried again");
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = shared.clock.sleep(due_in.min(INTERVAL)) => {}
            // Something is due sooner than was thought.
            () = shared.wake_sweep.notified() => {}
        }
    }
}

/// One look. The answer is how long until something is due.
async fn sweep(shared: &Shared, is_shared: bool) -> Result<Duration, store::Error> {
    if is_shared {
        shared.peers.look(&*shared.store, shared.clock.uptime()).await?;
    }
    loop {
        let due = shared.store.due(BATCH).await?;
        let is_all = due.len() < BATCH;
        if !settle(shared, due, |_| Some(Event::Due)).await? || is_all {
            break;
        }
    }
    // Workers need a chance to be heard after an outage of this process.
    if shared.clock.uptime().saturating_sub(shared.started) >= shared.options.lease {
        loop {
            let expired = shared.store.expired(shared.options.lease, BATCH).await?;
            let is_all = expired.len() < BATCH;
            let lost = |job: &Job| Some(Event::Lost { token: job.life.lease()?.token });
            if !settle(shared, expired, lost).await? || is_all {
                break;
            }
        }
    }
    shared.dispatch.sweep().await;
    shared.hub.sweep();
    let due_in = shared.store.next_due().await?.unwrap_or(INTERVAL);
    // What is left to others is overdue until they have done it.
    Ok(if shared.peers.has_left() { due_in.max(LEFT_AGAIN) } else { due_in })
}

/// Lets what is this coordinator's part happen; says whether there was any.
async fn settle(shared: &Shared, jobs: Vec<Job>, event: impl Fn(&Job) -> Option<Event>) -> Result<bool, store::Error> {
    let events: Vec<_> = shared
        .peers
        .part(jobs, |job| job.id, shared.clock.uptime())
        .into_iter()
        .filter_map(|job| {
            let event = event(&job)?;
            Some((Arc::new(job), event))
        })
        .collect();
    let is_any = !events.is_empty();
    if is_any {
        // What was refused, somebody else was faster with.
        shared.settle(events).await?;
    }
    Ok(is_any)
}

async fn purge(shared: &Shared) {
    loop {
        match shared.store.purge(shared.options.retention, BATCH).await {
            Ok(removed) if removed < BATCH => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "finished jobs could not be purged; it is tried again");
                return;
            }
        }
    }
}
