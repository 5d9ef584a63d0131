//! How much of an archive is bearable.

use crate::job::Problem;

/// How much an archive may hold, and how deep. Every field has a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many files, links and directories may come out of it, those counted that are only part of a path. 100,000 by default.
    pub entries: u64,
    /// How many bytes may come out of it, and how many it may have itself. 2 GiB by default.
    pub unpacked: u64,
    /// How many times its own size may come out of it, once that is more than [`Limits::RATIO_FROM`]. 200 by default;
    /// text is packed 3 to 20 times, and at most about 1,000 is possible.
    pub ratio: u64,
    /// How many bytes a path may have, and the target of a link. 1,024 by default.
    pub path: usize,
    /// How many names a path may be made of. 64 by default.
    pub levels: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 100_000, unpacked: 2 << 30, ratio: 200, path: 1_024, levels: 64 }
    }
}

impl Limits {
    /// How many bytes may come out of an archive whatever the ratio: little ones are often repetitive.
    pub const RATIO_FROM: u64 = 10 << 20;

    /// Everything that is wrong; empty if nothing is. Fields are named as here.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |holds: bool, field: &str, message: &str| {
            if !holds {
                problems.push(Problem::new(field, message));
            }
        };
        // An entry takes up to half a kilobyte of memory while it is judged.
        check((1..=10_000_000).contains(&self.entries), "entries", "must be from 1 to 10000000");
        check((1..=1 << 50).contains(&self.unpacked), "unpacked", "must be from 1 byte to 1 PiB");
        check(self.ratio >= 1, "ratio", "must be at least 1");
        // Systems take paths of 4,096 bytes; the directory's own comes before.
        check((1..=3_072).contains(&self.path), "path", "must be from 1 to 3072");
        check((1..=1_024).contains(&self.levels), "levels", "must be from 1 to 1024");
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_fine_and_every_problem_is_named() {
        assert_eq!(Limits::default().validate(), []);
        let wrong = Limits { entries: 0, unpacked: 0, ratio: 0, path: 4_096, levels: 0 };
        let fields: Vec<_> = wrong.validate().into_iter().map(|problem| problem.field).collect();
        assert_eq!(fields, ["entries", "unpacked", "ratio", "path", "levels"]);
    }
}
