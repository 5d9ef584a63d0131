//! A job as a document.
//!
//! Lives and specs are the JSON that golden files hold still, as in the other stores: names that users choose freely
//! (of variables, say) may be keys in JSON and must not be in BSON. What is asked for has fields of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cmdexec_core::id::JobId;
use cmdexec_core::job::{Class, Job, Life, Status, Timer};
use cmdexec_core::time::Timestamp;
use mongodb::bson::raw::CStr;
use mongodb::bson::{DateTime, RawArrayBuf, RawDocument, RawDocumentBuf, cstr, rawdoc};

use crate::client::{Op, binary};
use crate::error::Error;

/// When the clock is to be watched for a job, as fields; `None`: the field is to go.
#[derive(Debug, Default)]
struct Deadlines {
    due: Option<Timestamp>,
    floor: Option<Timestamp>,
    hard_end: Option<Timestamp>,
}

impl Deadlines {
    /// `None`: they stay as they are.
    fn of(timer: Timer, now: Timestamp) -> Option<Self> {
        match timer {
            Timer::None => Some(Self::default()),
            Timer::Keep => None,
            Timer::DueAt(at) => Some(Self { due: Some(at), ..Self::default() }),
            Timer::DueIn(delay) => Some(Self { due: Some(now.after(delay)), ..Self::default() }),
            Timer::Lease { floor, hard_end } => {
                Some(Self { due: None, floor: Some(now.after(floor)), hard_end: Some(now.after(hard_end)) })
            }
        }
    }

    fn fields(&self) -> [(&'static CStr, Option<Timestamp>); 3] {
        [(cstr!("due"), self.due), (cstr!("floor"), self.floor), (cstr!("hardEnd"), self.hard_end)]
    }
}

/// The fields that follow from a life. What is not there is left out, so that indexes do not have it.
struct Lived<'a> {
    status: Status,
    ended: Option<Timestamp>,
    worker: Option<&'a str>,
    json: String,
}

impl<'a> Lived<'a> {
    fn of(life: &'a Life) -> Result<Self, Error> {
        Ok(Self {
            status: life.status(),
            ended: life.finished_at(),
            worker: life.last_lease().map(|lease| lease.worker.as_str()),
            json: serde_json::to_string(life).map_err(|error| Error::row("life", error))?,
        })
    }
}

/// A job that is new, written by `op`. `key`: the idempotency key that it was submitted with, if that was for it alone.
pub(super) fn document(
    job: &Job,
    timer: Timer,
    now: Timestamp,
    op: Op,
    key: Option<&str>,
) -> Result<RawDocumentBuf, Error> {
    let lived = Lived::of(&job.life)?;
    let mut document = rawdoc! {
        "_id": binary(*job.id.as_bytes()),
        "version": signed(job.version),
        "op": binary(op),
        // Which insertion it is of, for good: `op` changes.
        "inserted": binary(op),
        "status": lived.status.as_str(),
        "class": job.class.key(),
        "rank": rank(job.spec.priority),
        "owner": job.owner.as_str(),
        "createdAt": date(job.created),
    };
    if let Some(worker) = lived.worker {
        document.append(cstr!("workerId"), worker);
    }
    if let Some(ended) = lived.ended {
        document.append(cstr!("ended"), date(ended));
    }
    for (name, at) in Deadlines::of(timer, now).unwrap_or_default().fields() {
        if let Some(at) = at {
            document.append(name, date(at));
        }
    }
    if let Some(input) = job.spec.input {
        document.append(cstr!("input"), input.to_string());
    }
    if !job.spec.labels.is_empty() {
        let labels: RawArrayBuf = job.spec.labels.iter().map(String::as_str).collect();
        document.append(cstr!("labels"), labels);
    }
    if let Some(key) = key {
        document.append(cstr!("key"), key);
    }
    document.append(cstr!("life"), lived.json);
    document.append(cstr!("spec"), serde_json::to_string(&*job.spec).map_err(|error| Error::row("spec", error))?);
    Ok(document)
}

/// A conditional write of a life, as a statement of an `update` command.
pub(super) fn statement(
    id: JobId,
    version: u64,
    life: &Life,
    timer: Timer,
    now: Timestamp,
    op: Op,
) -> Result<RawDocumentBuf, Error> {
    let lived = Lived::of(life)?;
    let version = signed(version);
    let mut set = rawdoc! {
        "version": version.saturating_add(1),
        "op": binary(op),
        "status": lived.status.as_str(),
        "life": lived.json,
    };
    let mut unset = RawDocumentBuf::new();
    match lived.worker {
        Some(worker) => set.append(cstr!("workerId"), worker),
        None => unset.append(cstr!("workerId"), true),
    }
    match lived.ended {
        Some(ended) => set.append(cstr!("ended"), date(ended)),
        None => unset.append(cstr!("ended"), true),
    }
    if let Some(deadlines) = Deadlines::of(timer, now) {
        for (name, at) in deadlines.fields() {
            match at {
                Some(at) => set.append(name, date(at)),
                None => unset.append(name, true),
            }
        }
    }
    let mut update = rawdoc! { "$set": set };
    if !unset.is_empty() {
        update.append(cstr!("$unset"), unset);
    }
    Ok(rawdoc! { "q": { "_id": binary(*id.as_bytes()), "version": version }, "u": update })
}

/// Makes jobs of documents. Remembers classes, which are few, so that each is parsed once and shared.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    classes: Mutex<HashMap<String, Class>>,
}

/// Beyond this the memory is emptied: whoever makes up classes must not fill it.
const KNOWN_CLASSES: usize = 4096;

impl Decoder {
    pub(super) fn job(&self, document: &RawDocument) -> Result<Job, Error> {
        let wrong = |error: mongodb::bson::error::Error| Error::row("a job", error);
        Ok(Job {
            id: id_of(document, "_id")?,
            version: u64::try_from(document.get_i64("version").map_err(wrong)?)
                .map_err(|error| Error::row("version", error))?,
            owner: document.get_str("owner").map_err(wrong)?.parse().map_err(|error| Error::row("owner", error))?,
            created: timestamp(document.get_datetime("createdAt").map_err(wrong)?),
            life: json("life", document.get_str("life").map_err(wrong)?)?,
            class: self.class(document.get_str("class").map_err(wrong)?)?,
            spec: Arc::new(json("spec", document.get_str("spec").map_err(wrong)?)?),
        })
    }

    pub(crate) fn class(&self, key: &str) -> Result<Class, Error> {
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(class) = classes.get(key) {
            return Ok(class.clone());
        }
        let class = Class::from_key(key).map_err(|error| Error::row("class", error))?;
        if classes.len() >= KNOWN_CLASSES {
            classes.clear();
        }
        classes.insert(key.to_owned(), class.clone());
        Ok(class)
    }
}

/// The field that a queue is ordered by: the least is served first.
pub(crate) fn rank(priority: i8) -> i32 {
    -i32::from(priority)
}

pub(crate) fn priority(rank: i32) -> Result<i8, Error> {
    i8::try_from(-rank).map_err(|error| Error::row("rank", error))
}

pub(crate) fn id_of(document: &RawDocument, field: &str) -> Result<JobId, Error> {
    let found = document.get_binary(field).map_err(|error| Error::row("a job's id", error))?;
    let bytes = found.bytes.try_into().map_err(|error| Error::row("a job's id", error))?;
    Ok(JobId::from_bytes(bytes))
}

/// Counts and numbers of the model's are kept in signed 64 bits.
pub(crate) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(crate) fn date(at: Timestamp) -> DateTime {
    DateTime::from_millis(at.as_millis())
}

pub(crate) fn timestamp(at: DateTime) -> Timestamp {
    Timestamp::from_millis(at.timestamp_millis())
}

fn json<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::row(what, error))
}
