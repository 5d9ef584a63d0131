//! The worker's settings: the one table that the flags, the variables, the file and the help follow from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cmdexec_core::id::WorkerId;
use cmdexec_core::token::MIN_SECRET;
use cmdexec_core::worker;
use cmdexec_program::logs;
use cmdexec_program::settings::Settings;
use cmdexec_program::settings::parse::{Span, list, number, own, text};

use crate::docker::{self, Docker};

/// What the worker was told.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) server: String,
    pub(crate) transport: Transport,
    pub(crate) credentials: Credentials,
    pub(crate) worker: worker::Options,
    pub(crate) work_dir: PathBuf,
    /// Whether jobs may be processes.
    pub(crate) allow_process: bool,
    /// What there is to say of containers.
    pub(crate) docker: Docker,
    /// Whether jobs may have a network.
    pub(crate) allow_network: bool,
    pub(crate) log_format: logs::Format,
    pub(crate) log_level: logs::Level,
}

/// How the worker talks to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// By a socket over which jobs are pushed, and by HTTP as long as there is none.
    Ws,
    /// By HTTP, asking for jobs.
    Http,
}

/// What the worker shows to the server.
#[derive(Clone)]
pub(crate) enum Credentials {
    /// A token that somebody made.
    Token(String),
    /// The secret that it makes tokens from.
    Secret(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

pub(crate) fn declare(settings: &mut Settings) -> Options {
    let s = settings;
    let server = s
        .setting(
            "SERVER_URL",
            "The server, such as ws://127.0.0.1:3000 or http://127.0.0.1:3000; of several over one database, with commas, any",
        )
        .required(url);
    let transport =
        s.setting("TRANSPORT", "ws: jobs are pushed; http: they are asked for; auto: as SERVER_URL's scheme says");
    let is_socket = server.as_ref().is_some_and(|url| url.starts_with("ws"));
    let by_scheme = if is_socket { Transport::Ws } else { Transport::Http };
    let transport = transport.by_default("auto").optional(transport_named).flatten().unwrap_or(by_scheme);
    let token = s.setting("WORKER_TOKEN", "The token to show; `cmdexec token worker` makes one").secret();
    let token = token.optional(text).map(Credentials::Token);
    let secret = s.setting("WORKER_TOKEN_SECRET", "Without a token: the server's secret, to make tokens from").secret();
    let secret = secret.optional(secret_text).map(Credentials::Secret);
    let credentials = token.or(secret);
    s.one_of(&["WORKER_TOKEN", "WORKER_TOKEN_SECRET"]);

    let mut worker = worker::Options::default();
    let id = s.setting("WORKER_ID", "Its name, which no other worker has").by_default("made once and kept in WORK_DIR");
    worker.id = id.optional(own::<WorkerId>);
    let slots = s.setting("SLOTS", "How many jobs it runs at once").older("MAX_PARALLEL_JOBS");
    worker.slots = slots.by_default("one for each processor").optional(number(1..=worker::Options::MOST_SLOTS));
    let cpus = s.setting("CPU_LIMIT", "How many processors it offers, such as 1.5").by_default("all");
    worker.cpu_millis = cpus.optional(cpu_millis);
    let memory = s.setting("RAM_LIMIT", "How much memory it offers, in MiB").by_default("all");
    worker.memory_mb = memory.optional(number(1..=64 << 20));
    let labels = s.setting("LABELS", "What jobs may ask for by name, with commas between them");
    worker.labels = labels.optional(|value| list(value, text)).unwrap_or_default().into_iter().collect::<BTreeSet<_>>();
    worker.auto_start = s.setting("AUTO_START", "Take jobs at once").switch(true);
    let drain = s.setting("DRAIN_TIMEOUT", "How long running jobs may go on after the signal to end");
    worker.drain_timeout = drain.or(Span(worker.drain_timeout), own).0;
    let work_dir = s.setting("WORK_DIR", "Where jobs have their directories, for this worker alone");
    let work_dir = work_dir.by_default(usual_work_dir().display().to_string()).optional(text);
    let work_dir = work_dir.map_or_else(usual_work_dir, PathBuf::from);
    let work_dir = std::path::absolute(&work_dir).unwrap_or(work_dir);
    worker.work_dir = Some(work_dir.clone());
    let limits = &mut worker.input_limits;
    let entries = s.setting("INPUT_MAX_ENTRIES", "How many files and directories a job's ZIP may hold");
    limits.entries = entries.or(limits.entries, number(1..=10_000_000));
    let bytes = s.setting("INPUT_MAX_BYTES", "How many bytes a job's ZIP may have, packed and unpacked");
    limits.unpacked = bytes.or(limits.unpacked, number(1..=1 << 50));
    let ratio = s.setting("INPUT_MAX_RATIO", "How many times its size may come out of a ZIP, if that is over 10 MiB");
    limits.ratio = ratio.or(limits.ratio, number(1..=1_000_000));
    let path = s.setting("INPUT_MAX_PATH", "How many bytes a path in a job's ZIP may have");
    limits.path = path.or(limits.path, number(1..=3_072));
    let levels = s.setting("INPUT_MAX_LEVELS", "How many directories deep a path in a job's ZIP may be");
    limits.levels = levels.or(limits.levels, number(1..=1_024));
    let cache = s.setting("INPUT_CACHE_MB", "How much of unpacked ZIPs it keeps for the next jobs, in MiB; 0: none");
    worker.input_cache_mb = cache.or(worker.input_cache_mb, number(0..=1 << 30));
    let limits = &mut worker.output_limits;
    let entries = s.setting("OUTPUT_MAX_ENTRIES", "How many files and directories are kept of what a job leaves");
    limits.entries = entries.or(limits.entries, number(1..=10_000_000));
    let bytes = s.setting("OUTPUT_MAX_BYTES", "How many bytes are kept of what a job leaves, before they are packed");
    limits.unpacked = bytes.or(limits.unpacked, number(1..=1 << 50));
    let packed = s.setting("OUTPUT_MAX_ZIP_BYTES", "How many bytes the ZIP of what a job leaves may have");
    limits.packed = packed.or(limits.packed, number(1 << 10..=1 << 50));
    for problem in worker.validate() {
        s.problem(problem.field.to_uppercase(), problem.message);
    }

    let allow_process = s.setting("ALLOW_PROCESS", "Run jobs as processes").switch(true);
    let allow_network = s.setting("ALLOW_NETWORK", "Let jobs have a network").switch(true);
    let docker = docker::declare(s, &work_dir, allow_network);
    if !allow_process && docker.is_enabled == Some(false) {
        s.problem("ALLOW_PROCESS", "must be true without ENABLE_DOCKER: nothing else is left to run jobs with");
    }

    let log_format = s.setting("LOG_FORMAT", "text or json").or(logs::Format::Text, own);
    let log_level = s.setting("LOG_LEVEL", "error, warn, info, debug, trace, or directives for single modules");
    let log_level = log_level.or(logs::Level::default(), own);
    Options {
        // What is missing is a problem, with which nothing starts.
        server: server.unwrap_or_default(),
        transport,
        credentials: credentials.unwrap_or(Credentials::Token(String::new())),
        worker,
        work_dir,
        allow_process,
        allow_network,
        docker,
        log_format,
        log_level,
    }
}

/// What was named; `None` is `auto`.
fn transport_named(value: &str) -> Result<Option<Transport>, String> {
    match value {
        "auto" => Ok(None),
        "ws" => Ok(Some(Transport::Ws)),
        "http" => Ok(Some(Transport::Http)),
        _ => Err("must be auto, ws or http".to_owned()),
    }
}

fn url(value: &str) -> Result<String, String> {
    let is_url = |url: &str| {
        let after_scheme =
            ["http://", "https://", "ws://", "wss://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        after_scheme.is_some_and(|host| !host.is_empty())
    };
    if value.split(',').map(str::trim).all(is_url) {
        Ok(value.to_owned())
    } else {
        Err("must be a URL such as http://127.0.0.1:3000, or several with commas between them".to_owned())
    }
}

fn secret_text(value: &str) -> Result<String, String> {
    if value.chars().count() < MIN_SECRET {
        return Err(format!("must have at least {MIN_SECRET} characters"));
    }
    Ok(value.to_owned())
}

pub(crate) fn cpu_millis(value: &str) -> Result<u32, String> {
    let cpus: f64 = value.trim().parse().unwrap_or(0.0);
    if !(0.001..=4_096.0).contains(&cpus) {
        return Err("must be a number of processors such as 2 or 1.5".to_owned());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    let millis = (cpus * 1_000.0).round() as u32;
    Ok(millis)
}

/// Where job users get through to, if there are any: a folder in root's home would be closed to them.
fn usual_work_dir() -> PathBuf {
    #[cfg(unix)]
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/cmdexec-worker");
    }
    let state = std::env::var_os("XDG_STATE_HOME").filter(|dir| Path::new(dir).is_absolute()).map(PathBuf::from);
    let state = state.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".local/state")));
    state.unwrap_or_else(std::env::temp_dir).join("cmdexec-worker")
}

/// How long one call of the server may be waited for while the worker starts, until somebody is told.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Command;
    use cmdexec_program::settings::{Failure, read};

    use super::*;

    fn given(environment: &[(&str, &str)]) -> Result<Options, Vec<String>> {
        let find =
            |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        read(Command::new("worker"), declare, ["worker"], find).map_err(|failure| match failure {
            Failure::Settings(problems) => problems.iter().map(ToString::to_string).collect(),
            Failure::Flags(error) => vec![error.to_string()],
        })
    }

    #[test]
    fn reads_the_contracts_names() {
        let secret = "0123456789012345678901234567890123";
        let options = given(&[
            ("SERVER_URL", "http://here:1"),
            ("WORKER_TOKEN_SECRET", secret),
            ("MAX_PARALLEL_JOBS", "3"),
            ("CPU_LIMIT", "1.5"),
            ("RAM_LIMIT", "512"),
            ("LABELS", "gpu, fast"),
            ("AUTO_START", "false"),
            ("DRAIN_TIMEOUT", "5"),
            ("ENABLE_DOCKER", "false"),
        ])
        .unwrap();
        let worker = options.worker;
        assert_eq!((worker.slots, worker.cpu_millis, worker.memory_mb), (Some(3), Some(1_500), Some(512)));
        assert_eq!(worker.labels, ["gpu".to_owned(), "fast".to_owned()].into());
        assert_eq!((worker.auto_start, worker.drain_timeout), (false, Duration::from_secs(5)));
        assert!(matches!(options.credentials, Credentials::Secret(_)));
    }

    #[test]
    fn the_scheme_decides_unless_a_transport_is_named() {
        for (url, transport, expected) in [
            ("http://here", "auto", Transport::Http),
            ("https://here", "", Transport::Http),
            ("ws://here", "auto", Transport::Ws),
            ("wss://here", "", Transport::Ws),
            ("http://here", "ws", Transport::Ws),
            ("ws://here", "http", Transport::Http),
        ] {
            let options = given(&[("SERVER_URL", url), ("WORKER_TOKEN", "x"), ("TRANSPORT", transport)]).unwrap();
            assert_eq!(options.transport, expected, "{url} {transport}");
        }
        assert!(given(&[("SERVER_URL", "ws://here"), ("WORKER_TOKEN", "x"), ("TRANSPORT", "tcp")]).is_err());
    }

    #[test]
    fn reads_what_is_said_of_containers() {
        let token = [("SERVER_URL", "http://here:1"), ("WORKER_TOKEN", "t")];
        let read = |more: &[(&str, &str)]| given(&[&token[..], more].concat());
        let options =
            read(&[("ENABLE_DOCKER", "true"), ("DOCKER_MEMORY_LIMIT", "512m"), ("ALLOW_PROCESS", "no")]).unwrap();
        assert_eq!((options.docker.is_enabled, options.allow_process), (Some(true), false));
        assert_eq!(read(&[]).unwrap().docker.is_enabled, None);
        let problems = read(&[("DOCKER_NETWORK_MODE", "bridge"), ("ALLOW_NETWORK", "false")]).unwrap_err();
        assert!(problems[0].contains("network"), "{problems:?}");
    }

    #[test]
    fn says_everything_that_is_wrong() {
        let problems =
            given(&[("SLOTS", "0"), ("ENABLE_DOCKER", "no"), ("DOCKER_TIMEOUT", "soon"), ("ALLOW_PROCESS", "no")]);
        let problems = problems.unwrap_err().join("\n");
        for part in [
            "SERVER_URL: must be set",
            "WORKER_TOKEN or WORKER_TOKEN_SECRET: must be set",
            "SLOTS (",
            "DOCKER_TIMEOUT (",
            "ALLOW_PROCESS",
        ] {
            assert!(problems.contains(part), "{part} is missing in:\n{problems}");
        }
    }
}
