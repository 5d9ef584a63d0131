//! Building a worker and bringing it up.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{SeedableRng, make_rng};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use super::backoff::Backoff;
use super::handle::{Phase, WorkerHandle};
use super::held::Held;
use super::inputs::Inputs;
use super::leftovers::WorkDir;
use super::options::Options;
use super::outputs::OutputLimits;
use super::room::Room;
use super::runtime::{self, Shared};
use super::session::Session;
use super::spares::Spares;
use super::usage::{Hardware, Machine};
use crate::Error;
use crate::archive::Limits;
use crate::executor::{self, Executor};
use crate::id::WorkerId;
use crate::job::Problem;
use crate::service::{Registered, Registration, WorkerService};
use crate::time::{Clock, SystemClock};

/// How long a registration may take before it is tried again.
const CALL_TIME: Duration = Duration::from_secs(10);

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its options make no sense; every problem is listed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Options(Vec<Problem>),
    /// Its directory can't be used.
    #[error("the worker's directory {} can't be used: {error}", path.display())]
    WorkDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Another worker uses its directory.
    #[error("another worker uses {}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// An executor could not clear up after its predecessor.
    #[error("the executor can't start: {0}")]
    Executor(#[from] executor::Error),
    /// The coordinator does not take it.
    #[error("the coordinator refuses the worker: {0}")]
    Refused(#[source] Error),
}

/// Builds a [`super::Worker`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    service: Arc<dyn WorkerService>,
    executors: Vec<Arc<dyn Executor>>,
    options: Options,
    clock: Arc<dyn Clock>,
    seed: Option<u64>,
}

impl Builder {
    pub(super) fn new(service: Arc<dyn WorkerService>, executor: Arc<dyn Executor>) -> Self {
        let clock = Arc::new(SystemClock);
        Self { service, executors: vec![executor], options: Options::default(), clock, seed: None }
    }

    /// All options at once.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// A further executor, for jobs of another [`executor::Kind`].
    pub fn executor(mut self, executor: impl Executor) -> Self {
        self.executors.push(Arc::new(executor));
        self
    }

    /// See [`Options::id`].
    pub fn id(mut self, id: WorkerId) -> Self {
        self.options.id = Some(id);
        self
    }

    /// See [`Options::hostname`].
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.options.hostname = Some(hostname.into());
        self
    }

    /// See [`Options::slots`].
    pub fn slots(mut self, slots: usize) -> Self {
        self.options.slots = Some(slots);
        self
    }

    /// See [`Options::cpu_millis`].
    pub fn cpu_millis(mut self, cpu_millis: u32) -> Self {
        self.options.cpu_millis = Some(cpu_millis);
        self
    }

    /// See [`Options::memory_mb`].
    pub fn memory_mb(mut self, memory_mb: u64) -> Self {
        self.options.memory_mb = Some(memory_mb);
        self
    }

    /// See [`Options::labels`].
    pub fn labels<S: Into<String>>(mut self, labels: impl IntoIterator<Item = S>) -> Self {
        self.options.labels = labels.into_iter().map(Into::into).collect::<BTreeSet<_>>();
        self
    }

    /// See [`Options::work_dir`].
    pub fn work_dir(mut self, work_dir: impl Into<PathBuf>) -> Self {
        self.options.work_dir = Some(work_dir.into());
        self
    }

    /// See [`Options::input_limits`].
    pub fn input_limits(mut self, limits: Limits) -> Self {
        self.options.input_limits = limits;
        self
    }

    /// See [`Options::input_cache_mb`].
    pub fn input_cache_mb(mut self, mb: u64) -> Self {
        self.options.input_cache_mb = mb;
        self
    }

    /// See [`Options::output_limits`].
    pub fn output_limits(mut self, limits: OutputLimits) -> Self {
        self.options.output_limits = limits;
        self
    }

    /// See [`Options::drain_timeout`].
    pub fn drain_timeout(mut self, drain_timeout: Duration) -> Self {
        self.options.drain_timeout = drain_timeout;
        self
    }

    /// See [`Options::auto_start`].
    pub fn auto_start(mut self, auto_start: bool) -> Self {
        self.options.auto_start = auto_start;
        self
    }

    /// Where the worker gets the time from. The machine's clock by default.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// What its chance grows from. The system's by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Clears up after a crashed predecessor, registers, and starts to take jobs. While the coordinator can't be
    /// reached it tries again, as long as it takes; dropping the future gives up.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(self) -> Result<WorkerHandle, StartError> {
        let mut problems = self.options.validate();
        let kinds: BTreeSet<_> = self.executors.iter().map(|executor| executor.capabilities().kind).collect();
        if kinds.len() < self.executors.len() {
            problems.push(Problem::new("executor", "must be at most one of a kind"));
        }
        if !problems.is_empty() {
            return Err(StartError::Options(problems));
        }
        let mut random: StdRng = self.seed.map_or_else(make_rng, StdRng::seed_from_u64);
        let work_dir = WorkDir::take(self.options.work_dir.as_deref())?;
        let user = self.executors.iter().find_map(|executor| executor.user(0));
        let (attempts, limits) = (work_dir.attempts(), &self.options.input_limits);
        let most = self.options.input_cache_mb.saturating_mul(1 << 20);
        let inputs = Inputs::open(work_dir.inputs(), most, limits, &attempts, user)
            .map_err(|error| StartError::WorkDir { path: work_dir.inputs(), error })?;
        for executor in &self.executors {
            executor.recover().await?;
        }

        let machine = Machine::look();
        let hardware = machine.hardware();
        let registration = self.registration(&hardware);
        let (registered, sent) = self.register(&registration, &mut random).await?;
        tracing::info!(worker = %registered.worker, "registered");

        let slots = registration.slots.and_then(|slots| usize::try_from(slots).ok()).unwrap_or(1);
        let cpu_millis = self.options.cpu_millis.map_or(u64::from(hardware.cpu_count) * 1_000, u64::from);
        let room = Room::new(slots, cpu_millis, registration.total_memory_mb, registration.gpus());
        let phase = if self.options.auto_start { Phase::Taking } else { Phase::Paused };
        let session = Session::new(registration, machine, &registered, sent);
        let shared = Arc::new(Shared {
            service: self.service,
            executors: self.executors,
            clock: self.clock,
            random: Mutex::new(random),
            options: self.options,
            id: registered.worker,
            inputs,
            spares: Spares::new(attempts.clone(), slots),
            attempts_dir: attempts,
            held: Arc::new(Held::new(room)),
            phase: watch::Sender::new(phase),
            output: super::outbox::Outbox::default(),
            reports: super::report::Reports::default(),
            nudge: Notify::new(),
            unknown: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let task = tokio::spawn(runtime::run(Arc::clone(&shared), session));
        Ok(WorkerHandle::new(AbortOnDropHandle::new(task), shared, work_dir))
    }

    fn registration(&self, hardware: &Hardware) -> Registration {
        let options = &self.options;
        let cpu_count = options.cpu_millis.map_or(hardware.cpu_count, |millis| millis.div_ceil(1_000));
        let slots = options.slots.unwrap_or_else(|| usize::try_from(cpu_count).unwrap_or(1)).min(Options::MOST_SLOTS);
        let mut metadata = options.metadata.clone();
        metadata.entry("osType").or_insert_with(|| std::env::consts::OS.into());
        metadata.entry("arch").or_insert_with(|| std::env::consts::ARCH.into());
        Registration {
            worker: options.id.clone(),
            hostname: options.hostname.clone().unwrap_or_else(|| hardware.hostname.clone()),
            cpu_count,
            total_memory_mb: options.memory_mb.unwrap_or(hardware.memory_mb),
            executors: Some(self.executors.iter().map(|executor| executor.capabilities().clone()).collect()),
            slots: u32::try_from(slots).ok(),
            labels: options.labels.clone(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            metadata,
            usage: None,
        }
    }

    /// What the coordinator says, and when it was asked.
    async fn register(
        &self,
        registration: &Registration,
        random: &mut StdRng,
    ) -> Result<(Registered, Duration), StartError> {
        let mut backoff = Backoff::for_calls();
        loop {
            let sent = self.clock.uptime();
            let error = tokio::select! {
                biased;
                answer = self.service.register(registration.clone()) => match answer {
                    Ok(registered) => return Ok((registered, sent)),
                    Err(error) => error,
                },
                () = self.clock.sleep(CALL_TIME) => Error::Unavailable { retry_after: Duration::ZERO },
            };
            let Some(asked) = error.retry_after() else { return Err(StartError::Refused(error)) };
            tracing::warn!(%error, "the worker can't register yet");
            self.clock.sleep(backoff.next(Some(asked), random)).await;
        }
    }
}
