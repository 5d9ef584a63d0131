//! The workers that a coordinator knows: what they offer, what they hold, and who asks for work.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::executor::{Capabilities, Kind, Limit};
use crate::id::{JobId, WorkerId};
use crate::job::{Class, Demand, Network};
use crate::service::Registration;

/// What a worker offers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offer {
    /// Its labels.
    pub labels: BTreeSet<String>,
    /// What it runs jobs in, and whether it can keep a process from the network.
    pub kinds: BTreeMap<Kind, bool>,
    /// Whether it collects outputs. One of an earlier protocol version does not know of them.
    pub collects: bool,
    /// Thousandths of a processor.
    pub cpu_millis: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Graphics processors, for jobs in containers.
    pub gpus: u32,
    /// How many jobs at once, for measuring its load; `None` if it did not say. It bounds nothing: asking is capacity. What a
    /// worker holds by the store includes what it has reported and not been answered for, and leases that never
    /// reached it; it knows better how many slots are free.
    pub slots: Option<u32>,
}

impl From<&Registration> for Offer {
    fn from(registration: &Registration) -> Self {
        let kinds = match &registration.executors {
            // A worker of an earlier protocol version has both, and promises nothing.
            None => [(Kind::Process, false), (Kind::Docker, true)].into(),
            Some(executors) => {
                // A container has no network unless it is given one.
                let can_isolate = |e: &Capabilities| e.kind == Kind::Docker || e.limits.contains(&Limit::NoNetwork);
                executors.iter().map(|e| (e.kind, can_isolate(e))).collect()
            }
        };
        Self {
            labels: registration.labels.clone(),
            kinds,
            collects: registration.executors.is_some(),
            cpu_millis: registration.cpu_count.saturating_mul(1_000),
            memory_mb: registration.total_memory_mb,
            gpus: registration.gpus(),
            slots: registration.slots,
        }
    }
}

impl Offer {
    /// What keeps this worker from ever running a job with this demand.
    pub fn obstacle(&self, demand: &Demand) -> Option<Obstacle> {
        if let Some(label) = demand.labels.iter().find(|label| !self.labels.contains(*label)) {
            return Some(Obstacle::LacksLabel(label.clone()));
        }
        match self.kinds.get(&demand.kind) {
            None => return Some(Obstacle::LacksExecutor(demand.kind)),
            Some(false) if demand.network == Some(Network::None) => return Some(Obstacle::LacksNoNetwork),
            Some(_) => {}
        }
        if demand.outputs && !self.collects {
            return Some(Obstacle::CollectsNoOutputs);
        }
        if demand.resources.cpu_millis.is_some_and(|cpu| cpu > self.cpu_millis) {
            return Some(Obstacle::TooFewProcessors);
        }
        if demand.resources.memory_mb.is_some_and(|memory| memory > self.memory_mb) {
            return Some(Obstacle::TooLittleMemory);
        }
        if demand.resources.gpus.is_some_and(|gpus| gpus > self.gpus) {
            return Some(Obstacle::TooFewGpus);
        }
        None
    }
}

/// Why a worker can't run a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Obstacle {
    /// It does not have a label that the job asks for.
    LacksLabel(String),
    /// It does not run this kind of job.
    LacksExecutor(Kind),
    /// It can't keep a process from the network.
    LacksNoNetwork,
    /// It is of an earlier protocol version, which knows of no outputs.
    CollectsNoOutputs,
    /// It does not have that many processors.
    TooFewProcessors,
    /// It does not have that much memory.
    TooLittleMemory,
    /// It does not have that many graphics processors.
    TooFewGpus,
    /// Its processors are reserved by what it runs.
    ProcessorsTaken,
    /// Its memory is reserved by what it runs.
    MemoryTaken,
    /// Its graphics processors are reserved by what it runs.
    GpusTaken,
    /// It does not ask for work.
    NotAsking,
    /// It says that it drains or is broken.
    TakesNone,
    /// It holds as many jobs as a worker may.
    HoldsTooMany,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LacksLabel(label) => write!(f, "it does not have the label {label:?}"),
            Self::LacksExecutor(Kind::Process) => f.write_str("it does not run processes"),
            Self::LacksExecutor(Kind::Docker) => f.write_str("it does not run containers"),
            Self::LacksNoNetwork => f.write_str("it can't keep a process from the network"),
            Self::CollectsNoOutputs => f.write_str("it collects no outputs"),
            Self::TooFewProcessors => f.write_str("it does not have that many processors"),
            Self::TooLittleMemory => f.write_str("it does not have that much memory"),
            Self::TooFewGpus => f.write_str("it does not have that many graphics processors"),
            Self::ProcessorsTaken => f.write_str("its processors are reserved by what it runs"),
            Self::MemoryTaken => f.write_str("its memory is reserved by what it runs"),
            Self::GpusTaken => f.write_str("its graphics processors are reserved by what it runs"),
            Self::NotAsking => f.write_str("it does not ask for work"),
            Self::TakesNone => f.write_str("it says that it drains or is broken"),
            Self::HoldsTooMany => f.write_str("it holds as many jobs as a worker may"),
        }
    }
}

/// How full a worker is: jobs it holds, in thousandths of its slots (of its processors where it names no slots).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Load(u64);

/// What a worker has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle {
    /// How many jobs it asks for.
    pub wants: usize,
    /// How many jobs it holds.
    pub holds: usize,
    /// How many it can hold, for measuring its load.
    pub slots: usize,
    /// Thousandths of a processor that nothing reserves.
    pub cpu_millis: u32,
    /// Memory in MiB that nothing reserves.
    pub memory_mb: u64,
    /// Graphics processors that nothing reserves.
    pub gpus: u32,
}

impl Idle {
    /// Why a job does not fit now, if it does not.
    pub fn obstacle(&self, demand: &Demand) -> Option<Obstacle> {
        if self.wants == 0 {
            return Some(Obstacle::NotAsking);
        }
        if demand.resources.cpu_millis.is_some_and(|cpu| cpu > self.cpu_millis) {
            return Some(Obstacle::ProcessorsTaken);
        }
        if demand.resources.memory_mb.is_some_and(|memory| memory > self.memory_mb) {
            return Some(Obstacle::MemoryTaken);
        }
        if demand.resources.gpus.is_some_and(|gpus| gpus > self.gpus) {
            return Some(Obstacle::GpusTaken);
        }
        None
    }

    /// What is left when the worker is given such a job too.
    #[must_use]
    pub fn less(mut self, demand: &Demand) -> Self {
        self.wants = self.wants.saturating_sub(1);
        self.holds += 1;
        self.cpu_millis = self.cpu_millis.saturating_sub(demand.resources.cpu_millis.unwrap_or(0));
        self.memory_mb = self.memory_mb.saturating_sub(demand.resources.memory_mb.unwrap_or(0));
        self.gpus = self.gpus.saturating_sub(demand.resources.gpus.unwrap_or(0));
        self
    }

    /// How full it is.
    pub fn load(&self) -> Load {
        Load(self.holds as u64 * 1_000 / (self.slots as u64).max(1))
    }
}

/// The workers that a coordinator knows.
#[derive(Debug)]
pub struct Workers {
    /// How many jobs a worker may hold, whatever it asks for.
    most: usize,
    known: HashMap<WorkerId, Known>,
    /// Workers that ask for work, by what they offer and then by load, so that a class is matched against
    /// offers and not against workers.
    asking: HashMap<Arc<Offer>, BTreeSet<(Load, WorkerId)>>,
}

#[derive(Debug)]
struct Known {
    offer: Arc<Offer>,
    held: HashMap<JobId, Class>,
    cpu_millis: u32,
    memory_mb: u64,
    gpus: u32,
    wants: usize,
    /// The same for every worker.
    most: usize,
    /// False of one that says it drains or is broken.
    takes_jobs: bool,
    /// How many sweeps in a row have found that it neither asks for nor holds anything.
    silent_for: u32,
}

impl Known {
    /// Why it can't be given a job now that it could run.
    fn obstacle(&self, demand: &Demand) -> Option<Obstacle> {
        if !self.takes_jobs {
            return Some(Obstacle::TakesNone);
        }
        if self.held.len() >= self.most {
            return Some(Obstacle::HoldsTooMany);
        }
        self.idle().obstacle(demand)
    }

    fn idle(&self) -> Idle {
        let processors = (self.offer.cpu_millis / 1_000).max(1) as usize;
        let slots = self.offer.slots.map_or(processors, |slots| slots as usize);
        let wants = if self.takes_jobs { self.wants } else { 0 };
        Idle {
            wants: wants.min(self.most.saturating_sub(self.held.len())),
            holds: self.held.len(),
            slots,
            cpu_millis: self.offer.cpu_millis.saturating_sub(self.cpu_millis),
            memory_mb: self.offer.memory_mb.saturating_sub(self.memory_mb),
            gpus: self.offer.gpus.saturating_sub(self.gpus),
        }
    }
}

impl Workers {
    /// None yet; each may come to hold `most` jobs.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, known: HashMap::new(), asking: HashMap::new() }
    }

    /// What this worker has left; `None` if it is not known or asks for nothing.
    pub fn idle(&self, worker: &WorkerId) -> Option<Idle> {
        self.known.get(worker).map(Known::idle).filter(|idle| idle.wants > 0)
    }

    /// Whether a worker could ever run a job with this demand.
    pub fn may_ever(&self, worker: &WorkerId, demand: &Demand) -> bool {
        self.known.get(worker).is_some_and(|known| known.offer.obstacle(demand).is_none())
    }

    /// Workers that ask for work and could ever run such a job, least loaded first. Lazy: what is not read costs
    /// nothing.
    pub fn asking_for<'a>(&'a self, class: &'a Class) -> impl Iterator<Item = (Load, &'a WorkerId)> + 'a {
        let mut sources: Vec<_> = self
            .asking
            .iter()
            .filter(|(offer, _)| offer.obstacle(class.demand()).is_none())
            .map(|(_, workers)| workers.iter())
            .collect();
        let mut next: BinaryHeap<_> = sources
            .iter_mut()
            .enumerate()
            .filter_map(|(i, source)| source.next().map(|(load, worker)| Reverse((*load, worker, i))))
            .collect();
        std::iter::from_fn(move || {
            let Reverse((load, worker, i)) = next.pop()?;
            if let Some((load, worker)) = sources.get_mut(i).and_then(Iterator::next) {
                next.push(Reverse((*load, worker, i)));
            }
            Some((load, worker))
        })
    }

    /// Why each known worker can or can't run a job of this class now.
    pub fn explain(&self, class: &Class) -> Vec<(WorkerId, Option<Obstacle>)> {
        let mut workers: Vec<_> = self
            .known
            .iter()
            .map(|(id, known)| {
                let ever = known.offer.obstacle(class.demand());
                (id.clone(), ever.or_else(|| known.obstacle(class.demand())))
            })
            .collect();
        workers.sort_by(|a, b| a.0.cmp(&b.0));
        workers
    }

    pub(crate) fn knows(&self, worker: &WorkerId) -> bool {
        self.known.contains_key(worker)
    }

    /// A worker has come, or come again with another offer. What it was known to hold it still holds.
    pub(crate) fn put(&mut self, worker: &WorkerId, offer: Offer, held: Vec<(JobId, Class)>) {
        // A fleet offers the same thousands of times.
        let offer = self.asking.get_key_value(&offer).map_or_else(|| Arc::new(offer), |(known, _)| Arc::clone(known));
        let most = self.most;
        let known = self.known.entry(worker.clone()).or_insert_with(|| Known {
            offer: Arc::clone(&offer),
            held: HashMap::new(),
            cpu_millis: 0,
            memory_mb: 0,
            gpus: 0,
            wants: 0,
            most,
            takes_jobs: true,
            silent_for: 0,
        });
        known.silent_for = 0;
        if known.offer != offer {
            let entry = (known.idle().load(), worker.clone());
            let before = std::mem::replace(&mut known.offer, offer);
            Self::leave(&mut self.asking, &before, &entry);
        }
        self.change(worker, |known| {
            for (job, class) in held {
                known.hold(job, class);
            }
        });
    }

    pub(crate) fn remove(&mut self, worker: &WorkerId) {
        self.change(worker, |known| known.wants = 0);
        self.known.remove(worker);
    }

    /// Forgets workers that have neither asked for nor held anything for `sweeps` calls of this. One that comes back is
    /// read from the store.
    pub(crate) fn forget_silent(&mut self, sweeps: u32) {
        self.known.retain(|_, known| {
            let is_silent = known.wants == 0 && known.held.is_empty();
            known.silent_for = if is_silent { known.silent_for + 1 } else { 0 };
            known.silent_for <= sweeps
        });
    }

    /// How many jobs a worker asks for now.
    pub(crate) fn set_wants(&mut self, worker: &WorkerId, wants: usize) {
        self.change(worker, |known| known.wants = wants);
    }

    /// Whether a worker takes jobs, by its own word.
    pub(crate) fn set_takes_jobs(&mut self, worker: &WorkerId, takes_jobs: bool) {
        if self.known.get(worker).is_some_and(|known| known.takes_jobs != takes_jobs) {
            self.change(worker, |known| known.takes_jobs = takes_jobs);
        }
    }

    pub(crate) fn hold(&mut self, worker: &WorkerId, job: JobId, class: &Class) {
        self.change(worker, |known| known.hold(job, class.clone()));
    }

    pub(crate) fn release(&mut self, worker: &WorkerId, job: JobId) {
        self.change(worker, |known| known.release(job));
    }

    /// Every job that a worker is known to hold.
    pub(crate) fn held(&self, worker: &WorkerId) -> impl Iterator<Item = JobId> {
        self.known.get(worker).into_iter().flat_map(|known| known.held.keys().copied())
    }

    /// Changes a worker and keeps its place among those that ask.
    fn change(&mut self, worker: &WorkerId, change: impl FnOnce(&mut Known)) {
        let Some(known) = self.known.get_mut(worker) else { return };
        let before = known.idle();
        change(known);
        let after = known.idle();
        if before.wants > 0 && (after.wants == 0 || before.load() != after.load()) {
            Self::leave(&mut self.asking, &known.offer, &(before.load(), worker.clone()));
        }
        if after.wants > 0 {
            let entry = (after.load(), worker.clone());
            self.asking.entry(Arc::clone(&known.offer)).or_default().insert(entry);
        }
    }

    fn leave(
        asking: &mut HashMap<Arc<Offer>, BTreeSet<(Load, WorkerId)>>,
        offer: &Arc<Offer>,
        entry: &(Load, WorkerId),
    ) {
        if let Some(workers) = asking.get_mut(offer) {
            workers.remove(entry);
            if workers.is_empty() {
                asking.remove(offer);
            }
        }
    }
}

impl Known {
    fn hold(&mut self, job: JobId, class: Class) {
        let resources = class.demand().resources;
        if self.held.insert(job, class).is_none() {
            self.cpu_millis = self.cpu_millis.saturating_add(resources.cpu_millis.unwrap_or(0));
            self.memory_mb = self.memory_mb.saturating_add(resources.memory_mb.unwrap_or(0));
            self.gpus = self.gpus.saturating_add(resources.gpus.unwrap_or(0));
        }
    }

    fn release(&mut self, job: JobId) {
        if let Some(class) = self.held.remove(&job) {
            let resources = class.demand().resources;
            self.cpu_millis = self.cpu_millis.saturating_sub(resources.cpu_millis.unwrap_or(0));
            self.memory_mb = self.memory_mb.saturating_sub(resources.memory_mb.unwrap_or(0));
            self.gpus = self.gpus.saturating_sub(resources.gpus.unwrap_or(0));
        }
    }
}
