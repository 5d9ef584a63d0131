//! Reports: that each attempt's comes, and how they travel.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cmdexec_core::Error;
use cmdexec_core::executor::RunContext;
use cmdexec_core::files::{ByteStream, Download, FileId, GetRange};
use cmdexec_core::id::{JobId, LeaseToken, WorkerId};
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, HeartbeatReply, LeaseRequest, LeasedJob, OutputAck, OutputBatch, OutputPieces,
    Registered, Registration, Submission, WorkerService,
};
use cmdexec_core::time::Clock;
use cmdexec_testkit::service::WorkerCall;
use cmdexec_testkit::store::{Fault, Gate};

use crate::world::{DONE, World, line, say, settle};

#[tokio::test]
async fn reports_that_wait_travel_together() {
    let world = World::new().await;
    let worker = world.worker(async |_| DONE).await;
    let gate = Gate::closed();
    world.service.inject(WorkerCall::Finish, Fault::HoldBefore(gate.clone()));
    let specs = vec![JobSpec::shell("x"); 20];
    let submitted = world.jobs.submit_batch(Submission { specs, idempotency_key: None }).await.unwrap();
    gate.reached().await;
    settle().await;
    gate.open();
    for job in submitted {
        world.until(job.id, Status::Completed).await;
    }
    let calls = world.service.finished();
    assert_eq!(calls.iter().sum::<usize>(), 20);
    assert!(calls.len() < 10 && calls.iter().skip(1).any(|reports| *reports > 1), "{calls:?}");
    assert_eq!(worker.status().completed, 20);
}

#[tokio::test]
async fn what_an_executor_says_beside_the_outcome_is_reported() {
    let world = World::new().await;
    let _worker = world
        .worker(async |context: RunContext| {
            context.steps.runs_in("sha256:1");
            context.steps.warn("one");
            context.steps.warn("two");
            DONE
        })
        .await;
    let details = world.until(world.submit("x").await, Status::Completed).await.details;
    assert_eq!(
        (details.warnings, details.image),
        (vec!["one".to_owned(), "two".to_owned()], Some("sha256:1".to_owned()))
    );
}

#[tokio::test]
async fn jobs_that_end_out_of_order_are_reported_each_as_it_ended() {
    let world = World::new().await;
    let clock = world.clock.clone();
    let _worker = world
        .worker(move |context: RunContext| {
            let clock = clock.clone();
            async move {
                let n: i32 = line(&context).parse().unwrap();
                clock.sleep(Duration::from_secs(u64::try_from(10 - n).unwrap())).await;
                say(&context, n.to_string()).await;
                Outcome::Exited { code: n }
            }
        })
        .await;
    let mut ids = Vec::new();
    for n in 1..=9 {
        ids.push((n, world.submit(&n.to_string()).await));
    }
    for (n, id) in ids {
        let done = world.until(id, Status::Failed).await;
        assert_eq!((done.exit_code, &*done.stdout), (Some(n), n.to_string().as_bytes()));
    }
}

#[tokio::test]
async fn lost_replies_cost_nothing_but_time() {
    let world = World::new().await;
    world.service.inject(WorkerCall::Register, Fault::LoseReply);
    let start = world.builder(async |_| DONE).start();
    let pass = async {
        loop {
            world.pass(Duration::from_millis(100)).await;
        }
    };
    let worker = tokio::select! {
        worker = start => worker.unwrap(),
        () = pass => unreachable!(),
    };
    let id = world.submit("x").await;
    for call in [WorkerCall::Heartbeat, WorkerCall::Lease, WorkerCall::Finish] {
        world.service.inject(call, Fault::LoseReply);
    }
    let done = world.until(id, Status::Completed).await;
    assert!(done.attempts.len() <= 2, "a lease that was lost on its way comes back at no cost: {:?}", done.attempts);
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(worker.status().completed, 1);
}

/// Refuses whole calls for one thing in them, as a transport does whose limits are exceeded.
#[derive(Debug)]
struct Picky(Arc<dyn WorkerService>);

#[async_trait]
impl WorkerService for Picky {
    async fn register(&self, registration: Registration) -> Result<Registered, Error> {
        self.0.register(registration).await
    }

    async fn heartbeat(&self, worker: &WorkerId, beat: Heartbeat) -> Result<HeartbeatReply, Error> {
        self.0.heartbeat(worker, beat).await
    }

    async fn lease(&self, worker: &WorkerId, request: LeaseRequest) -> Result<Vec<LeasedJob>, Error> {
        self.0.lease(worker, request).await
    }

    async fn append_output(
        &self,
        worker: &WorkerId,
        batches: Vec<OutputBatch>,
    ) -> Result<Vec<Result<OutputAck, Error>>, Error> {
        let is_bad = |batch: &OutputBatch| match &batch.pieces {
            OutputPieces::Numbered(chunks) => chunks.iter().any(|chunk| chunk.bytes == "bad"),
            OutputPieces::Plain(_) => false,
        };
        if batches.iter().any(is_bad) {
            return Err(Error::invalid("chunks", "bad"));
        }
        self.0.append_output(worker, batches).await
    }

    async fn finish(&self, worker: &WorkerId, attempts: Vec<FinishedAttempt>) -> Result<Vec<Result<(), Error>>, Error> {
        if attempts.iter().any(|attempt| attempt.outcome == Outcome::Exited { code: 13 }) {
            return Err(Error::invalid("exitCode", "bad"));
        }
        self.0.finish(worker, attempts).await
    }

    async fn download(
        &self,
        worker: Option<&WorkerId>,
        file: FileId,
        range: Option<GetRange>,
    ) -> Result<Download, Error> {
        self.0.download(worker, file, range).await
    }

    async fn upload_artifacts(
        &self,
        worker: &WorkerId,
        job: JobId,
        token: Option<LeaseToken>,
        bytes: ByteStream,
    ) -> Result<FileId, Error> {
        self.0.upload_artifacts(worker, job, token, bytes).await
    }
}

#[tokio::test]
async fn what_is_refused_for_good_holds_up_nothing_else() {
    let world = World::new().await;
    world.service.replace(Arc::new(Picky(world.coordinator.as_worker(WorkerId::local()))));
    let clock = world.clock.clone();
    let worker = world
        .builder(move |context: RunContext| {
            let clock = clock.clone();
            async move {
                let line = line(&context);
                say(&context, line.clone()).await;
                clock.sleep(Duration::from_secs(1)).await;
                say(&context, " after").await;
                Outcome::Exited { code: if line == "13" { 13 } else { 0 } }
            }
        })
        .slots(8)
        .start()
        .await
        .unwrap();
    let mut ids = Vec::new();
    for line in ["one", "bad", "two", "13", "three"] {
        ids.push((line, world.submit(line).await));
    }
    for (line, id) in &ids {
        if *line != "13" {
            let done = world.until(*id, Status::Completed).await;
            let expected = if *line == "bad" { " after".to_owned() } else { format!("{line} after") };
            assert_eq!(String::from_utf8_lossy(&done.stdout), expected);
        }
    }
    world.pass(Duration::from_secs(5)).await;
    assert_eq!((worker.status().completed, worker.status().reporting), (4, 0));
}
