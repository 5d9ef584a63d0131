//! The database server's clock: the one that deadlines are set and compared by, so that coordinators whose own clocks
//! are wrong agree.
//!
//! It is known as an offset from a local clock that only goes forward, measured by asking the primary for its time.
//! The error is half of a round trip at the most; leases last a thousand times as long. Rejected: `$$NOW` in each write,
//! which old servers and DocumentDB lack in updates, and which makes every update a pipeline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use cmdexec_core::time::{Clock, SystemClock, Timestamp};
use mongodb::Database;
use mongodb::bson::doc;

use crate::error::Error;

/// After so long it is measured again, since two clocks never run alike.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// A measurement that took longer than this is used and repeated at once.
const PROMPT: Duration = Duration::from_millis(500);

/// The clock that deadlines are set and compared by.
#[derive(Debug, Clone)]
pub(crate) enum ServerClock {
    /// The database's.
    Measured(Arc<Measured>),
    /// Another, for tests.
    Given(Arc<dyn Clock>),
}

#[derive(Debug)]
pub(crate) struct Measured {
    /// The server's time less this machine's uptime, in milliseconds.
    offset: AtomicI64,
    /// The uptime of the last measurement, in milliseconds; before the first, long ago.
    at: AtomicI64,
    /// Somebody else is primary now, whose clock may differ.
    is_stale: AtomicBool,
    /// One measures; the others wait for it.
    measuring: tokio::sync::Mutex<()>,
}

impl Measured {
    pub(crate) fn new() -> Self {
        Self {
            offset: AtomicI64::new(0),
            at: AtomicI64::new(i64::MIN / 2),
            is_stale: AtomicBool::new(true),
            measuring: tokio::sync::Mutex::default(),
        }
    }

    /// To be measured before it is used again.
    pub(crate) fn doubt(&self) {
        self.is_stale.store(true, Ordering::Release);
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(uptime().saturating_add(self.offset.load(Ordering::Acquire)))
    }

    fn is_due(&self) -> bool {
        let age = uptime().saturating_sub(self.at.load(Ordering::Acquire));
        self.is_stale.load(Ordering::Acquire) || age > millis(MEASURE_EVERY)
    }

    async fn measure(&self, database: &Database) -> Result<(), Error> {
        let _one = self.measuring.lock().await;
        if !self.is_due() {
            return Ok(());
        }
        self.is_stale.store(false, Ordering::Release);
        let before = uptime();
        let hello = database.run_command(doc! { "hello": 1 }).await.inspect_err(|_| self.doubt())?;
        let after = uptime();
        let theirs = hello.get_datetime("localTime").map_err(|error| Error::row("the server's time", error))?;
        let middle = before + (after - before) / 2;
        self.offset.store(theirs.timestamp_millis().saturating_sub(middle), Ordering::Release);
        self.at.store(after, Ordering::Release);
        if after - before > millis(PROMPT) {
            self.doubt();
        }
        Ok(())
    }
}

impl ServerClock {
    /// The time as it is known without asking.
    pub(crate) fn now(&self) -> Timestamp {
        match self {
            Self::Measured(measured) => measured.now(),
            Self::Given(clock) => clock.now(),
        }
    }

    /// The time; the server is asked where what is known is too old.
    pub(crate) async fn current(&self, database: &Database) -> Result<Timestamp, Error> {
        if let Self::Measured(measured) = self
            && measured.is_due()
        {
            measured.measure(database).await?;
        }
        Ok(self.now())
    }
}

/// A local clock that only goes forward: whatever the wall clock of this machine says does not matter.
fn uptime() -> i64 {
    millis(SystemClock.uptime())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
