//! First come, first served: strictly within a class, the oldest head first across classes; to the least loaded worker.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::iter::Peekable;

use super::{Idle, Load, Placement, Scheduler, View};
use crate::id::WorkerId;
use crate::job::Class;

/// First come, first served: strictly within a class, the oldest head first across classes; to the least loaded
/// worker. Priority comes before age.
#[derive(Debug, Clone, Copy, Default)]
pub struct FifoScheduler;

impl Scheduler for FifoScheduler {
    fn plan(&self, view: &View<'_>) -> Vec<Placement> {
        let mut queues: Vec<_> = view
            .queues
            .by_head()
            .map(|(class, places)| Waiting { class, places, workers: view.workers.asking_for(class).peekable() })
            .collect();
        let mut heads: BinaryHeap<_> = queues
            .iter_mut()
            .enumerate()
            .filter_map(|(i, queue)| queue.places.next().map(|place| Reverse((place, i))))
            .collect();
        let mut plan = Plan { view, given: HashMap::new(), by_load: BTreeSet::new(), placements: BTreeMap::new() };
        while let Some(Reverse((_, i))) = heads.pop() {
            let Some(queue) = queues.get_mut(i) else { continue };
            // A class that fits nowhere now will not fit later in this plan: what is free only gets less.
            if plan.place(i, queue.class, &mut queue.workers)
                && let Some(place) = queue.places.next()
            {
                heads.push(Reverse((place, i)));
            }
        }
        plan.placements
            .into_iter()
            .filter_map(|((i, worker), jobs)| {
                Some(Placement { class: queues.get(i)?.class.clone(), worker: worker.clone(), jobs })
            })
            .collect()
    }
}

struct Waiting<'a, P, W: Iterator> {
    class: &'a Class,
    places: P,
    workers: Peekable<W>,
}

/// A plan in the making: the view, less what was given away already.
struct Plan<'v> {
    view: &'v View<'v>,
    /// What workers that were given something have left.
    given: HashMap<&'v WorkerId, Idle>,
    /// The same workers, least loaded first.
    by_load: BTreeSet<(Load, &'v WorkerId)>,
    placements: BTreeMap<(usize, &'v WorkerId), usize>,
}

impl<'v> Plan<'v> {
    /// Gives one job of a class to the least loaded worker that it fits; `untouched` are workers for the class
    /// by load, perhaps with some that were given something since.
    fn place(
        &mut self,
        queue: usize,
        class: &Class,
        untouched: &mut Peekable<impl Iterator<Item = (Load, &'v WorkerId)>>,
    ) -> bool {
        let demand = class.demand();
        let fresh = loop {
            match untouched.peek() {
                None => break None,
                Some((load, worker)) => {
                    let idle = self.view.workers.idle(worker).filter(|idle| idle.obstacle(demand).is_none());
                    match idle {
                        Some(idle) if !self.given.contains_key(worker) => break Some((*load, *worker, idle)),
                        _ => untouched.next(),
                    };
                }
            }
        };
        let touched =
            self.by_load.iter().take_while(|(load, _)| fresh.is_none_or(|(least, ..)| *load < least)).find_map(
                |(load, worker)| {
                    let idle = self.given.get(worker)?;
                    let may = self.view.workers.may_ever(worker, demand) && idle.obstacle(demand).is_none();
                    may.then_some((*load, *worker, *idle))
                },
            );
        let Some((load, worker, idle)) = touched.or(fresh) else { return false };
        let left = idle.less(demand);
        self.by_load.remove(&(load, worker));
        self.by_load.insert((left.load(), worker));
        self.given.insert(worker, left);
        *self.placements.entry((queue, worker)).or_default() += 1;
        true
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::executor::Kind;
    use crate::id::{JobId, Owner};
    use crate::job::{Job, JobSpec, Life, State};
    use crate::scheduler::{Offer, Queues, Workers};
    use crate::time::Timestamp;

    pub(crate) fn job(n: u64, priority: i8, labels: &[&str]) -> Job {
        let mut spec = JobSpec::shell("true");
        spec.priority = priority;
        spec.labels = labels.iter().map(|&l| l.to_owned()).collect();
        Job {
            id: JobId::from_bytes(u128::from(n).to_be_bytes()),
            owner: Owner::local(),
            created: Timestamp::from_millis(0),
            class: Class::of(&spec),
            spec: Arc::new(spec),
            life: Life::starting(State::Queued { since: Timestamp::from_millis(0) }),
            version: 0,
        }
    }

    fn with_cpu(mut job: Job, cpu_millis: u32) -> Job {
        let mut spec = (*job.spec).clone();
        spec.resources.cpu_millis = Some(cpu_millis);
        job.class = Class::of(&spec);
        job.spec = Arc::new(spec);
        job
    }

    pub(crate) fn offer(slots: u32, labels: &[&str]) -> Offer {
        Offer {
            labels: labels.iter().map(|&l| l.to_owned()).collect(),
            kinds: [(Kind::Process, false)].into(),
            collects: true,
            cpu_millis: 2_000,
            memory_mb: 1_024,
            gpus: 0,
            slots: Some(slots),
        }
    }

    fn ask(workers: &mut Workers, name: &str, offer: Offer, wants: usize) -> WorkerId {
        let id: WorkerId = name.parse().unwrap();
        workers.put(&id, offer, Vec::new());
        workers.set_wants(&id, wants);
        id
    }

    fn plan(queues: &Queues, workers: &Workers) -> BTreeMap<(String, String), usize> {
        FifoScheduler
            .plan(&View { queues, workers })
            .into_iter()
            .map(|p| ((p.class.key().to_owned(), p.worker.to_string()), p.jobs))
            .collect()
    }

    #[test]
    fn jobs_are_spread_over_the_least_loaded() {
        let mut queues = Queues::default();
        let mut workers = Workers::new(1_000);
        ask(&mut workers, "a", offer(4, &[]), 4);
        ask(&mut workers, "b", offer(4, &[]), 4);
        (0..4).for_each(|n| queues.add(Arc::new(job(n, 0, &[]))));
        assert_eq!(plan(&queues, &workers).into_values().collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn the_oldest_head_goes_first_across_classes() {
        let mut queues = Queues::default();
        let mut workers = Workers::new(1_000);
        ask(&mut workers, "a", offer(4, &["x"]), 2);
        [job(1, 0, &[]), job(2, 0, &["x"]), job(3, 0, &[]), job(4, 5, &["x"])]
            .into_iter()
            .for_each(|j| queues.add(Arc::new(j)));
        let plan = plan(&queues, &workers);
        assert_eq!(plan.into_values().collect::<Vec<_>>(), [1, 1], "priority 5 first, then the oldest");
    }

    #[test]
    fn what_fits_nowhere_blocks_nobody() {
        let mut queues = Queues::default();
        let mut workers = Workers::new(1_000);
        ask(&mut workers, "a", offer(4, &[]), 4);
        queues.add(Arc::new(job(1, 100, &["gpu"])));
        queues.add(Arc::new(with_cpu(job(2, 0, &[]), 9_000)));
        queues.add(Arc::new(job(3, 0, &[])));
        assert_eq!(plan(&queues, &workers).into_values().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn what_is_reserved_is_not_given_twice() {
        let mut queues = Queues::default();
        let mut workers = Workers::new(1_000);
        ask(&mut workers, "a", offer(8, &[]), 8);
        (0..4).for_each(|n| queues.add(Arc::new(with_cpu(job(n, 0, &[]), 900))));
        assert_eq!(plan(&queues, &workers).into_values().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_worker_that_offers_anew_asks_under_its_new_offer_only() {
        let mut queues = Queues::default();
        let mut workers = Workers::new(1_000);
        let a = ask(&mut workers, "a", offer(4, &["x"]), 1);
        workers.put(&a, offer(4, &["y"]), Vec::new());
        queues.add(Arc::new(job(1, 0, &["x"])));
        assert_eq!(plan(&queues, &workers).len(), 0);
        queues.add(Arc::new(job(2, 0, &["y"])));
        assert_eq!(plan(&queues, &workers).len(), 1);
        workers.remove(&a);
        assert_eq!(plan(&queues, &workers).len(), 0);
    }

    #[test]
    fn a_worker_that_neither_asks_nor_holds_is_forgotten_after_a_while() {
        let mut workers = Workers::new(1_000);
        let (asks, holds) = (ask(&mut workers, "asks", offer(4, &[]), 1), ask(&mut workers, "holds", offer(4, &[]), 0));
        let silent = ask(&mut workers, "silent", offer(4, &[]), 0);
        let job = job(1, 0, &[]);
        workers.hold(&holds, job.id, &job.class);
        (0..3).for_each(|_| workers.forget_silent(2));
        assert_eq!([asks, holds, silent].map(|worker| workers.knows(&worker)), [true, true, false]);
    }

    proptest! {
        /// Placements fit, nothing that fits is left, and no class is served before the other's older head.
        #[test]
        fn plans_fit_and_leave_nothing_that_fits(
            jobs in prop::collection::vec((0u64..200, -2i8..3, 0usize..3, prop::option::of(100u32..2_500)), 0..40),
            asking in prop::collection::vec((1u32..6, 0usize..3, 0usize..6), 0..6),
        ) {
            let labels = [&[][..], &["x"][..], &["x", "y"][..]];
            let mut queues = Queues::default();
            let mut waiting: BTreeMap<_, usize> = BTreeMap::new();
            let unique: BTreeMap<u64, _> = jobs.into_iter().map(|j| (j.0, j)).collect();
            for (n, priority, label, cpu) in unique.into_values() {
                let mut job = job(n, priority, labels[label]);
                if let Some(cpu) = cpu {
                    job = with_cpu(job, cpu);
                }
                *waiting.entry(job.class.clone()).or_default() += 1;
                queues.add(Arc::new(job));
            }
            let mut workers = Workers::new(1_000);
            for (i, (slots, label, wants)) in asking.into_iter().enumerate() {
                ask(&mut workers, &format!("w{i}"), offer(slots, labels[label]), wants);
            }
            let plan = FifoScheduler.plan(&View { queues: &queues, workers: &workers });
            for placement in plan {
                for _ in 0..placement.jobs {
                    let idle = workers.idle(&placement.worker).unwrap();
                    prop_assert_eq!(idle.obstacle(placement.class.demand()), None);
                    prop_assert!(workers.may_ever(&placement.worker, placement.class.demand()));
                    let job = queues.take(&placement.class, 1, None, |_| true).remove(0);
                    workers.hold(&placement.worker, job.id, &job.class);
                    workers.set_wants(&placement.worker, idle.wants - 1);
                    *waiting.get_mut(&placement.class).unwrap() -= 1;
                }
            }
            for (class, _) in waiting.into_iter().filter(|(_, left)| *left > 0) {
                for (_, worker) in workers.asking_for(&class) {
                    prop_assert!(workers.idle(worker).unwrap().obstacle(class.demand()).is_some());
                }
            }
        }
    }
}
