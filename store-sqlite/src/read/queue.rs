//! The questions of the coordinator: what is ready, what is due, whose lease is over, and how much there is.
//!
//! Each names its index, because left to itself SQLite takes the one by status for some of them, and then looks at
//! every job in it. A statement whose index does not fit fails at once, so that the suite notices.

use std::time::Duration;

use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{Class, Job, Place, Status};
use cmdexec_core::store::Queue;
use cmdexec_core::time::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqlitePool;

use super::column;
use super::job::{Decoder, select_job};
use crate::error::Error;
use crate::writer::rank;

pub(crate) async fn classes(pool: &SqlitePool, decoder: &Decoder) -> Result<Vec<Queue>, Error> {
    const QUERY: &str = "SELECT c.key, c.queued, j.rank, j.id
        FROM classes c CROSS JOIN jobs j ON j.seq =
            (SELECT seq FROM jobs INDEXED BY jobs_ready WHERE status = 1 AND class = c.class ORDER BY rank, id LIMIT 1)
        WHERE c.queued > 0";
    let rows = sqlx::query(QUERY).fetch_all(pool).await?;
    let queue = |row: &sqlx::sqlite::SqliteRow| {
        let priority = i8::try_from(-row.try_get::<i64, _>(2)?).map_err(|e| Error::row("rank", e))?;
        Ok(Queue {
            class: decoder.class(row.try_get(0)?)?,
            head: Place { priority, id: column::job_id(row.try_get(3)?)? },
            queued: column::unsigned(row.try_get(1)?)?,
        })
    };
    rows.iter().map(queue).collect()
}

pub(crate) async fn ready(
    pool: &SqlitePool,
    decoder: &Decoder,
    class: &Class,
    after: Option<Place>,
    limit: usize,
) -> Result<Vec<Job>, Error> {
    const QUERY: &str = select_job!(
        "jobs j INDEXED BY jobs_ready",
        "WHERE j.status = 1 AND j.class = (SELECT class FROM classes WHERE key = ?) AND (j.rank, j.id) > (?, ?)
        ORDER BY j.rank, j.id LIMIT ?"
    );
    // No rank is as low.
    let (rank, id) = after.map_or((i64::MIN, [0; 16]), |place| (rank(place.priority), *place.id.as_bytes()));
    let query = sqlx::query(QUERY).bind(class.key()).bind(rank).bind(id.as_slice()).bind(column::length(limit));
    decoder.jobs(&query.fetch_all(pool).await?)
}

pub(crate) async fn due(pool: &SqlitePool, decoder: &Decoder, now: Timestamp, limit: usize) -> Result<Vec<Job>, Error> {
    const QUERY: &str =
        select_job!("jobs j INDEXED BY jobs_due", "WHERE j.status = 0 AND j.due <= ? ORDER BY j.due, j.id LIMIT ?");
    let query = sqlx::query(QUERY).bind(now.as_millis()).bind(column::length(limit));
    decoder.jobs(&query.fetch_all(pool).await?)
}

pub(crate) async fn next_due(pool: &SqlitePool) -> Result<Option<Timestamp>, Error> {
    const QUERY: &str =
        "SELECT due FROM jobs INDEXED BY jobs_due WHERE status = 0 AND due IS NOT NULL ORDER BY due LIMIT 1";
    let due: Option<i64> = sqlx::query_scalar(QUERY).fetch_optional(pool).await?;
    Ok(due.map(Timestamp::from_millis))
}

/// Looks at each worker that holds a lease, from one to the next by the index; and for hard ends at each lease, which takes some 10 ms
/// for 100,000 of them.
pub(crate) async fn expired(
    pool: &SqlitePool,
    decoder: &Decoder,
    now: Timestamp,
    lease: Duration,
    limit: usize,
) -> Result<Vec<Job>, Error> {
    const QUERY: &str = select_job!(
        "(WITH RECURSIVE
            holders (worker) AS (
                SELECT min(worker) FROM jobs INDEXED BY jobs_leases WHERE status IN (2, 3)
                UNION ALL
                SELECT (SELECT min(worker) FROM jobs INDEXED BY jobs_leases WHERE status IN (2, 3) AND worker > holders.worker)
                FROM holders WHERE worker IS NOT NULL
            ),
            lapsed (worker) AS (
                SELECT h.worker FROM holders h LEFT JOIN sessions s ON s.id = h.worker
                WHERE h.worker IS NOT NULL AND (s.renewed IS NULL OR s.renewed <= ?2)
            )
        SELECT seq FROM jobs INDEXED BY jobs_leases WHERE status IN (2, 3) AND hard_end <= ?1
        UNION ALL
        SELECT l.seq FROM lapsed CROSS JOIN jobs l INDEXED BY jobs_leases ON l.worker = lapsed.worker AND l.status IN (2, 3) AND l.floor <= ?1
            WHERE l.hard_end IS NULL OR l.hard_end > ?1
        LIMIT ?3) found CROSS JOIN jobs j ON j.seq = found.seq",
        ""
    );
    let query =
        sqlx::query(QUERY).bind(now.as_millis()).bind(now.before(lease).as_millis()).bind(column::length(limit));
    decoder.jobs(&query.fetch_all(pool).await?)
}

pub(crate) async fn leased(pool: &SqlitePool, decoder: &Decoder, workers: &[WorkerId]) -> Result<Vec<Job>, Error> {
    const QUERY: &str = select_job!(
        "(SELECT DISTINCT value FROM json_each(?)) asked
            CROSS JOIN jobs j INDEXED BY jobs_leases ON j.worker = asked.value AND j.status IN (2, 3)",
        ""
    );
    decoder.jobs(&sqlx::query(QUERY).bind(column::worker_ids(workers)).fetch_all(pool).await?)
}

pub(crate) async fn counts(pool: &SqlitePool) -> Result<Vec<(Status, u64)>, Error> {
    let rows = sqlx::query("SELECT status, jobs FROM counts").fetch_all(pool).await?;
    rows.iter().map(|row| Ok((column::status(row.try_get(0)?)?, column::unsigned(row.try_get(1)?)?))).collect()
}
