//! The executor itself: what is permitted here, found out once, and one attempt with it.

use std::os::unix::ffi::OsStrExt;

use async_trait::async_trait;

use super::command::Plan;
#[cfg(launcher)]
use super::launcher::{Gone, Launcher};
#[cfg(launcher)]
use super::protocol::{self, Hello, Setup};
#[cfg(launcher)]
use super::run::{Control, End, Over};
use super::run::{Pipe, conduct};
use super::user::{Pool, give};
use super::{Containment, Options, Users, plain};
use crate::executor::{Capabilities, Error, Executor, Kind, Limit, RunContext};
use crate::job::{Network, Outcome};

/// Runs each attempt as isolated processes of this machine.
///
/// Starts its launcher when it is made, and finds out what is permitted here: [`Executor::capabilities`] says what
/// came of it. Making one needs no runtime and cannot fail; where nothing is permitted, jobs run as plain processes.
#[derive(Debug)]
pub struct ProcessExecutor {
    options: Options,
    capabilities: Capabilities,
    users: Option<Pool>,
    #[cfg(launcher)]
    launcher: Option<Launcher>,
}

impl ProcessExecutor {
    /// An executor with these options; an error says everything that is wrong with them.
    pub fn new(options: Options) -> Result<Self, Error> {
        options.validate()?;
        Ok(Self::open(options))
    }

    fn open(options: Options) -> Self {
        let range = match &options.users {
            Users::Auto => nix::unistd::geteuid().is_root().then_some(Users::AUTO),
            Users::Never => None,
            Users::Range(range) => Some(range.clone()),
        };
        let mut limits = std::collections::BTreeSet::new();

        #[cfg(launcher)]
        let (launcher, can_change_user) = {
            let started = start_launcher(&options, range.as_ref().map(|range| range.start));
            if let Some((_, hello)) = &started {
                tracing::info!(?hello, "jobs are started by the launcher");
                limits.extend(limits_of(*hello));
            }
            let can = started.as_ref().is_none_or(|(_, hello)| hello.user);
            (started.map(|(launcher, _)| launcher), can)
        };
        #[cfg(not(launcher))]
        let can_change_user = true;

        let users = range.filter(|_| can_change_user).map(|range| Pool::new(range, options.locks.clone()));
        if users.is_some() {
            limits.insert(Limit::User);
        } else {
            if options.users != Users::Never {
                tracing::warn!("jobs run as the worker's own user: they can read each other's files");
            }
            #[cfg(target_os = "linux")]
            if options.protect_worker {
                let _ = nix::sys::prctl::set_dumpable(false);
            }
        }
        Self {
            options,
            capabilities: Capabilities { kind: Kind::Process, limits },
            users,
            #[cfg(launcher)]
            launcher,
        }
    }

    /// Runs one attempt; what keeps it from running is an outcome too.
    async fn attempt(&self, context: &RunContext) -> Result<Outcome, Outcome> {
        if context.stop.is_cancelled() {
            return Err(Outcome::Stopped);
        }
        let no_network = context.spec.network == Some(Network::None);
        if no_network && !self.capabilities.limits.contains(&Limit::NoNetwork) {
            return Err(failed("the job must have no network, and this worker may not take it away"));
        }
        let plan = Plan::new(context, &self.options.path).map_err(|message| Outcome::InputError { message })?;
        let user = self.user_for(context).await?;
        let open = || Pipe::open().map_err(|e| failed(format!("making its pipes: {e}")));
        let (out, err) = (open()?, open()?);

        #[cfg(launcher)]
        if let Some(launcher) = &self.launcher {
            let run = request(context, &plan, user, no_network);
            let running = launcher.run(run, out.writer, err.writer).await.map_err(|gone| failed(gone.to_string()))?;
            let job = Launched { running, program: plan.program().to_owned() };
            let outcome = conduct(job, context, self.options.grace, out.reader, err.reader).await;
            if let Outcome::ExecutorError { .. } = outcome {
                self.sweep(user).await;
            }
            return Ok(outcome);
        }
        let job = plain::Running::new(plan, user, out.writer, err.writer);
        Ok(conduct(job, context, self.options.grace, out.reader, err.reader).await)
    }

    /// The user to run as, with the attempt's directory given to it.
    async fn user_for(&self, context: &RunContext) -> Result<Option<u32>, Outcome> {
        let Some(pool) = &self.users else { return Ok(None) };
        let claim = pool.of_slot(context.slot).map_err(|e| failed(format!("claiming a job user: {e}")))?;
        if claim.fresh {
            self.sweep(Some(claim.user)).await;
        }
        pool.check_way(&context.dir).map_err(|dir| {
            failed(format!(
                "jobs run as users of their own, whom {} does not let through: it needs mode 0711",
                dir.display()
            ))
        })?;
        let given = give(&context.dir, claim.user).await;
        given.map_err(|e| failed(format!("giving {} to its user: {e}", context.dir.display())))?;
        Ok(Some(claim.user))
    }

    /// Ends whatever an earlier process of this worker, or a launcher that died, left running as a user. A new
    /// launcher sweeps control groups when it starts.
    async fn sweep(&self, user: Option<u32>) {
        #[cfg(launcher)]
        if let (Some(launcher), Some(user)) = (&self.launcher, user)
            && let Err(gone) = launcher.clear(user).await
        {
            tracing::warn!(user, "sweeping up after a job user: {gone}");
        }
        #[cfg(not(launcher))]
        let _ = user;
    }
}

impl Default for ProcessExecutor {
    fn default() -> Self {
        Self::open(Options::default())
    }
}

#[async_trait]
impl Executor for ProcessExecutor {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn recover(&self) -> Result<(), Error> {
        // A launcher sweeps up after dead ones before it says hello.
        #[cfg(launcher)]
        if let Some(launcher) = &self.launcher {
            launcher.ensure().map_err(|e| Error::io("starting the launcher of jobs", e))?;
        }
        Ok(())
    }

    async fn run(&self, context: RunContext) -> Outcome {
        self.attempt(&context).await.unwrap_or_else(|outcome| outcome)
    }

    async fn shutdown(&self) {
        #[cfg(launcher)]
        if let Some(launcher) = &self.launcher {
            launcher.stop().await;
        }
    }
}

fn failed(message: impl Into<String>) -> Outcome {
    Outcome::ExecutorError { message: message.into() }
}

#[cfg(launcher)]
fn start_launcher(options: &Options, user: Option<u32>) -> Option<(Launcher, Hello)> {
    let bytes = |path: &std::path::PathBuf| path.as_os_str().as_bytes().to_vec();
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
        Ok(started) => Some(started),
        Err(error) => {
            tracing::warn!("the launcher of jobs does not start, so they are isolated less: {error}");
            None
        }
    }
}

/// The limits that a launcher enforces.
#[cfg(launcher)]
fn limits_of(hello: Hello) -> Vec<Limit> {
    let claims = [
        (Limit::Memory, hello.memory),
        (Limit::MemoryPerProcess, !hello.memory),
        (Limit::Cpu, hello.cpu),
        // A limit of a user's processes is one of the job's where the job has a user to itself.
        (Limit::Pids, hello.pids || hello.user),
        (Limit::NoNetwork, hello.no_network),
    ];
    claims.into_iter().filter_map(|(limit, true_here)| true_here.then_some(limit)).collect()
}

#[cfg(launcher)]
fn request(context: &RunContext, plan: &Plan, user: Option<u32>, no_network: bool) -> protocol::Run {
    let resources = &context.spec.resources;
    protocol::Run {
        id: 0,
        name: format!("{}-{}", context.job, context.attempt).into_bytes(),
        commands: plan.commands.iter().map(|argv| argv.iter().map(|a| a.clone().into_bytes()).collect()).collect(),
        env: plan.env.iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect(),
        path: plan.env.get("PATH").cloned().unwrap_or_default().into_bytes(),
        dir: plan.dir.as_os_str().as_bytes().to_vec(),
        user,
        no_network,
        memory_bytes: resources.memory_mb.map(|mb| mb.saturating_mul(1024 * 1024)),
        cpu_millis: resources.cpu_millis,
        pids: resources.pids,
    }
}

/// A job that the launcher runs.
#[cfg(launcher)]
struct Launched {
    running: super::launcher::Running,
    program: String,
}

#[cfg(launcher)]
impl Control for Launched {
    async fn ended(&mut self) -> Over {
        match self.running.ended().await {
            Ok(report) => {
                tracing::debug!(cpu_micros = report.cpu_micros, max_rss_kib = report.max_rss_kib, "a job ended");
                Over { end: end_of(report.end, &self.program), out_of_memory: report.out_of_memory }
            }
            Err(gone) => Over::of(End::Refused(Gone::to_string(&gone))),
        }
    }

    async fn terminate(&mut self) {
        self.running.terminate().await;
    }

    async fn kill(&mut self) {
        self.running.kill().await;
    }
}

#[cfg(launcher)]
fn end_of(end: protocol::End, program: &str) -> End {
    match end {
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
