//! What an earlier process of this worker left: containers, their directories and the network.

use std::fs;

use cmdexec_core::executor::Error;
use futures_util::StreamExt;

use crate::keep::Home;
use crate::profile::{INIT, LABEL_DIR, LABEL_JOB};
use crate::trouble::Trouble;
use crate::workshop::Workshop;

/// How many are removed at once.
const AT_ONCE: usize = 4;

/// Removes everything that carries this executor's label.
pub(crate) async fn sweep(workshop: &Workshop) -> Result<(), Error> {
    let (daemon, options) = (&workshop.daemon, &workshop.options);
    let failed = |error: Trouble| Error::new(format!("clearing up what an earlier worker left: {error}"));
    let label = format!("{LABEL_DIR}={}", options.dir.display());
    let left = daemon.labelled(&label).await.map_err(failed)?;
    let mut removals = futures_util::stream::iter(left.into_iter().filter_map(|container| {
        let job = container.labels.unwrap_or_default().remove(LABEL_JOB).unwrap_or_default();
        let id = container.id?;
        Some(async move {
            tracing::info!(container = id, job, "removing a container that an earlier worker left");
            daemon.remove(&id).await
        })
    }))
    .buffer_unordered(AT_ONCE);
    while let Some(removed) = removals.next().await {
        match removed {
            // The daemon is at it already.
            Ok(()) | Err(Trouble::Conflict(_)) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    for network in daemon.networks(&label).await.map_err(failed)? {
        daemon.remove_network(&network).await.map_err(failed)?;
    }
    let entries =
        fs::read_dir(&options.dir).map_err(|error| Error::io("looking for what an earlier worker left", error))?;
    for entry in entries.flatten() {
        if entry.file_name() != INIT && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            drop(Home { path: entry.path() });
        }
    }
    Ok(())
}
