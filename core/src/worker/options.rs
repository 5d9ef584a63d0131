//! What a worker can be told, and what of it makes no sense.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::outputs::OutputLimits;
use crate::archive::Limits;
use crate::id::WorkerId;
use crate::job::Problem;

/// What a worker can be told. Every field has a default.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// Its id. By default the one that its service is bound to, or else the coordinator makes one.
    pub id: Option<WorkerId>,
    /// The name that it shows. The machine's by default.
    pub hostname: Option<String>,
    /// How many jobs it runs at once, from 1 to [`Options::MOST_SLOTS`]. By default as many as it offers processors.
    pub slots: Option<usize>,
    /// How many processors it offers, in thousandths. All that this process may use by default.
    pub cpu_millis: Option<u32>,
    /// How much memory it offers, in MiB. All that the machine has by default.
    pub memory_mb: Option<u64>,
    /// What jobs may ask for by name. None by default.
    pub labels: BTreeSet<String>,
    /// Where attempts have their directories, in a folder `attempts`, which is **emptied at the start** of what an earlier
    /// worker left. One worker at a time may use it. By default a new folder in the system's temporary one, removed at the end.
    pub work_dir: Option<PathBuf>,
    /// How much a job's ZIP may hold. A job whose ZIP holds more ends with an input error.
    pub input_limits: Limits,
    /// How many MiB of unpacked inputs it keeps, so that jobs with the same ZIP need it fetched and unpacked once. 2,048 by default; 0
    /// keeps none. Kept in [`Options::work_dir`], in a folder `inputs`. What running jobs use is counted and not removed; a ZIP for
    /// which there is no room beside it is unpacked for each job.
    pub input_cache_mb: u64,
    /// How much of what a job's `outputs` name is kept. What is more is left out, with a warning on the job.
    pub output_limits: OutputLimits,
    /// How long running jobs may go on once the worker drains. 30 s by default.
    pub drain_timeout: Duration,
    /// Whether it takes jobs at once, or only after [`super::WorkerHandle::resume`]. True by default.
    pub auto_start: bool,
    /// What else it says of itself.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            id: None,
            hostname: None,
            slots: None,
            cpu_millis: None,
            memory_mb: None,
            labels: BTreeSet::new(),
            work_dir: None,
            input_limits: Limits::default(),
            input_cache_mb: 2_048,
            output_limits: OutputLimits::default(),
            drain_timeout: Duration::from_secs(30),
            auto_start: true,
            metadata: serde_json::Map::new(),
        }
    }
}

impl Options {
    /// The most slots a worker may have.
    pub const MOST_SLOTS: usize = 4_096;

    /// Everything that is wrong; empty if nothing is. Fields are named as here.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |holds: bool, field: &str, message: &str| {
            if !holds {
                problems.push(Problem::new(field, message));
            }
        };
        check(
            self.hostname.as_ref().is_none_or(|name| (1..=255).contains(&name.len())),
            "hostname",
            "must be 1 to 255 bytes",
        );
        check(
            self.slots.is_none_or(|slots| (1..=Self::MOST_SLOTS).contains(&slots)),
            "slots",
            "must be from 1 to 4096",
        );
        check(self.cpu_millis != Some(0), "cpu_millis", "must be more than 0");
        check(self.memory_mb != Some(0), "memory_mb", "must be more than 0");
        let is_label = |label: &String| (1..=128).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_graphic());
        check(self.labels.iter().all(is_label), "labels", "must each be 1 to 128 bytes of visible ASCII");
        check(self.labels.len() <= 64, "labels", "must be at most 64");
        check(
            self.work_dir.as_ref().is_none_or(|dir| dir.is_absolute()),
            "work_dir",
            "must be an absolute path, because jobs are started elsewhere",
        );
        check(self.drain_timeout <= Duration::from_hours(24), "drain_timeout", "must be at most 24 h");
        let of_limits = |problem: Problem| Problem::new(format!("input_limits.{}", problem.field), problem.message);
        problems.extend(self.input_limits.validate().into_iter().map(of_limits));
        let of_limits = |problem: Problem| Problem::new(format!("output_limits.{}", problem.field), problem.message);
        problems.extend(self.output_limits.validate().into_iter().map(of_limits));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_fine_and_every_problem_is_named() {
        assert_eq!(Options::default().validate(), []);
        let wrong = Options {
            input_limits: Limits { ratio: 0, ..Limits::default() },
            output_limits: OutputLimits { entries: 0, ..OutputLimits::default() },
            hostname: Some(String::new()),
            slots: Some(0),
            cpu_millis: Some(0),
            memory_mb: Some(0),
            labels: (0..65).map(|i| format!("a {i}")).collect(),
            work_dir: Some("relative".into()),
            drain_timeout: Duration::MAX,
            ..Options::default()
        };
        let fields: Vec<_> = wrong.validate().into_iter().map(|problem| problem.field).collect();
        let expected = [
            "hostname",
            "slots",
            "cpu_millis",
            "memory_mb",
            "labels",
            "labels",
            "work_dir",
            "drain_timeout",
            "input_limits.ratio",
            "output_limits.entries",
        ];
        assert_eq!(fields, expected);
    }
}
