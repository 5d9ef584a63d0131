//! Who gets what: mathematics over what waits and who is idle.

use std::fmt;

use crate::id::WorkerId;
use crate::job::Class;

mod fifo;
mod queues;
mod workers;

pub use fifo::FifoScheduler;
pub use queues::Queues;
pub use workers::{Idle, Load, Obstacle, Offer, Workers};

/// Decides which jobs go to which workers. Synchronous and pure: the same view gives the same plan.
///
/// A placement is a suggestion. The coordinator claims by compare-and-set; what another was faster with only means
/// another round. A plan may be partial: the coordinator asks again until a plan is empty.
///
/// # What an implementation promises
/// - Placements fit: no worker is given more jobs than it [`Idle::wants`], nor more than it has free, and none that it
///   has an [`Obstacle`] for.
/// - Work that fits nowhere blocks nothing that fits.
/// - An empty plan means that no queued job of the view fits any idle worker.
pub trait Scheduler: fmt::Debug + Send + Sync + 'static {
    /// Placements for what waits in `view`.
    fn plan(&self, view: &View<'_>) -> Vec<Placement>;
}

/// What a scheduler decides on: the heads of the queues, by class, and the idle workers, by load.
///
/// Kept up to date as things change; making one costs nothing.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What waits.
    pub queues: &'a Queues,
    /// Who asks for work.
    pub workers: &'a Workers,
}

/// The first `jobs` jobs of a class's queue (after those of earlier placements) go to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Which class.
    pub class: Class,
    /// Which worker.
    pub worker: WorkerId,
    /// How many.
    pub jobs: usize,
}
