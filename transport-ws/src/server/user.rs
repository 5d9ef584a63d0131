//! What a user asks: each message becomes a call of its service, and the call's answer a message.

use std::sync::Arc;

use cmdexec_core::Error;
use cmdexec_core::files::FileId;
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::limiter::{Caller, RequestKind};
use cmdexec_core::service::{JobQuery, JobService, Role, Submission};
use cmdexec_wire as wire;
use cmdexec_wire::read::{self, Malformed};

use serde_json::value::to_raw_value;

use super::session::{Served, Session};
use crate::close::{Closing, Code};
use crate::message::{Envelope, Files, Get, Got, List, More, OneFile, OneJob, OneWorker, Submitted, Subscribe, Which};

/// How many jobs one request asks about: each may come with a large command and 128 KiB of output.
const MOST_IDS: usize = 64;

/// How many of them are looked up at once, and after how many bytes of them nothing more is.
const LOOKED_UP: usize = 16;
const ANSWER: usize = 4 << 20;

/// What a job that is asked about counts as of the bytes that are worked on.
const JOB_BYTES: usize = 64 * 1024;

/// Takes in a user's message.
pub(super) fn take(session: &mut Session, envelope: &Envelope<'_>, bytes: usize) -> Result<(), Closing> {
    let known = [
        "submit",
        "get",
        "list",
        "cancel",
        "stats",
        "workers",
        "remove_worker",
        "files",
        "file",
        "delete_file",
        "subscribe",
        "unsubscribe",
        "more",
    ];
    if !known.contains(&&*envelope.kind) {
        session.unknown(envelope);
        return Ok(());
    }
    let id = Session::id(envelope)?;
    match &*envelope.kind {
        "more" => {
            let More { credits } = envelope.parse().map_err(|why| Closing::new(Code::Malformed, why))?;
            session.more(id, credits);
            return Ok(());
        }
        "unsubscribe" => {
            session.unsubscribe(id);
            return Ok(());
        }
        _ => {}
    }
    if let Err(error) = begin(session, id, bytes, envelope) {
        session.refuse(id, error);
    }
    Ok(())
}

fn begin(session: &mut Session, id: u64, bytes: usize, envelope: &Envelope<'_>) -> Result<(), Error> {
    let Served::User { jobs, principal } = &session.who else { return Ok(()) };
    let (jobs, owner, role) = (Arc::clone(jobs), principal.owner.clone(), principal.role);
    let shared = Arc::clone(&session.shared);
    let wrong = |why: String| Error::invalid("body", why);
    let counted = {
        let (shared, owner) = (Arc::clone(&shared), owner.clone());
        async move { shared.limiter.count(RequestKind::Other, Caller::User(&owner)).await.passed }
    };
    match &*envelope.kind {
        "submit" => {
            if role == Role::Viewer {
                return Err(Error::Forbidden("viewers may only look"));
            }
            let read = read::batch(envelope.body().as_bytes(), None).map_err(|Malformed(why)| wrong(why))?;
            let read::Submit { specs, key } = read?;
            session.call(id, bytes, async move {
                shared.limiter.count(RequestKind::Submission, Caller::User(&owner)).await.passed?;
                let submitted = jobs.submit_batch(Submission { specs, idempotency_key: key }).await?;
                let repeated = submitted.iter().any(|job| job.repeated);
                Ok(Submitted { repeated, jobs: submitted.iter().map(wire::Created::from).collect() })
            });
        }
        "get" => {
            let Get { job_ids } = envelope.parse().map_err(wrong)?;
            if job_ids.len() > MOST_IDS {
                return Err(Error::invalid("jobIds", format!("must be at most {MOST_IDS}")));
            }
            let ids: Vec<_> = job_ids.into_iter().map(JobId::from_uuid).collect();
            session.call(id, bytes + ids.len() * JOB_BYTES, async move {
                counted.await?;
                as_many_as_fit(&*jobs, &ids).await
            });
        }
        "list" => {
            let query = query(envelope.parse().map_err(wrong)?)?;
            session.call(id, bytes, async move {
                counted.await?;
                let page = jobs.list(&query).await?;
                let next_cursor = page.next.map(|id| id.to_string());
                Ok(wire::JobPage {
                    jobs: page.jobs.iter().map(wire::Job::summary).collect(),
                    next_cursor,
                    total: page.total,
                })
            });
        }
        "cancel" => {
            let OneJob { job_id } = envelope.parse().map_err(wrong)?;
            session.call(id, bytes, async move {
                counted.await?;
                let status = jobs.cancel(JobId::from_uuid(job_id)).await?;
                Ok(wire::JobState { job_id, status })
            });
        }
        "stats" => session.call(id, bytes, async move {
            counted.await?;
            Ok(wire::Stats::from(&jobs.stats().await?))
        }),
        "workers" => {
            let Which { worker_ids } = envelope.parse().map_err(wrong)?;
            let ids = worker_ids.map(|ids| ids.iter().map(|id| worker(id)).collect::<Result<Vec<_>, _>>());
            let ids = ids.transpose()?;
            session.call(id, bytes, async move {
                counted.await?;
                let workers = jobs.workers(ids.as_deref()).await?;
                Ok(wire::WorkerList { workers: workers.iter().map(wire::Worker::from).collect() })
            });
        }
        "remove_worker" => {
            let OneWorker { worker_id } = envelope.parse().map_err(wrong)?;
            let worker = worker(&worker_id)?;
            session.call(id, bytes, async move {
                counted.await?;
                jobs.remove_worker(&worker).await?;
                Ok(serde_json::json!({}))
            });
        }
        "files" => {
            let Files { cursor, limit } = envelope.parse().map_err(wrong)?;
            let after = cursor.map(|cursor| file(&cursor)).transpose()?;
            let limit = limit.unwrap_or(50);
            session.call(id, bytes, async move {
                counted.await?;
                let files = jobs.files(after, limit).await?;
                let next_cursor = files.last().filter(|_| files.len() == limit).map(|file| file.id.to_string());
                Ok(wire::StoredPage { files: files.iter().map(wire::Stored::from).collect(), next_cursor })
            });
        }
        "file" => {
            let OneFile { file_id } = envelope.parse().map_err(wrong)?;
            let file = file(&file_id)?;
            session.call(id, bytes, async move {
                counted.await?;
                Ok(wire::Stored::from(&jobs.file(file).await?))
            });
        }
        "delete_file" => {
            let OneFile { file_id } = envelope.parse().map_err(wrong)?;
            let file = file(&file_id)?;
            session.call(id, bytes, async move {
                counted.await?;
                jobs.delete_file(file).await?;
                Ok(serde_json::json!({}))
            });
        }
        _ => {
            let subscribe: Subscribe = envelope.parse().map_err(wrong)?;
            session.subscribe(id, jobs, &subscribe, counted)?;
        }
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

fn worker(text: &str) -> Result<WorkerId, Error> {
    text.parse().map_err(|error: cmdexec_core::id::ParseError| Error::invalid("workerId", error.to_string()))
}

fn file(text: &str) -> Result<FileId, Error> {
    text.parse().map_err(|error: cmdexec_core::files::ParseFileIdError| Error::invalid("fileId", error.to_string()))
}

fn query(list: List) -> Result<JobQuery, Error> {
    let cursor =
        |text: String| text.parse().map_err(|_| Error::invalid("cursor", "not a cursor that this service gave out"));
    Ok(JobQuery {
        status: list.status,
        worker: list.worker_id.map(|id| worker(&id)).transpose()?,
        label: list.label,
        created_after: list.created_after.map(|time| time.0),
        before: list.cursor.map(cursor).transpose()?,
        offset: list.offset.unwrap_or(0),
        limit: list.limit.unwrap_or(50),
    })
}
