//! Where a limit's counts are kept: a concurrent map that does not grow beyond a bound.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use governor::nanos::Nanos;
use governor::state::keyed::{DashMapStateStore, ShrinkableKeyedStateStore};
use governor::state::{InMemoryState, NotKeyed, StateStore};

/// Below this many keys it is not worth looking for some to forget.
const FEW: usize = 1_024;

/// Counts by key, for at most `most` keys (a few more where threads add at the same time), and one for all others.
/// Clones are the same store.
#[derive(Clone)]
pub(super) struct BoundedStore(Arc<Inner>);

struct Inner {
    most: usize,
    known: DashMapStateStore<String>,
    /// How many keys there are; counted here because the map would have to lock all of itself to tell.
    len: AtomicUsize,
    others: InMemoryState,
    /// From how many keys on to look for some to forget: twice those that were left the last time, so that
    /// the search, which visits every key, costs each new key a constant.
    prune_at: AtomicUsize,
    /// When it was last looked, in milliseconds of uptime, plus one; 0: never. Once full, it is looked at most once a second.
    pruned_at: AtomicU64,
}

impl BoundedStore {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Inner {
            most,
            known: DashMapStateStore::default(),
            len: AtomicUsize::new(0),
            others: InMemoryState::default(),
            prune_at: AtomicUsize::new(FEW.min(most)),
            pruned_at: AtomicU64::new(0),
        }))
    }

    /// Whether there are so many keys that those which mean nothing any more should be forgotten now.
    pub(super) fn wants_pruning(&self, now: Duration) -> bool {
        if self.0.len.load(Ordering::Relaxed) < self.0.prune_at.load(Ordering::Relaxed) {
            return false;
        }
        let last = self.0.pruned_at.load(Ordering::Relaxed);
        let now = millis(now);
        (last == 0 || now >= last.saturating_add(1_000))
            // Of several threads that come here at once, one does it.
            && self.0.pruned_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// What means nothing any more was forgotten.
    pub(super) fn pruned(&self, now: Duration) {
        let len = self.0.known.len();
        self.0.len.store(len, Ordering::Relaxed);
        self.0.prune_at.store((2 * len).clamp(FEW.min(self.0.most), self.0.most), Ordering::Relaxed);
        self.0.pruned_at.store(millis(now), Ordering::Relaxed);
    }
}

fn millis(uptime: Duration) -> u64 {
    u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX - 1).saturating_add(1)
}

impl fmt::Debug for BoundedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedStore").field("len", &self.0.len).field("most", &self.0.most).finish_non_exhaustive()
    }
}

impl StateStore for BoundedStore {
    type Key = String;

    fn measure_and_replace<T, F, E>(&self, key: &String, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if !self.0.known.contains_key(key) {
            if self.0.len.load(Ordering::Relaxed) >= self.0.most {
                return self.0.others.measure_and_replace(&NotKeyed::NonKey, f);
            }
            // Two threads may both count a key that they both bring; the next pruning counts anew.
            self.0.len.fetch_add(1, Ordering::Relaxed);
        }
        self.0.known.measure_and_replace(key, f)
    }
}

impl ShrinkableKeyedStateStore<String> for BoundedStore {
    fn retain_recent(&self, drop_below: Nanos) {
        ShrinkableKeyedStateStore::retain_recent(&self.0.known, drop_below);
    }

    fn shrink_to_fit(&self) {
        ShrinkableKeyedStateStore::shrink_to_fit(&self.0.known);
    }

    fn len(&self) -> usize {
        self.0.known.len()
    }

    fn is_empty(&self) -> bool {
        self.0.known.is_empty()
    }
}
