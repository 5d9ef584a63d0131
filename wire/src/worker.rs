//! Workers: what they say of themselves, what they are told, and how users see them.

use std::collections::BTreeSet;

use cmdexec_core::executor::{Capabilities, Kind};
use cmdexec_core::service::WorkerStatus;
#[cfg(feature = "server")]
use cmdexec_core::service::{self, HeartbeatReply, WorkerView};
#[cfg(feature = "client")]
use cmdexec_core::service::{Heartbeat, Registration};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Time;

/// What a worker says of itself when it comes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Register {
    /// Its id. One is made if neither this nor the token names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    /// The machine's name.
    pub hostname: String,
    /// How many processors it offers. `cpuCores` says the same.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub cpu_count: u32,
    /// How much memory it offers in MiB. `totalMemory` says the same in bytes.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub total_memory_mb: u64,
    /// What it can run jobs in: `"process"`, `"docker"`, or one with the limits that it enforces. Absent: both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executors: Option<Vec<Executor>>,
    /// How many jobs it takes at once. Absent: asking is capacity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub slots: Option<u32>,
    /// Its labels; `metadata.tags` says the same.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub labels: BTreeSet<String>,
    /// The version of its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What else it says of itself.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// What it is doing: shown, and heeded, until its first heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<WorkerStatusName>))]
    pub status: Option<WorkerStatus>,
    /// How busy its processors are, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_usage: Option<f64>,
    /// How full its memory is, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ram_usage: Option<f64>,
}

/// What jobs run in, and which limits are truly enforced there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Executor {
    #[cfg_attr(feature = "openapi", schema(value_type = KindName))]
    pub kind: Kind,
    /// `memory`, `memoryPerProcess`, `cpu`, `pids`, `noNetwork`, `user`; unknown names are ignored.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub limits: Vec<serde_json::Value>,
    /// How many graphics processors it can give to jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
}

/// What jobs run in.
#[cfg(feature = "openapi")]
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum KindName {
    /// A process on the worker's machine.
    Process,
    /// A container.
    Docker,
}

/// What a worker is doing.
#[cfg(feature = "openapi")]
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum WorkerStatusName {
    Idle,
    Busy,
    Draining,
    Offline,
    Error,
}

/// What a worker is told when it comes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Registered {
    pub ok: bool,
    pub worker_id: String,
    /// How often to beat.
    pub heartbeat_interval_ms: u64,
    /// How often to ask for jobs, for a worker that does not wait when it asks.
    pub poll_interval_ms: u64,
    /// How long a lease lasts from the last acknowledged heartbeat.
    pub lease_ms: u64,
    /// Where jobs are pushed, if they are.
    pub ws_url: Option<String>,
}

/// A sign of life.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Beat {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    #[cfg_attr(feature = "openapi", schema(value_type = WorkerStatusName))]
    pub status: WorkerStatus,
    /// How busy its processors are, 0 to 100.
    pub cpu_usage: f64,
    /// How full its memory is, 0 to 100.
    pub ram_usage: f64,
    /// How many jobs it completed so far. Not needed: the server counts them itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs_completed: Option<u64>,
    /// Every attempt that it holds, until its report is acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Vec<Held>>,
}

/// An attempt that a worker holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Held {
    pub job_id: Uuid,
    pub lease_token: String,
}

/// The answer to a sign of life.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BeatAck {
    pub ok: bool,
    pub server_time: Time,
    /// Jobs that are cancelled: stop them and report.
    pub cancel: Vec<Uuid>,
    /// Jobs that are no longer the worker's: stop them and forget them.
    pub lost: Vec<Uuid>,
}

/// A worker as users see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    pub worker_id: String,
    pub hostname: String,
    #[cfg_attr(feature = "openapi", schema(value_type = WorkerStatusName))]
    pub status: WorkerStatus,
    pub cpu_count: u32,
    pub total_memory_mb: u64,
    pub cpu_usage: f64,
    pub ram_usage: f64,
    pub labels: Vec<String>,
    /// What it can run jobs in.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<KindName>))]
    pub executors: Vec<Kind>,
    /// Which limits it enforces in each.
    #[serde(default)]
    pub capabilities: Vec<Executor>,
    /// How many jobs it takes at once; null if it did not say.
    pub slots: Option<u32>,
    /// Which of the caller's jobs it has; an admin sees everybody's.
    pub running: Vec<Uuid>,
    /// The first of `running`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_job_id: Option<Uuid>,
    pub jobs_completed: u64,
    pub jobs_failed: u64,
    pub last_heartbeat: Time,
    pub registered_at: Time,
    pub version: Option<String>,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// The workers, by id.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerList {
    pub workers: Vec<Worker>,
}

#[cfg(feature = "server")]
fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Executor {
    fn of(capabilities: &Capabilities) -> Self {
        let limits = capabilities.limits.iter().filter_map(|limit| serde_json::to_value(limit).ok()).collect();
        Self { kind: capabilities.kind, limits, gpus: Some(capabilities.gpus).filter(|gpus| *gpus > 0) }
    }

    /// The same without the limits that are not known here: a newer end may name more.
    pub fn into_capabilities(self) -> Capabilities {
        let limits = self.limits.into_iter().filter_map(|limit| serde_json::from_value(limit).ok()).collect();
        Capabilities { kind: self.kind, limits, gpus: self.gpus.unwrap_or(0) }
    }
}

#[cfg(feature = "client")]
impl From<&Registration> for Register {
    fn from(registration: &Registration) -> Self {
        Self {
            worker_id: registration.worker.as_ref().map(ToString::to_string),
            hostname: registration.hostname.clone(),
            cpu_count: registration.cpu_count,
            total_memory_mb: registration.total_memory_mb,
            executors: registration.executors.as_ref().map(|all| all.iter().map(Executor::of).collect()),
            slots: registration.slots,
            labels: registration.labels.clone(),
            version: registration.version.clone(),
            metadata: registration.metadata.clone(),
            status: registration.usage.map(|usage| usage.status),
            cpu_usage: registration.usage.map(|usage| usage.cpu),
            ram_usage: registration.usage.map(|usage| usage.ram),
        }
    }
}

#[cfg(feature = "server")]
impl From<&service::Registered> for Registered {
    fn from(registered: &service::Registered) -> Self {
        Self {
            ok: true,
            worker_id: registered.worker.to_string(),
            heartbeat_interval_ms: millis(registered.heartbeat_interval),
            poll_interval_ms: millis(registered.poll_interval),
            lease_ms: millis(registered.lease),
            ws_url: None,
        }
    }
}

#[cfg(feature = "client")]
impl From<&Heartbeat> for Beat {
    fn from(beat: &Heartbeat) -> Self {
        let held =
            |held: &cmdexec_core::store::Listed| Held { job_id: held.job.as_uuid(), lease_token: held.token.reveal() };
        Self {
            worker_id: None,
            status: beat.usage.status,
            cpu_usage: beat.usage.cpu,
            ram_usage: beat.usage.ram,
            jobs_completed: None,
            running: beat.held.as_ref().map(|all| all.iter().map(held).collect()),
        }
    }
}

#[cfg(feature = "server")]
impl From<&HeartbeatReply> for BeatAck {
    fn from(reply: &HeartbeatReply) -> Self {
        let uuids = |ids: &[cmdexec_core::id::JobId]| ids.iter().map(cmdexec_core::id::JobId::as_uuid).collect();
        Self { ok: true, server_time: Time(reply.server_time), cancel: uuids(&reply.cancel), lost: uuids(&reply.lost) }
    }
}

#[cfg(feature = "server")]
impl From<&WorkerView> for Worker {
    fn from(view: &WorkerView) -> Self {
        Self {
            worker_id: view.id.to_string(),
            hostname: view.hostname.clone(),
            status: view.status,
            cpu_count: view.cpu_count,
            total_memory_mb: view.total_memory_mb,
            cpu_usage: view.cpu_usage,
            ram_usage: view.ram_usage,
            labels: view.labels.clone(),
            executors: view.executors.iter().map(|executor| executor.kind).collect(),
            capabilities: view.executors.iter().map(Executor::of).collect(),
            slots: view.slots,
            running: view.running.iter().map(cmdexec_core::id::JobId::as_uuid).collect(),
            current_job_id: view.running.first().map(cmdexec_core::id::JobId::as_uuid),
            jobs_completed: view.jobs_completed,
            jobs_failed: view.jobs_failed,
            last_heartbeat: Time(view.last_heartbeat),
            registered_at: Time(view.registered),
            version: view.version.clone(),
            metadata: view.metadata.clone(),
        }
    }
}

#[cfg(feature = "client")]
mod read {
    use std::time::Duration;

    use cmdexec_core::id::JobId;
    use cmdexec_core::service::{self, HeartbeatReply, WorkerView};

    use super::{BeatAck, Executor, Registered, Worker};

    impl Registered {
        /// The answer as the service gave it; `None` if it makes no sense.
        pub fn into_registered(self) -> Option<service::Registered> {
            Some(service::Registered {
                worker: self.worker_id.parse().ok()?,
                heartbeat_interval: Duration::from_millis(self.heartbeat_interval_ms),
                poll_interval: Duration::from_millis(self.poll_interval_ms),
                lease: Duration::from_millis(self.lease_ms),
            })
        }
    }

    impl From<BeatAck> for HeartbeatReply {
        fn from(ack: BeatAck) -> Self {
            let ids = |all: Vec<uuid::Uuid>| all.into_iter().map(JobId::from_uuid).collect();
            Self { server_time: ack.server_time.0, cancel: ids(ack.cancel), lost: ids(ack.lost) }
        }
    }

    impl Worker {
        /// The worker as the service gave it; `None` if the answer makes no sense.
        pub fn into_view(self) -> Option<WorkerView> {
            Some(WorkerView {
                id: self.worker_id.parse().ok()?,
                hostname: self.hostname,
                status: self.status,
                cpu_count: self.cpu_count,
                total_memory_mb: self.total_memory_mb,
                cpu_usage: self.cpu_usage,
                ram_usage: self.ram_usage,
                labels: self.labels,
                executors: self.capabilities.into_iter().map(Executor::into_capabilities).collect(),
                slots: self.slots,
                running: self.running.into_iter().map(JobId::from_uuid).collect(),
                jobs_completed: self.jobs_completed,
                jobs_failed: self.jobs_failed,
                last_heartbeat: self.last_heartbeat.0,
                registered: self.registered_at.0,
                version: self.version,
                metadata: self.metadata,
            })
        }
    }
}
