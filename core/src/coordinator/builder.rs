//! What a coordinator is made of.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::{StdRng, SysRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    Coordinator, Shared, beats, dispatch, follow, heartbeat, hub, leases, notices, output, peers, sweep, tally,
};
use crate::Error;
use crate::files::Files;
use crate::id::JobIds;
use crate::job::Problem;
use crate::scheduler::{FifoScheduler, Scheduler};
use crate::store::{ListQuery, Store};
use crate::time::{Clock, SystemClock};

/// A coordinator's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How long a lease lasts from its start or from its worker's last heartbeat. 60 s by default, at least 500 ms.
    pub lease: Duration,
    /// After how long without a heartbeat a worker is shown as offline. 60 s by default, at least 500 ms.
    pub heartbeat_timeout: Duration,
    /// How much of a job's output is kept, in bytes: half of it from the beginning and half from the end.
    /// 16 MiB by default, at least 256 KiB. What is remembered of a job's output in memory does not grow with it.
    pub output_cap: u64,
    /// How long finished jobs are kept. 30 days by default.
    pub retention: Duration,
    /// How many bytes a file may have. 256 MiB by default, at least 1.
    pub max_file_size: u64,
    /// How many bytes the files of one owner may have together, those that its jobs left included; what is uploaded at the
    /// same moment may go beyond by itself. 10 GiB by default.
    pub file_quota: u64,
    /// How long an upload is kept after the last upload of the same bytes or, once half of it is over, the last job that
    /// brings it. 7 days by default, at least 1 minute. A file that an unfinished job brings is kept.
    pub file_ttl: Duration,
    /// How often a worker that does not wait when it asks should ask. 1 s by default.
    pub poll_interval: Duration,
    /// How many jobs a worker may hold at once, whatever it asks for and says of its slots: a worker that leases the queue
    /// and runs nothing keeps no more than these from others. 1,024 by default, at least 1.
    pub max_leases: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(60),
            heartbeat_timeout: Duration::from_secs(60),
            output_cap: 16 << 20,
            retention: Duration::from_secs(30 * 86_400),
            max_file_size: 256 << 20,
            file_quota: 10 << 30,
            file_ttl: Duration::from_secs(7 * 86_400),
            poll_interval: Duration::from_secs(1),
            max_leases: 1_024,
        }
    }
}

impl Options {
    /// Everything that is wrong with the settings.
    pub fn validate(&self) -> Vec<Problem> {
        let least = Duration::from_millis(500);
        [
            (self.lease >= least, "lease", "must be at least 500 ms"),
            (self.heartbeat_timeout >= least, "heartbeat_timeout", "must be at least 500 ms"),
            (self.output_cap >= 256 << 10, "output_cap", "must be at least 256 KiB"),
            (self.max_file_size > 0, "max_file_size", "must be at least 1"),
            (self.file_ttl >= Duration::from_secs(60), "file_ttl", "must be at least 1 min"),
            (!self.poll_interval.is_zero(), "poll_interval", "must be more than 0"),
            (self.max_leases > 0, "max_leases", "must be at least 1"),
        ]
        .into_iter()
        .filter(|(holds, ..)| !holds)
        .map(|(_, field, message)| Problem::new(field, message))
        .collect()
    }

    /// How often workers are told to beat: a sixth of the shorter of the two times that depend on it, so that five
    /// beats in a row may be lost.
    pub fn heartbeat_interval(&self) -> Duration {
        self.lease.min(self.heartbeat_timeout) / 6
    }
}

/// Why a coordinator could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Settings are wrong; every problem is listed.
    #[error("{}", Error::Invalid(.0.clone()))]
    Options(Vec<Problem>),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}

/// Builds a [`Coordinator`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    store: Arc<dyn Store>,
    scheduler: Box<dyn Scheduler>,
    clock: Arc<dyn Clock>,
    files: Option<Files>,
    seed: Option<u64>,
    options: Options,
}

impl Builder {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            scheduler: Box::new(FifoScheduler),
            clock: Arc::new(SystemClock),
            files: None,
            seed: None,
            options: Options::default(),
        }
    }

    /// Who gets what; [`FifoScheduler`] by default.
    pub fn scheduler(mut self, scheduler: impl Scheduler) -> Self {
        self.scheduler = Box::new(scheduler);
        self
    }

    /// Where loops get the time from; the machine's clock by default. Give the store the same one.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where the files are that jobs bring. Without it, jobs may bring none.
    pub fn files(mut self, files: Files) -> Self {
        self.files = Some(files);
        self
    }

    /// Makes chance repeatable, for tests. **Lease tokens can then be guessed.** By default they come from the system.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The settings.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Changes some of the settings.
    pub fn with_options(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// Starts the coordinator.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn build(self) -> Result<Coordinator, BuildError> {
        let problems = self.options.validate();
        if !problems.is_empty() {
            return Err(BuildError::Options(problems));
        }
        let newest = self.store.list(&ListQuery { limit: 1, ..ListQuery::default() }).await?.jobs.pop();
        let mut random = match self.seed {
            Some(seed) => StdRng::seed_from_u64(seed),
            None => StdRng::try_from_rng(&mut SysRng).map_err(|error| {
                let kind = crate::store::ErrorKind::Unavailable { retry_after: Duration::from_secs(1) };
                crate::store::Error::with_source(kind, "the system gives no random numbers", error)
            })?,
        };
        let notices = self.store.notices();
        // Alone, it needs no name, and a seed's chance is what it was before there were others.
        let peer = if notices.is_some() { peers::name(&mut random) } else { String::new() };
        let (handle, mailbox) = dispatch::mailbox();
        let shared = Arc::new(Shared {
            started: self.clock.uptime(),
            store: self.store,
            clock: self.clock,
            files: self.files,
            random: Mutex::new(random),
            ids: JobIds::after(newest.map(|job| job.id)),
            leases: leases::Leases::default(),
            beats: beats::Beats::default(),
            presence: heartbeat::Presences::default(),
            outputs: output::Outputs::new(self.options.output_cap),
            hub: hub::Hub::default(),
            followed: follow::Followed::default(),
            keeping: TaskTracker::new(),
            tally: tally::Tally::default(),
            dispatch: handle,
            wake_sweep: tokio::sync::Notify::new(),
            is_shared: notices.is_some(),
            peers: peers::Peers::new(peer),
            options: self.options,
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(dispatch::run(Arc::clone(&shared), self.scheduler, mailbox, stop.clone()));
        tasks.spawn(sweep::run(Arc::clone(&shared), stop.clone()));
        if let Some(notices) = notices {
            tasks.spawn(notices::run(Arc::clone(&shared), notices, stop.clone()));
        }
        tasks.spawn({
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            async move {
                stop.cancelled().await;
                shared.hub.close();
            }
        });
        // What is queued already is found before anybody asks.
        shared.dispatch.sweep().await;
        Ok(Coordinator { shared, tasks: Mutex::new(tasks), stop })
    }
}
