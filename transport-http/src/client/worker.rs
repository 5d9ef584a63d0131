//! What a worker does, as calls: as many jobs a call as there are.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cmdexec_core::Error;
use cmdexec_core::files::{ByteStream, Download, FileId, GetRange};
use cmdexec_core::id::{JobId, LeaseToken, WorkerId};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, HeartbeatReply, LeaseRequest, LeasedJob, OutputAck, OutputBatch, Registered,
    Registration, WorkerService,
};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};

use super::http::{As, Call};
use super::{Client, download};
use crate::wire::{self, OutputAcks, ReportAcks, Sizes, SpreadOutput, body};

/// The most that a request with output may have.
const OUTPUT: Sizes = Sizes { bytes: 4 * 1024 * 1024, items: ITEMS };

/// The same with reports. The server takes more; smaller ones are repeated sooner.
const REPORTS: Sizes = Sizes { bytes: 8 * 1024 * 1024, items: ITEMS };

/// From so much output on, its bytes travel as they are. What is less goes as JSON, which people and proxies can read.
const PACK_FROM: usize = 16 * 1024;

/// How many attempts one request brings.
const ITEMS: usize = 1_000;

/// The longest that a server waits with an answer.
const MAX_WAIT: Duration = Duration::from_secs(60);

#[async_trait]
impl WorkerService for Client {
    async fn register(&self, registration: Registration) -> Result<Registered, Error> {
        let call = Call::post(As::Worker, "/api/workers/register", body(&wire::Register::from(&registration)));
        let registered: wire::Registered = self.http.call(&call).await?;
        registered.into_registered().ok_or(Error::Internal)
    }

    async fn heartbeat(&self, worker: &WorkerId, beat: Heartbeat) -> Result<HeartbeatReply, Error> {
        let mut beat = wire::Beat::from(&beat);
        beat.worker_id = Some(worker.to_string());
        // Said again later, it would list less than the worker has by then.
        let call = Call::post(As::Worker, "/api/workers/heartbeat", body(&beat)).once();
        let ack: wire::BeatAck = self.http.call(&call).await?;
        Ok(ack.into())
    }

    async fn lease(&self, worker: &WorkerId, request: LeaseRequest) -> Result<Vec<LeasedJob>, Error> {
        let mut call = Call::get(As::Worker, "/api/jobs/get-job")
            .query("workerId", worker)
            .query("max", request.max.clamp(1, ITEMS))
            // What a lost answer hands out is only had back after an interval.
            .once();
        let wait = request.wait.min(MAX_WAIT);
        if !wait.is_zero() {
            call = call.query("wait", wait.as_secs_f64()).timeout(wait + self.http.options.poll_margin);
        }
        let leases: wire::Leases = self.http.call(&call).await?;
        let leased: Option<Vec<_>> = leases.jobs.into_iter().map(wire::Lease::into_leased).collect();
        leased.ok_or(Error::Internal)
    }

    async fn append_output(
        &self,
        worker: &WorkerId,
        batches: Vec<OutputBatch>,
    ) -> Result<Vec<Result<OutputAck, Error>>, Error> {
        let output = SpreadOutput::new(worker, &batches, OUTPUT, PACK_FROM);
        let mut acks = OutputAcks::new(batches.len());
        for (body, items) in output.bodies {
            let mut call = Call::post(As::Worker, "/api/jobs/stream-output", body);
            if output.is_packed {
                call = call.header(CONTENT_TYPE, HeaderValue::from_static(wire::PACKED));
            }
            if !output.is_repeatable {
                call = call.once();
            }
            acks.take(&items, self.http.call(&call).await?)?;
        }
        Ok(acks.all())
    }

    async fn finish(&self, worker: &WorkerId, attempts: Vec<FinishedAttempt>) -> Result<Vec<Result<(), Error>>, Error> {
        let (mut acks, bodies) = ReportAcks::spread(worker, &attempts, REPORTS);
        for (body, items) in bodies {
            let call = Call::post(As::Worker, "/api/jobs/submit-result", body);
            acks.take(&items, self.http.call(&call).await?)?;
        }
        Ok(acks.all())
    }

    async fn download(
        &self,
        worker: Option<&WorkerId>,
        file: FileId,
        range: Option<GetRange>,
    ) -> Result<Download, Error> {
        let call = download::call(As::Worker, file, range.as_ref())?;
        let call = worker.iter().fold(call, |call, worker| call.query("workerId", worker));
        let response = self.http.open(&call).await?;
        download::begin(Arc::clone(&self.http), file, response)
    }

    async fn upload_artifacts(
        &self,
        worker: &WorkerId,
        job: JobId,
        token: Option<LeaseToken>,
        bytes: ByteStream,
    ) -> Result<FileId, Error> {
        let mut call = Call::sending(As::Worker, "/api/jobs/artifacts").query("jobId", job).query("workerId", worker);
        if let Some(token) = token {
            let mut token = HeaderValue::try_from(token.reveal()).map_err(|_| Error::Internal)?;
            token.set_sensitive(true);
            call = call.header(HeaderName::from_static("x-lease-token"), token);
        }
        let artifacts: wire::Artifacts = self.http.send(&call, bytes).await?;
        artifacts.file_id.parse().map_err(|_| Error::Internal)
    }
}
