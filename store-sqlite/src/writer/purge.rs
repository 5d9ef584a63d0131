//! Removal of what is over.

use std::collections::HashMap;
use std::time::Duration;

use cmdexec_core::time::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::script::push_row;
use crate::error::Error;
use crate::read::column;

/// Removes finished jobs with their output, keys and records, at most `limit` of each, and says how many jobs.
pub(super) async fn purge(
    conn: &mut SqliteConnection,
    now: Timestamp,
    keep: Duration,
    limit: usize,
) -> Result<usize, Error> {
    const OVER: &str = "SELECT seq, status FROM jobs INDEXED BY jobs_ended WHERE status IN (4, 5, 6) AND ended < ? ORDER BY ended, id LIMIT ?";
    const REMOVE: &str = "BEGIN IMMEDIATE;
        DELETE FROM jobs WHERE seq IN (SELECT value FROM json_each($1));
        DELETE FROM specs WHERE seq IN (SELECT value FROM json_each($1));
        DELETE FROM outputs WHERE job IN (SELECT value FROM json_each($1));
        DELETE FROM chunks WHERE job IN (SELECT value FROM json_each($1));
        UPDATE counts SET jobs = jobs - (value->>1) FROM json_each($2) WHERE status = value->>0;
        DELETE FROM keys WHERE (owner, key) IN
            (SELECT owner, key FROM keys WHERE expires <= $3 ORDER BY expires LIMIT $4);
        DELETE FROM records WHERE (kind, key) IN
            (SELECT kind, key FROM records WHERE expires <= $3 ORDER BY expires LIMIT $4);
        COMMIT;";
    let limit = column::length(limit);
    let over = sqlx::query(OVER).bind(now.before(keep).as_millis()).bind(limit).fetch_all(&mut *conn).await?;
    let mut seqs = String::from("[");
    let mut counts: HashMap<i64, i64> = HashMap::new();
    for row in &over {
        if seqs.len() > 1 {
            seqs.push(',');
        }
        seqs.push_str(&row.try_get::<i64, _>(0)?.to_string());
        *counts.entry(row.try_get(1)?).or_default() += 1;
    }
    seqs.push(']');
    let mut gone = String::new();
    for (status, jobs) in counts {
        push_row(&mut gone, &[Some(status), Some(jobs)]);
    }
    gone.push_str(if gone.is_empty() { "[]" } else { "]" });
    sqlx::query(REMOVE).bind(seqs).bind(gone).bind(now.as_millis()).bind(limit).execute(conn).await?;
    Ok(over.len())
}
