//! What attempts wrote.

use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::JobId;
use cmdexec_core::store::{Chunk, ErrorKind, Extent as Extents};
use cmdexec_core::time::Timestamp;
use futures_util::TryStreamExt;
use sqlx::Row as _;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::column;
use crate::error::Error;
use crate::long::{Body, Extent, Folder};

/// How often what is read may change under the reader.
const TRIES: usize = 10;

/// A chunk as its row has it.
struct Row {
    seq: u64,
    stream: Stream,
    body: Body,
}

impl Row {
    /// The row's first columns: n, stream, bytes, place, length.
    fn of(row: &SqliteRow) -> Result<Self, Error> {
        let body = match (row.try_get::<Option<i64>, _>(3)?, row.try_get::<Option<i64>, _>(4)?) {
            (Some(place), Some(length)) => {
                Body::File(Extent { place: column::unsigned(place)?, length: column::unsigned(length)? })
            }
            _ => Body::Row(Bytes::copy_from_slice(row.try_get(2)?)),
        };
        Ok(Self { seq: column::unsigned(row.try_get(0)?)?, stream: column::stream(row.try_get(1)?)?, body })
    }

    fn len(&self) -> usize {
        match &self.body {
            Body::Row(bytes) => bytes.len(),
            Body::File(extent) => usize::try_from(extent.length).unwrap_or(usize::MAX),
        }
    }

    fn extent(&self) -> Option<Extent> {
        match self.body {
            Body::Row(_) => None,
            Body::File(extent) => Some(extent),
        }
    }
}

/// Rows are taken one after the other until there are enough: how many that is, their lengths decide.
pub(crate) async fn read(
    pool: &SqlitePool,
    folder: &Folder,
    job: JobId,
    attempt: u32,
    from: u64,
    max_bytes: usize,
) -> Result<Vec<Chunk>, Error> {
    const QUERY: &str = "SELECT c.n, c.stream, c.bytes, c.place, c.length
        FROM jobs j CROSS JOIN outputs o ON o.job = j.seq CROSS JOIN chunks c ON c.job = j.seq
        WHERE j.id = ? AND o.attempt = ? AND c.n >= ? ORDER BY c.n";
    for _ in 0..TRIES {
        let query = sqlx::query(QUERY).bind(job.as_bytes().to_vec()).bind(i64::from(attempt));
        let mut found = query.bind(column::signed(from)).fetch(pool);
        let mut rows: Vec<Row> = Vec::new();
        let mut room = max_bytes;
        while let Some(row) = found.try_next().await? {
            let row = Row::of(&row)?;
            if row.len() > room && !rows.is_empty() {
                break;
            }
            room = room.saturating_sub(row.len());
            rows.push(row);
        }
        drop(found);
        if let Some(bytes) = bytes(pool, folder, job, attempt, &rows).await? {
            let chunk = |(row, bytes): (&Row, Bytes)| Chunk { seq: row.seq, stream: row.stream, bytes };
            return Ok(rows.iter().zip(bytes).map(chunk).collect());
        }
    }
    Err(restless())
}

pub(crate) async fn tail(
    pool: &SqlitePool,
    folder: &Folder,
    job: JobId,
    attempt: u32,
    stream: Stream,
    max_bytes: usize,
) -> Result<Bytes, Error> {
    const QUERY: &str = "SELECT c.n, c.stream, c.bytes, c.place, c.length
        FROM jobs j CROSS JOIN outputs o ON o.job = j.seq CROSS JOIN chunks c ON c.job = j.seq
        WHERE j.id = ? AND o.attempt = ? AND c.stream = ? ORDER BY c.n DESC";
    if max_bytes == 0 {
        return Ok(Bytes::new());
    }
    for _ in 0..TRIES {
        let query = sqlx::query(QUERY).bind(job.as_bytes().to_vec()).bind(i64::from(attempt));
        let mut found = query.bind(column::stream_number(stream)).fetch(pool);
        let mut rows: Vec<Row> = Vec::new();
        let mut len = 0_usize;
        while len < max_bytes
            && let Some(row) = found.try_next().await?
        {
            let row = Row::of(&row)?;
            len = len.saturating_add(row.len());
            rows.push(row);
        }
        drop(found);
        rows.reverse();
        if let Some(bytes) = bytes(pool, folder, job, attempt, &rows).await? {
            let all: Bytes = bytes.concat().into();
            return Ok(all.slice(all.len().saturating_sub(max_bytes)..));
        }
    }
    Err(restless())
}

fn restless() -> Error {
    Error::Refused(
        ErrorKind::Unavailable { retry_after: Duration::from_millis(100) },
        "the output changes faster than it can be read".to_owned(),
    )
}

/// The bytes of these rows, which are in the order of their numbers. `None`: some of them were removed meanwhile, and what
/// was read of the job's file may be a hole.
async fn bytes(
    pool: &SqlitePool,
    folder: &Folder,
    job: JobId,
    attempt: u32,
    rows: &[Row],
) -> Result<Option<Vec<Bytes>>, Error> {
    let extents: Vec<Extent> = rows.iter().filter_map(Row::extent).collect();
    let mut read = Some(Vec::new());
    if !extents.is_empty() {
        let (folder, wanted) = (folder.clone(), extents.clone());
        let reading = tokio::task::spawn_blocking(move || folder.read(job, &wanted));
        read = reading.await.map_err(std::io::Error::other)??;
        // Rows go first and their bytes after them: what has its row now had its bytes when they were read.
        if !still(pool, job, attempt, rows, &extents).await? {
            return Ok(None);
        }
    }
    let Some(read) = read else {
        return Err(Error::Refused(ErrorKind::Corrupt, format!("the file with the output of job {job} is damaged")));
    };
    let mut read = read.into_iter();
    let bytes = |row: &Row| match &row.body {
        Body::Row(bytes) => bytes.clone(),
        Body::File(_) => read.next().unwrap_or_default(),
    };
    Ok(Some(rows.iter().map(bytes).collect()))
}

/// Whether all of these extents have their rows.
async fn still(pool: &SqlitePool, job: JobId, attempt: u32, rows: &[Row], extents: &[Extent]) -> Result<bool, Error> {
    const QUERY: &str = "SELECT c.place
        FROM jobs j CROSS JOIN outputs o ON o.job = j.seq CROSS JOIN chunks c ON c.job = j.seq
        WHERE j.id = ? AND o.attempt = ? AND c.n BETWEEN ? AND ? AND c.place IS NOT NULL ORDER BY c.n";
    let (first, last) = (rows.first().map_or(0, |row| row.seq), rows.last().map_or(0, |row| row.seq));
    let query = sqlx::query(QUERY).bind(job.as_bytes().to_vec()).bind(i64::from(attempt));
    let mut found = query.bind(column::signed(first)).bind(column::signed(last)).fetch(pool);
    // Between them may be those of the other stream.
    let mut wanted = extents;
    while let [next, rest @ ..] = wanted
        && let Some(row) = found.try_next().await?
    {
        if row.try_get::<i64, _>(0)? == column::signed(next.place) {
            wanted = rest;
        }
    }
    Ok(wanted.is_empty())
}

pub(crate) async fn extent(pool: &SqlitePool, job: JobId, attempt: u32) -> Result<Extents, Error> {
    const QUERY: &str = "SELECT coalesce((SELECT max(n) + 1 FROM chunks WHERE job = o.job), 0), o.bytes, o.dropped,
            o.trimmed
        FROM jobs j CROSS JOIN outputs o ON o.job = j.seq WHERE j.id = ? AND o.attempt = ?";
    let query = sqlx::query(QUERY).bind(job.as_bytes().to_vec()).bind(i64::from(attempt));
    let Some(row) = query.fetch_optional(pool).await? else { return Ok(Extents::default()) };
    Ok(Extents {
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
    const QUERY: &str = "SELECT c.n, coalesce(c.length, length(c.bytes))
        FROM jobs j CROSS JOIN outputs o ON o.job = j.seq CROSS JOIN chunks c ON c.job = j.seq
        WHERE j.id = ? AND o.attempt = ? AND c.n >= ? ORDER BY c.n LIMIT ?";
    let query = sqlx::query(QUERY).bind(job.as_bytes().to_vec()).bind(i64::from(attempt)).bind(column::signed(from));
    let rows = query.bind(column::length(limit)).fetch_all(pool).await?;
    rows.iter().map(|row| Ok((column::unsigned(row.try_get(0)?)?, column::unsigned(row.try_get(1)?)?))).collect()
}

/// By the index that has the times, since they lie behind the bytes.
pub(crate) async fn times(
    pool: &SqlitePool,
    job: JobId,
    attempt: u32,
    from: u64,
    limit: usize,
) -> Result<Vec<(u64, Timestamp)>, Error> {
    const QUERY: &str = "SELECT c.n, coalesce(c.at, 0)
        FROM jobs j CROSS JOIN outputs o ON o.job = j.seq CROSS JOIN chunks c INDEXED BY chunks_times ON c.job = j.seq
        WHERE j.id = ? AND o.attempt = ? AND c.n >= ? ORDER BY c.n LIMIT ?";
    let query = sqlx::query(QUERY).bind(job.as_bytes().to_vec()).bind(i64::from(attempt)).bind(column::signed(from));
    let rows = query.bind(column::length(limit)).fetch_all(pool).await?;
    rows.iter().map(|row| Ok((column::unsigned(row.try_get(0)?)?, Timestamp::from_millis(row.try_get(1)?)))).collect()
}

pub(crate) async fn since(pool: &SqlitePool, job: JobId, attempt: u32, time: Timestamp) -> Result<Option<u64>, Error> {
    const QUERY: &str = "SELECT min(c.n)
        FROM jobs j CROSS JOIN outputs o ON o.job = j.seq CROSS JOIN chunks c INDEXED BY chunks_times ON c.job = j.seq
        WHERE j.id = ? AND o.attempt = ? AND c.at >= ?";
    let query = sqlx::query(QUERY).bind(job.as_bytes().to_vec()).bind(i64::from(attempt)).bind(time.as_millis());
    let first: Option<i64> = query.fetch_one(pool).await?.try_get(0)?;
    first.map(column::unsigned).transpose()
}
