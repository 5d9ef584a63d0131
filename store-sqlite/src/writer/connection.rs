//! The writer's connection, and what becomes of a group on it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::store::ErrorKind;
use cmdexec_core::time::Clock;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::call::Call;
use super::group::{Classes, Group};
use crate::error::{Error, RETRY_AFTER};

/// More than there are statements, so that each is prepared once.
const STATEMENTS: usize = 64;

/// The most that the log is left with after a checkpoint; a burst's log is given back to the disk.
const KEPT_LOG_BYTES: u32 = 64 * 1024 * 1024;

/// Pages in the log at which the writer writes them back. More than SQLite's own 1,000, so that pages which change
/// again and again are written back less often; the log is then some 16 MiB. Chosen, not yet measured.
const CHECKPOINT_PAGES: u32 = 4_000;

/// Pages of SQLite's default size in a MiB.
const PAGES_PER_MIB: i64 = 256;

/// How the writer's connection is opened.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) cache_kib: u32,
    /// The most that the database may grow to.
    pub(crate) max_mib: Option<u32>,
}

impl Settings {
    fn connect(&self) -> Result<Connection, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.path, flags)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        conn.busy_timeout(Duration::from_secs(5))?;
        conn.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -{};
            PRAGMA mmap_size = 0; PRAGMA temp_store = memory; PRAGMA foreign_keys = OFF;
            PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}; PRAGMA journal_size_limit = {KEPT_LOG_BYTES};",
            self.cache_kib
        ))?;
        if let Some(most) = self.max_mib {
            conn.pragma_update(None, "max_page_count", i64::from(most) * PAGES_PER_MIB)?;
        }
        Ok(conn)
    }
}

pub(super) struct Writer {
    /// `None` after an error left it in doubt; the next group opens another.
    conn: Option<Connection>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    classes: Classes,
}

/// Why a group was rolled back.
struct Failure {
    error: Error,
    /// The place of the call that alone is to blame.
    culprit: Option<usize>,
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), culprit: None }
    }
}

impl Writer {
    pub(super) fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let conn = Some(settings.connect()?);
        Ok(Self { conn, settings, clock, classes: Classes::default() })
    }

    /// Carries a group out and answers its calls. One that can't be carried out is answered so, and the others again
    /// without it.
    pub(super) fn commit(&mut self, mut calls: Vec<Box<dyn Call>>) {
        while !calls.is_empty() {
            match self.attempt(&mut calls) {
                Ok(()) => return calls.into_iter().for_each(|call| call.answer(None)),
                Err(Failure { error, culprit: Some(place) }) => calls.remove(place).answer(Some(&error)),
                Err(Failure { error, culprit: None }) => {
                    tracing::warn!(error = %error, calls = calls.len(), "a write failed");
                    return calls.into_iter().for_each(|call| call.answer(Some(&error)));
                }
            }
        }
    }

    /// On an error nothing is written, or, if it was the commit's, it is not known whether all of it is.
    fn attempt(&mut self, calls: &mut [Box<dyn Call>]) -> Result<(), Failure> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.settings.connect()?,
        };
        // Nothing that a panic may have left half done is used again: neither the connection nor what was learnt.
        let result = catch_unwind(AssertUnwindSafe(|| self.attempt_on(&mut conn, calls)));
        if !matches!(result, Ok(Ok(()))) {
            self.classes.forget();
        }
        match result {
            Ok(result) => {
                // A transaction that could not even be rolled back goes with its connection.
                self.conn = conn.is_autocommit().then_some(conn);
                result
            }
            Err(_) => {
                let kind = ErrorKind::Unavailable { retry_after: RETRY_AFTER };
                Err(Error::Refused(kind, "the writer panicked".to_owned()).into())
            }
        }
    }

    fn attempt_on(&mut self, conn: &mut Connection, calls: &mut [Box<dyn Call>]) -> Result<(), Failure> {
        // Rolls back when it is dropped.
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut group = Group::new(&transaction, self.clock.now(), &mut self.classes);
        for (place, call) in calls.iter_mut().enumerate() {
            call.carry_out(&mut group).map_err(|error| {
                let culprit = error.is_one_calls_fault().then_some(place);
                Failure { error, culprit }
            })?;
        }
        group.finish()?;
        transaction.commit()?;
        Ok(())
    }

    pub(super) fn close(self) {
        let Some(conn) = self.conn else { return };
        // Leaves one file behind where it can; what stays in the log is as durable.
        let _ = conn.pragma_update(None, "wal_checkpoint", "TRUNCATE");
        if let Err((_, error)) = conn.close() {
            tracing::warn!(error = %error, "the database did not close cleanly");
        }
    }
}
