//! Records: one document each, by kind and key. Accounts and files have collections of their own, as in older deployments.

use std::collections::HashMap;

use bytes::Bytes;
use cmdexec_core::store::{Record, RecordWrite, Written};
use cmdexec_core::time::Timestamp;
use futures_util::future::try_join_all;
use mongodb::bson::{Bson, Document, RawDocument, doc};

use crate::client::{Mongo, Op, binary, bounded, persist};
use crate::error::Error;
use crate::jobs::{date, each, signed};
use crate::schema::{FILES, RECORDS, USERS};

/// How many writes of one call are under way at once.
const AT_ONCE: usize = 16;

fn collection_of(kind: &str) -> &'static str {
    match kind {
        "user" => USERS,
        "file" => FILES,
        _ => RECORDS,
    }
}

fn id(kind: &str, key: &str) -> Document {
    doc! { "kind": kind, "key": key }
}

fn alive(now: Timestamp) -> Vec<Document> {
    vec![doc! { "expires": { "$exists": false } }, doc! { "expires": { "$gt": date(now) } }]
}

fn record(document: &RawDocument) -> Result<Record, Error> {
    let wrong = |error: mongodb::bson::error::Error| Error::row("a record", error);
    let key = document.get_document("_id").map_err(wrong)?.get_str("key").map_err(wrong)?;
    let version = document.get_i64("version").map_err(wrong)?;
    Ok(Record {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(document.get_binary("value").map_err(wrong)?.bytes),
        version: u64::try_from(version).map_err(|error| Error::row("version", error))?,
    })
}

pub(crate) async fn get(mongo: &Mongo, kind: &str, keys: &[String]) -> Result<Vec<Option<Record>>, Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let now = mongo.now().await?;
    let ids: Vec<Document> = keys.iter().map(|key| id(kind, key)).collect();
    let collection = mongo.collection(collection_of(kind));
    let find = collection.find(doc! { "_id": { "$in": ids }, "$or": alive(now) });
    let mut found: HashMap<String, Record> = HashMap::with_capacity(keys.len());
    each(bounded(async { Ok(find.await?) }).await?, |document| {
        let record = record(document)?;
        found.insert(record.key.clone(), record);
        Ok(())
    })
    .await?;
    Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
}

pub(crate) async fn list(mongo: &Mongo, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    if limit == 0 {
        return Ok(records);
    }
    let now = mongo.now().await?;
    let from = match after {
        Some(after) => doc! { "$gt": id(kind, after) },
        None => doc! { "$gte": id(kind, "") },
    };
    let mut range = from;
    // Documents compare field by field: this is behind every key of the kind.
    range.insert("$lt", doc! { "kind": kind, "key": Bson::MaxKey });
    let collection = mongo.collection(collection_of(kind));
    let find = collection
        .find(doc! { "_id": range, "$or": alive(now) })
        .sort(doc! { "_id": 1 })
        .limit(i64::try_from(limit).unwrap_or(i64::MAX));
    each(bounded(async { Ok(find.await?) }).await?, |document| {
        records.push(record(document)?);
        Ok(())
    })
    .await?;
    Ok(records)
}

/// Each write is a command of its own, some at a time: they are few, and each answers for itself.
pub(crate) async fn put(mongo: &Mongo, kind: &str, writes: &[RecordWrite]) -> Result<Vec<Written>, Error> {
    let now = mongo.now().await?;
    let mut answers = Vec::with_capacity(writes.len());
    for some in writes.chunks(AT_ONCE) {
        answers.extend(try_join_all(some.iter().map(|write| put_one(mongo, kind, write, now))).await?);
    }
    Ok(answers)
}

async fn put_one(mongo: &Mongo, kind: &str, write: &RecordWrite, now: Timestamp) -> Result<Written, Error> {
    let op = mongo.ops.next();
    let attempt = || async {
        match (&write.value, write.version) {
            (Some(value), 0) => add(mongo, kind, write, value, op, now).await,
            (Some(value), _) => replace(mongo, kind, write, value, op, now).await,
            (None, _) => remove(mongo, kind, write, now).await,
        }
    };
    if persist(attempt).await? {
        return Ok(Written::Yes);
    }
    // What an earlier try of this very write has done counts.
    let collection = mongo.collection(collection_of(kind));
    let find = collection.find_one(doc! { "_id": id(kind, &write.key), "$or": alive(now) });
    let found = bounded(async { Ok(find.await?) }).await?;
    let Some(found) = found else {
        return Ok(if write.version == 0 && write.value.is_none() { Written::Yes } else { Written::Missing });
    };
    let is_mine = found.get_binary("op").is_ok_and(|by| by.bytes == op);
    Ok(if is_mine { Written::Yes } else { Written::Stale })
}

fn fields(write: &RecordWrite, value: &Bytes, op: Op, now: Timestamp) -> Document {
    let mut fields = doc! {
        "value": binary(&value[..]),
        "version": signed(write.version.saturating_add(1)),
        "op": binary(op),
    };
    if let Some(ttl) = write.ttl {
        fields.insert("expires", date(now.after(ttl)));
    }
    fields
}

/// Writes a record where there is none, or one whose time is over.
async fn add(
    mongo: &Mongo,
    kind: &str,
    write: &RecordWrite,
    value: &Bytes,
    op: Op,
    now: Timestamp,
) -> Result<bool, Error> {
    let collection = mongo.database.collection::<Document>(collection_of(kind));
    let filter = doc! { "_id": id(kind, &write.key), "expires": { "$lte": date(now) } };
    let new = fields(write, value, op, now);
    match collection.replace_one(filter, &new).upsert(true).await.map_err(Error::from) {
        Ok(_) => Ok(true),
        Err(error) if error.is_duplicate() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn replace(
    mongo: &Mongo,
    kind: &str,
    write: &RecordWrite,
    value: &Bytes,
    op: Op,
    now: Timestamp,
) -> Result<bool, Error> {
    let collection = mongo.database.collection::<Document>(collection_of(kind));
    let filter = doc! { "_id": id(kind, &write.key), "version": signed(write.version), "$or": alive(now) };
    let replaced = collection.replace_one(filter, fields(write, value, op, now)).await?;
    Ok(replaced.matched_count > 0)
}

async fn remove(mongo: &Mongo, kind: &str, write: &RecordWrite, now: Timestamp) -> Result<bool, Error> {
    let collection = mongo.collection(collection_of(kind));
    let filter = doc! { "_id": id(kind, &write.key), "version": signed(write.version), "$or": alive(now) };
    Ok(collection.delete_one(filter).await?.deleted_count > 0)
}
