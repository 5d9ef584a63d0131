//! What attempts wrote.

use bytes::{Bytes, BytesMut};
use cmdexec_core::executor::Stream;
use cmdexec_core::id::JobId;
use cmdexec_core::store::{Chunk, Extent};
use cmdexec_core::time::Timestamp;
use futures_util::TryStreamExt;
use sqlx::Row;
use sqlx::sqlite::SqlitePool;

use super::column;
use crate::error::Error;

/// Rows are taken one after the other until there are enough: how many that is, their lengths decide.
pub(crate) async fn read(
    pool: &SqlitePool,
    job: JobId,
    attempt: u32,
    from: u64,
    max_bytes: usize,
) -> Result<Vec<Chunk>, Error> {
    const QUERY: &str = "SELECT c.n, c.stream, c.bytes
        FROM jobs j CROSS JOIN outputs o ON o.job = j.seq CROSS JOIN chunks c ON c.job = j.seq
        WHERE j.id = ? AND o.attempt = ? AND c.n >= ? ORDER BY c.n";
    let query = sqlx::query(QUERY).bind(job.as_bytes().to_vec()).bind(i64::from(attempt)).bind(column::signed(from));
    let mut rows = query.fetch(pool);
    let mut chunks = Vec::new();
    let mut room = max_bytes;
    while let Some(row) = rows.try_next().await? {
        let bytes = Bytes::copy_from_slice(row.try_get(2)?);
        if bytes.len() > room && !chunks.is_empty() {
            break;
        }
        room = room.saturating_sub(bytes.len());
        let stream = column::stream(row.try_get(1)?)?;
        chunks.push(Chunk { seq: column::unsigned(row.try_get(0)?)?, stream, bytes });
    }
    Ok(chunks)
}

pub(crate) async fn tail(
    pool: &SqlitePool,
    job: JobId,
    attempt: u32,
    stream: Stream,
    max_bytes: usize,
) -> Result<Bytes, Error> {
    const QUERY: &str = "SELECT c.bytes
        FROM jobs j CROSS JOIN outputs o ON o.job = j.seq CROSS JOIN chunks c ON c.job = j.seq
        WHERE j.id = ? AND o.attempt = ? AND c.stream = ? ORDER BY c.n DESC";
    if max_bytes == 0 {
        return Ok(Bytes::new());
    }
    let query =
        sqlx::query(QUERY).bind(job.as_bytes().to_vec()).bind(i64::from(attempt)).bind(column::stream_number(stream));
    let mut rows = query.fetch(pool);
    let mut pieces = Vec::new();
    let mut room = max_bytes;
    while room > 0
        && let Some(row) = rows.try_next().await?
    {
        let bytes: &[u8] = row.try_get(0)?;
        let cut = bytes.get(bytes.len().saturating_sub(room)..).unwrap_or_default();
        room -= cut.len();
        pieces.push(cut.to_vec());
    }
    let mut tail = BytesMut::with_capacity(max_bytes - room);
    pieces.iter().rev().for_each(|piece| tail.extend_from_slice(piece));
    Ok(tail.freeze())
}

pub(crate) async fn extent(pool: &SqlitePool, job: JobId, attempt: u32) -> Result<Extent, Error> {
    const QUERY: &str = "SELECT coalesce((SELECT max(n) + 1 FROM chunks WHERE job = o.job), 0), o.bytes, o.dropped,
            o.trimmed
        FROM jobs j CROSS JOIN outputs o ON o.job = j.seq WHERE j.id = ? AND o.attempt = ?";
    let query = sqlx::query(QUERY).bind(job.as_bytes().to_vec()).bind(i64::from(attempt));
    let Some(row) = query.fetch_optional(pool).await? else { return Ok(Extent::default()) };
    Ok(Extent {
        next: column::unsigned(row.try_get(0)?)?,
        bytes: column::unsigned(row.try_get(1)?)?,
        dropped: column::unsigned(row.try_get(2)?)?,
        trimmed: column::unsigned(row.try_get(3)?)?,
    })
}

/// `length` of a column does not read what it is the length of.
pub(crate) async fn index(
    pool: &SqlitePool,
    job: JobId,
    attempt: u32,
    from: u64,
    limit: usize,
) -> Result<Vec<(u64, u64)>, Error> {
    const QUERY: &str = "SELECT c.n, length(c.bytes)
        FROM jobs j CROSS JOIN outputs o ON o.job = j.seq CROSS JOIN chunks c ON c.job = j.seq
        WHERE j.id = ? AND o.attempt = ? AND c.n >= ? ORDER BY c.n LIMIT ?";
    let query = sqlx::query(QUERY).bind(job.as_bytes().to_vec()).bind(i64::from(attempt)).bind(column::signed(from));
    let rows = query.bind(column::length(limit)).fetch_all(pool).await?;
    rows.iter().map(|row| Ok((column::unsigned(row.try_get(0)?)?, column::unsigned(row.try_get(1)?)?))).collect()
}

pub(crate) async fn since(pool: &SqlitePool, job: JobId, attempt: u32, time: Timestamp) -> Result<Option<u64>, Error> {
    const QUERY: &str = "SELECT min(c.n)
        FROM jobs j CROSS JOIN outputs o ON o.job = j.seq CROSS JOIN chunks c INDEXED BY chunks_times ON c.job = j.seq
        WHERE j.id = ? AND o.attempt = ? AND c.at >= ?";
    let query = sqlx::query(QUERY).bind(job.as_bytes().to_vec()).bind(i64::from(attempt)).bind(time.as_millis());
    let first: Option<i64> = query.fetch_one(pool).await?.try_get(0)?;
    first.map(column::unsigned).transpose()
}
