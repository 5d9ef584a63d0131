//! When to try again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cmdexec_core::time::{Clock, SystemClock};
use rand::rngs::{StdRng, SysRng};
use rand::{RngExt, SeedableRng};

use super::Options;

/// Pauses that grow, until the time for them is over.
#[derive(Debug)]
pub(super) struct Retry<'a> {
    options: &'a Options,
    jitter: &'a Jitter,
    next: Duration,
    /// By the clock's uptime.
    until: Duration,
}

/// Chance, so that clients that lost the same server don't come back together.
#[derive(Debug)]
pub(super) struct Jitter(Mutex<StdRng>);

impl Jitter {
    pub(super) fn new() -> Self {
        // Without the system's randomness the pauses are just less random.
        Self(Mutex::new(StdRng::try_from_rng(&mut SysRng).unwrap_or_else(|_| StdRng::seed_from_u64(0))))
    }

    /// This long, less up to half of it.
    fn of(&self, pause: Duration) -> Duration {
        let share: f64 = self.0.lock().unwrap_or_else(PoisonError::into_inner).random();
        pause.mul_f64(0.5 + share / 2.0)
    }
}

impl<'a> Retry<'a> {
    pub(super) fn new(options: &'a Options, jitter: &'a Jitter, how_long: Duration) -> Self {
        Self { options, jitter, next: options.backoff, until: SystemClock.uptime().saturating_add(how_long) }
    }

    /// The pause before the next try; `None` if it would end after the time for tries. The server's word on when to come
    /// again is the least.
    pub(super) fn pause(&mut self, at_least: Option<Duration>) -> Option<Duration> {
        let pause = self.jitter.of(self.next).max(at_least.unwrap_or_default());
        self.next = (self.next * 2).min(self.options.max_backoff);
        (SystemClock.uptime().saturating_add(pause) <= self.until).then_some(pause)
    }
}
