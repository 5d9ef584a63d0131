//! Jobs through the launcher: what it can do in the executor's terms, what a job asks of it, and how one ended.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use super::launcher::{self, Launcher};
use super::protocol::{self, Hello, Setup};
use super::{Containment, Options};
use crate::executor::Plan;
use crate::executor::conduct::{Control, End, Over};
use crate::executor::{Limit, RunContext};
use crate::job::{Command, Network, Step};

/// The launcher, if it is wanted and starts.
#[derive(Debug)]
pub(super) struct Launched(Launcher);

/// What can be done with the launcher here.
pub(super) struct Ability {
    pub(super) limits: Vec<Limit>,
    /// Jobs can have users of their own.
    pub(super) users: bool,
}

impl Launched {
    /// Starts the launcher, to try out whether jobs can run as `user`, among other things.
    pub(super) fn start(options: &Options, user: Option<u32>) -> Option<(Self, Ability)> {
        let bytes = |path: &PathBuf| path.as_os_str().as_bytes().to_vec();
        let setup = Setup {
            containment: match options.containment {
                Containment::Auto => None,
                Containment::Cgroup => Some(protocol::Containment::Cgroup),
                Containment::User => Some(protocol::Containment::User),
                Containment::Supervisor => Some(protocol::Containment::Supervisor),
                Containment::ProcessGroup => return None,
            },
            cgroups: options.cgroups,
            cgroup_root: options.cgroup_root.as_ref().map(bytes),
            user,
            hidden: options.hidden.iter().map(bytes).collect(),
        };
        match Launcher::start(setup) {
            Ok((launcher, hello)) => {
                tracing::info!(?hello, "jobs are started by the launcher");
                if !hello.hidden {
                    tracing::warn!("directories that were to be hidden from jobs are not");
                }
                Some((Self(launcher), Ability { limits: limits_of(hello), users: hello.user }))
            }
            Err(error) => {
                tracing::warn!("the launcher of jobs does not start, so they are isolated less: {error}");
                None
            }
        }
    }

    /// Asks for an attempt to be run.
    pub(super) async fn run(
        &self,
        context: &RunContext,
        plan: &Plan,
        user: Option<u32>,
        out: OwnedFd,
        err: OwnedFd,
    ) -> Result<Running, String> {
        let running = self.0.run(request(context, plan, user), out, err).await.map_err(|gone| gone.to_string())?;
        let program = plan.commands.first().and_then(|argv| argv.first()).cloned().unwrap_or_default();
        Ok(Running { running, program })
    }

    /// Ends every process of a user.
    pub(super) async fn clear(&self, user: u32) {
        if let Err(gone) = self.0.clear(user).await {
            tracing::warn!(user, "sweeping up after a job user: {gone}");
        }
    }

    /// Makes sure that the launcher runs, has swept up after a dead one, and sees what is mounted now.
    pub(super) fn renew(&self) -> io::Result<()> {
        self.0.renew()
    }

    /// Ends the launcher.
    pub(super) async fn stop(&self) {
        self.0.stop().await;
    }
}

/// The limits that a launcher enforces.
fn limits_of(hello: Hello) -> Vec<Limit> {
    let claims = [
        (Limit::Memory, hello.memory),
        (Limit::MemoryPerProcess, !hello.memory),
        (Limit::Cpu, hello.cpu),
        // A limit of a user's processes is one of the job's where the job has a user to itself.
        (Limit::Pids, hello.pids || hello.user),
        (Limit::NoNetwork, hello.no_network),
    ];
    claims.into_iter().filter_map(|(limit, is_real)| is_real.then_some(limit)).collect()
}

fn request(context: &RunContext, plan: &Plan, user: Option<u32>) -> protocol::Run {
    let resources = &context.spec.resources;
    protocol::Run {
        id: 0,
        name: format!("{}-{}", context.job, context.attempt).into_bytes(),
        commands: plan.commands.iter().map(|argv| argv.iter().map(|a| a.clone().into_bytes()).collect()).collect(),
        env: plan.env.iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect(),
        tell_each: matches!(context.spec.command, Command::Steps(_)),
        path: plan.env.get("PATH").cloned().unwrap_or_default().into_bytes(),
        dir: plan.dir.as_os_str().as_bytes().to_vec(),
        user,
        no_network: context.spec.network == Some(Network::None),
        memory_bytes: resources.memory_mb.map(|mb| mb.saturating_mul(1024 * 1024)),
        cpu_millis: resources.cpu_millis,
        pids: resources.pids,
    }
}

/// A job that the launcher runs.
pub(super) struct Running {
    running: launcher::Running,
    /// What ran first, for messages.
    program: String,
}

impl Control for Running {
    async fn ended(&mut self) -> Over {
        match self.running.ended().await {
            Ok(report) => {
                tracing::debug!(cpu_micros = report.cpu_micros, max_rss_kib = report.max_rss_kib, "a job ended");
                Over {
                    end: end_of(report.end, &self.program),
                    out_of_memory: report.out_of_memory,
                    steps: report.commands.iter().map(step_of).collect(),
                }
            }
            Err(gone) => Over::of(End::Refused(gone.to_string())),
        }
    }

    async fn terminate(&mut self) {
        self.running.terminate().await;
    }

    async fn kill(&mut self) {
        self.running.kill().await;
    }
}

fn step_of(end: &protocol::CommandEnd) -> Step {
    Step { exit_code: Some(end.code), duration: Duration::from_micros(end.micros) }
}

fn end_of(end: protocol::End, program: &str) -> End {
    match end {
        protocol::End::Cut => End::Cut,
        protocol::End::Exited(code) => End::Exited(code),
        protocol::End::Signaled(signal) => End::Signaled(signal),
        protocol::End::Failed(step @ protocol::Step::Supervisor, _) => {
            End::Refused(format!("{}: it was killed", step.as_str()))
        }
        protocol::End::Failed(step, error) => {
            let error = std::io::Error::from_raw_os_error(error);
            End::Refused(format!("{} ({program:?}): {error}", step.as_str()))
        }
    }
}
