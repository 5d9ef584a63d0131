//! Registrations and sessions. A session has a document of its own, so that a heartbeat writes little.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::id::WorkerId;
use cmdexec_core::store::{Beat, ErrorKind, Renewed, WorkerRow};
use cmdexec_core::time::{Clock, SystemClock};
use mongodb::bson::{Binary, Document, RawDocument, RawDocumentBuf, doc, rawdoc};
use serde::{Deserialize, Serialize};

use crate::client::{Mongo, PERSIST, binary, bounded, persist};
use crate::error::Error;
use crate::jobs::{date, each, timestamp};
use crate::schema::{HEARTBEATS, WORKERS};

/// How often others may be faster with the same session.
const TRIES: u32 = 50;

/// After a renewal that nothing was heard of, before it is looked for.
const PAUSE: Duration = Duration::from_millis(100);

/// A session as its document has it. The beat is the JSON that golden files hold still; `removed` is there for good.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    beat: String,
    last_heartbeat: mongodb::bson::DateTime,
    removed: bool,
    version: i64,
    /// The renewal that wrote it last. Neither a registration nor a removal has one, nor what older programs wrote.
    #[serde(default)]
    op: Option<Binary>,
}

impl Session {
    fn beat(&self) -> Result<Beat, Error> {
        serde_json::from_str(&self.beat).map_err(|error| Error::row("beat", error))
    }
}

/// Writes a registration and renews the session, whose beat stays.
///
/// # Errors
/// A refusal with `Conflict`: the worker was removed.
pub(crate) async fn register(mongo: &Mongo, worker: &WorkerId, info: &[u8]) -> Result<(), Error> {
    let now = mongo.now().await?;
    // The session first: it says whether the worker was removed. One without a registration is none yet.
    let sessions = mongo.collection(HEARTBEATS);
    let filter = doc! { "_id": worker.as_str(), "removed": false };
    let renewal = doc! {
        "$set": { "lastHeartbeat": date(now) },
        "$inc": { "version": 1_i64 },
        "$setOnInsert": { "beat": json(&Beat::default())? },
    };
    let renewed =
        persist(|| async { Ok(sessions.update_one(filter.clone(), renewal.clone()).upsert(true).await?) }).await;
    match renewed {
        // It is there, and not as one that was not removed.
        Err(error) if error.is_duplicate() => {
            let removed = doc! { "_id": worker.as_str(), "removed": true };
            let is_removed = bounded(async { Ok(sessions.find_one(removed).await?) }).await?.is_some();
            return Err(if is_removed {
                Error::Refused(ErrorKind::Conflict, "the worker was removed".to_owned())
            } else {
                Error::unavailable("the worker registers twice at the same time")
            });
        }
        renewed => renewed.map(drop)?,
    }
    let registration = doc! {
        "$set": { "info": binary(info) },
        "$setOnInsert": { "registered": date(now) },
    };
    let workers = mongo.collection(WORKERS);
    let filter = doc! { "_id": worker.as_str() };
    persist(|| async { Ok(workers.update_one(filter.clone(), registration.clone()).upsert(true).await?) }).await?;
    Ok(())
}

/// Renews a session, over an election if need be. That of a worker that was removed keeps its time.
pub(crate) async fn renew(mongo: &Mongo, worker: &WorkerId, beat: &Beat) -> Result<Renewed, Error> {
    let now = mongo.now().await?;
    let sessions = mongo.database.collection::<Session>(HEARTBEATS);
    let filter = doc! { "_id": worker.as_str() };
    let op = binary(mongo.ops.next());
    let until = SystemClock.uptime().saturating_add(PERSIST);
    // The answer that goes with the last try, if it is not known whether that was written.
    let mut unheard = None;
    for _ in 0..TRIES {
        let Some(session) = persist(|| async { Ok(sessions.find_one(filter.clone()).await?) }).await? else {
            return Ok(Renewed::Unknown);
        };
        if let Some(answer) = unheard.take_if(|_| session.op.as_ref() == Some(&op)) {
            return Ok(answer);
        }
        let before = session.beat()?;
        let kept = beat.clone().after(&before);
        let mut set = doc! { "beat": json(&kept)?, "version": session.version.saturating_add(1), "op": op.clone() };
        if !session.removed {
            set.insert("lastHeartbeat", date(now));
        }
        let before = before.held;
        let answer = if session.removed { Renewed::Removed { before } } else { Renewed::Yes { before } };
        let as_read = doc! { "_id": worker.as_str(), "version": session.version };
        let update = sessions.update_one(as_read, doc! { "$set": set });
        match bounded(async { Ok(update.await?) }).await {
            Ok(updated) if updated.matched_count > 0 => return Ok(answer),
            Ok(_) => {}
            Err(error) if error.is_transient() && SystemClock.uptime() < until => {
                unheard = Some(answer);
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::unavailable("others renew the same session all the time"))
}

/// What the last beat before these listed, of workers that each beat once. One by one: workers beat each for itself.
pub(crate) async fn renew_all(mongo: &Mongo, beats: &[(WorkerId, Beat)]) -> Result<Vec<Renewed>, Error> {
    let renewals = beats.iter().map(|(worker, beat)| renew(mongo, worker, beat));
    futures_util::future::try_join_all(renewals).await
}

/// Writes workers with everything that is kept of them: sessions first, since one without a registration is none yet.
pub(crate) async fn put(mongo: &Mongo, rows: &[WorkerRow]) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut sessions = Vec::with_capacity(rows.len());
    let mut registrations = Vec::with_capacity(rows.len());
    for row in rows {
        let statement = |update| rawdoc! { "q": { "_id": row.id.as_str() }, "u": update, "upsert": true };
        sessions.push(statement(rawdoc! {
            "$set": { "beat": json(&row.beat)?, "lastHeartbeat": date(row.renewed), "removed": row.removed },
            "$inc": { "version": 1_i64 },
        }));
        registrations.push(statement(rawdoc! {
            "$set": { "info": binary(&row.info[..]), "registered": date(row.registered) },
        }));
    }
    mongo.update_many(HEARTBEATS, sessions).await?;
    mongo.update_many(WORKERS, registrations).await?;
    Ok(())
}

/// Marks a worker as removed. Says whether it was known and not removed.
pub(crate) async fn remove(mongo: &Mongo, worker: &WorkerId) -> Result<bool, Error> {
    let sessions = mongo.collection(HEARTBEATS);
    let filter = doc! { "_id": worker.as_str(), "removed": false };
    let removal = doc! { "$set": { "removed": true }, "$inc": { "version": 1_i64 } };
    Ok(bounded(async { Ok(sessions.update_one(filter, removal).await?) }).await?.matched_count > 0)
}

pub(crate) async fn get(mongo: &Mongo, ids: &[WorkerId]) -> Result<Vec<Option<WorkerRow>>, Error> {
    let ids: Vec<&str> = ids.iter().map(WorkerId::as_str).collect();
    let among = doc! { "_id": { "$in": ids.clone() } };
    let sessions = sessions(mongo, among.clone()).await?;
    let workers = mongo.collection(WORKERS);
    let mut rows = HashMap::with_capacity(ids.len());
    each(bounded(async { Ok(workers.find(among).await?) }).await?, |document| {
        if let Some(row) = row(document, &sessions)? {
            rows.insert(row.id.as_str().to_owned(), row);
        }
        Ok(())
    })
    .await?;
    Ok(ids.into_iter().map(|id| rows.get(id).cloned()).collect())
}

/// Workers by id, those that were removed only `with_removed`. Sessions are asked for their state page by page: those that
/// were removed are few.
pub(crate) async fn list(
    mongo: &Mongo,
    after: Option<&WorkerId>,
    limit: usize,
    with_removed: bool,
) -> Result<Vec<WorkerRow>, Error> {
    let mut found: Vec<WorkerRow> = Vec::new();
    let mut after = after.map_or_else(String::new, |id| id.as_str().to_owned());
    while found.len() < limit {
        let room = i64::try_from(limit - found.len()).unwrap_or(i64::MAX);
        let workers = mongo.collection(WORKERS);
        let find = workers.find(doc! { "_id": { "$gt": after } }).sort(doc! { "_id": 1 }).limit(room);
        let mut page: Vec<RawDocumentBuf> = Vec::new();
        each(bounded(async { Ok(find.await?) }).await?, |document| {
            page.push(document.to_owned());
            Ok(())
        })
        .await?;
        let ids =
            page.iter().map(|document| document.get_str("_id").map(str::to_owned)).collect::<Result<Vec<_>, _>>()?;
        let Some(last) = ids.last().cloned() else { break };
        let sessions = sessions(mongo, doc! { "_id": { "$in": ids } }).await?;
        for document in &page {
            found.extend(row(document, &sessions)?.filter(|row| with_removed || !row.removed));
        }
        after = last;
    }
    Ok(found)
}

async fn sessions(mongo: &Mongo, filter: Document) -> Result<HashMap<String, Session>, Error> {
    let collection = mongo.collection(HEARTBEATS);
    let mut sessions = HashMap::new();
    each(bounded(async { Ok(collection.find(filter).await?) }).await?, |document| {
        let id = document.get_str("_id").map_err(|error| Error::row("a worker's id", error))?;
        let session: Session = mongodb::bson::deserialize_from_slice(document.as_bytes())?;
        sessions.insert(id.to_owned(), session);
        Ok(())
    })
    .await?;
    Ok(sessions)
}

fn row(document: &RawDocument, sessions: &HashMap<String, Session>) -> Result<Option<WorkerRow>, Error> {
    let wrong = |error: mongodb::bson::error::Error| Error::row("a worker", error);
    let id = document.get_str("_id").map_err(wrong)?;
    let Some(session) = sessions.get(id) else { return Ok(None) };
    Ok(Some(WorkerRow {
        id: id.parse().map_err(|error| Error::row("a worker's id", error))?,
        info: Bytes::copy_from_slice(document.get_binary("info").map_err(wrong)?.bytes),
        beat: session.beat()?,
        registered: timestamp(document.get_datetime("registered").map_err(wrong)?),
        renewed: timestamp(session.last_heartbeat),
        removed: session.removed,
    }))
}

fn json(beat: &Beat) -> Result<String, Error> {
    serde_json::to_string(beat).map_err(|error| Error::row("beat", error))
}
