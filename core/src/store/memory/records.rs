//! Small versioned things by kind and key.

use std::ops::Bound;

use bytes::Bytes;

use super::expiring::Expiring;
use crate::store::{Record, RecordWrite, Written};
use crate::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Records(Expiring<(String, String), (Bytes, u64)>);

impl Records {
    pub(super) fn get(&self, kind: &str, key: &str, now: Timestamp) -> Option<Record> {
        let (value, version) = self.0.get(&(kind.to_owned(), key.to_owned()), now)?;
        Some(Record { key: key.to_owned(), value: value.clone(), version: *version })
    }

    pub(super) fn put(&mut self, kind: &str, write: RecordWrite, now: Timestamp) -> Written {
        let key = (kind.to_owned(), write.key);
        let version = match self.0.get(&key, now) {
            Some((_, version)) => *version,
            None if write.version > 0 => return Written::Missing,
            None => 0,
        };
        if version != write.version {
            return Written::Stale;
        }
        match write.value {
            Some(value) => self.0.put(key, (value, version + 1), write.ttl.map(|ttl| now.after(ttl))),
            None => self.0.remove(&key),
        }
        Written::Yes
    }

    pub(super) fn list(&self, kind: &str, after: Option<&str>, limit: usize, now: Timestamp) -> Vec<Record> {
        let from = match after {
            Some(after) => Bound::Excluded((kind.to_owned(), after.to_owned())),
            None => Bound::Included((kind.to_owned(), String::new())),
        };
        let of_kind = self.0.range(from, now).take_while(|((its, _), _)| its == kind);
        let record = |((_, key), (value, version)): (&(String, String), &(Bytes, u64))| Record {
            key: key.clone(),
            value: value.clone(),
            version: *version,
        };
        of_kind.take(limit).map(record).collect()
    }

    pub(super) fn purge(&mut self, now: Timestamp, limit: usize) {
        self.0.purge(now, limit);
    }
}
