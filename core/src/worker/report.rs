//! The way of results to the coordinator: whatever is waiting when a call returns goes with the next one, and each is
//! repeated until it is acknowledged or nobody wants it.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::attempt::Attempt;
use super::backoff::Backoff;
use super::runtime::Shared;
use crate::Error;
use crate::job::{Details, Outcome};
use crate::service::{FinalOutput, FinishedAttempt};
use crate::time::Sleep;

/// How many reports travel in one call.
const CALL_REPORTS: usize = 256;

/// A call follows one that carried several reports no sooner than this after that one began, unless [`ENOUGH`] reports wait: under
/// load a commit and a round trip are shared by many, and where reports come one by one, each goes at once.
const PACE: Duration = Duration::from_millis(10);

/// So many reports are worth a call at once.
const ENOUGH: usize = 32;

/// How much output travels in one call with its reports.
const CALL_BYTES: usize = 4 * 1024 * 1024;

/// How long a call may take before it is given up and repeated.
const CALL_TIME: Duration = Duration::from_secs(30);

/// Reports that wait to be sent. Bounded by the attempts that the worker holds.
#[derive(Debug, Default)]
pub(super) struct Reports {
    waiting: Mutex<Vec<Report>>,
    some: Notify,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) struct Report {
    attempt: Arc<Attempt>,
    finished: FinishedAttempt,
}

pub(super) fn finished(attempt: &Arc<Attempt>, outcome: Outcome, details: Details, output: FinalOutput) -> Report {
    let finished = FinishedAttempt { job: attempt.job, token: Some(attempt.token), outcome, details, output };
    Report { attempt: Arc::clone(attempt), finished }
}

impl Report {
    fn bytes(&self) -> usize {
        match &self.finished.output {
            FinalOutput::Rest(chunks) => chunks.iter().map(|chunk| chunk.bytes.len()).sum(),
            FinalOutput::None | FinalOutput::Whole { .. } => 0,
        }
    }
}

impl Reports {
    fn lock(&self) -> MutexGuard<'_, Vec<Report>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, report: Report) {
        self.lock().push(report);
        self.some.notify_one();
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Waits for the next call's time, or until enough is there for one.
    async fn keep_pace(&self, mut pace: Sleep) {
        while self.len() < ENOUGH {
            tokio::select! {
                biased;
                () = &mut pace => return,
                () = self.some.notified() => {}
            }
        }
    }

    /// What goes with the next call.
    fn gather(&self) -> Vec<Report> {
        let mut waiting = self.lock();
        let mut bytes = 0;
        let fitting = waiting.iter().take(CALL_REPORTS).take_while(|report| {
            bytes += report.bytes();
            bytes <= CALL_BYTES
        });
        let count = fitting.count().max(1).min(waiting.len());
        let later = waiting.split_off(count);
        mem::replace(&mut *waiting, later)
    }

    /// Puts back what did not get through; before what came since, so that nothing waits for ever.
    fn put_back(&self, mut reports: Vec<Report>) {
        let mut waiting = self.lock();
        reports.append(&mut waiting);
        *waiting = reports;
    }
}

/// Sends reports until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut backoff = Backoff::for_calls();
    // After a call that was refused as a whole, one at a time: one of them is at fault.
    let mut one_by_one = 0;
    loop {
        let mut reports = shared.reports.gather();
        if one_by_one > 0 && reports.len() > 1 {
            shared.reports.put_back(reports.split_off(1));
        }
        reports.retain(|report| {
            let is_lost = report.attempt.is_lost();
            if is_lost {
                shared.held.forget(report.attempt.token);
            }
            !is_lost
        });
        if reports.is_empty() {
            if shared.reports.len() == 0 {
                shared.reports.some.notified().await;
            }
            continue;
        }
        let attempts = reports.iter().map(|report| report.finished.clone()).collect();
        let pace = (reports.len() > 1).then(|| shared.clock.sleep(PACE));
        let call = shared.service.finish(shared.id(), attempts);
        let asked = match shared.within(CALL_TIME, call).await {
            Ok(answers) => {
                one_by_one = usize::saturating_sub(one_by_one, 1);
                let (again, asked) = settle(&shared, reports, answers);
                if again.is_empty() {
                    backoff.reset();
                    if let Some(pace) = pace {
                        shared.reports.keep_pace(pace).await;
                    }
                    continue;
                }
                shared.reports.put_back(again);
                asked
            }
            Err(error) if is_final(&error) => {
                if let [report] = &*reports {
                    // Nothing more can be done: the lease will run out, and the job is tried again.
                    tracing::error!(job = %report.finished.job, %error, "a report was refused and is dropped");
                    shared.held.forget(report.attempt.token);
                } else {
                    one_by_one = reports.len();
                    shared.reports.put_back(reports);
                }
                continue;
            }
            Err(error) => {
                shared.failed(&error);
                shared.reports.put_back(reports);
                error.retry_after()
            }
        };
        shared.pause(&mut backoff, asked).await;
    }
}

/// Forgets what is settled, and gives back what is to be sent again, and after how long at least.
fn settle(shared: &Shared, reports: Vec<Report>, answers: Vec<Result<(), Error>>) -> (Vec<Report>, Option<Duration>) {
    let mut again = Vec::new();
    let mut asked = None;
    let mut answers = answers.into_iter();
    for report in reports {
        match answers.next() {
            Some(Ok(())) => {
                shared.count(&report.finished.outcome);
                shared.held.forget(report.attempt.token);
            }
            Some(Err(Error::LeaseLost | Error::JobNotFound)) => {
                tracing::info!(job = %report.finished.job, "a report came too late: the job is no longer this worker's");
                shared.held.forget(report.attempt.token);
            }
            Some(Err(error)) if is_final(&error) => {
                tracing::error!(job = %report.finished.job, %error, "a report was refused and is dropped");
                shared.held.forget(report.attempt.token);
            }
            Some(Err(error)) => {
                asked = asked.max(error.retry_after());
                again.push(report);
            }
            None => again.push(report),
        }
    }
    (again, asked)
}

/// Whether sending the same again can't help.
fn is_final(error: &Error) -> bool {
    matches!(error, Error::Invalid(_) | Error::Forbidden(_))
}
