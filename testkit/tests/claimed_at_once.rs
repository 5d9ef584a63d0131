//! Jobs that are submitted while a worker waits for them: one write adds and claims them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, JobQuery, JobService, JobServiceExt, LeaseRequest, LeasedJob, Registration, Submission,
    Usage, WorkerService, WorkerStatus,
};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::time::ManualClock;
use cmdexec_testkit::store::{Call, Fault, FaultyStore};
use tokio::task::JoinHandle;

struct Rig {
    clock: ManualClock,
    store: FaultyStore,
    jobs: Arc<dyn JobService>,
    id: WorkerId,
    worker: Arc<dyn WorkerService>,
    /// Keeps it running.
    _coordinator: Coordinator,
}

impl Rig {
    async fn new() -> Self {
        let clock = ManualClock::default();
        let store = FaultyStore::new(Arc::new(MemoryStore::with_clock(Arc::new(clock.clone()))));
        let builder = Coordinator::builder(store.clone()).clock(Arc::new(clock.clone())).seed(7);
        let coordinator = builder.build().await.unwrap();
        let id: WorkerId = "w".parse().unwrap();
        let worker = coordinator.as_worker(id.clone());
        worker.register(Registration::new("w", 4, 4_096)).await.unwrap();
        Self { clock, store, jobs: coordinator.jobs(), id, worker, _coordinator: coordinator }
    }

    /// An ask for so many jobs that waits already.
    async fn ask(&self, max: usize) -> JoinHandle<Result<Vec<LeasedJob>, Error>> {
        let (worker, id) = (Arc::clone(&self.worker), self.id.clone());
        let request = LeaseRequest { max, wait: Duration::from_secs(60) };
        let asking = tokio::spawn(async move { worker.lease(&id, request).await });
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        asking
    }

    fn writes(&self) -> (usize, usize) {
        (self.store.calls(Call::Insert), self.store.calls(Call::Update))
    }

    async fn statuses(&self) -> Vec<Status> {
        let page = self.jobs.list(&JobQuery::default()).await.unwrap();
        page.jobs.iter().map(|job| job.status).collect()
    }
}

fn spec(n: usize) -> JobSpec {
    JobSpec::shell(format!("job {n}"))
}

fn batch(jobs: usize, key: Option<&str>) -> Submission {
    Submission { specs: (0..jobs).map(spec).collect(), idempotency_key: key.map(str::to_owned) }
}

#[tokio::test]
async fn one_write_adds_and_claims_what_a_worker_waits_for() {
    let rig = Rig::new().await;
    let asking = rig.ask(2).await;
    let submitted = rig.jobs.submit_batch(batch(3, Some("k"))).await.unwrap();
    assert!(submitted.iter().all(|job| job.status == Some(Status::Queued)), "as they were when they were taken in");
    let leased = asking.await.unwrap().unwrap();
    assert_eq!(leased.iter().map(|leased| leased.job).collect::<Vec<_>>(), [submitted[0].id, submitted[1].id]);
    assert_eq!(rig.writes(), (1, 0));
    assert_eq!(rig.statuses().await, [Status::Queued, Status::Running, Status::Running]);
    let report = FinishedAttempt::new(&leased[0], Outcome::Exited { code: 0 });
    rig.worker.finish(&rig.id, vec![report]).await.unwrap().remove(0).unwrap();
    let third = rig.ask(1).await.await.unwrap().unwrap();
    assert_eq!(third[0].job, submitted[2].id, "what nobody asked for waits its turn");
}

#[tokio::test]
async fn a_repetition_is_known_and_gives_nothing_away() {
    let rig = Rig::new().await;
    let first = rig.jobs.submit_batch(batch(1, Some("k"))).await.unwrap();
    let leased = rig.ask(1).await.await.unwrap().unwrap();
    let asking = rig.ask(1).await;
    let again = rig.jobs.submit_batch(batch(1, Some("k"))).await.unwrap();
    assert_eq!((again[0].id, again[0].repeated), (first[0].id, true));
    assert_eq!(rig.jobs.submit_batch(batch(2, Some("k"))).await, Err(Error::IdempotencyConflict));
    let next = rig.jobs.submit(spec(7)).await.unwrap().id;
    assert_eq!(asking.await.unwrap().unwrap()[0].job, next);
    assert_eq!(leased[0].job, first[0].id);
    assert_eq!(rig.statuses().await, [Status::Running, Status::Running]);
}

#[tokio::test]
async fn an_insertion_that_fails_gives_nothing_away() {
    let rig = Rig::new().await;
    let asking = rig.ask(1).await;
    rig.store.inject(Call::Insert, Fault::Refuse);
    assert!(matches!(rig.jobs.submit(spec(0)).await, Err(Error::Unavailable { .. })));
    let next = rig.jobs.submit(spec(1)).await.unwrap().id;
    assert_eq!(asking.await.unwrap().unwrap()[0].job, next);
    assert_eq!(rig.statuses().await, [Status::Running]);
}

#[tokio::test]
async fn a_job_that_was_added_without_anybody_learning_so_is_given_again() {
    let rig = Rig::new().await;
    let asking = rig.ask(1).await;
    rig.store.inject(Call::Insert, Fault::LoseReply);
    assert!(matches!(rig.jobs.submit(spec(0)).await, Err(Error::Unavailable { .. })));
    let usage = Usage { status: WorkerStatus::Idle, cpu: 0.0, ram: 0.0 };
    for _ in 0..60 {
        if asking.is_finished() {
            break;
        }
        rig.clock.advance(Duration::from_secs(1));
        rig.worker.heartbeat(&rig.id, Heartbeat { usage, held: Some(Vec::new()) }).await.unwrap();
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    let leased = asking.await.unwrap().unwrap();
    assert_eq!(leased.len(), 1, "the lease that no worker lists ends, and the worker that waits has the job");
    assert_eq!(rig.statuses().await, [Status::Running], "it was added once");
}
