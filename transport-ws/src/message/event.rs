//! What happens to jobs, as subscribers hear it.

#[cfg(feature = "client")]
use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::JobId;
use cmdexec_core::job::Status;
use cmdexec_core::service::{JobUpdate, OutputEvent};
use cmdexec_wire as wire;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

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
