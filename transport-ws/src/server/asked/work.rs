//! What a worker asks.

use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::service::{FinishedAttempt, Heartbeat, LeaseRequest, OutputBatch, OutputPieces, Registration};
use cmdexec_wire as wire;
use cmdexec_wire::read;

use super::{body, form, id};
use crate::close::{Closing, Code};
use crate::message::{Drain, Envelope, Ready, Started};

/// How many jobs one question may ask for.
const MOST_LEASES: usize = 1_000;

/// The longest that a question waits.
const MOST_WAIT: Duration = Duration::from_secs(60);

/// What a worker's message is.
#[derive(Debug)]
pub(in crate::server) enum Said {
    /// Room for so many more jobs. They are its answer.
    Credits { worker: WorkerId, credits: usize },
    /// A request, and what is wrong with it if something is.
    Request { id: u64, asked: Result<Asked, Error> },
    /// Something that a newer worker says.
    Unknown,
}

/// A request, with the worker that it is for.
#[derive(Debug)]
pub(in crate::server) enum Asked {
    Register(Registration),
    Heartbeat(WorkerId, Heartbeat),
    Lease(WorkerId, LeaseRequest),
    Drain(WorkerId),
    Output(WorkerId, Vec<OutputBatch>),
    Results(WorkerId, Vec<FinishedAttempt>),
}

impl Said {
    /// Reads what somebody says whose token is `bound` to a worker, or speaks for any. The error is why it is not listened to any longer.
    pub(in crate::server) fn read(envelope: &Envelope<'_>, bound: Option<&WorkerId>) -> Result<Self, Closing> {
        if envelope.kind == "ready" && envelope.id.is_none() {
            return credits(envelope, bound);
        }
        let read: fn(&Envelope<'_>, Option<&WorkerId>) -> Result<Asked, Error> = match &*envelope.kind {
            "register" => register,
            "heartbeat" => heartbeat,
            "ready" => lease,
            "drain" => drain,
            "started" => started,
            "output" => output,
            "results" => results,
            _ => return Ok(Self::Unknown),
        };
        Ok(Self::Request { id: id(envelope)?, asked: read(envelope, bound) })
    }
}

/// Reads output that came as bytes.
pub(in crate::server) fn packed(packed: &Bytes, bound: Option<&WorkerId>) -> Result<Asked, Error> {
    let output = body(read::packed(packed))?;
    Ok(Asked::Output(named(output.worker, bound)?, output.batches))
}

fn credits(envelope: &Envelope<'_>, bound: Option<&WorkerId>) -> Result<Said, Closing> {
    let Ready { worker_id, credits, .. } = envelope.parse().map_err(|why| Closing::new(Code::Malformed, why))?;
    let worker = said(worker_id.as_deref()).and_then(|said| named(said, bound));
    let worker = worker.map_err(|error| Closing::new(Code::Malformed, error.to_string()))?;
    Ok(Said::Credits { worker, credits })
}

fn register(envelope: &Envelope<'_>, bound: Option<&WorkerId>) -> Result<Asked, Error> {
    let mut registration = body(read::registration(envelope.body().as_bytes()))?;
    if bound.is_some() {
        registration.worker = Some(named(registration.worker.take(), bound)?);
    }
    Ok(Asked::Register(registration))
}

fn heartbeat(envelope: &Envelope<'_>, bound: Option<&WorkerId>) -> Result<Asked, Error> {
    let read::Beat { worker, beat } = body(read::beat(envelope.body().as_bytes()))?;
    Ok(Asked::Heartbeat(named(worker, bound)?, beat))
}

/// A question that is answered once.
fn lease(envelope: &Envelope<'_>, bound: Option<&WorkerId>) -> Result<Asked, Error> {
    let ready: Ready = form(envelope)?;
    let worker = named(said(ready.worker_id.as_deref())?, bound)?;
    let Some(wait) = ready.wait_ms else {
        return Err(Error::invalid("waitMs", "is required where there is an id; without one, credits stand"));
    };
    if !(1..=MOST_LEASES).contains(&ready.credits) {
        return Err(Error::invalid("credits", format!("must be a whole number from 1 to {MOST_LEASES}")));
    }
    let wait = Duration::from_millis(wait);
    if wait > MOST_WAIT {
        return Err(Error::invalid("waitMs", "must be at most 60000"));
    }
    Ok(Asked::Lease(worker, LeaseRequest { max: ready.credits, wait }))
}

fn drain(envelope: &Envelope<'_>, bound: Option<&WorkerId>) -> Result<Asked, Error> {
    let drain: Drain = form(envelope)?;
    Ok(Asked::Drain(named(said(drain.worker_id.as_deref())?, bound)?))
}

/// What a worker has begun with: output of which there is none yet.
fn started(envelope: &Envelope<'_>, bound: Option<&WorkerId>) -> Result<Asked, Error> {
    let started: Started = form(envelope)?;
    let worker = named(said(started.worker_id.as_deref())?, bound)?;
    let batch = |held: wire::Held| {
        let token = held.lease_token.parse().map_err(|_| Error::invalid("leaseToken", "is not a lease token"))?;
        let pieces = OutputPieces::Numbered(Vec::new());
        Ok(OutputBatch { job: JobId::from_uuid(held.job_id), token: Some(token), pieces })
    };
    Ok(Asked::Output(worker, started.jobs.into_iter().map(batch).collect::<Result<_, Error>>()?))
}

fn output(envelope: &Envelope<'_>, bound: Option<&WorkerId>) -> Result<Asked, Error> {
    let output = body(read::output(envelope.body().as_bytes()))?;
    Ok(Asked::Output(named(output.worker, bound)?, output.batches))
}

fn results(envelope: &Envelope<'_>, bound: Option<&WorkerId>) -> Result<Asked, Error> {
    let report = body(read::reports(envelope.body().as_bytes()))?;
    let worker = named(report.worker, bound)?;
    if !report.zips.is_empty() {
        return Err(Error::invalid("resultZipBase64", "is not taken here: upload it by HTTP"));
    }
    Ok(Asked::Results(worker, report.attempts))
}

/// Whose a message is: as it says itself, if the token may speak for that one; else as the token says.
fn named(said: Option<WorkerId>, bound: Option<&WorkerId>) -> Result<WorkerId, Error> {
    match (said, bound) {
        (Some(said), Some(bound)) if said != *bound => Err(Error::Forbidden("this token speaks for another worker")),
        (Some(said), _) => Ok(said),
        (None, Some(bound)) => Ok(bound.clone()),
        (None, None) => Err(Error::invalid("workerId", "is required: the token speaks for any worker")),
    }
}

fn said(text: Option<&str>) -> Result<Option<WorkerId>, Error> {
    text.map(str::parse::<WorkerId>).transpose().map_err(|error| Error::invalid("workerId", error.to_string()))
}
