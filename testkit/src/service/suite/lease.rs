//! Leasing: who gets what, in which order, and what a lease is good for.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::executor::{Capabilities, Kind};
use cmdexec_core::job::{JobSpec, Network, Outcome, Status};
use cmdexec_core::service::{
    JobServiceExt, LeaseRequest, OutputBatch, OutputPieces, Role, Submission, Usage, WorkerPrincipal, WorkerStatus,
};
use cmdexec_core::time::Clock;

use crate::service::rig::{Rig, eventually, ids, jobs, registration, within, worker_id};

pub async fn a_lease_says_what_to_run(rig: Rig) {
    let worker = rig.worker("w").await;
    let mut spec = JobSpec::argv(["/bin/echo", "x"]);
    spec.env.insert("A".to_owned(), "b".to_owned());
    spec.resources.cpu_millis = Some(500);
    spec.timeout = Duration::from_secs(12);
    let id = rig.submit_spec(spec.clone()).await;
    let leased = worker.take().await;
    assert_eq!((leased.job, leased.attempt, leased.lease), (id, 1, Duration::from_mins(1)));
    assert_eq!(leased.expires, rig.clock.now().after(Duration::from_mins(1)));
    assert_eq!((&leased.spec.command, &leased.spec.env), (&spec.command, &spec.env));
    assert_eq!((leased.spec.resources, leased.spec.timeout), (spec.resources, spec.timeout));
    let view = rig.view(id).await;
    assert_eq!(
        (view.status, view.worker, view.started),
        (Status::Running, Some(worker_id("w")), Some(rig.clock.now()))
    );
}

pub async fn the_oldest_of_the_highest_priority_is_first(rig: Rig) {
    let worker = rig.worker_with("w", |r| r.slots = Some(16)).await;
    let with = |priority| {
        let mut spec = JobSpec::shell("true");
        spec.priority = priority;
        spec
    };
    let specs = [0, 5, 0, -5, 5].map(with).to_vec();
    let submitted = ids(&rig.ada().submit_batch(Submission { specs, idempotency_key: None }).await.unwrap());
    let expected: Vec<_> = [1, 4, 0, 2, 3].map(|i| submitted[i]).to_vec();
    assert_eq!(jobs(&worker.ask(16).await), expected);
}

/// Asking is capacity: a worker's slots are free before its reports have arrived, and it knows that first.
pub async fn as_many_come_as_are_asked_for(rig: Rig) {
    let worker = rig.worker("w").await;
    let specs = vec![JobSpec::shell("true"); 10];
    rig.ada().submit_batch(Submission { specs, idempotency_key: None }).await.unwrap();
    let mut leased = worker.ask(3).await;
    assert_eq!(leased.len(), 3);
    leased.extend(worker.ask(5).await);
    assert_eq!(leased.len(), 8);
    leased.extend(worker.ask(5).await);
    assert_eq!(leased.len(), 10);
    let tokens: HashSet<_> = leased.iter().map(|l| l.token).collect();
    assert_eq!(tokens.len(), 10);
}

pub async fn a_job_goes_only_where_its_resources_fit(rig: Rig) {
    let small = rig.worker_with("small", |r| (r.cpu_count, r.total_memory_mb) = (1, 512)).await;
    let large = rig.worker("large").await;
    let mut spec = JobSpec::shell("true");
    spec.resources.cpu_millis = Some(2_000);
    let by_cpu = rig.submit_spec(spec).await;
    let mut spec = JobSpec::shell("true");
    spec.resources.memory_mb = Some(1_024);
    let by_memory = rig.submit_spec(spec).await;
    assert!(small.ask(4).await.is_empty());
    let got: HashSet<_> = jobs(&large.ask(4).await).into_iter().collect();
    assert_eq!(got, HashSet::from([by_cpu, by_memory]));
}

pub async fn what_a_worker_has_leased_is_not_free(rig: Rig) {
    let worker = rig.worker("w").await;
    let mut spec = JobSpec::shell("true");
    spec.resources.cpu_millis = Some(3_000);
    let first = rig.submit_spec(spec.clone()).await;
    let second = rig.submit_spec(spec).await;
    let leased = worker.ask(4).await;
    assert_eq!(jobs(&leased), [first]);
    let nothing = rig.submit().await;
    assert_eq!(jobs(&worker.ask(4).await), [nothing], "what fits nowhere blocks nobody");
    worker.exit(&leased[0], 0).await;
    assert_eq!(jobs(&worker.ask(4).await), [second]);
}

pub async fn a_job_goes_only_where_its_labels_are(rig: Rig) {
    let without = rig.worker("without").await;
    let with = rig.worker_with("with", |r| r.labels.extend(["gpu".to_owned()])).await;
    let mut spec = JobSpec::shell("true");
    spec.labels = ["gpu".to_owned(), "linux".to_owned()].into();
    let id = rig.submit_spec(spec).await;
    assert!(without.ask(1).await.is_empty());
    assert_eq!(jobs(&with.ask(1).await), [id]);
}

pub async fn a_container_job_waits_for_a_worker_that_has_containers(rig: Rig) {
    let process = rig.worker("process").await;
    let mut spec = JobSpec::shell("true");
    spec.container_image = Some("alpine".to_owned());
    let id = rig.submit_spec(spec).await;
    assert!(process.ask(1).await.is_empty());
    let docker = Capabilities { kind: Kind::Docker, limits: [].into(), gpus: 0 };
    let docker = rig.worker_with("docker", |r| r.executors = Some(vec![docker])).await;
    rig.submit().await;
    assert_eq!(jobs(&docker.ask(4).await), [id], "it can't run processes");
}

pub async fn no_network_goes_only_where_that_is_enforced(rig: Rig) {
    let open = Capabilities { kind: Kind::Process, limits: [].into(), gpus: 0 };
    let open = rig.worker_with("open", |r| r.executors = Some(vec![open])).await;
    let enforcing = rig.worker("enforcing").await;
    let mut spec = JobSpec::shell("true");
    spec.network = Some(Network::None);
    let id = rig.submit_spec(spec).await;
    assert!(open.ask(1).await.is_empty());
    assert_eq!(jobs(&enforcing.ask(1).await), [id]);
}

pub async fn a_question_waits_for_a_job(rig: Rig) {
    let worker = rig.worker("w").await;
    let request = LeaseRequest { max: 1, wait: Duration::from_secs(30) };
    let submit = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        rig.submit().await
    };
    let (leased, id) = within(async { tokio::join!(worker.service.lease(&worker.id, request), submit) }).await;
    assert_eq!(jobs(&leased.unwrap()), [id]);
}

pub async fn a_question_waits_no_longer_than_it_says(rig: Rig) {
    let worker = rig.worker("w").await;
    let request = LeaseRequest { max: 1, wait: Duration::from_secs(10) };
    let pass = async {
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            rig.clock.advance(Duration::from_secs(1));
        }
    };
    let answer = within(async {
        tokio::select! {
            answer = worker.service.lease(&worker.id, request) => answer,
            () = pass => unreachable!(),
        }
    })
    .await;
    assert_eq!(answer, Ok(Vec::new()));
}

pub async fn a_question_that_is_dropped_leaves_its_job_to_others(rig: Rig) {
    let (gone, here) = (rig.worker("gone").await, rig.worker("here").await);
    let request = LeaseRequest { max: 1, wait: Duration::from_secs(30) };
    tokio::select! {
        _ = gone.service.lease(&gone.id, request) => panic!("there was nothing to lease"),
        () = tokio::time::sleep(Duration::from_millis(50)) => {}
    }
    let id = rig.submit().await;
    // A transport may learn late that nobody waits any more; then the lease comes back because no beat lists it.
    let leased = eventually("the job to be leased by the other", async || {
        rig.clock.advance(Duration::from_secs(1));
        gone.holds(&[]).await;
        here.ask(1).await.pop()
    })
    .await;
    assert_eq!(leased.job, id);
}

pub async fn one_job_goes_to_one_worker(rig: Rig) {
    let mut workers = Vec::new();
    for i in 0..4 {
        workers.push(rig.worker_with(&format!("w{i}"), |r| r.slots = Some(100)).await);
    }
    let specs = vec![JobSpec::shell("true"); 100];
    let submitted = rig.ada().submit_batch(Submission { specs, idempotency_key: None }).await.unwrap();
    let mut leased = Vec::new();
    for _ in 0..10 {
        let asks = workers.iter().map(|worker| worker.ask(7));
        leased.extend(futures_util::future::join_all(asks).await.into_iter().flatten());
    }
    let got: Vec<_> = jobs(&leased);
    let unique: HashSet<_> = got.iter().copied().collect();
    assert_eq!((got.len(), unique.len()), (100, submitted.len()));
}

pub async fn a_worker_that_is_not_registered_is_told_so(rig: Rig) {
    let service = rig.worker_service(worker_id("w"));
    let request = LeaseRequest { max: 1, wait: Duration::ZERO };
    assert_eq!(service.lease(&worker_id("w"), request).await, Err(Error::WorkerNotFound));
}

pub async fn a_bound_worker_speaks_for_no_other(rig: Rig) {
    let worker = rig.worker("w").await;
    let other = rig.worker("other").await;
    rig.submit().await;
    let leased = other.take().await;
    let as_other = crate::service::rig::Agent { id: other.id.clone(), service: worker.service };
    let request = LeaseRequest { max: 1, wait: Duration::ZERO };
    let is_forbidden = |error: Error| assert!(matches!(error, Error::Forbidden(_)), "{error:?}");
    is_forbidden(as_other.service.register(registration("other")).await.unwrap_err());
    is_forbidden(as_other.beat(Some(&[])).await.unwrap_err());
    is_forbidden(as_other.service.lease(&other.id, request).await.unwrap_err());
    let report = crate::service::rig::report(&leased, Outcome::Exited { code: 0 });
    is_forbidden(as_other.service.finish(&other.id, vec![report]).await.unwrap_err());
    let batch = OutputBatch { job: leased.job, token: Some(leased.token), pieces: OutputPieces::Numbered(vec![]) };
    is_forbidden(as_other.service.append_output(&other.id, vec![batch]).await.unwrap_err());
    assert_eq!(rig.status(leased.job).await, Status::Running);
}

pub async fn an_unbound_worker_speaks_for_any(rig: Rig) {
    let service = rig.worker_service(WorkerPrincipal::Any);
    for name in ["one", "two"] {
        let registered = service.register(registration(name)).await.unwrap();
        assert_eq!(registered.worker, worker_id(name));
    }
}

pub async fn a_bound_worker_that_brings_no_id_is_the_one_it_is_bound_to(rig: Rig) {
    let service = rig.worker_service(worker_id("w"));
    let mut registration = registration("w");
    registration.worker = None;
    assert_eq!(service.register(registration).await.unwrap().worker, worker_id("w"));
}

pub async fn a_worker_without_an_id_is_given_one(rig: Rig) {
    let service = rig.worker_service(WorkerPrincipal::Any);
    let mut registration = registration("unused");
    registration.worker = None;
    let first = service.register(registration.clone()).await.unwrap();
    let second = service.register(registration).await.unwrap();
    assert_ne!(first.worker, second.worker);
    assert_eq!(first.lease, Duration::from_mins(1));
    assert_eq!(first.heartbeat_interval, Duration::from_secs(10));
}

pub async fn a_job_is_cancelled_at_once_where_no_worker_has_it(rig: Rig) {
    let worker = rig.worker("w").await;
    let queued = rig.submit().await;
    let mut spec = JobSpec::shell("true");
    spec.run_at = Some(rig.clock.now().after(Duration::from_mins(1)));
    let scheduled = rig.submit_spec(spec).await;
    for id in [queued, scheduled] {
        assert_eq!(rig.ada().cancel(id).await, Ok(Status::Cancelled));
        assert_eq!(rig.ada().cancel(id).await, Err(Error::JobFinished));
    }
    assert!(worker.ask(4).await.is_empty());
    let view = rig.ada().job(queued).await.unwrap();
    assert_eq!((view.completed, view.exit_code, view.reason), (Some(rig.clock.now()), None, None));
}

pub async fn a_running_job_is_cancelled_when_its_worker_says_so(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    assert_eq!(rig.ada().cancel(id).await, Ok(Status::Cancelling));
    assert_eq!(rig.ada().cancel(id).await, Ok(Status::Cancelling), "asking again is harmless");
    let reply = worker.holds(&[&leased]).await;
    assert_eq!((reply.cancel, reply.lost), (vec![id], vec![]));
    let ack = worker.write(&leased, vec![]).await.unwrap();
    assert!(ack.cancel);
    worker.finish(&leased, Outcome::Stopped).await.unwrap();
    assert_eq!(rig.status(id).await, Status::Cancelled);
    assert_eq!(rig.ada().cancel(id).await, Err(Error::JobFinished));
}

pub async fn a_cancelling_job_that_succeeds_all_the_same_is_completed(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    rig.ada().cancel(id).await.unwrap();
    worker.exit(&leased, 0).await;
    assert_eq!(rig.status(id).await, Status::Completed);
}

pub async fn a_cancelling_job_is_never_tried_again(rig: Rig) {
    let worker = rig.worker("w").await;
    let mut spec = JobSpec::shell("true");
    spec.retries = 5;
    for outcome in [
        Outcome::Exited { code: 1 },
        Outcome::TimedOut,
        Outcome::Returned,
        Outcome::ExecutorError { message: "x".to_owned() },
    ] {
        let id = rig.submit_spec(spec.clone()).await;
        let leased = worker.take().await;
        rig.ada().cancel(id).await.unwrap();
        worker.finish(&leased, outcome).await.unwrap();
        assert_eq!(rig.status(id).await, Status::Cancelled);
    }
    let id = rig.submit_spec(spec).await;
    worker.take().await;
    rig.ada().cancel(id).await.unwrap();
    rig.advance_until(id, Status::Cancelled).await;
}

pub async fn cancelling_during_a_retry_delay_is_immediate(rig: Rig) {
    let worker = rig.worker("w").await;
    let mut spec = JobSpec::shell("true");
    spec.retries = 1;
    let id = rig.submit_spec(spec).await;
    worker.exit(&worker.take().await, 1).await;
    assert_eq!(rig.status(id).await, Status::Scheduled);
    assert_eq!(rig.ada().cancel(id).await, Ok(Status::Cancelled));
}

pub async fn a_removed_worker_gets_nothing_and_is_told_to_drop_what_it_has(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    worker.holds(&[&leased]).await;
    rig.submit().await;
    rig.user("root", Role::Admin).remove_worker(&worker.id).await.unwrap();
    let request = LeaseRequest { max: 1, wait: Duration::ZERO };
    assert!(matches!(worker.service.lease(&worker.id, request).await, Err(Error::Forbidden(_))));
    assert!(matches!(worker.service.register(registration("w")).await, Err(Error::Forbidden(_))));
    assert_eq!(worker.holds(&[&leased]).await.lost, [id]);
    // It confirms the stop: the job is tried elsewhere.
    worker.holds(&[]).await;
    assert!(matches!(worker.beat(Some(&[])).await, Err(Error::Forbidden(_))), "its leases have ended");
    let other = rig.worker("other").await;
    let again = eventually("the job to come back", async || {
        rig.clock.advance(Duration::from_secs(1));
        other.ask(4).await.into_iter().find(|leased| leased.job == id)
    })
    .await;
    assert_eq!(again.attempt, 2);
}

pub async fn a_removed_worker_may_still_report(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    rig.user("root", Role::Admin).remove_worker(&worker.id).await.unwrap();
    worker.exit(&leased, 0).await;
    assert_eq!(rig.status(id).await, Status::Completed);
}

pub async fn a_worker_that_drains_or_is_broken_gets_nothing_until_it_says_otherwise(rig: Rig) {
    let worker = rig.worker("w").await;
    for status in [WorkerStatus::Draining, WorkerStatus::Error] {
        worker.beat_as(status).await;
        let id = rig.submit().await;
        assert_eq!(worker.ask(1).await, []);
        let asking = tokio::spawn({
            let (service, worker) = (Arc::clone(&worker.service), worker.id.clone());
            let request = LeaseRequest { max: 1, wait: Duration::from_secs(60) };
            async move { service.lease(&worker, request).await }
        });
        // A poll that waits is answered once the worker takes jobs again.
        worker.beat_as(WorkerStatus::Idle).await;
        let leased = within(asking).await.unwrap().unwrap();
        assert_eq!(jobs(&leased), [id]);
        worker.exit(&leased[0], 0).await;
    }
}

pub async fn a_worker_that_comes_draining_gets_nothing_until_it_says_otherwise(rig: Rig) {
    let usage = Usage { status: WorkerStatus::Draining, cpu: 0.0, ram: 0.0 };
    let worker = rig.worker_with("w", |registration| registration.usage = Some(usage)).await;
    rig.submit().await;
    assert_eq!(worker.ask(1).await, []);
    rig.worker("w").await;
    worker.take().await;
}
