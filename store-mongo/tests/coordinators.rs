//! Several coordinators over one database: each works as if it were alone, and as fast.
//!
//! Where a coordinator's clock stands still, no sweep of its ever comes: whatever it finds out, it was told.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, JobServiceExt, LeaseRequest, LeasedJob, OutputBatch, OutputEvent, OutputPieces,
    OutputQuery, Registration, Submission, Usage, WatchQuery, WorkerService, WorkerStatus,
};
use cmdexec_core::store::{Chunk, Listed};
use cmdexec_core::time::{Clock, ManualClock, Sleep, SystemClock, Timestamp};
use cmdexec_store_mongo::MongoStore;
use futures_util::StreamExt;
use support::Place;

/// The machine's clock, as somebody has set it who was wrong.
#[derive(Debug)]
struct Skewed(i64);

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemClock.now().as_millis() + self.0)
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        SystemClock.sleep(duration)
    }
}

async fn coordinator(place: &Place, clock: impl Clock, lease: Duration) -> Coordinator {
    let store = MongoStore::options().database(place.name()).open(place.address()).await.unwrap();
    let builder = Coordinator::builder(store).clock(Arc::new(clock));
    builder.with_options(|options| options.lease = lease).build().await.unwrap()
}

/// One that learns only what it is told, and believes that it is 2026-01-01.
async fn told(place: &Place) -> Coordinator {
    coordinator(place, ManualClock::default(), Duration::from_secs(60)).await
}

struct Hand {
    id: WorkerId,
    service: Arc<dyn WorkerService>,
}

impl Hand {
    async fn at(coordinator: &Coordinator, name: &str) -> Self {
        let id: WorkerId = name.parse().unwrap();
        let service = coordinator.as_worker(id.clone());
        let registration = Registration { worker: Some(id.clone()), ..Registration::new("here", 4, 4_096) };
        service.register(registration).await.unwrap();
        Self { id, service }
    }

    async fn lease(&self, max: usize) -> Vec<LeasedJob> {
        let request = LeaseRequest { max, wait: Duration::from_secs(60) };
        // A minute is for ever here.
        let leased = tokio::time::timeout(Duration::from_secs(60), self.service.lease(&self.id, request));
        leased.await.expect("nobody told the coordinator").unwrap()
    }

    async fn beat(&self, held: &[&LeasedJob]) -> Vec<cmdexec_core::id::JobId> {
        let held = held.iter().map(|leased| Listed { job: leased.job, token: leased.token }).collect();
        let usage = Usage { status: WorkerStatus::Busy, cpu: 1.0, ram: 1.0 };
        self.service.heartbeat(&self.id, Heartbeat { usage, held: Some(held) }).await.unwrap().lost
    }

    async fn write(&self, leased: &LeasedJob, seq: u64, text: &str) -> Result<bool, Error> {
        let chunk = Chunk { seq, stream: Stream::Stdout, bytes: Bytes::copy_from_slice(text.as_bytes()) };
        let pieces = OutputPieces::Numbered(vec![chunk]);
        let batch = OutputBatch { job: leased.job, token: Some(leased.token), pieces };
        self.service.append_output(&self.id, vec![batch]).await?.remove(0).map(|ack| ack.cancel)
    }

    async fn finish(&self, leased: &[LeasedJob]) -> Vec<Result<(), Error>> {
        let done = leased.iter().map(|leased| FinishedAttempt::new(leased, Outcome::Exited { code: 0 })).collect();
        self.service.finish(&self.id, done).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_submitted_at_one_reaches_the_worker_that_waits_at_another() {
    let place = Place::new();
    let (here, there) = (told(&place).await, told(&place).await);
    let hand = Hand::at(&there, "w").await;
    for _ in 0..20 {
        let waiting = hand.lease(1);
        let submitting = async {
            // The worker has to be waiting.
            tokio::time::sleep(Duration::from_millis(5)).await;
            here.jobs().submit(JobSpec::shell("true")).await.unwrap()
        };
        let (leased, submitted) = tokio::join!(waiting, submitting);
        assert_eq!(leased[0].job, submitted.id);
        assert_eq!(hand.finish(&leased).await, [Ok(())]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_watchers_and_cancels_work_across() {
    let place = Place::new();
    let (here, there) = (told(&place).await, told(&place).await);
    let hand = Hand::at(&there, "w").await;
    let jobs = here.jobs();
    let mut all = jobs.watch(WatchQuery::All).await.unwrap();
    let job = jobs.submit(JobSpec::shell("true")).await.unwrap().id;
    let mut one = jobs.watch(WatchQuery::Job(job)).await.unwrap();
    let leased = hand.lease(1).await.remove(0);
    let query = OutputQuery { follow: true, ..OutputQuery::default() };
    let mut output = jobs.output(job, query).await.unwrap();
    for (seq, text) in (0..).zip(["one", "two", "three"]) {
        assert_eq!(hand.write(&leased, seq, text).await, Ok(false));
        let event = output.next().await.unwrap().unwrap();
        assert!(matches!(event, OutputEvent::Chunk { bytes, .. } if bytes == text), "{text}");
    }
    assert_eq!(jobs.cancel(job).await, Ok(Status::Cancelling));
    let mut seq = 3;
    // With the very next words, once the other coordinator was told.
    while !hand.write(&leased, seq, ".").await.unwrap() {
        seq += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(hand.finish(std::slice::from_ref(&leased)).await, [Ok(())]);
    let mut seen = Vec::new();
    while let Some(update) = one.next().await {
        seen.push(update.unwrap().status);
    }
    assert_eq!(seen.last(), Some(&Status::Completed));
    while let Some(event) = output.next().await {
        if let OutputEvent::End { status } = event.unwrap() {
            assert_eq!(status, Status::Completed);
        }
    }
    let mut status = Status::Queued;
    while !status.is_finished() {
        status = all.next().await.unwrap().unwrap().status;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_is_claimed_once_however_many_claim() {
    const JOBS: usize = 2_000;
    let place = Place::new();
    let mut coordinators = Vec::new();
    for _ in 0..4 {
        coordinators.push(coordinator(&place, SystemClock, Duration::from_secs(60)).await);
    }
    for coordinator in &coordinators {
        let specs = vec![JobSpec::shell("true"); JOBS / 4];
        coordinator.jobs().submit_batch(Submission { specs, idempotency_key: None }).await.unwrap();
    }
    let working = coordinators.iter().enumerate().map(|(n, coordinator)| async move {
        let hand = Hand::at(coordinator, &format!("w{n}")).await;
        let mut mine = Vec::new();
        loop {
            let request = LeaseRequest { max: 50, wait: Duration::from_secs(3) };
            let leased = hand.service.lease(&hand.id, request).await.unwrap();
            if leased.is_empty() {
                return mine;
            }
            assert!(hand.finish(&leased).await.into_iter().all(|answer| answer.is_ok()));
            mine.extend(leased.iter().map(|leased| leased.job));
        }
    });
    let parts = futures_util::future::join_all(working).await;
    let all: HashSet<_> = parts.iter().flatten().copied().collect();
    assert_eq!((parts.iter().map(Vec::len).sum::<usize>(), all.len()), (JOBS, JOBS));
    assert!(parts.iter().all(|part| !part.is_empty()), "each has its part");
    let stats = coordinators[0].jobs().stats().await.unwrap();
    assert_eq!(stats.jobs.get(&Status::Completed), Some(&(JOBS as u64)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinators_whose_clocks_are_wrong_agree() {
    let place = Place::new();
    let hour = 3_600_000;
    let lease = Duration::from_secs(1);
    let early = coordinator(&place, Skewed(-hour), lease).await;
    let late = coordinator(&place, Skewed(hour), lease).await;
    let (loyal, silent) = (Hand::at(&early, "loyal").await, Hand::at(&late, "silent").await);
    let first = early.jobs().submit(JobSpec::shell("true")).await.unwrap();
    let kept = loyal.lease(1).await;
    let second = late.jobs().submit(JobSpec::shell("true")).await.unwrap();
    let lost = silent.lease(1).await;
    assert_eq!((kept[0].job, lost[0].job), (first.id, second.id));
    assert!(second.created.since(first.created) < Duration::from_secs(60) && first.created <= second.created);
    // The one that goes on beating keeps its job; the other's comes back, and not before its time. Both sweep.
    let begun = SystemClock.uptime();
    let again = loop {
        assert!(loyal.beat(&[&kept[0]]).await.is_empty(), "a lease is over that was renewed");
        let request = LeaseRequest { max: 1, wait: Duration::from_millis(100) };
        if let Some(leased) = loyal.service.lease(&loyal.id, request).await.unwrap().pop() {
            break leased;
        }
        assert!(SystemClock.uptime().saturating_sub(begun) < Duration::from_secs(60), "the job never comes back");
    };
    assert!(SystemClock.uptime().saturating_sub(begun) >= Duration::from_millis(800), "too early");
    assert_eq!((again.job, again.attempt), (second.id, 2));
    assert_eq!(loyal.finish(&[kept[0].clone(), again]).await, [Ok(()), Ok(())]);
    assert_eq!(silent.finish(&lost).await, [Err(Error::LeaseLost)]);
    // What is due by the server's clock, is due.
    let mut soon = JobSpec::shell("true");
    soon.run_at = Some(second.created.after(Duration::from_secs(2)));
    let scheduled = early.jobs().submit(soon).await.unwrap();
    assert_eq!(loyal.lease(1).await[0].job, scheduled.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_coordinator_s_workers_go_on_at_another() {
    let place = Place::new();
    let (dying, other) = (told(&place).await, told(&place).await);
    let hand = Hand::at(&dying, "w").await;
    let job = dying.jobs().submit(JobSpec::shell("true")).await.unwrap().id;
    let leased = hand.lease(1).await;
    hand.write(&leased[0], 0, "before").await.unwrap();
    drop(dying);
    // As it was: not registered again.
    let moved = Hand { id: hand.id.clone(), service: other.as_worker(hand.id.clone()) };
    assert!(moved.beat(&[&leased[0]]).await.is_empty());
    moved.write(&leased[0], 1, " and after").await.unwrap();
    let next = other.jobs().submit(JobSpec::shell("true")).await.unwrap().id;
    assert_eq!(moved.lease(1).await[0].job, next);
    assert_eq!(moved.finish(&leased).await, [Ok(())]);
    let view = other.jobs().job(job).await.unwrap();
    assert_eq!((view.status, view.attempts.len(), &view.stdout[..]), (Status::Completed, 1, &b"before and after"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_of_one_attempt_may_come_to_two_at_once() {
    const PIECES: u64 = 200;
    let place = Place::new();
    let (here, there) = (told(&place).await, told(&place).await);
    let hand = Hand::at(&here, "w").await;
    let job = here.jobs().submit(JobSpec::shell("true")).await.unwrap().id;
    let leased = hand.lease(1).await.remove(0);
    let other = Hand { id: hand.id.clone(), service: there.as_worker(hand.id.clone()) };
    let text = |seq: u64| format!("{seq:04}").repeat(300);
    // Each in its order, every tenth to both, and both at the same time.
    let half = |hand: &Hand, odd: u64| {
        let (hand, leased) = (Hand { id: hand.id.clone(), service: Arc::clone(&hand.service) }, leased.clone());
        async move {
            for seq in (0..PIECES).filter(|seq| seq % 2 == odd || seq.is_multiple_of(10)) {
                hand.write(&leased, seq, &format!("{seq:04}").repeat(300)).await.unwrap();
            }
        }
    };
    tokio::join!(half(&hand, 0), half(&other, 1));
    assert_eq!(hand.finish(&[leased]).await, [Ok(())]);
    let events: Vec<_> = there.jobs().output(job, OutputQuery::default()).await.unwrap().collect().await;
    let mut read = String::new();
    for event in events {
        match event.unwrap() {
            OutputEvent::Chunk { bytes, .. } => read.push_str(std::str::from_utf8(&bytes).unwrap()),
            OutputEvent::End { .. } => {}
            event => panic!("{event:?}"),
        }
    }
    assert!(read == (0..PIECES).map(text).collect::<String>(), "{} bytes", read.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_that_is_repeated_elsewhere_is_the_same() {
    let place = Place::new();
    let (here, there) = (told(&place).await, told(&place).await);
    for jobs in [1, 3] {
        let submission = |n: usize| {
            let at = if n.is_multiple_of(2) { &here } else { &there };
            let specs = vec![JobSpec::shell("true"); jobs];
            let key = Some(format!("key-{jobs}"));
            let jobs = at.jobs();
            async move { jobs.submit_batch(Submission { specs, idempotency_key: key }).await.unwrap() }
        };
        let answers = futures_util::future::join_all((0..8).map(submission)).await;
        let ids: HashSet<_> = answers.iter().flatten().map(|submitted| submitted.id).collect();
        assert_eq!(ids.len(), jobs);
        assert_eq!(answers.iter().filter(|answer| !answer[0].repeated).count(), 1);
    }
    let stats = there.jobs().stats().await.unwrap();
    assert_eq!(stats.jobs.get(&Status::Queued), Some(&4));
}
