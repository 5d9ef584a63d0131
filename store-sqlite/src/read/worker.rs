//! Workers.

use std::collections::HashMap;

use bytes::Bytes;
use cmdexec_core::id::WorkerId;
use cmdexec_core::store::WorkerRow;
use cmdexec_core::time::Timestamp;
use sqlx::Row;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::column;
use crate::error::Error;

fn worker(row: &SqliteRow) -> Result<WorkerRow, Error> {
    Ok(WorkerRow {
        id: column::worker_id(row.try_get(0)?)?,
        info: Bytes::copy_from_slice(row.try_get(1)?),
        registered: Timestamp::from_millis(row.try_get(2)?),
        removed: row.try_get(3)?,
        renewed: Timestamp::from_millis(row.try_get(4)?),
        beat: column::json("beat", row.try_get(5)?)?,
    })
}

pub(crate) async fn get(pool: &SqlitePool, ids: &[WorkerId]) -> Result<Vec<Option<WorkerRow>>, Error> {
    const QUERY: &str = "SELECT w.id, w.info, w.registered, w.removed, s.renewed, s.beat
        FROM json_each(?) asked CROSS JOIN workers w ON w.id = asked.value JOIN sessions s ON s.id = w.id";
    let rows = sqlx::query(QUERY).bind(column::worker_ids(ids)).fetch_all(pool).await?;
    let found: HashMap<WorkerId, WorkerRow> =
        rows.iter().map(|row| worker(row).map(|worker| (worker.id.clone(), worker))).collect::<Result<_, _>>()?;
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

/// Those that were removed only `with_removed`.
pub(crate) async fn list(
    pool: &SqlitePool,
    after: Option<&WorkerId>,
    limit: usize,
    with_removed: bool,
) -> Result<Vec<WorkerRow>, Error> {
    const QUERY: &str = "SELECT w.id, w.info, w.registered, w.removed, s.renewed, s.beat
        FROM workers w JOIN sessions s ON s.id = w.id WHERE w.id > ? AND w.removed <= ? ORDER BY w.id LIMIT ?";
    // No id is empty.
    let query = sqlx::query(QUERY).bind(after.map_or("", WorkerId::as_str)).bind(with_removed);
    query.bind(column::length(limit)).fetch_all(pool).await?.iter().map(worker).collect()
}
