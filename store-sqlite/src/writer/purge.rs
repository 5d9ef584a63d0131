//! Removal of what is over.

use std::time::Duration;

use cmdexec_core::id::JobId;
use rusqlite::params;

use super::group::Group;
use crate::error::Error;
use crate::read::column;

/// What is gone.
#[derive(Debug)]
pub(crate) struct Purged {
    /// How many jobs.
    pub(crate) jobs: usize,
    /// Those of them whose files are nobody's now.
    pub(crate) files: Vec<JobId>,
}

impl Group<'_> {
    /// Removes finished jobs with their output, keys and records, at most `limit` of each.
    pub(crate) fn purge(&mut self, keep: Duration, limit: usize) -> Result<Purged, Error> {
        const OVER: &str = "SELECT seq, status, class, id, coalesce((SELECT file FROM outputs WHERE job = seq), 0)
            FROM jobs INDEXED BY jobs_ended WHERE ended < ? ORDER BY ended, id LIMIT ?";
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
        let over: Vec<(i64, i64, i64, Vec<u8>, bool)> = self
            .statement(OVER)?
            .query_map(params![self.now.before(keep).as_millis(), limit], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            })?
            .collect::<Result<_, _>>()?;
        let mut purged = Purged { jobs: over.len(), files: Vec::new() };
        for (seq, status, class, id, has_file) in &over {
            for remove in REMOVE {
                self.statement(remove)?.execute([seq])?;
            }
            self.count(*class, *status, -1);
            if *has_file {
                purged.files.push(column::job_id(id)?);
            }
        }
        for remove in [KEYS, RECORDS] {
            self.statement(remove)?.execute([self.now.as_millis(), limit])?;
        }
        Ok(purged)
    }
}
