//! A map whose entries may have an end, with an index of those ends.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Timestamp;

/// Whoever reads must ask whether an entry is over: an entry stays until it is purged or replaced.
#[derive(Debug)]
pub(super) struct Expiring<K, V> {
    entries: BTreeMap<K, (V, Option<Timestamp>)>,
    ends: BTreeSet<(Timestamp, K)>,
}

impl<K, V> Default for Expiring<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), ends: BTreeSet::new() }
    }
}

impl<K: Ord + Clone, V> Expiring<K, V> {
    /// What is there and is not over.
    pub(super) fn get(&self, key: &K, now: Timestamp) -> Option<&V> {
        self.entries.get(key).filter(|(_, end)| is_alive(*end, now)).map(|(value, _)| value)
    }

    /// Entries from `from` on (or after it) that are not over, by key.
    pub(super) fn range(&self, from: std::ops::Bound<K>, now: Timestamp) -> impl Iterator<Item = (&K, &V)> {
        let range = self.entries.range((from, std::ops::Bound::Unbounded));
        range.filter(move |(_, (_, end))| is_alive(*end, now)).map(|(key, (value, _))| (key, value))
    }

    /// As [`Expiring::range`], with when each is over.
    pub(super) fn range_with_ends(
        &self,
        from: std::ops::Bound<K>,
        now: Timestamp,
    ) -> impl Iterator<Item = (&K, &V, Option<Timestamp>)> {
        let range = self.entries.range((from, std::ops::Bound::Unbounded));
        range.filter(move |(_, (_, end))| is_alive(*end, now)).map(|(key, (value, end))| (key, value, *end))
    }

    pub(super) fn put(&mut self, key: K, value: V, end: Option<Timestamp>) {
        self.remove(&key);
        if let Some(end) = end {
            self.ends.insert((end, key.clone()));
        }
        self.entries.insert(key, (value, end));
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some((_, Some(end))) = self.entries.remove(key) {
            self.ends.remove(&(end, key.clone()));
        }
    }

    /// Removes what is over, at most `limit`.
    pub(super) fn purge(&mut self, now: Timestamp, limit: usize) {
        for _ in 0..limit {
            match self.ends.first() {
                Some((end, key)) if *end <= now => {
                    let key = key.clone();
                    self.remove(&key);
                }
                _ => break,
            }
        }
    }
}

fn is_alive(end: Option<Timestamp>, now: Timestamp) -> bool {
    end.is_none_or(|end| end > now)
}
