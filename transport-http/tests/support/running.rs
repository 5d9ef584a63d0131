//! A coordinator with a running job, spoken to directly.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::coordinator::{Coordinator, Options};
use cmdexec_core::executor::Stream;
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{Details, JobSpec, Outcome};
use cmdexec_core::service::{
    FinalOutput, FinishedAttempt, JobServiceExt, LeaseRequest, LeasedJob, OutputBatch, OutputPieces, Registration,
    Role, Services, WorkerService,
};
use cmdexec_core::store::{Chunk, MemoryStore};

/// The job is `ada`'s.
#[derive(Debug)]
pub struct Running {
    pub coordinator: Arc<Coordinator>,
    worker: Arc<dyn WorkerService>,
    pub me: WorkerId,
    pub leased: LeasedJob,
    next: u64,
}

impl Running {
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(options: impl FnOnce(&mut Options)) -> Self {
        let coordinator = Coordinator::builder(MemoryStore::new()).with_options(options).build().await.unwrap();
        let coordinator = Arc::new(coordinator);
        let me = WorkerId::local();
        let worker = coordinator.as_worker(me.clone());
        let registration = Registration { worker: Some(me.clone()), ..Registration::new("h", 1, 100) };
        worker.register(registration).await.unwrap();
        let owner = cmdexec_core::service::UserPrincipal { owner: "ada".parse().unwrap(), role: Role::User };
        coordinator.as_user(owner).submit(JobSpec::shell("x")).await.unwrap();
        let request = LeaseRequest { max: 1, wait: Duration::from_secs(5) };
        let leased = worker.lease(&me, request).await.unwrap().remove(0);
        Self { coordinator, worker, me, leased, next: 0 }
    }

    pub async fn write(&mut self, text: impl AsRef<[u8]>) {
        let chunk = Chunk { seq: self.next, stream: Stream::Stdout, bytes: Bytes::copy_from_slice(text.as_ref()) };
        self.next += 1;
        let (job, token) = (self.leased.job, Some(self.leased.token));
        let batch = OutputBatch { job, token, pieces: OutputPieces::Numbered(vec![chunk]) };
        self.worker.append_output(&self.me, vec![batch]).await.unwrap().remove(0).unwrap();
    }

    pub async fn end(&self) {
        let (job, token) = (self.leased.job, Some(self.leased.token));
        let outcome = Outcome::Exited { code: 0 };
        let report = FinishedAttempt { job, token, outcome, details: Details::default(), output: FinalOutput::None };
        self.worker.finish(&self.me, vec![report]).await.unwrap().remove(0).unwrap();
    }

    pub fn services(&self) -> Arc<dyn Services> {
        Arc::clone(&self.coordinator) as _
    }
}
