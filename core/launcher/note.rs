//! What a child leaves in the launcher's pipe before it ends: an exit code alone could be the command's own.

use crate::protocol::Step;

/// A child's last words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) job: u64,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// The system refused a step with this error number, and the command never ran.
    Refused(Step, i32),
    /// A supervisor says with which wait status the last command ended.
    Ended(i32),
    /// A supervisor says that it was told to end the job before the last command began, and the one before exited with 0.
    Cut,
}

impl Note {
    pub(crate) const LEN: usize = 16;
    /// The exit code of a child that left a note; the note is not looked for after another one.
    pub(crate) const EXIT_CODE: i32 = 126;
    /// No step has this number.
    const CUT: u32 = u32::MAX;

    pub(crate) fn refused(job: u64, step: Step, error: i32) -> Self {
        Self { job, what: What::Refused(step, error) }
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let (kind, value) = match self.what {
            What::Refused(step, error) => (step as u32, error),
            What::Ended(status) => (0, status),
            What::Cut => (Self::CUT, 0),
        };
        let words = u128::from(self.job) << 64 | u128::from(kind) << 32 | u128::from(value.cast_unsigned());
        words.to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::LEN]) -> Option<Self> {
        let words = u128::from_be_bytes(bytes);
        let low = |by: u32| u32::try_from(words >> by & u128::from(u32::MAX)).ok();
        let (job, value) = (u64::try_from(words >> 64).ok()?, low(0)?.cast_signed());
        let what = match low(32)? {
            0 => What::Ended(value),
            Self::CUT => What::Cut,
            step => What::Refused(Step::from_number(step)?, value),
        };
        Some(Self { job, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_survives_the_pipe() {
        for what in [What::Ended(9 << 8), What::Refused(Step::Exec, 2), What::Cut] {
            let note = Note { job: 1 << 40, what };
            assert_eq!(Note::from_bytes(note.to_bytes()), Some(note));
        }
    }
}
