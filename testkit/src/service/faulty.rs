//! A worker's service that fails as a network does, when it is told to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cmdexec_core::Error;
use cmdexec_core::files::{ByteStream, Download, FileId, GetRange};
use cmdexec_core::id::{JobId, LeaseToken, WorkerId};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, HeartbeatReply, LeaseRequest, LeasedJob, OutputAck, OutputBatch, Registered,
    Registration, StopStream, WorkerService,
};

use crate::store::Fault;

/// A method of [`WorkerService`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the method of its name")]
pub enum WorkerCall {
    Register,
    Heartbeat,
    Lease,
    /// Counted once it is answered, and never made to fail: it promises nothing that could be broken.
    Stops,
    AppendOutput,
    Finish,
    Download,
    /// `upload_artifacts`.
    UploadArtifacts,
}

/// Hands every call to the service behind it, but for those that a [`Fault`] was injected for. Clones share their faults.
#[derive(Debug, Clone)]
pub struct FaultyWorkerService {
    inner: Arc<Mutex<Arc<dyn WorkerService>>>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    faults: VecDeque<(WorkerCall, Fault)>,
    down: bool,
    made: Vec<WorkerCall>,
    finished: Vec<usize>,
}

impl FaultyWorkerService {
    /// A service without faults so far.
    pub fn new(inner: Arc<dyn WorkerService>) -> Self {
        Self { inner: Arc::new(Mutex::new(inner)), state: Arc::default() }
    }

    /// Makes the next call of this method that no earlier fault is meant for go wrong.
    pub fn inject(&self, call: WorkerCall, fault: Fault) {
        self.state().faults.push_back((call, fault));
    }

    /// True: every call is refused until it is set to false again, as if the coordinator were out of reach.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// Puts another service behind it, as if the coordinator's address led somewhere else.
    pub fn replace(&self, inner: Arc<dyn WorkerService>) {
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = inner;
    }

    fn inner(&self) -> Arc<dyn WorkerService> {
        Arc::clone(&self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How often a method was called so far, refused calls included.
    pub fn calls(&self, call: WorkerCall) -> usize {
        self.state().made.iter().filter(|made| **made == call).count()
    }

    /// How many reports each call of [`WorkerService::finish`] carried so far.
    pub fn finished(&self) -> Vec<usize> {
        self.state().finished.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn through<T>(&self, call: WorkerCall, inner: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        const AWAY: Error = Error::Unavailable { retry_after: Duration::ZERO };
        let (fault, down) = {
            let mut state = self.state();
            state.made.push(call);
            let place = state.faults.iter().position(|(meant, _)| *meant == call);
            (place.and_then(|place| state.faults.remove(place)).map(|(_, fault)| fault), state.down)
        };
        if down {
            return Err(AWAY);
        }
        match fault {
            None => inner.await,
            Some(Fault::Refuse) => Err(AWAY),
            Some(Fault::LoseReply) => {
                inner.await?;
                Err(AWAY)
            }
            Some(Fault::HoldBefore(gate)) => {
                gate.pass().await;
                inner.await
            }
            Some(Fault::HoldAfter(gate)) => {
                let answer = inner.await;
                gate.pass().await;
                answer
            }
        }
    }
}

#[async_trait]
impl WorkerService for FaultyWorkerService {
    async fn register(&self, registration: Registration) -> Result<Registered, Error> {
        self.through(WorkerCall::Register, self.inner().register(registration)).await
    }

    async fn heartbeat(&self, worker: &WorkerId, beat: Heartbeat) -> Result<HeartbeatReply, Error> {
        self.through(WorkerCall::Heartbeat, self.inner().heartbeat(worker, beat)).await
    }

    async fn lease(&self, worker: &WorkerId, request: LeaseRequest) -> Result<Vec<LeasedJob>, Error> {
        self.through(WorkerCall::Lease, self.inner().lease(worker, request)).await
    }

    async fn stops(&self, worker: &WorkerId) -> Result<StopStream, Error> {
        let stops = self.inner().stops(worker).await;
        self.state().made.push(WorkerCall::Stops);
        stops
    }

    async fn append_output(
        &self,
        worker: &WorkerId,
        batches: Vec<OutputBatch>,
    ) -> Result<Vec<Result<OutputAck, Error>>, Error> {
        self.through(WorkerCall::AppendOutput, self.inner().append_output(worker, batches)).await
    }

    async fn finish(&self, worker: &WorkerId, attempts: Vec<FinishedAttempt>) -> Result<Vec<Result<(), Error>>, Error> {
        self.state().finished.push(attempts.len());
        self.through(WorkerCall::Finish, self.inner().finish(worker, attempts)).await
    }

    async fn download(
        &self,
        worker: Option<&WorkerId>,
        file: FileId,
        range: Option<GetRange>,
    ) -> Result<Download, Error> {
        self.through(WorkerCall::Download, self.inner().download(worker, file, range)).await
    }

    async fn upload_artifacts(
        &self,
        worker: &WorkerId,
        job: JobId,
        token: Option<LeaseToken>,
        bytes: ByteStream,
    ) -> Result<FileId, Error> {
        self.through(WorkerCall::UploadArtifacts, self.inner().upload_artifacts(worker, job, token, bytes)).await
    }
}
