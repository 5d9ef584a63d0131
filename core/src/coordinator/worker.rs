//! What a worker may do: for whom it speaks is decided here, and nowhere else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Shared;
use crate::Error;
use crate::files::{ByteStream, Download, FileId, GetRange};
use crate::id::{JobId, LeaseToken, WorkerId};
use crate::service::{
    FinishedAttempt, Heartbeat, HeartbeatReply, LeaseRequest, LeasedJob, OutputAck, OutputBatch, Registered,
    Registration, StopStream, WorkerPrincipal, WorkerService,
};

/// How long an ask waits at the most.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How many jobs an ask gets at the most.
const MAX_LEASES: usize = 1_024;

/// What a worker may do.
pub(super) struct WorkerJobs {
    shared: Arc<Shared>,
    principal: WorkerPrincipal,
}

impl fmt::Debug for WorkerJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerJobs").field("principal", &self.principal).finish_non_exhaustive()
    }
}

impl WorkerJobs {
    pub(super) fn new(shared: Arc<Shared>, principal: WorkerPrincipal) -> Self {
        Self { shared, principal }
    }

    fn may_speak_for(&self, worker: &WorkerId) -> Result<(), Error> {
        match &self.principal {
            WorkerPrincipal::Bound(bound) if bound != worker => {
                Err(Error::Forbidden("the token is for another worker"))
            }
            WorkerPrincipal::Bound(_) | WorkerPrincipal::Any => Ok(()),
        }
    }
}

#[async_trait]
impl WorkerService for WorkerJobs {
    async fn register(&self, mut registration: Registration) -> Result<Registered, Error> {
        if let WorkerPrincipal::Bound(bound) = &self.principal {
            registration.worker.get_or_insert_with(|| bound.clone());
        }
        if let Some(worker) = &registration.worker {
            self.may_speak_for(worker)?;
        }
        self.shared.register(registration).await
    }

    async fn heartbeat(&self, worker: &WorkerId, beat: Heartbeat) -> Result<HeartbeatReply, Error> {
        self.may_speak_for(worker)?;
        self.shared.heartbeat(worker, beat).await
    }

    async fn lease(&self, worker: &WorkerId, request: LeaseRequest) -> Result<Vec<LeasedJob>, Error> {
        self.may_speak_for(worker)?;
        if request.max == 0 {
            return Err(Error::invalid("max", "must be at least 1"));
        }
        let (max, wait) = (request.max.min(MAX_LEASES), request.wait.min(MAX_WAIT));
        match self.shared.dispatch.ask(&self.shared, worker.clone(), max, wait).await {
            Err(Error::WorkerNotFound) => {
                self.shared.introduce_known(worker).await?;
                self.shared.dispatch.ask(&self.shared, worker.clone(), max, wait).await
            }
            answer => answer,
        }
    }

    async fn stops(&self, worker: &WorkerId) -> Result<StopStream, Error> {
        self.may_speak_for(worker)?;
        Ok(self.shared.hub.stops.listen(worker))
    }

    async fn append_output(
        &self,
        worker: &WorkerId,
        batches: Vec<OutputBatch>,
    ) -> Result<Vec<Result<OutputAck, Error>>, Error> {
        self.may_speak_for(worker)?;
        self.shared.append_output(worker, batches).await
    }

    async fn finish(&self, worker: &WorkerId, attempts: Vec<FinishedAttempt>) -> Result<Vec<Result<(), Error>>, Error> {
        self.may_speak_for(worker)?;
        self.shared.finish(worker, attempts).await
    }

    async fn download(
        &self,
        worker: Option<&WorkerId>,
        file: FileId,
        range: Option<GetRange>,
    ) -> Result<Download, Error> {
        let worker = match (&self.principal, worker) {
            (WorkerPrincipal::Bound(bound), None) => Some(bound),
            (_, worker) => worker,
        };
        if let Some(worker) = worker {
            self.may_speak_for(worker)?;
        }
        self.shared.open_input(worker, file, range).await
    }

    async fn upload_artifacts(
        &self,
        worker: &WorkerId,
        job: JobId,
        token: Option<LeaseToken>,
        bytes: ByteStream,
    ) -> Result<FileId, Error> {
        self.may_speak_for(worker)?;
        self.shared.upload_artifacts(worker, job, token, bytes).await
    }
}
