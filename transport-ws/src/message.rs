//! What travels: an envelope, and in it the bodies of the HTTP contract or one of the few that only a socket needs.
//!
//! A message is a JSON text `{"type": …, "id": …, "body": {…}}`. Unknown fields are passed over, and so are messages of an unknown type that
//! have no id, so that old and new ends meet. Output may travel as a binary message instead: `packed`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use cmdexec_core::executor::Stream;
use cmdexec_core::job::Status;
use cmdexec_wire as wire;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

mod event;
mod packed;

pub(crate) use event::{Event, Events, What};
#[cfg(feature = "server")]
pub(crate) use packed::packed_events;
pub(crate) use packed::split_binary;
#[cfg(feature = "client")]
pub(crate) use packed::{binary, unpacked_events};

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

/// The answer to `get`: the jobs in the order of the request, as many as fit; `null` for one that is not there.
#[cfg(feature = "server")]
#[derive(Debug, Serialize)]
pub(crate) struct Got {
    pub(crate) jobs: Vec<Option<Box<RawValue>>>,
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
    /// Without a job: from where on in the output of jobs that was seen before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursors: Option<BTreeMap<Uuid, String>>,
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
