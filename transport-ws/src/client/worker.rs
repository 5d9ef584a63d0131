//! What a worker does: requests, but for its jobs, which are pushed.

use std::time::Duration;

use async_trait::async_trait;
use cmdexec_core::Error;
use cmdexec_core::files::{ByteStream, Download, FileId, GetRange};
use cmdexec_core::id::{JobId, LeaseToken, WorkerId};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, HeartbeatReply, LeaseRequest, LeasedJob, OutputAck, OutputBatch, Registered,
    Registration, StopStream, WorkerService,
};
use cmdexec_wire::{self as wire, OutputAcks, ReportAcks, Sizes, SpreadOutput, body};
use serde::de::DeserializeOwned;

use super::Client;
use super::link::{Body, Failure, Often};
use super::run::Command;
use crate::message::Ready;

/// From so much output on, its bytes travel as they are.
const PACK_FROM: usize = 4 * 1024;

/// How many jobs one call of `lease` gets at most.
const MOST_LEASES: usize = 1_000;

/// The longest that a call of `lease` waits.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What can also be said another way, with what is known of it where it brings nothing.
impl Client {
    pub(super) async fn registered(&self, registration: &Registration) -> Result<Registered, Failure> {
        let body = Body::Text(body(&wire::Register::from(registration)));
        let registered: wire::Registered = self.link.call("register", body, Often::UntilAnswered).await?;
        registered.into_registered().ok_or(Failure::Refused(Error::Internal))
    }

    pub(super) async fn beaten(&self, worker: &WorkerId, beat: &Heartbeat) -> Result<HeartbeatReply, Failure> {
        let mut beat = wire::Beat::from(beat);
        beat.worker_id = Some(worker.to_string());
        // Said again later, it would list less than the worker has by then.
        let ack: wire::BeatAck = self.link.call("heartbeat", Body::Text(body(&beat)), Often::Once).await?;
        Ok(ack.into())
    }

    pub(super) async fn appended(
        &self,
        worker: &WorkerId,
        batches: &[OutputBatch],
    ) -> Result<Vec<Result<OutputAck, Error>>, Failure> {
        let output = SpreadOutput::new(worker, batches, self.sizes().await?, PACK_FROM);
        let often = if output.is_repeatable { Often::UntilAnswered } else { Often::Once };
        let body = |body| if output.is_packed { Body::Packed(body) } else { Body::Text(body) };
        let bodies = output.bodies.into_iter().map(|(bytes, items)| (body(bytes), items)).collect();
        let mut acks = OutputAcks::new(batches.len());
        self.spread("output", bodies, often, |items, answer| acks.take(items, answer)).await?;
        Ok(acks.all())
    }

    pub(super) async fn finished(
        &self,
        worker: &WorkerId,
        attempts: &[FinishedAttempt],
    ) -> Result<Vec<Result<(), Error>>, Failure> {
        let (mut acks, bodies) = ReportAcks::spread(worker, attempts, self.sizes().await?);
        let bodies = bodies.into_iter().map(|(body, items)| (Body::Text(body), items)).collect();
        self.spread("results", bodies, Often::UntilAnswered, |items, answer| acks.take(items, answer)).await?;
        Ok(acks.all())
    }

    /// How large bodies are that the server takes, which it says when it is there.
    async fn sizes(&self) -> Result<Sizes, Failure> {
        self.link.known(self.link.core.options.retry_for).await?;
        Ok(self.link.core.sizes())
    }

    /// Makes a call of each body, in their order; or of none, if the server would not take one of them.
    async fn spread<T: DeserializeOwned>(
        &self,
        kind: &'static str,
        bodies: Vec<(Body, Vec<usize>)>,
        often: Often,
        mut take: impl FnMut(&[usize], T) -> Result<(), Error> + Send,
    ) -> Result<(), Failure> {
        bodies.iter().try_for_each(|(body, _)| self.link.fits(kind, body))?;
        for (n, (body, items)) in bodies.into_iter().enumerate() {
            let core = &self.link.core;
            let (bytes, begun) = (body.len(), core.clock.uptime());
            core.stretch.sent(bytes);
            let answer = self.link.call(kind, body, often).await.map_err(|failure| failure.behind(n > 0))?;
            core.stretch.answered(bytes, core.clock.uptime().saturating_sub(begun));
            take(&items, answer).map_err(Failure::Refused)?;
        }
        Ok(())
    }
}

#[async_trait]
impl WorkerService for Client {
    async fn register(&self, registration: Registration) -> Result<Registered, Error> {
        Ok(self.registered(&registration).await?)
    }

    async fn heartbeat(&self, worker: &WorkerId, beat: Heartbeat) -> Result<HeartbeatReply, Error> {
        Ok(self.beaten(worker, &beat).await?)
    }

    async fn lease(&self, worker: &WorkerId, request: LeaseRequest) -> Result<Vec<LeasedJob>, Error> {
        let most = request.max.clamp(1, MOST_LEASES);
        let core = &self.link.core;
        let here = core.pushed.take(worker, most);
        if !here.is_empty() {
            return Ok(here);
        }
        if request.wait.is_zero() {
            let ready = Ready { worker_id: Some(worker.to_string()), credits: most, wait_ms: Some(0) };
            // What a lost answer hands out is only had back after an interval.
            let leases: wire::Leases = self.link.call("ready", Body::Text(body(&ready)), Often::Once).await?;
            let leased: Option<Vec<_>> = leases.jobs.into_iter().map(wire::Lease::into_leased).collect();
            return leased.ok_or(Error::Internal);
        }
        let waiting = core.pushed.wait(worker, most);
        let asked = Asked { client: self, worker };
        // Whoever refuses us refuses this too. Otherwise a socket that is only being opened may still come in time.
        self.link.ready(core.options.retry_for.min(request.wait)).await?;
        self.link.tell(Command::Credit(worker.clone())).await;
        let leased = tokio::select! {
            biased;
            leased = waiting.jobs() => leased,
            () = core.clock.sleep(request.wait.min(MAX_WAIT)) => Ok(Vec::new()),
        };
        // First nobody waits any more, then the task looks.
        drop(waiting);
        drop(asked);
        leased
    }

    async fn stops(&self, worker: &WorkerId) -> Result<StopStream, Error> {
        Ok(self.link.core.stops.listen(worker))
    }

    async fn append_output(
        &self,
        worker: &WorkerId,
        batches: Vec<OutputBatch>,
    ) -> Result<Vec<Result<OutputAck, Error>>, Error> {
        Ok(self.appended(worker, &batches).await?)
    }

    async fn finish(&self, worker: &WorkerId, attempts: Vec<FinishedAttempt>) -> Result<Vec<Result<(), Error>>, Error> {
        Ok(self.finished(worker, &attempts).await?)
    }

    async fn download(
        &self,
        worker: Option<&WorkerId>,
        file: FileId,
        range: Option<GetRange>,
    ) -> Result<Download, Error> {
        self.worker_files.as_ref().ok_or_else(no_files)?.download(worker, file, range).await
    }

    async fn upload_artifacts(
        &self,
        worker: &WorkerId,
        job: JobId,
        token: Option<LeaseToken>,
        bytes: ByteStream,
    ) -> Result<FileId, Error> {
        self.worker_files.as_ref().ok_or_else(no_files)?.upload_artifacts(worker, job, token, bytes).await
    }
}

pub(super) fn no_files() -> Error {
    Error::Forbidden("files' bytes don't travel over sockets, and nothing else was given for them")
}

/// A call of `lease`: when it is over, or dropped, the task looks whether anybody still wants what it asked for.
struct Asked<'a> {
    client: &'a Client,
    worker: &'a WorkerId,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        // Where there is no room, the next command or job makes the task look.
        self.client.link.try_tell(Command::Credit(self.worker.clone()));
    }
}
