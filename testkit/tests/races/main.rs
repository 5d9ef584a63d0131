//! Races between the coordinator's callers, each made to happen at its worst moment: a store holds or loses the
//! very write that matters, and the clock is the test's.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod output;

use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::{Capabilities, Kind, Stream};
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, JobService, JobServiceExt, JobView, LeaseRequest, LeasedJob, OutputBatch, OutputPieces,
    Registration, Submission, Usage, WatchQuery, WorkerService, WorkerStatus,
};
use cmdexec_core::store::{Chunk, Listed, MemoryStore, Store};
use cmdexec_core::time::{Clock, ManualClock};
use cmdexec_testkit::store::{Call, Fault, FaultyStore, Gate};
use futures_util::{FutureExt, StreamExt};

/// A coordinator over a store that fails when told to, and its callers.
struct Rig {
    clock: ManualClock,
    store: FaultyStore,
    coordinator: Coordinator,
    jobs: Arc<dyn JobService>,
}

const EXIT_0: Outcome = Outcome::Exited { code: 0 };
const EXIT_1: Outcome = Outcome::Exited { code: 1 };

impl Rig {
    async fn new() -> Self {
        let clock = ManualClock::default();
        let store = FaultyStore::new(Arc::new(MemoryStore::with_clock(Arc::new(clock.clone()))));
        let coordinator = coordinator(&store, &clock).await;
        let jobs = coordinator.jobs();
        Self { clock, store, coordinator, jobs }
    }

    async fn worker(&self, name: &str) -> Peer {
        peer(&self.coordinator, name).await
    }

    async fn job(&self, id: JobId) -> JobView {
        self.jobs.job(id).await.unwrap()
    }

    /// Lets a second after the other pass until `done` says so.
    async fn until(&self, mut done: impl AsyncFnMut() -> bool) {
        for _ in 0..200 {
            if done().await {
                return;
            }
            self.clock.advance(Duration::from_secs(1));
            // The coordinator's tasks run in this very thread.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        panic!("it did not happen within 200 s");
    }

    async fn until_status(&self, id: JobId, status: Status) {
        self.until(async || self.job(id).await.status == status).await;
    }
}

async fn coordinator(store: &FaultyStore, clock: &ManualClock) -> Coordinator {
    Coordinator::builder(store.clone()).clock(Arc::new(clock.clone())).seed(7).build().await.unwrap()
}

/// A worker that does just what the test says.
#[derive(Clone)]
struct Peer {
    id: WorkerId,
    service: Arc<dyn WorkerService>,
}

async fn peer(coordinator: &Coordinator, name: &str) -> Peer {
    let id: WorkerId = name.parse().unwrap();
    let service = coordinator.as_worker(id.clone());
    let registration = Registration {
        executors: Some(vec![Capabilities { kind: Kind::Process, limits: [].into(), gpus: 0 }]),
        slots: Some(4),
        ..Registration::new(name, 4, 4_096)
    };
    service.register(registration).await.unwrap();
    Peer { id, service }
}

impl Peer {
    async fn lease(&self) -> Option<LeasedJob> {
        self.service.lease(&self.id, LeaseRequest { max: 1, wait: Duration::ZERO }).await.unwrap().pop()
    }

    async fn beat(&self, held: &[&LeasedJob]) -> Vec<JobId> {
        let held = held.iter().map(|leased| Listed { job: leased.job, token: leased.token }).collect();
        let usage = Usage { status: WorkerStatus::Busy, cpu: 0.0, ram: 0.0 };
        self.service.heartbeat(&self.id, Heartbeat { usage, held: Some(held) }).await.unwrap().lost
    }

    /// A beat that may be refused, from a worker that holds nothing.
    async fn idle(&self) -> Result<(), Error> {
        let usage = Usage { status: WorkerStatus::Idle, cpu: 0.0, ram: 0.0 };
        self.service.heartbeat(&self.id, Heartbeat { usage, held: Some(Vec::new()) }).await.map(drop)
    }

    async fn finish(&self, leased: &LeasedJob, outcome: Outcome) -> Result<(), Error> {
        let report = FinishedAttempt::new(leased, outcome);
        self.service.finish(&self.id, vec![report]).await?.remove(0)
    }

    async fn write(&self, leased: &LeasedJob, seqs: &[u64]) -> Result<(), Error> {
        let chunk = |&seq: &u64| Chunk { seq, stream: Stream::Stdout, bytes: format!("{seq};").into() };
        let pieces = OutputPieces::Numbered(seqs.iter().map(chunk).collect());
        let batch = OutputBatch { job: leased.job, token: Some(leased.token), pieces };
        self.service.append_output(&self.id, vec![batch]).await?.remove(0).map(|_| ())
    }
}

/// A worker that holds a job.
async fn held() -> (Rig, Peer, LeasedJob) {
    let rig = Rig::new().await;
    let worker = rig.worker("w").await;
    let id = rig.jobs.submit(JobSpec::shell("x")).await.unwrap().id;
    let leased = worker.lease().await.unwrap();
    assert_eq!(leased.job, id);
    (rig, worker, leased)
}

/// Starts `first` up to the moment before its write, lets `second` happen, and then lets `first` go on.
async fn overtaken<A, B>(
    store: &FaultyStore,
    call: Call,
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> (A, B) {
    let gate = Gate::closed();
    store.inject(call, Fault::HoldBefore(gate.clone()));
    tokio::join!(first, async {
        gate.reached().await;
        let done = second.await;
        gate.open();
        done
    })
}

#[tokio::test]
async fn cancel_overtaken_by_finish_finds_the_job_finished() {
    let (rig, worker, leased) = held().await;
    let id = leased.job;
    let (cancelled, finished) =
        overtaken(&rig.store, Call::Update, rig.jobs.cancel(id), worker.finish(&leased, EXIT_1)).await;
    assert_eq!((cancelled, finished), (Err(Error::JobFinished), Ok(())));
    assert_eq!(rig.job(id).await.status, Status::Failed);
}

#[tokio::test]
async fn finish_overtaken_by_cancel_is_judged_as_a_cancelling_jobs() {
    for (outcome, status) in [(EXIT_0, Status::Completed), (EXIT_1, Status::Cancelled)] {
        let (rig, worker, leased) = held().await;
        let id = leased.job;
        let (finished, cancelled) =
            overtaken(&rig.store, Call::Update, worker.finish(&leased, outcome), rig.jobs.cancel(id)).await;
        assert_eq!((finished, cancelled), (Ok(()), Ok(Status::Cancelling)));
        assert_eq!(rig.job(id).await.status, status);
    }
}

#[tokio::test]
async fn cancel_overtaken_by_claim_reaches_the_worker() {
    let rig = Rig::new().await;
    let worker = rig.worker("w").await;
    let id = rig.jobs.submit(JobSpec::shell("x")).await.unwrap().id;
    let (cancelled, leased) = overtaken(&rig.store, Call::Update, rig.jobs.cancel(id), worker.lease()).await;
    assert_eq!(cancelled, Ok(Status::Cancelling));
    worker.finish(&leased.unwrap(), Outcome::Stopped).await.unwrap();
    assert_eq!(rig.job(id).await.status, Status::Cancelled);
}

#[tokio::test]
async fn claim_overtaken_by_cancel_hands_out_nothing() {
    let rig = Rig::new().await;
    let worker = rig.worker("w").await;
    let id = rig.jobs.submit(JobSpec::shell("x")).await.unwrap().id;
    let (leased, cancelled) = overtaken(&rig.store, Call::Update, worker.lease(), rig.jobs.cancel(id)).await;
    assert_eq!((leased, cancelled), (None, Ok(Status::Cancelled)));
}

#[tokio::test]
async fn expiry_overtaken_by_finish_changes_nothing() {
    let (rig, worker, leased) = held().await;
    let id = leased.job;
    let gate = Gate::closed();
    rig.store.inject(Call::Update, Fault::HoldBefore(gate.clone()));
    // The sweep's write waits at the gate; the worker's report does not.
    let mut is_reached = Box::pin(gate.reached());
    rig.until(async || futures_util::poll!(&mut is_reached).is_ready()).await;
    worker.finish(&leased, EXIT_0).await.unwrap();
    gate.open();
    rig.until(async || worker.lease().await.is_none()).await;
    let job = rig.job(id).await;
    assert_eq!((job.status, job.attempts.len()), (Status::Completed, 1));
}

#[tokio::test]
async fn finish_overtaken_by_expiry_is_refused_and_the_next_attempt_decides() {
    let (rig, worker, first) = held().await;
    let id = first.job;
    let finishing = worker.finish(&first, EXIT_0);
    let expiring = rig.until(async || rig.job(id).await.status != Status::Running);
    let (finished, ()) = overtaken(&rig.store, Call::Update, finishing, expiring).await;
    assert_eq!(finished, Err(Error::LeaseLost));
    rig.until_status(id, Status::Queued).await;
    let second = worker.lease().await.unwrap();
    worker.finish(&second, EXIT_1).await.unwrap();
    assert_eq!(rig.job(id).await.status, Status::Failed);
}

#[tokio::test]
async fn a_repeated_report_does_not_touch_the_retry() {
    let rig = Rig::new().await;
    let (one, two) = (rig.worker("one").await, rig.worker("two").await);
    let mut spec = JobSpec::shell("x");
    spec.retries = 1;
    let id = rig.jobs.submit(spec).await.unwrap().id;
    let first = one.lease().await.unwrap();
    rig.store.inject(Call::Update, Fault::LoseReply);
    assert!(matches!(one.finish(&first, EXIT_1).await, Err(Error::Unavailable { .. })));
    rig.until_status(id, Status::Queued).await;
    let second = two.lease().await.unwrap();
    assert_eq!(one.finish(&first, EXIT_1).await, Ok(()), "it was accepted");
    assert_eq!(one.finish(&first, EXIT_0).await, Err(Error::LeaseLost), "it says something else now");
    assert_eq!(rig.job(id).await.status, Status::Running);
    two.finish(&second, EXIT_0).await.unwrap();
    assert_eq!(rig.job(id).await.status, Status::Completed);
    assert_eq!(one.finish(&first, EXIT_1).await, Ok(()));
}

#[tokio::test]
async fn a_claim_whose_reply_was_lost_comes_back_at_no_cost() {
    let rig = Rig::new().await;
    let worker = rig.worker("w").await;
    let mut spec = JobSpec::shell("x");
    spec.max_attempts = 1;
    let id = rig.jobs.submit(spec).await.unwrap().id;
    rig.store.inject(Call::Update, Fault::LoseReply);
    let lease = worker.service.lease(&worker.id, LeaseRequest { max: 1, wait: Duration::ZERO }).await;
    assert!(matches!(lease, Err(Error::Unavailable { .. })), "whether there is nothing is not known: {lease:?}");
    assert_eq!(rig.job(id).await.status, Status::Running, "the store has it as claimed");
    rig.until(async || {
        worker.beat(&[]).await;
        rig.job(id).await.status == Status::Queued
    })
    .await;
    let leased = worker.lease().await.unwrap();
    worker.finish(&leased, EXIT_0).await.unwrap();
    assert_eq!(rig.job(id).await.status, Status::Completed);
}

#[tokio::test]
async fn an_asker_that_has_gone_costs_the_job_nothing() {
    let rig = Rig::new().await;
    let worker = rig.worker("w").await;
    let gate = Gate::closed();
    let asking = worker.service.lease(&worker.id, LeaseRequest { max: 1, wait: Duration::from_secs(30) });
    let mut asking = Box::pin(asking);
    assert!(futures_util::poll!(&mut asking).is_pending());
    rig.store.inject(Call::Update, Fault::HoldBefore(gate.clone()));
    let id = rig.jobs.submit(JobSpec::shell("x")).await.unwrap().id;
    gate.reached().await;
    drop(asking);
    gate.open();
    rig.until(async || rig.job(id).await.status == Status::Queued).await;
    assert_eq!(worker.lease().await.unwrap().job, id);
}

#[tokio::test]
async fn a_submission_whose_caller_left_before_the_wake_is_found_by_the_sweep() {
    let rig = Rig::new().await;
    let worker = rig.worker("w").await;
    let gate = Gate::closed();
    rig.store.inject(Call::Insert, Fault::HoldAfter(gate.clone()));
    {
        let mut submitting = Box::pin(rig.jobs.submit(JobSpec::shell("x")));
        assert!(futures_util::poll!(&mut submitting).is_pending());
        gate.reached().await;
        // Committed, and the process that should wake the dispatcher is no more.
    }
    let request = LeaseRequest { max: 1, wait: Duration::from_secs(30) };
    let waiting = worker.service.lease(&worker.id, request);
    let (leased, ()) = tokio::join!(waiting, async {
        for _ in 0..3 {
            rig.clock.advance(Duration::from_secs(1));
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    });
    assert_eq!(leased.unwrap().len(), 1);
}

#[tokio::test]
async fn a_restart_between_commit_and_wake_loses_nothing() {
    let rig = Rig::new().await;
    let gate = Gate::closed();
    rig.store.inject(Call::Insert, Fault::HoldAfter(gate.clone()));
    let mut submitting = Box::pin(rig.jobs.submit(JobSpec::shell("x")));
    assert!(futures_util::poll!(&mut submitting).is_pending());
    gate.reached().await;
    drop(submitting);
    let Rig { clock, store, coordinator, .. } = rig;
    drop(coordinator);
    let next = self::coordinator(&store, &clock).await;
    assert!(peer(&next, "w").await.lease().await.is_some());
}

#[tokio::test]
async fn a_submission_repeated_by_its_key_is_one() {
    let rig = Rig::new().await;
    let submission = || Submission { specs: vec![JobSpec::shell("x")], idempotency_key: Some("key".to_owned()) };
    rig.store.inject(Call::Insert, Fault::LoseReply);
    let lost = rig.jobs.submit_batch(submission()).await;
    assert!(matches!(lost, Err(Error::Unavailable { .. })));
    let (again, too) = tokio::join!(rig.jobs.submit_batch(submission()), rig.jobs.submit_batch(submission()));
    let (again, too) = (again.unwrap().remove(0), too.unwrap().remove(0));
    assert!(again.repeated && too.repeated && again.id == too.id);
    assert_eq!(rig.jobs.stats().await.unwrap().jobs[&Status::Queued], 1);
}

#[tokio::test]
async fn a_coordinator_that_starts_expires_nothing_until_it_was_up_for_a_lease() {
    let (rig, worker, leased) = held().await;
    let id = leased.job;
    let Rig { clock, store, coordinator, .. } = rig;
    drop(coordinator);
    clock.advance(Duration::from_secs(3_600));
    let next = self::coordinator(&store, &clock).await;
    let worker = Peer { service: next.as_worker(worker.id.clone()), ..worker };
    for _ in 0..59 {
        clock.advance(Duration::from_secs(1));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(next.jobs().job(id).await.unwrap().status, Status::Running);
    assert_eq!(worker.beat(&[&leased]).await, []);
    worker.finish(&leased, EXIT_0).await.unwrap();
}

#[tokio::test]
async fn two_coordinators_never_both_hand_out_a_job() {
    let rig = Rig::new().await;
    let other = coordinator(&rig.store, &rig.clock).await;
    let (one, two) = (rig.worker("one").await, peer(&other, "two").await);
    let id = rig.jobs.submit(JobSpec::shell("x")).await.unwrap().id;
    let (first, second) = overtaken(&rig.store, Call::Update, one.lease(), two.lease()).await;
    let second = second.unwrap();
    assert_eq!(first, None);
    two.finish(&second, EXIT_0).await.unwrap();
    assert_eq!(rig.job(id).await.status, Status::Completed);
}

#[tokio::test]
async fn a_beat_that_was_overtaken_drops_nothing() {
    let (rig, worker, leased) = held().await;
    let id = leased.job;
    rig.clock.advance(Duration::from_secs(11));
    worker.beat(&[&leased]).await;
    worker.beat(&[]).await; // sent before the one above, and late
    worker.beat(&[&leased]).await;
    assert_eq!(rig.job(id).await.status, Status::Running);
    worker.beat(&[]).await;
    worker.beat(&[]).await;
    let job = rig.job(id).await;
    assert_eq!(job.status, Status::Scheduled, "listed and then dropped: lost, and tried again after a delay");
}

#[tokio::test]
async fn a_lease_that_arrives_after_it_was_returned_is_told_to_be_lost() {
    let rig = Rig::new().await;
    let (one, two) = (rig.worker("one").await, rig.worker("two").await);
    let id = rig.jobs.submit(JobSpec::shell("x")).await.unwrap().id;
    let late = one.lease().await.unwrap();
    rig.until(async || {
        one.beat(&[]).await;
        rig.job(id).await.status == Status::Queued
    })
    .await;
    let leased = two.lease().await.unwrap();
    assert_eq!(one.beat(&[&late]).await, [id]);
    two.finish(&leased, EXIT_0).await.unwrap();
}

#[tokio::test]
async fn a_removed_worker_is_told_to_stop_and_its_jobs_go_elsewhere() {
    let rig = Rig::new().await;
    let (one, two) = (rig.worker("one").await, rig.worker("two").await);
    let id = rig.jobs.submit(JobSpec::shell("x")).await.unwrap().id;
    let leased = one.lease().await.unwrap();
    rig.jobs.remove_worker(&one.id).await.unwrap();
    assert_eq!(one.beat(&[&leased]).await, [id]);
    assert_eq!(rig.job(id).await.status, Status::Running, "until it has confirmed the stop");
    assert_eq!(one.beat(&[]).await, []);
    rig.until_status(id, Status::Queued).await;
    let lease = one.service.lease(&one.id, LeaseRequest { max: 1, wait: Duration::ZERO }).await;
    assert!(matches!(lease, Err(Error::Forbidden(_))));
    assert_eq!(two.lease().await.unwrap().job, id);
}

#[tokio::test]
async fn a_watcher_of_all_jobs_hears_of_scheduled_ones_too() {
    let rig = Rig::new().await;
    let mut updates = rig.jobs.watch(WatchQuery::All).await.unwrap();
    let mut later = JobSpec::shell("x");
    later.run_at = Some(rig.clock.now().after(Duration::from_secs(60)));
    let specs = vec![later, JobSpec::shell("x")];
    let submitted = rig.jobs.submit_batch(Submission { specs, idempotency_key: None }).await.unwrap();
    for (job, status) in submitted.iter().zip([Status::Scheduled, Status::Queued]) {
        let update = updates.next().await.unwrap().unwrap();
        assert_eq!((update.id, update.status), (job.id, status));
    }
}

#[tokio::test]
async fn while_the_store_is_down_nothing_is_lost() {
    let (rig, worker, leased) = held().await;
    let id = leased.job;
    rig.store.set_down(true);
    assert!(matches!(rig.jobs.submit(JobSpec::shell("y")).await, Err(Error::Unavailable { .. })));
    assert!(matches!(worker.finish(&leased, EXIT_0).await, Err(Error::Unavailable { .. })));
    rig.clock.advance(Duration::from_secs(5));
    tokio::task::yield_now().await;
    rig.store.set_down(false);
    worker.finish(&leased, EXIT_0).await.unwrap();
    assert_eq!(rig.job(id).await.status, Status::Completed);
}

#[tokio::test]
async fn what_a_refused_beat_counted_is_counted_once() {
    let rig = Rig::new().await;
    let worker = rig.worker("w").await;
    let one_more = async || {
        rig.jobs.submit(JobSpec::shell("x")).await.unwrap();
        let leased = worker.lease().await.unwrap();
        worker.finish(&leased, EXIT_0).await.unwrap();
    };
    let shown = async || rig.jobs.workers(None).await.unwrap()[0].jobs_completed;
    let mut ended = 0;
    for fault in [Fault::LoseReply, Fault::Refuse, Fault::LoseReply] {
        one_more().await;
        rig.store.inject(Call::Renew, fault);
        assert!(matches!(worker.idle().await, Err(Error::Unavailable { .. })));
        ended += 1;
        assert_eq!(shown().await, ended, "after a beat that may have been written");
        // What has ended since has a name of its own.
        one_more().await;
        ended += 1;
        assert_eq!(shown().await, ended);
        for _ in 0..3 {
            worker.idle().await.unwrap();
            assert_eq!(shown().await, ended);
        }
    }
    // A beat whose caller goes away, when it is written or before.
    for held in [Fault::HoldBefore(Gate::closed()), Fault::HoldAfter(Gate::closed())] {
        one_more().await;
        ended += 1;
        rig.store.inject(Call::Renew, held);
        assert!(worker.idle().now_or_never().is_none());
        worker.idle().await.unwrap();
        worker.idle().await.unwrap();
        assert_eq!(shown().await, ended);
    }
    let row = rig.store.get_workers(std::slice::from_ref(&worker.id)).await.unwrap().remove(0).unwrap();
    assert_eq!(row.beat.completed, ended, "all of it is written down");
}
