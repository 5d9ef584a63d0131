//! What is remembered of a limit's keys: a map that does not grow beyond a bound.

use std::collections::HashMap;
use std::time::Duration;

use super::window::{Passed, Window};

/// Below this many keys it is not worth looking for some to forget.
const FEW: usize = 1_024;

/// Once full, how often to look for some to forget.
const LOOK: Duration = Duration::from_secs(1);

/// What passed by key, for at most `most` keys, and for all others together.
#[derive(Debug)]
pub(super) struct Counts {
    most: usize,
    known: HashMap<Box<str>, Passed>,
    others: Passed,
    /// From how many keys on to look for some to forget: twice those that were left the last time, so that the search,
    /// which visits every key, costs each new key a constant.
    prune_at: usize,
    /// Not to be looked again before this.
    next_look: Duration,
}

impl Counts {
    pub(super) fn new(most: usize) -> Self {
        let prune_at = FEW.min(most);
        Self { most, known: HashMap::new(), others: Passed::default(), prune_at, next_look: Duration::ZERO }
    }

    /// What passed of a key.
    pub(super) fn of(&mut self, key: &str, now: Duration, window: Window) -> &mut Passed {
        if !self.known.contains_key(key) {
            if self.known.len() >= self.prune_at && now >= self.next_look {
                self.known.retain(|_, passed| !passed.is_forgotten(now, window));
                self.prune_at = (2 * self.known.len()).clamp(FEW.min(self.most), self.most);
                self.next_look = now.saturating_add(LOOK);
            }
            if self.known.len() >= self.most {
                return &mut self.others;
            }
        }
        self.known.entry(key.into()).or_default()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}
