//! What a user asks.

use cmdexec_core::Error;
use cmdexec_core::files::{FileId, ParseFileIdError};
use cmdexec_core::id::{JobId, ParseError, WorkerId};
use cmdexec_core::service::{Cursor, JobQuery, OutputQuery, Role};
use cmdexec_wire::read;

use super::{body, form, id};
use crate::close::{Closing, Code};
use crate::message::{Envelope, Files, Get, Kind, List, More, OneFile, OneJob, OneWorker, Subscribe, Which};

/// How many jobs one request asks about: each may come with a large command and 128 KiB of output.
const MOST_IDS: usize = 64;

/// How many events may be sent before the first `more`, unless the subscriber says so.
const CREDITS: usize = 64;

/// How many jobs one subscription may say to have seen output of.
const MOST_CURSORS: usize = 1_000;

/// What a user's message is.
#[derive(Debug)]
pub(in crate::server) enum Said {
    /// Room for so many more events of a subscription.
    More { id: u64, credits: usize },
    /// Enough of a subscription.
    Unsubscribe { id: u64 },
    /// A request, and what is wrong with it if something is.
    Request { id: u64, asked: Result<Asked, Error> },
    /// Something that a newer user says.
    Unknown,
}

/// A request.
#[derive(Debug)]
pub(in crate::server) enum Asked {
    Submit(read::Submit),
    Get(Vec<JobId>),
    List(JobQuery),
    Cancel(JobId),
    Stats,
    Workers(Option<Vec<WorkerId>>),
    RemoveWorker(WorkerId),
    Files { after: Option<FileId>, limit: usize },
    File(FileId),
    DeleteFile(FileId),
    Subscribe(Wanted),
}

/// What a subscription is to.
#[derive(Debug)]
pub(in crate::server) struct Wanted {
    /// One's own jobs, if there is none.
    pub(in crate::server) job: Option<JobId>,
    pub(in crate::server) status: bool,
    pub(in crate::server) output: bool,
    pub(in crate::server) query: OutputQuery,
    /// Where to go on in the output of jobs that was seen before.
    pub(in crate::server) cursors: Vec<(JobId, Cursor)>,
    pub(in crate::server) packed: bool,
    pub(in crate::server) credits: usize,
}

impl Said {
    /// Reads what a user in this role says. The error is why it is not listened to any longer.
    pub(in crate::server) fn read(envelope: &Envelope<'_>, role: Role) -> Result<Self, Closing> {
        let read: fn(&Envelope<'_>) -> Result<Asked, Error> = match &*envelope.kind {
            "more" => {
                let id = id(envelope)?;
                let More { credits } = envelope.parse().map_err(|why| Closing::new(Code::Malformed, why))?;
                return Ok(Self::More { id, credits });
            }
            "unsubscribe" => return Ok(Self::Unsubscribe { id: id(envelope)? }),
            "submit" if role == Role::Viewer => |_| Err(Error::Forbidden("viewers may only look")),
            "submit" => submit,
            "get" => get,
            "list" => list,
            "cancel" => cancel,
            "stats" => |_| Ok(Asked::Stats),
            "workers" => workers,
            "remove_worker" => remove_worker,
            "files" => files,
            "file" => |envelope| Ok(Asked::File(one_file(envelope)?)),
            "delete_file" => |envelope| Ok(Asked::DeleteFile(one_file(envelope)?)),
            "subscribe" => subscribe,
            _ => return Ok(Self::Unknown),
        };
        Ok(Self::Request { id: id(envelope)?, asked: read(envelope) })
    }
}

fn submit(envelope: &Envelope<'_>) -> Result<Asked, Error> {
    body(read::batch(envelope.body().as_bytes(), None)).map(Asked::Submit)
}

fn get(envelope: &Envelope<'_>) -> Result<Asked, Error> {
    let Get { job_ids } = form(envelope)?;
    if job_ids.len() > MOST_IDS {
        return Err(Error::invalid("jobIds", format!("must be at most {MOST_IDS}")));
    }
    Ok(Asked::Get(job_ids.into_iter().map(JobId::from_uuid).collect()))
}

fn list(envelope: &Envelope<'_>) -> Result<Asked, Error> {
    let list: List = form(envelope)?;
    Ok(Asked::List(JobQuery {
        status: list.status,
        worker: list.worker_id.map(|id| worker(&id)).transpose()?,
        label: list.label,
        created_after: list.created_after.map(|time| time.0),
        before: list.cursor.map(|text| cursor("cursor", &text)).transpose()?,
        offset: list.offset.unwrap_or(0),
        limit: list.limit.unwrap_or(50),
    }))
}

fn cancel(envelope: &Envelope<'_>) -> Result<Asked, Error> {
    let OneJob { job_id } = form(envelope)?;
    Ok(Asked::Cancel(JobId::from_uuid(job_id)))
}

fn workers(envelope: &Envelope<'_>) -> Result<Asked, Error> {
    let Which { worker_ids } = form(envelope)?;
    let ids = worker_ids.map(|ids| ids.iter().map(|id| worker(id)).collect());
    Ok(Asked::Workers(ids.transpose()?))
}

fn remove_worker(envelope: &Envelope<'_>) -> Result<Asked, Error> {
    let OneWorker { worker_id } = form(envelope)?;
    Ok(Asked::RemoveWorker(worker(&worker_id)?))
}

fn files(envelope: &Envelope<'_>) -> Result<Asked, Error> {
    let Files { cursor, limit } = form(envelope)?;
    let after = cursor.map(|cursor| file(&cursor)).transpose()?;
    Ok(Asked::Files { after, limit: limit.unwrap_or(50) })
}

fn one_file(envelope: &Envelope<'_>) -> Result<FileId, Error> {
    let OneFile { file_id } = form(envelope)?;
    file(&file_id)
}

fn subscribe(envelope: &Envelope<'_>) -> Result<Asked, Error> {
    let subscribe: Subscribe = form(envelope)?;
    let kinds = subscribe.events.unwrap_or_else(|| vec![Kind::Status, Kind::Output]);
    let (status, output) = (kinds.contains(&Kind::Status), kinds.contains(&Kind::Output));
    if !status && !output {
        return Err(Error::invalid("events", "must name status, output, or both"));
    }
    let job = subscribe.job_id.map(JobId::from_uuid);
    let misplaced = [
        ("cursors", job.is_some() && subscribe.cursors.is_some(), "goes without jobId: say cursor"),
        ("cursor", job.is_none() && subscribe.cursor.is_some(), "goes with jobId: say cursors"),
        ("follow", job.is_none() && subscribe.follow == Some(false), "may be false only with jobId"),
    ];
    if let Some((field, _, why)) = misplaced.into_iter().find(|(_, is_misplaced, _)| *is_misplaced) {
        return Err(Error::invalid(field, why));
    }
    let query = OutputQuery {
        from: subscribe.cursor.map(|text| cursor("cursor", &text)).transpose()?,
        since: subscribe.since.map(|time| time.0),
        tail: subscribe.tail,
        follow: subscribe.follow.unwrap_or(true),
        stream: subscribe.stream,
    };
    if query.tail.is_some_and(|tail| tail > OutputQuery::MAX_TAIL) {
        return Err(Error::invalid("tail", format!("must be at most {}", OutputQuery::MAX_TAIL)));
    }
    let cursors = subscribe.cursors.into_iter().flatten();
    let cursors = cursors.map(|(job, text)| Ok((JobId::from_uuid(job), cursor("cursors", &text)?)));
    let cursors: Vec<_> = cursors.collect::<Result<_, Error>>()?;
    if cursors.len() > MOST_CURSORS {
        return Err(Error::invalid("cursors", format!("must be at most {MOST_CURSORS}")));
    }
    let (packed, credits) = (subscribe.packed, subscribe.credits.unwrap_or(CREDITS));
    Ok(Asked::Subscribe(Wanted { job, status, output, query, cursors, packed, credits }))
}

fn cursor<T: std::str::FromStr>(field: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::invalid(field, "not a cursor that this service gave out"))
}

fn worker(text: &str) -> Result<WorkerId, Error> {
    text.parse().map_err(|error: ParseError| Error::invalid("workerId", error.to_string()))
}

fn file(text: &str) -> Result<FileId, Error> {
    text.parse().map_err(|error: ParseFileIdError| Error::invalid("fileId", error.to_string()))
}
