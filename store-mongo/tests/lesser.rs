//! The contract, and what coordinators find out of each other, on a server that has no change streams and no retryable writes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::{FinishedAttempt, JobServiceExt, LeaseRequest, Registration};
use cmdexec_core::store::Store;
use cmdexec_core::time::ManualClock;
use cmdexec_store_mongo::MongoStore;
use cmdexec_testkit::store::Backend;
use support::{Place, lesser};

/// The server's address.
fn address() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| lesser::start(support::address().split(['/', '?']).nth(2).unwrap()))
}

struct Lesser(Place);

#[async_trait]
impl Backend for Lesser {
    async fn open(&self, clock: ManualClock) -> Arc<dyn Store> {
        Arc::new(MongoStore::options().database(self.0.name()).clock(Arc::new(clock)).open(address()).await.unwrap())
    }

    fn is_durable(&self) -> bool {
        true
    }
}

cmdexec_testkit::store_tests!(Lesser(Place::new()));

/// They look for themselves, every second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_submitted_at_one_coordinator_reaches_another_s_worker_and_its_end_comes_back() {
    let place = Place::new();
    let coordinator = || async {
        let store = MongoStore::options().database(place.name()).open(address()).await.unwrap();
        Coordinator::builder(store).build().await.unwrap()
    };
    let (here, there) = (coordinator().await, coordinator().await);
    let id: WorkerId = "w".parse().unwrap();
    let service = there.as_worker(id.clone());
    let registration = Registration { worker: Some(id.clone()), ..Registration::new("here", 4, 4_096) };
    service.register(registration).await.unwrap();
    for _ in 0..3 {
        let request = LeaseRequest { max: 1, wait: Duration::from_secs(60) };
        let submitting = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            here.jobs().submit(JobSpec::shell("true")).await.unwrap()
        };
        let (leased, submitted) = tokio::join!(service.lease(&id, request), submitting);
        let leased = leased.unwrap().pop().expect("nobody found the job");
        assert_eq!(leased.job, submitted.id);
        let jobs = here.jobs();
        let waiting = tokio::time::timeout(Duration::from_secs(60), jobs.wait(submitted.id));
        let done = FinishedAttempt::new(&leased, Outcome::Exited { code: 0 });
        let (ended, reported) = tokio::join!(waiting, service.finish(&id, vec![done]));
        assert_eq!(reported.unwrap(), [Ok(())]);
        assert_eq!(ended.unwrap().unwrap().status, Status::Completed);
    }
}
