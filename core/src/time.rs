//! Time as an argument: instants that are stored, and the clock that loops are given.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// An instant in UTC, in whole milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant this many milliseconds after 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This much later; the end of time if that overflows.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This much earlier; the beginning of time if that overflows.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The instant that an RFC 3339 text names, cut to milliseconds; `None` if it is none.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|t| Self(t.as_millisecond()))
    }
}

/// RFC 3339 in UTC with milliseconds, such as `2026-11-20T12:00:00.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clamped = self.0.clamp(jiff::Timestamp::MIN.as_millisecond(), jiff::Timestamp::MAX.as_millisecond());
        match jiff::Timestamp::from_millisecond(clamped) {
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// A pause that a [`Clock`] makes.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where loops get the time from, so that a whole cluster can run in simulated time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall clock. It may be set back; nothing that must not go wrong is measured with it.
    fn now(&self) -> Timestamp;

    /// Time that only goes forward, counted from an arbitrary start, also while the machine is suspended
    /// where the system can tell.
    fn uptime(&self) -> Duration;

    /// Completes once `duration` has passed. Dropping it is free.
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// The machine's own clock and tokio's timer.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
        let now = jiff::Timestamp::now();
        Timestamp(now.as_millisecond())
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn uptime(&self) -> Duration {
        // CLOCK_BOOTTIME goes on while the machine is suspended; `Instant` on Linux does not.
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn uptime(&self) -> Duration {
        use std::sync::OnceLock;
        static START: OnceLock<std::time::Instant> = OnceLock::new();
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
        let now = std::time::Instant::now();
        now.saturating_duration_since(*START.get_or_init(|| now))
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that stands still until it is told to go on. Clones are the same clock.
///
/// Sleeps end in the order of their ends, and those with the same end in the order in which they began, so that what runs
/// under this clock in one thread runs the same way each time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    start: Timestamp,
    state: Arc<Mutex<Elapsed>>,
}

#[derive(Debug, Default)]
struct Elapsed {
    elapsed: Duration,
    /// Who sleeps, by when it ends and a number of its own.
    sleepers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
    next: u64,
}

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn at(start: Timestamp) -> Self {
        Self { start, state: Arc::default() }
    }

    /// Moves the clock forward and wakes every sleep that is over. Does not wait for what they do.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state();
        state.elapsed += by;
        // Those that end later than now; what is left are those that are over, in order.
        let later = (state.elapsed, u64::MAX);
        let later = state.sleepers.split_off(&later);
        for over in std::mem::replace(&mut state.sleepers, later).into_values() {
            // A sleeper that was dropped needs no waking.
            let _ = over.send(());
        }
    }

    fn state(&self) -> MutexGuard<'_, Elapsed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        // 2026-01-01T00:00:00Z: a plain date, so that times in tests read well.
        Self::at(Timestamp::from_millis(1_767_225_600_000))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.start.after(self.state().elapsed)
    }

    fn uptime(&self) -> Duration {
        self.state().elapsed
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let mut state = self.state();
        let key = (state.elapsed.saturating_add(duration), state.next);
        state.next += 1;
        let (over, ended) = oneshot::channel();
        if duration.is_zero() {
            // Nobody waits for it yet.
            let _ = over.send(());
        } else {
            state.sleepers.insert(key, over);
        }
        let asleep = Asleep { clock: self.clone(), key };
        Box::pin(async move {
            let _asleep = asleep;
            // It is sent, or the clock keeps the sender.
            let _ = ended.await;
        })
    }
}

/// Takes a sleeper off the clock when it is dropped.
struct Asleep {
    clock: ManualClock,
    key: (Duration, u64),
}

impl Drop for Asleep {
    fn drop(&mut self) {
        self.clock.state().sleepers.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_written_with_milliseconds() {
        let t = Timestamp::from_millis(1_767_225_600_007);
        assert_eq!(t.to_string(), "2026-01-01T00:00:00.007Z");
        assert_eq!(Timestamp::parse_rfc3339(&t.to_string()), Some(t));
        assert_eq!(Timestamp::parse_rfc3339("2026-01-01T01:00:00.0079+01:00"), Some(t));
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
        assert!(!Timestamp::from_millis(i64::MAX).to_string().is_empty());
    }

    #[tokio::test]
    async fn a_manual_clock_wakes_what_is_over_and_nothing_else() {
        let clock = ManualClock::default();
        let mut short = clock.sleep(Duration::from_secs(1));
        let mut long = clock.sleep(Duration::from_secs(3));
        clock.advance(Duration::from_secs(2));
        assert!(futures_util::poll!(&mut short).is_ready());
        assert!(futures_util::poll!(&mut long).is_pending());
        clock.advance(Duration::from_secs(1));
        assert!(futures_util::poll!(&mut long).is_ready());
    }
}
