//! Reading: lists and their filters, ownership, watching, totals.

use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::job::{Details, JobSpec, Outcome, Status};
use cmdexec_core::service::{
    Ended, FinishedAttempt, JobQuery, JobServiceExt, OutputQuery, Role, Submission, Usage, WatchQuery, WorkerStatus,
};
use cmdexec_core::time::Clock;
use futures_util::StreamExt;

use crate::service::rig::{Rig, eventually, ids, report, within, worker_id};

pub async fn a_list_is_newest_first_and_its_cursor_goes_through_all(rig: Rig) {
    let specs = (0..7).map(|i| JobSpec::shell(i.to_string())).collect();
    let submitted = rig.ada().submit_batch(Submission { specs, idempotency_key: None }).await.unwrap();
    let mut query = JobQuery { limit: 3, ..JobQuery::default() };
    let mut seen = Vec::new();
    loop {
        let page = rig.ada().list(&query).await.unwrap();
        assert_eq!(page.total, 7);
        assert!(page.jobs.len() <= 3);
        seen.extend(page.jobs.iter().map(|job| job.id));
        match page.next {
            Some(next) => query.before = Some(next),
            None => break,
        }
    }
    let mut expected = ids(&submitted);
    expected.reverse();
    assert_eq!(seen, expected);
    let offset = rig.ada().list(&JobQuery { offset: 5, ..JobQuery::default() }).await.unwrap();
    assert_eq!(offset.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), expected[5..]);
}

pub async fn a_list_gives_summaries(rig: Rig) {
    let mut spec = JobSpec::shell("x".repeat(1_000));
    spec.env.insert("SECRET".to_owned(), "value".to_owned());
    rig.submit_spec(spec).await;
    let job = rig.ada().list(&JobQuery::default()).await.unwrap().jobs.remove(0);
    assert!(job.spec.env.is_empty() && job.stdout.is_empty() && job.stderr.is_empty());
    let cmdexec_core::job::Command::Shell(command) = &job.spec.command else { panic!("another command") };
    assert!(command.chars().count() <= 201, "{} characters", command.chars().count());
}

pub async fn filters_narrow_a_list(rig: Rig) {
    let worker = rig.worker("w").await;
    let mut labelled = JobSpec::shell("a");
    labelled.labels.insert("linux".to_owned());
    let first = rig.submit_spec(labelled).await;
    worker.exit(&worker.take().await, 0).await;
    let then = rig.clock.now();
    rig.clock.advance(Duration::from_secs(10));
    let second = rig.submit().await;
    let listed = async |query: JobQuery| {
        let page = rig.ada().list(&query).await.unwrap();
        assert_eq!(page.total, page.jobs.len());
        page.jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    let all = JobQuery::default;
    assert_eq!(listed(all()).await, [second, first]);
    assert_eq!(listed(JobQuery { status: Some(Status::Completed), ..all() }).await, [first]);
    assert_eq!(listed(JobQuery { status: Some(Status::Failed), ..all() }).await, []);
    assert_eq!(listed(JobQuery { worker: Some(worker_id("w")), ..all() }).await, [first]);
    assert_eq!(listed(JobQuery { label: Some("linux".to_owned()), ..all() }).await, [first]);
    assert_eq!(listed(JobQuery { created_after: Some(then), ..all() }).await, [second]);
}

pub async fn a_lists_limits_are_checked(rig: Rig) {
    for query in [
        JobQuery { limit: 0, ..JobQuery::default() },
        JobQuery { limit: 501, ..JobQuery::default() },
        JobQuery { offset: 10_001, ..JobQuery::default() },
    ] {
        assert!(matches!(rig.ada().list(&query).await, Err(Error::Invalid(_))), "{query:?}");
    }
}

pub async fn ids_are_answered_in_their_order_and_unknown_ones_by_nothing(rig: Rig) {
    let (first, second) = (rig.submit().await, rig.submit().await);
    let unknown = cmdexec_core::id::JobId::from_bytes([7; 16]);
    let found = rig.ada().get(&[second, unknown, first]).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|job| job.map(|job| job.id)).collect();
    assert_eq!(found, [Some(second), None, Some(first)]);
}

pub async fn a_stranger_knows_of_nothing(rig: Rig) {
    let id = rig.submit().await;
    let bob = rig.user("bob", Role::User);
    assert_eq!(bob.get(&[id]).await.unwrap(), [None]);
    assert_eq!(bob.list(&JobQuery::default()).await.unwrap().total, 0);
    assert_eq!(bob.cancel(id).await, Err(Error::JobNotFound));
    assert_eq!(bob.output(id, OutputQuery::default()).await.map(drop), Err(Error::JobNotFound));
    assert_eq!(bob.watch(WatchQuery::Job(id)).await.map(drop), Err(Error::JobNotFound));
    assert_eq!(rig.status(id).await, Status::Queued);
}

pub async fn a_viewer_sees_its_own_and_changes_nothing(rig: Rig) {
    let id = rig.submit().await;
    let viewer = rig.user("ada", Role::Viewer);
    assert_eq!(viewer.job(id).await.unwrap().id, id);
    assert_eq!(viewer.list(&JobQuery::default()).await.unwrap().total, 1);
    assert!(matches!(viewer.cancel(id).await, Err(Error::Forbidden(_))));
    assert!(matches!(viewer.submit(JobSpec::shell("true")).await, Err(Error::Forbidden(_))));
    let stranger = rig.user("bob", Role::Viewer);
    assert_eq!(stranger.get(&[id]).await.unwrap(), [None]);
}

pub async fn an_admin_sees_and_changes_all(rig: Rig) {
    let id = rig.submit().await;
    let root = rig.user("root", Role::Admin);
    assert_eq!(root.job(id).await.unwrap().owner.as_str(), "ada");
    assert_eq!(root.list(&JobQuery::default()).await.unwrap().total, 1);
    assert_eq!(root.cancel(id).await, Ok(Status::Cancelled));
}

pub async fn only_an_admin_removes_workers(rig: Rig) {
    rig.worker("w").await;
    for role in [Role::User, Role::Viewer] {
        let refused = rig.user("ada", role).remove_worker(&worker_id("w")).await;
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{role:?}");
    }
    let root = rig.user("root", Role::Admin);
    assert_eq!(root.remove_worker(&worker_id("nobody")).await, Err(Error::WorkerNotFound));
    root.remove_worker(&worker_id("w")).await.unwrap();
    assert_eq!(root.remove_worker(&worker_id("w")).await, Err(Error::WorkerNotFound));
    assert!(root.workers(None).await.unwrap().is_empty());
}

pub async fn watching_a_job_says_where_it_stands_and_each_change_until_it_ends(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let ada = rig.ada();
    let mut updates = ada.watch(WatchQuery::Job(id)).await.unwrap();
    assert_eq!(within(updates.next()).await.unwrap().unwrap().status, Status::Queued);
    let leased = worker.take().await;
    assert_eq!(within(updates.next()).await.unwrap().unwrap().status, Status::Running);
    worker.exit(&leased, 0).await;
    let last = within(updates.next()).await.unwrap().unwrap();
    assert_eq!((last.status, last.exit_code, last.worker), (Status::Completed, Some(0), Some(worker_id("w"))));
    assert!(within(updates.next()).await.is_none());
}

pub async fn watching_a_job_that_has_ended_says_so_and_ends(rig: Rig) {
    let id = rig.submit().await;
    rig.ada().cancel(id).await.unwrap();
    let mut updates = rig.ada().watch(WatchQuery::Job(id)).await.unwrap();
    assert_eq!(within(updates.next()).await.unwrap().unwrap().status, Status::Cancelled);
    assert!(within(updates.next()).await.is_none());
}

pub async fn waiting_for_a_job_gives_it_when_it_has_ended(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let ada = rig.ada();
    let work = async {
        let leased = worker.take().await;
        worker.exit(&leased, 3).await;
    };
    let (done, ()) = within(async { tokio::join!(ada.wait(id), work) }).await;
    assert_eq!(done.unwrap().status, Status::Failed);
}

pub async fn a_job_shows_its_attempts(rig: Rig) {
    let worker = rig.worker("w").await;
    let mut spec = JobSpec::shell("true");
    spec.retries = 1;
    let id = rig.submit_spec(spec).await;
    worker.finish(&worker.take().await, Outcome::Signaled { signal: 9 }).await.unwrap();
    rig.advance_until(id, Status::Queued).await;
    let second = worker.take_soon().await;
    let view = rig.view(id).await;
    let attempts: Vec<_> =
        view.attempts.iter().map(|a| (a.number, a.outcome, a.exit_code, a.ended.is_some())).collect();
    assert_eq!(attempts, [(1, Some(Ended::ExitCode), Some(137), true), (2, None, None, false)]);
    worker.exit(&second, 0).await;
    let view = rig.view(id).await;
    assert_eq!(view.attempts[1].outcome, Some(Ended::Completed));
    assert_eq!((view.details.duration, view.completed), (Some(Duration::from_millis(1_500)), view.attempts[1].ended));
}

pub async fn how_long_an_attempt_took_is_known_where_its_worker_does_not_say(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    worker.finish(&leased, Outcome::Returned).await.unwrap();
    let leased = worker.take_soon().await;
    rig.clock.advance(Duration::from_secs(7));
    let silent = FinishedAttempt { details: Details::default(), ..report(&leased, Outcome::Exited { code: 0 }) };
    worker.report(silent).await.unwrap();
    assert_eq!(rig.view(id).await.details.duration, Some(Duration::from_secs(7)));
}

pub async fn stats_are_of_ones_own_jobs(rig: Rig) {
    let worker = rig.worker("w").await;
    rig.submit().await;
    let leased = worker.take().await;
    rig.submit().await;
    let eve = rig.user("eve", Role::User);
    let stats = eve.stats().await.unwrap();
    assert_eq!((stats.jobs.len(), stats.jobs.values().sum::<u64>()), (Status::ALL.len(), 0));
    assert!(stats.queues.is_empty());
    assert_eq!(stats.workers.values().sum::<u64>(), 1, "workers are shown to all");
    let stats = rig.ada().stats().await.unwrap();
    assert_eq!((stats.jobs[&Status::Queued], stats.jobs[&Status::Running]), (1, 1));
    assert!(stats.queues.is_empty(), "others' jobs may wait in them");
    worker.exit(&leased, 0).await;
    eventually("a finished job to be counted", async || {
        (rig.ada().stats().await.unwrap().finished_last_minute == 1).then_some(())
    })
    .await;
    assert_eq!(eve.stats().await.unwrap().finished_last_minute, 0);
    assert_eq!(rig.user("root", Role::Admin).stats().await.unwrap().finished_last_minute, 1);
}

pub async fn stats_count_jobs_queues_and_workers(rig: Rig) {
    let worker = rig.worker("w").await;
    let leased = {
        rig.submit().await;
        worker.take().await
    };
    worker.holds(&[&leased]).await;
    rig.submit().await;
    rig.clock.advance(Duration::from_secs(5));
    let stats = rig.user("root", Role::Admin).stats().await.unwrap();
    assert_eq!((stats.jobs[&Status::Queued], stats.jobs[&Status::Running], stats.jobs[&Status::Failed]), (1, 1, 0));
    assert_eq!(stats.jobs.len(), Status::ALL.len());
    assert_eq!((stats.queues.len(), stats.queues[0].queued), (1, 1));
    assert_eq!(stats.queues[0].head_wait, Duration::from_secs(5));
    assert_eq!(stats.workers[&WorkerStatus::Busy], 1);
    worker.exit(&leased, 0).await;
    eventually("a finished job to be counted", async || {
        (rig.ada().stats().await.unwrap().finished_last_minute == 1).then_some(())
    })
    .await;
}

pub async fn workers_are_shown_as_they_say_they_are(rig: Rig) {
    let worker = rig.worker("w").await;
    rig.submit().await;
    let leased = worker.take().await;
    worker.holds(&[&leased]).await;
    let shown = rig.ada().workers(None).await.unwrap().remove(0);
    assert_eq!((shown.id, shown.hostname.as_str(), shown.status), (worker_id("w"), "host", WorkerStatus::Busy));
    assert_eq!((shown.cpu_count, shown.total_memory_mb, shown.slots), (4, 4_096, Some(4)));
    assert!((shown.cpu_usage - 12.5).abs() < 0.01 && (shown.ram_usage - 50.0).abs() < 0.01);
    assert_eq!((shown.running, shown.labels), (vec![leased.job], vec!["linux".to_owned()]));
    assert_eq!(shown.version.as_deref(), Some("1.2.3"));
    worker.exit(&leased, 0).await;
    worker.holds(&[]).await;
    let shown = rig.ada().workers(Some(&[worker_id("w"), worker_id("nobody")])).await.unwrap();
    assert_eq!(shown.len(), 1);
    assert_eq!((shown[0].jobs_completed, shown[0].jobs_failed), (1, 0));
    rig.clock.advance(Duration::from_secs(61));
    assert_eq!(rig.ada().workers(None).await.unwrap()[0].status, WorkerStatus::Offline);
}

pub async fn what_a_worker_runs_is_shown_to_whom_it_belongs(rig: Rig) {
    let worker = rig.worker("w").await;
    let adas = rig.submit().await;
    let bobs = rig.user("bob", Role::User).submit(JobSpec::shell("true")).await.unwrap().id;
    let leased = [worker.take().await, worker.take().await];
    worker.holds(&leased.each_ref()).await;
    for (name, role, mut seen) in [
        ("ada", Role::User, vec![adas]),
        ("bob", Role::Viewer, vec![bobs]),
        ("eve", Role::User, vec![]),
        ("root", Role::Admin, vec![adas, bobs]),
    ] {
        let jobs = rig.user(name, role);
        for mut shown in [jobs.workers(None).await.unwrap(), jobs.workers(Some(&[worker_id("w")])).await.unwrap()] {
            let mut shown = shown.remove(0);
            assert_eq!(shown.status, WorkerStatus::Busy, "{name}");
            shown.running.sort();
            seen.sort();
            assert_eq!(shown.running, seen, "{name}");
        }
    }
}

pub async fn what_a_worker_says_when_it_comes_is_shown_until_it_beats(rig: Rig) {
    let usage = Usage { status: WorkerStatus::Error, cpu: 40.0, ram: 60.0 };
    let worker = rig.worker_with("w", |registration| registration.usage = Some(usage)).await;
    let shown = rig.ada().workers(None).await.unwrap().remove(0);
    assert_eq!(shown.status, WorkerStatus::Error);
    assert!((shown.cpu_usage - 40.0).abs() < 0.01 && (shown.ram_usage - 60.0).abs() < 0.01);
    assert_eq!(rig.ada().stats().await.unwrap().workers[&WorkerStatus::Error], 1);
    worker.holds(&[]).await;
    let shown = rig.ada().workers(None).await.unwrap().remove(0);
    assert_eq!(shown.status, WorkerStatus::Idle);
    assert!((shown.cpu_usage - 12.5).abs() < 0.01 && (shown.ram_usage - 50.0).abs() < 0.01);
}
