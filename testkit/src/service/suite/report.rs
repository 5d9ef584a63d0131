//! Reports, sessions and tries: one result, fenced, and what follows what did not succeed.

use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::id::LeaseToken;
use cmdexec_core::job::{JobSpec, Outcome, Reason, Status};
use cmdexec_core::service::{Ended, LeasedJob};

use crate::service::rig::{Agent, Rig, eventually, report};

/// A job whose delays are exact to within their jitter: a second, doubling.
fn retried(retries: u32, max_attempts: u32) -> JobSpec {
    let mut spec = JobSpec::shell("true");
    spec.retries = retries;
    spec.max_attempts = max_attempts;
    spec
}

pub async fn an_exit_code_decides(rig: Rig) {
    let worker = rig.worker("w").await;
    for (code, status, reason) in [(0, Status::Completed, None), (3, Status::Failed, Some(Reason::ExitCode))] {
        let id = rig.submit().await;
        worker.exit(&worker.take().await, code).await;
        let view = rig.view(id).await;
        assert_eq!((view.status, view.exit_code, view.reason), (status, Some(code), reason));
        assert_eq!(view.error.is_some(), reason.is_some());
    }
}

pub async fn other_ends_have_their_reasons(rig: Rig) {
    let worker = rig.worker("w").await;
    for (outcome, reason, ended, code) in [
        (Outcome::Signaled { signal: 9 }, Reason::ExitCode, Ended::ExitCode, Some(137)),
        (Outcome::TimedOut, Reason::Timeout, Ended::Timeout, None),
        (Outcome::OutOfMemory, Reason::OutOfMemory, Ended::OutOfMemory, None),
        (Outcome::InputError { message: "no zip".to_owned() }, Reason::InputError, Ended::InputError, None),
    ] {
        let id = rig.submit().await;
        worker.finish(&worker.take().await, outcome).await.unwrap();
        let view = rig.view(id).await;
        assert_eq!((view.status, view.reason, view.exit_code), (Status::Failed, Some(reason), code));
        assert_eq!(view.attempts[0].outcome, Some(ended));
        if reason == Reason::InputError {
            assert!(view.error.unwrap().contains("no zip"));
        }
    }
}

pub async fn repeating_an_accepted_report_is_harmless(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    worker.exit(&leased, 0).await;
    let version = rig.view(id).await.version;
    worker.exit(&leased, 0).await;
    assert_eq!(rig.view(id).await.version, version);
}

pub async fn repeating_the_report_of_an_earlier_attempt_is_harmless(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit_spec(retried(1, 3)).await;
    let first = worker.take().await;
    worker.exit(&first, 1).await;
    rig.advance_until(id, Status::Queued).await;
    let second = worker.take_soon().await;
    worker.exit(&first, 1).await;
    assert_eq!(rig.status(id).await, Status::Running);
    worker.exit(&second, 0).await;
    worker.exit(&first, 1).await;
    assert_eq!(rig.status(id).await, Status::Completed);
}

pub async fn another_report_for_an_attempt_that_is_over_is_refused(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    worker.exit(&leased, 0).await;
    assert_eq!(worker.finish(&leased, Outcome::Exited { code: 1 }).await, Err(Error::LeaseLost));
    assert_eq!(worker.finish(&leased, Outcome::TimedOut).await, Err(Error::LeaseLost));
    assert_eq!(rig.view(id).await.exit_code, Some(0));
}

pub async fn a_wrong_token_changes_nothing(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    let forged = LeasedJob { token: LeaseToken::from_bits(7), ..leased.clone() };
    assert_eq!(worker.finish(&forged, Outcome::Exited { code: 0 }).await, Err(Error::LeaseLost));
    assert_eq!(worker.write(&forged, vec![crate::service::rig::out(0, "x")]).await, Err(Error::LeaseLost));
    assert_eq!(worker.holds(&[&forged, &leased]).await.lost, [id]);
    assert_eq!((rig.status(id).await, rig.output(id).await.len()), (Status::Running, 1));
}

pub async fn another_workers_token_changes_nothing(rig: Rig) {
    let (worker, thief) = (rig.worker("w").await, rig.worker("thief").await);
    let id = rig.submit().await;
    let leased = worker.take().await;
    assert_eq!(thief.finish(&leased, Outcome::Exited { code: 0 }).await, Err(Error::LeaseLost));
    assert_eq!(thief.write(&leased, vec![crate::service::rig::out(0, "x")]).await, Err(Error::LeaseLost));
    assert_eq!(rig.status(id).await, Status::Running);
}

pub async fn reports_of_one_call_are_answered_each_by_itself(rig: Rig) {
    let worker = rig.worker("w").await;
    let (_, _) = (rig.submit().await, rig.submit().await);
    let leased = worker.ask(2).await;
    let forged = LeasedJob { token: LeaseToken::from_bits(7), ..leased[0].clone() };
    let exited = Outcome::Exited { code: 0 };
    let reports = [&leased[0], &forged, &leased[1]].map(|leased| report(leased, exited.clone())).to_vec();
    let answers = worker.service.finish(&worker.id, reports).await.unwrap();
    assert_eq!(answers, [Ok(()), Err(Error::LeaseLost), Ok(())]);
}

pub async fn only_the_coordinator_says_that_an_attempt_is_lost(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    let answers = worker.service.finish(&worker.id, vec![report(&leased, Outcome::Lost)]).await;
    assert!(!matches!(answers.as_deref(), Ok([Ok(())])), "{answers:?}");
    assert_eq!(rig.status(id).await, Status::Running);
}

pub async fn a_failure_is_tried_again_only_as_often_as_asked(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit_spec(retried(2, 1)).await;
    for attempt in 1..=3 {
        let leased = worker.take_soon().await;
        assert_eq!(leased.attempt, attempt);
        worker.exit(&leased, 1).await;
        if attempt < 3 {
            assert_eq!(rig.status(id).await, Status::Scheduled);
            rig.advance_until(id, Status::Queued).await;
        }
    }
    let view = rig.view(id).await;
    assert_eq!((view.status, view.attempts.len()), (Status::Failed, 3));
}

pub async fn executor_errors_are_tried_again_up_to_max_attempts(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit_spec(retried(0, 2)).await;
    let broken = || Outcome::ExecutorError { message: "no disk".to_owned() };
    worker.finish(&worker.take().await, broken()).await.unwrap();
    rig.advance_until(id, Status::Queued).await;
    worker.finish(&worker.take_soon().await, broken()).await.unwrap();
    let view = rig.view(id).await;
    assert_eq!((view.status, view.reason), (Status::Failed, Some(Reason::ExecutorError)));
    assert!(view.error.unwrap().contains("no disk"));
}

pub async fn the_two_budgets_are_counted_apart(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit_spec(retried(1, 2)).await;
    let broken = Outcome::ExecutorError { message: "x".to_owned() };
    for outcome in [broken, Outcome::Exited { code: 1 }] {
        worker.finish(&worker.take_soon().await, outcome).await.unwrap();
        assert_eq!(rig.status(id).await, Status::Scheduled);
        rig.advance_until(id, Status::Queued).await;
    }
    worker.exit(&worker.take_soon().await, 0).await;
    assert_eq!(rig.status(id).await, Status::Completed);
}

pub async fn a_retry_waits_for_its_delay(rig: Rig) {
    let worker = rig.worker("w").await;
    let mut spec = retried(2, 3);
    spec.backoff.initial = Duration::from_secs(10);
    let id = rig.submit_spec(spec).await;
    for bound in [10, 20] {
        worker.exit(&worker.take_soon().await, 1).await;
        // At least half of the delay, whatever the jitter.
        rig.clock.advance(Duration::from_secs(bound / 2 - 1));
        assert!(worker.ask(1).await.is_empty());
        assert_eq!(rig.status(id).await, Status::Scheduled);
        rig.clock.advance(Duration::from_secs(bound / 2 + 1));
        rig.becomes_after_a_sweep(id, Status::Queued).await;
    }
}

pub async fn what_is_returned_goes_back_at_no_cost_and_at_once(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit_spec(retried(0, 1)).await;
    for _ in 0..5 {
        worker.finish(&worker.take_soon().await, Outcome::Returned).await.unwrap();
        assert_eq!(rig.status(id).await, Status::Queued);
    }
    worker.exit(&worker.take_soon().await, 0).await;
    assert_eq!(rig.status(id).await, Status::Completed);
}

pub async fn a_retried_job_keeps_its_place(rig: Rig) {
    let worker = rig.worker("w").await;
    let first = rig.submit().await;
    let leased = worker.take().await;
    rig.submit().await;
    worker.finish(&leased, Outcome::Returned).await.unwrap();
    assert_eq!(worker.take_soon().await.job, first);
}

async fn lapse(rig: &Rig, other: &Agent, id: cmdexec_core::id::JobId) -> LeasedJob {
    eventually("the job to come back", async || {
        rig.clock.advance(Duration::from_secs(1));
        other.ask(4).await.into_iter().find(|leased| leased.job == id)
    })
    .await
}

pub async fn a_silent_workers_lease_ends_and_its_job_is_tried_elsewhere(rig: Rig) {
    let (silent, other) = (rig.worker("silent").await, rig.worker("other").await);
    let id = rig.submit().await;
    let first = silent.take().await;
    rig.clock.advance(Duration::from_secs(59));
    assert!(other.ask(1).await.is_empty());
    assert_eq!(rig.status(id).await, Status::Running);
    let second = lapse(&rig, &other, id).await;
    assert_eq!(second.attempt, 2);
    assert_eq!(silent.finish(&first, Outcome::Exited { code: 0 }).await, Err(Error::LeaseLost));
    assert_eq!(silent.write(&first, vec![crate::service::rig::out(0, "x")]).await, Err(Error::LeaseLost));
    assert_eq!(silent.holds(&[&first]).await.lost, [id]);
    other.exit(&second, 0).await;
    let view = rig.view(id).await;
    assert_eq!((view.status, view.attempts[0].outcome), (Status::Completed, Some(Ended::WorkerLost)));
}

pub async fn heartbeats_keep_a_lease(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    for _ in 0..30 {
        rig.clock.advance(Duration::from_secs(10));
        let reply = worker.holds(&[&leased]).await;
        assert_eq!((reply.cancel, reply.lost), (vec![], vec![]));
    }
    worker.exit(&leased, 0).await;
    assert_eq!(rig.status(id).await, Status::Completed);
}

pub async fn no_heartbeat_passes_the_hard_end(rig: Rig) {
    let worker = rig.worker("w").await;
    let mut spec = retried(0, 1);
    spec.timeout = Duration::from_secs(1);
    let id = rig.submit_spec(spec).await;
    let leased = worker.take().await;
    for _ in 0..60 {
        rig.clock.advance(Duration::from_secs(10));
        worker.holds(&[&leased]).await;
    }
    assert_eq!(rig.status(id).await, Status::Running, "600 s for the set-up, and the rest");
    for _ in 0..5 {
        rig.clock.advance(Duration::from_secs(10));
        worker.holds(&[&leased]).await;
    }
    rig.advance_until(id, Status::Failed).await;
    assert_eq!(rig.view(id).await.reason, Some(Reason::WorkerLost));
}

pub async fn lost_workers_are_counted_against_max_attempts(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit_spec(retried(5, 2)).await;
    worker.take().await;
    lapse(&rig, &worker, id).await;
    rig.advance_until(id, Status::Failed).await;
    let view = rig.view(id).await;
    assert_eq!((view.reason, view.attempts.len()), (Some(Reason::WorkerLost), 2));
}

pub async fn what_was_never_listed_comes_back_at_no_cost(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit_spec(retried(0, 1)).await;
    worker.take().await;
    worker.holds(&[]).await;
    assert_eq!(rig.status(id).await, Status::Running, "the reply may be on its way");
    let again = eventually("the job to come back", async || {
        rig.clock.advance(Duration::from_secs(10));
        worker.holds(&[]).await;
        worker.ask(1).await.pop()
    })
    .await;
    assert_eq!((again.job, again.attempt), (id, 2));
}

pub async fn what_was_listed_and_dropped_is_lost(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit_spec(retried(0, 1)).await;
    let leased = worker.take().await;
    worker.holds(&[&leased]).await;
    eventually("the attempt to be lost", async || {
        rig.clock.advance(Duration::from_secs(1));
        worker.holds(&[]).await;
        (rig.status(id).await == Status::Failed).then_some(())
    })
    .await;
    assert_eq!(rig.view(id).await.reason, Some(Reason::WorkerLost));
}

pub async fn a_heartbeat_of_a_stranger_is_told_to_register(rig: Rig) {
    let service = rig.worker_service(crate::service::rig::worker_id("w"));
    let stranger = Agent { id: crate::service::rig::worker_id("w"), service };
    assert_eq!(stranger.beat(Some(&[])).await, Err(Error::WorkerNotFound));
}

pub async fn registering_again_keeps_what_a_worker_has(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    rig.clock.advance(Duration::from_secs(50));
    let again = rig.worker("w").await;
    rig.clock.advance(Duration::from_secs(50));
    assert_eq!(again.holds(&[&leased]).await.lost, []);
    again.exit(&leased, 0).await;
    assert_eq!(rig.status(id).await, Status::Completed);
}

pub async fn a_heartbeat_tells_the_time(rig: Rig) {
    use cmdexec_core::time::Clock;
    let worker = rig.worker("w").await;
    rig.clock.advance(Duration::from_secs(5));
    assert_eq!(worker.holds(&[]).await.server_time, rig.clock.now());
}
