//! Registrations and sessions.

use bytes::Bytes;
use cmdexec_core::id::WorkerId;
use cmdexec_core::store::{Beat, ErrorKind, Renewed};

use super::facts::WorkerFact;
use super::plan::Plan;
use super::script::Part;
use crate::error::Error;

impl Plan<'_> {
    pub(super) fn register(&mut self, worker: &WorkerId, info: &Bytes) -> Result<(), Error> {
        let fact = self.facts.workers.get(worker);
        if fact.is_some_and(|fact| fact.removed) {
            return Err(Error::Refused(ErrorKind::Conflict, "the worker was removed".to_owned()));
        }
        let beat = fact.map_or_else(Beat::default, |fact| fact.beat.clone());
        let now = self.now.as_millis();
        self.write_session(worker, &beat, now)?;
        let id = self.script.put(worker.as_str().as_bytes());
        let info = self.script.put(info);
        // The time of registration counts only for a worker that is new.
        self.script.row(Part::Workers, &[id.at, id.len, info.at, info.len, Some(now)]);
        self.facts.workers.insert(worker.clone(), WorkerFact { removed: false, renewed: now, beat });
        Ok(())
    }

    pub(super) fn renew(&mut self, worker: &WorkerId, beat: &Beat) -> Result<Renewed, Error> {
        let Some(fact) = self.facts.workers.get_mut(worker) else { return Ok(Renewed::Unknown) };
        let before = std::mem::replace(&mut fact.beat, beat.clone());
        fact.beat.completed = fact.beat.completed.saturating_add(before.completed);
        fact.beat.failed = fact.beat.failed.saturating_add(before.failed);
        if !fact.removed {
            fact.renewed = self.now.as_millis();
        }
        let (removed, renewed, beat) = (fact.removed, fact.renewed, fact.beat.clone());
        self.write_session(worker, &beat, renewed)?;
        let before = before.held;
        Ok(if removed { Renewed::Removed { before } } else { Renewed::Yes { before } })
    }

    fn write_session(&mut self, worker: &WorkerId, beat: &Beat, renewed: i64) -> Result<(), Error> {
        let json = serde_json::to_vec(beat).map_err(|e| Error::row("beat", e))?;
        let id = self.script.put(worker.as_str().as_bytes());
        let json = self.script.put(&json);
        self.script.row(Part::Sessions, &[id.at, id.len, Some(renewed), json.at, json.len]);
        Ok(())
    }

    pub(super) fn remove_worker(&mut self, worker: &WorkerId) -> bool {
        let Some(fact) = self.facts.workers.get_mut(worker).filter(|fact| !fact.removed) else { return false };
        fact.removed = true;
        let id = self.script.put(worker.as_str().as_bytes());
        self.script.row(Part::RemoveWorkers, &[id.at, id.len]);
        true
    }
}
