//! What travels: an envelope, and in it the bodies of the HTTP contract or one of the few that only a socket needs.
//!
//! A message is a JSON text `{"type": …, "id": …, "body": {…}}`. Unknown fields are passed over, and so are messages of an unknown type that
//! have no id, so that old and new ends meet. Output may travel as a binary message instead: [`split_binary`].

use std::borrow::Cow;

use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::JobId;
use cmdexec_core::job::Status;
use cmdexec_core::service::{JobUpdate, OutputEvent};
use cmdexec_wire as wire;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

/// The version of the protocol, as a subprotocol.
pub(crate) const VERSION: &str = "cmdexec.v1";

/// How a subprotocol begins that is a version.
#[cfg(feature = "server")]
pub(crate) const VERSIONS: &str = "cmdexec.v";

/// How a subprotocol begins that is a token: for browsers, which can send no header.
#[cfg(feature = "server")]
pub(crate) const TOKEN: &str = "cmdexec.token.";

/// A message as it came.
#[derive(Debug, Deserialize)]
pub(crate) struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    pub(crate) kind: Cow<'a, str>,
    /// Which request it is, or which it answers.
    #[serde(default)]
    pub(crate) id: Option<u64>,
    #[serde(default, borrow)]
    body: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    /// Reads a message's envelope; its body is only known to be JSON.
    pub(crate) fn read(text: &'a str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The body's text; an empty object if there is none.
    pub(crate) fn body(&self) -> &'a str {
        self.body.map_or("{}", RawValue::get)
    }

    /// The body as a form that this end knows whole.
    pub(crate) fn parse<T: Deserialize<'a>>(&self) -> Result<T, String> {
        serde_json::from_str(self.body()).map_err(|error| error.to_string())
    }
}

/// A message to be sent.
pub(crate) fn text(kind: &str, id: Option<u64>, body: &impl Serialize) -> Message {
    #[derive(Serialize)]
    struct Outgoing<'a, B> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        body: &'a B,
    }
    // Structs of strings and numbers always serialise.
    Message::text(serde_json::to_string(&Outgoing { kind, id, body }).unwrap_or_default())
}

/// A message whose body is written already.
#[cfg(feature = "client")]
pub(crate) fn raw(kind: &str, id: u64, body: &[u8]) -> Message {
    let body = std::str::from_utf8(body).unwrap_or("{}");
    Message::text(format!("{{\"type\":\"{kind}\",\"id\":{id},\"body\":{body}}}"))
}

/// Output as a binary message: its id in 8 bytes, the highest first, and a body of the type [`wire::PACKED`].
#[cfg(feature = "client")]
pub(crate) fn binary(id: u64, packed: &[u8]) -> Message {
    Message::binary([&id.to_be_bytes()[..], packed].concat())
}

/// The id of a binary message, and what stands behind it: of a worker's, output of the type [`wire::PACKED`].
pub(crate) fn split_binary(message: &Bytes) -> Option<(u64, Bytes)> {
    let (id, _) = message.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*id), message.slice(8..)))
}

/// Events as a binary message: the subscription's id in 8 bytes and the length of a document in 4, the highest first; the document, which is
/// the body of `event` with a `length` in the place of each event's data; and the bytes of all events, end to end.
#[cfg(feature = "server")]
pub(crate) fn packed_events(id: u64, mut events: Vec<(Event, Bytes)>) -> Message {
    for (event, bytes) in &mut events {
        if event.event == What::Output {
            event.length = Some(bytes.len());
        }
    }
    let (events, bytes): (Vec<_>, Vec<_>) = events.into_iter().unzip();
    let document = wire::body(&Events { events });
    let length = u32::try_from(document.len()).unwrap_or(u32::MAX);
    let size = 12 + document.len() + bytes.iter().map(Bytes::len).sum::<usize>();
    let mut message = Vec::with_capacity(size);
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&document);
    bytes.iter().for_each(|bytes| message.extend_from_slice(bytes));
    Message::binary(message)
}

/// The events of a binary message, each with its bytes; `None` if it does not come out even.
#[cfg(feature = "client")]
pub(crate) fn unpacked_events(packed: &Bytes) -> Option<Vec<(Event, Bytes)>> {
    let (length, rest) = packed.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok().filter(|length| *length <= rest.len())?;
    let Events { events } = serde_json::from_slice(packed.get(4..4 + length)?).ok()?;
    let mut bytes = packed.slice(4 + length..);
    let with_bytes = |event: Event| {
        let length = event.length.unwrap_or(0);
        (length <= bytes.len()).then(|| (event, bytes.split_to(length)))
    };
    let events: Vec<_> = events.into_iter().map(with_bytes).collect::<Option<_>>()?;
    bytes.is_empty().then_some(events)
}

/// `auth`: the token, where no header and no subprotocol said it.
#[cfg(feature = "server")]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Auth {
    pub(crate) token: String,
}

/// `welcome`: the first message of the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Welcome {
    /// The version that is spoken.
    pub(crate) version: u32,
    /// `user` or `worker`.
    #[serde(rename = "as")]
    pub(crate) who: String,
    /// The worker or the user that the token names, if it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// When the token's time is over.
    pub(crate) expires_at: wire::Time,
    /// A peer that is silent for so long is asked whether it is there, and cut after twice as long.
    pub(crate) ping_interval_ms: u64,
    pub(crate) limits: Limits,
}

/// What the server takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Limits {
    /// Bytes of one message.
    pub(crate) message_bytes: usize,
    /// Messages in a second; more are read later.
    pub(crate) messages_per_second: u32,
    /// Requests that are not answered yet; more are read later.
    pub(crate) requests: usize,
    /// Bytes of them; more are read later.
    pub(crate) request_bytes: usize,
}

/// `ready`: the worker has room for so many more jobs than it said before.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ready {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) worker_id: Option<String>,
    pub(crate) credits: usize,
    /// With it, this is a question that is answered once, after so long at most, and the credits don't stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wait_ms: Option<u64>,
}

/// `drain`: the worker takes back its credits.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Drain {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) worker_id: Option<String>,
}

/// `jobs`: pushed to a worker, each for one credit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Jobs {
    pub(crate) worker_id: String,
    pub(crate) jobs: Vec<wire::Lease>,
}

/// `refused`: so many of a worker's credits are void.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Void {
    pub(crate) worker_id: String,
    pub(crate) credits: usize,
    pub(crate) error: crate::refusal::Refusal,
}

/// `started`: what the worker has begun with.
#[cfg(feature = "server")]
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Started {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) worker_id: Option<String>,
    pub(crate) jobs: Vec<wire::Held>,
}

/// `cancel`: jobs that the worker is to stop and report.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cancel {
    pub(crate) worker_id: String,
    pub(crate) jobs: Vec<Uuid>,
}

/// The answer to `submit`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Submitted {
    /// Whether this was a repeat, and the jobs there already.
    pub(crate) repeated: bool,
    pub(crate) jobs: Vec<wire::Created>,
}

/// `get`: which jobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Get {
    pub(crate) job_ids: Vec<Uuid>,
}

/// `list`: which jobs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct List {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) worker_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created_after: Option<wire::Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<usize>,
}

/// `cancel` of a user: which job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OneJob {
    pub(crate) job_id: Uuid,
}

/// `workers`: which.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Which {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) worker_ids: Option<Vec<String>>,
}

/// `remove_worker`: which.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OneWorker {
    pub(crate) worker_id: String,
}

/// `files`: which page.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Files {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<usize>,
}

/// `file`, `delete_file`: which.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OneFile {
    pub(crate) file_id: String,
}

/// `subscribe`: to one job, or to all of one's own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Subscribe {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) job_id: Option<Uuid>,
    /// Which kinds of events; both if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) events: Option<Vec<Kind>>,
    /// From where on in the job's output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
    /// Only output that came to be kept at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<wire::Time>,
    /// Only the last so many lines of what is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tail: Option<usize>,
    /// Only this stream's output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<Stream>,
    /// Whether to wait for more output until the job has ended; true if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) follow: Option<bool>,
    /// Whether output's bytes are to travel as they are, in binary messages.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) packed: bool,
    /// How many events may be sent before the first `more`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credits: Option<usize>,
}

/// What a subscription is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Status,
    Output,
}

/// `more`: so many more events of a subscription may be sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct More {
    pub(crate) credits: usize,
}

/// `event`: what happened to what was subscribed to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Events {
    pub(crate) events: Vec<Event>,
}

/// One thing that happened. All kinds in one, because telling them apart first would copy what they carry.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    pub(crate) event: What,
    pub(crate) job_id: Uuid,
    /// `output`, `gap`, `reset`: where to resume after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
    /// `output`: which stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<Stream>,
    /// `output`: what was written, where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<String>,
    /// `output`: what was written, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data_base64: Option<String>,
    /// `output` in a binary message: how many bytes were written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) length: Option<usize>,
    /// `gap`: how many bytes are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    /// `status`, `end`: where the job stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<Status>,
    /// `status`: counts the job's changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) worker_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<wire::Time>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    /// A job has changed.
    Status,
    /// A job wrote something.
    Output,
    /// Here bytes are missing: they were too much to be kept.
    Gap,
    /// A new attempt has begun, or what was given is replaced: what was given so far is void.
    Reset,
    /// No output of the job follows.
    End,
    /// Something that a newer server says.
    #[serde(other, skip_serializing)]
    Other,
}

impl Event {
    #[cfg(feature = "server")]
    fn new(event: What, job_id: Uuid) -> Self {
        Self {
            event,
            job_id,
            cursor: None,
            stream: None,
            data: None,
            data_base64: None,
            length: None,
            bytes: None,
            status: None,
            version: None,
            worker_id: None,
            exit_code: None,
            at: None,
        }
    }

    /// A change.
    #[cfg(feature = "server")]
    pub(crate) fn of_update(update: &JobUpdate) -> Self {
        Self {
            status: Some(update.status),
            version: Some(update.version),
            worker_id: update.worker.as_ref().map(ToString::to_string),
            exit_code: update.exit_code,
            at: Some(wire::Time(update.at)),
            ..Self::new(What::Status, update.id.as_uuid())
        }
    }

    /// A piece of output, without its bytes.
    #[cfg(feature = "server")]
    pub(crate) fn of_output(job: JobId, event: &OutputEvent) -> Self {
        let what = match event {
            OutputEvent::Chunk { .. } => What::Output,
            OutputEvent::Gap { .. } => What::Gap,
            OutputEvent::Reset { .. } => What::Reset,
            OutputEvent::End { .. } => What::End,
        };
        let mut said = Self::new(what, job.as_uuid());
        said.cursor = event.cursor().map(|cursor| cursor.to_string());
        match event {
            OutputEvent::Chunk { stream, .. } => said.stream = Some(*stream),
            OutputEvent::Gap { bytes, .. } => said.bytes = Some(*bytes),
            OutputEvent::Reset { .. } => {}
            OutputEvent::End { status } => said.status = Some(*status),
        }
        said
    }

    /// The same with its bytes.
    #[cfg(feature = "server")]
    pub(crate) fn with(mut self, bytes: &[u8]) -> Self {
        if self.event == What::Output {
            (self.data, self.data_base64) = wire::encode(bytes);
        }
        self
    }

    /// The change that it is; `None` if it makes no sense.
    #[cfg(feature = "client")]
    pub(crate) fn into_update(self) -> Option<JobUpdate> {
        Some(JobUpdate {
            id: JobId::from_uuid(self.job_id),
            status: self.status?,
            version: self.version?,
            worker: self.worker_id.map(|id| id.parse()).transpose().ok()?,
            exit_code: self.exit_code,
            at: self.at?.0,
        })
    }

    /// The piece of output that it is; `None` if it makes no sense.
    #[cfg(feature = "client")]
    pub(crate) fn into_output(self, packed: Bytes) -> Option<OutputEvent> {
        let cursor = || self.cursor.as_ref()?.parse().ok();
        Some(match self.event {
            What::Output => {
                let cursor = cursor()?;
                let bytes = match (self.data, self.data_base64) {
                    (None, None) if self.length.is_some() => packed,
                    (Some(text), None) => text.into(),
                    (None, Some(base64)) => wire::decode(&base64)?,
                    _ => return None,
                };
                OutputEvent::Chunk { cursor, stream: self.stream?, bytes }
            }
            What::Gap => OutputEvent::Gap { cursor: cursor()?, bytes: self.bytes? },
            What::Reset => OutputEvent::Reset { cursor: cursor()? },
            What::End => OutputEvent::End { status: self.status? },
            What::Status | What::Other => return None,
        })
    }
}
