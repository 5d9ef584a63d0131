//! Jobs and what belongs to them, for tests: plain, and different from one another where it matters.

#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a test that makes nonsense fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::{JobId, LeaseToken, Owner, WorkerId};
use cmdexec_core::job::{Attempt, Class, Details, Job, JobSpec, Lease, Life, Outcome, Reason, State, Timer, Wait};
use cmdexec_core::store::{Append, Change, Chunk, Insert, Key};
use cmdexec_core::time::Timestamp;

/// When the [`ManualClock`](cmdexec_core::time::ManualClock) starts: 2026-01-01T00:00:00Z.
pub const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// Some seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A moment less than some seconds.
pub const fn almost(n: u64) -> Duration {
    Duration::from_millis(n * 1_000 - 1)
}

/// The job id with this number; a greater number is a greater id.
pub fn id(n: u32) -> JobId {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&[1, 2, 3, 4, 5, 6]);
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    JobId::from_bytes(bytes)
}

/// The owner of this name.
pub fn owner(name: &str) -> Owner {
    name.parse().expect("a name of visible ASCII")
}

/// The worker of this name.
pub fn worker(name: &str) -> WorkerId {
    name.parse().expect("a name of visible ASCII")
}

/// A queued job with this number.
pub fn job(n: u32) -> Job {
    job_of(n, JobSpec::shell(format!("echo {n}")))
}

/// A queued job with this number and spec.
pub fn job_of(n: u32, spec: JobSpec) -> Job {
    Job {
        id: id(n),
        owner: Owner::local(),
        created: START,
        class: Class::of(&spec),
        spec: spec.into(),
        life: queued(),
        version: 0,
    }
}

/// A queued job with this number and priority.
pub fn job_with_priority(n: u32, priority: i8) -> Job {
    let mut spec = JobSpec::shell("true");
    spec.priority = priority;
    job_of(n, spec)
}

/// The life of a queued job.
pub fn queued() -> Life {
    Life::starting(State::Queued { since: START })
}

/// The life of a scheduled job.
pub fn scheduled() -> Life {
    Life::starting(State::Scheduled { wait: Wait::Time { at: START } })
}

/// A worker's hold on an attempt.
pub fn lease(attempt: u32, holder: &str) -> Lease {
    Lease { attempt, worker: worker(holder), token: LeaseToken::from_bits(u128::from(attempt) << 64 | 7), since: START }
}

/// The life of a job that this worker runs.
pub fn running(holder: &str) -> Life {
    Life { claimed: 1, ..Life::starting(State::Running { lease: lease(1, holder) }) }
}

/// The life of a job that this worker is to stop.
pub fn cancelling(holder: &str) -> Life {
    Life { claimed: 1, ..Life::starting(State::Cancelling { lease: lease(1, holder), since: START }) }
}

/// The life of a job that this worker completed at this time.
pub fn completed(holder: &str, at: Timestamp) -> Life {
    let outcome = Outcome::Exited { code: 0 };
    let attempt = Attempt { lease: lease(1, holder), ended: at, outcome, details: Details::lasting(secs(1)) };
    Life { claimed: 1, attempts: vec![attempt], ..Life::starting(State::Completed { at }) }
}

/// The life of a job that failed at this time without ever having run.
pub fn failed(at: Timestamp) -> Life {
    Life::starting(State::Failed { at, reason: Reason::WorkerLost, error: "gone".to_owned() })
}

/// What the clock is watched for on behalf of a leased job.
pub fn lease_timer(floor: u64, hard_end: u64) -> Timer {
    Timer::Lease { floor: secs(floor), hard_end: secs(hard_end) }
}

/// Jobs without timers and without a key.
pub fn insert(jobs: impl IntoIterator<Item = Job>) -> Insert {
    Insert { jobs: jobs.into_iter().map(|job| (job, Timer::None)).collect(), key: None }
}

/// An idempotency key that is known for a minute.
pub fn key(name: &str) -> Key {
    Key { owner: Owner::local(), key: name.to_owned(), fingerprint: [7; 32], ttl: secs(60) }
}

/// A change without a timer.
pub fn change(n: u32, version: u64, life: Life) -> Change {
    Change { id: id(n), version, life, timer: Timer::None }
}

/// A piece of standard output.
pub fn chunk(seq: u64, text: &str) -> Chunk {
    Chunk { seq, stream: Stream::Stdout, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

/// An addition to an attempt's output that does nothing else.
pub fn append(n: u32, attempt: u32, chunks: impl IntoIterator<Item = Chunk>) -> Append {
    let chunks = chunks.into_iter().collect();
    Append { job: id(n), attempt, replace: false, chunks, trim: None, dropped: 0, at: None }
}
