//! How a worker ends: drained, told twice, or dropped.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cmdexec_core::executor::RunContext;
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::{JobServiceExt, WorkerStatus};
use cmdexec_core::worker::Ended;
use cmdexec_testkit::service::WorkerCall;
use tokio::sync::Notify;

use crate::world::{DONE, World, on_drop, settle};

#[tokio::test]
async fn draining_finishes_what_runs_and_takes_no_more() {
    let world = World::new().await;
    let finish = Arc::new(Notify::new());
    let may = Arc::clone(&finish);
    let mut worker = world
        .worker(move |_| {
            let may = Arc::clone(&may);
            async move {
                may.notified().await;
                DONE
            }
        })
        .await;
    let id = world.submit("x").await;
    settle().await;
    worker.drain();
    settle().await;
    let later = world.submit("later").await;
    world.pass(Duration::from_secs(15)).await;
    assert_eq!(world.jobs.workers(None).await.unwrap()[0].status, WorkerStatus::Draining);
    assert_eq!(world.view(later).await.status, Status::Queued);
    finish.notify_one();
    assert_eq!(worker.wait().await, Ended::default());
    assert_eq!(world.view(id).await.status, Status::Completed);
}

#[tokio::test]
async fn what_does_not_finish_while_draining_goes_back_at_no_cost() {
    let world = World::new().await;
    let mut worker = world
        .worker(async |context: RunContext| {
            context.stop.cancelled().await;
            Outcome::Exited { code: 143 }
        })
        .await;
    let mut spec = JobSpec::shell("x");
    spec.max_attempts = 1;
    let id = world.jobs.submit(spec).await.unwrap().id;
    settle().await;
    worker.drain();
    world.pass(Duration::from_secs(29)).await;
    assert_eq!(world.view(id).await.status, Status::Running);
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(worker.wait().await, Ended::default());
    assert_eq!(world.view(id).await.status, Status::Queued);
}

#[tokio::test]
async fn a_second_drain_ends_at_once() {
    let world = World::new().await;
    let mut worker = world.worker(async |_| pending().await).await;
    let id = world.submit("x").await;
    settle().await;
    worker.drain();
    worker.drain();
    assert_eq!(worker.wait().await, Ended::default());
    assert_eq!(world.view(id).await.status, Status::Queued);
}

#[tokio::test]
async fn a_worker_that_ends_out_of_touch_says_what_it_could_not_report() {
    let world = World::new().await;
    let mut worker = world.worker(async |_| pending().await).await;
    let id = world.submit("x").await;
    settle().await;
    world.service.set_down(true);
    worker.drain();
    worker.drain();
    world.pass(Duration::from_secs(5)).await;
    assert_eq!(worker.wait().await.unreported, [id]);
}

#[tokio::test]
async fn dropping_the_handle_stops_everything() {
    let world = World::new().await;
    let dropped: Arc<Mutex<Option<Duration>>> = Arc::default();
    let (clock, flag) = (world.clock.clone(), Arc::clone(&dropped));
    let worker = world
        .worker(move |_| {
            let flag = on_drop(&clock, &flag);
            async move {
                let _flag = flag;
                pending().await
            }
        })
        .await;
    world.submit("x").await;
    settle().await;
    drop(worker);
    settle().await;
    assert!(dropped.lock().unwrap().is_some());
    let calls = world.service.calls(WorkerCall::Heartbeat);
    world.pass(Duration::from_secs(30)).await;
    assert_eq!(world.service.calls(WorkerCall::Heartbeat), calls);
}
