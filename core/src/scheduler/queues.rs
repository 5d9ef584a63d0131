//! The heads of the queues, by class: a bounded window of what the store holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::job::{Class, Job, Place};

/// The heads of the queues, by class.
///
/// The queue lives in the store; this holds at most [`Queues::WINDOW`] jobs of a class and about
/// [`Queues::WEIGHT`] bytes in all. What is beyond is read again when the window runs empty.
#[derive(Debug, Default)]
pub struct Queues {
    windows: BTreeMap<Class, Window>,
    /// Every class with a job in its window, by its head.
    heads: BTreeSet<(Place, Class)>,
    /// Estimated bytes in all windows.
    weight: usize,
}

#[derive(Debug, Default)]
struct Window {
    jobs: BTreeMap<Place, Arc<Job>>,
    /// Whether the store may hold jobs of the class that are not here. They come after all that are.
    more: bool,
}

impl Queues {
    /// How many jobs of a class are held at the most.
    pub const WINDOW: usize = 1_024;
    /// How many bytes of jobs are held at the most, by estimate, beyond one job for each class.
    pub const WEIGHT: usize = 32 << 20;

    /// Classes by their head's place, with the places of their jobs in order.
    pub fn by_head(&self) -> impl Iterator<Item = (&Class, impl Iterator<Item = Place>)> {
        self.heads.iter().filter_map(|(_, class)| {
            let window = self.windows.get(class)?;
            Some((class, window.jobs.keys().copied()))
        })
    }

    /// Adds a job that is queued.
    pub(crate) fn add(&mut self, job: Arc<Job>) {
        let class = job.class.clone();
        let place = job.place();
        let old_head = self.head(&class);
        let window = self.windows.entry(class.clone()).or_default();
        let is_behind = window.jobs.last_key_value().is_none_or(|(last, _)| place > *last);
        if is_behind && window.more {
            return;
        }
        self.weight += weight(&job);
        if let Some(old) = window.jobs.insert(place, job) {
            self.weight -= weight(&old);
        }
        while window.jobs.len() > Self::WINDOW || (self.weight > Self::WEIGHT && window.jobs.len() > 1) {
            if let Some((_, last)) = window.jobs.pop_last() {
                self.weight -= weight(&last);
            }
            window.more = true;
        }
        self.move_head(&class, old_head);
    }

    /// Takes the first job of a class.
    pub(crate) fn take(&mut self, class: &Class) -> Option<Arc<Job>> {
        let old_head = self.head(class);
        let window = self.windows.get_mut(class)?;
        let (_, job) = window.jobs.pop_first()?;
        self.weight -= weight(&job);
        if window.jobs.is_empty() && !window.more {
            self.windows.remove(class);
        }
        self.move_head(class, old_head);
        Some(job)
    }

    /// Says that the store holds jobs of a class that are not here, wherever they belong.
    pub(crate) fn forget(&mut self, class: &Class) {
        let old_head = self.head(class);
        let window = self.windows.entry(class.clone()).or_default();
        self.weight -= window.jobs.values().map(|job| weight(job)).sum::<usize>();
        window.jobs.clear();
        window.more = true;
        self.move_head(class, old_head);
    }

    /// Drops the windows of classes that have no queued jobs.
    pub(crate) fn retain(&mut self, is_queued: impl Fn(&Class) -> bool) {
        let gone: Vec<_> = self.windows.keys().filter(|class| !is_queued(class)).cloned().collect();
        for class in gone {
            self.forget(&class);
            self.windows.remove(&class);
        }
    }

    /// Whether so much is held that what nobody can run should be let go.
    pub(crate) fn is_heavy(&self) -> bool {
        self.weight > Self::WEIGHT / 2 || self.heads.len() > Self::WINDOW
    }

    /// Empties the windows of classes that are not to be kept.
    pub(crate) fn shed(&mut self, keep: impl Fn(&Class) -> bool) {
        let shed: Vec<_> = self.heads.iter().map(|(_, class)| class).filter(|class| !keep(class)).cloned().collect();
        shed.iter().for_each(|class| self.forget(class));
    }

    /// Replaces a window that ran empty by what the store holds; `more` says whether it holds more than that.
    pub(crate) fn refill(&mut self, class: &Class, jobs: Vec<Job>, more: bool) {
        if jobs.is_empty() && !more {
            self.windows.remove(class);
            return;
        }
        self.windows.insert(class.clone(), Window::default());
        for job in jobs {
            self.add(Arc::new(job));
        }
        if let Some(window) = self.windows.get_mut(class) {
            window.more |= more;
        }
    }

    /// Classes whose window is empty though the store may hold more.
    pub(crate) fn hollow(&self) -> impl Iterator<Item = &Class> {
        self.windows.iter().filter(|(_, window)| window.more && window.jobs.is_empty()).map(|(class, _)| class)
    }

    /// Whether what the store says of a class's queue shows that something is missing here.
    pub(crate) fn lacks(&self, class: &Class, head: Place, queued: u64) -> bool {
        match self.windows.get(class) {
            None => true,
            Some(window) => match window.jobs.first_key_value() {
                None => !window.more,
                Some((first, _)) => head < *first || (!window.more && (window.jobs.len() as u64) < queued),
            },
        }
    }

    fn head(&self, class: &Class) -> Option<Place> {
        self.windows.get(class)?.jobs.first_key_value().map(|(place, _)| *place)
    }

    fn move_head(&mut self, class: &Class, old: Option<Place>) {
        let new = self.head(class);
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.heads.remove(&(old, class.clone()));
        }
        if let Some(new) = new {
            self.heads.insert((new, class.clone()));
        }
    }
}

/// About how many bytes a job takes in memory: what its submitter can make long, and a flat rest.
fn weight(job: &Job) -> usize {
    job.spec.weight() + 512
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fifo::tests::job;

    fn places(queues: &Queues) -> Vec<u64> {
        queues.by_head().flat_map(|(_, places)| places.map(|p| u64::from(p.id.as_bytes()[15]))).collect()
    }

    #[test]
    fn what_is_behind_an_incomplete_window_stays_in_the_store() {
        let mut queues = Queues::default();
        let class = job(1, 0, &[]).class.clone();
        queues.refill(&class, vec![job(5, 0, &[])], true);
        queues.add(Arc::new(job(9, 0, &[])));
        queues.add(Arc::new(job(3, 0, &[])));
        assert_eq!(places(&queues), [3, 5]);
        assert!(queues.take(&class).is_some() && queues.take(&class).is_some());
        assert_eq!(queues.hollow().count(), 1);
        queues.refill(&class, vec![job(9, 0, &[])], false);
        assert_eq!(places(&queues), [9]);
        assert_eq!(queues.hollow().count(), 0);
    }

    #[test]
    fn a_window_is_bounded_and_keeps_the_head() {
        let mut queues = Queues::default();
        for n in (0..2 * Queues::WINDOW as u64).rev() {
            queues.add(Arc::new(job(n, 0, &[])));
        }
        let (_, places) = queues.by_head().next().unwrap();
        assert_eq!(places.count(), Queues::WINDOW);
        assert_eq!(queues.take(&job(0, 0, &[]).class).unwrap().id, job(0, 0, &[]).id);
    }

    #[test]
    fn heavy_jobs_leave_but_the_head() {
        let mut queues = Queues::default();
        for n in 0..8 {
            let mut heavy = job(n, 0, &[]);
            heavy.spec = Arc::new(crate::job::JobSpec::shell("x".repeat(Queues::WEIGHT)));
            queues.add(Arc::new(heavy));
        }
        assert_eq!(places(&queues), [0]);
        assert!(queues.weight < 2 * Queues::WEIGHT);
    }

    #[test]
    fn what_nobody_can_run_is_shed_and_what_is_not_queued_is_dropped() {
        let mut queues = Queues::default();
        let (plain, labelled) = (job(1, 0, &[]), job(2, 0, &["x"]));
        queues.add(Arc::new(plain.clone()));
        queues.add(Arc::new(labelled.clone()));
        queues.shed(|class| *class == plain.class);
        assert_eq!(places(&queues), [1]);
        assert_eq!(queues.hollow().collect::<Vec<_>>(), [&labelled.class], "the store is read when somebody asks");
        queues.retain(|class| *class == labelled.class);
        assert_eq!((places(&queues), queues.weight), (vec![], 0));
        assert!(queues.lacks(&plain.class, plain.place(), 1));
    }

    #[test]
    fn what_the_store_knows_better_is_seen() {
        let mut queues = Queues::default();
        let one = job(5, 0, &[]);
        assert!(queues.lacks(&one.class, one.place(), 1));
        queues.add(Arc::new(one.clone()));
        assert!(!queues.lacks(&one.class, one.place(), 1));
        assert!(queues.lacks(&one.class, one.place(), 2));
        assert!(queues.lacks(&one.class, job(4, 0, &[]).place(), 1));
        queues.forget(&one.class);
        assert!(!queues.lacks(&one.class, one.place(), 2));
    }
}
