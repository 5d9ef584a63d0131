//! The count of one key: when its requests of the last window passed.

use std::time::Duration;

use crate::limiter::{Decision, Limit};

/// Into how many groups at most a window's requests are put, and one more.
const GROUPS: u32 = 8;

/// A limit in numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    max: u32,
    length: Duration,
}

impl Window {
    pub(super) fn of(limit: &Limit) -> Self {
        Self { max: limit.max, length: limit.window }
    }
}

/// What passed within the last window, oldest first, in groups that are forgotten together.
#[derive(Debug, Default)]
pub(super) struct Passed(Vec<Group>);

#[derive(Debug, Clone, Copy)]
struct Group {
    first: Duration,
    last: Duration,
    count: u32,
}

impl Passed {
    /// Counts a request, unless it is one too many.
    pub(super) fn count(&mut self, now: Duration, Window { max, length }: Window) -> Decision {
        self.0.retain(|group| !group.is_over(now, length));
        let passed = self.0.iter().fold(0, |sum: u32, group| sum.saturating_add(group.count));
        let left = |group: &Group| group.last.saturating_add(length).saturating_sub(now);
        if passed >= max {
            let retry_after = self.0.first().map(left);
            return Decision { retry_after, remaining: 0, reset: self.0.last().map(left).unwrap_or_default() };
        }
        match self.0.last_mut() {
            Some(group) if now.saturating_sub(group.first) < length / GROUPS => {
                group.last = now;
                group.count += 1;
            }
            _ => {
                // One that asks once, and never again, costs no more than that.
                self.0.reserve_exact(1);
                self.0.push(Group { first: now, last: now, count: 1 });
            }
        }
        Decision { retry_after: None, remaining: max - passed - 1, reset: length }
    }

    /// Whether nothing of it counts any more.
    pub(super) fn is_forgotten(&self, now: Duration, Window { length, .. }: Window) -> bool {
        self.0.last().is_none_or(|group| group.is_over(now, length))
    }
}

impl Group {
    fn is_over(&self, now: Duration, length: Duration) -> bool {
        self.last.saturating_add(length) <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_window_ever_sees_more_than_max(max in 1_u32..20, gaps in prop::collection::vec(0_u64..400, 1..300)) {
            let window = Window { max, length: Duration::from_millis(1_000) };
            let (mut passed, mut now, mut times) = (Passed::default(), Duration::ZERO, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                let decision = passed.count(now, window);
                match decision.retry_after {
                    None => times.push(now),
                    Some(after) => {
                        prop_assert!(!after.is_zero() && after <= window.length && decision.reset >= after);
                        let mut later = Passed(passed.0.clone());
                        prop_assert!(later.count(now + after, window).retry_after.is_none(), "it may then");
                    }
                }
                prop_assert!(passed.0.len() <= GROUPS as usize + 1);
            }
            for (i, first) in times.iter().enumerate() {
                let within = times.iter().skip(i).take_while(|time| **time < *first + window.length).count();
                prop_assert!(within <= max as usize);
            }
        }
    }

    #[test]
    fn who_asks_steadily_gets_most_of_the_limit() {
        let window = Window { max: 100, length: Duration::from_secs(60) };
        let mut passed = Passed::default();
        let asked = (0..6_000).map(|i| Duration::from_millis(i * 100));
        let count = asked.filter(|now| passed.count(*now, window).retry_after.is_none()).count();
        assert!((850..=1_000).contains(&count), "{count} of 1,000 in ten windows");
    }
}
