//! The coordinator over the embedded store, from submission to result.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::coordinator::{Coordinator, Options};
use cmdexec_core::executor::{Capabilities, Kind, Stream};
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, JobServiceExt, LeaseRequest, LeasedJob, OutputBatch, OutputEvent, OutputPieces,
    OutputQuery, Registration, Submission, Usage, WorkerService, WorkerStatus,
};
use cmdexec_core::store::{Chunk, Listed, MemoryStore};
use cmdexec_core::time::ManualClock;
use futures_util::StreamExt;

struct Rig {
    clock: ManualClock,
    coordinator: Coordinator,
    worker: WorkerId,
    service: Arc<dyn WorkerService>,
}

async fn rig() -> Rig {
    rig_with(Options::default()).await
}

async fn rig_with(options: Options) -> Rig {
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(Arc::new(clock.clone()));
    let builder = Coordinator::builder(store).options(options).clock(Arc::new(clock.clone())).seed(1);
    let coordinator = builder.build().await.unwrap();
    let worker = WorkerId::local();
    let service = coordinator.as_worker(worker.clone());
    let rig = Rig { clock, coordinator, worker, service };
    rig.service.register(registration()).await.unwrap();
    rig
}

fn registration() -> Registration {
    Registration {
        executors: Some(vec![Capabilities { kind: Kind::Process, limits: [].into(), gpus: 0 }]),
        slots: Some(4),
        ..Registration::new("here", 4, 4_096)
    }
}

impl Rig {
    async fn lease(&self) -> Vec<LeasedJob> {
        self.service.lease(&self.worker, LeaseRequest { max: 8, wait: Duration::ZERO }).await.unwrap()
    }

    async fn beat(&self, held: &[Listed]) -> (Vec<String>, Vec<String>) {
        let usage = Usage { status: WorkerStatus::Busy, cpu: 1.0, ram: 1.0 };
        let reply = self.service.heartbeat(&self.worker, Heartbeat { usage, held: Some(held.to_vec()) }).await.unwrap();
        let names = |ids: Vec<_>| ids.iter().map(ToString::to_string).collect();
        (names(reply.cancel), names(reply.lost))
    }

    async fn finish(&self, leased: &LeasedJob, outcome: Outcome) -> Result<(), Error> {
        let report = FinishedAttempt::new(leased, outcome);
        self.service.finish(&self.worker, vec![report]).await.unwrap().remove(0)
    }
}

fn listed(leased: &LeasedJob) -> Listed {
    Listed { job: leased.job, token: leased.token }
}

#[tokio::test]
async fn a_job_goes_all_the_way() {
    let rig = rig().await;
    let jobs = rig.coordinator.jobs();
    let job = jobs.submit(JobSpec::shell("echo hello")).await.unwrap();
    let leased = rig.lease().await.remove(0);
    assert_eq!(leased.job, job.id);
    let chunk = Chunk { seq: 0, stream: Stream::Stdout, bytes: Bytes::from_static(b"hello\n") };
    let batch = OutputBatch { job: job.id, token: Some(leased.token), pieces: OutputPieces::Numbered(vec![chunk]) };
    let acks = rig.service.append_output(&rig.worker, vec![batch.clone(), batch]).await.unwrap();
    assert!(acks.iter().all(|ack| ack.as_ref().is_ok_and(|ack| !ack.cancel)));
    rig.finish(&leased, Outcome::Exited { code: 0 }).await.unwrap();
    rig.finish(&leased, Outcome::Exited { code: 0 }).await.unwrap();
    assert_eq!(rig.finish(&leased, Outcome::Exited { code: 1 }).await, Err(Error::LeaseLost));

    let done = jobs.wait(job.id).await.unwrap();
    assert_eq!((done.status, done.exit_code, &done.stdout[..]), (Status::Completed, Some(0), &b"hello\n"[..]));
    let events: Vec<_> = jobs.output(job.id, OutputQuery::default()).await.unwrap().collect().await;
    assert!(matches!(&events[..], [Ok(OutputEvent::Chunk { .. }), Ok(OutputEvent::End { .. })]), "{events:?}");
}

#[tokio::test]
async fn a_waiting_worker_gets_what_is_submitted() {
    let rig = rig().await;
    let request = LeaseRequest { max: 1, wait: Duration::from_secs(30) };
    let waiting = rig.service.lease(&rig.worker, request);
    let submitting = async {
        tokio::task::yield_now().await;
        rig.coordinator.jobs().submit(JobSpec::shell("true")).await.unwrap()
    };
    let (leased, job) = tokio::join!(waiting, submitting);
    assert_eq!(leased.unwrap()[0].job, job.id);
}

#[tokio::test]
async fn a_worker_that_falls_silent_loses_its_jobs_and_the_next_attempt_runs() {
    let rig = rig().await;
    let job = rig.coordinator.jobs().submit(JobSpec::shell("true")).await.unwrap();
    let first = rig.lease().await.remove(0);
    rig.beat(&[listed(&first)]).await;
    rig.clock.advance(Duration::from_secs(61));
    let second = loop {
        if let Some(leased) = rig.lease().await.pop() {
            break leased;
        }
        rig.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    };
    assert_eq!((second.job, second.attempt), (job.id, 2));
    assert_eq!(rig.finish(&first, Outcome::Exited { code: 0 }).await, Err(Error::LeaseLost));
    assert_eq!(rig.beat(&[listed(&first), listed(&second)]).await.1, [job.id.to_string()]);
    rig.finish(&second, Outcome::Exited { code: 0 }).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_never_arrived_comes_back_at_no_cost() {
    let rig = rig().await;
    let job = rig.coordinator.jobs().submit(JobSpec::shell("true")).await.unwrap();
    rig.lease().await;
    rig.beat(&[]).await;
    assert_eq!(rig.lease().await, []);
    rig.clock.advance(Duration::from_secs(10));
    rig.beat(&[]).await;
    let again = rig.lease().await.remove(0);
    assert_eq!((again.job, again.attempt), (job.id, 2));
    let view = rig.coordinator.jobs().job(job.id).await.unwrap();
    assert_eq!(view.attempts.len(), 2);
}

#[tokio::test]
async fn cancelling_a_running_job_reaches_its_worker() {
    let rig = rig().await;
    let jobs = rig.coordinator.jobs();
    let job = jobs.submit(JobSpec::shell("sleep 100")).await.unwrap();
    let leased = rig.lease().await.remove(0);
    assert_eq!(jobs.cancel(job.id).await, Ok(Status::Cancelling));
    assert_eq!(rig.beat(&[listed(&leased)]).await.0, [job.id.to_string()]);
    rig.finish(&leased, Outcome::Stopped).await.unwrap();
    assert_eq!(jobs.job(job.id).await.unwrap().status, Status::Cancelled);
    assert_eq!(jobs.cancel(job.id).await, Err(Error::JobFinished));
}

#[tokio::test]
async fn a_worker_holds_no_more_jobs_than_it_may() {
    let mut options = Options::default();
    options.max_leases = 3;
    let rig = rig_with(options).await;
    let specs = (0..9).map(|_| JobSpec::shell("true")).collect();
    rig.coordinator.jobs().submit_batch(Submission { specs, idempotency_key: None }).await.unwrap();
    let held = rig.lease().await;
    assert_eq!((held.len(), rig.lease().await.len()), (3, 0));
    rig.finish(&held[0], Outcome::Exited { code: 0 }).await.unwrap();
    assert_eq!(rig.lease().await.len(), 1);
}
