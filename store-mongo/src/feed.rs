//! What others write, by a change stream.
//!
//! One stream over the database, of which the server leaves out what this store itself has written and everything but names,
//! statuses and places. It takes itself up again where it broke off; where the server can't do that any more, a notice says
//! that others were missed. A server without change streams has no notices, and the coordinator's sweep finds what they
//! would have said.

use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::job::{Place, Status};
use cmdexec_core::store::{Notice, Notices};
use futures_util::{StreamExt, stream};
use mongodb::bson::{Document, RawDocument, RawDocumentBuf, doc};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::ResumeToken;

use crate::client::{Mongo, of_others};
use crate::error::Error;
use crate::jobs::{Decoder, id_of, priority};
use crate::schema::{JOBS, LOGS};

/// The pause before a stream is begun again that broke.
const PAUSE: Duration = Duration::from_millis(200);

/// The pause where the server has no change streams, which may change with an update.
const LONG_PAUSE: Duration = Duration::from_secs(60);

/// Follows what others write, until the store is closed.
pub(crate) fn notices(mongo: Arc<Mongo>) -> Notices {
    let feed = Feed { mongo, decoder: Decoder::default(), stream: None, token: None };
    let notices = stream::unfold(feed, |mut feed| async move {
        let notice = feed.next().await?;
        Some((notice, feed))
    });
    Notices::new(notices)
}

struct Feed {
    mongo: Arc<Mongo>,
    decoder: Decoder,
    stream: Option<ChangeStream<RawDocumentBuf>>,
    /// Where to take it up again.
    token: Option<ResumeToken>,
}

impl Feed {
    /// The next notice; `None` once the store is closed.
    async fn next(&mut self) -> Option<Notice> {
        loop {
            if self.mongo.tasks.is_closed() {
                return None;
            }
            let Some(stream) = &mut self.stream else {
                if let Some(notice) = self.begin().await {
                    return Some(notice);
                }
                continue;
            };
            match stream.next().await {
                Some(Ok(event)) => {
                    self.token = stream.resume_token().or(self.token.take());
                    match notice(&event, &self.decoder) {
                        Ok(Some(notice)) => return Some(notice),
                        Ok(None) => {}
                        Err(error) => tracing::warn!(%error, "a change by another coordinator can't be read"),
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "the change stream broke; it is taken up again");
                    self.stream = None;
                    tokio::time::sleep(PAUSE).await;
                }
                None => self.stream = None,
            }
        }
    }

    /// Begins the stream, or takes it up where it broke off. The answer says so if something was missed.
    async fn begin(&mut self) -> Option<Notice> {
        let watch = self.mongo.database.watch().pipeline(pipeline(&self.mongo)).resume_after(self.token.clone());
        match watch.await {
            Ok(stream) => {
                self.stream = Some(stream.with_type());
                // Whatever was written before it began is not in it.
                self.token.is_none().then_some(Notice::Missed)
            }
            Err(error) => {
                let error = Error::from(error);
                if error.is_lost_history() {
                    // Where it broke off is not in the server's log any more.
                    self.token = None;
                } else if error.has_no_change_streams() {
                    tracing::info!("the server has no change streams: what other coordinators do is found by looking");
                    tokio::time::sleep(LONG_PAUSE).await;
                } else {
                    tracing::debug!(%error, "no change stream now; it is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
                None
            }
        }
    }
}

/// Of jobs and heads of output what others wrote, with nothing in it that is large.
fn pipeline(mongo: &Mongo) -> Vec<Document> {
    let op = "updateDescription.updatedFields.op";
    let by_others = doc! { "$or": [
        { "operationType": "insert", "$and": [of_others("fullDocument.op", &mongo.ops)] },
        { "operationType": "update", "$and": [of_others(op, &mongo.ops)] },
    ] };
    vec![
        doc! { "$match": { "ns.coll": { "$in": [JOBS, LOGS] }, "$and": [by_others] } },
        doc! { "$project": {
            "ns.coll": 1,
            "documentKey._id": 1,
            "fullDocument.status": 1,
            "fullDocument.class": 1,
            "fullDocument.rank": 1,
            "updateDescription.updatedFields.status": 1,
        } },
    ]
}

fn notice(event: &RawDocument, decoder: &Decoder) -> Result<Option<Notice>, Error> {
    let wrong = |error: mongodb::bson::error::Error| Error::row("a change", error);
    let id = id_of(event.get_document("documentKey").map_err(wrong)?, "_id")?;
    if event.get_document("ns").map_err(wrong)?.get_str("coll").map_err(wrong)? == LOGS {
        return Ok(Some(Notice::Output(id)));
    }
    let status = |text: &str| text.parse::<Status>().map_err(|error| Error::row("status", error));
    if let Ok(added) = event.get_document("fullDocument") {
        let status = status(added.get_str("status").map_err(wrong)?)?;
        let queued = match status {
            Status::Queued => {
                let place = Place { priority: priority(added.get_i32("rank").map_err(wrong)?)?, id };
                Some((decoder.class(added.get_str("class").map_err(wrong)?)?, place))
            }
            _ => None,
        };
        return Ok(Some(Notice::Job { id, status, queued }));
    }
    let changed = event.get_document("updateDescription").and_then(|update| update.get_document("updatedFields"));
    // A write that leaves the status as it is: whoever follows the job looks.
    let status = changed.ok().and_then(|fields| fields.get_str("status").ok()).map_or(Ok(Status::Running), status)?;
    Ok(Some(Notice::Job { id, status, queued: None }))
}
