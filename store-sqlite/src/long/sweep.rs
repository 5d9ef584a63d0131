//! Files of jobs that are gone: what a process that died between a purge and its end has left behind.

use std::path::PathBuf;

use cmdexec_core::id::JobId;
use rusqlite::{Connection, OpenFlags};

use super::Folder;
use crate::error::Error;

/// Looks for them.
#[derive(Debug)]
pub(crate) struct Sweep {
    pub(crate) database: PathBuf,
}

impl Sweep {
    /// Removes them. No file must be made meanwhile.
    pub(super) fn run(&self, folder: &Folder) -> Result<(), Error> {
        let entries = match std::fs::read_dir(&folder.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.database, flags)?;
        let mut find = conn.prepare("SELECT 1 FROM jobs WHERE id = ?")?;
        for entry in entries {
            let entry = entry?;
            // What was not made here stays.
            let Some(job) = entry.file_name().to_str().and_then(|name| name.parse::<JobId>().ok()) else { continue };
            if !find.exists([job.as_bytes().as_slice()])? {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}
