//! Removal of what is over. Any number of coordinators may do so at once: what one has removed, another does not find.

use std::time::Duration;

use cmdexec_core::id::{JobId, Owner};
use mongodb::bson::{Bson, doc};
use mongodb::options::Hint;

use crate::client::{Mongo, binary, bounded};
use crate::error::Error;
use crate::jobs::{among, date, each, forget_keys, id_of};
use crate::schema::{self, index};

/// Removes finished jobs with their output, keys and records, at most `limit` of each, and says how many jobs.
pub(crate) async fn purge(mongo: &Mongo, keep: Duration, limit: usize) -> Result<usize, Error> {
    if limit == 0 {
        return Ok(0);
    }
    let now = mongo.now().await?;
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let (ids, keys) = ended(mongo, now.before(keep), most).await?;
    // The jobs last: what a death in between leaves is found again.
    forget_keys(mongo, &keys).await?;
    let of_jobs = doc! { "$in": ids.iter().map(|id| binary(*id.as_bytes())).collect::<Vec<_>>() };
    let mut removed = 0;
    if !ids.is_empty() {
        delete(mongo, schema::SEGMENTS, doc! { "job": of_jobs }).await?;
        delete(mongo, schema::LOGS, among(&ids)).await?;
        removed = delete(mongo, schema::JOBS, among(&ids)).await?;
    }
    for collection in [schema::KEYS, schema::NOTICES].into_iter().chain(schema::ALL_RECORDS) {
        expire(mongo, collection, doc! { "$lte": date(now) }, most).await?;
    }
    Ok(removed)
}

type Ended = (Vec<JobId>, Vec<(Owner, String)>);

/// Finished jobs that ended long ago, the longest first, and the keys that they were submitted with.
async fn ended(mongo: &Mongo, before: cmdexec_core::time::Timestamp, most: i64) -> Result<Ended, Error> {
    let jobs = mongo.jobs();
    let find = jobs
        .find(doc! { "ended": { "$lt": date(before) } })
        .sort(doc! { "ended": 1, "_id": 1 })
        .limit(most)
        .projection(doc! { "owner": 1, "key": 1 })
        .hint(Hint::Name(index::ENDED.to_owned()));
    let (mut ids, mut keys) = (Vec::new(), Vec::new());
    each(bounded(async { Ok(find.await?) }).await?, |document| {
        ids.push(id_of(document, "_id")?);
        if let Ok(key) = document.get_str("key") {
            let owner = document.get_str("owner").map_err(|error| Error::row("owner", error))?;
            keys.push((owner.parse().map_err(|error| Error::row("owner", error))?, key.to_owned()));
        }
        Ok(())
    })
    .await?;
    Ok((ids, keys))
}

async fn expire(mongo: &Mongo, collection: &str, over: mongodb::bson::Document, most: i64) -> Result<(), Error> {
    let documents = mongo.collection(collection);
    let find = documents
        .find(doc! { "expires": over.clone() })
        .sort(doc! { "expires": 1 })
        .limit(most)
        .projection(doc! { "_id": 1 })
        .hint(Hint::Name("expires".to_owned()));
    let mut ids: Vec<Bson> = Vec::new();
    each(bounded(async { Ok(find.await?) }).await?, |document| {
        if let Some(id) = document.get("_id")? {
            ids.push(Bson::try_from(id)?);
        }
        Ok(())
    })
    .await?;
    if !ids.is_empty() {
        // Unless somebody has renewed it since.
        delete(mongo, collection, doc! { "_id": { "$in": ids }, "expires": over }).await?;
    }
    Ok(())
}

async fn delete(mongo: &Mongo, collection: &str, filter: mongodb::bson::Document) -> Result<usize, Error> {
    let documents = mongo.collection(collection);
    let deleted = bounded(async { Ok(documents.delete_many(filter).await?) }).await?.deleted_count;
    Ok(usize::try_from(deleted).unwrap_or(usize::MAX))
}
