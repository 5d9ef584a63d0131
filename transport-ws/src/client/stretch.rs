//! How large messages of output and of reports are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What is through slow lines before anybody thinks that they are gone.
const LEAST: usize = 256 * 1024;

/// What costs little beside its bytes: the server syncs each, and more would keep from the socket what comes behind it.
const MOST: usize = 1024 * 1024;

/// How long a message and its answer may take, so that a larger one is worth it.
const TIME: Duration = Duration::from_millis(100);

/// As large as the answers to the last ones came soon.
#[derive(Debug)]
pub(super) struct Stretch(AtomicUsize);

impl Default for Stretch {
    fn default() -> Self {
        Self(AtomicUsize::new(LEAST))
    }
}

impl Stretch {
    /// How many bytes the next messages have at most.
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A message of so many bytes is sent. What is tried after a large one that is not answered is small.
    pub(super) fn sent(&self, bytes: usize) {
        if bytes > LEAST {
            self.0.store(LEAST, Ordering::Relaxed);
        }
    }

    /// It was answered after so long.
    pub(super) fn answered(&self, bytes: usize, took: Duration) {
        // One that is much smaller says little of the line.
        if bytes >= LEAST / 2 {
            let fits = bytes as u128 * TIME.as_nanos() / took.as_nanos().max(1);
            let fits = usize::try_from(fits).unwrap_or(MOST);
            self.0.store(fits.clamp(LEAST, MOST), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_grow_where_they_are_answered_soon() {
        let stretch = Stretch::default();
        assert_eq!(stretch.bytes(), LEAST);
        for (bytes, millis, next) in [
            (LEAST, 50, 2 * LEAST),
            (2 * LEAST, 50, MOST),
            (MOST, 0, MOST),
            (MOST, 200, 2 * LEAST),
            // What is small says nothing.
            (1_000, 1, 2 * LEAST),
            (1_000, 5_000, 2 * LEAST),
            (LEAST / 2, 5_000, LEAST),
        ] {
            stretch.answered(bytes, Duration::from_millis(millis));
            assert_eq!(stretch.bytes(), next, "{bytes} bytes in {millis} ms");
        }
    }

    #[test]
    fn what_is_not_answered_is_tried_smaller() {
        let stretch = Stretch::default();
        stretch.answered(MOST, Duration::from_millis(10));
        stretch.sent(LEAST);
        assert_eq!(stretch.bytes(), MOST);
        stretch.sent(MOST);
        assert_eq!(stretch.bytes(), LEAST);
        stretch.answered(MOST, Duration::from_millis(10));
        assert_eq!(stretch.bytes(), MOST);
    }
}
