//! Idempotency keys: which insertion used which, until when.

use super::expiring::Expiring;
use crate::id::{JobId, Owner};
use crate::store::{Inserted, Key};
use crate::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Keys(Expiring<(Owner, String), ([u8; 32], Vec<JobId>)>);

impl Keys {
    /// What was inserted with this key, if its time is not over.
    pub(super) fn find(&self, key: &Key, now: Timestamp) -> Option<Inserted> {
        let (fingerprint, ids) = self.0.get(&(key.owner.clone(), key.key.clone()), now)?;
        Some(Inserted::Known { ids: ids.clone(), fingerprint: *fingerprint })
    }

    pub(super) fn put(&mut self, key: Key, ids: Vec<JobId>, now: Timestamp) {
        self.0.put((key.owner, key.key), (key.fingerprint, ids), Some(now.after(key.ttl)));
    }

    pub(super) fn purge(&mut self, now: Timestamp, limit: usize) {
        self.0.purge(now, limit);
    }
}
