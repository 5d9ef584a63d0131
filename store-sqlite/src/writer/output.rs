//! Additions to output.

use cmdexec_core::id::JobId;
use cmdexec_core::store::Chunk;
use rusqlite::{OptionalExtension, Row, params};

use super::group::Group;
use crate::error::Error;
use crate::long::{Addition, Body, Extent, Freed};
use crate::read::column;

/// What is kept of a job's output, beside its chunks.
#[derive(Debug, Default)]
struct Kept {
    attempt: i64,
    bytes: i64,
    dropped: i64,
    /// One more than the highest number that was ever trimmed.
    trimmed: i64,
    /// Whether there ever was some in a file.
    file: bool,
}

impl Group<'_> {
    /// Adds to the output of attempts, and says what of their jobs' files has no row any more.
    pub(crate) fn append(&mut self, additions: &[Addition]) -> Result<Vec<(JobId, Freed)>, Error> {
        let mut all = Vec::new();
        for addition in additions {
            let freed = self.append_one(addition)?;
            if !freed.is_nothing() {
                all.push((addition.job, freed));
            }
        }
        Ok(all)
    }

    /// Output of an older attempt than the newest that wrote is dropped.
    fn append_one(&mut self, addition: &Addition) -> Result<Freed, Error> {
        const KEPT: &str = "SELECT attempt, bytes, dropped, trimmed, file FROM outputs WHERE job = ?";
        const KEEP: &str =
            "INSERT OR REPLACE INTO outputs (job, attempt, bytes, dropped, trimmed, file) VALUES (?, ?, ?, ?, ?, ?)";
        const ADD: &str =
            "INSERT OR IGNORE INTO chunks (job, n, stream, bytes, at, place, length) VALUES (?, ?, ?, ?, ?, ?, ?)";
        const CLEAR: &str = "DELETE FROM chunks WHERE job = ? RETURNING length(bytes), place, length";
        const TRIM: &str =
            "DELETE FROM chunks WHERE job = ? AND n BETWEEN ? AND ? RETURNING length(bytes), place, length";
        let mut freed = Freed::default();
        let Some(job) = self.seq(addition.job)? else {
            freed.is_gone = addition.pieces.iter().any(|piece| matches!(piece.body, Body::File(_)));
            return Ok(freed);
        };
        let attempt = i64::from(addition.attempt);
        let read = |row: &Row<'_>| {
            let (attempt, bytes, dropped) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(Kept { attempt, bytes, dropped, trimmed: row.get(3)?, file: row.get(4)? })
        };
        let found = self.statement(KEPT)?.query_row([job], read).optional()?;
        let is_first = found.is_none();
        let mut kept = found.unwrap_or_default();
        let files = addition.pieces.iter().filter_map(|piece| match piece.body {
            Body::File(extent) => Some(extent),
            Body::Row(_) => None,
        });
        if attempt < kept.attempt {
            freed.extents.extend(files);
            return Ok(freed);
        }
        if addition.replace || attempt > kept.attempt {
            kept = Kept { attempt, file: kept.file, ..Kept::default() };
            if !is_first {
                self.remove(CLEAR, params![job], &mut freed.extents)?;
            }
        }
        kept.file |= files.count() > 0;
        let at = addition.at.unwrap_or(self.now).as_millis();
        for piece in &addition.pieces {
            let (n, stream) = (column::signed(piece.seq), column::stream_number(piece.stream));
            let (bytes, extent) = match &piece.body {
                Body::Row(bytes) => (&bytes[..], None),
                Body::File(extent) => (&[][..], Some(*extent)),
            };
            let (place, length) = extent.map(|e| (column::signed(e.place), column::signed(e.length))).unzip();
            if self.statement(ADD)?.execute(params![job, n, stream, bytes, at, place, length])? > 0 {
                kept.bytes += length.unwrap_or(column::length(bytes.len()));
            } else {
                freed.extents.extend(extent);
            }
        }
        if let Some((first, last)) = addition.trim
            && first <= last
        {
            let range = params![job, column::signed(first), column::signed(last)];
            kept.bytes -= self.remove(TRIM, range, &mut freed.extents)?;
            kept.trimmed = kept.trimmed.max(column::signed(last.saturating_add(1).min(Chunk::MAX_SEQ)));
        }
        kept.dropped = kept.dropped.saturating_add(column::signed(addition.dropped));
        self.statement(KEEP)?.execute(params![job, kept.attempt, kept.bytes, kept.dropped, kept.trimmed, kept.file])?;
        Ok(freed)
    }

    /// Removes chunks, and says how many bytes they had; `extents` gets those in the job's file.
    fn remove(
        &self,
        sql: &'static str,
        which: &[&dyn rusqlite::ToSql],
        extents: &mut Vec<Extent>,
    ) -> Result<i64, Error> {
        let mut statement = self.statement(sql)?;
        let mut rows = statement.query(which)?;
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            match (row.get::<_, Option<i64>>(1)?, row.get::<_, Option<i64>>(2)?) {
                (Some(place), Some(length)) => {
                    bytes += length;
                    extents.push(Extent { place: column::unsigned(place)?, length: column::unsigned(length)? });
                }
                _ => bytes += row.get::<_, i64>(0)?,
            }
        }
        Ok(bytes)
    }
}
