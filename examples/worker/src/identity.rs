//! Who the worker is: made once, and kept in its directory.

use std::io;
use std::path::Path;

use anyhow::Context;
use cmdexec_core::id::WorkerId;

const FILE: &str = "worker-id";

/// The id that was kept, if there is one.
pub(crate) fn load(work_dir: &Path) -> anyhow::Result<Option<WorkerId>> {
    let path = work_dir.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().parse().with_context(|| path.display().to_string())?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Keeps the id for the next start.
pub(crate) fn keep(work_dir: &Path, id: &WorkerId) -> anyhow::Result<()> {
    let path = work_dir.join(FILE);
    let unfinished = work_dir.join(format!("{FILE}.new"));
    let kept = std::fs::write(&unfinished, format!("{id}\n")).and_then(|()| std::fs::rename(&unfinished, &path));
    kept.with_context(|| format!("keeping the worker's id in {}", path.display()))
}
