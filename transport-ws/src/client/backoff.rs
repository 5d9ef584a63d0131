//! The pauses before something that failed is tried again.

use std::time::Duration;

use super::Options;

/// Pauses, each twice the one before. Each is less up to half of it, so that clients that lost the same server don't come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(options: &Options) -> Self {
        Self { first: options.backoff, longest: options.max_backoff, next: options.backoff }
    }

    /// It worked: the next pause is a first one.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    /// The next pause.
    pub(super) fn pause(&mut self) -> Duration {
        self.drawn(share())
    }

    /// The same with a share of its random half.
    fn drawn(&mut self, share: f64) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(0.5 + share / 2.0)
    }
}

/// A number from 0 to 1.
fn share() -> f64 {
    use rand::{RngExt as _, SeedableRng as _};
    // Without the system's randomness the pauses are just less random.
    let random = rand::rngs::StdRng::try_from_rng(&mut rand::rngs::SysRng);
    random.map_or(0.5, |mut random: rand::rngs::StdRng| random.random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_never_fall_below_half() {
        let mut options = Options::default();
        (options.backoff, options.max_backoff) = (Duration::from_millis(100), Duration::from_secs(1));
        for share in [0.0, 0.5, 1.0] {
            let mut backoff = Backoff::new(&options);
            for bound in [100, 200, 400, 800, 1_000, 1_000] {
                assert_eq!(backoff.drawn(share), Duration::from_millis(bound).mul_f64(0.5 + share / 2.0));
            }
            backoff.reset();
            assert_eq!(backoff.drawn(1.0), Duration::from_millis(100));
        }
    }

    #[test]
    fn chance_is_within_its_bounds() {
        assert!((0..100).all(|_| (0.0..=1.0).contains(&share())));
    }
}
