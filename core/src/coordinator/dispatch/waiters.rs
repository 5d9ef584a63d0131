//! Those who ask for jobs, in the order they came.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::sync::oneshot;

use crate::Error;
use crate::id::WorkerId;
use crate::service::LeasedJob;

/// A worker asks for jobs.
pub(super) struct Ask {
    /// Which ask, for withdrawing it.
    pub(super) ticket: u64,
    pub(super) worker: WorkerId,
    /// How many jobs at the most.
    pub(super) max: usize,
    /// Whether to answer now, even if there is nothing.
    pub(super) at_once: bool,
    pub(super) reply: oneshot::Sender<Result<Vec<LeasedJob>, Error>>,
}

/// Those who ask, by worker and in the order they came.
#[derive(Default)]
pub(super) struct Waiters {
    by_worker: BTreeMap<WorkerId, VecDeque<Ask>>,
    by_ticket: HashMap<u64, WorkerId>,
}

impl Waiters {
    pub(super) fn is_empty(&self) -> bool {
        self.by_ticket.is_empty()
    }

    pub(super) fn add(&mut self, ask: Ask) {
        self.by_ticket.insert(ask.ticket, ask.worker.clone());
        self.by_worker.entry(ask.worker.clone()).or_default().push_back(ask);
    }

    /// How many jobs a worker asks for in all. Forgets asks whose asker has gone.
    pub(super) fn wants(&mut self, worker: &WorkerId) -> usize {
        let Some(asks) = self.by_worker.get_mut(worker) else { return 0 };
        asks.retain(|ask| {
            let is_gone = ask.reply.is_closed();
            if is_gone {
                self.by_ticket.remove(&ask.ticket);
            }
            !is_gone
        });
        let wants = asks.iter().map(|ask| ask.max).fold(0, usize::saturating_add);
        if asks.is_empty() {
            self.by_worker.remove(worker);
        }
        wants
    }

    /// The worker's oldest ask.
    pub(super) fn next(&mut self, worker: &WorkerId) -> Option<Ask> {
        let asks = self.by_worker.get_mut(worker)?;
        let ask = asks.pop_front()?;
        if asks.is_empty() {
            self.by_worker.remove(worker);
        }
        self.by_ticket.remove(&ask.ticket);
        Some(ask)
    }

    /// Takes back an ask, unless it was answered.
    pub(super) fn withdraw(&mut self, ticket: u64) -> Option<Ask> {
        let worker = self.by_ticket.remove(&ticket)?;
        let asks = self.by_worker.get_mut(&worker)?;
        let at = asks.iter().position(|ask| ask.ticket == ticket)?;
        let ask = asks.remove(at);
        if asks.is_empty() {
            self.by_worker.remove(&worker);
        }
        ask
    }

    /// Whether anybody wants an answer now.
    pub(super) fn want_now(&self) -> bool {
        self.by_worker.values().flatten().any(|ask| ask.at_once)
    }

    /// Takes every ask that wants its answer now.
    pub(super) fn at_once(&mut self) -> Vec<Ask> {
        let tickets: Vec<_> =
            self.by_worker.values().flatten().filter(|ask| ask.at_once).map(|ask| ask.ticket).collect();
        tickets.into_iter().filter_map(|ticket| self.withdraw(ticket)).collect()
    }

    /// Takes every ask of a worker.
    pub(super) fn all_of(&mut self, worker: &WorkerId) -> Vec<Ask> {
        std::iter::from_fn(|| self.next(worker)).collect()
    }

    /// Every worker that asks.
    pub(super) fn workers(&self) -> Vec<WorkerId> {
        self.by_worker.keys().cloned().collect()
    }
}
