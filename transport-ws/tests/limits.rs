//! A server that takes only small messages: what can be spread over several is, and what can't is refused before it is sent.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::executor::Stream;
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::{
    FinalOutput, FinishedAttempt, JobService, JobServiceExt, LeaseRequest, OutputBatch, OutputPieces, Registration,
    Role, Submission, WatchQuery, WorkerService,
};
use cmdexec_core::store::Chunk;
use futures_util::StreamExt;
use support::{World, unlimited};

const MOST: usize = 128 * 1024;

async fn narrow() -> World {
    let mut options = unlimited();
    options.max_message = MOST;
    World::with(options).await
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_and_takes_nothing_with_it() {
    let world = narrow().await;
    let ada = world.user("ada", Role::User);
    // That of all jobs ends with its socket.
    let mut changes = ada.watch(WatchQuery::All).await.unwrap();
    for specs in [vec![JobSpec::shell("x".repeat(MOST))], vec![JobSpec::shell("true"); 8_000]] {
        let refused = ada.submit_batch(Submission { specs, idempotency_key: None }).await;
        let Err(Error::Invalid(problems)) = refused else { panic!("{refused:?}") };
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].field, "body");
        let why = &problems[0].message;
        assert!(why.contains("submit") && why.contains(&MOST.to_string()), "{why}");
    }
    let job = ada.submit(JobSpec::shell("true")).await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap().id, job.id);
    assert_eq!(world.server.sockets(), 1);
}

#[tokio::test]
async fn output_and_reports_are_spread_over_messages_that_the_server_takes() {
    const JOBS: usize = 24;
    let world = narrow().await;
    let (ada, worker) = (world.user("ada", Role::User), world.worker(Some("w")));
    let id = "w".parse().unwrap();
    worker.register(Registration { worker: Some("w".parse().unwrap()), ..Registration::new("h", 1, 1) }).await.unwrap();
    let specs = vec![JobSpec::shell("true"); JOBS];
    ada.submit_batch(Submission { specs, idempotency_key: None }).await.unwrap();
    let mut leased = Vec::new();
    while leased.len() < JOBS {
        let request = LeaseRequest { max: JOBS - leased.len(), wait: Duration::from_secs(20) };
        leased.extend(worker.lease(&id, request).await.unwrap());
    }
    let chunk = |seq| Chunk { seq, stream: Stream::Stdout, bytes: vec![b'x'; 10_000].into() };
    let batch = |leased: &cmdexec_core::service::LeasedJob| OutputBatch {
        job: leased.job,
        token: Some(leased.token),
        pieces: OutputPieces::Numbered(vec![chunk(0), chunk(1)]),
    };
    // As bytes, and then as JSON.
    for ack in worker.append_output(&id, leased.iter().map(batch).collect()).await.unwrap() {
        ack.unwrap();
    }
    let report = |leased| FinishedAttempt {
        output: FinalOutput::Rest(vec![chunk(2)]),
        ..FinishedAttempt::new(leased, Outcome::Exited { code: 0 })
    };
    for ack in worker.finish(&id, leased.iter().map(report).collect()).await.unwrap() {
        ack.unwrap();
    }
    for leased in leased {
        let done = ada.job(leased.job).await.unwrap();
        assert_eq!((done.status, done.stdout.len()), (Status::Completed, 30_000));
    }
    assert!(worker.is_open() && ada.is_open());
}
