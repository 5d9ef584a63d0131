//! Everything that can be wrong with a spec, said at once.

use std::fmt;
use std::path::{Component, Path};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Command, JobSpec, outputs};

/// One thing that is wrong with what somebody sent: which field, by its name in the HTTP contract, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The field, such as `timeout` or `backoff.factor`; in a batch with its place, such as `jobs[3].timeout`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl Problem {
    /// A problem with a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

const MAX_COMMAND: usize = 512 * 1024;
const MAX_ITEMS: usize = 1_000;
const MAX_CPU_MILLIS: u32 = 1_024_000;
const MAX_MEMORY_MB: u64 = 64 * 1024 * 1024;
const MAX_PIDS: u32 = 4_194_304;
const MAX_GPUS: u32 = 64;
const MAX_TRIES: u32 = 100;
const MAX_BACKOFF: Duration = Duration::from_secs(86_400);

impl JobSpec {
    /// Everything that is wrong with the spec; empty if nothing is.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Problems(Vec::new());
        problems.command(&self.command);
        if let Some(name) = &self.name {
            problems.text("name", name, 256);
        }
        if let Some(image) = &self.container_image {
            problems.text("containerImage", image, 512);
            problems.check(!image.contains(char::is_whitespace), "containerImage", "must not contain white space");
        }
        if let Some(name) = &self.input_name {
            problems.text("filename", name, 255);
            problems.check(self.input.is_some(), "filename", "needs a `fileId` that it is the name of");
            let is_plain =
                !name.contains(['/', '\\']) && !name.contains(char::is_control) && name != "." && name != "..";
            problems.check(is_plain, "filename", "must be a file's name, without a directory");
        }
        if let Some(directory) = &self.working_directory {
            problems.text("workingDirectory", directory, 1_024);
            problems.check(
                is_inside(directory),
                "workingDirectory",
                "must be a relative path without `..`, inside the job's files",
            );
        }
        problems.outputs(&self.outputs);
        problems.env(self);
        problems.labels(self);
        problems.limits(self);
        problems.tries(self);
        problems.0
    }
}

struct Problems(Vec<Problem>);

impl Problems {
    /// Field and message are put into words only where the check fails: most specs have no problem.
    fn check(&mut self, holds: bool, field: impl fmt::Display, message: impl fmt::Display) {
        if !holds {
            self.0.push(Problem::new(field.to_string(), message.to_string()));
        }
    }

    fn text(&mut self, field: &str, text: &str, most: usize) {
        self.check(!text.is_empty(), field, "must not be empty");
        self.check(text.len() <= most, field, format_args!("must be at most {most} bytes"));
        self.check(!text.contains('\0'), field, "must not contain NUL");
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Shell(line) => {
                self.text("command", line, MAX_COMMAND);
                self.check(!line.trim().is_empty() || line.is_empty(), "command", "must not be blank");
            }
            Command::Argv(argv) => {
                self.items("args", argv);
                self.check(argv.first().is_none_or(|p| !p.is_empty()), "args[0]", "must name a program");
            }
            Command::Steps(lines) => {
                self.items("commands", lines);
                for (i, line) in lines.iter().enumerate() {
                    self.check(!line.trim().is_empty(), format_args!("commands[{i}]"), "must not be blank");
                }
            }
        }
    }

    fn items(&mut self, field: &str, items: &[String]) {
        self.check(!items.is_empty(), field, "must not be empty");
        self.check(items.len() <= MAX_ITEMS, field, format_args!("must have at most {MAX_ITEMS} items"));
        let bytes: usize = items.iter().map(String::len).sum();
        self.check(bytes <= MAX_COMMAND, field, format_args!("must be at most {MAX_COMMAND} bytes in all"));
        for (i, item) in items.iter().enumerate() {
            self.check(!item.contains('\0'), format_args!("{field}[{i}]"), "must not contain NUL");
        }
    }

    fn outputs(&mut self, globs: &[String]) {
        let most = outputs::MOST;
        self.check(globs.len() <= most, "outputs", format_args!("must be at most {most}"));
        for (i, glob) in globs.iter().take(most).enumerate() {
            if let Some(message) = outputs::check(glob) {
                self.0.push(Problem::new(format!("outputs[{i}]"), message));
            }
        }
    }

    fn env(&mut self, spec: &JobSpec) {
        self.check(spec.env.len() <= MAX_ITEMS, "env", format_args!("must have at most {MAX_ITEMS} variables"));
        for (name, value) in &spec.env {
            let is_name = !name.is_empty() && name.len() <= 256 && !name.contains(['=', '\0']);
            self.check(is_name, "env", format_args!("{name:?} is no name: 1 to 256 bytes without `=` and NUL"));
            self.check(!value.contains('\0'), format_args!("env.{name}"), "must not contain NUL");
            // Linux refuses a single string of 128 KiB or more (MAX_ARG_STRLEN), name and `=` included.
            self.check(name.len() + value.len() < 131_070, format_args!("env.{name}"), "must be under 128 KiB");
        }
    }

    fn labels(&mut self, spec: &JobSpec) {
        self.check(spec.labels.len() <= 64, "labels", "must be at most 64");
        for label in &spec.labels {
            let is_label = (1..=128).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_graphic());
            self.check(is_label, "labels", format_args!("{label:?} is no label: 1 to 128 bytes of visible ASCII"));
        }
    }

    fn limits(&mut self, spec: &JobSpec) {
        let most = JobSpec::MAX_TIMEOUT;
        let timeout_fits = (Duration::from_millis(1)..=most).contains(&spec.timeout);
        self.check(timeout_fits, "timeout", format_args!("must be more than 0 and at most {} s", most.as_secs()));
        let resources = spec.resources;
        if let Some(cpu) = resources.cpu_millis {
            let fits = (1..=MAX_CPU_MILLIS).contains(&cpu);
            self.check(fits, "cpus", format_args!("must be from 0.001 to {}", MAX_CPU_MILLIS / 1_000));
        }
        if let Some(memory) = resources.memory_mb {
            let fits = (1..=MAX_MEMORY_MB).contains(&memory);
            self.check(fits, "memoryMb", format_args!("must be from 1 to {MAX_MEMORY_MB}"));
        }
        if let Some(pids) = resources.pids {
            self.check((1..=MAX_PIDS).contains(&pids), "pids", format_args!("must be from 1 to {MAX_PIDS}"));
        }
        if let Some(gpus) = resources.gpus {
            self.check((1..=MAX_GPUS).contains(&gpus), "gpus", format_args!("must be from 1 to {MAX_GPUS}"));
            self.check(spec.container_image.is_some(), "gpus", "needs a `containerImage`");
        }
        self.check(!spec.reuse || spec.container_image.is_some(), "reuse", "needs a `containerImage`");
    }

    fn tries(&mut self, spec: &JobSpec) {
        self.check((-100..=100).contains(&spec.priority), "priority", "must be from -100 to 100");
        let attempts_fit = (1..=MAX_TRIES).contains(&spec.max_attempts);
        self.check(attempts_fit, "maxAttempts", format_args!("must be from 1 to {MAX_TRIES}"));
        self.check(spec.retries <= MAX_TRIES, "retries", format_args!("must be from 0 to {MAX_TRIES}"));
        let backoff = spec.backoff;
        let bounds = Duration::ZERO..=MAX_BACKOFF;
        self.check(bounds.contains(&backoff.initial), "backoff.initialMs", "must be from 0 to 86400000");
        self.check(bounds.contains(&backoff.max), "backoff.maxMs", "must be from 0 to 86400000");
        self.check((1.0..=100.0).contains(&backoff.factor), "backoff.factor", "must be from 1 to 100");
        if let Some(at) = spec.run_at {
            // The range of RFC 3339's four-digit years.
            let fits = (0..=253_402_300_799_999).contains(&at.as_millis());
            self.check(fits, "runAt", "must be from 1970 to 9999");
        }
    }
}

/// Whether a path, as it is written, stays inside the directory it is relative to.
fn is_inside(path: &str) -> bool {
    !path.contains('\\')
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(spec: &JobSpec) -> Vec<String> {
        spec.validate().into_iter().map(|p| p.field).collect()
    }

    #[test]
    fn a_plain_spec_has_no_problems() {
        assert_eq!(JobSpec::shell("true").validate(), []);
        assert_eq!(JobSpec::argv(["/bin/true", ""]).validate(), []);
        assert_eq!(JobSpec::steps(["true", "false"]).validate(), []);
    }

    #[test]
    fn every_problem_is_named() {
        let mut spec = JobSpec::shell(" ");
        spec.name = Some(String::new());
        spec.container_image = Some("a b".to_owned());
        spec.working_directory = Some("../x".to_owned());
        spec.env.insert("A=B".to_owned(), String::new());
        spec.labels.insert("a b".to_owned());
        spec.timeout = Duration::ZERO;
        spec.resources.cpu_millis = Some(0);
        spec.resources.memory_mb = Some(0);
        spec.resources.pids = Some(0);
        spec.resources.gpus = Some(0);
        spec.priority = 101;
        spec.max_attempts = 0;
        spec.retries = 101;
        spec.backoff.factor = f64::NAN;
        spec.backoff.initial = MAX_BACKOFF * 2;
        spec.backoff.max = MAX_BACKOFF * 2;
        spec.run_at = Some(crate::time::Timestamp::from_millis(-1));
        let expected = [
            "command",
            "name",
            "containerImage",
            "workingDirectory",
            "env",
            "labels",
            "timeout",
            "cpus",
            "memoryMb",
            "pids",
            "gpus",
            "priority",
            "maxAttempts",
            "retries",
            "backoff.initialMs",
            "backoff.maxMs",
            "backoff.factor",
            "runAt",
        ];
        assert_eq!(fields(&spec), expected);
    }

    #[test]
    fn what_only_a_container_has_needs_one() {
        let mut spec = JobSpec::shell("x");
        spec.resources.gpus = Some(1);
        spec.reuse = true;
        assert_eq!(fields(&spec), ["gpus", "reuse"]);
        spec.container_image = Some("x".to_owned());
        assert_eq!(fields(&spec), [""; 0]);
    }

    #[test]
    fn items_are_named_by_their_place() {
        assert_eq!(fields(&JobSpec::argv(["", "a\0"])), ["args[1]", "args[0]"]);
        assert_eq!(fields(&JobSpec::argv(Vec::<String>::new())), ["args"]);
        assert_eq!(fields(&JobSpec::steps(["true", ""])), ["commands[1]"]);
        let mut spec = JobSpec::shell("x");
        spec.outputs = ["dist/**", "../x", "[a"].map(str::to_owned).into();
        assert_eq!(fields(&spec), ["outputs[1]", "outputs[2]"]);
        spec.outputs = vec!["a".to_owned(); 101];
        assert_eq!(fields(&spec), ["outputs"]);
    }

    #[test]
    fn a_working_directory_stays_inside() {
        for wrong in ["/abs", "..", "a/../../b", "a\\..\\b"] {
            assert!(!is_inside(wrong), "{wrong}");
        }
        for fine in ["a", "a/b", "./a"] {
            assert!(is_inside(fine), "{fine}");
        }
    }
}
