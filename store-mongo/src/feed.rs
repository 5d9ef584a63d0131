//! What others write, by a change stream over what they tell ([`Bell`](crate::bell::Bell)): one event for many writes.
//!
//! It takes itself up again where it broke off; where the server can't do that any more, a notice says
//! that others were missed. A server without change streams has no notices, and the coordinator's sweep finds what they
//! would have said.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::id::JobId;
use cmdexec_core::job::{Place, Status};
use cmdexec_core::store::{Notice, Notices};
use futures_util::{StreamExt, stream};
use mongodb::bson::{Document, RawDocument, RawDocumentBuf, doc};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::ResumeToken;

use crate::client::{Mongo, binary};
use crate::error::Error;
use crate::jobs::{Decoder, priority};
use crate::schema::NOTICES;

/// The pause before a stream is begun again that broke.
const PAUSE: Duration = Duration::from_millis(200);

/// The pause where the server has no change streams, which may change with an update.
const LONG_PAUSE: Duration = Duration::from_secs(60);

/// Follows what others write, until the store is closed.
pub(crate) fn notices(mongo: Arc<Mongo>) -> Notices {
    let feed = Feed { mongo, decoder: Decoder::default(), stream: None, token: None, told: VecDeque::new() };
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
    /// What the last event told, as far as it was not taken yet.
    told: VecDeque<Notice>,
}

impl Feed {
    /// The next notice; `None` once the store is closed.
    async fn next(&mut self) -> Option<Notice> {
        loop {
            if self.mongo.tasks.is_closed() {
                return None;
            }
            if let Some(notice) = self.told.pop_front() {
                return Some(notice);
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
                    match read(&event, &self.decoder) {
                        Ok(told) => self.told.extend(told),
                        Err(error) => tracing::warn!(%error, "what another coordinator tells can't be read"),
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
        let notices = self.mongo.collection(NOTICES);
        let watch = notices.watch().pipeline(pipeline(&self.mongo)).resume_after(self.token.clone());
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

/// What others tell.
fn pipeline(mongo: &Mongo) -> Vec<Document> {
    vec![
        doc! { "$match": {
            "operationType": { "$in": ["insert", "update"] },
            "documentKey._id": { "$ne": binary(mongo.bell.instance()) },
        } },
        doc! { "$project": { "fullDocument.told": 1, "updateDescription.updatedFields.told": 1 } },
    ]
}

fn read(event: &RawDocument, decoder: &Decoder) -> Result<Vec<Notice>, Error> {
    let wrong = |error: mongodb::bson::error::Error| Error::row("a notice", error);
    let document = event.get_document("fullDocument").or_else(|_| {
        let update = event.get_document("updateDescription")?;
        update.get_document("updatedFields")
    });
    let told = document.and_then(|document| document.get_document("told")).map_err(wrong)?;
    let mut notices = Vec::new();
    if told.get_bool("missed").map_err(wrong)? {
        notices.push(Notice::Missed);
    }
    for group in told.get_array("jobs").map_err(wrong)? {
        let group = group?;
        let group = group.as_document().ok_or_else(|| Error::row("a notice", "no document"))?;
        let status: Status =
            group.get_str("status").map_err(wrong)?.parse().map_err(|error| Error::row("status", error))?;
        let waits = match group.get_str("class") {
            Ok(class) => Some((decoder.class(class)?, priority(group.get_i32("rank").map_err(wrong)?)?)),
            Err(_) => None,
        };
        let (jobs, _) = group.get_binary("jobs").map_err(wrong)?.bytes.as_chunks::<24>();
        for job in jobs {
            let (id, version) = job.split_at(16);
            let id = job_id(id)?;
            let version = u64::from_le_bytes(version.try_into().map_err(|error| Error::row("a version", error))?);
            let queued = waits.clone().map(|(class, priority)| (class, Place { priority, id }));
            notices.push(Notice::Job { id, version, status, queued });
        }
    }
    let (outputs, _) = told.get_binary("outputs").map_err(wrong)?.bytes.as_chunks::<16>();
    notices.extend(outputs.iter().map(|id| Notice::Output(JobId::from_bytes(*id))));
    Ok(notices)
}

fn job_id(bytes: &[u8]) -> Result<JobId, Error> {
    Ok(JobId::from_bytes(bytes.try_into().map_err(|error| Error::row("a job's id", error))?))
}
