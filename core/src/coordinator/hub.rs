//! Who wants to know of which job, and telling them.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::{lock, view};
use crate::id::{JobId, Owner};
use crate::job::{Job, State};
use crate::service::{JobUpdate, Stops};

/// How many changes a watcher of all jobs may be behind before it misses some.
const BEHIND: usize = 4_096;

/// Who wants to know of which job.
#[derive(Debug)]
pub(super) struct Hub {
    topics: Mutex<HashMap<JobId, watch::Sender<News>>>,
    all: broadcast::Sender<(Owner, JobUpdate)>,
    /// Workers that want to know at once what is cancelled.
    pub(super) stops: Stops,
    closed: CancellationToken,
}

/// What is new about a job: the latest change, and a count that goes up when there is more output.
#[derive(Debug, Clone, Default)]
pub(super) struct News {
    pub(super) update: Option<JobUpdate>,
    output: u64,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            topics: Mutex::default(),
            all: broadcast::Sender::new(BEHIND),
            stops: Stops::default(),
            closed: CancellationToken::new(),
        }
    }
}

impl Hub {
    /// A job has changed; committed.
    pub(super) fn publish(&self, job: &Job) {
        if let State::Cancelling { lease, .. } = &job.life.state {
            self.stops.tell(&lease.worker, &[job.id]);
        }
        let is_watched = lock(&self.topics).contains_key(&job.id);
        if !is_watched && self.all.receiver_count() == 0 {
            return;
        }
        let update = view::update(job);
        if let Some(topic) = lock(&self.topics).get(&job.id) {
            topic.send_modify(|news| {
                if news.update.as_ref().is_none_or(|seen| seen.version < update.version) {
                    news.update = Some(update.clone());
                }
            });
        }
        // Without receivers there is nobody to tell.
        let _ = self.all.send((job.owner.clone(), update));
    }

    /// Whether anybody wants to know of this job.
    pub(super) fn wants(&self, job: JobId) -> bool {
        self.all.receiver_count() > 0 || lock(&self.topics).contains_key(&job)
    }

    /// Makes everybody who waits for news of a job look at the store.
    pub(super) fn stir(&self) {
        lock(&self.topics).values().for_each(|topic| topic.send_modify(|news| news.output += 1));
    }

    /// A job has more output; committed.
    pub(super) fn output(&self, job: JobId) {
        if let Some(topic) = lock(&self.topics).get(&job) {
            topic.send_modify(|news| news.output += 1);
        }
    }

    /// News of one job from now on.
    pub(super) fn subscribe(&self, job: JobId) -> watch::Receiver<News> {
        let mut topics = lock(&self.topics);
        let receiver = topics.entry(job).or_default().subscribe();
        // Topics that everybody has left are cleared away whenever the map would otherwise have to grow.
        if topics.len() == topics.capacity() {
            topics.retain(|_, topic| topic.receiver_count() > 0);
        }
        receiver
    }

    /// Changes of all jobs from now on.
    pub(super) fn subscribe_all(&self) -> broadcast::Receiver<(Owner, JobUpdate)> {
        self.all.subscribe()
    }

    /// Ends every stream.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// Completes when the streams are to end.
    pub(super) fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// Clears topics that nobody listens to.
    pub(super) fn sweep(&self) {
        lock(&self.topics).retain(|_, topic| topic.receiver_count() > 0);
    }
}
