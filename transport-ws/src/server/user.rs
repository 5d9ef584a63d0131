//! What a user asks: each message becomes a call of its service, and the call's answer a message.

use std::sync::Arc;

use cmdexec_core::Error;
use cmdexec_core::id::JobId;
use cmdexec_core::limiter::{Caller, RequestKind};
use cmdexec_core::service::{JobService, Submission};
use cmdexec_wire as wire;
use cmdexec_wire::read;
use serde_json::value::to_raw_value;

use super::asked::user::{Asked, Said};
use super::session::{Served, Session};
use crate::close::Closing;
use crate::message::{Envelope, Got, Submitted};

/// How many of the jobs of one request are looked up at once, and after how many bytes of them nothing more is.
const LOOKED_UP: usize = 16;
const ANSWER: usize = 4 << 20;

/// What a job that is asked about counts as of the bytes that are worked on.
const JOB_BYTES: usize = 64 * 1024;

/// Takes in a user's message.
pub(super) fn take(session: &mut Session, envelope: &Envelope<'_>, bytes: usize) -> Result<(), Closing> {
    let Served::User { principal, .. } = &session.who else { return Ok(()) };
    match Said::read(envelope, principal.role)? {
        Said::More { id, credits } => session.more(id, credits),
        Said::Unsubscribe { id } => session.unsubscribe(id),
        Said::Request { id, asked } => {
            if let Err(error) = asked.and_then(|asked| begin(session, id, bytes, asked)) {
                session.refuse(id, error);
            }
        }
        Said::Unknown => session.unknown(envelope),
    }
    Ok(())
}

fn begin(session: &mut Session, id: u64, bytes: usize, asked: Asked) -> Result<(), Error> {
    let Served::User { jobs, principal } = &session.who else { return Ok(()) };
    let (jobs, owner) = (Arc::clone(jobs), principal.owner.clone());
    let shared = Arc::clone(&session.shared);
    let counted = {
        let (shared, owner) = (Arc::clone(&shared), owner.clone());
        async move { shared.limiter.count(RequestKind::Other, Caller::User(&owner)).await.passed }
    };
    match asked {
        Asked::Submit(read::Submit { specs, key }) => session.call(id, bytes, async move {
            shared.limiter.count(RequestKind::Submission, Caller::User(&owner)).await.passed?;
            let submitted = jobs.submit_batch(Submission { specs, idempotency_key: key }).await?;
            let repeated = submitted.iter().any(|job| job.repeated);
            Ok(Submitted { repeated, jobs: submitted.iter().map(wire::Created::from).collect() })
        }),
        Asked::Get(ids) => session.call(id, bytes + ids.len() * JOB_BYTES, async move {
            counted.await?;
            as_many_as_fit(&*jobs, &ids).await
        }),
        Asked::List(query) => session.call(id, bytes, async move {
            counted.await?;
            let page = jobs.list(&query).await?;
            let next_cursor = page.next.map(|id| id.to_string());
            let jobs = page.jobs.iter().map(wire::Job::summary).collect();
            Ok(wire::JobPage { jobs, next_cursor, total: page.total })
        }),
        Asked::Cancel(job) => session.call(id, bytes, async move {
            counted.await?;
            let status = jobs.cancel(job).await?;
            Ok(wire::JobState { job_id: job.as_uuid(), status })
        }),
        Asked::Stats => session.call(id, bytes, async move {
            counted.await?;
            Ok(wire::Stats::from(&jobs.stats().await?))
        }),
        Asked::Workers(ids) => session.call(id, bytes, async move {
            counted.await?;
            let workers = jobs.workers(ids.as_deref()).await?;
            Ok(wire::WorkerList { workers: workers.iter().map(wire::Worker::from).collect() })
        }),
        Asked::RemoveWorker(worker) => session.call(id, bytes, async move {
            counted.await?;
            jobs.remove_worker(&worker).await?;
            Ok(serde_json::json!({}))
        }),
        Asked::Files { after, limit } => session.call(id, bytes, async move {
            counted.await?;
            let files = jobs.files(after, limit).await?;
            let next_cursor = files.last().filter(|_| files.len() == limit).map(|file| file.id.to_string());
            Ok(wire::StoredPage { files: files.iter().map(wire::Stored::from).collect(), next_cursor })
        }),
        Asked::File(file) => session.call(id, bytes, async move {
            counted.await?;
            Ok(wire::Stored::from(&jobs.file(file).await?))
        }),
        Asked::DeleteFile(file) => session.call(id, bytes, async move {
            counted.await?;
            jobs.delete_file(file).await?;
            Ok(serde_json::json!({}))
        }),
        Asked::Subscribe(wanted) => session.subscribe(id, jobs, wanted, counted)?,
    }
    Ok(())
}

/// The first of these jobs, and the others that fit into an answer.
async fn as_many_as_fit(jobs: &dyn JobService, ids: &[JobId]) -> Result<Got, Error> {
    let mut got = Got { jobs: Vec::with_capacity(ids.len()) };
    let mut bytes = 0;
    for some in ids.chunks(LOOKED_UP) {
        for view in jobs.get(some).await? {
            let job = view.as_ref().map(|view| to_raw_value(&wire::Job::whole(view))).transpose();
            let job = job.map_err(|_| Error::Internal)?;
            bytes += job.as_ref().map_or(0, |job| job.get().len());
            if bytes > ANSWER && !got.jobs.is_empty() {
                return Ok(got);
            }
            got.jobs.push(job);
        }
    }
    Ok(got)
}
