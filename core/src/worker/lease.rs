//! Asking for jobs, and starting what comes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;

use super::ahead::PATIENCE;
use super::attempt::{self, Attempt};
use super::backoff::Backoff;
use super::handle::Phase;
use super::held::Admission;
use super::runtime::{Shared, optional};
use crate::Error;
use crate::service::{LeaseRequest, LeasedJob};
use crate::time::Sleep;

/// How long a question waits for a job. Half of what the contract allows: proxies on the way tend to cut at a minute.
const WAIT: Duration = Duration::from_secs(30);

/// How much longer its answer may take before the question is given up.
const MARGIN: Duration = Duration::from_secs(20);

/// How long nothing is asked for after a job did not fit, lest it comes back at once.
const AFTER_REFUSAL: Duration = Duration::from_secs(1);

/// Attempts that wait for a slot, and since when, oldest first. As few as [`super::ahead`] says.
type Waiting = VecDeque<(Arc<Attempt>, Duration)>;

type Question = Pin<Box<dyn Future<Output = (Result<Vec<LeasedJob>, Error>, usize)> + Send>>;

enum Event {
    /// What was asked for was answered; the number is how much that was.
    Answer(Result<Vec<LeasedJob>, Error>, usize),
    Rested,
    Changed,
    /// Somebody may have waited for too long.
    Impatient,
    Over(Result<(), tokio::task::JoinError>),
}

/// Asks for jobs while there is room, and keeps the attempts' tasks, until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut attempts = JoinSet::new();
    let mut changes = shared.held.changes();
    let mut phase = shared.phase.subscribe();
    let mut backoff = Backoff::for_calls();
    let mut question: Option<Question> = None;
    let mut rest: Option<Sleep> = None;
    let mut waiting = Waiting::new();
    let mut patience: Option<Sleep> = None;
    loop {
        let takes = *phase.borrow_and_update() == Phase::Taking;
        place(&shared, &mut attempts, &mut waiting, takes);
        if waiting.is_empty() {
            patience = None;
        } else if patience.is_none() {
            patience = Some(shared.clock.sleep(PATIENCE));
        }
        let may_ask = takes && !shared.removed.load(Ordering::SeqCst);
        if !may_ask {
            // What it may have claimed goes back: its future does so when it is dropped, and if the claim was lost on
            // the way, the lease comes to nothing because no heartbeat lists it.
            question = None;
        } else if question.is_none() && rest.is_none() {
            let max = shared.held.wanted();
            if max > 0 {
                question = Some(ask(&shared, max));
            }
        }
        let is_deaf = question.is_some() && waiting.is_empty();
        let event = tokio::select! {
            biased;
            Some(over) = attempts.join_next(), if !attempts.is_empty() => Event::Over(over),
            (answer, asked) = optional(question.as_mut()) => Event::Answer(answer, asked),
            () = optional(rest.as_mut()) => Event::Rested,
            Ok(()) = phase.changed() => Event::Changed,
            Ok(()) = changes.changed(), if !is_deaf => Event::Changed,
            () = optional(patience.as_mut()) => Event::Impatient,
        };
        match event {
            Event::Answer(Ok(leases), asked) => {
                question = None;
                shared.held.answered(leases.len() >= asked);
                backoff.reset();
                let mut refused = false;
                for lease in leases {
                    refused |= !start(&shared, &mut attempts, &mut waiting, lease);
                }
                if refused {
                    rest = Some(shared.clock.sleep(AFTER_REFUSAL));
                }
            }
            Event::Answer(Err(error), _) => {
                question = None;
                shared.failed(&error);
                rest = Some(shared.clock.sleep(shared.next_wait(&mut backoff, error.retry_after())));
            }
            Event::Rested => rest = None,
            Event::Impatient => patience = None,
            Event::Over(Err(panic)) if panic.is_panic() => {
                tracing::error!(%panic, "an attempt's task has failed; its lease will run out");
            }
            Event::Over(_) | Event::Changed => {}
        }
    }
}

fn ask(shared: &Arc<Shared>, max: usize) -> Question {
    let shared = Arc::clone(shared);
    Box::pin(async move {
        let call = shared.service.lease(shared.id(), LeaseRequest { max, wait: WAIT });
        (shared.within(WAIT + MARGIN, call).await, max)
    })
}

/// Takes a lease in; what there is no room for goes straight back. Whether it was taken.
fn start(shared: &Arc<Shared>, attempts: &mut JoinSet<()>, waiting: &mut Waiting, lease: LeasedJob) -> bool {
    let exclusive = lease.spec.exclusive;
    let taken = match shared.held.admit(lease) {
        Admission::Run(attempt, reservation) => {
            attempts.spawn(attempt::run_caught(Arc::clone(shared), attempt, reservation));
            true
        }
        Admission::Wait(attempt) => {
            waiting.push_back((attempt, shared.clock.uptime()));
            true
        }
        Admission::Refused(attempt) => {
            tracing::info!(job = %attempt.job, "a job goes back: there is no room for it");
            attempt::give_back(shared, &attempt);
            false
        }
        Admission::Known => true,
    };
    if exclusive && taken {
        shared.nudge.notify_one();
    }
    taken
}

/// Starts what waits and has room now, in order; gives back what has waited for too long, was stopped, or is not to
/// begin any more.
fn place(shared: &Arc<Shared>, attempts: &mut JoinSet<()>, waiting: &mut Waiting, takes: bool) {
    let now = shared.clock.uptime();
    while let Some((attempt, since)) = waiting.front() {
        let is_stale = now.saturating_sub(*since) >= PATIENCE;
        if !takes || attempt.stop.is_cancelled() {
            shared.held.gave_up();
            attempt::give_back(shared, attempt);
        } else if let Some(reservation) = shared.held.place(attempt) {
            attempts.spawn(attempt::run_caught(Arc::clone(shared), Arc::clone(attempt), reservation));
        } else if is_stale {
            shared.held.gave_up();
            attempt::give_back(shared, attempt);
        } else {
            break;
        }
        waiting.pop_front();
    }
}
