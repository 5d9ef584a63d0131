//! The executor itself: what is permitted here, found out once, and one attempt with it.

use std::collections::BTreeSet;

use async_trait::async_trait;

#[cfg(launcher)]
use super::launched::Launched;
#[cfg(not(launcher))]
use super::unlaunched::Launched;
use super::user::{Pool, give};
use super::{Options, Users, plain};
use crate::executor::Plan;
use crate::executor::conduct::{Pipe, conduct};
use crate::executor::{Capabilities, Error, Executor, Kind, Limit, RunContext};
use crate::job::{Command, Network, Outcome};

/// Runs each attempt as isolated processes of this machine.
///
/// Starts its launcher when it is made, and finds out what is permitted here: [`Executor::capabilities`] says what
/// came of it. Making one needs no runtime and cannot fail; where nothing is permitted, jobs run as plain processes.
#[derive(Debug)]
pub struct ProcessExecutor {
    options: Options,
    capabilities: Capabilities,
    users: Option<Pool>,
    launcher: Option<Launched>,
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
        let (launcher, ability) = Launched::start(&options, range.as_ref().map(|range| range.start)).unzip();
        let can_change_user = ability.as_ref().is_none_or(|ability| ability.users);
        let mut limits: BTreeSet<Limit> =
            ability.map(|ability| ability.limits).unwrap_or_default().into_iter().collect();
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
        Self { options, capabilities: Capabilities { kind: Kind::Process, limits, gpus: 0 }, users, launcher }
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

        if let Some(launcher) = &self.launcher {
            let job = launcher.run(context, &plan, user, out.writer, err.writer).await.map_err(failed)?;
            let outcome = conduct(job, context, self.options.grace, out.reader, err.reader).await;
            if let Outcome::ExecutorError { .. } = outcome {
                // The launcher may have died, and left processes of this user.
                self.sweep(user).await;
            }
            return Ok(outcome);
        }
        let tell_each = matches!(context.spec.command, Command::Steps(_));
        let job = plain::Running::new(plan, tell_each, user, out.writer, err.writer);
        Ok(conduct(job, context, self.options.grace, out.reader, err.reader).await)
    }

    /// The user to run as, with the attempt's directory given to it.
    async fn user_for(&self, context: &RunContext) -> Result<Option<u32>, Outcome> {
        let Some(pool) = &self.users else { return Ok(None) };
        let claim = pool.of_slot(context.slot).map_err(|e| failed(format!("claiming a job user: {e}")))?;
        if claim.fresh {
            self.sweep(Some(claim.user)).await;
            pool.swept(context.slot);
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
        if let (Some(launcher), Some(user)) = (&self.launcher, user) {
            launcher.clear(user).await;
        }
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

    fn user(&self, slot: usize) -> Option<u32> {
        // What keeps it from being claimed is told when the job is run.
        Some(self.users.as_ref()?.of_slot(slot).ok()?.user)
    }

    async fn recover(&self) -> Result<(), Error> {
        // A launcher sweeps up after dead ones before it says hello, and has its own view of what is mounted from then on.
        if let Some(launcher) = &self.launcher {
            launcher.renew().map_err(|e| Error::io("starting the launcher of jobs", e))?;
        }
        Ok(())
    }

    async fn run(&self, context: RunContext) -> Outcome {
        self.attempt(&context).await.unwrap_or_else(|outcome| outcome)
    }

    async fn shutdown(&self) {
        if let Some(launcher) = &self.launcher {
            launcher.stop().await;
        }
    }
}

fn failed(message: impl Into<String>) -> Outcome {
    Outcome::ExecutorError { message: message.into() }
}
