//! The way of a job's outputs to the coordinator.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use super::super::attempt::{Attempt, Why};
use super::super::backoff::Backoff;
use super::super::runtime::Shared;
use crate::Error;
use crate::files::FileId;

/// How much is read at a time.
const CHUNK: usize = 256 * 1024;

/// How long an upload may stand still before it is begun anew. What comes after the last byte counts too: it is made durable.
const STALL: Duration = Duration::from_secs(60);

/// Uploads the archive, as often as it takes.
///
/// # Errors
/// Trying again would not help.
pub(super) async fn upload(shared: &Shared, attempt: &Attempt, archive: &Path) -> Result<FileId, Error> {
    let mut backoff = Backoff::for_calls();
    loop {
        let error = match upload_once(shared, attempt, archive).await {
            Ok(id) => return Ok(id),
            Err(error) => error,
        };
        match error {
            Error::LeaseLost | Error::JobNotFound => {
                attempt.interrupt(Why::Lost);
                return Err(error);
            }
            Error::Invalid(_)
            | Error::Forbidden(_)
            | Error::Unauthenticated
            | Error::FileTooLarge { .. }
            | Error::QuotaExceeded { .. } => return Err(error),
            error => {
                shared.failed(&error);
                shared.pause(&mut backoff, error.retry_after()).await;
            }
        }
    }
}

async fn upload_once(shared: &Shared, attempt: &Attempt, archive: &Path) -> Result<FileId, Error> {
    let unreadable = |error: std::io::Error| {
        tracing::warn!(%error, "the ZIP of a job's outputs could not be read back");
        Error::Internal
    };
    let file = File::open(archive).await.map_err(unreadable)?;
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let stream = ReaderStream::with_capacity(file, CHUNK).map(move |chunk| {
        count.fetch_add(1, Ordering::Relaxed);
        chunk.map_err(unreadable)
    });
    let call = shared.service.upload_artifacts(shared.id(), attempt.job, Some(attempt.token), Box::pin(stream));
    tokio::select! {
        biased;
        answer = call => answer,
        () = stalled(shared, &sent) => Err(Error::Unavailable { retry_after: Duration::ZERO }),
    }
}

/// Waits until nothing has been sent for a while.
async fn stalled(shared: &Shared, sent: &AtomicU64) {
    loop {
        let before = sent.load(Ordering::Relaxed);
        shared.clock.sleep(STALL).await;
        if sent.load(Ordering::Relaxed) == before {
            return;
        }
    }
}
