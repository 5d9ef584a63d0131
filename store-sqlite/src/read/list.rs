//! Pages of jobs.

use cmdexec_core::store::{ListQuery, Page};
use sqlx::sqlite::{SqliteArguments, SqlitePool};
use sqlx::{AssertSqlSafe, Sqlite};

use super::column;
use super::job::{Decoder, select_job};
use crate::error::Error;

/// A status that so few jobs have is the better way into a listing than the owner.
const FEW: i64 = 10_000;

/// More than any id.
const BEYOND: &[u8] = &[0xff; 17];

pub(crate) async fn list(pool: &SqlitePool, decoder: &Decoder, query: &ListQuery) -> Result<Page, Error> {
    let conditions = Conditions::of(pool, query).await?;
    let page = format!(
        "{} {} AND j.id < ? ORDER BY j.id DESC LIMIT ? OFFSET ?",
        select_job!("jobs j", "WHERE"),
        conditions.text
    );
    let before = query.before.map_or_else(|| BEYOND.to_vec(), |id| id.as_bytes().to_vec());
    let rows = conditions
        .bind(sqlx::query(AssertSqlSafe(page)))
        .bind(before)
        .bind(column::length(query.limit.saturating_add(1)))
        .bind(column::length(query.offset))
        .fetch_all(pool)
        .await?;
    let more = rows.len() > query.limit;
    let jobs = decoder.jobs(rows.get(..query.limit).unwrap_or(&rows))?;
    let total = if query.count_to == 0 { 0 } else { conditions.count(pool, query.count_to).await? };
    Ok(Page { jobs, more, total })
}

/// The conditions of a query but `before`, as one of a small number of texts, so that each is prepared once.
struct Conditions<'q> {
    query: &'q ListQuery,
    text: String,
}

impl<'q> Conditions<'q> {
    /// Chooses the index by a plus before the columns that are not to lead: the jobs that bring a file are the fewest, then
    /// a worker's, then those of a rare status, then an owner's.
    async fn of(pool: &SqlitePool, query: &'q ListQuery) -> Result<Self, Error> {
        let by_input = query.input.is_some();
        let by_worker = !by_input && query.worker.is_some();
        let is_open = !by_input && !by_worker;
        let by_status = match query.status {
            Some(status) if is_open && query.owner.is_some() => {
                let count = sqlx::query_scalar("SELECT jobs FROM counts WHERE status = ?");
                let jobs: i64 = count.bind(column::status_number(status)).fetch_one(pool).await?;
                jobs <= FEW
            }
            status => is_open && status.is_some(),
        };
        let by_owner = is_open && !by_status;
        let mut text = String::from("1");
        let mut add = |present: bool, leads: bool, condition: &str| {
            if present {
                text.push_str(if leads { " AND " } else { " AND +" });
                text.push_str(condition);
            }
        };
        add(by_input, true, "s.input = ?");
        add(query.worker.is_some(), by_worker, "j.worker = ?");
        add(query.status.is_some(), by_status, "j.status = ?");
        add(query.owner.is_some(), by_owner, "j.owner = ?");
        add(query.created_after.is_some(), false, "j.created > ?");
        if query.label.is_some() {
            text.push_str(" AND EXISTS (SELECT 1 FROM json_each(s.spec, '$.labels') WHERE value = ?)");
        }
        Ok(Self { query, text })
    }

    fn bind(
        &self,
        mut statement: sqlx::query::Query<'static, Sqlite, SqliteArguments>,
    ) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
        if let Some(input) = self.query.input {
            statement = statement.bind(input.to_string());
        }
        if let Some(worker) = &self.query.worker {
            statement = statement.bind(worker.as_str().to_owned());
        }
        if let Some(status) = self.query.status {
            statement = statement.bind(column::status_number(status));
        }
        if let Some(owner) = &self.query.owner {
            statement = statement.bind(owner.as_str().to_owned());
        }
        if let Some(after) = self.query.created_after {
            statement = statement.bind(after.as_millis());
        }
        if let Some(label) = &self.query.label {
            statement = statement.bind(label.clone());
        }
        statement
    }

    async fn count(&self, pool: &SqlitePool, count_to: usize) -> Result<usize, Error> {
        // Only a label and an input ask for the specs.
        let specs =
            if self.query.label.is_some() || self.query.input.is_some() { "JOIN specs s ON s.seq = j.seq" } else { "" };
        let text = format!("SELECT count(*) FROM (SELECT 1 FROM jobs j {specs} WHERE {} LIMIT ?)", self.text);
        let statement = self.bind(sqlx::query(AssertSqlSafe(text))).bind(column::length(count_to));
        let row = statement.fetch_one(pool).await?;
        column::index(sqlx::Row::try_get(&row, 0)?)
    }
}
