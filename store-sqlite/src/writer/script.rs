//! Everything that a group writes, as one text with one round trip.
//!
//! A round trip through sqlx costs some 50 µs of processor, a row within a statement a few. So every kind of change is
//! one statement for any number of rows, which come as a JSON array of arrays of integers; texts and blobs lie end to
//! end in the heap, `$1`, and rows name them by where they begin and how long they are. The text depends only on which
//! kinds a group has, so that the statement cache knows it.

use std::fmt::Write;

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;

use crate::error::Error;

/// The kinds of change, in the order in which they are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    NewClasses,
    Insert,
    /// Of jobs whose worker stays, so that the index by worker is left alone.
    Update,
    /// Of jobs that get another worker.
    Assign,
    Counts,
    Queued,
    Keys,
    ClearOutput,
    Trim,
    Outputs,
    Chunks,
    Workers,
    RemoveWorkers,
    Sessions,
    PutRecords,
    RemoveRecords,
}

/// Each part's statements. The parameter's number is the part's place, plus two. Written `$2`, not `?2`: SQLite counts
/// the unused numbers below a `?2` as parameters too, which sqlx then fills from the wrong arguments. `jsonb_each`, because
/// `json_each` would write each inner array out as text, to be parsed once more.
const STATEMENTS: [(Part, &str); 16] = [
    (
        Part::NewClasses,
        "INSERT INTO classes (class, key, queued)
            SELECT value->>0, CAST(substr($1, value->>1, value->>2) AS TEXT), 0 FROM jsonb_each($2);",
    ),
    (
        Part::Insert,
        "INSERT INTO jobs (seq, id, version, status, class, rank, created, due, floor, hard_end, ended, owner, worker, life)
            SELECT value->>0, substr($1, value->>1, 16), 0, value->>2, value->>3, value->>4, value->>5, value->>6,
                value->>7, value->>8, value->>9, CAST(substr($1, value->>10, value->>11) AS TEXT),
                CAST(substr($1, value->>12, value->>13) AS TEXT), CAST(substr($1, value->>14, value->>15) AS TEXT)
            FROM jsonb_each($3);
        INSERT INTO specs (seq, spec)
            SELECT value->>0, CAST(substr($1, value->>16, value->>17) AS TEXT) FROM jsonb_each($3);",
    ),
    (
        Part::Update,
        "UPDATE jobs SET version = value->>1, status = value->>2, due = value->>3, floor = value->>4,
                hard_end = value->>5, ended = value->>6, life = CAST(substr($1, value->>7, value->>8) AS TEXT)
            FROM jsonb_each($4) WHERE seq = value->>0;",
    ),
    (
        Part::Assign,
        "UPDATE jobs SET version = value->>1, status = value->>2, due = value->>3, floor = value->>4,
                hard_end = value->>5, ended = value->>6, life = CAST(substr($1, value->>7, value->>8) AS TEXT),
                worker = CAST(substr($1, value->>9, value->>10) AS TEXT)
            FROM jsonb_each($5) WHERE seq = value->>0;",
    ),
    (Part::Counts, "UPDATE counts SET jobs = jobs + (value->>1) FROM jsonb_each($6) WHERE status = value->>0;"),
    (Part::Queued, "UPDATE classes SET queued = queued + (value->>1) FROM jsonb_each($7) WHERE class = value->>0;"),
    (
        Part::Keys,
        "INSERT OR REPLACE INTO keys (owner, key, fingerprint, ids, expires)
            SELECT CAST(substr($1, value->>0, value->>1) AS TEXT), substr($1, value->>2, value->>3),
                substr($1, value->>4, 32), substr($1, value->>5, value->>6), value->>7 FROM jsonb_each($8);",
    ),
    (Part::ClearOutput, "DELETE FROM chunks WHERE job IN (SELECT value->>0 FROM jsonb_each($9));"),
    (
        Part::Trim,
        "DELETE FROM chunks WHERE (job, n) IN (SELECT value->>0, value->>1 FROM jsonb_each($10));",
    ),
    (
        Part::Outputs,
        "INSERT OR REPLACE INTO outputs (job, attempt, bytes, dropped, seen, trimmed)
            SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5 FROM jsonb_each($11);",
    ),
    (
        Part::Chunks,
        "INSERT INTO chunks (job, n, stream, bytes, at)
            SELECT value->>0, value->>1, value->>2, substr($1, value->>3, value->>4), value->>5 FROM jsonb_each($12);",
    ),
    (
        Part::Workers,
        "INSERT INTO workers (id, info, registered, removed)
            SELECT CAST(substr($1, value->>0, value->>1) AS TEXT), substr($1, value->>2, value->>3), value->>4, 0
            FROM jsonb_each($13) WHERE true
            ON CONFLICT (id) DO UPDATE SET info = excluded.info;",
    ),
    (
        Part::RemoveWorkers,
        "UPDATE workers SET removed = 1
            WHERE id IN (SELECT CAST(substr($1, value->>0, value->>1) AS TEXT) FROM jsonb_each($14));",
    ),
    (
        Part::Sessions,
        "INSERT OR REPLACE INTO sessions (id, renewed, beat)
            SELECT CAST(substr($1, value->>0, value->>1) AS TEXT), value->>2,
                CAST(substr($1, value->>3, value->>4) AS TEXT) FROM jsonb_each($15);",
    ),
    (
        Part::PutRecords,
        "INSERT OR REPLACE INTO records (kind, key, value, version, expires)
            SELECT substr($1, value->>0, value->>1), substr($1, value->>2, value->>3),
                substr($1, value->>4, value->>5), value->>6, value->>7 FROM jsonb_each($16);",
    ),
    (
        Part::RemoveRecords,
        "DELETE FROM records WHERE (kind, key) IN
            (SELECT substr($1, value->>0, value->>1), substr($1, value->>2, value->>3) FROM jsonb_each($17));",
    ),
];

/// A place in the heap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) at: Option<i64>,
    pub(crate) len: Option<i64>,
}

/// What a group writes, as it grows.
#[derive(Debug)]
pub(super) struct Script {
    heap: Heap,
    rows: [String; STATEMENTS.len()],
}

/// Blobs end to end. SQL counts from 1; and an empty blob would be bound as NULL, so that the first byte is a filler.
#[derive(Debug)]
pub(crate) struct Heap(Vec<u8>);

impl Heap {
    pub(crate) fn new() -> Self {
        Self(vec![0])
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Span {
        let at = offset(self.0.len() + 1);
        self.0.extend_from_slice(bytes);
        Span { at, len: offset(bytes.len()) }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl Span {
    /// What reads as NULL.
    pub(super) const NULL: Self = Self { at: None, len: None };
}

fn offset(n: usize) -> Option<i64> {
    i64::try_from(n).ok()
}

/// Adds an array of integers to a JSON array that is still open.
pub(crate) fn push_row(rows: &mut String, cells: &[Option<i64>]) {
    rows.push(if rows.is_empty() { '[' } else { ',' });
    let mut separator = '[';
    for cell in cells {
        rows.push(separator);
        separator = ',';
        // Writing to a string does not fail.
        let _ = match cell {
            Some(n) => write!(rows, "{n}"),
            None => rows.write_str("null"),
        };
    }
    rows.push(']');
}

impl Script {
    pub(super) fn new() -> Self {
        Self { heap: Heap::new(), rows: std::array::from_fn(|_| String::new()) }
    }

    /// Puts bytes on the heap.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Span {
        self.heap.put(bytes)
    }

    /// Adds a row to a part.
    pub(super) fn row(&mut self, part: Part, cells: &[Option<i64>]) {
        if let Some(rows) = self.rows.get_mut(part as usize) {
            push_row(rows, cells);
        }
    }

    /// Writes it all, or nothing.
    pub(super) async fn execute(self, conn: &mut SqliteConnection) -> Result<(), Error> {
        if self.rows.iter().all(String::is_empty) {
            return Ok(());
        }
        let mut text = String::with_capacity(2048);
        text.push_str("BEGIN IMMEDIATE;");
        for (rows, (_, statement)) in self.rows.iter().zip(STATEMENTS) {
            if !rows.is_empty() {
                text.push_str(statement);
            }
        }
        text.push_str("COMMIT;");
        let mut query = sqlx::query(AssertSqlSafe(text)).bind(self.heap.into_bytes());
        for mut rows in self.rows {
            query = if rows.is_empty() {
                query.bind(None::<String>)
            } else {
                rows.push(']');
                query.bind(Some(rows))
            };
        }
        query.execute(conn).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_statement_and_parameter() {
        for (place, (part, statement)) in STATEMENTS.iter().enumerate() {
            assert_eq!(*part as usize, place);
            assert!(statement.contains(&format!("jsonb_each(${})", place + 2)), "{part:?}");
            assert!(statement.trim_end().ends_with(';'), "{part:?}");
        }
    }

    #[test]
    fn rows_are_json() {
        let mut rows = String::new();
        push_row(&mut rows, &[Some(1), None]);
        push_row(&mut rows, &[Some(i64::MIN)]);
        rows.push(']');
        assert_eq!(rows, "[[1,null],[-9223372036854775808]]");
    }
}
