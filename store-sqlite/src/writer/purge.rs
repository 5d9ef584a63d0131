//! Removal of what is over.

use std::time::Duration;

use rusqlite::params;

use super::group::Group;
use crate::error::Error;
use crate::read::column;

impl Group<'_> {
    /// Removes finished jobs with their output, keys and records, at most `limit` of each, and says how many jobs.
    pub(crate) fn purge(&mut self, keep: Duration, limit: usize) -> Result<usize, Error> {
        const OVER: &str = "SELECT seq, status, class FROM jobs INDEXED BY jobs_ended
            WHERE ended < ? ORDER BY ended, id LIMIT ?";
        const REMOVE: [&str; 4] = [
            "DELETE FROM jobs WHERE seq = ?",
            "DELETE FROM specs WHERE seq = ?",
            "DELETE FROM outputs WHERE job = ?",
            "DELETE FROM chunks WHERE job = ?",
        ];
        const KEYS: &str = "DELETE FROM keys WHERE (owner, key) IN
            (SELECT owner, key FROM keys WHERE expires <= ? ORDER BY expires LIMIT ?)";
        const RECORDS: &str = "DELETE FROM records WHERE (kind, key) IN
            (SELECT kind, key FROM records WHERE expires <= ? ORDER BY expires LIMIT ?)";
        let limit = column::length(limit);
        let over: Vec<(i64, i64, i64)> = self
            .statement(OVER)?
            .query_map(params![self.now.before(keep).as_millis(), limit], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<Result<_, _>>()?;
        for (seq, status, class) in &over {
            for remove in REMOVE {
                self.statement(remove)?.execute([seq])?;
            }
            self.count(*class, *status, -1);
        }
        for remove in [KEYS, RECORDS] {
            self.statement(remove)?.execute([self.now.as_millis(), limit])?;
        }
        Ok(over.len())
    }
}
