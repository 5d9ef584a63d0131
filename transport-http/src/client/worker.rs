//! What a worker does, as calls: as many jobs a call as there are.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cmdexec_core::Error;
use cmdexec_core::files::{ByteStream, Download, FileId, GetRange};
use cmdexec_core::id::{JobId, LeaseToken, WorkerId};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, HeartbeatReply, LeaseRequest, LeasedJob, OutputAck, OutputBatch, OutputPieces,
    Registered, Registration, WorkerService,
};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};

use super::http::{As, Call};
use super::{Client, download};
use crate::wire::{self, Packer, body, head, packed};

/// The most that a request with output may have.
const OUTPUT: usize = 4 * 1024 * 1024;

/// The same with reports. The server takes more; smaller ones are repeated sooner.
const REPORTS: usize = 8 * 1024 * 1024;

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
        let mut acks = vec![Ok(OutputAck { cancel: false }); batches.len()];
        for (call, items) in output(worker, &batches) {
            let answer: wire::OutputAck = self.http.call(&call).await?;
            let parts = answer.batches.filter(|parts| parts.len() == items.len()).ok_or(Error::Internal)?;
            for (item, part) in items.into_iter().zip(parts) {
                // A batch in several parts is refused if one is, and cancelled if one is.
                if let Some(ack) = acks.get_mut(item)
                    && let Ok(OutputAck { cancel }) = *ack
                {
                    *ack = part.read().map(|()| OutputAck { cancel: cancel || part.cancel });
                }
            }
        }
        Ok(acks)
    }

    async fn finish(&self, worker: &WorkerId, attempts: Vec<FinishedAttempt>) -> Result<Vec<Result<(), Error>>, Error> {
        let mut packer = Packer::new(head(worker, "results"), REPORTS, ITEMS);
        let mut acks = Vec::with_capacity(attempts.len());
        for (i, attempt) in attempts.iter().enumerate() {
            match wire::Report::of(attempt) {
                Some(report) => {
                    packer.add(i, &body(&report));
                    acks.push(Ok(()));
                }
                None => acks.push(Err(Error::invalid("outcome", "only the coordinator says that an attempt is lost"))),
            }
        }
        for (packed, items) in packer.finish() {
            let call = Call::post(As::Worker, "/api/jobs/submit-result", packed);
            let answer: wire::ReportAck = self.http.call(&call).await?;
            let results = answer.results.filter(|all| all.len() == items.len()).ok_or(Error::Internal)?;
            for (item, result) in items.into_iter().zip(results) {
                if let Some(ack) = acks.get_mut(item) {
                    *ack = result.read();
                }
            }
        }
        Ok(acks)
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

/// The calls that carry output, in its order, each with which batches are in it.
fn output(worker: &WorkerId, batches: &[OutputBatch]) -> Vec<(Call, Vec<usize>)> {
    const ROUTE: &str = "/api/jobs/stream-output";
    // Without numbers, a repetition would be more output.
    let (mut is_repeatable, mut is_numbered, mut bytes) = (true, true, 0);
    for batch in batches {
        match &batch.pieces {
            OutputPieces::Numbered(chunks) => bytes += chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>(),
            OutputPieces::Plain(chunks) => (is_repeatable, is_numbered) = (is_repeatable && chunks.is_empty(), false),
        }
    }
    if is_numbered && bytes >= PACK_FROM {
        let kind = HeaderValue::from_static(wire::PACKED);
        let call = |body| Call::post(As::Worker, ROUTE, body).header(CONTENT_TYPE, kind.clone());
        return packed(worker, batches, OUTPUT, ITEMS).into_iter().map(|(body, items)| (call(body), items)).collect();
    }
    let mut packer = Packer::new(head(worker, "batches"), OUTPUT, ITEMS);
    for (i, batch) in batches.iter().enumerate() {
        for part in wire::Batch::parts(batch, OUTPUT / 2) {
            packer.add(i, &body(&part));
        }
    }
    let call = |body| Call::post(As::Worker, ROUTE, body);
    let call = |body| if is_repeatable { call(body) } else { call(body).once() };
    packer.finish().map(|(body, items)| (call(body), items)).collect()
}
