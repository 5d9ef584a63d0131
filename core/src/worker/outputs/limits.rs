//! How much of what a job leaves is kept.

use crate::job::Problem;

/// How much of a job's outputs is collected. What does not fit is left out, whole files at a time, with a warning on the job that
/// names it. Every field has a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputLimits {
    /// How many files, links and directories. 100,000 by default.
    pub entries: u64,
    /// How many bytes of files, before they are packed. 2 GiB by default.
    pub unpacked: u64,
    /// How many bytes their ZIP may have, which is what they take of the worker's disk. 256 MiB by default, which is also what a
    /// coordinator takes by default.
    pub packed: u64,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self { entries: 100_000, unpacked: 2 << 30, packed: 256 << 20 }
    }
}

impl OutputLimits {
    /// Everything that is wrong; empty if nothing is. Fields are named as here.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |holds: bool, field: &str, message: &str| {
            if !holds {
                problems.push(Problem::new(field, message));
            }
        };
        // The index of a ZIP is in memory until it is written, at some hundred bytes an entry.
        check((1..=10_000_000).contains(&self.entries), "entries", "must be from 1 to 10000000");
        check((1..=1 << 50).contains(&self.unpacked), "unpacked", "must be from 1 byte to 1 PiB");
        check((1 << 10..=1 << 50).contains(&self.packed), "packed", "must be from 1 KiB to 1 PiB");
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_fine_and_every_problem_is_named() {
        assert_eq!(OutputLimits::default().validate(), []);
        let wrong = OutputLimits { entries: 0, unpacked: 0, packed: 1 };
        let fields: Vec<_> = wrong.validate().into_iter().map(|problem| problem.field).collect();
        assert_eq!(fields, ["entries", "unpacked", "packed"]);
    }
}
