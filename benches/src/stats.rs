//! Quantiles.

use std::time::Duration;

/// Durations, to be asked for quantiles.
pub(crate) struct Sample(Vec<Duration>);

impl Sample {
    /// A sample of these.
    pub(crate) fn new(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self(durations)
    }

    /// The smallest duration that the share `q` of all is not longer than.
    pub(crate) fn quantile(&self, q: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the length")]
        let at = (last as f64 * q).round() as usize;
        self.0.get(at).copied().unwrap_or_default()
    }
}

/// Milliseconds, by people.
pub(crate) fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1_000.0)
}
