//! The worker runtime at the far end of a real connection, while the server comes and goes.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cmdexec_core::archive::{Limits, unpack};
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::{FunctionExecutor, RunContext, Stream};
use cmdexec_core::job::{Command, JobSpec, Outcome, Status, Step};
use cmdexec_core::service::{JobService, JobServiceExt, Role, Services, Submission};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::worker::Worker;
use support::{World, unlimited};
use tokio::net::TcpListener;

/// Says what it was asked, and ends with the code that stands in it.
async fn echo(context: RunContext) -> Outcome {
    let Command::Shell(line) = &context.spec.command else { return Outcome::Exited { code: 99 } };
    context.output.write(Stream::Stdout, line.clone().into()).await;
    Outcome::Exited { code: line.parse::<i32>().unwrap() % 3 }
}

#[tokio::test]
async fn jobs_run_while_the_server_restarts() {
    let coordinator = Coordinator::builder(MemoryStore::new()).build().await.unwrap();
    let services: Arc<dyn Services> = Arc::new(coordinator);
    let mut world = World::over(Arc::clone(&services), unlimited()).await;
    let client = world.client("ada", Role::User);
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::builder(Arc::new(client.clone()), FunctionExecutor::new(echo))
        .slots(8)
        .work_dir(dir.path())
        .drain_timeout(Duration::from_secs(5))
        .start()
        .await
        .unwrap();
    let mut ids = HashSet::new();
    for round in 0..5 {
        let specs: Vec<JobSpec> = (0..60).map(|i| JobSpec::shell((round * 60 + i).to_string())).collect();
        let submitted = client.submit_batch(Submission { specs, idempotency_key: None }).await.unwrap();
        ids.extend(submitted.iter().map(|job| job.id));
        // In the middle of it all.
        let address = world.address;
        assert_eq!(world.stop().await, 0, "no connection had to be cut");
        let listener = TcpListener::bind(address).await.unwrap();
        world = World::on(listener, Arc::clone(&services), unlimited());
    }
    assert_eq!(ids.len(), 300);
    for id in ids {
        let job = tokio::time::timeout(Duration::from_secs(60), client.wait(id)).await.unwrap().unwrap();
        let Command::Shell(line) = &job.spec.command else { unreachable!() };
        assert_eq!(job.stdout, line.as_bytes());
        let code = line.parse::<i32>().unwrap() % 3;
        assert_eq!(job.exit_code, Some(code));
        assert_eq!(job.status, if code == 0 { Status::Completed } else { Status::Failed });
        assert_eq!(job.attempts.len(), 1, "nothing ran twice");
    }
    worker.shutdown().await;
}

/// Leaves a file, takes note of two steps, and fails.
async fn leave(context: RunContext) -> Outcome {
    std::fs::write(context.dir.join("report.txt"), "kept").unwrap();
    for exit_code in [Some(0), Some(4)] {
        context.steps.ended(Step { exit_code, duration: Duration::from_millis(5) });
    }
    Outcome::Exited { code: 4 }
}

#[tokio::test]
async fn what_a_job_leaves_and_how_its_steps_ended_come_back() {
    let world = World::start().await;
    let client = world.client("ada", Role::User);
    let dir = tempfile::tempdir().unwrap();
    let executor = FunctionExecutor::new(leave);
    let worker = Worker::builder(Arc::new(client.clone()), executor).work_dir(dir.path()).start().await.unwrap();
    let mut spec = JobSpec::steps(["true", "exit 4"]);
    spec.outputs = vec!["*.txt".to_owned(), "missing".to_owned()];
    let done = tokio::time::timeout(Duration::from_secs(60), client.run(spec)).await.unwrap().unwrap();
    assert_eq!(done.details.warnings, ["outputs: nothing matched `missing`"]);
    let codes: Vec<_> = done.details.steps.iter().map(|step| step.exit_code).collect();
    assert_eq!(codes, [Some(0), Some(4)]);
    let download = client.download(done.artifacts.unwrap(), None).await.unwrap();
    let chunks: Vec<_> = futures_util::TryStreamExt::try_collect(download.bytes).await.unwrap();
    let zip = std::io::Cursor::new(chunks.concat());
    let into = tempfile::tempdir().unwrap();
    unpack(zip, into.path(), &Limits::default(), &AtomicBool::new(false)).unwrap();
    assert_eq!(std::fs::read_to_string(into.path().join("report.txt")).unwrap(), "kept");
    worker.shutdown().await;
}

#[tokio::test]
async fn http_2_is_spoken_on_the_same_port() {
    let world = World::start().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let calls = (0..50).map(|_| client.get(format!("{}/api/health", world.url)).send());
    for answer in futures_util::future::join_all(calls).await {
        let answer = answer.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    }
    assert_eq!(world.stop().await, 0);
}
