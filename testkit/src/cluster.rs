//! A whole cluster in one test: coordinator, store and workers in one thread, under a clock that the simulation moves and
//! a seed that decides what goes wrong when.
//!
//! What is simulated is the world: time, crashes, outages, how long commands run and how they end. What runs in it is the
//! real coordinator and the real worker runtime.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a promise that does not hold panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::{FunctionExecutor, RunContext};
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::job::{Command, JobSpec, Outcome, Reason, Status};
use cmdexec_core::service::{Ended, JobServiceExt, JobView, Submission};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::time::{Clock, ManualClock};
use cmdexec_core::worker::{Worker, WorkerHandle};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::store::{Call, Fault, FaultyStore};

/// What happens in a simulation.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// How many workers there are at the beginning.
    pub workers: usize,
    /// How many steps things may go wrong in. Each moves the clock by up to 3 s.
    pub steps: usize,
}

/// What a simulation ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Jobs by their status.
    pub jobs: BTreeMap<Status, usize>,
    /// How many attempts were claimed in all.
    pub attempts: usize,
    /// How many workers were killed.
    pub killed: usize,
    /// How often the coordinator was.
    pub restarts: usize,
}

/// Runs a simulation to its end, when everything is healed and every job has ended.
///
/// # Panics
/// A promise does not hold: an acknowledged job is missing or never ends, has two results, ends otherwise than its command
/// did, or spends a budget that nobody charged.
pub async fn simulate(plan: &Plan) -> Summary {
    let mut world = World::new(plan).await;
    for _ in 0..plan.steps {
        world.step().await;
    }
    world.heal().await;
    world.judge().await
}

struct World {
    random: StdRng,
    clock: ManualClock,
    store: FaultyStore,
    /// `None` while it is down.
    coordinator: Option<Coordinator>,
    workers: BTreeMap<String, WorkerHandle>,
    work_dir: tempfile::TempDir,
    submitted: BTreeMap<JobId, JobSpec>,
    cancelled: BTreeSet<JobId>,
    runs: Runs,
    born: usize,
    killed: usize,
    restarts: usize,
}

/// Which attempts were really started, by job.
type Runs = Arc<Mutex<BTreeMap<JobId, Vec<u32>>>>;

impl World {
    async fn new(plan: &Plan) -> Self {
        let clock = ManualClock::default();
        let store = FaultyStore::new(Arc::new(MemoryStore::with_clock(Arc::new(clock.clone()))));
        let mut world = Self {
            random: StdRng::seed_from_u64(plan.seed),
            clock,
            store,
            coordinator: None,
            workers: BTreeMap::new(),
            work_dir: tempfile::tempdir().unwrap(),
            submitted: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            runs: Runs::default(),
            born: 0,
            killed: 0,
            restarts: 0,
        };
        world.start_coordinator().await;
        for _ in 0..plan.workers {
            world.start_worker().await;
        }
        world
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.random.next_u32() % bound
    }

    /// One thing happens, and then some time passes.
    async fn step(&mut self) {
        match self.below(20) {
            0..=8 => self.submit().await,
            9 => self.cancel().await,
            10 => self.kill_worker(),
            11 => self.start_worker().await,
            12 => self.drain_worker(),
            13 => self.store.set_down(true),
            14..=15 => self.store.set_down(false),
            16 => self.store.inject(Call::Update, Fault::LoseReply),
            17 => self.store.inject(Call::Update, Fault::Refuse),
            18 => self.store.inject(Call::AppendOutput, Fault::LoseReply),
            _ => self.restart_coordinator().await,
        }
        let millis = u64::from(self.below(3_000));
        self.pass(Duration::from_millis(millis)).await;
    }

    async fn start_coordinator(&mut self) {
        let builder = Coordinator::builder(self.store.clone()).clock(Arc::new(self.clock.clone()));
        let seed = u64::from(self.below(u32::MAX));
        // While the store is down it does not start; another step tries again.
        self.coordinator = builder.seed(seed).build().await.ok();
    }

    /// The workers go on with a coordinator that is no more, as if its address led nowhere, and those that come after
    /// find the new one. So its workers are killed with it, unless it restarts over the same services.
    async fn restart_coordinator(&mut self) {
        self.workers.clear();
        self.coordinator = None;
        self.restarts += 1;
        self.start_coordinator().await;
        self.start_worker().await;
    }

    async fn start_worker(&mut self) {
        let Some(coordinator) = &self.coordinator else { return self.start_coordinator().await };
        self.born += 1;
        let name = format!("w{}", self.born);
        let id: WorkerId = name.parse().unwrap();
        let (clock, runs) = (self.clock.clone(), Arc::clone(&self.runs));
        let executor = FunctionExecutor::new(move |context| run(context, clock.clone(), Arc::clone(&runs)));
        let worker = Worker::builder(coordinator.as_worker(id.clone()), executor)
            .id(id)
            .slots(2)
            .seed(self.born as u64)
            .clock(Arc::new(self.clock.clone()))
            .work_dir(self.work_dir.path().join(&name));
        // While the store is down it does not register.
        let mut starting = Box::pin(worker.start());
        for _ in 0..50 {
            if let std::task::Poll::Ready(started) = futures_util::poll!(&mut starting) {
                if let Ok(handle) = started {
                    self.workers.insert(name, handle);
                }
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn any_worker(&mut self) -> Option<String> {
        let count = u32::try_from(self.workers.len()).ok().filter(|&count| count > 0)?;
        let at = self.below(count) as usize;
        self.workers.keys().nth(at).cloned()
    }

    fn kill_worker(&mut self) {
        if let Some(name) = self.any_worker() {
            self.killed += 1;
            drop(self.workers.remove(&name));
        }
    }

    fn drain_worker(&mut self) {
        if let Some(name) = self.any_worker()
            && let Some(worker) = self.workers.get(&name)
        {
            worker.drain();
        }
    }

    async fn submit(&mut self) {
        let Some(coordinator) = &self.coordinator else { return };
        let jobs = coordinator.jobs();
        let (millis, code) = (self.below(8_000), i32::from(self.below(4) == 0));
        let mut spec = JobSpec::shell(format!("{millis} {code}"));
        spec.retries = self.below(3);
        spec.max_attempts = 1 + self.below(5);
        spec.exclusive = self.below(4) == 0;
        spec.priority = i8::try_from(self.below(3)).unwrap_or_default();
        let specs = vec![spec.clone(); 1 + self.below(3) as usize];
        if let Ok(accepted) = jobs.submit_batch(Submission { specs, idempotency_key: None }).await {
            self.submitted.extend(accepted.into_iter().map(|job| (job.id, spec.clone())));
        }
    }

    async fn cancel(&mut self) {
        let count = u32::try_from(self.submitted.len()).unwrap_or(u32::MAX);
        if count == 0 {
            return;
        }
        let at = self.below(count) as usize;
        let (Some(&id), Some(coordinator)) = (self.submitted.keys().nth(at), &self.coordinator) else { return };
        // Whatever the answer: a reply may be lost of what was done.
        self.cancelled.insert(id);
        let _ = coordinator.jobs().cancel(id).await;
    }

    /// Lets time pass, a little at a time, and everybody act in between.
    async fn pass(&mut self, time: Duration) {
        const TICK: Duration = Duration::from_millis(250);
        let mut left = time;
        while !left.is_zero() {
            let tick = left.min(TICK);
            left -= tick;
            self.clock.advance(tick);
            for _ in 0..40 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Nothing goes wrong any more, until every job has ended.
    async fn heal(&mut self) {
        self.store.set_down(false);
        if self.coordinator.is_none() {
            self.start_coordinator().await;
        }
        for _ in 0..3 {
            self.start_worker().await;
        }
        for _ in 0..600 {
            let stats = self.coordinator.as_ref().unwrap().jobs().stats().await;
            if let Ok(stats) = stats
                && stats.jobs.iter().all(|(status, count)| status.is_finished() || *count == 0)
            {
                return;
            }
            self.pass(Duration::from_secs(5)).await;
        }
        panic!("jobs have not ended within 50 minutes after everything was healed");
    }

    async fn judge(&mut self) -> Summary {
        let jobs = self.coordinator.as_ref().unwrap().jobs();
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut summary = Summary { jobs: BTreeMap::new(), attempts: 0, killed: self.killed, restarts: self.restarts };
        for (id, spec) in &self.submitted {
            let job = jobs.job(*id).await.expect("an acknowledged job is there");
            self.judge_job(&job, spec, runs.get(id).map_or(&[], Vec::as_slice));
            *summary.jobs.entry(job.status).or_default() += 1;
            summary.attempts += job.attempts.len();
        }
        summary
    }

    fn judge_job(&self, job: &JobView, spec: &JobSpec, runs: &[u32]) {
        let (_, code) = command(spec);
        let ended = |how: Ended| job.attempts.iter().filter(|attempt| attempt.outcome == Some(how)).count();
        assert!(ended(Ended::Completed) <= 1, "two results: {job:?}");
        let mut numbers = runs.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), runs.len(), "an attempt ran twice: {job:?}, {runs:?}");
        let last = job.attempts.last().and_then(|attempt| attempt.outcome);
        match job.status {
            Status::Completed => {
                assert_eq!((code, last), (0, Some(Ended::Completed)), "{job:?}");
                assert!(!runs.is_empty(), "it never ran: {job:?}");
            }
            Status::Cancelled => assert!(self.cancelled.contains(&job.id), "nobody asked: {job:?}"),
            Status::Failed => match job.reason {
                Some(Reason::ExitCode) => {
                    assert_ne!(code, 0, "{job:?}");
                    assert_eq!(ended(Ended::ExitCode), spec.retries as usize + 1, "{job:?}");
                }
                Some(Reason::WorkerLost) => assert_eq!(ended(Ended::WorkerLost), spec.max_attempts as usize, "{job:?}"),
                reason => panic!("{reason:?}: {job:?}"),
            },
            status => panic!("{status}: {job:?}"),
        }
    }
}

/// What a simulated command does: for how long it runs, and its exit code.
fn command(spec: &JobSpec) -> (Duration, i32) {
    let Command::Shell(line) = &spec.command else { panic!("not a simulated command") };
    let (millis, code) = line.split_once(' ').unwrap();
    (Duration::from_millis(millis.parse().unwrap()), code.parse().unwrap())
}

async fn run(context: RunContext, clock: ManualClock, runs: Runs) -> Outcome {
    runs.lock().unwrap_or_else(PoisonError::into_inner).entry(context.job).or_default().push(context.attempt);
    let (time, code) = command(&context.spec);
    tokio::select! {
        biased;
        () = clock.sleep(time) => Outcome::Exited { code },
        () = context.stop.cancelled() => Outcome::Stopped,
    }
}
