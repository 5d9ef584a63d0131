//! Output: when it goes, that it arrives whole, and what becomes of a writer that is too fast.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::executor::RunContext;
use cmdexec_core::job::{Outcome, Status};
use cmdexec_core::service::{OutputEvent, OutputQuery, WatchQuery};
use cmdexec_core::worker::Ended;
use cmdexec_testkit::service::WorkerCall;
use cmdexec_testkit::store::{Fault, Gate};
use tokio::sync::Notify;

use crate::world::{DONE, World, line, say, settle};

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
async fn the_first_that_a_job_writes_goes_at_once_and_what_follows_a_call_closely_shares_the_next() {
    let world = World::new().await;
    let worker = world
        .worker(async |context: RunContext| {
            say(&context, line(&context)).await;
            say(&context, "!").await;
            context.stop.cancelled().await;
            Outcome::Stopped
        })
        .await;
    let one = world.submit("one").await;
    settle().await;
    assert_eq!(&*world.view(one).await.stdout, b"one!", "no time has passed");
    let (two, three) = (world.submit("two").await, world.submit("three").await);
    settle().await;
    assert_eq!(world.view(two).await.stdout.len(), 0);
    world.pass(Duration::from_millis(5)).await;
    assert_eq!((&*world.view(two).await.stdout, &*world.view(three).await.stdout), (&b"two!"[..], &b"three!"[..]));
    assert_eq!(world.service.calls(WorkerCall::AppendOutput), 2);
    // A new job's first is not held up by what others have written since.
    world.pass(Duration::from_millis(20)).await;
    let four = world.submit("four").await;
    settle().await;
    assert_eq!(&*world.view(four).await.stdout, b"four!");
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
        let mut updates = world.jobs.watch(WatchQuery::Job(id)).await.unwrap();
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
                for _ in 0..200 {
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
    assert!((65_536..7 * 1024 * 1024).contains(&held), "{held} bytes are held");
    assert_eq!(world.view(id).await.status, Status::Running);
    world.until(id, Status::Completed).await;
}
