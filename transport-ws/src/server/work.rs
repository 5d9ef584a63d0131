//! What a worker says: each message becomes a call of its service, and the call's answer a message.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::limiter::{Caller, RequestKind};
use cmdexec_core::service::{LeaseRequest, OutputBatch, OutputPieces, Registration, StopStream, WorkerService};
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

/// A worker's request: what is needed to begin with it.
struct Request<'s> {
    session: &'s mut Session,
    id: u64,
    /// How long it was.
    bytes: usize,
    work: Arc<dyn WorkerService>,
    /// The worker that the token speaks for, if it is one.
    bound: Option<WorkerId>,
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
    let mut request = Request { session, id, bytes, work, bound };
    let begun = match &*envelope.kind {
        "register" => read::registration(body).map(|read| read.and_then(|read| request.register(read))),
        "heartbeat" => read::beat(body).map(|read| read.and_then(|read| request.heartbeat(read))),
        "output" => read::output(body).map(|read| read.and_then(|read| request.append(read))),
        "results" => read::reports(body).map(|read| read.and_then(|read| request.finish(read))),
        "ready" => Ok(request.ask(envelope)),
        "drain" => Ok(request.drain(envelope)),
        _ => Ok(request.started(envelope)),
    };
    request.begun(begun);
    Ok(())
}

/// Takes in output that came as bytes.
pub(super) fn packed(session: &mut Session, id: u64, packed: &Bytes, bytes: usize) -> Result<(), Closing> {
    let Served::Worker { work, bound } = &session.who else {
        return Err(Closing::new(Code::Malformed, "only workers send output"));
    };
    let (work, bound) = (Arc::clone(work), bound.clone());
    let mut request = Request { session, id, bytes, work, bound };
    let begun = read::packed(packed).map(|read| read.and_then(|read| request.append(read)));
    request.begun(begun);
    Ok(())
}

impl Session {
    /// Lets a worker that was heard of hear at once of what is cancelled.
    pub(super) fn follow_stops(&mut self, work: &Arc<dyn WorkerService>, worker: &WorkerId) {
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

impl Request<'_> {
    /// Refuses what could not be begun with.
    fn begun(self, begun: Result<Result<(), Error>, Malformed>) {
        match begun {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.session.refuse(self.id, error),
            Err(Malformed(why)) => self.session.refuse(self.id, Error::invalid("body", why)),
        }
    }

    fn worker(&self, said: Option<WorkerId>) -> Result<WorkerId, Error> {
        named(said, self.bound.as_ref())
    }

    fn call<T: serde::Serialize>(&mut self, call: impl Future<Output = Result<T, Error>> + Send + 'static) {
        self.session.call(self.id, self.bytes, call);
    }

    fn register(&mut self, mut registration: Registration) -> Result<(), Error> {
        if self.bound.is_some() {
            registration.worker = Some(self.worker(registration.worker.take())?);
        }
        if let Some(worker) = &registration.worker {
            self.session.follow_stops(&self.work, worker);
        }
        let (work, shared, address) = (Arc::clone(&self.work), Arc::clone(&self.session.shared), self.session.address);
        self.call(async move {
            let caller = registration.worker.as_ref().map_or(Caller::Address(address), Caller::Worker);
            shared.limiter.count(RequestKind::Registration, caller).await.passed?;
            let registered = work.register(registration).await?;
            Ok(wire::Registered::from(&registered))
        });
        Ok(())
    }

    fn heartbeat(&mut self, read::Beat { worker, beat }: read::Beat) -> Result<(), Error> {
        let worker = self.worker(worker)?;
        self.session.follow_stops(&self.work, &worker);
        let (work, shared) = (Arc::clone(&self.work), Arc::clone(&self.session.shared));
        self.call(async move {
            shared.limiter.count(RequestKind::Heartbeat, Caller::Worker(&worker)).await.passed?;
            let reply = work.heartbeat(&worker, beat).await?;
            Ok(wire::BeatAck::from(&reply))
        });
        Ok(())
    }

    fn append(&mut self, output: read::Output) -> Result<(), Error> {
        let worker = self.worker(output.worker)?;
        self.append_as(worker, output.batches);
        Ok(())
    }

    fn append_as(&mut self, worker: WorkerId, batches: Vec<OutputBatch>) {
        let last = |batch: &OutputBatch| match &batch.pieces {
            OutputPieces::Numbered(chunks) => chunks.iter().map(|chunk| chunk.seq).max(),
            OutputPieces::Plain(_) => None,
        };
        let seqs: Vec<_> = batches.iter().map(last).collect();
        let work = Arc::clone(&self.work);
        self.call(async move {
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

    fn finish(&mut self, report: read::Report) -> Result<(), Error> {
        let worker = self.worker(report.worker)?;
        if !report.zips.is_empty() {
            return Err(Error::invalid("resultZipBase64", "is not taken here: upload it by HTTP"));
        }
        let (work, attempts) = (Arc::clone(&self.work), report.attempts);
        self.call(async move {
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
    fn ask(&mut self, envelope: &Envelope<'_>) -> Result<(), Error> {
        let ready: Ready = envelope.parse().map_err(|why| Error::invalid("body", why))?;
        let worker = self.worker(said(ready.worker_id.as_deref())?)?;
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
        let (work, closing) = (Arc::clone(&self.work), self.session.shared.closing.clone());
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
            self.call(call);
        } else {
            self.session.long_call(self.id, self.bytes, call);
        }
        Ok(())
    }

    fn drain(&mut self, envelope: &Envelope<'_>) -> Result<(), Error> {
        let drain: Drain = envelope.parse().map_err(|why| Error::invalid("body", why))?;
        let worker = self.worker(said(drain.worker_id.as_deref())?)?;
        self.session.drain(&worker, self.id);
        Ok(())
    }

    /// What a worker has begun with: whether it is to be stopped already.
    fn started(&mut self, envelope: &Envelope<'_>) -> Result<(), Error> {
        let started: Started = envelope.parse().map_err(|why| Error::invalid("body", why))?;
        let worker = self.worker(said(started.worker_id.as_deref())?)?;
        let batch = |held: wire::Held| {
            let token = held.lease_token.parse().map_err(|_| Error::invalid("leaseToken", "is not a lease token"))?;
            let pieces = OutputPieces::Numbered(Vec::new());
            Ok(OutputBatch { job: JobId::from_uuid(held.job_id), token: Some(token), pieces })
        };
        let batches = started.jobs.into_iter().map(batch).collect::<Result<_, Error>>()?;
        self.append_as(worker, batches);
        Ok(())
    }
}
