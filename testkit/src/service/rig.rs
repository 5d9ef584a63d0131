//! What the suite's tests work with: the services of some users and workers, and the clock behind them.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::{Capabilities, Kind, Limit, OutputChunk, Stream};
use cmdexec_core::files::Files;
use cmdexec_core::id::{JobId, Owner, WorkerId};
use cmdexec_core::job::{Details, JobSpec, Outcome, Status};
use cmdexec_core::service::{
    FinalOutput, FinishedAttempt, Heartbeat, HeartbeatReply, JobService, JobServiceExt, JobView, LeaseRequest,
    LeasedJob, OutputAck, OutputBatch, OutputEvent, OutputPieces, OutputQuery, OutputStream, Registration, Role,
    Services, SubmittedJob, Usage, UserPrincipal, WorkerPrincipal, WorkerService, WorkerStatus,
};
use cmdexec_core::store::{Chunk, Listed, MemoryStore};
use cmdexec_core::time::ManualClock;
use futures_util::StreamExt;

/// A coordinator under test, or the far end of a transport to one. Made anew for each test, with the default
/// options, an empty store, and a clock that stands still.
pub struct Rig {
    services: Arc<dyn Services>,
    /// The clock that the coordinator and its store run by.
    pub clock: ManualClock,
    kept: Box<dyn Any + Send + Sync>,
}

/// A coordinator as a rig has it: over an empty store in memory, with files, and run by this clock alone.
///
/// # Panics
/// It can't be made.
pub async fn in_memory(clock: &ManualClock) -> Coordinator {
    let store = MemoryStore::with_clock(Arc::new(clock.clone()));
    let coordinator = Coordinator::builder(store).clock(Arc::new(clock.clone())).files(Files::in_memory()).seed(1);
    coordinator.build().await.unwrap()
}

impl fmt::Debug for Rig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rig").field("services", &self.services).finish_non_exhaustive()
    }
}

impl Rig {
    /// A rig of these services, over a coordinator that runs by this clock.
    pub fn new(services: Arc<dyn Services>, clock: ManualClock) -> Self {
        Self { services, clock, kept: Box::new(()) }
    }

    /// Keeps something until the test is over, such as the server behind the services.
    #[must_use]
    pub fn keeping(mut self, kept: impl Any + Send + Sync) -> Self {
        self.kept = Box::new(kept);
        self
    }

    pub(crate) fn user(&self, name: &str, role: Role) -> Arc<dyn JobService> {
        self.services.as_user(UserPrincipal { owner: owner(name), role })
    }

    /// The services of a plain user.
    pub(crate) fn ada(&self) -> Arc<dyn JobService> {
        self.user("ada", Role::User)
    }

    pub(crate) fn worker_service(&self, principal: impl Into<WorkerPrincipal>) -> Arc<dyn WorkerService> {
        self.services.as_worker(principal.into())
    }

    /// A worker of this protocol version that has registered: 4 processors, 4 GiB, 4 slots, processes only.
    pub(crate) async fn worker(&self, name: &str) -> Agent {
        self.worker_with(name, |_| ()).await
    }

    pub(crate) async fn worker_with(&self, name: &str, change: impl FnOnce(&mut Registration)) -> Agent {
        let mut registration = registration(name);
        change(&mut registration);
        let service = self.worker_service(worker_id(name));
        service.register(registration).await.unwrap();
        Agent { id: worker_id(name), service }
    }

    /// Submits one plain job of ada's.
    pub(crate) async fn submit(&self) -> JobId {
        self.submit_spec(JobSpec::shell("true")).await
    }

    pub(crate) async fn submit_spec(&self, spec: JobSpec) -> JobId {
        self.ada().submit(spec).await.unwrap().id
    }

    pub(crate) async fn view(&self, id: JobId) -> JobView {
        self.user("root", Role::Admin).job(id).await.unwrap()
    }

    pub(crate) async fn status(&self, id: JobId) -> Status {
        self.view(id).await.status
    }

    /// Waits until the coordinator's own loops have brought a job there. Does not move the clock.
    pub(crate) async fn becomes(&self, id: JobId, status: Status) {
        eventually(&format!("{id} to be {status}"), async || (self.status(id).await == status).then_some(())).await;
    }

    /// As [`Rig::becomes`], with the clock moved by the little that the coordinator's sweep needs to look again.
    pub(crate) async fn becomes_after_a_sweep(&self, id: JobId, status: Status) {
        self.clock.advance(Duration::from_secs(1));
        self.becomes(id, status).await;
    }

    /// Moves the clock by small steps until a job is there, so that loops that wait by it come along.
    pub(crate) async fn advance_until(&self, id: JobId, status: Status) {
        eventually(&format!("{id} to be {status}"), async || {
            self.clock.advance(Duration::from_secs(1));
            (self.status(id).await == status).then_some(())
        })
        .await;
    }

    /// Everything that is there of a job's output.
    pub(crate) async fn output(&self, id: JobId) -> Vec<OutputEvent> {
        self.output_with(id, OutputQuery::default()).await
    }

    pub(crate) async fn output_with(&self, id: JobId, query: OutputQuery) -> Vec<OutputEvent> {
        self.ada().output(id, query).await.unwrap().map(Result::unwrap).collect().await
    }
}

/// Waits until something is so, as other tasks make it. Fails after 20 seconds of real time and more.
pub(crate) async fn eventually<T>(what: &str, is_so: impl AsyncFn() -> Option<T>) -> T {
    for _ in 0..10_000 {
        if let Some(found) = is_so().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("waited in vain for {what}")
}

/// The next event of a stream that follows; fails if none comes.
pub(crate) async fn next(stream: &mut OutputStream) -> OutputEvent {
    within(stream.next()).await.expect("the stream has ended").unwrap()
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("nothing came")
}

pub(crate) fn owner(name: &str) -> Owner {
    name.parse().unwrap()
}

pub(crate) fn worker_id(name: &str) -> WorkerId {
    name.parse().unwrap()
}

pub(crate) fn registration(name: &str) -> Registration {
    Registration {
        worker: Some(worker_id(name)),
        executors: Some(vec![Capabilities { kind: Kind::Process, limits: [Limit::NoNetwork].into(), gpus: 0 }]),
        slots: Some(4),
        labels: ["linux".to_owned()].into(),
        version: Some("1.2.3".to_owned()),
        ..Registration::new("host", 4, 4_096)
    }
}

/// A worker, played by the test.
pub(crate) struct Agent {
    pub(crate) id: WorkerId,
    pub(crate) service: Arc<dyn WorkerService>,
}

impl Agent {
    /// What there is for it now.
    pub(crate) async fn ask(&self, max: usize) -> Vec<LeasedJob> {
        self.service.lease(&self.id, LeaseRequest { max, wait: Duration::ZERO }).await.unwrap()
    }

    /// The one job that there is for it now.
    pub(crate) async fn take(&self) -> LeasedJob {
        let mut leased = self.ask(1).await;
        assert_eq!(leased.len(), 1, "there should have been a job");
        leased.remove(0)
    }

    /// A job that will be there for it soon without the clock moving.
    pub(crate) async fn take_soon(&self) -> LeasedJob {
        eventually("a lease", async || self.ask(1).await.pop()).await
    }

    pub(crate) async fn beat(&self, held: Option<&[&LeasedJob]>) -> Result<HeartbeatReply, Error> {
        let held = held.map(|held| held.iter().map(|l| Listed { job: l.job, token: l.token }).collect());
        let usage = Usage { status: WorkerStatus::Busy, cpu: 12.5, ram: 50.0 };
        self.service.heartbeat(&self.id, Heartbeat { usage, held }).await
    }

    pub(crate) async fn beat_as(&self, status: WorkerStatus) {
        let usage = Usage { status, cpu: 0.0, ram: 0.0 };
        self.service.heartbeat(&self.id, Heartbeat { usage, held: Some(Vec::new()) }).await.unwrap();
    }

    pub(crate) async fn holds(&self, held: &[&LeasedJob]) -> HeartbeatReply {
        self.beat(Some(held)).await.unwrap()
    }

    pub(crate) async fn finish(&self, leased: &LeasedJob, outcome: Outcome) -> Result<(), Error> {
        self.report(report(leased, outcome)).await
    }

    pub(crate) async fn exit(&self, leased: &LeasedJob, code: i32) {
        self.finish(leased, Outcome::Exited { code }).await.unwrap();
    }

    pub(crate) async fn report(&self, report: FinishedAttempt) -> Result<(), Error> {
        let mut answers = self.service.finish(&self.id, vec![report]).await.unwrap();
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    pub(crate) async fn write(&self, leased: &LeasedJob, chunks: Vec<Chunk>) -> Result<OutputAck, Error> {
        self.append(leased, true, OutputPieces::Numbered(chunks)).await
    }

    /// As a worker of an earlier protocol version does.
    pub(crate) async fn write_plain(&self, leased: &LeasedJob, text: &str) -> Result<OutputAck, Error> {
        let chunk = OutputChunk { stream: Stream::Stdout, bytes: Bytes::copy_from_slice(text.as_bytes()) };
        self.append(leased, false, OutputPieces::Plain(vec![chunk])).await
    }

    async fn append(&self, leased: &LeasedJob, token: bool, pieces: OutputPieces) -> Result<OutputAck, Error> {
        let batch = OutputBatch { job: leased.job, token: token.then_some(leased.token), pieces };
        let mut answers = self.service.append_output(&self.id, vec![batch]).await.unwrap();
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }
}

pub(crate) fn report(leased: &LeasedJob, outcome: Outcome) -> FinishedAttempt {
    FinishedAttempt {
        job: leased.job,
        token: Some(leased.token),
        outcome,
        details: Details::lasting(Duration::from_millis(1_500)),
        output: FinalOutput::None,
    }
}

pub(crate) fn out(seq: u64, text: &str) -> Chunk {
    Chunk { seq, stream: Stream::Stdout, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

pub(crate) fn err(seq: u64, text: &str) -> Chunk {
    Chunk { seq, stream: Stream::Stderr, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

/// What was written, in order, without regard for where chunks begin and end.
pub(crate) fn text(events: &[OutputEvent]) -> String {
    let bytes = events.iter().filter_map(|event| match event {
        OutputEvent::Chunk { bytes, .. } => Some(&bytes[..]),
        OutputEvent::Gap { .. } | OutputEvent::Reset { .. } | OutputEvent::End { .. } => None,
    });
    String::from_utf8(bytes.collect::<Vec<_>>().concat()).unwrap()
}

pub(crate) fn ids(submitted: &[SubmittedJob]) -> Vec<JobId> {
    submitted.iter().map(|job| job.id).collect()
}

pub(crate) fn jobs(leased: &[LeasedJob]) -> Vec<JobId> {
    leased.iter().map(|lease| lease.job).collect()
}
