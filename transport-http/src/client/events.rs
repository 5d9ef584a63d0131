//! Streams of output and of changes: Server-Sent Events, taken up where they broke.

use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::id::JobId;
use cmdexec_core::service::{Cursor, JobUpdate, OutputEvent, OutputQuery, OutputStream, UpdateStream, WatchQuery};
use http::{HeaderName, HeaderValue};
use reqwest::Response;
use serde::Deserialize;

use super::http::{As, Call, Http, reasons};
use super::refusal;
use crate::wire;

mod reader;

use reader::{Event, Reader};

/// A stream of events that is opened again where it broke.
#[derive(Debug)]
struct Stream {
    http: Arc<Http>,
    open: Option<Response>,
    reader: Reader,
}

impl Stream {
    async fn open(http: Arc<Http>, call: &Call) -> Result<Self, Error> {
        let open = Some(http.open(call).await?);
        Ok(Self { http, open, reader: Reader::default() })
    }

    /// The next event. Where the stream broke it is opened again as `again` says, unless that says it can't be.
    async fn next(&mut self, again: impl Fn() -> Option<Call>) -> Result<Event, Error> {
        let http = Arc::clone(&self.http);
        let mut retry = http.retry(http.options.resume_for);
        loop {
            if let Some(event) = self.reader.next() {
                if event.name != "problem" {
                    return Ok(event);
                }
                let error = problem(&event.data);
                (self.open, self.reader) = (None, Reader::default());
                let pause = error.retry_after().and_then(|after| retry.pause(Some(after)));
                tokio::time::sleep(pause.ok_or(error)?).await;
            }
            match &mut self.open {
                Some(response) => {
                    let piece = tokio::time::timeout(http.options.stream_idle_timeout, response.chunk()).await;
                    let trouble = match piece {
                        Ok(Ok(Some(piece))) => match self.reader.push(&piece) {
                            Ok(()) => continue,
                            Err(why) => why,
                        },
                        Ok(Ok(None)) => "the stream ended early".to_owned(),
                        Ok(Err(error)) => reasons(&error),
                        Err(_) => "the stream went silent".to_owned(),
                    };
                    http.note(format!("a stream from {} broke: {trouble}", http.base()));
                    (self.open, self.reader) = (None, Reader::default());
                }
                None => {
                    let lost = || Error::Unavailable { retry_after: refusal::LATER };
                    let call = again().ok_or_else(lost)?;
                    tokio::time::sleep(retry.pause(None).ok_or_else(lost)?).await;
                    match http.open(&call).await {
                        Ok(response) => self.open = Some(response),
                        Err(error) if error.retry_after().is_some() => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }
}

/// What ended a stream on the server's side.
fn problem(data: &str) -> Error {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        code: String,
        retry_after_ms: Option<u64>,
    }
    let data = serde_json::from_str::<Data>(data).ok();
    data.and_then(|data| refusal::error_of(&data.code, data.retry_after_ms.map(Duration::from_millis)))
        .unwrap_or(Error::Internal)
}

/// A job's output, resumed at its last cursor whenever the connection breaks.
pub(super) async fn output(http: Arc<Http>, id: JobId, query: OutputQuery) -> Result<OutputStream, Error> {
    let call = move |from: Option<Cursor>| {
        let mut call = Call::get(As::User, "/api/jobs/logs").query("jobId", id).events();
        if query.follow {
            call = call.query("follow", true);
        }
        if let Some(stream) = query.stream {
            call = call.query("stream", stream.as_str());
        }
        if let Some(since) = query.since {
            call = call.query("since", since);
        }
        if let Some(tail) = query.tail {
            call = call.query("tail", tail);
        }
        match from.and_then(|from| HeaderValue::try_from(from.to_string()).ok()) {
            Some(from) => call.header(HeaderName::from_static("last-event-id"), from),
            None => call,
        }
    };
    let stream = Stream::open(http, &call(query.from)).await?;
    let state = (stream, query.from, false);
    Ok(Box::pin(futures_util::stream::unfold(state, move |(mut stream, mut cursor, over)| async move {
        if over {
            return None;
        }
        let event = loop {
            match stream.next(|| Some(call(cursor))).await {
                // Events of a newer server are passed over.
                Ok(event) => {
                    if let Some(event) = output_event(&event) {
                        break event;
                    }
                }
                Err(error) => break Err(error),
            }
        };
        cursor = event.as_ref().ok().and_then(OutputEvent::cursor).or(cursor);
        let over = matches!(event, Ok(OutputEvent::End { .. }) | Err(_));
        Some((event, (stream, cursor, over)))
    })))
}

/// The event that stands for a piece of output; `None` if it is not known here.
fn output_event(event: &Event) -> Option<Result<OutputEvent, Error>> {
    if !matches!(event.name.as_str(), "output" | "gap" | "reset" | "end") {
        return None;
    }
    let read = || {
        let data: wire::Event = serde_json::from_str(&event.data).ok()?;
        if event.name == "end" {
            return data.status.map(|status| OutputEvent::End { status });
        }
        let cursor: Cursor = event.id.as_ref()?.parse().ok()?;
        match event.name.as_str() {
            "reset" => return Some(OutputEvent::Reset { cursor }),
            "gap" => return Some(OutputEvent::Gap { cursor, bytes: data.bytes? }),
            _ => {}
        }
        let bytes = match (data.data, data.data_base64) {
            (Some(text), None) => text.into(),
            (None, Some(base64)) => wire::decode(&base64)?,
            _ => return None,
        };
        Some(OutputEvent::Chunk { cursor, stream: data.stream?, bytes })
    };
    Some(read().ok_or(Error::Internal))
}

/// Changes of one job, resumed whenever the connection breaks; or of all jobs, which ends there with an error, because
/// changes in between are missed.
pub(super) async fn watch(http: Arc<Http>, query: WatchQuery) -> Result<UpdateStream, Error> {
    let call = move || {
        let call = Call::get(As::User, "/api/jobs/watch").events();
        match query {
            WatchQuery::Job(id) => call.query("jobId", id),
            WatchQuery::All => call,
        }
    };
    let again = move || matches!(query, WatchQuery::Job(_)).then(call);
    let stream = Stream::open(http, &call()).await?;
    let state = (stream, None::<u64>, false);
    Ok(Box::pin(futures_util::stream::unfold(state, move |(mut stream, mut version, over)| async move {
        if over {
            return None;
        }
        loop {
            let event = match stream.next(again).await {
                Ok(event) => event,
                Err(error) => return Some((Err(error), (stream, version, true))),
            };
            match event.name.as_str() {
                "end" => return None,
                "update" => {}
                _ => continue,
            }
            let Some(update) = update(&event.data) else {
                return Some((Err(Error::Internal), (stream, version, true)));
            };
            if matches!(query, WatchQuery::Job(_)) {
                // A stream that was opened again begins with where the job stands: perhaps with what is known.
                if version.is_some_and(|version| update.version <= version) {
                    continue;
                }
                version = Some(update.version);
            }
            return Some((Ok(update), (stream, version, false)));
        }
    })))
}

fn update(data: &str) -> Option<JobUpdate> {
    let update: wire::Update = serde_json::from_str(data).ok()?;
    Some(JobUpdate {
        id: JobId::from_uuid(update.job_id),
        status: update.status,
        version: update.version,
        worker: update.worker_id.map(|id| id.parse()).transpose().ok()?,
        exit_code: update.exit_code,
        at: update.at.0,
    })
}
