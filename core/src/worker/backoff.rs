//! The wait before something that failed is tried again.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Exponential waits with jitter: each is drawn from the upper half of a bound that doubles, so that many workers that lost
/// the same coordinator do not come back at the same moment.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    tries: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest: longest.max(first), tries: 0 }
    }

    /// What is used for calls to the coordinator that have no rhythm of their own.
    pub(super) fn for_calls() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(10))
    }

    /// The next wait; no shorter than what the other side asked for.
    pub(super) fn next(&mut self, asked: Option<Duration>, random: &mut impl Rng) -> Duration {
        let bound = self.first.saturating_mul(1 << self.tries.min(20)).min(self.longest);
        self.tries = self.tries.saturating_add(1);
        bound.mul_f64(0.5 + 0.5 * random.random::<f64>()).max(asked.unwrap_or_default())
    }

    /// It worked: the next wait is a first one.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_never_fall_below_half() {
        let mut random = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for bound in [100, 200, 400, 800, 1_000, 1_000] {
            let wait = backoff.next(None, &mut random);
            let bound = Duration::from_millis(bound);
            assert!(wait >= bound / 2 && wait <= bound, "{wait:?}");
        }
        for _ in 0..100 {
            backoff.next(None, &mut random);
        }
        assert_eq!(backoff.next(Some(Duration::from_secs(9)), &mut random), Duration::from_secs(9));
        backoff.reset();
        assert!(backoff.next(None, &mut random) <= Duration::from_millis(100));
    }
}
