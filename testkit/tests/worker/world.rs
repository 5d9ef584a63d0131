//! What the tests work with: a coordinator, a worker and a network between them, by a clock that the tests move.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::{FunctionExecutor, RunContext, Stream};
use cmdexec_core::files::Files;
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::job::{Command, JobSpec, Outcome, Status};
use cmdexec_core::service::{JobService, JobServiceExt, JobView};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::time::{Clock, ManualClock};
use cmdexec_core::worker::{Builder, Worker, WorkerHandle};
use cmdexec_testkit::service::FaultyWorkerService;

pub(crate) const DONE: Outcome = Outcome::Exited { code: 0 };

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) coordinator: Coordinator,
    pub(crate) jobs: Arc<dyn JobService>,
    pub(crate) service: FaultyWorkerService,
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = ManualClock::default();
        let store = MemoryStore::with_clock(Arc::new(clock.clone()));
        let builder = Coordinator::builder(store).clock(Arc::new(clock.clone())).files(Files::in_memory());
        let coordinator = builder.seed(1).build().await.unwrap();
        let service = FaultyWorkerService::new(coordinator.as_worker(WorkerId::local()));
        Self { clock, jobs: coordinator.jobs(), coordinator, service }
    }

    pub(crate) fn builder<F, Fut>(&self, function: F) -> Builder
    where
        F: Fn(RunContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let executor = FunctionExecutor::new(function).with_clock(Arc::clone(&clock));
        Worker::builder(Arc::new(self.service.clone()), executor).slots(4).clock(clock).seed(1)
    }

    pub(crate) async fn worker<F, Fut>(&self, function: F) -> WorkerHandle
    where
        F: Fn(RunContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.builder(function).start().await.unwrap()
    }

    pub(crate) async fn submit(&self, line: &str) -> JobId {
        self.jobs.submit(JobSpec::shell(line)).await.unwrap().id
    }

    pub(crate) async fn view(&self, id: JobId) -> JobView {
        self.jobs.job(id).await.unwrap()
    }

    /// Lets time pass in small steps, so that everything that waits for it comes along.
    pub(crate) async fn pass(&self, time: Duration) {
        let step = Duration::from_millis(250);
        let mut left = time;
        while !left.is_zero() {
            let step = step.min(left);
            self.clock.advance(step);
            left -= step;
            settle().await;
        }
    }

    /// Lets time pass until a job is there.
    pub(crate) async fn until(&self, id: JobId, status: Status) -> JobView {
        for _ in 0..2_000 {
            let view = self.view(id).await;
            if view.status == status {
                return view;
            }
            self.pass(Duration::from_millis(100)).await;
        }
        panic!("{id} is {} and not {status}", self.view(id).await.status)
    }
}

/// Lets every task go as far as it gets without the clock.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn line(context: &RunContext) -> String {
    match &context.spec.command {
        Command::Shell(line) => line.clone(),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn say(context: &RunContext, text: impl Into<Bytes>) {
    context.output.write(Stream::Stdout, text.into()).await;
}

/// Says when it is dropped.
pub(crate) struct OnDrop(ManualClock, Arc<Mutex<Option<Duration>>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        *self.1.lock().unwrap() = Some(self.0.uptime());
    }
}

pub(crate) fn on_drop(clock: &ManualClock, at: &Arc<Mutex<Option<Duration>>>) -> OnDrop {
    OnDrop(clock.clone(), Arc::clone(at))
}
