//! Idempotency keys: which insertion used which, until when.

use std::ops::Bound;
use std::time::Duration;

use super::expiring::Expiring;
use crate::id::{JobId, Owner};
use crate::store::{Inserted, Key, StoredKey};
use crate::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Keys(Expiring<(Owner, String), Used>);

/// For what a key was used: the digest, and the jobs.
type Used = ([u8; 32], Vec<JobId>);

impl Keys {
    /// What was inserted with this key, if its time is not over.
    pub(super) fn find(&self, key: &Key, now: Timestamp) -> Option<Inserted> {
        let (fingerprint, ids) = self.0.get(&(key.owner.clone(), key.key.clone()), now)?;
        Some(Inserted::Known { ids: ids.clone(), fingerprint: *fingerprint })
    }

    /// Keys after `after` that are not over.
    pub(super) fn list(&self, after: Option<(&Owner, &str)>, limit: usize, now: Timestamp) -> Vec<StoredKey> {
        let from = after.map_or(Bound::Unbounded, |(owner, key)| Bound::Excluded((owner.clone(), key.to_owned())));
        let stored = |(owner, key, end, (fingerprint, ids)): (&Owner, &String, Option<Timestamp>, &Used)| {
            let ttl = end.map_or(Duration::MAX, |end| end.since(now));
            let key = Key { owner: owner.clone(), key: key.clone(), fingerprint: *fingerprint, ttl };
            StoredKey { key, ids: ids.clone() }
        };
        let range = self.0.range_with_ends(from, now).map(|((owner, key), used, end)| (owner, key, end, used));
        range.take(limit).map(stored).collect()
    }

    pub(super) fn put(&mut self, key: Key, ids: Vec<JobId>, now: Timestamp) {
        self.0.put((key.owner, key.key), (key.fingerprint, ids), Some(now.after(key.ttl)));
    }

    pub(super) fn purge(&mut self, now: Timestamp, limit: usize) {
        self.0.purge(now, limit);
    }
}
