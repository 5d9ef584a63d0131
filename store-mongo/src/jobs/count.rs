//! How many jobs there are.
//!
//! MongoDB counts by walking over an index, some millions of entries a second. What is few is counted each time it is
//! asked for; of what is many the last count is given while it is fresh. Exact counters would be a second document
//! to be written with each job, in a transaction, and the one that all coordinators fight over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cmdexec_core::job::Status;
use cmdexec_core::time::{Clock, SystemClock};
use mongodb::bson::doc;

use super::queue::count_queued;
use crate::client::{Mongo, bounded};
use crate::error::Error;
use crate::schema::index;

/// How old a count of what is many may be.
const FRESH: Duration = Duration::from_secs(10);

/// More than so many jobs of a status are many.
const MANY: u64 = 10_000;

/// How many jobs are queued in each class.
type ByClass = Arc<HashMap<String, u64>>;

/// What was counted, and when by the uptime.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    queued: Mutex<Option<(Duration, ByClass)>>,
    statuses: Mutex<HashMap<Status, (Duration, u64)>>,
    /// One counts at a time.
    counting: tokio::sync::Mutex<()>,
}

impl Counted {
    /// How many jobs are queued in each class, as of [`FRESH`] ago at the most.
    pub(super) async fn queued(&self, mongo: &Mongo) -> Result<ByClass, Error> {
        let fresh = || {
            let known = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
            known.as_ref().filter(|(at, _)| is_fresh(*at)).map(|(_, counts)| Arc::clone(counts))
        };
        if let Some(counts) = fresh() {
            return Ok(counts);
        }
        let _one = self.counting.lock().await;
        if let Some(counts) = fresh() {
            return Ok(counts);
        }
        let counts = Arc::new(count_queued(mongo).await?);
        *self.queued.lock().unwrap_or_else(PoisonError::into_inner) = Some((uptime(), Arc::clone(&counts)));
        Ok(counts)
    }

    /// How many jobs there are of each status: up to [`MANY`] exactly, beyond as of [`FRESH`] ago at the most.
    pub(crate) async fn statuses(&self, mongo: &Mongo) -> Result<Vec<(Status, u64)>, Error> {
        let counting = Status::ALL.map(|status| self.status(mongo, status));
        let counts = futures_util::future::try_join_all(counting).await?;
        Ok(Status::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect())
    }

    async fn status(&self, mongo: &Mongo, status: Status) -> Result<u64, Error> {
        let some = count(mongo, status, Some(MANY)).await?;
        if some < MANY {
            return Ok(some);
        }
        let known = self.statuses.lock().unwrap_or_else(PoisonError::into_inner).get(&status).copied();
        if let Some((at, count)) = known
            && is_fresh(at)
        {
            return Ok(count);
        }
        let all = count(mongo, status, None).await?;
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).insert(status, (uptime(), all));
        Ok(all)
    }
}

async fn count(mongo: &Mongo, status: Status, most: Option<u64>) -> Result<u64, Error> {
    let mut command = doc! {
        "count": crate::schema::JOBS,
        "query": { "status": status.as_str() },
        "hint": index::STATUS,
    };
    if let Some(most) = most {
        command.insert("limit", i64::try_from(most).unwrap_or(i64::MAX));
    }
    let reply = bounded(async { Ok(mongo.database.run_command(command).await?) }).await?;
    let counted = reply.get_i32("n").map(i64::from).or_else(|_| reply.get_i64("n"));
    let counted = counted.map_err(|error| Error::row("a count", error))?;
    Ok(u64::try_from(counted).unwrap_or(0))
}

fn is_fresh(at: Duration) -> bool {
    uptime().saturating_sub(at) < FRESH
}

fn uptime() -> Duration {
    SystemClock.uptime()
}
