//! The launcher: a small program with one thread that starts jobs for a worker, and sees them to their end.
//!
//! The worker may be large, and may be somebody else's program; forking it would copy its page tables, and anything
//! that runs between fork and exec would run in a copy of a program with threads. So it starts this program once and
//! asks it for jobs over a socket. The launcher forks itself, which is cheap because it is small, isolates the
//! copy and turns it into the job's command. It reports a job when every process of it is gone. When the worker is
//! gone, so is the socket's other end: then the launcher ends every job and itself.
//!
//! Built by the library's build script from the standard library alone and carried inside the library.
#![cfg(target_os = "linux")]
#![deny(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

mod child;
mod group;
mod hierarchy;
mod job;
mod note;
mod prepare;
#[cfg_attr(not(test), expect(dead_code, reason = "the worker's half of it"))]
#[path = "../src/executor/process/protocol.rs"]
mod protocol;
mod steps;
mod supervise;
mod sys;

use child::Streams;
use job::{Desk, Job};
use note::Note;
use prepare::Ground;
use protocol::{Report, Request, Setup};

fn main() -> ExitCode {
    // The socket is standard input; whatever else was left open is somebody else's secret.
    sys::close_from(3);
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "user-namespace") {
        return hold_user_namespace();
    }
    sys::block_signals();
    match Launcher::open() {
        Ok(mut launcher) => {
            launcher.serve();
            launcher.end_all();
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Keeps a new user namespace until standard input ends, for the worker to map and open it.
fn hold_user_namespace() -> ExitCode {
    let held = sys::leave_namespace(sys::CLONE_NEWUSER)
        .and_then(|()| io::stdout().write_all(b"1"))
        .and_then(|()| io::stdout().flush())
        .and_then(|()| io::copy(&mut io::stdin(), &mut io::sink()));
    if held.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Launcher {
    socket: OwnedFd,
    signals: File,
    ground: Ground,
    notes: PipeReader,
    notes_in: PipeWriter,
    /// Notes that were read while looking for another's.
    unclaimed: HashMap<u64, Note>,
    jobs: HashMap<u64, Job>,
    by_pid: HashMap<i32, u64>,
    /// Jobs whose command is over and whose leftovers are being ended.
    ending: Vec<u64>,
    /// Not sent yet. As many as there are jobs, which the worker bounds.
    reports: Vec<Report>,
    pid: i32,
}

impl Launcher {
    /// Hears from the worker what to prepare, prepares it and says what came of it.
    fn open() -> io::Result<Self> {
        let socket = sys::worker_socket();
        // A session of its own: what the terminal sends is meant for the worker.
        sys::new_session()?;
        sys::leave_keyring();
        sys::adopt_orphans()?;
        sys::wait_readable(&[socket.as_raw_fd()], false, None);
        let mut buffer = vec![0; protocol::MAX_PACKET];
        let (length, _) = sys::receive(socket.as_fd(), &mut buffer)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let setup = buffer.get(..length).and_then(Setup::decode).ok_or(io::ErrorKind::InvalidData)?;
        let (ground, hello) = Ground::prepare(&setup)?;
        // Only now: an undumpable process may not map the users of a namespace.
        sys::make_undumpable()?;
        sys::send(socket.as_fd(), &hello.encode())?;
        let (notes, notes_in) = io::pipe()?;
        Ok(Self {
            socket,
            signals: sys::signal_fd(&[sys::SIGCHLD])?,
            ground,
            notes,
            notes_in,
            unclaimed: HashMap::new(),
            jobs: HashMap::new(),
            by_pid: HashMap::new(),
            ending: Vec::new(),
            reports: Vec::new(),
            pid: sys::own_pid(),
        })
    }

    /// Does what the worker asks until it is gone.
    fn serve(&mut self) {
        let mut buffer = vec![0; protocol::MAX_PACKET];
        loop {
            let patience = self.ending.iter().filter_map(|id| self.jobs.get(id)?.patience_ms()).min();
            let fds = [self.socket.as_raw_fd(), self.signals.as_raw_fd()];
            sys::wait_readable(&fds, !self.reports.is_empty(), patience);
            if !self.take_requests(&mut buffer) {
                return;
            }
            self.take_children();
            self.finish();
            self.send_reports();
        }
    }

    /// False when the worker is gone, or says something that no worker says.
    fn take_requests(&mut self, buffer: &mut [u8]) -> bool {
        // As many as a burst may bring, but children must not wait for the end of a flood.
        for _ in 0..16 {
            let (length, fds) = match sys::receive(self.socket.as_fd(), buffer) {
                Ok(Some(received)) => received,
                Ok(None) => return false,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            };
            let Some(request) = buffer.get(..length).and_then(Request::decode) else { return false };
            if self.take(request, fds).is_none() {
                return false;
            }
        }
        true
    }

    fn take(&mut self, request: Request, fds: Vec<OwnedFd>) -> Option<()> {
        let mut fds = fds.into_iter();
        match request {
            Request::InFile => {
                let mut long = Vec::new();
                File::from(fds.next()?).read_to_end(&mut long).ok()?;
                match Request::decode(&long)? {
                    Request::InFile => return None,
                    request => return self.take(request, fds.collect()),
                }
            }
            Request::Run(run) => {
                let streams = Streams { out: fds.next()?, err: fds.next()? };
                let desk = Desk { ground: &self.ground, notes: &self.notes_in, pid: self.pid };
                let job = Job::start(&desk, *run, streams);
                self.keep(job);
            }
            Request::Clear { id, user } => self.keep(Job::clear(id, user)),
            // A job that has just ended by itself is not there any more.
            Request::Terminate { id } => drop(self.jobs.get_mut(&id).map(Job::terminate)),
            Request::Kill { id } => drop(self.jobs.get_mut(&id).map(Job::kill)),
        }
        Some(())
    }

    fn keep(&mut self, job: Job) {
        match job.pid() {
            Some(pid) => drop(self.by_pid.insert(pid, job.id())),
            None => self.ending.push(job.id()),
        }
        self.jobs.insert(job.id(), job);
    }

    /// Reaps whoever has ended: commands, supervisors, and orphans of jobs that came here to be reaped.
    fn take_children(&mut self) {
        let mut signal = [0; 128];
        if !matches!(self.signals.read(&mut signal), Ok(128)) {
            return;
        }
        while let Ok(Some(ended)) = sys::reap(-1, false) {
            let Some(mut job) = self.by_pid.remove(&ended.pid).and_then(|id| self.jobs.remove(&id)) else { continue };
            let note = match sys::decode_status(ended.status) {
                Ok(Note::EXIT_CODE) => self.note_of(job.id()),
                _ => None,
            };
            if job.is_supervised() && note.is_none() {
                self.end_strays();
            }
            job.child_ended(&Desk { ground: &self.ground, notes: &self.notes_in, pid: self.pid }, &ended, note);
            self.keep(job);
        }
    }

    /// The note that a child left, if it left one.
    fn note_of(&mut self, job: u64) -> Option<Note> {
        while sys::is_readable(self.notes.as_fd()) {
            let mut bytes = [0; Note::LEN];
            self.notes.read_exact(&mut bytes).ok()?;
            if let Some(note) = Note::from_bytes(bytes) {
                // The first one counts: a supervisor's follows that of the child that was refused.
                self.unclaimed.entry(note.job).or_insert(note);
            }
        }
        self.unclaimed.remove(&job)
    }

    /// A supervisor was killed, and those it kept together have become this process's own children, among which only
    /// supervisors belong. Ends them; their children come here in turn.
    fn end_strays(&self) {
        for _ in 0..100 {
            let stray = |(pid, parent): &(i32, i32)| *parent == self.pid && !self.by_pid.contains_key(pid);
            let strays: Vec<_> = supervise::processes().into_iter().filter(stray).collect();
            if strays.is_empty() {
                return;
            }
            for (pid, _) in strays {
                let _ = sys::send_signal(pid, sys::SIGKILL);
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// Moves jobs that are wholly over to the reports.
    fn finish(&mut self) {
        let Self { ending, jobs, reports, unclaimed, .. } = self;
        ending.retain(|id| {
            let Some(job) = jobs.get_mut(id) else { return false };
            match job.try_finish() {
                Some(report) => {
                    jobs.remove(id);
                    // A child that was killed after it had left a note.
                    unclaimed.remove(id);
                    reports.push(report);
                    false
                }
                None => true,
            }
        });
    }

    fn send_reports(&mut self) {
        while !self.reports.is_empty() {
            let mut bytes = 0;
            let fitting = self.reports.iter().take_while(|report| {
                bytes += report.packet_len();
                bytes <= protocol::MAX_PACKET
            });
            let count = fitting.count().max(1);
            let packet = Report::encode_all(self.reports.iter().take(count));
            // Full, or gone: the next round finds out.
            if sys::send(self.socket.as_fd(), &packet).is_err() {
                return;
            }
            self.reports.drain(..count);
        }
    }

    /// Ends every job: the worker is gone. What the kernel cannot end within ten seconds is left to the next sweep.
    fn end_all(&mut self) {
        for _ in 0..2000 {
            for job in self.jobs.values_mut() {
                job.kill();
            }
            self.take_children();
            self.finish();
            if self.jobs.is_empty() {
                return;
            }
            sleep(Duration::from_millis(5));
        }
    }
}
