//! A job's two streams: descriptors that came with it, or pipes whose content is carried to the executor.

use crate::job::Job;
use crate::{Talk, sys, wire};

/// What is carried at once: a record and this much fit into what a pipe takes in one piece.
const PIECE: usize = 4096 - wire::RECORD;

pub(crate) struct Output {
    /// What the commands write to.
    writers: [isize; 2],
    /// What is read, where it is carried; else negative.
    readers: [isize; 2],
    /// The executor does not take more just now.
    is_stuck: bool,
}

impl Output {
    pub(crate) fn open(talk: &Talk, job: &Job) -> Option<Self> {
        if talk.is_socket {
            return (job.fds[0] >= 0).then_some(Self { writers: job.fds, readers: [-1; 2], is_stuck: false });
        }
        let ([one, to_one], [other, to_other]) = (sys::pipe()?, sys::pipe()?);
        Some(Self { writers: [to_one, to_other], readers: [one, other], is_stuck: false })
    }

    pub(crate) fn fds(&self) -> [isize; 2] {
        self.writers
    }

    /// Fills in what is waited for: that a stream can be read, or that the executor takes more.
    pub(crate) fn wants(&self, talk: &Talk, polled: &mut [sys::Polled; 2]) {
        if self.is_stuck {
            polled[0] = sys::Polled { fd: talk.output as i32, events: sys::POLLOUT, happened: 0 };
        } else {
            polled[0].fd = self.readers[0] as i32;
            polled[1].fd = self.readers[1] as i32;
        }
    }

    /// Carries a piece of each stream that has one, if the executor takes it now: it must be heard however slow its reader is.
    pub(crate) fn carry(&mut self, talk: &Talk, polled: &[sys::Polled; 2]) {
        if self.is_stuck {
            self.is_stuck = polled[0].happened == 0;
            return;
        }
        for stream in 0..2 {
            if polled[stream].happened != 0 {
                self.is_stuck = !takes_now(talk);
                if self.is_stuck {
                    return;
                }
                self.carry_piece(talk, stream);
            }
        }
    }

    fn carry_piece(&self, talk: &Talk, stream: usize) -> bool {
        let mut piece = [0; PIECE];
        let count = sys::read(self.readers[stream], &mut piece);
        let Ok(count) = usize::try_from(count) else { return false };
        if count > 0 {
            talk.say(wire::OUTPUT, count as i32, stream as u64 + 1);
            sys::write(talk.output, &piece[..count]);
        }
        count > 0
    }

    /// No process of the job is left: what is in the pipes is carried, and they are closed.
    pub(crate) fn finish(self, talk: &Talk) {
        self.writers.into_iter().for_each(sys::close);
        for stream in 0..2 {
            if self.readers[stream] >= 0 {
                while self.carry_piece(talk, stream) {}
                sys::close(self.readers[stream]);
            }
        }
    }
}

/// Whether a piece can be handed on without waiting.
fn takes_now(talk: &Talk) -> bool {
    let mut polled = [sys::Polled { fd: talk.output as i32, events: sys::POLLOUT, happened: 0 }];
    sys::poll_now(&mut polled);
    polled[0].happened & sys::POLLOUT != 0
}
