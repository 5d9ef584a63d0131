//! How many containers of an image are to be ready, from when they were asked for.

use std::collections::VecDeque;
use std::time::Duration;

/// Requests that come within this count as one burst: refilling takes about as long for a few.
const BURST: Duration = Duration::from_secs(1);

/// When containers of one image were asked for, in bursts.
#[derive(Debug)]
pub(super) struct Demand {
    idle: Duration,
    /// When each began, and how many it was for. Only those that a later one does not outdo, so that there are few.
    bursts: VecDeque<(Duration, usize)>,
}

impl Demand {
    /// What was asked for longer ago than `idle` is of the past.
    pub(super) fn new(idle: Duration) -> Self {
        Self { idle, bursts: VecDeque::new() }
    }

    /// One is asked for.
    pub(super) fn note(&mut self, now: Duration) {
        match self.bursts.back_mut() {
            Some((began, count)) if now.saturating_sub(*began) < BURST => *count += 1,
            _ => self.bursts.push_back((now, 1)),
        }
        let newest = self.bursts.back().map_or(0, |(_, count)| *count);
        let last = self.bursts.pop_back();
        while self.bursts.back().is_some_and(|(_, count)| *count <= newest) {
            self.bursts.pop_back();
        }
        self.bursts.extend(last);
    }

    /// As many as the largest burst of late was for; the last one counts for as long as the others.
    pub(super) fn wanted(&mut self, now: Duration) -> usize {
        while self.bursts.front().is_some_and(|(began, _)| now.saturating_sub(*began) > self.idle + BURST) {
            self.bursts.pop_front();
        }
        self.bursts.front().map_or(0, |(_, count)| *count)
    }

    /// When one was last asked for.
    pub(super) fn last(&self) -> Duration {
        self.bursts.back().map_or(Duration::ZERO, |(began, _)| *began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_largest_burst_of_late_counts() {
        let mut demand = Demand::new(at(60_000));
        assert_eq!(demand.wanted(at(0)), 0);
        demand.note(at(0));
        assert_eq!(demand.wanted(at(10)), 1);
        for i in 0..5 {
            demand.note(at(10_000 + i * 100));
        }
        demand.note(at(20_000));
        assert_eq!(demand.wanted(at(20_000)), 5);
        assert_eq!(demand.wanted(at(71_100)), 1, "the burst is over a minute old");
        assert_eq!(demand.wanted(at(81_100)), 0, "nothing was asked for in a minute");
        assert_eq!(demand.last(), Duration::ZERO);
    }

    #[test]
    fn what_is_remembered_stays_small() {
        let mut demand = Demand::new(at(1_000_000_000));
        for i in 0..10_000 {
            demand.note(at(i * 2_000));
        }
        assert_eq!(demand.bursts.len(), 1);
    }
}
