//! What a job is asked to do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cmdexec_core::job::{Command, JobSpec, Network, Resources};
use serde::{Deserialize, Serialize};

#[cfg(feature = "server")]
use super::file_url;
use super::{Cpus, Seconds, Time};

/// What to run, with what, under which limits, and what to do if it goes wrong. Exactly one of `command`, `args` and
/// `commands`; everything else has a default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// A line or script for the shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "echo hello"))]
    pub command: Option<String>,
    /// A program and its arguments, run without a shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Several shell lines, run in order, stopping at the first that fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands: Option<Vec<String>>,
    /// A name for people; need not be unique.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The container image to run in; without one, an isolated process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_image: Option<String>,
    /// The ZIP to unpack into the working directory: an upload's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_id: Option<String>,
    /// The same by its URL, as this server gave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_url: Option<String>,
    /// What the ZIP is called where a worker keeps it as a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// The directory inside the ZIP to start in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Which files to keep after the run, as globs relative to the working directory: they become the job's artifacts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<String>>,
    /// The job's environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Seconds that the command may run, counted from its start: 300 by default, at most 86,400.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Seconds>,
    /// Processors that the job reserves and is held to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpus>,
    /// Memory in MiB that the job reserves and is held to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub memory_mb: Option<u64>,
    /// How many processes and threads the job may have at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub pids: Option<u32>,
    /// Graphics processors that the job reserves and gets, in a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub gpus: Option<u32>,
    /// The network that the job gets: `none` by default in a container, the worker's in a process.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<NetworkName>))]
    pub network: Option<Network>,
    /// Labels that the worker must have, every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeSet<String>>,
    /// Higher runs first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = -100, maximum = 100))]
    pub priority: Option<i8>,
    /// How many attempts may be spent on lost workers and infrastructure errors: 3 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub max_attempts: Option<u32>,
    /// How many further tries follow a non-zero exit or a timeout: none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(maximum = 100))]
    pub retries: Option<u32>,
    /// The wait before a further attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// True: a worker that loses touch stops the job before its lease is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<bool>,
    /// True: the job may run in a container that another job of its owner has used that said so too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse: Option<bool>,
    /// Not to be started before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Time>,
    /// What makes a repetition of the submission known within 24 h: 1 to 256 bytes of visible ASCII. In a batch it stands
    /// beside `jobs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// The wait before a further attempt: `initial × factor^n`, at most `max`, less up to half of it at random.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// The first wait in milliseconds: 1,000 by default.
    pub initial_ms: u64,
    /// What each wait is multiplied by for the next: 2 by default.
    pub factor: f64,
    /// The longest wait in milliseconds: 60,000 by default.
    pub max_ms: u64,
}

/// The network that a job gets.
#[cfg(feature = "openapi")]
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum NetworkName {
    /// None at all, not even the worker's loopback.
    None,
    /// Outgoing connections.
    Bridge,
}

impl Spec {
    /// Everything, the defaults included: as a job shows it.
    #[cfg(feature = "server")]
    pub fn whole(spec: &JobSpec) -> Self {
        let mut whole = Self::sparse(spec);
        whole.file_url = spec.input.map(file_url);
        whole.env = Some(spec.env.clone());
        whole.timeout = Some(Seconds(spec.timeout));
        whole.labels = Some(spec.labels.clone());
        whole.priority = Some(spec.priority);
        whole.max_attempts = Some(spec.max_attempts);
        whole.retries = Some(spec.retries);
        whole.backoff = Some(Backoff::from(spec.backoff));
        whole.exclusive = Some(spec.exclusive);
        whole
    }

    /// Only what differs from the defaults: as a client sends it.
    pub fn sparse(spec: &JobSpec) -> Self {
        let default = JobSpec::shell("");
        let differs = |differs: bool| differs.then_some(());
        let (mut command, mut args, mut commands) = (None, None, None);
        match &spec.command {
            Command::Shell(line) => command = Some(line.clone()),
            Command::Argv(argv) => args = Some(argv.clone()),
            Command::Steps(lines) => commands = Some(lines.clone()),
        }
        let Resources { cpu_millis, memory_mb, pids, gpus } = spec.resources;
        Self {
            command,
            args,
            commands,
            name: spec.name.clone(),
            container_image: spec.container_image.clone(),
            file_id: spec.input.map(|id| id.to_string()),
            file_url: None,
            filename: spec.input_name.clone(),
            working_directory: spec.working_directory.clone(),
            outputs: differs(!spec.outputs.is_empty()).map(|()| spec.outputs.clone()),
            env: differs(!spec.env.is_empty()).map(|()| spec.env.clone()),
            timeout: differs(spec.timeout != default.timeout).map(|()| Seconds(spec.timeout)),
            cpus: cpu_millis.map(Cpus),
            memory_mb,
            pids,
            gpus,
            network: spec.network,
            labels: differs(!spec.labels.is_empty()).map(|()| spec.labels.clone()),
            priority: differs(spec.priority != default.priority).map(|()| spec.priority),
            max_attempts: differs(spec.max_attempts != default.max_attempts).map(|()| spec.max_attempts),
            retries: differs(spec.retries != default.retries).map(|()| spec.retries),
            backoff: differs(spec.backoff != default.backoff).map(|()| spec.backoff.into()),
            exclusive: differs(spec.exclusive).map(|()| true),
            reuse: differs(spec.reuse).map(|()| true),
            run_at: spec.run_at.map(Time),
            idempotency_key: spec.idempotency_key.clone(),
        }
    }

    /// The spec that this stands for; `None` if it says of several what to run, or of none, or names a file that can't be.
    #[cfg(feature = "client")]
    pub fn into_spec(self) -> Option<JobSpec> {
        let mut spec = match (self.command, self.args, self.commands) {
            (Some(line), None, None) => JobSpec::shell(line),
            (None, Some(argv), None) => JobSpec::argv(argv),
            (None, None, Some(lines)) => JobSpec::steps(lines),
            _ => return None,
        };
        spec.name = self.name;
        spec.container_image = self.container_image;
        spec.input = self.file_id.map(|id| id.parse()).transpose().ok()?;
        spec.input_name = self.filename;
        spec.working_directory = self.working_directory;
        spec.outputs = self.outputs.unwrap_or_default();
        spec.env = self.env.unwrap_or_default();
        spec.timeout = self.timeout.map_or(spec.timeout, |Seconds(timeout)| timeout);
        spec.resources = Resources {
            cpu_millis: self.cpus.map(|Cpus(millis)| millis),
            memory_mb: self.memory_mb,
            pids: self.pids,
            gpus: self.gpus,
        };
        spec.network = self.network;
        spec.labels = self.labels.unwrap_or_default();
        spec.priority = self.priority.unwrap_or(spec.priority);
        spec.max_attempts = self.max_attempts.unwrap_or(spec.max_attempts);
        spec.retries = self.retries.unwrap_or(spec.retries);
        spec.backoff = self.backoff.map_or(spec.backoff, Into::into);
        spec.exclusive = self.exclusive.unwrap_or(spec.exclusive);
        spec.reuse = self.reuse.unwrap_or(spec.reuse);
        spec.run_at = self.run_at.map(|Time(at)| at);
        spec.idempotency_key = self.idempotency_key;
        Some(spec)
    }
}

impl From<cmdexec_core::job::Backoff> for Backoff {
    fn from(backoff: cmdexec_core::job::Backoff) -> Self {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Self { initial_ms: millis(backoff.initial), factor: backoff.factor, max_ms: millis(backoff.max) }
    }
}

#[cfg(feature = "client")]
impl From<Backoff> for cmdexec_core::job::Backoff {
    fn from(backoff: Backoff) -> Self {
        Self {
            initial: Duration::from_millis(backoff.initial_ms),
            factor: backoff.factor,
            max: Duration::from_millis(backoff.max_ms),
        }
    }
}
