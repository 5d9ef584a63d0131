//! What a worker says: each message becomes a call of its service, and the call's answer a message.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::service::{FinishedAttempt, LeaseRequest, OutputBatch, OutputPieces, StopStream, WorkerService};
use cmdexec_wire as wire;
use cmdexec_wire::read::{self, Malformed};
use futures_util::{FutureExt, StreamExt};

use super::session::{Done, Served, Session};
use crate::close::{Closing, Code};
use crate::message::{Cancel, Drain, Envelope, Ready, Started};

/// For how many workers one socket hears of what is cancelled.
const MOST_STOPPING: usize = 1_024;

/// How many jobs one question may ask for.
const MOST_LEASES: usize = 1_000;

/// The longest that a question waits.
const MOST_WAIT: Duration = Duration::from_secs(60);

/// Jobs of a worker are cancelled.
pub(super) struct Stopped {
    worker: WorkerId,
    jobs: Vec<JobId>,
    /// Where more come from.
    stops: StopStream,
}

/// Takes in a worker's message.
pub(super) fn take(session: &mut Session, envelope: &Envelope<'_>, bytes: usize) -> Result<(), Closing> {
    let Served::Worker { work, bound } = &session.who else { return Ok(()) };
    let (work, bound) = (Arc::clone(work), bound.clone());
    let body = envelope.body().as_bytes();
    match &*envelope.kind {
        "ready" if envelope.id.is_none() => {
            let ready: Ready = envelope.parse().map_err(|why| Closing::new(Code::Malformed, why))?;
            let worker = said(ready.worker_id.as_deref()).and_then(|said| named(said, bound.as_ref()));
            let credited = worker.and_then(|worker| session.credit(&work, worker, ready.credits));
            return credited.map_err(|error| Closing::new(Code::Malformed, error.to_string()));
        }
        _ => {}
    }
    let known = ["register", "heartbeat", "ready", "drain", "started", "output", "results"];
    if !known.contains(&&*envelope.kind) {
        session.unknown(envelope);
        return Ok(());
    }
    let id = Session::id(envelope)?;
    let begun = match &*envelope.kind {
        "register" => register(session, id, bytes, work, bound.as_ref(), body),
        "heartbeat" => heartbeat(session, id, bytes, work, bound.as_ref(), body),
        "output" => read::output(body)
            .map(|read| read.and_then(|output| append(session, id, bytes, work, bound.as_ref(), output))),
        "results" => read::reports(body)
            .map(|read| read.and_then(|report| finish(session, id, bytes, work, bound.as_ref(), report))),
        "ready" => Ok(ask(session, id, bytes, work, bound.as_ref(), envelope)),
        "drain" => Ok(drain(session, id, bound.as_ref(), envelope)),
        _ => Ok(started(session, id, bytes, work, bound.as_ref(), envelope)),
    };
    match begun {
        Ok(Ok(())) => {}
        Ok(Err(error)) => session.refuse(id, error),
        Err(Malformed(why)) => session.refuse(id, Error::invalid("body", why)),
    }
    Ok(())
}

/// Takes in output that came as bytes.
pub(super) fn packed(session: &mut Session, id: u64, packed: &Bytes, bytes: usize) -> Result<(), Closing> {
    let Served::Worker { work, bound } = &session.who else {
        return Err(Closing::new(Code::Malformed, "only workers send output"));
    };
    let (work, bound) = (Arc::clone(work), bound.clone());
    let begun = read::packed(packed)
        .map(|read| read.and_then(|output| append(session, id, bytes, work, bound.as_ref(), output)));
    match begun {
        Ok(Ok(())) => {}
        Ok(Err(error)) => session.refuse(id, error),
        Err(Malformed(why)) => session.refuse(id, Error::invalid("body", why)),
    }
    Ok(())
}

impl Session {
    /// Lets a worker that was heard of hear at once of what is cancelled.
    pub(super) fn follow_stops(&mut self, work: &Work, worker: &WorkerId) {
        if self.stopping.len() < MOST_STOPPING && self.stopping.insert(worker.clone()) {
            let (work, worker) = (Arc::clone(work), worker.clone());
            self.doing.push(
                async move {
                    match work.stops(&worker).await {
                        Ok(stops) => next_stops(worker, stops).await,
                        // It may not be told of this worker; the worker's own calls say so.
                        Err(_) => pending().await,
                    }
                }
                .boxed(),
            );
        }
    }

    /// Lets the worker whose token this is be heard of from the beginning.
    pub(super) fn follow_bound(&mut self) {
        if let Served::Worker { work, bound: Some(worker) } = &self.who {
            let (work, worker) = (Arc::clone(work), worker.clone());
            self.follow_stops(&work, &worker);
        }
    }

    /// A worker was removed: the socket ends if it speaks for no other. The service refuses what it asks for either way.
    pub(super) fn removed(&mut self, worker: &WorkerId) {
        self.stopping.remove(worker);
        if self.stopping.is_empty() {
            self.leave(Closing::new(Code::Revoked, "the worker was removed"));
        }
    }

    /// Says that jobs are to be stopped.
    pub(super) fn stopped(&mut self, stopped: Stopped) {
        let Stopped { worker, jobs, stops } = stopped;
        let jobs = jobs.iter().map(JobId::as_uuid).collect();
        self.say("cancel", None, &Cancel { worker_id: worker.to_string(), jobs });
        self.doing.push(next_stops(worker, stops).boxed());
    }
}

async fn next_stops(worker: WorkerId, mut stops: StopStream) -> Done {
    match stops.next().await {
        Some(jobs) => Done::Stops(Stopped { worker, jobs, stops }),
        None => Done::Removed(worker),
    }
}

type Begun = Result<(), Error>;
type Work = Arc<dyn WorkerService>;

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

fn register(
    session: &mut Session,
    id: u64,
    bytes: usize,
    work: Work,
    bound: Option<&WorkerId>,
    body: &[u8],
) -> Result<Begun, Malformed> {
    let mut registration = match read::registration(body)? {
        Ok(registration) => registration,
        Err(error) => return Ok(Err(error)),
    };
    if bound.is_some() {
        match named(registration.worker.take(), bound) {
            Ok(worker) => registration.worker = Some(worker),
            Err(error) => return Ok(Err(error)),
        }
    }
    if let Some(worker) = &registration.worker {
        session.follow_stops(&work, worker);
    }
    let shared = Arc::clone(&session.shared);
    session.call(id, bytes, async move {
        shared.limits.worker(&shared.limits.registrations, registration.worker.as_ref()).await?;
        let registered = work.register(registration).await?;
        Ok(wire::Registered::from(&registered))
    });
    Ok(Ok(()))
}

fn heartbeat(
    session: &mut Session,
    id: u64,
    bytes: usize,
    work: Work,
    bound: Option<&WorkerId>,
    body: &[u8],
) -> Result<Begun, Malformed> {
    let read = read::beat(body)?;
    let named = read.and_then(|read::Beat { worker: said, beat }| Ok((named(said, bound)?, beat)));
    Ok(named.map(|(worker, beat)| {
        session.follow_stops(&work, &worker);
        let shared = Arc::clone(&session.shared);
        session.call(id, bytes, async move {
            shared.limits.worker(&shared.limits.heartbeats, Some(&worker)).await?;
            let reply = work.heartbeat(&worker, beat).await?;
            Ok(wire::BeatAck::from(&reply))
        });
    }))
}

fn append(
    session: &mut Session,
    id: u64,
    bytes: usize,
    work: Work,
    bound: Option<&WorkerId>,
    output: read::Output,
) -> Begun {
    let worker = named(output.worker, bound)?;
    append_as(session, id, bytes, work, worker, output.batches);
    Ok(())
}

fn append_as(session: &mut Session, id: u64, bytes: usize, work: Work, worker: WorkerId, batches: Vec<OutputBatch>) {
    let last = |batch: &OutputBatch| match &batch.pieces {
        OutputPieces::Numbered(chunks) => chunks.iter().map(|chunk| chunk.seq).max(),
        OutputPieces::Plain(_) => None,
    };
    let seqs: Vec<_> = batches.iter().map(last).collect();
    session.call(id, bytes, async move {
        let acks = work.append_output(&worker, batches).await?.into_iter();
        let acks = acks.zip(seqs).map(|(ack, seq)| match ack {
            Ok(ack) => Ok(wire::BatchAck { seq, ..wire::BatchAck::accepted(ack.cancel) }),
            Err(error) => wire::BatchAck::refused(error),
        });
        let acks: Vec<_> = acks.collect::<Result<_, Error>>()?;
        let cancel = acks.iter().any(|ack| ack.cancel);
        Ok(wire::OutputAck { ok: true, cancel, batches: Some(acks) })
    });
}

fn finish(
    session: &mut Session,
    id: u64,
    bytes: usize,
    work: Work,
    bound: Option<&WorkerId>,
    report: read::Report,
) -> Begun {
    let worker = named(report.worker, bound)?;
    if !report.zips.is_empty() {
        return Err(Error::invalid("resultZipBase64", "is not taken here: upload it by HTTP"));
    }
    let attempts: Vec<FinishedAttempt> = report.attempts;
    session.call(id, bytes, async move {
        let acks = work.finish(&worker, attempts).await?.into_iter();
        let acks = acks.map(|ack| match ack {
            Ok(()) => Ok(wire::BatchAck::accepted(false)),
            Err(error) => wire::BatchAck::refused(error),
        });
        Ok(wire::ReportAck { ok: true, results: Some(acks.collect::<Result<_, Error>>()?) })
    });
    Ok(())
}

/// A question that is answered once.
fn ask(
    session: &mut Session,
    id: u64,
    bytes: usize,
    work: Work,
    bound: Option<&WorkerId>,
    envelope: &Envelope<'_>,
) -> Begun {
    let ready: Ready = envelope.parse().map_err(|why| Error::invalid("body", why))?;
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
    let closing = session.shared.closing.clone();
    let call = async move {
        let leased = tokio::select! {
            biased;
            leased = work.lease(&worker, LeaseRequest { max: ready.credits, wait }) => leased?,
            // What was claimed for a question that is dropped goes back.
            () = closing.cancelled() => Vec::new(),
        };
        Ok(wire::Leases { jobs: leased.iter().map(wire::Lease::from).collect() })
    };
    if wait.is_zero() {
        session.call(id, bytes, call);
    } else {
        session.long_call(id, bytes, call);
    }
    Ok(())
}

fn drain(session: &mut Session, id: u64, bound: Option<&WorkerId>, envelope: &Envelope<'_>) -> Begun {
    let drain: Drain = envelope.parse().map_err(|why| Error::invalid("body", why))?;
    let worker = named(said(drain.worker_id.as_deref())?, bound)?;
    session.drain(&worker, id);
    Ok(())
}

/// What a worker has begun with: whether it is to be stopped already.
fn started(
    session: &mut Session,
    id: u64,
    bytes: usize,
    work: Work,
    bound: Option<&WorkerId>,
    envelope: &Envelope<'_>,
) -> Begun {
    let started: Started = envelope.parse().map_err(|why| Error::invalid("body", why))?;
    let worker = named(said(started.worker_id.as_deref())?, bound)?;
    let batch = |held: wire::Held| {
        let token = held.lease_token.parse().map_err(|_| Error::invalid("leaseToken", "is not a lease token"))?;
        let pieces = OutputPieces::Numbered(Vec::new());
        Ok(OutputBatch { job: JobId::from_uuid(held.job_id), token: Some(token), pieces })
    };
    let batches = started.jobs.into_iter().map(batch).collect::<Result<_, Error>>()?;
    append_as(session, id, bytes, work, worker, batches);
    Ok(())
}
