//! What may follow what in a job's life. Synchronous, reads no clock, does no I/O, and is the only place that decides it.
//!
//! The complete table of state × event stands in `docs/design/job-life.md`; `tests/life_table.rs` walks it.

use std::time::Duration;

use super::{Attempt, Details, Job, JobSpec, KEPT_FREE_ATTEMPTS, Lease, Life, Outcome, Reason, State, Wait};
use crate::executor::GRACE;
use crate::id::{JobId, LeaseToken, WorkerId};
use crate::time::Timestamp;

/// How long files and images may take before the command starts.
pub const SETUP_BOUND: Duration = Duration::from_secs(600);

/// What a worker needs beyond the grace period to kill, drain and report. Part of an attempt's hard end.
pub const REPORT_MARGIN: Duration = Duration::from_secs(20);

/// How long collecting and uploading a job's outputs may take after its end. Part of the hard end of a job that names some.
pub const COLLECT_BOUND: Duration = Duration::from_secs(600);

/// How long after its claim an attempt's lease is over, whatever renews it.
pub fn hard_end(spec: &JobSpec) -> Duration {
    let collect = if spec.outputs.is_empty() { Duration::ZERO } else { COLLECT_BOUND };
    SETUP_BOUND + spec.timeout + GRACE + collect + REPORT_MARGIN
}

/// Something that happens to a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Its time has come: the submitter's, or the end of a retry delay.
    Due,
    /// A worker is given the job.
    Claim {
        /// Who.
        worker: WorkerId,
        /// What will fence the attempt.
        token: LeaseToken,
        /// How long a lease lasts from its start or its session's last renewal.
        lease: Duration,
    },
    /// A worker says how an attempt ended.
    Report(Report),
    /// An attempt is over without a report: its lease ran out, or its worker dropped it.
    Lost {
        /// Which attempt.
        token: LeaseToken,
    },
    /// An attempt never began: its worker never got it or had no room. Costs the job nothing.
    Unstarted {
        /// Which attempt.
        token: LeaseToken,
    },
    /// Somebody asks for the job to end.
    Cancel,
}

/// What a worker says of the end of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Who says so.
    pub worker: WorkerId,
    /// Which attempt. Workers of earlier protocol versions send none: then the report is about the worker's
    /// current lease of the job or, for a repeat, the last.
    pub token: Option<LeaseToken>,
    /// How it ended.
    pub outcome: Outcome,
    /// What else there is to say of it.
    pub details: Details,
}

/// What follows from an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Applied {
    /// The job's life goes on like this; to be written if the job's version is still the one that was judged.
    Changed {
        /// The new life.
        life: Life,
        /// What the store is to watch the clock for.
        timer: Timer,
        /// What to do once it is written.
        effect: Effect,
    },
    /// Nothing changes, and whoever sent the event may take it as done: a report that had been accepted before,
    /// a cancellation of what is being cancelled.
    Unchanged,
}

/// What the store watches the clock for on a job's behalf. Durations count from the commit, by the store's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Nothing.
    None,
    /// As before this write.
    Keep,
    /// The job is due at a time that its submitter named.
    DueAt(Timestamp),
    /// The job is due this long from now.
    DueIn(Duration),
    /// The job is leased.
    Lease {
        /// The lease is not over before this, whatever its worker's session.
        floor: Duration,
        /// The lease is over then, whatever its worker's session.
        hard_end: Duration,
    },
}

/// What is to be done after the write. Each is also found by a sweep if the process dies in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The job is ready: wake the dispatcher.
    Ready,
    /// The job's worker is to be told to stop it.
    Stop,
    /// The job has ended.
    Ended,
}

/// Why an event changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The token (or worker) is not that of the job's current attempt, and this is no repeat of an accepted report.
    #[error("the lease is lost")]
    LeaseLost,
    /// The job has ended.
    #[error("the job has ended")]
    Finished,
    /// The event does not apply to a job in this state; somebody else was faster.
    #[error("the job is not in a state for this")]
    WrongState,
}

/// The life of a job that is submitted now, and its timer.
pub fn submitted(spec: &JobSpec, now: Timestamp) -> (Life, Timer, Effect) {
    match spec.run_at {
        Some(at) if at > now => {
            (Life::starting(State::Scheduled { wait: Wait::Time { at } }), Timer::DueAt(at), Effect::None)
        }
        _ => (Life::starting(State::Queued { since: now }), Timer::None, Effect::Ready),
    }
}

/// What follows when `event` happens to `job` at `now`.
///
/// # Errors
/// The event does not apply; the job stays as it is.
pub fn transition(job: &Job, event: Event, now: Timestamp) -> Result<Applied, Rejected> {
    match event {
        Event::Due => due(job, now),
        Event::Claim { worker, token, lease } => claim(job, worker, token, lease, now),
        Event::Report(report) => self::report(job, report, now),
        Event::Lost { token } => over(job, token, Outcome::Lost, now),
        Event::Unstarted { token } => over(job, token, Outcome::Returned, now),
        Event::Cancel => cancel(job, now),
    }
}

fn due(job: &Job, now: Timestamp) -> Result<Applied, Rejected> {
    match job.life.state {
        State::Scheduled { .. } => Ok(changed(&job.life, State::Queued { since: now }, Timer::None, Effect::Ready)),
        State::Completed { .. } | State::Failed { .. } | State::Cancelled { .. } => Err(Rejected::Finished),
        State::Queued { .. } | State::Running { .. } | State::Cancelling { .. } => Err(Rejected::WrongState),
    }
}

fn claim(job: &Job, worker: WorkerId, token: LeaseToken, lease: Duration, now: Timestamp) -> Result<Applied, Rejected> {
    match job.life.state {
        State::Queued { .. } => {
            let attempt = job.life.claimed.saturating_add(1);
            let hard_end = hard_end(&job.spec);
            let state = State::Running { lease: Lease { attempt, worker, token, since: now } };
            Ok(Applied::Changed {
                life: Life { state, claimed: attempt, ..job.life.clone() },
                timer: Timer::Lease { floor: lease.min(hard_end), hard_end },
                effect: Effect::None,
            })
        }
        State::Completed { .. } | State::Failed { .. } | State::Cancelled { .. } => Err(Rejected::Finished),
        State::Scheduled { .. } | State::Running { .. } | State::Cancelling { .. } => Err(Rejected::WrongState),
    }
}

fn report(job: &Job, report: Report, now: Timestamp) -> Result<Applied, Rejected> {
    let is_meant = |lease: &Lease| match report.token {
        Some(token) => lease.token == token && lease.worker == report.worker,
        None => lease.worker == report.worker,
    };
    if let Some(lease) = job.life.lease().filter(|lease| is_meant(lease)) {
        return Ok(end_attempt(job, lease, report.outcome, report.details, now));
    }
    // Without a token only the last attempt can be meant.
    let mut past: Box<dyn Iterator<Item = &Attempt>> = match report.token {
        Some(_) => Box::new(job.life.attempts.iter().rev()),
        None if job.life.lease().is_none() => Box::new(job.life.attempts.last().into_iter()),
        None => Box::new(std::iter::empty()),
    };
    match past.find(|attempt| is_meant(&attempt.lease)) {
        Some(attempt) if attempt.outcome == report.outcome => Ok(Applied::Unchanged),
        _ => Err(Rejected::LeaseLost),
    }
}

/// The attempt is over without a report.
fn over(job: &Job, token: LeaseToken, outcome: Outcome, now: Timestamp) -> Result<Applied, Rejected> {
    match job.life.lease() {
        Some(lease) if lease.token == token => Ok(end_attempt(job, lease, outcome, Details::default(), now)),
        _ => Err(Rejected::LeaseLost),
    }
}

fn cancel(job: &Job, now: Timestamp) -> Result<Applied, Rejected> {
    match &job.life.state {
        State::Scheduled { .. } | State::Queued { .. } => {
            Ok(changed(&job.life, State::Cancelled { at: now }, Timer::None, Effect::Ended))
        }
        State::Running { lease } => {
            let state = State::Cancelling { lease: lease.clone(), since: now };
            Ok(changed(&job.life, state, Timer::Keep, Effect::Stop))
        }
        State::Cancelling { .. } => Ok(Applied::Unchanged),
        State::Completed { .. } | State::Failed { .. } | State::Cancelled { .. } => Err(Rejected::Finished),
    }
}

/// The current attempt is over: where does that leave the job?
fn end_attempt(job: &Job, lease: &Lease, outcome: Outcome, details: Details, now: Timestamp) -> Applied {
    let cancelling = matches!(job.life.state, State::Cancelling { .. });
    let mut life = job.life.clone();
    life.attempts.push(Attempt { lease: lease.clone(), ended: now, outcome: outcome.clone(), details });
    forget_free_attempts(&mut life.attempts);

    let next = if outcome.is_success() {
        Next::Completed
    } else if cancelling {
        // A cancelling job is never tried again, however the attempt ended.
        Next::Cancelled
    } else {
        after(&job.spec, &mut life, outcome)
    };
    let (state, timer, effect) = match next {
        Next::Completed => (State::Completed { at: now }, Timer::None, Effect::Ended),
        Next::Cancelled => (State::Cancelled { at: now }, Timer::None, Effect::Ended),
        Next::Queued => (State::Queued { since: now }, Timer::None, Effect::Ready),
        Next::Failed(reason, error) => (State::Failed { at: now, reason, error }, Timer::None, Effect::Ended),
        Next::Retry => {
            let delay = delay(job.id, &job.spec, life.lost + life.failed);
            (State::Scheduled { wait: Wait::Retry { since: now, delay } }, Timer::DueIn(delay), Effect::None)
        }
    };
    Applied::Changed { life: Life { state, ..life }, timer, effect }
}

enum Next {
    Completed,
    Cancelled,
    Queued,
    Retry,
    Failed(Reason, String),
}

/// What follows an attempt that did not succeed, for a job that nobody cancels. Counts it against its budget.
fn after(spec: &JobSpec, life: &mut Life, outcome: Outcome) -> Next {
    let result = |life: &mut Life, reason, error| {
        life.failed = life.failed.saturating_add(1);
        if life.failed <= spec.retries { Next::Retry } else { Next::Failed(reason, error) }
    };
    let infrastructure = |life: &mut Life, reason, error| {
        life.lost = life.lost.saturating_add(1);
        if life.lost < spec.max_attempts { Next::Retry } else { Next::Failed(reason, error) }
    };
    match outcome {
        Outcome::Exited { code } => result(life, Reason::ExitCode, format!("the command exited with code {code}")),
        Outcome::Signaled { signal } => {
            result(life, Reason::ExitCode, format!("the command was ended by signal {signal}"))
        }
        Outcome::TimedOut => {
            let error = format!("the command did not end within {} s", spec.timeout.as_secs_f64());
            result(life, Reason::Timeout, error)
        }
        Outcome::OutOfMemory => {
            result(life, Reason::OutOfMemory, "the command used more memory than it may".to_owned())
        }
        // A worker that was told to stop a job that nobody cancels (the word was for an older attempt, or its operator
        // stopped it) leaves the job as one that drains does.
        Outcome::Returned | Outcome::Stopped => Next::Queued,
        Outcome::InputError { message } => Next::Failed(Reason::InputError, message),
        Outcome::ExecutorError { message } => infrastructure(life, Reason::ExecutorError, message),
        Outcome::Lost => {
            let error = "the worker was lost: its lease ran out before it reported".to_owned();
            infrastructure(life, Reason::WorkerLost, error)
        }
    }
}

/// A worker that returns a job again and again must not make its record grow for ever.
fn forget_free_attempts(attempts: &mut Vec<Attempt>) {
    let is_free = |attempt: &Attempt| matches!(attempt.outcome, Outcome::Returned | Outcome::Stopped);
    let mut surplus = attempts.iter().filter(|a| is_free(a)).count().saturating_sub(KEPT_FREE_ATTEMPTS);
    attempts.retain(|attempt| {
        let forget = surplus > 0 && is_free(attempt);
        surplus -= usize::from(forget);
        !forget
    });
}

/// The wait before a further attempt: exponential, with "equal jitter", half of it fixed and half of it spread.
///
/// The spread is taken from the job's id, so that jobs that failed together do not come back together, and
/// the function stays one of its arguments.
fn delay(id: JobId, spec: &JobSpec, spent: u32) -> Duration {
    let exponent = i32::try_from(spent.saturating_sub(1)).unwrap_or(i32::MAX);
    let longest = spec.backoff.max.as_secs_f64();
    let full = (spec.backoff.initial.as_secs_f64() * spec.backoff.factor.powi(exponent)).min(longest);
    let share = f64::from(spread(id, spent)) / f64::from(u32::MAX);
    Duration::from_secs_f64(full * (0.5 + 0.5 * share))
}

/// FNV-1a over the id and the number of tries: evenly spread, the same everywhere and always.
fn spread(id: JobId, spent: u32) -> u32 {
    let bytes = id.as_bytes().iter().copied().chain(spent.to_le_bytes());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // FNV's high bits are the better mixed ones.
    (hash >> 32) as u32
}

fn changed(life: &Life, state: State, timer: Timer, effect: Effect) -> Applied {
    Applied::Changed { life: Life { state, ..life.clone() }, timer, effect }
}
