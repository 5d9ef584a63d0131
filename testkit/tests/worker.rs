//! The worker runtime against the real coordinator, under a clock that the tests move, with a network that fails as told.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::{self, Capabilities, Executor, FunctionExecutor, Kind, RunContext, Stream};
use cmdexec_core::files::Files;
use cmdexec_core::files::{ByteStream, Download, FileId, GetRange};
use cmdexec_core::id::{JobId, LeaseToken, WorkerId};
use cmdexec_core::job::{Command, JobSpec, Outcome, Reason, Status};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, HeartbeatReply, JobService, JobServiceExt, JobView, LeaseRequest, LeasedJob, OutputAck,
    OutputBatch, OutputEvent, OutputPieces, OutputQuery, Registered, Registration, Submission, WorkerService,
    WorkerStatus,
};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::time::{Clock, ManualClock};
use cmdexec_core::worker::{Builder, Ended, Worker, WorkerHandle};
use cmdexec_testkit::service::{FaultyWorkerService, WorkerCall};
use cmdexec_testkit::store::{Fault, Gate};
use tokio::sync::Notify;

const DONE: Outcome = Outcome::Exited { code: 0 };

struct World {
    clock: ManualClock,
    coordinator: Coordinator,
    jobs: Arc<dyn JobService>,
    service: FaultyWorkerService,
}

impl World {
    async fn new() -> Self {
        let clock = ManualClock::default();
        let store = MemoryStore::with_clock(Arc::new(clock.clone()));
        let builder = Coordinator::builder(store).clock(Arc::new(clock.clone())).files(Files::in_memory());
        let coordinator = builder.seed(1).build().await.unwrap();
        let service = FaultyWorkerService::new(coordinator.as_worker(WorkerId::local()));
        Self { clock, jobs: coordinator.jobs(), coordinator, service }
    }

    fn builder<F, Fut>(&self, function: F) -> Builder
    where
        F: Fn(RunContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let executor = FunctionExecutor::new(function).with_clock(Arc::clone(&clock));
        Worker::builder(Arc::new(self.service.clone()), executor).slots(4).clock(clock).seed(1)
    }

    async fn worker<F, Fut>(&self, function: F) -> WorkerHandle
    where
        F: Fn(RunContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.builder(function).start().await.unwrap()
    }

    async fn submit(&self, line: &str) -> JobId {
        self.jobs.submit(JobSpec::shell(line)).await.unwrap().id
    }

    async fn view(&self, id: JobId) -> JobView {
        self.jobs.job(id).await.unwrap()
    }

    /// Lets time pass in small steps, so that everything that waits for it comes along.
    async fn pass(&self, time: Duration) {
        let step = Duration::from_millis(250);
        let mut left = time;
        while !left.is_zero() {
            let step = step.min(left);
            self.clock.advance(step);
            left -= step;
            settle().await;
        }
    }

    /// Lets time pass until a job is there.
    async fn until(&self, id: JobId, status: Status) -> JobView {
        for _ in 0..2_000 {
            let view = self.view(id).await;
            if view.status == status {
                return view;
            }
            self.pass(Duration::from_millis(100)).await;
        }
        panic!("{id} is {} and not {status}", self.view(id).await.status)
    }
}

/// Lets every task go as far as it gets without the clock.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Says when it is dropped.
struct OnDrop(ManualClock, Arc<Mutex<Option<Duration>>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        *self.1.lock().unwrap() = Some(self.0.uptime());
    }
}

fn on_drop(clock: &ManualClock, at: &Arc<Mutex<Option<Duration>>>) -> OnDrop {
    OnDrop(clock.clone(), Arc::clone(at))
}

fn line(context: &RunContext) -> String {
    match &context.spec.command {
        Command::Shell(line) => line.clone(),
        other => panic!("{other:?}"),
    }
}

async fn say(context: &RunContext, text: impl Into<Bytes>) {
    context.output.write(Stream::Stdout, text.into()).await;
}

#[tokio::test]
async fn a_job_runs_and_its_output_and_result_arrive() {
    let world = World::new().await;
    let worker = world
        .worker(async |context: RunContext| {
            say(&context, "hello\n").await;
            Outcome::Exited { code: 3 }
        })
        .await;
    let id = world.submit("x").await;
    let done = world.until(id, Status::Failed).await;
    assert_eq!((done.exit_code, &*done.stdout), (Some(3), &b"hello\n"[..]));
    assert_eq!(world.service.calls(WorkerCall::AppendOutput), 0, "a little output comes with the report");
    assert_eq!(worker.status().failed, 1);
    assert_eq!(worker.shutdown().await, Ended::default());
}

#[tokio::test]
async fn output_comes_while_the_job_runs_and_several_jobs_share_a_call() {
    let world = World::new().await;
    let worker = world
        .worker(async |context: RunContext| {
            say(&context, line(&context)).await;
            say(&context, "!").await;
            context.stop.cancelled().await;
            Outcome::Stopped
        })
        .await;
    let (one, two) = (world.submit("one").await, world.submit("two").await);
    settle().await;
    assert_eq!(world.view(one).await.stdout.len(), 0);
    world.pass(Duration::from_millis(100)).await;
    assert_eq!((&*world.view(one).await.stdout, &*world.view(two).await.stdout), (&b"one!"[..], &b"two!"[..]));
    assert_eq!(world.service.calls(WorkerCall::AppendOutput), 1);
    drop(worker);
}

#[tokio::test]
async fn much_output_arrives_whole_and_before_the_result_whatever_the_network_does() {
    let world = World::new().await;
    let text: Bytes = (0..5 * 1024 * 1024).map(|i| b'a' + u8::try_from(i % 23).unwrap()).collect::<Vec<_>>().into();
    let written = text.clone();
    let _worker = world
        .worker(move |context: RunContext| {
            let written = written.clone();
            async move {
                for chunk in written.chunks(50_000) {
                    say(&context, Bytes::copy_from_slice(chunk)).await;
                }
                DONE
            }
        })
        .await;
    for fault in [Fault::Refuse, Fault::LoseReply, Fault::Refuse, Fault::LoseReply] {
        world.service.inject(WorkerCall::AppendOutput, fault);
    }
    world.service.inject(WorkerCall::Finish, Fault::LoseReply);
    let id = world.submit("x").await;
    world.until(id, Status::Completed).await;
    let mut events = world.jobs.output(id, OutputQuery::default()).await.unwrap();
    let mut got = Vec::new();
    while let Some(event) = futures_util::StreamExt::next(&mut events).await {
        if let OutputEvent::Chunk { bytes, .. } = event.unwrap() {
            got.extend_from_slice(&bytes);
        }
    }
    assert!(got == text, "{} bytes instead of {}", got.len(), text.len());
}

#[tokio::test]
async fn a_line_after_a_silence_goes_at_once_and_more_of_them_share_calls() {
    let world = World::new().await;
    let more = Arc::new(Notify::new());
    let asked = Arc::clone(&more);
    let _worker = world
        .worker(move |context: RunContext| {
            let asked = Arc::clone(&asked);
            async move {
                loop {
                    say(&context, "part").await;
                    asked.notified().await;
                }
            }
        })
        .await;
    let id = world.submit("x").await;
    settle().await;
    let seen = async || world.view(id).await.stdout.len() / 4;
    assert_eq!(seen().await, 0);
    world.pass(Duration::from_millis(5)).await;
    assert_eq!(seen().await, 1);
    // A hundredth of a second later there is more, which waits until a tenth has passed since that call.
    world.pass(Duration::from_millis(10)).await;
    more.notify_one();
    settle().await;
    world.pass(Duration::from_millis(89)).await;
    assert_eq!(seen().await, 1);
    world.pass(Duration::from_millis(1)).await;
    assert_eq!(seen().await, 2);
    world.pass(Duration::from_secs(1)).await;
    more.notify_one();
    settle().await;
    world.pass(Duration::from_millis(5)).await;
    assert_eq!((seen().await, world.service.calls(WorkerCall::AppendOutput)), (3, 3));
}

#[tokio::test]
async fn a_job_that_writes_much_holds_up_no_other() {
    let world = World::new().await;
    let _worker = world
        .worker(async |context: RunContext| {
            if line(&context) == "yes" {
                for _ in 0..64 {
                    say(&context, vec![b'y'; 65_536]).await;
                }
            } else {
                say(&context, "hello").await;
            }
            context.stop.cancelled().await;
            Outcome::Stopped
        })
        .await;
    // The call with the first output does not return.
    let gate = Gate::closed();
    world.service.inject(WorkerCall::AppendOutput, Fault::HoldBefore(gate.clone()));
    let yes = world.submit("yes").await;
    gate.reached().await;
    let quiet = world.submit("quiet").await;
    for _ in 0..40 {
        world.pass(Duration::from_millis(5)).await;
    }
    assert_eq!(&*world.view(quiet).await.stdout, b"hello");
    assert_eq!(world.view(yes).await.stdout.len(), 0);
    // Each gets its turn within a call, too: what was held arrives whole and in order.
    gate.open();
    for _ in 0..200 {
        world.pass(Duration::from_millis(5)).await;
    }
    let events: Vec<_> =
        futures_util::StreamExt::collect(world.jobs.output(yes, OutputQuery::default()).await.unwrap()).await;
    let bytes = events.into_iter().map(|event| match event.unwrap() {
        OutputEvent::Chunk { bytes, .. } => bytes.len(),
        _ => 0,
    });
    assert_eq!(bytes.sum::<usize>(), 64 * 65_536);
}

/// Who is told of the end and then reads has everything.
#[tokio::test]
async fn the_last_bytes_are_there_when_the_end_is() {
    for outcome in
        [Outcome::TimedOut, Outcome::OutOfMemory, Outcome::Signaled { signal: 9 }, Outcome::Exited { code: 1 }]
    {
        let world = World::new().await;
        let _worker = world
            .worker(move |context: RunContext| {
                let outcome = outcome.clone();
                async move {
                    say(&context, vec![b'x'; 300_000]).await;
                    say(&context, "last words").await;
                    outcome
                }
            })
            .await;
        let id = world.submit("x").await;
        let mut updates = world.jobs.watch(cmdexec_core::service::WatchQuery::Job(id)).await.unwrap();
        loop {
            let next = futures_util::StreamExt::next(&mut updates);
            let update = tokio::select! {
                biased;
                update = next => update.unwrap().unwrap(),
                () = world.pass(Duration::from_millis(50)) => continue,
            };
            if update.status.is_finished() {
                break;
            }
        }
        assert!(world.view(id).await.stdout.ends_with(b"last words"));
    }
}

#[tokio::test]
async fn a_writer_is_slowed_down_while_nobody_takes_its_output() {
    let world = World::new().await;
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let _worker = world
        .worker(move |context: RunContext| {
            let count = Arc::clone(&count);
            async move {
                for _ in 0..100 {
                    say(&context, vec![b'x'; 65_536]).await;
                    count.fetch_add(65_536, Ordering::SeqCst);
                }
                DONE
            }
        })
        .await;
    let id = world.submit("x").await;
    for _ in 0..10 {
        world.service.inject(WorkerCall::AppendOutput, Fault::Refuse);
    }
    world.pass(Duration::from_secs(20)).await;
    let held = written.load(Ordering::SeqCst);
    assert!((65_536..3 * 1024 * 1024).contains(&held), "{held} bytes are held");
    assert_eq!(world.view(id).await.status, Status::Running);
    world.until(id, Status::Completed).await;
}

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
    let executor = Panics(Capabilities { kind: Kind::Process, limits: [].into() });
    let builder = Worker::builder(Arc::new(world.service.clone()), executor).slots(1);
    let _worker = builder.clock(Arc::new(world.clock.clone())).seed(1).start().await.unwrap();
    let mut spec = JobSpec::shell("x");
    spec.max_attempts = 2;
    let id = world.jobs.submit(spec).await.unwrap().id;
    let failed = world.until(id, Status::Failed).await;
    assert_eq!((failed.reason, failed.attempts.len()), (Some(Reason::ExecutorError), 2));
    assert!(failed.error.unwrap().contains("on purpose"));
}

fn zip() -> Vec<u8> {
    // A stored file `a` with the byte `x`, made by hand so that this crate needs no library for it.
    let crc: u32 = 0x8cdc_1683;
    let mut zip = Vec::new();
    let head = |zip: &mut Vec<u8>| {
        zip.extend([20, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        zip.extend(crc.to_le_bytes());
        zip.extend([1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    };
    zip.extend(b"PK\x03\x04");
    head(&mut zip);
    zip.extend(b"ax");
    let directory = u32::try_from(zip.len()).unwrap();
    zip.extend(b"PK\x01\x02\x14\x00");
    head(&mut zip);
    zip.extend([0; 14]);
    zip.extend(b"a");
    let size = u32::try_from(zip.len()).unwrap() - directory;
    zip.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    zip.extend(size.to_le_bytes());
    zip.extend(directory.to_le_bytes());
    zip.extend([0, 0]);
    zip
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
    let mut spec = JobSpec::shell("x");
    spec.input = Some(world.jobs.upload_bytes(None, zip().into()).await.unwrap().id);
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

#[tokio::test]
async fn wrong_options_are_all_named() {
    let world = World::new().await;
    let error = world.builder(async |_| DONE).slots(0).memory_mb(0).labels(["a b"]).start().await.unwrap_err();
    let said = error.to_string();
    assert!(["slots", "memory_mb", "labels"].iter().all(|field| said.contains(field)), "{said}");
}
