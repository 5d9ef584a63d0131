//! A client of several servers over one store: any of them will do.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "a test fails by panicking, and not every test uses all of what they share"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, JobServiceExt, LeaseRequest, Registration, Role, Services, Usage, WorkerService,
    WorkerStatus,
};
use cmdexec_core::store::{Listed, MemoryStore};
use cmdexec_transport_http::Client;
use cmdexec_transport_http::client::BuildError;
use cmdexec_transport_http::server::Options;
use support::World;

#[tokio::test]
async fn a_server_that_is_gone_is_left_for_the_next() {
    let coordinator = Coordinator::builder(MemoryStore::new()).build().await.unwrap();
    let services: Arc<dyn Services> = Arc::new(coordinator);
    let first = World::over(Arc::clone(&services), Options::default()).await;
    let second = World::over(services, Options::default()).await;
    let client = Client::builder(format!("http://127.0.0.1:1, {},{}", first.url, second.url))
        .user_token(first.user_token("ada", Role::User))
        .worker_token(first.worker_token(None))
        .build()
        .unwrap();
    let job = client.submit(JobSpec::shell("true")).await.unwrap().id;
    assert_eq!(client.url(), first.url);
    let worker = "w".parse().unwrap();
    let registration = Registration { worker: Some("w".parse().unwrap()), ..Registration::new("here", 2, 1_024) };
    client.register(registration).await.unwrap();
    let leased = client.lease(&worker, LeaseRequest { max: 1, wait: Duration::from_secs(5) }).await.unwrap();
    first.stop().await;

    let usage = Usage { status: WorkerStatus::Busy, cpu: 1.0, ram: 1.0 };
    let held = Some(vec![Listed { job, token: leased[0].token }]);
    assert!(client.heartbeat(&worker, Heartbeat { usage, held }).await.unwrap().lost.is_empty());
    assert_eq!(client.url(), second.url);
    let report = FinishedAttempt::new(&leased[0], Outcome::Exited { code: 0 });
    assert_eq!(client.finish(&worker, vec![report]).await.unwrap(), [Ok(())]);
    assert_eq!(client.job(job).await.unwrap().status, Status::Completed);
}

#[test]
fn every_one_must_be_a_url() {
    let wrong = Client::builder("http://here:1,there").build().unwrap_err();
    assert!(matches!(wrong, BuildError::Url { url, .. } if url == "there"));
}
