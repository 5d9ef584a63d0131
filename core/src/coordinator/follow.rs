//! Streams for readers: a job's output, and changes of jobs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::hub::News;
use super::output::REPLACED;
use super::view;
use crate::Error;
use crate::id::{JobId, Owner};
use crate::job::Job;
use crate::service::{Cursor, JobUpdate, OutputEvent, OutputQuery, OutputStream, UpdateStream};
use crate::store::Chunk;

/// How much is read from the store for a follower at once.
const READ: usize = 256 << 10;

/// How long a stream waits for news before it looks at the store: news of another coordinator's doing come so.
const LOOK: Duration = Duration::from_secs(1);

/// The output of a job that the reader may see.
pub(super) fn output(shared: Arc<Shared>, job: &Job, query: OutputQuery) -> OutputStream {
    let attempt = job.life.last_lease().map_or(0, |lease| lease.attempt);
    let cursor = query.from.unwrap_or(Cursor { attempt, next: 0 });
    let follower =
        Follower { subject: Subject::new(shared, job.id), query, cursor, pending: VecDeque::new(), is_over: false };
    Box::pin(stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await.transpose()?;
        follower.is_over |= event.is_err();
        Some((event, follower))
    }))
}

/// A job that a stream is about, and news of it.
struct Subject {
    shared: Arc<Shared>,
    job: JobId,
    news: watch::Receiver<News>,
    closed: CancellationToken,
}

impl Subject {
    fn new(shared: Arc<Shared>, job: JobId) -> Self {
        Self { news: shared.hub.subscribe(job), closed: shared.hub.closed(), shared, job }
    }

    /// The job as it is stored now.
    async fn stored(&self) -> Result<Job, Error> {
        self.shared.stored(self.job).await?.ok_or(Error::JobNotFound)
    }

    /// Waits for news, or until it is time to look without any.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: the coordinator ends its streams.
    async fn wait(&mut self) -> Result<(), Error> {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(Error::Unavailable { retry_after: LOOK }),
            // The sender is in the hub for as long as somebody listens.
            _ = self.news.changed() => Ok(()),
            () = self.shared.clock.sleep(LOOK) => Ok(()),
        }
    }
}

struct Follower {
    subject: Subject,
    query: OutputQuery,
    /// Before the next piece to give.
    cursor: Cursor,
    /// Events that are to be given before anything is read. At most [`READ`] bytes, or one piece.
    pending: VecDeque<OutputEvent>,
    is_over: bool,
}

impl Follower {
    async fn next(&mut self) -> Result<Option<OutputEvent>, Error> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            if self.is_over {
                return Ok(None);
            }
            // News after this point are of what the reads below may have missed.
            self.subject.news.borrow_and_update();
            let job = self.subject.stored().await?;
            self.read(&job).await?;
            if !self.pending.is_empty() {
                continue;
            }
            let status = job.status();
            if status.is_finished() || !self.query.follow {
                self.is_over = true;
                return Ok(Some(OutputEvent::End { status }));
            }
            self.subject.wait().await?;
        }
    }

    /// Reads what follows the cursor in the job's current or last attempt.
    async fn read(&mut self, job: &Job) -> Result<(), Error> {
        let attempt = job.life.last_lease().map_or(0, |lease| lease.attempt);
        if attempt != self.cursor.attempt {
            let had_begun = self.cursor.attempt != 0;
            self.cursor = Cursor { attempt, next: 0 };
            if had_begun {
                self.pending.push_back(OutputEvent::Reset { cursor: self.cursor });
            }
        }
        // Asked before and after: a gap may open or close while the store is read.
        let Subject { shared, job, .. } = &self.subject;
        let before = shared.outputs.gap(*job, attempt);
        let chunks = shared.store.read_output(*job, attempt, self.cursor.next, READ).await?;
        let gap = before.into_iter().chain(shared.outputs.gap(*job, attempt)).min();
        for chunk in chunks {
            // What has not come yet is waited for, so that the order is the one in which it was written.
            if gap.is_some_and(|gap| chunk.seq > gap) {
                break;
            }
            self.give(chunk);
        }
        Ok(())
    }

    fn give(&mut self, chunk: Chunk) {
        if chunk.seq >= REPLACED && (1..REPLACED).contains(&self.cursor.next) {
            self.cursor.next = REPLACED;
            self.pending.push_back(OutputEvent::Reset { cursor: self.cursor });
        }
        self.cursor.next = chunk.seq + 1;
        if self.query.stream.is_none_or(|stream| stream == chunk.stream) {
            let (cursor, stream, bytes) = (self.cursor, chunk.stream, chunk.bytes);
            self.pending.push_back(OutputEvent::Chunk { cursor, stream, bytes });
        }
    }
}

/// Changes of one job that the watcher may see, from where it stands now until it has ended.
pub(super) fn watch_job(shared: Arc<Shared>, job: &Job) -> UpdateStream {
    let watcher = Watcher { subject: Subject::new(shared, job.id), seen: None, is_over: false };
    Box::pin(stream::unfold(watcher, |mut watcher| async move {
        let update = watcher.next().await.transpose()?;
        watcher.is_over |= update.is_err();
        Some((update, watcher))
    }))
}

struct Watcher {
    subject: Subject,
    /// The version that was given last.
    seen: Option<u64>,
    is_over: bool,
}

impl Watcher {
    async fn next(&mut self) -> Result<Option<JobUpdate>, Error> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            let told = self.subject.news.borrow_and_update().update.clone();
            let update = match told {
                Some(update) if self.seen.is_none_or(|seen| update.version > seen) => update,
                _ => view::update(&self.subject.stored().await?),
            };
            if self.seen.is_none_or(|seen| update.version > seen) {
                self.seen = Some(update.version);
                self.is_over = update.status.is_finished();
                return Ok(Some(update));
            }
            self.subject.wait().await?;
        }
    }
}

/// Changes of every job of an owner (or of all).
pub(super) fn watch_all(shared: &Shared, owner: Option<Owner>) -> UpdateStream {
    let news = Some(shared.hub.subscribe_all());
    let closed = shared.hub.closed();
    Box::pin(stream::unfold((news, owner, closed), |(news, owner, closed)| async move {
        let mut news = news?;
        loop {
            let told = tokio::select! {
                biased;
                () = closed.cancelled() => Err(broadcast::error::RecvError::Closed),
                told = news.recv() => told,
            };
            match told {
                Ok((whose, _)) if owner.as_ref().is_some_and(|owner| *owner != whose) => {}
                Ok((_, update)) => return Some((Ok(update), (Some(news), owner, closed))),
                Err(_) => return Some((Err(Error::Unavailable { retry_after: LOOK }), (None, owner, closed))),
            }
        }
    }))
}
