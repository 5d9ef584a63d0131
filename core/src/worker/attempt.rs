//! One attempt, from the lease to its report.

use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::directory::Directory;
use super::held::Reservation;
use super::output::{Output, Unsent};
use super::runtime::Shared;
use super::{inputs, outputs, report};
use crate::executor::{Executor, Kind, OutputSource, RunContext, StepLog, output_pipe};
use crate::id::{JobId, LeaseToken};
use crate::job::{Details, JobSpec, Outcome};
use crate::service::{FinalOutput, LeasedJob};

/// How many chunks lie between an executor and the attempt's output. A few, so that neither waits for the other's every step.
const PIPE: usize = 4;

/// How long output may still come from whoever holds a sink after the executor has returned. Executors flush before they
/// return; this only bounds what a function left behind.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// An attempt that the worker holds.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) job: JobId,
    pub(super) token: LeaseToken,
    pub(super) number: u32,
    pub(super) spec: Arc<JobSpec>,
    /// What stands for the job's owner, if the coordinator says.
    pub(super) scope: Option<String>,
    /// How long its lease lasts from the worker's last renewal.
    pub(super) lease: Duration,
    /// Asks the executor to stop, with grace.
    pub(super) stop: CancellationToken,
    /// Drops the executor's future, without grace.
    pub(super) kill: CancellationToken,
    /// Woken whenever the attempt is interrupted; for whoever goes on after the command.
    pub(super) interrupted: Notify,
    why: AtomicU8,
    over: AtomicBool,
    pub(super) output: Output,
}

/// Why an attempt is stopped. A later one outweighs an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Why {
    /// The worker drains, or is out of touch and the job is exclusive: the job goes back.
    HandBack = 1,
    /// Somebody cancelled the job.
    Cancelled = 2,
    /// The job is no longer this worker's: nobody wants a report.
    Lost = 3,
}

impl Attempt {
    /// `unsent`: what all attempts of the worker count their output in.
    pub(super) fn new(lease: LeasedJob, unsent: Unsent) -> Self {
        Self {
            job: lease.job,
            token: lease.token,
            number: lease.attempt,
            spec: lease.spec,
            scope: lease.scope,
            lease: lease.lease,
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            interrupted: Notify::new(),
            why: AtomicU8::new(0),
            over: AtomicBool::new(false),
            output: Output::new(unsent),
        }
    }

    /// Asks the attempt to stop. Asking again is harmless.
    pub(super) fn interrupt(&self, why: Why) {
        self.why.fetch_max(why as u8, Ordering::SeqCst);
        self.stop.cancel();
        self.interrupted.notify_one();
        if why == Why::Lost {
            self.output.discard();
        }
    }

    /// Why it was stopped, if it was.
    pub(super) fn why(&self) -> Option<Why> {
        match self.why.load(Ordering::SeqCst) {
            0 => None,
            1 => Some(Why::HandBack),
            2 => Some(Why::Cancelled),
            _ => Some(Why::Lost),
        }
    }

    /// What runs it.
    pub(super) fn kind(&self) -> Kind {
        if self.spec.container_image.is_some() { Kind::Docker } else { Kind::Process }
    }

    /// Whether nobody wants to hear of it any more.
    pub(super) fn is_lost(&self) -> bool {
        self.why() == Some(Why::Lost)
    }

    /// Whether the job is running, or on its way to.
    pub(super) fn is_running(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    pub(super) fn set_over(&self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

/// What to report of an attempt that ended so and was stopped for this; `None`: nothing.
fn verdict(why: Option<Why>, outcome: Outcome) -> Option<Outcome> {
    match (why, outcome) {
        (Some(Why::Lost), _) => None,
        // It did what it was asked to, or has used up what it may use: that is a result, whatever else was going on.
        (_, outcome @ (Outcome::Exited { code: 0 } | Outcome::TimedOut | Outcome::OutOfMemory)) => Some(outcome),
        (_, outcome @ Outcome::InputError { .. }) => Some(outcome),
        // Any other end is the stop's doing: many commands answer the polite signal with a code of their own.
        (Some(Why::HandBack), _) => Some(Outcome::Returned),
        (Some(Why::Cancelled) | None, outcome) => Some(outcome),
    }
}

/// Runs an attempt as [`run`] does; one that panics outside of what the executor's own guard catches is reported too, and
/// does not stay held.
pub(super) async fn run_caught(shared: Arc<Shared>, attempt: Arc<Attempt>, reservation: Reservation) {
    let running = run(Arc::clone(&shared), Arc::clone(&attempt), reservation);
    if AssertUnwindSafe(running).catch_unwind().await.is_err() {
        tracing::error!(job = %attempt.job, "an attempt panicked");
        shared.held.stopped(&attempt);
        let outcome = Outcome::ExecutorError { message: "the worker failed while it ran the job".to_owned() };
        shared.reports.push(report::finished(&attempt, outcome, Details::default(), FinalOutput::None));
    }
}

/// Runs an attempt and hands its end to the reports.
async fn run(shared: Arc<Shared>, attempt: Arc<Attempt>, reservation: Reservation) {
    let taken = shared.clock.uptime();
    let directory = shared.directory_for(&attempt, reservation.slot);
    let mut details = Details::default();
    let mut start = None;
    let outcome = match &directory {
        Err(error) => Outcome::ExecutorError { message: format!("the attempt's directory could not be made: {error}") },
        Ok(directory) => match prepare(&shared, &attempt, directory, reservation.slot).await {
            Err(outcome) => outcome,
            Ok(()) => {
                start = outputs::Start::of(&attempt, directory);
                let begun = shared.clock.uptime();
                let steps = StepLog::default();
                let outcome = execute(&shared, &attempt, directory, reservation.slot, steps.clone()).await;
                details.duration = Some(shared.clock.uptime().saturating_sub(begun));
                details.steps = steps.steps();
                details.image = steps.image();
                details.warnings = steps.warnings();
                outcome
            }
        },
    };
    tracing::debug!(job = %attempt.job, attempt = attempt.number, ?outcome, "an attempt is over");
    let mut verdict = verdict(attempt.why(), outcome);
    if let (Ok(directory), Some(start), true) = (&directory, start, outputs::are_wanted(&attempt, verdict.as_ref())) {
        outputs::collect(&shared, &attempt, directory, start, &mut details).await;
        // It may have been lost meanwhile; any other stop came too late to change how it ended.
        verdict = verdict.filter(|_| !attempt.is_lost());
    }
    shared.held.stopped(&attempt);

    // The report goes out before the directory is removed, and the slot is free after it, so that attempts never
    // fill the disk faster than they are cleaned up.
    let unsent = match verdict {
        None => None,
        Some(outcome) => match attempt.output.rest_now() {
            Some(rest) => {
                shared.reports.push(report::finished(&attempt, outcome, mem::take(&mut details), rest));
                None
            }
            None => Some(outcome),
        },
    };
    if let Ok(directory) = directory {
        shared.put_away(directory, &attempt, reservation.slot).await;
    }
    shared.held.took(shared.clock.uptime().saturating_sub(taken));
    drop(reservation);
    if let Some(outcome) = unsent {
        shared.output.hurry();
        if let Some(rest) = attempt.output.rest().await {
            shared.reports.push(report::finished(&attempt, outcome, details, rest));
        }
    }
    if attempt.is_lost() {
        shared.held.forget(attempt.token);
    }
}

/// Fills the attempt's directory for whom its job runs as.
async fn prepare(shared: &Shared, attempt: &Arc<Attempt>, directory: &Directory, slot: usize) -> Result<(), Outcome> {
    // A job without files costs nothing here: no timer, no task.
    let Some(file) = attempt.spec.input else { return Ok(()) };
    let user = shared.user_of(attempt, slot);
    inputs::prepare(shared, attempt, directory, file, user).await
}

/// Ends an attempt that has not begun, because it was stopped or because there is no room for it.
pub(super) fn give_back(shared: &Shared, attempt: &Arc<Attempt>) {
    shared.held.stopped(attempt);
    match verdict(attempt.why(), Outcome::Stopped) {
        None => shared.held.forget(attempt.token),
        // Not run at all, for no fault of its own.
        Some(_) if attempt.why().is_none() => {
            shared.reports.push(report::finished(attempt, Outcome::Returned, Details::default(), FinalOutput::None));
        }
        Some(outcome) => shared.reports.push(report::finished(attempt, outcome, Details::default(), FinalOutput::None)),
    }
}

/// Runs the command, and takes in its output until all of it is here.
async fn execute(
    shared: &Shared,
    attempt: &Arc<Attempt>,
    directory: &Directory,
    slot: usize,
    steps: StepLog,
) -> Outcome {
    let Some(executor) = shared.executor_for(attempt) else {
        return Outcome::ExecutorError {
            message: format!("this worker has no executor for {:?} jobs", attempt.kind()),
        };
    };
    if attempt.stop.is_cancelled() {
        return Outcome::Stopped;
    }
    let (sink, source) = output_pipe(PIPE);
    let context = RunContext {
        job: attempt.job,
        attempt: attempt.number,
        spec: Arc::clone(&attempt.spec),
        scope: attempt.scope.clone(),
        dir: directory.path().to_owned(),
        slot,
        output: sink,
        steps,
        stop: attempt.stop.clone(),
    };
    let mut command = pin!(run_guarded(&**executor, context, &attempt.kill));
    let mut intake = pin!(take_in(shared, attempt, source));
    let mut all_in = false;
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut command => break outcome,
            () = &mut intake, if !all_in => all_in = true,
        }
    };
    if !all_in {
        // What is in the pipe is little; it must not wait for a coordinator that is out of reach.
        attempt.output.lift_bound();
        tokio::select! {
            biased;
            () = intake => {}
            () = shared.clock.sleep(STRAGGLERS) => {}
        }
    }
    outcome
}

/// Runs the command until it is over or must be dropped. An executor's panic is its error, not the worker's end.
async fn run_guarded(executor: &dyn Executor, context: RunContext, kill: &CancellationToken) -> Outcome {
    let running = AssertUnwindSafe(executor.run(context)).catch_unwind();
    tokio::select! {
        biased;
        outcome = running => outcome.unwrap_or_else(|panic| {
            let what = panic
                .downcast_ref::<&str>()
                .map(|what| (*what).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            Outcome::ExecutorError { message: format!("the executor panicked: {what}") }
        }),
        () = kill.cancelled() => Outcome::Stopped,
    }
}

async fn take_in(shared: &Shared, attempt: &Arc<Attempt>, mut source: OutputSource) {
    while let Some(chunk) = source.next().await {
        shared.output.take_in(attempt, chunk).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_of_an_attempt_that_was_stopped() {
        let exited = |code| Outcome::Exited { code };
        let back = Some(Why::HandBack);
        let cancelled = Some(Why::Cancelled);
        for (why, outcome, reported) in [
            (None, exited(1), Some(exited(1))),
            (None, Outcome::Stopped, Some(Outcome::Stopped)),
            (back, Outcome::Stopped, Some(Outcome::Returned)),
            (back, exited(0), Some(exited(0))),
            (back, exited(143), Some(Outcome::Returned)),
            (back, Outcome::Signaled { signal: 15 }, Some(Outcome::Returned)),
            (back, Outcome::TimedOut, Some(Outcome::TimedOut)),
            (cancelled, Outcome::Stopped, Some(Outcome::Stopped)),
            (cancelled, exited(0), Some(exited(0))),
            (cancelled, exited(7), Some(exited(7))),
            (Some(Why::Lost), exited(0), None),
        ] {
            assert_eq!(verdict(why, outcome.clone()), reported, "{why:?} {outcome:?}");
        }
    }
}
