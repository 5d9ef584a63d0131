//! A job's output, for one reader.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream;
use tokio::sync::watch;

use super::live::{self, Found, Live};
use super::reader::Reader;
use super::start::{Start, start};
use super::subject::Subject;
use crate::Error;
use crate::coordinator::Shared;
use crate::job::Job;
use crate::service::{Cursor, OutputEvent, OutputQuery, OutputStream};

/// The output of a job that the reader may see.
pub(in crate::coordinator) async fn output(
    shared: Arc<Shared>,
    job: &Job,
    query: OutputQuery,
) -> Result<OutputStream, Error> {
    let attempt = job.life.last_lease().map_or(0, |lease| lease.attempt);
    let start = match query.from {
        Some(cursor) => Start { cursor, skip: 0 },
        None => start(&shared, job.id, attempt, &query).await?,
    };
    let follower = Follower {
        subject: Subject::new(shared, job.id),
        query,
        reader: Reader { cursor: start.cursor },
        skip: Some(start),
        pending: VecDeque::new(),
        others: None,
        number: None,
        is_over: false,
    };
    Ok(Box::pin(stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await.transpose()?;
        follower.is_over |= event.is_err();
        Some((event, follower))
    })))
}

struct Follower {
    subject: Subject,
    query: OutputQuery,
    reader: Reader,
    /// What to leave out at the beginning.
    skip: Option<Start>,
    /// Events that are to be given before anything is read: a page of the store's.
    pending: VecDeque<OutputEvent>,
    /// What is shared with the others who follow the job, once there is nothing older left to read.
    others: Option<(Arc<Live>, watch::Receiver<u64>)>,
    /// The number of the next event among those that are shared; `None`: the store has older ones.
    number: Option<u64>,
    is_over: bool,
}

impl Follower {
    async fn next(&mut self) -> Result<Option<OutputEvent>, Error> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                if let Some(event) = self.wanted(event) {
                    return Ok(Some(event));
                }
                continue;
            }
            if self.is_over {
                return Ok(None);
            }
            if self.share().await? {
                continue;
            }
            let (events, end) = live::read(&mut self.subject, &mut self.reader).await?;
            if !events.is_empty() {
                self.pending.extend(events);
            } else if let Some(end) = end {
                self.pending.push_back(end);
            } else if !self.query.follow {
                let status = self.subject.stored().await?.status();
                self.pending.push_back(OutputEvent::End { status });
            } else {
                self.wait().await?;
            }
        }
    }

    /// Takes the next event of those that are shared, if the reader is where they are.
    async fn share(&mut self) -> Result<bool, Error> {
        let Some((others, end)) = &mut self.others else { return Ok(false) };
        let Some(number) = self.number.or_else(|| others.find(self.reader.cursor)) else { return Ok(false) };
        self.number = Some(number);
        loop {
            match others.get(number) {
                Found::Event(event) => {
                    let event = event?;
                    self.number = Some(number + 1);
                    self.reader.cursor = event.cursor().unwrap_or(self.reader.cursor);
                    self.pending.push_back(event);
                    return Ok(true);
                }
                Found::Not => {
                    // The sender is in `others`.
                    let _ = end.wait_for(|end| *end > number).await;
                }
                Found::Past => {
                    self.number = None;
                    return Ok(false);
                }
            }
        }
    }

    /// Where nothing is left to read: joins the others, or waits until they are as far.
    async fn wait(&mut self) -> Result<(), Error> {
        match &mut self.others {
            None => {
                let Subject { shared, job, .. } = &self.subject;
                self.others = Some(shared.followed.join(shared, *job, self.reader.cursor));
                Ok(())
            }
            Some((_, end)) => tokio::select! {
                waited = self.subject.wait() => waited,
                _ = end.changed() => Ok(()),
            },
        }
    }

    /// The event as far as the query asks for it.
    fn wanted(&mut self, event: OutputEvent) -> Option<OutputEvent> {
        let OutputEvent::Chunk { cursor, stream, mut bytes } = event else {
            self.is_over |= matches!(event, OutputEvent::End { .. });
            return Some(event);
        };
        if let Some(Start { cursor: Cursor { attempt, next, .. }, skip }) = self.skip.take()
            && (attempt, next + 1) == (cursor.attempt, cursor.next)
        {
            bytes = bytes.split_off(skip.min(bytes.len()));
        }
        let is_wanted = !bytes.is_empty() && self.query.stream.is_none_or(|wanted| wanted == stream);
        is_wanted.then_some(OutputEvent::Chunk { cursor, stream, bytes })
    }
}
