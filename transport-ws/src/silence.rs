//! Whether a peer is still there, by how long it has said nothing.

use std::time::Duration;

/// A peer's silence. All times are uptimes, and arguments.
#[derive(Debug)]
pub(crate) struct Silence {
    interval: Duration,
    /// When the peer last said something.
    heard: Duration,
    /// When it was asked since whether it is there.
    asked: Option<Duration>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// To look again after so long. What it says meanwhile need not wake anybody.
    Look(Duration),
    /// To ask it, and to look again after so long.
    Ping(Duration),
    /// It was asked, and has been silent for two intervals: it is taken for gone.
    Gone,
}

impl Silence {
    /// That of a peer that says something once an interval, and has just done so.
    pub(crate) fn new(interval: Duration, now: Duration) -> Self {
        Self { interval, heard: now, asked: None }
    }

    /// The peer has said something.
    pub(crate) fn heard(&mut self, now: Duration) {
        (self.heard, self.asked) = (now, None);
    }

    /// What is to be done now.
    pub(crate) fn due(&mut self, now: Duration) -> Due {
        let left = |since: Duration, time: Duration| time.saturating_sub(now.saturating_sub(since));
        match self.asked {
            // Only who was asked can have kept silent: this process may have slept.
            Some(at) => match left(at, self.answer_within()) {
                Duration::ZERO => Due::Gone,
                left => Due::Look(left),
            },
            None => match left(self.heard, self.ping_after()) {
                Duration::ZERO => {
                    self.asked = Some(now);
                    Due::Ping(self.answer_within())
                }
                left => Due::Look(left),
            },
        }
    }

    /// After how long a silence it is asked: somewhat more than what lies between two beats.
    fn ping_after(&self) -> Duration {
        self.interval + self.interval / 4
    }

    /// How long it has to answer: the rest of two intervals.
    fn answer_within(&self) -> Duration {
        (self.interval * 2).saturating_sub(self.ping_after())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_secs(8);

    #[test]
    fn a_silent_peer_is_asked_once_and_given_up_after_two_intervals() {
        let mut silence = Silence::new(INTERVAL, 100 * SECOND);
        for (seconds, due) in [
            (0, Due::Look(10 * SECOND)),
            (9, Due::Look(SECOND)),
            (10, Due::Ping(6 * SECOND)),
            (11, Due::Look(5 * SECOND)),
            (15, Due::Look(SECOND)),
            (16, Due::Gone),
        ] {
            assert_eq!(silence.due((100 + seconds) * SECOND), due, "after {seconds} s");
        }
    }

    #[test]
    fn a_peer_is_not_taken_for_gone_before_it_could_answer() {
        let mut silence = Silence::new(INTERVAL, Duration::ZERO);
        // This process has slept.
        assert_eq!(silence.due(3600 * SECOND), Due::Ping(6 * SECOND));
        silence.heard(3601 * SECOND);
        assert_eq!(silence.due(3606 * SECOND), Due::Look(5 * SECOND));
    }

    proptest! {
        /// Whoever looks when it was told to finds a peer gone two intervals after it was last heard, and not a moment earlier.
        #[test]
        fn a_peer_is_given_up_two_intervals_after_its_last_word(
            words in proptest::collection::vec(0_u64..30_000, 0..20),
            interval in 20_u64..20_000,
        ) {
            let ms = Duration::from_millis;
            let mut words = words.into_iter().map(ms).collect::<Vec<_>>();
            words.sort_unstable();
            let mut words = words.into_iter().peekable();
            let mut silence = Silence::new(ms(interval), Duration::ZERO);
            let (mut now, mut last) = (Duration::ZERO, Duration::ZERO);
            loop {
                while let Some(word) = words.next_if(|word| *word <= now) {
                    silence.heard(word);
                    last = word;
                }
                match silence.due(now) {
                    Due::Look(after) | Due::Ping(after) => now += after,
                    Due::Gone => break,
                }
            }
            prop_assert_eq!(now, last + 2 * ms(interval));
        }
    }
}
