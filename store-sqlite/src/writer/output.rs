//! Additions to output.

use cmdexec_core::store::{Append, Chunk};
use rusqlite::{OptionalExtension, Row, params};

use super::group::Group;
use crate::error::Error;
use crate::read::column;

/// What is kept of a job's output, beside its chunks.
#[derive(Debug, Default)]
struct Kept {
    attempt: i64,
    bytes: i64,
    dropped: i64,
    /// One more than the highest number that was ever trimmed.
    trimmed: i64,
}

impl Group<'_> {
    /// Adds to the output of one attempt. That of an older attempt than the newest that wrote is dropped.
    pub(crate) fn append(&mut self, append: &Append) -> Result<(), Error> {
        const KEPT: &str = "SELECT attempt, bytes, dropped, trimmed FROM outputs WHERE job = ?";
        const KEEP: &str =
            "INSERT OR REPLACE INTO outputs (job, attempt, bytes, dropped, trimmed) VALUES (?, ?, ?, ?, ?)";
        const ADD: &str = "INSERT OR IGNORE INTO chunks (job, n, stream, bytes, at) VALUES (?, ?, ?, ?, ?)";
        const LENGTH: &str = "SELECT coalesce(sum(length(bytes)), 0) FROM chunks WHERE job = ? AND n BETWEEN ? AND ?";
        const TRIM: &str = "DELETE FROM chunks WHERE job = ? AND n BETWEEN ? AND ?";
        let Some(job) = self.seq(append.job)? else { return Ok(()) };
        let attempt = i64::from(append.attempt);
        let read = |row: &Row<'_>| {
            Ok(Kept { attempt: row.get(0)?, bytes: row.get(1)?, dropped: row.get(2)?, trimmed: row.get(3)? })
        };
        let found = self.statement(KEPT)?.query_row([job], read).optional()?;
        let is_first = found.is_none();
        let mut kept = found.unwrap_or_default();
        if attempt < kept.attempt {
            return Ok(());
        }
        if append.replace || attempt > kept.attempt {
            kept = Kept { attempt, ..Kept::default() };
            if !is_first {
                self.statement("DELETE FROM chunks WHERE job = ?")?.execute([job])?;
            }
        }
        let now = self.now.as_millis();
        for chunk in &append.chunks {
            let (n, stream) = (column::signed(chunk.seq), column::stream_number(chunk.stream));
            if self.statement(ADD)?.execute(params![job, n, stream, &chunk.bytes[..], now])? > 0 {
                kept.bytes += column::length(chunk.bytes.len());
            }
        }
        if let Some((first, last)) = append.trim
            && first <= last
        {
            let range = params![job, column::signed(first), column::signed(last)];
            kept.bytes -= self.statement(LENGTH)?.query_row(range, |row| row.get::<_, i64>(0))?;
            self.statement(TRIM)?.execute(range)?;
            kept.trimmed = kept.trimmed.max(column::signed(last.saturating_add(1).min(Chunk::MAX_SEQ)));
        }
        kept.dropped = kept.dropped.saturating_add(column::signed(append.dropped));
        self.statement(KEEP)?.execute(params![job, kept.attempt, kept.bytes, kept.dropped, kept.trimmed])?;
        Ok(())
    }
}
