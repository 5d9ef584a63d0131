//! The embedded default: counts in this process's memory.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;

use self::counts::Counts;
use self::window::Window;
use super::{Decision, Limit, RateLimiter, Unavailable};
use crate::time::{Clock, SystemClock};

mod counts;
mod window;

/// Limits requests by a sliding window: of one key, never more than `max` pass within any time as long as the window, and
/// all of `max` may be made at once.
///
/// Requests that come within an eighth of a window are remembered together and forgotten together, a window after the last
/// of them: whoever asks steadily may be held to a little less than `max`, nobody ever gets more.
///
/// # Memory
/// Each limit remembers at most [`LocalLimiter::DEFAULT_KEYS`] keys (about 100 bytes each, and the key, and up to 200 bytes
/// more for one that asks all the time), and forgets those that may make all their requests again. When it is full, new keys
/// **share one budget** of `max` until others are forgotten: somebody who makes up keys slows down other newcomers, but neither
/// those that are known nor this process.
/// Limits themselves are settings, not requests: nobody outside can make more of them.
pub struct LocalLimiter {
    clock: Arc<dyn Clock>,
    keys: usize,
    limits: RwLock<HashMap<Limit, Arc<Mutex<Counts>>>>,
}

impl LocalLimiter {
    /// How many keys a limit remembers unless told otherwise.
    pub const DEFAULT_KEYS: usize = 100_000;

    /// A limiter by the machine's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// A limiter by this clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, keys: Self::DEFAULT_KEYS, limits: RwLock::default() }
    }

    /// Remembers at most this many keys for each limit.
    #[must_use]
    pub fn with_keys(mut self, keys: usize) -> Self {
        self.keys = keys.max(1);
        self
    }

    fn counts(&self, limit: &Limit) -> Arc<Mutex<Counts>> {
        if let Some(counts) = self.limits.read().unwrap_or_else(PoisonError::into_inner).get(limit) {
            return Arc::clone(counts);
        }
        let mut limits = self.limits.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(limits.entry(limit.clone()).or_insert_with(|| Arc::new(Mutex::new(Counts::new(self.keys)))))
    }
}

impl Default for LocalLimiter {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LocalLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalLimiter").field("keys", &self.keys).finish_non_exhaustive()
    }
}

#[async_trait]
impl RateLimiter for LocalLimiter {
    async fn check(&self, limit: &Limit, key: &str) -> Result<Decision, Unavailable> {
        if limit.max == 0 {
            return Ok(Decision { retry_after: None, remaining: u32::MAX, reset: Duration::ZERO });
        }
        let window = Window::of(limit);
        let counts = self.counts(limit);
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that a key's requests are counted in the order of their times. The uptime, because the wall
        // clock may be set back.
        let now = self.clock.uptime();
        Ok(counts.of(key, now, window).count(now, window))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    const LIMIT: Limit = Limit { name: "test", max: 3, window: Duration::from_secs(3) };

    fn limiter() -> (ManualClock, LocalLimiter) {
        let clock = ManualClock::default();
        (clock.clone(), LocalLimiter::with_clock(Arc::new(clock)))
    }

    async fn passes(limiter: &LocalLimiter, limit: &Limit, key: &str) -> bool {
        limiter.check(limit, key).await.unwrap().retry_after.is_none()
    }

    #[tokio::test]
    async fn max_pass_at_once_and_again_a_window_later() {
        let (clock, limiter) = limiter();
        for remaining in [2, 1, 0] {
            let decision = limiter.check(&LIMIT, "a").await.unwrap();
            assert_eq!(decision, Decision { retry_after: None, remaining, reset: LIMIT.window });
        }
        clock.advance(Duration::from_secs(1));
        let left = Duration::from_secs(2);
        let refused = Decision { retry_after: Some(left), remaining: 0, reset: left };
        assert_eq!(limiter.check(&LIMIT, "a").await.unwrap(), refused);
        assert_eq!(limiter.check(&LIMIT, "a").await.unwrap(), refused, "what is refused is not counted");
        clock.advance(left);
        for _ in 0..3 {
            assert!(passes(&limiter, &LIMIT, "a").await);
        }
        clock.advance(Duration::from_secs(100));
        for _ in 0..3 {
            assert!(passes(&limiter, &LIMIT, "a").await);
        }
        assert!(!passes(&limiter, &LIMIT, "a").await, "unused requests are not saved up");
    }

    #[tokio::test]
    async fn keys_and_limits_have_nothing_to_do_with_one_another() {
        let (_clock, limiter) = limiter();
        let other = Limit { name: "other", ..LIMIT };
        for _ in 0..3 {
            assert!(passes(&limiter, &LIMIT, "a").await);
        }
        assert!(!passes(&limiter, &LIMIT, "a").await);
        assert!(passes(&limiter, &LIMIT, "b").await);
        assert!(passes(&limiter, &other, "a").await);
    }

    #[tokio::test]
    async fn zero_is_no_limit() {
        let (_clock, limiter) = limiter();
        let none = Limit { max: 0, ..LIMIT };
        for _ in 0..1_000 {
            assert!(passes(&limiter, &none, "a").await);
        }
    }

    #[tokio::test]
    async fn any_limit_is_bearable() {
        let (clock, limiter) = limiter();
        for window in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            for max in [1, 2, u32::MAX] {
                let odd = Limit { name: "odd", max, window };
                assert!(passes(&limiter, &odd, "a").await);
                clock.advance(Duration::from_millis(1));
                limiter.check(&odd, "a").await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn made_up_keys_neither_grow_memory_nor_harm_known_ones() {
        let (clock, limiter) = limiter();
        let limiter = limiter.with_keys(100);
        assert!(passes(&limiter, &LIMIT, "known").await);
        let mut passed = 0;
        for i in 0..10_000 {
            passed += usize::from(passes(&limiter, &LIMIT, &format!("made-up-{i}")).await);
        }
        assert_eq!(limiter.counts(&LIMIT).lock().unwrap().len(), 100);
        assert_eq!(passed, 99 + 3, "those that found no room share one budget");
        assert!(passes(&limiter, &LIMIT, "known").await);
        clock.advance(LIMIT.window);
        for i in 0..50 {
            assert!(passes(&limiter, &LIMIT, &format!("later-{i}")).await, "the old ones are forgotten");
        }
    }

    #[test]
    fn concurrent_requests_are_counted_exactly() {
        let limiter = limiter().1;
        let many = Limit { name: "many", max: 1_000, window: Duration::from_secs(1) };
        let count = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut passed = 0;
                for _ in 0..500 {
                    passed += usize::from(passes(&limiter, &many, "a").await);
                }
                passed
            })
        };
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1_000);
    }
}
