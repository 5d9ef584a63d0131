//! Telling workers at once what their next heartbeats would tell them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::{Stream, StreamExt};
use tokio::sync::watch;

use crate::id::{JobId, WorkerId};

/// A stream of jobs that are to be stopped.
pub type StopStream = Pin<Box<dyn Stream<Item = Vec<JobId>> + Send>>;

/// How many jobs a listener that is slow hears of at once; heartbeats tell it of the others.
const MOST: usize = 256;

/// Who wants to know at once which jobs of a worker are cancelled, and telling them. What [`super::WorkerService::stops`] is made of.
#[derive(Debug, Default)]
pub struct Stops(Mutex<HashMap<WorkerId, watch::Sender<Vec<JobId>>>>);

impl Stops {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkerId, watch::Sender<Vec<JobId>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Jobs of a worker are cancelled.
    pub fn tell(&self, worker: &WorkerId, jobs: &[JobId]) {
        if let Some(listeners) = self.lock().get(worker) {
            listeners.send_modify(|known| {
                known.extend_from_slice(jobs);
                let surplus = known.len().saturating_sub(MOST);
                known.drain(..surplus);
            });
        }
    }

    /// A worker was removed: the streams that tell of it end, after what they were told.
    pub fn end(&self, worker: &WorkerId) {
        self.lock().remove(worker);
    }

    /// What is told of a worker from now on; the same job may come again. Ends with [`Stops::end`].
    pub fn listen(&self, worker: &WorkerId) -> StopStream {
        let mut listeners = self.lock();
        let receiver = listeners.entry(worker.clone()).or_default().subscribe();
        // Those whom everybody has left are cleared away whenever the map would otherwise have to grow.
        if listeners.len() == listeners.capacity() {
            listeners.retain(|_, listeners| listeners.receiver_count() > 0);
        }
        let told = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.changed().await.ok()?;
            let jobs = receiver.borrow_and_update().clone();
            Some((jobs, receiver))
        });
        told.boxed()
    }
}
