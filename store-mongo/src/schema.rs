//! Collections, their indexes, and the version of both.

use std::time::Duration;

use cmdexec_core::store::ErrorKind;
use futures_util::future::try_join_all;
use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;
use mongodb::{Database, IndexModel};

use crate::error::Error;

/// The jobs: what changes of them, what finds them, and their specs.
pub(crate) const JOBS: &str = "jobs";
/// What is known of each job's output, with the newest pieces of it.
pub(crate) const LOGS: &str = "jobLogs";
/// The older pieces of output, many in a document.
pub(crate) const SEGMENTS: &str = "jobLogSegments";
/// Registrations.
pub(crate) const WORKERS: &str = "workers";
/// Sessions: what a heartbeat writes.
pub(crate) const HEARTBEATS: &str = "heartbeats";
/// Idempotency keys, which outlive their jobs.
pub(crate) const KEYS: &str = "idempotencyKeys";
/// Accounts.
pub(crate) const USERS: &str = "users";
/// Files.
pub(crate) const FILES: &str = "files";
/// Small versioned things of every other kind.
pub(crate) const RECORDS: &str = "records";
/// What each store tells the others.
pub(crate) const NOTICES: &str = "notices";
/// The version of all this.
const META: &str = "meta";

/// Where records are.
pub(crate) const ALL_RECORDS: [&str; 3] = [USERS, FILES, RECORDS];

const COLLECTIONS: [&str; 11] = [JOBS, LOGS, SEGMENTS, WORKERS, HEARTBEATS, KEYS, USERS, FILES, RECORDS, NOTICES, META];

/// What this program writes. A database with a greater number was written by a newer one; one with a lesser lacks what was
/// added since: the second added [`NOTICES`].
const VERSION: i32 = 2;

/// The names of the indexes on jobs, for questions that must not be left to the planner.
pub(crate) mod index {
    /// `ready`, `classes`: a class's queue in its order, without looking at documents.
    pub(crate) const READY: &str = "ready";
    /// `due`, `next_due`.
    pub(crate) const DUE: &str = "due";
    /// `leased`; `expired`, the part that asks for sessions. Older deployments have it.
    pub(crate) const STATUS_WORKER: &str = "status_1_workerId_1";
    /// `expired`, the part that asks for hard ends.
    pub(crate) const HARD_END: &str = "hardEnd";
    /// `purge`.
    pub(crate) const ENDED: &str = "ended";
    /// `list` by owner.
    pub(crate) const OWNER: &str = "owner";
    /// `list` by status, `counts`.
    pub(crate) const STATUS: &str = "status";
    /// `list` by worker.
    pub(crate) const WORKER: &str = "worker";
    /// `list` by input: the jobs that bring a file.
    pub(crate) const INPUT: &str = "input";
}

/// Every index beside those on `_id`.
///
/// Kept of the older deployments is `jobs {status, workerId}`. Their `workers {workerId}` is `_id` here; nothing asks
/// by `jobs {createdAt}` (pages are by id, which has the time in it) or `workers {lastHeartbeat}` (what is asked is
/// which of the few that hold leases are silent), so that each would be a write for nobody.
fn indexes() -> Vec<(&'static str, &'static str, Document, Option<Document>)> {
    let when = |field: &str| Some(doc! { field: { "$exists": true } });
    vec![
        (JOBS, index::READY, doc! { "status": 1, "class": 1, "rank": 1, "_id": 1 }, Some(doc! { "status": "queued" })),
        (JOBS, index::DUE, doc! { "due": 1, "_id": 1 }, Some(doc! { "status": "scheduled" })),
        (JOBS, index::STATUS_WORKER, doc! { "status": 1, "workerId": 1 }, None),
        (JOBS, index::HARD_END, doc! { "hardEnd": 1 }, when("hardEnd")),
        (JOBS, index::ENDED, doc! { "ended": 1, "_id": 1 }, when("ended")),
        (JOBS, index::OWNER, doc! { "owner": 1, "_id": 1 }, None),
        (JOBS, index::STATUS, doc! { "status": 1, "_id": 1 }, None),
        (JOBS, index::WORKER, doc! { "workerId": 1, "_id": 1 }, when("workerId")),
        (JOBS, index::INPUT, doc! { "input": 1, "_id": 1 }, when("input")),
        // `purge`, and the reading of old segments with their job.
        (SEGMENTS, "job", doc! { "job": 1 }, None),
        // `purge`.
        (KEYS, "expires", doc! { "expires": 1 }, None),
        (USERS, "expires", doc! { "expires": 1 }, when("expires")),
        (FILES, "expires", doc! { "expires": 1 }, when("expires")),
        (RECORDS, "expires", doc! { "expires": 1 }, when("expires")),
        (NOTICES, "expires", doc! { "expires": 1 }, None),
    ]
}

/// Makes what is missing. Any number of coordinators may do so at once.
///
/// # Errors
/// `Invalid`: the database was written by a newer version.
pub(crate) async fn prepare(database: &Database) -> Result<(), Error> {
    let meta = database.collection::<Document>(META);
    let filter = doc! { "_id": "schema" };
    match meta.find_one(filter.clone()).await? {
        Some(found) => {
            let version = found.get_i32("version").map_err(|error| Error::row("the schema's version", error))?;
            if version > VERSION {
                let what = format!(
                    "the database has schema version {version}, which is newer than this program knows: update it"
                );
                return Err(Error::Refused(ErrorKind::Invalid, what));
            }
            if version == VERSION {
                return Ok(());
            }
        }
        None => refuse_foreign(database).await?,
    }
    // Transactions can't be relied upon to make collections.
    try_join_all(COLLECTIONS.map(|name| create(database, name))).await?;
    let mut by_collection: Vec<(&str, Vec<IndexModel>)> = Vec::new();
    for (collection, name, keys, condition) in indexes() {
        let options = IndexOptions::builder().name(name.to_owned()).partial_filter_expression(condition).build();
        let model = IndexModel::builder().keys(keys).options(options).build();
        match by_collection.last_mut() {
            Some((last, models)) if *last == collection => models.push(model),
            _ => by_collection.push((collection, vec![model])),
        }
    }
    // A large database of an older deployment takes its time.
    let making = by_collection.into_iter().map(|(collection, models)| async move {
        database.collection::<Document>(collection).create_indexes(models).max_time(Duration::from_secs(3_600)).await
    });
    try_join_all(making).await?;
    meta.update_one(filter, doc! { "$max": { "version": VERSION } }).upsert(true).await?;
    Ok(())
}

/// Refuses a database that has somebody else's jobs, before anything is changed in it.
async fn refuse_foreign(database: &Database) -> Result<(), Error> {
    let theirs = doc! { "inserted": { "$exists": false } };
    if database.collection::<Document>(JOBS).find_one(theirs).await?.is_some() {
        let what = "the database has jobs that this program can't read: name another with MONGODB_DB";
        return Err(Error::Refused(ErrorKind::Invalid, what.to_owned()));
    }
    Ok(())
}

async fn create(database: &Database, name: &str) -> Result<(), Error> {
    let made = database.run_command(doc! { "create": name }).await.map_err(Error::from);
    made.map(drop).or_else(|error| if is_there(&error) { Ok(()) } else { Err(error) })
}

/// Somebody else made it, or is making it.
fn is_there(error: &Error) -> bool {
    const NAMESPACE_EXISTS: i32 = 48;
    let Error::Driver(error) = error else { return false };
    matches!(error.kind.as_ref(), mongodb::error::ErrorKind::Command(command) if command.code == NAMESPACE_EXISTS)
}
