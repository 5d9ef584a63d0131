//! The client against a real server: what it gives is what the service gives.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::executor::{Capabilities, Kind, Limit, Stream};
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{Details, JobSpec, Outcome, Reason, Status};
use cmdexec_core::service::{
    FinalOutput, FinishedAttempt, Heartbeat, JobQuery, JobService, JobServiceExt, LeaseRequest, LeasedJob, OutputBatch,
    OutputEvent, OutputPieces, OutputQuery, Registration, Role, Submission, Usage, WatchQuery, WorkerService,
    WorkerStatus,
};
use cmdexec_core::store::{Chunk, Listed};
use futures_util::StreamExt;
use support::World;

fn worker_id() -> WorkerId {
    "w1".parse().unwrap()
}

fn registration() -> Registration {
    Registration {
        worker: Some(worker_id()),
        hostname: "host".to_owned(),
        cpu_count: 4,
        total_memory_mb: 8_192,
        executors: Some(vec![Capabilities { kind: Kind::Process, limits: [Limit::Memory].into(), gpus: 0 }]),
        slots: Some(4),
        labels: ["gpu".to_owned()].into(),
        version: Some("1".to_owned()),
        metadata: serde_json::Map::from_iter([("osType".to_owned(), "linux".into())]),
        usage: None,
    }
}

fn ended(leased: &LeasedJob, outcome: Outcome) -> FinishedAttempt {
    FinishedAttempt {
        job: leased.job,
        token: Some(leased.token),
        outcome,
        details: Details::default(),
        output: FinalOutput::None,
    }
}

fn chunk(seq: u64, stream: Stream, bytes: &'static [u8]) -> Chunk {
    Chunk { seq, stream, bytes: Bytes::from_static(bytes) }
}

const NOW: LeaseRequest = LeaseRequest { max: 10, wait: Duration::from_secs(5) };

#[tokio::test]
async fn a_job_goes_all_the_way() {
    let world = World::start().await;
    let client = world.client("ada", Role::User);
    let mut spec = JobSpec::argv(["echo", "a b"]);
    spec.env.insert("A".into(), "1".into());
    spec.timeout = Duration::from_millis(1_234);
    spec.resources.cpu_millis = Some(500);
    spec.priority = 7;
    spec.retries = 1;
    let submitted = client.submit(spec.clone()).await.unwrap();
    assert_eq!((submitted.status, submitted.repeated), (Some(Status::Queued), false));

    let registration = registration();
    let registered = client.register(registration.clone()).await.unwrap();
    assert_eq!(registered.worker, worker_id());
    let leased = client.lease(&worker_id(), NOW).await.unwrap().remove(0);
    assert_eq!((leased.job, leased.attempt), (submitted.id, 1));
    assert_eq!((&leased.spec.command, &leased.spec.env), (&spec.command, &spec.env));
    assert_eq!(leased.spec.timeout, spec.timeout);

    let beat = Heartbeat {
        usage: Usage { status: WorkerStatus::Busy, cpu: 12.5, ram: 50.0 },
        held: Some(vec![Listed { job: leased.job, token: leased.token }]),
    };
    let reply = client.heartbeat(&worker_id(), beat).await.unwrap();
    assert_eq!((reply.cancel, reply.lost), (vec![], vec![]));

    let pieces =
        OutputPieces::Numbered(vec![chunk(0, Stream::Stdout, b"out\n"), chunk(1, Stream::Stderr, b"\xff\xfe")]);
    let batch = OutputBatch { job: leased.job, token: Some(leased.token), pieces };
    let acks = client.append_output(&worker_id(), vec![batch]).await.unwrap();
    assert!(!acks[0].as_ref().unwrap().cancel);

    let mut report = ended(&leased, Outcome::Exited { code: 0 });
    report.details = Details::lasting(Duration::from_millis(1_500));
    report.output = FinalOutput::Rest(vec![chunk(2, Stream::Stdout, b"end")]);
    let acks = client.finish(&worker_id(), vec![report.clone()]).await.unwrap();
    assert_eq!(acks, [Ok(())]);
    assert_eq!(client.finish(&worker_id(), vec![report]).await.unwrap(), [Ok(())]);

    let view = client.job(submitted.id).await.unwrap();
    assert_eq!((view.status, view.exit_code), (Status::Completed, Some(0)));
    assert_eq!((&view.stdout[..], &view.stderr[..]), (&b"out\nend"[..], &b"\xff\xfe"[..]));
    assert_eq!(view.details.duration, Some(Duration::from_millis(1_500)));
    assert_eq!(*view.spec, spec);
    assert_eq!(view.attempts.len(), 1);
    let events: Vec<_> =
        client.output(submitted.id, OutputQuery::default()).await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(events.len(), 4, "{events:?}");
    assert_eq!(events[3], OutputEvent::End { status: Status::Completed });

    let workers = client.workers(None).await.unwrap();
    assert_eq!(workers[0].id, worker_id());
    assert_eq!(workers[0].executors, registration.executors.unwrap());
    let stats = client.stats().await.unwrap();
    assert_eq!(stats.jobs[&Status::Completed], 1);
    let page = client.list(&JobQuery::default()).await.unwrap();
    assert_eq!((page.total, page.jobs[0].id), (1, submitted.id));
}

#[tokio::test]
async fn outcomes_arrive_as_they_were_sent() {
    let world = World::start().await;
    let client = world.client("ada", Role::User);
    client.register(registration()).await.unwrap();
    let cases = [
        (Outcome::Exited { code: 3 }, Reason::ExitCode, Some(3)),
        (Outcome::Signaled { signal: 9 }, Reason::ExitCode, Some(137)),
        (Outcome::TimedOut, Reason::Timeout, None),
        (Outcome::OutOfMemory, Reason::OutOfMemory, None),
        (Outcome::InputError { message: "bad ZIP".into() }, Reason::InputError, None),
        (Outcome::ExecutorError { message: "no disk".into() }, Reason::ExecutorError, None),
    ];
    for (outcome, reason, exit_code) in cases {
        let mut spec = JobSpec::shell("x");
        spec.max_attempts = 1;
        let job = client.submit(spec).await.unwrap();
        let leased = client.lease(&worker_id(), NOW).await.unwrap().remove(0);
        let acks = client.finish(&worker_id(), vec![ended(&leased, outcome.clone())]).await.unwrap();
        assert_eq!(acks, [Ok(())]);
        let view = client.wait(job.id).await.unwrap();
        assert_eq!(
            (view.status, view.reason, view.exit_code),
            (Status::Failed, Some(reason), exit_code),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn errors_are_the_services_own() {
    let world = World::start().await;
    let client = world.client("ada", Role::User);
    let job = client.submit(JobSpec::shell("x")).await.unwrap();
    let unknown = cmdexec_core::id::JobId::from_bytes([7; 16]);
    assert_eq!(client.get(&[unknown, job.id]).await.unwrap()[0], None);
    assert!(client.get(&[job.id, unknown]).await.unwrap()[0].is_some());
    assert_eq!(client.cancel(unknown).await, Err(Error::JobNotFound));
    assert_eq!(client.cancel(job.id).await, Ok(Status::Cancelled));
    assert_eq!(client.cancel(job.id).await, Err(Error::JobFinished));
    let beat = Heartbeat { usage: Usage { status: WorkerStatus::Idle, cpu: 0.0, ram: 0.0 }, held: None };
    assert_eq!(client.heartbeat(&worker_id(), beat).await, Err(Error::WorkerNotFound));
    assert!(matches!(client.remove_worker(&worker_id()).await, Err(Error::Forbidden(_))));
    let viewer = world.client("ada", Role::Viewer);
    assert!(matches!(viewer.submit(JobSpec::shell("x")).await, Err(Error::Forbidden(_))));
    let nobody = cmdexec_transport_http::Client::builder(&world.url).build().unwrap();
    assert_eq!(nobody.stats().await, Err(Error::Unauthenticated));
    let mut wrong = JobSpec::shell("x");
    wrong.priority = 101;
    let Err(Error::Invalid(problems)) = client.submit(wrong.clone()).await else { panic!() };
    assert_eq!(problems[0].field, "priority");
    let batch = Submission { specs: vec![JobSpec::shell("x"), wrong], idempotency_key: None };
    let Err(Error::Invalid(problems)) = client.submit_batch(batch).await else { panic!() };
    assert_eq!(problems[0].field, "jobs[1].priority");
}

#[tokio::test]
async fn a_watcher_sees_the_end() {
    let world = World::start().await;
    let client = world.client("ada", Role::User);
    let job = client.submit(JobSpec::shell("x")).await.unwrap();
    let mut updates = client.watch(WatchQuery::Job(job.id)).await.unwrap();
    assert_eq!(updates.next().await.unwrap().unwrap().status, Status::Queued);
    client.cancel(job.id).await.unwrap();
    assert_eq!(updates.next().await.unwrap().unwrap().status, Status::Cancelled);
    assert!(updates.next().await.is_none());
}

#[tokio::test]
async fn a_repetition_is_known_by_its_key() {
    let world = World::start().await;
    let client = world.client("ada", Role::User);
    let submission = |line: &str| Submission {
        specs: vec![JobSpec::shell(line), JobSpec::shell(line)],
        idempotency_key: Some("k".into()),
    };
    let first = client.submit_batch(submission("a")).await.unwrap();
    let second = client.submit_batch(submission("a")).await.unwrap();
    assert!(first.iter().all(|job| !job.repeated) && second.iter().all(|job| job.repeated));
    assert_eq!(first[1].id, second[1].id);
    assert_eq!(client.submit_batch(submission("b")).await, Err(Error::IdempotencyConflict));
}

#[tokio::test]
async fn what_cannot_be_reached_is_said() {
    let options = {
        let mut options = cmdexec_transport_http::client::Options::default();
        options.retry_for = Duration::from_millis(200);
        options
    };
    let client = cmdexec_transport_http::Client::builder("http://127.0.0.1:1").options(options).build().unwrap();
    assert!(matches!(client.stats().await, Err(Error::Unavailable { .. })));
    let trouble = client.trouble().unwrap();
    assert!(trouble.contains("http://127.0.0.1:1/api/stats") && trouble.contains("refused"), "{trouble}");
}
