//! The heads of the queues, by class: a bounded window of what the store holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::id::JobId;
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
    /// Where each job is.
    places: HashMap<JobId, (Class, Place)>,
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
        self.places.insert(job.id, (class.clone(), place));
        if let Some(old) = window.jobs.insert(place, job) {
            self.weight -= weight(&old);
        }
        while window.jobs.len() > Self::WINDOW || (self.weight > Self::WEIGHT && window.jobs.len() > 1) {
            if let Some((_, last)) = window.jobs.pop_last() {
                self.weight -= weight(&last);
                self.places.remove(&last.id);
            }
            window.more = true;
        }
        self.move_head(&class, old_head);
    }

    /// Notes that the store has a job of a class at this place, of which nothing else is known here.
    pub(crate) fn notice(&mut self, class: &Class, place: Place) {
        match self.windows.get_mut(class) {
            None => {
                self.windows.insert(class.clone(), Window { more: true, ..Window::default() });
            }
            Some(window) if window.jobs.contains_key(&place) => {}
            Some(window) if window.jobs.last_key_value().is_some_and(|(last, _)| place < *last) => self.forget(class),
            Some(window) => window.more = true,
        }
    }

    /// Drops a job that has a later version by now, as which it is not queued.
    pub(crate) fn pass(&mut self, id: JobId, version: u64) {
        let Some((class, place)) = self.places.get(&id).cloned() else { return };
        let old_head = self.head(&class);
        let Some(window) = self.windows.get_mut(&class) else { return };
        if window.jobs.get(&place).is_none_or(|job| job.version >= version) {
            return;
        }
        if let Some(job) = window.jobs.remove(&place) {
            self.weight -= weight(&job);
            self.places.remove(&id);
        }
        if window.jobs.is_empty() && !window.more {
            self.windows.remove(&class);
        }
        self.move_head(&class, old_head);
    }

    /// Takes jobs of a class, at most `count`: the first ones, unless `skip` is given. Then, of those in the window that have the
    /// first's priority, the ones that are `own` come first, and up to `skip` of the rest are left where they are, as far as that leaves
    /// enough.
    pub(crate) fn take(
        &mut self,
        class: &Class,
        count: usize,
        skip: Option<usize>,
        own: impl Fn(JobId) -> bool,
    ) -> Vec<Arc<Job>> {
        let old_head = self.head(class);
        let Some(window) = self.windows.get_mut(class) else { return Vec::new() };
        let mut taken = Vec::with_capacity(count.min(window.jobs.len()));
        if let Some(skip) = skip
            && let Some((&Place { priority, .. }, _)) = window.jobs.first_key_value()
        {
            let alike = window.jobs.keys().take_while(|place| place.priority == priority);
            let (mut places, rest): (Vec<Place>, Vec<Place>) = alike.partition(|place| own(place.id));
            places.truncate(count);
            let wanted = count - places.len();
            let skip = skip.min(rest.len().saturating_sub(wanted));
            places.extend(rest.into_iter().skip(skip).take(wanted));
            taken.extend(places.iter().filter_map(|place| window.jobs.remove(place)));
        }
        while taken.len() < count
            && let Some((_, job)) = window.jobs.pop_first()
        {
            taken.push(job);
        }
        for job in &taken {
            self.weight -= weight(job);
            self.places.remove(&job.id);
        }
        if window.jobs.is_empty() && !window.more {
            self.windows.remove(class);
        }
        self.move_head(class, old_head);
        taken
    }

    /// Says that the store holds jobs of a class that are not here, wherever they belong.
    pub(crate) fn forget(&mut self, class: &Class) {
        let old_head = self.head(class);
        let window = self.windows.entry(class.clone()).or_default();
        for job in std::mem::take(&mut window.jobs).into_values() {
            self.weight -= weight(&job);
            self.places.remove(&job.id);
        }
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

    fn any(_: JobId) -> bool {
        true
    }

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
        assert_eq!(queues.take(&class, 2, None, any).len(), 2);
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
        assert_eq!(queues.take(&job(0, 0, &[]).class, 1, None, any)[0].id, job(0, 0, &[]).id);
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
    fn what_others_queue_is_read_when_its_turn_comes() {
        let mut queues = Queues::default();
        let one = job(5, 0, &[]);
        queues.notice(&one.class, one.place());
        assert_eq!(queues.hollow().collect::<Vec<_>>(), [&one.class]);
        queues.refill(&one.class, vec![one.clone()], false);
        queues.notice(&one.class, one.place());
        assert!(!queues.take(&one.class, 1, None, any).is_empty() && queues.hollow().next().is_none(), "it was known");
        queues.refill(&one.class, vec![one.clone()], false);
        queues.notice(&one.class, job(7, 0, &[]).place());
        assert_eq!((places(&queues), queues.take(&one.class, 9, None, any).len()), (vec![5], 1));
        assert_eq!(queues.hollow().count(), 1, "what comes behind is read then");
        queues.refill(&one.class, vec![one.clone()], false);
        queues.notice(&one.class, job(3, 0, &[]).place());
        assert_eq!((places(&queues), queues.hollow().count()), (vec![], 1), "what comes before is read at once");
    }

    #[test]
    fn jobs_may_be_taken_from_behind_the_head_but_not_of_a_lesser_priority() {
        let mut queues = Queues::default();
        let class = job(1, 0, &[]).class.clone();
        (1..=6).for_each(|n| queues.add(Arc::new(job(n, 5, &[]))));
        queues.add(Arc::new(job(9, 0, &[])));
        let take = |queues: &mut Queues, count, skip| -> Vec<u8> {
            queues.take(&class, count, Some(skip), |_| false).iter().map(|job| job.id.as_bytes()[15]).collect()
        };
        assert_eq!(take(&mut queues, 2, 3), [4, 5]);
        assert_eq!(take(&mut queues, 2, 99), [3, 6], "as far as that leaves enough");
        assert_eq!(take(&mut queues, 3, 1), [1, 2, 9], "and nothing is held back");
        assert_eq!((queues.weight, take(&mut queues, 1, 1)), (0, vec![]));
    }

    #[test]
    fn an_own_part_comes_before_the_others() {
        let mut queues = Queues::default();
        let class = job(1, 0, &[]).class.clone();
        (1..=6).for_each(|n| queues.add(Arc::new(job(n, 5, &[]))));
        queues.add(Arc::new(job(8, 0, &[])));
        let even = |id: JobId| id.as_bytes()[15].is_multiple_of(2);
        let take = |queues: &mut Queues, count| -> Vec<u8> {
            queues.take(&class, count, Some(1), even).iter().map(|job| job.id.as_bytes()[15]).collect()
        };
        assert_eq!(take(&mut queues, 2), [2, 4]);
        assert_eq!(take(&mut queues, 2), [6, 3], "and of the rest what lies further behind");
        assert_eq!(take(&mut queues, 3), [1, 5, 8]);
        assert!(queues.places.is_empty() && queues.windows.is_empty());
    }

    #[test]
    fn what_others_have_claimed_is_dropped() {
        let mut queues = Queues::default();
        let class = job(1, 0, &[]).class.clone();
        queues.refill(&class, vec![job(1, 0, &[]), Job { version: 4, ..job(2, 0, &[]) }], false);
        queues.pass(job(1, 0, &[]).id, 1);
        queues.pass(job(2, 0, &[]).id, 3);
        queues.pass(job(3, 0, &[]).id, 9);
        assert_eq!(places(&queues), [2], "it is queued again since");
        queues.pass(job(2, 0, &[]).id, 5);
        assert_eq!((places(&queues), queues.weight, queues.windows.len()), (vec![], 0, 0));
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
