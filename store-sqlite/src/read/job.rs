//! Jobs, whole.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cmdexec_core::id::JobId;
use cmdexec_core::job::{Class, Job};
use cmdexec_core::time::Timestamp;
use sqlx::Row;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::column;
use crate::error::Error;

/// What [`Decoder::job`] reads; to be followed by conditions on `j`.
macro_rules! select_job {
    ($from:literal, $conditions:literal) => {
        concat!(
            "SELECT j.id, j.version, j.owner, j.created, j.life, c.key, s.spec FROM ",
            $from,
            " JOIN specs s ON s.seq = j.seq JOIN classes c ON c.class = j.class ",
            $conditions
        )
    };
}
pub(crate) use select_job;

/// Makes jobs of rows. Remembers classes, which are few, so that each is parsed once and shared.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    classes: Mutex<HashMap<String, Class>>,
}

/// Beyond this the memory is emptied: whoever makes up classes must not fill it.
const KNOWN_CLASSES: usize = 4096;

impl Decoder {
    pub(crate) fn job(&self, row: &SqliteRow) -> Result<Job, Error> {
        Ok(Job {
            id: column::job_id(row.try_get(0)?)?,
            version: column::unsigned(row.try_get(1)?)?,
            owner: row.try_get::<&str, _>(2)?.parse().map_err(|e| Error::row("owner", e))?,
            created: Timestamp::from_millis(row.try_get(3)?),
            life: column::json("life", row.try_get(4)?)?,
            class: self.class(row.try_get(5)?)?,
            spec: Arc::new(column::json("spec", row.try_get(6)?)?),
        })
    }

    pub(crate) fn jobs(&self, rows: &[SqliteRow]) -> Result<Vec<Job>, Error> {
        rows.iter().map(|row| self.job(row)).collect()
    }

    pub(crate) fn class(&self, key: &str) -> Result<Class, Error> {
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(class) = classes.get(key) {
            return Ok(class.clone());
        }
        let class = Class::from_key(key).map_err(|e| Error::row("class", e))?;
        if classes.len() >= KNOWN_CLASSES {
            classes.clear();
        }
        classes.insert(key.to_owned(), class.clone());
        Ok(class)
    }
}

pub(crate) async fn get(pool: &SqlitePool, decoder: &Decoder, ids: &[JobId]) -> Result<Vec<Option<Job>>, Error> {
    const QUERY: &str = select_job!("json_each(?) asked CROSS JOIN jobs j ON j.id = unhex(asked.value)", "");
    let asked = column::hex(ids.iter().map(|id| id.as_bytes().as_slice()));
    let rows = sqlx::query(QUERY).bind(asked).fetch_all(pool).await?;
    let jobs: HashMap<JobId, Job> =
        rows.iter().map(|row| decoder.job(row).map(|job| (job.id, job))).collect::<Result<_, _>>()?;
    Ok(ids.iter().map(|id| jobs.get(id).cloned()).collect())
}
