//! What registrations said that later answers depend on.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cmdexec_core::id::{Owner, WorkerId};
use cmdexec_core::service::{Registered, Registration, Role, Services, UserPrincipal};

/// How many workers are remembered; more, and all are forgotten and looked up again.
const MOST: usize = 100_000;

/// What is known of a worker.
#[derive(Debug, Clone, Copy)]
struct Facts {
    /// It speaks an earlier protocol version: it named no executors.
    older: bool,
    heartbeat_interval: Duration,
}

/// The workers that registered here.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<WorkerId, Facts>>);

impl Known {
    pub(super) fn registered(&self, registration: &Registration, registered: &Registered) {
        let facts =
            Facts { older: registration.executors.is_none(), heartbeat_interval: registered.heartbeat_interval };
        self.remember(registered.worker.clone(), facts);
    }

    /// How often a worker is expected to beat. After a restart the usual interval, until it registers again.
    pub(super) fn heartbeat_interval(&self, worker: &WorkerId) -> Duration {
        self.find(worker).map_or(Duration::from_secs(10), |facts| facts.heartbeat_interval)
    }

    /// Whether a worker knows only `command`. One that registered before this server started, or at another, is looked up:
    /// the service shows a worker that named no executors with all of them and no limits, and without slots.
    pub(super) async fn is_older(&self, worker: &WorkerId, services: &dyn Services) -> bool {
        if let Some(facts) = self.find(worker) {
            return facts.older;
        }
        let everybody = UserPrincipal { owner: Owner::local(), role: Role::Admin };
        let views = services.as_user(everybody).workers(Some(std::slice::from_ref(worker))).await;
        let Some(view) = views.ok().and_then(|views| views.into_iter().next()) else {
            // Every worker understands one line.
            return true;
        };
        let older = view.slots.is_none() && view.executors.iter().all(|executor| executor.limits.is_empty());
        self.remember(worker.clone(), Facts { older, heartbeat_interval: Duration::from_secs(10) });
        older
    }

    fn find(&self, worker: &WorkerId) -> Option<Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(worker).copied()
    }

    fn remember(&self, worker: WorkerId, facts: Facts) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(worker, facts);
    }
}
