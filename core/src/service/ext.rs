//! Conveniences on top of [`JobService`], the same over every transport.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;

use super::{JobService, JobView, Submission, SubmittedJob, WatchQuery};
use crate::Error;
use crate::files::StoredFile;
use crate::id::JobId;
use crate::job::JobSpec;

/// Conveniences for whoever uses a [`JobService`].
#[async_trait]
pub trait JobServiceExt: JobService {
    /// Submits one job.
    ///
    /// # Errors
    /// Those of [`JobService::submit_batch`].
    async fn submit(&self, spec: JobSpec) -> Result<SubmittedJob, Error> {
        let submission = Submission { specs: vec![spec], idempotency_key: None };
        self.submit_batch(submission).await?.pop().ok_or(Error::Internal)
    }

    /// The job with this id.
    ///
    /// # Errors
    /// [`Error::JobNotFound`], and those of [`JobService::get`].
    async fn job(&self, id: JobId) -> Result<JobView, Error> {
        self.get(&[id]).await?.pop().flatten().ok_or(Error::JobNotFound)
    }

    /// Waits until a job has ended, and gives it then. Waits as long as that takes; cancellation safe.
    ///
    /// Survives interruptions: while the service is unavailable it tries again, as long as it takes.
    ///
    /// # Errors
    /// [`Error::JobNotFound`], and those of [`JobService::get`] that trying again can't help.
    async fn wait(&self, id: JobId) -> Result<JobView, Error> {
        loop {
            match self.watch(WatchQuery::Job(id)).await {
                Ok(mut updates) => {
                    while let Some(Ok(update)) = updates.next().await {
                        if update.status.is_finished() {
                            return self.job(id).await;
                        }
                    }
                }
                Err(error) => match error.retry_after() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error),
                },
            }
        }
    }

    /// Keeps a ZIP that is in memory already, as [`JobService::upload`] does.
    ///
    /// # Errors
    /// Those of [`JobService::upload`].
    async fn upload_bytes(&self, name: Option<&str>, bytes: Bytes) -> Result<StoredFile, Error> {
        self.upload(name, Box::pin(futures_util::stream::iter([Ok(bytes)]))).await
    }

    /// Submits one job and waits until it has ended.
    ///
    /// # Errors
    /// Those of [`JobServiceExt::submit`] and [`JobServiceExt::wait`].
    async fn run(&self, spec: JobSpec) -> Result<JobView, Error> {
        let submitted = self.submit(spec).await?;
        self.wait(submitted.id).await
    }
}

impl<T: JobService + ?Sized> JobServiceExt for T {}
