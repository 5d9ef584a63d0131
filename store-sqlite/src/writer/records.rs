//! Conditional writes of records.

use cmdexec_core::store::{RecordWrite, Written};
use rusqlite::{OptionalExtension, params};

use super::group::Group;
use crate::error::Error;
use crate::read::column;

impl Group<'_> {
    /// Writes or removes a record, if its version is still the one named.
    pub(crate) fn put_record(&mut self, kind: &str, write: &RecordWrite) -> Result<Written, Error> {
        const FIND: &str =
            "SELECT version FROM records WHERE kind = ? AND key = ? AND (expires IS NULL OR expires > ?)";
        const PUT: &str = "INSERT OR REPLACE INTO records (kind, key, value, version, expires) VALUES (?, ?, ?, ?, ?)";
        const REMOVE: &str = "DELETE FROM records WHERE kind = ? AND key = ?";
        let (kind, key) = (kind.as_bytes(), write.key.as_bytes());
        let found = self.statement(FIND)?.query_row(params![kind, key, self.now.as_millis()], |row| row.get(0));
        let version = match found.optional()? {
            Some(version) => version,
            None if write.version > 0 => return Ok(Written::Missing),
            None => 0,
        };
        if version != column::signed(write.version) {
            return Ok(Written::Stale);
        }
        match &write.value {
            Some(value) => {
                let expires = write.ttl.map(|ttl| self.now.after(ttl).as_millis());
                self.statement(PUT)?.execute(params![kind, key, &value[..], version + 1, expires])?;
            }
            None => {
                self.statement(REMOVE)?.execute(params![kind, key])?;
            }
        }
        Ok(Written::Yes)
    }
}
