//! Whether the peer is still there: how long it has said nothing, and taken nothing.

use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::time::{Clock, Sleep};

use crate::silence::{self, Silence};

/// How many bytes a peer has to take in the time for it, where more than that waits.
const LEAST: u64 = 16 * 1024;

/// Watches a peer. It looks at times and not at each message, so an idle peer that beats wakes nobody for this more than once an
/// interval.
pub(super) struct Pulse {
    clock: Arc<dyn Clock>,
    silence: Silence,
    write_timeout: Duration,
    /// Since when something waits for it, and how much it had taken by then.
    waiting: Option<(Duration, u64)>,
    /// How much it has taken.
    taken: u64,
    wake: Sleep,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    /// It has been silent for two intervals, and was asked.
    Silent,
    /// It has taken too little in the time that it has.
    Stuck,
}

impl Pulse {
    pub(super) fn new(clock: Arc<dyn Clock>, interval: Duration, write_timeout: Duration) -> Self {
        let (silence, wake) = (Silence::new(interval, clock.uptime()), clock.sleep(interval.min(write_timeout)));
        Self { clock, silence, write_timeout, waiting: None, taken: 0, wake }
    }

    /// The peer has said something, or can't be heard because it is not read.
    pub(super) fn heard(&mut self) {
        self.silence.heard(self.clock.uptime());
    }

    /// Notes how much waits to be taken, and how much was taken in all.
    pub(super) fn waits(&mut self, unflushed: usize, taken: u64) {
        self.taken = taken;
        if unflushed == 0 {
            self.waiting = None;
        } else if self.waiting.is_none() {
            self.waiting = Some((self.clock.uptime(), taken));
        }
    }

    /// Completes when it is time to look. Cancellation-safe.
    pub(super) async fn beat(&mut self) {
        (&mut self.wake).await;
    }

    /// What is to be done now.
    pub(super) fn due(&mut self) -> Due {
        let now = self.clock.uptime();
        let mut left = self.write_timeout;
        if let Some((since, taken)) = &mut self.waiting {
            let waited = now.saturating_sub(*since);
            if waited < self.write_timeout {
                left -= waited;
            } else if self.taken - *taken >= LEAST {
                // It is slow, and there.
                (*since, *taken) = (now, self.taken);
            } else {
                return Due::Stuck;
            }
        }
        let (due, next) = match self.silence.due(now) {
            silence::Due::Look(after) => (Due::Nothing, after),
            silence::Due::Ping(after) => (Due::Ping, after),
            silence::Due::Gone => (Due::Silent, Duration::ZERO),
        };
        self.wake = self.clock.sleep(next.min(left).max(Duration::from_millis(1)));
        due
    }
}

#[cfg(test)]
mod tests {
    use cmdexec_core::time::ManualClock;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pulse() -> (ManualClock, Pulse) {
        let clock = ManualClock::default();
        let pulse = Pulse::new(Arc::new(clock.clone()), 8 * SECOND, 30 * SECOND);
        (clock, pulse)
    }

    #[tokio::test]
    async fn a_silent_peer_is_pinged_once_and_then_given_up() {
        let (clock, mut pulse) = pulse();
        for (seconds, due) in
            [(9, Due::Nothing), (1, Due::Ping), (1, Due::Nothing), (4, Due::Nothing), (1, Due::Silent)]
        {
            clock.advance(seconds * SECOND);
            assert_eq!(pulse.due(), due, "after {seconds} s more");
        }
    }

    #[tokio::test]
    async fn a_peer_that_answers_lives() {
        let (clock, mut pulse) = pulse();
        for _ in 0..3 {
            clock.advance(10 * SECOND);
            pulse.beat().await;
            assert_eq!(pulse.due(), Due::Ping);
            pulse.heard();
        }
    }

    #[tokio::test]
    async fn a_peer_that_takes_too_little_is_given_up_however_much_it_says() {
        let (clock, mut pulse) = pulse();
        pulse.waits(1, 0);
        let mut taken = 0;
        // Slow, and never done.
        for _ in 0..20 {
            clock.advance(5 * SECOND);
            pulse.heard();
            taken += LEAST / 6 + 1;
            pulse.waits(7, taken);
            assert_eq!(pulse.due(), Due::Nothing);
        }
        pulse.waits(0, taken);
        pulse.waits(7, taken);
        clock.advance(29 * SECOND);
        pulse.heard();
        pulse.waits(7, taken + LEAST - 1);
        assert_eq!(pulse.due(), Due::Nothing, "its time is not over");
        clock.advance(SECOND);
        pulse.beat().await;
        assert_eq!(pulse.due(), Due::Stuck);
    }
}
