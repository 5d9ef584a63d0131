//! A job that a stream is about.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::coordinator::Shared;
use crate::coordinator::hub::News;
use crate::id::JobId;
use crate::job::Job;

/// How long a stream waits for news before it looks at the store: news of another coordinator's doing come so.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// A job that a stream is about, and news of it.
pub(super) struct Subject {
    pub(super) shared: Arc<Shared>,
    pub(super) job: JobId,
    pub(super) news: watch::Receiver<News>,
    closed: CancellationToken,
}

impl Subject {
    pub(super) fn new(shared: Arc<Shared>, job: JobId) -> Self {
        Self { news: shared.hub.subscribe(job), closed: shared.hub.closed(), shared, job }
    }

    /// The job as it is stored now. News after this call are of what it may have missed.
    pub(super) async fn stored(&mut self) -> Result<Job, Error> {
        self.news.borrow_and_update();
        self.shared.stored(self.job).await?.ok_or(Error::JobNotFound)
    }

    /// Waits for news, or until it is time to look without any.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: the coordinator ends its streams.
    pub(super) async fn wait(&mut self) -> Result<(), Error> {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(Error::Unavailable { retry_after: LOOK }),
            // The sender is in the hub for as long as somebody listens.
            _ = self.news.changed() => Ok(()),
            () = self.shared.clock.sleep(LOOK) => Ok(()),
        }
    }
}
