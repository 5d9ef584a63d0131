//! One transaction, in which a group's calls write one after the other and see one another.

use std::collections::HashMap;
use std::sync::Arc;

use cmdexec_core::job::{Class, Status};
use cmdexec_core::time::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use crate::error::Error;
use crate::read::column;

/// A group under way. What calls do to it is beside this file, by what they write.
pub(crate) struct Group<'a> {
    conn: &'a Connection,
    pub(super) now: Timestamp,
    classes: &'a mut Classes,
    /// What the group adds to the jobs of each status, and to those queued in each class: written once, at its end.
    counts: [i64; Status::ALL.len()],
    queued: HashMap<i64, i64>,
}

impl<'a> Group<'a> {
    pub(super) fn new(conn: &'a Connection, now: Timestamp, classes: &'a mut Classes) -> Self {
        Self { conn, now, classes, counts: [0; Status::ALL.len()], queued: HashMap::new() }
    }

    /// A statement, prepared the first time it is used.
    pub(super) fn statement(&self, sql: &'static str) -> Result<CachedStatement<'a>, Error> {
        Ok(self.conn.prepare_cached(sql)?)
    }

    /// The number of the row that was inserted last.
    pub(super) fn last_row(&self) -> i64 {
        self.conn.last_insert_rowid()
    }

    /// The number of a class, which gets one if it has none.
    pub(super) fn class(&mut self, class: &Class) -> Result<i64, Error> {
        if let Some(number) = self.classes.0.get(class.key()) {
            return Ok(*number);
        }
        let mut find = self.statement("SELECT class FROM classes WHERE key = ?")?;
        let number = match find.query_row([class.key()], |row| row.get(0)).optional()? {
            Some(number) => number,
            None => {
                self.statement("INSERT INTO classes (key, queued) VALUES (?, 0)")?.execute([class.key()])?;
                self.last_row()
            }
        };
        self.classes.learn(class, number);
        Ok(number)
    }

    /// A job comes into a status, or goes.
    pub(super) fn count(&mut self, class: i64, status: i64, jobs: i64) {
        if let Some(count) = usize::try_from(status).ok().and_then(|place| self.counts.get_mut(place)) {
            *count += jobs;
        }
        if status == column::status_number(Status::Queued) {
            *self.queued.entry(class).or_default() += jobs;
        }
    }

    /// Writes what was counted.
    pub(super) fn finish(self) -> Result<(), Error> {
        for (status, jobs) in (0_i64..).zip(self.counts).filter(|(_, jobs)| *jobs != 0) {
            self.statement("UPDATE counts SET jobs = jobs + ? WHERE status = ?")?.execute(params![jobs, status])?;
        }
        for (class, jobs) in self.queued.iter().filter(|(_, jobs)| **jobs != 0) {
            self.statement("UPDATE classes SET queued = queued + ? WHERE class = ?")?.execute(params![jobs, class])?;
        }
        Ok(())
    }
}

/// The numbers of the classes in use. A bounded part of the table, by heart.
#[derive(Debug, Default)]
pub(super) struct Classes(HashMap<Arc<str>, i64>);

/// Few installations have more than some dozens of classes; one that makes up new ones must not fill the memory.
const KNOWN_CLASSES: usize = 4096;

impl Classes {
    fn learn(&mut self, class: &Class, number: i64) {
        if self.0.len() >= KNOWN_CLASSES {
            self.0.clear();
        }
        self.0.insert(class.key().into(), number);
    }

    /// After a failed group: what it learnt may not be in the table.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}
