//! The way without a launcher: a child process in a process group of its own.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::executor::Plan;
use crate::executor::conduct::{Control, End, Over};
use crate::job::Step;

/// A job whose commands are children of this process.
#[derive(Debug)]
pub(super) struct Running {
    plan: Plan,
    user: Option<u32>,
    out: OwnedFd,
    err: OwnedFd,
    started: usize,
    current: Option<Group>,
    /// How the commands ended, if that is to be told.
    steps: Option<Vec<Step>>,
    stopping: bool,
}

/// A process group that is killed when it is dropped.
#[derive(Debug)]
struct Group {
    child: Child,
    id: Pid,
    began: Instant,
}

impl Group {
    fn signal(&self, signal: Signal) {
        // It may be gone by itself.
        let _ = killpg(self.id, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Once the child is reaped, its number could be a new group's if nobody is left in the old one; for that,
        // every number would have to be used up since the wait a moment ago.
        self.signal(Signal::SIGKILL);
    }
}

impl Running {
    pub(super) fn new(plan: Plan, tell_each: bool, user: Option<u32>, out: OwnedFd, err: OwnedFd) -> Self {
        let steps = tell_each.then(Vec::new);
        Self { plan, user, out, err, started: 0, current: None, steps, stopping: false }
    }

    fn spawn(&self, argv: &[String]) -> Result<Group, String> {
        let fail = |error: std::io::Error| format!("starting {:?}: {error}", argv.first().map_or("", String::as_str));
        let (Some((program, arguments)), Ok(out), Ok(err)) =
            (argv.split_first(), self.out.try_clone(), self.err.try_clone())
        else {
            return Err("starting it: out of file descriptors".to_owned());
        };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(&self.plan.env).current_dir(&self.plan.dir);
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let child = command.spawn().map_err(fail)?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).ok_or("it ended before it began")?;
        Ok(Group { child, id: Pid::from_raw(id), began: now() })
    }

    fn over(&mut self, end: End) -> Over {
        Over { steps: self.steps.take().unwrap_or_default(), ..Over::of(end) }
    }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "measures how long a step ran; nothing is decided by it")]
    Instant::now()
}

impl Control for Running {
    async fn ended(&mut self) -> Over {
        loop {
            if self.current.is_none() {
                let Some(argv) = self.plan.commands.get(self.started) else { return self.over(End::Exited(0)) };
                match self.spawn(argv) {
                    Ok(group) => self.current = Some(group),
                    Err(message) => return self.over(End::Refused(message)),
                }
                self.started += 1;
            }
            let Some(group) = &mut self.current else { continue };
            let status = group.child.wait().await;
            let duration = now().saturating_duration_since(group.began);
            // Kills what the command left in its group.
            self.current = None;
            let end = match status {
                Ok(status) => {
                    let exit_code = status.code().or_else(|| Some(128 + status.signal()?));
                    self.steps.iter_mut().for_each(|steps| steps.push(Step { exit_code, duration }));
                    end_of(status)
                }
                Err(error) => End::Refused(format!("waiting for it: {error}")),
            };
            let is_last = self.started == self.plan.commands.len();
            if end != End::Exited(0) || is_last {
                return self.over(end);
            }
            if self.stopping {
                return self.over(End::Cut);
            }
        }
    }

    async fn terminate(&mut self) {
        self.stopping = true;
        self.current.iter().for_each(|group| group.signal(Signal::SIGTERM));
    }

    async fn kill(&mut self) {
        self.stopping = true;
        self.current.iter().for_each(|group| group.signal(Signal::SIGKILL));
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Signaled(signal),
        (None, None) => End::Refused("it ended in a way that no system names".to_owned()),
    }
}
