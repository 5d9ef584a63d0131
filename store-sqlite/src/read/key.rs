//! Idempotency keys.

use cmdexec_core::id::Owner;
use cmdexec_core::store::{Key, StoredKey};
use cmdexec_core::time::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqlitePool;

use super::column;
use crate::error::Error;

pub(crate) async fn list(
    pool: &SqlitePool,
    after: Option<(&Owner, &str)>,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<StoredKey>, Error> {
    const QUERY: &str = "SELECT owner, key, fingerprint, ids, expires FROM keys
        WHERE (owner, key) > (?, ?) AND expires > ? ORDER BY owner, key LIMIT ?";
    // No owner is empty.
    let (owner, key) = after.map_or(("", ""), |(owner, key)| (owner.as_str(), key));
    let query = sqlx::query(QUERY).bind(owner).bind(key.as_bytes()).bind(now.as_millis()).bind(column::length(limit));
    let stored = |row: &sqlx::sqlite::SqliteRow| {
        let ids: &[u8] = row.try_get(3)?;
        Ok(StoredKey {
            key: Key {
                owner: row.try_get::<&str, _>(0)?.parse().map_err(|error| Error::row("owner", error))?,
                key: column::text(row.try_get(1)?)?,
                fingerprint: column::exactly(row.try_get(2)?)?,
                ttl: Timestamp::from_millis(row.try_get(4)?).since(now),
            },
            ids: ids.chunks(16).map(column::job_id).collect::<Result<_, _>>()?,
        })
    };
    query.fetch_all(pool).await?.iter().map(stored).collect()
}
