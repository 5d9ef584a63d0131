//! Submitting: all or none, every problem named, repetitions known.

use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::job::{Command, JobSpec, Status};
use cmdexec_core::service::{JobServiceExt, Submission};
use cmdexec_core::time::Clock;

use crate::service::rig::{Rig, ids};

fn submission(specs: Vec<JobSpec>, key: Option<&str>) -> Submission {
    Submission { specs, idempotency_key: key.map(str::to_owned) }
}

fn fields(error: &Error) -> Vec<String> {
    match error {
        Error::Invalid(problems) => problems.iter().map(|problem| problem.field.clone()).collect(),
        other => panic!("not invalid: {other:?}"),
    }
}

pub async fn what_was_submitted_is_there_as_it_was(rig: Rig) {
    let mut spec = JobSpec::shell("echo hello");
    spec.name = Some("a name".to_owned());
    spec.env.insert("KEY".to_owned(), "value".to_owned());
    spec.timeout = Duration::from_secs(17);
    spec.resources.cpu_millis = Some(1_500);
    spec.resources.memory_mb = Some(64);
    spec.resources.pids = Some(9);
    spec.labels.insert("linux".to_owned());
    spec.priority = -7;
    spec.max_attempts = 5;
    spec.retries = 2;
    spec.exclusive = true;
    let submitted = rig.ada().submit(spec.clone()).await.unwrap();
    assert_eq!((submitted.status, submitted.repeated), (Some(Status::Queued), false));
    assert_eq!(submitted.created, rig.clock.now());
    let view = rig.ada().job(submitted.id).await.unwrap();
    assert_eq!(*view.spec, spec);
    assert_eq!((view.owner.as_str(), view.status, view.created), ("ada", Status::Queued, submitted.created));
    assert_eq!((view.worker, view.started, view.completed, view.exit_code), (None, None, None, None));
    assert!(view.attempts.is_empty());
}

pub async fn every_form_of_command_is_kept(rig: Rig) {
    for spec in [JobSpec::shell("a\nb"), JobSpec::argv(["/bin/echo", "a b", ""]), JobSpec::steps(["a", "b"])] {
        let id = rig.submit_spec(spec.clone()).await;
        assert_eq!(rig.view(id).await.spec.command, spec.command);
    }
}

pub async fn a_batch_is_answered_in_its_order(rig: Rig) {
    let specs: Vec<_> = (0..50).map(|i| JobSpec::shell(format!("echo {i}"))).collect();
    let submitted = rig.ada().submit_batch(submission(specs, None)).await.unwrap();
    let views = rig.ada().get(&ids(&submitted)).await.unwrap();
    for (i, view) in views.into_iter().enumerate() {
        assert_eq!(view.unwrap().spec.command, Command::Shell(format!("echo {i}")));
    }
}

pub async fn every_problem_is_named_by_its_field(rig: Rig) {
    let mut spec = JobSpec::shell("true");
    spec.timeout = Duration::ZERO;
    spec.priority = 101;
    spec.max_attempts = 0;
    let error = rig.ada().submit(spec).await.unwrap_err();
    assert_eq!(fields(&error), ["timeout", "priority", "maxAttempts"]);
}

pub async fn a_batch_names_the_job_and_takes_in_nothing_if_one_is_wrong(rig: Rig) {
    let mut wrong = JobSpec::shell("true");
    wrong.timeout = Duration::ZERO;
    let specs = vec![JobSpec::shell("true"), wrong];
    let error = rig.ada().submit_batch(submission(specs, None)).await.unwrap_err();
    assert_eq!(fields(&error), ["jobs[1].timeout"]);
    assert_eq!(rig.ada().list(&cmdexec_core::service::JobQuery::default()).await.unwrap().total, 0);
}

pub async fn an_empty_batch_is_refused(rig: Rig) {
    let error = rig.ada().submit_batch(submission(Vec::new(), None)).await.unwrap_err();
    assert_eq!(fields(&error), ["jobs"]);
}

pub async fn a_key_that_is_none_is_refused(rig: Rig) {
    for wrong in ["a b", &"x".repeat(257)] {
        let error = rig.ada().submit_batch(submission(vec![JobSpec::shell("true")], Some(wrong))).await.unwrap_err();
        assert_eq!(fields(&error), ["idempotencyKey"]);
    }
}

pub async fn a_repeat_answers_what_the_first_did(rig: Rig) {
    let specs = vec![JobSpec::shell("a"), JobSpec::shell("b")];
    let first = rig.ada().submit_batch(submission(specs.clone(), Some("key"))).await.unwrap();
    rig.clock.advance(Duration::from_hours(23));
    let again = rig.ada().submit_batch(submission(specs, Some("key"))).await.unwrap();
    assert_eq!(ids(&again), ids(&first));
    assert!(again.iter().all(|job| job.repeated) && first.iter().all(|job| !job.repeated));
    assert_eq!(rig.ada().list(&cmdexec_core::service::JobQuery::default()).await.unwrap().total, 2);
}

pub async fn a_repeat_says_where_the_job_stands_now(rig: Rig) {
    let one = || submission(vec![JobSpec::shell("a")], Some("key"));
    let id = rig.ada().submit_batch(one()).await.unwrap()[0].id;
    let worker = rig.worker("w").await;
    worker.exit(&worker.take().await, 0).await;
    let again = rig.ada().submit_batch(one()).await.unwrap();
    assert_eq!((again[0].id, again[0].status), (id, Some(Status::Completed)));
}

pub async fn the_same_key_for_something_else_is_a_conflict(rig: Rig) {
    rig.ada().submit_batch(submission(vec![JobSpec::shell("a")], Some("key"))).await.unwrap();
    let other = rig.ada().submit_batch(submission(vec![JobSpec::shell("b")], Some("key"))).await;
    assert_eq!(other, Err(Error::IdempotencyConflict));
}

pub async fn keys_are_an_owners_own(rig: Rig) {
    let one = || submission(vec![JobSpec::shell("a")], Some("key"));
    let ada = rig.ada().submit_batch(one()).await.unwrap();
    let bob = rig.user("bob", cmdexec_core::service::Role::User).submit_batch(one()).await.unwrap();
    assert_ne!(ids(&ada), ids(&bob));
    assert!(!bob[0].repeated);
}

pub async fn of_two_concurrent_submissions_with_one_key_one_is_the_repeat(rig: Rig) {
    let one = || submission(vec![JobSpec::shell("a")], Some("key"));
    let (ada, too) = (rig.ada(), rig.ada());
    let (first, second) = tokio::join!(ada.submit_batch(one()), too.submit_batch(one()));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(ids(&first), ids(&second));
    assert_ne!(first[0].repeated, second[0].repeated);
}

pub async fn a_job_for_later_waits_for_its_time(rig: Rig) {
    let worker = rig.worker("w").await;
    let mut spec = JobSpec::shell("true");
    spec.run_at = Some(rig.clock.now().after(Duration::from_mins(1)));
    let submitted = rig.ada().submit(spec).await.unwrap();
    assert_eq!(submitted.status, Some(Status::Scheduled));
    assert!(worker.ask(1).await.is_empty());
    rig.clock.advance(Duration::from_secs(58));
    assert!(worker.ask(1).await.is_empty());
    rig.advance_until(submitted.id, Status::Queued).await;
    assert_eq!(worker.take_soon().await.job, submitted.id);
}

pub async fn a_job_keeps_its_key(rig: Rig) {
    let specs = vec![JobSpec::shell("a"), JobSpec::shell("b")];
    let batch = rig.ada().submit_batch(submission(specs, Some("key"))).await.unwrap();
    for job in batch {
        assert_eq!(rig.view(job.id).await.spec.idempotency_key.as_deref(), Some("key"));
    }
    let id = rig.submit().await;
    assert_eq!(rig.view(id).await.spec.idempotency_key, None);
    let worker = rig.worker("w").await;
    assert!(worker.ask(9).await.len() == 3);
}

pub async fn a_job_that_is_submitted_alone_may_name_its_key(rig: Rig) {
    let mut spec = JobSpec::shell("a");
    spec.idempotency_key = Some("key".to_owned());
    let first = rig.ada().submit(spec.clone()).await.unwrap();
    let again = rig.ada().submit(spec).await.unwrap();
    assert_eq!((again.id, first.repeated, again.repeated), (first.id, false, true));
    let otherwise = rig.ada().submit_batch(submission(vec![JobSpec::shell("a")], Some("key"))).await.unwrap();
    assert_eq!(otherwise[0].id, first.id);
}

pub async fn a_spec_with_another_key_is_refused(rig: Rig) {
    let mut spec = JobSpec::shell("a");
    spec.idempotency_key = Some("one".to_owned());
    let error = rig.ada().submit_batch(submission(vec![spec.clone()], Some("other"))).await.unwrap_err();
    assert_eq!(fields(&error), ["idempotencyKey"]);
    let error = rig.ada().submit_batch(submission(vec![JobSpec::shell("a"), spec], None)).await.unwrap_err();
    assert_eq!(fields(&error), ["jobs[1].idempotencyKey"]);
}
