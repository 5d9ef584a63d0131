//! What other coordinators write to a store that is shared, as it becomes known: wakes whoever here would otherwise find
//! out at the next look.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::id::JobId;
use crate::job::Status;
use crate::store::{self, Notice, Notices};

/// How many notices are taken together.
const BATCH: usize = 512;

/// Follows the notices until `stop` fires or they end.
pub(super) async fn run(shared: Arc<Shared>, notices: Notices, stop: CancellationToken) {
    let mut batches = notices.ready_chunks(BATCH);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            batch = batches.next() => match batch {
                Some(batch) => {
                    if let Err(error) = take(&shared, batch).await {
                        tracing::warn!(%error, "what others have written could not be read; the next sweep finds it");
                    }
                }
                None => return,
            }
        }
    }
}

async fn take(shared: &Shared, batch: Vec<Notice>) -> Result<(), store::Error> {
    let mut places = Vec::new();
    let mut passed = Vec::new();
    let mut looked_at: BTreeSet<JobId> = BTreeSet::new();
    let mut outputs: BTreeSet<JobId> = BTreeSet::new();
    let mut missed = false;
    for notice in batch {
        match notice {
            Notice::Job { id, version, status, queued } => {
                let is_unplaced = status == Status::Queued && queued.is_none();
                places.extend(queued);
                if status != Status::Queued {
                    passed.push((id, version));
                }
                if is_unplaced || shared.leases.has(id) || shared.hub.wants(id) {
                    looked_at.insert(id);
                }
                if status == Status::Scheduled {
                    shared.wake_sweep.notify_one();
                }
            }
            Notice::Output(id) => {
                outputs.insert(id);
            }
            Notice::Missed => missed = true,
        }
    }
    shared.dispatch.noticed(places, passed).await;
    outputs.into_iter().for_each(|id| shared.hub.output(id));
    if missed {
        shared.hub.stir();
        shared.dispatch.sweep().await;
        shared.wake_sweep.notify_one();
    }
    look(shared, looked_at.into_iter().collect()).await
}

/// Reads jobs that others have written, and tells whom they concern.
async fn look(shared: &Shared, ids: Vec<JobId>) -> Result<(), store::Error> {
    if ids.is_empty() {
        return Ok(());
    }
    let jobs: Vec<_> = shared.store.get(&ids).await?.into_iter().flatten().map(Arc::new).collect();
    let over = shared.leases.note(jobs.iter().cloned());
    over.iter().for_each(|(_, job)| shared.outputs.forget(*job));
    jobs.iter().for_each(|job| shared.hub.publish(job));
    shared.dispatch.released(over).await;
    shared.dispatch.ready(jobs.into_iter().filter(|job| job.status() == Status::Queued).collect()).await;
    Ok(())
}
