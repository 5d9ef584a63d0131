//! The executor itself: what the daemon can do, found out once, and one attempt with it.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::SystemInfo;
use cmdexec_core::executor::conduct::{Pipe, conduct};
use cmdexec_core::executor::{Capabilities, Error, Executor, Kind, Limit, Plan, RunContext, process};
use cmdexec_core::job::{Command, Network, Outcome, Resources};
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::container::Container;
use crate::control::{Carried, Evidence, Running};
use crate::daemon::Daemon;
use crate::gpus::{self, Gpus};
use crate::image::{Image, Images};
use crate::mounts::Mounter;
use crate::options::Options;
use crate::pool::Pool;
use crate::profile::{INIT, Order, WORK};
use crate::reference::Reference;
use crate::runtime::shares_kernel;
use crate::sight::look;
use crate::sweep::sweep;
use crate::trouble::Trouble;
use crate::users::Users;
use crate::workshop::Workshop;

/// The user that jobs run as where the worker is root. Between the ranges that systemd and distributions give out.
const USER: u32 = 60_705;

/// `PATH` for jobs of images that set none. What Docker gives.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long it may take until a job has its container, the image's fetching included: what an attempt has for its setting up.
const SETUP: Duration = Duration::from_mins(10);

/// How long containers may take to be removed at the end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs each attempt in a container of the image that its job names.
#[derive(Debug)]
pub struct DockerExecutor {
    workshop: Arc<Workshop>,
    images: Arc<Images>,
    pool: Option<Arc<Pool>>,
    mounter: Option<Mounter>,
    capabilities: Capabilities,
    gpus: Arc<Gpus>,
    /// Whether directories can be given to the jobs' user, whom the worker is not.
    gives: bool,
    user: u32,
    /// Whom this machine sees as that user.
    users: Users,
    is_attached: bool,
}

impl DockerExecutor {
    /// Asks the daemon what it can do, and prepares the directory.
    ///
    /// # Errors
    /// Everything that is wrong with the options; a daemon that does not answer, does not see the directory at the same path, or maps users
    /// to others though this process is not root; or a directory that can't be used.
    pub async fn open(options: Options) -> Result<Self, Error> {
        options.validate()?;
        let is_root = nix::unistd::geteuid().is_root();
        if options.policy.image_user && !is_root {
            return Err(Error::new(
                "a worker that is not root could not remove what jobs of an image's own user leave",
            ));
        }
        prepare(&options.dir)?;
        let failed = |error: Trouble| Error::new(error.to_string());
        let daemon = Daemon::connect(&options.host, options.patience).await.map_err(failed)?;
        if daemon.is_podman {
            tracing::warn!(host = options.host, "Podman keeps jobs apart less well than Docker does");
        }
        let info = daemon.info().await.map_err(failed)?;
        let users = Users::of(&info, &options);
        if users != Users::Same && !is_root {
            return Err(Error::new(
                "the container daemon maps users to others, and a worker that is not root can't give them a job's directory",
            ));
        }
        Box::pin(look(&daemon, &options)).await.map_err(failed)?;
        // What runs on a kernel of its own, or elsewhere, gets no descriptors from here.
        let shares_kernel = shares_kernel(&info, options.runtime.as_deref())?;
        let is_attached = options.attach || !shares_kernel || !options.host.starts_with("unix://");
        let user = options.user.unwrap_or_else(|| if is_root { USER } else { nix::unistd::geteuid().as_raw() });
        let mounter = if is_root && !is_attached { Mounter::start().ok() } else { None };
        let capabilities = Capabilities {
            kind: Kind::Docker,
            limits: limits(&info),
            gpus: options.gpus.unwrap_or_else(|| gpus::count(&info)),
        };
        let gpus = Gpus::new(capabilities.gpus);
        let images = Arc::new(Images::new(daemon.clone(), &options));
        let workshop = Arc::new(Workshop::new(daemon, options));
        let mut executor = Self {
            workshop,
            images,
            pool: None,
            mounter,
            capabilities,
            gpus,
            gives: is_root,
            user,
            users,
            is_attached,
        };
        if executor.mounter.is_some() && executor.options().pool.most > 0 {
            executor.pool = Some(Pool::start(Arc::clone(&executor.workshop), executor.container_user()));
        }
        Ok(executor)
    }

    fn options(&self) -> &Options {
        &self.workshop.options
    }

    /// The user of a container, in the daemon's words; `None`: the image's own.
    fn container_user(&self) -> Option<String> {
        (!self.options().policy.image_user).then(|| format!("{0}:{0}", self.user))
    }

    /// Runs one attempt; what keeps it from running is an outcome too.
    async fn attempt(&self, mut context: RunContext) -> Result<Outcome, Outcome> {
        if context.stop.is_cancelled() {
            return Err(Outcome::Stopped);
        }
        if let Some(most) = self.options().most_time.filter(|most| *most < context.spec.timeout) {
            let mut spec = cmdexec_core::job::JobSpec::clone(&context.spec);
            spec.timeout = most;
            context.spec = Arc::new(spec);
        }
        let Some(gpus) = self.gpus.take(context.spec.resources.gpus.unwrap_or(0)) else {
            return Err(failed("this worker does not have that many graphics processors"));
        };
        let ready = tokio::select! {
            biased;
            () = context.stop.cancelled() => return Err(Outcome::Stopped),
            ready = timeout(SETUP, self.ready(&context, &gpus.indices)) => {
                ready.map_err(|_| failed(format!("no container was ready within {} s", SETUP.as_secs())))??
            }
        };
        let (mut container, plan) = ready;
        context.steps.runs_in(&container.image.digest);
        container.home.note(context.job, context.attempt);
        let busy = self.pool.as_ref().map(Pool::busy);
        let (outcome, evidence) = self.conduct(&mut container, &plan, &context).await?;
        drop(busy);
        if evidence.fills_container() {
            // The disk is everybody's: what the job has of it is given back before the next one takes its place.
            let _ = timeout(PATIENCE, container.remove()).await;
        } else if evidence.is_clean
            && let Some((scope, pool, mounter)) = self.reuse(&context, &container.image)
        {
            match container.renew(mounter, self.options().tmp_mb).await {
                Ok(()) => pool.give_back(scope, container),
                Err(error) => tracing::warn!(%error, "a container is not used again"),
            }
        }
        Ok(outcome)
    }

    /// Whose containers the job may use again, and hands on; `None`: it has one for itself, as where a container would keep something.
    fn reuse<'a>(&'a self, context: &'a RunContext, image: &Image) -> Option<(&'a str, &'a Arc<Pool>, &'a Mounter)> {
        let spec = &context.spec;
        let is_alone = spec.network.unwrap_or(self.options().network) == Network::None && spec.resources.gpus.is_none();
        // Podman makes more of a read-only root writable than is emptied between two jobs.
        let keeps_nothing = self.options().read_only_root && !image.has_volumes && !self.workshop.daemon.is_podman;
        let scope = context.scope.as_deref().filter(|_| spec.reuse && is_alone && keeps_nothing)?;
        Some((scope, self.pool.as_ref()?, self.mounter.as_ref()?))
    }

    /// Everything up to where a container waits for the job and has all that it needs.
    async fn ready(&self, context: &RunContext, gpus: &[usize]) -> Result<(Container, Plan), Outcome> {
        let named = context.spec.container_image.as_deref().ok_or_else(|| failed("the job names no image"))?;
        let wanted = Reference::parse(named).map_err(failed)?;
        let network = context.spec.network.unwrap_or(self.options().network);
        self.options().policy.check(&context.spec, &wanted, network).map_err(failed)?;
        let image = self.images.get(&wanted, &context.output).await.map_err(|error| error.outcome())?;
        let env = [("PATH".to_owned(), PATH.to_owned())].into_iter().chain(image.env.clone());
        let plan = Plan::seen_at(context, WORK, env).map_err(|message| Outcome::InputError { message })?;
        let container = match self.container(context, &image, network, gpus).await {
            // It was removed since it was looked at.
            Err(Trouble::NotFound(_)) => {
                self.images.forget(&image);
                let image = self.images.get(&wanted, &context.output).await.map_err(|error| error.outcome())?;
                self.container(context, &image, network, gpus).await
            }
            other => other,
        };
        Ok((container.map_err(|error| error.outcome())?, plan))
    }

    /// A container with the attempt's directory in it, held to the job's limits.
    async fn container(
        &self,
        context: &RunContext,
        image: &Arc<Image>,
        network: Network,
        gpus: &[usize],
    ) -> Result<Container, Trouble> {
        let limits = self.limits(context.spec.resources);
        if let (Some(pool), Some(mounter), Network::None, []) = (&self.pool, &self.mounter, network, gpus) {
            let mut container = match self.reuse(context, image) {
                Some((scope, ..)) => pool.take_again(scope, image).await?,
                None => pool.take(image).await?,
            };
            self.give(context, self.owner(&container)).await?;
            let fitted = match container.limit(limits) {
                Ok(()) => container.show(mounter, &context.dir).await,
                Err(error) => Err(error),
            };
            match fitted {
                Ok(()) => return Ok(container),
                // Made for it from the start, it will do.
                Err(error) => tracing::debug!(%error, "a container that was ready can't be used"),
            }
        }
        let order = Order {
            image: image.id.clone(),
            user: self.container_user(),
            network,
            limits,
            gpus: gpus.to_vec(),
            work: Some(context.dir.clone()),
            attempt: Some((context.job.to_string(), context.attempt)),
            is_attached: self.is_attached,
        };
        let container = self.workshop.make(Arc::clone(image), order).await?;
        self.give(context, self.owner(&container)).await?;
        Ok(container)
    }

    /// What the job is held to: what it says, or what is usual where it says nothing; the policy's most in any case.
    fn limits(&self, asked: Resources) -> Resources {
        let (usual, most) = (self.options().limits, self.options().policy.most);
        Resources {
            cpu_millis: least(asked.cpu_millis.or(usual.cpu_millis), most.cpu_millis),
            memory_mb: least(asked.memory_mb.or(usual.memory_mb), most.memory_mb),
            pids: least(asked.pids.or(usual.pids), most.pids),
            gpus: None,
        }
    }

    /// Who a container's user is on this machine, if that is known: what the kernel says of who has connected, else what the daemon does.
    fn owner(&self, container: &Container) -> Option<u32> {
        container.peer.map(|peer| peer.user).or_else(|| self.users.outside(container.user))
    }

    /// Gives the attempt's directory to the user that its container has.
    async fn give(&self, context: &RunContext, user: Option<u32>) -> Result<(), Trouble> {
        if !self.gives {
            return Ok(());
        }
        let unknown =
            || Trouble::Here("the container daemon does not say to whom it maps its containers' users".to_owned());
        let user = user.ok_or_else(unknown)?;
        let given = process::give(&context.dir, user).await;
        given.map_err(|error| Trouble::io("giving the job's directory to its user", &error))
    }

    /// Hands the job over and sees it through.
    async fn conduct(
        &self,
        container: &mut Container,
        plan: &Plan,
        context: &RunContext,
    ) -> Result<(Outcome, Evidence), Outcome> {
        let lost = |error: std::io::Error| failed(format!("handing the job to its container: {error}"));
        let job = crate::link::encode(plan).map_err(lost)?;
        let (out, err) = (Pipe::open().map_err(lost)?, Pipe::open().map_err(lost)?);
        container.line.send_job(&job, [out.writer.as_fd(), err.writer.as_fd()]).await.map_err(lost)?;
        let carried = if self.is_attached {
            let sender = |writer| pipe::Sender::from_owned_fd(writer).map_err(lost);
            Some(Carried::new([sender(out.writer)?, sender(err.writer)?]))
        } else {
            // Else the pipes would have no end.
            drop((out.writer, err.writer));
            None
        };
        let programs = plan.commands.iter().filter_map(|command| command.first().cloned()).collect();
        let tells_steps = matches!(context.spec.command, Command::Steps(_));
        let mut evidence = Evidence::default();
        let daemon = &self.workshop.daemon;
        let running = Running::new(daemon, container, programs, tells_steps, carried, &mut evidence);
        let outcome = conduct(running, context, self.options().grace, out.reader, err.reader).await;
        if self.options().read_only_root && !container.image.has_volumes {
            evidence = evidence.without_container();
        }
        if matches!(outcome, Outcome::Exited { code: 1.. } | Outcome::Signaled { .. } | Outcome::TimedOut) {
            for place in evidence.full() {
                context.steps.warn(format!("disk full: no space was left in {place} when the job failed"));
            }
        }
        Ok((outcome, evidence))
    }
}

#[async_trait]
impl Executor for DockerExecutor {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn user(&self, _: usize) -> Option<u32> {
        let is_known = self.gives && !self.options().policy.image_user;
        is_known.then(|| self.users.outside(self.user)).flatten()
    }

    async fn recover(&self) -> Result<(), Error> {
        sweep(&self.workshop).await
    }

    async fn run(&self, context: RunContext) -> Outcome {
        self.attempt(context).await.unwrap_or_else(|outcome| outcome)
    }

    async fn shutdown(&self) {
        if let Some(pool) = &self.pool {
            pool.close().await;
        }
        self.images.close().await;
        self.workshop.close(PATIENCE).await;
    }
}

impl Drop for DockerExecutor {
    /// Without [`Executor::shutdown`] what is ready ends here; who removes it may end with the runtime.
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.end();
        }
    }
}

/// Makes the directory, which lets nobody else through, with the init in it.
fn prepare(dir: &Path) -> Result<(), Error> {
    let failed = |error| Error::io(format!("preparing {}", dir.display()), error);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    let (init, unfinished) = (dir.join(INIT), dir.join("init.new"));
    fs::write(&unfinished, program()?).map_err(failed)?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    fs::rename(&unfinished, &init).map_err(failed)
}

#[cfg(init)]
#[expect(clippy::unnecessary_wraps, reason = "there are systems that it can't be built for")]
fn program() -> Result<&'static [u8], Error> {
    Ok(include_bytes!(concat!(env!("OUT_DIR"), "/init")))
}

#[cfg(not(init))]
fn program() -> Result<&'static [u8], Error> {
    Err(Error::new("this program was built without the init of containers, so it can run none"))
}

fn limits(info: &SystemInfo) -> BTreeSet<Limit> {
    let mut limits = BTreeSet::from([Limit::NoNetwork, Limit::User]);
    limits.extend((info.memory_limit == Some(true)).then_some(Limit::Memory));
    limits.extend((info.cpu_cfs_quota == Some(true)).then_some(Limit::Cpu));
    limits.extend((info.pids_limit == Some(true)).then_some(Limit::Pids));
    limits
}

fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn failed(message: impl Into<String>) -> Outcome {
    Outcome::ExecutorError { message: message.into() }
}
