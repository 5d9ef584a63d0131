//! Another way to the same coordinator, for as long as there is no socket.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cmdexec_core::Error;
use cmdexec_core::files::{ByteStream, Download, FileId, GetRange};
use cmdexec_core::id::{JobId, LeaseToken, WorkerId};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, HeartbeatReply, LeaseRequest, LeasedJob, OutputAck, OutputBatch, Registered,
    Registration, StopStream, WorkerService,
};

use super::Client;

/// A worker's service over a socket, and over something else (HTTP) while the socket is away.
///
/// Each call goes over the socket if it is open; if it breaks meanwhile, what is safe to repeat is said again the other way. A question for jobs
/// that waits the other way is dropped when the socket is there, which gives back what it may have got. Losing the socket is not losing the worker: its
/// session and leases are the coordinator's, and the same either way. Files always go the other way.
pub struct Fallback {
    socket: Client,
    other: Arc<dyn WorkerService>,
}

impl Fallback {
    /// `other` must lead to the coordinator that the socket does, or to one that shares its store, as the same worker. The socket's options should have a
    /// [`retry_for`](super::Options::retry_for) of 0: the other way is there at once.
    pub fn new(socket: Client, other: Arc<dyn WorkerService>) -> Self {
        Self { socket, other }
    }

    /// The socket.
    pub fn socket(&self) -> &Client {
        &self.socket
    }

    /// Over the socket if it is open, and the other way if that brings no answer.
    async fn either<T>(
        &self,
        socket: impl Future<Output = Result<T, Error>> + Send,
        other: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        self.socket.link.begin();
        if self.socket.is_open() {
            match socket.await {
                // Either it says nothing now, or the server does, and then it says so again.
                Err(Error::Unavailable { .. }) if !self.socket.is_open() => {}
                answer => return answer,
            }
        }
        other.await
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").field("socket", &self.socket).field("other", &self.other).finish()
    }
}

#[async_trait]
impl WorkerService for Fallback {
    async fn register(&self, registration: Registration) -> Result<Registered, Error> {
        self.either(self.socket.register(registration.clone()), self.other.register(registration)).await
    }

    async fn heartbeat(&self, worker: &WorkerId, beat: Heartbeat) -> Result<HeartbeatReply, Error> {
        self.socket.link.begin();
        // Not one after the other: what it lists may be old by then. The worker beats again.
        if self.socket.is_open() {
            return self.socket.heartbeat(worker, beat).await;
        }
        self.other.heartbeat(worker, beat).await
    }

    async fn lease(&self, worker: &WorkerId, request: LeaseRequest) -> Result<Vec<LeasedJob>, Error> {
        self.socket.link.begin();
        // What was pushed a moment ago is this worker's, whatever became of the socket since.
        let here = self.socket.link.core.pushed.take(worker, request.max);
        if !here.is_empty() {
            return Ok(here);
        }
        if self.socket.is_open() {
            return tokio::select! {
                biased;
                leased = self.socket.lease(worker, request) => leased,
                // The worker asks again, and then it is the other way.
                () = self.socket.closed() => Ok(Vec::new()),
            };
        }
        tokio::select! {
            biased;
            leased = self.other.lease(worker, request) => leased,
            () = self.socket.opened() => self.socket.lease(worker, request).await,
        }
    }

    /// Over the socket, whenever there is one, and whatever the other way has to say.
    async fn stops(&self, worker: &WorkerId) -> Result<StopStream, Error> {
        let other = self.other.stops(worker).await?;
        Ok(Box::pin(futures_util::stream::select(self.socket.stops(worker).await?, other)))
    }

    async fn append_output(
        &self,
        worker: &WorkerId,
        batches: Vec<OutputBatch>,
    ) -> Result<Vec<Result<OutputAck, Error>>, Error> {
        self.either(self.socket.append_output(worker, batches.clone()), self.other.append_output(worker, batches)).await
    }

    async fn finish(&self, worker: &WorkerId, attempts: Vec<FinishedAttempt>) -> Result<Vec<Result<(), Error>>, Error> {
        self.either(self.socket.finish(worker, attempts.clone()), self.other.finish(worker, attempts)).await
    }

    async fn download(
        &self,
        worker: Option<&WorkerId>,
        file: FileId,
        range: Option<GetRange>,
    ) -> Result<Download, Error> {
        self.other.download(worker, file, range).await
    }

    async fn upload_artifacts(
        &self,
        worker: &WorkerId,
        job: JobId,
        token: Option<LeaseToken>,
        bytes: ByteStream,
    ) -> Result<FileId, Error> {
        self.other.upload_artifacts(worker, job, token, bytes).await
    }
}
