//! Keeps jobs safe and hands them to workers.
//!
//! The way of a job: `submit` → store → `dispatch` → store → worker → `output`, `finish` → store → watchers
//! (`hub`, `follow`). `sweep` finds what a lost wake-up or a dead process has left undone. Where others share the store,
//! `notices` says what they write, and `peers` which of them are there to share the sweep.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::files::Files;
use crate::id::{JobId, JobIds, Owner, WorkerId};
use crate::scheduler::Obstacle;
use crate::service::{JobService, Role, Services, UserPrincipal, WorkerPrincipal, WorkerService};
use crate::store::Store;
use crate::time::Clock;

mod apply;
mod beats;
mod builder;
mod dispatch;
mod files;
mod finish;
mod follow;
mod heartbeat;
mod hub;
mod kept;
mod leases;
mod notices;
mod output;
mod peers;
mod register;
mod submit;
mod sweep;
mod tally;
mod user;
mod view;
mod worker;

pub use builder::{BuildError, Builder, Options};
pub use files::RECORD_KINDS;

/// Keeps jobs safe and hands them to workers.
///
/// Made of a [`Store`] and, where the defaults do not do, a [`crate::scheduler::Scheduler`], [`Files`], a [`Clock`] and
/// [`Options`]. Any number of coordinators may share a store that can be shared; what one holds in memory is only there
/// to be fast.
///
/// Dropping it stops its tasks where they are; nothing acknowledged is lost by that. [`Coordinator::shutdown`] is the
/// orderly way.
pub struct Coordinator {
    shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
    stop: CancellationToken,
}

/// What everything in a coordinator uses.
struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    files: Option<Files>,
    options: Options,
    random: Mutex<StdRng>,
    ids: JobIds,
    leases: leases::Leases,
    beats: beats::Beats,
    presence: heartbeat::Presences,
    outputs: output::Outputs,
    hub: hub::Hub,
    followed: follow::Followed,
    /// The files that are being kept.
    keeping: TaskTracker,
    tally: tally::Tally,
    dispatch: dispatch::Handle,
    /// Wakes the sweep before its time.
    wake_sweep: tokio::sync::Notify,
    /// Whether other coordinators may write to the store.
    is_shared: bool,
    peers: peers::Peers,
    /// Where [`Clock::uptime`] stood when the coordinator started.
    started: Duration,
}

impl Coordinator {
    /// Starts building a coordinator over a store.
    pub fn builder(store: impl Store) -> Builder {
        Builder::new(Arc::new(store))
    }

    /// Starts building a coordinator over a store that is shared.
    pub fn builder_shared(store: Arc<dyn Store>) -> Builder {
        Builder::new(store)
    }

    /// What this user may do.
    pub fn as_user(&self, principal: UserPrincipal) -> Arc<dyn JobService> {
        Arc::new(user::UserJobs::new(Arc::clone(&self.shared), principal))
    }

    /// What a worker may do that speaks for the workers of `principal`.
    pub fn as_worker(&self, principal: impl Into<WorkerPrincipal>) -> Arc<dyn WorkerService> {
        Arc::new(worker::WorkerJobs::new(Arc::clone(&self.shared), principal.into()))
    }

    /// What the program that embeds the coordinator may do: everything. What it submits is [`Owner::local`]'s.
    pub fn jobs(&self) -> Arc<dyn JobService> {
        self.as_user(UserPrincipal { owner: Owner::local(), role: Role::Admin })
    }

    /// Why each known worker can or can't run a job now, by worker id.
    ///
    /// # Errors
    /// [`Error::JobNotFound`].
    pub async fn explain(&self, job: JobId) -> Result<Vec<(WorkerId, Option<Obstacle>)>, Error> {
        let job = self.shared.stored(job).await?.ok_or(Error::JobNotFound)?;
        Ok(self.shared.dispatch.explain(job.class).await)
    }

    /// Stops: hands out no more leases, answers those who wait for one that there is none, ends the streams of followers
    /// and watchers, and closes the store. What workers run they go on running, and report to the next coordinator.
    ///
    /// The answer says whether everything had stopped within `deadline`.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        let orderly = async {
            while tasks.join_next().await.is_some() {}
            self.shared.followed.ended().await;
            self.shared.keeping.close();
            self.shared.keeping.wait().await;
            self.shared.store.close().await;
        };
        tokio::select! {
            biased;
            () = orderly => true,
            () = self.shared.clock.sleep(deadline) => false,
        }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator").field("store", &self.shared.store).finish_non_exhaustive()
    }
}

#[async_trait]
impl Services for Coordinator {
    fn as_user(&self, principal: UserPrincipal) -> Arc<dyn JobService> {
        Coordinator::as_user(self, principal)
    }

    fn as_worker(&self, principal: WorkerPrincipal) -> Arc<dyn WorkerService> {
        Coordinator::as_worker(self, principal)
    }

    async fn health(&self) -> Result<(), Error> {
        self.shared.store.next_due().await?;
        Ok(())
    }
}

impl Shared {
    fn random(&self) -> MutexGuard<'_, StdRng> {
        lock(&self.random)
    }
}

/// Locks; a thread that panicked while it held the lock left nothing half done that matters here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
