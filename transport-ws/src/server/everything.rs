//! All of one's jobs as one stream: their changes, and the output of each that runs.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::id::JobId;
use cmdexec_core::job::Status;
use cmdexec_core::service::{Cursor, JobQuery, JobService, JobUpdate, OutputQuery, UpdateStream, WatchQuery};
use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{Stream, StreamExt};

use super::subscription::{Item, written};
use crate::message::Event;

/// How many jobs' output is followed at once; the others' comes when there is room.
const MOST_FOLLOWED: usize = 256;

/// How many jobs may wait for that; while there are more, no further change is read.
const MOST_WAITING: usize = 65_536;

/// How many jobs whose output has ended are remembered, because changes of them may still come.
const REMEMBERED: usize = 4_096;

/// The largest page of a list.
const PAGE: usize = 500;

struct Everything {
    jobs: Arc<dyn JobService>,
    updates: UpdateStream,
    query: OutputQuery,
    status: bool,
    follows: Follows,
    outputs: SelectAll<BoxStream<'static, Told>>,
}

/// What a job's output gave; its end is told too.
type Told = (JobId, Option<Item>);

/// Whose output was, is and will be given: of each job once.
#[derive(Default)]
struct Follows {
    /// All of the following.
    known: HashSet<JobId>,
    /// Those that wait for room, with where to begin.
    waiting: VecDeque<(JobId, Option<Cursor>)>,
    /// Those whose output has ended, oldest first.
    ended: VecDeque<JobId>,
}

impl Follows {
    /// A job writes, or has written.
    fn add(&mut self, job: JobId, from: Option<Cursor>) {
        if self.known.insert(job) {
            self.waiting.push_back((job, from));
        }
    }

    /// A job's output has ended.
    fn ended(&mut self, job: JobId) {
        self.ended.push_back(job);
        if self.ended.len() > REMEMBERED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// Opens the stream. What runs already is followed too, from the beginning or where `cursors` say.
pub(super) async fn everything(
    jobs: Arc<dyn JobService>,
    query: OutputQuery,
    status: bool,
    cursors: Vec<(JobId, Cursor)>,
) -> Result<impl Stream<Item = Item> + Send, Error> {
    // First the changes, so that nothing is missed between.
    let updates = jobs.watch(WatchQuery::All).await?;
    let mut follows = Follows::default();
    cursors.into_iter().for_each(|(job, cursor)| follows.add(job, Some(cursor)));
    for status in [Status::Running, Status::Cancelling] {
        let mut list = JobQuery { status: Some(status), limit: PAGE, ..JobQuery::default() };
        loop {
            let page = jobs.list(&list).await?;
            page.jobs.iter().for_each(|job| follows.add(job.id, None));
            list.before = page.next;
            if list.before.is_none() || follows.waiting.len() >= MOST_WAITING {
                break;
            }
        }
    }
    let all = Everything { jobs, updates, query, status, follows, outputs: SelectAll::new() };
    Ok(stream::unfold(all, |mut all| async move { all.next().await.map(|event| (event, all)) }))
}

impl Everything {
    async fn next(&mut self) -> Option<Item> {
        loop {
            while self.outputs.len() < MOST_FOLLOWED {
                let Some((job, from)) = self.follows.waiting.pop_front() else { break };
                if let Err(error) = self.follow(job, from).await {
                    return Some(Err(error));
                }
            }
            tokio::select! {
                biased;
                update = self.updates.next(), if self.follows.waiting.len() < MOST_WAITING => match update? {
                    Ok(update) => {
                        if has_run(&update) {
                            self.follows.add(update.id, None);
                        }
                        if self.status {
                            return Some(Ok((Event::of_update(&update), Bytes::new())));
                        }
                    }
                    Err(error) => return Some(Err(error)),
                },
                Some((job, told)) = self.outputs.next(), if !self.outputs.is_empty() => match told {
                    // It was removed meanwhile.
                    Some(Err(Error::JobNotFound)) => {}
                    Some(told) => return Some(told),
                    None => self.follows.ended(job),
                },
            }
        }
    }

    async fn follow(&mut self, job: JobId, from: Option<Cursor>) -> Result<(), Error> {
        let query = OutputQuery { from, ..self.query };
        match written(&*self.jobs, job, query).await {
            Ok(source) => {
                let told = source.map(move |item| (job, Some(item)));
                self.outputs.push(told.chain(stream::iter([(job, None)])).boxed());
            }
            // It is gone already.
            Err(Error::JobNotFound) => self.follows.ended(job),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn has_run(update: &JobUpdate) -> bool {
    !matches!(update.status, Status::Scheduled | Status::Queued)
}
