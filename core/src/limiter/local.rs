//! The embedded default: counts in this process's memory.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use governor::Quota;
use governor::middleware::StateInformationMiddleware;

use self::bounded::BoundedStore;
use super::{Decision, Limit, RateLimiter, Unavailable};
use crate::time::{Clock, SystemClock};

mod bounded;

/// Limits requests by the generic cell rate algorithm: `max` at once, and then one more each `window / max`.
///
/// # Memory
/// Each limit remembers at most [`LocalLimiter::DEFAULT_KEYS`] keys (about 100 bytes each, and the key), and forgets those
/// that may make all their requests again. When it is full, new keys **share one budget** of `max` until others are forgotten:
/// somebody who makes up keys slows down other newcomers, but neither those that are known nor this process.
/// Limits themselves are settings, not requests: nobody outside can make more of them.
pub struct LocalLimiter {
    clock: Arc<dyn Clock>,
    keys: usize,
    limits: RwLock<HashMap<Limit, Arc<Bucket>>>,
}

struct Bucket {
    limiter: governor::RateLimiter<String, BoundedStore, Uptime, StateInformationMiddleware>,
    store: BoundedStore,
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

    fn bucket(&self, limit: &Limit, max: NonZeroU32) -> Arc<Bucket> {
        if let Some(bucket) = self.limits.read().unwrap_or_else(PoisonError::into_inner).get(limit) {
            return Arc::clone(bucket);
        }
        let mut limits = self.limits.write().unwrap_or_else(PoisonError::into_inner);
        let bucket = limits.entry(limit.clone()).or_insert_with(|| {
            // A window so long or so short that the algorithm's nanoseconds don't fit is as good as the nearest that does.
            let window = limit.window.clamp(Duration::from_nanos(u64::from(limit.max)), LONGEST_WINDOW);
            let quota = Quota::with_period(window / limit.max).unwrap_or_else(|| Quota::per_second(max));
            let store = BoundedStore::new(self.keys);
            let clock = Uptime(Arc::clone(&self.clock));
            let limiter = governor::RateLimiter::new(quota.allow_burst(max), store.clone(), clock);
            Arc::new(Bucket { limiter, store })
        });
        Arc::clone(bucket)
    }
}

/// Ten years.
const LONGEST_WINDOW: Duration = Duration::from_hours(10 * 365 * 24);

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
        let Some(max) = NonZeroU32::new(limit.max) else {
            return Ok(Decision { retry_after: None, remaining: u32::MAX, reset: Duration::ZERO });
        };
        let bucket = self.bucket(limit, max);
        let now = self.clock.uptime();
        if bucket.store.wants_pruning(now) {
            bucket.limiter.retain_recent();
            bucket.store.pruned(now);
        }
        Ok(match bucket.limiter.check_key(&key.to_owned()) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let reset = state.quota().replenish_interval() * max.get().saturating_sub(remaining);
                Decision { retry_after: None, remaining, reset }
            }
            Err(not_until) => {
                // At least a nanosecond, so that a caller that waits this long and no longer never spins.
                let wait = not_until.wait_time_from(now).max(Duration::from_nanos(1));
                let interval = not_until.quota().replenish_interval();
                Decision { retry_after: Some(wait), remaining: 0, reset: wait + interval * (max.get() - 1) }
            }
        })
    }
}

/// Our clock, as governor wants to be told the time. [`Clock::uptime`], because the wall clock may be set back.
#[derive(Debug, Clone)]
struct Uptime(Arc<dyn Clock>);

impl governor::clock::Clock for Uptime {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.uptime()
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
    async fn max_pass_at_once_and_then_one_each_interval() {
        let (clock, limiter) = limiter();
        for remaining in [2, 1, 0] {
            let decision = limiter.check(&LIMIT, "a").await.unwrap();
            let reset = Duration::from_secs(3 - u64::from(remaining));
            assert_eq!(decision, Decision { retry_after: None, remaining, reset });
        }
        let second = Duration::from_secs(1);
        let refused = Decision { retry_after: Some(second), remaining: 0, reset: 3 * second };
        assert_eq!(limiter.check(&LIMIT, "a").await.unwrap(), refused);
        assert_eq!(limiter.check(&LIMIT, "a").await.unwrap(), refused, "what is refused is not counted");
        clock.advance(second);
        assert!(passes(&limiter, &LIMIT, "a").await);
        assert!(!passes(&limiter, &LIMIT, "a").await);
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
        let max = NonZeroU32::new(LIMIT.max).unwrap();
        assert!(limiter.bucket(&LIMIT, max).limiter.len() <= 101);
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
