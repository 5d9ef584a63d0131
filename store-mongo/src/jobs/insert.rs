//! Insertions, and the idempotency keys that make their repetition known.
//!
//! Several jobs are inserted in a transaction, all or none. One job needs none: a document is atomic. With a key there
//! are two documents, and the key comes first: it names the job that it is for. Whoever finds a key whose job is missing
//! (its inserter is on the way, or has died) inserts the job himself, under the id that the key names, and the id is
//! unique. So a key that is used has its job, and nobody waits for anybody.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::id::JobId;
use cmdexec_core::job::{Job, Timer};
use cmdexec_core::store::{ErrorKind, Insert, Inserted, Key};
use cmdexec_core::time::Timestamp;
use mongodb::ClientSession;
use mongodb::bson::{RawDocumentBuf, doc};

use super::document::{date, document};
use super::keys::{Known, find_key, find_key_of, key_document, key_id, replace_key};
use super::read::among;
use crate::bell::Told;
use crate::client::{Mongo, Op, binary, bounded, persist};
use crate::error::Error;
use crate::gather::Work;
use crate::schema;

/// How often what others do at the same time may come in between.
const TRIES: u32 = 50;

/// How long the second of two who use one key waits until a majority has the first's.
const PAUSE: Duration = Duration::from_millis(20);

/// An insertion of one job without a key, encoded by its caller.
pub(crate) struct Insertion {
    id: JobId,
    op: Op,
    document: RawDocumentBuf,
    told: Told,
}

impl Insertion {
    pub(crate) async fn new(mongo: &Mongo, job: &Job, timer: Timer) -> Result<Self, Error> {
        let op = mongo.ops.next();
        let document = document(job, timer, mongo.now().await?, op, None)?;
        Ok(Self { id: job.id, op, document, told: Told::new(job) })
    }

    /// How much of a group it takes.
    pub(crate) fn weight(&self) -> usize {
        1 + self.document.as_bytes().len() / 2_048
    }
}

/// Carries out what several callers insert, each a job, in one command.
pub(crate) struct Singles(pub(crate) Arc<Mongo>);

impl Work for Singles {
    type Item = Insertion;
    type Answer = ();

    async fn carry_out(&self, calls: Vec<Insertion>) -> Vec<Result<(), Error>> {
        match self.insert(&calls).await {
            Ok(answers) => answers,
            Err(error) => calls.iter().map(|_| Err(error.told())).collect(),
        }
    }
}

impl Singles {
    async fn insert(&self, calls: &[Insertion]) -> Result<Vec<Result<(), Error>>, Error> {
        let mongo = &self.0;
        let documents: Vec<RawDocumentBuf> = calls.iter().map(|call| call.document.clone()).collect();
        let there = mongo.insert_many(schema::JOBS, &documents).await?;
        let mut answers: Vec<_> = calls.iter().map(|_| Ok(())).collect();
        for at in there {
            if let (Some(call), Some(answer)) = (calls.get(at), answers.get_mut(at))
                && !is_of(mongo, call.id, call.op).await?
            {
                *answer = Err(conflict(call.id));
            }
        }
        let new = calls.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
        mongo.bell.jobs(new.map(|(call, _)| call.told.clone()));
        Ok(answers)
    }
}

/// Inserts several jobs, or one with a key.
pub(crate) async fn insert(mongo: &Mongo, batch: &Insert) -> Result<Inserted, Error> {
    // One name for every try, so that a later one knows the work of an earlier whose end was not heard of.
    let op = mongo.ops.next();
    for _ in 0..TRIES {
        let done = match (batch.jobs.as_slice(), &batch.key) {
            ([], None) => return Ok(Inserted::New),
            ([(job, timer)], Some(key)) => with_key(mongo, job, *timer, key, op).await?,
            (jobs, key) => match persist(|| together(mongo, jobs, key.as_ref(), op)).await {
                // A cache may be full of what others write; one that had no room after all the tries is too small.
                Err(error) if error.is_too_large_for_cache() => {
                    let what = format!("MongoDB's cache has no room for {} jobs of this size at once", jobs.len());
                    return Err(Error::Refused(ErrorKind::Invalid, what));
                }
                done => done?,
            },
        };
        if let Some(inserted) = done {
            if inserted == Inserted::New {
                mongo.bell.jobs(batch.jobs.iter().map(|(job, _)| Told::new(job)));
            }
            return Ok(inserted);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Error::unavailable("others insert the same all the time"))
}

/// Inserts one job with a key; `None`: somebody came in between.
async fn with_key(mongo: &Mongo, job: &Job, timer: Timer, key: &Key, op: Op) -> Result<Option<Inserted>, Error> {
    let now = mongo.now().await?;
    let row = key_document(key, &[job.id], op, now, true);
    if !mongo.insert_many(schema::KEYS, std::slice::from_ref(&row)).await?.is_empty() {
        let Some(known) = find_key(mongo, key).await? else { return Ok(None) };
        if known.op != op {
            if known.is_over(now) {
                if !replace_key(mongo, key, &known, &row).await? {
                    return Ok(None);
                }
            } else {
                return complete(mongo, job, timer, key, known, now).await.map(Some);
            }
        }
    }
    let documents = [document(job, timer, now, op, Some(&key.key))?];
    if mongo.insert_many(schema::JOBS, &documents).await?.is_empty() || is_of(mongo, job.id, op).await? {
        return Ok(Some(Inserted::New));
    }
    // The id is another job's. The key was for nothing.
    let keys = mongo.collection(schema::KEYS);
    persist(|| async { Ok(keys.delete_one(doc! { "_id": key_id(key), "op": binary(op) }).await?) }).await?;
    Err(conflict(job.id))
}

/// Answers that a key is known, and inserts the job that it is for if nobody has.
async fn complete(
    mongo: &Mongo,
    job: &Job,
    timer: Timer,
    key: &Key,
    known: Known,
    now: Timestamp,
) -> Result<Inserted, Error> {
    if known.is_open
        && known.fingerprint == key.fingerprint
        && let [id] = known.ids.as_slice()
    {
        let jobs = mongo.jobs();
        let find = jobs.find_one(among(&[*id])).projection(doc! { "_id": 1 });
        if bounded(async { Ok(find.await?) }).await?.is_none() {
            let job = Job { id: *id, ..job.clone() };
            mongo.insert_many(schema::JOBS, &[document(&job, timer, now, known.op, Some(&key.key))?]).await?;
            mongo.bell.jobs([Told::new(&job)]);
        }
    }
    Ok(known.inserted())
}

/// Inserts jobs in a transaction; `None`: somebody came in between.
async fn together(mongo: &Mongo, jobs: &[(Job, Timer)], key: Option<&Key>, op: Op) -> Result<Option<Inserted>, Error> {
    let now = mongo.now().await?;
    if let Some(key) = key
        && let Some(known) = find_key(mongo, key).await?
        && !known.is_over(now)
    {
        return Ok(Some(if known.op == op { Inserted::New } else { known.inserted() }));
    }
    let mut ids = HashSet::with_capacity(jobs.len());
    if let Some((twice, _)) = jobs.iter().find(|(job, _)| !ids.insert(job.id)) {
        return Err(conflict(twice.id));
    }
    let documents =
        jobs.iter().map(|(job, timer)| document(job, *timer, now, op, None)).collect::<Result<Vec<_>, _>>()?;
    let mut session = mongo.client.start_session().await?;
    session.start_transaction().await?;
    let written = match write(mongo, &mut session, &documents, jobs, key, op, now).await {
        Ok(()) => commit(&mut session).await,
        Err(error) => {
            // Whatever it answers: a transaction that is not committed is none.
            let _ = session.abort_transaction().await;
            Err(error)
        }
    };
    match written {
        Ok(()) => Ok(Some(Inserted::New)),
        Err(error) if error.is_duplicate() => {
            // The key's, or a job's: of an earlier try of this very call, whose commit was not heard of, or another's.
            if key.is_some() && find_key_of(mongo, key).await?.is_some_and(|known| !known.is_over(now)) {
                return Ok(None);
            }
            match existing(mongo, jobs).await? {
                Some((_, inserted)) if inserted == op => Ok(Some(Inserted::New)),
                Some((id, _)) => Err(conflict(id)),
                None => Ok(None),
            }
        }
        Err(error) => Err(error),
    }
}

async fn write(
    mongo: &Mongo,
    session: &mut ClientSession,
    documents: &[RawDocumentBuf],
    jobs: &[(Job, Timer)],
    key: Option<&Key>,
    op: Op,
    now: Timestamp,
) -> Result<(), Error> {
    if let Some(key) = key {
        let keys = mongo.collection(schema::KEYS);
        let ids: Vec<JobId> = jobs.iter().map(|(job, _)| job.id).collect();
        keys.delete_one(doc! { "_id": key_id(key), "expires": { "$lte": date(now) } }).session(&mut *session).await?;
        keys.insert_one(key_document(key, &ids, op, now, false)).session(&mut *session).await?;
    }
    if !documents.is_empty() {
        mongo.jobs().insert_many(documents).session(session).await?;
    }
    Ok(())
}

async fn commit(session: &mut ClientSession) -> Result<(), Error> {
    for _ in 0..TRIES {
        match bounded(async { Ok(session.commit_transaction().await?) }).await {
            Err(error) if error.is_unknown_commit() => tokio::time::sleep(PAUSE * 5).await,
            answer => return answer,
        }
    }
    Err(Error::unavailable("it is not known whether the jobs were inserted"))
}

/// Whether a job is there by this insertion.
async fn is_of(mongo: &Mongo, id: JobId, op: Op) -> Result<bool, Error> {
    let filter = doc! { "_id": binary(*id.as_bytes()), "inserted": binary(op) };
    let found = persist(|| async { Ok(mongo.jobs().find_one(filter.clone()).await?) }).await?;
    Ok(found.is_some())
}

/// One of these jobs that is there, and by which insertion.
async fn existing(mongo: &Mongo, jobs: &[(Job, Timer)]) -> Result<Option<(JobId, Op)>, Error> {
    let ids: Vec<JobId> = jobs.iter().map(|(job, _)| job.id).collect();
    let collection = mongo.jobs();
    let find = collection.find_one(among(&ids)).projection(doc! { "inserted": 1 });
    let Some(found) = bounded(async { Ok(find.await?) }).await? else { return Ok(None) };
    let inserted = found.get_binary("inserted").map_err(|error| Error::row("inserted", error))?;
    let inserted = inserted.bytes.try_into().map_err(|error| Error::row("inserted", error))?;
    Ok(Some((super::document::id_of(&found, "_id")?, inserted)))
}

fn conflict(id: JobId) -> Error {
    Error::Refused(ErrorKind::Conflict, format!("job {id} exists"))
}
