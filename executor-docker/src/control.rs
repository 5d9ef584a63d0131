//! A job in a container, as whoever conducts it sees it: waited for, asked to end, ended.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::{Buf, Bytes};
use cmdexec_core::executor::conduct::{Control, End, Over};
use cmdexec_core::job::Step;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::time::{sleep, timeout};

use crate::cgroup::Groups;
use crate::container::Container;
use crate::daemon::Daemon;
use crate::link::{Partial, Record};
use crate::wire;

/// How long an init may take to end everything once it is told to, until the daemon is asked.
const OBEDIENCE: Duration = Duration::from_secs(5);
/// How long the daemon may take to say how a container ended.
const EXAMINATION: Duration = Duration::from_secs(20);
/// How often it is asked meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// What [`wire::PLACES`] are to a job.
const NAMES: [&str; wire::PLACES.len()] = ["its directory", "its container", "/tmp", "/dev/shm"];
/// The flag of the second.
const CONTAINER: u64 = wire::FULL << 1;

/// A job under way.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    daemon: &'a Daemon,
    container: &'a mut Container,
    programs: Vec<String>,
    /// Whether each command is a step of the job.
    tells_steps: bool,
    partial: Partial,
    /// Where output goes that the init carries.
    carried: Option<Carried>,
    steps: Vec<Step>,
    refused: Option<String>,
    /// It was told to end at once.
    is_killed: bool,
    /// Nothing more is to be had of the init.
    is_broken: bool,
    evidence: &'a mut Evidence,
}

/// What an init says of a job's end besides how it ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Evidence {
    /// Nothing of the job is left in the container, and it can be given another one.
    pub(crate) is_clean: bool,
    /// Which of [`wire::PLACES`] have no space left, as flags.
    full: u64,
}

impl Evidence {
    /// Whether it is the container's own file system, which is the daemon's disk.
    pub(crate) fn fills_container(self) -> bool {
        self.full & CONTAINER != 0
    }

    /// The same but for that, which was not the job's to write to.
    pub(crate) fn without_container(self) -> Self {
        Self { full: self.full & !CONTAINER, ..self }
    }

    /// All that have no space left.
    pub(crate) fn full(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().enumerate().filter(move |(nth, _)| self.full & wire::FULL << nth != 0).map(|(_, name)| name)
    }
}

/// Output that comes as records.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) streams: [pipe::Sender; 2],
    /// How much of the current piece has not come yet, and of which stream it is.
    expects: (usize, usize),
    /// What has come and not gone.
    pending: Bytes,
}

impl Carried {
    pub(crate) fn new(streams: [pipe::Sender; 2]) -> Self {
        Self { streams, expects: (0, 0), pending: Bytes::new() }
    }
}

impl<'a> Running<'a> {
    /// `evidence` is filled in once the init has ended everything of the job.
    pub(crate) fn new(
        daemon: &'a Daemon,
        container: &'a mut Container,
        programs: Vec<String>,
        tells_steps: bool,
        carried: Option<Carried>,
        evidence: &'a mut Evidence,
    ) -> Self {
        Self {
            daemon,
            container,
            programs,
            tells_steps,
            partial: Partial::default(),
            carried,
            steps: Vec::new(),
            refused: None,
            is_killed: false,
            is_broken: false,
            evidence,
        }
    }

    /// Reads what the init says until everything is over. Cancellation safe.
    async fn listen(&mut self) -> io::Result<Over> {
        loop {
            self.carry().await?;
            let record = self.partial.next(&mut self.container.line).await?;
            match record.kind {
                wire::STEP if self.tells_steps => self.steps.push(step(record)),
                wire::STEP => {}
                wire::UNSTARTED => self.refused = Some(self.unstarted(record)),
                wire::OUTPUT => self.expect(record)?,
                wire::END => {
                    let mut over = self.over(record);
                    if self.container.groups.is_none()
                        && !matches!(over.end, End::Exited(0) | End::Cut | End::Refused(_))
                    {
                        over.out_of_memory = is_flagged(self.daemon, &self.container.name).await;
                    }
                    return Ok(over);
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    fn expect(&mut self, record: Record) -> io::Result<()> {
        let carried = self.carried.as_mut().ok_or(io::ErrorKind::InvalidData)?;
        let length = usize::try_from(record.number).map_err(io::Error::other)?;
        carried.expects = (length, usize::from(record.more == 2));
        Ok(())
    }

    /// Hands on the piece that is under way. Cancellation safe.
    async fn carry(&mut self) -> io::Result<()> {
        let Some(carried) = &mut self.carried else { return Ok(()) };
        loop {
            let (length, stream) = &mut carried.expects;
            if carried.pending.has_remaining() {
                let Some(sender) = carried.streams.get_mut(*stream) else { return Ok(()) };
                // A reader that has gone does not stop the job.
                if sender.write_buf(&mut carried.pending).await.is_err() {
                    carried.pending.clear();
                }
            } else if *length > 0 {
                let mut piece = [0; 4096];
                let most = (*length).min(piece.len());
                let Some(room) = piece.get_mut(..most) else { return Ok(()) };
                let count = self.container.line.read(room).await?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *length -= count;
                carried.pending = Bytes::copy_from_slice(room.get(..count).unwrap_or_default());
            } else {
                return Ok(());
            }
        }
    }

    fn unstarted(&self, record: Record) -> String {
        let step = usize::try_from(record.more & u64::from(u32::MAX)).unwrap_or(usize::MAX);
        let program = self.programs.get(step).map_or("", String::as_str);
        let error = io::Error::from_raw_os_error(record.number);
        match record.more >> 32 << 32 {
            wire::AT_DIRECTORY => format!("the job's working directory can't be entered in its container: {error}"),
            wire::AT_FORK => format!("no process could be made for {program:?}: {error}"),
            _ => format!("{program:?} can't be run in the image {}: {error}", self.container.image.name),
        }
    }

    fn over(&mut self, record: Record) -> Over {
        *self.evidence = Evidence { is_clean: true, full: record.more };
        let end = match self.refused.take() {
            Some(why) => End::Refused(why),
            None if record.more & wire::CUT != 0 => End::Cut,
            None => end(record.number),
        };
        let kills = self.container.groups.as_ref().and_then(Groups::oom_kills);
        let out_of_memory = kills.is_some_and(|kills| kills > self.container.oom_kills);
        Over { end, steps: std::mem::take(&mut self.steps), out_of_memory }
    }

    /// The container ended and its init said nothing: what the daemon knows of it.
    async fn examine(&mut self) -> Over {
        self.is_broken = true;
        let name = &self.container.name;
        let looks = async {
            loop {
                match self.daemon.state(name).await {
                    Ok(state) if state.running != Some(true) => return Ok(state),
                    Ok(_) => {}
                    Err(error @ crate::trouble::Trouble::NotFound(_)) => return Err(error),
                    // It may be starting again.
                    Err(error) => tracing::debug!(%error, "asking how a container ended"),
                }
                sleep(LOOK).await;
            }
        };
        let steps = std::mem::take(&mut self.steps);
        let refused = |why: String| Over { end: End::Refused(why), steps: Vec::new(), out_of_memory: false };
        let over = match timeout(EXAMINATION, looks).await {
            Err(_) => refused("the container daemon does not say how the job's container ended".to_owned()),
            Ok(Err(_)) => refused("somebody removed the job's container while it ran".to_owned()),
            Ok(Ok(state)) if state.oom_killed == Some(true) => {
                Over { end: End::Signaled(9), steps: Vec::new(), out_of_memory: true }
            }
            Ok(Ok(state)) => refused(format!(
                "the job's container was ended from outside, as by the daemon's restart (exit code {})",
                state.exit_code.unwrap_or_default()
            )),
        };
        Over { steps, ..over }
    }

    /// Has the container ended by whatever there is: the kernel, if this process may, and the daemon.
    async fn force(&mut self) {
        if let Some(peer) = self.container.peer
            && self.container.is_alive()
        {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(peer.pid), nix::sys::signal::Signal::SIGKILL);
        }
        if let Err(error) = self.daemon.kill(&self.container.name).await {
            tracing::warn!(container = self.container.name, %error, "a container can't be ended");
        }
    }
}

impl Control for Running<'_> {
    async fn ended(&mut self) -> Over {
        if self.is_broken {
            return Over::of(End::Refused("the job's container is gone".to_owned()));
        }
        if self.is_killed {
            match timeout(OBEDIENCE, self.listen()).await {
                Ok(Ok(over)) => return over,
                Ok(Err(_)) => {}
                Err(_) => self.force().await,
            }
            // It was to end, and has: nothing else is to be said of it.
            self.is_broken = true;
            return Over { steps: std::mem::take(&mut self.steps), ..Over::of(End::Signaled(9)) };
        }
        match self.listen().await {
            Ok(over) => over,
            Err(_) => self.examine().await,
        }
    }

    async fn terminate(&mut self) {
        // If it can't be told, it is gone, which shows next.
        let _ = self.container.line.say(wire::TERMINATE).await;
    }

    async fn kill(&mut self) {
        self.is_killed = true;
        let _ = self.container.line.say(wire::KILL).await;
    }
}

/// Whether the daemon says that the kernel has killed something for want of memory. It says so only of a container that has ended.
async fn is_flagged(daemon: &Daemon, name: &str) -> bool {
    if let Err(error) = daemon.kill(name).await {
        tracing::debug!(container = name, %error, "ending a container to ask how it ended");
    }
    daemon.state(name).await.is_ok_and(|state| state.oom_killed == Some(true))
}

fn step(record: Record) -> Step {
    let status = ExitStatus::from_raw(record.number);
    let exit_code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Step { exit_code, duration: Duration::from_micros(record.more) }
}

fn end(status: i32) -> End {
    let status = ExitStatus::from_raw(status);
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Signaled(signal),
        (None, None) => End::Refused("its end is not known".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::WORK;

    #[test]
    fn places_are_told_by_their_flags() {
        assert_eq!(wire::PLACES[0].strip_suffix(b"\0"), Some(WORK.as_bytes()));
        let seen = Evidence { is_clean: true, full: wire::CUT | wire::FULL | wire::FULL << 1 | wire::FULL << 3 };
        assert_eq!(seen.full().collect::<Vec<_>>(), ["its directory", "its container", "/dev/shm"]);
        assert!(seen.fills_container() && !seen.without_container().fills_container());
        assert_eq!(seen.without_container().full().count(), 2);
    }
}
