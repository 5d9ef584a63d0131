//! What a worker does when it is out of touch, and what it does of what it is told.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cmdexec_core::executor::RunContext;
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::JobServiceExt;
use cmdexec_core::time::Clock;
use cmdexec_testkit::service::WorkerCall;

use crate::world::{DONE, World, line, on_drop, say, settle};

#[tokio::test]
async fn out_of_touch_a_job_goes_on_and_is_reported_when_the_worker_is_back() {
    let world = World::new().await;
    let clock = world.clock.clone();
    let _worker = world
        .worker(move |context: RunContext| {
            let clock = clock.clone();
            async move {
                say(&context, "before ").await;
                clock.sleep(Duration::from_secs(20)).await;
                say(&context, "after").await;
                DONE
            }
        })
        .await;
    let id = world.submit("x").await;
    settle().await;
    assert_eq!(world.view(id).await.status, Status::Running);
    world.service.set_down(true);
    world.pass(Duration::from_secs(40)).await;
    assert_eq!(world.view(id).await.status, Status::Running);
    world.service.set_down(false);
    let done = world.until(id, Status::Completed).await;
    assert_eq!((done.attempts.len(), &*done.stdout), (1, &b"before after"[..]));
}

/// When the job was stopped and when it was dropped, counted from when the worker was last heard.
async fn out_of_touch(exclusive: bool, heeds: bool) -> (Option<Duration>, Option<Duration>, World, JobId) {
    let world = World::new().await;
    let stopped: Arc<Mutex<Option<Duration>>> = Arc::default();
    let dropped: Arc<Mutex<Option<Duration>>> = Arc::default();
    let (clock, at, end) = (world.clock.clone(), Arc::clone(&stopped), Arc::clone(&dropped));
    let worker = world
        .worker(move |context: RunContext| {
            let (clock, at) = (clock.clone(), Arc::clone(&at));
            let end = on_drop(&clock, &end);
            async move {
                let _end = end;
                context.stop.cancelled().await;
                at.lock().unwrap().get_or_insert(clock.uptime());
                if heeds { Outcome::Stopped } else { pending().await }
            }
        })
        .await;
    let mut spec = JobSpec::shell("x");
    spec.exclusive = exclusive;
    let id = world.jobs.submit(spec).await.unwrap().id;
    settle().await;
    // A beat is due within this, and then no more.
    world.pass(Duration::from_secs(10)).await;
    let beats = world.service.calls(WorkerCall::Heartbeat);
    assert!(beats > 0);
    world.service.set_down(true);
    let down = world.clock.uptime();
    world.pass(Duration::from_secs(60)).await;
    let since = |at: &Mutex<Option<Duration>>| at.lock().unwrap().map(|at| at.saturating_sub(down));
    let answer = (since(&stopped), since(&dropped));
    drop(worker);
    (answer.0, answer.1, world, id)
}

#[tokio::test]
async fn out_of_touch_an_exclusive_job_is_stopped_and_dead_before_its_lease_is_over() {
    let (stopped, dropped, ..) = out_of_touch(true, false).await;
    // Counted from the last beat, which was up to 10 s before contact was lost; the stop comes 48 s after it, the kill 58 s.
    let (stopped, dropped) = (stopped.unwrap(), dropped.unwrap());
    assert!((Duration::from_secs(37)..=Duration::from_secs(50)).contains(&stopped), "{stopped:?}");
    assert!(dropped > stopped && dropped < Duration::from_secs(60), "{dropped:?}");
}

#[tokio::test]
async fn out_of_touch_any_other_job_is_left_alone() {
    assert_eq!(out_of_touch(false, true).await.0, None);
}

#[tokio::test]
async fn what_is_cancelled_is_stopped_and_reported() {
    let world = World::new().await;
    let _worker = world
        .worker(async |context: RunContext| {
            context.stop.cancelled().await;
            if line(&context) == "done" { DONE } else { Outcome::Stopped }
        })
        .await;
    let (stopped, done) = (world.submit("x").await, world.submit("done").await);
    settle().await;
    for id in [stopped, done] {
        assert_eq!(world.jobs.cancel(id).await, Ok(Status::Cancelling));
    }
    world.until(stopped, Status::Cancelled).await;
    world.until(done, Status::Completed).await;
}

#[tokio::test]
async fn what_is_lost_is_stopped_and_not_reported_and_a_removed_worker_ends() {
    let world = World::new().await;
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stopped);
    let mut worker = world
        .worker(move |context: RunContext| {
            let flag = Arc::clone(&flag);
            async move {
                context.stop.cancelled().await;
                flag.store(true, Ordering::SeqCst);
                DONE
            }
        })
        .await;
    let id = world.submit("x").await;
    settle().await;
    world.jobs.remove_worker(&WorkerId::local()).await.unwrap();
    world.pass(Duration::from_secs(60)).await;
    assert!(stopped.load(Ordering::SeqCst));
    assert_eq!(world.service.calls(WorkerCall::Finish), 0);
    let ended = worker.wait().await;
    assert!(ended.removed && ended.unreported.is_empty(), "{ended:?}");
    assert_ne!(world.view(id).await.status, Status::Completed);
}

#[tokio::test]
async fn a_worker_that_is_not_known_any_more_registers_again() {
    let world = World::new().await;
    let worker = world.worker(async |_| DONE).await;
    let new = World::new().await;
    // The same network, with another coordinator behind it that has never heard of the worker.
    world.service.replace(new.coordinator.as_worker(WorkerId::local()));
    let id = new.submit("x").await;
    for _ in 0..60 {
        new.pass(Duration::from_secs(1)).await;
        world.pass(Duration::from_secs(1)).await;
    }
    assert_eq!(new.view(id).await.status, Status::Completed);
    assert_eq!(world.service.calls(WorkerCall::Register), 2);
    assert_eq!(worker.status().completed, 1);
}
