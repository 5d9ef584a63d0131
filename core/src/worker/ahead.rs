//! How many jobs to lease beyond the free slots, so that slots don't stand idle while the next jobs are asked for.

use std::time::Duration;

/// Twice what asking for jobs takes under load, a round trip and a commit on either side of it, so that half of what is ahead is there
/// while the other half is asked for. Jobs for about this time are leased ahead, so that jobs much longer than it are never: they would
/// wait here while another worker is idle.
const ASKING: Duration = Duration::from_millis(20);

/// How long a job may wait here for a slot before it goes back: those before it have turned out to be longer ones, and
/// another worker may be idle.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// How long attempts take of late.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// A moving average; `None` before the first.
    average: Option<Duration>,
    /// Whether the last answer brought all that was asked for, so that more jobs are likely to wait at the coordinator.
    is_deep: bool,
}

impl Ahead {
    /// An attempt has taken its slot for this long.
    pub(super) fn note(&mut self, took: Duration) {
        // An eighth of the weight to the newest, as TCP weighs round trips (RFC 6298); all of it to one that is longer than
        // everything before.
        self.average = Some(match self.average {
            Some(average) if took <= average * 8 => (average * 7 + took) / 8,
            _ => took,
        });
    }

    /// A question was answered: with all the jobs that were asked for, or with fewer.
    pub(super) fn answered(&mut self, in_full: bool) {
        self.is_deep = in_full;
    }

    /// How many jobs to lease beyond the free slots; at most four times the slots.
    pub(super) fn jobs(&self, slots: usize) -> usize {
        let Some(average) = self.average.filter(|_| self.is_deep) else { return 0 };
        let most = slots.saturating_mul(4);
        let in_time = ASKING.as_micros().saturating_mul(slots as u128).checked_div(average.as_micros());
        in_time.and_then(|jobs| usize::try_from(jobs).ok()).unwrap_or(most).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(took: impl IntoIterator<Item = u64>) -> Ahead {
        let mut ahead = Ahead::default();
        ahead.answered(true);
        took.into_iter().for_each(|millis| ahead.note(Duration::from_millis(millis)));
        ahead
    }

    #[test]
    fn only_short_jobs_are_leased_ahead() {
        assert_eq!(after([]).jobs(8), 0, "nothing is known");
        assert_eq!(after([1]).jobs(8), 32, "four times the slots at the most");
        assert_eq!(after([10]).jobs(8), 16);
        assert_eq!(after([40]).jobs(8), 4);
        assert_eq!(after([200]).jobs(8), 0);
        assert_eq!(after([0]).jobs(8), 32);
    }

    #[test]
    fn nothing_is_leased_ahead_of_a_queue_that_is_empty() {
        let mut ahead = after([1]);
        ahead.answered(false);
        assert_eq!(ahead.jobs(8), 0);
    }

    #[test]
    fn one_long_job_ends_it_at_once_and_short_ones_bring_it_back() {
        let short = [2; 50];
        assert_eq!(after(short.into_iter().chain([5_000])).jobs(8), 0);
        assert_eq!(after([5_000].into_iter().chain([2; 80])).jobs(8), 32);
    }
}
