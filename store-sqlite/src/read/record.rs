//! Records.

use std::collections::HashMap;

use bytes::Bytes;
use cmdexec_core::store::Record;
use cmdexec_core::time::Timestamp;
use sqlx::Row;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::column;
use crate::error::Error;

fn record(row: &SqliteRow) -> Result<Record, Error> {
    Ok(Record {
        key: column::text(row.try_get(0)?)?,
        value: Bytes::copy_from_slice(row.try_get(1)?),
        version: column::unsigned(row.try_get(2)?)?,
    })
}

pub(crate) async fn get(
    pool: &SqlitePool,
    kind: &str,
    keys: &[String],
    now: Timestamp,
) -> Result<Vec<Option<Record>>, Error> {
    const QUERY: &str = "SELECT r.key, r.value, r.version
        FROM json_each(?) asked CROSS JOIN records r ON r.kind = ? AND r.key = unhex(asked.value)
        WHERE r.expires IS NULL OR r.expires > ?";
    let asked = column::hex(keys.iter().map(String::as_bytes));
    let query = sqlx::query(QUERY).bind(asked).bind(kind.as_bytes()).bind(now.as_millis());
    let rows = query.fetch_all(pool).await?;
    let found: HashMap<String, Record> =
        rows.iter().map(|row| record(row).map(|record| (record.key.clone(), record))).collect::<Result<_, _>>()?;
    Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
}

pub(crate) async fn list(
    pool: &SqlitePool,
    kind: &str,
    after: Option<&str>,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Record>, Error> {
    // Two texts, since `? IS NULL OR key > ?` would keep SQLite from going straight to the page.
    const FIRST: &str = "SELECT key, value, version FROM records
        WHERE kind = ?1 AND key >= ?2 AND (expires IS NULL OR expires > ?3) ORDER BY key LIMIT ?4";
    const NEXT: &str = "SELECT key, value, version FROM records
        WHERE kind = ?1 AND key > ?2 AND (expires IS NULL OR expires > ?3) ORDER BY key LIMIT ?4";
    let query = sqlx::query(if after.is_none() { FIRST } else { NEXT })
        .bind(kind.as_bytes())
        .bind(after.unwrap_or_default().as_bytes())
        .bind(now.as_millis())
        .bind(column::length(limit));
    query.fetch_all(pool).await?.iter().map(record).collect()
}
