//! From the fork to the job's first instruction.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use crate::group::Group;
use crate::note::Note;
use crate::prepare::{EmptyNetwork, Ground};
use crate::protocol::{Run, Step};
use crate::sys;

/// A job's two output streams.
pub(crate) struct Streams {
    pub(crate) out: OwnedFd,
    pub(crate) err: OwnedFd,
}

/// Everything a child needs to become a job.
pub(crate) struct Launch<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) run: &'a Run,
    pub(crate) streams: &'a Streams,
    pub(crate) group: &'a Group,
    pub(crate) born_in: bool,
    pub(crate) notes: &'a io::PipeWriter,
    pub(crate) parent: i32,
}

impl Launch<'_> {
    /// Becomes the command. Whatever is refused goes back as a note, and the child ends.
    pub(crate) fn become_command(&self, command: &[Vec<u8>]) -> ! {
        let (step, error) = self.attempt(command);
        Note::refused(self.run.id, step, sys::errno(&error)).write(self.notes);
        sys::exit_now(Note::EXIT_CODE)
    }

    fn attempt(&self, command: &[Vec<u8>]) -> (Step, io::Error) {
        match self.isolate() {
            Ok(()) => (Step::Exec, self.exec(command)),
            Err(refused) => refused,
        }
    }

    fn isolate(&self) -> Result<(), (Step, io::Error)> {
        let at = |step| move |error| (step, error);
        let Self { run, ground, .. } = self;
        self.group.join(self.born_in).map_err(at(Step::Cgroup))?;
        sys::new_session().map_err(at(Step::Session))?;
        if run.no_network {
            let empty = ground.empty_network.as_ref().ok_or_else(|| io::ErrorKind::Unsupported.into());
            empty.and_then(EmptyNetwork::enter).map_err(at(Step::Network))?;
        }
        // The streams' own numbers are above 2: the launcher keeps 0, 1 and 2 taken.
        for (fd, number) in [(ground.null.as_fd(), 0), (self.streams.out.as_fd(), 1), (self.streams.err.as_fd(), 2)] {
            sys::replace(fd, number).map_err(at(Step::Streams))?;
        }
        self.set_limits().map_err(at(Step::Limits))?;
        if let Some(user) = run.user {
            sys::become_user(user).map_err(at(Step::User))?;
        }
        sys::no_new_privileges().map_err(at(Step::Privileges))?;
        // After the change of user, which undoes it. A parent that died before this would never be noticed.
        sys::die_with_parent().map_err(at(Step::Privileges))?;
        if sys::parent_pid() != self.parent {
            sys::exit_now(Note::EXIT_CODE);
        }
        // As the job's user, so that it gets nowhere it may not go.
        let dir = CString::new(run.dir.clone()).map_err(|e| (Step::Directory, e.into()))?;
        sys::enter_directory(&dir).map_err(at(Step::Directory))?;
        sys::set_umask(0o022);
        sys::unblock_signals();
        Ok(())
    }

    fn set_limits(&self) -> io::Result<()> {
        let Self { run, ground, .. } = self;
        let (groups, has) = (&ground.hierarchies, ground.hierarchies.unified_controllers);
        sys::limit(sys::RLIMIT_CORE, 0)?;
        if let (Some(bytes), false, None) = (run.memory_bytes, has.memory, &groups.memory) {
            sys::limit(sys::RLIMIT_AS, bytes)?;
        }
        // Counts all processes of the user, so it says something only where the job has a user to itself.
        if let (Some(pids), Some(_), false, None) = (run.pids, run.user, has.pids, &groups.pids) {
            sys::limit(sys::RLIMIT_NPROC, pids.into())?;
        }
        Ok(())
    }

    /// Runs the program, looked up in the job's own `PATH`; comes back with the most telling error.
    fn exec(&self, command: &[Vec<u8>]) -> io::Error {
        let strings = |list: &[Vec<u8>]| list.iter().map(|s| CString::new(s.clone())).collect::<Result<Vec<_>, _>>();
        let (argv, env) = match (strings(command), strings(&self.run.env)) {
            (Ok(argv), Ok(env)) => (argv, env),
            (Err(nul), _) | (_, Err(nul)) => return nul.into(),
        };
        let Some(name) = command.first() else { return io::ErrorKind::InvalidInput.into() };
        if name.contains(&b'/') {
            return argv.first().map_or(io::ErrorKind::InvalidInput.into(), |path| sys::exec(path, &argv, &env));
        }
        let mut telling = io::Error::from_raw_os_error(sys::ENOENT);
        for dir in self.run.path.split(|byte| *byte == b':') {
            let dir = if dir.is_empty() { b".".as_slice() } else { dir };
            let path = std::path::Path::new(std::ffi::OsStr::from_bytes(dir));
            let path = path.join(std::ffi::OsStr::from_bytes(name));
            let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { continue };
            let error = sys::exec(&path, &argv, &env);
            match sys::errno(&error) {
                sys::ENOENT | sys::ENOTDIR => {}
                sys::EACCES => telling = error,
                _ => return error,
            }
        }
        telling
    }
}

impl Note {
    /// Writes the note in one piece: it is far shorter than what pipes keep together.
    pub(crate) fn write(self, mut notes: &io::PipeWriter) {
        // A launcher that is gone needs no note.
        let _ = notes.write_all(&self.to_bytes());
    }
}
