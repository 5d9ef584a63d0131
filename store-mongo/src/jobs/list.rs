//! Pages of jobs.

use cmdexec_core::store::{ListQuery, Page};
use mongodb::bson::{Document, doc};
use mongodb::options::Hint;

use super::document::{Decoder, date};
use super::read::jobs;
use crate::client::{Mongo, binary, bounded};
use crate::error::Error;
use crate::schema::index;

pub(crate) async fn list(mongo: &Mongo, decoder: &Decoder, query: &ListQuery) -> Result<Page, Error> {
    let conditions = conditions(query);
    let mut page = conditions.clone();
    if let Some(before) = query.before {
        page.insert("_id", doc! { "$lt": binary(*before.as_bytes()) });
    }
    let collection = mongo.jobs();
    let mut find = collection
        .find(page)
        .sort(doc! { "_id": -1 })
        .skip(query.offset as u64)
        .limit(i64::try_from(query.limit.saturating_add(1)).unwrap_or(i64::MAX));
    if let Some(hint) = leading(query) {
        find = find.hint(hint);
    }
    let cursor = bounded(async { Ok(find.await?) }).await?;
    let mut found = jobs(cursor, decoder).await?;
    let more = found.len() > query.limit;
    found.truncate(query.limit);
    let total = if query.count_to == 0 { 0 } else { count(mongo, query, conditions).await? };
    Ok(Page { jobs: found, more, total })
}

async fn count(mongo: &Mongo, query: &ListQuery, conditions: Document) -> Result<usize, Error> {
    let collection = mongo.jobs();
    let mut count = collection.count_documents(conditions).limit(query.count_to as u64);
    if let Some(hint) = leading(query) {
        count = count.hint(hint);
    }
    let count = bounded(async { Ok(count.await?) }).await?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// The index to go by: the jobs that bring a file are the fewest, then a worker's. Between a status and an owner the
/// server chooses by trying both.
fn leading(query: &ListQuery) -> Option<Hint> {
    let name = match query {
        ListQuery { input: Some(_), .. } => index::INPUT,
        ListQuery { worker: Some(_), .. } => index::WORKER,
        ListQuery { status: Some(_), owner: None, .. } => index::STATUS,
        ListQuery { owner: Some(_), status: None, .. } => index::OWNER,
        ListQuery { owner: None, status: None, .. } => "_id_",
        _ => return None,
    };
    Some(Hint::Name(name.to_owned()))
}

/// Every condition but `before`.
fn conditions(query: &ListQuery) -> Document {
    let mut conditions = Document::new();
    if let Some(owner) = &query.owner {
        conditions.insert("owner", owner.as_str());
    }
    if let Some(status) = query.status {
        conditions.insert("status", status.as_str());
    }
    if let Some(worker) = &query.worker {
        conditions.insert("workerId", worker.as_str());
    }
    if let Some(label) = &query.label {
        conditions.insert("labels", label.as_str());
    }
    if let Some(input) = query.input {
        conditions.insert("input", input.to_string());
    }
    if let Some(after) = query.created_after {
        conditions.insert("createdAt", doc! { "$gt": date(after) });
    }
    conditions
}
