//! What the dispatcher knows, and what each message does to it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::claim::Admission;
use super::spread::Spread;
use super::waiters::{Ask, Waiters};
use super::{Message, claim};
use crate::Error;
use crate::coordinator::Shared;
use crate::coordinator::register::REMOVED;
use crate::id::{JobId, WorkerId};
use crate::job::{Job, Status};
use crate::scheduler::{Placement, Queues, Scheduler, View, Workers};
use crate::service::LeasedJob;
use crate::store;

/// How many jobs are read from the store when a window has run empty.
const REFILL: usize = 512;

/// How many jobs are claimed in one write at the most.
const CLAIM: usize = 1_024;

/// After how many sweeps a worker is forgotten that neither asks for nor holds anything: two minutes.
const FORGET_AFTER: u32 = 120;

pub(super) struct Dispatcher {
    pub(super) shared: Arc<Shared>,
    scheduler: Box<dyn Scheduler>,
    pub(super) queues: Queues,
    pub(super) workers: Workers,
    pub(super) waiters: Waiters,
    /// Counts claims, and says of each job that is held with which claim it was.
    claims: Arc<AtomicU64>,
    claimed_at: HashMap<JobId, u64>,
    /// Whether asks that want an answer now have been held against the store.
    answers_due: bool,
    /// When the store is to be tried again that failed in this round, if it did.
    failed: Option<Duration>,
    /// How far claims are spread over the head of a queue.
    pub(super) spread: Spread,
    /// What is to be added with the next plan.
    admissions: Vec<Admission>,
}

impl Dispatcher {
    pub(super) fn new(shared: Arc<Shared>, scheduler: Box<dyn Scheduler>, claims: Arc<AtomicU64>) -> Self {
        let max_leases = shared.options.max_leases;
        Self {
            shared,
            scheduler,
            queues: Queues::default(),
            workers: Workers::new(max_leases),
            waiters: Waiters::default(),
            claims,
            claimed_at: HashMap::new(),
            answers_due: false,
            failed: None,
            spread: Spread::default(),
            admissions: Vec::new(),
        }
    }

    pub(super) async fn take(&mut self, message: Message) {
        match message {
            Message::Ready(jobs) => jobs.into_iter().for_each(|job| self.queues.add(job)),
            Message::Admit(admission) => self.admissions.push(admission),
            Message::Noticed { places, passed } => {
                places.iter().for_each(|(class, place)| self.queues.notice(class, *place));
                passed.into_iter().for_each(|(job, version)| self.queues.pass(job, version));
            }
            Message::Worker { id, offer, takes_jobs, held } => {
                let is_new = !self.workers.knows(&id);
                // What a known worker holds is known better here than by a read that is older than this message.
                self.workers.put(&id, offer, if is_new { held } else { Vec::new() });
                self.workers.set_takes_jobs(&id, takes_jobs);
            }
            Message::Released(jobs) => {
                for (worker, job) in jobs {
                    self.release(&worker, job);
                }
            }
            Message::Beaten { worker, takes_jobs, jobs, as_of } => {
                self.workers.set_takes_jobs(&worker, takes_jobs);
                self.compare_held(&worker, &jobs, as_of);
            }
            Message::Removed(worker) => {
                answer(self.waiters.all_of(&worker), || Err(REMOVED));
                self.workers.remove(&worker);
            }
            Message::Ask(ask) => self.ask(ask),
            Message::Withdraw(ticket) => {
                if let Some(ask) = self.waiters.withdraw(ticket) {
                    self.workers.set_wants(&ask.worker, self.waiters.wants(&ask.worker));
                    let _ = ask.reply.send(Ok(Vec::new()));
                }
            }
            Message::Sweep => {
                for worker in self.waiters.workers() {
                    self.workers.set_wants(&worker, self.waiters.wants(&worker));
                }
                self.workers.forget_silent(FORGET_AFTER);
                self.compare_queues().await;
            }
            Message::Explain { class, reply } => {
                let _ = reply.send(self.workers.explain(&class));
            }
        }
    }

    fn ask(&mut self, ask: Ask) {
        if !self.workers.knows(&ask.worker) {
            let _ = ask.reply.send(Err(Error::WorkerNotFound));
            return;
        }
        self.answers_due |= ask.at_once;
        let worker = ask.worker.clone();
        self.waiters.add(ask);
        self.workers.set_wants(&worker, self.waiters.wants(&worker));
    }

    /// Plans and claims until nothing more fits.
    pub(super) async fn dispatch(&mut self) {
        self.failed = None;
        if self.queues.is_heavy() {
            self.shed();
        }
        if !self.admissions.is_empty() {
            self.admit().await;
        }
        loop {
            while self.round().await {}
            if !self.answers_due {
                return;
            }
            if !self.waiters.want_now() {
                self.answers_due = false;
                return;
            }
            // "Nothing" is answered only after a look at the store itself: another coordinator may have queued jobs.
            self.answers_due = false;
            self.compare_queues().await;
            while self.round().await {}
            let asks = self.waiters.at_once();
            for ask in &asks {
                self.workers.set_wants(&ask.worker, self.waiters.wants(&ask.worker));
            }
            // With a store that does not answer, nobody knows whether there is nothing.
            let failed = self.failed;
            answer(asks, || failed.map_or(Ok(Vec::new()), |retry_after| Err(Error::Unavailable { retry_after })));
        }
    }

    /// Lets go of jobs that nobody who asks can run; the store has them.
    fn shed(&mut self) {
        let workers = &self.workers;
        self.queues.shed(|class| workers.asking_for(class).next().is_some());
    }

    /// The store failed; the next sweep tries again.
    pub(super) fn store_failed(&mut self, error: &store::Error) {
        tracing::warn!(%error, "dispatch: the store failed; the next sweep tries again");
        self.failed = Some(error.retry_after().unwrap_or(Duration::from_secs(1)));
    }

    /// Adds the jobs that are to be added, as claimed by those that the plan gives them to.
    async fn admit(&mut self) {
        let admissions = std::mem::take(&mut self.admissions);
        self.refill().await;
        let added = admissions.iter().flat_map(|admission| &admission.jobs);
        added.filter(|job| job.status() == Status::Queued).for_each(|job| self.queues.add(Arc::clone(job)));
        let (placements, _) = cut(self.scheduler.plan(&View { queues: &self.queues, workers: &self.workers }));
        claim::admit(self, admissions, placements).await;
    }

    /// One plan and its claims. Says whether another round may find more.
    async fn round(&mut self) -> bool {
        if self.waiters.is_empty() {
            return false;
        }
        self.refill().await;
        let placements = self.scheduler.plan(&View { queues: &self.queues, workers: &self.workers });
        if placements.is_empty() {
            return false;
        }
        let (placements, is_cut) = cut(placements);
        let claimed = claim::claim(self, placements).await;
        claimed || is_cut
    }

    /// Reads more of the queues that have run empty here, if somebody could run what they hold.
    async fn refill(&mut self) {
        let hollow: Vec<_> =
            self.queues.hollow().filter(|class| self.workers.asking_for(class).next().is_some()).cloned().collect();
        for class in hollow {
            match self.shared.store.ready(&class, None, REFILL).await {
                Ok(jobs) => {
                    let more = jobs.len() == REFILL;
                    self.queues.refill(&class, jobs, more);
                }
                Err(error) => self.store_failed(&error),
            }
        }
    }

    /// Holds the windows against the store: finds what a lost wake-up or another coordinator has queued.
    async fn compare_queues(&mut self) {
        match self.shared.store.classes().await {
            Ok(queues) => {
                let queued: HashSet<_> = queues.iter().map(|queue| queue.class.clone()).collect();
                // What was told before the question was queued then; if it is no longer, it was cancelled or claimed.
                self.queues.retain(|class| queued.contains(class));
                for queue in queues {
                    if self.queues.lacks(&queue.class, queue.head, queue.queued) {
                        self.queues.forget(&queue.class);
                    }
                }
            }
            Err(error) => self.store_failed(&error),
        }
    }

    /// Releases what a worker is known to hold but does not hold by the store: its end was not told here.
    fn compare_held(&mut self, worker: &WorkerId, jobs: &[JobId], as_of: u64) {
        let jobs: HashSet<_> = jobs.iter().collect();
        let gone: Vec<_> = self
            .workers
            .held(worker)
            .filter(|job| !jobs.contains(job) && self.claimed_at.get(job).is_none_or(|&claim| claim <= as_of))
            .collect();
        for job in gone {
            self.release(worker, job);
        }
    }

    pub(super) fn release(&mut self, worker: &WorkerId, job: JobId) {
        self.claimed_at.remove(&job);
        self.workers.release(worker, job);
    }

    /// Notes that a worker holds a job from now on.
    pub(super) fn hold(&mut self, worker: &WorkerId, job: &Job) {
        let claim = self.claims.fetch_add(1, Ordering::AcqRel) + 1;
        self.claimed_at.insert(job.id, claim);
        self.workers.hold(worker, job.id, &job.class);
    }

    /// Answers everybody that there is nothing.
    pub(super) fn dismiss(mut self) {
        for worker in self.waiters.workers() {
            let asks = self.waiters.all_of(&worker);
            answer(asks, || Ok(Vec::new()));
        }
    }
}

fn answer(asks: Vec<Ask>, answer: impl Fn() -> Result<Vec<LeasedJob>, Error>) {
    for ask in asks {
        // An asker that has gone wants no answer.
        let _ = ask.reply.send(answer());
    }
}

/// At most [`CLAIM`] jobs, and whether that left something out.
fn cut(placements: Vec<Placement>) -> (Vec<Placement>, bool) {
    let mut left = CLAIM;
    let mut is_cut = false;
    let kept = placements
        .into_iter()
        .filter_map(|mut placement| {
            is_cut |= placement.jobs > left;
            placement.jobs = placement.jobs.min(left);
            left -= placement.jobs;
            (placement.jobs > 0).then_some(placement)
        })
        .collect();
    (kept, is_cut)
}
