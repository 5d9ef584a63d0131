//! Idempotency keys: which insertion used which, until when.

use cmdexec_core::id::{JobId, Owner};
use cmdexec_core::store::{Inserted, Key, StoredKey};
use cmdexec_core::time::Timestamp;
use mongodb::Collection;
use mongodb::bson::{Bson, Document, RawDocument, RawDocumentBuf, doc, rawdoc};

use super::document::{date, timestamp};
use super::read::each;
use crate::client::{Mongo, Op, binary, bounded, persist};
use crate::error::Error;
use crate::schema;

/// A key as it is found.
pub(super) struct Known {
    pub(super) ids: Vec<JobId>,
    pub(super) fingerprint: [u8; 32],
    pub(super) op: Op,
    expires: Timestamp,
    /// Its job may be missing still.
    pub(super) is_open: bool,
}

impl Known {
    fn read(row: &RawDocument) -> Result<Self, Error> {
        let wrong = |error: mongodb::bson::error::Error| Error::row("a key", error);
        let exactly = |error| Error::row("a key", error);
        let ids = row.get_binary("ids").map_err(wrong)?;
        let ids = ids.bytes.chunks(16).map(|id| id.try_into().map(JobId::from_bytes).map_err(exactly));
        Ok(Self {
            ids: ids.collect::<Result<_, _>>()?,
            fingerprint: row.get_binary("fingerprint").map_err(wrong)?.bytes.try_into().map_err(exactly)?,
            op: row.get_binary("op").map_err(wrong)?.bytes.try_into().map_err(exactly)?,
            expires: timestamp(row.get_datetime("expires").map_err(wrong)?),
            is_open: row.get_bool("open").unwrap_or(false),
        })
    }

    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.expires <= now
    }

    pub(super) fn inserted(self) -> Inserted {
        Inserted::Known { ids: self.ids, fingerprint: self.fingerprint }
    }
}

pub(super) fn key_id(key: &Key) -> Document {
    key_of(&key.owner, &key.key)
}

fn key_of(owner: &Owner, key: &str) -> Document {
    doc! { "owner": owner.as_str(), "key": key }
}

pub(super) fn key_document(key: &Key, ids: &[JobId], op: Op, now: Timestamp, is_open: bool) -> RawDocumentBuf {
    let ids: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
    rawdoc! {
        "_id": { "owner": key.owner.as_str(), "key": key.key.as_str() },
        "fingerprint": binary(key.fingerprint),
        "ids": binary(ids),
        "op": binary(op),
        "expires": date(now.after(key.ttl)),
        "open": is_open,
    }
}

pub(super) async fn find_key(mongo: &Mongo, key: &Key) -> Result<Option<Known>, Error> {
    let keys = mongo.collection(schema::KEYS);
    let found = bounded(async { Ok(keys.find_one(doc! { "_id": key_id(key) }).await?) }).await?;
    found.map(|row| Known::read(&row)).transpose()
}

pub(super) async fn find_key_of(mongo: &Mongo, key: Option<&Key>) -> Result<Option<Known>, Error> {
    match key {
        Some(key) => find_key(mongo, key).await,
        None => Ok(None),
    }
}

/// Takes over a key whose time is over, unless somebody was faster.
pub(super) async fn replace_key(mongo: &Mongo, key: &Key, known: &Known, row: &RawDocumentBuf) -> Result<bool, Error> {
    let keys: Collection<RawDocumentBuf> = mongo.collection(schema::KEYS);
    let filter = doc! { "_id": key_id(key), "op": binary(known.op) };
    let replaced = bounded(async { Ok(keys.replace_one(filter, row).await?) }).await?;
    Ok(replaced.matched_count == 1)
}

/// Notes that these jobs' keys have had their jobs, before the jobs go: they are not to be inserted again.
pub(crate) async fn forget_keys(mongo: &Mongo, keys: &[(Owner, String)]) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let ids: Vec<Document> = keys.iter().map(|(owner, key)| key_of(owner, key)).collect();
    let filter = doc! { "_id": { "$in": ids }, "open": true };
    let known = mongo.collection(schema::KEYS);
    persist(|| async { Ok(known.update_many(filter.clone(), doc! { "$set": { "open": false } }).await?) }).await?;
    Ok(())
}

pub(crate) async fn list_keys(
    mongo: &Mongo,
    after: Option<(&Owner, &str)>,
    limit: usize,
) -> Result<Vec<StoredKey>, Error> {
    let mut stored = Vec::new();
    if limit == 0 {
        return Ok(stored);
    }
    let now = mongo.now().await?;
    let from =
        after.map_or_else(|| doc! { "owner": Bson::MinKey, "key": Bson::MinKey }, |(owner, key)| key_of(owner, key));
    let keys = mongo.collection(schema::KEYS);
    let find = keys
        .find(doc! { "_id": { "$gt": from }, "expires": { "$gt": date(now) } })
        .sort(doc! { "_id": 1 })
        .hint(mongodb::options::Hint::Name("_id_".to_owned()))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX));
    each(bounded(async { Ok(find.await?) }).await?, |row| {
        let wrong = |error: mongodb::bson::error::Error| Error::row("a key", error);
        let id = row.get_document("_id").map_err(wrong)?;
        let known = Known::read(row)?;
        let owner = id.get_str("owner").map_err(wrong)?.parse().map_err(|error| Error::row("owner", error))?;
        let key = id.get_str("key").map_err(wrong)?.to_owned();
        let key = Key { owner, key, fingerprint: known.fingerprint, ttl: known.expires.since(now) };
        stored.push(StoredKey { key, ids: known.ids });
        Ok(())
    })
    .await?;
    Ok(stored)
}

pub(crate) async fn put_keys(mongo: &Mongo, stored: &[StoredKey]) -> Result<(), Error> {
    let now = mongo.now().await?;
    let keys = mongo.collection(schema::KEYS);
    for StoredKey { key, ids } in stored {
        let row = key_document(key, ids, mongo.ops.next(), now, false);
        let filter = doc! { "_id": key_id(key) };
        persist(|| async { Ok(keys.replace_one(filter.clone(), &row).upsert(true).await?) }).await?;
    }
    Ok(())
}
