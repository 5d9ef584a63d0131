//! Another way to the same coordinator, for as long as there is no socket.

use std::fmt;
use std::future::ready;
use std::sync::Arc;

use async_trait::async_trait;
use cmdexec_core::Error;
use cmdexec_core::files::{ByteStream, Download, FileId, GetRange};
use cmdexec_core::id::{JobId, LeaseToken, WorkerId};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, HeartbeatReply, LeaseRequest, LeasedJob, OutputAck, OutputBatch, Registered,
    Registration, StopStream, WorkerService,
};
use cmdexec_wire::is_repeatable;
use futures_util::{StreamExt, stream};

use super::Client;
use super::link::Failure;

/// A worker's service over a socket, and over something else (HTTP) while the socket is away.
///
/// Each call goes over the socket if it is open. What was not sent, because the socket was gone or takes no message of its size, goes the other way;
/// and so does what was sent over one that broke before the answer came, if it is safe to repeat. A question for jobs that waits the other way is
/// dropped when the socket is there, which gives back what it may have got. Losing the socket is not losing the worker: its session and leases are the
/// coordinator's, and the same either way. Files always go the other way.
///
/// # Errors
/// What the way says that was taken last. It is [`Error::Unavailable`] where a call may have been done and must not be done twice: a heartbeat, which is
/// to be made anew, and output without numbers, which may be there or not.
///
/// # Cancellation
/// A call that is dropped may have been done or not, and most may be made again ([`WorkerService`]). Dropping `lease` loses nothing: what
/// came for it is given to the next call, or goes back.
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

    /// Over the socket if it is open, and the other way if that brings no answer and the call may be made then.
    async fn either<T>(
        &self,
        is_repeatable: bool,
        socket: impl Future<Output = Result<T, Failure>> + Send,
        other: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        self.socket.link.begin();
        if self.socket.is_open() {
            match socket.await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Unsent(_)) => {}
                // While it is open the server says so again.
                Err(failure) if is_repeatable && failure.may_be_done() && !self.socket.is_open() => {}
                Err(failure) => return Err(failure.into()),
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
        self.either(true, self.socket.registered(&registration), self.other.register(registration.clone())).await
    }

    async fn heartbeat(&self, worker: &WorkerId, beat: Heartbeat) -> Result<HeartbeatReply, Error> {
        // Said again, it may list less than the worker has by then. The worker beats again.
        self.either(false, self.socket.beaten(worker, &beat), self.other.heartbeat(worker, beat.clone())).await
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

    /// Over the socket, whenever there is one, and whatever the other way has to say; until either ends. The socket's does when this service is
    /// dropped, as is one whose token is changed: whoever listens asks the next one then, though HTTP's goes on in silence.
    async fn stops(&self, worker: &WorkerId) -> Result<StopStream, Error> {
        let to_its_end = |stops: StopStream| stops.map(Some).chain(stream::iter([None]));
        let (socket, other) = (self.socket.stops(worker).await?, self.other.stops(worker).await?);
        let both = stream::select(to_its_end(socket), to_its_end(other));
        Ok(Box::pin(both.scan((), |(), jobs| ready(jobs))))
    }

    async fn append_output(
        &self,
        worker: &WorkerId,
        batches: Vec<OutputBatch>,
    ) -> Result<Vec<Result<OutputAck, Error>>, Error> {
        let is_repeatable = is_repeatable(&batches);
        let other = self.other.append_output(worker, batches.clone());
        self.either(is_repeatable, self.socket.appended(worker, &batches), other).await
    }

    async fn finish(&self, worker: &WorkerId, attempts: Vec<FinishedAttempt>) -> Result<Vec<Result<(), Error>>, Error> {
        self.either(true, self.socket.finished(worker, &attempts), self.other.finish(worker, attempts.clone())).await
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
