//! What a job is asked to do. Written once, at submission, and never changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::files::FileId;
use crate::time::Timestamp;

/// What to run, with what, under which limits, and what to do if it goes wrong.
///
/// Build one with [`JobSpec::shell`], [`JobSpec::argv`] or [`JobSpec::steps`] and set what differs from the
/// defaults. [`JobSpec::validate`] says everything that is wrong with it; submitting calls it.
///
/// Its serde form is how stores keep it; golden files hold it still. What travels over a wire is the transport's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct JobSpec {
    /// What to run.
    pub command: Command,
    /// A name for people; need not be unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The container image to run in; without one, an isolated process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_image: Option<String>,
    /// A ZIP that is unpacked into the working directory before the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<FileId>,
    /// What the ZIP is called, for workers that keep it as a file of some name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_name: Option<String>,
    /// The directory inside the ZIP to start in; relative, without `..`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Which files to keep after the run, whatever its end: globs relative to the directory that the command starts in, without
    /// `..`, at most 100. `*` stays within a name and `**` crosses directories; one that names a directory means everything below
    /// it. They are collected into one ZIP, the job's artifacts; what can't be is a warning ([`super::Details::warnings`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// The job's environment. Nothing of the worker's is added but `PATH`, `HOME`, `TMPDIR` and `LANG`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// How long the command may run, counted from its start. 300 s by default; at most 24 h.
    #[serde(with = "crate::time_serde::millis", rename = "timeoutMs")]
    pub timeout: Duration,
    /// What the job reserves and is held to.
    #[serde(default)]
    pub resources: Resources,
    /// The network the job gets; `None` is the executor's default (none in a container, the worker's in a process).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Labels that the worker must have, every one.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub labels: BTreeSet<String>,
    /// -100 to 100; higher runs first. 0 by default.
    #[serde(default)]
    pub priority: i8,
    /// How many attempts may be spent on lost workers and infrastructure errors, the first included. 3 by default.
    pub max_attempts: u32,
    /// How many further tries follow a non-zero exit or a timeout. 0 by default. Counted apart from `max_attempts`.
    #[serde(default)]
    pub retries: u32,
    /// The wait before a further attempt.
    #[serde(default)]
    pub backoff: Backoff,
    /// True: a worker that loses touch stops the job before its lease is over, so that two attempts never overlap
    /// as far as clocks allow. False, the default: it keeps the job running and reports when it is back.
    #[serde(default)]
    pub exclusive: bool,
    /// Whether the job may run in a container that another job of its owner has used, if that said so too: it starts at once, and is
    /// isolated less from those jobs. Between two, every process is ended, and memory and temporary files are emptied. For a job in
    /// a container without a network; else it changes nothing. False by default.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reuse: bool,
    /// Not to be started before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    /// What makes a repetition of the job's submission known: 1 to 256 bytes of visible ASCII. A job keeps the key that it
    /// was submitted with; in a batch it is the batch's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

impl JobSpec {
    /// The default of [`JobSpec::timeout`].
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
    /// The most that [`JobSpec::timeout`] may be.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);

    fn new(command: Command) -> Self {
        Self {
            command,
            name: None,
            container_image: None,
            input: None,
            input_name: None,
            working_directory: None,
            outputs: Vec::new(),
            env: BTreeMap::new(),
            timeout: Self::DEFAULT_TIMEOUT,
            resources: Resources::default(),
            network: None,
            labels: BTreeSet::new(),
            priority: 0,
            max_attempts: 3,
            retries: 0,
            backoff: Backoff::default(),
            exclusive: false,
            reuse: false,
            run_at: None,
            idempotency_key: None,
        }
    }

    /// About how many bytes of memory the spec's texts take.
    pub(crate) fn weight(&self) -> usize {
        let command = match &self.command {
            Command::Shell(line) => line.len(),
            Command::Argv(items) | Command::Steps(items) => items.iter().map(|i| i.len() + 24).sum(),
        };
        let env: usize = self.env.iter().map(|(name, value)| name.len() + value.len() + 48).sum();
        let texts = self.labels.iter().chain(&self.outputs);
        let texts: usize = texts.map(|text| text.len() + 24).sum();
        command + env + texts
    }

    /// A job that runs one line (or script) with `/bin/sh -c`.
    pub fn shell(line: impl Into<String>) -> Self {
        Self::new(Command::Shell(line.into()))
    }

    /// A job that runs a program with arguments and no shell.
    pub fn argv<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self::new(Command::Argv(argv.into_iter().map(Into::into).collect()))
    }

    /// A job that runs several shell lines in order, stopping at the first that fails.
    pub fn steps<S: Into<String>>(lines: impl IntoIterator<Item = S>) -> Self {
        Self::new(Command::Steps(lines.into_iter().map(Into::into).collect()))
    }
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    /// A line or script for `/bin/sh -c`.
    Shell(String),
    /// A program and its arguments, run without a shell.
    Argv(Vec<String>),
    /// Several shell lines, each by a `/bin/sh -c` of its own, in order, stopping at the first that fails.
    Steps(Vec<String>),
}

/// What a job reserves of its worker and is limited to. A job that names none reserves none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Thousandths of a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// How many processes and threads the job may have at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Graphics processors, for a job in a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
}

/// The network that a job gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Network {
    /// None at all, not even the worker's loopback.
    None,
    /// Outgoing connections.
    Bridge,
}

/// The wait before a further attempt: `initial × factor^n`, at most `max`, less up to half of it at random.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// The first wait. 1 s by default.
    #[serde(with = "crate::time_serde::millis", rename = "initialMs")]
    pub initial: Duration,
    /// What each wait is multiplied by for the next. 2 by default.
    pub factor: f64,
    /// The longest wait. 60 s by default.
    #[serde(with = "crate::time_serde::millis", rename = "maxMs")]
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(60) }
    }
}
