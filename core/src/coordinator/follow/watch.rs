//! Changes of jobs.

use std::sync::Arc;

use futures_util::stream;
use tokio::sync::broadcast;

use super::subject::{LOOK, Subject};
use crate::Error;
use crate::coordinator::{Shared, view};
use crate::id::Owner;
use crate::job::Job;
use crate::service::{JobUpdate, UpdateStream};

/// Changes of one job that the watcher may see, from where it stands now until it has ended.
pub(in crate::coordinator) fn watch_job(shared: Arc<Shared>, job: &Job) -> UpdateStream {
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
pub(in crate::coordinator) fn watch_all(shared: &Shared, owner: Option<Owner>) -> UpdateStream {
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
