//! The dispatcher: one task that knows what waits and who asks, and claims jobs for those who ask.
//!
//! Everything that happens reaches it as one [`Message`]. Between two messages it plans and claims until nothing more
//! fits. It waits for each claim's commit; what arrives meanwhile is taken up together in the next round, so that
//! batches grow with the load by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::Error;
use crate::id::{JobId, WorkerId};
use crate::job::{Class, Job, Place};
use crate::scheduler::{Obstacle, Offer, Scheduler};
use crate::service::LeasedJob;
use crate::store::{Insert, Inserted};

mod claim;
mod spread;
mod state;
mod waiters;

use state::Dispatcher;

/// What happens to the dispatcher.
enum Message {
    /// Jobs are queued; committed.
    Ready(Vec<Arc<Job>>),
    /// Jobs are to be added.
    Admit(claim::Admission),
    /// Others have queued jobs, where; and have written jobs that are not queued any more, with their versions since.
    Noticed { places: Vec<(Class, Place)>, passed: Vec<(JobId, u64)> },
    /// A worker has come, with whether it takes jobs, and the jobs that it holds by the store.
    Worker { id: WorkerId, offer: Offer, takes_jobs: bool, held: Vec<(JobId, Class)> },
    /// Jobs are no longer held by a worker.
    Released(Vec<(WorkerId, JobId)>),
    /// A worker has beaten: whether it takes jobs, and what it holds by the store as of the claim with this number.
    Beaten { worker: WorkerId, takes_jobs: bool, jobs: Vec<JobId>, as_of: u64 },
    /// A worker was removed.
    Removed(WorkerId),
    /// A worker asks for jobs.
    Ask(waiters::Ask),
    /// A worker's wait is over.
    Withdraw(u64),
    /// Compare with the store.
    Sweep,
    /// Why can or can't workers run jobs of this class?
    Explain { class: Class, reply: oneshot::Sender<Vec<(WorkerId, Option<Obstacle>)>> },
}

/// A cloneable handle to the dispatcher.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    /// Bounded: whoever has something to say waits until the dispatcher has caught up.
    messages: mpsc::Sender<Message>,
    claims: Arc<AtomicU64>,
    tickets: Arc<AtomicU64>,
    has_asks: Arc<AtomicBool>,
    is_idle: Arc<AtomicBool>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message")
    }
}

/// How many messages may wait for the dispatcher.
const MAILBOX: usize = 1_024;

/// Makes the handle, and what [`run`] needs to serve it.
pub(super) fn mailbox() -> (Handle, Mailbox) {
    let (sender, receiver) = mpsc::channel(MAILBOX);
    let handle = Handle {
        messages: sender,
        claims: Arc::default(),
        tickets: Arc::default(),
        has_asks: Arc::default(),
        is_idle: Arc::default(),
    };
    let mailbox = Mailbox {
        receiver,
        claims: Arc::clone(&handle.claims),
        has_asks: Arc::clone(&handle.has_asks),
        is_idle: Arc::clone(&handle.is_idle),
    };
    (handle, mailbox)
}

/// The dispatcher's end of its handle.
pub(super) struct Mailbox {
    receiver: mpsc::Receiver<Message>,
    claims: Arc<AtomicU64>,
    /// Whether anybody asks for jobs.
    has_asks: Arc<AtomicBool>,
    /// Whether the dispatcher has nothing to do.
    is_idle: Arc<AtomicBool>,
}

/// Runs the dispatcher until `stop` fires; then whoever asks is answered that there is nothing.
pub(super) async fn run(
    shared: Arc<Shared>,
    scheduler: Box<dyn Scheduler>,
    mut mailbox: Mailbox,
    stop: CancellationToken,
) {
    let mut dispatcher = Dispatcher::new(shared, scheduler, mailbox.claims);
    let mut batch = Vec::with_capacity(MAILBOX);
    loop {
        mailbox.is_idle.store(true, Ordering::Relaxed);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            received = mailbox.receiver.recv_many(&mut batch, MAILBOX) => {
                mailbox.is_idle.store(false, Ordering::Relaxed);
                if received == 0 {
                    break;
                }
                for message in batch.drain(..) {
                    dispatcher.take(message).await;
                }
                dispatcher.dispatch().await;
                mailbox.has_asks.store(!dispatcher.waiters.is_empty(), Ordering::Relaxed);
            }
        }
    }
    dispatcher.dismiss();
}

impl Handle {
    /// Jobs are queued; committed.
    pub(super) async fn ready(&self, jobs: Vec<Arc<Job>>) {
        if jobs.is_empty() {
            return;
        }
        self.send(Message::Ready(jobs)).await;
        if self.has_asks.load(Ordering::Relaxed) {
            // The dispatcher was woken to run next on this very thread: a worker that waits for the job comes before
            // the answer to whoever submitted it.
            tokio::task::yield_now().await;
        }
    }

    /// Whether jobs that are added by [`Handle::admit`] may be claimed as they are added: somebody asks, and the dispatcher
    /// has nothing else to wait for.
    pub(super) fn claims_at_once(&self) -> bool {
        self.is_idle.load(Ordering::Relaxed) && self.has_asks.load(Ordering::Relaxed)
    }

    /// Adds jobs (those of `insert`), and those that somebody asks for as claimed already. Dropping the future does not stop it.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn admit(&self, insert: Insert, jobs: Vec<Arc<Job>>) -> Result<Inserted, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Admit(claim::Admission { insert, jobs, reply })).await;
        // The dispatcher has ended, and nothing was added.
        answer.await.map_or(Err(Error::Unavailable { retry_after: Duration::from_secs(1) }), |answer| Ok(answer?))
    }

    /// Others have queued jobs, where; and have written jobs that are not queued any more, with their versions since.
    pub(super) async fn noticed(&self, places: Vec<(Class, Place)>, passed: Vec<(JobId, u64)>) {
        if !places.is_empty() || !passed.is_empty() {
            self.send(Message::Noticed { places, passed }).await;
        }
    }

    /// A worker has come, with whether it takes jobs, and the jobs that it holds by the store.
    pub(super) async fn worker(&self, id: WorkerId, offer: Offer, takes_jobs: bool, held: Vec<(JobId, Class)>) {
        self.send(Message::Worker { id, offer, takes_jobs, held }).await;
    }

    /// Jobs are no longer held by a worker.
    pub(super) async fn released(&self, jobs: Vec<(WorkerId, JobId)>) {
        if !jobs.is_empty() {
            self.send(Message::Released(jobs)).await;
        }
    }

    /// The number of the last claim, to be noted before what a worker holds is read for [`Handle::beaten`].
    pub(super) fn last_claim(&self) -> u64 {
        self.claims.load(Ordering::Acquire)
    }

    /// A worker has beaten: whether it takes jobs, and what it holds by the store as of the claim with the number `as_of`.
    pub(super) async fn beaten(&self, worker: WorkerId, takes_jobs: bool, jobs: Vec<JobId>, as_of: u64) {
        self.send(Message::Beaten { worker, takes_jobs, jobs, as_of }).await;
    }

    /// A worker was removed.
    pub(super) async fn removed(&self, worker: WorkerId) {
        self.send(Message::Removed(worker)).await;
    }

    /// Compare with the store.
    pub(super) async fn sweep(&self) {
        self.send(Message::Sweep).await;
    }

    /// Why can or can't workers run jobs of this class?
    pub(super) async fn explain(&self, class: Class) -> Vec<(WorkerId, Option<Obstacle>)> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Explain { class, reply }).await;
        answer.await.unwrap_or_default()
    }

    /// Asks for up to `max` jobs on a worker's behalf, and waits for the first at most `wait`.
    ///
    /// Dropping the future returns what was claimed for it.
    ///
    /// # Errors
    /// [`Error::WorkerNotFound`]: the dispatcher has not been told of the worker.
    pub(super) async fn ask(
        &self,
        shared: &Shared,
        worker: WorkerId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<LeasedJob>, Error> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (reply, mut answer) = oneshot::channel();
        let at_once = wait.is_zero();
        self.send(Message::Ask(waiters::Ask { ticket, worker, max, at_once, reply })).await;
        if !at_once {
            tokio::select! {
                biased;
                answer = &mut answer => return answer.unwrap_or(Ok(Vec::new())),
                () = shared.clock.sleep(wait) => self.send(Message::Withdraw(ticket)).await,
            }
        }
        // A claim may be on its way for this very ask, so the dispatcher has the last word.
        answer.await.unwrap_or(Ok(Vec::new()))
    }

    async fn send(&self, message: Message) {
        // The dispatcher ends only with the coordinator; then there is nobody left to tell.
        let _ = self.messages.send(message).await;
    }
}
