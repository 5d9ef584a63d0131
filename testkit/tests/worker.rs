//! The worker runtime against the real coordinator.

use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::{FunctionExecutor, RunContext, Stream};
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::JobServiceExt;
use cmdexec_core::store::MemoryStore;
use cmdexec_core::worker::Worker;

#[tokio::test]
async fn a_job_runs_and_its_output_and_result_arrive() {
    let coordinator = Coordinator::builder(MemoryStore::new()).build().await.unwrap();
    let executor = FunctionExecutor::new(async |context: RunContext| {
        context.output.write(Stream::Stdout, "hello\n".into()).await;
        Outcome::Exited { code: 3 }
    });
    let worker = Worker::builder(coordinator.as_worker(WorkerId::local()), executor).slots(4).start().await.unwrap();
    let done = coordinator.jobs().run(JobSpec::shell("x")).await.unwrap();
    assert_eq!((done.status, done.exit_code, &*done.stdout), (Status::Failed, Some(3), &b"hello\n"[..]));
    let ended = worker.shutdown().await;
    assert_eq!(ended, cmdexec_core::worker::Ended::default());
}

/// Not a benchmark: prints what the runtime costs, for who wants to look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints a figure"]
async fn throughput() {
    let coordinator = Coordinator::builder(MemoryStore::new()).build().await.unwrap();
    let executor = FunctionExecutor::new(async |_| Outcome::Exited { code: 0 });
    let jobs = coordinator.jobs();
    let mut last = None;
    for _ in 0..20 {
        let specs = vec![JobSpec::shell("x"); 1_000];
        let submission = cmdexec_core::service::Submission { specs, idempotency_key: None };
        last = jobs.submit_batch(submission).await.unwrap().pop();
    }
    let clock: Arc<dyn cmdexec_core::time::Clock> = Arc::new(cmdexec_core::time::SystemClock);
    let before = clock.uptime();
    let worker = Worker::builder(coordinator.as_worker(WorkerId::local()), executor).slots(8).start().await.unwrap();
    jobs.wait(last.unwrap().id).await.unwrap();
    while worker.status().completed < 20_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = clock.uptime().saturating_sub(before);
    println!("{:.0} jobs/s", 20_000.0 / took.as_secs_f64());
    worker.shutdown().await;
}
