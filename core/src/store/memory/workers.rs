//! Workers and their sessions.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::id::WorkerId;
use crate::store::{Beat, Error, ErrorKind, Renewed, WorkerRow};
use crate::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Workers(BTreeMap<WorkerId, WorkerRow>);

impl Workers {
    pub(super) fn register(&mut self, worker: &WorkerId, info: Bytes, now: Timestamp) -> Result<(), Error> {
        match self.0.get_mut(worker) {
            Some(row) if row.removed => Err(Error::new(ErrorKind::Conflict, "the worker was removed")),
            Some(row) => {
                row.info = info;
                row.renewed = now;
                Ok(())
            }
            None => {
                let row = WorkerRow {
                    id: worker.clone(),
                    info,
                    beat: Beat::default(),
                    registered: now,
                    renewed: now,
                    removed: false,
                };
                self.0.insert(worker.clone(), row);
                Ok(())
            }
        }
    }

    pub(super) fn renew(&mut self, worker: &WorkerId, beat: Beat, now: Timestamp) -> Renewed {
        let Some(row) = self.0.get_mut(worker) else { return Renewed::Unknown };
        if !row.removed {
            row.renewed = now;
        }
        let beat = beat.after(&row.beat);
        let before = std::mem::replace(&mut row.beat, beat);
        if row.removed { Renewed::Removed { before: before.held } } else { Renewed::Yes { before: before.held } }
    }

    /// When the worker's session was last renewed; `None` if it has none.
    pub(super) fn renewed(&self, worker: &WorkerId) -> Option<Timestamp> {
        self.0.get(worker).map(|row| row.renewed)
    }

    pub(super) fn get(&self, worker: &WorkerId) -> Option<WorkerRow> {
        self.0.get(worker).cloned()
    }

    /// By id, those after `after`.
    pub(super) fn all(&self, after: Option<&WorkerId>) -> impl Iterator<Item = &WorkerRow> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.range((from, Bound::Unbounded)).map(|(_, row)| row)
    }

    pub(super) fn put(&mut self, row: WorkerRow) {
        self.0.insert(row.id.clone(), row);
    }

    pub(super) fn remove(&mut self, worker: &WorkerId) -> bool {
        let present = self.0.get_mut(worker).filter(|row| !row.removed);
        present.map(|row| row.removed = true).is_some()
    }
}
