//! Jobs, whole.

use std::collections::HashMap;

use cmdexec_core::id::JobId;
use cmdexec_core::job::Job;
use mongodb::Cursor;
use mongodb::bson::{Document, RawDocumentBuf, doc};

use super::document::Decoder;
use crate::client::{Mongo, binary, bounded};
use crate::error::Error;

pub(crate) async fn get(mongo: &Mongo, decoder: &Decoder, ids: &[JobId]) -> Result<Vec<Option<Job>>, Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let cursor = bounded(async { Ok(mongo.jobs().find(among(ids)).await?) }).await?;
    let found: HashMap<JobId, Job> = jobs(cursor, decoder).await?.into_iter().map(|job| (job.id, job)).collect();
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

/// The condition that names jobs.
pub(crate) fn among(ids: &[JobId]) -> Document {
    match ids {
        [one] => doc! { "_id": binary(*one.as_bytes()) },
        ids => doc! { "_id": { "$in": ids.iter().map(|id| binary(*id.as_bytes())).collect::<Vec<_>>() } },
    }
}

/// The jobs of a cursor, in its order.
pub(crate) async fn jobs(cursor: Cursor<RawDocumentBuf>, decoder: &Decoder) -> Result<Vec<Job>, Error> {
    let mut jobs = Vec::new();
    each(cursor, |document| {
        jobs.push(decoder.job(document)?);
        Ok(())
    })
    .await?;
    Ok(jobs)
}

/// Looks at each document of a cursor, without making copies of them.
pub(crate) async fn each(
    mut cursor: Cursor<RawDocumentBuf>,
    mut look: impl FnMut(&mongodb::bson::RawDocument) -> Result<(), Error>,
) -> Result<(), Error> {
    while bounded(async { Ok(cursor.advance().await?) }).await? {
        look(cursor.current())?;
    }
    Ok(())
}
