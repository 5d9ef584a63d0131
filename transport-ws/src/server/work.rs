//! What a worker says: each message becomes a call of its service, and the call's answer a message.

use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::limiter::{Caller, RequestKind};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, LeaseRequest, OutputBatch, OutputPieces, Registration, StopStream, WorkerService,
};
use cmdexec_wire as wire;
use futures_util::{FutureExt, StreamExt};

use super::asked;
use super::asked::work::{Asked, Said};
use super::session::{Done, Served, Session};
use crate::close::{Closing, Code};
use crate::message::{Cancel, Envelope};

/// For how many workers one socket hears of what is cancelled.
const MOST_STOPPING: usize = 1_024;

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
}

/// Takes in a worker's message.
pub(super) fn take(session: &mut Session, envelope: &Envelope<'_>, bytes: usize) -> Result<(), Closing> {
    let Served::Worker { work, bound } = &session.who else { return Ok(()) };
    let work = Arc::clone(work);
    match Said::read(envelope, bound.as_ref())? {
        Said::Credits { worker, credits } => {
            let credited = session.credit(&work, worker, credits);
            return credited.map_err(|error| Closing::new(Code::Malformed, error.to_string()));
        }
        Said::Request { id, asked } => Request { session, id, bytes, work }.begin(asked),
        Said::Unknown => session.unknown(envelope),
    }
    Ok(())
}

/// Takes in output that came as bytes.
pub(super) fn packed(session: &mut Session, id: u64, packed: &Bytes, bytes: usize) -> Result<(), Closing> {
    let Served::Worker { work, bound } = &session.who else {
        return Err(Closing::new(Code::Malformed, "only workers send output"));
    };
    let (work, asked) = (Arc::clone(work), asked::work::packed(packed, bound.as_ref()));
    Request { session, id, bytes, work }.begin(asked);
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

impl Request<'_> {
    fn begin(mut self, asked: Result<Asked, Error>) {
        match asked {
            Ok(Asked::Register(registration)) => self.register(registration),
            Ok(Asked::Heartbeat(worker, beat)) => self.heartbeat(worker, beat),
            Ok(Asked::Lease(worker, request)) => self.lease(worker, request),
            Ok(Asked::Drain(worker)) => self.session.drain(&worker, self.id),
            Ok(Asked::Output(worker, batches)) => self.append(worker, batches),
            Ok(Asked::Results(worker, attempts)) => self.finish(worker, attempts),
            Err(error) => self.session.refuse(self.id, error),
        }
    }

    fn call<T: serde::Serialize>(&mut self, call: impl Future<Output = Result<T, Error>> + Send + 'static) {
        self.session.call(self.id, self.bytes, call);
    }

    fn register(&mut self, registration: Registration) {
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
    }

    fn heartbeat(&mut self, worker: WorkerId, beat: Heartbeat) {
        self.session.follow_stops(&self.work, &worker);
        let (work, shared) = (Arc::clone(&self.work), Arc::clone(&self.session.shared));
        self.call(async move {
            shared.limiter.count(RequestKind::Heartbeat, Caller::Worker(&worker)).await.passed?;
            let reply = work.heartbeat(&worker, beat).await?;
            Ok(wire::BeatAck::from(&reply))
        });
    }

    fn append(&mut self, worker: WorkerId, batches: Vec<OutputBatch>) {
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

    fn finish(&mut self, worker: WorkerId, attempts: Vec<FinishedAttempt>) {
        let work = Arc::clone(&self.work);
        self.call(async move {
            let acks = work.finish(&worker, attempts).await?.into_iter();
            let acks = acks.map(|ack| match ack {
                Ok(()) => Ok(wire::BatchAck::accepted(false)),
                Err(error) => wire::BatchAck::refused(error),
            });
            Ok(wire::ReportAck { ok: true, results: Some(acks.collect::<Result<_, Error>>()?) })
        });
    }

    /// A question that is answered once.
    fn lease(&mut self, worker: WorkerId, request: LeaseRequest) {
        let (work, closing) = (Arc::clone(&self.work), self.session.shared.closing.clone());
        let call = async move {
            let leased = tokio::select! {
                biased;
                leased = work.lease(&worker, request) => leased?,
                // What was claimed for a question that is dropped goes back.
                () = closing.cancelled() => Vec::new(),
            };
            Ok(wire::Leases { jobs: leased.iter().map(wire::Lease::from).collect() })
        };
        if request.wait.is_zero() {
            self.call(call);
        } else {
            self.session.long_call(self.id, self.bytes, call);
        }
    }
}
