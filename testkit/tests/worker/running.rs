//! What starts, where, and with what.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::{self, Capabilities, Executor, Kind, RunContext};
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{JobSpec, Outcome, Reason, Status};
use cmdexec_core::service::{JobServiceExt, Submission};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::worker::{Ended, Worker};
use cmdexec_testkit::archive::{Entry, Zip};
use cmdexec_testkit::service::WorkerCall;
use cmdexec_testkit::store::Fault;

use crate::world::{DONE, World, say, settle};

#[tokio::test]
async fn wrong_options_are_all_named() {
    let world = World::new().await;
    let error = world.builder(async |_| DONE).slots(0).memory_mb(0).labels(["a b"]).start().await.unwrap_err();
    let said = error.to_string();
    assert!(["slots", "memory_mb", "labels"].iter().all(|field| said.contains(field)), "{said}");
}

#[tokio::test]
async fn a_worker_that_does_not_start_by_itself_waits_until_it_is_told() {
    let world = World::new().await;
    let worker = world.builder(async |_| DONE).auto_start(false).start().await.unwrap();
    let id = world.submit("x").await;
    world.pass(Duration::from_secs(20)).await;
    assert_eq!(world.view(id).await.status, Status::Queued);
    worker.resume();
    world.until(id, Status::Completed).await;
    worker.pause();
    settle().await;
    let id = world.submit("x").await;
    world.pass(Duration::from_secs(20)).await;
    assert_eq!(world.view(id).await.status, Status::Queued);
}

#[tokio::test]
async fn no_two_attempts_have_a_slot_at_one_time() {
    let world = World::new().await;
    let taken: Arc<Mutex<BTreeSet<usize>>> = Arc::default();
    let most = Arc::new(AtomicUsize::new(0));
    let (slots, seen) = (Arc::clone(&taken), Arc::clone(&most));
    let _worker = world
        .worker(move |context: RunContext| {
            let (slots, seen) = (Arc::clone(&slots), Arc::clone(&seen));
            async move {
                {
                    let mut slots = slots.lock().unwrap();
                    assert!(context.slot < 4 && slots.insert(context.slot), "slot {} is taken", context.slot);
                    seen.fetch_max(slots.len(), Ordering::SeqCst);
                }
                settle().await;
                slots.lock().unwrap().remove(&context.slot);
                DONE
            }
        })
        .await;
    let specs = vec![JobSpec::shell("x"); 100];
    for job in world.jobs.submit_batch(Submission { specs, idempotency_key: None }).await.unwrap() {
        world.until(job.id, Status::Completed).await;
    }
    assert_eq!(most.load(Ordering::SeqCst), 4);
}

#[derive(Debug)]
struct Panics(Capabilities);

#[async_trait]
impl Executor for Panics {
    fn capabilities(&self) -> &Capabilities {
        &self.0
    }

    async fn recover(&self) -> Result<(), executor::Error> {
        Ok(())
    }

    async fn run(&self, _: RunContext) -> Outcome {
        panic!("on purpose")
    }

    async fn shutdown(&self) {}
}

#[tokio::test]
async fn an_executors_panic_is_its_error_and_not_the_workers_end() {
    let world = World::new().await;
    let executor = Panics(Capabilities { kind: Kind::Process, limits: [].into(), gpus: 0 });
    let builder = Worker::builder(Arc::new(world.service.clone()), executor).slots(1);
    let _worker = builder.clock(Arc::new(world.clock.clone())).seed(1).start().await.unwrap();
    let mut spec = JobSpec::shell("x");
    spec.max_attempts = 2;
    let id = world.jobs.submit(spec).await.unwrap().id;
    let failed = world.until(id, Status::Failed).await;
    assert_eq!((failed.reason, failed.attempts.len()), (Some(Reason::ExecutorError), 2));
    assert!(failed.error.unwrap().contains("on purpose"));
}

#[tokio::test]
async fn a_jobs_files_are_there_and_gone_afterwards() {
    let world = World::new().await;
    let seen: Arc<Mutex<Vec<std::path::PathBuf>>> = Arc::default();
    let dirs = Arc::clone(&seen);
    let _worker = world
        .worker(move |context: RunContext| {
            dirs.lock().unwrap().push(context.dir.clone());
            async move {
                say(&context, std::fs::read(context.dir.join("a")).unwrap_or_default()).await;
                std::fs::create_dir_all(context.dir.join("left/behind")).unwrap();
                DONE
            }
        })
        .await;
    let zip = Zip::of([Entry::file("a", b"x")]);
    let mut spec = JobSpec::shell("x");
    spec.input = Some(world.jobs.upload_bytes(None, zip.bytes().into()).await.unwrap().id);
    world.service.inject(WorkerCall::Download, Fault::Refuse);
    let id = world.jobs.submit(spec.clone()).await.unwrap().id;
    // Unpacking and removing are other threads' work.
    let real = |world: &World| {
        let clock = world.clock.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            clock.advance(Duration::from_millis(50));
        }
    };
    while !world.view(id).await.status.is_finished() {
        real(&world).await;
    }
    let done = world.view(id).await;
    assert_eq!((done.status, &*done.stdout), (Status::Completed, &b"x"[..]), "{:?}", done.error);
    let dir = seen.lock().unwrap()[0].clone();
    while dir.exists() {
        real(&world).await;
    }

    let broken = world.jobs.upload_bytes(None, "PK\x03\x04no zip".into()).await.unwrap().id;
    spec.input = Some(broken);
    let id = world.jobs.submit(spec).await.unwrap().id;
    while !world.view(id).await.status.is_finished() {
        real(&world).await;
    }
    let failed = world.view(id).await;
    assert_eq!(failed.reason, Some(Reason::InputError));
    assert!(failed.error.unwrap().contains("ZIP"));
}

#[cfg(unix)]
#[tokio::test]
async fn processes_run_and_are_cancelled_by_the_machines_clock() {
    use cmdexec_core::executor::process::ProcessExecutor;

    let coordinator = Coordinator::builder(MemoryStore::new())
        .with_options(|options| options.lease = Duration::from_secs(3))
        .build()
        .await
        .unwrap();
    let executor = ProcessExecutor::default();
    let service = coordinator.as_worker(WorkerId::local());
    let worker = Worker::builder(service, executor).slots(4).start().await.unwrap();
    let jobs = coordinator.jobs();
    let done = jobs.run(JobSpec::shell("pwd; echo problem >&2; exit 4")).await.unwrap();
    assert_eq!((done.exit_code, &*done.stderr), (Some(4), &b"problem\n"[..]), "{:?}", done.error);
    let dir = String::from_utf8(done.stdout.to_vec()).unwrap();
    let dir = std::path::Path::new(dir.trim());
    assert!(dir.is_absolute());
    let id = jobs.submit(JobSpec::shell("sleep 1000")).await.unwrap().id;
    while jobs.job(id).await.unwrap().status != Status::Running {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    jobs.cancel(id).await.unwrap();
    assert_eq!(jobs.wait(id).await.unwrap().status, Status::Cancelled);
    assert!(!dir.exists());
    assert_eq!(worker.shutdown().await, Ended::default());
}
