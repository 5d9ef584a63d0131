//! What a group comes to. Plain code over [`Facts`]: no database, no clock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cmdexec_core::job::Class;
use cmdexec_core::time::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::facts::Facts;
use super::jobs::Update;
use super::output::Pending;
use super::records::Put;
use super::script::{Part, Script};
use super::work::Work;
use crate::error::Error;

/// A group's decisions as they are made, call after call. Later calls see what earlier ones come to.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) facts: Facts,
    pub(super) now: Timestamp,
    pub(super) next_seq: &'a mut i64,
    pub(super) classes: &'a mut Classes,
    pub(super) script: Script,
    /// By status.
    pub(super) counts: [i64; 7],
    /// By class.
    pub(super) queued: HashMap<i64, i64>,
    /// By the jobs' `seq`, as are the outputs.
    pub(super) updates: HashMap<i64, Update>,
    pub(super) outputs: HashMap<i64, Pending>,
    pub(super) records: HashMap<(String, String), Option<Put>>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(facts: Facts, now: Timestamp, next_seq: &'a mut i64, classes: &'a mut Classes) -> Self {
        Self {
            facts,
            now,
            next_seq,
            classes,
            script: Script::new(),
            counts: [0; 7],
            queued: HashMap::new(),
            updates: HashMap::new(),
            outputs: HashMap::new(),
            records: HashMap::new(),
        }
    }

    /// Decides one call, whose answer is set but not given.
    pub(super) fn take(&mut self, work: &mut Work) {
        match work {
            Work::Insert { jobs, key, slot } => slot.set(self.insert(jobs, key.as_ref())),
            Work::Update { changes, slot } => {
                slot.set(Ok(changes.iter().map(|change| self.update(change)).collect()));
            }
            Work::Append { appends, slot } => {
                for append in appends.iter() {
                    self.append(append);
                }
                slot.set(Ok(()));
            }
            Work::Register { worker, info, slot } => slot.set(self.register(worker, info)),
            Work::Renew { beats, slot } => {
                slot.set(beats.iter().map(|(worker, beat)| self.renew(worker, beat)).collect());
            }
            Work::RemoveWorker { worker, slot } => slot.set(Ok(self.remove_worker(worker))),
            Work::PutRecords { kind, writes, slot } => {
                slot.set(Ok(writes.iter().map(|write| self.put_record(kind, write)).collect()));
            }
            Work::Purge { .. } | Work::Close => {}
        }
    }

    /// What is to be written.
    pub(super) fn into_script(mut self) -> Script {
        for (status, delta) in (0..).zip(self.counts).filter(|(_, delta)| *delta != 0) {
            self.script.row(Part::Counts, &[Some(status), Some(delta)]);
        }
        for (class, delta) in std::mem::take(&mut self.queued) {
            if delta != 0 {
                self.script.row(Part::Queued, &[Some(class), Some(delta)]);
            }
        }
        self.write_updates();
        self.write_outputs();
        self.write_records();
        self.script
    }
}

/// The numbers of the classes in use. A bounded part of the table, by heart.
#[derive(Debug)]
pub(super) struct Classes {
    known: HashMap<Arc<str>, i64>,
    next: i64,
}

/// Few installations have more than some dozens of classes; one that makes up new ones must not fill the memory.
const KNOWN_CLASSES: usize = 4096;

impl Classes {
    pub(super) async fn load(conn: &mut SqliteConnection) -> Result<Self, Error> {
        let last: i64 = sqlx::query_scalar("SELECT coalesce(max(class), 0) FROM classes").fetch_one(conn).await?;
        Ok(Self { known: HashMap::new(), next: last + 1 })
    }

    /// Looks the classes up that are not known.
    pub(super) async fn learn(
        &mut self,
        conn: &mut SqliteConnection,
        classes: impl Iterator<Item = &Class>,
    ) -> Result<(), Error> {
        let unknown: HashSet<&str> = classes.map(Class::key).filter(|key| !self.known.contains_key(*key)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        if self.known.len() > KNOWN_CLASSES {
            self.known.clear();
        }
        for key in unknown {
            let found =
                sqlx::query("SELECT class FROM classes WHERE key = ?").bind(key).fetch_optional(&mut *conn).await?;
            if let Some(row) = found {
                self.known.insert(key.into(), row.try_get(0)?);
            }
        }
        Ok(())
    }

    /// After a failed group: numbers that were given in it may not be in the table.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// The class's number; a new one if it has none, which is written with the group.
    pub(super) fn number(&mut self, class: &Class, script: &mut Script) -> i64 {
        if let Some(number) = self.known.get(class.key()) {
            return *number;
        }
        let number = self.next;
        self.next += 1;
        let key = script.put(class.key().as_bytes());
        script.row(Part::NewClasses, &[Some(number), key.at, key.len]);
        self.known.insert(class.key().into(), number);
        number
    }
}
