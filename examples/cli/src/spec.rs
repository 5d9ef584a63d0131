//! The flags that make a job.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use cmdexec_core::job::{Command, JobSpec, Network};
use cmdexec_core::time::{Clock, SystemClock, Timestamp};

use crate::args::span;
use crate::files::FilesArgs;
use crate::spec_file;

/// What to run, and how. Flags change what `--spec` says.
#[derive(Debug, Args)]
pub(crate) struct SpecArgs {
    /// One argument: a line for `/bin/sh`. Several: a program and its arguments, run without a shell
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Join the arguments with spaces to one line for `/bin/sh`
    #[arg(short, long, requires = "command")]
    shell: bool,
    /// A shell line; repeated, they run in order and stop at the first that fails
    #[arg(long, value_name = "LINE", conflicts_with = "command")]
    step: Vec<String>,
    /// A shell script to run; `-` reads it from standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command", "step"])]
    script: Option<PathBuf>,
    /// A job as JSON, by the names of the HTTP API; `-` reads it from standard input
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) files: FilesArgs,

    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// Set a variable; NAME alone takes it from here
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A file with a NAME=VALUE on each line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// The container image to run in; without one, an isolated process
    #[arg(long)]
    image: Option<String>,
    /// How long the command may run [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = span)]
    timeout: Option<Duration>,

    /// Processors to reserve and be limited to, such as 0.5
    #[arg(long, value_parser = cpus)]
    cpus: Option<u32>,
    /// Memory to reserve and be limited to, such as 512M or 2G
    #[arg(long, value_parser = memory)]
    memory: Option<u64>,
    /// How many processes and threads there may be
    #[arg(long)]
    pids: Option<u32>,
    /// Graphics processors to reserve and be given, in a container
    #[arg(long)]
    gpus: Option<u32>,
    /// Let the job run in a container that another job of yours has used that said so too
    #[arg(long)]
    reuse: bool,
    /// none or bridge
    #[arg(long, value_parser = network)]
    network: Option<Network>,
    /// A label that the worker must have
    #[arg(short, long)]
    label: Vec<String>,

    /// -100 to 100; higher runs first
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i8>,
    /// Further tries after a non-zero exit or a timeout
    #[arg(long)]
    retries: Option<u32>,
    /// Attempts that may be spent on lost workers and infrastructure errors [default: 3]
    #[arg(long)]
    max_attempts: Option<u32>,
    /// Stop the job when its worker loses touch, so that no two attempts overlap
    #[arg(long)]
    exclusive: bool,
    /// Not before this time, such as 2026-12-24T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant)]
    run_at: Option<Timestamp>,
    /// Not before this long from now, such as 90s or 1h
    #[arg(long = "in", value_name = "TIME", value_parser = span, conflicts_with = "run_at")]
    within: Option<Duration>,
    /// Submitting again with the same key is answered with the first job
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

impl SpecArgs {
    /// The job that was asked for.
    pub(crate) fn to_spec(&self) -> anyhow::Result<JobSpec> {
        let command = self.command()?;
        let mut spec = match (&self.spec, command) {
            (Some(file), command) => {
                spec_file::read(&text_of(file)?, command).with_context(|| format!("the job in {}", file.display()))?
            }
            (None, Some(command)) => spec_file::of_command(command),
            (None, None) => bail!("there is nothing to run: give a command, --step, --script or --spec"),
        };
        for file in &self.env_file {
            spec.env.extend(variables(&text_of(file)?).with_context(|| file.display().to_string())?);
        }
        for variable in &self.env {
            spec.env.extend([variable_of(variable)?]);
        }
        set(&mut spec.name, self.name.clone());
        set(&mut spec.container_image, self.image.clone());
        set(&mut spec.resources.cpu_millis, self.cpus);
        set(&mut spec.resources.memory_mb, self.memory);
        set(&mut spec.resources.pids, self.pids);
        set(&mut spec.resources.gpus, self.gpus);
        set(&mut spec.network, self.network);
        set(&mut spec.run_at, self.run_at.or_else(|| Some(SystemClock.now().after(self.within?))));
        spec.timeout = self.timeout.unwrap_or(spec.timeout);
        spec.priority = self.priority.unwrap_or(spec.priority);
        spec.retries = self.retries.unwrap_or(spec.retries);
        spec.max_attempts = self.max_attempts.unwrap_or(spec.max_attempts);
        spec.exclusive |= self.exclusive;
        spec.reuse |= self.reuse;
        spec.labels.extend(self.label.iter().cloned());
        self.files.note(&mut spec);

        let problems = spec.validate();
        if !problems.is_empty() {
            bail!(cmdexec_core::Error::Invalid(problems));
        }
        Ok(spec)
    }

    fn command(&self) -> anyhow::Result<Option<Command>> {
        Ok(match (self.command.as_slice(), &self.script) {
            ([], None) if self.step.is_empty() => None,
            ([], None) => Some(Command::Steps(self.step.clone())),
            ([], Some(script)) => Some(Command::Shell(text_of(script)?)),
            ([line], _) => Some(Command::Shell(line.clone())),
            (words, _) if self.shell => Some(Command::Shell(words.join(" "))),
            (argv, _) => Some(Command::Argv(argv.to_vec())),
        })
    }
}

fn set<T>(field: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *field = value;
    }
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn variable_of(text: &str) -> anyhow::Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Ok((text.to_owned(), std::env::var(text).with_context(|| format!("the variable {text}"))?)),
    }
}

/// The lines of an environment file: comments and empty ones do not count, and a value is what stands there, quotes and all.
fn variables(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(variable_of).collect()
}

fn cpus(text: &str) -> Result<u32, String> {
    let wrong = || "must be a number of processors such as 2 or 0.5".to_owned();
    let cpus: f64 = text.parse().map_err(|_| wrong())?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    let millis = if (0.001..=1_024.0).contains(&cpus) { Some((cpus * 1_000.0).round() as u32) } else { None };
    millis.ok_or_else(wrong)
}

/// Memory in MiB.
fn memory(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: Option<u64> = number.parse().ok().filter(|number| *number > 0);
    let mib = match (number, unit.trim().to_ascii_lowercase().trim_end_matches(['i', 'b'])) {
        (Some(number), "" | "m") => Some(number),
        (Some(number), "g") => number.checked_mul(1024),
        _ => None,
    };
    mib.ok_or_else(|| "must be an amount of memory such as 512M or 2G; without a unit it is MiB".to_owned())
}

fn network(text: &str) -> Result<Network, String> {
    match text {
        "none" => Ok(Network::None),
        "bridge" => Ok(Network::Bridge),
        _ => Err("must be none or bridge".to_owned()),
    }
}

fn instant(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text).ok_or_else(|| "must be a time such as 2026-12-24T18:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        spec: SpecArgs,
    }

    fn typed(args: &[&str]) -> JobSpec {
        Typed::try_parse_from(["cmdexec"].iter().chain(args)).unwrap().spec.to_spec().unwrap()
    }

    #[test]
    fn one_argument_is_a_line_and_several_are_a_program() {
        assert_eq!(typed(&["make && make test"]).command, Command::Shell("make && make test".into()));
        assert_eq!(typed(&["make", "-j4"]).command, Command::Argv(vec!["make".into(), "-j4".into()]));
        assert_eq!(typed(&["--", "make", "--help"]).command, Command::Argv(vec!["make".into(), "--help".into()]));
        assert_eq!(typed(&["-s", "echo", "$HOME"]).command, Command::Shell("echo $HOME".into()));
        assert_eq!(typed(&["--step", "a", "--step", "b"]).command, Command::Steps(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn flags_set_what_they_name() {
        let spec = typed(&[
            "--cpus",
            "0.5",
            "--memory",
            "2G",
            "--pids",
            "7",
            "-e",
            "A=b=c",
            "--timeout",
            "2m",
            "--priority",
            "-3",
            "-l",
            "gpu",
            "--network",
            "none",
            "--retries",
            "2",
            "--exclusive",
            "--image",
            "alpine",
            "true",
        ]);
        assert_eq!(spec.resources.cpu_millis, Some(500));
        assert_eq!(spec.resources.memory_mb, Some(2048));
        assert_eq!(spec.env["A"], "b=c");
        assert_eq!((spec.timeout.as_secs(), spec.priority, spec.retries, spec.exclusive), (120, -3, 2, true));
        assert_eq!(spec.network, Some(Network::None));
        assert!(spec.labels.contains("gpu"));
    }

    #[test]
    fn environment_files() {
        let read = variables("# note\n\nA=1\n  B=\"x y\"\n").unwrap();
        assert_eq!(read, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "\"x y\"".to_owned())].into());
    }

    #[test]
    fn amounts() {
        assert_eq!(memory("512"), Ok(512));
        assert_eq!(memory("3GiB"), Ok(3072));
        assert!(memory("0").is_err() && memory("5T").is_err() && cpus("-1").is_err() && cpus("nan").is_err());
    }
}
