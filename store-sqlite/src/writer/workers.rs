//! Registrations and sessions.

use cmdexec_core::id::WorkerId;
use cmdexec_core::store::{Beat, ErrorKind, Renewed, WorkerRow};
use rusqlite::{OptionalExtension, params};

use super::group::Group;
use crate::error::Error;
use crate::read::column;

impl Group<'_> {
    /// Writes a registration and renews the session, whose beat stays.
    ///
    /// # Errors
    /// A refusal with `Conflict`: the worker was removed.
    pub(crate) fn register(&mut self, worker: &WorkerId, info: &[u8]) -> Result<(), Error> {
        // The time of registration counts only for a worker that is new.
        const REGISTER: &str = "INSERT INTO workers (id, info, registered, removed) VALUES (?, ?, ?, 0)
            ON CONFLICT (id) DO UPDATE SET info = excluded.info";
        const RENEW: &str = "INSERT INTO sessions (id, renewed, beat) VALUES (?, ?, ?)
            ON CONFLICT (id) DO UPDATE SET renewed = excluded.renewed";
        let mut find = self.statement("SELECT removed FROM workers WHERE id = ?")?;
        if find.query_row([worker.as_str()], |row| row.get(0)).optional()? == Some(true) {
            return Err(Error::Refused(ErrorKind::Conflict, "the worker was removed".to_owned()));
        }
        let now = self.now.as_millis();
        self.statement(REGISTER)?.execute(params![worker.as_str(), info, now])?;
        self.statement(RENEW)?.execute(params![worker.as_str(), now, beat_json(&Beat::default())?])?;
        Ok(())
    }

    /// Renews a session. That of a worker that was removed keeps its time.
    pub(crate) fn renew(&mut self, worker: &WorkerId, beat: &Beat) -> Result<Renewed, Error> {
        const FIND: &str = "SELECT w.removed, s.renewed, s.beat
            FROM workers w CROSS JOIN sessions s ON s.id = w.id WHERE w.id = ?";
        const RENEW: &str = "UPDATE sessions SET renewed = ?2, beat = ?3 WHERE id = ?1";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let found: Option<(bool, i64, String)> = self.statement(FIND)?.query_row([worker.as_str()], read).optional()?;
        let Some((removed, renewed, before)) = found else { return Ok(Renewed::Unknown) };
        let before: Beat = column::json("beat", &before)?;
        let beat = beat.clone().after(&before);
        let renewed = if removed { renewed } else { self.now.as_millis() };
        self.statement(RENEW)?.execute(params![worker.as_str(), renewed, beat_json(&beat)?])?;
        let before = before.held;
        Ok(if removed { Renewed::Removed { before } } else { Renewed::Yes { before } })
    }

    /// Writes a worker with everything that is kept of it.
    pub(crate) fn put_worker(&mut self, row: &WorkerRow) -> Result<(), Error> {
        const WORKER: &str = "INSERT OR REPLACE INTO workers (id, info, registered, removed) VALUES (?, ?, ?, ?)";
        const SESSION: &str = "INSERT OR REPLACE INTO sessions (id, renewed, beat) VALUES (?, ?, ?)";
        let WorkerRow { id, info, beat, registered, renewed, removed } = row;
        self.statement(WORKER)?.execute(params![id.as_str(), &info[..], registered.as_millis(), removed])?;
        self.statement(SESSION)?.execute(params![id.as_str(), renewed.as_millis(), beat_json(beat)?])?;
        Ok(())
    }

    /// Marks a worker as removed. Says whether it was known and not removed.
    pub(crate) fn remove_worker(&mut self, worker: &WorkerId) -> Result<bool, Error> {
        const REMOVE: &str = "UPDATE workers SET removed = 1 WHERE id = ? AND removed = 0";
        Ok(self.statement(REMOVE)?.execute([worker.as_str()])? > 0)
    }
}

fn beat_json(beat: &Beat) -> Result<String, Error> {
    serde_json::to_string(beat).map_err(|e| Error::row("beat", e))
}
