//! A job as JSON, by the names of the HTTP API.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail};
use cmdexec_core::files::FileId;
use cmdexec_core::job::{Backoff, Command, JobSpec, Network};
use cmdexec_core::time::Timestamp;
use serde::Deserialize;

/// What may stand in the file. What the API takes and the library does not have yet is refused by name, as the server does.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    command: Option<String>,
    args: Option<Vec<String>>,
    commands: Option<Vec<String>>,
    name: Option<String>,
    container_image: Option<String>,
    file_id: Option<FileId>,
    working_directory: Option<String>,
    outputs: Option<Vec<String>>,
    env: Option<BTreeMap<String, String>>,
    timeout: Option<f64>,
    cpus: Option<f64>,
    memory_mb: Option<u64>,
    pids: Option<u32>,
    gpus: Option<u32>,
    reuse: Option<bool>,
    network: Option<Network>,
    labels: Option<BTreeSet<String>>,
    priority: Option<i8>,
    max_attempts: Option<u32>,
    retries: Option<u32>,
    backoff: Option<FileBackoff>,
    exclusive: Option<bool>,
    run_at: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileBackoff {
    initial_ms: Option<u64>,
    factor: Option<f64>,
    max_ms: Option<u64>,
}

/// A job that runs a command, and is otherwise as by default.
pub(crate) fn of_command(command: Command) -> JobSpec {
    match command {
        Command::Shell(line) => JobSpec::shell(line),
        Command::Argv(argv) => JobSpec::argv(argv),
        Command::Steps(lines) => JobSpec::steps(lines),
    }
}

/// The job in a file; `command` is what was typed, and then stands for what the file would run.
pub(crate) fn read(text: &str, command: Option<Command>) -> anyhow::Result<JobSpec> {
    let file: File = serde_json::from_str(text)?;
    let in_file = match (file.command, file.args, file.commands) {
        (Some(line), None, None) => Some(Command::Shell(line)),
        (None, Some(argv), None) => Some(Command::Argv(argv)),
        (None, None, Some(lines)) => Some(Command::Steps(lines)),
        (None, None, None) => None,
        _ => bail!("only one of command, args and commands may be given"),
    };
    let mut spec = of_command(command.or(in_file).context("one of command, args and commands is missing")?);
    spec.name = file.name;
    spec.container_image = file.container_image;
    spec.input = file.file_id;
    spec.working_directory = file.working_directory;
    spec.outputs = file.outputs.unwrap_or_default();
    spec.env = file.env.unwrap_or_default();
    spec.labels = file.labels.unwrap_or_default();
    spec.network = file.network;
    spec.resources.memory_mb = file.memory_mb;
    spec.resources.pids = file.pids;
    spec.resources.gpus = file.gpus;
    spec.reuse = file.reuse.unwrap_or(spec.reuse);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates; validated later")]
    let millis = |cpus: f64| (cpus * 1_000.0).round() as u32;
    spec.resources.cpu_millis = file.cpus.map(millis);
    if let Some(seconds) = file.timeout {
        spec.timeout = Duration::try_from_secs_f64(seconds).context("timeout")?;
    }
    spec.priority = file.priority.unwrap_or(spec.priority);
    spec.max_attempts = file.max_attempts.unwrap_or(spec.max_attempts);
    spec.retries = file.retries.unwrap_or(spec.retries);
    spec.exclusive = file.exclusive.unwrap_or(spec.exclusive);
    if let Some(backoff) = file.backoff {
        let usual = Backoff::default();
        spec.backoff = Backoff {
            initial: backoff.initial_ms.map_or(usual.initial, Duration::from_millis),
            factor: backoff.factor.unwrap_or(usual.factor),
            max: backoff.max_ms.map_or(usual.max, Duration::from_millis),
        };
    }
    spec.run_at = match file.run_at {
        Some(text) => {
            Some(Timestamp::parse_rfc3339(&text).context("runAt must be a time such as 2026-12-24T18:00:00Z")?)
        }
        None => None,
    };
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_names_of_the_api() {
        let text = r#"{"args": ["make"], "memoryMb": 64, "cpus": 1.5, "timeout": 0.5, "network": "none",
                       "backoff": {"initialMs": 5}, "env": {"A": "1"}, "runAt": "2026-12-24T18:00:00Z"}"#;
        let spec = read(text, None).unwrap();
        assert_eq!(spec.command, Command::Argv(vec!["make".into()]));
        assert_eq!(spec.resources.cpu_millis, Some(1_500));
        assert_eq!((spec.timeout, spec.backoff.initial), (Duration::from_millis(500), Duration::from_millis(5)));
        assert!(spec.run_at.is_some());
        assert_eq!(read(text, Some(Command::Shell("ls".into()))).unwrap().command, Command::Shell("ls".into()));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(read(r#"{"command": "ls", "comand": "ls"}"#, None).unwrap_err().to_string().contains("comand"));
        assert!(read(r#"{"command": "ls", "args": ["ls"]}"#, None).is_err());
        assert!(read("{}", None).is_err());
    }
}
