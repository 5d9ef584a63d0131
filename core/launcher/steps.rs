//! How each command of a job ended, noted by whoever reaps it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::time::Instant;

use crate::protocol::{CommandEnd, MOST_TOLD};
use crate::sys;

/// How the commands of a job ended so far.
pub(crate) struct Steps {
    began: Instant,
    count: usize,
    kept: Kept,
}

enum Kept {
    Here(Vec<CommandEnd>),
    /// A supervisor writes and the launcher reads. A pipe would be full at some number of commands, and the supervisor would
    /// wait for ever, since the launcher reads only when it has ended.
    InFile(File),
}

impl Steps {
    /// None so far; a supervisor will note them, or the launcher itself.
    pub(crate) fn new(supervised: bool) -> io::Result<Self> {
        let kept = if supervised { Kept::InFile(sys::memory_file()?) } else { Kept::Here(Vec::new()) };
        Ok(Self { began: now(), count: 0, kept })
    }

    /// The next command begins.
    pub(crate) fn begin(&mut self) {
        self.began = now();
    }

    /// It has ended with this wait status.
    pub(crate) fn ended(&mut self, status: i32) {
        if self.count == MOST_TOLD {
            return;
        }
        self.count += 1;
        let code = sys::decode_status(status).unwrap_or_else(|signal| 128 + signal);
        let micros = u64::try_from(now().duration_since(self.began).as_micros()).unwrap_or(u64::MAX);
        let end = CommandEnd { code, micros };
        match &mut self.kept {
            Kept::Here(ends) => ends.push(end),
            // Fails only for want of memory, and then less is told.
            Kept::InFile(file) => drop(file.write_all(&CommandEnd::encode_all(&[end]))),
        }
    }

    /// The last command never ran, though a supervisor saw its child end.
    pub(crate) fn never_began(&mut self) {
        if let Kept::InFile(file) = &self.kept {
            let len = file.metadata().map_or(0, |metadata| metadata.len());
            let _ = file.set_len(len.saturating_sub(CommandEnd::LEN as u64));
        }
    }

    /// How they ended, in order.
    pub(crate) fn told(self) -> Vec<CommandEnd> {
        match self.kept {
            Kept::Here(ends) => ends,
            Kept::InFile(file) => {
                let len = file.metadata().map_or(0, |metadata| metadata.len());
                let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
                // From the start: the supervisor's writing has moved the place that is shared with it.
                let read = file.read_exact_at(&mut bytes, 0);
                read.ok().and_then(|()| CommandEnd::decode_all(&bytes)).unwrap_or_default()
            }
        }
    }
}

fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "measures how long a command ran; the launcher decides nothing by it"
    )]
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_told_wherever_it_is_kept() {
        for supervised in [false, true] {
            let mut steps = Steps::new(supervised).unwrap();
            for status in [0, 7 << 8, 15] {
                steps.begin();
                steps.ended(status);
            }
            let codes: Vec<_> = steps.told().into_iter().map(|end| end.code).collect();
            assert_eq!(codes, [0, 7, 143]);
        }
    }

    #[test]
    fn a_supervisors_note_of_a_command_that_never_ran_is_dropped() {
        let mut steps = Steps::new(true).unwrap();
        steps.ended(0);
        steps.ended(126 << 8);
        steps.never_began();
        assert_eq!(steps.told().len(), 1);
    }

    #[test]
    fn no_more_is_told_than_fits_a_packet() {
        let mut steps = Steps::new(true).unwrap();
        (0..MOST_TOLD + 5).for_each(|_| steps.ended(0));
        assert_eq!(steps.told().len(), MOST_TOLD);
    }
}
